"""Whoever is told of every stream of this process: `llm_sse.otel` is one.

Where nobody observes, a stream asks once whether there is somebody, and that is all it costs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import closing
from typing import Protocol

from msgspec import Struct

from ..chat import ChatRequest
from ..errors import StreamError
from ..events import CONTENT, Event
from ..metrics import MetricsRecorder, StreamMetrics
from ..providers.base import Provider
from .channel import Channel

__all__ = ["Observation", "Observer", "Outcome", "observed", "observer", "set_observer"]

_log = logging.getLogger("llm_sse")


class Outcome(Struct, frozen=True, kw_only=True):
    """How a stream ended, as its producer saw it.

    Attributes:
        metrics: Its pace; what only its reader knows is not in it.
        asked_s: When this provider was asked, in seconds from the call on.
        error: The name of the error that it ended with, if any.
        whole: Whether the answer came to its end; neither so nor an error is a stream that was
            closed.
    """

    metrics: StreamMetrics
    asked_s: float
    error: str | None
    whole: bool


class Observation(Protocol):
    """What is told of one stream, in its producer's thread.

    Nothing that it raises gets any further than the log.
    """

    def begins(self) -> None:
        """Take note that the provider is asked now."""

    def event(self, event: Event) -> None:
        """Take note of an event that is no content."""

    def ended(self, outcome: Outcome) -> None:
        """Take note that nothing more will come."""


class Observer(Protocol):
    """Who makes an observation for each stream."""

    def called(self, provider: Provider, chat: ChatRequest, base_url: str) -> Observation:
        """Take note of a call, in the caller's thread; perhaps nothing is sent."""


_observer: Observer | None = None


def observer() -> Observer | None:
    """Return whoever observes, if anybody does."""
    return _observer


def set_observer(new: Observer | None) -> None:
    """Let somebody observe all streams that are opened from now on; one observer at a time."""
    global _observer  # noqa: PLW0603 - it is a setting of the process
    _observer = new


def observed(
    events: Generator[Event, None, None],
    observation: Observation,
    channel: Channel[Event],
    pace: MetricsRecorder,
) -> Generator[Event, None, None]:
    """Yield the events of a stream, and tell of it.

    Thread: the producer's.
    """
    asked_s = pace.clock() - pace.started
    error: str | None = None
    whole = False
    _tell(observation.begins)
    try:
        with closing(events):
            for event in events:
                if type(event) not in CONTENT:
                    _tell(observation.event, event)
                yield event
        whole = True
    except StreamError as failure:
        error = type(failure).__name__
        raise
    finally:
        if channel.closed:  # by the reader, whatever the network makes of it
            error = "StreamTimeout" if channel.timed_out else None
        metrics = pace.metrics(
            producer_waited_s=channel.producer_waited_s, buffer_high_water=channel.high_water
        )
        outcome = Outcome(metrics=metrics, asked_s=asked_s, error=error, whole=whole)
        _tell(observation.ended, outcome)


def _tell(listen: Callable[..., None], *said: object) -> None:
    """Tell an observation something; a stream does not end by a mistake of it."""
    try:
        listen(*said)
    except Exception:
        _log.warning("an observer of streams failed; the stream goes on", exc_info=True)
