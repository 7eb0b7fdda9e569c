"""Notices that a client has left while nothing is written to it.

A stream's body writes heartbeats, which find out. An answer that is sent whole has nothing to write
until it is there; but some servers (waitress) can be asked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..sync.stream import TokenStream

__all__ = ["ended_by_leaving"]

#: How often the server is asked, in seconds.
_EVERY_S = 0.5


@contextmanager
def ended_by_leaving(stream: TokenStream, environ: Mapping[str, Any]) -> Iterator[None]:
    """Close a stream when its client leaves, as long as this lasts.

    Elsewhere than on waitress it does nothing: a generation then ends with the provider's answer.

    Args:
        stream: The stream.
        environ: The request's WSGI environment. Source: waitress's documentation,
            "Detecting client disconnects": `waitress.client_disconnected`.

    Thread: the watch has one of its own, which does not outlive this.
    """
    has_left: Callable[[], bool] | None = environ.get("waitress.client_disconnected")
    if has_left is None:
        yield
        return
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_EVERY_S):
            if has_left():
                stream.close()
                return

    thread = threading.Thread(target=watch, name="llm-sse-web-leaving", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
