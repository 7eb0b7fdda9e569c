"""Stream LLM tokens into Python code that has no event loop.

::

    from llm_sse import stream_sync

    for token in stream_sync("Explain SSE in two sentences.", provider="anthropic"):
        print(token, end="", flush=True)
"""

from typing import TYPE_CHECKING, Any

from . import errors, events
from ._version import __version__
from .chat import Message, Tool
from .completion import Completion
from .errors import StreamError
from .media import file_part, image_part
from .metrics import StreamMetrics
from .providers import register_provider
from .rate_limit import RateLimit
from .retry import RetryPolicy
from .sync.ask import (
    complete_sync,
    stream_anthropic,
    stream_gemini,
    stream_ollama,
    stream_openai,
    stream_sync,
)
from .sync.buffered import buffered
from .sync.reader import Timeouts
from .sync.stream import TokenStream
from .sync.wrappers import measure_stream, stream_with_count, stream_with_retry

if TYPE_CHECKING:
    from .sync.benchmark import benchmark
    from .sync.consume import consume_stream
    from .sync.tools import ToolLoop, run_tools

__all__ = [
    "Completion",
    "Message",
    "RateLimit",
    "RetryPolicy",
    "StreamError",
    "StreamMetrics",
    "Timeouts",
    "TokenStream",
    "Tool",
    "ToolLoop",
    "__version__",
    "benchmark",
    "buffered",
    "complete_sync",
    "consume_stream",
    "errors",
    "events",
    "file_part",
    "image_part",
    "measure_stream",
    "register_provider",
    "run_tools",
    "stream_anthropic",
    "stream_gemini",
    "stream_ollama",
    "stream_openai",
    "stream_sync",
    "stream_with_count",
    "stream_with_retry",
]

#: What most programs do not use is imported when it is asked for.
_LATER = {
    "ToolLoop": "tools",
    "benchmark": "benchmark",
    "consume_stream": "consume",
    "run_tools": "tools",
}


def __getattr__(name: str) -> Any:
    """Import one of the names that are imported late."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415  # only needed here

    return getattr(import_module(f".sync.{_LATER[name]}", __name__), name)


def __dir__() -> list[str]:
    """Return the names that are there, those that are imported late included."""
    return sorted({*globals(), *_LATER})
