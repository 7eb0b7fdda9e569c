from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from llm_sse.errors import ConfigurationError, StreamClosed
from llm_sse.sync.channel import Channel, ChannelClosed, ChannelTimeout
from tests.helpers import until


def _in_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Run something in a thread; the list gets its result or its exception."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, name="llm-sse-test", daemon=True)
    thread.start()
    return thread, outcome


def _read_all(channel: Channel[int]) -> list[int]:
    items: list[int] = []
    while (batch := channel.get()) is not None:
        items += batch
    return items


class Interrupted:
    """A lock that somebody else may take when it is let go of, and where a signal comes then.

    Attributes:
        at_exit: What happens then, each time; the first is done with the first time.
    """

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self.at_exit: list[Callable[[], object]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lock, name)

    def __enter__(self) -> Any:
        return self._lock.__enter__()

    def __exit__(self, *exception: Any) -> None:
        self._lock.__exit__(*exception)
        if self.at_exit:
            self.at_exit.pop(0)()


class TestChannel:
    @pytest.mark.parametrize("maxsize", [0, -1, 1.5, True, None, "50"])
    def test_demands_a_bound(self, maxsize: Any) -> None:
        """A buffer without a whole bound of at least 1 is refused: it would hold nothing back."""
        with pytest.raises(ConfigurationError, match="buffer_size"):
            Channel(maxsize)

    @pytest.mark.parametrize("maxsize", [1, 2, 3, 7, 50])
    def test_items_come_in_order_and_none_is_lost(self, maxsize: int) -> None:
        """What goes in comes out, in order, whatever the bound."""
        channel: Channel[int] = Channel(maxsize)

        def produce() -> None:
            for item in range(1000):
                channel.put(item)
            channel.end()

        thread, _ = _in_thread(produce)
        assert _read_all(channel) == list(range(1000))
        thread.join()

    def test_it_knows_how_full_it_was(self) -> None:
        """The most that waited at once is remembered; what the consumer works on is not waiting."""
        channel: Channel[int] = Channel(10)
        for item in range(4):
            channel.put(item)
        assert channel.high_water == 0  # nothing was handed over
        channel.flush()
        assert channel.get() == [0, 1, 2, 3]
        channel.put(4)
        channel.end()
        assert (channel.high_water, channel.producer_waited_s) == (4, 0)

    def test_it_knows_how_long_the_producer_waited(self) -> None:
        """The time without room adds up, also while the producer still waits."""
        channel: Channel[int] = Channel(1)
        thread, _ = _in_thread(lambda: [channel.put(item) for item in range(3)])
        until(lambda: channel.producer_waited_s > 0)
        assert channel.get() == [0]
        before = channel.producer_waited_s
        until(lambda: channel.producer_waited_s > before)
        channel.close()
        thread.join()
        assert channel.high_water == 1

    @pytest.mark.parametrize("maxsize", [1, 2, 3, 10])
    def test_never_more_than_the_bound_waits(self, maxsize: int) -> None:
        """Counted at every single item, no more than the bound waits for the consumer."""
        channel: Channel[int] = Channel(maxsize)
        begun = 0  # items that the consumer has begun to work on
        most = 0

        def produce() -> None:
            nonlocal most
            for item in range(300):
                channel.put(item)
                most = max(most, item + 1 - begun)
            channel.end()

        thread, _ = _in_thread(produce)
        while (batch := channel.get()) is not None:
            for _ in batch:
                begun += 1
        thread.join()
        assert most <= maxsize

    def test_a_full_channel_stops_its_producer(self) -> None:
        """While nobody reads, the producer puts as many items as the bound says, and waits."""
        channel: Channel[int] = Channel(5)
        made: list[int] = []

        def produce() -> None:
            for item in range(6):
                made.append(item)
                channel.put(item)
            channel.end()

        thread, _ = _in_thread(produce)
        until(lambda: len(channel._queue.queue) == 5)
        assert made == [0, 1, 2, 3, 4]
        assert _read_all(channel) == [0, 1, 2, 3, 4, 5]
        thread.join()

    def test_nothing_is_handed_over_before_a_flush(self) -> None:
        """Items gather until the producer is about to wait, then come in one batch."""
        channel: Channel[int] = Channel(50)
        channel.put(1)
        channel.put(2)
        with pytest.raises(ChannelTimeout):
            channel.get(0)
        channel.flush()
        assert channel.get(0) == [1, 2]

    def test_a_batch_is_at_most_half_of_the_bound(self) -> None:
        """The consumer leaves room for the producer to work meanwhile."""
        channel: Channel[int] = Channel(4)
        for item in range(3):
            channel.put(item)
        channel.flush()
        assert channel.get(0) == [0, 1]
        assert channel.get(0) == [2]

    def test_the_error_comes_after_the_items(self) -> None:
        """The producer's error is raised in the consumer, once everything before it was taken."""
        channel: Channel[int] = Channel(50)
        channel.put(1)
        channel.end(ValueError("broken"))
        assert channel.get() == [1]
        with pytest.raises(ValueError, match="broken"):
            channel.get()
        assert channel.get() is None

    def test_close_wakes_a_waiting_consumer(self) -> None:
        """A consumer that waits is told that nothing more will come."""
        channel: Channel[int] = Channel(1)
        thread, outcome = _in_thread(channel.get)
        until(lambda: channel._reading)
        channel.close()
        thread.join()
        assert outcome == [None]

    def test_close_wakes_a_producer_that_waits_for_room(self) -> None:
        """A producer that waits for room learns that its consumer is gone."""
        channel: Channel[int] = Channel(1)
        thread, outcome = _in_thread(lambda: channel.put(1))
        until(lambda: channel._queue.queue)
        channel.close()
        thread.join()
        assert isinstance(outcome[0], ChannelClosed)

    def test_a_closed_channel_takes_nothing(self) -> None:
        """Whoever puts into a closed channel is told so at the next hand-over."""
        channel: Channel[int] = Channel(50)
        channel.close()
        channel.put(1)
        with pytest.raises(ChannelClosed):
            channel.flush()
        channel.end(ValueError("nobody listens"))
        assert channel.get() is None

    def test_close_ends_a_pause(self) -> None:
        """A back-off ends at once when the channel is closed."""
        channel: Channel[int] = Channel(50)
        thread, outcome = _in_thread(lambda: channel.pause(3600))
        until(lambda: channel._queue.not_full._waiters)
        channel.close()
        thread.join()
        assert isinstance(outcome[0], ChannelClosed)

    def test_a_pause_ends_by_itself(self) -> None:
        """A pause that nobody ends lasts its time."""
        channel: Channel[int] = Channel(50)
        channel.pause(0.001)
        assert channel._interrupt is None

    def test_a_pause_beyond_the_start_that_is_wanted_may_end(self) -> None:
        """It ends at once; where it may not, or the start is there, or too late, it lasts."""
        channel: Channel[int] = Channel(50)
        thread, outcome = _in_thread(lambda: channel.pause(3600, may_end=True))
        until(lambda: channel._queue.not_full._waiters)
        channel.want_start_by(time.monotonic() + 60)
        thread.join(20)
        assert outcome == [False]
        assert channel.pause(0.001, may_end=True)
        channel.want_start_by(time.monotonic())
        assert channel.pause(0.001, may_end=True)
        channel.want_start_by(time.monotonic() + 0.001)
        assert channel.pause(0.002)
        channel.set_start("answered")
        channel.want_start_by(time.monotonic() + 0.001)
        assert channel.pause(0.002, may_end=True)

    def test_close_calls_the_interrupt_once(self) -> None:
        """What the producer waits for is ended by close(), once."""
        channel: Channel[int] = Channel(1)
        calls: list[int] = []
        channel.interrupt_with(lambda: calls.append(1))
        channel.close()
        channel.close()
        assert calls == [1]

    def test_an_interrupt_that_comes_too_late_is_called_at_once(self) -> None:
        """A producer that begins to wait after close() does not wait."""
        channel: Channel[int] = Channel(1)
        channel.close()
        calls: list[int] = []
        channel.interrupt_with(lambda: calls.append(1))
        assert calls == [1]

    def test_close_from_within_the_producers_lock_does_not_hang(self) -> None:
        """A garbage collection may close the channel in the very middle of a hand-over."""
        channel: Channel[int] = Channel(1)

        class Dropped:
            def __del__(self) -> None:
                channel.close()

        with channel._queue.mutex:
            dropped = Dropped()
            dropped.myself = dropped  # type: ignore[attr-defined]
            del dropped
            gc.collect()
        assert channel.closed

    def test_a_second_reader_is_refused(self) -> None:
        """Two threads that read at once would each get half."""
        channel: Channel[int] = Channel(1)
        thread, outcome = _in_thread(channel.get)
        until(lambda: channel._reading)
        with pytest.raises(StreamClosed, match="two threads"):
            channel.get(0)
        channel.close()
        thread.join()
        assert outcome == [None]

    def test_the_start_is_told_without_any_item(self) -> None:
        """The consumer learns that the request was answered before anything was said."""
        channel: Channel[int] = Channel(1)
        channel.set_start("answered")
        assert channel.get(0) == []
        assert channel.start == "answered"
        with pytest.raises(ChannelTimeout):
            channel.get(0)

    def test_news_are_told_to_a_consumer_that_does_not_wait(self) -> None:
        """Items, also before a full channel waits, the start, the end and `close()` are news."""
        told: list[int] = []
        channel: Channel[int] = Channel(1)
        channel.on_news = lambda: told.append(len(told))
        channel.set_start("started")
        assert channel.get(0) == []
        thread, _ = _in_thread(lambda: channel.put(1))
        until(lambda: len(told) == 2)
        assert channel.get(0) == [1]
        channel.close()
        assert len(told) == 3
        thread.join()
        channel.end()
        assert len(told) == 4

    @pytest.mark.parametrize("before", [0, 1])
    def test_a_signal_before_a_wait_breaks_nothing(self, before: int) -> None:
        """Its exception is what the consumer gets, and both ends can go on."""
        channel: Channel[int] = Channel(10)
        lock: Any = Interrupted(channel._queue.mutex)
        channel._queue.mutex = lock

        def interrupt() -> None:
            raise KeyboardInterrupt

        for _ in range(3):
            lock.at_exit = [lambda: None] * before + [interrupt]
            with pytest.raises(KeyboardInterrupt):
                channel.get(5)
            channel.put(1)
            channel.flush()
            assert channel.get(5) == [1]

    def test_a_ring_that_nobody_hears_is_no_item(self) -> None:
        """Whoever rings when the wait is over already, wakes the next one for nothing at most."""
        channel: Channel[int] = Channel(10)
        lock: Any = Interrupted(channel._queue.mutex)
        channel._queue.mutex = lock

        def produce() -> None:
            channel.put(1)
            channel.flush()
            raise KeyboardInterrupt

        for _ in range(3):
            lock.at_exit = [lambda: None, produce]
            with pytest.raises(KeyboardInterrupt):
                channel.get(5)
            assert not channel._bell.locked()
            assert channel.get(5) == [1]
        for _ in range(2):
            with pytest.raises(ChannelTimeout):
                channel.get(0.01)
