"""Whoever is told of every stream of this process: `llm_sse.otel` is one.

Where nobody observes, a stream asks once whether there is somebody, and that is all it costs.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing
from contextvars import Context
from typing import Protocol, TypeVar

from msgspec import Struct

from ..chat import ChatRequest
from ..events import CONTENT, Event
from ..metrics import MetricsRecorder, StreamMetrics
from ..providers.base import Provider
from .channel import Channel, ChannelClosed

__all__ = [
    "Observation",
    "ObservedStream",
    "Observer",
    "Outcome",
    "close_all",
    "observation_of",
    "observer",
    "set_observer",
    "wait_until_told",
]

T = TypeVar("T")

_log = logging.getLogger("llm_sse")


class Outcome(Struct, frozen=True, kw_only=True):
    """How a stream ended, as its producer saw it.

    Attributes:
        metrics: Its pace; what only its reader knows is not in it.
        asked_s: When this provider was asked, in seconds from the call on, as `metrics` has them.
        ended_ns: When it ended, in nanoseconds since 1970.
        error: The name of the error that it ended with, if any.
        whole: Whether the answer came to its end; neither so nor an error is a stream that was
            closed.
    """

    metrics: StreamMetrics
    asked_s: float
    ended_ns: int
    error: str | None
    whole: bool


class Observation(Protocol):
    """What is told of one stream, in its producer's thread.

    Nothing that it raises gets any further than the log, whatever it is: nobody else has reason to
    interrupt that thread. The reader waits while `begins`, `sending`
    and `event` run, but not for `ended`.
    """

    def begins(self) -> None:
        """Take note that the provider is asked now."""

    def sending(self) -> Context | None:
        """Return the context variables that the requests shall be sent with, if it matters."""

    def event(self, event: Event) -> None:
        """Take note of an event that is no content."""

    def ended(self, outcome: Outcome) -> None:
        """Take note that nothing more will come; the reader knows it already."""


class Observer(Protocol):
    """Who makes an observation for each stream."""

    def called(self, provider: Provider, chat: ChatRequest, base_url: str) -> Observation:
        """Take note of a call, in the caller's thread; perhaps nothing is sent.

        An `Exception` gets no further than the log. What is none may be meant for the caller (its
        Ctrl-C, the `SystemExit` of a signal's handler, a task's time limit): it goes on to there.
        """


_observer: Observer | None = None


def observer() -> Observer | None:
    """Return whoever observes, if anybody does."""
    return _observer


def set_observer(new: Observer | None) -> None:
    """Let somebody observe all streams that are opened from now on; one observer at a time."""
    global _observer  # noqa: PLW0603 - it is a setting of the process
    _observer = new


def observation_of(provider: Provider, chat: ChatRequest, base_url: str) -> Observation | None:
    """Return what is to be told of a stream that is being opened, if anybody observes."""
    watcher = observer()
    if watcher is None:
        return None
    try:
        return watcher.called(provider, chat, base_url)
    except Exception:
        _warn()
        return None


class ObservedStream:
    """A stream that somebody is told of.

    What is told of its ending may take any time (an exporter that waits for its collector), so it
    is told when the reader has the ending: it is not the provider that is late then.

    Args:
        observation: Who is told.
        channel: Where the events go.
        pace: What the producer notes of the time.

    Attributes:
        context: The context variables that the requests shall be sent with, if it matters.
        thread: The producer's, once it runs.

    Thread: the producer's; what `wait_until_told` looks at is everybody's.
    """

    def __init__(
        self, observation: Observation, channel: Channel[Event], pace: MetricsRecorder
    ) -> None:
        self.context: Context | None = None
        self.thread = threading.current_thread()
        self._observation = observation
        self._channel = channel
        self._pace = pace
        self._outcome: Outcome | None = None

    @property
    def is_over(self) -> bool:
        """Whether all that is left is to tell the ending, or will be in a moment."""
        return self._outcome is not None or self._channel.closed

    def close(self) -> None:
        """End the stream, from any thread, as if its reader did."""
        self._channel.close()

    def events(self, events: Generator[Event, None, None]) -> Generator[Event, None, None]:
        """Yield the events, and tell of them."""
        observation, channel, pace = self._observation, self._channel, self._pace
        self.thread = threading.current_thread()
        _under_way.add(self)
        asked_s = pace.clock() - pace.started
        error: str | None = None
        whole = False
        _tell(observation.begins)
        self.context = _tell(observation.sending)
        try:
            with closing(events):
                for event in events:
                    if type(event) not in CONTENT:
                        _tell(observation.event, event)
                    yield event
            whole = True
        except (ChannelClosed, GeneratorExit):
            raise
        except BaseException as failure:
            error = type(failure).__name__
            raise
        finally:
            if channel.closed:  # by the reader, whatever the network makes of it
                error = "StreamTimeout" if channel.timed_out else None
            metrics = pace.metrics(
                producer_waited_s=channel.producer_waited_s, buffer_high_water=channel.high_water
            )
            self._outcome = Outcome(
                metrics=metrics,
                asked_s=asked_s,
                ended_ns=time.time_ns(),
                error=error,
                whole=whole,
            )

    def tell_ending(self) -> None:
        """Tell how it ended; the reader knows it already."""
        try:
            if self._outcome is not None:
                _tell(self._observation.ended, self._outcome)
        finally:
            _under_way.discard(self)


_under_way: set[ObservedStream] = set()


def wait_until_told(timeout_s: float) -> None:
    """Wait until the observer knows of all streams that are over; a stream that runs is left alone.

    Args:
        timeout_s: How long, in seconds, at most.
    """
    deadline = time.monotonic() + timeout_s
    for stream in _under_way.copy():
        if stream.is_over and stream.thread is not threading.current_thread():
            # After a fork the parent's threads are not alive here.
            stream.thread.join(max(0.0, deadline - time.monotonic()))


def close_all(timeout_s: float) -> None:
    """Close the streams that run, and wait until the observer knows how all of them ended.

    Args:
        timeout_s: How long, in seconds, at most.
    """
    for stream in _under_way.copy():
        stream.close()
    wait_until_told(timeout_s)


def _tell(listen: Callable[..., T], *said: object) -> T | None:
    """Tell an observation something, in the stream's own thread; its mistakes end no stream."""
    try:
        return listen(*said)
    except BaseException:  # `SystemExit`, too: signals, and with them Ctrl-C, are the main thread's
        _warn()
        return None


def _warn() -> None:
    """Log what is being handled."""
    _log.warning("an observer of streams failed; the stream goes on", exc_info=True)
