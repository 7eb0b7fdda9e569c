"""The wrappers that tutorials teach, each a few lines on top of `stream_sync`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TextIO

import msgspec

from ..errors import ConfigurationError
from ..metrics import StreamMetrics
from ..retry import RetryPolicy
from .ask import of_type, stream_sync
from .stream import TokenStream

__all__ = ["CountedStream", "measure_stream", "stream_with_count", "stream_with_retry"]


class CountedStream:
    """A stream that counts what passes.

    Attributes:
        tokens: How many text deltas have passed (as the provider cut them, not model tokens).
        chars: How many characters they have together.
        stream: The stream underneath.
    """

    def __init__(self, stream: TokenStream, file: TextIO | None) -> None:
        self.tokens = 0
        self.chars = 0
        self.stream = stream
        self._file = file

    def __iter__(self) -> Iterator[str]:
        """Yield the text deltas; print the counts after the last one."""
        for token in self.stream:
            self.tokens += 1
            self.chars += len(token)
            yield token
        gap = "\n" if self._file is None else ""
        print(f"{gap}[{self.tokens} tokens, {self.chars} chars]", file=self._file)


def stream_with_count(
    prompt: str | None = None, *, file: TextIO | None = None, **arguments: Any
) -> CountedStream:
    """Stream an answer, then print `[N tokens, M chars]`.

    Args:
        prompt: The question.
        file: Where to print; on standard output the line stands below the answer.
        arguments: Those of `stream_sync`.

    Returns:
        An iterable of text deltas, whose `tokens` and `chars` stay readable.
    """
    return CountedStream(stream_sync(prompt, **arguments), file)


def stream_with_retry(
    prompt: str | None = None, *, max_retries: int = 3, **arguments: Any
) -> TokenStream:
    """Stream an answer; after a failure, ask again or continue from the partial answer.

    Args:
        prompt: The question.
        max_retries: How often to ask again before the first token, and how often to continue
            after it, at most.
        arguments: Those of `stream_sync`; of a `retry` policy the waits are used.
    """
    policy = of_type(arguments.pop("retry", None), RetryPolicy, "retry")
    policy = msgspec.structs.replace(
        policy, max_retries=max_retries, max_resumes=max_retries, resume=True
    )
    return stream_sync(prompt, retry=policy, **arguments)


def measure_stream(source: TokenStream | str | None = None, /, **arguments: Any) -> StreamMetrics:
    """Read a stream to its end and return its pace: the figures of a single run.

    One run says next to nothing about a provider, and `runs` says that it is one; `benchmark` asks
    often enough.

    Args:
        source: A stream, or a prompt for a new one. What is read of a stream before counts, too.
        arguments: Those of `stream_sync` for a new one; with `stream=False` the figures are those
            of an answer that comes as a whole. A stream takes none.

    Returns:
        The stream's metrics, `ttft_ms`, `deltas_per_s`, `tokens_per_s` and many more.

    Raises:
        ConfigurationError: The arguments do not go together; nothing was sent.
        StreamError: What the stream ended with.
        StreamClosed: It was closed before its end: that is the pace of no answer.
    """
    if source is None:  # by name
        name = "stream" if isinstance(arguments.get("stream"), TokenStream) else "prompt"
        source = arguments.pop(name, None)
    if not isinstance(source, TokenStream):
        if "prompt" in arguments:
            raise ConfigurationError("measure_stream was given two prompts")
        source = stream_sync(source, **arguments)
    elif arguments:
        raise ConfigurationError(
            f"a stream that was opened already takes no more arguments: {', '.join(arguments)}"
        )
    del arguments  # an error that the stream ends in has this frame, which must not hold the key
    source.text()
    return source.metrics
