"""The pace of a stream, by a clock that moves when it is told to."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_sse.events import ReasoningDelta, TextDelta, ToolCallDelta, Usage
from llm_sse.metrics import Gaps, MetricsRecorder, StreamMetrics


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock at some arbitrary moment."""
    return Clock()


@pytest.fixture
def recorder(clock: Clock) -> MetricsRecorder:
    """A recorder that began at that moment."""
    return MetricsRecorder(clock)


def arrive(recorder: MetricsRecorder, *kinds: type, waited_s: float = 0.0) -> None:
    """Let one read bring pieces of content."""
    recorder.chunk(100, waited_s)
    for kind in kinds:
        recorder.content(kind)


class TestMetricsRecorder:
    def test_before_anything(self, recorder: MetricsRecorder) -> None:
        """At the start everything is zero or unknown, and nothing is divided by it."""
        usage = Usage(output_tokens=5)
        assert recorder.metrics(usage=usage) == StreamMetrics(output_tokens=5)

    def test_whole_stream(self, clock: Clock, recorder: MetricsRecorder) -> None:
        """Each figure is what its name says, in seconds from the start."""
        recorder.attempt()
        clock.now += 0.125
        recorder.headers()
        clock.now += 0.125
        recorder.chunk(10, 0)
        recorder.event()
        clock.now += 0.25
        arrive(recorder, ReasoningDelta)
        for _ in range(3):
            clock.now += 0.5
            arrive(recorder, TextDelta, TextDelta)
        clock.now += 1
        recorder.event()  # the last one says nothing of the first
        clock.now += 1
        metrics = recorder.metrics(
            deltas=6,
            usage=Usage(output_tokens=8),
            ended=clock.now,
            producer_waited_s=0.1,
            consumer_waited_s=0.2,
            buffer_high_water=3,
        )
        gaps = Gaps(((0.0, 3), (pytest.approx(0.5, rel=1 / 64), 3)), 0.5)
        assert metrics == StreamMetrics(
            headers_s=0.125,
            first_event_s=0.25,
            first_content_s=0.5,
            first_token_s=1.0,
            last_content_s=2.0,
            total_s=4.0,
            deltas=6,
            deltas_per_s=4.0,
            gap_p50_s=0.0,
            gap_p95_s=0.5,
            gap_p99_s=0.5,
            longest_gap_s=0.5,
            gaps=gaps,
            output_tokens=8,
            output_tokens_per_s=4.0,
            body_bytes=410,
            attempts=1,
            producer_waited_s=0.1,
            consumer_waited_s=0.2,
            buffer_high_water=3,
        )
        assert (metrics.ttft_ms, metrics.tokens_per_s, metrics.runs) == (1000.0, 2.0, 1)

    def test_a_slow_consumer_is_in_no_gap(self, clock: Clock, recorder: MetricsRecorder) -> None:
        """What the provider had to wait is taken from the very gap that it is in."""
        clock.now += 1
        arrive(recorder, TextDelta)
        clock.now += 60.25
        arrive(recorder, TextDelta, waited_s=60)
        clock.now += 0.5
        arrive(recorder, TextDelta, waited_s=60)
        clock.now += 60.25
        arrive(recorder, TextDelta, waited_s=120)
        metrics = recorder.metrics(deltas=4)
        assert (metrics.longest_gap_s, metrics.gap_p50_s) == (0.5, pytest.approx(0.25, rel=1 / 64))
        assert (metrics.gaps.total, metrics.total_s) == (3, 122)

    def test_a_slow_consumer_makes_no_rate_higher(
        self, clock: Clock, recorder: MetricsRecorder
    ) -> None:
        """A provider at 50 tokens/s that is read at 25 has 25: never more than it had sent."""
        clock.now += 1
        arrive(recorder, TextDelta)
        for turn in range(1, 101):
            clock.now += 0.04
            arrive(recorder, TextDelta, waited_s=0.039 * turn)
        metrics = recorder.metrics(deltas=101, usage=Usage(output_tokens=125))
        assert metrics.last_content_s == pytest.approx(5)
        assert metrics.deltas_per_s == pytest.approx(25)
        assert metrics.output_tokens_per_s == pytest.approx(25)

    def test_times_are_those_of_the_reads(self, clock: Clock, recorder: MetricsRecorder) -> None:
        """Where the provider had to wait before, each moment is later, and none is made up."""
        recorder.attempt()
        clock.now += 3
        recorder.headers()
        clock.now += 1
        recorder.chunk(10, 2.0)
        recorder.event()
        clock.now += 1
        arrive(recorder, ReasoningDelta, waited_s=2.5)
        clock.now += 1
        arrive(recorder, TextDelta, waited_s=3.25)
        metrics = recorder.metrics()
        assert (metrics.headers_s, metrics.first_event_s) == (3, 4)
        assert (metrics.first_content_s, metrics.first_token_s, metrics.last_content_s) == (5, 6, 6)
        assert metrics.longest_gap_s == 0.25

    @pytest.mark.parametrize("lumps", [2, 3, 5, 50])
    def test_lumps_have_the_rate_of_what_is_in_them(
        self, clock: Clock, recorder: MetricsRecorder, lumps: int
    ) -> None:
        """11 deltas in each tenth of a second are 110 per second, however few there are."""
        for _ in range(lumps):
            clock.now += 0.1
            arrive(recorder, ReasoningDelta, *[TextDelta] * 11)
        assert recorder.metrics().deltas_per_s == pytest.approx(110)

    def test_the_percentiles_are_those_of_their_names(
        self, clock: Clock, recorder: MetricsRecorder
    ) -> None:
        """Of 200 gaps of 1 to 200 ms the 100th, the 190th and the 198th; below 100, the longest."""
        arrive(recorder, TextDelta)
        few = []
        for number in range(1, 201):
            clock.now += number / 1000
            arrive(recorder, TextDelta)
            few.append(recorder.metrics())
        whole = few[-1]
        bound = 1 / 64
        assert whole.gap_p50_s == pytest.approx(0.100, rel=bound)
        assert whole.gap_p95_s == pytest.approx(0.190, rel=bound)
        assert whole.gap_p99_s == pytest.approx(0.198, rel=bound)
        assert few[98].gap_p99_s == few[98].gaps.quantile_s(1.0)
        assert few[98].gap_p95_s == pytest.approx(0.095, rel=bound)
        assert few[18].gap_p95_s == few[18].gaps.quantile_s(1.0)

    def test_an_attempt_that_brought_nothing_is_forgotten(
        self, clock: Clock, recorder: MetricsRecorder
    ) -> None:
        """Headers and first event are those of the attempt that was answered; bytes are all."""
        for _ in range(2):
            recorder.attempt()
            clock.now += 1
            recorder.headers()
            recorder.chunk(5, 0)
            recorder.event()
        metrics = recorder.metrics()
        assert (metrics.headers_s, metrics.first_event_s) == (2, 2)
        assert (metrics.attempts, metrics.resumes, metrics.body_bytes) == (2, 0, 10)

    def test_a_continuation_goes_on(self, clock: Clock, recorder: MetricsRecorder) -> None:
        """After content a new attempt is the same answer, and the outage is a gap."""
        recorder.attempt()
        recorder.headers()
        arrive(recorder, TextDelta)
        recorder.attempt()
        clock.now += 2
        recorder.headers()
        arrive(recorder, TextDelta)
        metrics = recorder.metrics()
        assert (metrics.headers_s, metrics.first_token_s, metrics.longest_gap_s) == (0, 0, 2)
        assert (metrics.attempts, metrics.resumes) == (2, 1)

    def test_tokens_of_a_part_have_no_rate(self, clock: Clock, recorder: MetricsRecorder) -> None:
        """What was told of a continued answer need not be of all of it: it is no rate's count."""
        recorder.attempt()
        clock.now += 1
        arrive(recorder, TextDelta)
        usage = Usage(output_tokens=2)
        assert recorder.metrics(usage=usage).output_tokens_per_s == 2
        recorder.attempt()
        clock.now += 1
        arrive(recorder, TextDelta)
        metrics = recorder.metrics(usage=usage)
        assert metrics.output_tokens == 2
        assert (metrics.output_tokens_per_s, metrics.tokens_per_s) == (None, None)

    def test_an_answer_without_text(self, clock: Clock, recorder: MetricsRecorder) -> None:
        """A tool call is content and has gaps, but it is no visible token."""
        clock.now += 1
        arrive(recorder, ToolCallDelta)
        clock.now += 1
        arrive(recorder, ToolCallDelta)
        metrics = recorder.metrics()
        assert (metrics.first_content_s, metrics.first_token_s, metrics.ttft_ms) == (1, None, None)
        assert (metrics.longest_gap_s, metrics.deltas_per_s) == (1, None)

    def test_while_it_runs(self, clock: Clock, recorder: MetricsRecorder) -> None:
        """Before the end the total is the time until now."""
        clock.now += 2
        assert recorder.metrics().total_s == 2
        clock.now += 1
        assert recorder.metrics().total_s == 3

    def test_one_delta_has_no_rate(self, clock: Clock, recorder: MetricsRecorder) -> None:
        """A rate needs two deltas, and a gap does."""
        clock.now += 1
        arrive(recorder, TextDelta)
        metrics = recorder.metrics(deltas=1)
        assert metrics.first_token_s == 1
        assert (metrics.deltas_per_s, metrics.gap_p50_s, metrics.longest_gap_s) == (None,) * 3

    def test_no_time_has_no_rate(self, recorder: MetricsRecorder) -> None:
        """What all came in the same instant has no rate, and neither have its tokens."""
        arrive(recorder, TextDelta, TextDelta)
        metrics = recorder.metrics(deltas=2, usage=Usage(output_tokens=2))
        assert (metrics.first_token_s, metrics.deltas_per_s) == (0, None)
        assert (metrics.output_tokens_per_s, metrics.tokens_per_s) == (None, None)
        assert metrics.gap_p99_s == 0

    @pytest.mark.parametrize("usage", [None, Usage()])
    def test_no_usage_has_no_tokens(
        self, clock: Clock, recorder: MetricsRecorder, usage: Usage | None
    ) -> None:
        """Only the provider counts tokens."""
        clock.now += 1
        arrive(recorder, TextDelta)
        metrics = recorder.metrics(usage=usage)
        assert (metrics.output_tokens_per_s, metrics.output_tokens) == (None, None)
        assert metrics.tokens_per_s is None

    def test_no_tokens_is_a_count(self, clock: Clock, recorder: MetricsRecorder) -> None:
        """A provider that counted zero tokens has counted."""
        clock.now += 1
        arrive(recorder, TextDelta)
        metrics = recorder.metrics(usage=Usage(output_tokens=0))
        assert (metrics.output_tokens_per_s, metrics.output_tokens) == (0, 0)

    def test_a_long_stream_takes_no_more_memory(
        self, clock: Clock, recorder: MetricsRecorder
    ) -> None:
        """The gaps of a stream take as much room after ten thousand as after a hundred."""
        for turn in range(10_000):
            clock.now += 0.01 * (1 + turn % 7)
            arrive(recorder, TextDelta)
        assert len(recorder.metrics().gaps.counts) <= 7 * 2  # a clock's sums are rounded
        assert recorder.metrics().gaps.total == 9_999


class TestGaps:
    @given(st.lists(st.floats(1e-6, 1e5), min_size=1, max_size=50))
    def test_a_quantile_is_right_to_its_bound(self, gaps_s: list[float]) -> None:
        """A quantile is one of the gaps, found by its rank, and off by 1/64 of it at most."""
        clock = Clock()
        clock.now = 0.0
        recorder = MetricsRecorder(clock)
        arrive(recorder, TextDelta)
        seen = []
        for gap_s in gaps_s:
            before = clock.now
            clock.now += gap_s
            seen.append(clock.now - before)
            arrive(recorder, TextDelta)
        gaps = recorder.metrics().gaps
        assert gaps.longest_s == max(seen)
        for share in (0.01, 0.5, 0.95, 0.99, 1.0):
            exact = sorted(seen)[math.ceil(share * len(seen)) - 1]
            assert gaps.quantile_s(share) == pytest.approx(exact, rel=1 / 64 + 1e-9, abs=1e-6)

    def test_no_gaps_have_no_quantile(self) -> None:
        """What is not there has no median."""
        assert Gaps().quantile_s(0.5) is None
        assert Gaps().total == 0

    def test_several_streams_are_one_distribution(self) -> None:
        """Counts of equal gaps add up; the longest is the longest of all."""
        merged = Gaps.merged(
            [Gaps(((0.0, 2), (0.5, 1)), 0.5), Gaps(), Gaps(((0.5, 1), (1.0, 1)), 1.0)]
        )
        assert merged == Gaps(((0.0, 2), (0.5, 2), (1.0, 1)), 1.0)
        assert Gaps.merged([]) == Gaps()

    def test_the_repr_is_short(self) -> None:
        """A log line of a stream's figures does not hold hundreds of buckets."""
        assert repr(Gaps(((0.0, 2), (0.5, 1)), 0.5)) == "<Gaps: 3, longest_s=0.5>"


class TestStreamMetrics:
    def test_frozen(self) -> None:
        """The figures cannot be changed."""
        with pytest.raises(AttributeError):
            StreamMetrics().deltas = 1  # type: ignore[misc]
