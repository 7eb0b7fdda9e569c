"""The loop that tutorials show: `requests`, `iter_lines()` and `json`."""

from __future__ import annotations

import json
from collections.abc import Iterator

import requests

from . import Ask

__all__ = ["connect"]


def connect(url: str) -> Ask:
    """Return a function that asks with `requests`."""

    def ask(prompt: str) -> Iterator[str]:
        with requests.post(
            f"{url}/v1/chat/completions",
            headers={"Authorization": "Bearer none"},
            json={
                "model": "bench",
                "messages": [{"role": "user", "content": prompt}],
                "stream": True,
            },
            stream=True,
        ) as response:
            response.raise_for_status()
            for line in response.iter_lines():
                if line.startswith(b"data: "):
                    data = line[6:]
                    if data == b"[DONE]":
                        break
                    text = json.loads(data)["choices"][0]["delta"].get("content")
                    if text:
                        yield text

    return ask
