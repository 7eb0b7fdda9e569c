"""The command in this process, in a process of its own, and in a terminal."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from llm_sse.cli import cli
from llm_sse.completion import Completion
from llm_sse.events import Event
from llm_sse.testing import FakeServer

KEY = "sk-a-key-that-nobody-may-see"


def invoke(*args: str, input: str | bytes | None = None, **env: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, args, input=input, env=env)


def environment(server: FakeServer | None = None, **more: str) -> dict[str, str]:
    """Make an environment for a process, without anything of the tests' own environment."""
    kept = ("PATH", "PYTHONPATH", "SYSTEMROOT", "TMPDIR", "LANG", "LC_ALL", "LC_CTYPE")
    env = {name: os.environ[name] for name in kept if name in os.environ}
    if server is not None:
        env |= {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": server.base_url("openai")}
    return env | more


def command_line(*args: str | bytes) -> list[str | bytes]:
    """Return how a process runs the command, with every warning an error."""
    return [sys.executable, "-W", "error", "-m", "llm_sse", *args]


def run_process(*args: str | bytes, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run the command in a process of its own, to its end, with nothing on standard input."""
    pipe = subprocess.PIPE
    given: dict[str, Any] = {"input": b"", "env": environment(), "stdout": pipe, "stderr": pipe}
    result: subprocess.CompletedProcess[bytes] = subprocess.run(
        command_line(*args), check=False, timeout=30, **(given | options)
    )
    return result


def run_python(code: str) -> subprocess.CompletedProcess[bytes]:
    """Run code in a process of its own, with every warning an error."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        env=environment(),
        timeout=30,
        check=False,
    )


def in_terminal(*args: str, env: dict[str, str]) -> tuple[int, str]:
    """Run the command with a terminal for standard input and output; return what it showed."""
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    shown = b""
    with (
        os.fdopen(master, "rb", buffering=0) as screen,
        subprocess.Popen(
            command_line(*args), stdin=slave, stdout=slave, stderr=subprocess.PIPE, env=env
        ) as process,
    ):
        os.close(slave)
        try:
            while data := screen.read(4096):
                shown += data
        except OSError:  # Linux says so when the last writer has gone
            pass
        process.wait(30)
        assert process.stderr is not None
        assert process.stderr.read() == b""
    return process.returncode, shown.decode().replace("\r\n", "\n")


class Terminal(io.StringIO):
    """Standard input or output that says it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


def answer_with(monkeypatch: pytest.MonkeyPatch, said: list[Event | BaseException]) -> None:
    """Let `stream_sync` deliver these events, or raise."""

    class Stream:
        completion = Completion()

        def events(self) -> Iterator[Event]:
            for event in said:
                if isinstance(event, BaseException):
                    raise event
                yield event

        def __enter__(self) -> Stream:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr("llm_sse.cli.ask.stream_sync", lambda *_, **__: Stream())
