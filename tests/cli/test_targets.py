"""Who is asked."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from llm_sse.providers import PROVIDERS
from llm_sse.testing import FakeServer
from tests.cli.command import KEY, environment, invoke, run_process


def test_without_any_key_a_fake_answers() -> None:
    """Nobody's key means the embedded fake, which a proxy does not get in the way of."""
    result = run_process("Hi", env=environment(http_proxy="http://127.0.0.1:9"))
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
        monkeypatch.setattr("llm_sse.testing.server.FakeServer", lambda *_, **__: fake)
        yield fake


def test_the_fake_gets_the_whole_question(quick_fake: FakeServer) -> None:
    """The embedded fake is asked as the first provider would be, and is gone afterwards."""
    result = invoke("Hi", "-m", "some-model", OPENAI_API_KEY="")
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
    result = invoke("Hi", **urls, **dict.fromkeys(keys, KEY))
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
    result = invoke("Hi", *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("llm-sse: error: no key for")
    assert variable in result.stderr


def test_an_unknown_provider_is_answered_with_the_known_ones() -> None:
    """A wrong name is a wrong usage, and the names that there are stand in the message."""
    result = invoke("-p", "chatgpt", "Hi")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "unknown provider 'chatgpt'; there are: openai, " in result.stderr
    assert "groq" in result.stderr


def test_a_key_without_a_model_is_no_reason_to_ask(quick_fake: FakeServer) -> None:
    """A token that may be there for other things leads to nobody, until a model is named."""
    assert "no key found" in invoke("Hi", HF_TOKEN=KEY).stderr
    quick_fake.close()


def test_a_model_makes_a_key_usable(server: FakeServer) -> None:
    """With a model, a gateway without a default one is asked, too."""
    url = {"HUGGINGFACE_BASE_URL": server.base_url("huggingface")}
    assert invoke("Hi", "-m", "some/model", HF_TOKEN=KEY, **url).exit_code == 0
    assert server.requests[0].provider == "huggingface"
    assert server.requests[0].json["model"] == "some/model"
