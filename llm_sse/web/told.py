"""One response's telling of a stream that is kept: see `retelling`."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from itertools import chain

import msgspec

from ..errors import ConnectionLost
from ..events import Event
from .formats import Format, find_format
from .generation import Generation
from .problem import NOTHING_MORE, Problem, RefusedError
from .pump import Told
from .replay import Entry, Gone, Refused, ReplayReader, ReplayUnavailable

__all__ = ["Retelling", "Retold"]

#: The longest wait for news of a store before a reader looks whether it was closed, in seconds.
_LOOK_AGAIN_S = 1.0
#: The pause after a store could not be reached, in seconds.
_PAUSE_S = 0.2
_ID_LINE = re.compile(rb"^id: [^\n]*\n", re.MULTILINE)


class Retelling(Told):
    """One telling of a stream from a store.

    Args:
        reader: Where it comes from.
        stream: The stream's part of the ids.
        after: The position after which it begins.
        outage_s: How long the store may be out of reach, in seconds.
        joins: Whether it is not known yet if the question is refused; the first event tells.
        decide: Asks the store what there is instead of more events, where that is not known yet.

    Attributes:
        cursor: The id after which it begins.
        generation: What writes the stream, if this telling is the first one.
        closed: Whether it has ended.
    """

    def __init__(
        self,
        reader: ReplayReader,
        stream: str,
        after: int,
        outage_s: float,
        *,
        joins: bool = False,
        decide: Callable[[], Problem | None] | None = None,
    ) -> None:
        self.stream = stream
        self.cursor = f"{stream}-{after}"
        self.generation: Generation | None = None
        # No `threading.Event`: its lock cannot be taken twice, and a garbage collection may close
        # a telling in the very thread that waits here.
        self.closed = False
        self._reader = reader
        self._after = after
        self._outage_s = outage_s
        self._failing_since: float | None = None
        self._joins = joins
        self._decide = decide
        self._batches = self._read()
        self._first: list[Entry] = []

    def wait_started(self) -> None:
        """Wait until it is known whether there is an answer.

        Raises:
            RefusedError: There is none, and somebody else has been told so already.
            ConnectionLost: The store has nothing (any longer), or is out of reach.
        """
        if self.generation is not None:
            self.generation.wait_started(lambda: self.closed)
        elif self._joins:
            self._first = next(self._batches, [])

    def events(self) -> Iterator[Entry]:
        """Yield the entries to the last one, or to `close`.

        Raises:
            RefusedError: There never will be any.
            ConnectionLost: They are not kept any longer, or the store is out of reach.
        """
        for entries in chain([self._first], self._batches):
            for entry in entries:
                yield entry
                if entry.last:
                    return

    def _read(self) -> Iterator[list[Entry]]:
        while not self.closed:
            try:
                if self._decide is not None:
                    problem, self._decide = self._decide(), None
                    if problem is NOTHING_MORE:  # the next time the browser gets its 204
                        yield [Entry(self._after, b"", True)]
                        return
                    if problem is not None:
                        raise RefusedError(problem)
                entries = self._reader.read(_LOOK_AGAIN_S)
            except ReplayUnavailable as error:
                self._bear(error)
                continue
            except Refused as error:
                problem = msgspec.json.decode(error.refusal, type=Problem)
                raise RefusedError(problem) from None
            except Gone:
                raise ConnectionLost("the stream is not kept any longer") from None
            self._failing_since = None
            if entries:
                yield entries

    def _bear(self, error: ReplayUnavailable) -> None:
        """Bear with a store that is out of reach, for a while.

        Raises:
            ConnectionLost: It takes too long.
        """
        self._failing_since = self._failing_since or time.monotonic()
        if time.monotonic() - self._failing_since > self._outage_s:
            raise ConnectionLost(f"the replay store cannot be reached: {error}") from None
        time.sleep(_PAUSE_S)

    def close(self) -> None:
        """End it; the stream goes on as long as it may."""
        self.closed = True
        self._reader.close()


class Retold(Format):
    """What was written already, as it is.

    Args:
        name: The format in which it was written.
        cursor: The id after which it begins.
    """

    def __init__(self, name: str, cursor: str) -> None:
        super().__init__()
        self._plain = find_format(name)
        self.content_type = self._plain.content_type  # type: ignore[misc]
        self.headers = self._plain.headers  # type: ignore[misc]
        self._told_up_to = cursor

    def _cursor(self) -> str:
        return self._told_up_to

    def encode(self, event: Event | Entry) -> bytes:
        """Return the bytes of an entry."""
        return event.data if isinstance(event, Entry) else b""

    def end(self) -> bytes:
        """Return nothing: the last entry was the end."""
        return b""

    def error(self, problem: Problem) -> bytes | None:
        """Return an error of this telling alone: without an id, so that one can go on after it."""
        said = self._plain.error(problem)
        return None if said is None else _ID_LINE.sub(b"", said)
