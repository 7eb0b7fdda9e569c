"""What a stream's pace was: noted where its bytes arrive, added up when somebody asks.

A clock is read once for each read of the network, because everything that one read brings has
arrived by then. It goes on while the provider has to wait for a slow reader, because the provider
goes on, too: by a clock that stands still meanwhile, whatever has piled up would come in no time,
and rates would be too high. From the gaps alone the wait is taken, because it is no silence of the
provider's. Gaps go into a histogram whose buckets grow with the gap, so that a stream of a
million deltas needs no more memory than one of a thousand.

    bucket = 32 * octave + 32 * (position in the octave)      1/32 of an octave's width each

A gap read from the middle of its bucket is off by 1/64 of itself at most, 1.6 %.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable
from functools import lru_cache
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
        return self.quantiles_s(share)[0]

    def quantiles_s(self, *shares: float) -> list[float | None]:
        """Return the quantile for each of these shares, which is quicker than one by one."""
        if not self.counts:
            return [None] * len(shares)
        so_far = list(accumulate(count for _, count in self.counts))
        return [self.counts[bisect_left(so_far, share * so_far[-1])][0] for share in shares]

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

    But for `total_s` and `consumer_waited_s` everything is measured where the bytes are read, ahead
    of you: as long as `producer_waited_s` is 0, what you do between two deltas is in none of these
    figures. Above 0 the bytes were read later than they came. Then the times to something are upper
    bounds, the rates are lower bounds, and the gaps, from which that wait is taken, are lower
    bounds. With `fallback`, the time from a provider's failure to the read that asks the next one
    is in none of them either. A delta is a piece of text as the provider cut it, not a model token;
    only the provider's usage counts tokens.

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
        deltas_per_s: The text deltas after those of the first read of the network that brought any,
            over the time from that read to the last one; `None` where one read brought them all.
        gap_p50_s: The median gap between two pieces of content, in seconds. What one read of the
            network brings has no gaps: they count as 0.
        gap_p95_s: The gap that 95 % do not exceed; the longest one where there are fewer than 20.
        gap_p99_s: The gap that 99 % do not exceed; the longest one where there are fewer than 100.
        longest_gap_s: The longest gap, exactly; the percentiles are right to 1.6 %.
        gaps: The distribution of the gaps.
        output_tokens: Output tokens by the provider's usage, hidden reasoning included; of an
            answer that was cut and continued, what it told of the parts, maybe less than all.
        output_tokens_per_s: These tokens over `last_content_s`; `None` without usage, and where the
            answer was continued.
        body_bytes: Bytes of the accepted answers' bodies, all attempts together.
        attempts: How many requests were begun.
        resumes: How many of them were to continue an answer that had been cut.
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
    resumes: int = 0
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
        """Output tokens over `total_s`: what you got, your own time included.

        `None` where `output_tokens_per_s` is `None` for want of a count of all tokens.
        """
        if self.output_tokens is None or self.resumes or self.total_s <= 0:
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
        self._waited_s = self._last_waited_s = 0.0
        self._attempts = self._resumes = self._bytes = self._texts = self._others = 0
        self._headers: float | None = None
        self._first_event: float | None = None
        self._first: float | None = None
        self._last: float | None = None
        self._first_text: float | None = None
        self._last_text: float | None = None
        self._texts_of_first_read = 0
        self._buckets: dict[int, int] = {}
        self._longest_s = 0.0

    def attempt(self) -> None:
        """Note that a request begins; of one that failed before any content, nothing is kept."""
        self._attempts += 1
        if self._first is None:
            self._headers = self._first_event = None
        else:
            self._resumes += 1

    def headers(self) -> None:
        """Note that a request was accepted."""
        if self._headers is None:
            self._headers = self.clock()

    def chunk(self, size: int, waited_s: float) -> None:
        """Note that so many bytes have been read; the events that follow came with them.

        Args:
            size: How many.
            waited_s: How long the provider had to wait so far, in seconds.
        """
        self._now = self.clock()
        self._waited_s = waited_s
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
            if self._last_text is self._first_text:
                self._early_text(now)
            self._last_text = now
        else:
            self._others += 1
        if now is not self._last:
            self._first_of_read(now)

    def _early_text(self, now: float) -> None:
        """Note the first text of all, or the first one of the second read that brings any."""
        if self._first_text is None:
            self._first_text = now
        else:
            self._texts_of_first_read = self._texts - 1

    def _first_of_read(self, now: float) -> None:
        last, self._last = self._last, now
        waited_s, last_waited_s = self._waited_s, self._last_waited_s
        self._last_waited_s = waited_s
        if last is None:
            self._first = now
            self.event()
            return
        gap_s = now - last - (waited_s - last_waited_s)
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
        p50_s, p95_s, p99_s = gaps.quantiles_s(0.5, 0.95, 0.99)
        first, last = self._first_text, self._last_text
        spread_s = 0.0 if first is None or last is None else last - first
        later_texts = self._texts - self._texts_of_first_read
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
            deltas_per_s=later_texts / spread_s if spread_s > 0 else None,
            gap_p50_s=p50_s,
            gap_p95_s=p95_s,
            gap_p99_s=p99_s,
            longest_gap_s=gaps.longest_s,
            gaps=gaps,
            output_tokens=tokens,
            output_tokens_per_s=tokens / last_content_s
            if tokens is not None and not self._resumes and last_content_s
            else None,
            body_bytes=self._bytes,
            attempts=self._attempts,
            resumes=self._resumes,
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
        counts += [(min(_middle_s(at), longest_s), buckets[at]) for at in sorted(buckets)]
        return Gaps(tuple(counts), longest_s if counts else None)


@lru_cache(maxsize=1024)
def _middle_s(bucket: int) -> float:
    """Return the middle of a bucket, in seconds."""
    octave, place = divmod(bucket, _BUCKETS_PER_OCTAVE)
    return 2.0**octave * (1 + (place + 0.5) / _BUCKETS_PER_OCTAVE) * _SHORTEST_GAP_S
