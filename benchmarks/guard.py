"""A guard: llm-sse's drain must not cost more than 1.2 times the tutorial's loop.

    python -m benchmarks --guard

It needs no other contestant, so no extra. Machines are shared and noisy, and the rule that bears
with it is fixed beforehand. A trial is seven pairs of runs, ours and the loop's in turn, each in a
fresh process, and each pair has a ratio of processor time. Where at least six of the seven are
within the bound, the first trial settles it. Where they disagree, or are above it, there are more:
the medians of two trials must be on the same side. So neither does one lucky trial pass a real
loss, nor does one unlucky trial fail.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from .clients import find
from .figures import Results
from .plan import Measurement, in_order
from .run import Server, measure

__all__ = ["BOUND", "TRIALS", "guard", "verdict"]

BOUND = 1.2
#: How many trials must agree where the first one is not clear; after `TRIALS` as many do.
_AGREE = 2
TRIALS = 2 * _AGREE - 1
_PAIRS = 7
#: How many pairs of a trial may be of another opinion, where the others are said to agree.
_STRAY = 1
_DELTAS = 20_000


def verdict(trial: Callable[[], Sequence[float]], say: Callable[[str], object]) -> bool:
    """Run trials until it is settled whether the bound is kept; return whether it is.

    Args:
        trial: Returns the ratios of its pairs.
        say: Told a line for each trial.
    """
    kept: list[bool] = []
    while True:
        ratios = trial()
        ratio = statistics.median(ratios)
        within = sum(each <= BOUND for each in ratios)
        say(
            f"trial {len(kept) + 1} of {TRIALS}: drain costs {ratio:.2f} times the tutorial's "
            f"loop; {within} of {len(ratios)} pairs within {BOUND}"
        )
        if not kept and within >= max(1, len(ratios) - _STRAY):
            return True
        kept.append(ratio <= BOUND)
        if kept.count(kept[-1]) == _AGREE:
            return kept[-1]


def guard(pairs: int = _PAIRS, deltas: int = _DELTAS) -> bool:
    """Measure; say what came of it; return whether the bound is kept."""
    measurements = [
        Measurement("drain", find(name), "drain", {"deltas": deltas})
        for name in ("llm-sse", "tutorial")
    ]

    def trial() -> list[float]:
        results = Results()
        for number, measurement in in_order(measurements, pairs):
            results.add(measure(server, measurement, number))
        if results.faults():
            raise SystemExit("\n".join(results.faults()))
        return results.ratios("drain", "cpu_us", "llm-sse", "tutorial")

    with Server() as server:
        return verdict(trial, print)
