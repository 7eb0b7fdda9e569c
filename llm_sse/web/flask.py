"""`sse_response()` for Flask, on any WSGI server."""

from __future__ import annotations

from flask import Response, has_request_context, request

from ..sync.stream import TokenStream
from .body import headers_of, make_body
from .formats import find_format
from .problem import Problem
from .pump import EventStream
from .replay import ReplayStore
from .retelling import Asked, Factory

__all__ = ["sse_response"]


def sse_response(
    stream: EventStream | Factory,
    *,
    format: str = "tokens",
    status_wait_s: float = 10.0,
    heartbeat_s: float = 15.0,
    replay: ReplayStore | None = None,
    key: str | None = None,
    name: str | None = None,
    keep_running: bool = False,
    grace_s: float = 30.0,
) -> Response:
    """Answer a request with a stream, as it arrives.

    What goes wrong before the provider has accepted the question becomes an HTTP status and a
    problem document (RFC 9457); what goes wrong later, the body's last event. When the browser
    leaves, the stream is closed.

    Args:
        stream: What `stream_sync` or `run_tools` returned, or any iterable of events that ends with
            a `Finish`. It is read in another thread, to which this one's context variables are
            copied. Or a function that returns it, which is called only if somebody has to be
            asked: not for HEAD, and not for a browser that comes back (204, without `replay`).
        format: `tokens`, `events`, `openai`, `ui-message` or `text`.
        status_wait_s: How long to wait for the provider's status, in seconds. Then the response
            begins anyway. Until then a browser that has gone is not noticed.
        heartbeat_s: How long nothing may be sent, in seconds; a browser that has gone is noticed
            within that time.
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
        ConfigurationError: One of the arguments cannot be; the stream is closed.
    """
    in_request = has_request_context()
    asked = Asked(replay, key, name, format, None, keep_running, grace_s)
    if in_request:
        asked = asked.with_headers(request.headers.get)
    is_head = in_request and request.method == "HEAD"
    if is_head and asked.last_event_id is None:
        if isinstance(stream, TokenStream):
            stream.close()
        return _answer_head(format)
    body = make_body(
        stream,
        format=format,
        status_wait_s=status_wait_s,
        heartbeat_s=heartbeat_s,
        asked=asked,
    )
    if isinstance(body, Problem):
        return _refusal(body)
    if is_head:
        body.close()
        return _answer_head(format)
    try:
        problem = body.wait_started(status_wait_s)
    except BaseException:
        body.close()
        raise
    return Response(body, headers=body.headers) if problem is None else _refusal(problem)


def _answer_head(format: str) -> Response:
    """Return the headers; a server does not read the body of an answer to HEAD, nor close it.

    Its length is not known, as GET's is not.
    """
    return Response(iter(()), headers=headers_of(find_format(format)))


def _refusal(problem: Problem) -> Response:
    return Response(problem.body, problem.status, problem.headers)
