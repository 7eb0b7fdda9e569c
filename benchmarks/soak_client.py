"""Read one stream of the soak, in the manner that its case says, and note what was seen."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator

from llm_sse import TokenStream, stream_sync
from llm_sse.errors import StreamError, StreamTimeout
from llm_sse.events import CONTENT, Event, Finish, Resumed, Retrying, StreamStart, TextDelta

from .soak_check import Result
from .soak_plan import Case

__all__ = ["Listener", "disorder"]

#: How long a slow reader takes over a delta, and over how many it does.
_SLOW_S = 0.01
_SLOW_DELTAS = 100
_PAUSE_S = 0.7


class _Left(Exception):
    """What a caller's own code may raise inside the loop."""


class Listener:
    """One of the soak's readers: one stream after the other, and where it is with the present one.

    Attributes:
        case: The stream that is being read, if any.
        stream: The stream, as long as somebody else holds it.

    Thread: one reads; the watchdog looks on.
    """

    def __init__(self) -> None:
        self.case: Case | None = None
        self.stream: Callable[[], TokenStream | None] = lambda: None
        self._begun = 0.0
        self._slept_s = 0.0

    @property
    def took_s(self) -> float:
        """How long the present stream has taken, without the reader's own pauses."""
        return time.monotonic() - self._begun - self._slept_s

    def listen(self, case: Case, base_url: str) -> Result:
        """Ask, and read the answer."""
        self._begun, self._slept_s, self.case = time.monotonic(), 0.0, case
        result = Result()
        try:
            self._listen(case, base_url, result)
        except Exception as error:  # none of the library's: the check says that it is wrong
            result.ending = type(error).__name__
            result.message = str(error)
        result.took_s = self.took_s
        self.case = None
        return result

    def _listen(self, case: Case, base_url: str, result: Result) -> None:
        stream = stream_sync(
            case.prompt,
            provider=case.provider,
            model="soak",
            api_key="soak-0123456789",
            base_url=base_url,
            buffer_size=case.buffer_size,
            timeouts=case.timeouts,
            retry=case.retry,
        )
        self.stream = weakref.ref(stream)
        closer = threading.Timer(case.close_after_s, stream.close)
        if case.manner == "close":
            closer.start()
        try:
            left = self._read(case, stream, result)
        except StreamError as error:
            result.ending = _name(error)
            result.message = str(error)
            if error.completion is not None and error.completion != stream.completion:
                result.complaints.append(f"wrong completion: not the stream's in {error!r}")
        else:
            if left and case.manner == "drop":
                result.ending = "left"
                return  # to look at the completion would be to hold the stream
            reason = stream.completion.finish_reason
            result.ending = "left" if left else "closed" if reason is None else "finish"
        finally:
            if case.manner == "close":
                closer.cancel()
                closer.join()
        completion = stream.completion
        result.text, result.reasoning = completion.text, completion.reasoning
        result.calls, result.reason = completion.tool_calls, completion.finish_reason
        if case.reader != "text" and stream.metrics.deltas != len(result.heard):
            result.complaints.append(f"wrong metrics: {stream.metrics.deltas} deltas")

    def _read(self, case: Case, stream: TokenStream, result: Result) -> bool:
        """Read to the end, or leave; return whether it was left."""
        heard = result.heard
        if case.waits_for_start:
            stream.wait_started(1.0)
        if case.reader == "text":
            heard.append(stream.text())
            return False
        if case.manner == "drop" or case.reader == "next":
            few = case.leave_after if case.manner == "drop" else 3
            while len(heard) < few:
                token = next(stream, None)
                if token is None:
                    return False
                heard.append(token)
            if case.manner == "drop":
                return True
        try:
            return self._loop(case, stream, result)
        except _Left:
            return True

    def _loop(self, case: Case, stream: TokenStream, result: Result) -> bool:
        heard = result.heard
        for piece in _texts(stream, result) if case.reader == "events" else stream:
            heard.append(piece)
            if case.manner == "slow" and len(heard) <= _SLOW_DELTAS:
                self._sleep(_SLOW_S)
            if case.manner == "pause" and len(heard) == case.leave_after:
                self._sleep(_PAUSE_S)
            if case.manner == "break" and len(heard) >= case.leave_after:
                return True
            if case.manner == "raise" and len(heard) >= case.leave_after:
                raise _Left
        return False

    def _sleep(self, seconds: float) -> None:
        begun = time.monotonic()
        time.sleep(seconds)
        self._slept_s += time.monotonic() - begun


def _texts(stream: TokenStream, result: Result) -> Iterator[str]:
    """Yield the text of the events; complain about events in an order that they cannot have."""
    events: list[Event] = []
    try:
        for event in stream.events():
            events.append(event)
            if isinstance(event, TextDelta):
                yield event.text
    finally:
        if complaint := disorder(events):
            result.complaints.append(f"disorder: {complaint}")


def disorder(events: list[Event]) -> str | None:
    """Say what is wrong with the order of a stream's events, or of its first ones; or `None`."""
    started = finished = False
    chars = 0
    for event in events:
        if finished:
            return f"{event} after the end"
        if isinstance(event, StreamStart):
            if started:
                return f"a second beginning: {event}"
            started = True
        elif isinstance(event, (Retrying, Resumed)):
            started = False
            if isinstance(event, Resumed) and event.offset_chars != chars:
                return f"{event} after {chars} characters"
        elif not started and type(event) in (*CONTENT, Finish):
            return f"{event} before the beginning"
        if isinstance(event, TextDelta):
            chars += len(event.text)
        finished = isinstance(event, Finish)
    return None


def _name(error: StreamError) -> str:
    name = type(error).__name__
    return f"{name}/{error.phase}" if isinstance(error, StreamTimeout) else name
