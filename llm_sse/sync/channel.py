"""The hand-off between the thread that reads the network and the thread that reads the stream.

Theory of operation
-------------------

A `queue.Queue(maxsize=N)` whose bound counts events, used in batches: to lock, wake and switch for
each event costs ten times what the event itself does.

* The producer gathers events in `_pending`, which only it touches, and hands them over when it is
  about to wait for something (the next bytes, a back-off) or when there is no room for more. So an
  event is never held back while nothing happens, and a burst costs one hand-over.
* The consumer takes at most half of the bound at once, so that the producer can fill the other half
  meanwhile. What was taken still counts against the bound, but for the one event that the consumer
  is busy with. Hence pending + queued + taken <= N at all times, which is the promise of
  `buffer_size`; the producer's last known room can only be too small, never too large.

`close()` may come from any thread and at any moment, even out of a garbage collection that
interrupts this very code: therefore the lock is re-entrant. In that one case a wait of the producer
may begin after its wake-up has already happened; these waits end by themselves to look again.

The consumer waits at a *bell*, a lock that it cannot take before somebody releases it. A condition
makes such a lock for every wait, and keeps a list of who waits: at the pace of a model, where each
delta is waited for, that was a tenth of all that a delta cost. Whoever waits says so while he holds
the channel's lock, and lets go of that before he waits; so a signal finds nothing half done. A ring
that comes too late for its wait ends the next one, which then looks again.

After a fork both processes hold the channel, but only the parent has the producer, and the
connection is shared: in the child `close()` does nothing but remember itself, and takes no lock,
for a thread of the parent's may have held it.

`close()` also calls the *interrupt*, a function with which the producer says how to end whatever it
is waiting for at the moment (shut a socket down). It must neither block nor raise.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ..errors import ConfigurationError, StreamClosed

__all__ = ["Channel", "ChannelClosed", "ChannelTimeout"]

T = TypeVar("T")

#: How long a wait may be before its thread looks again: a producer whether the channel was closed,
#: the main thread whether there was a signal. In seconds.
_LOOK_AGAIN_S = 0.2


class ChannelClosed(Exception):
    """Told to a producer whose consumer is gone; never seen by users."""


class ChannelTimeout(Exception):
    """Told to a consumer for whom nothing came in time; never seen by users."""


class _EventQueue(queue.Queue[Any]):
    """A `queue.Queue` whose lock may be taken again by the thread that holds it."""

    queue: deque[Any]

    def __init__(self, maxsize: int) -> None:
        super().__init__(maxsize)
        self.mutex = threading.RLock()  # type: ignore[assignment]
        self.not_full = threading.Condition(self.mutex)


class Channel(Generic[T]):
    """A bounded, closable hand-off that carries its ending with it.

    Args:
        maxsize: How many items may wait, at least 1.

    Attributes:
        closed: Whether the consumer has gone.
        timed_out: Whether it was a limit of the consumer's that closed it.
        error: What the producer ended with, if it was an error.
        ended_at: When the producer ended, by `time.monotonic`; `None` before.
        start: What the producer learned when its request was answered, or `None` before.
        producer_waited_s: How long the producer has waited for room, in seconds.
        high_water: The most items that have waited at once.
        on_news: Called whenever `get` has something to look at, for a consumer that must not wait
            in it, such as an event loop's. It is called by any thread, with the lock held, and must
            neither block nor raise.

    Thread: `put`, `flush`, `end`, `set_start`, `pause` and `interrupt_with` belong to the producer,
    `get` and `want_start_by` to the consumer, `close` to everybody.
    """

    def __init__(self, maxsize: int) -> None:
        if isinstance(maxsize, bool) or not isinstance(maxsize, int) or maxsize < 1:
            raise ConfigurationError(
                f"buffer_size must be a whole number of at least 1, not {maxsize!r}: "
                "a buffer without a bound would be no back-pressure"
            )
        self.closed = False
        self.timed_out = False
        self.error: BaseException | None = None
        self.ended_at: float | None = None
        self.start: Any = None
        self.producer_waited_s = 0.0
        self.high_water = 0
        self.on_news: Callable[[], object] | None = None
        self._process = os.getpid()
        self._queue = _EventQueue(maxsize)
        self._half = (maxsize + 1) // 2
        self._pending: list[T] = []
        self._room = maxsize
        self._taken = 0
        self._ended = False
        self._interrupt: Callable[[], object] | None = None
        self._reading: object | None = None
        self._bell = threading.Lock()
        self._bell.acquire()
        self._awaited = False
        self._start_is_news = False
        self._told = False
        self._start_by: float | None = None

    # --- the producer's end ---

    def put(self, item: T) -> None:
        """Add an item; wait while the bound is reached.

        Raises:
            ChannelClosed: The consumer has gone.
        """
        self._pending.append(item)
        if len(self._pending) >= self._room:
            self.flush()

    def flush(self) -> None:
        """Hand over what was put. Then wait, if need be, until there is room for one more.

        Raises:
            ChannelClosed: The consumer has gone.
        """
        if not self._pending:
            return
        events = self._queue
        with events.mutex:
            if not self.closed:
                self._hand_over()
                self._tell()
            while not self.closed:
                self._room = events.maxsize - len(events.queue) - self._taken
                if self._room > 0:
                    return
                begun = time.monotonic()
                events.not_full.wait(_LOOK_AGAIN_S)
                self.producer_waited_s += time.monotonic() - begun
        raise ChannelClosed

    def _hand_over(self) -> None:
        """Let the consumer have what was put; the lock is held."""
        items = self._queue.queue
        items.extend(self._pending)
        self._pending.clear()
        self.high_water = max(self.high_water, len(items) + self._taken)

    def set_start(self, start: Any) -> None:
        """Say that the request was answered, and how."""
        with self._queue.mutex:
            self.start = start
            self._start_is_news = True
            self._tell()

    def end(self, error: BaseException | None = None) -> None:
        """Say that nothing more will come; `error` is raised in the consumer, after the items."""
        events = self._queue
        with events.mutex:
            if not self.closed:
                self._hand_over()
                self.error = error
            self._pending.clear()
            self.ended_at = time.monotonic()
            self._ended = True
            self._interrupt = None
            self._tell()

    def pause(self, seconds: float, *, may_end: bool = False) -> bool:
        """Sleep, but no longer than until the channel is closed.

        Args:
            seconds: How long.
            may_end: Whether the pause ends, at once, where the consumer wants the start sooner than
                it can come after all of it.

        Returns:
            Whether all of it was slept.

        Raises:
            ChannelClosed: The consumer has gone.
        """
        self.flush()
        self.interrupt_with(None)
        deadline = time.monotonic() + seconds
        with self._queue.mutex:
            while not self.closed and (left_s := deadline - time.monotonic()) > 0:
                if may_end and self._is_wanted_before(deadline):
                    return False
                self._queue.not_full.wait(min(left_s, _LOOK_AGAIN_S))
            if self.closed:
                raise ChannelClosed
        return True

    def _is_wanted_before(self, deadline: float) -> bool:
        """Whether the start can still come in time, but not after a deadline; the lock is held."""
        by = self._start_by
        return self.start is None and by is not None and time.monotonic() < by < deadline

    def interrupt_with(self, interrupt: Callable[[], object] | None) -> None:
        """Say how `close()` can end what the producer is about to wait for.

        If the channel is closed already, the interrupt is called at once.
        """
        with self._queue.mutex:
            self._interrupt = interrupt
            closed = self.closed
        if closed and interrupt is not None:
            interrupt()

    def _tell(self) -> None:
        """Wake the consumer, if it waits; the lock is held."""
        if self._awaited:
            self._awaited = False
            if self._bell.locked():  # else a ring is left that nobody has waited for
                self._bell.release()
        if self.on_news is not None:
            self.on_news()

    # --- the consumer's end ---

    def get(self, timeout_s: float | None = None) -> list[T] | None:
        """Take what is there; wait for it if need be.

        Returns:
            The items; none of them, once, when all that is new is `start`; `None` when nothing more
            will come, or after `close()`.

        Raises:
            ChannelTimeout: Nothing came within `timeout_s`.
            StreamClosed: Another thread is waiting here, or this is a child process.
            BaseException: What the producer ended with: `error`.
        """
        if os.getpid() != self._process:
            raise StreamClosed("a stream belongs to the process that opened it; open a new one")
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        events = self._queue
        call = object()
        try:
            with events.mutex:
                self._only_reader(call)
                if self._taken:
                    self._taken = 0
                    events.not_full.notify()
            while True:
                with events.mutex:
                    if self.has_news():
                        return self._take()
                    self._awaited = True
                self._bell.acquire(timeout=self._longest_wait_s(deadline))
        finally:
            if self._reading is call:
                self._reading = None

    def _take(self) -> list[T] | None:
        """Take the news; the lock is held."""
        events = self._queue
        items = events.queue
        if items:
            self._start_is_news = False
            if len(items) <= self._half:
                batch = list(items)
                items.clear()
            else:
                batch = [items.popleft() for _ in range(self._half)]
            self._taken = len(batch) - 1
            events.not_full.notify()
            return batch
        if self._start_is_news:
            self._start_is_news = False
            return []
        told, self._told = self._told, True
        if self.error is not None and not told:
            raise self.error
        return None

    def _longest_wait_s(self, deadline: float | None) -> float:
        """Return how long to wait now; in the main thread that is not long at once.

        A signal that comes between Python's last look for one and the beginning of a wait is
        handled when that wait is over: Ctrl-C must not have to wait for the provider.

        Raises:
            ChannelTimeout: The deadline is over.
        """
        longest_s = threading.TIMEOUT_MAX
        if threading.current_thread() is threading.main_thread():
            longest_s = _LOOK_AGAIN_S
        if deadline is None:
            return longest_s
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise ChannelTimeout
        return min(longest_s, left_s)

    def want_start_by(self, deadline: float) -> None:
        """Say until when the start is of use; a pause beyond that ends if it may."""
        with self._queue.mutex:
            self._start_by = deadline
            self._queue.not_full.notify()

    def has_news(self) -> bool:
        """Whether `get` has something to return, or to raise, without waiting."""
        return bool(self._queue.queue) or self._ended or self.closed or self._start_is_news

    def _only_reader(self, call: object) -> None:
        if self._reading is not None:
            raise StreamClosed("two threads are reading one stream; give each a stream of its own")
        self._reading = call

    # --- everybody's ---

    def close(self) -> None:
        """Stop both ends: what waits is dropped, both are woken, the interrupt is called."""
        if os.getpid() != self._process:
            self.closed = True
            return
        events = self._queue
        with events.mutex:
            if self.closed:
                return
            self.closed = True
            events.queue.clear()
            self._tell()
            events.not_full.notify_all()
            interrupt = self._interrupt
        if interrupt is not None:
            interrupt()
