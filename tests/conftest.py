"""What every test proves beside its own sentence: nothing of ours outlives it."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from llm_sse.providers import PROVIDERS
from llm_sse.sync.connection import shared_session
from llm_sse.sync.observer import set_observer
from llm_sse.testing import FakeServer
from tests.helpers import FORMATS

with suppress(ModuleNotFoundError):  # the examples are tested without it
    import hypothesis  # noqa: F401 - before gc.freeze(), which hides who refers to what it looks at

_DEADLINE_S = 5.0


def pytest_collection_finish() -> None:
    """Keep the thousands of objects of imported packages out of every test's collection."""
    gc.collect()
    gc.freeze()


def _our_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("llm-sse")]


def _our_sockets() -> set[str]:
    """The process's sockets, where the system can list them."""
    sockets = set()
    try:
        descriptors = os.listdir("/proc/self/fd")
    except OSError:
        return sockets
    for descriptor in descriptors:
        try:
            target = os.readlink(f"/proc/self/fd/{descriptor}")
        except OSError:
            continue
        if target.startswith("socket:"):
            sockets.add(target)
    return sockets


@pytest.fixture(autouse=True)
def _nothing_outlives_the_test() -> Iterator[None]:
    """Fail a test that leaves a thread or a socket of ours behind."""
    before = _our_sockets()
    yield
    shared_session().close()  # pooled connections are kept on purpose
    deadline = time.monotonic() + _DEADLINE_S
    while _our_threads() or _our_sockets() - before:
        if time.monotonic() > deadline:
            pytest.fail(f"left behind: {_our_threads()} {_our_sockets() - before}")
        gc.collect()
        time.sleep(0.005)


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start every test without keys and settings in the environment."""
    for row in PROVIDERS.values():
        for name in (*row.key_env, row.model_env, row.base_url_env):
            monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _same_providers() -> Iterator[None]:
    """Forget the rows that a test has registered."""
    before = dict(PROVIDERS)
    yield
    if before != PROVIDERS:
        PROVIDERS.clear()
        PROVIDERS.update(before)


@pytest.fixture(autouse=True)
def _nobody_observes() -> Iterator[None]:
    """Forget the observer that a test, or an example of the documentation, has set."""
    yield
    set_observer(None)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A fake provider that answers as fast as it can."""
    with FakeServer() as fake:
        yield fake


@pytest.fixture(params=FORMATS)
def provider(request: pytest.FixtureRequest) -> str:
    """The name of each provider in turn."""
    name: str = request.param
    return name
