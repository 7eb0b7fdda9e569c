"""What a stream's pace was: noted where its bytes arrive, added up when somebody asks.

A clock is read once for each read of the network, because everything that one read brings has
arrived by then. Gaps go into a histogram whose buckets grow with the gap, so that a stream of a
million deltas needs no more memory than one of a thousand.

    bucket = 32 * octave + 32 * (position in the octave)      1/32 of an octave's width each

A gap read from the middle of its bucket is off by 1/64 of itself at most, 1.6 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import accumulate

from msgspec import Struct

from .events import TextDelta, Usage

__all__ = ["Gaps", "MetricsRecorder", "StreamMetrics"]

_BUCKETS_PER_OCTAVE = 32
#: What is shorter than this counts as no gap, in seconds: clocks tell no better.
_SHORTEST_GAP_S = 1e-6
_NO_GAP = -1


class Gaps(Struct, frozen=True):
    """How long the gaps between pieces of content were, as a distribution.

    Attributes:
        counts: Pairs of a gap in seconds, to 1.6 %, and how often there was one; in rising order.
        longest_s: The longest gap, exactly, in seconds; `None` where there is none.
    """

    counts: tuple[tuple[float, int], ...] = ()
    longest_s: float | None = None

    @property
    def total(self) -> int:
        """How many gaps there are."""
        return sum(count for _, count in self.counts)

    def quantile_s(self, share: float) -> float | None:
        """Return the shortest gap that at least this share of all gaps does not exceed.

        Args:
            share: Above 0 and at most 1; 0.5 gives the median.

        Returns:
            Seconds; `None` where there are no gaps.
        """
        enough = share * self.total
        for (gap_s, _), so_far in zip(
            self.counts, accumulate(count for _, count in self.counts), strict=True
        ):
            if so_far >= enough:
                return gap_s
        return None

    @classmethod
    def merged(cls, several: Iterable[Gaps]) -> Gaps:
        """Return the gaps of several streams as one distribution."""
        sums: dict[float, int] = {}
        longest_s = None
        for gaps in several:
            for gap_s, count in gaps.counts:
                sums[gap_s] = sums.get(gap_s, 0) + count
            if gaps.longest_s is not None:
                longest_s = max(gaps.longest_s, longest_s or 0.0)
        return cls(tuple(sorted(sums.items())), longest_s)

    def __repr__(self) -> str:
        return f"<Gaps: {self.total}, longest_s={self.longest_s}>"


class StreamMetrics(Struct, frozen=True, kw_only=True):
    """The pace of one stream, from the call of `stream_sync` on.

    But for `total_s` and `consumer_waited_s` everything is measured where the bytes are read, by a
    clock that stands still while the provider has to wait for you: what you do between two deltas
    is in none of these figures. With `fallback`, nor is the time from a provider's failure to the
    read that asks the next one. A delta is a piece of text as the provider cut it, not a model
    token; only the provider's usage counts tokens.

    Attributes:
        headers_s: Seconds to the headers of the answer; of the attempt that was accepted.
        first_event_s: Seconds to the first event of that answer, of any kind.
        first_content_s: Seconds to the first piece of content: text, reasoning, a refusal, a piece
            of a tool call, a citation.
        first_token_s: Seconds to the first visible text; `None` before it, and in an answer without
            any.
        last_content_s: Seconds to the last piece of content so far.
        total_s: Seconds to the end of the stream as you read it (or to now, while it runs).
        deltas: How many text deltas were delivered to you.
        deltas_per_s: The rate of the text deltas after the first one; `None` below two.
        gap_p50_s: The median gap between two pieces of content, in seconds. What one read of the
            network brings has no gaps: they count as 0.
        gap_p95_s: The gap that 95 % do not exceed.
        gap_p99_s: The gap that 99 % do not exceed.
        longest_gap_s: The longest gap, exactly; the percentiles are right to 1.6 %.
        gaps: The distribution of the gaps.
        output_tokens: Output tokens by the provider's usage, hidden reasoning included.
        output_tokens_per_s: These tokens over `last_content_s`; `None` without usage.
        body_bytes: Bytes of the accepted answers' bodies, all attempts together.
        attempts: How many requests were begun.
        producer_waited_s: Seconds in which the provider was not read, because `buffer_size` events
            waited for you.
        consumer_waited_s: Seconds in which you waited for the provider.
        buffer_high_water: The most events that waited for you at once.
        runs: How many streams the figures are of: one, which is no measurement of a provider. See
            `benchmark`.
    """

    headers_s: float | None = None
    first_event_s: float | None = None
    first_content_s: float | None = None
    first_token_s: float | None = None
    last_content_s: float | None = None
    total_s: float = 0.0
    deltas: int = 0
    deltas_per_s: float | None = None
    gap_p50_s: float | None = None
    gap_p95_s: float | None = None
    gap_p99_s: float | None = None
    longest_gap_s: float | None = None
    gaps: Gaps = Gaps()
    output_tokens: int | None = None
    output_tokens_per_s: float | None = None
    body_bytes: int = 0
    attempts: int = 0
    producer_waited_s: float = 0.0
    consumer_waited_s: float = 0.0
    buffer_high_water: int = 0
    runs: int = 1

    @property
    def ttft_ms(self) -> float | None:
        """`first_token_s` in milliseconds."""
        return None if self.first_token_s is None else self.first_token_s * 1000

    @property
    def tokens_per_s(self) -> float | None:
        """Output tokens over `total_s`: what you got, your own time included."""
        if self.output_tokens is None or self.total_s <= 0:
            return None
        return self.output_tokens / self.total_s


class MetricsRecorder:
    """Note when what arrives of one stream.

    Args:
        clock: A monotonic clock in seconds.

    Attributes:
        clock: The clock.
        started: When the stream began by that clock.

    Thread: the producer's writes, any may ask for the figures.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.started = self._now = clock()
        self._attempts = self._bytes = self._texts = self._others = 0
        self._headers: float | None = None
        self._first_event: float | None = None
        self._first: float | None = None
        self._last: float | None = None
        self._first_text: float | None = None
        self._last_text: float | None = None
        self._buckets: dict[int, int] = {}
        self._longest_s = 0.0

    def attempt(self) -> None:
        """Note that a request begins; of one that failed before any content, nothing is kept."""
        self._attempts += 1
        if self._first is None:
            self._headers = self._first_event = None

    def headers(self, waited_s: float) -> None:
        """Note that a request was accepted.

        Args:
            waited_s: How long the provider had to wait so far, in seconds.
        """
        if self._headers is None:
            self._headers = self.clock() - waited_s

    def chunk(self, size: int, waited_s: float) -> None:
        """Note that so many bytes have been read; the events that follow came with them.

        Args:
            size: How many.
            waited_s: How long the provider had to wait so far, in seconds.
        """
        self._now = self.clock() - waited_s
        self._bytes += size

    def event(self) -> None:
        """Note an event that is no content."""
        if self._first_event is None:
            self._first_event = self._now

    def content(self, kind: type) -> None:
        """Note a piece of content; this is called for every delta, so it does next to nothing."""
        now = self._now
        if kind is TextDelta:
            self._texts += 1
            if now is self._last_text:  # the same object: of the same read
                return
            self._last_text = now
            if self._first_text is None:
                self._first_text = now
        else:
            self._others += 1
        if now is not self._last:
            self._first_of_read(now)

    def _first_of_read(self, now: float) -> None:
        last, self._last = self._last, now
        if last is None:
            self._first = now
            self.event()
            return
        gap_s = now - last
        bucket = _NO_GAP
        if gap_s >= _SHORTEST_GAP_S:
            mantissa, octave = math.frexp(gap_s / _SHORTEST_GAP_S)
            bucket = int((octave + 2 * mantissa - 2) * _BUCKETS_PER_OCTAVE)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1
        self._longest_s = max(self._longest_s, gap_s)

    def metrics(
        self,
        *,
        deltas: int = 0,
        usage: Usage | None = None,
        ended: float | None = None,
        producer_waited_s: float = 0.0,
        consumer_waited_s: float = 0.0,
        buffer_high_water: int = 0,
    ) -> StreamMetrics:
        """Return the figures.

        Args:
            deltas: How many text deltas were delivered.
            usage: What the provider counted.
            ended: When the stream ended by the clock; `None` means that it runs.
            producer_waited_s: How long the provider had to wait, in seconds.
            consumer_waited_s: How long the consumer did, in seconds.
            buffer_high_water: The most events that waited at once.
        """
        gaps = self._gaps()
        first, last, texts = self._first_text, self._last_text, self._texts
        spread_s = 0.0 if first is None or last is None else last - first
        tokens = usage.output_tokens if usage is not None else None
        last_content_s = self._since(self._last)
        return StreamMetrics(
            headers_s=self._since(self._headers),
            first_event_s=self._since(self._first_event),
            first_content_s=self._since(self._first),
            first_token_s=self._since(first),
            last_content_s=last_content_s,
            total_s=(self.clock() if ended is None else ended) - self.started,
            deltas=deltas,
            deltas_per_s=(texts - 1) / spread_s if texts > 1 and spread_s > 0 else None,
            gap_p50_s=gaps.quantile_s(0.5),
            gap_p95_s=gaps.quantile_s(0.95),
            gap_p99_s=gaps.quantile_s(0.99),
            longest_gap_s=gaps.longest_s,
            gaps=gaps,
            output_tokens=tokens,
            output_tokens_per_s=tokens / last_content_s
            if tokens is not None and last_content_s
            else None,
            body_bytes=self._bytes,
            attempts=self._attempts,
            producer_waited_s=producer_waited_s,
            consumer_waited_s=consumer_waited_s,
            buffer_high_water=buffer_high_water,
        )

    def _since(self, moment: float | None) -> float | None:
        return None if moment is None else moment - self.started

    def _gaps(self) -> Gaps:
        """Return the distribution so far."""
        pieces = self._texts + self._others
        buckets = self._buckets.copy()  # in one step: the producer may be adding one
        longest_s = self._longest_s
        at_once = buckets.pop(_NO_GAP, 0)
        none = max(at_once, pieces - 1 - sum(buckets.values()))
        counts = [(0.0, none)] if none else []
        for bucket, count in sorted(buckets.items()):
            octave, place = divmod(bucket, _BUCKETS_PER_OCTAVE)
            middle = 2.0**octave * (1 + (place + 0.5) / _BUCKETS_PER_OCTAVE)
            counts.append((min(middle * _SHORTEST_GAP_S, longest_s), count))
        return Gaps(tuple(counts), longest_s if counts else None)
