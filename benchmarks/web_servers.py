"""What web servers do to a stream: how late tokens come, and when a browser's leaving is noticed.

    python -m benchmarks.web_servers

Starts every server of `web_processes`, nginx before each of them, and a fake provider for each
visit; prints tables of medians, as they stand in docs/how-to/web.md. The rounds go over all
servers, so that what else the machine does meets all of them. Answers are read one at a time; the
browsers that leave wait side by side, because they only wait.
"""

from __future__ import annotations

import argparse
import datetime
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import NamedTuple, Optional

from .soak_report import environment, table
from .web_measure import Clock, Pace, Site, asked_without_site
from .web_nginx import nginx_binary
from .web_processes import SERVERS, Protocol
from .web_sites import Sites, sites_up

__all__ = ["main"]

_PACKAGES = ("Flask", "Django", "Werkzeug", "waitress", "gunicorn", "gevent", "pyuwsgi", "uvicorn")
#: As `status_wait_s` and `heartbeat_s` are by default.
_WAIT_PER_HEARTBEAT = 10 / 15
#: Those that nginx asks in HTTP/1.1, too.
_BOTH_VERSIONS = ("flask-gunicorn-gthread", "django-uvicorn")
_HEADS = (
    *("server", "first token", "any token", "in mid-answer", "while it thinks"),
    *("before the status", "after the wait"),
)


class Row(NamedTuple):
    """One line of a table.

    Attributes:
        server: The server's name.
        through: What nginx asks it in; `None` without nginx.
    """

    server: str
    through: Optional[Protocol]

    @property
    def view(self) -> str:
        """The view that is asked: where there is an event loop, the one for it."""
        return "/async" if self.server == "django-uvicorn" else "/stream"

    @property
    def title(self) -> str:
        """What the table calls it."""
        return f"{self.server}, {self.through}" if self.through else self.server


#: `stream_sync` itself: what of the figures is not the web's.
_NO_SERVER = Row("none", None)


class Figures:
    """What was measured of one row, in seconds but for the pace."""

    def __init__(self) -> None:
        self.paces: list[Pace] = []
        self.in_mid_answer: list[float] = []
        self.while_it_thinks: list[float] = []
        self.before_the_status: list[float] = []
        self.after_the_wait: list[float] = []

    def left(self) -> tuple[list[float], ...]:
        """Return how long it took to notice that a browser had left, in each situation."""
        return (
            *(self.in_mid_answer, self.while_it_thinks),
            *(self.before_the_status, self.after_the_wait),
        )

    def cells(self) -> Iterator[str]:
        """Write the medians."""
        yield f"{median(pace.first_ms for pace in self.paces):.1f} ms"
        yield f"{median(pace.worst_gap_ms for pace in self.paces):.1f} ms"
        in_mid_answer, *others = self.left()
        yield f"{median(in_mid_answer) * 1e3:.0f} ms" if in_mid_answer else ""
        for seconds in others:
            yield f"{median(seconds):.1f} s" if seconds else ""


def rows(nginx: bool) -> list[Row]:
    """Return what is measured, with nginx or without."""
    if not nginx:
        return [Row(name, None) for name, row in SERVERS.items() if "HTTP/1.1" in row.protocols]
    found: list[Row] = []
    for name, server in SERVERS.items():
        found += [
            Row(name, protocol)
            for protocol in sorted(server.protocols)
            if protocol != "HTTP/1.1" or name in _BOTH_VERSIONS
        ]
    return found


def measure(sites: Sites, asked: Sequence[Row], runs: int, clock: Clock) -> dict[Row, Figures]:
    """Measure rows, and what there is without a web server, round by round."""
    places = {row: Site(*sites.find(row.server, row.view, row.through)) for row in asked}
    figures = {row: Figures() for row in (_NO_SERVER, *asked)}
    for site in places.values():  # what is done once, such as imports, is no server's usual time
        site.answer()
    asked_without_site()
    for _ in range(runs):
        figures[_NO_SERVER].paces.append(asked_without_site())
        for row, site in places.items():
            figures[row].paces.append(site.answer())
            figures[row].in_mid_answer.append(site.leave_in_mid_answer())
    with ThreadPoolExecutor(3 * len(places)) as pool:
        for _ in range(runs):
            waiting = []
            for row, site in places.items():
                for seconds, leave in (
                    (figures[row].while_it_thinks, site.leave_while_it_thinks),
                    (figures[row].before_the_status, site.leave_before_the_status),
                    (figures[row].after_the_wait, site.leave_after_the_wait),
                ):
                    waiting.append(pool.submit(_measured, seconds, leave, clock))
            for one in waiting:
                one.result()
    return figures


def _measured(seconds: list[float], leave: Callable[[Clock], float], clock: Clock) -> None:
    seconds.append(leave(clock))


def _versions() -> str:
    named = [f"{name} {version(name)}" for name in _PACKAGES]
    binary = nginx_binary()
    if binary is not None:
        said = subprocess.run([binary, "-v"], capture_output=True, text=True, check=True)
        named.append(f"nginx {said.stderr.rpartition('/')[2].strip()}")
    return ", ".join(named)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.web_servers", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--runs", type=int, default=5, help="how many of each (default: 5)")
    parser.add_argument(
        "--heartbeat-s", type=float, default=15.0, help="the heartbeat (default: 15, as is usual)"
    )
    parsed = parser.parse_args(arguments)
    if parsed.runs < 1 or parsed.heartbeat_s <= 0:
        parser.error("--runs must be at least 1, --heartbeat-s above 0")
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the tables.

    Args:
        arguments: The command's; those of the process if none are given.

    Returns:
        The exit status: 1 if a browser's leaving was not noticed within one heartbeat.
    """
    options = _arguments(arguments)
    clock = Clock(options.heartbeat_s, options.heartbeat_s * _WAIT_PER_HEARTBEAT)
    print(f"{datetime.date.today()}; {environment()}; {_versions()}", flush=True)
    print(
        f"heartbeat_s={clock.heartbeat_s:g}, status_wait_s={clock.status_wait_s:g}; "
        f"medians of {options.runs}",
        flush=True,
    )
    late: list[str] = []
    with tempfile.TemporaryDirectory() as folder, sites_up(Path(folder), SERVERS) as sites:
        for nginx in (False, True):
            if nginx and nginx_binary() is None:
                print("\nnginx is not installed.")
                continue
            measured = measure(sites, rows(nginx), options.runs, clock)
            lines = [(row.title, *figures.cells()) for row, figures in measured.items()]
            print(f"\n{'Through nginx' if nginx else 'Directly'}:\n", flush=True)
            print(table(_HEADS, lines), flush=True)
            late += [row.title for row, figures in measured.items() if _is_late(figures, clock)]
    if late:
        print("\nNot noticed within one heartbeat:", ", ".join(late))
    return 1 if late else 0


def _is_late(figures: Figures, clock: Clock) -> bool:
    """Whether a median is above one heartbeat and what a busy machine adds."""
    bound_s = clock.heartbeat_s * 1.05 + 0.1
    return any(median(seconds) > bound_s for seconds in figures.left() if seconds)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end, too
    sys.exit(main())
