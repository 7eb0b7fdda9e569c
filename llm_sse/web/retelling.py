"""Streams that are told more than once: to a browser that comes back, and to a second one.

Theory of operation
-------------------

    pump's thread         generation's thread          each response's pump thread
    stream.events() -> Channel -> Format -> store ...> Retelling -> Channel -> StreamBody

What a stream says is written once, in its format, and put into a store; every response retells it
from there, the first one, too. So the bytes of an event are the same for everybody, and the stream
does not hang on any connection: it ends when it has ended, or when nobody has read it for a while.

An event's id is `<stream>-<position>`. The stream's part is random, and one writer's for ever: who
has the beginning of an answer never gets the end of another one. A name that the site gives is a
pointer to such a stream, which the first who asks sets; what has failed, or is not kept any longer,
is pointed away from. The `key` says whose a stream is: nobody finds it under another one, or in
another format.

A question that is refused leaves nothing behind. Who has joined it meanwhile waits for its first
event, and gets the refusal instead; who was too late for that asks himself.

Whoever asks the store waits for it in a thread of its own, for a while: then a new question is
refused, before anybody is asked. A browser that comes back is not, for `EventSource` takes every
status but 200 for the end: it gets its 200, and what it came for when the store is there again.
"""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, TypeVar

from ..errors import ConfigurationError, ServerError
from .aside import Late, call_within
from .event_source import is_event_source
from .formats import FORMATS, Format, find_format
from .generation import Generation, broken_off, refusal_of
from .log import log_error
from .problem import NOTHING_MORE, Problem, RefusedError, gone, problem_of
from .pump import Factory, is_stream, open_stream
from .replay import (
    RETRY_AFTER_S,
    Gone,
    ReplayStore,
    ReplayUnavailable,
    ReplayWriter,
    check_seconds,
)
from .told import Retelling, Retold

__all__ = [
    "NOT_REPLAYED",
    "Asked",
    "Factory",
    "Retelling",
    "Retold",
    "check_replay",
    "retell",
    "stop_stream",
]

T = TypeVar("T")

#: How often a name is looked up again where others have been faster.
_MOST_ATTEMPTS = 16
#: For how long a store is waited for at least, however short the wait for a status is, in seconds.
_LEAST_WAIT_S = 2.0
#: For how long a browser that comes back waits until it gets its 200 anyway, in seconds.
_DECISION_S = 2.0
#: What the last event of every whole answer ends with, in all formats that have ids.
_WHOLE = b"data: [DONE]\n\n"
_ID = re.compile(r"([0-9a-f]{32})-([0-9]{1,15})")

_log = logging.getLogger("llm_sse.web.body")


class Asked(NamedTuple):
    """What of a request, and of the site's wishes, decides what is retold.

    Attributes:
        store: Where streams are kept; `None` where nothing is told again.
        key: Whose the stream is.
        name: Which of his streams it is; `None` where every question is a new one.
        format: The format's name.
        last_event_id: The request's `Last-Event-ID`; `None` where it has none, or an empty one.
        by_event_source: Whether an `EventSource` asks (see `event_source`).
        keep_running: Whether the stream is read to its end also when nobody listens.
        grace_s: How long nobody may listen otherwise, in seconds.
    """

    store: ReplayStore | None = None
    key: str | None = None
    name: str | None = None
    format: str = "tokens"
    last_event_id: str | None = None
    keep_running: bool = False
    grace_s: float = 30.0
    by_event_source: bool = False

    def with_headers(self, header: Callable[[str], str | None]) -> Asked:
        """Return it with what a request says.

        Args:
            header: Returns a header of the request; `None` where there is none of that name.
        """
        return self._replace(
            last_event_id=header("Last-Event-ID") or None,  # an empty one says: none so far
            by_event_source=is_event_source(header),
        )


#: What is asked where there is no replay.
NOT_REPLAYED = Asked()


def check_replay(asked: Asked, stream: object) -> None:
    """Refuse what cannot be, before anything is opened.

    Raises:
        ConfigurationError: One of the arguments cannot be.
    """
    if asked.store is None:
        if asked.key is not None or asked.name is not None or asked.keep_running is not False:
            raise ConfigurationError("key=, name= and keep_running= go with replay=, a store")
        return
    if not isinstance(asked.store, ReplayStore):
        raise ConfigurationError(
            f"replay must be a store, such as MemoryReplay(), not {type(asked.store).__name__}"
        )
    if not callable(stream) or is_stream(stream):
        raise ConfigurationError(
            "with replay= a stream is opened only where one is needed: write "
            "sse_response(lambda: stream_sync(...), replay=...)"
        )
    if not isinstance(asked.key, str) or not asked.key:
        raise ConfigurationError(
            "replay= needs key=: a str that says whose the stream is (a user, a session); only "
            f"requests with the same key may read it; not {asked.key!r}"
        )
    if asked.name is not None and (not isinstance(asked.name, str) or not asked.name):
        raise ConfigurationError(f"name must be a str that is not empty, not {asked.name!r}")
    if not isinstance(asked.keep_running, bool):
        raise ConfigurationError(f"keep_running must be a bool, not {asked.keep_running!r}")
    check_seconds("grace_s", asked.grace_s)
    if find_format(asked.format).heartbeat is None:
        raise ConfigurationError(f"the format {asked.format!r} has no ids: it cannot be replayed")


def retell(
    factory: Factory,
    asked: Asked,
    *,
    status_wait_s: float,
    on_thread_end: Callable[[], object],
) -> Retelling | Problem:
    """Return what is to be told: a stream from some position on, or what there is instead of it.

    Args:
        factory: Opens the stream; called only if nobody has.
        asked: What decides.
        status_wait_s: How long the provider's status is of use, and how long to wait for the store,
            in seconds; that gets two at least.
        on_thread_end: Called in the thread that has read the stream.

    Returns:
        The stream; or a problem, 204 where the browser has had everything among them.

    Raises:
        ConfigurationError: What the factory returned is no stream.
    """
    assert asked.store is not None
    assert asked.key is not None
    where = _Shelf(asked.store, asked.key, asked, status_wait_s)
    try:
        if asked.last_event_id is None:
            return where.begin_or_join(factory, on_thread_end)
        return where.go_on(asked.last_event_id)
    except Gone:
        return gone()
    except RefusedError as error:
        return error.problem
    except ReplayUnavailable as error:
        _log.warning("the replay store cannot be reached: %s", error)
        return _unreachable()
    except ServerError as error:
        log_error(_log, error)
        return problem_of(error)


def _unreachable() -> Problem:
    return problem_of(
        ServerError("the replay store", status=503, retryable=True, retry_after_s=RETRY_AFTER_S)
    )


class _Found(NamedTuple):
    """What there is for a question.

    Attributes:
        telling: What is told.
        writer: Who is to write it; `None` where somebody does already.
    """

    telling: Retelling
    writer: ReplayWriter | None

    def refuse(self, problem: bytes) -> None:
        """Forget it: nobody is asked."""
        self.telling.close()
        if self.writer is not None:
            try:
                self.writer.refuse(problem)
            finally:
                self.writer.close()


class _Shelf:
    """The streams of one key in a store, as one request sees them."""

    def __init__(self, store: ReplayStore, key: str, asked: Asked, status_wait_s: float) -> None:
        self._store = store
        self._key = key
        self._asked = asked
        self._status_wait_s = status_wait_s
        self._wait_s = max(status_wait_s, _LEAST_WAIT_S)

    def begin_or_join(self, factory: Factory, on_thread_end: Callable[[], object]) -> Retelling:
        found = self._within(
            self._find, self._wait_s, late=lambda found: found.refuse(_unreachable().body)
        )
        if found.writer is None:
            return found.telling
        try:
            stream = open_stream(factory)
            found.telling.generation = Generation(
                stream,
                self._format(found.telling.stream),
                found.writer,
                keep_running=self._asked.keep_running,
                grace_s=self._asked.grace_s,
                status_wait_s=self._status_wait_s,
                on_thread_end=on_thread_end,
            )
        except BaseException as error:
            refusal = refusal_of(error)
            with suppress(ReplayUnavailable):  # then it goes on being forgotten
                self._within(lambda: found.refuse(refusal), self._wait_s)
            raise
        return found.telling

    def _find(self) -> _Found:
        """Find the stream of the question's name; else begin one."""
        for _ in range(_MOST_ATTEMPTS):
            held = None if self._name is None else self._store.named(self._name)
            if held is not None and self._counts(held):
                with suppress(Gone):  # it was refused just now
                    return _Found(self._retelling(held, 0, joins=True), None)
                continue
            found = self._begin(held)
            if found is not None:
                return found
        raise ServerError("others were faster", status=503, retryable=True)

    def _begin(self, failed: str | None) -> _Found | None:
        """Begin a stream; if it is to have a name, only where that stands for nothing better."""
        id_ = secrets.token_hex(16)
        writer = self._store.begin(self._place(id_))
        if writer is None:
            return None
        try:
            if self._name is not None and writer.take_name(self._name, id_, failed) != id_:
                writer.discard()
                writer.close()
                return None
            return _Found(
                self._retelling(id_, 0), writer
            )  # without room for a reader none is asked
        except BaseException as error:
            try:
                if not isinstance(error, ReplayUnavailable):
                    writer.refuse(refusal_of(error))
            finally:
                writer.close()
            raise

    def stop(self, id_: str | None) -> bool:
        """Have a stream end that runs; say whether there was one."""
        if id_ is None and self._name is not None:
            id_ = self._store.named(self._name)
        state = None if id_ is None else self._store.state(self._place(id_))
        if id_ is None or state is None or state.ended:
            return False
        self._store.stop(self._place(id_))
        return True

    @property
    def _name(self) -> str | None:
        """What the store knows the question's name by."""
        if self._asked.name is None:
            return None
        return _digest(_digest(self._asked.name) + _digest(self._key) + self._asked.format)

    def _counts(self, id_: str) -> bool:
        """Whether a stream may be joined; what has failed is asked again."""
        state = self._store.state(self._place(id_))
        if state is None:
            return False
        ending = self._store.ending(self._place(id_)) if state.ended else None
        return ending is None or ending.endswith(_WHOLE)

    def go_on(self, last_event_id: str) -> Retelling | Problem:
        """Go on after an event; what is unknown is never taken for a new question."""
        found = _ID.fullmatch(last_event_id)
        if found is None:
            return gone()
        id_, after = found[1], int(found[2])
        try:
            problem = self._within(lambda: self._decide(id_, after), _DECISION_S)
        except ReplayUnavailable as error:
            _log.warning("the replay store cannot be reached: %s", error)
            return self._retelling(id_, after, decide=lambda: self._decide(id_, after))
        return problem or self._retelling(id_, after)

    def _decide(self, id_: str, after: int) -> Problem | None:
        """Return what is answered to who has an event; `None` where there is more to be told."""
        state = self._store.state(self._place(id_))
        if state is None:
            return None if self._store.is_recovering() else gone()
        if after + 1 < state.first:  # past the end: the store may yet have it
            return gone()
        return NOTHING_MORE if state.ended and after >= state.last else None

    def _within(
        self,
        function: Callable[[], T],
        timeout_s: float,
        *,
        late: Callable[[T], object] = lambda _: None,
    ) -> T:
        """Ask the store, and wait for it no longer than `timeout_s`.

        Raises:
            ReplayUnavailable: It takes longer.
        """
        if not self._store.may_block:
            return function()
        try:
            return call_within(function, timeout_s, late=late)
        except Late:
            raise ReplayUnavailable(f"no answer within {timeout_s:g} s") from None

    def _retelling(
        self,
        id_: str,
        after: int,
        *,
        joins: bool = False,
        decide: Callable[[], Problem | None] | None = None,
    ) -> Retelling:
        def broken(position: int) -> bytes:
            format_ = self._format(id_)
            format_.position = position - 1
            return format_.error(problem_of(broken_off())) or b""

        reader = self._store.reader(self._place(id_), after, broken)
        outage_s = self._store.outage_s
        return Retelling(reader, id_, after, outage_s, joins=joins, decide=decide)

    def _place(self, id_: str) -> str:
        """Return where a stream is kept: in another format or under another key, somewhere else."""
        return _digest(f"{id_}:{self._asked.format}:{self._key}")

    def _format(self, id_: str) -> Format:
        format_ = find_format(self._asked.format)
        format_.number(f"{id_}-")
        return format_


def stop_stream(
    store: ReplayStore,
    *,
    key: str,
    name: str | None = None,
    last_event_id: str | None = None,
    format: str | None = None,
) -> bool:
    """End a stream that is kept, whichever worker reads it: its visitor has pressed Stop.

    Its provider's connection is closed when the worker looks next: within a second with
    `MemoryReplay`, within a third of `lease_s` with `RedisReplay`. Who reads along is told that the
    answer broke off.

    Args:
        store: Where it is kept.
        key: Whose it is, as `sse_response` was told.
        name: Its name, if it has one. The only way to stop an answer of which the browser has no
            event yet.
        last_event_id: Instead of a name the id of any of its events, which the browser knows.
        format: Its format; without it, streams of every format are looked for.

    Returns:
        Whether there was such a stream, and it ran.

    Raises:
        ConfigurationError: One of the arguments cannot be, or the store cannot stop streams.
        ReplayUnavailable: The store cannot be reached.
    """
    if (name is None) == (last_event_id is None):
        raise ConfigurationError("a stream is stopped by its name= or by a last_event_id=")
    kept = [one for one in FORMATS if find_format(one).heartbeat is not None]
    shelves = []
    for one in kept if format is None else [format]:
        asked = Asked(store, key, name, one)
        check_replay(asked, list)
        shelves.append(_Shelf(store, key, asked, _LEAST_WAIT_S))
    id_ = None
    if last_event_id is not None:
        found = _ID.fullmatch(last_event_id) if isinstance(last_event_id, str) else None
        if found is None:
            return False
        id_ = found[1]
    stopped = [shelf.stop(id_) for shelf in shelves]  # all of them
    return True in stopped


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
