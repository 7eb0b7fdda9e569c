"""One question, its attempts and its continuations, as one iterator of events.

The way of a byte: `transport.send` -> chunk -> `SSEDecoder` -> sse -> `Decoder` -> event.
Everything here runs in the producer thread; it never touches the stream that the caller holds.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from ..chat import ChatRequest, HTTPRequest
from ..completion import Accumulator, Completion
from ..errors import APIError, ConnectionLost, ProtocolError, StreamError
from ..events import CONTENT, Event, Finish, Resumed, Retrying
from ..metrics import MetricsRecorder
from ..providers.base import Decoder, Frames, Provider
from ..providers.lenient import map_strings
from ..providers.refusals import request_id
from ..providers.whole import WholeAnswer
from ..rate_limit import read_rate_limit
from ..retry import RetryPolicy
from ..seam import join
from .channel import Channel, ChannelClosed
from .observer import Observation, ObservedStream
from .reader import Answered, Timeouts
from .redaction import Redaction, secrets_of
from .transport import ByteStream, send

if TYPE_CHECKING:
    import requests

    from .recorder import Recorder, Recording

__all__ = ["EventSource", "without_frames"]

_MAX_ERROR_BODY_BYTES = 1024 * 1024
_MAX_MESSAGE_CHARS = 4000
_DRAIN_BYTES = 64 * 1024
_DRAIN_S = 0.25
_GRACE_S = 0.5
#: How long what follows a complete answer is waited for, in seconds: the usage, `[DONE]`, or just
#: the body's end. A server that then has no event for so long has nothing to add.
_REST_S = 2.0


class _Attempt(Struct, frozen=True):
    """One request, and who understands its answer.

    Attributes:
        request: What to send.
        decoder: Knows what the answer means.
        taken_up: Whether the very same answer goes on.
        repeats: Whether the answer may begin with what was said already.
    """

    request: HTTPRequest
    decoder: Decoder
    taken_up: bool = False
    repeats: bool = False


class _NotRecorded:
    """What stands in place of a recorder where nothing is recorded."""

    tap = None

    def begins(self, request: HTTPRequest) -> None:
        """Let a request pass."""

    def ended(self, error: Exception | None = None) -> None:
        """Let an ending pass."""

    def watched(self, events: Iterator[Event]) -> Iterator[Event]:
        """Return the events as they are."""
        return events


class EventSource:
    """Ask a provider, and go on asking as the policy says, until there is one ending.

    Args:
        provider: Whom to ask.
        chat: What to ask.
        key: The provider's key.
        base_url: Where to.
        policy: What to do about failures.
        timeouts: The caller's limits; the reader keeps them, but for the connection's.
        headers: More headers, the caller's own; they win.
        session: The caller's own `requests.Session`, or `None`.
        channel: The producer's end of it: where to wait, and how to be interrupted.
        observation: Who is told of it, if anybody.
        draw: Draws a number in [0, 1) for the back-off's jitter.

    Attributes:
        pace: Notes when what comes; it begins when this is made, by the caller.

    Raises:
        ConfigurationError: The provider cannot be asked that.

    Thread: made by the caller's, iterated by the producer's.
    """

    def __init__(
        self,
        provider: Provider,
        chat: ChatRequest,
        key: str,
        base_url: str,
        *,
        policy: RetryPolicy,
        timeouts: Timeouts,
        headers: Mapping[str, str],
        session: requests.Session | None,
        channel: Channel[Event],
        observation: Observation | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.pace = MetricsRecorder(time.monotonic)
        self._provider = provider
        self._chat = chat
        self._key = key
        self._base_url = base_url
        self._policy = policy
        self._timeouts = timeouts
        self._headers = headers
        self._session = session
        self._channel = channel
        self._observed: ObservedStream | None = None
        if observation is not None:
            self._observed = ObservedStream(observation, channel, self.pace)
        self._draw = draw
        own = {} if session is None else {name: str(v) for name, v in session.headers.items()}
        self._recorder: Recorder | _NotRecorded = _NotRecorded()
        self._request = self._written(chat)
        self._secrets = secrets_of(key, {**own, **headers}, self._request)
        self._redaction = Redaction(self._secrets)

    def record_to(self, recording: Recording) -> None:
        """Write everything that comes to a file, which is made now.

        Raises:
            ConfigurationError: It cannot be.
        """
        row = self._provider
        whose = (row.name, row.wire_format)
        recording.open(*whose)
        from .recorder import Recorder  # noqa: PLC0415  # few need it

        self._recorder = Recorder(recording, whose, self._secrets, self._chat.stream, self._channel)

    def __iter__(self) -> Iterator[Event]:
        """Yield the events of all attempts; raise the one error that ends them, if any."""
        events = self._attempts()
        if self._observed is not None:
            events = self._observed.events(events)
        return self._recorder.watched(events)

    @property
    def tell_ending(self) -> Callable[[], None] | None:
        """What tells the ending to whoever observes; `None` where nobody does."""
        return None if self._observed is None else self._observed.tell_ending

    def _attempts(self) -> Generator[Event, None, None]:
        said = Accumulator(self._provider.name)
        attempt = _Attempt(self._request, self._provider.decoder())
        retries = resumes = 0
        note = self.pace.content
        while True:
            begun = False
            try:
                with closing(self._events(attempt)) as events:
                    fresh = join("".join(said.text_deltas), events) if attempt.repeats else events
                    for event in fresh:
                        kind = type(event)
                        if kind in CONTENT:
                            begun = True
                            note(kind)
                        else:
                            self.pace.event()
                        if self._policy.resume:
                            said.add(event)
                        yield event
                self._recorder.ended()
                return
            except StreamError as error:
                self._describe(error)
                self._recorder.ended(error)
                if begun:
                    retries = 0
                    resumes += 1
                    delay_s = self._policy.resume_delay_s(resumes, error, self._draw())
                    if delay_s is None:
                        raise
                    continuation = self._continuation(attempt, said)
                    if continuation is None:
                        raise
                    attempt = continuation
                    yield Resumed(resumes, sum(map(len, said.text_deltas)), str(error))
                    self._channel.pause(delay_s)
                    continue
                retries += 1
                delay_s = self._policy.delay_s(retries, error, self._draw())
                if delay_s is None:
                    raise
                attempt = self._again(attempt)
                yield Retrying(retries, delay_s, str(error))
                self._channel.pause(delay_s)

    def _again(self, failed: _Attempt) -> _Attempt:
        """Ask the same thing again, for nothing of the answer has been seen.

        Where the provider has given the answer a cursor already, that answer is waited for.
        """
        if taken_up := self._taken_up(failed):
            return taken_up
        if failed.taken_up:
            return failed
        return msgspec.structs.replace(failed, decoder=self._provider.decoder())

    def _continuation(self, broken: _Attempt, said: Accumulator) -> _Attempt | None:
        """Say how a cut answer can go on: at the provider's own cursor, or asked for anew."""
        if taken_up := self._taken_up(broken):
            return taken_up
        rest = self._provider.resume(self._chat, said.completion())
        if rest is None:
            return None
        return _Attempt(self._written(rest), self._provider.decoder(), repeats=True)

    def _taken_up(self, broken: _Attempt) -> _Attempt | None:
        found = self._provider.take_up(broken.decoder, self._key, self._base_url, broken.request)
        if found is None:
            return None
        request, decoder = found
        return _Attempt(self._with_headers(request), decoder, taken_up=True)

    def _written(self, chat: ChatRequest) -> HTTPRequest:
        return self._with_headers(self._provider.request(chat, self._key, self._base_url))

    def _with_headers(self, request: HTTPRequest) -> HTTPRequest:
        return msgspec.structs.replace(request, headers={**request.headers, **self._headers})

    def _read_limit_s(self) -> float | None:
        """Return when a thread that nobody can interrupt shall give up waiting for bytes.

        That is after the reader has given up: it is the one who knows which limit it was.
        """
        limits = self._timeouts
        if limits.first_token_s is None or limits.idle_s is None:
            return None
        return max(limits.first_token_s, limits.idle_s) + _GRACE_S

    def _sent(self, request: HTTPRequest) -> ByteStream:
        """Send a request, in the context of whoever observes, and wait for the headers."""
        channel = self._channel

        def ask() -> ByteStream:
            return send(
                request,
                session=self._session,
                connect_s=self._timeouts.connect_s,
                read_s=self._read_limit_s(),
                interrupt_with=channel.interrupt_with,
                before_read=channel.flush,
                tap=self._recorder.tap,
            )

        context = None if self._observed is None else self._observed.context
        return ask() if context is None else context.run(ask)

    def _events(self, attempt: _Attempt) -> Generator[Event, None, None]:
        """Send one request and yield what its answer means."""
        provider = self._provider
        decoder = attempt.decoder
        channel, pace = self._channel, self.pace
        pace.attempt()
        self._recorder.begins(attempt.request)
        stream = self._sent(attempt.request)
        id_ = request_id(stream.headers)
        shown = {name: self._redacted(value) for name, value in stream.headers.items()}
        answered = Answered(stream.status, id_ and self._redacted(id_), shown)
        frames = provider.frames(stream=self._chat.stream)
        rest_s = min(_REST_S, (self._timeouts.idle_s or _REST_S) / 2)
        try:
            if not 200 <= stream.status < 300:
                body = stream.read_all(_MAX_ERROR_BODY_BYTES, _REST_S)
                raise provider.error(stream.status, stream.headers, body)
            pace.headers(channel.producer_waited_s)
            channel.set_start(answered)
            broken: ConnectionLost | None = None
            try:
                for chunk in stream:
                    pace.chunk(len(chunk), channel.producer_waited_s)
                    for sse in frames.feed(chunk):
                        for event in decoder.decode(sse):
                            yield event
                        if decoder.complete:
                            stream.end_within(rest_s)
                    if decoder.done:
                        channel.flush()
                        stream.drain(_DRAIN_BYTES, _DRAIN_S)
                        return
            except ConnectionLost as error:
                broken = error  # or, where the decoder said it, ended without an answer
            for event in self._end_of_body(frames, decoder, answered, broken):
                yield event
        except StreamError as error:
            _note_answered(error, answered)
            error.completion = Completion(raw_finish_reason=decoder.raw_finish_reason)
            raise
        except ChannelClosed:
            raise
        except Exception as error:  # whatever was sent, the ending is one of the tree
            raise ProtocolError(
                f"what was sent could not be understood; please report this: "
                f"{type(error).__name__}: {error}",
                request_id=answered.request_id,
            ) from error
        finally:
            stream.close()

    def _end_of_body(
        self,
        frames: Frames,
        decoder: Decoder,
        answered: Answered,
        broken: StreamError | None,
    ) -> Iterator[Event]:
        """Yield what is left when the body is over; say what it means if it is over too early.

        Only the provider's own end tells a complete answer from a cut one: HTTP shows no difference
        where the connection's close is the end, and servers forget the last chunk.
        """
        over_before = decoder.done
        for sse in frames.end(dispatch_unfinished=True):
            try:
                events = decoder.decode(sse)
            except ProtocolError:
                break  # the cut went through this event
            yield from events
        outside = frames.ignored.decode("utf-8", "replace").strip()
        failure = self._failure_outside(outside)
        try:
            for event in decoder.end():
                if failure is None or type(event) is not Finish:
                    yield event
        except ConnectionLost as error:
            if broken is None and isinstance(frames, WholeAnswer) and frames.beginning:
                whole = frames.beginning.decode("utf-8", "replace")
                broken = ProtocolError(
                    "the body is complete JSON, but no complete answer of this format; is base_url "
                    f"right? It begins: {whole[:200]!r}"
                )
            broken = broken or error
        else:
            broken = broken if over_before else None  # the answer is complete all the same
        if failure is not None:
            raise failure
        if broken is None:
            return
        kind = answered.headers.get("content-type", "nothing known")
        if outside and not kind.lower().startswith(frames.content_type):
            raise ProtocolError(
                f"the answer is {kind}, not {frames.content_type}; is base_url right? It begins: "
                f"{outside[:200]!r}"
            )
        raise broken

    def _failure_outside(self, text: str) -> StreamError | None:
        """Find an error that was printed into the body without being an event.

        Google has been seen to print bare JSON between events, llama.cpp's relatives a line
        `error: {...}`, and proxies a JSON error with status 200.
        """
        _, marked, rest = text.rpartition("error:")
        for candidate, is_error in ((text, False), (rest, bool(marked))):
            try:
                said = msgspec.json.decode(candidate)
            except (msgspec.DecodeError, RecursionError):
                continue
            first = said[0] if isinstance(said, list) and said else said
            if isinstance(first, dict) and (is_error or "error" in first):
                return self._provider.stream_error(said)
        return None

    def _describe(self, error: StreamError) -> None:
        """Say in an error whose it is, and make sure that it does not repeat the key.

        Providers have been seen to print the key that they refuse. The frames that the error came
        through are let go: they hold the connection, and the key.
        """
        without_frames(error)
        name = self._provider.name
        message = str(error)
        if not message.startswith(name):
            message = f"{name}: {message}"
        error.provider = name
        message = self._redacted(message)
        if len(message) > _MAX_MESSAGE_CHARS:
            message = f"{message[:_MAX_MESSAGE_CHARS]}... ({len(message)} characters)"
        error.args = (message,)
        error.request_id = error.request_id and self._redacted(error.request_id)
        if isinstance(error, APIError):
            error.detail = self._redacted(error.detail)
            error.code = error.code and self._redacted(error.code)
            error.body = map_strings(self._redacted, error.body)

    def _redacted(self, text: str) -> str:
        return self._redaction(text)


def _note_answered(error: StreamError, answered: Answered) -> None:
    """Let an error tell what the response's headers said."""
    error.request_id = error.request_id or answered.request_id
    if isinstance(error, APIError):
        error.headers = answered.headers
        error.rate_limit = read_rate_limit(answered.headers)


def without_frames(error: StreamError) -> StreamError:
    """Cut an error loose from where it was raised: those frames hold the key, and the connection.

    Whoever logs tracebacks with local variables would log them. The message has the reason.
    """
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
