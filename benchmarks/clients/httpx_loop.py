"""`httpx-sse` over `httpx`, as its page shows it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import httpx_sse

from . import Ask

__all__ = ["connect"]


def connect(url: str) -> Ask:
    """Return a function that asks with `httpx`, and reads with `httpx_sse`."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
    client = httpx.Client(
        headers={"Authorization": "Bearer none"}, timeout=600, limits=limits, trust_env=False
    )

    def ask(prompt: str) -> Iterator[str]:
        with httpx_sse.connect_sse(
            client,
            "POST",
            f"{url}/v1/chat/completions",
            json={
                "model": "bench",
                "messages": [{"role": "user", "content": prompt}],
                "stream": True,
            },
        ) as source:
            source.response.raise_for_status()
            for event in source.iter_sse():
                if event.data == "[DONE]":
                    break
                text = event.json()["choices"][0]["delta"].get("content")
                if text:
                    yield text

    return ask
