"""llm-sse against its peers, in one run, with ratios as the result.

    python -m benchmarks                # everything, in under ten minutes on two quiet cores
    python -m benchmarks --only drain,start
    python -m benchmarks --guard        # what CI runs

It needs the extra `bench`. A server in another process sends bytes that were written beforehand;
every contestant reads them in a process of its own; what is compared is measured one after the
other in every round. How each figure is made stands in docs/explanation/performance.md.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import report
from .clients import ALL, Client
from .figures import ROUNDS, Results
from .guard import guard
from .plan import GROUPS, Measurement, in_order, plan
from .run import Missing, Server, check_installed, load, measure

__all__ = ["main"]

_PAGE = Path(__file__).parents[1] / "docs" / "explanation" / "performance.md"
#: The exit status of a run that was interrupted, as a shell has it.
_INTERRUPTED = 130


def _names(known: Sequence[str]) -> Any:
    """Return a reader of names with commas between them, for `argparse`."""

    def read(said: str) -> list[str]:
        names = [name.strip() for name in said.split(",") if name.strip()]
        wrong = [name for name in names if name not in known]
        if wrong or not names:
            raise argparse.ArgumentTypeError(
                f"{', '.join(wrong) or 'nothing'} is none of {', '.join(known)}"
            )
        return names

    return read


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    clients = [client.name for client in ALL]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=(__doc__ or "").partition("\n")[0]
    )
    add = parser.add_argument
    add("--only", type=_names(GROUPS), metavar="GROUPS", help=f"some of {','.join(GROUPS)}")
    add("--clients", type=_names(clients), metavar="NAMES", help=f"some of {','.join(clients)}")
    add("--rounds", type=int, help=f"how often (default: {ROUNDS}; 1 with --quick)")
    add("--quick", action="store_true", help="much less of everything: to see that it works")
    add("--json", type=Path, metavar="FILE", help="write all figures there, too")
    add("--docs", action="store_true", help="write tables and plots into the documentation")
    add("--guard", action="store_true", help="only whether drain keeps its bound, as exit status")
    parsed = parser.parse_args(arguments)
    others = (parsed.only, parsed.clients, parsed.quick, parsed.json, parsed.docs)
    if parsed.guard and (any(others) or parsed.rounds is not None):
        parser.error("--guard goes with no other option")
    if parsed.rounds is None:
        parsed.rounds = 1 if parsed.quick else ROUNDS
    if parsed.rounds < 1:
        parser.error("--rounds must be at least 1")
    if parsed.docs and (parsed.quick or parsed.only or parsed.clients or parsed.rounds < ROUNDS):
        parser.error(f"--docs needs everything, and at least {ROUNDS} rounds")
    return parsed


def _run(measurements: Sequence[Measurement], rounds: int, results: Results) -> None:
    """Make all measurements, interleaved; say on standard error where it is.

    Args:
        measurements: What a round consists of.
        rounds: How many.
        results: Where they go, one by one; it holds what there is when this is interrupted.

    Raises:
        KeyboardInterrupt: Ctrl-C, or a SIGTERM.
    """
    with Server(tls=any(measurement.tls for measurement in measurements)) as server:
        # Python compiles what it imports the first time, and that is nobody's start.
        for client in dict.fromkeys(measurement.client for measurement in measurements):
            measure(server, Measurement("first token", client, "first token", {}), 0)
        todo = list(in_order(measurements, rounds))
        given_up: set[tuple[str, str]] = set()
        for done, (number, measurement) in enumerate(todo, 1):
            which = (measurement.key, measurement.client.name)
            if which in given_up:
                continue
            begun = time.monotonic()
            sample = measure(server, measurement, number)
            results.add(sample)
            print(
                f"{done}/{len(todo)} {measurement.key}: {measurement.client.name}, "
                f"{sample.fault or 'right'}, {time.monotonic() - begun:.1f} s",
                file=sys.stderr,
                flush=True,
            )
            if not sample.figures:
                given_up.add(which)


def _prepared(options: argparse.Namespace, clients: Sequence[Client]) -> dict[str, str]:
    """Look beforehand at all that would fail only afterwards; return the packages' versions.

    Raises:
        Missing: Something is not installed.
        ImportError: What draws is not.
        ValueError: The page has no place for the tables.
        OSError: A file cannot be written.
    """
    versions = check_installed(clients)
    if options.json is not None:
        with options.json.open("a", encoding="utf-8"):
            pass
    if options.docs:
        from . import plots  # noqa: F401, PLC0415  # nothing else needs its library

        report.written(_PAGE.read_text("utf-8"), dict.fromkeys(report.PARTS, ""))
        with _PAGE.open("a", encoding="utf-8"):
            pass
    return versions


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks and print their tables.

    Args:
        arguments: The command's; those of the process if none are given.

    Returns:
        The exit status: 1 if llm-sse lost something or did not finish, or the guard's bound is not
        kept; 2 if something is not installed or cannot be written; 130 if it was interrupted, and
        then the page is as it was.
    """
    options = _arguments(arguments)
    if options.guard:
        return 0 if guard() else 1
    measurements = plan(options.only or GROUPS, options.clients, quick=options.quick)
    if not measurements:
        print("nothing of that is measured of those contestants", file=sys.stderr)
        return 2
    clients = list(dict.fromkeys(measurement.client for measurement in measurements))
    try:
        versions = _prepared(options, clients)
    except (Missing, ImportError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    begun, load_at_start = time.monotonic(), load()
    results, whole = Results(), True
    try:
        _run(measurements, options.rounds, results)
    except KeyboardInterrupt:
        whole = False
    parts = report.tables(results, versions, time.monotonic() - begun, load_at_start)
    if not whole:
        made = len(results.samples)
        print(f"**Interrupted** after {made} measurements: no figures to quote.\n")
    elif options.quick or options.rounds < ROUNDS:
        print(f"Fewer than {ROUNDS} rounds, or less of everything: no figures to quote.\n")
    print("\n\n".join(filter(None, parts.values())))
    if options.json is not None:
        samples = [sample._asdict() for sample in results.samples]
        said = {
            "machine": parts["machine"],
            "whole": whole,
            "load": load_at_start,
            "samples": samples,
        }
        options.json.write_text(json.dumps(said, indent=1) + "\n", "utf-8")
    if not whole:
        return _INTERRUPTED
    if options.docs:
        from .plots import draw  # noqa: PLC0415

        draw(results, _PAGE.parent)
        _PAGE.write_text(report.written(_PAGE.read_text("utf-8"), parts), "utf-8")
    return 1 if results.faults("llm-sse") else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
