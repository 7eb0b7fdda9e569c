"""The next provider is asked when one fails, or is late, before its first content.

    TokenStream -> Fallbacks -> Reader <- Channel <- EventSource     openai: fails
                             -> Reader <- Channel <- EventSource     anthropic: answers

Each provider has a stream of its own, with its own thread, retries and `first_token_s`; one is
opened when the one before it has ended and somebody reads on. What they share is the question, the
time of the call, and `total_s`. The clock of the figures stands still from a failure to the moment
when the next provider is asked: that time is the reader's.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from ..completion import Completion, add_usage
from ..errors import ConfigurationError, StreamClosed, StreamError, StreamTimeout
from ..events import CONTENT, Event, FellBack, Usage
from ..metrics import StreamMetrics
from .channel import Channel
from .producer import start_producer
from .reader import Answered, Reader, Timeouts, text_of
from .redaction import SECRET_HEADER
from .source import EventSource, without_frames

if TYPE_CHECKING:
    from .recorder import Recording

__all__ = ["OWN", "Candidate", "Fallbacks", "read_fallback"]

#: What differs from provider to provider; all else is the question, which stays the same.
OWN = ("provider", "model", "api_key", "base_url", "headers", "extra_body", "session")


def read_fallback(fallback: Any, first: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what is said of each provider that may be asked after the first.

    Another model of the first provider is asked at the same address with the same key.

    Args:
        fallback: A provider's name, or a list of names and of dictionaries.
        first: What is said of the first.

    Raises:
        ConfigurationError: It is something else.
    """
    if fallback is None:
        return []
    listed = [fallback] if isinstance(fallback, (str, Mapping)) else fallback
    if not isinstance(listed, Sequence) or isinstance(listed, bytes):
        raise ConfigurationError(
            f"fallback must be a list of providers, not {type(fallback).__name__}"
        )
    entries = [_read_entry(entry) for entry in listed]
    for entry in entries:
        if entry["provider"] == first["provider"] and "base_url" not in entry:
            entry["base_url"] = first["base_url"]
            entry.setdefault("api_key", first["api_key"])
        if entry.setdefault("session", first["session"]) is first["session"]:
            _check_shared(first["session"])
    return entries


def _check_shared(session: Any) -> None:
    """Refuse a session that would show one provider's key to another.

    Raises:
        ConfigurationError: Its headers hold what looks like one.
    """
    for name in getattr(session, "headers", None) or ():
        if SECRET_HEADER.search(name):
            raise ConfigurationError(
                f"the session's header {name} would go to the fallbacks, too: pass it as headers=, "
                'or give each fallback a "session" of its own'
            )


def _read_entry(entry: Any) -> dict[str, Any]:
    if isinstance(entry, str):
        return {"provider": entry}
    if not isinstance(entry, Mapping):
        raise ConfigurationError(
            f"a fallback is a provider's name or a dict, not {type(entry).__name__}"
        )
    if "provider" not in entry:
        raise ConfigurationError('a fallback needs its provider: {"provider": ..., "model": ...}')
    for name in entry:
        if name not in OWN:
            raise ConfigurationError(
                f"a fallback cannot have {name!r} of its own; it can have {', '.join(OWN)}"
            )
    return dict(entry)


class Candidate(Struct, frozen=True):
    """A provider that can be asked; its request is written and checked.

    Attributes:
        provider: The provider's name.
        source: What asks it.
        channel: Where its events go.
        limits: The limits of the waiting.
        recording: Where all of it is written to, if anywhere.
    """

    provider: str
    source: EventSource
    channel: Channel[Event]
    limits: Timeouts
    recording: Recording | None = None

    def open(self, after: Reader | None = None) -> Reader:
        """Send the request, in a thread of its own; return the consumer's end.

        Args:
            after: Whose clocks go on, if another provider was asked before.

        Raises:
            ConfigurationError: The recording cannot be begun.
        """
        if self.recording is not None:  # now, so that no other mistake leaves a file behind
            self.source.record_to(self.recording)
        pace = self.source.pace
        if after is not None:  # whose time goes on, but for that in which nobody was asked
            pace.started = pace.clock() - after.busy_s
        reader = Reader(self.channel, self.provider, self.limits, pace, after)
        tell_ending = self.source.tell_ending
        reader.thread = start_producer(
            self.channel, self.source, f"llm-sse-{self.provider}", after=tell_ending
        )
        reader.joins = tell_ending is None
        return reader


class _Turn(Struct, frozen=True):
    """Who is asked now, and what those before have left; one value, because others look at it.

    Attributes:
        reader: The stream of the provider that is asked.
        usage: What the providers before have counted.
        pace: The figures of their streams.
    """

    reader: Reader
    usage: Usage | None = None
    pace: tuple[StreamMetrics, ...] = ()


class Fallbacks:
    """Several streams of which one is delivered; to a `TokenStream` it is what a `Reader` is.

    Args:
        candidates: Whom to ask, in this order.

    Attributes:
        ended: Whether nothing more will be delivered.
        error: What the last stream ended with, if it was an error.
        claimed: Whether a loop is under way.

    Thread: one reader's; `close` is everybody's.
    """

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self.ended = False
        self.error: BaseException | None = None
        self.claimed = False
        self._left = list(candidates)
        self._failed: list[StreamError] = []
        self._unread: list[Event] = []
        self._turn = _Turn(self._left.pop(0).open())
        self._called = self._turn.reader.started

    @property
    def provider(self) -> str:
        """The name of the provider that is being asked."""
        return self._turn.reader.provider

    @property
    def answered(self) -> Answered | None:
        """How that provider answered, if it has."""
        return self._turn.reader.answered

    def events(self) -> Generator[Event, None, None]:
        """Yield the events of all streams; leaving early closes the one under way.

        Raises:
            StreamError: What the last stream ended with.
        """
        self._refuse_second_reader()
        if self.error is not None:
            raise self.error.with_traceback(None)
        self.claimed = not self.ended  # else the reader below says that it is over
        try:
            while True:
                unread, self._unread = self._unread, []
                yield from unread
                if (failure := (yield from self._one())) is None:
                    return
                self._advance(failure)
                if self.ended:  # meanwhile; who closed it did not know this stream
                    return
        finally:
            self.claimed = False
            self.close()

    def _one(self) -> Generator[Event, None, StreamError | None]:
        """Yield the events of one stream.

        Returns:
            What it ended with, if the next provider shall be asked.
        """
        begun = False
        with closing(self._turn.reader.events()) as events:
            while True:
                try:
                    event = next(events)
                except StopIteration:
                    return None
                except StreamClosed:
                    if self.claimed and self.ended:
                        return None  # before its first event could be read
                    raise
                except StreamError as error:
                    if begun or not self._goes_on_after(error):
                        self._end_with(error)
                        raise
                    return error
                except Exception as error:
                    self.error = error
                    raise
                begun = begun or type(event) in CONTENT
                yield event

    def tokens(self) -> Generator[str, None, None]:
        """Yield the text of the text deltas to the end; leaving early closes the stream.

        Raises:
            StreamError: What the last stream ended with.
        """
        return text_of(self.events())

    def wait_started(self, timeout_s: float | None, retry_within_s: float | None = None) -> bool:
        """Wait until a provider has accepted the request, or the last one has failed.

        Args:
            timeout_s: How long, in seconds, for all of them.
            retry_within_s: For how long a pause before a retry may last, in seconds from now.

        Returns:
            Whether that came in time.

        Raises:
            StreamError: What the last stream ended with instead.
        """
        if self.error is not None:
            raise self.error.with_traceback(None)
        if self.claimed and self.answered is not None:
            return True
        self._refuse_second_reader()
        begun = time.monotonic()

        def left_of(limit_s: float | None) -> float | None:
            return None if limit_s is None else max(0.0, begun + limit_s - time.monotonic())

        while True:
            try:
                return self._turn.reader.wait_started(left_of(timeout_s), left_of(retry_within_s))
            except StreamClosed:
                raise
            except StreamError as error:
                if not self._goes_on_after(error):
                    self._end_with(error)
                    raise
                self._advance(error)

    def completion(self) -> Completion:
        """Return what has been delivered so far."""
        turn = self._turn
        answer = turn.reader.completion()
        usage = add_usage(turn.usage, answer.usage)
        return msgspec.structs.replace(answer, usage=usage)

    def metrics(self) -> StreamMetrics:
        """Return the figures so far, counted from the call on; from any thread.

        Attempts, bytes and all waiting, the producers' and the reader's, are those of all streams;
        what else is counted is of the one that is delivered. But for `total_s`, the time between a
        failure and the read that asks the next provider is in none of them.
        """
        turn = self._turn
        latest = turn.reader.metrics()
        all_ = [*turn.pace, latest]
        return msgspec.structs.replace(
            latest,
            total_s=latest.total_s + turn.reader.started - self._called,
            attempts=sum(each.attempts for each in all_),
            body_bytes=sum(each.body_bytes for each in all_),
            producer_waited_s=sum(each.producer_waited_s for each in all_),
        )

    def close(self) -> None:
        """End the stream now, from any thread; nobody else is asked."""
        self.ended = True
        self._turn.reader.close()

    def _refuse_second_reader(self) -> None:
        if self.claimed:
            raise StreamClosed(
                "this stream is being read already; a stream has one reader",
                provider=self.provider,
            )

    def _goes_on_after(self, error: StreamError) -> bool:
        """Whether the next provider shall be asked: there is one, and time is left for it."""
        out_of_time = isinstance(error, StreamTimeout) and error.phase == "total"
        return bool(self._left) and not out_of_time and not self.ended

    def _advance(self, error: StreamError) -> None:
        """Ask the next provider, and note that in the events."""
        turn = self._turn
        failed = turn.reader
        self._failed.append(without_frames(error))
        self._unread += failed.unread()
        candidate = self._left.pop(0)
        self._unread.append(FellBack(failed.provider, candidate.provider, str(error)))
        reader = candidate.open(after=failed)
        usage = add_usage(turn.usage, failed.completion().usage)
        self._turn = _Turn(reader, usage, (*turn.pace, failed.metrics()))
        if self.ended:
            reader.close()

    def _end_with(self, error: StreamError) -> None:
        """Let the last error tell of those before it."""
        if self._failed:
            before = "; ".join(map(str, self._failed))
            error.args = (f"{error}; before that, {before}",)
            error.earlier = tuple(self._failed)
            error.completion = self.completion()
        self.error = error
        self.ended = True
