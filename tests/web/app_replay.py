"""A Flask site that keeps its streams, with a page on which `EventSource` reads one."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from typing import Any

import flask
import waitress
from redis import Redis

from llm_sse import stream_sync
from llm_sse.web.flask import sse_response
from llm_sse.web.redis import RedisReplay
from llm_sse.web.replay import ReplayStore

#: How long a browser waits before it comes back, in milliseconds; 3000 where nobody says it.
_RETRY = b"retry: 200\n\n"
_PAGE = """<!doctype html>
<title>EventSource</title>
<link rel="icon" href="data:,">
<h1>What has come</h1>
<ol id="got"></ol>
<p id="status">connecting</p>
<script>
window.got = [];
const say = (text) => { document.getElementById("status").textContent = text; };
const source = new EventSource("/stream" + location.search);
source.onopen = () => say("connected");
source.onmessage = (event) => {
  got.push(event.data);
  document.getElementById("got").append(
    Object.assign(document.createElement("li"), {textContent: event.data}));
};
source.onerror = (event) => {
  if (event.data) {
    source.close();
    say("error: " + JSON.parse(event.data).code);
  } else {
    say(source.readyState === EventSource.CLOSED ? "complete" : "reconnecting");
  }
};
</script>
"""


class _Soon:
    """A body that tells the browser to come back soon."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        yield _RETRY
        yield from self._body

    def close(self) -> None:
        """End the body."""
        self._body.close()


def make_app(store: ReplayStore | None, provider: str) -> flask.Flask:
    """Return a site whose streams are kept in a store.

    Args:
        store: Where; `None` where they are not.
        provider: Whom it asks.
    """
    app = flask.Flask(__name__)
    app.add_url_rule("/", "page", lambda: _PAGE)

    @app.get("/stream")
    def stream() -> flask.Response:
        kept = {} if store is None else {"replay": store, "key": "ann"}
        response = sse_response(
            lambda: stream_sync("Hi", base_url=provider, api_key="any"),
            heartbeat_s=0.2,
            name=flask.request.args.get("name"),
            **kept,
        )
        if response.status_code == 200:
            response.response = _Soon(response.response)
        return response

    return app


if __name__ == "__main__":
    fd, port, url = sys.argv[1:]
    kept = RedisReplay(Redis(port=int(port), socket_timeout=5), lease_s=1.0)
    waitress.serve(make_app(kept, url), sockets=[socket.socket(fileno=int(fd))], threads=8)
