"""The thread that fills a channel."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from ..errors import StreamError
from .channel import Channel, ChannelClosed
from .source import without_frames

__all__ = ["start_producer"]


def start_producer(channel: Channel[Any], items: Iterable[Any], name: str) -> threading.Thread:
    """Start the thread that puts items into a channel, and their ending after them.

    It is a daemon, so that a provider that never answers cannot keep the interpreter from exiting.
    """
    thread = threading.Thread(target=_produce, args=(channel, items), name=name, daemon=True)
    thread.start()
    return thread


def _produce(channel: Channel[Any], items: Iterable[Any]) -> None:
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
        close = getattr(iterator, "close", None)
        if close is not None:
            close()
