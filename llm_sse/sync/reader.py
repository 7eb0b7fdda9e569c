"""The consumer's half of a stream: takes batches, runs the clocks, folds the answer, ends once."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Generator
from contextlib import closing, suppress
from typing import NoReturn, Protocol

from msgspec import Struct

from ..completion import Accumulator, Completion
from ..errors import ConfigurationError, StreamClosed, StreamError, StreamTimeout, TimeoutPhase
from ..events import CONTENT, Event, Finish, Resumed, TextDelta
from ..metrics import MetricsRecorder, StreamMetrics
from ..providers.base import end_of_body
from .channel import Channel, ChannelTimeout

__all__ = ["Answered", "Reader", "Reading", "Timeouts", "text_of"]

#: How long to wait for a thread that has nothing left to do, in seconds.
_JOIN_S = 1.0
#: How long a producer may take to read what follows the provider's last event, in seconds.
_SETTLE_S = 0.5


class Timeouts(Struct, frozen=True, kw_only=True):
    """The clocks, all in seconds; `None` switches one off.

    But for `connect_s` they count only while the caller waits for the provider: a caller who takes
    long over a token trips none of them.

    Attributes:
        connect_s: To make a connection, its TLS handshake included; for each attempt. To look a
            name up is the system's affair, and takes as long as that takes.
        first_token_s: From the question to the first content event, over all attempts; with
            `fallback`, for each provider in turn.
        idle_s: Between two content events. Pings and comments are no content.
        total_s: All waiting together.
    """

    connect_s: float = 10.0
    first_token_s: float | None = 300.0
    idle_s: float | None = 60.0
    total_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("connect_s", "first_token_s", "idle_s", "total_s"):
            value = getattr(self, name)
            if value is None and name != "connect_s":
                continue
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not (number and 0 < value <= threading.TIMEOUT_MAX):
                raise ConfigurationError(
                    f"Timeouts: {name} must be a number of seconds above 0, not {value!r}"
                    + ("" if name == "connect_s" else "; None means no limit")
                )


class Answered(Struct, frozen=True):
    """How the provider answered a request.

    Attributes:
        status: The HTTP status.
        request_id: The provider's identifier of the request.
        headers: The response's headers, without secrets; the names are lower-case.
    """

    status: int
    request_id: str | None
    headers: dict[str, str]


class Reading(Protocol):
    """What a `TokenStream` is the face of: a `Reader`, or something made of several.

    Attributes:
        ended: Whether nothing more will be delivered.
        error: What it ended with, if it was an error.
        claimed: Whether a loop is under way.
    """

    ended: bool
    error: BaseException | None
    claimed: bool

    @property
    def provider(self) -> str:
        """The name of the provider that is being asked."""

    @property
    def answered(self) -> Answered | None:
        """How that provider answered, if it has."""

    def events(self) -> Generator[Event, None, None]:
        """Yield the events to the end; leaving early closes everything."""

    def tokens(self) -> Generator[str, None, None]:
        """Yield the text of the text deltas to the end; leaving early closes everything."""

    def wait_started(self, timeout_s: float | None, retry_within_s: float | None = None) -> bool:
        """Wait until the provider's status is known; return whether that came in time."""

    def completion(self) -> Completion:
        """Return what has been delivered so far."""

    def metrics(self) -> StreamMetrics:
        """Return the figures so far."""

    def close(self) -> None:
        """End it now, from any thread."""


def text_of(events: Generator[Event, None, None]) -> Generator[str, None, None]:
    """Yield the text of the text deltas; leaving early closes the events."""
    with closing(events):
        for event in events:
            if type(event) is TextDelta:
                yield event.text


class Reader:
    """Read a channel of events, by one consumer, to one ending.

    The producer's thread knows the channel and not the reader: when the last reference to the
    reader is gone, so is the stream.

    Args:
        channel: The consumer's end of it.
        provider: The provider's name.
        timeouts: The limits of the waiting.
        pace: What the producer notes of the time.
        after: Whose place it takes: that one's clocks go on, but for `first_token_s`.

    Attributes:
        provider: The provider's name.
        ended: Whether nothing more will be delivered.
        error: What the stream ended with, if it was an error.
        claimed: Whether a loop is under way.
        thread: The producer's thread, once it runs.
        joins: Whether that thread has nothing to do after its ending, and may be waited for.

    Thread: one consumer's; `close` is everybody's.
    """

    def __init__(
        self,
        channel: Channel[Event],
        provider: str,
        timeouts: Timeouts,
        pace: MetricsRecorder,
        after: Reader | None = None,
    ) -> None:
        self.provider = provider
        self.ended = False
        self.error: BaseException | None = None
        self.thread: threading.Thread | None = None
        self.joins = True
        self.channel = channel
        self._timeouts = timeouts
        self._answer = Accumulator(provider)
        self._pace = pace
        self._ended_at: float | None = None
        self.claimed = False
        self._stash: list[Event] = []
        #: How long was waited, and since when is: one value, because other threads look at it.
        self._waiting: tuple[float, float | None] = (
            0.0 if after is None else after._waiting[0],
            None,
        )
        self._phase_waited_s = 0.0
        self._content_seen = False
        self._finished = False
        self._finalizer = weakref.finalize(self, channel.close)

    def events(self) -> Generator[Event, None, None]:
        """Yield the events to the end; leaving early closes the stream.

        Raises:
            StreamError: The one error that ended the stream.
        """
        self._claim()
        add_text = self._answer.text_deltas.append
        try:
            while (batch := self._next_batch()) is not None:
                for event in batch:
                    if self.ended:
                        return
                    if type(event) is TextDelta:  # nearly every event is one
                        add_text(event.text)
                        self._content_seen = True
                        self._phase_waited_s = 0.0
                    else:
                        self._note(event)
                    yield event
        finally:
            self.claimed = False
            try:
                self._settle()
            finally:
                self.close()

    def tokens(self) -> Generator[str, None, None]:
        """Yield the text of the text deltas to the end; leaving early closes the stream.

        Raises:
            StreamError: The one error that ended the stream.
        """
        return text_of(self.events())

    def wait_started(self, timeout_s: float | None, retry_within_s: float | None = None) -> bool:
        """Wait until the provider's status is known, or the stream has ended.

        Args:
            timeout_s: How long, in seconds.
            retry_within_s: For how long a pause before a retry may last, in seconds from now.

        Returns:
            Whether that came in time.

        Raises:
            StreamError: What the stream ended with instead; its limits count here, too.
        """
        if self.error is not None:
            raise self.error.with_traceback(None)
        if self.ended and not self._finished:
            raise self._closed()
        if self.answered is not None:
            return True
        self._refuse_second_reader()
        self.claimed = True
        if retry_within_s is not None:
            self.channel.want_start_by(time.monotonic() + retry_within_s)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            while self.channel.start is None and not self.ended:
                left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
                try:
                    batch = self._take(left_s)
                except ChannelTimeout:
                    return False
                self._stash += batch or ()
        finally:
            self.claimed = False
        if self.channel.start is None:  # closed meanwhile
            raise self._closed()
        return True

    @property
    def answered(self) -> Answered | None:
        """How the provider answered, if it has."""
        start: Answered | None = self.channel.start
        return start

    @property
    def started(self) -> float:
        """When the stream began, by its clock."""
        return self._pace.started

    @property
    def busy_s(self) -> float:
        """How long an ended stream took, in seconds, without what its reader let it wait."""
        ends = (self._ended_at, self.channel.ended_at)
        ended = min((end for end in ends if end is not None), default=self.started)
        return max(0.0, ended - self.started - self.channel.producer_waited_s)

    def unread(self) -> list[Event]:
        """Return what `wait_started` took in and no loop has read."""
        unread, self._stash = self._stash, []
        return unread

    def completion(self) -> Completion:
        """Return what has been delivered so far."""
        return self._answer.completion()

    def metrics(self) -> StreamMetrics:
        """Return the figures so far; from any thread, also while the reader waits."""
        waited_s, since = self._waiting
        if since is not None:
            waited_s += time.monotonic() - since
        return self._pace.metrics(
            deltas=len(self._answer.text_deltas),
            usage=self._answer.usage,
            ended=self._ended_at,
            producer_waited_s=self.channel.producer_waited_s,
            consumer_waited_s=waited_s,
            buffer_high_water=self.channel.high_water,
        )

    def close(self) -> None:
        """End the stream now, from any thread: the producer is woken and ends."""
        self._end()
        self.channel.close()

    def _claim(self) -> None:
        self._refuse_second_reader()
        if self.error is not None:
            raise self.error.with_traceback(None)
        if self.ended:
            raise self._closed()
        self.claimed = True

    def _closed(self) -> StreamClosed:
        return StreamClosed(
            "this stream has been read to its end or closed; what was said is in .completion",
            provider=self.provider,
        )

    def _refuse_second_reader(self) -> None:
        if self.claimed:
            raise StreamClosed(
                "this stream is being read already; a stream has one reader",
                provider=self.provider,
            )

    def _next_batch(self) -> list[Event] | None:
        """Return what `wait_started` had to take in, then what comes."""
        if self._stash:
            return self.unread()
        return None if self._finished else self._take(None)

    def _take(self, timeout_s: float | None) -> list[Event] | None:
        """Take from the channel, within the limits.

        Raises:
            ChannelTimeout: Nothing came within `timeout_s`, but no limit was reached either.
            StreamError: The stream's ending.
        """
        limit_s, phase = self._limit()
        wait_s = limit_s
        if timeout_s is not None and (limit_s is None or timeout_s < limit_s):
            wait_s = timeout_s
        try:
            batch = self._get(wait_s)
        except ChannelTimeout:
            if phase is None or (
                timeout_s is not None and limit_s is not None and timeout_s < limit_s
            ):
                raise
            self._fail(self._time_out(phase))
        except BaseException as error:
            if error is not self.channel.error:
                raise  # not the stream's: a signal's, or another reader's
            self._fail(error)
        if batch is None:
            if not self.channel.closed:
                self._fail(end_of_body(self.provider))
            self._end()
        return batch

    def _limit(self) -> tuple[float | None, TimeoutPhase | None]:
        """Return how long the next wait may be, and which clock says so."""
        limits = self._timeouts
        phase: TimeoutPhase | None = "idle" if self._content_seen else "first_token"
        left_s = limits.idle_s if self._content_seen else limits.first_token_s
        if left_s is None:
            phase = None
        else:
            left_s = max(0.0, left_s - self._phase_waited_s)
        if limits.total_s is not None:
            total_left_s = max(0.0, limits.total_s - self._waiting[0])
            if left_s is None or total_left_s < left_s:
                return total_left_s, "total"
        return left_s, phase

    def _get(self, wait_s: float | None) -> list[Event] | None:
        """Take what is there; where nothing is, wait, and count that.

        Raises:
            ChannelTimeout: Nothing came within `wait_s`.
        """
        if self.channel.has_news():
            return self.channel.get()
        waited_s, begun = self._waiting[0], time.monotonic()
        self._waiting = (waited_s, begun)
        try:
            return self.channel.get(wait_s)
        finally:
            more_s = time.monotonic() - begun
            self._waiting = (waited_s + more_s, None)
            self._phase_waited_s += more_s

    def _time_out(self, phase: TimeoutPhase) -> StreamTimeout:
        self.channel.timed_out = True
        self.channel.close()
        limit_s: float = getattr(self._timeouts, f"{phase}_s")
        what = {
            "first_token": "no token came",
            "idle": "nothing more came",
            "total": "the answer was not complete",
        }[phase]
        answered = self.answered
        return StreamTimeout(
            f"{self.provider}: {what} within {limit_s} s (timeouts.{phase}_s)",
            phase=phase,
            limit_s=limit_s,
            provider=self.provider,
            request_id=answered.request_id if answered is not None else None,
        )

    def _fail(self, error: BaseException) -> NoReturn:
        """Give the error what had arrived, remember it, raise it.

        From here on the error's traceback holds this reader, and the channel holds the error: the
        finalizer, which is never collected, must not hold the channel any longer.
        """
        self._finalizer.detach()
        if isinstance(error, StreamError):
            if error.completion is not None:
                self._answer.raw_finish_reason = error.completion.raw_finish_reason
            error.completion = self._answer.completion()
        self.error = error
        self._end()
        self._join()
        raise error

    def _end(self) -> None:
        """Deliver nothing more; the stream's time is over, if it was not before."""
        self.ended = True
        if self._ended_at is None:
            self._ended_at = self._pace.clock()

    def _settle(self) -> None:
        """After `Finish`, let the producer give its connection back instead of ending it.

        Nothing that counts can follow: a server that goes on for longer loses the connection.
        """
        if not self._finished or self.ended:
            return
        deadline = time.monotonic() + _SETTLE_S
        with suppress(ChannelTimeout, StreamError):
            while self.channel.get(max(0.0, deadline - time.monotonic())) is not None:
                pass
            self._join()

    def _join(self) -> None:
        """Wait for the producer's thread, if it has nothing left to do but to end.

        After `close()` it may still be in the middle of something that cannot be interrupted.
        """
        if self.thread is not None and self.joins and not self.channel.closed:
            self.thread.join(_JOIN_S)

    def _note(self, event: Event) -> None:
        self._answer.add(event)
        kind = type(event)
        if kind in CONTENT:
            self._content_seen = True
            self._phase_waited_s = 0.0
        elif kind is Finish:
            self._finished = True
        elif kind is Resumed:
            self._content_seen = False
            self._phase_waited_s = 0.0
