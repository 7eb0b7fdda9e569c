"""Anthropic Messages: `POST {base_url}/v1/messages`.

Wire shape -> events (the `type` inside the JSON counts, not the SSE event's name):

    message_start  {"message": {"id", "model", "usage", "content"}}       StreamStart, whole blocks
    content_block_start  {"index", "content_block": {"type": "text"}}     TextDelta, if not empty
                         {"type": "tool_use", "id", "name", "input"}      ToolCallDelta
    content_block_delta  {"index", "delta": {"type": "text_delta"}}       TextDelta
                         thinking_delta, signature_delta                  ReasoningDelta
                         input_json_delta                                 ToolCallDelta
                         citations_delta                                  Citation
    content_block_stop   {"index"}                                        ToolCall
    message_delta  {"delta": {"stop_reason"}, "usage"}                    (kept for the end)
    message_stop                                                          Usage, Finish
    error          {"error": {"type", "message"}}                         raises APIError
    ping                                                                  nothing

Blocks are told apart by `index`, for several may be open at once. Blocks and deltas of a type that
is not the caller's to act on (server tools, compaction, newer ones) become `Unknown`.

Source: https://docs.anthropic.com/en/docs/build-with-claude/streaming
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import msgspec
from msgspec import Struct

from ..chat import ChatRequest, HTTPRequest, Message, Tool, json_arguments, own_reasoning
from ..completion import Completion
from ..errors import APIError, ConfigurationError
from ..events import (
    Citation,
    Event,
    Finish,
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    StreamStart,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    Unknown,
    Usage,
)
from ..json_schema import LOOKAROUND, described, rewritten
from ..media import Media, read_media
from ..response_format import ResponseFormat
from ..sse import ServerSentEvent, encode_sse
from .base import (
    Accepted,
    Decoder,
    Provider,
    end_of_body,
    merge,
    normalised,
    then_raise,
)
from .call_ids import with_fitting_ids
from .calls import ToolCallBuilder
from .lenient import decode_json, lenient_convert, lenient_decode, plain_decode, prepare
from .refusals import decode_body, error_text

__all__ = ["ROW", "Anthropic"]

_REASONS: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    "pause_turn": "pause",
    "compaction": "pause",
}
_WORDS: dict[FinishReason, str] = {reason: word for word, reason in reversed(_REASONS.items())}

#: The HTTP status that an error type stands for, also where it comes inside a 200 stream.
_STATUSES: dict[str, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_TYPES = {status: name for name, status in _STATUSES.items()}

#: What gateways that hand Anthropic's signed reasoning on call its format.
_REASONING = "anthropic-claude-v1"
#: What Anthropic refuses in a schema; its own SDK puts it into the description, too.
_UNENFORCED = frozenset(
    {
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
        *("minLength", "maxLength", "maxItems", "uniqueItems"),
    }
)
#: Look-arounds, word boundaries, and references to groups.
_UNENFORCED_PATTERN = re.compile(rf"{LOOKAROUND.pattern}|(?<!\\)(?:\\\\)*\\[bB1-9]")
#: The identifiers of calls that it takes.
_CALL_ID = "[a-zA-Z0-9_-]{1,64}"
_IMAGES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})


class _Block(Struct):
    type: str = ""
    id: str | None = None
    name: str | None = None
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    input: Any = None
    citations: list[Any] | None = None


class _Delta(Struct):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    citation: Any = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: Any = None


class _Message(Struct):
    id: str | None = None
    model: str | None = None
    content: list[Any] | None = None
    stop_reason: str | None = None
    usage: dict[str, Any] | None = None


class _Event(Struct):
    type: str = ""
    index: int = 0
    message: _Message | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


prepare(_Block, _Delta, _Message, _Event)
_decode_event = msgspec.json.Decoder(_Event)


class Anthropic(Provider, frozen=True):
    """A row for Anthropic or a server that speaks its format.

    Attributes:
        version: The `anthropic-version` header.
        max_tokens: The limit of the answer where the caller names none: the format demands one.
    """

    auth_header: str = "x-api-key"
    auth_prefix: str = ""
    version: str = "2023-06-01"
    max_tokens: int = 16384

    format: ClassVar[str] = "Messages"
    paths: ClassVar[tuple[str, ...]] = (r"/v1/messages",)
    telemetry_settings: ClassVar[Mapping[str, str]] = {"top_k": "top_k"}
    ping: ClassVar[bytes] = encode_sse('{"type":"ping"}', event="ping")

    def request(self, chat: ChatRequest, key: str, base_url: str) -> HTTPRequest:
        """Write `POST {base_url}/v1/messages`."""
        body: dict[str, Any] = {
            "model": chat.model,
            "max_tokens": chat.max_tokens or self.max_tokens,
            "messages": _messages(self.name, chat.messages),
            "stream": chat.stream,
        }
        if chat.system:
            body["system"] = chat.system
        if chat.temperature is not None:
            body["temperature"] = chat.temperature
        if chat.top_p is not None:
            body["top_p"] = chat.top_p
        if chat.stop:
            body["stop_sequences"] = list(chat.stop)
        if chat.tools:
            body["tools"] = [_tool(tool) for tool in chat.tools]
        if chat.tool_choice is not None:
            body["tool_choice"] = _tool_choice(chat.tool_choice)
        if chat.response_format is not None:
            body["output_config"] = {"format": _output_format(self.name, chat.response_format)}
        if chat.logprobs is not None:
            raise ConfigurationError(
                f"{self.name} tells no log-probabilities: leave logprobs out", provider=self.name
            )
        return HTTPRequest(
            url=f"{base_url}/v1/messages",
            body=msgspec.json.encode(merge(body, chat.extra_body)),
            headers={"Content-Type": "application/json", "anthropic-version": self.version},
            credentials=self.credentials(key),
        )

    def decoder(self) -> Decoder:
        """Return a decoder for one response body."""
        return _Decoder(self)

    def retold(self, answer: dict[str, Any]) -> Iterable[Any]:
        """A whole answer is a `message_start` that has its content already, and an end."""
        if answer.get("type") == "error" or "content" not in answer:
            return [answer]
        names = ("stop_reason", "stop_sequence", "stop_details")
        return [
            {"type": "message_start", "message": answer},
            {
                "type": "message_delta",
                "delta": {name: answer.get(name) for name in names},
                "usage": answer.get("usage"),
            },
            {"type": "message_stop"},
        ]

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> APIError:
        """Read `{"type": "error", "error": {"type", "message"}, "request_id"}`.

        Source: https://docs.anthropic.com/en/api/errors
        """
        return self._error(status, decode_body(body), headers)

    def stream_error(self, decoded: Any) -> APIError:
        """Read an error event; its type stands for the status that it would have had."""
        _, code = error_text(decoded)
        return self._error(_STATUSES.get(code or "", 500), decoded, {})

    def _error(self, status: int, decoded: Any, headers: Mapping[str, str]) -> APIError:
        message, code = error_text(decoded)
        error = self.api_error(
            status,
            message,
            code=code,
            body=decoded,
            headers=headers,
            unknown_model=status == 404 and "model" in message,
        )
        if error.request_id is None and isinstance(decoded, dict):
            found = decoded.get("request_id")
            error.request_id = found if isinstance(found, str) else None
        return error

    def accept(self, path: str, headers: Mapping[str, str], body: bytes) -> Accepted:
        """Read a request as Anthropic's endpoint does; a Bearer token counts as a key, too."""
        if self.needs_key and not self.has_key(headers):
            raise self.api_error(401, "x-api-key header is required", code="authentication_error")
        if not headers.get("anthropic-version"):
            raise self._refusal("anthropic-version: header is required")
        try:
            asked = msgspec.json.decode(body, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError):
            raise self._refusal("The request body is not valid JSON") from None
        for name, type_ in (("model", str), ("max_tokens", int), ("messages", list)):
            if not isinstance(asked.get(name), type_) or not asked[name]:
                raise self._refusal(f"{name}: Field required")
        messages = [message for message in asked["messages"] if isinstance(message, dict)]
        if not messages or messages[-1].get("role") != "user":
            raise self._refusal("messages: the conversation must end with a user message")
        return Accepted(
            model=asked["model"],
            stream=asked.get("stream") is True,
            usage=True,
            prompt=_plain_text(messages[-1].get("content")),
        )

    def _refusal(self, message: str) -> APIError:
        return self.api_error(400, message, code="invalid_request_error")

    def encoder(self, *, model: str, usage: bool = True) -> _Encoder:
        """Return an encoder for one response body."""
        return _Encoder(model)

    def answer_body(self, completion: Completion) -> bytes:
        """Write a `message`."""
        blocks: list[dict[str, Any]] = []
        if completion.reasoning:
            blocks.append({"type": "thinking", "thinking": completion.reasoning, "signature": ""})
        if text := completion.text or completion.refusal:
            block: dict[str, Any] = {"type": "text", "text": text}
            if completion.citations:
                block["citations"] = [
                    citation.raw or _citation_object(citation) for citation in completion.citations
                ]
            blocks.append(block)
        blocks += [
            {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}
            for call in completion.tool_calls
        ]
        reason = completion.finish_reason or "stop"
        usage = completion.usage or Usage()
        return msgspec.json.encode(
            {
                "id": completion.response_id or "",
                "type": "message",
                "role": "assistant",
                "model": completion.model or "",
                "content": blocks,
                "stop_reason": completion.raw_finish_reason or _WORDS.get(reason, reason),
                "stop_sequence": None,
                "usage": usage.raw or _usage_object(usage),
            }
        )

    def error_body(self, error: APIError) -> bytes:
        """Write `{"type": "error", "error": {"type", "message"}}`."""
        return msgspec.json.encode(_error_object(error))


def _output_format(provider: str, format_: ResponseFormat) -> dict[str, Any]:
    """Write `output_config.format`; what cannot be enforced goes into the descriptions.

    Source: https://platform.claude.com/docs/en/build-with-claude/structured-outputs
    """
    schema = format_.described_schema()
    if schema is None:
        raise ConfigurationError(
            f"{provider} needs to know what is in the JSON object: pass a class or a JSON Schema "
            "as response_format, not 'json_object'",
            provider=provider,
        )

    def enforced(node: dict[str, Any]) -> dict[str, Any]:
        is_object = node.get("type") == "object" or "properties" in node
        if is_object and node.setdefault("additionalProperties", False) is not False:
            raise ConfigurationError(
                f"{provider} takes no objects of any keys in response_format: name the "
                "properties, and set additionalProperties to false",
                provider=provider,
            )
        told = {name: node.pop(name) for name in _UNENFORCED & set(node)}
        if node.get("minItems", 0) not in (0, 1):
            told["minItems"] = node.pop("minItems")
        if _UNENFORCED_PATTERN.search(str(node.get("pattern", ""))):
            told["pattern"] = node.pop("pattern")
        return described(node, told)

    return {"type": "json_schema", "schema": rewritten(schema, enforced)}


def _messages(provider: str, messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Translate the turns; tool results become user turns, neighbours of one role are joined."""
    turns: list[dict[str, Any]] = []
    for message in with_fitting_ids(messages, _CALL_ID):
        role = "assistant" if message.role == "assistant" else "user"
        blocks = _blocks(provider, message)
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    return turns


def _blocks(provider: str, message: Message) -> list[dict[str, Any]]:
    if message.role == "tool":
        if not message.tool_call_id:
            raise ConfigurationError("anthropic needs the tool_call_id of a tool message")
        content = _content_blocks(message)
        return [{"type": "tool_result", "tool_use_id": message.tool_call_id, "content": content}]
    if message.name:
        raise ConfigurationError("anthropic takes no name of a speaker; write it into the text")
    blocks = _content_blocks(message)
    if message.role == "assistant":
        details = own_reasoning(message, provider, _REASONING)
        blocks = _with_thinking(details, message.content, blocks)
    for call in message.tool_calls or []:
        id_, name, arguments = json_arguments(call)
        blocks.append({"type": "tool_use", "id": id_, "name": name, "input": arguments})
    return blocks


def _with_thinking(
    details: list[dict[str, Any]], content: Any, blocks: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Put signed reasoning back where it stood; without its signature nobody takes it.

    Source: https://docs.anthropic.com/en/docs/build-with-claude/extended-thinking
    """
    text = content if isinstance(content, str) else ""
    ordered: list[dict[str, Any]] = []
    told = 0
    for detail in details:
        data, signature = detail.get("data"), detail.get("signature")
        if isinstance(data, str) and data:
            block = {"type": "redacted_thinking", "data": data}
        elif isinstance(signature, str) and signature:
            thought = detail.get("text") or ""
            block = {"type": "thinking", "thinking": thought, "signature": signature}
        else:
            continue
        after = detail.get("after_chars")
        if isinstance(after, int) and text[told:after].strip():  # a blank text is refused
            ordered.append({"type": "text", "text": text[told:after]})
            told = after
        ordered.append(block)
    if told:
        return [*ordered, {"type": "text", "text": text[told:]}] if text[told:] else ordered
    return [*ordered, *blocks]


def _content_blocks(message: Message) -> list[dict[str, Any]]:
    if isinstance(message.content, str):
        return [{"type": "text", "text": message.content}] if message.content else []
    blocks: list[dict[str, Any]] = []
    for part in message.content or []:
        media = read_media(part)
        blocks.append(part if media is None else {**_media_block(media), **media.beside})
    return blocks


def _media_block(media: Media) -> dict[str, Any]:
    """Write a picture or a document.

    Source: https://docs.anthropic.com/en/docs/build-with-claude/vision and .../pdf-support
    """
    type_ = media.media_type or ""
    title = {"title": media.filename} if media.filename else {}
    if media.file_id is not None:
        source: dict[str, Any] = {"type": "file", "file_id": media.file_id}
        return {"type": "document", "source": source, **title}
    if media.url is not None:
        if not media.url.lower().startswith(("http://", "https://")):
            raise ConfigurationError(f"anthropic fetches no {media.url[:80]!r}; pass the bytes")
        source = {"type": "url", "url": media.url}
        if media.kind == "image_url" or type_ in _IMAGES:
            return {"type": "image", "source": source}
        if type_ not in ("", "application/pdf"):
            raise ConfigurationError(
                f"anthropic fetches pictures and PDFs, not {type_}: pass the bytes of a text"
            )
        return {"type": "document", "source": source, **title}
    if type_ in _IMAGES:
        return {
            "type": "image",
            "source": {"type": "base64", "media_type": type_, "data": media.data},
        }
    if type_ == "application/pdf":
        source = {"type": "base64", "media_type": type_, "data": media.data}
        return {"type": "document", "source": source, **title}
    if type_.startswith("text/"):
        try:
            source = {"type": "text", "media_type": "text/plain", "data": media.decoded().decode()}
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"a {type_} document must be UTF-8: {error}") from None
        return {"type": "document", "source": source, **title}
    raise ConfigurationError(
        f"anthropic takes no {type_}: it takes JPEG, PNG, GIF and WebP pictures, PDFs and texts"
    )


def _tool(tool: Tool | dict[str, Any]) -> dict[str, Any]:
    if not isinstance(tool, Tool):
        return tool
    encoded: dict[str, Any] = {"name": tool.name, "input_schema": tool.parameters}
    if tool.description:
        encoded["description"] = tool.description
    return encoded


def _tool_choice(choice: str | dict[str, Any]) -> dict[str, Any]:
    if isinstance(choice, dict):
        return choice
    kinds = {"auto": "auto", "none": "none", "required": "any"}
    return {"type": kinds[choice]} if choice in kinds else {"type": "tool", "name": choice}


def _plain_text(content: Any) -> str:
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else []
    return "".join(str(block.get("text") or "") for block in blocks if isinstance(block, dict))


class _Decoder:
    """One response body of Messages; see the module's table."""

    def __init__(self, provider: Anthropic) -> None:
        self.done = False
        self.raw_finish_reason: str | None = None
        self._provider = provider
        self._started = False
        self._usage: dict[str, Any] = {}
        self._message: str | None = None
        self._tools: dict[int, ToolCallBuilder] = {}
        self._whole_input: dict[int, Any] = {}
        self._called = 0

    def decode(self, sse: ServerSentEvent) -> Iterable[Event]:
        """Return what one wire event means."""
        if self.done or not sse.data:
            return ()
        if sse.event == "error":
            return self._fail(plain_decode(sse.data))
        wire = lenient_decode(sse.data, _Event, _decode_event)
        if not isinstance(wire, _Event):
            return (Unknown(sse.event, wire),)
        kind = wire.type or sse.event
        if kind == "content_block_delta":
            return self._delta(wire, sse.data)
        if kind == "content_block_start":
            return self._block_start(wire.index, wire.content_block or _Block(), sse.data)
        if kind == "content_block_stop":
            return self._close(wire.index)
        if kind == "message_delta":
            self._message_delta(wire.delta or _Delta(), wire.usage)
            return ()
        if kind == "message_start":
            return self._message_start(wire.message or _Message())
        if kind == "message_stop":
            return self._finish()
        if kind == "ping":
            return ()
        if kind == "error" or wire.error:
            return self._fail(decode_json(sse.data))
        return (Unknown(kind, decode_json(sse.data)),)

    @property
    def complete(self) -> bool:
        """Nothing less than `message_stop` completes an answer."""
        return self.done

    def end(self) -> Iterable[Event]:
        """The body ended: after `message_stop`, or too early."""
        if self.done:
            return ()
        self.done = True
        return then_raise(self._saved(), end_of_body(self._provider.name))

    def _fail(self, decoded: Any) -> Iterable[Event]:
        self.done = True
        return then_raise(self._saved(), self._provider.stream_error(decoded))

    def _message_start(self, message: _Message) -> list[Event]:
        events: list[Event] = []
        if not self._started:
            self._started = True
            events.append(StreamStart(message.model or None, message.id or None))
        self._overlay(message.usage)
        self.raw_finish_reason = message.stop_reason or self.raw_finish_reason
        for index, block in enumerate(message.content or []):
            if isinstance(block, dict):
                known = lenient_convert(block, _Block)
                events += self._block_start(index, known, {"content_block": block})
                events += self._close(index)
        return events

    def _block_start(self, index: int, block: _Block, raw: str | dict[str, Any]) -> list[Event]:
        events: list[Event] = []
        if block.type == "text":
            if block.text:
                events.append(TextDelta(block.text))
            events += map(_citation, block.citations or [])
        elif block.type == "thinking":
            if block.thinking or block.signature:
                events.append(ReasoningDelta(block.thinking or "", block.signature or None))
        elif block.type == "redacted_thinking":
            if block.data:
                events.append(ReasoningDelta(redacted=block.data))
        elif block.type == "tool_use":
            events += self._close(index)
            call = ToolCallBuilder(self._called, block.id, block.name or "")
            self._called += 1
            self._tools[index] = call
            if isinstance(block.input, dict) and block.input:
                self._whole_input[index] = block.input
            events.append(ToolCallDelta(call.index, call.id, call.name))
        else:
            wire = decode_json(raw) if isinstance(raw, str) else raw
            events.append(Unknown(block.type or "content_block", wire.get("content_block")))
        return events

    def _delta(self, wire: _Event, data: str) -> Iterable[Event]:
        delta = wire.delta
        if delta is None:
            return ()
        kind = delta.type
        if kind == "text_delta":
            return (TextDelta(delta.text),) if delta.text else ()
        if kind == "thinking_delta":
            return (ReasoningDelta(delta.thinking),) if delta.thinking else ()
        if kind == "signature_delta":
            return (ReasoningDelta("", delta.signature),) if delta.signature else ()
        if kind == "input_json_delta" and (call := self._tools.get(wire.index)) is not None:
            if not delta.partial_json:
                return ()
            call.pieces.append(delta.partial_json)
            return (ToolCallDelta(call.index, arguments=delta.partial_json),)
        if kind == "citations_delta":
            return (_citation(delta.citation),)
        return (Unknown(kind or "content_block_delta", decode_json(data)),)

    def _close(self, index: int) -> list[Event]:
        """Complete the call at an index: from its fragments, or from the input that came whole."""
        call = self._tools.pop(index, None)
        if call is None:
            return []
        whole = self._whole_input.pop(index, None)
        events: list[Event] = []
        if not call.pieces and whole is not None:
            call.pieces.append(msgspec.json.encode(whole).decode())
            events.append(ToolCallDelta(call.index, arguments=call.text))
        return [*events, call.build()]

    def _overlay(self, usage: dict[str, Any] | None) -> None:
        """Later figures are cumulative; a null says nothing."""
        for name, value in (usage or {}).items():
            if value is not None or name not in self._usage:
                self._usage[name] = value

    def _message_delta(self, delta: _Delta, usage: dict[str, Any] | None) -> None:
        self._overlay(usage)
        self.raw_finish_reason = delta.stop_reason or self.raw_finish_reason
        if isinstance(delta.stop_details, dict):
            explanation = delta.stop_details.get("explanation")
            self._message = explanation if isinstance(explanation, str) else self._message

    def _finish(self) -> list[Event]:
        self.done = True
        for_end: list[Event] = []
        for index in sorted(self._tools):
            for_end += self._close(index)
        reason = normalised(self.raw_finish_reason, _REASONS, called_tools=self._called > 0)
        return [*for_end, *self._saved(), Finish(reason, self.raw_finish_reason, self._message)]

    def _saved(self) -> list[Event]:
        return [_usage(self._usage)] if self._usage else []


def _citation(raw: Any) -> Citation:
    if not isinstance(raw, dict):
        return Citation(raw=raw)

    def text(*names: str) -> str | None:
        return next((raw[name] for name in names if isinstance(raw.get(name), str)), None)

    return Citation(text("url", "source"), text("title", "document_title"), text("cited_text"), raw)


def _usage(raw: dict[str, Any]) -> Usage:
    """Read `usage`. Anthropic counts what came from or went to the cache beside `input_tokens`."""

    def count(name: str) -> int | None:
        value = raw.get(name)
        return value if isinstance(value, int) else None

    inputs = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    total = sum(count(name) or 0 for name in inputs)
    details = raw.get("output_tokens_details")
    thinking = details.get("thinking_tokens") if isinstance(details, dict) else None
    return Usage(
        total if any(count(name) is not None for name in inputs) else None,
        count("output_tokens"),
        count("cache_read_input_tokens"),
        thinking if isinstance(thinking, int) else None,
        raw,
        count("cache_creation_input_tokens"),
    )


def _error_object(error: APIError) -> dict[str, Any]:
    kind = error.code if error.code in _STATUSES else _TYPES.get(error.status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": error.detail}}


class _Encoder:
    """The same table, from right to left: one content block at a time."""

    def __init__(self, model: str) -> None:
        self._start = StreamStart(model, "msg_fake")
        self._usage: dict[str, Any] | None = None
        self._index = -1
        self._open: str | None = None
        self._call: int | None = None

    def encode(self, event: Event) -> bytes:
        """Return the bytes for an event."""
        if isinstance(event, StreamStart):
            return self._message_start(event)
        if isinstance(event, TextDelta):
            return self._text("text", event.text)
        if isinstance(event, RefusalDelta):
            return self._text("text", event.text)
        if isinstance(event, ReasoningDelta):
            return self._reasoning(event)
        if isinstance(event, ToolCallDelta):
            return self._fragment(event)
        if isinstance(event, ToolCall):
            return self._whole_call(event)
        if isinstance(event, Citation):
            return self._block("text", {"text": ""}) + self._delta(
                {"type": "citations_delta", "citation": event.raw or _citation_object(event)}
            )
        if isinstance(event, Usage):
            self._usage = event.raw or _usage_object(event)
        elif isinstance(event, Finish):
            return self._finish(event)
        elif isinstance(event, Unknown):
            return self._close() + _wire(_unknown_object(event))
        return b""

    def error(self, error: APIError) -> bytes:
        """Return `event: error`."""
        return _wire(_error_object(error))

    def _message_start(self, start: StreamStart) -> bytes:
        message: dict[str, Any] = {
            "id": start.response_id or "",
            "type": "message",
            "role": "assistant",
            "model": start.model or "",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }
        return _wire({"type": "message_start", "message": message})

    def _reasoning(self, event: ReasoningDelta) -> bytes:
        if event.redacted is not None:
            block = {"type": "redacted_thinking", "data": event.redacted}
            return self._close() + self._block("redacted_thinking", block) + self._close()
        if event.text and event.signature is not None:
            block = {"thinking": event.text, "signature": event.signature}
            return self._close() + self._block("thinking", block)
        out = self._block("thinking", {"thinking": "", "signature": ""})
        if event.signature is not None:
            return out + self._delta({"type": "signature_delta", "signature": event.signature})
        return out + self._delta({"type": "thinking_delta", "thinking": event.text})

    def _text(self, kind: str, text: str) -> bytes:
        return self._block(kind, {"text": ""}) + self._delta({"type": "text_delta", "text": text})

    def _fragment(self, delta: ToolCallDelta) -> bytes:
        out = b""
        if self._call != delta.index or self._open != "tool_use":
            out = self._close()
            self._call = delta.index
            block: dict[str, Any] = {"id": delta.id, "name": delta.name or "", "input": {}}
            out += self._block("tool_use", block)
        if delta.arguments:
            piece = {"type": "input_json_delta", "partial_json": delta.arguments}
            out += self._delta(piece)
        return out

    def _whole_call(self, call: ToolCall) -> bytes:
        """Close the call whose fragments were sent; send another one whole."""
        if self._open != "tool_use":
            index = 0 if self._call is None else self._call + 1
            out = self._fragment(ToolCallDelta(index, call.id, call.name, call.arguments_text))
            return out + self._close()
        return self._close()

    def _finish(self, finish: Finish) -> bytes:
        word = finish.raw_reason or _WORDS.get(finish.reason, finish.reason)
        delta: dict[str, Any] = {"stop_reason": word, "stop_sequence": None}
        if finish.message is not None:
            delta["stop_details"] = {"type": word, "explanation": finish.message}
        out = self._close()
        out += _wire({"type": "message_delta", "delta": delta, "usage": self._usage or {}})
        return out + _wire({"type": "message_stop"})

    def _block(self, kind: str, fields: dict[str, Any]) -> bytes:
        """Open a block, unless one of this kind is open already."""
        if self._open == kind:
            return b""
        out = self._close()
        self._index += 1
        self._open = kind
        block = {"type": kind, **fields}
        start = {"type": "content_block_start", "index": self._index, "content_block": block}
        return out + _wire(start)

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return _wire({"type": "content_block_delta", "index": self._index, "delta": delta})

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        return _wire({"type": "content_block_stop", "index": self._index})


def _usage_object(usage: Usage) -> dict[str, Any]:
    """Write `usage` from the normalised figures, the cached tokens beside the others."""
    cached, written = usage.cached_input_tokens, usage.cache_creation_tokens
    raw: dict[str, Any] = {
        "input_tokens": (usage.input_tokens or 0) - (cached or 0) - (written or 0),
        "output_tokens": usage.output_tokens or 0,
    }
    if cached is not None:
        raw["cache_read_input_tokens"] = cached
    if written is not None:
        raw["cache_creation_input_tokens"] = written
    if usage.reasoning_tokens is not None:
        raw["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return raw


def _citation_object(citation: Citation) -> dict[str, Any]:
    return {
        "type": "web_search_result_location",
        "url": citation.url,
        "title": citation.title,
        "cited_text": citation.text,
    }


def _unknown_object(event: Unknown) -> dict[str, Any]:
    """Return an event as it came; what came without a type is wrapped."""
    if isinstance(event.data, dict) and isinstance(event.data.get("type"), str):
        return event.data
    return {"type": event.kind, "data": event.data}


def _wire(fields: dict[str, Any]) -> bytes:
    return encode_sse(msgspec.json.encode(fields).decode(), event=fields["type"])


#: The vendor's own row.
ROW = Anthropic(
    "anthropic",
    base_url="https://api.anthropic.com",
    model="claude-sonnet-5-5",
    checked="2026-11-22",
    key_env=("ANTHROPIC_API_KEY",),
    model_env="ANTHROPIC_MODEL",
    base_url_env="ANTHROPIC_BASE_URL",
)
