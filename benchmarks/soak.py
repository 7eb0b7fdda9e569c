"""A soak: many streams at once, for as long as you like, with every fault that a network has.

    python -m benchmarks.soak --minutes 10 --streams 200

Each worker reads one stream after the other from fake providers in another process, which do to the
answers what the streams' seeds say. Each stream's text, ending and duration are checked; at the end
so are threads, descriptors and memory. The exit status is 1 if anything was wrong. Which faults
there are is in `soak_faults`, what each stream meets in `soak_plan`, what is right in `soak_check`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from . import soak_check
from .soak_report import environment, table
from .soak_run import Servers, Soak, settled
from .soak_usage import Usage

__all__ = ["main"]

_WARM_UP_S = 5.0

#: An answer's pace, unless there are too many of them.
_TOKENS_PER_S = 50.0

#: Runs that are shorter say nothing about memory.
_MEMORY_S = 110.0


def _memory_at(soak: Soak, share: float, who: int) -> float:
    """Return the middle of the memory's samples around a share of the run."""
    at = soak.samples[-1][0] * share
    near = sorted(soak.samples, key=lambda sample: abs(sample[0] - at))[:9]
    return statistics.median(both[who]["MB"] for _, both in near)


def _resources(soak: Soak, start: tuple[Usage, Usage], end: tuple[Usage, Usage]) -> Iterator[str]:
    """Write the table of what was used, and complain to the tally about what is left."""
    rows: list[tuple[str, ...]] = []
    verdicts: list[tuple[str, ...]] = []
    samples = soak.samples
    for who, name in enumerate(("client", "server")):
        for what, first in start[who].items():
            seen = [first, end[who][what], *(both[who].get(what, 0) for _, both in samples)]
            peak = "" if what == "objects" else f"{max(seen):.0f}"
            rows.append((f"{name}: {what}", f"{first:.0f}", peak, f"{end[who][what]:.0f}"))
        soak.tally.complain(soak_check.leaks(name, start[who], end[who]))
        if samples and samples[-1][0] >= _MEMORY_S:
            quarter_mb, last_mb = (_memory_at(soak, share, who) for share in (0.25, 1.0))
            soak.tally.complain(soak_check.growth(name, quarter_mb, last_mb))
            figures = (quarter_mb, last_mb, soak_check.growth_bound_mb(quarter_mb))
            verdicts.append((name, *(f"{figure:.1f}" for figure in figures)))
    yield table(("process", "start", "peak", "end"), rows)
    if not verdicts:
        yield f"Memory growth is not judged: the run is shorter than {_MEMORY_S:.0f} s."
        return
    yield "Memory may grow by 10 % and 5 MB from the first quarter's end to the run's, under load."
    yield table(("process", "MB, first quarter", "MB, end", "may grow by"), verdicts)


@contextmanager
def _trusting(authority: str) -> Iterator[None]:
    """Trust the servers' certificates, and let no proxy come between."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "authority.pem"
        bundle.write_text(authority, encoding="ascii")
        changed = {"REQUESTS_CA_BUNDLE": str(bundle), "NO_PROXY": "*", "no_proxy": "*"}
        before = {name: os.environ.get(name) for name in changed}
        os.environ.update(changed)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


@contextmanager
def _stopped_by_ctrl_c(stop: threading.Event) -> Iterator[None]:
    """Let the first Ctrl-C end the soak in order; the second one is as usual."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def interrupted(*_: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--minutes", type=float, default=1.0, help="how long (default: 1)")
    parser.add_argument("--streams", type=int, default=200, help="how many at once (default: 200)")
    parser.add_argument(
        "--pace",
        type=float,
        default=1500.0,
        help="how many deltas a second all streams have together (default: 1500)",
    )
    parser.add_argument("--seed", type=int, help="what chance begins with (default: drawn)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parsed = parser.parse_args(arguments)
    if parsed.minutes <= 0 or parsed.streams < 1 or parsed.pace <= 0:
        parser.error("--minutes and --pace must be above 0, --streams at least 1")
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a soak and print its tables.

    Args:
        arguments: The command's; those of the process if none are given.

    Returns:
        The exit status: 1 if anything was wrong.
    """
    options = _arguments(arguments)
    seed = random.randrange(10**6) if options.seed is None else options.seed
    stop = threading.Event()
    seconds = options.minutes * 60
    tokens_per_s = min(_TOKENS_PER_S, options.pace / options.streams)
    with Servers(tokens_per_s) as servers, _trusting(servers.authority), _stopped_by_ctrl_c(stop):
        print(
            f"Seed {seed}, {options.streams} streams, {seconds:.0f} s, "
            f"{tokens_per_s:.1f} deltas/s each; {environment()}\n",
            flush=True,
        )
        warm_up = Soak(servers, min(options.streams, 32), f"calm{seed}", stop)
        warm_up.run(min(_WARM_UP_S, seconds / 5), progress=False)
        start = settled(servers, None)
        soak = Soak(servers, options.streams, str(seed), stop)
        took_s = soak.run(seconds, progress=True)
        end = settled(servers, start)
        resources = list(_resources(soak, start, end))
    soak.tally.complain(warm_up.tally.shown)
    report = "\n\n".join((soak.tally.tables(took_s), *resources))
    print(report, *soak.tally.shown, sep="\n\n", flush=True)
    if options.json is not None:
        figures = {"seed": seed, "took_s": took_s, "start": start, "end": end}
        options.json.write_text(json.dumps({**figures, **soak.tally.as_json()}, indent=1) + "\n")
    return 1 if soak.tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
