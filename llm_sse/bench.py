"""What `llm-sse bench` shows of a benchmark: a progress bar, a table, CSV, a plot."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from .errors import ConfigurationError
from .metrics import StreamMetrics
from .spread import MIN_RUNS, Benchmark, ProviderRuns, Spread
from .sync.benchmark import BenchmarkRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["INTERRUPTED", "as_csv", "check_plot", "draw", "figure_of", "print_result", "progress"]

_MARK = f"* fewer than {MIN_RUNS} runs: no figures to compare by"
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
    if result.interrupted:
        console.print(INTERRUPTED)


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
    names = ("label", "provider", "model", "iteration", "error", "message", *_FIGURES)
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for provider in result.providers:
        whose = {name: getattr(provider, name) for name in ("label", "provider", "model")}
        for iteration, figures in _runs(provider):
            writer.writerow({**whose, "iteration": iteration, **figures})
    return text.getvalue()


def _runs(provider: ProviderRuns) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number of each run and what there is to say of it, in the order of the runs."""
    errors = {error.iteration: error for error in provider.errors}
    succeeded = iter(provider.runs)
    for iteration in range(1, len(provider.runs) + len(errors) + 1):
        if iteration in errors:
            error = errors[iteration]
            yield iteration, {"error": error.error, "message": error.message}
        else:
            figures = msgspec.structs.asdict(next(succeeded))
            yield iteration, {name: figures[name] for name in _FIGURES}


def check_plot(path: str) -> None:
    """Find out before anything is measured whether a plot can be written there.

    Raises:
        ConfigurationError: It cannot, for want of the library, of the directory, of the format, or
            of the permission.
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
    there = target.exists()
    try:
        with target.open("ab"):
            pass
        if not there:
            target.unlink()
    except OSError as error:
        raise ConfigurationError(f"--plot: {error}") from None


def draw(result: Benchmark, path: str) -> None:
    """Draw each run's time to the first token, and the distribution of the gaps.

    Args:
        result: What was found.
        path: Where to; its ending says in which format.

    Raises:
        OSError: It cannot be written.
    """
    figure_of(result).savefig(path)


def figure_of(result: Benchmark) -> Figure:
    """Return the plot, not yet written."""
    # The figure without pyplot, which would look for a display.
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    marked = [
        (provider, _plain(provider.label) + ("" if provider.enough else " *"))
        for provider in result.providers
    ]
    _draw_first_tokens(left, marked)
    left.set_title(f"time to the first token, {result.iterations} runs each")
    _draw_gaps(right, marked)
    right.set_title("gaps, all runs together")
    marks = [] if all(provider.enough for provider in result.providers) else [_MARK]
    marks += [INTERRUPTED] if result.interrupted else []
    if marks:
        figure.supxlabel("; ".join(marks), fontsize="small")
    return figure


def _draw_first_tokens(axes: Axes, marked: list[tuple[ProviderRuns, str]]) -> None:
    """Draw each run's time to the first token, all of them above 0 and below the frame."""
    timed = [
        (label, [run.ttft_ms for run in provider.runs if run.ttft_ms is not None])
        for provider, label in marked
    ]
    timed = [(label, times) for label, times in timed if times]
    if timed:
        axes.boxplot([times for _, times in timed], showfliers=False)
        for place, (_, times) in enumerate(timed, 1):
            axes.plot([place] * len(times), times, "o", alpha=0.5, markersize=4)
        axes.set_xticks(range(1, len(timed) + 1), [label for label, _ in timed], rotation=20)
        axes.set_ylim(0, 1.08 * max(max(times) for _, times in timed) or 1.0)
    axes.set_ylabel("ms")


def _draw_gaps(axes: Axes, marked: list[tuple[ProviderRuns, str]]) -> None:
    """Draw which share of the gaps is no longer than so much.

    A line begins with the share of the gaps that are 0, for which the scale has no place.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator  # noqa: PLC0415

    found = [gap_s * 1000 for each, _ in marked for gap_s, _ in each.gaps.counts if gap_s]
    shortest, longest = (min(found) / 1.5, max(found) * 1.5) if found else (1.0, 10.0)
    for provider, label in marked:
        total = provider.gaps.total
        if not total:
            continue
        so_far = 0
        points = {shortest: 0.0}
        for gap_s, count in provider.gaps.counts:
            so_far += count
            points[gap_s * 1000 or shortest] = 100 * so_far / total
        points[longest] = 100.0
        axes.step(list(points), list(points.values()), where="post", label=label)
    axes.set_xscale("log")
    axes.set_xlim(shortest, longest)
    axes.set_ylim(0, 101)
    few = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if longest < 30 * shortest else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=few))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda gap_ms, _: f"{gap_ms:g}"))
    axes.set_xlabel("gap between two pieces of content, ms")
    axes.set_ylabel("% of the gaps that are no longer")
    if axes.get_legend_handles_labels()[1]:
        axes.legend()


def _plain(label: str) -> str:
    """Return a label in which nothing is a formula."""
    return label.replace("$", r"\$")
