"""What `llm-sse bench --plot` draws of a benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigurationError
from ..spread import MIN_RUNS, Benchmark, ProviderRuns
from .bench_report import INTERRUPTED, MARK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["check_plot", "draw", "figure_of"]

_NEEDS_PLOT = '--plot needs matplotlib: pip install "llm-sse[cli,plot]"'


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
    fewest = min(_draw_first_tokens(left, result), _draw_gaps(right, result))
    left.set_title("time to the first token")
    right.set_title("gaps, all runs together")
    marks = [] if fewest >= MIN_RUNS else [MARK]
    marks += [INTERRUPTED] if result.interrupted else []
    if marks:
        figure.supxlabel("; ".join(marks), fontsize="small")
    return figure


def _draw_first_tokens(axes: Axes, result: Benchmark) -> int:
    """Draw each run's time to the first token, all of them above 0 and below the frame.

    Returns:
        The least number of runs that anything drawn is of.
    """
    timed = [
        (_of_runs(provider, len(times), "\n"), times)
        for provider in result.providers
        if (times := [run.ttft_ms for run in provider.runs if run.ttft_ms is not None])
    ]
    if timed:
        axes.boxplot([times for _, times in timed], showfliers=False)
        for place, (_, times) in enumerate(timed, 1):
            axes.plot([place] * len(times), times, "o", alpha=0.5, markersize=4)
        axes.set_xticks(range(1, len(timed) + 1), [label for label, _ in timed], rotation=20)
        axes.set_ylim(0, 1.08 * max(max(times) for _, times in timed) or 1.0)
    axes.set_ylabel("ms")
    return min((len(times) for _, times in timed), default=MIN_RUNS)


def _draw_gaps(axes: Axes, result: Benchmark) -> int:
    """Draw which share of the gaps is no longer than so much.

    A line begins with the share of the gaps that are 0, for which the scale has no place.

    Returns:
        The least number of runs that anything drawn is of.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator  # noqa: PLC0415

    drawn = [
        (each, sum(run.gaps.total > 0 for run in each.runs))
        for each in result.providers
        if each.gaps.total
    ]
    found = [gap_s * 1000 for each, _ in drawn for gap_s, _ in each.gaps.counts if gap_s]
    shortest, longest = (min(found) / 1.5, max(found) * 1.5) if found else (1.0, 10.0)
    for provider, runs in drawn:
        total = provider.gaps.total
        so_far = 0
        points = {shortest: 0.0}
        for gap_s, count in provider.gaps.counts:
            so_far += count
            points[gap_s * 1000 or shortest] = 100 * so_far / total
        points[longest] = 100.0
        axes.step(list(points), list(points.values()), where="post", label=_of_runs(provider, runs))
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
    return min((runs for _, runs in drawn), default=MIN_RUNS)


def _of_runs(provider: ProviderRuns, runs: int, between: str = ", ") -> str:
    """Return a label that says of how many runs a figure is, with a mark if of too few."""
    counted = "1 run" if runs == 1 else f"{runs} runs"
    return f"{_plain(provider.label)}{between}{counted}{'' if runs >= MIN_RUNS else ' *'}"


def _plain(label: str) -> str:
    """Return a label in which nothing is a formula."""
    return label.replace("$", r"\$")
