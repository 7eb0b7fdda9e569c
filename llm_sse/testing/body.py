"""The framings: how the bytes of one answer's body are put on the wire."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

from .actions import Framing

__all__ = ["NEEDS_LENGTH", "Body", "body"]

#: The framings that say at the beginning how long the body is.
NEEDS_LENGTH: tuple[Framing, ...] = ("dribble", "length")

Write = Callable[[bytes], object]
#: Called immediately before the last byte of something is written.
Before = Callable[[], object]


class Body:
    """A body with HTTP chunks: one for each `write`, in one write to the socket.

    Args:
        write: Puts bytes on the wire.

    Attributes:
        headers: What announces this framing.
    """

    headers = {"Transfer-Encoding": "chunked"}

    def __init__(self, write: Write) -> None:
        self._out = write

    def write(self, data: bytes, before: Before | None = None) -> None:
        """Send bytes; none would be the body's end, and are not sent."""
        if data:
            if before is not None:
                before()
            self._out(b"%x\r\n%s\r\n" % (len(data), data))

    def truncate(self, data: bytes) -> None:
        """Announce a chunk and send half of it, where there are chunks."""
        self._out(b"%x\r\n%s" % (len(data), data[: len(data) // 2]))

    def end(self) -> None:
        """End the body as HTTP."""
        self._out(b"0\r\n\r\n")


class _Bytes(Body):
    """Each byte is an HTTP chunk of its own."""

    def write(self, data: bytes, before: Before | None = None) -> None:
        for byte in _byte_by_byte(data, before):
            self._out(b"1\r\n%s\r\n" % byte)


class _Gzip(Body):
    """Chunked and compressed; each chunk can be decompressed as it comes."""

    headers = {"Transfer-Encoding": "chunked", "Content-Encoding": "gzip"}

    def __init__(self, write: Write) -> None:
        super().__init__(write)
        self._gzip = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)

    def write(self, data: bytes, before: Before | None = None) -> None:
        super().write(self._compressed(data) if data else b"", before)

    def truncate(self, data: bytes) -> None:
        # Half of the compressed bytes could hold all of it.
        half = self._compressed(data[: len(data) // 2])
        self._out(b"%x\r\n%s" % (2 * len(half), half))

    def end(self) -> None:
        super().write(self._gzip.flush())
        super().end()

    def _compressed(self, data: bytes) -> bytes:
        return self._gzip.compress(data) + self._gzip.flush(zlib.Z_SYNC_FLUSH)


class _Plain(Body):
    """The bytes as they are; with a length, or until the connection's end."""

    def __init__(self, write: Write, length: int | None) -> None:
        super().__init__(write)
        if length is None:
            self.headers = {"Connection": "close"}
        else:
            self.headers = {"Content-Length": str(length)}

    def write(self, data: bytes, before: Before | None = None) -> None:
        if data:
            if before is not None:
                before()
            self._out(data)

    def truncate(self, data: bytes) -> None:
        pass

    def end(self) -> None:
        pass


class _Dribble(Body):
    """The whole body is one HTTP chunk, written byte by byte."""

    def __init__(self, write: Write, length: int) -> None:
        super().__init__(write)
        self._announcement = b"%x\r\n" % length

    def write(self, data: bytes, before: Before | None = None) -> None:
        for byte in _byte_by_byte(data, before):
            if self._announcement:
                self._out(self._announcement)
                self._announcement = b""
            self._out(byte)

    def truncate(self, data: bytes) -> None:
        pass

    def end(self) -> None:
        self._out(b"\r\n0\r\n\r\n")


def body(how: Framing, write: Write, length: int) -> Body:
    """Begin a body.

    Args:
        how: The framing.
        write: Puts bytes on the wire.
        length: What is announced; used only by the framings that need it.
    """
    if how == "bytes":
        return _Bytes(write)
    if how == "dribble":
        return _Dribble(write, length)
    if how == "gzip":
        return _Gzip(write)
    if how == "chunked":
        return Body(write)
    return _Plain(write, length if how == "length" else None)


def _byte_by_byte(data: bytes, before: Before | None) -> Iterator[bytes]:
    for position in range(len(data)):
        if before is not None and position == len(data) - 1:
            before()
        yield data[position : position + 1]
