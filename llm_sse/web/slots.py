"""How many streams may run at once, in all and for one client."""

from __future__ import annotations

import threading
from collections import Counter

from ..sync.stream import TokenStream
from .problem import Problem

__all__ = ["Slot", "Slots"]

#: When a refused client may ask again, in seconds: streams last that long.
_RETRY_AFTER_S = 5


class Slot:
    """One stream's place; it is given back once, however often that is said."""

    def __init__(self, slots: Slots, client: str, name: str | None) -> None:
        self._slots = slots
        self.client = client
        self.name = name
        self.stopped = False
        self.stream: TokenStream | None = None

    def hold(self, stream: TokenStream) -> None:
        """Keep the stream, so that the site's end can be its end."""
        self.stream = stream
        if self._slots.closed or self.stopped:  # it was, between the slot and the stream
            stream.close()

    def release(self) -> None:
        """Give the place back."""
        self._slots.release(self)


class Slots:
    """The places that there are.

    Args:
        most: How many streams there may be.
        most_per_client: How many one client may have.

    Attributes:
        closed: Whether no more are taken.
        lock: Guards the places. It may be taken again by the thread that holds it: a garbage
            collection may give a place back there.

    Thread: everybody's.
    """

    def __init__(self, most: int, most_per_client: int) -> None:
        self.closed = False
        self.lock = threading.RLock()
        self._most = most
        self._most_per_client = most_per_client
        self._taken: set[Slot] = set()
        self._per_client: Counter[str] = Counter()
        self._changed = threading.Condition(self.lock)

    def take(self, client: str, name: str | None = None) -> Slot | Problem:
        """Take a place, or say why there is none.

        Args:
            client: Who asks.
            name: The name by which the stream can be stopped.
        """
        with self._changed:
            if self.closed:
                return _refusal(503, "This site is going down.", "unavailable")
            if self._per_client[client] >= self._most_per_client:
                return _refusal(429, "You have too many answers running.", "too_many_streams")
            if len(self._taken) >= self._most:
                return _refusal(429, "Too many answers are running here.", "too_many_streams")
            slot = Slot(self, client, name)
            self._taken.add(slot)
            self._per_client[client] += 1
            return slot

    def release(self, slot: Slot) -> None:
        """Give a place back."""
        with self._changed:
            if slot not in self._taken:
                return
            self._taken.remove(slot)
            self._per_client[slot.client] -= 1
            self._per_client += Counter()  # drops those that have none
            self._changed.notify_all()

    @property
    def taken(self) -> int:
        """How many streams run."""
        with self._changed:
            return len(self._taken)

    def stop(self, name: str) -> None:
        """End the streams of a name."""
        with self._changed:
            slots = [slot for slot in self._taken if slot.name == name]
            for slot in slots:
                slot.stopped = True
        for slot in slots:
            if slot.stream is not None:
                slot.stream.close()

    def close(self, wait_s: float) -> None:
        """End all streams, take no more, and wait until their bodies have ended, for a while."""
        with self._changed:
            self.closed = True
            streams = [slot.stream for slot in self._taken]
        for stream in streams:
            if stream is not None:
                stream.close()
        with self._changed:
            self._changed.wait_for(lambda: not self._taken, wait_s)


def _refusal(status: int, detail: str, code: str) -> Problem:
    return Problem(
        title="Too Many Requests" if status == 429 else "Service Unavailable",
        status=status,
        detail=detail,
        code=code,
        retryable=True,
        retry_after_s=_RETRY_AFTER_S,
    )
