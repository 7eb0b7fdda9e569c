"""Other people's clients, in Python, on our views, while the model pauses in its answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import flask
import httpx
import httpx_sse
import openai
import pytest

from llm_sse import stream_sync
from llm_sse.web.app import Site, Target
from llm_sse.web.flask import sse_response
from llm_sse.web.replay import MemoryReplay
from tests.web.live import WORDS, Pausing, Provider, serving

pytestmark = pytest.mark.sdk

_SAID = "".join(f"w{number} " for number in range(WORDS))
_MESSAGES: Any = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def provider() -> Iterator[Provider]:
    """A provider that says a word whenever it is told to."""
    with Provider() as provider:
        yield provider


@pytest.fixture
def url(request: pytest.FixtureRequest, provider: Provider) -> Iterator[str]:
    """A Flask site, whose views keep their streams or do not; or what `llm-sse serve` serves."""
    if request.param == "serve":
        asked = {"provider": "openai", "base_url": provider.url, "api_key": "any"}
        app, path = Site([Target("openai", "m", asked)], heartbeat_s=0.1).app, "/v1"
    else:
        app, path = _flask_site(provider, {"replay": MemoryReplay(), "key": "ann"}), ""
        if request.param == "view":
            app = _flask_site(provider, {})
    Pausing(app, provider)
    with serving(app) as url:
        yield url + path


def _flask_site(provider: Provider, kept: dict[str, Any]) -> flask.Flask:
    app = flask.Flask(__name__)

    @app.post("/<format>")
    @app.post("/<format>/chat/completions")
    def stream(format: str) -> flask.Response:
        return sse_response(
            lambda: stream_sync("Hi", base_url=provider.url, api_key="any"),
            format=format,
            heartbeat_s=0.1,
            **kept,
        )

    return app


class TestOpenAI:
    @pytest.mark.parametrize("url", ["view", "kept", "serve"], indirect=True)
    def test_reads_over_heartbeats(self, url: str) -> None:
        """Those before the answer and those in it are no chunks, whether chunks have ids or not."""
        base_url = url if url.endswith("/v1") else f"{url}/openai"
        with (
            openai.OpenAI(base_url=base_url, api_key="any", max_retries=0) as sdk,
            sdk.chat.completions.create(model="m", messages=_MESSAGES, stream=True) as chunks,
        ):
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == _SAID


class TestHttpxSSE:
    @pytest.mark.parametrize("format", ["tokens", "events", "openai", "ui-message"])
    @pytest.mark.parametrize("url", ["view", "kept"], indirect=True)
    def test_reads_over_heartbeats(self, url: str, format: str) -> None:
        """Every event has data, and all data is JSON, but for the last one's."""
        with (
            httpx.Client(timeout=30) as client,
            httpx_sse.connect_sse(client, "POST", f"{url}/{format}") as source,
        ):
            *told, last = [event.data for event in source.iter_sse()]
        assert last == "[DONE]"
        said = json.dumps([json.loads(data) for data in told])
        assert all(f"w{number} " in said for number in range(WORDS))
