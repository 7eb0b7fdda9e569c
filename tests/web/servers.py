"""Real web servers, each in a process of its own on the loopback interface."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.parse import urlencode

from llm_sse.sse import ServerSentEvent, SSEDecoder

_ROOT = Path(__file__).parent.parent.parent
_DEADLINE_S = 20.0
_FLASK = "tests.web.app_flask:app"
_DJANGO = "tests.web.app_django:application"
_GUNICORN = ("-m", "gunicorn", "-b", "fd://{fd}", "--threads", "4")
_WERKZEUG = """
import sys
from werkzeug.serving import make_server
from tests.web.app_flask import app
make_server("127.0.0.1", 0, app, threaded=True, fd=int(sys.argv[1])).serve_forever()
"""
_WAITRESS = """
import socket, sys, waitress
from tests.web.app_flask import app
waitress.serve(app, sockets=[socket.socket(fileno=int(sys.argv[1]))])
"""

#: What Python is told, and the paths of the views; `{fd}` is a socket that listens already.
SERVERS: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "flask-werkzeug": (("-c", _WERKZEUG, "{fd}"), ["/stream"]),
    "flask-waitress": (("-c", _WAITRESS, "{fd}"), ["/stream"]),
    "flask-gunicorn-sync": ((*_GUNICORN[:-2], _FLASK), ["/stream"]),
    "flask-gunicorn-gthread": ((*_GUNICORN, "-k", "gthread", _FLASK), ["/stream"]),
    "flask-gunicorn-gevent": ((*_GUNICORN[:-2], "-k", "gevent", _FLASK), ["/stream"]),
    "django-runserver": (
        ("-m", "tests.web.app_django", "runserver", "--noreload", "{port}"),
        ["/stream", "/async"],
    ),
    "django-gunicorn-gthread": ((*_GUNICORN, "-k", "gthread", _DJANGO), ["/stream", "/async"]),
    "django-uvicorn": (
        ("-m", "uvicorn", "--fd", "{fd}", "tests.web.app_django:asgi"),
        ["/stream", "/async"],
    ),
}


class ServerProcess:
    """A web server; connections are taken from the beginning, and answered when it is up.

    Args:
        command: What Python is told.
        log: Where it writes to.
    """

    def __init__(self, command: Sequence[str], log: IO[bytes]) -> None:
        self._listens = "{fd}" in " ".join(command)
        with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
            self.address: tuple[str, int] = listener.getsockname()
            if not self._listens:  # it wants to open its own
                listener.close()
            fd, port = listener.fileno(), self.address[1]
            self._process = subprocess.Popen(
                [sys.executable, *(word.format(fd=fd, port=port) for word in command)],
                cwd=_ROOT,
                env={**os.environ, "PYTHONPATH": str(_ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
                pass_fds=[fd] if self._listens else [],
                stdout=log,
                stderr=log,
            )

    def wait(self) -> None:
        """Wait until it listens, where that is its own affair."""
        deadline = time.monotonic() + _DEADLINE_S
        while not self._listens:
            try:
                socket.create_connection(self.address).close()
            except OSError:
                assert time.monotonic() < deadline, "the server does not come up"
                time.sleep(0.02)
            else:
                return

    def end(self) -> None:
        """Tell it to end."""
        self._process.terminate()

    def join(self) -> None:
        """Wait until it has ended."""
        try:
            self._process.wait(3)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Browser:
    """One request, whose answer is read as it arrives.

    Attributes:
        response: The response; its headers are there.
        raw: The body's bytes so far.
        comments: When each comment came.
    """

    def __init__(
        self, address: tuple[str, int], path: str, *, method: str = "GET", **query: object
    ) -> None:
        self._connection = HTTPConnection(*address, timeout=_DEADLINE_S)
        self._connection.request(
            method, f"{path}?{urlencode(query)}", headers={"Accept-Encoding": "gzip, br, zstd"}
        )
        self.response: HTTPResponse = self._connection.getresponse()
        self.raw = b""
        self._decoder = SSEDecoder()
        self._events: list[ServerSentEvent] = []

    def read(self) -> bytes:
        """Wait for more of the body, and return it; nothing at its end."""
        chunk = self.response.read1(65536)
        self.raw += chunk
        return chunk

    def read_until(self, part: bytes) -> None:
        """Wait for something in the body."""
        while part not in self.raw:
            assert self.read(), f"it ended without {part!r}: {self.raw!r}"

    def event(self) -> ServerSentEvent | None:
        """Wait for the next event; return `None` at the end of the body."""
        while not self._events:
            chunk = self.read()
            if not chunk:
                return None
            self._events += self._decoder.feed(chunk)
        return self._events.pop(0)

    def rest(self) -> list[ServerSentEvent]:
        """Read to the end of the body."""
        return list(iter(self.event, None))

    def leave(self) -> None:
        """Close the connection, as a browser does whose tab is closed."""
        self.response.close()
        self._connection.close()
