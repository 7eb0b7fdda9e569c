"""What a process uses at the moment, without anything that would have to be installed."""

from __future__ import annotations

import gc
import os
import subprocess
import threading

__all__ = ["Usage", "usage", "usage_at_rest"]

#: Figures of one moment, by their names.
Usage = dict[str, float]


def usage() -> Usage:
    """Return this process's threads, open descriptors, and resident memory in megabytes."""
    return {
        "threads": threading.active_count(),
        "descriptors": _descriptors(),
        "MB": _memory_mb(),
    }


def usage_at_rest() -> Usage:
    """Collect the garbage; return the usage, and how many objects are left for the collector."""
    gc.collect()
    return {**usage(), "objects": len(gc.get_objects())}


def _descriptors() -> int:
    try:
        return len(os.listdir("/dev/fd")) - 1  # the listing's own
    except OSError:
        return 0


def _memory_mb() -> float:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:  # macOS
        said = subprocess.run(
            ["ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, text=True, check=True
        )
        return int(said.stdout) * 1024 / 1e6
