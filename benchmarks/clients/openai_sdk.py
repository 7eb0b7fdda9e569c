"""The official `openai` package: Chat Completions with `stream=True`."""

from __future__ import annotations

from collections.abc import Iterator

from openai import OpenAI

from . import Ask

__all__ = ["connect"]


def connect(url: str) -> Ask:
    """Return a function that asks with `OpenAI`."""
    client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)

    def ask(prompt: str) -> Iterator[str]:
        with client.chat.completions.create(
            model="bench", messages=[{"role": "user", "content": prompt}], stream=True
        ) as stream:
            for chunk in stream:
                text = chunk.choices[0].delta.content
                if text:
                    yield text

    return ask
