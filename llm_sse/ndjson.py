r"""`application/x-ndjson`: bytes to events and back, one JSON value per line.

Theory of operation
-------------------

A line ends with LF, a byte that occurs neither inside a multi-byte UTF-8 character nor raw inside a
JSON text's strings. So the lines are cut on bytes, and text is decoded only once a whole line is
there: a character that the network cut in two needs no special care. The CR of a CRLF is white
space to JSON, and is taken off; a CR alone ends nothing.

State between two chunks is the line that has not ended yet, in `_line`. It grows in place, so that
a line that arrives byte by byte costs linear time, and no more memory than its own. Memory is
bounded by `max_line_bytes`.

The values are handed out as the events of `llm_sse.sse` without a name, for everything behind the
framing is the same. A line that begins with no brace and no bracket is no value of such a stream;
neither is a bracket that stands alone, with which JSON begins that is indented for people. Such
lines are kept, up to 64 KiB, in `ignored`: an HTML page, an event stream, or an indented error are
found there by whoever wants to know why there was no answer. A line that begins as a value but is
none is handed out all the same, because a piece of the answer that is broken must not be missed.

Source: https://github.com/ndjson/ndjson-spec
"""

from __future__ import annotations

from typing import Final

from .errors import ConfigurationError, ProtocolError
from .sse import ServerSentEvent

__all__ = ["DEFAULT_MAX_LINE_BYTES", "NDJSONDecoder", "encode_ndjson"]

DEFAULT_MAX_LINE_BYTES: Final = 16 * 1024 * 1024
_MAX_IGNORED_BYTES: Final = 64 * 1024
_BOM: Final = b"\xef\xbb\xbf"
_WHITE_SPACE: Final = b" \t\r\n"


class NDJSONDecoder:
    """Turn the bytes of an NDJSON body into events, one per line, however they are cut.

    Args:
        max_line_bytes: The most that one line may occupy, without its end.

    Attributes:
        ignored: Lines that are no JSON value, as they came, at most 64 KiB.
    """

    #: The media type of the bodies that this is for.
    content_type: Final = "application/x-ndjson"

    def __init__(self, *, max_line_bytes: int = DEFAULT_MAX_LINE_BYTES) -> None:
        if isinstance(max_line_bytes, bool) or not isinstance(max_line_bytes, int):
            raise ConfigurationError(f"max_line_bytes must be an int, not {max_line_bytes!r}")
        if max_line_bytes < 1:
            raise ConfigurationError(f"max_line_bytes must be at least 1, not {max_line_bytes}")
        self.max_line_bytes = max_line_bytes
        self.ignored = bytearray()
        self._line = bytearray()
        self._at_start = True
        self._failure: ProtocolError | None = None

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """Take the next bytes, of any number; return the events whose lines they complete.

        Raises:
            ProtocolError: A line grew beyond `max_line_bytes`; raised by the next call where this
                one has events to return, and by every call after it.
        """
        if self._failure is not None:
            raise self._failure
        *lines, rest = chunk.split(b"\n")
        events: list[ServerSentEvent] = []
        try:
            for line in lines:
                if self._line:
                    self._line += line
                    line = bytes(self._line)  # noqa: PLW2901
                    self._line.clear()
                self._check_size(len(line))
                self._value(line, events)
            self._line += rest
            self._check_size(len(self._line))
        except ProtocolError as failure:
            self._failure = failure
            self._line.clear()
            if not events:
                raise
        return events

    def end(self, *, dispatch_unfinished: bool = False) -> list[ServerSentEvent]:
        """Take note that no more bytes will come.

        Args:
            dispatch_unfinished: Whether to return the last line although no LF ended it.

        Raises:
            ProtocolError: A line has grown beyond `max_line_bytes`.
        """
        if self._failure is not None:
            raise self._failure
        events: list[ServerSentEvent] = []
        if dispatch_unfinished:
            self._value(bytes(self._line), events)
        self._line.clear()
        return events

    def _value(self, line: bytes, events: list[ServerSentEvent]) -> None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        value = line.strip(_WHITE_SPACE)
        if not value:
            return
        if value[0] in b"{[" and len(value) > 1:
            events.append(ServerSentEvent(value.decode("utf-8", "replace")))
        elif len(self.ignored) < _MAX_IGNORED_BYTES:
            self.ignored += line[: _MAX_IGNORED_BYTES - len(self.ignored) - 1] + b"\n"

    def _check_size(self, size: int) -> None:
        if size > self.max_line_bytes:
            raise ProtocolError(
                f"a line of NDJSON is larger than {self.max_line_bytes} bytes (max_line_bytes)"
            )


def encode_ndjson(value: bytes | str) -> bytes:
    """Encode one JSON text as one line.

    A line break in JSON can only stand between its tokens; there a space means the same.
    """
    data = value.encode("utf-8", "replace") if isinstance(value, str) else bytes(value)
    return data.replace(b"\r", b" ").replace(b"\n", b" ") + b"\n"
