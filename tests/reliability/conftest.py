"""Both schemes, and how to see from outside that a stream's thread and its socket are gone."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from llm_sse import RetryPolicy, TokenStream, stream_sync
from llm_sse.testing import FakeServer
from tests.sync.bodies import ONCE

#: Long enough to be no limit, short enough to fail a test instead of hanging in it.
FAR_S = 30.0

ESTABLISHED, SYN_SENT = "01", "02"


@dataclass(frozen=True)
class Identity:
    """A server's certificate for this machine, and where its authority can be read.

    Attributes:
        context: For a server.
        bundle: The file that a client is told about.
    """

    context: ssl.SSLContext
    bundle: Path


@pytest.fixture(scope="session")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    """A certificate of an authority that nobody knows."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    bundle = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    return Identity(context, bundle)


@pytest.fixture
def secure(identity: Identity, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's side of TLS that the clients of this test trust."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(identity.bundle))
    return identity.context


@pytest.fixture(params=["http", "https"])
def tls(request: pytest.FixtureRequest) -> ssl.SSLContext | None:
    """What makes a server one of each scheme in turn."""
    if request.param == "http":
        return None
    context: ssl.SSLContext = request.getfixturevalue("secure")
    return context


class MachineClock:
    """How late the machine itself is: what it takes to be woken, over and above the wait.

    A bound of a quarter of a second says something about the product only where a thread that has
    nothing to do but to wake up is on time. What that thread was late is not the product's.
    """

    _TICK_S = 0.005

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._late: list[tuple[float, float]] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def late_s(self, since: float) -> float:
        """Return by how much all wake-ups since a moment were late, together."""
        return sum(late for at, late in list(self._late) if at > since)

    def close(self) -> None:
        """Stop measuring."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        begun = time.monotonic()
        while not self._stop.wait(self._TICK_S):
            now = time.monotonic()
            self._late.append((now, max(0.0, now - begun - 2 * self._TICK_S)))
            begun = now


_machine: list[MachineClock] = []


@pytest.fixture(autouse=True)
def _machine_clock() -> Iterator[None]:
    """Measure how late the machine is while a test runs."""
    _machine.append(MachineClock())
    yield
    _machine.pop().close()


def machine_late_s(since: float) -> float:
    """Return how late the machine was since a moment, in seconds."""
    return _machine[-1].late_s(since)


@pytest.fixture(params=["openai", "anthropic", "gemini"])
def provider(request: pytest.FixtureRequest) -> str:
    """The name of a provider of each kind of ending.

    Where the decoder matters, a module has all of them instead.
    """
    name: str = request.param
    return name


def ask(server: FakeServer, provider: str = "openai", **arguments: Any) -> TokenStream:
    """Ask a fake provider, once."""
    given = {"base_url": server.base_url(provider), "api_key": "any", "retry": ONCE, **arguments}
    return stream_sync("Hi", provider=provider, **given)


def retries(**policy: Any) -> RetryPolicy:
    """Say how to go on, with limits that no test reaches."""
    return RetryPolicy(**{"max_retries": 10**6, "max_backoff_s": FAR_S, **policy})


def producer_threads() -> list[threading.Thread]:
    """Return the threads that work for streams."""
    return [
        thread
        for thread in threading.enumerate()
        if thread.name.startswith("llm-sse-") and "fake" not in thread.name
    ]


def seconds_until_gone(since: float) -> float:
    """Wait for the streams' threads to end; fail if they do not.

    Returns:
        How long that took, less what the machine was late.
    """
    for thread in producer_threads():
        thread.join(5)
    took_s = time.monotonic() - since - machine_late_s(since)
    assert not producer_threads(), "a stream's thread goes on"
    return took_s


def connections(port: int, state: str = ESTABLISHED, *, to: bool = False) -> set[int]:
    """Find the connections of a local port in a state, as the system knows them.

    A client that is gone shows here although the server does not look.

    Args:
        port: The server's port.
        state: The system's number for it.
        to: Whether to look for the clients' ends instead of the server's.

    Returns:
        The ports at their other ends.
    """
    found = set()
    for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        here, there = (int(fields[i].rpartition(":")[2], 16) for i in (1, 2))
        if fields[3] == state and (there if to else here) == port:
            found.add(here if to else there)
    return found


def port_of(server: FakeServer) -> int:
    """Return where a server listens."""
    return int(server.url.rpartition(":")[2])
