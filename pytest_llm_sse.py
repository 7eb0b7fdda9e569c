"""The pytest fixture `fake_llm`: code under test talks to a fake provider, without a change.

A module of its own, and not one of the package: pytest imports its plugins in every run, wherever
they are installed, and whoever imports a part of `llm_sse` imports its root. So nothing but this
file is imported before a test asks for the fixture, and the coverage of `llm_sse` can be measured.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from llm_sse.providers import Provider
    from llm_sse.testing import FakeServer

__all__ = ["fake_llm"]

_KEY = "fake-key"
_LOOPBACK = "127.0.0.1"
#: The settings that say what is answered: there is one of them.
_ANSWERS = ("text", "script", "replay")
#: What else the vendors' SDKs read: credentials beside the key, and switches that lead elsewhere.
_OTHERS = (
    "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_CUSTOM_HEADERS",
    "AZURE_OPENAI_AD_TOKEN",
    "GOOGLE_GENAI_ACCESS_TOKEN",
    "GOOGLE_GENAI_API_KEY",
    "GOOGLE_GENAI_DEFAULT_HEADERS",
    "GOOGLE_GENAI_USE_ENTERPRISE",
    "GOOGLE_GENAI_USE_VERTEXAI",
    "OPENAI_ADMIN_KEY",
    "OPENAI_API_TYPE",
    "OPENAI_CUSTOM_HEADERS",
    "OPENAI_ORG_ID",
    "OPENAI_PROJECT_ID",
)


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
    from llm_sse.errors import ConfigurationError  # noqa: PLC0415
    from llm_sse.providers import find_provider, provider_names  # noqa: PLC0415
    from llm_sse.sync import ask  # noqa: PLC0415
    from llm_sse.sync.connection import shared_session  # noqa: PLC0415
    from llm_sse.testing import FakeServer  # noqa: PLC0415

    with FakeServer(**_settings(request.node)) as server:
        for name in _OTHERS:
            monkeypatch.delenv(name, raising=False)
        redirection = _Redirection(server, monkeypatch)
        for name in provider_names():
            with suppress(ConfigurationError):  # it cannot be loaded, so nobody can ask it
                redirection.of(find_provider(name))
        # Rows that the test registers, or that were replaced, are met when they are asked.
        monkeypatch.setattr(ask, "find_provider", lambda name: redirection.of(find_provider(name)))
        for name in ("NO_PROXY", "no_proxy"):
            others = os.environ.get(name)
            monkeypatch.setenv(name, f"{others},{_LOOPBACK}" if others else _LOOPBACK)
        yield server
        shared_session().close()  # nothing that is idle outlives its server


class _Redirection:
    """Lets the environment's keys and addresses lead to a server, row by row.

    What the test itself has set meanwhile stays. Where rows share a variable the first one counts.

    Thread: may be asked from any.
    """

    def __init__(self, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self._server = server
        self._monkeypatch = monkeypatch
        self._before = dict(os.environ)
        self._lock = threading.Lock()
        self._done: dict[int, Provider] = {}
        self._addresses: dict[str, str] = {}

    def of(self, row: Provider) -> Provider:
        """Return the row, when its variables lead to the server."""
        with self._lock:
            if id(row) not in self._done:
                self._done[id(row)] = row  # held, so that no other gets its id
                self._redirect(row)
        return row

    def _redirect(self, row: Provider) -> None:
        for name in (*row.key_env, row.model_env):
            if self._is_as_before(name):
                self._monkeypatch.delenv(name, raising=False)
        if not any(name in os.environ for name in row.key_env):
            self._monkeypatch.setenv(row.key_env[0], _KEY)
        found = os.environ.get(row.base_url_env)
        # A row that takes another's place may have another address on the server.
        if self._is_as_before(row.base_url_env) or found == self._addresses.get(row.name):
            self._addresses[row.name] = self._server.base_url(row.name)
            self._monkeypatch.setenv(row.base_url_env, self._addresses[row.name])

    def _is_as_before(self, name: str) -> bool:
        return os.environ.get(name) == self._before.get(name)


def _settings(test: pytest.Item) -> dict[str, Any]:
    """Return what the markers say, of which the closest to the test wins."""
    settings: dict[str, Any] = {}
    for marker in test.iter_markers("fake_llm"):  # the closest comes first
        if marker.args:
            pytest.fail("fake_llm's settings need names: @pytest.mark.fake_llm(text='Hi')", False)
        further = dict(marker.kwargs)
        if any(name in settings for name in _ANSWERS):
            for name in _ANSWERS:
                further.pop(name, None)
        settings = {**further, **settings}
    if "replay" in settings:
        settings["replay"] = _beside(test.path, settings["replay"])
    return settings


def _beside(test: Path, replay: Any) -> Any:
    """Return a recording's path, or those of several, as seen from the test's folder."""
    if isinstance(replay, (list, tuple)):
        return [_beside(test, one) for one in replay]
    return test.parent / replay if isinstance(replay, (str, os.PathLike)) else replay
