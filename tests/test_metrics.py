"""The pace of a stream, by a clock that moves when it is told to."""

from __future__ import annotations

import pytest

from llm_sse.completion import Completion
from llm_sse.events import Usage
from llm_sse.metrics import MetricsRecorder, StreamMetrics


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


def spent(output_tokens: int | None) -> Completion:
    """Make a completion with that usage."""
    return Completion(usage=Usage(output_tokens=output_tokens))


class TestMetricsRecorder:
    def test_before_anything(self, recorder: MetricsRecorder) -> None:
        """At the start everything is zero or unknown, and nothing is divided by it."""
        assert recorder.metrics(0, spent(5)) == StreamMetrics(output_tokens=5)

    def test_whole_stream(self, clock: Clock, recorder: MetricsRecorder) -> None:
        """The first delta makes the TTFT, the rate counts from it to the last, the end ends it."""
        clock.now += 0.25
        recorder.delta()
        clock.now += 1
        recorder.delta()
        clock.now += 1
        recorder.delta()
        clock.now += 1.75
        recorder.end()
        assert recorder.metrics(3, spent(8)) == StreamMetrics(
            ttft_ms=250.0,
            total_s=4.0,
            deltas=3,
            deltas_per_s=1.0,
            tokens_per_s=2.0,
            output_tokens=8,
        )

    def test_while_it_runs(self, clock: Clock, recorder: MetricsRecorder) -> None:
        """Before the end the total is the time until now."""
        clock.now += 2
        assert recorder.metrics(0, Completion()).total_s == 2
        clock.now += 1
        assert recorder.metrics(0, Completion()).total_s == 3

    def test_only_the_first_end_counts(self, clock: Clock, recorder: MetricsRecorder) -> None:
        """What happens after the end, even another end, does not lengthen the stream."""
        clock.now += 2
        recorder.end()
        clock.now += 5
        recorder.end()
        assert recorder.metrics(0, Completion()).total_s == 2

    def test_one_delta_has_no_rate(self, clock: Clock, recorder: MetricsRecorder) -> None:
        """A rate needs two deltas."""
        clock.now += 1
        recorder.delta()
        clock.now += 1
        metrics = recorder.metrics(1, Completion())
        assert metrics.ttft_ms == 1000
        assert metrics.deltas_per_s is None

    def test_no_time_has_no_rate(self, recorder: MetricsRecorder) -> None:
        """Deltas that all came in the same instant have no rate, and neither have their tokens."""
        recorder.delta()
        recorder.delta()
        recorder.end()
        metrics = recorder.metrics(2, spent(2))
        assert (metrics.ttft_ms, metrics.deltas_per_s, metrics.tokens_per_s) == (0, None, None)

    @pytest.mark.parametrize("completion", [Completion(), spent(None)])
    def test_no_usage_has_no_tokens(
        self, clock: Clock, recorder: MetricsRecorder, completion: Completion
    ) -> None:
        """Only the provider counts tokens."""
        clock.now += 1
        metrics = recorder.metrics(0, completion)
        assert (metrics.tokens_per_s, metrics.output_tokens) == (None, None)

    def test_no_tokens_is_a_count(self, clock: Clock, recorder: MetricsRecorder) -> None:
        """A provider that counted zero tokens has counted."""
        clock.now += 1
        metrics = recorder.metrics(0, spent(0))
        assert (metrics.tokens_per_s, metrics.output_tokens) == (0, 0)


class TestStreamMetrics:
    def test_frozen(self) -> None:
        """The figures cannot be changed."""
        with pytest.raises(AttributeError):
            StreamMetrics().deltas = 1  # type: ignore[misc]
