"""One question, its attempts and its continuations, as one iterator of events.

The way of a byte: `transport.send` -> chunk -> `SSEDecoder` -> sse -> `Decoder` -> event.
Everything here runs in the producer thread; it never touches the stream that the caller holds.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator, Mapping

import msgspec
import requests
from msgspec import Struct

from ..chat import ChatRequest
from ..completion import Accumulator, Completion
from ..errors import ConnectionLost, ProtocolError, StreamError
from ..events import CONTENT, Event, Finish, Resumed, Retrying
from ..providers.base import Decoder, Provider, request_id
from ..retry import RetryPolicy
from ..seam import join
from ..sse import SSEDecoder
from .channel import Channel
from .transport import send

__all__ = ["Answered", "EventSource"]

_MAX_ERROR_BODY_BYTES = 1024 * 1024
_DRAIN_BYTES = 64 * 1024
_DRAIN_S = 0.25


class Answered(Struct, frozen=True):
    """How the provider answered a request.

    Attributes:
        status: The HTTP status.
        request_id: The provider's identifier of the request.
        headers: The response's headers; the names are lower-case.
    """

    status: int
    request_id: str | None
    headers: dict[str, str]


class EventSource:
    """Ask a provider, and go on asking as the policy says, until there is one ending.

    Args:
        provider: Whom to ask.
        chat: What to ask.
        key: The provider's key.
        base_url: Where to.
        policy: What to do about failures.
        connect_s: How long a connection may take to be made, in seconds.
        headers: More headers, the caller's own; they win.
        session: The caller's own `requests.Session`, or `None`.
        channel: The producer's end of it: where to wait, and how to be interrupted.
        draw: Draws a number in [0, 1) for the back-off's jitter.

    Thread: the producer's.
    """

    def __init__(
        self,
        provider: Provider,
        chat: ChatRequest,
        key: str,
        base_url: str,
        *,
        policy: RetryPolicy,
        connect_s: float,
        headers: Mapping[str, str],
        session: requests.Session | None,
        channel: Channel[Event],
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._provider = provider
        self._chat = chat
        self._key = key
        self._base_url = base_url
        self._policy = policy
        self._connect_s = connect_s
        self._headers = headers
        self._session = session
        self._channel = channel
        self._draw = draw

    def __iter__(self) -> Iterator[Event]:
        """Yield the events of all attempts; raise the one error that ends them, if any."""
        said = Accumulator(self._provider.name)
        chat = self._chat
        retries = resumes = 0
        while True:
            begun = False
            events = self._attempt(chat)
            if resumes:
                events = join("".join(said.text_deltas), events)
            try:
                for event in events:
                    begun = begun or type(event) in CONTENT
                    if self._policy.resume:
                        said.add(event)
                    yield event
                return
            except StreamError as error:
                if begun:
                    retries = 0
                    resumes += 1
                    if not self._policy.may_resume(resumes, error):
                        raise
                    rest = self._provider.resume(self._chat, said.completion())
                    if rest is None:
                        raise
                    chat = rest
                    yield Resumed(resumes, sum(map(len, said.text_deltas)), str(error))
                    self._channel.pause(self._policy.backoff_s * self._draw())
                    continue
                retries += 1
                delay_s = self._policy.delay_s(retries, error, self._draw())
                if delay_s is None:
                    raise
                yield Retrying(retries, delay_s, str(error))
                self._channel.pause(delay_s)

    def _attempt(self, chat: ChatRequest) -> Iterator[Event]:
        """Send one request and yield what its answer means."""
        provider = self._provider
        request = provider.request(chat, self._key, self._base_url)
        stream = send(
            dataclasses.replace(request, headers={**request.headers, **self._headers}),
            session=self._session,
            connect_s=self._connect_s,
            interrupt_with=self._channel.interrupt_with,
            before_read=self._channel.flush,
        )
        answered = Answered(stream.status, request_id(stream.headers), dict(stream.headers))
        decoder = provider.decoder()
        frames = SSEDecoder()
        try:
            if not 200 <= stream.status < 300:
                body = stream.read_all(_MAX_ERROR_BODY_BYTES)
                raise provider.error(stream.status, stream.headers, body)
            self._channel.set_start(answered)
            broken: ConnectionLost | None = None
            try:
                for chunk in stream:
                    for sse in frames.feed(chunk):
                        for event in decoder.decode(sse):
                            yield event
                    if decoder.done:
                        self._channel.flush()
                        stream.drain(_DRAIN_BYTES, _DRAIN_S)
                        return
            except ConnectionLost as error:
                if decoder.done:
                    raise  # the decoder's own word: a body that was ended without an answer
                broken = error
            for event in self._end_of_body(frames, decoder, answered, broken):
                yield event
        except StreamError as error:
            error.provider = provider.name
            error.request_id = error.request_id or answered.request_id
            error.completion = Completion(raw_finish_reason=decoder.raw_finish_reason)
            raise
        finally:
            stream.close()

    def _end_of_body(
        self,
        frames: SSEDecoder,
        decoder: Decoder,
        answered: Answered,
        broken: ConnectionLost | None,
    ) -> Iterator[Event]:
        """Yield what is left when the body is over; say what it means if it is over too early.

        Only the provider's own end tells a complete answer from a cut one: HTTP shows no difference
        where the connection's close is the end, and servers forget the last chunk.
        """
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
        except ConnectionLost:
            if failure is None and outside and not is_event_stream(answered.headers):
                kind = answered.headers.get("content-type", "nothing known")
                raise ProtocolError(
                    f"{self._provider.name} answered with {kind}, not with an event stream; is "
                    f"base_url right? It begins: {outside[:200]!r}"
                ) from None
            if failure is None:
                if broken is not None:
                    raise broken from None
                raise
        if failure is not None:
            raise failure

    def _failure_outside(self, text: str) -> StreamError | None:
        """Find an error that was printed into the body without being an event.

        Google has been seen to print bare JSON between events, llama.cpp's relatives a line
        `error: {...}`, and proxies a JSON error with status 200.
        """
        for candidate in (text, text.rpartition("error:")[2]):
            try:
                said = msgspec.json.decode(candidate)
            except (msgspec.DecodeError, RecursionError):
                continue
            if candidate is not text or isinstance(said, list) or "error" in said:
                return self._provider.stream_error(said)
        return None


def is_event_stream(headers: dict[str, str]) -> bool:
    """Whether the response says that it is an event stream."""
    return headers.get("content-type", "").lower().startswith("text/event-stream")
