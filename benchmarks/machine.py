"""On what a run was made, and how busy that was."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping
from pathlib import Path

from .figures import Results

__all__ = ["busy", "machine"]

#: Up to which load at the start a machine is called quiet.
_QUIET_LOAD = 1.0


def machine(versions: Mapping[str, str]) -> str:
    """Say on what the run was made, in one line."""
    packages = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    return (
        f"Python {platform.python_version()}, {platform.system()}, {_processor()}, "
        f"{os.cpu_count()} cores; {packages}"
    )


def busy(results: Results, at_start: float | None) -> str:
    """Say how busy the machine was, in a sentence; at the start that is others' work alone."""
    if at_start is None:
        return "The machine does not say how busy it was."
    how = "quiet" if at_start <= _QUIET_LOAD else "**busy with other work**"
    loads = [sample.load for sample in results.samples if sample.load is not None] or [at_start]
    return (
        f"The machine was {how}: its load was {at_start:.1f} at the start, and, this run's own "
        f"included, {statistics.median(loads):.1f} in the median before a measurement and "
        f"{max(loads):.1f} at most."
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
