"""`sse_response()` for Django, under WSGI and under ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import Any

from asgiref.sync import SyncToAsync, sync_to_async
from django.db import connections
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse

from ..errors import ConfigurationError, ConnectionLost
from ..sync.stream import TokenStream
from .body import StreamBody, make_body
from .formats import find_format
from .problem import Problem
from .pump import EventStream, is_stream
from .replay import ReplayStore
from .retelling import Asked, Factory

__all__ = ["SSEResponse", "asse_response", "sse_response"]

#: The longest wait for an event loop before one looks whether it still runs, in seconds.
_LOOK_AGAIN_S = 1.0


class SSEResponse(StreamingHttpResponse):
    """A response whose body can be read by a WSGI server and by an event loop.

    Django decides which of both when the response is made. That is too early: an async view may
    run under WSGI, and a sync view under ASGI. Here who reads it decides, and middleware that asks
    gets the answer for where it runs.

    An answer to HEAD has no body, but servers read it all the same, to throw it away: so the
    stream is closed unread, whichever view has opened it.
    """

    def __init__(self, body: StreamBody) -> None:
        self._body = body
        self._iterator: Any = None
        super().__init__(body, headers=body.headers)

    @property
    def is_async(self) -> bool:
        """Whether the body is to be read by an event loop."""
        return _in_event_loop() if self._is_untouched() else self._is_async

    @is_async.setter
    def is_async(self, value: bool) -> None:
        self._is_async = value

    def __iter__(self) -> Iterator[bytes]:
        if self._is_for_head():
            self._body.close()
            return iter(())
        return self._body if self._is_untouched() else super().__iter__()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._is_for_head():
            self._body.close()
            return
        parts = self._body if self._is_untouched() else super().__aiter__()
        try:
            async for part in parts:
                yield part
        finally:
            # A request that is cancelled, because the browser has gone, may get no `close()`.
            self._body.close()

    def _is_for_head(self) -> bool:
        """Whether it answers HEAD; Django has its handler note the request's `close` here."""
        owners = (getattr(closer, "__self__", None) for closer in vars(self)["_resource_closers"])
        return any(isinstance(one, HttpRequest) and one.method == "HEAD" for one in owners)

    def _is_untouched(self) -> bool:
        """Whether no middleware has put something else around the body."""
        return self._iterator is self._body


def sse_response(
    stream: EventStream | Factory,
    *,
    format: str = "tokens",
    status_wait_s: float = 10.0,
    heartbeat_s: float = 15.0,
    request: HttpRequest | None = None,
    replay: ReplayStore | None = None,
    key: str | None = None,
    name: str | None = None,
    keep_running: bool = False,
    grace_s: float = 30.0,
) -> HttpResponseBase:
    """Answer a request with a stream, as it arrives; for sync views.

    What goes wrong before the provider has accepted the question becomes an HTTP status and a
    problem document (RFC 9457); what goes wrong later, the body's last event. When the browser
    leaves, the stream is closed.

    Args:
        stream: What `stream_sync` or `run_tools` returned, or any iterable of events that ends with
            a `Finish`. It is read in another thread, to which this one's context variables are
            copied. Or a function that returns it. Database connections that tools open there are
            closed at its end.
        format: `tokens`, `events`, `openai`, `ui-message` or `text`.
        status_wait_s: How long to wait for the provider's status, in seconds. Then the response
            begins anyway. Until then a browser that has gone is not noticed.
        heartbeat_s: How long nothing may be sent, in seconds; a browser that has gone is noticed
            within that time (at once under ASGI).
        request: The view's request; `replay` needs it. With it a browser that comes back
            (`Last-Event-ID`) gets 204, and nobody is asked; HEAD is answered without asking
            anybody, where the first argument is a function.
        replay: Where streams are kept for browsers that come back: a `MemoryReplay` or a
            `RedisReplay`. The first argument is then a function that opens the stream. A request
            with `Last-Event-ID` gets what follows that event; nothing (204) when that was the end;
            410 when it is not kept.
        key: With `replay`, whose the stream is: a user, a session. Only requests with the same key
            can read it.
        name: With `replay`, the site's own name for this question of this key: a request for a
            name that is kept joins that stream from its beginning, and asks nobody, unless it has
            ended with an error.
        keep_running: With `replay`, whether the stream is read to its end also when nobody listens.
        grace_s: With `replay`, how long nobody may listen before the stream is closed, in seconds,
            without `keep_running`.

    Raises:
        ConfigurationError: One of the arguments cannot be, or this would block an event loop; the
            stream is closed.
    """
    if _is_running_loop():
        if isinstance(stream, TokenStream):
            stream.close()
        raise ConfigurationError(
            "sse_response would block the event loop here: "
            "write `return await asse_response(...)` in async views"
        )
    if _is_first_head(request):
        return _answer_head(stream, format)
    asked = Asked(replay, key, name, format, None, keep_running, grace_s)
    body = _body(stream, request, status_wait_s, heartbeat_s, asked)
    if isinstance(body, Problem):
        return _refusal(body)
    try:
        problem = body.wait_started(status_wait_s)
    except BaseException:
        body.close()
        raise
    return _response(body, problem)


async def asse_response(
    stream: EventStream | Factory,
    *,
    format: str = "tokens",
    status_wait_s: float = 10.0,
    heartbeat_s: float = 15.0,
    request: HttpRequest | None = None,
    replay: ReplayStore | None = None,
    key: str | None = None,
    name: str | None = None,
    keep_running: bool = False,
    grace_s: float = 30.0,
) -> HttpResponseBase:
    """Do what `sse_response` does, for async views: it waits without blocking the event loop.

    A function that opens the stream is called where Django's `sync_to_async` would call it, so it
    may use the ORM: its connection is that request's, which Django closes. A replay's store is
    asked in another thread, so that one that is slow keeps nothing else waiting.
    """
    if _is_first_head(request):
        return _answer_head(stream, format)
    asked = Asked(replay, key, name, format, None, keep_running, grace_s)
    how = (request, status_wait_s, heartbeat_s, asked)
    if replay is not None and callable(stream):
        body = await _in_thread(stream, lambda opens: _body(opens, *how))
    elif callable(stream) and not is_stream(stream):
        body = await sync_to_async(_body)(stream, *how)
    else:
        body = _body(stream, *how)
    if isinstance(body, Problem):
        return _refusal(body)
    try:
        problem = await body.await_started(status_wait_s)
    except BaseException:
        body.close()
        raise
    return _response(body, problem)


async def _in_thread(
    factory: Factory, make: Callable[[Factory], StreamBody | Problem]
) -> StreamBody | Problem:
    """Make a body in a thread of its own, and what opens the stream in Django's."""
    loop = asyncio.get_running_loop()
    left = False

    def open_() -> EventStream:
        if left:
            raise ConnectionLost("the browser has left before anybody was asked")
        opened = asyncio.run_coroutine_threadsafe(sync_to_async(factory)(), loop)
        while not wait([opened], _LOOK_AGAIN_S).done:
            if not loop.is_running():
                raise ConnectionLost("the event loop has ended before anybody was asked")
        return opened.result()

    executor = ThreadPoolExecutor(1, "llm-sse-web-store")
    try:
        return await loop.run_in_executor(executor, copy_context().run, make, open_)
    finally:
        left = True
        executor.shutdown(wait=False)


def _body(
    stream: EventStream | Factory,
    request: HttpRequest | None,
    status_wait_s: float,
    heartbeat_s: float,
    asked: Asked,
) -> StreamBody | Problem:
    if request is not None:
        asked = asked.with_headers(request.headers.get)
    elif asked.store is not None:
        if isinstance(stream, TokenStream):
            stream.close()
        raise ConfigurationError("replay= needs the view's request: request=request")
    return make_body(
        stream,
        format=asked.format,
        status_wait_s=status_wait_s,
        heartbeat_s=heartbeat_s,
        asked=asked,
        on_thread_end=_close_connections,
    )


def _is_first_head(request: HttpRequest | None) -> bool:
    """Whether it is a HEAD, and not for the rest of an answer, whose status depends on that."""
    if request is None or request.method != "HEAD":
        return False
    return not request.headers.get("Last-Event-ID")


def _answer_head(stream: EventStream | Factory, format: str) -> SSEResponse:
    """Answer HEAD: nobody is asked, and what was asked already is closed.

    It is a response of the same kind as GET's, so that nobody gives it a length.
    """
    if isinstance(stream, TokenStream):
        stream.close()
    body = StreamBody((), find_format(format), heartbeat_s=1.0)
    body.close()
    return SSEResponse(body)


def _response(body: StreamBody, problem: Problem | None) -> HttpResponseBase:
    return SSEResponse(body) if problem is None else _refusal(problem)


def _refusal(problem: Problem) -> HttpResponse:
    return HttpResponse(problem.body, status=problem.status, headers=problem.headers)


def _close_connections() -> None:
    """Close what tools have opened in this thread; Django does it in the requests' own only."""
    for connection in connections.all(initialized_only=True):
        connection.close()


def _is_running_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _in_event_loop() -> bool:
    """Whether an event loop waits for this thread, or is this thread's."""
    if _is_running_loop():
        return True
    loop: Any = getattr(SyncToAsync.threadlocal, "main_event_loop", None)
    return loop is not None and loop.is_running()
