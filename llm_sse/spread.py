"""What several runs of a stream have in common: the median of each figure, and its spread."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import count, islice
from typing import Union

from msgspec import Struct

from .events import FinishReason
from .metrics import Gaps, StreamMetrics

__all__ = ["MIN_RUNS", "Benchmark", "EarlyEnd", "ProviderRuns", "RunError", "Spread"]

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
        enough: Whether they were enough to tell it without a mark.
    """

    median: float
    q1: float
    q3: float
    lowest: float
    highest: float
    runs: int
    enough: bool

    @property
    def iqr(self) -> float:
        """The interquartile range: the middle half of the runs lies within so much."""
        return self.q3 - self.q1

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
            enough=len(there) >= MIN_RUNS,
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


#: How an answer ends that is all of what was asked for; `length` is the limit that was asked for.
_WHOLE = ("stop", "length", "tool_calls")


class EarlyEnd(Struct, frozen=True, kw_only=True):
    """A run that succeeded, though its answer is none to compare by: it was cut, or has no text.

    Attributes:
        iteration: Which one, from 1 on.
        finish_reason: Why it ended, where the provider said so.
        deltas: How many text deltas it had.
    """

    iteration: int
    finish_reason: Union[FinishReason, None]
    deltas: int

    def __str__(self) -> str:
        reason = self.finish_reason or "no reason that was told"
        deltas = "1 text delta" if self.deltas == 1 else f"{self.deltas or 'no'} text deltas"
        return f"ended by {reason}, with {deltas}"

    @classmethod
    def of(cls, iteration: int, reason: FinishReason | None, deltas: int) -> EarlyEnd | None:
        """Return it for such a run, else `None`; calls of tools need no text."""
        if reason in _WHOLE and (deltas or reason == "tool_calls"):
            return None
        return cls(iteration=iteration, finish_reason=reason, deltas=deltas)


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
        finish_reasons: Why the answer of each of them ended.
        early: Those of them whose answers were cut, as by a filter, or empty: their figures are
            counted, and may look better than those of whole answers.
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
    finish_reasons: tuple[Union[FinishReason, None], ...]
    early: tuple[EarlyEnd, ...]
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
        """Whether enough runs succeeded; a figure that not all of them had has its own mark."""
        return len(self.runs) >= MIN_RUNS

    @property
    def iterations(self) -> list[int]:
        """Which ones the runs that succeeded were, from 1 on."""
        return _iterations(self.runs, self.errors)

    @classmethod
    def of(
        cls,
        label: str,
        provider: str,
        model: str | None,
        answers: Iterable[tuple[StreamMetrics, FinishReason | None]],
        errors: Iterable[RunError],
    ) -> ProviderRuns:
        """Return what the runs have in common.

        Args:
            label: What it is called in tables.
            provider: The provider's name.
            model: The model that answered.
            answers: The figures of each run that succeeded, and why its answer ended.
            errors: The runs that failed.
        """
        answers, errors = tuple(answers), tuple(errors)
        runs = tuple(run for run, _ in answers)
        ends = (
            EarlyEnd.of(iteration, reason, run.deltas)
            for iteration, (run, reason) in zip(_iterations(runs, errors), answers, strict=True)
        )

        def spread(name: str) -> Spread | None:
            return Spread.of(getattr(run, name) for run in runs)

        return cls(
            label=label,
            provider=provider,
            model=model,
            runs=runs,
            finish_reasons=tuple(reason for _, reason in answers),
            early=tuple(end for end in ends if end is not None),
            errors=errors,
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


def _iterations(runs: Collection[StreamMetrics], errors: Collection[RunError]) -> list[int]:
    """Return the numbers of the runs that succeeded: those that no error has."""
    failed = {error.iteration for error in errors}
    return list(islice((number for number in count(1) if number not in failed), len(runs)))


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
