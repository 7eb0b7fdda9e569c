"""What a stream's pace was, measured where its reader stands."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from .completion import Completion

__all__ = ["MetricsRecorder", "StreamMetrics"]


class StreamMetrics(Struct, frozen=True, kw_only=True):
    """The pace of one stream, from the call of `stream_sync` on.

    A delta is a piece of text as the provider cut it, not a model token; only the provider's usage
    counts tokens.

    Attributes:
        ttft_ms: Time to the first visible text, in milliseconds; `None` before it.
        total_s: Time to the end of the stream (or to now, while it runs), in seconds.
        deltas: How many text deltas were delivered.
        deltas_per_s: Their rate after the first one; `None` below two deltas.
        tokens_per_s: Output tokens by the provider's usage, over `total_s`; `None` without usage.
        output_tokens: Output tokens by the provider's usage.
    """

    ttft_ms: float | None = None
    total_s: float = 0.0
    deltas: int = 0
    deltas_per_s: float | None = None
    tokens_per_s: float | None = None
    output_tokens: int | None = None


class MetricsRecorder:
    """Note when things happen to a stream.

    Args:
        clock: A monotonic clock in seconds.
        started: When the stream began by that clock; `None` means now.

    Attributes:
        clock: The clock.
        started: When the stream began.
    """

    def __init__(self, clock: Callable[[], float], started: float | None = None) -> None:
        self.clock = clock
        self.started = clock() if started is None else started
        self._first: float | None = None
        self._last = self.started
        self._ended: float | None = None

    def delta(self) -> None:
        """Note that a text delta was delivered."""
        self._last = self.clock()
        if self._first is None:
            self._first = self._last

    def end(self) -> None:
        """Note that the stream has ended; only the first call counts."""
        if self._ended is None:
            self._ended = self.clock()

    def metrics(self, deltas: int, completion: Completion) -> StreamMetrics:
        """Return the figures.

        Args:
            deltas: How many text deltas were delivered.
            completion: What was said, for the provider's token counts.
        """
        total_s = (self.clock() if self._ended is None else self._ended) - self.started
        tokens = completion.usage.output_tokens if completion.usage else None
        spread_s = 0.0 if self._first is None else self._last - self._first
        return StreamMetrics(
            ttft_ms=None if self._first is None else (self._first - self.started) * 1000,
            total_s=total_s,
            deltas=deltas,
            deltas_per_s=(deltas - 1) / spread_s if deltas > 1 and spread_s > 0 else None,
            tokens_per_s=tokens / total_s if tokens is not None and total_s > 0 else None,
            output_tokens=tokens,
        )
