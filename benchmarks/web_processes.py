"""Real web servers, each in a process of its own on the loopback interface.

The sites that they serve are those of the tests, `tests.web.app_flask` and `tests.web.app_django`:
all middleware that could keep a token back is on there.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import IO, Literal, NamedTuple
from urllib.parse import urlencode

from llm_sse.sse import ServerSentEvent, SSEDecoder

__all__ = ["DEADLINE_S", "SERVERS", "Address", "Browser", "Protocol", "Server", "ServerProcess"]

#: What a server is asked in.
Protocol = Literal["HTTP/1.0", "HTTP/1.1", "uwsgi"]
Address = tuple[str, int]

#: How long a server may take to come up, or to answer, in seconds.
DEADLINE_S = 50.0

_ROOT = Path(__file__).parent.parent
_FLASK = "tests.web.app_flask:app"
_DJANGO = "tests.web.app_django:application"
_GUNICORN = ("-m", "gunicorn", "-b", "fd://{fd}")
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
_UWSGI = (
    *("-c", "import sys, pyuwsgi; pyuwsgi.run(sys.argv[1:])"),
    *("--die-on-term", "--enable-threads", "--module", _FLASK),
)


class Server(NamedTuple):
    """How a web server is started.

    Attributes:
        command: What Python is told; `{fd}` is a socket that listens already, `{port}` a free port.
        views: The paths of the views.
        protocols: What it can be asked in; a browser speaks HTTP/1.1.
    """

    command: Sequence[str]
    views: Sequence[str] = ("/stream",)
    protocols: Sequence[Protocol] = ("HTTP/1.1", "HTTP/1.0")


SERVERS: dict[str, Server] = {
    "flask-werkzeug": Server(("-c", _WERKZEUG, "{fd}")),
    "flask-waitress": Server(("-c", _WAITRESS, "{fd}")),
    "flask-gunicorn-sync": Server((*_GUNICORN, "--preload", "-w", "4", _FLASK)),
    "flask-gunicorn-gthread": Server((*_GUNICORN, "--threads", "4", "-k", "gthread", _FLASK)),
    "flask-gunicorn-gevent": Server((*_GUNICORN, "-k", "gevent", _FLASK)),
    "flask-uwsgi": Server((*_UWSGI, "--threads", "4", "--http-socket", "fd://{fd}")),
    "flask-uwsgi-gevent": Server(
        (*_UWSGI, "--gevent", "100", "--gevent-early-monkey-patch", "--http-socket", "fd://{fd}")
    ),
    "flask-uwsgi-router": Server(
        (
            *(*_UWSGI, "--threads", "4", "--master", "--http", "127.0.0.1:{port}"),
            *("--http-keepalive", "--http-auto-chunked"),
        )
    ),
    "flask-uwsgi-socket": Server(
        (*_UWSGI, "--threads", "4", "--uwsgi-socket", "fd://{fd}"), protocols=("uwsgi",)
    ),
    "django-runserver": Server(
        ("-m", "tests.web.app_django", "runserver", "--noreload", "{port}"), ("/stream", "/async")
    ),
    "django-gunicorn-gthread": Server(
        (*_GUNICORN, "--threads", "4", "-k", "gthread", _DJANGO), ("/stream", "/async")
    ),
    "django-uvicorn": Server(
        ("-m", "uvicorn", "--fd", "{fd}", "tests.web.app_django:asgi"), ("/stream", "/async")
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
            self.address: Address = listener.getsockname()
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
        deadline = time.monotonic() + DEADLINE_S
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

    def kill(self) -> None:
        """Kill it, without a word."""
        self._process.kill()
        self._process.wait()

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
    """

    def __init__(
        self, address: Address, path: str, method: str = "GET", /, **query: object
    ) -> None:
        self._connection = HTTPConnection(*address, timeout=DEADLINE_S)
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
