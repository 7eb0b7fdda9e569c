"""What a terminal is shown, and what nobody is."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from click.testing import Result

from llm_sse.cli import main
from llm_sse.providers import PROVIDERS
from llm_sse.testing import FakeServer, say, status
from tests.cli.command import KEY, Terminal, environment, in_terminal, invoke, run_process

_HOSTILE = "a\tb \x1b [31mc\x1b]0;title\x07 d\re\x08\x7f\x9b2J\x00 ü\nend"


def test_text_cannot_drive_a_terminal(server: FakeServer) -> None:
    """On a terminal, model text has no control characters but tabs and line feeds."""
    server.script(say(_HOSTILE))
    code, shown = in_terminal("Hi", env=environment(server))
    assert code == 0
    # The terminal itself may write a tab as spaces.
    assert shown.replace("a       b", "a\tb") == "a\tb  [31mc]0;title de2J ü\nend\n"


def test_json_cannot_drive_a_terminal(server: FakeServer) -> None:
    """On a terminal, `--json` has none of the control characters that JSON leaves as they are."""
    server.script(say("a\x9b2J\x7fb"))
    code, shown = in_terminal("Hi", "--json", env=environment(server))
    assert code == 0
    assert '"a2Jb"' in shown


def test_a_pipe_gets_the_text_unchanged(server: FakeServer) -> None:
    """In a pipe, model text is what the model said, byte for byte."""
    server.script(say(_HOSTILE))
    assert run_process("Hi", env=environment(server)).stdout == _HOSTILE.encode() + b"\n"


def test_text_cannot_drive_a_terminal_in_this_process(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command's own entry point streams to the process's standard output."""
    server.script(say("a\x1b[2Jb\n\x07"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url("openai"))
    monkeypatch.setattr(sys, "argv", ["llm-sse", "Hi"])
    monkeypatch.setattr(sys, "stdout", screen := Terminal())
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, screen.getvalue()) == (0, "a[2Jb\n")


def test_a_providers_words_cannot_drive_a_terminal(
    server: FakeServer, ask: Callable[..., Result]
) -> None:
    """An error's message is one line without control characters, whatever the provider says."""
    server.script(status(400, "bad\x1b[31m\r\n\nnews\x9b"))
    assert "bad[31m news" in (said := ask("Hi").stderr)
    assert said.count("\n") == 1
    assert not {"\x1b", "\r", "\x9b"} & set(said)


def test_a_key_is_never_printed(server: FakeServer, provider: str) -> None:
    """Not even a provider that repeats the key in its error gets it printed."""
    server.script(status(401, f"Incorrect API key provided: {KEY}."))
    row = PROVIDERS[provider]
    env = {row.key_env[0]: KEY, row.base_url_env: server.base_url(provider)}
    for args in (("Hi",), ("Hi", "--json", "--stats"), ("providers",), ("providers", "--json")):
        result = invoke(*args, **env)
        assert KEY not in result.output
    assert "provided: ***." in invoke("Hi", **env).stderr


def test_a_short_key_does_not_garble_messages(server: FakeServer) -> None:
    """A placeholder for a server without keys is not taken out of the words that hold it."""
    server.script(status(400, "nothing of any kind"))
    env = {"OPENAI_API_KEY": "any", "OPENAI_BASE_URL": server.base_url("openai")}
    assert "nothing of any kind" in invoke("Hi", **env).stderr
