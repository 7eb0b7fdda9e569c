"""A network that can be cut: a TCP proxy on the loopback interface. It remembers who asked."""

from __future__ import annotations

import re
import socket
import struct
import threading
from contextlib import suppress
from types import TracebackType

_RESET = struct.pack("ii", 1, 0)
_LAST_EVENT_ID = re.compile(rb"\r\nlast-event-id: *([^\r]*)", re.IGNORECASE)


class Proxy:
    """Passes bytes on between its clients and one server, until it is told otherwise.

    Args:
        target: Where the server listens; it may be set anew, for the connections that come then.

    Attributes:
        url: Where the clients connect to, without a slash at its end.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self._requests: list[bytes] = []
        self._lock = threading.Lock()
        self._live: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._deaf = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept)

    def asked(self, path: str) -> list[str]:
        """Return the `Last-Event-ID` of each request for a path; empty where it had none."""
        with self._lock:
            heads = [head for head in self._requests if head.startswith(f"GET {path}".encode())]
        found = map(_LAST_EVENT_ID.search, heads)
        return ["" if one is None else one[1].decode() for one in found]

    def cut(self) -> None:
        """Reset every connection; new ones are taken."""
        with self._lock:
            for sock in self._live:
                with suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    sock.shutdown(socket.SHUT_RDWR)

    def fall_silent(self) -> None:
        """Pass nothing on any more on the connections that there are, and close none of them."""
        with self._lock:
            self._deaf.set()
            self._deaf = threading.Event()

    def close(self) -> None:
        """Take no more connections, and cut those that there are."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _start(self, *call: object) -> None:
        thread = threading.Thread(target=call[0], args=call[1:], daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(self.target)
                except OSError:
                    client.close()
                    continue
                with self._lock:
                    self._live |= {client, server}
                    deaf = self._deaf
                left = threading.Semaphore(2)
                self._start(self._pass_on, client, server, deaf, left, self._requests)
                self._start(self._pass_on, server, client, deaf, left)

    def _pass_on(
        self,
        source: socket.socket,
        sink: socket.socket,
        deaf: threading.Event,
        left: threading.Semaphore,
        seen: list[bytes] | None = None,
    ) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if seen is not None:  # a browser's request for an event stream comes in one piece
                    with self._lock:
                        seen.append(data)
                if not deaf.is_set():
                    sink.sendall(data)
        if not deaf.is_set():
            with suppress(OSError):
                sink.shutdown(socket.SHUT_WR)
        left.acquire()
        with self._lock:
            if not left.acquire(blocking=False):  # the other direction has ended, too
                for sock in (source, sink):
                    self._live.discard(sock)
                    sock.close()
            else:
                left.release()
