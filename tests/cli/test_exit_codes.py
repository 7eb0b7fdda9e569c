"""How the command ends."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from llm_sse.errors import (
    APIError,
    AuthenticationError,
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    InvalidRequestError,
    ProtocolError,
    RateLimitError,
    ServerError,
    StreamClosed,
    StreamTimeout,
)
from llm_sse.events import TextDelta
from llm_sse.testing import FakeServer, cut, pause, raw, say, status
from tests.cli.command import KEY, answer_with, environment, invoke, run_process

_NO_RETRY = {"x-should-retry": "false"}
_FOREVER_S = 50.0


def test_the_help_has_every_exit_code() -> None:
    """`-h` lists commands, options and exit codes."""
    result = invoke("-h")
    assert result.exit_code == 0
    for code in (*range(10), 130, 141):
        assert f"\n{code:7}  " in result.stdout
    assert "providers" in result.stdout
    assert result.stdout == invoke("--help").stdout


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigurationError("no"), 2),
        (AuthenticationError("no", status=401), 3),
        (RateLimitError("no", status=429), 4),
        (InvalidRequestError("no", status=400), 5),
        (ServerError("no", status=500), 6),
        (ConnectError("no"), 7),
        (ConnectionLost("no"), 7),
        (StreamTimeout("no", phase="idle", limit_s=1.0), 8),
        (ProtocolError("no"), 9),
        (APIError("no", status=302), 1),
        (StreamClosed("no"), 1),
        (OSError("no"), 1),
    ],
)
def test_each_kind_of_error_has_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    """An error is one line on standard error, and an exit code for scripts."""
    answer_with(monkeypatch, [TextDelta("One"), TextDelta(""), error])
    result = invoke("Hi", OPENAI_API_KEY=KEY)
    assert (result.exit_code, result.stdout) == (code, "One\n")
    assert result.stderr == "llm-sse: error: no\n"


@pytest.mark.parametrize(
    ("actions", "code"),
    [
        ([status(401, headers=_NO_RETRY)], 3),
        ([status(429, headers=_NO_RETRY)], 4),
        ([status(400, headers=_NO_RETRY)], 5),
        ([status(500, headers=_NO_RETRY)], 6),
        ([say("One"), cut()], 7),
        ([raw(b"data: {broken\n\n")], 9),
    ],
)
def test_what_a_provider_does_wrong_has_its_exit_code(
    server: FakeServer, ask: Callable[..., Result], actions: list[Any], code: int
) -> None:
    """A provider's failure ends the command with the code of its kind."""
    server.script(*actions)
    result = ask("Hi")
    assert result.exit_code == code
    assert result.stderr.startswith("llm-sse: error: ")
    assert result.stderr.count("\n") == 1


def test_ctrl_c_keeps_what_was_printed(
    server: FakeServer, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    """Each token is out at once; Ctrl-C ends the command with 130 and without a traceback."""
    server.script(say("One\n"), say("two"), pause(_FOREVER_S))
    process = start("Hi", env=environment(server))
    assert process.stdout is not None
    shown = process.stdout.readline() + process.stdout.read(3)
    process.send_signal(signal.SIGINT)
    rest, said = process.communicate(timeout=30)
    assert (process.returncode, shown + rest, said) == (130, b"One\ntwo\n", b"")


def test_ctrl_c_ends_the_embedded_fake(start: Callable[..., subprocess.Popen[bytes]]) -> None:
    """Ctrl-C does not wait for the rest of the fake provider's answer."""
    process = start("Hi", env=environment())
    assert process.stdout is not None
    shown = process.stdout.read(6)
    process.send_signal(signal.SIGINT)
    rest, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert (shown + rest).startswith(b"Server")
    assert not (shown + rest).endswith(b"thought of.\n")
    assert said.count(b"\n") == 1


def test_ctrl_c_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt is an exit code, and the line is ended."""
    answer_with(monkeypatch, [TextDelta("One"), KeyboardInterrupt()])
    result = invoke("Hi", OPENAI_API_KEY=KEY)
    assert (result.exit_code, result.stdout, result.stderr) == (130, "One\n", "")


def test_a_closed_pipe_is_no_error(
    server: FakeServer, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    """Whoever has read enough ends the command: 141, as SIGPIPE would, and not a word."""
    server.script(say("line\n" * 50_000))
    process = start("Hi", env=environment(server))
    assert process.stdout is not None
    assert process.stdout.readline() == b"line\n"
    process.stdout.close()
    assert process.wait(30) == 141
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert server.requests[0].ended.wait(10)
    assert server.requests[0].outcome == "disconnected"


def test_a_closed_pipe_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that breaks is an exit code."""
    answer_with(monkeypatch, [BrokenPipeError()])
    result = invoke("Hi", OPENAI_API_KEY=KEY)
    assert (result.exit_code, result.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_one_line(server: FakeServer) -> None:
    """Output that cannot be written is an error like any other."""
    with open("/dev/full", "wb") as full:
        result = run_process("Hi", env=environment(server), stdout=full)
    assert result.returncode == 1
    assert result.stderr.startswith(b"llm-sse: error: [Errno 28]")
    assert result.stderr.count(b"\n") == 1
