"""A guard: llm-sse's drain must not cost more than 1.2 times the tutorial's loop.

    python -m benchmarks --guard

It needs no other contestant, so no extra. Machines are shared and noisy, and the rule that bears
with it is fixed beforehand: a trial is seven pairs of runs, ours and the loop's one after another,
each in a fresh process; judged is the median of the pairs' ratios of processor time. The guard
passes with the first trial that is within the bound, and fails after the third that is not: noise
would have to strike four pairs of each of three trials, while a real loss is there in all of them.
"""

from __future__ import annotations

from collections.abc import Callable

from .clients import find
from .figures import Results
from .plan import Measurement, in_order
from .run import Server, measure

__all__ = ["BOUND", "TRIALS", "guard", "verdict"]

BOUND = 1.2
TRIALS = 3
_PAIRS = 7
_DELTAS = 20_000


def verdict(trial: Callable[[], float], say: Callable[[str], object]) -> bool:
    """Run trials until one is within the bound; return whether one was."""
    for number in range(1, TRIALS + 1):
        ratio = trial()
        within = ratio <= BOUND
        say(
            f"trial {number} of {TRIALS}: drain costs {ratio:.2f} times the tutorial's loop, "
            f"{'within' if within else 'above'} {BOUND}"
        )
        if within:
            return True
    return False


def guard(pairs: int = _PAIRS, deltas: int = _DELTAS) -> bool:
    """Measure; say what came of it; return whether the bound is kept."""
    measurements = [
        Measurement("drain", find(name), "drain", {"deltas": deltas})
        for name in ("llm-sse", "tutorial")
    ]

    def trial() -> float:
        results = Results()
        for number, measurement in in_order(measurements, pairs):
            results.add(measure(server, measurement, number))
        if results.faults():
            raise SystemExit("\n".join(results.faults()))
        ratio = results.ratio("drain", "cpu_us", "llm-sse", "tutorial")
        assert ratio is not None
        return ratio

    with Server() as server:
        return verdict(trial, print)
