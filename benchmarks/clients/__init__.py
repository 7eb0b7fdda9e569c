"""The contestants: each module reads an answer as its library's own documentation shows.

A module is imported in a process of its own, which no other contestant shares, so that nobody pays
for another's imports. `connect(url)` makes what an application makes once; what it returns asks one
question, and yields the answer's text, delta by delta.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import NamedTuple

__all__ = ["ALL", "FLOOR_IN_THREAD", "Ask", "Client", "find"]

#: Ask a question; yield the deltas of the answer.
Ask = Callable[[str], "Iterator[str] | Generator[str, None, None]"]


#: The floor with one thing more: the thread that whoever can be interrupted needs.
FLOOR_IN_THREAD = "floor-2-threads"


class Client(NamedTuple):
    """One contestant.

    Attributes:
        name: What it is called in tables, and at `--clients`.
        module: Its module here.
        connect: The function in it.
        imports: What whoever uses it imports.
        distribution: What that comes with, for its version; empty for the standard library.
        format: The wire format that it speaks.
        share: How much of a drained answer it is given, where the whole would take too long.
    """

    name: str
    module: str
    connect: str
    imports: str
    distribution: str
    format: str
    share: float = 1.0


def find(name: str) -> Client:
    """Return the contestant of a name.

    Raises:
        ValueError: There is none.
    """
    for client in ALL:
        if client.name == name:
            return client
    raise ValueError(f"no contestant {name!r}; there are {', '.join(c.name for c in ALL)}")


ALL = (
    Client("floor", "floor", "connect", "msgspec", "msgspec", "openai"),
    Client(FLOOR_IN_THREAD, "floor", "connect_in_thread", "msgspec", "msgspec", "openai"),
    Client("llm-sse", "ours", "connect_openai", "llm_sse", "llm-sse", "openai"),
    Client("llm-sse-anthropic", "ours", "connect_anthropic", "llm_sse", "llm-sse", "anthropic"),
    Client("llm-sse-gemini", "ours", "connect_gemini", "llm_sse", "llm-sse", "gemini"),
    Client("tutorial", "tutorial", "connect", "requests", "requests", "openai"),
    Client(
        *("sseclient-py", "sseclient_loop", "connect"),
        *("requests, sseclient", "sseclient-py", "openai"),
    ),
    Client("httpx-sse", "httpx_loop", "connect", "httpx_sse", "httpx-sse", "openai"),
    Client("openai", "openai_sdk", "connect", "openai", "openai", "openai"),
    Client("anthropic-raw", "anthropic_sdk", "connect_raw", "anthropic", "anthropic", "anthropic"),
    Client("anthropic", "anthropic_sdk", "connect_text", "anthropic", "anthropic", "anthropic"),
    Client("google-genai", "genai_sdk", "connect", "google.genai", "google-genai", "gemini", 0.25),
    Client("litellm", "litellm_sdk", "connect", "litellm", "litellm", "openai", 0.1),
)
