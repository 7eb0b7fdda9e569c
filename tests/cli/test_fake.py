"""`llm-sse fake`."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result

from llm_sse.providers import PROVIDERS
from llm_sse.sync.ask import stream_sync
from llm_sse.testing import FakeServer, say
from tests.cli.command import KEY, environment, invoke


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_the_fake_serves_until_it_is_stopped(
    start: Callable[..., subprocess.Popen[bytes]], stop: signal.Signals
) -> None:
    """`fake` prints a base URL for each provider at once, serves them all, and ends with 0."""
    args = ("--port", "0", "--text", "Hello there.", "--ttft-s", "0", "--tokens-per-s", "1000")
    process = start("fake", *args, env=environment())
    assert process.stdout is not None
    lines = [process.stdout.readline().decode().split() for _ in PROVIDERS]
    assert [line[0] for line in lines] == list(PROVIDERS)
    for name, url in lines:
        stream = stream_sync("Hi", provider=name, model="m", base_url=url, api_key="any")
        assert stream.text() == "Hello there."
    process.send_signal(stop)
    rest, said = process.communicate(timeout=30)
    assert (process.returncode, rest) == (0, b"")
    how = f"OPENAI_API_KEY=any OPENAI_BASE_URL={lines[0][1]}"
    assert said.decode() == f"llm-sse: a program asks it with {how}\n"


@pytest.fixture
def _same_signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("_same_signals")
def test_the_fake_listens_where_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The port that was asked for is the port that is printed."""

    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("llm_sse.cli.fake._wait", stop)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    result = invoke("fake", "--port", str(port))
    assert result.exit_code == 0
    assert result.stdout.startswith(
        f"openai           http://127.0.0.1:{port}/v1\n"
        f"openai-responses http://127.0.0.1:{port}/v1\n"
        f"anthropic        http://127.0.0.1:{port}\n"
        f"gemini           http://127.0.0.1:{port}\n"
        f"ollama           http://127.0.0.1:{port}\n"
        f"azure            http://127.0.0.1:{port}/azure/openai/v1\n"
    )


@pytest.mark.usefixtures("_same_signals")
def test_a_port_that_is_taken_is_an_error(server: FakeServer) -> None:
    """`fake` says that it cannot listen, and exits with 2."""
    result = invoke("fake", "--port", server.url.rpartition(":")[2])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("llm-sse: error: cannot listen on 127.0.0.1:")


def test_a_question_is_recorded_and_replayed(
    server: FakeServer,
    ask: Callable[..., Result],
    start: Callable[..., subprocess.Popen[bytes]],
    tmp_path: Path,
) -> None:
    """`--record` writes the answer without the key, and `fake --replay` serves it again."""
    path = str(tmp_path / "answer.jsonl")
    server.script(say("Recorded once."))
    result = ask("--record", path, "Hi")
    assert (result.exit_code, result.stdout) == (0, "Recorded once.\n")
    assert KEY not in Path(path).read_text("utf-8")
    process = start(
        "fake", "--port", "0", "--replay", path, "--replay-speed", "100", env=environment()
    )
    assert process.stdout is not None
    url = process.stdout.readline().decode().split()[1]
    assert stream_sync("Hi", base_url=url, api_key="any").text() == "Recorded once."


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--replay", __file__), "line 1: this is no recording of llm-sse"),
        (("--replay", "x", "--text", "y"), "--text and --replay do not go together"),
        (("--replay", "x", "--ttft-s", "1"), "--ttft-s and --replay do not go together"),
        (("--replay-speed", "2"), "--replay-speed needs --replay"),
    ],
)
@pytest.mark.usefixtures("_same_signals")
def test_what_cannot_be_replayed_is_an_error(args: tuple[str, ...], said: str) -> None:
    """`fake` says what is wrong with a recording or its options, and exits with 2."""
    result = invoke("fake", *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
