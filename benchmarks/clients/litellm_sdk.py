"""`litellm`, speaking OpenAI's format."""

from __future__ import annotations

from collections.abc import Iterator

import litellm

from . import Ask

__all__ = ["connect"]


def connect(url: str) -> Ask:
    """Return a function that asks with `completion(stream=True)`."""

    def ask(prompt: str) -> Iterator[str]:
        for chunk in litellm.completion(
            model="openai/bench",
            api_base=f"{url}/v1",
            api_key="none",
            messages=[{"role": "user", "content": prompt}],
            stream=True,
        ):
            text = chunk.choices[0].delta.content
            if text:
                yield text

    return ask
