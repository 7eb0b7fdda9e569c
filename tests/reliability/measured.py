"""Read streams in processes of their own, and tell what that took of memory and processor time.

Run as a program it reads jobs, one JSON object per line, forks for each, and prints what came of
it. A fork starts with a peak of its own, so that each job's memory is measured from the same floor.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import msgspec
from msgspec import Struct

from llm_sse import RetryPolicy, Timeouts, stream_sync
from llm_sse.errors import APIError, StreamError, StreamTimeout

#: More than any test means to use; a bomb that goes off must not take the machine with it.
_ADDRESS_SPACE_BYTES = 3 * 1024**3
#: As long as real ones are: whatever an error says is searched for it.
KEY = "sk-proj-" + "K3y-" * 39
#: After how much processor time, and after how long, a process is ended that does not end.
_CPU_LIMIT_S, _WALL_LIMIT_S = 10.0, 45.0


class Measured(Struct):
    """What came of one stream.

    Attributes:
        error: The name of the error's class; `None` where the stream finished.
        in_tree: Whether the ending was `Finish` or a `StreamError`.
        message: The error's message.
        phase: Which clock ran out, if one did.
        retry_after_s: How long the error asks to wait, if it does.
        events: How many events of each class were delivered.
        text_chars: How long the text is.
        finish_reason: The completion's.
        calls: How many calls the completion has, and how many of them with an error.
        grown_bytes: By how much the peak of the resident memory lies above the beginning's.
        cpu_s: Processor time, of all threads.
        wall_s: How long it took.
        threads: How many threads are left.
        died: How the process ended, as `os.wait` says it, where it could not tell any of this.
    """

    error: str | None = None
    in_tree: bool = False
    message: str = ""
    phase: str | None = None
    retry_after_s: float | None = None
    events: dict[str, int] = {}
    text_chars: int = 0
    finish_reason: str | None = None
    calls: tuple[int, int] = (0, 0)
    grown_bytes: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0
    threads: int = 0
    died: int = 0


class Runner:
    """A process that forks for each job; use it in a `with` statement."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def run(
        self,
        url: str,
        provider: str,
        *,
        timeouts: dict[str, float] | None = None,
    ) -> Measured:
        """Read the stream of whoever listens at a URL.

        Args:
            url: Where to ask.
            provider: In which format.
            timeouts: The stream's own limits.
        """
        job = {"url": url, "provider": provider, "timeouts": timeouts or {}}
        pipe_in, pipe_out = self._pipes()
        try:
            pipe_in.write(msgspec.json.encode(job) + b"\n")
            pipe_in.flush()
            return msgspec.json.decode(pipe_out.readline(), type=Measured)
        except BaseException:  # else the next job would get this one's answer
            self._stop()
            raise

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                cwd=Path(__file__).parents[2],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with process:
                process.kill()


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _measure(url: str, provider: str, timeouts: dict[str, float]) -> Measured:
    result = Measured()
    events: Counter[str] = Counter()
    peak_bytes, wall_s, cpu_s = _peak_bytes(), time.monotonic(), time.process_time()
    stream = stream_sync(
        "Hi",
        provider=provider,
        model="m",
        base_url=url,
        api_key=KEY,
        retry=RetryPolicy(max_retries=0),
        timeouts=Timeouts(**timeouts),
    )
    try:
        for event in stream.events():
            events[type(event).__name__] += 1
        result.in_tree = True
    except BaseException as error:
        result.error = type(error).__name__
        result.message = str(error)
        result.in_tree = isinstance(error, StreamError)
        result.phase = error.phase if isinstance(error, StreamTimeout) else None
        result.retry_after_s = error.retry_after_s if isinstance(error, APIError) else None
    completion = stream.completion
    result.cpu_s = time.process_time() - cpu_s
    result.wall_s = time.monotonic() - wall_s
    result.grown_bytes = _peak_bytes() - peak_bytes
    result.events = dict(events)
    result.text_chars = len(completion.text)
    result.finish_reason = completion.finish_reason
    calls = completion.tool_calls
    result.calls = (len(calls), sum(call.error is not None for call in calls))
    deadline = time.monotonic() + 5.0
    while threading.active_count() > 1 and time.monotonic() < deadline:
        time.sleep(0.002)
    result.threads = threading.active_count() - 1
    return result


def _in_a_fork(job: dict[str, Any]) -> bytes:
    """Fork, measure, and wait; an alarm ends what nothing else ends."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        signal.setitimer(signal.ITIMER_PROF, _CPU_LIMIT_S)
        signal.setitimer(signal.ITIMER_REAL, _WALL_LIMIT_S)
        resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE_BYTES, _ADDRESS_SPACE_BYTES))
        result = _measure(**job)
        with os.fdopen(write_end, "wb") as pipe:
            pipe.write(msgspec.json.encode(result))
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    return said or msgspec.json.encode(Measured(died=status))


def _main() -> None:
    for line in sys.stdin:
        sys.stdout.buffer.write(_in_a_fork(msgspec.json.decode(line)) + b"\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main()
