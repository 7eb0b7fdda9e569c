r"""`text/event-stream`: bytes to events and back.

Theory of operation
-------------------

The format is lines, and the only bytes that matter to find a line's end are CR and LF, which never
occur inside a multi-byte UTF-8 character. So everything works on bytes: a chunk is cut by
`bytes.splitlines()` (which for bytes knows CR, LF and CRLF and nothing else), and text is decoded
only once a whole event is there. A character that the network cut in two needs no special care.

State between two chunks is small:

* `_line`: the line that has not ended yet; it grows in place, so that a 16 MiB line that arrives
  byte by byte costs linear time, and no more memory than its own;
* `_after_cr`: the last byte was a CR. The line has already been acted on, for the next byte may be
  a long time away; an LF that opens the next chunk belongs to that CR and is dropped;
* `_data`, `_event`: the fields of the event under way, every `data` line with an LF after it; and
  the last event identifier, which by the standard outlives its event.

Memory is bounded by `max_event_bytes`, counted over the unfinished line and the data gathered so
far.

Lines that the standard tells us to ignore because no such field exists are kept, up to 64 KiB, in
`ignored`. Servers that fail in mid-stream are known to print bare JSON, an HTML page or an
`error: {...}` line there; whoever finds a stream ended too early can look at what was said.

Source: WHATWG HTML, section 9.2 "Server-sent events".
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from .errors import ConfigurationError, ProtocolError

__all__ = [
    "DEFAULT_MAX_EVENT_BYTES",
    "SSEDecoder",
    "ServerSentEvent",
    "encode_comment",
    "encode_sse",
]

DEFAULT_MAX_EVENT_BYTES: Final = 16 * 1024 * 1024
_MAX_IGNORED_BYTES: Final = 64 * 1024
_BOM: Final = b"\xef\xbb\xbf"
#: What a line of data has beside what it adds to the event: `data: `, but for the line break.
_DATA_LINE_BYTES: Final = 5
_MAX_KNOWN_BYTES: Final = 64


class ServerSentEvent(Struct, frozen=True):
    """One dispatched event.

    Attributes:
        data: The `data` lines, joined by LF.
        event: The event's type; `message` where the stream names none.
        id: The last event identifier at the time of the dispatch; empty where none was sent.
    """

    data: str
    event: str = "message"
    id: str = ""


class SSEDecoder:
    """Turn the bytes of an event stream into events, however they are cut.

    Args:
        max_event_bytes: The most that one event (or one line) may occupy.

    Attributes:
        last_event_id: The identifier to send as `Last-Event-ID` when reconnecting.
        retry_ms: The reconnection time that the server last asked for, in milliseconds.
        ignored: Lines with an unknown field name, as they came, at most 64 KiB.
    """

    #: The media type of the bodies that this is for.
    content_type: Final = "text/event-stream"

    def __init__(self, *, max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES) -> None:
        if isinstance(max_event_bytes, bool) or not isinstance(max_event_bytes, int):
            raise ConfigurationError(f"max_event_bytes must be an int, not {max_event_bytes!r}")
        if max_event_bytes < 1:
            raise ConfigurationError(f"max_event_bytes must be at least 1, not {max_event_bytes}")
        self.max_event_bytes = max_event_bytes
        self.last_event_id = ""
        self.retry_ms: int | None = None
        self.ignored = bytearray()
        self._line = bytearray()
        self._after_cr = False
        self._at_start = True
        #: The event's data: nearly always one line, else all of them, each with its LF.
        self._only: bytes | None = None
        self._data = bytearray()
        self._event = ""
        #: The last line with an event's type, and that type; not where it is very long.
        self._known_line = b"event: message"
        self._known_event = "message"
        self._id = ""
        self._failure: ProtocolError | None = None

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """Take the next bytes, of any number; return the events that they complete.

        Raises:
            ProtocolError: An event grew beyond `max_event_bytes`; raised by the next call where
                this one has events to return, and by every call after it.
        """
        if self._failure is not None:
            raise self._failure
        if self._at_start or self._after_cr:
            chunk = self._trimmed(chunk)
        if not chunk:
            return []
        lines, rest = self._lines(chunk)
        events: list[ServerSentEvent] = []
        try:
            self._take(lines, events)
            if rest:
                self._line += rest
                self._check_size(len(self._line) - _DATA_LINE_BYTES)
        except ProtocolError as failure:
            self._failure = failure
            if not events:
                raise
        return events

    def end(self, *, dispatch_unfinished: bool = False) -> list[ServerSentEvent]:
        """Take note that no more bytes will come.

        Args:
            dispatch_unfinished: The standard discards an event whose closing blank line is missing.
                Some servers never send the last one; with `True` it is returned all the same.

        Raises:
            ProtocolError: An event has grown beyond `max_event_bytes`.
        """
        if self._failure is not None:
            raise self._failure
        events: list[ServerSentEvent] = []
        if dispatch_unfinished:
            if self._line:
                self._field(bytes(self._line))
            self._dispatch(events)
        self._line.clear()
        self._reset()
        return events

    def _lines(self, chunk: bytes) -> tuple[list[bytes], bytes]:
        """Return the lines that are whole now, and what there is of the next one."""
        lines = chunk.splitlines()
        last_byte = chunk[-1]
        rest = b""
        if last_byte in b"\r\n":
            self._after_cr = last_byte == 0x0D
        else:
            rest = lines.pop()
        if self._line and lines:
            self._line += lines[0]
            lines[0] = bytes(self._line)
            self._line.clear()
        return lines, rest

    def _trimmed(self, chunk: bytes) -> bytes:
        """Remove what belongs to the bytes before: a BOM's rest, or the LF of a CRLF."""
        if self._at_start:
            chunk = self._without_bom(chunk)
        if self._after_cr and chunk:
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        return chunk

    def _without_bom(self, chunk: bytes) -> bytes:
        """Remove one leading byte order mark, which may itself arrive in pieces."""
        start = bytes(self._line) + chunk
        if len(start) < len(_BOM) and _BOM.startswith(start):
            self._line[:] = start
            return b""
        self._at_start = False
        self._line.clear()
        return start[3:] if start.startswith(_BOM) else start

    def _take(self, lines: list[bytes], events: list[ServerSentEvent]) -> None:
        """Take lines; add the events that they complete.

        Nearly every event is one line of data, perhaps after one with a type, of which there are
        few: that much is done here, without a call.
        """
        only, data, longest = self._only, self._data, self.max_event_bytes + _DATA_LINE_BYTES
        for line in lines:
            if line.startswith(b"data: ") and only is None and not data:
                if len(line) > longest:
                    self._check_size(len(line) - _DATA_LINE_BYTES)
                only = line[6:]
            elif only is not None and not line:
                text = only.decode("utf-8", "replace")
                events.append(ServerSentEvent(text, self._event or "message", self._id))
                self.last_event_id = self._id
                self._event = ""
                only = None
            elif line == self._known_line and only is None and not data:
                self._event = self._known_event
            else:
                self._only = only
                if line:
                    self._field(line)
                else:
                    self._dispatch(events)
                only = self._only
        self._only = only

    def _field(self, line: bytes) -> None:
        self._check_size(len(line) - _DATA_LINE_BYTES)
        name, colon, value = line.partition(b":")
        if colon and not name:
            return  # a comment
        if value.startswith(b" "):
            value = value[1:]
        if name == b"data":
            self._add_data(value)
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
            if len(line) <= _MAX_KNOWN_BYTES:
                self._known_line, self._known_event = line, self._event
        elif name == b"id":
            if b"\0" not in value:
                self._id = value.decode("utf-8", "replace")
        elif name == b"retry":
            if value.isdigit() and len(value) <= 18:
                self.retry_ms = int(value)
        elif len(self.ignored) < _MAX_IGNORED_BYTES:
            self.ignored += line[: _MAX_IGNORED_BYTES - len(self.ignored) - 1] + b"\n"

    def _add_data(self, value: bytes) -> None:
        if self._only is None and not self._data:
            self._only = value
            return
        if self._only is not None:
            self._data += self._only
            self._data += b"\n"
            self._only = None
        self._data += value
        self._data += b"\n"

    def _dispatch(self, events: list[ServerSentEvent]) -> None:
        self.last_event_id = self._id
        data: bytes | bytearray | None = self._only
        if data is None and self._data:
            self._data.pop()
            data = self._data
        if data is not None:
            text = data.decode("utf-8", "replace")
            events.append(ServerSentEvent(text, self._event or "message", self._id))
        self._reset()

    def _reset(self) -> None:
        self._only = None
        self._event = ""
        if self._data:
            self._data.clear()

    def _check_size(self, more: int) -> None:
        """Refuse an event that is too large with so many bytes more."""
        size = more + len(self._data) + (0 if self._only is None else len(self._only) + 1)
        if size > self.max_event_bytes:
            raise ProtocolError(
                f"a server-sent event is larger than {self.max_event_bytes} bytes (max_event_bytes)"
            )


def encode_sse(
    data: str, *, event: str | None = None, id: str | None = None, retry_ms: int | None = None
) -> bytes:
    r"""Encode one event.

    Line breaks in `data` (CR, LF or CRLF) become several `data` lines, and arrive as LF. The
    other fields are one line each by the format, so a line break there could only forge a field.

    Args:
        data: The event's payload.
        event: The event's type.
        id: The event's identifier; an empty one resets the client's.
        retry_ms: How long the client shall wait before it reconnects, in milliseconds.

    Raises:
        ConfigurationError: A line break in `event` or `id`, a NUL in `id`, a negative `retry_ms`.
    """
    lines: list[str] = []
    if event is not None:
        lines.append(f"event: {_one_line('event', event)}\n")
    if id is not None:
        if "\0" in id:
            raise ConfigurationError("an SSE id cannot hold a NUL character: clients ignore it")
        lines.append(f"id: {_one_line('id', id)}\n")
    if retry_ms is not None:
        if isinstance(retry_ms, bool) or not isinstance(retry_ms, int) or retry_ms < 0:
            raise ConfigurationError(f"retry_ms must be a whole number from 0 on, not {retry_ms!r}")
        lines.append(f"retry: {retry_ms}\n")
    lines += [f"data: {line}\n" for line in _data_lines(data)]
    lines.append("\n")
    return "".join(lines).encode("utf-8", "replace")


def encode_comment(text: str = "") -> bytes:
    """Encode a comment, which clients ignore: it keeps a connection busy, or shows it open."""
    return ("".join(f": {line}\n" for line in _data_lines(text)) + "\n").encode("utf-8", "replace")


def _data_lines(text: str) -> list[str]:
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _one_line(field: str, value: str) -> str:
    if "\n" in value or "\r" in value:
        raise ConfigurationError(f"an SSE {field} cannot hold a line break: {value!r}")
    return value
