"""The answers of the reference application: each has one place, and one reader at a time.

An answer outlives its connection, so that a browser may come back for it. Its place (`Slots`) is
taken when it begins, and given back when it is neither written nor read any longer: who comes back
for an answer that runs, or that he reads already, takes no second place.

The newest reader of an answer counts. A browser comes back sooner than the server notices that it
had gone; and as there are no more readers than places, there are no more busy threads either.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence

from ..sync.stream import TokenStream
from .problem import Problem, ReadElsewhereError, RefusedError
from .replay import Entry, ReplayReader, ReplayStore, ReplayWriter, Stopped, StreamState
from .slots import Slot, Slots

__all__ = ["Answers", "Visit"]


class Answers:
    """What is being written or read here.

    Args:
        store: Where answers are kept for those who come back.
        slots: The places.

    Thread: everybody's.
    """

    def __init__(self, store: ReplayStore, slots: Slots) -> None:
        self.store = store
        self._slots = slots
        # One lock for both: a garbage collection may come in with either of two.
        self._lock = slots.lock
        self._answers: dict[str, _Answer] = {}

    def visit(self, client: str, name: str | None = None) -> Visit:
        """Return the store as one request of a client sees it.

        Args:
            client: Who asks.
            name: The name by which the answer can be stopped.
        """
        return Visit(self, client, name)

    def enter(self, stream: str, client: str, name: str | None) -> _Answer:
        """Count one who writes or reads an answer; the first one takes its place.

        Raises:
            RefusedError: There is none.
        """
        with self._lock:
            answer = self._answers.get(stream)
            if answer is None:
                slot = self._slots.take(client, name)
                if isinstance(slot, Problem):
                    raise RefusedError(slot)
                answer = self._answers[stream] = _Answer(stream, slot)
            answer.users += 1
            return answer

    def leave(self, answer: _Answer) -> None:
        """Count one less; the last one gives the place back."""
        with self._lock:
            answer.users -= 1
            if not answer.users:
                del self._answers[answer.stream]
                answer.slot.release()

    def hand_over(self, answer: _Answer, reader: _Reader) -> None:
        """Make a reader the one who counts, and end the one before him."""
        with self._lock:
            before = None if answer.reader is None else answer.reader()
            answer.reader = weakref.ref(reader)
        if before is not None:
            before.supersede()


class _Answer:
    """One answer; the lock of `Answers` guards it."""

    def __init__(self, stream: str, slot: Slot) -> None:
        self.stream = stream
        self.slot = slot
        self.users = 0
        self.reader: weakref.ref[_Reader] | None = None


class Visit(ReplayStore):
    """The store as one request sees it: what begins and what is read is counted."""

    def __init__(self, answers: Answers, client: str, name: str | None) -> None:
        self.outage_s = answers.store.outage_s
        self.may_block = answers.store.may_block
        self._answers = answers
        self._client = client
        self._name = name
        self._slot: Slot | None = None

    def hold(self, stream: TokenStream) -> None:
        """Keep the stream that was opened for the answer that has begun."""
        assert self._slot is not None
        self._slot.hold(stream)

    def begin(self, stream: str) -> ReplayWriter | None:
        """Begin an answer in a place of its own, unless it was begun already.

        Raises:
            RefusedError: There is no place.
        """
        answer, leave = self._enter(stream)
        try:
            writer = self._answers.store.begin(stream)
        except BaseException:
            leave()
            raise
        if writer is None:
            leave()
            return None
        self._slot = answer.slot
        return _Writer(writer, answer.slot, leave)

    def state(self, stream: str) -> StreamState | None:
        """Return what there is of an answer."""
        return self._answers.store.state(stream)

    def named(self, name: str) -> str | None:
        """Return what a name stands for."""
        return self._answers.store.named(name)

    def is_recovering(self) -> bool:
        """Whether an answer that is unknown now may yet come."""
        return self._answers.store.is_recovering()

    def reader(self, stream: str, after: int, broken: Callable[[int], bytes]) -> ReplayReader:
        """Follow an answer, instead of whoever did.

        Raises:
            RefusedError: There is no place.
        """
        answer, leave = self._enter(stream)
        try:
            reader = _Reader(self._answers.store.reader(stream, after, broken), leave)
        except BaseException:
            leave()
            raise
        self._answers.hand_over(answer, reader)
        return reader

    def ending(self, stream: str) -> bytes | None:
        """Return the last event of an answer that has ended."""
        return self._answers.store.ending(stream)

    def stop(self, stream: str) -> None:
        """Have an answer end, wherever it is written."""
        self._answers.store.stop(stream)

    def _enter(self, stream: str) -> tuple[_Answer, Callable[[], None]]:
        """Enter an answer; return it, and what leaves it, once, however often it is called."""
        answer = self._answers.enter(stream, self._client, self._name)
        left = threading.Lock()  # taken once, and never given back

        def leave() -> None:
            if left.acquire(blocking=False):
                self._answers.leave(answer)

        return answer, leave


class _Writer(ReplayWriter):
    """A writer who leaves the answer with its end, and hears of it when it is stopped here."""

    def __init__(self, writer: ReplayWriter, slot: Slot, leave: Callable[[], None]) -> None:
        self.keep_every_s = writer.keep_every_s
        self._writer = writer
        self._slot = slot
        self._leave = leave

    def append(self, events: Sequence[bytes], *, last: bool = False) -> None:
        if last:  # before its reader, who may ask the next question at once, can see the end
            self._leave()
        self._writer.append(events, last=last)

    def keep(self) -> bool:
        if self._slot.stopped:
            raise Stopped
        return self._writer.keep()

    def take_name(self, name: str, id_: str, instead_of: str | None) -> str:
        return self._writer.take_name(name, id_, instead_of)

    def discard(self) -> None:
        self._writer.discard()

    def refuse(self, refusal: bytes) -> None:
        self._writer.refuse(refusal)

    def close(self) -> None:
        try:
            self._writer.close()
        finally:
            self._leave()


class _Reader(ReplayReader):
    """A reader who ends when somebody else reads the answer."""

    def __init__(self, reader: ReplayReader, leave: Callable[[], None]) -> None:
        self._reader = reader
        self._leave = leave
        self._superseded = False

    def supersede(self) -> None:
        """End what is being read."""
        self._superseded = True
        self._reader.close()  # wakes who waits there

    def read(self, timeout_s: float) -> list[Entry]:
        entries = [] if self._superseded else self._reader.read(timeout_s)
        if self._superseded:
            raise ReadElsewhereError("the answer is being read elsewhere")
        return entries

    def close(self) -> None:
        self._reader.close()
        self._leave()
