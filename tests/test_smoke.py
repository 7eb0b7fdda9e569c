from __future__ import annotations

from llm_sse import stream_sync
from llm_sse.testing import FakeServer


def test_a_plain_loop_prints_the_answer(server: FakeServer, provider: str) -> None:
    """Tokens come out of a plain for loop, whichever provider answers."""
    text = "".join(
        stream_sync("Hi", provider=provider, base_url=server.base_url(provider), api_key="any")
    )
    assert text.startswith("Server-sent events")
