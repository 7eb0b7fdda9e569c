"""Ollama's own API: `POST {base_url}/api/chat`, answered with one JSON object per line.

Wire shape -> events:

    {"model": "...", ...} the first one                        StreamStart
    {"message": {"thinking": "..."}}                           ReasoningDelta
    {"message": {"content": "..."}}                            TextDelta
    {"message": {"tool_calls": [{"function": {...}}]}}         ToolCallDelta and ToolCall, each
    {"done": true, "done_reason": "stop", "eval_count": ...}   Usage, Finish
    {"error": "..."}                                           raises APIError
    no object, or one without any of these fields              Unknown

Calls come whole, often without an identifier and all with the index 0, and `done_reason` stays
`stop` with them. A whole answer is one such object with everything in it.

Source: https://docs.ollama.com/api/chat, https://docs.ollama.com/api/errors
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, ClassVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from ..chat import (
    ChatRequest,
    HTTPRequest,
    Message,
    Tool,
    check_base_url,
    json_arguments,
    own_reasoning,
    redact_url,
)
from ..completion import Completion
from ..errors import APIError, ConfigurationError
from ..events import (
    Event,
    Finish,
    FinishReason,
    Logprobs,
    ReasoningDelta,
    RefusalDelta,
    StreamStart,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    Unknown,
    Usage,
)
from ..logprobs import token_object, tokens_event
from ..media import read_media
from ..ndjson import NDJSONDecoder, encode_ndjson
from ..sse import ServerSentEvent
from .base import (
    Accepted,
    Decoder,
    Frames,
    Provider,
    asked_logprobs,
    end_of_body,
    merge,
    normalised,
    then_raise,
)
from .calls import ToolCallBuilder
from .lenient import decode_json, lenient_decode, prepare, text_or_none
from .refusals import decode_body, error_text, is_listed_error
from .whole import WholeAnswer

__all__ = ["ROW", "Ollama"]

#: Ollama says the first four. It has no word for the others: they are our own.
_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "load": "error",
    "unload": "error",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "pause": "pause",
    "error": "error",
}
#: What the encoder says where Ollama has a word for it, and not ours.
_WORDS: dict[FinishReason, str] = {"tool_calls": "stop"}

#: `model 'x' not found`, and what other servers say instead.
_NO_MODEL = re.compile(
    r"""\bmodel\b\s*(?:['"`](?P<model>[^'"`]+)['"`])?.{0,200}?\bnot (?:found|exist)""",
    re.IGNORECASE | re.DOTALL,
)
#: How the names of all figures beside a message end.
_FIGURES = ("_count", "_duration")
_PORT = 11434
_PORTS = {"http": 80, "https": 443}

#: What Go calls the types of JSON, in the complaints of its decoder.
_GO_NAMES = {dict: "object", list: "array", str: "string", bool: "bool", int: "number"}


class _Function(Struct):
    name: str | None = None
    arguments: Any = None


class _Call(Struct):
    id: str | None = None
    function: _Function | None = None


class _Message(Struct):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[_Call] | None = None


class _Line(Struct):
    model: str | None = None
    message: _Message | None = None
    done: bool | None = None
    done_reason: str | None = None
    logprobs: Any = None
    error: Any = None

    def is_known(self) -> bool:
        return not (
            self.model is None
            and self.message is None
            and self.done is None
            and self.done_reason is None
            and self.error is None
        )


prepare(_Function, _Call, _Message, _Line)
_decode_line = msgspec.json.Decoder(_Line)


class Ollama(Provider, frozen=True):
    """A row for Ollama, or a server that speaks its own API; the key is for its cloud only."""

    needs_key: bool = False

    format: ClassVar[str] = "Ollama's own, NDJSON"
    paths: ClassVar[tuple[str, ...]] = (r"/api/chat",)
    telemetry_settings: ClassVar[Mapping[str, str]] = {
        "options.seed": "seed",
        "options.top_k": "top_k",
    }
    #: A line without a value is all that NDJSON allows beside values.
    ping: ClassVar[bytes] = b"\n"

    def find_base_url(self, environ: Mapping[str, str]) -> str:
        """Return the server that the environment names, in any form that Ollama's clients take.

        These are a host, with a port or without one, a port alone, and a URL. The address on
        which a server listens for everybody is reached as the local one.

        Raises:
            ConfigurationError: It is none of these.
        """
        value = environ.get(self.base_url_env, "").strip(" \t\r\n\"'")
        if not value:
            return self.base_url
        try:
            return check_base_url(_address(value))
        except ValueError:  # a ConfigurationError is one, too
            # Where a malformed address's password begins and ends is anybody's guess.
            shown = f", not {redact_url(value)!r}"
            if "@" in value:
                shown = ", without a user name or password; use api_key"
            raise ConfigurationError(
                f"{self.base_url_env} must look like host, host:port or https://host:port{shown}",
                provider=self.name,
            ) from None

    def request(self, chat: ChatRequest, key: str, base_url: str) -> HTTPRequest:
        """Write `POST {base_url}/api/chat`; `stream` is said, for Ollama streams by default."""
        messages = _messages(self.name, chat.messages)
        if chat.system:
            messages.insert(0, {"role": "system", "content": chat.system})
        body: dict[str, Any] = {
            "model": chat.model,
            "messages": messages,
            "stream": chat.stream,
        }
        settings = {
            "num_predict": chat.max_tokens,
            "temperature": chat.temperature,
            "top_p": chat.top_p,
            "stop": list(chat.stop) or None,
        }
        options = {name: value for name, value in settings.items() if value is not None}
        if options:
            body["options"] = options
        if chat.tool_choice not in (None, "auto", "none"):
            raise ConfigurationError(
                f"ollama has no tool_choice: the model decides; it cannot be {chat.tool_choice!r}",
                provider=self.name,
            )
        if chat.tools and chat.tool_choice != "none":
            body["tools"] = [_tool(tool) for tool in chat.tools]
        if chat.response_format is not None:
            schema = chat.response_format.described_schema()
            body["format"] = "json" if schema is None else schema
        if chat.logprobs is not None:
            body["logprobs"] = True
            if chat.logprobs:
                body["top_logprobs"] = chat.logprobs
        return HTTPRequest(
            url=f"{base_url}/api/chat",
            body=msgspec.json.encode(merge(body, chat.extra_body)),
            headers={"Content-Type": "application/json"},
            credentials=self.credentials(key),
        )

    def frames(self, *, stream: bool = True) -> Frames:
        """Return what cuts one body into lines, or reads the one object of a whole answer."""
        return NDJSONDecoder() if stream else WholeAnswer(self.retold)

    def decoder(self) -> Decoder:
        """Return a decoder for one response body."""
        return _Decoder(self)

    def retold(self, answer: dict[str, Any]) -> Iterable[Any]:
        """A whole answer has the shape of a stream's last line, with the message in it."""
        return [answer]

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> APIError:
        """Read `{"error": "..."}`."""
        return self._error(status, decode_body(body), headers)

    def stream_error(self, decoded: Any) -> APIError:
        """Read an error line. The status, where the server did not leave it out, is beside it."""
        return self._error(_status(decoded), decoded, {})

    def _error(self, status: int, decoded: Any, headers: Mapping[str, str]) -> APIError:
        message, code = error_text(decoded)
        missing = _NO_MODEL.search(message) if status == 404 else None
        error = self.api_error(
            status,
            message,
            code=code,
            body=decoded,
            headers=headers,
            unknown_model=missing is not None,
        )
        if missing is not None:
            name = missing["model"] or "..."
            error.args = (f"{error}; `ollama pull {name}` fetches a model",)
        return error

    def accept(self, path: str, headers: Mapping[str, str], body: bytes) -> Accepted:
        """Read a request as Ollama does: it asks for no key, and streams unless told not to."""
        if not body.strip():
            raise self.api_error(400, "missing request body")
        try:
            asked = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise self.api_error(400, _go_complaint(body)) from None
        if asked is None:
            asked = {}
        if not isinstance(asked, dict):
            raise self.api_error(400, f"json: cannot unmarshal {_go_mismatch(asked)}ChatRequest")
        for name, type_, go_type in (
            ("model", str, "string"),
            ("messages", list, "[]api.Message"),
            ("stream", bool, "bool"),
        ):
            value = asked.get(name)
            if value is not None and not isinstance(value, type_):
                raise self.api_error(
                    400,
                    f"json: cannot unmarshal {_go_name(value)} into Go struct field "
                    f"ChatRequest.{name} of type {go_type}",
                )
        if not asked.get("model"):
            raise self.api_error(400, "model is required")
        return Accepted(
            model=asked["model"],
            stream=asked.get("stream") is not False,
            usage=True,
            prompt=_last_text(asked.get("messages") or []),
            logprobs=asked_logprobs(asked.get("logprobs"), asked.get("top_logprobs")),
        )

    def encoder(self, *, model: str, usage: bool = True) -> _Encoder:
        """Return an encoder for one response body."""
        return _Encoder(model)

    def answer_body(self, completion: Completion) -> bytes:
        """Write a chat response that is done."""
        message: dict[str, Any] = {
            "role": "assistant",
            "content": completion.text or completion.refusal,
        }
        if completion.reasoning:
            message["thinking"] = completion.reasoning
        if completion.tool_calls:
            message["tool_calls"] = [_call_object(call) for call in completion.tool_calls]
        finish = Finish(completion.finish_reason or "stop", completion.raw_finish_reason)
        counts = _counts(completion.usage or Usage())
        end = _end(finish, counts)
        if completion.logprobs:
            end["logprobs"] = [token_object(token) for token in completion.logprobs]
        return msgspec.json.encode(_response(completion.model, message, end))

    def error_body(self, error: APIError) -> bytes:
        """Write `{"error": "..."}`."""
        return msgspec.json.encode({"error": error.detail})


def _address(value: str) -> str:
    """Return the URL that a host, a port, both, or a URL stand for.

    Source: Ollama's own clients, which take a URL without a port at its scheme's port.
    """
    scheme, separator, rest = value.partition("://")
    scheme = scheme.lower()
    if not separator:
        scheme, rest = "http", value
    place, slash, path = rest.partition("/")
    with suppress(ValueError):
        place = f"[{ipaddress.IPv6Address(place)}]"
    parts = urlsplit(f"{scheme}://{place}{slash}{path}")
    if scheme not in _PORTS or "@" in place or (separator and not place) or not value.isprintable():
        raise ConfigurationError("no address")
    host = parts.hostname or "127.0.0.1"
    port = parts.port or (_PORTS[scheme] if separator else _PORT)
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        if address.is_unspecified:
            host = "127.0.0.1" if address.version == 4 else "::1"
        host = f"[{host}]" if address.version == 6 else host
    return parts._replace(
        netloc=f"{host}:{port}", path=f"/{parts.path.strip('/')}".rstrip("/")
    ).geturl()


def _messages(provider: str, messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Translate the turns; a tool's result names its tool, by the call that it answers."""
    turns: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    for message in messages:
        turn = {"role": message.role, **_content(message)}
        if message.role == "tool":
            name = message.name or names.get(message.tool_call_id or "")
            if name:
                turn["tool_name"] = name
            if message.tool_call_id:
                turn["tool_call_id"] = message.tool_call_id
        elif message.name:
            raise ConfigurationError("ollama takes no name of a speaker; write it into the text")
        if message.role == "assistant" and (thinking := _thoughts(provider, message)):
            turn["thinking"] = thinking
        calls = []
        for call in message.tool_calls or []:
            id_, name, arguments = json_arguments(call)
            encoded: dict[str, Any] = {"function": {"name": name, "arguments": arguments}}
            if id_:
                encoded["id"] = id_
                names[id_] = name
            calls.append(encoded)
        if calls:
            turn["tool_calls"] = calls
        turns.append(turn)
    return turns


def _thoughts(provider: str, message: Message) -> str:
    """Return the thinking of a turn, as Ollama told it: it wants it back beside the calls.

    Source: https://docs.ollama.com/capabilities/streaming
    """
    details = own_reasoning(message, provider)
    return "".join(text_or_none(detail.get("text")) or "" for detail in details)


def _content(message: Message) -> dict[str, Any]:
    """Join the text parts; put the images beside them."""
    if not isinstance(message.content, list):
        return {"content": message.content or ""}
    texts: list[str] = []
    images: list[str] = []
    for part in message.content:
        kind = part.get("type")
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "image_url":
            images.append(_image(part))
        else:
            raise ConfigurationError(
                f"ollama does not take a content part of type {kind!r}; it takes text, and images "
                'as {"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}}'
            )
    content: dict[str, Any] = {"content": "".join(texts)}
    if images:
        content["images"] = images
    return content


def _image(part: Mapping[str, Any]) -> str:
    """Return the base64 text of a picture; Ollama has no place for anything beside it."""
    media = read_media(part)
    if media is None or media.data is None:
        raise ConfigurationError(
            "ollama fetches no images: pass a data: URL such as data:image/png;base64,..."
        )
    if media.beside:
        raise ConfigurationError(f"ollama takes nothing beside an image: {sorted(media.beside)}")
    return media.data


def _tool(tool: Tool | dict[str, Any]) -> dict[str, Any]:
    if not isinstance(tool, Tool):
        return tool
    return {"type": "function", "function": msgspec.to_builtins(tool)}


def _status(error: Any) -> int:
    """Return the status that stands in an error's object, in one of the names that Ollama uses."""
    if isinstance(error, dict):
        for name in ("status", "StatusCode", "status_code"):
            status = error.get(name)
            if isinstance(status, int) and 400 <= status < 600:
                return status
    return 500


def _go_name(value: Any) -> str:
    return "number" if isinstance(value, float) else _GO_NAMES[type(value)]


def _go_mismatch(value: Any) -> str:
    return f"{_go_name(value)} into Go value of type api."


def _go_complaint(body: bytes) -> str:
    """Say what is wrong with a text that is no JSON, as far as its first character tells."""
    first = body.decode("utf-8", "replace").lstrip()[0]
    if first in '{["':
        return "unexpected EOF"
    return f"invalid character {first!r} looking for beginning of value"


def _last_text(messages: list[Any]) -> str:
    """Return the text of the last user turn."""
    for message in reversed(messages):
        if isinstance(message, dict) and message.get("role") == "user":
            content = message.get("content")
            return content if isinstance(content, str) else ""
    return ""


class _Decoder:
    """One response body of `/api/chat`; see the module's table."""

    def __init__(self, provider: Ollama) -> None:
        self.done = False
        self.raw_finish_reason: str | None = None
        self._provider = provider
        self._started = False
        self._called = 0
        self._counts: dict[str, Any] = {}

    def decode(self, sse: ServerSentEvent) -> Iterable[Event]:
        """Return what one line means."""
        if self.done or not sse.data:
            return ()
        line = lenient_decode(sse.data, _Line, _decode_line)
        if not isinstance(line, _Line):
            if is_listed_error(line):
                return self._fail([], line)
            return (Unknown(sse.event, line),)
        if not line.is_known():
            return (Unknown(sse.event, decode_json(sse.data)),)
        events: list[Event] = []
        if not self._started and not line.error:
            self._started = True
            events.append(StreamStart(line.model or None))
        if line.message is not None:
            self._message(line.message, events)
        if line.logprobs is not None:
            events += tokens_event("logprobs", line.logprobs)
        if line.done or line.done_reason:
            self._note_end(line, sse.data)
        if line.error:
            return self._fail(events, decode_json(sse.data))
        if line.done:
            return [*events, *self._finish()]
        return events

    @property
    def complete(self) -> bool:
        """A reason completes the answer; newer backends have been seen to leave out `done`."""
        return self.raw_finish_reason is not None

    def end(self) -> Iterable[Event]:
        """The body ended: after the reason of its end, or too early.

        Source: https://github.com/ollama/ollama-vscode/pull/61, where a reason was the last word.
        """
        if self.done:
            return ()
        if self.raw_finish_reason is not None:
            return self._finish()
        self.done = True
        return then_raise(self._saved(), end_of_body(self._provider.name))

    def _message(self, message: _Message, events: list[Event]) -> None:
        if message.thinking:
            events.append(ReasoningDelta(message.thinking))
        if message.content:
            events.append(TextDelta(message.content))
        for call in message.tool_calls or ():
            self._call(call, events)

    def _call(self, call: _Call, events: list[Event]) -> None:
        """Tell one call, whole as it came; neither its index nor its name ties it to another."""
        function = call.function or _Function()
        arguments = function.arguments
        if call.id is None and not function.name and arguments is None:
            return
        built = ToolCallBuilder(self._called, call.id or None, function.name or "")
        self._called += 1
        if isinstance(arguments, str):
            built.pieces.append(arguments)
        elif arguments is not None:
            built.pieces.append(msgspec.json.encode(arguments).decode())
        events.append(ToolCallDelta(built.index, built.id, function.name or None, built.text))
        events.append(built.build())

    def _note_end(self, line: _Line, data: str) -> None:
        """Keep the reason, and the counts and durations beside it."""
        self.raw_finish_reason = line.done_reason or self.raw_finish_reason
        for name, value in decode_json(data).items():
            if name.endswith(_FIGURES):
                self._counts[name] = value

    def _fail(self, events: list[Event], decoded: Any) -> Iterable[Event]:
        self.done = True
        return then_raise([*events, *self._saved()], self._provider.stream_error(decoded))

    def _saved(self) -> list[Event]:
        return [_usage(self._counts)] if self._counts else []

    def _finish(self) -> list[Event]:
        """End the answer. The oldest servers give no reason; then only the calls tell one."""
        self.done = True
        raw = self.raw_finish_reason
        called = self._called > 0
        reason = normalised(raw, _REASONS, called_tools=called)
        if raw is None and called:
            reason = "tool_calls"
        return [*self._saved(), Finish(reason, raw)]


def _usage(raw: dict[str, Any]) -> Usage:
    """Read the counts. Ollama leaves out that of a prompt which was cached as a whole."""

    def count(name: str) -> int | None:
        value = raw.get(name)
        return value if isinstance(value, int) else None

    return Usage(count("prompt_eval_count"), count("eval_count"), raw=raw)


def _counts(usage: Usage) -> dict[str, Any]:
    """Write the figures of Ollama's own object, or those that it has a name for."""
    raw = usage.raw if isinstance(usage.raw, dict) else {}
    own = {name: value for name, value in raw.items() if name.endswith(_FIGURES)}
    counts = {"prompt_eval_count": usage.input_tokens, "eval_count": usage.output_tokens}
    return own or {name: value for name, value in counts.items() if value is not None}


def _response(
    model: str | None, message: dict[str, Any], end: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {
        "model": model or "",
        "created_at": "1970-01-01T00:00:00Z",
        "message": message,
        **(end or {"done": False}),
    }


def _end(finish: Finish, counts: dict[str, Any]) -> dict[str, Any]:
    """Write what stands in the last object beside the message."""
    word = finish.raw_reason or _WORDS.get(finish.reason, finish.reason)
    end: dict[str, Any] = {"done": True, "done_reason": word}
    if finish.reason == "other" and finish.raw_reason is None:
        del end["done_reason"]
    return {**end, **counts}


def _call_object(call: ToolCall) -> dict[str, Any]:
    """Write a call; arguments that are no object can only go as the text that they are."""
    function: dict[str, Any] = {"name": call.name}
    if call.arguments_text.strip():
        built = ToolCallBuilder(0, None, "")
        built.pieces.append(call.arguments_text)
        read = built.build()
        function["arguments"] = call.arguments_text if read.error else read.arguments
    encoded: dict[str, Any] = {"function": function}
    if call.id is not None:
        encoded["id"] = call.id
    return encoded


class _Encoder:
    """The same table, from right to left."""

    def __init__(self, model: str) -> None:
        self._start = StreamStart(model)
        self._counts: dict[str, Any] = {}

    def encode(self, event: Event) -> bytes:
        """Return the bytes for an event."""
        if isinstance(event, StreamStart):
            self._start = event
            return self._line({"content": ""})
        if isinstance(event, (TextDelta, RefusalDelta)):
            return self._line({"content": event.text})
        if isinstance(event, ReasoningDelta):
            return self._line({"content": "", "thinking": event.text})
        if isinstance(event, ToolCall):
            return self._line({"content": "", "tool_calls": [_call_object(event)]})
        if isinstance(event, Logprobs):
            written = [token_object(token) for token in event.tokens]
            return self._line({"content": ""}, {"done": False, "logprobs": written})
        if isinstance(event, Usage):
            self._counts = _counts(event)
        elif isinstance(event, Finish):
            return self._line({"content": ""}, _end(event, self._counts))
        elif isinstance(event, Unknown):
            return encode_ndjson(msgspec.json.encode(event.data))
        return b""

    def error(self, error: APIError) -> bytes:
        """Return `{"error": "..."}`, with the status where it is not the usual one."""
        fields: dict[str, Any] = {"error": error.detail}
        if error.status != 500:
            fields["status"] = error.status
        return encode_ndjson(msgspec.json.encode(fields))

    def _line(self, message: dict[str, Any], end: dict[str, Any] | None = None) -> bytes:
        response = _response(self._start.model, {"role": "assistant", **message}, end)
        return encode_ndjson(msgspec.json.encode(response))


#: The vendor's own row.
ROW = Ollama(
    "ollama",
    base_url="http://127.0.0.1:11434",
    model="gemma4",
    checked="2026-11-22",
    key_env=("OLLAMA_API_KEY",),
    model_env="OLLAMA_MODEL",
    base_url_env="OLLAMA_HOST",
)
