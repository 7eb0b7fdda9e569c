"""A server for measuring clients: it sends bytes that were written beforehand, and does no more.

    python -m benchmarks.server [CERTIFICATE]

It prints its port (and the one where it speaks TLS, if it is given a file with a certificate and
its key), and then for each line of its input the processor time that it has used, in seconds. It
ends with its input. What is asked for stands in the prompt, which every client passes on unchanged;
`order()` writes it:

* `drain`: so many deltas as fast as they are taken;
* `paced`: one delta of no number at once; then, when somebody has sent `GO`, so many deltas at a
  steady pace, each of which is the time at which it was sent (`time.monotonic_ns()`);
* `event`: one delta of so many characters;
* `idle`: one delta, and then nothing.

Thread: one for each connection, and one that sends all paced deltas.
"""

from __future__ import annotations

import heapq
import re
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

from .wire import BLOCK, FORMATS, HEAD, Format, block, chunk

__all__ = ["GO", "GREETING", "order"]

#: The request that starts all paced streams that wait.
GO = b"POST /go HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
#: The text of the delta with which a paced or idle stream shows that it is open.
GREETING = "open"

_ORDER = re.compile(rb"bench (drain|paced|event|idle) (\d+) (\d+) (\d+) end")
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
#: How long after `GO` the first delta comes, in seconds.
_LEAD_S = 0.05
_STAMP_DIGITS = 19
_EVENT_PIECE_BYTES = 64 * 1024


def order(kind: str, count: int, period_us: int = 0, phase_us: int = 0) -> str:
    """Write the prompt that asks for an answer.

    Args:
        kind: Which of the module's answers.
        count: How many deltas; or, of an `event`, how many characters.
        period_us: How long after one paced delta the next one comes, in microseconds.
        phase_us: How much later than others this stream begins.
    """
    return f"bench {kind} {count} {period_us} {phase_us} end"


class _Pacer:
    """Send deltas when they are due, for all streams."""

    def __init__(self) -> None:
        self._waiting: list[_Paced] = []
        self._due: list[tuple[int, int, _Paced]] = []
        self._lock = threading.Condition()
        threading.Thread(target=self._run, daemon=True).start()

    def add(self, stream: _Paced) -> None:
        """Let a stream wait for the start."""
        with self._lock:
            self._waiting.append(stream)

    def go(self) -> None:
        """Start all that wait."""
        start_ns = time.monotonic_ns() + round(_LEAD_S * 1e9)
        with self._lock:
            for stream in self._waiting:
                heapq.heappush(self._due, (start_ns + stream.phase_ns, id(stream), stream))
            self._waiting.clear()
            self._lock.notify()

    def _run(self) -> None:
        while True:
            with self._lock:
                while not self._due:
                    self._lock.wait()
            self._send_all()

    def _send_all(self) -> None:
        due = self._due  # nobody starts more before these have ended
        while due:
            at_ns, number, stream = due[0]
            wait_ns = at_ns - time.monotonic_ns()
            if wait_ns > 0:
                time.sleep(wait_ns / 1e9)
            if stream.send():
                heapq.heapreplace(due, (at_ns + stream.period_ns, number, stream))
            else:
                heapq.heappop(due)


class _Paced:
    """One stream of stamped deltas."""

    def __init__(
        self, sock: socket.socket, format_: Format, count: int, period_us: int, phase_us: int
    ) -> None:
        self.period_ns = period_us * 1000
        self.phase_ns = phase_us * 1000
        self.over = threading.Event()
        self._sock = sock
        self._left = count
        stamped = chunk(format_.delta("S" * _STAMP_DIGITS))
        self._before, _, self._after = stamped.partition(b"S" * _STAMP_DIGITS)
        self._finish = format_.finish

    def send(self) -> bool:
        """Send the next delta; return whether there are more."""
        try:
            if self._left:
                self._left -= 1
                stamp = b"%019d" % time.monotonic_ns()
                self._sock.sendall(self._before + stamp + self._after)
                return True
            self._sock.sendall(self._finish)
        except OSError:
            pass
        self.over.set()
        return False


class _Server:
    """All connections' common things."""

    def __init__(self) -> None:
        self._blocks = {name: block(format_) for name, format_ in FORMATS.items()}
        self._pacer = _Pacer()

    def serve(self, sock: socket.socket) -> None:
        """Answer the requests of one connection."""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(OSError), sock:
            for head, body in _requests(sock):
                if b"/go " in head:
                    self._pacer.go()
                    sock.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
                    continue
                self._answer(sock, head.partition(b"\r\n")[0], body)

    def _answer(self, sock: socket.socket, line: bytes, body: bytes) -> None:
        ordered = _ORDER.search(body)
        name = next((name for name, known in FORMATS.items() if known.path in line), None)
        if ordered is None or name is None:
            sock.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return
        kind, (count, period_us, phase_us) = ordered[1], map(int, ordered.groups()[1:])
        format_ = FORMATS[name]
        sock.sendall(HEAD + format_.begin)
        if kind == b"drain":
            for _ in range(count // BLOCK):
                sock.sendall(self._blocks[name])
            rest = _first_chunks(self._blocks[name], count % BLOCK)
            sock.sendall(rest + format_.finish)
            return
        if kind == b"event":
            event = format_.delta("x" * count)
            for at in range(0, len(event), _EVENT_PIECE_BYTES):
                sock.sendall(chunk(event[at : at + _EVENT_PIECE_BYTES]))
            sock.sendall(format_.finish)
            return
        greeting = chunk(format_.delta(GREETING))
        if kind == b"idle":
            sock.sendall(greeting)
            sock.recv(1)  # until the client goes
            raise ConnectionResetError
        stream = _Paced(sock, format_, count, period_us, phase_us)
        self._pacer.add(stream)  # before the client can send `GO`
        sock.sendall(greeting)
        stream.over.wait()


def _first_chunks(data: bytes, count: int) -> bytes:
    """Return so many chunks from the beginning."""
    at = 0
    for _ in range(count):
        line = data.index(b"\r\n", at)
        at = line + 2 + int(data[at:line], 16) + 2
    return data[:at]


def _requests(sock: socket.socket) -> Iterator[tuple[bytes, bytes]]:
    """Yield the head and the body of each request."""
    got = b""
    while True:
        while b"\r\n\r\n" not in got:
            more = sock.recv(65536)
            if not more:
                return
            got += more
        head, _, got = got.partition(b"\r\n\r\n")
        found = _LENGTH.search(head)
        length = int(found[1]) if found else 0
        while len(got) < length:
            more = sock.recv(65536)
            if not more:
                return
            got += more
        yield head, got[:length]
        got = got[length:]


def _accept(server: _Server, listener: socket.socket, context: ssl.SSLContext | None) -> None:
    while True:
        sock, _ = listener.accept()
        if context is not None:
            sock = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve, args=(sock,), daemon=True).start()


def main() -> None:
    """Serve until the input ends."""
    threading.stack_size(256 * 1024)
    server = _Server()
    contexts: list[ssl.SSLContext | None] = [None]
    for certificate in sys.argv[1:]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        contexts.append(context)
    for context_or_none in contexts:
        listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
        print(listener.getsockname()[1], flush=True)
        arguments = (server, listener, context_or_none)
        threading.Thread(target=_accept, args=arguments, daemon=True).start()
    for _ in sys.stdin:
        print(time.process_time(), flush=True)


if __name__ == "__main__":
    main()
