"""The thread that reads a stream for a body."""

from __future__ import annotations

import contextvars
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any, Union, get_args

from ..events import Event
from ..sync.channel import Channel
from ..sync.producer import flushing, start_producer
from ..sync.stream import TokenStream

__all__ = ["EventStream", "Told", "is_stream", "release", "start_pump"]

#: What can be streamed: a stream of ours, or any iterable of events.
EventStream = Union[TokenStream, Iterable[Event]]

_EVENTS = get_args(Event)


class Told(ABC):
    """What is told again; to a pump it is what a `TokenStream` is."""

    @abstractmethod
    def wait_started(self) -> object:
        """Wait until it is known whether there is an answer; raise what there is instead."""

    @abstractmethod
    def events(self) -> Iterator[Any]:
        """Yield what is told."""

    @abstractmethod
    def close(self) -> None:
        """End it."""


def is_stream(stream: object) -> bool:
    """Whether this can be streamed; what an iterable is made of is seen when it is read."""
    return isinstance(stream, (TokenStream, Iterable)) and not isinstance(stream, (str, bytes))


def start_pump(
    stream: EventStream | Told, channel: Channel[Any], on_thread_end: Callable[[], object]
) -> None:
    """Start the thread that puts a stream's events into a channel, and its ending after them.

    It is a daemon, and has a copy of this thread's context variables.

    Args:
        stream: What is read.
        channel: Where it goes; its start is set when the provider's status is known.
        on_thread_end: Called in that thread when it has nothing left to do.
    """
    events = _events(stream, channel, on_thread_end)
    start_producer(channel, events, "llm-sse-web", contextvars.copy_context())


def release(stream: EventStream | Told, channel: Channel[Any]) -> None:
    """End both ends. An iterable of somebody else's is closed by the thread that iterates it."""
    channel.close()
    if isinstance(stream, (TokenStream, Told)):
        stream.close()


def _events(
    stream: EventStream | Told, channel: Channel[Any], on_thread_end: Callable[[], object]
) -> Iterator[Any]:
    """Yield a stream's events, each handed over before the next is waited for."""
    try:
        if isinstance(stream, (TokenStream, Told)):
            stream.wait_started()
            channel.set_start(True)
            yield from flushing(stream.events(), channel)
            return
        with closing(flushing(stream, channel)) as events:
            for event in events:
                _check_event(event)
                yield event
    finally:
        on_thread_end()


def _check_event(event: object) -> None:
    if not isinstance(event, _EVENTS):
        raise TypeError(f"a stream is made of events (llm_sse.events), not {type(event).__name__}")
