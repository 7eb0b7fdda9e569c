"""Runs of a benchmark whose figures are known."""

from __future__ import annotations

from llm_sse.events import FinishReason
from llm_sse.metrics import Gaps, StreamMetrics
from llm_sse.spread import RunError

Answer = tuple[StreamMetrics, FinishReason]

FAILED = RunError(iteration=2, error="RateLimitError", message="slow down")


def answers(*first_tokens_s: float) -> list[Answer]:
    """Make runs whose answers are whole."""
    return [(run(first_token_s), "stop") for first_token_s in first_tokens_s]


def run(first_token_s: float) -> StreamMetrics:
    """Make the figures of a run."""
    return StreamMetrics(
        first_token_s=first_token_s,
        total_s=2.5,
        gap_p50_s=0.02,
        gap_p99_s=0.0255,
        gaps=Gaps(((0.0, 5), (0.02, 4), (0.0255, 1)), 0.0255),
        output_tokens_per_s=41.25,
        deltas=11,
    )
