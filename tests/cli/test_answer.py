"""What is printed of an answer."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import msgspec
import pytest
from click.testing import Result

from llm_sse.events import Event, Finish, ReasoningDelta, StreamStart, TextDelta
from llm_sse.providers import PROVIDERS
from llm_sse.testing import FakeServer, cut, finish, raw, say, status, think
from tests.cli.command import KEY, answer_with, environment, invoke, run_process


def test_the_answer_is_printed_and_its_last_line_is_ended(
    server: FakeServer, provider: str
) -> None:
    """Each provider's answer comes out on standard output, with a line feed after it."""
    server.script(think("Hm."), say("One two.\nThree."))
    key = {PROVIDERS[provider].key_env[-1]: KEY}
    result = invoke("-p", provider, "--base-url", server.base_url(provider), "Hi", **key)
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
    result = run_process("Hi", "--json", env=environment(server, PYTHONIOENCODING="ascii"))
    assert "Grüße".encode() in result.stdout


def test_what_cannot_be_encoded_is_replaced(server: FakeServer) -> None:
    """A standard output that is ASCII only loses some letters, not the answer."""
    server.script(say("Grüße an alle"))
    result = run_process("Hi", env=environment(server, PYTHONIOENCODING="ascii"))
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
    answer_with(monkeypatch, [TextDelta("One"), Finish("content_filter")])
    assert invoke("Hi", OPENAI_API_KEY=KEY).stderr == (
        "llm-sse: the answer ended early: content_filter\n"
    )


def test_a_retry_is_announced(server: FakeServer, ask: Callable[..., Result]) -> None:
    """Whoever waits for a retry is told why."""
    server.enqueue(status(503, "busy", headers={"retry-after-ms": "1"}))
    server.script(say("One"))
    result = ask("Hi")
    assert (result.exit_code, result.stdout) == (0, "One\n")
    assert "busy; trying again in 0." in result.stderr


def test_an_error_stands_on_a_line_of_its_own(server: FakeServer) -> None:
    """A partial answer stays; the error comes after it, on the next line, where both are seen."""
    server.script(say("One two"), cut())
    process = run_process("Hi", env=environment(server), stderr=subprocess.STDOUT)
    assert process.returncode == 7
    assert process.stdout.startswith(b"One two\nllm-sse: error: ")
    assert process.stdout.count(b"\n") == 2
