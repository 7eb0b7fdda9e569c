"""Flask apps on a real server in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import flask
from werkzeug.serving import WSGIRequestHandler, make_server

from llm_sse.web.flask import sse_response


class _Handler(WSGIRequestHandler):
    """Says its body's length in chunks, so that a client sees where it was cut."""

    protocol_version = "HTTP/1.1"


@contextmanager
def serving(app: flask.Flask) -> Iterator[str]:
    """Serve an app, each request in a thread of its own; give its URL."""
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def answering(answer: Callable[[], Any], format: str) -> flask.Flask:
    """Return a site that answers everybody with the same stream, in a format."""
    app = flask.Flask(__name__)

    def view() -> flask.Response:
        return sse_response(answer(), format=format, heartbeat_s=0.2)

    app.add_url_rule("/stream", "stream", view)
    app.add_url_rule("/chat/completions", "complete", view, methods=["POST"])
    return app
