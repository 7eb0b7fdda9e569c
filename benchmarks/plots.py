"""The two plots of the page about performance."""

from __future__ import annotations

import math
import statistics
from pathlib import Path

import matplotlib

from .figures import Results

matplotlib.use("svg")
from matplotlib import pyplot

__all__ = ["draw"]

_OURS, _PEERS, _FLOOR = "#1f77b4", "#9aa0a6", "#2ca02c"
_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "llm-sse", "font.size": 9.0}


def draw(results: Results, folder: Path) -> list[Path]:
    """Write the plots as SVG; return where. What was not measured is not drawn."""
    made = []
    with matplotlib.rc_context(_STYLE):
        if "drain" in results.keys:
            made.append(_drain(results, folder / "performance-drain.svg"))
        if any(key.startswith("paced") for key in results.keys):
            made.append(_latency(results, folder / "performance-latency.svg"))
    return made


def _color(name: str) -> str:
    return _OURS if name.startswith("llm-sse") else _FLOOR if name == "floor" else _PEERS


def _drain(results: Results, path: Path) -> Path:
    """One bar for each contestant: processor time for a delta."""
    found = {name: results.median("drain", name, "cpu_us") for name in results.clients("drain")}
    bars = sorted(((us, name) for name, us in found.items() if us is not None), reverse=True)
    figure, axes = pyplot.subplots(figsize=(6.4, 0.5 + 0.28 * len(bars)), layout="constrained")
    drawn = axes.barh(
        [name for _, name in bars], [us for us, _ in bars], color=[_color(name) for _, name in bars]
    )
    axes.bar_label(drawn, fmt="%.1f", padding=3)
    axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.set_xlabel("CPU per delta, microseconds (less is better; logarithmic)")
    axes.spines[["top", "right"]].set_visible(False)
    return _saved(figure, path)


def _latency(results: Results, path: Path) -> Path:
    """Latency over the number of streams: p50 as a line, p99 as a dashed one."""
    keys = [key for key in results.keys if key.startswith("paced")]
    figure, axes = pyplot.subplots(figsize=(6.4, 3.2), layout="constrained")
    for number, name in enumerate(results.clients(keys[0])):
        for figure_name, style in (("latency_p50_us", "o-"), ("latency_p99_us", "o--")):
            middles, strays = _points(results, keys, name, figure_name)
            label = name if style == "o-" else None
            axes.plot(*zip(*middles, strict=True), style, color=f"C{number}", label=label)
            if strays:
                axes.plot(*zip(*strays, strict=True), "x", color=f"C{number}")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("streams at once, 25 deltas/s each")
    axes.set_ylabel("latency, ms")
    axes.set_title(
        "p50 (solid), p99 (dashed), from the server's send to the caller's loop\n"
        "(crosses: single rounds that have no common middle)",
        fontsize="medium",
    )
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return _saved(figure, path)


_Point = tuple[int, float]


def _points(
    results: Results, keys: list[str], name: str, figure_name: str
) -> tuple[list[_Point], list[_Point]]:
    """Return the medians over the number of streams, and all rounds of those that are none."""
    middles: list[_Point] = []
    strays: list[_Point] = []
    for key in keys:
        streams = int(key.partition(" ")[2])
        each = results.by_round(key, name, figure_name).values()
        if results.settled(key, name, figure_name):
            middles += [(streams, statistics.median(each) / 1000)] if each else []
        else:
            middles.append((streams, math.nan))
            strays += [(streams, us / 1000) for us in each]
    return middles, strays


def _saved(figure: pyplot.Figure, path: Path) -> Path:
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path
