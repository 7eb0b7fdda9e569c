"""The tables that a benchmark prints, and writes into the page about performance."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from .figures import Results
from .machine import busy, machine
from .plan import BUFFERS, SWITCH_INTERVAL_S
from .soak_report import table
from .stage_names import STAGES
from .targets import REASONS, judge

__all__ = [
    "PARTS",
    "costs",
    "described",
    "ratios",
    "stage_tables",
    "tables",
    "targets",
    "written",
]

#: What `tables` returns, and the page has marks for.
PARTS = ("machine", "targets", "ratios", "costs", "stages", "details")

#: What the part `stages` tells, and the details do not.
_APART = ("stages", *(f"buffer {size}" for size in BUFFERS))

#: Against which of ours a contestant is held: the one that speaks the same format.
_SAME_FORMAT = {
    "anthropic-raw": "llm-sse-anthropic",
    "anthropic": "llm-sse-anthropic",
    "google-genai": "llm-sse-gemini",
}
_OURS = ("llm-sse", "llm-sse-anthropic", "llm-sse-gemini")


class _Column(NamedTuple):
    head: str
    key: str
    figure: str
    digits: int = 1


#: How long an answer is of which the page tells the costs.
_ANSWER_DELTAS = 500

_RATIOS = (
    _Column("drain, CPU", "drain", "cpu_us"),
    _Column("drain, wall", "drain", "wall_us"),
    _Column("50 streams, CPU", "paced 50", "cpu_us"),
    _Column("50 streams, p50", "paced 50", "latency_p50_us"),
    _Column("import", "import", "cpu_ms"),
    _Column("first token", "first token", "wall_ms"),
    _Column("idle stream", "idle", "kb_per_stream"),
    _Column("idle stream, TLS", "idle, TLS", "kb_per_stream"),
    _Column("opening, TLS", "idle, TLS", "open_cpu_ms"),
)

_DELTA = (
    _Column("CPU per delta, us", "", "cpu_us"),
    _Column("latency p50, us", "", "latency_p50_us", 0),
    _Column("latency p99, us", "", "latency_p99_us", 0),
)
_MANY = (
    *_DELTA,
    _Column("server's CPU per delta, us", "", "server_us"),
    _Column("threads", "", "threads", 0),
    _Column("KB per stream", "", "kb_per_stream", 0),
    _Column("lost", "", "lost", 0),
)
_OPEN = (
    _Column("KB per stream", "", "kb_per_stream"),
    _Column("CPU per opening, ms", "", "open_cpu_ms"),
    _Column("threads", "", "threads", 0),
)
_DETAILS: Mapping[str, tuple[str, tuple[_Column, ...]]] = {
    "drain": (
        "Drain: deltas as fast as they are taken, each its own HTTP chunk",
        (
            _Column("CPU per delta, us", "", "cpu_us"),
            _Column("wall per delta, us", "", "wall_us"),
            _Column("server's CPU per delta, us", "", "server_us", 2),
            _Column("lost", "", "lost", 0),
        ),
    ),
    "scale": ("Scale: a thousand streams at 5 deltas/s", _MANY),
    "scale, patient": (f"Scale, after `sys.setswitchinterval({SWITCH_INTERVAL_S})`", _MANY),
    "import": (
        "Start: the import",
        (_Column("CPU, ms", "", "cpu_ms"), _Column("wall, ms", "", "wall_ms")),
    ),
    "first token": (
        "Start: from the start of the process to the first token",
        (_Column("CPU, ms", "", "cpu_ms"), _Column("wall, ms", "", "wall_ms")),
    ),
    "idle": ("Memory: streams that are open while nothing comes", _OPEN),
    "idle, TLS": ("Memory: the same over TLS, with the usual bundle of authorities", _OPEN),
    "sleeper": (
        "Memory: a consumer that sleeps while a million deltas wait for it",
        (_Column("growth, MB", "", "grown_mb", 2), _Column("lost", "", "lost", 0)),
    ),
    "event": (
        "Memory: one event of 16 MB",
        (
            _Column("CPU, ms", "", "cpu_ms", 0),
            _Column("wall, ms", "", "wall_ms", 0),
            _Column("peak above the start, MB", "", "peak_mb", 0),
        ),
    ),
}


def ratios(results: Results) -> str:
    """Return the one table: how many times what llm-sse takes each contestant takes."""
    columns = [column for column in _RATIOS if column.key in results.keys]
    if not columns:
        return ""
    names = list(dict.fromkeys(name for column in columns for name in results.clients(column.key)))
    rows: list[tuple[str, ...]] = []
    for name in names:
        if name in _OURS:
            continue
        cells = []
        for column in columns:
            ours = _SAME_FORMAT.get(name, "llm-sse") if column.key == "drain" else "llm-sse"
            cells.append(_ratio(results, column, name, ours))
        rows.append((name, *cells))
    return table(("x what llm-sse takes", *(column.head for column in columns)), rows)


def _ratio(results: Results, column: _Column, of: str, to: str) -> str:
    value = results.ratio(column.key, column.figure, of, to)
    if value is None:
        return ""
    if not all(results.settled(column.key, name, column.figure) for name in (of, to)):
        return "not settled"
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


_COSTS = (
    (_Column("CPU s, drained", "drain", "cpu_us"), _ANSWER_DELTAS / 1000),
    (_Column("CPU s, paced, 50 at once", "paced 50", "cpu_us"), _ANSWER_DELTAS / 1000),
    (_Column("CPU s, opened over TLS", "idle, TLS", "open_cpu_ms"), 1.0),
    (_Column("MB, all open over TLS and silent", "idle, TLS", "kb_per_stream", 0), 1.0),
)


def costs(results: Results) -> str:
    """Return what a thousand answers cost: processor time in seconds, memory in megabytes."""
    columns = [(column, factor) for column, factor in _COSTS if column.key in results.keys]
    if not columns:
        return ""
    names = dict.fromkeys(name for column, _ in columns for name in results.clients(column.key))
    rows = [
        (name, *(_cost(results, name, column, factor) for column, factor in columns))
        for name in names
    ]
    return table(("1,000 answers", *(column.head for column, _ in columns)), rows)


def _cost(results: Results, name: str, column: _Column, factor: float) -> str:
    median = results.median(column.key, name, column.figure)
    if median is None:
        return ""
    settled = results.settled(column.key, name, column.figure)
    return f"{median * factor:.{column.digits}f}" if settled else "not settled"


def targets(results: Results) -> str:
    """Return the table of what is promised, and of each that is not kept why."""
    rows, missed = [], dict[str, list[str]]()
    for target, value, met, why in judge(results):
        verdict = why if met is None else "met" if met else "**not met**"
        said = "" if value is None else f"{_short(value)} {target.unit}".strip()
        rows.append((target.words, f"{_short(target.most)} {target.unit}".strip(), said, verdict))
        if met is False:
            missed.setdefault(REASONS[target.key], []).append(target.words)
    lines = [f"* **{'; '.join(words)}.** {reason}." for reason, words in missed.items()]
    after = "\n".join(("\n\nWhat is not met, and why:\n", *lines)) if lines else ""
    return table(("target", "at most", "measured", ""), rows) + after


def stage_tables(results: Results) -> str:
    """Return what the stages of a drained delta cost, and what the buffer's size does to it."""
    parts = []
    if "stages" in results.keys:
        rows = [
            (words, _cell(results, "stages", "llm-sse", _Column("", "", name, 2)), what_for)
            for name, (words, what_for) in STAGES.items()
        ]
        parts.append(table(("stage", "us for a delta", "what it is for"), rows))
    column = _Column("CPU per delta, us", "", "cpu_us", 2)
    buffers = [
        (str(size), _cell(results, f"buffer {size}", "llm-sse", column))
        for size in BUFFERS
        if f"buffer {size}" in results.keys
    ]
    if buffers:
        parts.append(table(("`buffer_size`, drained", column.head), buffers))
    return "\n\n".join(parts)


def _short(value: float) -> str:
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:.0f}"


def described(results: Results) -> Iterator[tuple[str, str]]:
    """Yield a title and a table for each measurement."""
    for key in results.keys:
        if key in _APART:
            continue
        streams = key.partition(" ")[2]
        paced = (f"Paced: at once {streams}, at 25 deltas/s each", _MANY)
        title, columns = _DETAILS.get(key, paced)
        rows = [
            (_named(results, key, name), *(_cell(results, key, name, it) for it in columns))
            for name in results.clients(key)
        ]
        heads = ("", *(column.head for column in columns))
        yield f"{title} (median of {results.rounds(key)}; least to greatest)", table(heads, rows)


def _named(results: Results, key: str, name: str) -> str:
    """Return a contestant's name, with its rounds where others had more."""
    made, rounds = results.finished(key, name), results.rounds(key)
    return name if made == rounds else f"{name} ({made} of {rounds} rounds)"


def _cell(results: Results, key: str, name: str, column: _Column) -> str:
    """Return the median and the spread; every round, where they are of different things."""
    values = results.by_round(key, name, column.figure)
    if not values:
        return "-"
    fewer = f", {len(values)} rounds" if len(values) < results.finished(key, name) else ""
    if not results.settled(key, name, column.figure):
        each = ", ".join(f"{value:.{column.digits}f}" for _, value in sorted(values.items()))
        return f"not settled: {each}{fewer}"
    low, high = (f"{f(values.values()):.{column.digits}f}" for f in (min, max))
    middle = f"{statistics.median(values.values()):.{column.digits}f}"
    return (middle if low == high else f"{middle} ({low} to {high})") + fewer


def tables(
    results: Results, versions: Mapping[str, str], took_s: float, load: float | None = None
) -> dict[str, str]:
    """Return what stands between the page's marks, by their names.

    Args:
        results: What was measured.
        versions: Of what.
        took_s: How long all of it took, in seconds.
        load: The machine's before it, if it tells one.
    """
    rounds = 1 + max((sample.round for sample in results.samples), default=-1)
    made = (
        f"Measured in one run of {took_s / 60:.1f} minutes, {rounds} rounds: {machine(versions)}. "
        f"{busy(results, load)}"
    )
    details = "\n\n".join(f"### {title}\n\n{body}" for title, body in described(results))
    faults = "\n".join(f"* {fault}" for fault in results.faults())
    return {
        "machine": made,
        "targets": targets(results),
        "ratios": ratios(results),
        "costs": costs(results),
        "stages": stage_tables(results),
        "details": details + (f"\n\n### What was wrong\n\n{faults}" if faults else ""),
    }


def written(page: str, parts: Mapping[str, str]) -> str:
    """Return the page with the parts between their marks.

    Raises:
        ValueError: The page lacks a mark.
    """
    for name, part in parts.items():
        begin, end = f"<!-- {name}: python -m benchmarks --docs -->\n", f"<!-- {name}: end -->"
        before, begun, rest = page.partition(begin)
        _, ended, after = rest.partition(end)
        if not (begun and ended):
            raise ValueError(f"the page lacks the marks of {name!r}")
        page = f"{before}{begin}\n{part}\n\n{end}{after}"
    return page
