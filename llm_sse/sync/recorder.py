"""Write a live stream to a file, as it comes: `stream_sync(record=...)`.

The transport shows the bytes as they leave the socket's layer; everything is written at once, in
the producer's thread, line by line, so that a crash loses nothing but what may be the beginning of
a secret. Where nothing is recorded nothing is asked: the transport reads its bytes unobserved.
"""

from __future__ import annotations

import datetime
import io
import itertools
import logging
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import msgspec

from .._version import __version__
from ..chat import HTTPRequest
from ..errors import ConfigurationError, ConnectError, ConnectionLost, ProtocolError, StreamTimeout
from ..recording import VERSION, Chunk, End, Head, How, Line, Request, Response, as_text
from .channel import Channel
from .redaction import SECRET_HEADER, BytesRedaction

__all__ = ["Recorder", "Recording"]

T = TypeVar("T")

_log = logging.getLogger("llm_sse")

#: Who else shall not read the prompts.
_MODE = 0o600

#: A response's headers that may hold secrets; not those that count tokens.
_SECRET_ANSWER = re.compile("auth|key|token$|secret|cookie", re.IGNORECASE)


class Recording:
    """One file, that one stream is written to, or those of a tool loop one after the other.

    Args:
        path: Where; nothing may be there yet.

    Raises:
        ConfigurationError: That is no path.

    Thread: opened by the caller's, written by the producers'. A line is one write at the file's
    end, and says which attempt it belongs to.
    """

    def __init__(self, path: Any) -> None:
        if not isinstance(path, (str, os.PathLike)) or isinstance(os.fspath(path), bytes):
            raise ConfigurationError(f"record must be a path, not {type(path).__name__}")
        self.path = os.fspath(path)
        self._attempts = itertools.count(1)
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._users = 0
        self._file: io.FileIO | None = None
        self._failed = False

    def open(self, provider: str, format_: str) -> None:
        """Make the file and write its first line, for the first stream of those that use it.

        Raises:
            ConfigurationError: It is there already, or cannot be made.
        """
        with self._lock:
            if self._file is None:
                self._begin(provider, format_)
            elif self._users == 0 and not self._failed:
                self._reopen()
            self._users += 1

    def close(self) -> None:
        """Let go of the file, if no other stream uses it."""
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._file is not None:
                with suppress(OSError):
                    self._file.close()

    def _reopen(self) -> None:
        try:
            # Not "a", which would make what somebody has deleted.
            self._file = io.FileIO(self.path, "r+")
            self._file.seek(0, os.SEEK_END)
        except OSError as error:
            self._fail(error)

    def _begin(self, provider: str, format_: str) -> None:
        head = Head(
            version=VERSION,
            provider=provider,
            format=format_,
            recorded_at=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            made_by=f"llm-sse {__version__}",
        )
        try:
            self._file = io.FileIO(self.path, "x", opener=_private)
            self._file.write(msgspec.json.encode(head) + b"\n")
        except FileExistsError:
            raise ConfigurationError(
                f"record: {self.path!r} exists already, and is not overwritten; delete it or "
                "choose another name"
            ) from None
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            if self._file is not None:  # made, but not even its first line fits
                with suppress(OSError):
                    self._file.close()
                    os.unlink(self.path)
            reason = getattr(error, "strerror", None) or error
            raise ConfigurationError(f"record: {self.path!r} cannot be made: {reason}") from None
        self._began = time.monotonic()

    def at_s(self) -> float:
        """Return the time since the first stream was opened, in seconds."""
        return round(time.monotonic() - self._began, 6)

    def next_attempt(self) -> int:
        """Return the number of a request that is about to be sent."""
        return next(self._attempts)

    def append(self, line: Line) -> None:
        """Write a line; a file that cannot be written any more ends here, and the log says so."""
        if self._failed or self._file is None:
            return
        data = msgspec.json.encode(line) + b"\n"
        written = 0
        try:
            while written < len(data):
                written += self._file.write(data[written:])
        except OSError as error:
            if written:  # half a line would be taken for another mistake
                with suppress(OSError):
                    self._file.truncate(os.fstat(self._file.fileno()).st_size - written)
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        self._failed = True
        _log.warning(
            "the recording %r is incomplete and cannot be replayed: %s; the stream goes on",
            self.path,
            error.strerror or error,
        )


def _private(path: str, flags: int) -> int:
    """Make a file that nobody else can read."""
    return os.open(path, flags, _MODE)


class Recorder:
    """Write what happens to one stream.

    Args:
        recording: Where to.
        whose: The provider's name, and its wire format's.
        secrets: What must not be in it.
        stream: Whether the answer was asked for piece by piece.
        channel: The producer's end of it: it knows who closed the stream.

    Attributes:
        tap: What the transport shall show the bytes to.

    Thread: the producer's.
    """

    def __init__(
        self,
        recording: Recording,
        whose: tuple[str, str],
        secrets: Iterable[str],
        stream: bool,
        channel: Channel[Any],
    ) -> None:
        self.tap = self
        self._provider, self._format = whose
        self._recording = recording
        self._redacted = BytesRedaction(secrets)
        self._stream = stream
        self._channel = channel
        self._attempt: int | None = None
        self._answered = False
        self._how: How | None = None
        self._held: list[tuple[float, bytes]] = []

    # --- what the source tells ---

    def begins(self, request: HTTPRequest) -> None:
        """Write that an attempt begins."""
        self._attempt = self._recording.next_attempt()
        self._answered = False
        self._how = None
        headers = {**request.headers, **dict.fromkeys(request.credentials, "***")}
        self._recording.append(
            Request(
                attempt=self._attempt,
                at_s=self._recording.at_s(),
                method=request.method,
                provider=self._provider,
                format=self._format,
                url=self._text(request.url),
                headers=self._headers(headers, SECRET_HEADER),
                stream=self._stream,
                **as_text(self._redacted(request.body)),  # type: ignore[arg-type]
            )
        )

    def ended(self, error: Exception | None = None) -> None:
        """Write how the attempt ended, if one was under way."""
        if self._attempt is None:
            return
        self._release(settled=False)
        said = f"{type(error).__name__}: {error}" if error is not None else ""
        self._recording.append(
            End(
                attempt=self._attempt,
                at_s=self._recording.at_s(),
                how=self._ending(error),
                error=self._text(said),
            )
        )
        self._attempt = None

    def watched(self, items: Iterator[T]) -> Iterator[T]:
        """Return the items; when they end, or are closed, write so and let go of the file."""
        try:
            yield from items
        finally:
            self.ended()
            self._recording.close()

    # --- what the transport shows ---

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """Write the head of the response."""
        assert self._attempt is not None
        self._answered = True
        self._recording.append(
            Response(
                attempt=self._attempt,
                at_s=self._recording.at_s(),
                status=status,
                headers=self._headers(headers, _SECRET_ANSWER),
            )
        )

    def chunk(self, data: bytes) -> None:
        """Write bytes; those at the end wait for the next, if a secret may begin with them."""
        self._held.append((self._recording.at_s(), data))
        self._release(settled=True)

    def body_ended(self, how: How) -> None:
        """Note how the body ended."""
        self._how = self._how or how

    def _release(self, *, settled: bool) -> None:
        """Write the bytes that are held; only what cannot belong to a secret, if `settled`."""
        data = b"".join(piece for _, piece in self._held)
        until = self._redacted.settled(data) if settled else len(data)
        if not until:
            return
        clean = self._redacted(data[:until])
        untouched = clean == data[:until]
        written = 0
        while self._held and written < until:
            at_s, piece = self._held[0]
            if written + len(piece) <= until:
                self._held.pop(0)
            else:
                self._held[0] = (at_s, piece[until - written :])
                piece = piece[: until - written]
            written += len(piece)
            if untouched:
                self._write_chunk(at_s, piece)
            elif written == until:
                self._write_chunk(at_s, clean)

    def _write_chunk(self, at_s: float, data: bytes) -> None:
        assert self._attempt is not None
        self._recording.append(
            Chunk(attempt=self._attempt, at_s=at_s, **as_text(data))  # type: ignore[arg-type]
        )

    def _ending(self, error: Exception | None) -> How:
        """Say how the attempt ended: as the body did, else as the caller wanted, else by us."""
        if self._how == "end_of_body":
            return self._how
        if self._channel.closed:
            return "timeout" if self._channel.timed_out else "closed"
        if self._answered:
            return self._how or "left"
        if isinstance(error, ProtocolError):
            return "no_http"
        if isinstance(error, (ConnectError, StreamTimeout)):
            return "no_connection"
        return "connection_lost" if isinstance(error, ConnectionLost) else "not_sent"

    def _text(self, text: str) -> str:
        return self._redacted(text.encode("utf-8", "replace")).decode("utf-8", "replace")

    def _headers(self, headers: Mapping[str, str], secret: re.Pattern[str]) -> dict[str, str]:
        return {
            name: "***" if secret.search(name) else self._text(value)
            for name, value in headers.items()
        }
