"""The thread that reads a stream for a body."""

from __future__ import annotations

import contextvars
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Union, get_args

from ..errors import StreamError
from ..events import Event
from ..sync.channel import Channel, ChannelClosed
from ..sync.source import without_frames
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
    threading.Thread(
        target=contextvars.copy_context().run,
        args=(_pump, stream, channel, on_thread_end),
        name="llm-sse-web",
        daemon=True,
    ).start()


def release(stream: EventStream | Told, channel: Channel[Any]) -> None:
    """End both ends. An iterable of somebody else's is closed by the thread that iterates it."""
    channel.close()
    if isinstance(stream, (TokenStream, Told)):
        stream.close()


def _pump(
    stream: EventStream | Told, channel: Channel[Any], on_thread_end: Callable[[], object]
) -> None:
    """Put a stream's events into a channel, each as soon as it is there, and its ending."""
    events: Iterator[Any] | None = None
    ours = isinstance(stream, (TokenStream, Told))
    try:
        if isinstance(stream, (TokenStream, Told)):
            stream.wait_started()
            channel.set_start(True)
            events = stream.events()
        else:
            events = iter(stream)
        for event in events:
            if not ours:
                _check_event(event)
            channel.put(event)
            channel.flush()
        channel.end()
    except ChannelClosed:
        channel.end()
    except StreamError as error:
        channel.end(without_frames(error))
    except BaseException as error:
        channel.end(error)
    finally:
        close = getattr(events, "close", None)
        if close is not None:
            close()
        on_thread_end()


def _check_event(event: object) -> None:
    if not isinstance(event, _EVENTS):
        raise TypeError(f"a stream is made of events (llm_sse.events), not {type(event).__name__}")
