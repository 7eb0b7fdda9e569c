"""`sse_response()` for Flask, on any WSGI server."""

from __future__ import annotations

from flask import Response, has_request_context, request

from .body import make_body
from .pump import EventStream

__all__ = ["sse_response"]


def sse_response(
    stream: EventStream,
    *,
    format: str = "tokens",
    status_wait_s: float = 10.0,
    heartbeat_s: float = 15.0,
) -> Response:
    """Answer a request with a stream, as it arrives.

    What goes wrong before the provider has accepted the question becomes an HTTP status and a
    problem document (RFC 9457); what goes wrong later, the body's last event. When the browser
    leaves, the stream is closed.

    Args:
        stream: What `stream_sync` or `run_tools` returned, or any iterable of events that ends with
            a `Finish`. It is read in another thread, to which this one's context variables are
            copied.
        format: `tokens`, `events`, `openai`, `ui-message` or `text`.
        status_wait_s: How long to wait for the provider's status, in seconds. Then the response
            begins anyway.
        heartbeat_s: How long nothing may be sent, in seconds; a browser that has gone is noticed
            within that time.

    Raises:
        ConfigurationError: One of the arguments cannot be; the stream is closed.
    """
    body = make_body(stream, format=format, status_wait_s=status_wait_s, heartbeat_s=heartbeat_s)
    if has_request_context() and request.method == "HEAD":
        body.close()  # a server does not read the body of an answer to HEAD, nor close it
        return Response(headers=body.headers)
    try:
        problem = body.wait_started(status_wait_s)
    except BaseException:
        body.close()
        raise
    if problem is not None:
        return Response(problem.body, problem.status, problem.headers)
    return Response(body, headers=body.headers)
