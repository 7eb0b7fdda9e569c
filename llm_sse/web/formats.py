"""The formats in which a browser is told of a stream: events in, bytes out; no clock, no thread.

One `Format` writes one body. Each of its events has an `id` that ends with its position from 1 up.

Comments carry the rest: clients ignore them, and proxies see that the connection is alive. Where
events have ids, a comment has no blank line of its own, but stands before the lines of the event
that follows. The standard ignores a block without data; but many clients keep the last id, and take
every later blank line for an event with the data "", which is no JSON.

Source: OpenAI's Python library, `SSEDecoder.decode` in `src/openai/_streaming.py`; httpx-sse, the
    same in `src/httpx_sse/_decoders.py`; `@microsoft/fetch-event-source`, `getMessages` in
    `src/parse.ts`, where it happens even without an id.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import msgspec

from ..errors import APIError, ConfigurationError, ProtocolError
from ..events import (
    Citation,
    Event,
    FellBack,
    Finish,
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    Resumed,
    Retrying,
    StreamStart,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolResult,
    Unknown,
    Usage,
)
from ..providers import find_provider
from ..providers.lenient import map_strings
from ..sse import encode_comment, encode_sse
from .problem import Problem, problem_of
from .ui_message import UIMessageChunks

__all__ = ["FORMATS", "Format", "find_format"]

#: What the model says to the visitor.
_SAID = (TextDelta, RefusalDelta)
_TOOL_FAILED = "the tool failed"
_ATTEMPT_FAILED = "the model could not be reached"


class Format(ABC):
    """One way to write a stream.

    Attributes:
        content_type: What the body is.
        headers: Further headers that belong to the format.
        numbered: Whether its events have ids.
        id_prefix: What stands before the position in an event's `id`.
        for_event_source: Whether an `EventSource` reads it (see `event_source`).
    """

    content_type: ClassVar[str] = "text/event-stream; charset=utf-8"
    headers: ClassVar[dict[str, str]] = {}

    def __init__(self) -> None:
        self.position = 0
        self.numbered = True
        self.id_prefix = ""
        self.for_event_source = False

    def number(self, prefix: str = "") -> None:
        """Give every event an id that begins so."""
        self.numbered = True
        self.id_prefix = prefix

    @property
    def greeting(self) -> bytes:
        """What is sent at once, so that the browser knows that it is connected.

        Its id is the one before the first event's: who is cut off before that event comes back
        with an id, too.
        """
        if not self.numbered:
            return encode_comment("connected")
        end = "\n" if self.for_event_source else ""
        return f"id: {self._cursor()}\n: connected\n{end}".encode()

    @property
    def heartbeat(self) -> bytes | None:
        """What is sent while nothing else is; `None` where nothing means nothing."""
        return b": heartbeat\n" if self.numbered else encode_comment("heartbeat")

    def _cursor(self) -> str:
        return f"{self.id_prefix}{self.position}"

    @abstractmethod
    def encode(self, event: Event) -> bytes:
        """Return the bytes for an event; none where the format says it later, or nowhere."""

    def end(self) -> bytes:
        """Return the bytes that end a complete answer."""
        return self._event("[DONE]")

    def error(self, problem: Problem) -> bytes | None:
        """Return the bytes that end another one; `None` where only a broken body can say so."""
        return self._event(problem.body.decode(), name="error")

    def _event(self, data: str, *, name: str | None = None) -> bytes:
        self.position += 1
        return encode_sse(data, event=name, id=self._cursor())

    def _json(self, value: Any, *, name: str | None = None) -> bytes:
        try:
            written = msgspec.json.encode(value)
        except UnicodeEncodeError:
            written = msgspec.json.encode(_well_formed(value))
        return self._event(written.decode(), name=name)


def _well_formed(value: Any) -> Any:
    """Replace halves of characters, which UTF-8 has no bytes for; the name of a file has some."""
    built = msgspec.to_builtins(value, str_keys=True)
    return map_strings(lambda text: text.encode("utf-8", "replace").decode(), built)


class Tokens(Format):
    """The text, delta by delta: `data: {"token": "..."}`; a refusal is what the model says, too.

    Nothing else is told, but an end that is not the model's own (`length`, `content_filter`, ...):
    `event: finish`, `data: {"type": "finish", "reason": "..."}`, before `[DONE]`. Else an answer
    that was cut would look whole.
    """

    def __init__(self) -> None:
        super().__init__()
        self._reason: FinishReason = "stop"

    def encode(self, event: Event) -> bytes:
        """Return the bytes for a text delta."""
        if isinstance(event, Finish):
            self._reason = event.reason
        return self._json({"token": event.text}) if isinstance(event, _SAID) else b""

    def end(self) -> bytes:
        """Return why the answer ended, where that says something, and `[DONE]`."""
        if self._reason == "stop":
            return super().end()
        return self._json({"type": "finish", "reason": self._reason}, name="finish") + super().end()


class Events(Format):
    """The events of `llm_sse.events` as JSON, each under the name of its type.

    What an exception said, ours or a tool's, and whose attempts failed, is the site's affair: it is
    replaced.
    """

    def encode(self, event: Event) -> bytes:
        """Return the bytes for any event."""
        if isinstance(event, (Retrying, Resumed)):
            event = msgspec.structs.replace(event, error=_ATTEMPT_FAILED)
        elif isinstance(event, FellBack):
            event = FellBack("", "", _ATTEMPT_FAILED)
        elif isinstance(event, ToolResult) and event.error is not None:
            event = ToolResult(event.id, event.name, f"Error: {_TOOL_FAILED}", _TOOL_FAILED)
        return self._json(event, name=str(event.__struct_config__.tag))


class OpenAIChunks(Format):
    """Chunks of OpenAI's Chat Completions, whichever provider speaks.

    Tools that ran on the site are not the client's affair: calls are told when their answer has
    ended and nobody has answered them; so is the one finish reason. As there, usage is not told to
    who did not ask for it. What another provider would not understand (its own objects, opaque
    reasoning) is left out. An answer that the provider itself calls an error ends as one.

    It has ids only for who comes back with them: OpenAI's own has none, and a client written for
    that one may expect `data:` at the beginning of every event.

    Source: https://platform.openai.com/docs/api-reference/chat-streaming
    """

    #: Words of ours for which there is none.
    _REASONS: ClassVar[dict[str, Any]] = {"pause": "stop", "other": "stop"}

    def __init__(self) -> None:
        super().__init__()
        self.numbered = False
        self._encoder = find_provider("openai").encoder(model="", usage=False)
        self._started = False
        self._calls: list[ToolCallDelta | ToolCall] = []
        self._finish = Finish("stop")

    def encode(self, event: Event) -> bytes:
        """Return the bytes for a piece of the answer."""
        if isinstance(event, (ToolCallDelta, ToolCall)):
            self._calls.append(event)
        elif isinstance(event, ToolResult):
            self._calls.clear()
        elif isinstance(event, Finish):
            self._finish = Finish(self._REASONS.get(event.reason, event.reason))
        elif isinstance(event, StreamStart):
            if not self._started:
                self._started = True
                return self._write(event)
        elif isinstance(event, ReasoningDelta):
            return self._write(ReasoningDelta(event.text)) if event.text else b""
        elif isinstance(event, Citation):
            return self._write(msgspec.structs.replace(event, raw=None))
        elif not isinstance(event, (Unknown, Usage)):
            return self._write(event)
        return b""

    def end(self) -> bytes:
        """Return the calls that wait for an answer, the finish reason and `[DONE]`."""
        if self._finish.reason == "error":
            return self.error(problem_of(ProtocolError("the answer ended with an error"))) or b""
        calls = b"".join(map(self._write, self._calls))
        return calls + self._write(self._finish)

    def error(self, problem: Problem) -> bytes | None:
        """Return the error object for which OpenAI's own clients look in a chunk."""
        error = APIError(problem.detail, status=problem.status, code=problem.code)
        error.detail = problem.detail
        return self._numbered(self._encoder.error(error))

    def _write(self, event: Event) -> bytes:
        try:
            msgspec.json.encode(event)
        except UnicodeEncodeError:
            event = msgspec.convert(_well_formed(event), type(event))
        return self._numbered(self._encoder.encode(event))

    def _numbered(self, written: bytes) -> bytes:
        """Give each event that an encoder has written its id, where there are ids."""
        if not self.numbered:
            return written
        numbered = b""
        for one in written.split(b"\n\n")[:-1]:
            self.position += 1
            numbered += b"id: %s%d\n%s\n\n" % (self.id_prefix.encode(), self.position, one)
        return numbered


class UIMessages(Format):
    """The UI message stream of the AI SDK, which `useChat` reads; version 1."""

    headers = {"x-vercel-ai-ui-message-stream": "v1"}

    def __init__(self) -> None:
        super().__init__()
        self._chunks = UIMessageChunks(_TOOL_FAILED)

    def encode(self, event: Event) -> bytes:
        """Return the bytes for any event that the protocol has a part for."""
        return b"".join(map(self._json, self._chunks.of(event)))

    def end(self) -> bytes:
        """Return the last part and `[DONE]`."""
        return b"".join(map(self._json, self._chunks.end())) + super().end()

    def error(self, problem: Problem) -> bytes | None:
        """Return the part that tells of an error."""
        return self._json({"type": "error", "errorText": problem.detail})


class Text(Format):
    """The text as it is.

    Nothing can be said beside it: an answer that broke off breaks the body.
    """

    content_type = "text/plain; charset=utf-8"

    @property
    def greeting(self) -> bytes:
        """Nothing: it would be the answer's."""
        return b""

    @property
    def heartbeat(self) -> bytes | None:
        """Nothing, for the same reason."""
        return None

    def encode(self, event: Event) -> bytes:
        """Return the text of a text delta, or of a refusal."""
        return event.text.encode("utf-8", "replace") if isinstance(event, _SAID) else b""

    def end(self) -> bytes:
        """Return nothing: the end of the body is the end of the answer."""
        return b""

    def error(self, problem: Problem) -> bytes | None:
        """Return `None`: the body has to break."""
        return None


#: By the name that `format=` takes.
FORMATS: dict[str, type[Format]] = {
    "tokens": Tokens,
    "events": Events,
    "openai": OpenAIChunks,
    "ui-message": UIMessages,
    "text": Text,
}


def find_format(name: object) -> Format:
    """Return a new writer of a format.

    Raises:
        ConfigurationError: There is none of that name.
    """
    format_ = FORMATS.get(name) if isinstance(name, str) else None
    if format_ is None:
        raise ConfigurationError(f"unknown format {name!r}; there are: {', '.join(FORMATS)}")
    return format_()
