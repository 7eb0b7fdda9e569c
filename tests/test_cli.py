from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from llm_sse import __version__
from llm_sse import cli as module
from llm_sse.cli import cli
from llm_sse.completion import Completion
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
from llm_sse.events import Event, Finish, ReasoningDelta, StreamStart, TextDelta
from llm_sse.providers import PROVIDERS
from llm_sse.spread import Benchmark
from llm_sse.sync.ask import stream_sync
from llm_sse.sync.benchmark import BenchmarkRun
from llm_sse.testing import FakeServer, cut, finish, pause, raw, say, status, think

_KEY = "sk-a-key-that-nobody-may-see"
_NEEDS_EXTRA = 'llm-sse: the command needs the extra "cli": pip install "llm-sse[cli]"\n'
_NO_RETRY = {"x-should-retry": "false"}
_FOREVER_S = 50.0
_TWO = ("openai", "anthropic")


def _run(*args: str, input: str | bytes | None = None, **env: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, args, input=input, env=env)


@pytest.fixture
def ask(server: FakeServer) -> Callable[..., Result]:
    """Ask the fake server, as OpenAI, in this process."""

    def run(*args: str, **more: Any) -> Result:
        env = {"OPENAI_API_KEY": _KEY, "OPENAI_BASE_URL": server.base_url("openai")}
        return _run(*args, **env, **more)

    return run


def _env(server: FakeServer | None = None, **more: str) -> dict[str, str]:
    """Make an environment for a process, without anything of the tests' own environment."""
    kept = ("PATH", "PYTHONPATH", "SYSTEMROOT", "TMPDIR", "LANG", "LC_ALL", "LC_CTYPE")
    env = {name: os.environ[name] for name in kept if name in os.environ}
    if server is not None:
        env |= {"OPENAI_API_KEY": _KEY, "OPENAI_BASE_URL": server.base_url("openai")}
    return env | more


def _command(*args: str | bytes) -> list[str | bytes]:
    return [sys.executable, "-W", "error", "-m", "llm_sse", *args]


def _process(*args: str | bytes, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run the command in a process of its own, to its end, with nothing on standard input."""
    pipe = subprocess.PIPE
    given: dict[str, Any] = {"input": b"", "env": _env(), "stdout": pipe, "stderr": pipe}
    result: subprocess.CompletedProcess[bytes] = subprocess.run(
        _command(*args), check=False, timeout=30, **(given | options)
    )
    return result


def _python(code: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        env=_env(),
        timeout=30,
        check=False,
    )


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start the command in a process of its own; it does not outlive the test."""
    started: list[subprocess.Popen[bytes]] = []

    def run(*args: str | bytes, **options: Any) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        given: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": pipe, "stderr": pipe}
        process: subprocess.Popen[bytes] = subprocess.Popen(_command(*args), **(given | options))
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


# --- the answer ---


def test_the_answer_is_printed_and_its_last_line_is_ended(
    server: FakeServer, provider: str
) -> None:
    """Each provider's answer comes out on standard output, with a line feed after it."""
    server.script(think("Hm."), say("One two.\nThree."))
    key = {PROVIDERS[provider].key_env[-1]: _KEY}
    result = _run("-p", provider, "--base-url", server.base_url(provider), "Hi", **key)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "One two.\nThree.\n", "")
    assert server.requests[0].provider == provider


def test_a_line_that_has_ended_is_not_ended_twice(
    server: FakeServer, ask: Callable[..., Result]
) -> None:
    """No line feed is added to a text that ends with one."""
    server.script(say("One.\n"))
    assert ask("Hi").stdout == "One.\n"


def test_no_text_is_no_line(server: FakeServer, ask: Callable[..., Result]) -> None:
    """An answer without text prints nothing at all."""
    server.script(think("Hm."))
    assert ask("Hi").stdout == ""


def test_the_options_reach_the_provider(server: FakeServer, ask: Callable[..., Result]) -> None:
    """Model, system text, limit and temperature are what the provider gets; options may follow."""
    args = ("-m", "some-model", "Hi", "-s", "Be brief.", "--max-tokens", "7", "--temperature", "0")
    assert ask(*args).exit_code == 0
    body = server.requests[0].json
    assert body["model"] == "some-model"
    assert body["max_completion_tokens"] == 7
    assert body["temperature"] == 0
    assert [turn["content"] for turn in body["messages"]] == ["Be brief.", "Hi"]


def _asked(server: FakeServer) -> str:
    content: str = server.requests[0].json["messages"][-1]["content"]
    return content


@pytest.mark.parametrize("args", [(), ("-",), ("--", "-")])
def test_the_prompt_may_come_from_standard_input(
    server: FakeServer, ask: Callable[..., Result], args: tuple[str, ...]
) -> None:
    """Without a prompt, or with `-` for it, standard input is asked."""
    assert ask(*args, input="Why?\nHow?").exit_code == 0
    assert _asked(server) == "Why?\nHow?"


@pytest.mark.parametrize(
    ("args", "prompt"),
    [
        (("providers of services",), "providers of services"),
        (("Fake",), "Fake"),
        (("--", "providers"), "providers"),
        (("-p", "openai", "fake"), "fake"),
    ],
)
def test_only_an_exact_first_word_is_a_command(
    server: FakeServer, ask: Callable[..., Result], args: tuple[str, ...], prompt: str
) -> None:
    """Everything but `providers` and `fake` in the first place is a prompt."""
    assert ask(*args).exit_code == 0
    assert _asked(server) == prompt


def test_bytes_that_are_no_text_can_be_asked(server: FakeServer) -> None:
    """A prompt loses the bytes that are not UTF-8, as an argument and in a pipe."""
    assert _process(b"a\xffb", env=_env(server)).returncode == 0
    assert _asked(server) == "a?b"
    server.requests.clear()
    assert _process(input=b"a\xffb", env=_env(server)).returncode == 0
    assert _asked(server) == "a\ufffdb"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("one", "two"), "put it in quotes"),
        ((" ",), "the prompt is empty"),
        ((), "the prompt is empty"),
        (("-p", "nobody", "Hi"), "openai, openai-responses, anthropic, gemini, ollama, azure, "),
        (("--max-tokens", "0", "Hi"), "x>=1"),
        (("providers", "of"), "unexpected extra argument"),
    ],
)
def test_wrong_usage_exits_with_2(
    server: FakeServer, ask: Callable[..., Result], args: tuple[str, ...], says: str
) -> None:
    """What cannot be meant is refused before anything is sent."""
    result = ask(*args)
    assert result.exit_code == 2
    assert says in result.stderr
    assert not server.requests


def test_json_is_one_event_a_line(server: FakeServer, ask: Callable[..., Result]) -> None:
    """`--json` prints every event as the library delivers it, and nothing between them."""
    server.script(think("Hm."), say("Grüße\n"))
    lines = ask("Hi", "--json").stdout.splitlines()
    events = [msgspec.json.decode(line, type=Event) for line in lines]
    kinds = {type(event): event for event in events}
    assert isinstance(events[0], StreamStart)
    assert kinds[ReasoningDelta] == ReasoningDelta("Hm.")
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == "Grüße\n"
    assert isinstance(events[-1], Finish)


def test_json_is_utf_8_wherever_it_goes(server: FakeServer) -> None:
    """`--json` does not follow the encoding of the locale."""
    server.script(say("Grüße"))
    result = _process("Hi", "--json", env=_env(server, PYTHONIOENCODING="ascii"))
    assert "Grüße".encode() in result.stdout


def test_what_cannot_be_encoded_is_replaced(server: FakeServer) -> None:
    """A standard output that is ASCII only loses some letters, not the answer."""
    server.script(say("Grüße an alle"))
    result = _process("Hi", env=_env(server, PYTHONIOENCODING="ascii"))
    assert (result.returncode, result.stdout) == (0, b"Gr??e an alle\n")
    assert result.stderr == b""


def test_stats_are_one_line_beside_the_answer(
    server: FakeServer, ask: Callable[..., Result]
) -> None:
    """`--stats` prints pace and usage on standard error and leaves the answer alone."""
    server.script(say("One two three."))
    result = ask("Hi there", "--stats")
    assert result.stdout == "One two three.\n"
    assert result.stderr.startswith("llm-sse: first text after ")
    for figure in ("3 deltas, ", " tokens/s, ", "2 input tokens, 3 output tokens"):
        assert figure in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_refusal_is_shown(server: FakeServer, ask: Callable[..., Result]) -> None:
    """The model's refusal is no answer: it goes to standard error."""
    chunk = {"choices": [{"index": 0, "delta": {"refusal": "I will\nnot."}}]}
    server.script(raw(b"data: " + msgspec.json.encode(chunk) + b"\n\n"))
    result = ask("Hi")
    assert result.stdout == ""
    assert result.stderr == "llm-sse: the model refuses: I will not.\n"


def test_an_early_end_is_explained(server: FakeServer, ask: Callable[..., Result]) -> None:
    """An answer that ended for another reason than `stop` says so, in our word and in theirs."""
    server.script(say("One"), finish("length"))
    result = ask("Hi")
    assert (result.exit_code, result.stdout) == (0, "One\n")
    assert result.stderr == "llm-sse: the answer ended early: length (length)\n"


def test_an_end_that_nobody_explains_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reason without the provider's word stands alone."""
    _answer_with(monkeypatch, [TextDelta("One"), Finish("content_filter")])
    assert _run("Hi", OPENAI_API_KEY=_KEY).stderr == (
        "llm-sse: the answer ended early: content_filter\n"
    )


def test_a_retry_is_announced(server: FakeServer, ask: Callable[..., Result]) -> None:
    """Whoever waits for a retry is told why."""
    server.enqueue(status(503, "busy", headers={"retry-after-ms": "1"}))
    server.script(say("One"))
    result = ask("Hi")
    assert (result.exit_code, result.stdout) == (0, "One\n")
    assert "busy; trying again in 0." in result.stderr


def test_another_provider_is_announced(server: FakeServer, ask: Callable[..., Result]) -> None:
    """Whoever is answered by somebody else is told so; several are asked in their order."""
    server.enqueue(status(401, "no such key"))
    server.enqueue(status(401, "none here either"))
    server.script(say("One"))
    env = {"ANTHROPIC_API_KEY": _KEY, "ANTHROPIC_BASE_URL": server.base_url("anthropic")}
    env |= {"GEMINI_API_KEY": _KEY, "GOOGLE_GEMINI_BASE_URL": server.base_url("gemini")}
    result = ask("-p", "openai", "--fallback", "anthropic", "--fallback", "gemini", "Hi", **env)
    assert (result.exit_code, result.stdout) == (0, "One\n")
    assert "no such key" in result.stderr
    assert "; asking anthropic\n" in result.stderr
    assert "; asking gemini\n" in result.stderr


# --- the terminal ---


def _in_terminal(*args: str, env: dict[str, str]) -> tuple[int, str]:
    """Run the command with a terminal for standard input and output; return what it showed."""
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    shown = b""
    with (
        os.fdopen(master, "rb", buffering=0) as screen,
        subprocess.Popen(
            _command(*args), stdin=slave, stdout=slave, stderr=subprocess.PIPE, env=env
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


_HOSTILE = "a\tb \x1b [31mc\x1b]0;title\x07 d\re\x08\x7f\x9b2J\x00 ü\nend"


def test_text_cannot_drive_a_terminal(server: FakeServer) -> None:
    """On a terminal, model text has no control characters but tabs and line feeds."""
    server.script(say(_HOSTILE))
    code, shown = _in_terminal("Hi", env=_env(server))
    assert code == 0
    # The terminal itself may write a tab as spaces.
    assert shown.replace("a       b", "a\tb") == "a\tb  [31mc]0;title de2J ü\nend\n"


def test_json_cannot_drive_a_terminal(server: FakeServer) -> None:
    """On a terminal, `--json` has none of the control characters that JSON leaves as they are."""
    server.script(say("a\x9b2J\x7fb"))
    code, shown = _in_terminal("Hi", "--json", env=_env(server))
    assert code == 0
    assert '"a2Jb"' in shown


def test_a_pipe_gets_the_text_unchanged(server: FakeServer) -> None:
    """In a pipe, model text is what the model said, byte for byte."""
    server.script(say(_HOSTILE))
    assert _process("Hi", env=_env(server)).stdout == _HOSTILE.encode() + b"\n"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_text_cannot_drive_a_terminal_in_this_process(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command's own entry point streams to the process's standard output."""
    server.script(say("a\x1b[2Jb\n\x07"))
    monkeypatch.setenv("OPENAI_API_KEY", _KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url("openai"))
    monkeypatch.setattr(sys, "argv", ["llm-sse", "Hi"])
    monkeypatch.setattr(sys, "stdout", screen := _Terminal())
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert (ended.value.code, screen.getvalue()) == (0, "a[2Jb\n")


def test_nothing_to_ask_shows_the_help_in_this_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A terminal is not waited for: the help comes instead."""
    monkeypatch.setattr(sys, "argv", ["llm-sse"])
    monkeypatch.setattr(sys, "stdin", _Terminal())
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("Usage: llm-sse [OPTIONS] [PROMPT]")


def test_nothing_to_ask_shows_the_help() -> None:
    """Without a prompt, on a terminal, the command explains itself."""
    code, shown = _in_terminal(env=_env())
    assert code == 0
    assert shown.startswith("Usage: llm-sse [OPTIONS] [PROMPT] | COMMAND")


def test_the_help_has_every_exit_code() -> None:
    """`-h` lists commands, options and exit codes."""
    result = _run("-h")
    assert result.exit_code == 0
    for code in (*range(10), 130, 141):
        assert f"\n{code:7}  " in result.stdout
    assert "providers" in result.stdout
    assert result.stdout == _run("--help").stdout


def test_version() -> None:
    """`--version` prints the library's version."""
    assert _run("--version").stdout == f"llm-sse, version {__version__}\n"


# --- endings ---


def _answer_with(monkeypatch: pytest.MonkeyPatch, said: list[Event | BaseException]) -> None:
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

    monkeypatch.setattr(module, "stream_sync", lambda *_, **__: Stream())


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
    _answer_with(monkeypatch, [TextDelta("One"), TextDelta(""), error])
    result = _run("Hi", OPENAI_API_KEY=_KEY)
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


def test_an_error_stands_on_a_line_of_its_own(server: FakeServer) -> None:
    """A partial answer stays; the error comes after it, on the next line, where both are seen."""
    server.script(say("One two"), cut())
    process = _process("Hi", env=_env(server), stderr=subprocess.STDOUT)
    assert process.returncode == 7
    assert process.stdout.startswith(b"One two\nllm-sse: error: ")
    assert process.stdout.count(b"\n") == 2


def test_a_providers_words_cannot_drive_a_terminal(
    server: FakeServer, ask: Callable[..., Result]
) -> None:
    """An error's message is one line without control characters, whatever the provider says."""
    server.script(status(400, "bad\x1b[31m\r\n\nnews\x9b"))
    assert "bad[31m news" in (said := ask("Hi").stderr)
    assert said.count("\n") == 1
    assert not {"\x1b", "\r", "\x9b"} & set(said)


def test_ctrl_c_keeps_what_was_printed(
    server: FakeServer, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    """Each token is out at once; Ctrl-C ends the command with 130 and without a traceback."""
    server.script(say("One\n"), say("two"), pause(_FOREVER_S))
    process = start("Hi", env=_env(server))
    assert process.stdout is not None
    shown = process.stdout.readline() + process.stdout.read(3)
    process.send_signal(signal.SIGINT)
    rest, said = process.communicate(timeout=30)
    assert (process.returncode, shown + rest, said) == (130, b"One\ntwo\n", b"")


def test_ctrl_c_ends_the_embedded_fake(start: Callable[..., subprocess.Popen[bytes]]) -> None:
    """Ctrl-C does not wait for the rest of the fake provider's answer."""
    process = start("Hi", env=_env())
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
    _answer_with(monkeypatch, [TextDelta("One"), KeyboardInterrupt()])
    result = _run("Hi", OPENAI_API_KEY=_KEY)
    assert (result.exit_code, result.stdout, result.stderr) == (130, "One\n", "")


def test_a_closed_pipe_is_no_error(
    server: FakeServer, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    """Whoever has read enough ends the command: 141, as SIGPIPE would, and not a word."""
    server.script(say("line\n" * 50_000))
    process = start("Hi", env=_env(server))
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
    _answer_with(monkeypatch, [BrokenPipeError()])
    result = _run("Hi", OPENAI_API_KEY=_KEY)
    assert (result.exit_code, result.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_one_line(server: FakeServer) -> None:
    """Output that cannot be written is an error like any other."""
    with open("/dev/full", "wb") as full:
        result = _process("Hi", env=_env(server), stdout=full)
    assert result.returncode == 1
    assert result.stderr.startswith(b"llm-sse: error: [Errno 28]")
    assert result.stderr.count(b"\n") == 1


# --- whom to ask ---


def test_without_any_key_a_fake_answers() -> None:
    """Nobody's key means the embedded fake, which a proxy does not get in the way of."""
    result = _process("Hi", env=_env(http_proxy="http://127.0.0.1:9"))
    assert result.returncode == 0
    assert result.stdout.startswith(b"Server-sent events are")
    assert result.stderr.decode() == (
        "llm-sse: no key found (OPENAI_API_KEY, ANTHROPIC_API_KEY, GEMINI_API_KEY or "
        "GOOGLE_API_KEY, OLLAMA_API_KEY, ...): this answer comes from the built-in fake provider\n"
    )


@pytest.fixture
def quick_fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """The embedded fake, at no human pace."""
    with FakeServer("Fake.") as fake:
        monkeypatch.setattr(module, "FakeServer", lambda *_, **__: fake)
        yield fake


def test_the_fake_gets_the_whole_question(quick_fake: FakeServer) -> None:
    """The embedded fake is asked as the first provider would be, and is gone afterwards."""
    result = _run("Hi", "-m", "some-model", OPENAI_API_KEY="")
    assert (result.exit_code, result.stdout) == (0, "Fake.\n")
    assert quick_fake.requests[0].json["model"] == "some-model"
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", int(quick_fake.url.rpartition(":")[2])))


@pytest.mark.parametrize(
    ("keys", "asked"),
    [
        (["ANTHROPIC_API_KEY"], "anthropic"),
        (["GOOGLE_API_KEY"], "gemini"),
        (["GEMINI_API_KEY", "ANTHROPIC_API_KEY"], "anthropic"),
        (["GEMINI_API_KEY", "OPENAI_API_KEY"], "openai"),
        (["HF_TOKEN", "MISTRAL_API_KEY"], "mistral"),
    ],
)
def test_the_first_provider_with_a_key_is_asked(
    server: FakeServer, keys: list[str], asked: str
) -> None:
    """Where no provider is named, the table's first one answers that has a key and a model."""
    urls = {row.base_url_env: server.base_url(row.name) for row in PROVIDERS.values()}
    result = _run("Hi", **urls, **dict.fromkeys(keys, _KEY))
    assert (result.exit_code, result.stderr) == (0, "")
    assert server.requests[0].provider == asked


@pytest.mark.parametrize(
    ("args", "variable"),
    [
        (("-p", "anthropic"), "ANTHROPIC_API_KEY"),
        (("--base-url", "http://127.0.0.1:9/v1"), "OPENAI_API_KEY"),
    ],
)
def test_whoever_says_whom_to_ask_needs_a_key(args: tuple[str, ...], variable: str) -> None:
    """A named provider, or a named server, is never replaced by the fake."""
    result = _run("Hi", *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("llm-sse: error: no key for")
    assert variable in result.stderr


def test_a_key_is_never_printed(server: FakeServer, provider: str) -> None:
    """Not even a provider that repeats the key in its error gets it printed."""
    server.script(status(401, f"Incorrect API key provided: {_KEY}."))
    row = PROVIDERS[provider]
    env = {row.key_env[0]: _KEY, row.base_url_env: server.base_url(provider)}
    for args in (("Hi",), ("Hi", "--json", "--stats"), ("providers",), ("providers", "--json")):
        result = _run(*args, **env)
        assert _KEY not in result.output
    assert "provided: ***." in _run("Hi", **env).stderr


def test_a_short_key_does_not_garble_messages(server: FakeServer) -> None:
    """A placeholder for a server without keys is not taken out of the words that hold it."""
    server.script(status(400, "nothing of any kind"))
    env = {"OPENAI_API_KEY": "any", "OPENAI_BASE_URL": server.base_url("openai")}
    assert "nothing of any kind" in _run("Hi", **env).stderr


# --- the commands ---


def test_the_table_of_providers() -> None:
    """`providers` lists names, models, servers and keys; what the environment changed is marked."""
    env = {"OPENAI_MODEL": "[b]mine", "GOOGLE_API_KEY": _KEY, "COLUMNS": "150"}
    result = _run("providers", OPENAI_BASE_URL="https://me:secret@here/v1", **env)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[1] == ["openai", "[b]mine", "https://***@here/v1", "OPENAI_API_KEY", "unset"]
    assert lines[2] == ["(from", "OPENAI_MODEL)", "(from", "OPENAI_BASE_URL)"]
    assert lines[3][0] == "openai-responses"
    assert lines[5] == [
        *("anthropic", PROVIDERS["anthropic"].model, "https://api.anthropic.com"),
        *("ANTHROPIC_API_KEY", "unset"),
    ]
    assert lines[6][-2:] == ["GEMINI_API_KEY", "unset"]
    assert lines[7] == ["GOOGLE_API_KEY", "set"]
    assert lines[8] == ["ollama", "gemma4", "http://127.0.0.1:11434", "OLLAMA_API_KEY", "unset"]


def test_the_table_fits_a_narrow_terminal() -> None:
    """On 80 columns the address stands below the model."""
    lines = _run("providers", COLUMNS="80").stdout.splitlines()
    assert [line.split() for line in lines[:2]] == [["model"], ["provider", "base", "URL", "keys"]]
    place = next(at for at, line in enumerate(lines) if line.startswith("openrouter "))
    assert lines[place].split()[:3] == ["openrouter", "openrouter/auto", "OPENROUTER_API_KEY"]
    assert lines[place + 1].split() == ["https://openrouter.ai/api/v1"]
    assert max(map(len, lines)) <= 80


def test_the_providers_as_json() -> None:
    """`providers --json` has the same for machines."""
    result = _run("providers", "--json", ANTHROPIC_MODEL="mine", ANTHROPIC_API_KEY=_KEY)
    rows = {row["name"]: row for row in msgspec.json.decode(result.stdout)}
    assert list(rows) == list(PROVIDERS)
    assert rows["anthropic"] == {
        "name": "anthropic",
        "model": "mine",
        "model_from": "ANTHROPIC_MODEL",
        "base_url": "https://api.anthropic.com",
        "base_url_from": None,
        "keys": {"ANTHROPIC_API_KEY": True},
    }
    assert rows["gemini"]["keys"] == {"GEMINI_API_KEY": False, "GOOGLE_API_KEY": False}
    assert (rows["azure"]["model"], rows["azure"]["base_url"]) == (None, None)


def test_an_unknown_provider_is_answered_with_the_known_ones() -> None:
    """A wrong name is a wrong usage, and the names that there are stand in the message."""
    result = _run("-p", "chatgpt", "Hi")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "unknown provider 'chatgpt'; there are: openai, " in result.stderr
    assert "groq" in result.stderr


def test_a_key_without_a_model_is_no_reason_to_ask(quick_fake: FakeServer) -> None:
    """A token that may be there for other things leads to nobody, until a model is named."""
    assert "no key found" in _run("Hi", HF_TOKEN=_KEY).stderr
    quick_fake.close()


def test_a_model_makes_a_key_usable(server: FakeServer) -> None:
    """With a model, a gateway without a default one is asked, too."""
    url = {"HUGGINGFACE_BASE_URL": server.base_url("huggingface")}
    assert _run("Hi", "-m", "some/model", HF_TOKEN=_KEY, **url).exit_code == 0
    assert server.requests[0].provider == "huggingface"
    assert server.requests[0].json["model"] == "some/model"


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_the_fake_serves_until_it_is_stopped(
    start: Callable[..., subprocess.Popen[bytes]], stop: signal.Signals
) -> None:
    """`fake` prints a base URL for each provider at once, serves them all, and ends with 0."""
    args = ("--port", "0", "--text", "Hello there.", "--ttft-s", "0", "--tokens-per-s", "1000")
    process = start("fake", *args, env=_env())
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

    monkeypatch.setattr(module, "_wait", stop)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    result = _run("fake", "--port", str(port))
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
    result = _run("fake", "--port", server.url.rpartition(":")[2])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("llm-sse: error: cannot listen on 127.0.0.1:")


# --- recordings ---


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
    assert _KEY not in Path(path).read_text("utf-8")
    process = start("fake", "--port", "0", "--replay", path, "--replay-speed", "100", env=_env())
    assert process.stdout is not None
    url = process.stdout.readline().decode().split()[1]
    assert stream_sync("Hi", base_url=url, api_key="any").text() == "Recorded once."


def test_a_recording_that_is_there_is_kept(ask: Callable[..., Result], tmp_path: Path) -> None:
    """`--record` refuses to overwrite, with exit code 2."""
    path = tmp_path / "answer.jsonl"
    path.write_text("mine")
    result = ask("--record", str(path), "Hi")
    assert (result.exit_code, result.stdout, path.read_text()) == (2, "", "mine")
    assert "exists already, and is not overwritten" in result.stderr


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
    result = _run("fake", *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


# --- the extra ---


@pytest.mark.parametrize(("missing", "word"), [("click", "Hi"), ("rich", "providers")])
def test_without_the_extra_the_command_says_what_to_install(missing: str, word: str) -> None:
    """A missing `click` or `rich` is one line that names the extra, and exit code 2."""
    result = _python(
        f"import runpy, sys; sys.modules[{missing!r}] = None; sys.argv = ['llm-sse', {word!r}]; "
        "runpy.run_module('llm_sse', run_name='__main__')"
    )
    assert (result.returncode, result.stdout) == (2, b"")
    assert result.stderr.decode() == _NEEDS_EXTRA


def test_without_rich_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table alone needs `rich`; the JSON of the same does not."""
    monkeypatch.setitem(sys.modules, "rich.console", None)
    result = _run("providers")
    assert (result.exit_code, result.stderr) == (2, _NEEDS_EXTRA)
    assert _run("providers", "--json").exit_code == 0


def test_the_library_needs_no_extra() -> None:
    """Only the command imports `click`, and `rich` when it prints; only its face a framework."""
    result = _python(
        "import importlib, pkgutil, sys, llm_sse\n"
        "extras = ['llm_sse.cli', 'llm_sse.__main__']\n"
        "extras += [f'llm_sse.web.{name}' for name in ('flask', 'django', 'app', 'serve')]\n"
        "for info in pkgutil.walk_packages(llm_sse.__path__, 'llm_sse.'):\n"
        "    if info.name not in extras:\n"
        "        importlib.import_module(info.name)\n"
        "assert not {'click', 'rich', 'flask', 'django', 'waitress'} & set(sys.modules)\n"
        "import llm_sse.cli\n"
        "assert 'click' in sys.modules and 'rich' not in sys.modules\n"
    )
    assert result.stderr == b""
    assert result.returncode == 0


class TestBench:
    """`llm-sse bench`."""

    @pytest.fixture
    def two(self, server: FakeServer) -> Callable[..., Result]:
        """Measure two formats of the fake server, in this process."""

        def measure(*args: str) -> Result:
            env = {"OPENAI_API_KEY": _KEY, "ANTHROPIC_API_KEY": _KEY}
            env |= {f"{name.upper()}_BASE_URL": server.base_url(name) for name in _TWO}
            return _run("bench", *args, **env)

        return measure

    def test_a_table_of_those_whose_keys_are_set(
        self, server: FakeServer, two: Callable[..., Result]
    ) -> None:
        """Each is asked five times, in turn, with the question and its limit."""
        result = two("What is SSE?", "--max-tokens", "7")
        assert (result.exit_code, result.stderr) == (0, "")
        assert [line.split()[:2] for line in result.stdout.splitlines() if "5/5" in line] == [
            ["openai", "5/5"],
            ["anthropic", "5/5"],
        ]
        assert len(server.requests) == 10
        assert "What is SSE?" in str(server.requests[0].body)
        assert 7 in server.requests[0].json.values()

    def test_json_keeps_everything(self, server: FakeServer, two: Callable[..., Result]) -> None:
        """`--json` prints each run and the spreads; a model follows the provider's name."""
        result = two("--json", "-p", "openai:a:b", "-p", "anthropic", "-n", "6")
        found = msgspec.json.decode(result.stdout, type=Benchmark)
        assert found.iterations == 6
        first = found.providers[0]
        assert (first.label, first.model) == ("openai:a:b", "a:b")
        assert [len(each.runs) for each in found.providers] == [6, 6]

    def test_csv_has_a_line_for_each_run(
        self, server: FakeServer, two: Callable[..., Result]
    ) -> None:
        """`--csv` prints what a spreadsheet reads; an error is told beside it."""
        server.enqueue(status(429, f"not with {_KEY}"))
        result = two("--csv", "-p", "openai")
        assert result.exit_code == 0
        assert result.stdout.count("\n") == 6
        assert result.stdout.splitlines()[1].startswith("openai,openai,")
        assert ",1,RateLimitError," in result.stdout
        assert result.stderr.startswith("llm-sse: openai, run 1: openai answered 429")
        assert _KEY not in result.output

    def test_a_plot(self, two: Callable[..., Result], tmp_path: Path) -> None:
        """`--plot` draws beside the table."""
        path = tmp_path / "out.png"
        result = two("--plot", str(path))
        assert "5/5" in result.stdout
        assert path.read_bytes().startswith(b"\x89PNG")

    @pytest.mark.parametrize("form", ["table", "--json", "--csv"])
    def test_ctrl_c_shows_what_there_is(
        self, two: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, form: str
    ) -> None:
        """Runs that were paid for are printed, with a mark, and the exit code is 130."""

        @contextmanager
        def progress(total: int) -> Iterator[Callable[[BenchmarkRun], None]]:
            made: list[BenchmarkRun] = []

            def ended(run: BenchmarkRun) -> None:
                made.append(run)
                if len(made) == 3:
                    raise KeyboardInterrupt

            yield ended

        monkeypatch.setattr(module, "progress", progress)
        result = two(*(() if form == "table" else (form,)))
        assert result.exit_code == 130
        assert "interrupted" in result.stderr
        if form == "--json":
            found = msgspec.json.decode(result.stdout, type=Benchmark)
            assert found.interrupted
            assert [len(each.runs) for each in found.providers] == [1, 2]
        elif form == "--csv":
            assert result.stdout.count("\n") == 4
        else:
            assert "2/5 *" in result.stdout
            assert "interrupted" in result.stdout

    def test_without_a_key_the_fake_is_measured(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without any key it shows what it would show, and says so."""
        monkeypatch.setattr(module, "FakeServer", lambda **given: FakeServer("Hi.", **given))
        result = _run("bench", "Hi")
        assert result.exit_code == 0
        assert "the figures come from the built-in fake provider" in result.stderr
        assert "5/5" in result.stdout

    @pytest.mark.parametrize(
        ("args", "complaint"),
        [
            (["-n", "4"], "4 is not in the range x>=5"),
            (["--json", "--csv"], "do not go together"),
            (["--plot", "nowhere/out.png"], "no directory"),
            (["-p", "opnai"], "opnai"),
            (["-p", "openai", "-p", "openai"], "there twice"),
            (["-p", "gemini"], "GEMINI_API_KEY"),
        ],
    )
    def test_a_mistake_sends_nothing(
        self, server: FakeServer, two: Callable[..., Result], args: list[str], complaint: str
    ) -> None:
        """Wrong usage and missing keys are found before the first request."""
        result = two(*args)
        assert (result.exit_code, result.stdout) == (2, "")
        assert complaint in result.stderr
        assert server.requests == []

    def test_nothing_but_errors(self, server: FakeServer, two: Callable[..., Result]) -> None:
        """Where no run succeeds the table says so, and so does the exit code."""
        server.script(status(500))
        result = two("-p", "openai")
        assert result.exit_code == 1
        assert "0/5 *" in result.stdout
        assert result.stderr.count("\n") == 5
