"""`llm-sse PROMPT`: what is asked."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from llm_sse import __version__
from llm_sse.cli import main
from llm_sse.testing import FakeServer, say, status
from tests.cli.command import KEY, Terminal, environment, in_terminal, invoke, run_process


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
    assert run_process(b"a\xffb", env=environment(server)).returncode == 0
    assert _asked(server) == "a?b"
    server.requests.clear()
    assert run_process(input=b"a\xffb", env=environment(server)).returncode == 0
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


def test_another_provider_is_announced(server: FakeServer, ask: Callable[..., Result]) -> None:
    """Whoever is answered by somebody else is told so; several are asked in their order."""
    server.enqueue(status(401, "no such key"))
    server.enqueue(status(401, "none here either"))
    server.script(say("One"))
    env = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": server.base_url("anthropic")}
    env |= {"GEMINI_API_KEY": KEY, "GOOGLE_GEMINI_BASE_URL": server.base_url("gemini")}
    result = ask("-p", "openai", "--fallback", "anthropic", "--fallback", "gemini", "Hi", **env)
    assert (result.exit_code, result.stdout) == (0, "One\n")
    assert "no such key" in result.stderr
    assert "; asking anthropic\n" in result.stderr
    assert "; asking gemini\n" in result.stderr


def test_nothing_to_ask_shows_the_help_in_this_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A terminal is not waited for: the help comes instead."""
    monkeypatch.setattr(sys, "argv", ["llm-sse"])
    monkeypatch.setattr(sys, "stdin", Terminal())
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("Usage: llm-sse [OPTIONS] [PROMPT]")


def test_nothing_to_ask_shows_the_help() -> None:
    """Without a prompt, on a terminal, the command explains itself."""
    code, shown = in_terminal(env=environment())
    assert code == 0
    assert shown.startswith("Usage: llm-sse [OPTIONS] [PROMPT] | COMMAND")


def test_version() -> None:
    """`--version` prints the library's version."""
    assert invoke("--version").stdout == f"llm-sse, version {__version__}\n"


def test_a_recording_that_is_there_is_kept(ask: Callable[..., Result], tmp_path: Path) -> None:
    """`--record` refuses to overwrite, with exit code 2."""
    path = tmp_path / "answer.jsonl"
    path.write_text("mine")
    result = ask("--record", str(path), "Hi")
    assert (result.exit_code, result.stdout, path.read_text()) == (2, "", "mine")
    assert "exists already, and is not overwritten" in result.stderr
