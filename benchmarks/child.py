"""What runs in a contestant's process: one measurement, and its figures as JSON.

    python -m benchmarks.child '{"task": "drain", "client": "floor", "url": ..., "deltas": 1000}'

Processor time is user and system time of the whole process, every thread of it. Before anything is
measured a short answer is read, so that what a library does but once is left out.
"""

from __future__ import annotations

import gc
import importlib
import json
import resource
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .clients import Ask, find
from .server import GO, GREETING, order
from .soak_usage import usage
from .wire import answer_text

__all__ = ["TASKS", "quantile"]

Figures = dict[str, Any]

_WARM_UP_DELTAS = 20
#: How long streams may take to open, all together, in seconds: less than a process has (`run`), so
#: that it is said what did not happen.
_OPEN_S = 40.0


def drain(ask: Ask, *, deltas: int) -> Figures:
    """Read one answer as fast as it comes; return the time for each of its deltas."""
    texts: list[str] = []
    cpu_ns, wall_ns = time.process_time_ns(), time.perf_counter_ns()
    for text in ask(order("drain", deltas)):
        texts.append(text)  # noqa: PERF402  # as a caller's loop does
    cpu_ns, wall_ns = time.process_time_ns() - cpu_ns, time.perf_counter_ns() - wall_ns
    return {
        "cpu_us": cpu_ns / 1000 / deltas,
        "wall_us": wall_ns / 1000 / deltas,
        "lost": deltas - len(texts),
        "right": "".join(texts) == answer_text(deltas),
    }


class _Listener(threading.Thread):
    """Read one paced answer; note how long each of its deltas was on its way.

    Attributes:
        latencies_ns: From the server's send to here, delta by delta.
        in_order: Whether all came in the order in which they were sent.
        cpu_ns: What the whole process had used when the last delta was heard.
    """

    def __init__(self, ask: Ask, prompt: str, deltas: int, opened: threading.Semaphore) -> None:
        super().__init__(daemon=True)
        self.latencies_ns: list[int] = []
        self.in_order = True
        self.cpu_ns = 0
        self._deltas = deltas
        self._ask = ask
        self._prompt = prompt
        self._opened = opened

    def run(self) -> None:
        """Read."""
        note, clock = self.latencies_ns.append, time.monotonic_ns
        before = 0
        for text in self._ask(self._prompt):
            if before == 0:
                self.in_order &= text == GREETING
                before = 1
                self._opened.release()
                continue
            sent_ns = int(text)
            note(clock() - sent_ns)
            self.in_order &= sent_ns > before
            before = sent_ns
            if len(self.latencies_ns) == self._deltas:
                self.cpu_ns = time.process_time_ns()


def paced(
    ask: Ask,
    *,
    url: str,
    streams: int,
    per_s: float,
    deltas: int,
    switch_interval_s: float | None = None,
) -> Figures:
    """Read many steady answers at once, each in a thread; return what their deltas took.

    Processor time is that from the start signal to the last delta that anybody hears, over all
    deltas: whoever is late works for them later, but works. To open the streams is before that, and
    to end them is after it where nobody is late.
    """
    if switch_interval_s is not None:
        sys.setswitchinterval(switch_interval_s)
    period_us = round(1e6 / per_s)
    before = usage()
    opened = threading.Semaphore(0)
    listeners = [
        _Listener(ask, order("paced", deltas, period_us, period_us * n // streams), deltas, opened)
        for n in range(streams)
    ]
    for listener in listeners:
        listener.start()
    deadline = time.monotonic() + _OPEN_S
    for count, _ in enumerate(listeners):
        if not opened.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise SystemExit(f"only {count} of {streams} streams were open after {_OPEN_S:.0f} s")
    all_open = usage()
    begun_ns = time.process_time_ns()
    _send_go(url)
    for listener in listeners:
        listener.join()
    latencies_us = sorted(ns / 1000 for one in listeners for ns in one.latencies_ns)
    figures: Figures = {
        "latency_p50_us": quantile(latencies_us, 0.5),
        "latency_p99_us": quantile(latencies_us, 0.99),
        "lost": streams * deltas - len(latencies_us),
        "right": all(one.in_order for one in listeners),
        "threads": all_open["threads"],
        "kb_per_stream": (all_open["MB"] - before["MB"]) * 1000 / streams,
    }
    if not figures["lost"]:
        ended_ns = max(one.cpu_ns for one in listeners)
        figures["cpu_us"] = (ended_ns - begun_ns) / 1000 / (streams * deltas)
    return figures


def idle(ask: Ask, *, streams: int) -> Figures:
    """Open many answers in which nothing comes; return what each takes to open, and occupies."""
    before = usage()
    begun_ns = time.process_time_ns()
    answers = [ask(order("idle", 0)) for _ in range(streams)]
    right = all(next(answer) == GREETING for answer in answers)
    cpu_ns = time.process_time_ns() - begun_ns
    now = usage()
    return {
        "open_cpu_ms": cpu_ns / 1e6 / streams,
        "kb_per_stream": (now["MB"] - before["MB"]) * 1000 / streams,
        "threads": now["threads"],
        "right": right,
    }


def sleeper(ask: Ask, *, deltas: int, sleep_s: float, to_the_end: bool) -> Figures:
    """Take one delta, sleep, and see what has been gathered meanwhile; then read the rest."""
    before_mb = usage()["MB"]
    answer = ask(order("drain", deltas))
    text = next(answer)
    most_mb = 0.0
    awake = time.monotonic() + sleep_s
    while time.monotonic() < awake:
        time.sleep(0.05)
        most_mb = max(most_mb, usage()["MB"])
    figures: Figures = {"grown_mb": most_mb - before_mb, "right": True}
    if to_the_end:
        heard = [text, *answer]
        figures["lost"] = deltas - len(heard)
        figures["right"] = "".join(heard) == answer_text(deltas)
    return figures


def event(ask: Ask, *, bytes_: int) -> Figures:
    """Read one huge event; return the time, and how many times its size the peak was."""
    before_mb = _peak_mb()
    cpu_ns, wall_ns = time.process_time_ns(), time.perf_counter_ns()
    texts = list(ask(order("event", bytes_)))
    cpu_ns, wall_ns = time.process_time_ns() - cpu_ns, time.perf_counter_ns() - wall_ns
    return {
        "cpu_ms": cpu_ns / 1e6,
        "wall_ms": wall_ns / 1e6,
        "peak_mb": _peak_mb() - before_mb,
        "right": len(texts) == 1 and texts[0] == "x" * bytes_,
    }


def _peak_mb() -> float:
    """Return the most that this program has occupied.

    On Linux `ru_maxrss` begins with what the parent occupied; the status file does not.
    """
    try:
        status = Path("/proc/self/status").read_text("ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6
    except (OSError, IndexError):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _stages(ask: Ask, *, url: str, deltas: int) -> Figures:
    from .stages import stages  # noqa: PLC0415  # it imports llm-sse, for which no peer shall pay

    return stages(ask, url=url, deltas=deltas)


TASKS: dict[str, Callable[..., Figures]] = {
    "drain": drain,
    "paced": paced,
    "idle": idle,
    "sleeper": sleeper,
    "event": event,
    "stages": _stages,
}
#: Which of them ask the server themselves.
_WITH_URL = (paced, _stages)


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which a share of the ordered values is."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def _send_go(url: str) -> None:
    where = urlsplit(url)
    with socket.create_connection((where.hostname or "", where.port or 80)) as sock:
        sock.sendall(GO)
        sock.recv(1024)


def main(specification: str) -> None:
    """Run one measurement."""
    given = json.loads(specification)
    client = find(given.pop("client"))
    run = TASKS[given.pop("task")]
    url = given["url"]
    if run not in _WITH_URL:
        del given["url"]
    connect_with = given.pop("connect_with", {})
    module = importlib.import_module(f"benchmarks.clients.{client.module}")
    ask: Ask = getattr(module, client.connect)(url, **connect_with)
    for _ in ask(order("drain", _WARM_UP_DELTAS)):
        pass
    gc.collect()
    print(json.dumps(run(ask, **given)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
