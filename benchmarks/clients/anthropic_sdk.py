"""The official `anthropic` package, in both its ways: raw events, and `text_stream`."""

from __future__ import annotations

from collections.abc import Iterator

from anthropic import Anthropic

from . import Ask

__all__ = ["connect_raw", "connect_text"]


def connect_raw(url: str) -> Ask:
    """Return a function that asks with `create(stream=True)`, which gives events as they are."""
    client = Anthropic(base_url=url, api_key="none", max_retries=0)

    def ask(prompt: str) -> Iterator[str]:
        with client.messages.create(
            model="bench",
            max_tokens=1024,
            messages=[{"role": "user", "content": prompt}],
            stream=True,
        ) as stream:
            for event in stream:
                if event.type == "content_block_delta" and event.delta.type == "text_delta":
                    yield event.delta.text

    return ask


def connect_text(url: str) -> Ask:
    """Return a function that asks with `stream()`, which gives the text, and gathers a message."""
    client = Anthropic(base_url=url, api_key="none", max_retries=0)

    def ask(prompt: str) -> Iterator[str]:
        with client.messages.stream(
            model="bench", max_tokens=1024, messages=[{"role": "user", "content": prompt}]
        ) as stream:
            yield from stream.text_stream

    return ask
