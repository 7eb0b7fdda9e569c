"""Who reads an event stream as the standard's `EventSource` does."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["is_event_source"]


def is_event_source(header: Callable[[str], str | None]) -> bool:
    """Whether a request is that of an `EventSource`, as the standard has it written.

    Such a client comes back by itself, and knows an id only after the blank line that follows it.
    Others must not be sent a block of an id alone: they take it for an event without data.

    Args:
        header: Returns a header of the request; `None` where there is none of that name.

    Source: https://html.spec.whatwg.org/multipage/server-sent-events.html, "The EventSource
        constructor": `Accept: text/event-stream`, cache mode `no-store`; for that mode
        https://fetch.spec.whatwg.org/#http-network-or-cache-fetch adds `Cache-Control: no-cache`.
    """
    accepts = header("Accept") or ""
    caches = header("Cache-Control") or ""
    return "text/event-stream" in accepts.lower() and "no-cache" in caches.lower()
