"""How the tests of what can be relied on ask a fake provider."""

from __future__ import annotations

from typing import Any

from llm_sse import RetryPolicy, TokenStream, stream_sync
from llm_sse.errors import StreamError
from llm_sse.testing import FakeServer

ONCE = RetryPolicy(max_retries=0)


def ask(server: FakeServer, provider: str = "openai", **arguments: Any) -> TokenStream:
    """Ask a fake provider, once where the caller says nothing else."""
    arguments.setdefault("base_url", server.base_url(provider))
    arguments.setdefault("api_key", "any")
    arguments.setdefault("retry", ONCE)
    return stream_sync("Hi", provider=provider, **arguments)


def read(stream: TokenStream) -> tuple[list[str], StreamError | None]:
    """Read a stream to its ending: the deltas, and the error if it was one."""
    deltas: list[str] = []
    try:
        deltas.extend(stream)
    except StreamError as error:
        return deltas, error
    return deltas, None
