"""A real Redis in a process of its own, which can be killed and started again."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

_DEADLINE_S = 15.0


def binary() -> str | None:
    """Return where redis-server is, if it is installed."""
    return shutil.which("redis-server")


class RedisServer:
    """A Redis on a free loopback port, which writes everything to a file.

    Args:
        folder: Where to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, and wait until it has read its file."""
        self._process = subprocess.Popen(
            [
                *(str(binary()), "--port", str(self.port), "--bind", "127.0.0.1"),
                *("--dir", str(self._folder), "--save", "", "--appendonly", "yes"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + _DEADLINE_S
        with self.client() as client:
            while True:
                try:
                    client.ping()
                except RedisConnectionError:
                    assert time.monotonic() < deadline, "redis-server does not come up"
                    time.sleep(0.02)
                else:
                    client.connection_pool.disconnect()  # old clients leave that to the collector
                    return

    def kill(self) -> None:
        """Kill it, without a word."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def lose(self) -> None:
        """Forget everything, while it is killed."""
        for written in self._folder.glob("appendonly*"):
            if written.is_dir():
                shutil.rmtree(written)
            else:
                written.unlink()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Have it take connections, and answer nobody."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def client(self, **settings: Any) -> Redis:
        """Return a client."""
        return Redis(port=self.port, **{"socket_timeout": 5, **settings})
