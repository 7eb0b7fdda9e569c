"""A TCP proxy between a browser and its site: it counts, and it cuts."""

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
    """Passes bytes on, both ways, on a free loopback port.

    Args:
        target: Where to; it may be set to another address for the connections that come then.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self._requests: list[bytes] = []
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept)

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
        self.cut()
        for thread in self._threads:
            thread.join()

    def asked(self, path: str) -> list[str]:
        """Return the `Last-Event-ID` of each request for a path; empty where it had none."""
        with self._lock:
            heads = [head for head in self._requests if head.startswith(f"GET {path}".encode())]
        found = map(_LAST_EVENT_ID.search, heads)
        return ["" if one is None else one[1].decode() for one in found]

    def cut(self) -> None:
        """Reset all connections that there are, on both sides."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for sock in pair:
                with suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    sock.shutdown(socket.SHUT_RD)  # ends the thread that waits for it

    def _start(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    site = socket.create_connection(self.target)
                except OSError:
                    client.close()
                    continue
                with self._lock:
                    self._pairs.append((client, site))
                self._start(self._serve, client, site)

    def _serve(self, client: socket.socket, site: socket.socket) -> None:
        back = threading.Thread(target=self._pass, args=(site, client), daemon=True)
        back.start()
        self._pass(client, site, self._requests)
        back.join()
        client.close()
        site.close()

    def _pass(
        self, source: socket.socket, sink: socket.socket, seen: list[bytes] | None = None
    ) -> None:
        """Pass on what comes one way until it ends; then end the other way, too."""
        with suppress(OSError):
            while data := source.recv(65536):
                if seen is not None:  # a browser's request for an event stream comes in one piece
                    with self._lock:
                        seen.append(data)
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
