"""OpenAI Chat Completions: `POST {base_url}/chat/completions`, and everything compatible with it.

Wire shape -> events:

    {"choices":[{"delta":{"content":"Hi"}}]}                    TextDelta
    {"choices":[{"delta":{"reasoning_content":"..."}}]}         ReasoningDelta  (also `reasoning`)
    {"choices":[{"delta":{"reasoning_details":[...]}}]}         ReasoningDelta  (told once)
    {"choices":[{"delta":{"refusal":"..."}}]}                   RefusalDelta
    {"choices":[{"delta":{"tool_calls":[{"index":0,...}]}}]}    ToolCallDelta
    {"choices":[{"delta":{"annotations":[...]}}]}               Citation
    {"choices":[{"logprobs":{"content":[...]}}]}                Logprobs
    {"search_results":[...], "citations":[...]}                 Citation        (told once)
    {"choices":[{"delta":{},"finish_reason":"stop"}]}           (kept for the end)
    {"choices":[],"usage":{...}}                                (kept for the end)
    {"error":{"message":...}}                                   raises APIError
    [DONE], or the body's end after a finish reason             ToolCall..., Usage, Finish

Finish reason and usage wait for the end because either may come first, come again, or be followed
by an error; a later null erases neither.

Source: https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import msgspec
from msgspec import Struct, field

from ..chat import ChatRequest, HTTPRequest, Message, Tool, own_reasoning
from ..completion import Completion
from ..errors import APIError, ConfigurationError, InvalidRequestError
from ..events import (
    Citation,
    Event,
    Finish,
    FinishReason,
    Logprobs,
    ReasoningDelta,
    RefusalDelta,
    StreamStart,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    Unknown,
    Usage,
)
from ..logprobs import says_something, token_object, tokens_event
from ..media import without_media_type
from ..response_format import ResponseFormat
from ..sse import ServerSentEvent, encode_sse
from .base import (
    Accepted,
    Decoder,
    Provider,
    asked_logprobs,
    end_of_body,
    merge,
    normalised,
    then_raise,
)
from .call_ids import with_fitting_ids
from .calls import ToolCallBuilder
from .lenient import (
    decode_json,
    lenient_decode,
    plain_decode,
    prepare,
    text_or_none,
)
from .refusals import (
    QUOTA_CODES,
    decode_body,
    error_text,
    is_listed_error,
    is_unknown_model,
    status_in,
)

__all__ = ["ROW", "OpenAI"]

_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "end_turn": "stop",
    "end": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "model_context_window_exceeded": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "sensitive": "content_filter",
    "error": "error",
    "insufficient_system_resource": "error",
    "abort": "error",
    "network_error": "error",
}
#: The first word of each normal reason is the one that OpenAI itself uses.
_WORDS: dict[FinishReason, str] = {reason: word for word, reason in reversed(_REASONS.items())}


#: What a row's `wants_back` can name.
_GIVEN_BACK = frozenset({"reasoning_details", "reasoning_content", "extra_content"})

#: How gateways say whose reasoning they hand on; they want all of it back.
_FORMATS = (
    *("anthropic-claude-v1", "google-gemini-v1", "openai-responses-v1", "xai-responses-v1"),
    "unknown",
)

#: The HTTP status that an error's code or type stands for inside a stream.
_STATUSES: dict[str, int] = {
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "insufficient_quota": 429,
    "invalid_request_error": 400,
    "BadRequestError": 400,
    "model_not_found": 404,
    "invalid_api_key": 401,
    "authentication_error": 401,
    "overloaded_error": 529,
}


class _Function(Struct):
    name: str | None = None
    arguments: Any = None


class _Fragment(Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None
    extra_content: dict[str, Any] | None = None


class _Delta(Struct):
    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: list[Any] | None = None
    refusal: str | None = None
    tool_calls: list[_Fragment] | None = None
    function_call: _Function | None = None
    annotations: list[Any] | None = None


class _Choice(Struct):
    index: int | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None
    logprobs: Any = None


class _Groq(Struct):
    usage: dict[str, Any] | None = None


class _Chunk(Struct):
    id: str | None = None
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: dict[str, Any] | None = None
    x_groq: _Groq | None = None
    error: Any = None
    object: str | None = None
    message: Any = None
    search_results: list[Any] | None = None
    citations: list[Any] | None = None


prepare(_Function, _Fragment, _Delta, _Choice, _Groq, _Chunk)
_decode_chunk = msgspec.json.Decoder(_Chunk)


class OpenAI(Provider, frozen=True):
    """A row for OpenAI or a compatible server.

    Attributes:
        max_tokens_field: What this server calls the limit of the answer.
        tools_body: What the default model needs in the request whenever there are tools.
        wants_back: What this server takes in an assistant's turn beside OpenAI's own fields, which
            refuses it: `reasoning_details`, `reasoning_content`, or a call's `extra_content`.
        ask_usage: Whether `stream_options.include_usage` is sent; not to servers that tell the
            usage unasked and may refuse the question.
        body: What belongs into every request; the caller's `extra_body` wins.
        query: What follows the URL's question mark, such as `api-version=2024-10-21`.
        json_schema: Whether it takes a JSON Schema; else the schema goes into the instructions,
            and any JSON object is asked for.
        call_ids: A regular expression that fits each identifier of a call which this server takes;
            others, and those that come again, are replaced. Empty where it takes all of them.
    """

    max_tokens_field: str = "max_completion_tokens"
    tools_body: Mapping[str, Any] = field(default_factory=dict)
    wants_back: tuple[str, ...] = ()
    ask_usage: bool = True
    body: Mapping[str, Any] = field(default_factory=dict)
    query: str = ""
    json_schema: bool = True
    call_ids: str = ""

    unshown: ClassVar[frozenset[str]] = frozenset({"tools_body", "body", "query"})
    format: ClassVar[str] = "Chat Completions"
    paths: ClassVar[tuple[str, ...]] = (r"/v1/chat/completions",)
    root: ClassVar[str] = "/v1"
    #: `top_k` is of servers that serve any model, `random_seed` is Mistral's.
    telemetry_settings: ClassVar[Mapping[str, str]] = {
        "seed": "seed",
        "random_seed": "seed",
        "top_k": "top_k",
        "n": "choice.count",
    }

    def __post_init__(self) -> None:
        """Check the fields of this format, too."""
        super().__post_init__()
        self._check("max_tokens_field", bool(text_or_none(self.max_tokens_field)), "a field's name")
        # One by one and by comparison, for what is none of them need not be hashable.
        known = isinstance(self.wants_back, tuple) and all(
            name in tuple(_GIVEN_BACK) for name in self.wants_back
        )
        self._check("wants_back", known, f"a tuple of {', '.join(sorted(_GIVEN_BACK))}")
        for name in ("ask_usage", "json_schema"):
            self._check(name, isinstance(getattr(self, name), bool), "a bool")
        for name in ("tools_body", "body"):
            right = isinstance(getattr(self, name), Mapping)
            self._check(name, right, "a dict", shown=False)
        self._check("call_ids", _is_pattern(self.call_ids), "a regular expression")
        plain = isinstance(self.query, str) and not re.search(r"[?#\s]", self.query)
        self._check("query", plain, "what follows the '?', without spaces", shown=False)

    def request(self, chat: ChatRequest, key: str, base_url: str) -> HTTPRequest:
        """Write `POST {base_url}/chat/completions`, with the usage asked for."""
        turns: Iterable[Message] = chat.messages
        if self.call_ids:
            turns = with_fitting_ids(turns, self.call_ids)
        messages: list[Any] = [self._message(message) for message in turns]
        if system := self._system(chat):
            messages.insert(0, {"role": "system", "content": system})
        body: dict[str, Any] = {
            "model": chat.model,
            "messages": messages,
            "stream": chat.stream,
        }
        if chat.stream and self.ask_usage:
            body["stream_options"] = {"include_usage": True}
        if chat.max_tokens is not None:
            body[self.max_tokens_field] = chat.max_tokens
        if chat.temperature is not None:
            body["temperature"] = chat.temperature
        if chat.top_p is not None:
            body["top_p"] = chat.top_p
        if chat.stop:
            body["stop"] = list(chat.stop)
        if chat.tools:
            body["tools"] = [_tool(tool) for tool in chat.tools]
            if chat.model == self.model:
                body.update(self.tools_body)
        if chat.tool_choice is not None:
            body["tool_choice"] = _tool_choice(chat.tool_choice)
        body.update(self._output(chat))
        merge(body, self.body)
        return HTTPRequest(
            url=f"{base_url}/chat/completions" + (f"?{self.query}" if self.query else ""),
            body=msgspec.json.encode(merge(body, chat.extra_body)),
            headers={"Content-Type": "application/json"},
            credentials=self.credentials(key),
        )

    def _system(self, chat: ChatRequest) -> str | None:
        """Return the instructions, with the schema in them where it has no other place."""
        format_ = chat.response_format
        if self.json_schema or format_ is None or format_.schema is None:
            return chat.system
        schema = msgspec.json.encode(format_.described_schema()).decode()
        asked = f"Answer with one JSON object that is valid against this JSON Schema:\n{schema}"
        return f"{chat.system}\n\n{asked}" if chat.system else asked

    def _output(self, chat: ChatRequest) -> dict[str, Any]:
        """Write what is asked of the answer's form, and what shall be told beside it.

        Source: https://platform.openai.com/docs/api-reference/chat/create
        """
        body: dict[str, Any] = {}
        if chat.response_format is not None:
            body["response_format"] = self._response_format(chat.response_format)
        if chat.logprobs is not None:
            body["logprobs"] = True
            if chat.logprobs:
                body["top_logprobs"] = chat.logprobs
        return body

    def _response_format(self, format_: ResponseFormat) -> dict[str, Any]:
        if format_.schema is None or not self.json_schema:
            return {"type": "json_object"}
        asked: dict[str, Any] = {"name": format_.name, "schema": format_.schema}
        if format_.description is not None:
            asked["description"] = format_.description
        return {"type": "json_schema", "json_schema": {**asked, "strict": format_.strict}}

    def _message(self, message: Message) -> dict[str, Any]:
        """Write a turn as it is, with what of its reasoning this server wants back."""
        encoded: dict[str, Any] = msgspec.to_builtins(message)
        encoded["role"] = message.role
        encoded.setdefault("content", None)
        encoded.pop("reasoning_details", None)
        if isinstance(message.content, list):
            if message.role == "tool":
                _check_result(self.name, message.content)
            encoded["content"] = [without_media_type(part) for part in encoded["content"]]
        if message.tool_calls:
            encoded["tool_calls"] = [self._call(call) for call in encoded["tool_calls"]]
        details = own_reasoning(message, self.name, *_FORMATS)
        if details and "reasoning_details" in self.wants_back:
            encoded["reasoning_details"] = [self._detail(detail) for detail in details]
        texts = [
            text_or_none(detail.get("text")) or "" for detail in message.reasoning_details or ()
        ]
        if (texts or message.tool_calls) and "reasoning_content" in self.wants_back:
            encoded["reasoning_content"] = "".join(texts)  # a turn with calls must have one
        return encoded

    def _call(self, call: dict[str, Any]) -> dict[str, Any]:
        """Write a call, with the proof of the reasoning behind it only to those who want it."""
        ours = ("signature", "extra_content")
        encoded = {name: value for name, value in call.items() if name not in ours}
        extra, signature = call.get("extra_content"), call.get("signature")
        if not extra and signature:
            extra = {"google": {"thought_signature": signature}}
        if extra and "extra_content" in self.wants_back:
            encoded["extra_content"] = extra
        return encoded

    def _detail(self, detail: dict[str, Any]) -> dict[str, Any]:
        """Write a piece of reasoning without what we have put into it."""
        encoded = {name: value for name, value in detail.items() if name != "after_chars"}
        if encoded.get("format") == self.name:
            del encoded["format"]
        return encoded

    def decoder(self) -> Decoder:
        """Return a decoder for one response body."""
        return _Decoder(self)

    def retold(self, answer: dict[str, Any]) -> Iterable[Any]:
        """A whole answer is a chunk whose deltas are called messages."""
        choices = answer.get("choices")
        if not isinstance(choices, list):
            return [answer]
        renamed = [
            {**choice, "delta": choice.get("message")} if isinstance(choice, dict) else choice
            for choice in choices
        ]
        return [{**answer, "choices": renamed}]

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> APIError:
        """Read `{"error": {"message", "type", "param", "code"}}` and its many relatives.

        Source: https://platform.openai.com/docs/guides/error-codes
        """
        return self._error(status, decode_body(body), headers)

    def stream_error(self, error: Any) -> APIError:
        """Read an error that came inside a 200 stream; its words stand for its status."""
        outer = error[0] if isinstance(error, list) and error else error
        inner = outer.get("error") if isinstance(outer, dict) else None
        words = [
            level.get(name)
            for level in (inner, outer)
            if isinstance(level, dict)
            for name in ("status_code", "code", "type")
        ]
        status = next((found for word in words if (found := status_in(word, _STATUSES))), 500)
        return self._error(status, error, {})

    def _error(self, status: int, decoded: Any, headers: Mapping[str, str]) -> APIError:
        message, code = error_text(decoded)
        return self.api_error(
            status,
            message,
            code=code,
            body=decoded,
            headers=headers,
            retryable=False if code in QUOTA_CODES else None,
            unknown_model=is_unknown_model(status, message, code),
        )

    def accept(self, path: str, headers: Mapping[str, str], body: bytes) -> Accepted:
        """Read a request as OpenAI's endpoint does."""
        if self.needs_key and not self.has_key(headers):
            raise self.api_error(401, "You didn't provide an API key.", code="invalid_api_key")
        try:
            asked = msgspec.json.decode(body, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError):
            raise self._refusal("We could not parse the JSON body of your request.") from None
        if not isinstance(asked.get("model"), str) or not asked["model"]:
            raise self._refusal("you must provide a model parameter")
        messages = asked.get("messages")
        if not isinstance(messages, list) or not messages:
            raise self._refusal(
                "Missing required parameter: 'messages'.", "missing_required_parameter"
            )
        options = asked.get("stream_options")
        return Accepted(
            model=asked["model"],
            stream=asked.get("stream") is True,
            usage=not self.ask_usage
            or (isinstance(options, dict) and options.get("include_usage") is True),
            prompt=_last_text(messages),
            logprobs=asked_logprobs(asked.get("logprobs"), asked.get("top_logprobs")),
        )

    def _refusal(self, message: str, code: str | None = None) -> APIError:
        return self.api_error(400, message, code=code)

    def encoder(self, *, model: str, usage: bool = True) -> _Encoder:
        """Return an encoder for one response body."""
        return _Encoder(model, usage=usage)

    def answer_body(self, completion: Completion) -> bytes:
        """Write a `chat.completion`."""
        message: dict[str, Any] = {"role": "assistant", "content": completion.text or None}
        if completion.reasoning:
            message["reasoning_content"] = completion.reasoning
        message["refusal"] = completion.refusal or None
        if completion.tool_calls:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments_text},
                }
                for call in completion.tool_calls
            ]
        if completion.citations:
            message["annotations"] = [_annotation(citation) for citation in completion.citations]
        reason = completion.finish_reason or "stop"
        word = completion.raw_finish_reason or _WORDS.get(reason, reason)
        usage = completion.usage
        return msgspec.json.encode(
            {
                "id": completion.response_id or "",
                "object": "chat.completion",
                "created": 0,
                "model": completion.model or "",
                "choices": [
                    {
                        "index": 0,
                        "message": message,
                        "logprobs": _logprobs_object(completion.logprobs),
                        "finish_reason": word,
                    }
                ],
                "usage": usage and (usage.raw or _usage_object(usage)),
            }
        )

    def error_body(self, error: APIError) -> bytes:
        """Write `{"error": {"message", "type", "param", "code"}}`."""
        return msgspec.json.encode(_error_object(error))


def _is_pattern(value: Any) -> bool:
    try:
        re.compile(value)
    except (TypeError, re.error):
        return False
    return isinstance(value, str)


def _check_result(name: str, parts: list[dict[str, Any]]) -> None:
    for part in parts:
        if part.get("type") in ("image_url", "file", "input_audio"):
            raise ConfigurationError(
                f"{name} takes text only as a tool's result, not a part of type {part['type']!r}; "
                "pass it in a user message",
                provider=name,
            )


def _tool(tool: Tool | dict[str, Any]) -> dict[str, Any]:
    if not isinstance(tool, Tool):
        return tool
    return {"type": "function", "function": msgspec.to_builtins(tool)}


def _tool_choice(choice: str | dict[str, Any]) -> Any:
    if isinstance(choice, dict) or choice in ("auto", "none", "required"):
        return choice
    return {"type": "function", "function": {"name": choice}}


def _last_text(messages: list[Any]) -> str:
    """Return the text of the last user turn, whatever its shape."""
    for message in reversed(messages):
        if isinstance(message, dict) and message.get("role") == "user":
            content = message.get("content")
            if isinstance(content, str):
                return content
            parts = content if isinstance(content, list) else []
            return "".join(str(part.get("text") or "") for part in parts if isinstance(part, dict))
    return ""


class _Decoder:
    """One response body of Chat Completions; see the module's table."""

    def __init__(self, provider: OpenAI) -> None:
        self.done = False
        self.raw_finish_reason: str | None = None
        self._provider = provider
        self._started = False
        self._usage: dict[str, Any] | None = None
        self._calls: list[ToolCallBuilder] = []
        self._by_index: dict[int, ToolCallBuilder] = {}
        self._by_id: dict[str, ToolCallBuilder] = {}
        self._cited: set[str] = set()

    def decode(self, sse: ServerSentEvent) -> Iterable[Event]:
        """Return what one wire event means."""
        data = sse.data
        if self.done or not data:
            return ()
        if data.startswith("[DONE]"):
            return self.end()
        if sse.event == "error":
            return self._fail([], plain_decode(data))
        chunk = lenient_decode(data, _Chunk, _decode_chunk)
        if not isinstance(chunk, _Chunk):
            if is_listed_error(chunk):
                return self._fail([], chunk)
            return (Unknown(sse.event, chunk),)
        events: list[Event] = []
        self._chunk(chunk, events)
        if (
            chunk.error
            or chunk.object == "error"
            or (chunk.choices is None and isinstance(chunk.message, str))
        ):
            return self._fail(events, decode_json(data))
        return events

    @property
    def complete(self) -> bool:
        """A finish reason completes the answer; the usage and `[DONE]` may follow."""
        return self.raw_finish_reason is not None

    def end(self) -> Iterable[Event]:
        """Close the calls, tell the usage, finish; or say that the answer is not complete.

        A `[DONE]` without any finish reason ends the body, not the answer: servers that failed
        send just that.
        """
        if self.done:
            return ()
        self.done = True
        saved = self._saved()
        if self.raw_finish_reason is None:
            return then_raise(saved, end_of_body(self._provider.name))
        calls = [event for event in saved if type(event) is ToolCall]
        reason = normalised(self.raw_finish_reason, _REASONS, called_tools=bool(calls))
        return [*saved, Finish(reason, self.raw_finish_reason)]

    def _chunk(self, chunk: _Chunk, events: list[Event]) -> None:
        if not self._started and (chunk.choices or chunk.id or chunk.model):
            self._started = True
            events.append(StreamStart(chunk.model or None, chunk.id or None))
        for choice in chunk.choices or ():
            if choice.index:
                events.append(Unknown("choice", msgspec.to_builtins(choice)))
                continue
            if choice.delta is not None:
                self._delta(choice.delta, events)
            if choice.logprobs is not None:
                events += _logprobs(choice.logprobs)
            if choice.finish_reason:
                self.raw_finish_reason = choice.finish_reason
        usage = chunk.usage or (chunk.x_groq.usage if chunk.x_groq else None)
        if usage and (self._usage is None or any(map(_is_count, usage.values()))):
            self._usage = usage
        if chunk.search_results or chunk.citations:
            self._cite([*(chunk.search_results or ()), *(chunk.citations or ())], events)

    def _fail(self, events: list[Event], decoded: Any) -> Iterable[Event]:
        self.done = True
        error = self._provider.stream_error(decoded)
        return then_raise([*events, *self._saved()], error)

    def _saved(self) -> list[Event]:
        """Return what waited for the end. Calls are whole only when the provider has finished."""
        saved: list[Event] = []
        if self.raw_finish_reason is not None:
            saved += [call.build() for call in self._calls]
        if self._usage is not None:
            saved.append(_usage(self._usage))
        return saved

    def _cite(self, sources: list[Any], events: list[Event]) -> None:
        """Tell each source once, although every chunk may list those so far."""
        for source in sources:
            citation = _citation(source if isinstance(source, dict) else {"url": source})
            if citation.url and citation.url not in self._cited:
                self._cited.add(citation.url)
                events.append(citation)

    def _delta(self, delta: _Delta, events: list[Event]) -> None:
        reasoning = delta.reasoning_content or delta.reasoning
        if reasoning:
            events.append(ReasoningDelta(reasoning))
        if delta.reasoning_details:
            for detail in filter(_is_object, delta.reasoning_details):
                event = _reasoning(detail, told=bool(reasoning))
                if event != ReasoningDelta():
                    events.append(event)
        content = delta.content
        if content:
            if isinstance(content, str):
                events.append(TextDelta(content))
            else:
                events += _parts(content)
        if delta.refusal:
            events.append(RefusalDelta(delta.refusal))
        if delta.tool_calls:
            for fragment in delta.tool_calls:
                self._fragment(fragment, events)
        if delta.function_call is not None:
            self._fragment(_Fragment(0, None, delta.function_call), events)
        if delta.annotations:
            cited = [_citation(raw) for raw in delta.annotations if _is_object(raw)]
            self._cited.update(citation.url for citation in cited if citation.url)
            events += cited

    def _fragment(self, fragment: _Fragment, events: list[Event]) -> None:
        """Add a fragment to its call.

        Servers leave out the index, start it at 1, or give 0 to every call; they repeat the id,
        leave it empty, or write the word "null". So a call begins where the index is new, or where
        a name comes that cannot be the open call's.
        """
        function = fragment.function or _Function()
        id_ = fragment.id if fragment.id not in (None, "", "null") else None
        name = function.name or None
        text = function.arguments
        if text is None:
            text = ""
        elif not isinstance(text, str):
            text = msgspec.json.encode(text).decode()
        call = self._call_of(fragment.index, id_, name, text)
        if call is None:
            if not (id_ or name or text):
                return
            call = ToolCallBuilder(len(self._calls), id_, name or "")
            self._calls.append(call)
            if fragment.index is not None:
                self._by_index[fragment.index] = call
                call.indexed = True
            events.append(ToolCallDelta(call.index, id_, name, text))
        else:
            new_id = id_ if call.id is None else None
            new_name = name if not call.name else None
            call.id = call.id or id_
            call.name = call.name or name or ""
            if text or new_id or new_name:
                events.append(ToolCallDelta(call.index, new_id, new_name, text))
        if call.id is not None:
            self._by_id.setdefault(call.id, call)
        if text:
            call.pieces.append(text)
        call.signature = call.signature or _signature(fragment.extra_content)

    def _call_of(
        self, index: int | None, id_: str | None, name: str | None, text: str
    ) -> ToolCallBuilder | None:
        """Return the call that a fragment continues; `None` where it begins one."""
        last = self._calls[-1] if self._calls else None
        if index is None:
            call = self._by_id.get(id_ or "", last)
        else:
            call = self._by_index.get(index)
            if call is None and not (id_ or name) and last is not None and not last.indexed:
                call = last  # it began without an index
        if call is None or not name or not call.name:
            return call
        if name != call.name or (id_ and call.id and id_ != call.id):
            return None
        again = text and not (id_ and call.id) and call.is_whole()
        return None if again else call


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _parts(parts: list[Any]) -> Iterable[Event]:
    """Read content that is a list, as Mistral's reasoning models send it."""
    for part in parts:
        if isinstance(part, str):
            yield TextDelta(part)
        elif not isinstance(part, dict):
            yield Unknown("content", part)
        elif part.get("type") == "thinking":
            thinking = part.get("thinking")
            pieces = thinking if isinstance(thinking, list) else [thinking]
            for piece in pieces:
                text = piece.get("text") if isinstance(piece, dict) else piece
                if isinstance(text, str) and text:
                    yield ReasoningDelta(text)
        elif isinstance(part.get("text"), str):
            if part["text"]:
                yield TextDelta(part["text"])
        else:
            yield Unknown(str(part.get("type")), part)


def _logprobs(raw: Any) -> Iterable[Event]:
    """Read `{"content": [...], "refusal": [...]}`; those of a refusal are told as they are."""
    if not isinstance(raw, dict):
        return tokens_event("logprobs", raw)
    events = tokens_event("logprobs", raw.get("content"))
    rest = {name: value for name, value in raw.items() if name != "content"}
    if says_something(rest):
        events.append(Unknown("logprobs", rest))
    return events


def _logprobs_object(tokens: Iterable[TokenLogprob]) -> dict[str, Any] | None:
    written = [token_object(token) for token in tokens]
    return {"content": written, "refusal": None} if written else None


def _citation(annotation: dict[str, Any]) -> Citation:
    """Read `{"type": "url_citation", "url_citation": {"url", "title", ...}}`, nested or flat."""
    inner = annotation.get("url_citation")
    source = inner if isinstance(inner, dict) else annotation
    passage = text_or_none(source.get("content")) or text_or_none(source.get("snippet"))
    return Citation(
        text_or_none(source.get("url")), text_or_none(source.get("title")), passage, annotation
    )


def _reasoning(detail: dict[str, Any], *, told: bool) -> ReasoningDelta:
    """Read `{"type": "reasoning.text", "text", "signature"}`, `.summary` or `.encrypted`.

    The text is told already where the delta has it as `reasoning`, too.
    """
    text = text_or_none(detail.get("text")) or text_or_none(detail.get("summary")) or ""
    return ReasoningDelta(
        "" if told else text,
        text_or_none(detail.get("signature")),
        text_or_none(detail.get("data")),
    )


def _signature(extra: dict[str, Any] | None) -> str | None:
    """Read `{"<vendor>": {"thought_signature"}}`: a proof that must come back with the call."""
    for vendors in (extra or {}).values():
        if _is_object(vendors) and (found := text_or_none(vendors.get("thought_signature"))):
            return found
    return None


def _is_count(value: Any) -> bool:
    return isinstance(value, int)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _usage(raw: dict[str, Any]) -> Usage:
    """Read `usage`, which says the same thing in several places.

    xAI counts reasoning beside the completion, as the total gives away, and may count what was
    cached beside the prompt. Moonshot and Perplexity put details where others put only sums.

    Source: https://github.com/vercel/ai/tree/main/packages (`xai`, `moonshotai`, `perplexity`)
    """
    input_tokens = _count(raw.get("prompt_tokens"))
    output_tokens = _count(raw.get("completion_tokens"))
    details = raw.get("completion_tokens_details")
    reasoning = _count(details.get("reasoning_tokens")) if isinstance(details, dict) else None
    if reasoning is None:
        reasoning = _count(raw.get("reasoning_tokens"))
    details = raw.get("prompt_tokens_details")
    cached = _count(details.get("cached_tokens")) if isinstance(details, dict) else None
    for name in ("prompt_cache_hit_tokens", "cached_tokens"):
        cached = _count(raw.get(name)) if cached is None else cached
    if (
        input_tokens is not None
        and output_tokens is not None
        and reasoning
        and raw.get("total_tokens") == input_tokens + output_tokens + reasoning
    ):
        output_tokens += reasoning
    if input_tokens is not None and cached is not None and cached > input_tokens:
        input_tokens += cached
    return Usage(input_tokens, output_tokens, cached, reasoning, raw)


def _error_object(error: APIError) -> dict[str, Any]:
    kind = "invalid_request_error" if isinstance(error, InvalidRequestError) else "server_error"
    if error.status in (401, 403):
        kind = "authentication_error"
    elif error.status == 429:
        kind = "rate_limit_error"
    return {"error": {"message": error.detail, "type": kind, "param": None, "code": error.code}}


def _usage_object(usage: Usage) -> dict[str, Any]:
    """Write `usage` from the normalised figures."""
    input_tokens, output_tokens = usage.input_tokens or 0, usage.output_tokens or 0
    raw: dict[str, Any] = {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
    }
    if usage.cached_input_tokens is not None:
        raw["prompt_tokens_details"] = {"cached_tokens": usage.cached_input_tokens}
    if usage.reasoning_tokens is not None:
        raw["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return raw


def _annotation(citation: Citation) -> Any:
    fields = {"url": citation.url, "title": citation.title, "content": citation.text}
    return citation.raw or {"type": "url_citation", "url_citation": fields}


def _reasoning_fields(event: ReasoningDelta) -> dict[str, Any]:
    """Plain reasoning goes the common way; what is opaque needs gateways' details."""
    if event.signature is None and event.redacted is None:
        return {"reasoning_content": event.text}
    detail: dict[str, Any] = {"type": "reasoning.text", "text": event.text}
    if event.signature is not None:
        detail["signature"] = event.signature
    if event.redacted is not None:
        detail.update(type="reasoning.encrypted", data=event.redacted)
    return {"reasoning_details": [detail]}


class _Encoder:
    """The same table, from right to left."""

    def __init__(self, model: str, *, usage: bool) -> None:
        self._start = StreamStart(model, "chatcmpl-fake")
        self._ask_usage = usage
        self._usage: dict[str, Any] | None = None
        self._seen: set[int] = set()
        self._next_index = 0

    def encode(self, event: Event) -> bytes:
        """Return the bytes for an event."""
        if isinstance(event, StreamStart):
            self._start = event
            return self._chunk({"role": "assistant", "content": ""})
        if isinstance(event, TextDelta):
            return self._chunk({"content": event.text})
        if isinstance(event, ReasoningDelta):
            return self._chunk(_reasoning_fields(event))
        if isinstance(event, RefusalDelta):
            return self._chunk({"refusal": event.text})
        if isinstance(event, ToolCallDelta):
            return self._fragment(event)
        if isinstance(event, ToolCall):
            return self._call(event)
        if isinstance(event, Citation):
            return self._chunk({"annotations": [_annotation(event)]})
        if isinstance(event, Logprobs):
            return self._chunk({}, logprobs=_logprobs_object(event.tokens))
        if isinstance(event, Usage):
            self._usage = event.raw or _usage_object(event)
        elif isinstance(event, Finish):
            return self._finish(event)
        elif isinstance(event, Unknown):
            return self._unknown(event)
        return b""

    def error(self, error: APIError) -> bytes:
        """Return `data: {"error": {...}}`."""
        return encode_sse(msgspec.json.encode(_error_object(error)).decode())

    def _fragment(self, delta: ToolCallDelta) -> bytes:
        self._seen.add(delta.index)
        self._next_index = max(self._next_index, delta.index + 1)
        fragment: dict[str, Any] = {
            "index": delta.index,
            "function": {"arguments": delta.arguments},
        }
        if delta.id is not None:
            fragment.update(id=delta.id, type="function")
        if delta.name is not None:
            fragment["function"]["name"] = delta.name
        return self._chunk({"tool_calls": [fragment]})

    def _call(self, call: ToolCall) -> bytes:
        """A call whose fragments were sent needs no more than its signature; another goes whole."""
        encoded = b""
        if not self._seen:
            encoded = self._fragment(
                ToolCallDelta(self._next_index, call.id, call.name, call.arguments_text)
            )
        index = min(self._seen)
        self._seen.remove(index)
        if call.signature is not None:
            extra = {"google": {"thought_signature": call.signature}}
            encoded += self._chunk({"tool_calls": [{"index": index, "extra_content": extra}]})
        return encoded

    def _unknown(self, event: Unknown) -> bytes:
        """Send a content part as one, another choice as one, and anything else as it is."""
        if event.kind == "choice":
            return self._event({"choices": [event.data]})
        if event.kind == "logprobs":
            return self._chunk({}, logprobs=event.data)
        if event.kind == "content" or (_is_object(event.data) and event.data.get("type")):
            return self._chunk({"content": [event.data]})
        return encode_sse(msgspec.json.encode(event.data).decode())

    def _finish(self, finish: Finish) -> bytes:
        word = finish.raw_reason or _WORDS.get(finish.reason, finish.reason)
        out = self._chunk({}, word)
        if self._ask_usage and self._usage is not None:
            out += self._event({"choices": [], "usage": self._usage})
        return out + b"data: [DONE]\n\n"

    def _chunk(
        self, delta: dict[str, Any], finish_reason: str | None = None, *, logprobs: Any = None
    ) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        return self._event({"choices": [choice]})

    def _event(self, fields: dict[str, Any]) -> bytes:
        chunk = {
            "id": self._start.response_id or "",
            "object": "chat.completion.chunk",
            "created": 0,
            "model": self._start.model or "",
            **fields,
        }
        return encode_sse(msgspec.json.encode(chunk).decode())


#: The vendor's own row.
ROW = OpenAI(
    "openai",
    base_url="https://api.openai.com/v1",
    model="gpt-6-luna",
    checked="2026-11-22",
    key_env=("OPENAI_API_KEY",),
    model_env="OPENAI_MODEL",
    base_url_env="OPENAI_BASE_URL",
    tools_body={"reasoning_effort": "none"},
    call_ids=".{1,40}",
)
