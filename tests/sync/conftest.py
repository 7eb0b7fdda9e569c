"""How the tests of the stream ask the fake provider."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llm_sse import TokenStream, stream_openai, stream_sync
from llm_sse.testing import FakeServer

Ask = Callable[..., TokenStream]


@pytest.fixture
def ask(server: FakeServer, provider: str) -> Ask:
    """Ask the fake provider, in each provider's format in turn."""

    def ask(prompt: str | None = "Hi", **arguments: Any) -> TokenStream:
        arguments.setdefault("base_url", server.base_url(provider))
        arguments.setdefault("api_key", "any")
        return stream_sync(prompt, provider=provider, **arguments)

    return ask


@pytest.fixture
def openai(server: FakeServer) -> Ask:
    """Ask the fake provider in OpenAI's format."""

    def ask(prompt: str | None = "Hi", **arguments: Any) -> TokenStream:
        arguments.setdefault("base_url", server.base_url("openai"))
        arguments.setdefault("api_key", "any")
        return stream_openai(prompt, **arguments)

    return ask
