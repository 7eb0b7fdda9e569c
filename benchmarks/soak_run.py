"""A soak at work: the servers' process from outside, the readers, and their watchdog."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from llm_sse.sync.connection import shared_session
from llm_sse.sync.reader import Reader

from . import soak_check
from .soak_client import Listener
from .soak_plan import draw, outlasts_s
from .soak_report import Tally
from .soak_usage import Usage, usage, usage_at_rest

__all__ = ["Servers", "Soak", "Watch", "settled"]

_LOOK_S = 1.0
_PROGRESS_S = 10.0
_STAGGER_S = 0.01
_SETTLE_S = 15.0

#: How long after the end a worker may take over its last stream: longer than any stream may.
_COME_BACK_S = 120.0

#: How many samples of the usage are taken, at most: the soak itself shall not grow.
_SAMPLES = 300


class Servers:
    """The other process.

    Args:
        tokens_per_s: How many deltas a second each answer has.

    Attributes:
        base_urls: For each server, where each provider is asked.
        authority: The certificate of who has signed the servers' certificates (PEM).
    """

    def __init__(self, tokens_per_s: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.soak_server", str(tokens_per_s)],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        said = self._read()
        self.base_urls: list[dict[str, str]] = said["servers"]
        self.authority: str = said["authority"]

    def usage(self, when: Literal["now", "rest"]) -> Usage:
        """Return what the process uses at the moment, or after its garbage was collected."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{when}\n")
        self._process.stdin.flush()
        figures: Usage = self._read()
        return figures

    def __enter__(self) -> Servers:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the servers' process has ended")
        return json.loads(line)


class Watch:
    """Look for streams that last longer than their limits allow; say where they are, once."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def overdue(self, listeners: Sequence[tuple[threading.Thread, Listener]]) -> Iterator[str]:
        """Yield a complaint for each stream that hangs; close it."""
        for thread, listener in listeners:
            case = listener.case
            if case is None or case.seed in self._told:
                continue
            took_s = listener.took_s
            if took_s <= outlasts_s(case) + soak_check.GRACE_S or listener.case is not case:
                continue
            self._told.add(case.seed)
            stream = listener.stream()
            threads = [thread]
            reader = None if stream is None else stream._reader
            if isinstance(reader, Reader) and reader.thread is not None:
                threads.append(reader.thread)
            stacks = "".join(map(_stack, threads))
            yield f"hang: {took_s:.1f} s so far: {case}\n{stacks}"
            if stream is not None:
                stream.close()


def _stack(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    lines = traceback.format_stack(frame) if frame is not None else ["  has ended\n"]
    return f"{thread.name}:\n{''.join(lines)}"


class Soak:
    """The workers, and what is counted while they work.

    Args:
        servers: Whom they ask.
        streams: How many workers there are.
        name: What the streams' seeds begin with.
        stop: Ends it early.
    """

    def __init__(self, servers: Servers, streams: int, name: str, stop: threading.Event) -> None:
        self.tally = Tally()
        self.samples: list[tuple[float, tuple[Usage, Usage]]] = []
        self._servers = servers
        self._name = name
        self._stop = stop
        self._over = threading.Event()
        self._watch = Watch()
        self._printed = 0
        self._workers: list[tuple[threading.Thread, Listener]] = []
        for number in range(streams):
            listener = Listener()
            thread = threading.Thread(
                target=self._work, args=(number, listener), name=f"soak-{number}", daemon=True
            )
            self._workers.append((thread, listener))

    def run(self, seconds: float, *, progress: bool) -> float:
        """Let them work; return how long it took, until the last stream has ended."""
        begun = time.monotonic()
        next_line_s, next_sample_s = _PROGRESS_S, 0.0
        for thread, _ in self._workers:
            thread.start()
        while (now := time.monotonic() - begun) < seconds and not self._stop.is_set():
            self._stop.wait(min(_LOOK_S, seconds - now))
            self.tally.complain(self._watch.overdue(self._workers))
            if now >= next_sample_s:
                next_sample_s += max(_LOOK_S, seconds / _SAMPLES)
                both = (usage(), self._servers.usage("now"))
                self.samples.append((time.monotonic() - begun, both))
            if progress and now > next_line_s:
                next_line_s += _PROGRESS_S
                self._print_progress()
        self._over.set()
        deadline = time.monotonic() + _COME_BACK_S
        for thread, _ in self._workers:
            while thread.is_alive() and time.monotonic() < deadline:
                thread.join(_LOOK_S)
                self.tally.complain(self._watch.overdue(self._workers))
            if thread.is_alive():
                self.tally.complain([f"hang: {thread.name} has not come back"])
        self._workers.clear()  # their objects are none that are left
        return time.monotonic() - begun

    def _work(self, number: int, listener: Listener) -> None:
        """Read one stream after the other; the workers begin one after the other, too."""
        if self._over.wait(number * _STAGGER_S):
            return
        count = 0
        while not self._over.is_set():
            case = draw(f"{self._name}-{number}-{count}")
            result = listener.listen(case, self._servers.base_urls[case.server][case.provider])
            self.tally.add(case, result, soak_check.check(case, result))
            count += 1

    def _print_progress(self) -> None:
        """Print a line, below the violations that are new."""
        new, self._printed = self.tally.shown[self._printed :], len(self.tally.shown)
        for violation in new:
            print(violation, file=sys.stderr)
        at_s, (mine, theirs) = self.samples[-1]
        tally = self.tally
        print(
            f"{at_s:5.0f} s: {tally.streams} streams, {tally.streams / at_s:.0f}/s, "
            f"{tally.deltas / at_s:.0f} deltas/s, {tally.wrong.total()} violations; "
            f"client {mine['threads']:.0f} threads, {mine['descriptors']:.0f} descriptors, "
            f"{mine['MB']:.0f} MB; server {theirs['threads']:.0f}, "
            f"{theirs['descriptors']:.0f}, {theirs['MB']:.0f} MB",
            file=sys.stderr,
            flush=True,
        )


def settled(servers: Servers, start: tuple[Usage, Usage] | None) -> tuple[Usage, Usage]:
    """Close what is kept for reuse, and return both processes' figures when they have come to rest.

    That is when they are back at the start's; or, without a start, when they stay the same.
    """
    deadline = time.monotonic() + _SETTLE_S
    last = None
    while True:
        shared_session().close()
        now = (usage_at_rest(), servers.usage("rest"))
        counts = [[figures[what] for what in ("threads", "descriptors")] for figures in now]
        if start is None:
            done = counts == last
        else:
            done = not (
                soak_check.leaks("client", start[0], now[0])
                or soak_check.leaks("server", start[1], now[1])
            )
        if done or time.monotonic() > deadline:
            return now
        last = counts
        time.sleep(0.2)
