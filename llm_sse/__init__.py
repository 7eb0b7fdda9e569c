"""Stream LLM tokens into Python code that has no event loop.

::

    from llm_sse import stream_sync

    for token in stream_sync("Explain SSE in two sentences.", provider="anthropic"):
        print(token, end="", flush=True)
"""

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
from .sync.benchmark import benchmark
from .sync.buffered import buffered
from .sync.consume import consume_stream
from .sync.reader import Timeouts
from .sync.stream import TokenStream
from .sync.tools import ToolLoop, run_tools
from .sync.wrappers import measure_stream, stream_with_count, stream_with_retry

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
