"""llm-sse with everything at its default."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llm_sse import stream_sync

from . import Ask

__all__ = ["connect_anthropic", "connect_gemini", "connect_openai"]


def connect_openai(url: str, **options: Any) -> Ask:
    """Return a function that asks in OpenAI's format, with other options where some are given."""
    return _asking("openai", f"{url}/v1", **options)


def connect_anthropic(url: str) -> Ask:
    """Return a function that asks in Anthropic's format."""
    return _asking("anthropic", url)


def connect_gemini(url: str) -> Ask:
    """Return a function that asks in Gemini's format."""
    return _asking("gemini", url)


def _asking(provider: str, base_url: str, **options: Any) -> Ask:
    options |= {"provider": provider, "model": "bench", "base_url": base_url, "api_key": "none"}

    def ask(prompt: str) -> Iterator[str]:
        return iter(stream_sync(prompt, **options))

    return ask
