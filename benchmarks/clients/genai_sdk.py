"""The official `google-genai` package."""

from __future__ import annotations

from collections.abc import Iterator

from google import genai
from google.genai import types

from . import Ask

__all__ = ["connect"]


def connect(url: str) -> Ask:
    """Return a function that asks with `generate_content_stream`."""
    client = genai.Client(
        api_key="none", vertexai=False, http_options=types.HttpOptions(base_url=url)
    )

    def ask(prompt: str) -> Iterator[str]:
        for chunk in client.models.generate_content_stream(model="bench", contents=prompt):
            if chunk.text:
                yield chunk.text

    return ask
