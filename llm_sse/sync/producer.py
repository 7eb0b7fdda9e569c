"""The thread that fills a channel."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable
from contextvars import Context
from typing import Any, TypeVar

from ..errors import StreamError
from .channel import Channel, ChannelClosed
from .source import without_frames

__all__ = ["flushing", "start_producer"]

T = TypeVar("T")


def start_producer(
    channel: Channel[Any],
    items: Iterable[Any],
    name: str,
    context: Context | None = None,
    after: Callable[[], object] | None = None,
) -> threading.Thread:
    """Start the thread that puts items into a channel, and their ending after them.

    It is a daemon, so that a provider that never answers cannot keep the interpreter from exiting.

    Args:
        channel: Where they go.
        items: What is iterated there; its iterator is closed at the end.
        name: The thread's name.
        context: The context variables that the thread has; none of the caller's without it.
        after: Called there at the very end, when the consumer has the ending and waits for nothing.
    """
    run = Context().run if context is None else context.run
    thread = threading.Thread(
        target=run, args=(_produce, channel, items, after), name=name, daemon=True
    )
    thread.start()
    return thread


def flushing(iterable: Iterable[T], channel: Channel[Any]) -> Generator[T, None, None]:
    """Hand every item over before asking for the next one, which may take any time."""
    iterator = iter(iterable)
    try:
        for item in iterator:
            yield item
            channel.flush()
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()


def _produce(
    channel: Channel[Any], items: Iterable[Any], after: Callable[[], object] | None
) -> None:
    iterator = None
    try:
        iterator = iter(items)
        for item in iterator:
            channel.put(item)
        channel.end()
    except ChannelClosed:
        channel.end()
    except StreamError as error:
        channel.end(without_frames(error))
    except BaseException as error:
        channel.end(error)
    finally:
        try:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()
        finally:
            if after is not None:
                after()
