"""The pytest fixture `fake_llm`: code under test talks to a fake provider, without a change.

A module of its own, and not one of the package: pytest imports its plugins in every run, wherever
they are installed, and whoever imports a part of `llm_sse` imports its root. So nothing but this
file is imported before a test asks for the fixture, and the coverage of `llm_sse` can be measured.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from llm_sse.testing import FakeServer

__all__ = ["fake_llm"]

_KEY = "fake-key"
_LOOPBACK = "127.0.0.1"


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known, so that nobody is warned of it."""
    config.addinivalue_line(
        "markers", "fake_llm(**settings): settings for the fixture fake_llm, those of FakeServer"
    )


@pytest.fixture
def fake_llm(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeServer]:
    """A fake provider that every provider's key and address in the environment point to.

    It is a `llm_sse.testing.FakeServer`: `fake_llm.script(say("Hi"))` says what it answers, and
    `fake_llm.requests` what it was asked. `@pytest.mark.fake_llm(tokens_per_s=50)` gives it other
    settings. Keys of real providers are out of the environment as long as the test runs.
    """
    # Only here: see above.
    from llm_sse.providers import PROVIDERS  # noqa: PLC0415
    from llm_sse.sync.transport import shared_session  # noqa: PLC0415
    from llm_sse.testing import FakeServer  # noqa: PLC0415

    marker = request.node.get_closest_marker("fake_llm")
    settings = marker.kwargs if marker is not None else {}
    if marker is not None and marker.args:
        pytest.fail("fake_llm's settings need names: @pytest.mark.fake_llm(text='Hi')", False)
    rows = PROVIDERS.values()
    with FakeServer(**settings) as server:
        for row in rows:
            for name in (*row.key_env, row.model_env):
                monkeypatch.delenv(name, raising=False)
        for row in reversed(rows):  # where rows share a variable the first one counts
            monkeypatch.setenv(row.base_url_env, server.base_url(row.name))
            monkeypatch.setenv(row.key_env[0], _KEY)
        for name in ("NO_PROXY", "no_proxy"):
            others = os.environ.get(name)
            monkeypatch.setenv(name, f"{others},{_LOOPBACK}" if others else _LOOPBACK)
        yield server
        shared_session().close()  # nothing that is idle outlives its server
