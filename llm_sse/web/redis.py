"""`RedisReplay`: streams for browsers that come back, shared by workers and machines, on Redis.

What a stream is in Redis, all under one hash tag (so that a cluster keeps it in one place):

    <prefix>{<stream>}           a Redis stream; the entry <position>-1 has the event `d`; the last
                                 one has `e`, too
    <prefix>{<stream>}:writer    the token of the one worker who writes it
    <prefix>{<stream>}:lease     there as long as that worker says that it lives
    <prefix>{<stream>}:watched   there as long as anybody reads
    <prefix>{<name>}:name        the stream that a name stands for

Exactly one worker sets the token. It adds events by a script that looks first whether the stream is
where the worker believes it to be, for Redis may have restarted, and replies may have been lost:
what is missing is put back, what is there is not added again. A worker that comes back after its
readers have ended the stream for it finds its place taken, and stops. Two readers who find a dead
worker at once end its stream once, for Redis takes an explicit id once.

A stream is one worker's for ever: its identifier is random, and no script takes a token for
another one's. A name is only a pointer. Where Redis has lost it, and another worker has taken it
before the first one could put it back, there are two streams, each whole and with its own readers.

Source: https://redis.io/docs/latest/commands/xadd/ ("The command will return an error if the
specified ID is equal or smaller than the target stream top item"),
https://redis.io/docs/latest/commands/xread/, https://redis.io/docs/latest/commands/eval/
"""

from __future__ import annotations

import logging
import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, TypeVar

from redis import Redis
from redis import exceptions as failures

from ..errors import ConfigurationError
from .redis_scripts import ANOTHER, APPEND, NAME, SIGN, SIGNS
from .redis_watch import Watch
from .replay import (
    Entry,
    Fenced,
    Gone,
    Refused,
    ReplayReader,
    ReplayStore,
    ReplayUnavailable,
    ReplayWriter,
    Stopped,
    StreamState,
    check_count,
    check_seconds,
)

__all__ = ["RedisReplay"]

T = TypeVar("T")

_OUTAGES = (failures.ConnectionError, failures.TimeoutError, failures.BusyLoadingError)
#: Whom it does not let in; some of them are `ConnectionError`s, but waiting does not help.
_REFUSALS = (
    failures.AuthenticationError,
    failures.AuthorizationError,
    failures.NoPermissionError,
)
#: What a Redis answers that cannot write now, but may soon: it is full, its disk is, it is a
#: replica since the last failover, or has too few of its own. A script's error has the word inside.
#: Source: https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors and the error
#: objects of Redis' server.c.
_PASSING = re.compile(
    r"\b(OOM|MISCONF|READONLY|NOREPLICAS|CLUSTERDOWN|MASTERDOWN|TRYAGAIN|LOADING)\b"
)
_PASSING_CLASSES = (
    failures.OutOfMemoryError,
    failures.ReadOnlyError,
    failures.ClusterDownError,
    failures.MasterDownError,
    failures.TryAgainError,
    failures.NoScriptError,  # it was restarted between the script's loading and its call
)
#: The pause before a store that was out of reach is asked again, in seconds.
_PAUSE_S = 0.1
#: How long a refusal is kept for those who wait for the same answer, in seconds: they wait in
#: `XREAD`, but a worker may be slow.
_REFUSAL_KEPT_S = 10.0
#: How long a reader waits for Redis at most, where that answers, in seconds.
_LONGEST_XREAD_S = 1.0
#: How many entries are read or written at once.
_BATCH = 500
#: How many readers there may be, where the client's pool has connections for more.
_MOST_READERS = 500
#: The smallest pool: a reader holds one connection for as long as it waits, and writers need some.
_FEWEST_CONNECTIONS = 4
_log = logging.getLogger(__name__)


class RedisReplay(ReplayStore):
    """Keep streams in Redis, for any number of workers and machines.

    Every response that is being read holds one connection of the client's pool, so there may be
    `max_readers` of them in this process; who comes then is told to come back later, with status
    503. What Redis has confirmed survives what Redis survives: say `appendonly yes` there.

    Args:
        redis: The client, with the connections' settings; without `decode_responses`, and with a
            `socket_timeout`, for a Redis that hangs.
        ttl_s: How long a stream is kept after its last sign of life, in seconds.
        max_events: How many events of a stream are kept; the oldest go first.
        lease_s: After how long without a sign of life a worker counts as dead, in seconds. Its
            stream then ends with an error for its readers.
        outage_s: How long Redis may be out of reach before a stream is given up, in seconds.
        prefix: What the names of all keys begin with.
        max_readers: How many responses may be read at once through this store. At most three
            quarters of the pool's `max_connections`: the rest is for the writers, which need one
            now and then. Without a number it is that many, or 500 where that is more.

    Raises:
        ConfigurationError: One of the arguments cannot be.

    Thread: every method may be called from any thread.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        ttl_s: float = 600.0,
        max_events: int = 20_000,
        lease_s: float = 15.0,
        outage_s: float = 60.0,
        prefix: str = "llm-sse:",
        max_readers: int | None = None,
    ) -> None:
        if not isinstance(redis, Redis):
            raise ConfigurationError(
                f"redis must be a redis.Redis client, not {type(redis).__name__}"
            )
        settings = redis.connection_pool.connection_kwargs
        if settings.get("decode_responses"):
            raise ConfigurationError("redis must be a client without decode_responses")
        timeout_s = _socket_timeout_s(redis)
        check_seconds("ttl_s", ttl_s)
        check_seconds("lease_s", lease_s)
        check_seconds("outage_s", outage_s)
        check_count("max_events", max_events)
        if ttl_s < lease_s:
            raise ConfigurationError(f"ttl_s must be at least lease_s ({lease_s}), not {ttl_s}")
        connections = redis.connection_pool.max_connections
        most = _most_readers(connections, max_readers)
        #: The connections that readers leave to the others, who wait for one instead of failing.
        self._spare = threading.BoundedSemaphore(connections - most)
        self.outage_s = outage_s
        self._redis: Any = redis
        self._ttl_ms = round(ttl_s * 1000)
        self._lease_s = lease_s
        self._max_events = max_events
        self._prefix = prefix
        self._block_s = min(_LONGEST_XREAD_S, timeout_s / 2)
        self._append: Any = redis.register_script(APPEND)
        self._sign: Any = redis.register_script(SIGN)
        self._take_name: Any = redis.register_script(NAME)
        self._watch = Watch(self._ask, min(1.0, lease_s / 3), most)

    def begin(self, stream: str) -> ReplayWriter | None:
        """Begin a stream, unless any worker has begun it."""
        name, token = self._name(stream), secrets.token_bytes(16)

        def claim(redis: Any) -> bool:
            redis.set(f"{name}:writer", token, px=self._ttl_ms, nx=True)
            # A reply may have been lost: what is there says who it was.
            if redis.get(f"{name}:writer") != token:
                return False
            newest = redis.xrevrange(name, count=1)
            if newest and _is_refusal(newest[0][1]):  # of who asked before
                redis.delete(name)
            redis.set(f"{name}:lease", 1, px=round(self._lease_s * 1000))
            return True

        if not self._ask(claim):
            return None
        return _Writer(self, name, token)

    def state(self, stream: str) -> StreamState | None:
        """Return what there is of a stream."""
        name = self._name(stream)

        def look(redis: Any) -> StreamState | None:
            newest = redis.xrevrange(name, count=1)
            if not newest:
                return StreamState(1, 0, False) if redis.exists(f"{name}:writer") else None
            oldest = redis.xrange(name, count=1)
            if _is_refusal(newest[0][1]):
                return None
            last = _entry(*newest[0])
            first = _entry(*oldest[0]).position if oldest else last.position
            return StreamState(first, last.position, last.last)

        return self._ask(look)

    def named(self, name: str) -> str | None:
        """Return what a name stands for."""
        holder = self._ask(lambda redis: redis.get(f"{self._name(name)}:name"))
        return None if holder is None else holder.decode()

    def is_recovering(self) -> bool:
        """Whether Redis was restarted so lately that its writers may not have signed yet."""
        try:
            up_s = self._ask(lambda redis: redis.info("server"))["uptime_in_seconds"]
        except ConfigurationError:  # who may not ask that waits for the stream, if need be in vain
            return True
        return bool(up_s <= self._lease_s)

    def reader(self, stream: str, after: int, broken: Callable[[int], bytes]) -> ReplayReader:
        """Follow a stream.

        Raises:
            ServerError: There are `max_readers` already.
        """
        return _Reader(self, self._name(stream), after, broken)

    def ending(self, stream: str) -> bytes | None:
        """Return the last event of a stream that has ended."""
        newest = self._ask(lambda redis: redis.xrevrange(self._name(stream), count=1))
        last = _entry(*newest[0]) if newest else None
        return last.data if last is not None and last.last else None

    def stop(self, stream: str) -> None:
        """Have a stream end; its writer looks three times in `lease_s`."""
        name = self._name(stream)
        self._ask(lambda redis: redis.set(f"{name}:stopped", 1, px=self._ttl_ms))

    def _name(self, stream: str) -> str:
        return f"{self._prefix}{{{stream}}}"

    def _ask(self, question: Callable[[Any], T], *, reader: bool = False) -> T:
        """Ask Redis.

        Args:
            question: What it is asked, on one connection at a time.
            reader: Whether a reader asks, who has a connection of his own.

        Raises:
            ReplayUnavailable: It is out of reach, or cannot do it now.
            ConfigurationError: It does not let this client in, or do that.
        """
        try:
            if reader:
                return question(self._redis)
            if not self._spare.acquire(timeout=self.outage_s):
                raise ReplayUnavailable("all connections wait for it")
            try:
                return question(self._redis)
            finally:
                self._spare.release()
        except failures.RedisError as error:
            told = f"{type(error).__name__}: {error}"
            if isinstance(error, _REFUSALS):
                raise ConfigurationError(
                    f"Redis refuses this client ({told}): see its user, password and rights"
                ) from None
            if _may_pass(error):
                raise ReplayUnavailable(told) from None
            raise


class _Writer(ReplayWriter):
    """The one worker that writes a stream.

    Thread: one thread's.
    """

    def __init__(self, store: RedisReplay, name: str, token: bytes) -> None:
        self._store = store
        self._name = name
        self._token = token
        self._kept: deque[Entry] = deque(maxlen=store._max_events)
        self._last = 0
        #: The key of the name that stands for this stream, and what is there then.
        self._held: tuple[str, str] | None = None
        #: Up to where Redis has confirmed what was written.
        self._confirmed = 0
        self.keep_every_s = store._lease_s / 3

    def append(self, events: Sequence[bytes], *, last: bool = False) -> None:
        for number, data in enumerate(events, 1):
            self._last += 1
            self._kept.append(Entry(self._last, data, last and number == len(events)))
        if last:  # the name is kept as long as the stream, and is there before the end is
            self._persist(self._keep_name)
        self._persist(self._write)

    def keep(self) -> bool:
        return self._persist(self._sign)

    def take_name(self, name: str, id_: str, instead_of: str | None) -> str:
        self._held = (f"{self._store._name(name)}:name", id_)
        holder = self._persist(lambda redis: self._ask_for_name(redis, instead_of or ""))
        if holder != id_:
            self._held = None
        return holder

    def discard(self) -> None:
        self._persist(lambda redis: redis.delete(self._name, *self._signs))

    def refuse(self, refusal: bytes) -> None:
        def tell(redis: Any) -> None:
            with redis.pipeline(transaction=True) as pipe:
                pipe.delete(self._name, *self._signs)
                pipe.xadd(self._name, {b"d": refusal, b"e": b"1", b"r": b"1"}, id="1-1")
                pipe.pexpire(self._name, round(_REFUSAL_KEPT_S * 1000))
                pipe.execute()

        self._persist(tell)

    @property
    def _signs(self) -> list[str]:
        """The keys beside the stream's own."""
        return [f"{self._name}:{part}" for part in SIGNS]

    def _persist(self, act: Callable[[Any], T]) -> T:
        """Do something, and go on trying while Redis is out of reach.

        Raises:
            Fenced: Somebody else has ended the stream.
            Stopped: Somebody wants it to end.
            ReplayUnavailable: It was out of reach for too long.
        """
        deadline = time.monotonic() + self._store.outage_s
        failed = False
        while True:
            try:
                if failed:
                    self._repair()
                return self._store._ask(act)
            except ReplayUnavailable:
                if time.monotonic() > deadline:
                    raise
                failed = True
                time.sleep(_PAUSE_S)

    def _sign(self, redis: Any) -> bool:
        """Sign that the worker lives; see whether anybody reads, and whether all is still there."""
        store = self._store
        signed = store._sign(
            keys=[self._name, *self._signs],
            args=[self._token, store._ttl_ms, round(store._lease_s * 1000)],
            client=redis,
        )
        if signed == ANOTHER:
            raise Fenced
        watched, stopped, newest = signed
        self._check(redis, newest)
        self._keep_name(redis)
        if stopped:
            raise Stopped
        return bool(watched)

    def _keep_name(self, redis: Any) -> None:
        """Keep the name, or put it back; what another one has taken meanwhile stays his."""
        if self._held is not None and self._ask_for_name(redis, "") != self._held[1]:
            self._held = None
            _log.warning(
                "a name was asked twice, because Redis had lost it: both answers go on, "
                "each for its own readers"
            )

    def _ask_for_name(self, redis: Any, instead_of: str) -> str:
        assert self._held is not None
        key, id_ = self._held
        holder: bytes = self._store._take_name(
            keys=[key], args=[id_, instead_of, self._store._ttl_ms], client=redis
        )
        return holder.decode()

    def _repair(self) -> None:
        """Sign, and put back what a restart has lost."""
        with suppress(Stopped):  # `keep` says so
            self._store._ask(self._sign)

    def _check(self, redis: Any, newest: list[Any]) -> None:
        """See how far Redis is; write what is missing there."""
        self._find(newest)
        if self._confirmed < self._last:
            self._write(redis)

    def _find(self, newest: list[Any]) -> None:
        there = _entry(*newest[0]) if newest else Entry(0, b"", False)
        first = self._kept[0].position if self._kept else 1
        if there.position >= first:
            at = there.position - first
            if at >= len(self._kept) or self._kept[at] != there:
                raise Fenced
        elif there.last:
            raise Fenced
        self._confirmed = there.position

    def _write(self, redis: Any) -> None:
        """Write what Redis has not confirmed yet."""
        store = self._store
        while self._confirmed < self._last:
            missing = list(islice(reversed(self._kept), self._last - self._confirmed))
            batch = missing[: -_BATCH - 1 : -1]
            first, last = batch[0].position, batch[-1]
            head: list[Any] = [self._confirmed, first, int(last.last), store._max_events]
            head += [store._ttl_ms, self._token]
            newest = store._append(
                keys=[self._name, f"{self._name}:writer"],
                args=[*head, *(entry.data for entry in batch)],
                client=redis,
            )
            if newest == ANOTHER:
                raise Fenced
            if newest is None:
                self._confirmed = last.position
            else:
                self._find(newest)
                self._keep_name(redis)


class _Reader(ReplayReader):
    """One who follows a stream."""

    def __init__(
        self, store: RedisReplay, name: str, after: int, broken: Callable[[int], bytes]
    ) -> None:
        self._store = store
        self._name = name
        self._after = after
        self._broken = broken
        self._closed = False
        self._lock = threading.Lock()
        #: Since when Redis has been within reach: a lease that ran out while it was not says
        #: nothing about the worker. A long time without an answer is an outage, too: Redis hung.
        self._reached_at: float | None = time.monotonic()
        self._answered_at = time.monotonic()
        store._watch.add(name)

    def read(self, timeout_s: float) -> list[Entry]:
        block_ms = max(1, round(min(timeout_s, self._store._block_s) * 1000))
        try:
            found = self._store._ask(
                lambda redis: redis.xread({self._name: f"{self._after}-1"}, _BATCH, block_ms),
                reader=True,
            )
            self._note_answer()
            if not found:
                self._store._ask(self._look_after_the_writer, reader=True)
                return []
        except ReplayUnavailable:
            self._reached_at = None
            raise
        # A list of pairs in RESP2, a dictionary in RESP3.
        (told,) = found.values() if isinstance(found, dict) else (pair[1] for pair in found)
        if told and isinstance(told[0], list):
            (told,) = told
        if _is_refusal(told[0][1]):
            raise Refused(_entry(*told[0]).data)
        entries = [_entry(*one) for one in told]
        if entries[0].position != self._after + 1:
            raise Gone
        self._after = entries[-1].position
        return entries

    def close(self) -> None:
        with self._lock:
            closed, self._closed = self._closed, True
        if not closed:
            self._store._watch.remove(self._name)

    def _reached_s(self) -> float:
        return 0.0 if self._reached_at is None else time.monotonic() - self._reached_at

    def _note_answer(self) -> None:
        now, silent_from = time.monotonic(), self._answered_at
        self._answered_at = now
        if (
            self._reached_at is None
            or now - silent_from > _LONGEST_XREAD_S + self._store._lease_s / 2
        ):
            self._reached_at = now

    def _look_after_the_writer(self, redis: Any) -> None:
        """End the stream of a worker that is dead; whoever comes first does it.

        Raises:
            Gone: There is no such stream, or no such position in it (any longer).
        """
        if self._reached_s() < self._store._lease_s:
            return
        newest = redis.xrevrange(self._name, count=1)
        last = _entry(*newest[0]) if newest else Entry(0, b"", False)
        if last.position > self._after:
            return  # there is more to be read first, perhaps the end that somebody else has made
        if last.position < self._after:
            raise Gone  # what a restart lost, a worker that lives has put back by now
        self._note_answer()
        if self._reached_s() < self._store._lease_s:
            return  # Redis hung between the questions
        if redis.exists(f"{self._name}:lease"):
            return
        if last.last:
            raise Gone
        if not newest and not redis.exists(f"{self._name}:writer"):
            raise Gone
        fields: Any = {b"d": self._broken(last.position + 1), b"e": b"1"}
        try:
            redis.xadd(self._name, fields, id=f"{last.position + 1}-1")
        except failures.ResponseError as error:
            if not _is_taken(error):
                raise
        redis.pexpire(self._name, self._store._ttl_ms)


def _most_readers(connections: int, asked: int | None) -> int:
    """Return how many readers a pool has connections for.

    Raises:
        ConfigurationError: It has none, or not as many as asked for.
    """
    if connections < _FEWEST_CONNECTIONS:
        raise ConfigurationError(
            f"the client's pool must have at least {_FEWEST_CONNECTIONS} connections "
            f"(max_connections), not {connections}"
        )
    most = connections * 3 // 4
    if asked is None:
        return min(most, _MOST_READERS)
    check_count("max_readers", asked)
    if asked > most:
        raise ConfigurationError(
            f"max_readers may be three quarters of the pool's max_connections ({connections}), "
            f"that is {most}, not {asked}"
        )
    return asked


def _socket_timeout_s(redis: Redis) -> float:
    """Return how long a client's connections wait for an answer.

    Raises:
        ConfigurationError: Without end.
    """
    pool = redis.connection_pool
    # Not connected, and of no pool: the class may have a default of its own.
    connection: Any = pool.connection_class(**pool.connection_kwargs)
    timeout_s: float | None = connection.socket_timeout
    if timeout_s is None:
        raise ConfigurationError(
            "redis must be a client with a socket_timeout, such as Redis(..., socket_timeout=5): "
            "without one, a Redis that hangs is waited for without end"
        )
    return timeout_s


def _entry(id_: bytes, fields: dict[bytes, bytes] | list[bytes]) -> Entry:
    if isinstance(fields, list):  # as a script returns them
        fields = dict(zip(fields[::2], fields[1::2], strict=True))
    return Entry(int(id_.partition(b"-")[0]), fields[b"d"], b"e" in fields)


def _is_refusal(fields: dict[bytes, bytes]) -> bool:
    return b"r" in fields


def _may_pass(error: failures.RedisError) -> bool:
    """Whether the same may be done when it is tried again."""
    if isinstance(error, (*_OUTAGES, *_PASSING_CLASSES)):
        return True
    return isinstance(error, failures.ResponseError) and bool(_PASSING.search(str(error)))


def _is_taken(error: failures.ResponseError) -> bool:
    """Whether Redis has refused an id because the stream is there already, or further."""
    return "equal or smaller" in str(error)
