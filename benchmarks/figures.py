"""The figures of all rounds: medians, their spread, and ratios."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

__all__ = ["ROUNDS", "Results", "Sample"]

#: Fewer rounds show a tendency; a figure to quote, and a verdict, need as many.
ROUNDS = 5
#: Rounds that are further apart than this many times have no common middle.
_SETTLED = 10.0


class Sample(NamedTuple):
    """What one process measured.

    Attributes:
        key: The measurement's.
        client: The contestant's name.
        round: In which round.
        figures: What came of it; empty if nothing did.
        fault: What was wrong, or `None`.
        load: The machine's load right before, if it tells one.
    """

    key: str
    client: str
    round: int
    figures: Mapping[str, Any]
    fault: str | None = None
    load: float | None = None


class Results:
    """All samples of one run."""

    def __init__(self, samples: Iterable[Sample] = ()) -> None:
        self.samples = list(samples)

    def add(self, sample: Sample) -> None:
        """Take one more in."""
        self.samples.append(sample)

    @property
    def keys(self) -> list[str]:
        """The measurements' keys, in the order in which they came."""
        return list(dict.fromkeys(sample.key for sample in self.samples))

    def clients(self, key: str) -> list[str]:
        """Return who was measured, in the order in which they came."""
        return list(dict.fromkeys(sample.client for sample in self.samples if sample.key == key))

    def by_round(self, key: str, client: str, figure: str) -> dict[int, float]:
        """Return the figures of each round."""
        return {
            sample.round: float(sample.figures[figure])
            for sample in self.samples
            if (sample.key, sample.client) == (key, client) and figure in sample.figures
        }

    def rounds(self, key: str) -> int:
        """Return how many rounds a measurement had, whoever finished in them."""
        return len({sample.round for sample in self.samples if sample.key == key})

    def finished(self, key: str, client: str) -> int:
        """Return of how many rounds there are figures."""
        return len(
            {
                sample.round
                for sample in self.samples
                if (sample.key, sample.client) == (key, client) and sample.figures
            }
        )

    def median(self, key: str, client: str, figure: str) -> float | None:
        """Return the median; `None` without any figure."""
        values = self.by_round(key, client, figure)
        return statistics.median(values.values()) if values else None

    def settled(self, key: str, client: str, figure: str) -> bool:
        """Return whether the rounds are about one thing, so that their middle says something."""
        values = self.by_round(key, client, figure).values()
        return not values or max(values) <= _SETTLED * min(values) or min(values) <= 0

    def spread(self, key: str, client: str, figure: str) -> tuple[float, float] | None:
        """Return the least and the greatest figure; `None` without any."""
        values = self.by_round(key, client, figure).values()
        return (min(values), max(values)) if values else None

    def ratio(self, key: str, figure: str, of: str, to: str) -> float | None:
        """Return the median of the rounds' ratios; `None` where one of the two has no figures.

        What was measured in one round was measured close together: a machine that is busy for a
        while slows both.
        """
        ratios = self.ratios(key, figure, of, to)
        return statistics.median(ratios) if ratios else None

    def ratios(self, key: str, figure: str, of: str, to: str) -> list[float]:
        """Return the ratio of each round in which both have a figure."""
        tops, bottoms = self.by_round(key, of, figure), self.by_round(key, to, figure)
        return [tops[n] / bottoms[n] for n in tops if bottoms.get(n)]

    def faults(self, of: str = "") -> list[str]:
        """Return all that was wrong, in words, with those whose name begins so."""
        return [
            f"{sample.key}, {sample.client}, round {sample.round + 1}: {sample.fault}"
            for sample in self.samples
            if sample.fault is not None and sample.client.startswith(of)
        ]
