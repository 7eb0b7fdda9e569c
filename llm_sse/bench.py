"""What `llm-sse bench` shows of a benchmark: a progress bar, a table, CSV, a plot."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from .errors import ConfigurationError
from .metrics import StreamMetrics
from .spread import MIN_RUNS, Benchmark, ProviderRuns, Spread
from .sync.benchmark import BenchmarkRun

__all__ = ["as_csv", "check_plot", "draw", "print_result", "progress"]

_MARK = f"* fewer than {MIN_RUNS} runs: no figures to compare by"

#: The columns of the table: a title, which spread it shows, and by what its unit multiplies it.
_COLUMNS = (
    ("first token\nms", "first_token_s", 1000.0),
    ("gap p50\nms", "gap_p50_s", 1000.0),
    ("gap p99\nms", "gap_p99_s", 1000.0),
    ("tokens/s", "output_tokens_per_s", 1.0),
    ("total\ns", "total_s", 1.0),
)

_FIGURES = tuple(name for name in StreamMetrics.__struct_fields__ if name != "gaps")
_NEEDS_PLOT = '--plot needs matplotlib: pip install "llm-sse[cli,plot]"'


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
    for provider in result.providers:
        runs = f"{len(provider.runs)}/{result.iterations}{'' if provider.enough else ' *'}"
        cells = (_cell(getattr(provider, name), factor) for _, name, factor in _COLUMNS)
        table.add_row(clean(provider.label), runs, *cells)
    console.print(table)
    console.print("median, and quartiles below it, of the runs that succeeded")
    if not all(provider.enough for provider in result.providers):
        console.print(_MARK)


def _cell(spread: Spread | None, factor: float) -> str:
    """Return a median and its quartiles, with three digits or so."""
    if spread is None:
        return "-"
    middle, low, high = (value * factor for value in (spread.median, spread.q1, spread.q3))
    digits = 0 if middle >= 100 else 1 if middle >= 10 else 2
    return f"{middle:.{digits}f}\n{low:.{digits}f}-{high:.{digits}f}"


def as_csv(result: Benchmark) -> str:
    """Return one line for each run, with everything that was measured but the distribution."""
    text = io.StringIO()
    names = ("label", "provider", "model", "iteration", "error", *_FIGURES)
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for provider in result.providers:
        whose = {name: getattr(provider, name) for name in ("label", "provider", "model")}
        for iteration, figures in _runs(provider, result.iterations):
            writer.writerow({**whose, "iteration": iteration, **figures})
    return text.getvalue()


def _runs(provider: ProviderRuns, iterations: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number of each run and what there is to say of it, in the order of the runs."""
    errors = {error.iteration: error for error in provider.errors}
    succeeded = iter(provider.runs)
    for iteration in range(1, iterations + 1):
        if iteration in errors:
            yield iteration, {"error": errors[iteration].error}
        else:
            figures = msgspec.structs.asdict(next(succeeded))
            yield iteration, {name: figures[name] for name in _FIGURES}


def check_plot(path: str) -> None:
    """Find out before anything is measured whether a plot can be written there.

    Raises:
        ConfigurationError: It cannot, for want of the library, of the directory, or of the format.
    """
    try:
        from matplotlib.backend_bases import FigureCanvasBase  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"{_NEEDS_PLOT} ({error})") from None
    target = Path(path)
    if not target.parent.is_dir():
        raise ConfigurationError(f"--plot: there is no directory {str(target.parent)!r}")
    known = FigureCanvasBase.get_supported_filetypes()
    if target.suffix[1:].lower() not in known:
        raise ConfigurationError(
            f"--plot: {target.name!r} should end in .png or .svg, or one of: "
            f"{', '.join(sorted(known))}"
        )


def draw(result: Benchmark, path: str) -> None:
    """Draw each run's time to the first token, and the distribution of the gaps.

    Args:
        result: What was found.
        path: Where to; its ending says in which format.

    Raises:
        OSError: It cannot be written.
    """
    # The figure without pyplot, which would look for a display.
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    marked = [
        (provider, _plain(provider.label) + ("" if provider.enough else " *"))
        for provider in result.providers
    ]
    timed = [
        (label, [run.ttft_ms for run in provider.runs if run.ttft_ms is not None])
        for provider, label in marked
    ]
    timed = [(label, times) for label, times in timed if times]
    if timed:
        left.boxplot([times for _, times in timed], showfliers=False)
        for place, (_, times) in enumerate(timed, 1):
            left.plot([place] * len(times), times, "o", alpha=0.5, markersize=4)
        left.set_xticks(range(1, len(timed) + 1), [label for label, _ in timed], rotation=20)
    left.set_ylim(bottom=0)
    left.set_ylabel("ms")
    left.set_title(f"time to the first token, {result.iterations} runs each")
    for provider, label in marked:
        gaps = [(gap_s * 1000, count) for gap_s, count in provider.gaps.counts if gap_s]
        if gaps:
            total = provider.gaps.total
            so_far = total - sum(count for _, count in gaps)
            shares = [100 * (so_far := so_far + count) / total for _, count in gaps]
            right.step([gap_ms for gap_ms, _ in gaps], shares, where="post", label=label)
    right.set_xscale("log")
    right.set_ylim(0, 101)
    right.set_xlabel("gap between two pieces of content, ms")
    right.set_ylabel("% of the gaps that are no longer")
    right.set_title("gaps, all runs together")
    if right.get_legend_handles_labels()[1]:
        right.legend()
    if not all(provider.enough for provider in result.providers):
        figure.supxlabel(_MARK, fontsize="small")
    figure.savefig(path)


def _plain(label: str) -> str:
    """Return a label in which nothing is a formula."""
    return label.replace("$", r"\$")
