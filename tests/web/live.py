"""Flask apps on a real server in this process, and a provider that waits for the test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import flask
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wsgi import ClosingIterator

from llm_sse.events import Finish, TextDelta
from llm_sse.providers import find_provider
from llm_sse.web.flask import sse_response
from tests.wire import Connection, WireServer, head

#: How many words a `Provider` has to say: `w0 `, `w1 ` and so on.
WORDS = 8


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


class Provider(WireServer):
    """A provider that says a word whenever it is told to."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self._words = threading.Semaphore(0)

    def allow(self, words: int) -> None:
        """Let it say more words."""
        self._words.release(words)

    def _answer(self, connection: Connection) -> None:
        encoder = find_provider("openai").encoder(model="any")
        connection.send(head(200, {"Content-Type": "text/event-stream"}, framing="chunked"))
        for number in range(WORDS):
            assert self._words.acquire(timeout=30)
            connection.chunk(encoder.encode(TextDelta(f"w{number} ")))
        connection.chunk(encoder.encode(Finish("stop")))
        connection.chunk(b"")


class Pausing:
    """An app whose provider thinks before its first word, and again after it.

    It goes on when the app has sent two heartbeats each time.

    Args:
        app: The app.
        provider: Whom it asks.
    """

    def __init__(self, app: flask.Flask, provider: Provider) -> None:
        self._app = app.wsgi_app
        self._provider = provider
        app.wsgi_app = self  # type: ignore[method-assign]

    def __call__(self, environ: Any, start_response: Any) -> Any:
        """Answer a request."""
        body = self._app(environ, start_response)
        return ClosingIterator(self._paused(body), getattr(body, "close", None))

    def _paused(self, body: Any) -> Iterator[bytes]:
        heartbeats = 0
        allowed = iter((1, WORDS - 1))
        for chunk in body:
            yield chunk
            if b"w0 " in chunk:
                heartbeats = 0
            elif chunk.startswith(b": heartbeat"):
                heartbeats += 1
                if heartbeats == 2:
                    self._provider.allow(next(allowed))
