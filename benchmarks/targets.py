"""What is promised, as ratios of one run's figures, and whether it is kept."""

from __future__ import annotations

from typing import NamedTuple

from .figures import Results

__all__ = ["TARGETS", "Target", "Verdict", "judge"]


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
        value: The ratio, or the figure; `None` where it was not measured.
        met: Whether it is kept; `None` where nothing was measured.
    """

    target: Target
    value: float | None
    met: bool | None


_OURS, _CPU = "llm-sse", "cpu_us"

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
    Target("50 streams: CPU, to the tutorial's loop", "paced 50", _CPU, _OURS, "tutorial", 1.5),
    Target("50 streams: CPU, to `openai`", "paced 50", _CPU, _OURS, "openai", 1 / 4),
    Target(
        "50 streams: latency p50, to `openai`",
        *("paced 50", "latency_p50_us", _OURS, "openai"),
        1 / 3,
    ),
    Target("import, to `requests` alone", "import", "cpu_ms", _OURS, "tutorial", 1.3),
    Target("import, to `openai`", "import", "cpu_ms", _OURS, "openai", 1 / 4),
    Target("memory: a sleeping consumer", "sleeper", "grown_mb", _OURS, None, 1.0, "MB"),
    Target("memory: an idle stream", "idle", "kb_per_stream", _OURS, None, 100.0, "KB"),
)


def judge(results: Results) -> list[Verdict]:
    """Hold the results against every promise."""
    verdicts = []
    for target in TARGETS:
        if target.to is None:
            value = results.median(target.key, target.of, target.figure)
        else:
            value = results.ratio(target.key, target.figure, target.of, target.to)
        verdicts.append(Verdict(target, value, None if value is None else value <= target.most))
    return verdicts
