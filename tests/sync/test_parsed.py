"""Values out of streams: `parsed()` at the end, `partial()` on the way."""

from __future__ import annotations

import builtins
import json
import sys
from typing import Any

import msgspec
import pytest

from llm_sse import RetryPolicy, complete_sync, run_tools, stream_sync
from llm_sse.errors import ConfigurationError, ConnectionLost, InvalidOutputError, StreamClosed
from llm_sse.providers import PROVIDERS
from llm_sse.testing import FakeServer, call_tool, cut, finish, pause, say
from tests.helpers import until
from tests.sync.bodies import producers
from tests.sync.conftest import Ask


class Step(msgspec.Struct):
    text: str
    minutes: int


class Recipe(msgspec.Struct):
    title: str
    steps: list[Step]


SOUP = Recipe("Soup", [Step("stir", 3), Step("eat", 10)])
TEXT = msgspec.json.encode(SOUP).decode()


def weather(city: str) -> str:
    """Tell the weather in a city."""
    return f"rain in {city}"


class TestParsed:
    def test_an_instance_of_the_class(self, server: FakeServer, ask: Ask) -> None:
        """Whichever provider answers, the value is an instance of what was asked for."""
        server.script(say(TEXT))
        assert ask(response_format=Recipe).parsed() == SOUP

    def test_a_whole_answer(self, server: FakeServer, provider: str) -> None:
        """An answer that is not streamed has the value, too."""
        server.script(say(TEXT))
        completion = complete_sync(
            "Soup?",
            provider=provider,
            base_url=server.base_url(provider),
            api_key="any",
            response_format=Recipe,
        )
        assert completion.parsed(Recipe) == SOUP
        assert completion.parsed() == msgspec.to_builtins(SOUP)

    def test_without_a_format_it_is_json(self, server: FakeServer, openai: Ask) -> None:
        """Who asked for nothing gets what JSON gives."""
        server.script(say('{"a": [1]}'))
        assert openai().parsed() == {"a": [1]}

    def test_after_the_loop(self, server: FakeServer, openai: Ask) -> None:
        """A stream that was read as text, or in part, still has its value."""
        server.script(say(TEXT))
        answer = openai(response_format=Recipe)
        assert "".join(answer) == TEXT
        assert answer.parsed() == SOUP
        answer = openai(response_format=Recipe)
        next(answer)
        assert answer.parsed() == SOUP

    def test_what_is_wrong(self, server: FakeServer, openai: Ask) -> None:
        """The error carries the answer, and the request's identifier."""
        server.script(say('{"title": 5}'))
        answer = openai(response_format=Recipe)
        with pytest.raises(InvalidOutputError, match=r"`\$\.title`") as caught:
            answer.parsed()
        assert caught.value.completion.text == '{"title": 5}'
        assert caught.value.request_id == answer.request_id is not None
        assert caught.value.provider == "openai"

    def test_an_answer_that_was_cut_by_its_limit(self, server: FakeServer, ask: Ask) -> None:
        """Every provider's word for the limit leads to the same advice."""
        server.script(say('{"title": "So'), finish("length"))
        with pytest.raises(InvalidOutputError, match="pass a larger max_tokens"):
            ask(response_format=Recipe).parsed()

    def test_a_stream_that_was_closed(self, server: FakeServer, openai: Ask) -> None:
        """Who has left the loop has no value."""
        server.script(say(TEXT), pause(30))
        answer = openai(response_format=Recipe)
        for _ in answer:
            break
        with pytest.raises(StreamClosed):
            answer.parsed()

    def test_the_last_round_of_a_tool_loop(self, server: FakeServer) -> None:
        """A loop's value is that of its last answer; every round is asked for the form."""
        server.enqueue(say("1. Let me see."), call_tool("weather", {"city": "Oslo"}, id="a"))
        server.enqueue(say(TEXT))
        loop = run_tools(
            "Soup?",
            tools=[weather],
            response_format=Recipe,
            base_url=server.base_url("openai"),
            api_key="any",
        )
        assert loop.parsed() == SOUP
        assert all("response_format" in request.json for request in server.requests)
        assert len(server.requests) == 2

    def test_a_cut_answer_is_not_resumed(self, server: FakeServer, openai: Ask) -> None:
        """A model that is held to a form would begin it anew, so nothing is put together."""
        server.enqueue(say('{"title": "So'), cut())
        server.enqueue(say(TEXT))
        policy = RetryPolicy(resume=True, backoff_s=0)
        with pytest.raises(ConnectionLost) as caught:
            openai(response_format=Recipe, retry=policy).parsed()
        assert caught.value.completion.text == '{"title": "So'
        assert len(server.requests) == 1

    @pytest.mark.parametrize("given", ["json", object, 5], ids=str)
    def test_a_format_that_is_none(self, openai: Ask, given: Any) -> None:
        """The call itself says what is wrong; nothing is sent."""
        with pytest.raises(ConfigurationError, match="response_format cannot be") as caught:
            openai(response_format=given)
        assert caught.value.provider == "openai"


class TestPartial:
    def test_it_grows(self, server: FakeServer, ask: Ask) -> None:
        """Fields are there as soon as they are whole; the last value is the whole answer."""
        server.script(say('{"title": "Soup", "steps": [{"text": "stir well", "minutes": 3}]}'))
        answer = ask(response_format=Recipe)
        seen = [json.dumps(value) for value in answer.partial()]
        assert seen == [
            '{"title": "Soup"}',
            '{"title": "Soup", "steps": [{"text": "stir well"}]}',
            *['{"title": "Soup", "steps": [{"text": "stir well", "minutes": 3}]}'] * 3,
        ]
        assert answer.parsed() == Recipe("Soup", [Step("stir well", 3)])

    def test_a_field_is_seen_before_the_answer_goes_on(
        self, server: FakeServer, openai: Ask
    ) -> None:
        """What is whole is not held back until more comes."""
        server.script(say('{"title": "Soup", '), pause(30), say('"steps": []}'))
        for value in openai().partial():
            assert value == {"title": "Soup"}
            break

    def test_a_list(self, server: FakeServer, ask: Ask) -> None:
        """A list grows item by item, also where it is wrapped in an object on its way."""
        for text in ('{"value": [1, 2, 3]}', "[1, 2, 3]"):
            server.script(say(text))
            answer = ask(response_format=list[int])
            assert [len(value) for value in answer.partial()] == [1, 2, 3]
            assert answer.parsed() == [1, 2, 3]

    def test_a_number_at_the_end(self, server: FakeServer, openai: Ask) -> None:
        """A bare number has no end but the answer's."""
        server.script(say("42"))
        assert list(openai().partial()) == [42]

    def test_leaving_the_loop_closes_the_stream(self, server: FakeServer, openai: Ask) -> None:
        """A break ends the thread and the connection, as in a loop over the text."""
        server.script(say('[1, 2, "'), pause(30))
        answer = openai()
        for value in answer.partial():
            assert value == [1]
            break
        until(lambda: not producers())
        until(lambda: server.requests[-1].outcome == "disconnected")
        assert answer.completion.finish_reason is None

    def test_a_stream_that_is_closed_by_somebody_else(
        self, server: FakeServer, openai: Ask
    ) -> None:
        """The loop just stops, without a word about what is missing."""
        server.script(say("[1, 2, "), pause(30))
        answer = openai()
        for _ in answer.partial():
            answer.close()

    @pytest.mark.parametrize(
        ("script", "why"),
        [
            ([say("Sorry, I cannot.")], "not JSON: 'Sorry"),
            ([say("[1, oops]")], "not JSON .lexical error"),
            ([say("[1] and so on")], "not JSON .*trailing"),
            ([say("[1, 2"), finish("length")], "pass a larger max_tokens"),
            ([say("")], "is empty"),
            ([say("[1]"), finish("content_filter")], "stopped the answer"),
            ([call_tool("f", {}, id="a")], "calls tools"),
        ],
        ids=str,
    )
    def test_what_is_no_value(
        self, server: FakeServer, openai: Ask, script: list[Any], why: str
    ) -> None:
        """After the last thing that could be seen, the error says what is wrong."""
        server.script(*script)
        answer = openai()
        with pytest.raises(InvalidOutputError, match=why) as caught:
            list(answer.partial())
        assert caught.value.request_id == answer.request_id
        assert caught.value.completion == answer.completion

    @pytest.mark.parametrize(
        ("text", "seen"), [("[1, 23", [1]), ("12", []), ('{"value": 12', [])], ids=str
    )
    def test_half_a_number_is_not_seen(
        self, server: FakeServer, openai: Ask, text: str, seen: list[int]
    ) -> None:
        """An answer that was cut inside a number raises, and nothing shows half of it."""
        server.script(say(text), finish("length"))
        answer, got = openai(response_format=list[int]), []
        with pytest.raises(InvalidOutputError, match="pass a larger max_tokens"):
            for value in answer.partial():
                got += value[len(got) :]
        assert got == seen
        with pytest.raises(InvalidOutputError, match="pass a larger max_tokens"):
            answer.parsed()

    def test_a_stream_that_breaks(self, server: FakeServer, openai: Ask) -> None:
        """The stream's own error comes through."""
        server.script(say("[1, 2,"), cut())
        seen: list[int] = []
        with pytest.raises(ConnectionLost):
            for value in openai(retry=RetryPolicy(max_retries=0)).partial():
                seen += value[len(seen) :]
        assert seen == [1, 2]

    def test_a_tool_loop_begins_anew_with_each_round(self, server: FakeServer) -> None:
        """What is said before a call is no part of the value, even if it looks like JSON."""
        server.enqueue(say("1. Let me see."), call_tool("weather", {"city": "Oslo"}, id="a"))
        server.enqueue(say('{"a": 1}'))
        loop = run_tools(
            "Soup?", tools=[weather], base_url=server.base_url("openai"), api_key="any"
        )
        assert list(loop.partial()) == [{"a": 1}]
        assert loop.parsed() == {"a": 1}

    def test_without_ijson(self, openai: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
        """The call says which extra is missing; the stream can still be read."""
        monkeypatch.delitem(sys.modules, "llm_sse.growing", raising=False)
        real = builtins.__import__

        def without(name: str, *args: Any, **kwargs: Any) -> Any:
            if name == "ijson":
                raise ImportError("no ijson")
            return real(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", without)
        answer = openai()
        with pytest.raises(ConfigurationError, match=r"llm-sse\[structured\]"):
            answer.partial()
        assert answer.text()

    def test_a_stream_has_one_reader(self, openai: Ask) -> None:
        """A second loop over one stream is refused."""
        answer = openai()
        next(answer)
        with pytest.raises(StreamClosed):
            list(answer.partial())
        answer.close()


class TestWhatIsSent:
    def test_each_provider_is_asked_in_its_own_words(self, server: FakeServer) -> None:
        """The words go on the wire where each provider looks for them."""
        server.script(say(TEXT))
        places = {
            "openai": ("response_format", "json_schema", "schema"),
            "openai-responses": ("text", "format", "schema"),
            "anthropic": ("output_config", "format", "schema"),
            "gemini": ("generationConfig", "responseJsonSchema"),
            "ollama": ("format",),
        }
        for name, place in places.items():
            stream = stream_sync(
                "Soup?",
                provider=name,
                base_url=server.base_url(name),
                api_key="any",
                response_format=Recipe,
            )
            assert stream.parsed() == SOUP
            found = server.requests[-1].json
            for key in place:
                found = found[key]
            assert found["required"] == ["title", "steps"]
        assert set(places) <= set(PROVIDERS)
