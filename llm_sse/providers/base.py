"""The seam between the stream and the providers.

A `Provider` is one frozen row of the table in `llm_sse.providers`: values, and pure functions from
our words to one wire format and back. Whatever changes while a stream runs lives in its `Decoder`,
one per attempt.

    ChatRequest --request()--> HTTPRequest ~~~ network ~~~ bytes --SSEDecoder--> ServerSentEvent
                                                                  --Decoder-----> Event

and the other way round, for the fake server: `accept()` reads a request as the real endpoint would,
the `Encoder` writes events as the provider does, `error_body()` an error.
"""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar, Protocol, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from ..chat import ChatRequest, HTTPRequest, Message, check_header
from ..completion import Completion
from ..errors import (
    APIError,
    AuthenticationError,
    ConfigurationError,
    ConnectionLost,
    ProtocolError,
)
from ..events import Event, FinishReason, ToolCall
from ..sse import ServerSentEvent, SSEDecoder, encode_comment

__all__ = [
    "Accepted",
    "Decoder",
    "Encoder",
    "Frames",
    "Provider",
    "ToolCallBuilder",
    "WholeAnswer",
    "asked_logprobs",
    "bearer_token",
    "decode_body",
    "decode_json",
    "end_of_body",
    "error_text",
    "is_listed_error",
    "lenient_convert",
    "lenient_decode",
    "map_strings",
    "merge",
    "plain_decode",
    "prepare",
    "retry_after_s",
    "then_raise",
]

T = TypeVar("T")


class Decoder(Protocol):
    """The meaning of one response body; made anew for every attempt.

    Attributes:
        done: The provider's terminal event was seen: nothing that follows counts.
        raw_finish_reason: The provider's last word on why the answer ended, even if the end itself
            never came.
    """

    done: bool
    raw_finish_reason: str | None

    @property
    def complete(self) -> bool:
        """Whether the answer is whole if the body ends here; something may still follow."""

    def decode(self, sse: ServerSentEvent) -> Iterable[Event]:
        """Return what a wire event means, in order.

        Raises:
            APIError: The provider reports an error inside the stream. It may be raised while the
                result is iterated, after the events that came with it.
            ProtocolError: The event is not the JSON that it should be.
        """

    def end(self) -> Iterable[Event]:
        """Return what is left to say when the body has ended.

        Raises:
            ConnectionLost: The body ended before the provider's own end. Raised while the result
                is iterated, after the events that could be saved.
        """


class Frames(Protocol):
    """What cuts a body's bytes into wire events; made anew for every attempt.

    Attributes:
        ignored: What was in the body outside of any wire event, as it came, at most 64 KiB.
    """

    ignored: bytearray

    @property
    def content_type(self) -> str:
        """The media type of such a body."""

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """Take the next bytes, of any number; return the wire events that they complete."""

    def end(self, *, dispatch_unfinished: bool = False) -> list[ServerSentEvent]:
        """Take note that no more bytes will come; return what they left unfinished, if asked."""


class Encoder(Protocol):
    """The provider's side of a response body."""

    def encode(self, event: Event) -> bytes:
        """Return the bytes for an event; none where the format says it later, or nowhere."""

    def error(self, error: APIError) -> bytes:
        """Return an error as the provider reports it inside a stream."""


class Accepted(Struct, frozen=True):
    """A request that the real endpoint would have answered.

    Attributes:
        model: The model that was asked for.
        stream: Whether a stream was asked for.
        usage: Whether the caller asked to be told the usage.
        prompt: The text of the last user turn.
        logprobs: How many alternatives the caller asked for with each token; `None` where no
            log-probabilities were asked for.
    """

    model: str
    stream: bool
    usage: bool
    prompt: str
    logprobs: int | None = None


@dataclasses.dataclass(frozen=True)
class Provider(ABC):
    """One provider, or one gateway that speaks its format: a row of the table.

    Attributes:
        name: What callers write as `provider=`.
        base_url: What the vendor's own SDK means by it.
        model: The default model.
        checked: When somebody last saw that the default model is alive (ISO date).
        key_env: The environment variables that may hold the key, the first one found counts.
        model_env: The environment variable that overrides the default model.
        base_url_env: The environment variable that overrides the base URL.
        auth_header: The header that carries the key.
        auth_prefix: What stands before the key in that header.
        needs_key: Whether it answers nobody without a key.
    """

    name: str
    base_url: str
    model: str
    checked: str
    key_env: tuple[str, ...]
    model_env: str
    base_url_env: str
    auth_header: str = "Authorization"
    auth_prefix: str = "Bearer "
    needs_key: bool = True

    #: Paths (regular expressions, matched whole) at which the real endpoint listens.
    paths: ClassVar[tuple[str, ...]] = ()
    #: What stands between a server's root and the paths that the base URL leaves to us.
    root: ClassVar[str] = ""
    #: What stands in a stream as a sign of life without content.
    ping: ClassVar[bytes] = encode_comment("ping")

    @abstractmethod
    def request(self, chat: ChatRequest, key: str, base_url: str) -> HTTPRequest:
        """Write a request, to `base_url` (without trailing slashes), with that key.

        Whether the answer shall be streamed is `chat.stream`.
        """

    def frames(self, *, stream: bool = True) -> Frames:
        """Return what cuts one body into wire events, whether it was streamed or comes whole."""
        return SSEDecoder() if stream else WholeAnswer(self.retold)

    @abstractmethod
    def decoder(self) -> Decoder:
        """Return a decoder for one response body."""

    @abstractmethod
    def retold(self, answer: dict[str, Any]) -> Iterable[Any]:
        """Return the wire events, as JSON values, that would have told a whole answer in pieces.

        So there is one understanding of an answer, whichever way it comes. An error, or anything
        else that is no answer, is returned as it is.
        """

    @abstractmethod
    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> APIError:
        """Read the answer of a provider that said no. The header names are lower-case."""

    @abstractmethod
    def stream_error(self, decoded: Any) -> APIError:
        """Read an error that came inside a 200 stream, decoded from JSON."""

    @abstractmethod
    def accept(self, path: str, headers: Mapping[str, str], body: bytes) -> Accepted:
        """Read a request as the real endpoint would. The header names are lower-case.

        Raises:
            APIError: The real endpoint would have refused it.
        """

    @abstractmethod
    def encoder(self, *, model: str, usage: bool = True) -> Encoder:
        """Return an encoder for one response body."""

    @abstractmethod
    def answer_body(self, completion: Completion) -> bytes:
        """Write an answer that is not streamed as the provider's JSON body."""

    @abstractmethod
    def error_body(self, error: APIError) -> bytes:
        """Write an error as the provider's JSON body."""

    def resume(self, chat: ChatRequest, completion: Completion) -> ChatRequest | None:
        """Ask for the rest of an answer that was cut off.

        The partial answer travels in a user turn, because current models refuse a conversation
        that ends with an assistant turn.

        Returns:
            The new request; `None` if the answer cannot be continued, because a tool call or a
            refusal had begun, or because a model that is held to a form would begin it anew.
        """
        if completion.tool_calls or completion.refusal:
            return None
        if not completion.text:
            return chat
        if chat.response_format is not None:
            return None
        turn = Message(
            role="user",
            content=(
                "Your answer to this was interrupted. What had arrived of it stands between the "
                "markers. Continue exactly where it stops: do not repeat any of it, do not "
                "comment on the interruption.\n<partial_answer>"
                f"{completion.text}</partial_answer>"
            ),
        )
        return msgspec.structs.replace(chat, messages=(*chat.messages, turn))

    def take_up(
        self, broken: Decoder, key: str, base_url: str
    ) -> tuple[HTTPRequest, Decoder] | None:
        """Write the request that takes an answer up again where its connection broke.

        What it brings is the rest of the same answer, to the letter: nothing has to be removed,
        and a tool call that had begun goes on, too.

        Args:
            broken: The decoder of what had arrived; it knows the provider's cursor.
            key: The key.
            base_url: Where the provider is.

        Returns:
            The request, and the decoder of what it brings; `None` where the provider has nothing
            of the kind, as most.
        """
        return None

    def key(self, api_key: str | None, environ: Mapping[str, str]) -> str:
        """Find the key: the caller's own, or the environment's.

        Raises:
            ConfigurationError: There is none, or it cannot be sent.
        """
        if api_key is not None and not isinstance(api_key, str):
            raise ConfigurationError(f"api_key must be a str, not {type(api_key).__name__}")
        if api_key == "" and self.needs_key:
            raise ConfigurationError(
                f"api_key is empty; leave it out to use {' or '.join(self.key_env)}",
                provider=self.name,
            )
        source = next((name for name in self.key_env if environ.get(name)), None)
        if api_key == "":
            return ""  # on purpose: the environment's key shall not go to that server
        if api_key is not None:
            found, source = api_key, "api_key"
        elif source is not None:
            found = environ[source]
        elif not self.needs_key:
            return ""
        else:
            raise ConfigurationError(
                f"no key for {self.name}: set the environment variable "
                f"{' or '.join(self.key_env)}, or pass api_key=...",
                provider=self.name,
            )
        try:
            check_header(self.auth_header, self.auth_prefix + found, secret=True)
        except ConfigurationError as error:
            raise ConfigurationError(f"the key in {source} cannot be sent: {error}") from None
        return found

    def credentials(self, key: str) -> dict[str, str]:
        """Return the header that carries the key; none where there is no key."""
        return {self.auth_header: self.auth_prefix + key} if key else {}

    def find_base_url(self, environ: Mapping[str, str]) -> str:
        """Return the environment's base URL, or the provider's own."""
        return environ.get(self.base_url_env) or self.base_url

    def api_error(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        retryable: bool | None = None,
        wait_s: float | None = None,
        unknown_model: bool = False,
        bad_key: bool = False,
    ) -> APIError:
        """Make the error for a status, with what to do next in its message.

        Args:
            status: The HTTP status, or what an in-stream error corresponds to.
            message: The provider's message.
            code: The provider's word for the error.
            body: The provider's error object.
            headers: The response's headers, for the hints in them.
            retryable: What the provider's own words say of that; the header wins.
            wait_s: How long the body asks to wait; the longer of that and the headers' wins.
            unknown_model: Whether the provider's words say that the model does not exist.
            bad_key: Whether they say that the key is not valid, whatever the status.
        """
        headers = headers or {}
        cls = APIError.class_for(401 if bad_key else status)
        if status in (408, 409) and retryable is None:
            retryable = True
        wish = headers.get("x-should-retry")
        if wish in ("true", "false"):
            retryable = wish == "true"
        text = f"{self.name} answered {status}: {message or 'no message'}"
        if cls is AuthenticationError:
            text += f" (check {' or '.join(self.key_env)} or api_key=...)"
        elif unknown_model:
            text += (
                f" (the default model is {self.model!r}, checked {self.checked}; "
                f"pass model=... or set {self.model_env})"
            )
        elif status == 404:
            text += " (is base_url right?)"
        waits = [wait for wait in (wait_s, retry_after_s(headers)) if wait is not None]
        return cls(
            text,
            status=status,
            code=code,
            detail=message,
            retry_after_s=max(waits, default=None),
            body=body,
            retryable=retryable,
            provider=self.name,
            request_id=request_id(headers),
        )


class WholeAnswer:
    """The frames of an answer that was not streamed: one JSON body, retold as wire events.

    Args:
        retold: The provider's way to retell it.
        max_bytes: The most that the body may have.
    """

    content_type = "application/json"

    def __init__(
        self,
        retold: Callable[[dict[str, Any]], Iterable[Any]],
        *,
        max_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        self.ignored = bytearray()
        self._retold = retold
        self._max_bytes = max_bytes
        self._body = bytearray()

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """Keep the bytes: nothing is known before the last one.

        Raises:
            ProtocolError: The body is larger than `max_bytes`.
        """
        self._body += chunk
        if len(self._body) > self._max_bytes:
            raise ProtocolError(f"the answer is larger than {self._max_bytes} bytes")
        return []

    def end(self, *, dispatch_unfinished: bool = False) -> list[ServerSentEvent]:
        """Return the wire events; none where the body is no JSON object."""
        body, self._body = bytes(self._body), bytearray()
        try:
            answer = decode_json(body.decode("utf-8", "replace"))
        except ProtocolError:
            answer = None
        if not isinstance(answer, dict):
            self.ignored += body[:65536]
            return []
        return [
            ServerSentEvent(msgspec.json.encode(event).decode()) for event in self._retold(answer)
        ]


class ToolCallBuilder:
    """The fragments of one tool call.

    Attributes:
        index: Its place among the calls of this answer.
        indexed: Whether the provider gives it an index.
        id: The provider's identifier, once it came.
        name: The tool's name, once it came.
        pieces: The arguments' JSON text so far, in pieces.
        signature: The provider's proof of the reasoning behind the call.
    """

    __slots__ = (
        "_look_no_more_at",
        "_looked_at",
        "id",
        "index",
        "indexed",
        "name",
        "pieces",
        "signature",
    )

    def __init__(self, index: int, id: str | None, name: str) -> None:
        self.index = index
        self.indexed = False
        self.id = id
        self.name = name
        self.pieces: list[str] = []
        self.signature: str | None = None
        self._looked_at = 0
        self._look_no_more_at = 0

    def is_whole(self) -> bool:
        """Whether the arguments are a complete JSON object so far.

        After many looks in vain the answer is no: each costs what the text is long.
        """
        if not self.pieces or not self.pieces[-1].rstrip().endswith("}"):
            return False
        if self._looked_at > self._look_no_more_at:
            return False
        size = len(self.text)
        self._looked_at += size
        self._look_no_more_at = 8 * size + 65536
        return self.build().error is None

    @property
    def text(self) -> str:
        """The arguments' JSON text so far."""
        if len(self.pieces) > 1:
            self.pieces = ["".join(self.pieces)]
        return self.pieces[0] if self.pieces else ""

    def build(self) -> ToolCall:
        """Return the complete call. No arguments at all mean an empty object."""
        text = self.text
        error = None
        arguments: Any = {}
        if text.strip():
            try:
                arguments = msgspec.json.decode(text)
            except (msgspec.DecodeError, RecursionError) as problem:
                error = f"the arguments are not valid JSON: {problem}"
            else:
                if not isinstance(arguments, dict):
                    error = "the arguments are not a JSON object"
        return ToolCall(
            id=self.id,
            name=self.name,
            arguments={} if error else arguments,
            arguments_text=text,
            error=error,
            signature=self.signature,
        )


def then_raise(events: Iterable[Event], error: Exception) -> Iterator[Event]:
    """Deliver what came together with an error before raising it."""
    yield from events
    raise error


def end_of_body(name: str) -> ConnectionLost:
    """Make the error for a body that stopped before the provider's own end."""
    return ConnectionLost(
        f"{name}: the connection ended before the answer did; what had arrived is in .completion",
        provider=name,
    )


def lenient_decode(data: str, type_: type[T], decoder: msgspec.json.Decoder[T]) -> T | Any:
    """Decode JSON into a struct that names only the fields we read.

    A field of an unexpected type must not kill a stream that can be read without it: then the
    value is converted field by field, and what does not fit takes its default.

    Returns:
        The struct; or the plain value, if the JSON is no object at all.

    Raises:
        ProtocolError: It is not JSON.
    """
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, RecursionError):  # a wrong type is a DecodeError, too
        value = decode_json(data)
    return lenient_convert(value, type_) if isinstance(value, dict) else value


def decode_json(data: str) -> Any:
    """Decode JSON, also where it is only JavaScript's idea of it.

    Gateways written in JavaScript or Python have been seen to cut an emoji between its two
    surrogates, and to print `NaN`. Half a character becomes U+FFFD, a number that is none `None`.

    Raises:
        ProtocolError: It is not JSON in anybody's reading.
    """
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        complaint = f"not valid JSON in the stream: {error}: {data[:200]!r}"
    try:
        return map_strings(_without_surrogates, json.loads(data, parse_constant=lambda _: None))
    except (ValueError, RecursionError):
        raise ProtocolError(complaint) from None


def _without_surrogates(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def map_strings(change: Callable[[str], str], value: Any) -> Any:
    """Return a decoded JSON value with every string in it changed, the objects' names included.

    It may be nested more deeply than functions can call each other.
    """
    todo: list[Any] = []

    def changed(item: Any) -> Any:
        if isinstance(item, str):
            return change(item)
        if isinstance(item, (list, dict)):
            item = item.copy()
            todo.append(item)
        return item

    root = changed(value)
    while todo:
        node = todo.pop()
        if isinstance(node, list):
            node[:] = map(changed, node)
        else:
            items = [(change(name), changed(item)) for name, item in node.items()]
            node.clear()
            node.update(items)
    return root


def prepare(*types: type[Struct]) -> None:
    """Let msgspec prepare types before several threads use them at once (see `llm_sse.chat`)."""
    for type_ in types:
        with suppress(msgspec.ValidationError):
            msgspec.convert({}, type_)


def lenient_convert(value: Any, type_: Any) -> Any:
    """Convert what can be converted; `None` or the field's default stands for what cannot."""
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError:
        pass
    for option in (type_, *get_args(type_)):
        if isinstance(value, list) and get_origin(option) is list:
            items = (lenient_convert(item, get_args(option)[0]) for item in value)
            return [item for item in items if item is not None]
        if isinstance(value, dict) and _is_struct(option):
            return option(**_lenient_fields(value, option))
    return None


def _is_struct(option: Any) -> bool:
    """Whether a type is a struct; on 3.10 `dict[str, Any]` passes for a class, but is none."""
    return get_origin(option) is None and isinstance(option, type) and issubclass(option, Struct)


def _lenient_fields(value: dict[str, Any], type_: type[Struct]) -> dict[str, Any]:
    hints = get_type_hints(type_)
    converted = {
        field.name: lenient_convert(value[field.encode_name], hints[field.name])
        for field in msgspec.structs.fields(type_)
        if field.encode_name in value
    }
    return {name: field for name, field in converted.items() if field is not None}


def plain_decode(data: str) -> Any:
    """Decode what is said to be an error: its JSON, or the text itself where it is none."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return data


def error_text(error: Any) -> tuple[str, str | None]:
    """Find the message and the code in an error object, whatever its shape.

    Source: the shapes that OpenAI, Azure, Anthropic, Google, Mistral, xAI, vLLM, Hugging Face and
    others have been seen to send.
    """
    inner = error
    while isinstance(inner, dict) or (isinstance(inner, list) and inner):
        error = inner[0] if isinstance(inner, list) else inner
        inner = error.get("error") if isinstance(error, dict) else None
    if isinstance(error, str):
        return error, None
    if not isinstance(error, dict):
        return "", None
    if isinstance(inner, str):
        code = error.get("code") or error.get("error_type")
        return inner, str(code) if code else None
    for name in ("message", "detail", "msg", "error_message"):
        if value := error.get(name):
            message = value if isinstance(value, str) else _as_text(value)
            break
    else:
        message = _as_text(error)[:500]
    code = next((error[name] for name in ("code", "type", "status") if error.get(name)), None)
    return message, None if code is None else str(code)


def _as_text(value: Any) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except RecursionError:
        return "(nested too deeply to be shown)"


def is_listed_error(value: Any) -> bool:
    """Whether a value is an error in the list that Google's servers like to put it in."""
    return (
        isinstance(value, list)
        and bool(value)
        and isinstance(value[0], dict)
        and bool(value[0].get("error"))
    )


def decode_body(body: bytes) -> Any:
    """Decode an error's body: JSON; the JSON in an event stream's first event; or text."""
    first = SSEDecoder().feed(body.lstrip() + b"\n\n")[:1]
    candidates: list[bytes | str] = [body, *(sse.data for sse in first)]
    for candidate in candidates:
        try:
            return msgspec.json.decode(candidate)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            continue
    return body.decode("utf-8", "replace").strip()[:2000]


def merge(body: dict[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the caller's `extra_body` into a request, object by object; the caller's values win."""
    for key, value in extra.items():
        mine = body.get(key)
        body[key] = (
            merge(dict(mine), value)
            if isinstance(mine, dict) and isinstance(value, dict)
            else value
        )
    return body


def asked_logprobs(asked: Any, alternatives: Any) -> int | None:
    """Return how many alternatives a request wants told, if it wants log-probabilities."""
    if asked is not True:
        return None
    return alternatives if isinstance(alternatives, int) else 0


def bearer_token(headers: Mapping[str, str]) -> str:
    """Return the token of a request's `Authorization: Bearer ...`; empty where there is none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def request_id(headers: Mapping[str, str]) -> str | None:
    """Return the identifier under which the provider knows a request."""
    for name in ("x-request-id", "request-id", "apim-request-id", "x-goog-request-id", "cf-ray"):
        if name in headers:
            return headers[name]
    return None


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return how long the headers ask to wait, in seconds; the longest where they disagree.

    A date is read against the response's own `Date`, so that nobody's clock has to be right.

    Source: RFC 9110 section 10.2.3; `retry-after-ms` is OpenAI's and Azure's,
    `llm_provider-retry-after` LiteLLM's.
    """
    waits: list[float] = []
    for name, unit_s in (
        ("retry-after-ms", 0.001),
        ("retry-after", 1.0),
        ("llm_provider-retry-after", 1.0),
    ):
        value = headers.get(name)
        if not value:
            continue
        try:
            waits.append(float(value) * unit_s)
        except ValueError:
            try:
                now = parsedate_to_datetime(headers.get("date", ""))
                waits.append((parsedate_to_datetime(value) - now).total_seconds())
            except (ValueError, TypeError):
                continue
    usable = [wait for wait in waits if 0 <= wait < float("inf")]
    return max(usable, default=None)


def normalised(
    raw: str | None, table: Mapping[str, FinishReason], *, called_tools: bool
) -> FinishReason:
    """Return our word for a provider's finish reason; delivered tool calls beat `stop`."""
    reason = table.get(raw or "", "other")
    return "tool_calls" if called_tools and reason == "stop" else reason
