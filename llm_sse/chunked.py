"""HTTP/1.1's chunked transfer coding: the bytes of a connection in, the bytes of a body out.

`http.client` reads one chunk at a time, and providers send each delta as a chunk of its own: a
burst of three hundred deltas, which one read of the socket brings, would cost three hundred calls
through three libraries. Here it costs one.

Source: RFC 9112 section 7.1.
"""

from __future__ import annotations

import re

__all__ = ["ChunkedDecoder"]

#: What nearly every chunk begins with.
_PLAIN_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})\r\n")
#: A line with a chunk's size: extensions are allowed, and so is a bare LF.
_SIZE = re.compile(rb"[ \t]*0*([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?", re.DOTALL)
_MAX_LINE_BYTES = 16 * 1024
_MAX_TRAILERS_BYTES = 64 * 1024


class ChunkedDecoder:
    """Takes the chunked coding off a body, however its bytes are cut; in linear time.

    Attributes:
        done: Whether the body has ended, trailers included.
        excess: What came after that, and belongs to nobody.
        broken: Why nothing more can be made of the bytes, or `None`.
    """

    def __init__(self) -> None:
        self.done = False
        self.excess = b""
        self.broken: ValueError | None = None
        self._unread = b""
        #: How many bytes of the chunk are to come; below 0 those of its CRLF.
        self._left = 0
        self._in_trailers = False
        self._trailers_bytes = 0

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the connection; return what they hold of the body.

        Where they are no chunks any more, what stood before that is returned and `broken` is set.
        """
        if self._unread:
            data = self._unread + data
        pieces: list[bytes] = []
        try:
            self._unread = self._split(data, pieces)
        except ValueError as error:
            self.broken = error
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _split(self, data: bytes, pieces: list[bytes]) -> bytes:
        """Add what there is of the body; return what cannot be understood yet.

        Raises:
            ValueError: There is something that is no chunk.
        """
        at = 0
        while at < len(data):
            if self._left > 0:
                piece = data[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left = self._left - len(piece) or -2
                continue
            if not (self._left or self._in_trailers):
                at = _whole_chunks(data, at, pieces)
            line, after = self._line(data, at)
            if line is None:
                break
            at = after
            self._interpret(line)
            if self.done:
                self.excess = data[at:]
                at = len(data)
        return data[at:]

    def _line(self, data: bytes, at: int) -> tuple[bytes | None, int]:
        """Return the line that begins at a place, without its end, and where the next one does."""
        end = data.find(b"\n", at, at + _MAX_LINE_BYTES)
        if end < 0:
            if len(data) - at >= _MAX_LINE_BYTES:
                raise ValueError("a line between the body's chunks does not end")
            return None, at
        return data[at:end].rstrip(b"\r"), end + 1

    def _interpret(self, line: bytes) -> None:
        """Take note of a line: the end of a chunk, the size of one, or a trailer."""
        if self._in_trailers:
            self.done = not line
            self._trailers_bytes += len(line)
            if self._trailers_bytes > _MAX_TRAILERS_BYTES:
                raise ValueError("the trailers after the body do not end")
        elif self._left:
            if line:
                raise ValueError(f"a chunk of the body is longer than it says: {line[:40]!r}")
            self._left = 0
        else:
            found = _SIZE.fullmatch(line)
            if found is None:
                raise ValueError(f"not the size of a chunk: {line[:40]!r}")
            self._left = int(found[1], 16)
            self._in_trailers = not self._left


def _whole_chunks(data: bytes, at: int, pieces: list[bytes]) -> int:
    """Take the chunks that are there from their first byte to their last; return where they end."""
    while size := _PLAIN_SIZE.match(data, at):
        begin = size.end()
        end = begin + int(size[1], 16)
        if end == begin or data[end : end + 2] != b"\r\n":
            break
        pieces.append(data[begin:end])
        at = end + 2
    return at
