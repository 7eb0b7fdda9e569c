"""A server that writes exactly the bytes that a test gives it."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from types import TracebackType

#: Writes one response body; it may block, and it may leave the body unfinished.
Body = Callable[["Connection"], None]


class Connection:
    """One accepted connection, between a request and its response."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def send(self, data: bytes) -> None:
        """Write bytes as they are."""
        self.sock.sendall(data)

    def chunk(self, data: bytes) -> None:
        """Write bytes as one HTTP chunk; none end the body."""
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def wait_closed(self) -> None:
        """Wait until the client has closed the connection."""
        with suppress(OSError):
            while self.sock.recv(65536):
                pass


class WireServer:
    """Answer each request with the next of the given responses, each a function of a `Connection`.

    Args:
        responses: What to do for each request, across connections; the last one is repeated.
        context: Makes it a TLS server.

    Attributes:
        requests: The requests' heads and bodies, as they came.
        connections: How many connections were made.
    """

    def __init__(self, *responses: Body, context: ssl.SSLContext | None = None) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self._responses = list(responses)
        self._context = context
        self._lock = threading.Lock()
        self._live: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept)

    def __enter__(self) -> WireServer:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for sock in self._live:
                with suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                if self._context is not None:
                    sock = self._context.wrap_socket(
                        sock, server_side=True, do_handshake_on_connect=False
                    )
                with self._lock:
                    self._live.add(sock)
                    self.connections += 1
                self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with sock, suppress(OSError):
            pending = b""
            while True:
                while b"\r\n\r\n" not in pending:
                    data = sock.recv(65536)
                    if not data:
                        return
                    pending += data
                head, _, pending = pending.partition(b"\r\n\r\n")
                length = next(
                    (
                        int(line.split(b":")[1])
                        for line in head.lower().split(b"\r\n")
                        if line.startswith(b"content-length:")
                    ),
                    0,
                )
                while len(pending) < length:
                    data = sock.recv(65536)
                    if not data:
                        return
                    pending += data
                with self._lock:
                    self.requests.append(head + b"\r\n\r\n" + pending[:length])
                    more = len(self._responses) > 1
                    respond = self._responses.pop(0) if more else self._responses[0]
                pending = pending[length:]
                connection = Connection(sock)
                respond(connection)
                if getattr(respond, "closes", False):
                    return


def head(status: int = 200, headers: Mapping[str, str] | None = None, *, framing: str) -> bytes:
    """Return a response's head.

    Args:
        status: The HTTP status.
        headers: The headers but for the framing's.
        framing: `chunked`, `close`, or a content length.
    """
    lines = [f"HTTP/1.1 {status} Status"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if framing == "chunked":
        lines.append("Transfer-Encoding: chunked")
    elif framing == "close":
        lines.append("Connection: close")
    else:
        lines.append(f"Content-Length: {framing}")
    return "\r\n".join([*lines, "", ""]).encode()


def stream(
    pieces: Iterable[bytes],
    *,
    framing: str = "chunked",
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    then: Body | None = None,
) -> Body:
    """Return a response that sends an event stream in the given pieces.

    Args:
        pieces: The body, cut; with `chunked` each piece is one HTTP chunk.
        framing: `chunked`, `close`, or `length`.
        status: The HTTP status.
        headers: The headers but for the framing's.
        then: What to do in place of the body's end.
    """
    cut = list(pieces)
    how = str(sum(map(len, cut))) if framing == "length" else framing

    def respond(connection: Connection) -> None:
        given = {"Content-Type": "text/event-stream", **(headers or {})}
        connection.send(head(status, given, framing=how))
        for piece in cut:
            if framing == "chunked":
                if piece:
                    connection.chunk(piece)
            else:
                connection.send(piece)
        if then is not None:
            then(connection)
        elif framing == "chunked":
            connection.chunk(b"")

    respond.closes = framing == "close" or then is not None  # type: ignore[attr-defined]
    return respond
