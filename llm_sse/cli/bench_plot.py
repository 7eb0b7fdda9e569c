"""What `llm-sse bench --plot` draws of a benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigurationError
from ..spread import Benchmark, ProviderRuns
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
    marked = [
        (provider, _plain(provider.label) + ("" if provider.enough else " *"))
        for provider in result.providers
    ]
    _draw_first_tokens(left, marked)
    left.set_title(f"time to the first token, {result.iterations} runs each")
    _draw_gaps(right, marked)
    right.set_title("gaps, all runs together")
    marks = [] if all(provider.enough for provider in result.providers) else [MARK]
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
