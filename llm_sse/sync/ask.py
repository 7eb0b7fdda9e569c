"""`stream_sync()` and its kin: check what is asked, and open the stream.

    caller's thread                          producer's thread
    TokenStream -> Reader <--- Channel <--- EventSource -> transport

`stream_sync` checks everything that can be checked, starts the thread and returns at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import requests

from ..chat import Message, Tool, check_base_url, check_header, make_chat
from ..completion import Completion
from ..errors import ConfigurationError
from ..events import Event
from ..providers import Provider, find_provider
from ..response_format import read_format
from ..retry import RetryPolicy
from .channel import Channel
from .fallback import OWN, Candidate, Fallbacks, read_fallback
from .observer import observation_of
from .reader import Timeouts
from .source import EventSource
from .stream import TokenStream

if TYPE_CHECKING:
    from .recorder import Recording

__all__ = [
    "check_question",
    "complete_sync",
    "stream_anthropic",
    "stream_gemini",
    "stream_ollama",
    "stream_openai",
    "stream_sync",
]


def stream_sync(
    prompt: str | None = None,
    *,
    provider: str | Provider = "openai",
    model: str | None = None,
    messages: Sequence[Message | Mapping[str, Any]] | None = None,
    system: str | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    stop: str | Sequence[str] | None = None,
    tools: Sequence[Tool | Mapping[str, Any]] | None = None,
    tool_choice: str | Mapping[str, Any] | None = None,
    response_format: Any = None,
    logprobs: int | None = None,
    api_key: str | None = None,
    base_url: str | None = None,
    headers: Mapping[str, str] | None = None,
    extra_body: Mapping[str, Any] | None = None,
    stream: bool = True,
    session: requests.Session | None = None,
    buffer_size: int = 256,
    timeouts: Timeouts | None = None,
    retry: RetryPolicy | None = None,
    fallback: str | Sequence[str | Mapping[str, Any]] | None = None,
    record: str | os.PathLike[str] | Recording | None = None,
) -> TokenStream:
    """Ask a model and return its answer as a stream of text.

    Returns at once: the request is on its way in a thread of its own.

    Args:
        prompt: The question; with `messages`, their last user turn.
        provider: `openai`, `openai-responses`, `anthropic`, `gemini`, `ollama`, a gateway such as
            `groq`, or a name of your own; see `register_provider`. Or a row itself.
        model: The model; else the environment's, else the provider's default.
        messages: A conversation, in the shape of OpenAI's chat messages.
        system: Instructions that stand above the conversation.
        max_tokens: The most tokens that the answer may have.
        temperature: Sampling temperature.
        top_p: Nucleus sampling threshold.
        stop: One text, or several, at which the answer ends.
        tools: Each a `Tool`, the same in OpenAI's shape, or a provider's own.
        tool_choice: `auto`, `none`, `required`, or a tool's name.
        response_format: The form of the answer, for `parsed()` and `partial()`: a type (a
            `msgspec.Struct`, a dataclass, a `TypedDict`, `list[int]`, a pydantic model), a JSON
            Schema, OpenAI's own object, or `json_object` for any JSON object.
        logprobs: How many alternatives to tell for each token, with the log-probabilities of all
            of them; 0 is the chosen token alone.
        api_key: The key; else the environment's. With a `base_url` it may be empty: then none is
            sent, the environment's neither.
        base_url: Another server, in the form that the vendor's own SDK takes.
        headers: More headers for the request.
        extra_body: Merged into the request's JSON, for whatever has no argument here.
        stream: `False` asks for the whole answer at once; the loop is the same, and gets it in one
            piece.
        session: A `requests.Session` of your own (proxies, certificates, adapters), used as it is,
            but for its `auth`. Until its response's headers are there, `close()` cannot end its
            wait for them: the thread goes when the server answers, or the limits have passed.
        buffer_size: How many events may wait for you; then the provider has to.
        timeouts: The limits of the waiting.
        retry: What to do about failures.
        fallback: Providers that are asked in turn when the one before fails, or is late
            (`timeouts.first_token_s`), before its first content: names, or dictionaries of
            `provider` and what of `model`, `api_key`, `base_url`, `headers`, `extra_body` and
            `session` shall be its own. But for the session these are not shared; all else is. A
            `FellBack` event tells of it.
        record: A new file, to which everything is written as it comes: the requests without their
            keys, and the responses byte by byte. `FakeServer(replay=...)` plays it. A file that
            cannot be written to the end (a full disk) ends no stream: the logger `llm_sse` warns.

    Raises:
        ConfigurationError: Something is missing or wrong; nothing was sent.
    """
    given: dict[str, Any] = {
        "prompt": prompt,
        "provider": provider,
        "model": model,
        "messages": messages,
        "system": system,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "stop": stop,
        "tools": tools,
        "tool_choice": tool_choice,
        "response_format": response_format,
        "logprobs": logprobs,
        "api_key": api_key,
        "base_url": base_url,
        "headers": headers,
        "extra_body": extra_body,
        "stream": stream,
        "session": session,
        "buffer_size": buffer_size,
        "timeouts": timeouts,
        "retry": retry,
        "fallback": fallback,
        "record": record,
    }
    candidates = _candidates(given)
    reader = candidates[0].open() if len(candidates) == 1 else Fallbacks(candidates)
    return TokenStream(reader, response_format)


def check_question(prompt: str | None = None, **arguments: Any) -> None:
    """Check what would be asked, without asking.

    Args:
        prompt: The question.
        arguments: Those of `stream_sync`.

    Raises:
        ConfigurationError: What `stream_sync` would raise.
    """
    known: dict[str, Any] = stream_sync.__kwdefaults__ or {}
    for name in arguments.keys() - known.keys():
        raise ConfigurationError(f"stream_sync has no argument {name!r}")
    _candidates({"prompt": prompt, **known, **arguments})


def _candidates(question: Mapping[str, Any]) -> list[Candidate]:
    """Write what each provider is asked, and check all of it.

    Args:
        question: The arguments of `stream_sync`, all of them.

    Raises:
        ConfigurationError: Something is missing or wrong.
    """
    question = dict(question)
    first = {name: question.pop(name) for name in OWN}
    others = read_fallback(question.pop("fallback"), first)
    common = {name: question.pop(name) for name in ("buffer_size", "timeouts", "retry")}
    common["recording"] = _recording(question.pop("record"))
    common["question"] = question
    candidates = [_candidate(**first, **common)]
    for other in others:
        try:
            candidates.append(_candidate(**other, **common))
        except ConfigurationError as error:
            where = 'in fallback, where a dict can have "api_key", "base_url" and more of its own'
            error.args = (f"{where}: {error}",)
            raise
    return candidates


def _recording(record: Any) -> Recording | None:
    if record is None:
        return None
    from .recorder import Recording  # noqa: PLC0415  # few need it

    return record if isinstance(record, Recording) else Recording(record)


def _candidate(
    *,
    provider: str | Provider,
    question: Mapping[str, Any],
    session: requests.Session | None,
    buffer_size: int,
    timeouts: Timeouts | None,
    retry: RetryPolicy | None,
    recording: Recording | None,
    model: str | None = None,
    api_key: str | None = None,
    base_url: str | None = None,
    headers: Mapping[str, str] | None = None,
    extra_body: Mapping[str, Any] | None = None,
) -> Candidate:
    """Write what a provider is asked, and check all of it.

    Raises:
        ConfigurationError: Something is missing or wrong.
    """
    row = find_provider(provider)
    environ = os.environ
    try:
        if model is not None and not isinstance(model, str):
            raise ConfigurationError(f"model must be a str, not {type(model).__name__}")
        format_ = read_format(question["response_format"])
        chat = make_chat(
            model=model if model is not None else row.find_model(environ),
            extra_body=extra_body,
            **{**question, "response_format": format_},
        )
        if base_url is None:
            base_url = row.find_base_url(environ)
        where = check_base_url(base_url)
        key = row.key(api_key, environ, elsewhere=where != row.base_url)
        channel: Channel[Event] = Channel(buffer_size)
        limits = of_type(timeouts, Timeouts, "timeouts")
        source = EventSource(
            row,
            chat,
            key,
            where,
            policy=of_type(retry, RetryPolicy, "retry"),
            timeouts=limits,
            headers=_headers(headers),
            session=_session(session),
            channel=channel,
            observation=observation_of(row, chat, where),
        )
    except ConfigurationError as error:
        error.provider = row.name
        error.__cause__ = error.__context__ = None  # it may hold what could not be sent
        raise
    return Candidate(row.name, source, channel, limits, recording)


def complete_sync(prompt: str | None = None, **arguments: Any) -> Completion:
    """Ask a model for its whole answer at once, without streaming.

    The arguments are those of `stream_sync`; the limits and retries, too. As the first content is
    the whole answer, `first_token_s` limits all of it. `complete_sync(..., response_format=Recipe)`
    asks for a value, and `.parsed(Recipe)` is the value.

    Raises:
        StreamError: There is no whole answer.
    """
    if "stream" in arguments:
        raise ConfigurationError("complete_sync never streams; leave stream= out")
    answer = stream_sync(prompt, **{**arguments, "stream": False})
    del arguments  # an error that the answer ends in has this frame, which must not hold the key
    return answer.completion


def stream_openai(prompt: str | None = None, **arguments: Any) -> TokenStream:
    """Ask OpenAI; the arguments are those of `stream_sync`."""
    return stream_sync(prompt, provider="openai", **arguments)


def stream_anthropic(prompt: str | None = None, **arguments: Any) -> TokenStream:
    """Ask Anthropic; the arguments are those of `stream_sync`."""
    return stream_sync(prompt, provider="anthropic", **arguments)


def stream_gemini(prompt: str | None = None, **arguments: Any) -> TokenStream:
    """Ask Gemini; the arguments are those of `stream_sync`."""
    return stream_sync(prompt, provider="gemini", **arguments)


def stream_ollama(prompt: str | None = None, **arguments: Any) -> TokenStream:
    """Ask Ollama; the arguments are those of `stream_sync`."""
    return stream_sync(prompt, provider="ollama", **arguments)


def of_type(value: Any, type_: Any, name: str) -> Any:
    if value is None:
        return type_()
    if not isinstance(value, type_):
        raise ConfigurationError(
            f"{name} must be a {type_.__name__}, not {type(value).__name__}: "
            f"write {name}={type_.__name__}(...)"
        )
    return value


def _session(session: Any) -> Any:
    if session is not None and not isinstance(session, requests.Session):
        raise ConfigurationError(
            f"session must be a requests.Session, not {type(session).__name__}"
        )
    return session


def _headers(headers: Any) -> dict[str, str]:
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        raise ConfigurationError(f"headers must be a dict, not {type(headers).__name__}")
    for name, value in headers.items():
        check_header(name, value, secret=True)
    return dict(headers)
