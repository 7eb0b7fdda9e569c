"""How the tests of the fake provider post to it, without any client of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import requests

from llm_sse.testing import FakeServer

PATHS = {
    "openai": "/v1/chat/completions",
    "anthropic": "/v1/messages",
    "gemini": "/v1beta/models/gemini-fake:streamGenerateContent?alt=sse",
}
KEYS = {
    "openai": {"Authorization": "Bearer any"},
    "anthropic": {"x-api-key": "any", "anthropic-version": "2023-06-01"},
    "gemini": {"x-goog-api-key": "any"},
}
TURN = {"role": "user", "content": "Hi"}
BODIES: dict[str, dict[str, Any]] = {
    "openai": {"model": "m", "messages": [TURN], "stream": True},
    "anthropic": {"model": "m", "messages": [TURN], "max_tokens": 9, "stream": True},
    "gemini": {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]},
}

Post = Callable[..., requests.Response]


@pytest.fixture
def post(server: FakeServer, provider: str) -> Post:
    """Post to a provider's real path; what a test leaves out is as it should be."""

    def post(**given: Any) -> requests.Response:
        body = {**BODIES[provider], **given.pop("changed", {})}
        given.setdefault("json", {name: value for name, value in body.items() if value is not None})
        if "data" in given:
            del given["json"]
        given.setdefault("headers", KEYS[provider])
        url = given.pop("server", server).url + given.pop("path", PATHS[provider])
        return requests.request(given.pop("method", "POST"), url, timeout=10, **given)

    return post
