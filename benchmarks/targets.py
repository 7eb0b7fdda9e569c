"""What is promised, as ratios of one run's figures, and whether it is kept."""

from __future__ import annotations

import statistics
from typing import NamedTuple

from .figures import ROUNDS, Results

__all__ = ["REASONS", "TARGETS", "Target", "Verdict", "judge"]


class Target(NamedTuple):
    """One promise.

    Attributes:
        words: What is compared.
        key: The measurement's key.
        figure: The figure's name.
        of: Whose.
        to: Against whose; `None` for a figure that is judged by itself.
        most: The most that it may be.
        unit: The unit of a figure that is judged by itself.
    """

    words: str
    key: str
    figure: str
    of: str
    to: str | None
    most: float
    unit: str = ""


class Verdict(NamedTuple):
    """How a promise is kept.

    Attributes:
        target: The promise.
        value: The ratio, or the figure; `None` where there is none.
        met: Whether it is kept; `None` where that cannot be told.
        why: Why not.
    """

    target: Target
    value: float | None
    met: bool | None
    why: str = ""


_OURS, _CPU = "llm-sse", "cpu_us"
_PACED = "paced 50"

TARGETS = (
    Target("drain: CPU, to the tutorial's loop", "drain", _CPU, _OURS, "tutorial", 1.0),
    Target("drain: CPU, to `openai`", "drain", _CPU, _OURS, "openai", 1 / 20),
    Target(
        "drain: CPU, to `anthropic`'s `text_stream`",
        *("drain", _CPU, "llm-sse-anthropic", "anthropic"),
        1 / 10,
    ),
    Target(
        "drain: CPU, to `google-genai`", "drain", _CPU, "llm-sse-gemini", "google-genai", 1 / 30
    ),
    Target("drain: CPU, to `sseclient-py`", "drain", _CPU, _OURS, "sseclient-py", 1 / 2),
    Target("drain: CPU, to the floor", "drain", _CPU, _OURS, "floor", 4.0),
    Target("50 streams: CPU, to the tutorial's loop", _PACED, _CPU, _OURS, "tutorial", 1.5),
    Target("50 streams: CPU, to `openai`", _PACED, _CPU, _OURS, "openai", 1 / 4),
    Target(
        "50 streams: latency p50, to `openai`", _PACED, "latency_p50_us", _OURS, "openai", 1 / 3
    ),
    Target("import, to `requests` alone", "import", "cpu_ms", _OURS, "tutorial", 1.3),
    Target("import, to `openai`", "import", "cpu_ms", _OURS, "openai", 1 / 4),
    Target("memory: a sleeping consumer", "sleeper", "grown_mb", _OURS, None, 1.0, "MB"),
    Target("memory: an idle stream", "idle", "kb_per_stream", _OURS, None, 100.0, "KB"),
    Target(
        "memory: an idle stream over TLS", "idle, TLS", "kb_per_stream", _OURS, None, 100.0, "KB"
    ),
)

_DRAINED = (
    "Tried, and kept: whole chunks by one regular expression, a short way for an event of one "
    "line, deltas handed over in batches of half the buffer, one look at the clock for each read. "
    "Profile: the table of the stages below. Reason: every delta goes through each of them, and "
    "in each it costs a call or an object at least"
)
_TWO_WAKE_UPS = (
    "Tried, and kept: a bare lock instead of `threading.Condition` between the threads, limits "
    "worked out without lists. Tried, and no different in the noise of a shared machine: to wake "
    "the reader only after the queue's own lock is free, and reads of 8 KB. Profile: "
    "*floor-2-threads*, among the figures, is a bare socket with a second thread behind it and "
    "nothing else, and the floor is that with one; what is above it is the stages' work, for one "
    "delta at a time. Reason: two threads are woken for each delta where one could be, and each "
    "has to be given the interpreter: that is the price of waits that have a deadline and can be "
    "ended. Weighed, and left: to let your thread read the network itself while it waits. It would "
    "save one of the two, but then nobody reads while you are busy, so that the gaps in `metrics` "
    "would be yours as well as the provider's; and what a signal raises in your thread could come "
    "in the middle of an event, and lose it"
)
_IMPORTED = (
    "Tried, and kept: a provider is imported when it is first asked for, and so is what few need. "
    "Profile: `python -X importtime -c 'import llm_sse'`. Reason: `requests` itself is more than "
    "half of it; what is left is `msgspec`, and the classes of the events, which every program "
    "needs"
)
_HELD = (
    "Tried, and kept: a read that waits holds 8 KB, and where nobody reads nothing is read once "
    "the buffer is full. Profile: the column of KB per stream, beside the threads'. Reason: the "
    "stack of the stream's thread, and what the allocator sets apart for a thread"
)

_HELD_BY_TLS = (
    "Tried, and kept: one TLS context for all connections, where `requests` reads the authorities "
    "anew for each, 0.7 MB and 18 ms of CPU. Profile: bare sockets over TLS hold 36 KB each with "
    "OpenSSL, 18 KB more where each has a thread, and 24 KB more while that waits in a read. "
    "Reason: a stream has a thread, and it waits in a read. To wait before the read would save "
    "the 24 KB, at the price of one more call of the system for every delta"
)

#: Where a promise is not kept: what was tried, the profile, and the reason; by the measurement.
REASONS = {
    "drain": _DRAINED,
    _PACED: _TWO_WAKE_UPS,
    "import": _IMPORTED,
    "sleeper": _HELD,
    "idle": _HELD,
    "idle, TLS": _HELD_BY_TLS,
}


def judge(results: Results) -> list[Verdict]:
    """Hold the results against every promise: of too few rounds, or of chance, none is judged."""
    return [_judged(target, results) for target in TARGETS]


def _judged(target: Target, results: Results) -> Verdict:
    key, figure = target.key, target.figure
    if target.to is None:
        values = list(results.by_round(key, target.of, figure).values())
    else:
        values = results.ratios(key, figure, target.of, target.to)
    if not values:
        return Verdict(target, None, None, "not measured")
    whose = (target.of,) if target.to is None else (target.of, target.to)
    if not all(results.settled(key, name, figure) for name in whose):
        return Verdict(target, None, None, "not settled")
    value = statistics.median(values)
    if len(values) < ROUNDS:
        return Verdict(target, value, None, f"only {len(values)} of {ROUNDS} rounds")
    return Verdict(target, value, value <= target.most)
