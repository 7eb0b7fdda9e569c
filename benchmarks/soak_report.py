"""What came of a soak, counted, and written as tables that can be pasted into a document."""

from __future__ import annotations

import os
import platform
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import requests
import urllib3

import llm_sse

from .soak_check import Result
from .soak_plan import Case

__all__ = ["Tally", "environment", "table"]

#: How many violations are shown word by word; all are counted.
_SHOWN = 50


class Tally:
    """Everything that is counted.

    Attributes:
        streams: How many streams have ended.
        deltas: How many text deltas their readers got.
        endings: How the streams ended.
        faults: How the streams ended that met a fault, for each fault.
        manners: How the streams were read.
        wrong: How many violations of each kind there were.
        shown: The first violations, with the streams that they happened to.

    Thread: any number of them add.
    """

    def __init__(self) -> None:
        self.streams = 0
        self.deltas = 0
        self.endings: Counter[str] = Counter()
        self.faults: Counter[tuple[str, str]] = Counter()
        self.manners: Counter[tuple[str, str]] = Counter()
        self.wrong: Counter[str] = Counter()
        self.shown: list[str] = []
        self._lock = threading.Lock()

    def add(self, case: Case, result: Result, violations: Iterable[str]) -> None:
        """Count a stream."""
        with self._lock:
            self.streams += 1
            self.deltas += len(result.heard)
            self.endings[result.ending] += 1
            self.manners[case.reader, case.manner] += 1
            for name in {fault.name for fault in case.faults} or {"none"}:
                self.faults[name, result.ending] += 1
        self.complain(f"{violation}\n  {case}" for violation in violations)

    def complain(self, violations: Iterable[str]) -> None:
        """Count violations."""
        with self._lock:
            for violation in violations:
                self.wrong[violation.partition(":")[0]] += 1
                if len(self.shown) < _SHOWN:
                    self.shown.append(violation)

    def tables(self, took_s: float) -> str:
        """Return all that was counted, as tables."""
        with self._lock:
            streams = max(1, self.streams)
            return "\n\n".join(
                (
                    table(
                        ("ending", "streams", "share"),
                        (
                            (ending, count, f"{count / streams:.1%}")
                            for ending, count in self.endings.most_common()
                        ),
                    ),
                    "A stream counts once for each of the faults that were drawn for it.",
                    table(("fault", "streams", "endings"), _by_first(self.faults)),
                    table(("reader", "streams", "manners"), _by_first(self.manners)),
                    table(
                        ("violation", "count"),
                        self.wrong.most_common() or [("none", 0)],
                    ),
                    table(
                        ("streams", "deltas", "seconds", "streams/s", "deltas/s"),
                        [
                            (
                                self.streams,
                                self.deltas,
                                f"{took_s:.0f}",
                                f"{self.streams / took_s:.1f}",
                                f"{self.deltas / took_s:.0f}",
                            )
                        ],
                    ),
                )
            )

    def as_json(self) -> dict[str, Any]:
        """Return all that was counted, for a machine."""
        return {
            "streams": self.streams,
            "deltas": self.deltas,
            "endings": dict(self.endings),
            "faults": {name: dict(inner) for name, inner in _nested(self.faults).items()},
            "readers": {name: dict(inner) for name, inner in _nested(self.manners).items()},
            "violations": dict(self.wrong),
            "shown": self.shown,
        }


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Write a table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def environment() -> str:
    """Say on what this runs."""
    return ", ".join(
        (
            f"Python {platform.python_version()}",
            *(f"{module.__name__} {module.__version__}" for module in (llm_sse, requests, urllib3)),
            platform.system(),
            f"{os.cpu_count()} cores",
        )
    )


def _nested(counts: Mapping[tuple[str, str], int]) -> dict[str, Counter[str]]:
    nested: dict[str, Counter[str]] = {}
    for (first, second), count in sorted(counts.items()):
        nested.setdefault(first, Counter())[second] = count
    return nested


def _by_first(counts: Mapping[tuple[str, str], int]) -> list[tuple[str, int, str]]:
    return [
        (first, inner.total(), ", ".join(f"{name} {n}" for name, n in inner.most_common()))
        for first, inner in _nested(counts).items()
    ]
