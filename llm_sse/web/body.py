"""A stream as the body of a response; no web framework is known here.

Theory of operation
-------------------

    pump's thread                              server's thread, or event loop
    stream.events() -> Channel (bounded) -> StreamBody -> Format -> bytes

The pump reads the stream in a thread of its own, so that the body can wait for the next event with
a deadline, and say something when there is none: while the model thinks, and while a tool runs. The
channel between them is bounded: a browser that does not read slows the provider down.

A server notices that a browser has gone when it writes to it. The first write provokes the reset,
and the second one meets it. A server that writes behind the body's back (waitress) tells the body
at the third; one that hands what it is given to a router, which notices no sooner (uWSGI with
chunks), at the fourth. So no write stands alone: each is followed by the next within a moment,
until four were made; then nothing needs to be sent for the rest of the heartbeat. Whenever a
browser leaves, four writes follow within one heartbeat. Then the server closes the body, and the
body closes the stream. A body that is dropped does the same: nothing that the pump holds refers to
it.

An event loop does not wait in the channel: the channel wakes it, and it takes what is there.
"""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress

from ..errors import ConfigurationError, ProtocolError
from ..events import Event, Finish, StreamStart
from ..sync.channel import Channel, ChannelTimeout
from ..sync.stream import TokenStream
from .formats import Format, find_format
from .log import log_error
from .problem import NOTHING_MORE, Problem, RefusedError, problem_of
from .pump import EventStream, Factory, Told, is_stream, open_stream, release, start_pump
from .replay import Entry, check_seconds
from .retelling import NOT_REPLAYED, Asked, Retold, check_replay, retell

__all__ = ["BrokenBody", "StreamBody", "headers_of", "make_body"]

#: How many events may wait here, beside those that wait in the stream itself.
_BUFFER_SIZE = 32
#: How many writes it takes until the body knows that a browser has gone.
_WRITES = 4
#: The moment between two of them, in seconds; an eighth of the heartbeat at most.
_MOMENT_S = 1.0

_log = logging.getLogger(__name__)


class BrokenBody(Exception):
    """Tells the server that a body must not end as if it were whole; it ends the connection.

    Only formats without a word for an error need it. It says nothing about the error.
    """


class StreamBody(Iterator[bytes], AsyncIterator[bytes]):
    """The bytes of one response, for a server that waits or for an event loop.

    Args:
        stream: What is told.
        format: How it is told.
        heartbeat_s: How long nothing may be sent, in seconds.
        status_wait_s: How long the provider's status is of use, in seconds: a refusal that it would
            take longer to wait out is the answer.
        on_thread_end: Called in the pump's thread when it has nothing left to do.
        asked_at: When the wait for a status has begun: now, or earlier.

    Attributes:
        headers: The response's headers.

    Thread: one consumer's; `close` is everybody's.
    """

    def __init__(
        self,
        stream: EventStream | Told,
        format: Format,
        *,
        heartbeat_s: float,
        status_wait_s: float = 0.0,
        on_thread_end: Callable[[], object] = lambda: None,
        asked_at: float | None = None,
    ) -> None:
        self.headers = headers_of(format)
        self._format = format
        self._moment_s = min(_MOMENT_S, heartbeat_s / 8)
        self._asked_at = time.monotonic() if asked_at is None else asked_at
        self._pause_s = heartbeat_s - (_WRITES - 1) * self._moment_s
        self._writes = 0
        self._greeted = False
        self._ended = False
        self._finished = False
        self._stash: list[Event | Entry] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news = asyncio.Event()
        self._channel: Channel[Event | Entry] = Channel(_BUFFER_SIZE)
        self._finalizer = weakref.finalize(self, release, stream, self._channel)
        start_pump(stream, self._channel, on_thread_end, status_wait_s)

    # --- before the first byte ---

    def wait_started(self, timeout_s: float) -> Problem | None:
        """Wait until it is known whether there is an answer, but no longer than `timeout_s`.

        Returns:
            What is to be answered instead, if there is none.
        """
        with suppress(ChannelTimeout):
            return self._start(max(0.0, self._asked_at + timeout_s - time.monotonic()))
        return None

    async def await_started(self, timeout_s: float) -> Problem | None:
        """Do the same without blocking the event loop."""
        deadline = self._asked_at + timeout_s
        while True:
            try:
                return self._start(0.0)
            except ChannelTimeout:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    return None
                await self._wait(left_s)

    def _start(self, timeout_s: float) -> Problem | None:
        try:
            batch = self._channel.get(timeout_s)
        except ChannelTimeout:
            raise
        except BaseException as error:
            if error is not self._channel.error:
                raise  # a signal's, or another reader's
            return self._problem(error)
        if batch is None:
            return self._problem(_broken_off())
        self._stash += batch
        return None

    # --- the body ---

    def __iter__(self) -> StreamBody:
        return self

    def __next__(self) -> bytes:
        due = self._due()
        while True:
            left_s = None if due is None else max(0.0, due - time.monotonic())
            try:
                chunk = self._take(left_s)
            except ChannelTimeout:
                return self._heartbeat()
            if chunk is None:
                raise StopIteration
            if chunk:
                return self._sent(chunk)

    def __aiter__(self) -> StreamBody:
        return self

    async def __anext__(self) -> bytes:
        due = self._due()
        while True:
            try:
                chunk = self._take(0.0)
            except ChannelTimeout:
                left_s = None if due is None else due - time.monotonic()
                if left_s is not None and left_s <= 0:
                    return self._heartbeat()
                await self._wait(left_s)
                continue
            if chunk is None:
                raise StopAsyncIteration
            if chunk:
                return self._sent(chunk)

    def close(self) -> None:
        """End the body and its stream; the provider's connection goes away. May be called again."""
        self._ended = True
        self._finalizer()

    def _due(self) -> float | None:
        """Return when something must be sent."""
        if self._format.heartbeat is None:
            return None
        wait_s = self._moment_s if self._writes % _WRITES else self._pause_s
        return time.monotonic() + wait_s

    def _heartbeat(self) -> bytes:
        self._writes += 1
        return self._format.heartbeat or b""

    def _sent(self, chunk: bytes) -> bytes:
        self._writes = 1
        return chunk

    def _take(self, timeout_s: float | None) -> bytes | None:
        """Return what is to be sent: nothing yet, or `None` when nothing more will be.

        Raises:
            ChannelTimeout: There is nothing to be looked at within `timeout_s`.
            BrokenBody: The answer broke off, and the format cannot say so.
        """
        if self._ended:
            return None
        if not self._greeted:
            self._greeted = True
            return self._format.greeting
        batch: list[Event | Entry] | None
        if self._stash:
            batch, self._stash = self._stash, []
        else:
            try:
                batch = self._channel.get(timeout_s)
            except ChannelTimeout:
                raise
            except BaseException as error:
                if error is not self._channel.error:
                    raise  # a signal's, or another reader's
                return self._fail(error)
        if batch is None:
            return self._end()
        written = bytearray()
        try:
            for event in batch:
                written += self._encode(event)
        except Exception as error:
            # What came before it is the answer's, and its ids are taken.
            return bytes(written) + self._fail(error)
        return bytes(written)

    def _encode(self, event: Event | Entry) -> bytes:
        if isinstance(event, Entry):
            self._finished = event.last
            return event.data
        if isinstance(event, Finish):
            self._finished = True
        elif isinstance(event, StreamStart):
            self._finished = False
        return self._format.encode(event)

    def _end(self) -> bytes | None:
        """End it; a stream that somebody has closed before its end is no answer."""
        if self._channel.closed:
            self._ended = True
            return None
        if not self._finished:
            return self._fail(_broken_off())
        self.close()
        return self._format.end()

    def _fail(self, error: BaseException) -> bytes:
        said = self._format.error(self._problem(error))
        if said is None:
            raise BrokenBody("the answer broke off")
        return said

    def _problem(self, error: BaseException) -> Problem:
        """End the body; tell the site's log what the visitor is not told."""
        # Before the error is anywhere: its traceback has this body, and the finalizer the error.
        self.close()
        if not isinstance(error, RefusedError):
            log_error(_log, error)
        return problem_of(error)

    async def _wait(self, timeout_s: float | None) -> None:
        """Wait for news of the channel, in the running loop."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._listen(loop)
            return  # what came before that is there to be taken
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._news.wait(), timeout_s)
        self._news.clear()

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let the channel wake a loop."""
        self._loop = loop
        self._news = news = asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(news.set)

        self._channel.on_news = wake


def headers_of(format: Format) -> dict[str, str]:
    """Return the headers of a response in a format."""
    return {
        "Content-Type": format.content_type,
        "Cache-Control": "no-cache, no-transform",
        # Middleware and proxies that compress leave alone what has an encoding already; a
        # compressor would keep the first tokens until it has enough of them. RFC 9110, section
        # 8.4.1, means this word for requests; but it is the one thing that Django's GZipMiddleware
        # and Flask-Compress look at, neither knows `no-transform`, and clients know the word.
        "Content-Encoding": "identity",
        "X-Accel-Buffering": "no",
        **format.headers,
    }


def make_body(
    stream: EventStream | Factory,
    *,
    format: str,
    status_wait_s: float,
    heartbeat_s: float,
    asked: Asked = NOT_REPLAYED,
    on_thread_end: Callable[[], object] = lambda: None,
) -> StreamBody | Problem:
    """Return the body of a response; what is wrong with the arguments closes the stream.

    Args:
        stream: What is told, or what opens it.
        format: The format's name.
        status_wait_s: How long the provider's status is of use, and how long to wait for the
            replay's store, in seconds.
        heartbeat_s: How long nothing may be sent, in seconds.
        asked: What was asked of the replay, where there is one.
        on_thread_end: Called in the thread that has read the stream.

    Returns:
        The body; or what is answered instead. Without a replay that is 204 for a browser that comes
        back: nobody is asked twice because a connection broke, or because `EventSource` does not
        know an end.

    Raises:
        ConfigurationError: One of the arguments cannot be.
    """
    try:
        check_seconds("status_wait_s", status_wait_s, zero=True)
        check_seconds("heartbeat_s", heartbeat_s)
        writer = find_format(format)
        if asked.by_event_source:  # which comes back by itself, and must then have an id
            writer.number()
            writer.for_event_source = True
        check_replay(asked, stream)
        if asked.store is not None:
            asked_at = time.monotonic()
            told = retell(
                stream,  # type: ignore[arg-type]
                asked,
                status_wait_s=status_wait_s,
                on_thread_end=on_thread_end,
            )
            if isinstance(told, Problem):
                return told
            retold = Retold(format, told.cursor)
            retold.for_event_source = asked.by_event_source
            return StreamBody(told, retold, heartbeat_s=heartbeat_s, asked_at=asked_at)
        if asked.last_event_id:
            if isinstance(stream, TokenStream):
                stream.close()
            return NOTHING_MORE
        if callable(stream) and not is_stream(stream):
            try:
                stream = open_stream(stream)
            except RefusedError as error:
                return error.problem
        if not is_stream(stream):
            raise ConfigurationError(
                f"sse_response streams what stream_sync returns, or events, "
                f"not {type(stream).__name__}"
            )
        return StreamBody(
            stream,  # type: ignore[arg-type]
            writer,
            heartbeat_s=heartbeat_s,
            status_wait_s=status_wait_s,
            on_thread_end=on_thread_end,
        )
    except BaseException:
        if isinstance(stream, TokenStream):
            stream.close()
        raise


def _broken_off() -> ProtocolError:
    return ProtocolError("the stream was closed before its end, or had no Finish", retryable=True)
