"""The same hand-off for any iterable of the caller's own."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

from ..errors import ConfigurationError
from .channel import Channel
from .producer import flushing, start_producer

__all__ = ["buffered"]

T = TypeVar("T")


def buffered(iterable: Iterable[T], buffer_size: int = 256) -> Iterator[T]:
    """Iterate something in a thread of its own, a bounded number of items ahead.

    Items come in order; an exception of the iterable's is raised here, after the items before it.
    When this iterator is closed or dropped, the iterable is asked for no further item, and its
    `close()` is called in the thread that iterated it.

    Args:
        iterable: What to iterate; nothing else may iterate it meanwhile.
        buffer_size: How many items may wait, at least 1.

    Raises:
        ConfigurationError: `iterable` is none, or `buffer_size` is below 1.
    """
    if not isinstance(iterable, Iterable):
        raise ConfigurationError(f"buffered() needs an iterable, not {type(iterable).__name__}")
    channel: Channel[T] = Channel(buffer_size)
    start_producer(channel, flushing(iterable, channel), "llm-sse-buffered")
    return _Buffered(channel)


class _Buffered(Iterator[T]):
    """The consumer's end of a channel, item by item."""

    def __init__(self, channel: Channel[T]) -> None:
        self._channel = channel
        self._batch: deque[T] = deque()
        self._ended = False
        self._finalizer = weakref.finalize(self, channel.close)

    def __next__(self) -> T:
        while not self._batch:
            if self._ended:
                raise StopIteration
            try:
                batch = self._channel.get()
            except BaseException as error:
                if error is self._channel.error:  # else a signal's, or a second reader's
                    self._ended = True
                    self._finalizer.detach()  # it would keep what the error's traceback holds
                raise
            if batch is None:
                self._ended = True
            else:
                self._batch.extend(batch)
        return self._batch.popleft()

    def close(self) -> None:
        """Ask for no further item."""
        self._ended = True
        self._batch.clear()
        self._channel.close()
