"""The thread that reads a stream for a body."""

from __future__ import annotations

import contextvars
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any, Union, get_args

from ..errors import ConfigurationError, StreamError
from ..events import Event
from ..sync.channel import Channel
from ..sync.producer import flushing, start_producer
from ..sync.stream import TokenStream
from .log import log_error
from .problem import RefusedError, misconfigured, problem_of

__all__ = ["EventStream", "Factory", "Told", "is_stream", "open_stream", "release", "start_pump"]

#: What can be streamed: a stream of ours, or any iterable of events.
EventStream = Union[TokenStream, Iterable[Event]]

#: Opens the stream, if one is needed.
Factory = Callable[[], EventStream]

_EVENTS = get_args(Event)

_log = logging.getLogger("llm_sse.web.body")


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


def open_stream(factory: Factory) -> EventStream:
    """Open the stream.

    Raises:
        RefusedError: The site cannot ask as it wants to, which is not the visitor's affair: it has
            no key, say. Or what the function asked before has failed.
        ConfigurationError: What the function returned is no stream.
    """
    try:
        stream = factory()
    except ConfigurationError as error:
        _log.error("the question could not be asked: %s", error)
        raise RefusedError(misconfigured()) from error
    except StreamError as error:  # of another question, say, on which this one depends
        log_error(_log, error)
        raise RefusedError(problem_of(error)) from error
    if not is_stream(stream):
        raise ConfigurationError(
            "the function must return what stream_sync returns, or events, "
            f"not {type(stream).__name__}"
        )
    return stream


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
    """End both ends.

    A generator, or another iterator, is closed by the thread that iterates it; an iterable with a
    `close` of its own is closed from here, where nothing waits.
    """
    channel.close()
    if isinstance(stream, (TokenStream, Told)):
        stream.close()
        return
    close = None if isinstance(stream, Iterator) else getattr(stream, "close", None)
    if callable(close):
        close()


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
