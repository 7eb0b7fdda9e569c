"""Streams recorded from real providers, through a loopback socket, however their bytes are cut.

The recordings are not part of the project: `LLM_SSE_RECORDINGS` names a folder of them, in which
each body has a `.json` beside it that says what a correct client delivers.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from llm_sse import RetryPolicy, stream_sync
from llm_sse.completion import Completion
from llm_sse.errors import APIError, ConnectionLost, StreamError
from llm_sse.providers import PROVIDERS
from tests.wire import Body, WireServer, head, stream

_FOLDER = os.environ.get("LLM_SSE_RECORDINGS")
_FORMATS = {
    "chat": "openai",
    "responses": "openai-responses",
    "messages": "anthropic",
    "generateContent": "gemini",
    "ollama-chat": "ollama",
}
_CALL = ("id", "name", "arguments")


def _recordings() -> list[Path]:
    if not _FOLDER:
        return []
    found = sorted(Path(_FOLDER).glob("*/*.json"))
    return [path for path in found if json.loads(path.read_text())["api"] in _FORMATS]


def _cuts(body: bytes, expected: dict[str, Any]) -> list[tuple[str, list[bytes]]]:
    """Return framings and cuttings of a body: whole, as recorded, at random, byte by byte."""
    chance = random.Random(len(body))
    points = sorted(chance.choices(range(len(body) + 1), k=min(40, len(body))))
    at_random = [body[a:b] for a, b in zip([0, *points], [*points, len(body)], strict=True)]
    cuts = [("chunked", [body]), ("close", at_random), ("length", at_random)]
    if sizes := expected.get("wire_chunks"):
        recorded, position = [], 0
        for size in sizes:
            recorded.append(body[position : position + size])
            position += size
        cuts.append(("chunked", [*recorded, body[position:]]))
    if len(body) < 8192:
        cuts.append(("chunked", [body[i : i + 1] for i in range(len(body))]))
    return cuts


def _error_body(body: bytes, expected: dict[str, Any]) -> Body:
    def respond(connection: Any) -> None:
        headers = expected.get("headers") or {}
        kept = {
            k: v for k, v in headers.items() if k not in ("transfer-encoding", "content-length")
        }
        connection.send(head(expected["status"], kept, framing=str(len(body))) + body)

    return respond


def _provider(path: Path, expected: dict[str, Any]) -> str:
    """Return the row of the folder's provider, if it speaks the recording's format."""
    fallback = PROVIDERS[_FORMATS[expected["api"]]]
    row = PROVIDERS.get(path.parent.name, fallback)
    return row.name if isinstance(row, type(fallback)) else fallback.name


def _ask(
    name: str, expected: dict[str, Any], server: WireServer
) -> tuple[Completion, StreamError | None]:
    answer = stream_sync(
        "Hi",
        provider=name,
        model="recorded",
        base_url=server.url,
        api_key="recorded",
        retry=RetryPolicy(max_retries=0),
    )
    try:
        return answer.completion, None
    except StreamError as error:
        return error.completion, error


def _calls(completion: Completion) -> list[dict[str, Any]]:
    return [
        {
            "id": call.id,
            "name": call.name,
            "arguments": {"__unparsed__": call.arguments_text} if call.error else call.arguments,
        }
        for call in completion.tool_calls
    ]


@pytest.mark.skipif(not _FOLDER, reason="LLM_SSE_RECORDINGS names no folder of recordings")
@pytest.mark.parametrize("path", _recordings(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recorded_stream_is_delivered_as_its_description_says(path: Path) -> None:
    """Text, reasoning, calls, finish reason, usage and error are those of the recording."""
    expected = json.loads(path.read_text())
    body = (path.parent / expected["body_file"]).read_bytes()
    name = _provider(path, expected)
    if expected["status"] >= 400:
        responses = [_error_body(body, expected)]
    else:
        headers = {"Content-Type": PROVIDERS[name].frames().content_type}
        responses = [
            stream(cut, framing=framing, headers=headers) for framing, cut in _cuts(body, expected)
        ]
    for respond in responses:
        with WireServer(respond) as server:
            completion, error = _ask(name, expected, server)
        assert completion.text == expected["text"]
        assert completion.reasoning == expected["reasoning"]
        told = [{name: call[name] for name in _CALL} for call in expected["tool_calls"]]
        assert _calls(completion) == told
        assert completion.raw_finish_reason == expected["finish_reason"]
        assert (completion.usage.raw if completion.usage else None) == expected["usage"]
        if expected["error"] is not None:
            assert isinstance(error, APIError)
            said = expected["error"]
            assert error.body == said or error.body.get("error") == said
        elif expected["terminal_seen"]:
            assert error is None
            assert completion.finish_reason is not None
        else:
            assert isinstance(error, ConnectionLost)
            assert completion.finish_reason is None
