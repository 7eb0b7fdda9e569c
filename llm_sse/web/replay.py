"""Where streams are kept while browsers may come back for them: the stores.

A store keeps what was told of each stream, server-sent event by server-sent event, each with its
position from 1 up. One writer adds to a stream, any number of readers follow it, each from any
position. `MemoryReplay` serves the threads of one process, `llm_sse.web.redis.RedisReplay` any
number of processes and machines.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import NamedTuple

from ..errors import ConfigurationError, ServerError

__all__ = [
    "RETRY_AFTER_S",
    "Entry",
    "Fenced",
    "Gone",
    "MemoryReplay",
    "Refused",
    "ReplayReader",
    "ReplayStore",
    "ReplayUnavailable",
    "ReplayWriter",
    "Stopped",
    "StreamState",
]


#: When who found a store full may ask again, in seconds: streams and their readers last that long.
RETRY_AFTER_S = 5.0


class Entry(NamedTuple):
    """One server-sent event of a stream.

    Attributes:
        position: Its place in the stream, from 1 up.
        data: Its bytes, as browsers get them.
        last: Whether the stream ends with it.
    """

    position: int
    data: bytes
    last: bool


class StreamState(NamedTuple):
    """What a store has of a stream.

    Attributes:
        first: The position of the oldest entry that is kept; 1 where there is none yet.
        last: The position of the newest one; 0 where there is none yet.
        ended: Whether nothing will follow.
    """

    first: int
    last: int
    ended: bool


class Gone(Exception):
    """A stream, or the part of it that was asked for, is not kept (any longer)."""


class Fenced(Exception):
    """A stream has been ended by others, because its writer seemed to be dead."""


class Stopped(Exception):
    """Somebody wants a stream to end."""


class Refused(Exception):
    """A stream never began, because its question was refused.

    Args:
        refusal: What its writer says about it.
    """

    def __init__(self, refusal: bytes) -> None:
        super().__init__("the question was refused")
        self.refusal = refusal


class ReplayUnavailable(Exception):
    """The store cannot be reached at the moment."""


class ReplayWriter(ABC):
    """The one who adds to a stream.

    Attributes:
        keep_every_s: How often `keep` is to be called, in seconds.
    """

    keep_every_s: float

    @abstractmethod
    def append(self, events: Sequence[bytes], *, last: bool = False) -> None:
        """Add events; when this returns, every reader can have them.

        Raises:
            Fenced: Somebody else has ended the stream.
            ReplayUnavailable: The store is out of reach, and was for too long.
        """

    @abstractmethod
    def keep(self) -> bool:
        """Say that the writer lives; return whether anybody reads.

        Raises:
            Fenced: Somebody else has ended the stream.
            Stopped: Somebody wants it to end.
            ReplayUnavailable: The store is out of reach, and was for too long.
        """

    @abstractmethod
    def take_name(self, name: str, id_: str, instead_of: str | None) -> str:
        """Have a name stand for the stream, unless it stands for another one by now.

        As long as the writer writes, the name is kept; where the store has lost it, and somebody
        else has taken it since, it is his.

        Args:
            name: The name.
            id_: What the name stands for from now on.
            instead_of: What it may have stood for until now.

        Returns:
            What it stands for now.

        Raises:
            ReplayUnavailable: The store is out of reach, and was for too long.
        """

    @abstractmethod
    def discard(self) -> None:
        """Forget the stream: it never was."""

    def refuse(self, refusal: bytes) -> None:
        """Forget the stream, and tell who waits for its first event why.

        A store that does not know this tells them that it is gone.
        """
        self.discard()

    def close(self) -> None:  # noqa: B027 - a store whose writers expire has nothing to do
        """Stop writing; a stream that has not ended by now never will, and its readers are told."""


class ReplayReader(ABC):
    """One who follows a stream; he counts as a reader until `close`.

    Thread: `read` is one consumer's, `close` everybody's.
    """

    @abstractmethod
    def read(self, timeout_s: float) -> list[Entry]:
        """Return the next entries; wait for them, but not much longer than `timeout_s`.

        Raises:
            Gone: They are not kept any longer.
            Refused: There are none, and never will be.
            ReplayUnavailable: The store cannot be reached now; it may be asked again.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop reading. May be called again."""


class ReplayStore(ABC):
    """Where streams are kept.

    Attributes:
        outage_s: How long readers bear with a store that is out of reach, in seconds.
        may_block: Whether its methods may take long, because they wait for a network.
    """

    outage_s: float = 10.0
    may_block: bool = True

    @abstractmethod
    def begin(self, stream: str) -> ReplayWriter | None:
        """Begin a stream; of all who ask, wherever they are, exactly one becomes its writer.

        Returns:
            The writer; `None` where the stream was begun already.

        Raises:
            ServerError: There is no room.
            ReplayUnavailable: The store cannot be reached.
        """

    @abstractmethod
    def state(self, stream: str) -> StreamState | None:
        """Return what there is of a stream; `None` where it is unknown.

        Raises:
            ReplayUnavailable: The store cannot be reached.
        """

    @abstractmethod
    def named(self, name: str) -> str | None:
        """Return what a name stands for: see `ReplayWriter.take_name`.

        Raises:
            ReplayUnavailable: The store cannot be reached.
        """

    def is_recovering(self) -> bool:
        """Whether a stream that is unknown now may yet come: writers put back what was lost.

        Raises:
            ReplayUnavailable: The store cannot be reached.
        """
        return False

    @abstractmethod
    def reader(self, stream: str, after: int, broken: Callable[[int], bytes]) -> ReplayReader:
        """Follow a stream; this waits for nothing.

        Args:
            stream: Which one.
            after: The position after which to begin.
            broken: Writes the event, at a position, that ends the stream of a dead writer.

        Raises:
            Gone: It is known already that there is no such stream, or no such position in it.
            ServerError: There is no room for one more reader.
        """

    def ending(self, stream: str) -> bytes | None:
        """Return the last event of a stream that has ended; `None` where there is none to be had.

        A store that does not know this has no name asked again whose stream has failed.

        Raises:
            ReplayUnavailable: The store cannot be reached.
        """
        return None

    def stop(self, stream: str) -> None:
        """Have a stream's writer, wherever it is, told that it is to end.

        Raises:
            ConfigurationError: The store cannot.
            ReplayUnavailable: It cannot be reached.
        """
        raise ConfigurationError(f"{type(self).__name__} cannot stop a stream")


class MemoryReplay(ReplayStore):
    """Keep streams in this process's memory; the threads of one process share them.

    What is over the bounds goes: the streams that ended first, then the oldest events of the
    largest one that grows. Whoever still needs them is told that they are gone.

    Args:
        max_streams: How many streams may be kept, those that still grow included. When that many
            grow, no other one begins: status 503.
        max_bytes: How many bytes of events may be kept, over all streams; each event takes about
            130 bytes of memory beside its own.
        ttl_s: How long a stream is kept after its end, in seconds. It goes when the store is next
            asked for anything.

    Raises:
        ConfigurationError: One of the bounds is none.

    Thread: every method may be called from any thread.
    """

    may_block = False

    def __init__(
        self,
        *,
        max_streams: int = 1000,
        max_bytes: int = 64 * 1024 * 1024,
        ttl_s: float = 300.0,
    ) -> None:
        check_count("max_streams", max_streams)
        check_count("max_bytes", max_bytes)
        check_seconds("ttl_s", ttl_s)
        self._max_streams = max_streams
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        # Re-entrant: a garbage collection may close a reader in the very thread that holds it.
        self._lock = threading.RLock()
        self._streams: dict[str, _Kept] = {}
        #: Those that have ended, in that order, and when that was.
        self._ended: OrderedDict[str, float] = OrderedDict()
        self._bytes = 0
        #: What each name stands for, as long as the stream of who took it is kept.
        self._names: dict[str, str] = {}

    def begin(self, stream: str) -> ReplayWriter | None:
        """Begin a stream, unless it was begun already."""
        with self._lock:
            self._expire()
            if stream in self._streams:
                return None
            if len(self._streams) >= self._max_streams and not self._drop_ended():
                raise ServerError(
                    f"{self._max_streams} streams are being written (max_streams)",
                    status=503,
                    retryable=True,
                    retry_after_s=RETRY_AFTER_S,
                )
            kept = self._streams[stream] = _Kept(self._lock)
        return _MemoryWriter(self, stream, kept)

    def state(self, stream: str) -> StreamState | None:
        """Return what there is of a stream."""
        with self._lock:
            self._expire()
            kept = self._streams.get(stream)
            return None if kept is None else StreamState(kept.first, kept.last, kept.ended)

    def named(self, name: str) -> str | None:
        """Return what a name stands for."""
        with self._lock:
            self._expire()
            return self._names.get(name)

    def reader(self, stream: str, after: int, broken: Callable[[int], bytes]) -> ReplayReader:
        """Follow a stream; here a writer does not die without its readers."""
        with self._lock:
            kept = self._streams.get(stream)
            if kept is None or after > kept.last:  # what was told here is not forgotten
                raise Gone
            kept.readers += 1
        return _MemoryReader(self._lock, kept, after)

    def ending(self, stream: str) -> bytes | None:
        """Return the last event of a stream that has ended."""
        with self._lock:
            kept = self._streams.get(stream)
            if kept is None or not kept.ended or not kept.entries:
                return None
            return kept.entries[-1].data

    def stop(self, stream: str) -> None:
        """Have a stream end; its writer looks once a second."""
        with self._lock:
            kept = self._streams.get(stream)
            if kept is not None:
                kept.stopped = True

    def _add(self, stream: str, kept: _Kept, events: Sequence[bytes], last: bool) -> None:
        with self._lock:
            self._expire()
            for number, data in enumerate(events, 1):
                kept.last += 1
                kept.entries.append(Entry(kept.last, data, last and number == len(events)))
                kept.bytes += len(data)
                self._bytes += len(data)
            if last:
                kept.ended = True
                if self._streams.get(stream) is kept:
                    self._ended[stream] = time.monotonic()
            while self._bytes > self._max_bytes and self._drop_ended(but=stream):
                pass
            while self._bytes > self._max_bytes:
                self._shorten()
            kept.news.notify_all()

    def _take_name(self, kept: _Kept, name: str, id_: str, instead_of: str | None) -> str:
        with self._lock:
            holder = self._names.get(name)
            if holder is not None and holder != instead_of:
                return holder
            self._names[name] = id_
            kept.name = (name, id_)
            return id_

    def _shorten(self) -> None:
        """Drop the oldest event of the largest stream."""
        largest = max(self._streams.values(), key=lambda kept: kept.bytes)
        size = len(largest.entries.popleft().data)
        largest.bytes -= size
        self._bytes -= size

    def _forget(self, stream: str, kept: _Kept, refusal: bytes | None) -> None:
        with self._lock:
            if self._streams.get(stream) is kept:
                kept.refusal = refusal
                self._drop(stream)

    def _expire(self) -> None:
        now = time.monotonic()
        while self._ended and now - next(iter(self._ended.values())) > self._ttl_s:
            self._drop_ended()

    def _drop_ended(self, but: str = "") -> bool:
        """Drop the stream that ended first; say whether there was one."""
        oldest = next((stream for stream in self._ended if stream != but), None)
        if oldest is not None:
            self._drop(oldest)
        return oldest is not None

    def _drop(self, stream: str) -> None:
        kept = self._streams.pop(stream)
        self._ended.pop(stream, None)
        if kept.name is not None and self._names.get(kept.name[0]) == kept.name[1]:
            del self._names[kept.name[0]]
        self._bytes -= kept.bytes
        kept.bytes = 0
        kept.entries.clear()
        kept.dropped = True
        kept.news.notify_all()


class _Kept:
    """One stream in memory; the store's lock guards it."""

    def __init__(self, lock: threading.RLock) -> None:
        self.news = threading.Condition(lock)
        self.entries: deque[Entry] = deque()
        self.last = 0
        self.bytes = 0
        self.ended = False
        self.dropped = False
        self.stopped = False
        self.refusal: bytes | None = None
        self.name: tuple[str, str] | None = None
        self.readers = 0

    @property
    def first(self) -> int:
        """The position of the oldest entry, or of the next one where there is none."""
        return self.entries[0].position if self.entries else self.last + 1


class _MemoryWriter(ReplayWriter):
    keep_every_s = 1.0

    def __init__(self, store: MemoryReplay, stream: str, kept: _Kept) -> None:
        self._store = store
        self._stream = stream
        self._kept = kept

    def append(self, events: Sequence[bytes], *, last: bool = False) -> None:
        self._store._add(self._stream, self._kept, events, last)

    def keep(self) -> bool:
        if self._kept.stopped:
            raise Stopped
        return self._kept.readers > 0

    def take_name(self, name: str, id_: str, instead_of: str | None) -> str:
        return self._store._take_name(self._kept, name, id_, instead_of)

    def discard(self) -> None:
        self._store._forget(self._stream, self._kept, None)

    def refuse(self, refusal: bytes) -> None:
        self._store._forget(self._stream, self._kept, refusal)

    def close(self) -> None:
        if not self._kept.ended:
            self.discard()


class _MemoryReader(ReplayReader):
    def __init__(self, lock: threading.RLock, kept: _Kept, after: int) -> None:
        self._lock = lock
        self._kept = kept
        self._after = after
        self._closed = False

    def read(self, timeout_s: float) -> list[Entry]:
        kept = self._kept
        with self._lock:
            kept.news.wait_for(self._has_news, timeout_s)
            if self._closed:
                return []
            if kept.refusal is not None:
                raise Refused(kept.refusal)
            if self._after + 1 < kept.first or kept.dropped:
                raise Gone
            entries = list(islice(reversed(kept.entries), kept.last - self._after))[::-1]
        if entries:
            self._after = entries[-1].position
        return entries

    def _has_news(self) -> bool:
        kept = self._kept
        return self._closed or kept.dropped or kept.last > self._after

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._kept.readers -= 1
            self._kept.news.notify_all()


def check_count(name: str, value: object) -> None:
    """Refuse what is no bound.

    Raises:
        ConfigurationError: It is no whole number of at least 1.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"{name} must be a whole number of at least 1, not {value!r}")


def check_seconds(name: str, value: object, *, zero: bool = False) -> None:
    """Refuse what is no time to wait.

    Raises:
        ConfigurationError: It is no number of seconds that a thread can wait.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and (0 < value <= threading.TIMEOUT_MAX or (zero and value == 0)):  # type: ignore[operator]
        return
    raise ConfigurationError(
        f"{name} must be a number of seconds {'from 0 on' if zero else 'above 0'}, not {value!r}"
    )
