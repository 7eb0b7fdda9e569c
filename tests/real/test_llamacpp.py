"""llama.cpp's own HTTP server, not our idea of it, in the three formats that it speaks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from llm_sse import Completion, TokenStream, stream_sync
from llm_sse.errors import InvalidRequestError
from llm_sse.events import Retrying, TextDelta, Usage
from llm_sse.testing import FakeServer
from tests.helpers import until
from tests.real.model import ENDLESS, SAYS

#: The formats that it speaks, and what the base URL of each ends with.
ROOTS = {"openai": "/v1", "openai-responses": "/v1", "anthropic": ""}

Ask = Callable[..., TokenStream]


@pytest.fixture(params=ROOTS)
def provider(request: pytest.FixtureRequest) -> str:
    """Each format that llama.cpp speaks, in turn."""
    name: str = request.param
    return name


@pytest.fixture
def ask(llamacpp: str, provider: str) -> Ask:
    """Ask llama.cpp in a format."""

    def ask(prompt: str = "Hi", **arguments: Any) -> TokenStream:
        given = {
            "provider": provider,
            "base_url": llamacpp + ROOTS[provider],
            "api_key": "any",
            "model": "tiny",
            "temperature": 0,
            "max_tokens": 64,
            **arguments,
        }
        return stream_sync(prompt, **given)

    return ask


def works(url: str) -> bool:
    """Whether the server is generating anything."""
    return any(slot["is_processing"] for slot in requests.get(f"{url}/slots", timeout=10).json())


class TestAnswers:
    @pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
    def test_all_formats_say_the_same(self, ask: Ask, stream: bool) -> None:
        """Text, reason and usage are the same in every format, streamed or whole."""
        answer: Completion = ask(stream=stream).completion
        assert (answer.text, answer.finish_reason) == (SAYS, "stop")
        assert answer.usage is not None
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (11, 13)

    def test_deltas_come_one_by_one(self, ask: Ask) -> None:
        """Each token is a delta, and a character of several tokens is never cut."""
        events = list(ask().events())
        texts = [event.text for event in events if isinstance(event, TextDelta)]
        assert texts == [" A", " tiny", " model", " says", " so", ":", " ", "😀", "."]
        assert sum(isinstance(event, Usage) for event in events) == 1

    def test_what_was_cached_is_part_of_the_input(self, ask: Ask) -> None:
        """Who counts cached tokens by themselves is understood as who counts them in."""
        ask("the same question twice").text()
        usages = [ask("the same question twice", stream=s).completion.usage for s in (True, False)]
        for usage in usages:
            assert usage is not None
            assert (usage.input_tokens, usage.cached_input_tokens) == (32, 31)

    def test_a_limit_of_tokens_ends_the_answer(self, ask: Ask, provider: str) -> None:
        """Three tokens are three; Responses is not told that there would have been more."""
        answer = ask(max_tokens=3).completion
        says_why = provider != "openai-responses"
        assert answer.text == " A tiny model"
        assert answer.finish_reason == ("length" if says_why else "stop")

    @pytest.mark.parametrize("provider", ["openai", "anthropic"], indirect=True)
    def test_a_stop_text_ends_the_answer(self, ask: Ask) -> None:
        """The answer stops before the text at which it shall."""
        answer = ask(stop=":").completion
        assert (answer.text, answer.finish_reason) == (" A tiny model says so", "stop")

    def test_a_recording_of_it_says_the_same(self, ask: Ask, provider: str, tmp_path: Path) -> None:
        """What the real server has sent can be replayed without it."""
        path = tmp_path / "llamacpp.jsonl"
        events = list(ask(record=path).events())
        with FakeServer(replay=path, replay_speed=None) as replay:
            assert list(ask(base_url=replay.base_url(provider)).events()) == events


class TestConnections:
    def test_leaving_early_ends_the_generation(self, ask: Ask, llamacpp: str) -> None:
        """After a `break` the server is soon idle, though it had tens of thousands to say."""
        heard = []
        for token in ask(ENDLESS, max_tokens=30_000):
            heard.append(token)
            if len(heard) == 5:
                assert works(llamacpp)
                break
        assert heard == [" on", " and", " on", " and", " on"]
        until(lambda: not works(llamacpp))

    def test_close_before_the_first_token_ends_the_generation(
        self, ask: Ask, llamacpp: str
    ) -> None:
        """A stream that nobody has read is closed as well."""
        answer = ask(ENDLESS, max_tokens=30_000)
        assert answer.wait_started(10)
        answer.close()
        until(lambda: not works(llamacpp))

    def test_many_answers_in_a_row_go_unnoticed(self, ask: Ask) -> None:
        """It closes connections that it said it keeps; nobody is told, and nothing is retried."""
        for number in range(30):
            events = list(ask(stream=number % 3 > 0).events())
            assert not any(isinstance(event, Retrying) for event in events)
            assert "".join(e.text for e in events if isinstance(e, TextDelta)) == SAYS

    def test_two_answers_at_once_do_not_mix(self, ask: Ask) -> None:
        """Streams that are read in turn are each whole."""
        first, second = ask("one"), ask("two")
        pairs = list(zip(first, second, strict=True))
        assert "".join(one for one, _ in pairs) == "".join(two for _, two in pairs) == SAYS


class TestRefusals:
    @pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
    def test_a_prompt_that_is_too_long(self, ask: Ask, stream: bool) -> None:
        """The overflow is an invalid request in every format, by the server's own word for it."""
        with pytest.raises(InvalidRequestError, match="exceeds the available context") as caught:
            ask("x" * 40_000, stream=stream).text()
        assert (caught.value.status, caught.value.code) == (400, "exceed_context_size_error")
        assert caught.value.body["error"]["n_ctx"] == 32768

    def test_a_wrong_address(self, ask: Ask, llamacpp: str) -> None:
        """A path that is nobody's is an invalid request, with a hint."""
        with pytest.raises(InvalidRequestError, match="is base_url right") as caught:
            ask(base_url=f"{llamacpp}/nowhere").text()
        assert (caught.value.status, caught.value.code) == (404, "not_found_error")

    def test_a_field_of_a_wrong_type(self, ask: Ask) -> None:
        """What the server cannot read is an invalid request, and says which field it is."""
        with pytest.raises(InvalidRequestError, match="'temperature'") as caught:
            ask(extra_body={"temperature": "hot"}).text()
        assert caught.value.status == 400
