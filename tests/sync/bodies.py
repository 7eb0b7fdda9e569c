"""Bytes of a body in OpenAI's format, and a question to whoever sends them."""

from __future__ import annotations

import threading

from llm_sse import RetryPolicy, TokenStream, stream_openai

ONE = b'data: {"choices":[{"delta":{"content":"one"}}]}\n\n'
END = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
ONCE = RetryPolicy(max_retries=0)


def ask_openai(url: str, **arguments: object) -> TokenStream:
    """Ask whoever listens at a URL, once."""
    given = {"base_url": url, "api_key": "any", "retry": ONCE, **arguments}
    return stream_openai("Hi", **given)


def producers() -> list[str]:
    """Return the names of the threads that read a network."""
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("llm-sse-") and "fake" not in name]
