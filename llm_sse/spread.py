"""What several runs of a stream have in common: the median of each figure, and its spread."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Union

from msgspec import Struct

from .metrics import Gaps, StreamMetrics

__all__ = ["MIN_RUNS", "Benchmark", "ProviderRuns", "RunError", "Spread"]

#: Below this a median is not told without a mark: three runs may all be flukes.
MIN_RUNS = 5


class Spread(Struct, frozen=True, kw_only=True):
    """One figure over several runs, in the unit of its name.

    Attributes:
        median: The middle one.
        q1: A quarter of the runs lies below it.
        q3: A quarter of the runs lies above it.
        lowest: The lowest.
        highest: The highest.
        runs: How many runs had the figure.
    """

    median: float
    q1: float
    q3: float
    lowest: float
    highest: float
    runs: int

    @property
    def iqr(self) -> float:
        """The interquartile range: the middle half of the runs lies within so much."""
        return self.q3 - self.q1

    @property
    def enough(self) -> bool:
        """Whether there were enough runs to tell it without a mark."""
        return self.runs >= MIN_RUNS

    @classmethod
    def of(cls, figures: Iterable[float | None]) -> Spread | None:
        """Return the spread of those figures that there are; `None` without any."""
        import statistics  # noqa: PLC0415 - it takes longer to import than all of this package

        there = sorted(figure for figure in figures if figure is not None)
        if not there:
            return None
        q1 = q3 = there[0]
        if len(there) > 1:
            q1, _, q3 = statistics.quantiles(there, n=4, method="inclusive")
        return cls(
            median=statistics.median(there),
            q1=q1,
            q3=q3,
            lowest=there[0],
            highest=there[-1],
            runs=len(there),
        )


class RunError(Struct, frozen=True, kw_only=True):
    """A run that failed.

    Attributes:
        iteration: Which one, from 1 on.
        error: The name of the error's class.
        message: What it said.
    """

    iteration: int
    error: str
    message: str


class ProviderRuns(Struct, frozen=True, kw_only=True):
    """What one provider did in a benchmark.

    The spreads are over the runs that succeeded. Each has the name of the figure of
    `StreamMetrics`, and is `None` where no run had it.

    Attributes:
        label: What it is called in tables: its own label, or the provider, and the model where one
            was named.
        provider: The provider's name.
        model: The model that answered, where the provider said so; else the one that was asked for.
        runs: The figures of each run that succeeded.
        errors: The runs that failed.
        headers_s: Seconds to the headers of the answer.
        first_token_s: Seconds to the first visible text.
        total_s: Seconds to the end.
        deltas_per_s: The rate of the text deltas.
        output_tokens_per_s: The rate of the tokens, by the provider's usage.
        gap_p50_s: The median gap between two pieces of content, in each run.
        gap_p95_s: The gap that 95 % do not exceed.
        gap_p99_s: The gap that 99 % do not exceed.
        longest_gap_s: The longest gap.
        gaps: The gaps of all runs in one distribution.
    """

    label: str
    provider: str
    model: Union[str, None]
    runs: tuple[StreamMetrics, ...]
    errors: tuple[RunError, ...]
    headers_s: Union[Spread, None]
    first_token_s: Union[Spread, None]
    total_s: Union[Spread, None]
    deltas_per_s: Union[Spread, None]
    output_tokens_per_s: Union[Spread, None]
    gap_p50_s: Union[Spread, None]
    gap_p95_s: Union[Spread, None]
    gap_p99_s: Union[Spread, None]
    longest_gap_s: Union[Spread, None]
    gaps: Gaps

    @property
    def enough(self) -> bool:
        """Whether enough runs succeeded for the figures to be told without a mark."""
        return len(self.runs) >= MIN_RUNS

    @classmethod
    def of(
        cls,
        label: str,
        provider: str,
        model: str | None,
        runs: Iterable[StreamMetrics],
        errors: Iterable[RunError],
    ) -> ProviderRuns:
        """Return what the runs have in common."""
        runs = tuple(runs)

        def spread(name: str) -> Spread | None:
            return Spread.of(getattr(run, name) for run in runs)

        return cls(
            label=label,
            provider=provider,
            model=model,
            runs=runs,
            errors=tuple(errors),
            headers_s=spread("headers_s"),
            first_token_s=spread("first_token_s"),
            total_s=spread("total_s"),
            deltas_per_s=spread("deltas_per_s"),
            output_tokens_per_s=spread("output_tokens_per_s"),
            gap_p50_s=spread("gap_p50_s"),
            gap_p95_s=spread("gap_p95_s"),
            gap_p99_s=spread("gap_p99_s"),
            longest_gap_s=spread("longest_gap_s"),
            gaps=Gaps.merged(run.gaps for run in runs),
        )


class Benchmark(Struct, frozen=True, kw_only=True):
    """What a benchmark found.

    Attributes:
        prompt: The question.
        iterations: How often each provider was asked.
        providers: What each did, in the order in which they were named.
        interrupted: Whether it ended before all runs were made, by Ctrl-C at the command line.
    """

    prompt: Union[str, None]
    iterations: int
    providers: tuple[ProviderRuns, ...]
    interrupted: bool = False
