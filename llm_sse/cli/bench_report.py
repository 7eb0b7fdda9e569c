"""What `llm-sse bench` prints of a benchmark: a progress bar, a table, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from ..metrics import StreamMetrics
from ..spread import MIN_RUNS, Benchmark, ProviderRuns, Spread
from ..sync.benchmark import BenchmarkRun

__all__ = ["INTERRUPTED", "MARK", "as_csv", "print_result", "progress"]

#: What is said where a mark stands.
MARK = f"* fewer than {MIN_RUNS} runs: no figures to compare by"
#: What is said of a result that is not whole.
INTERRUPTED = "interrupted before all runs were made"

#: The columns of the table: a title, which spread it shows, and by what its unit multiplies it.
_COLUMNS = (
    ("first token\nms", "first_token_s", 1000.0),
    ("gap p50\nms", "gap_p50_s", 1000.0),
    ("gap p99\nms", "gap_p99_s", 1000.0),
    ("tokens/s", "output_tokens_per_s", 1.0),
    ("total\ns", "total_s", 1.0),
)

_FIGURES = tuple(name for name in StreamMetrics.__struct_fields__ if name != "gaps")


@contextmanager
def progress(total: int) -> Iterator[Callable[[BenchmarkRun], None]]:
    """Show a bar on standard error, where that is a terminal; give what is called for each run.

    Args:
        total: How many runs there will be.
    """
    # Only here, because it takes longer to import than everything else.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda run: None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("asking", total=total)

        def ended(run: BenchmarkRun) -> None:
            said = run.error.error if run.error is not None else _first_token(run.metrics)
            bar.update(task, advance=1, description=f"{run.label}: {said}")

        yield ended


def _first_token(metrics: StreamMetrics | None) -> str:
    if metrics is None or metrics.ttft_ms is None:
        return "no text"
    return f"{metrics.ttft_ms:.0f} ms"


def print_result(result: Benchmark, clean: Callable[[str], str]) -> None:
    """Print the medians, and the quartiles around them, on standard output.

    Args:
        result: What was found.
        clean: Makes text of others harmless to a terminal.
    """
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    console = Console(markup=False, emoji=False, highlight=False)
    table = Table("provider", "runs", box=None, pad_edge=False)
    for title, _, _ in _COLUMNS:
        table.add_column(title, justify="right", no_wrap=True)
    table.columns[0].overflow = "fold"
    marked = False
    for provider in result.providers:
        runs = f"{len(provider.runs)}/{result.iterations}{'' if provider.enough else ' *'}"
        spreads = [(getattr(provider, name), factor) for _, name, factor in _COLUMNS]
        marked |= not provider.enough
        marked |= any(spread is not None and not spread.enough for spread, _ in spreads)
        table.add_row(clean(provider.label), runs, *(_cell(*spread) for spread in spreads))
    console.print(table)
    console.print("median, and quartiles below it, of the runs that succeeded")
    if marked:
        console.print(MARK)
    if result.interrupted:
        console.print(INTERRUPTED)


def _cell(spread: Spread | None, factor: float) -> str:
    """Return a median and its quartiles, with three digits or so, and a mark if of too few runs."""
    if spread is None:
        return "-"
    middle, low, high = (value * factor for value in (spread.median, spread.q1, spread.q3))
    digits = 0 if middle >= 100 else 1 if middle >= 10 else 2
    mark = "" if spread.enough else "*"
    return f"{middle:.{digits}f}{mark}\n{low:.{digits}f}-{high:.{digits}f}"


def as_csv(result: Benchmark) -> str:
    """Return one line for each run, with everything that was measured but the distribution."""
    text = io.StringIO()
    about = ("label", "provider", "model", "iteration", "error", "message", "finish_reason")
    names = (*about, *_FIGURES)
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for provider in result.providers:
        whose = {name: getattr(provider, name) for name in ("label", "provider", "model")}
        for iteration, figures in _runs(provider):
            writer.writerow({**whose, "iteration": iteration, **figures})
    return text.getvalue()


def _runs(provider: ProviderRuns) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number of each run and what there is to say of it, in the order of the runs."""
    lines: dict[int, dict[str, Any]] = {
        error.iteration: {"error": error.error, "message": error.message}
        for error in provider.errors
    }
    ended = zip(provider.iterations, provider.runs, provider.finish_reasons, strict=True)
    for iteration, run, reason in ended:
        figures = msgspec.structs.asdict(run)
        lines[iteration] = {name: figures[name] for name in _FIGURES} | {"finish_reason": reason}
    yield from sorted(lines.items())
