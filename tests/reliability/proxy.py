"""A forward proxy on a loopback socket, as companies have them, that remembers what it saw."""

from __future__ import annotations

import base64
import selectors
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from types import TracebackType

#: What a proxy does in place of answering a request; the connection is closed after it.
Answer = Callable[[socket.socket], None]

_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
_BYTES = 65536


class Tunnel:
    """What went through one `CONNECT`.

    Attributes:
        target: Where to, `host:port`.
        sent: What the client sent into the tunnel.
        received: What the target sent.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.sent = bytearray()
        self.received = bytearray()


class Proxy:
    """Forward absolute-form requests, and tunnel what asks for `CONNECT`.

    Args:
        credentials: `user:password`, if the proxy asks for them (Basic).
        context: Makes it a proxy that is itself spoken to over TLS.
        answer: What to do with every request instead of forwarding it.

    Attributes:
        heads: The heads of all requests that the proxy itself could read, as they came.
        tunnels: The tunnels, in the order in which they were established.
        connections: How many connections were made to the proxy.
        asked: Set when a request's head has come.
    """

    def __init__(
        self,
        *,
        credentials: str | None = None,
        context: ssl.SSLContext | None = None,
        answer: Answer | None = None,
    ) -> None:
        self.heads: list[bytes] = []
        self.tunnels: list[Tunnel] = []
        self.connections = 0
        self.asked = threading.Event()
        self._credentials = credentials
        self._context = context
        self._answer = answer
        self._lock = threading.Lock()
        self._live: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    @property
    def url(self) -> str:
        """The proxy's address, with its credentials, as it stands in an environment variable."""
        scheme = "http" if self._context is None else "https"
        user = f"{self._credentials}@" if self._credentials else ""
        return f"{scheme}://{user}localhost:{self.port}"

    @property
    def clients(self) -> int:
        """How many clients are connected at the moment."""
        with self._lock:
            return len(self._live)

    def __enter__(self) -> Proxy:
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
        self._threads[0].join()  # nobody comes in any more
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
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._live.add(sock)
                self.connections += 1
            self._start(self._serve, sock)

    def _serve(self, client: socket.socket) -> None:
        try:
            with suppress(OSError), ExitStack() as targets:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                client = self._secured(client)
                self._read_requests(client, targets)
        finally:
            with self._lock:
                self._live.discard(client)
            client.close()

    def _secured(self, client: socket.socket) -> socket.socket:
        """Return the connection, over TLS if need be; the first read makes the handshake."""
        if self._context is None:
            return client
        with self._lock:
            self._live.discard(client)
            secured = self._context.wrap_socket(
                client, server_side=True, do_handshake_on_connect=False
            )
            self._live.add(secured)
        return secured

    def _read_requests(self, client: socket.socket, targets: ExitStack) -> None:
        """Serve one client, request after request; a `CONNECT` takes the connection over."""
        pending = b""
        target: socket.socket | None = None
        address = ""
        while True:
            while b"\r\n\r\n" not in pending:
                if target is None:
                    data = client.recv(_BYTES)
                else:
                    data = _relay_until_client_speaks(client, target)
                if not data:
                    return
                pending += data
            head, _, pending = pending.partition(b"\r\n\r\n")
            with self._lock:
                self.heads.append(head)
            self.asked.set()
            if self._answer is not None:
                self._answer(client)
                return
            if not self._admits(head):
                client.sendall(refusal(407, b'Proxy-Authenticate: Basic realm="proxy"\r\n'))
                return
            method, where, _ = head.split(b"\r\n")[0].decode("latin-1").split(" ")
            absolute = method != "CONNECT"
            wanted = where.split("/")[2] if absolute else where
            if target is None or wanted != address:
                targets.close()  # of the request before, which has been answered
                try:
                    target = targets.enter_context(_dial(wanted))
                except OSError:
                    client.sendall(refusal(502))
                    return
                address = wanted
            if not absolute:
                client.sendall(_ESTABLISHED)
                self._relay(client, target, wanted)
                return
            target.sendall(_for_the_target(head))
            left = _content_length(head)
            while len(pending) < left:
                data = client.recv(_BYTES)
                if not data:
                    return
                pending += data
            target.sendall(pending[:left])
            pending = pending[left:]

    def _admits(self, head: bytes) -> bool:
        if self._credentials is None:
            return True
        token = base64.b64encode(self._credentials.encode())
        return b"\r\nproxy-authorization: basic " + token.lower() in head.lower()

    def _relay(self, client: socket.socket, target: socket.socket, where: str) -> None:
        tunnel = Tunnel(where)
        with self._lock:
            self.tunnels.append(tunnel)
        while True:
            data = _relay_until_client_speaks(client, target, tunnel.received)
            if not data:
                return
            tunnel.sent += data
            target.sendall(data)


def refusal(status: int, headers: bytes = b"", reason: bytes = b"Refused") -> bytes:
    """Return a proxy's answer to a request that it does not forward."""
    return b"HTTP/1.1 %d %s\r\n%sContent-Length: 0\r\nConnection: close\r\n\r\n" % (
        status,
        reason,
        headers,
    )


def refuse(status: int, headers: bytes = b"", reason: bytes = b"Refused") -> Answer:
    """Refuse every request."""
    return lambda client: client.sendall(refusal(status, headers, reason))


def send(data: bytes) -> Answer:
    """Write these bytes, and close."""
    return lambda client: client.sendall(data)


def hang(client: socket.socket) -> None:
    """Say nothing until the client has gone."""
    with suppress(OSError):
        while client.recv(_BYTES):
            pass


def establish_and_hang(client: socket.socket) -> None:
    """Establish a tunnel in which nobody answers."""
    client.sendall(_ESTABLISHED)
    hang(client)


def drip(data: bytes, *, every_s: float, then: bytes = b"") -> Answer:
    """Write bytes one by one; then one piece over and over, until the client has gone."""

    def answer(client: socket.socket) -> None:
        tick = threading.Event()
        for position in range(len(data)):
            client.sendall(data[position : position + 1])
            tick.wait(every_s)
        while then:
            client.sendall(then)
            tick.wait(every_s)
        hang(client)

    return answer


def flood(data: bytes, piece: bytes) -> Answer:
    """Write bytes, then one piece over and over as fast as it goes."""

    def answer(client: socket.socket) -> None:
        client.sendall(data)
        while True:
            client.sendall(piece)

    return answer


def _relay_until_client_speaks(
    client: socket.socket, target: socket.socket, copy: bytearray | None = None
) -> bytes:
    """Pass the target's bytes on until the client sends some; return those, or none at an end."""
    with selectors.DefaultSelector() as selector:
        selector.register(client, selectors.EVENT_READ)
        selector.register(target, selectors.EVENT_READ)
        while True:
            waiting = isinstance(client, ssl.SSLSocket) and client.pending()
            ready = [key.fileobj for key, _ in selector.select(0 if waiting else None)]
            if target in ready:
                data = target.recv(_BYTES)
                if not data:
                    return b""
                if copy is not None:
                    copy += data
                client.sendall(data)
            if waiting or client in ready:
                return client.recv(_BYTES)


def _dial(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    if not host:
        host, port = port, "80"
    sock = socket.create_connection((host.strip("[]"), int(port)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _for_the_target(head: bytes) -> bytes:
    """Write a request's head as the target shall see it: origin form, nothing for the proxy."""
    first, *lines = head.split(b"\r\n")
    method, url, version = first.split(b" ")
    path = b"/" + url.split(b"/", 3)[3]
    kept = [line for line in lines if not line.lower().startswith(b"proxy-")]
    return b"\r\n".join([b" ".join((method, path, version)), *kept, b"", b""])


def _content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.split(b":")[1])
    return 0
