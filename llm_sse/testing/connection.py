"""One connection of the fake provider: requests in, answers out, and a client that may go."""

from __future__ import annotations

import http
import os
import re
import select
import selectors
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

try:
    import fcntl
    import termios
except ImportError:  # not on every system
    termios = None  # type: ignore[assignment]

from ..errors import APIError, InvalidRequestError
from ..providers import FORMATS, PROVIDERS, Provider
from ..providers.base import Accepted
from ..sync.connection import close_unnamed
from .actions import Action, Hang, HangUp, Page, Status
from .record import RecordedRequest
from .replay import Playback
from .reply import Farewell, Reply
from .whole import WholeReply

if TYPE_CHECKING:
    from .server import FakeServer

__all__ = ["Disconnected", "Handler", "close_socket", "gone", "secured"]

_MAX_BODY_BYTES = 64 * 1024 * 1024
#: How long what was written may take to arrive before a reset, in seconds.
_ARRIVAL_S = 1.0
#: The longest wait that every system takes, in seconds.
_LONGEST_S = 1_000_000.0


class Disconnected(Exception):
    """The client has closed the connection, or the server closes."""


def gone(sock: socket.socket, seconds: float | None, closing: threading.Event) -> bool:
    """Wait; return before that, and true, when the other side has closed the connection.

    Bytes that arrive meanwhile (the next request, or what TLS says) are left alone, and are no end.

    Args:
        sock: The connection; over TLS, too.
        seconds: How long; `None` is for ever.
        closing: Is set when the server closes, which also shuts the connection down.
    """
    seconds = None if seconds is None else min(seconds, _LONGEST_S)
    if hasattr(select, "POLLRDHUP"):
        poll = select.poll()
        poll.register(sock, select.POLLRDHUP)
        return bool(poll.poll(None if seconds is None else seconds * 1000))
    until = None if seconds is None else time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        if not selector.select(seconds):
            return False
    # SSLSocket's own recv knows no flags.
    if not socket.socket.recv(sock, 1, socket.MSG_PEEK):
        return True
    # Here the end cannot be seen behind bytes that nobody reads.
    return closing.wait(None if until is None else max(0.0, until - time.monotonic()))


def secured(sock: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Take a connection over for TLS, without the handshake.

    Raises:
        OSError: The client has gone; the connection is closed.
    """
    try:
        return context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
    except OSError as error:
        close_unnamed(error)
        raise


def close_socket(sock: socket.socket, how: Farewell) -> None:
    """Close a connection.

    Args:
        sock: The connection.
        how: With `polite`, TLS says that all was said; a `reset` comes after what was written,
            where the system tells when that has arrived.
    """
    with suppress(OSError):
        if how == "reset":
            _wait_for_arrival(sock)
            form = "hh" if os.name == "nt" else "ii"
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack(form, 1, 0))
        else:
            if how == "polite" and isinstance(sock, ssl.SSLSocket):
                sock.settimeout(0)  # the client's answer to it is not waited for
                with suppress(OSError, ValueError):
                    sock.unwrap()
            socket.socket.shutdown(sock, socket.SHUT_WR)
    sock.close()


def _wait_for_arrival(sock: socket.socket) -> None:
    """Wait until the other side's system has all that was written: a reset throws the rest away."""
    deadline = time.monotonic() + _ARRIVAL_S
    while termios is not None and time.monotonic() < deadline:
        left = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0" * 4)
        if not int.from_bytes(left, sys.byteorder):
            return
        time.sleep(0.001)


class Handler(BaseHTTPRequestHandler):
    """One connection, request after request.

    Args:
        sock: The connection; who made it closes it.
        fake: The server.
        number: Which connection of the server's it is.

    Attributes:
        farewell: How the connection is to be closed.
    """

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    connection: socket.socket

    def __init__(self, sock: socket.socket, fake: FakeServer, number: int) -> None:
        # The base class serves the connection in here, when nobody can ask the handler anything.
        self.request = sock
        self.client_address = ("127.0.0.1", 0)
        self.farewell: Farewell = "polite"
        self._fake = fake
        self._number = number

    def run(self) -> None:
        """Serve the connection to its end."""
        self.setup()
        try:
            self.handle()
        finally:
            with suppress(OSError):
                self.finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a test's output is the test's."""

    def do_POST(self) -> None:
        """Answer a request; what is no POST is refused."""
        self._serve()

    do_GET = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = do_POST

    # --- what an answer needs ---

    def send(self, data: bytes) -> None:
        """Write bytes as they are."""
        self.connection.sendall(data)

    def send_head(
        self, headers: Mapping[str, str], drip_s: float | None = None, *, status: int = 200
    ) -> None:
        """Send a status and headers; byte by byte, if `drip_s` is a number.

        What the headers do not say of the server and the date is added.
        """
        given = {name.lower() for name in headers}
        added = {"Server": self.version_string(), "Date": self.date_time_string()}
        phrase = http.HTTPStatus(status).phrase if status in self.responses else ""
        lines = [
            f"HTTP/1.1 {status} {phrase}",
            *(f"{name}: {value}" for name, value in added.items() if name.lower() not in given),
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")
        if drip_s is None:
            self.send(head)
            return
        for position in range(len(head)):
            self.send(head[position : position + 1])
            self.wait(drip_s)

    def wait(self, seconds: float | None) -> None:
        """Sleep, for ever with `None`, unless the client goes away.

        Raises:
            Disconnected: It has.
        """
        if (seconds is None or seconds > 0) and gone(self.connection, seconds, self._fake._closing):
            raise Disconnected

    def hang_up(self, how: Farewell) -> None:
        """Close the connection when the answer has been played."""
        self.close_connection = True
        self.farewell = how

    # --- a request ---

    def _serve(self) -> None:
        fake = self._fake
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self._read_body(headers)
        if body is None:
            return
        recorded = RecordedRequest(self.command, self.path, headers, body, self._number)
        provider, path = _provider_at(recorded.path)
        recorded.provider = provider.name if provider is not None else None
        number = fake._record(recorded)
        try:
            try:
                if fake._replay is not None and provider is None and recorded.method != "POST":
                    playback: Playback | None = fake._taken_up(self, recorded)
                else:
                    accepted = self._accept(recorded, provider, path)
                    assert provider is not None
                    playback = fake._played(self, recorded, provider, accepted)
            except APIError as error:
                self._refuse(recorded, provider, error)
            else:
                if playback is not None:
                    playback.play()
                else:
                    assert provider is not None
                    self._answer(recorded, provider, accepted, number)
        except (OSError, Disconnected):
            recorded.end("disconnected")
            self.close_connection = True
        finally:
            recorded.end("cut")  # it has ended somehow, and nobody shall wait for it
        if fake.close_after:
            self.close_connection = True

    def _answer(
        self, recorded: RecordedRequest, provider: Provider, accepted: Accepted, number: int
    ) -> None:
        fake = self._fake
        try:
            actions = fake._actions_for(recorded)
        except Exception as error:  # the caller's own function; what it says goes to the client
            self._refuse(recorded, provider, provider.api_error(500, f"the script failed: {error}"))
            return
        only: Action | None = actions[0] if len(actions) == 1 else None
        if isinstance(only, Status):
            refusal = provider.api_error(only.status, only.message, code=only.code)
            self._refuse(recorded, provider, refusal, only.headers)
        elif isinstance(only, Page):
            self._send_whole(recorded, only.status, only.body, {"Content-Type": only.content_type})
        elif isinstance(only, Hang):
            self.wait(None)
        elif isinstance(only, HangUp):
            recorded.end("cut")  # before the client can see the end, and look
            self.hang_up("reset" if only.reset else "abrupt")
        else:
            kind = Reply if accepted.stream else WholeReply
            try:
                kind(self, recorded, provider, accepted, number).play(
                    actions, fake._pace, fake.framing
                )
            except APIError as error:
                self._refuse(recorded, provider, error)

    def _read_body(self, headers: Mapping[str, str]) -> bytes | None:
        """Return the request's body; `None` where it cannot be read and the connection must end."""
        length = headers.get("content-length", "0")
        if (
            "transfer-encoding" in headers
            or not length.isdecimal()
            or int(length) > _MAX_BODY_BYTES
        ):
            self.close_connection = True
            self.send_error(411 if "transfer-encoding" in headers else 413)
            return None
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            self.close_connection = True
            return None
        return body

    def _accept(self, recorded: RecordedRequest, provider: Provider | None, path: str) -> Accepted:
        if provider is None:
            raise InvalidRequestError(
                "", status=404, detail=f"Unknown request URL: {recorded.method} {recorded.path}"
            )
        if recorded.method not in provider.methods:
            use = " or ".join(provider.methods)
            raise provider.api_error(405, f"{recorded.method} is not allowed here; use {use}")
        asked = recorded.query.encode() if recorded.method == "GET" else recorded.body
        return provider.accept(path, recorded.headers, asked)

    def _refuse(
        self,
        recorded: RecordedRequest,
        provider: Provider | None,
        error: APIError,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        row = provider or PROVIDERS["openai"]
        allowed = {"Allow": ", ".join(row.methods)} if error.status == 405 else {}
        self._send_whole(
            recorded,
            error.status,
            row.error_body(error),
            {"Content-Type": "application/json", **allowed, **(headers or {})},
        )

    def _send_whole(
        self, recorded: RecordedRequest, status: int, body: bytes, headers: Mapping[str, str]
    ) -> None:
        recorded.end("refused")  # before the client can see the end, and look
        self.send_head(
            {
                "Content-Length": str(len(body)),
                "X-Request-Id": f"req_fake_{id(recorded):x}",
                **headers,
            },
            status=status,
        )
        if recorded.method != "HEAD":
            self.send(body)


def _provider_at(path: str) -> tuple[Provider | None, str]:
    """Return whose endpoint a path is, and the path that it has at the format's own server."""
    for name in FORMATS:
        if _listens(PROVIDERS[name], path):
            return PROVIDERS[name], path
    name, _, rest = path[1:].partition("/")
    row = PROVIDERS.get(name)
    if row is None:
        return None, path
    rest = f"/{rest}"
    if row.base_url_suffix and rest.startswith(row.base_url_suffix):
        rest = row.root + rest[len(row.base_url_suffix) :]
    return (row, rest) if _listens(row, rest) else (None, path)


def _listens(row: Provider, path: str) -> bool:
    return any(re.fullmatch(pattern, path) for pattern in row.paths)
