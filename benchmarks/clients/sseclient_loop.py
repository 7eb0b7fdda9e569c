"""`sseclient-py` over `requests`, as its page shows it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import requests
import sseclient

from . import Ask

__all__ = ["connect"]


def connect(url: str) -> Ask:
    """Return a function that asks with `requests`, and reads with `sseclient`."""

    def ask(prompt: str) -> Iterator[str]:
        with requests.post(
            f"{url}/v1/chat/completions",
            headers={"Authorization": "Bearer none", "Accept": "text/event-stream"},
            json={
                "model": "bench",
                "messages": [{"role": "user", "content": prompt}],
                "stream": True,
            },
            stream=True,
        ) as response:
            response.raise_for_status()
            for event in sseclient.SSEClient(iter(response)).events():
                if event.data == "[DONE]":
                    break
                text = json.loads(event.data)["choices"][0]["delta"].get("content")
                if text:
                    yield text

    return ask
