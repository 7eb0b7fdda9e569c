"""The tool loop: rounds, results, endings, and what each provider is sent."""

from __future__ import annotations

import dataclasses
import enum
import gc
import re
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import msgspec
import pytest

from llm_sse import TokenStream, Tool, ToolLoop, image_part, run_tools, stream_openai
from llm_sse.chat import Message
from llm_sse.errors import (
    ConfigurationError,
    ConnectionLost,
    InvalidRequestError,
    StreamClosed,
    TooManyRounds,
)
from llm_sse.events import Event, Finish, StreamStart, TextDelta, ToolCall, ToolResult, Usage
from llm_sse.sync.tool_rounds import Rounds
from llm_sse.testing import FakeServer, call_tool, cut, finish, pause, raw, say, status, think
from tests.helpers import locals_with, until
from tests.wire import WireServer, stream

Run = Callable[..., ToolLoop]

CORE = ["openai", "anthropic", "gemini"]


def weather(city: str, days: int = 1) -> str:
    """Tell the weather in a city."""
    return f"rain in {city} for {days} d"


def broken(city: str) -> str:
    """Fail."""
    raise LookupError(f"no {city}\ud800")


@pytest.fixture
def run(server: FakeServer) -> Run:
    """Run tools against the fake provider, in OpenAI's format where nothing else is said."""

    def run(prompt: str | None = "Weather?", **arguments: Any) -> ToolLoop:
        provider = arguments.setdefault("provider", "openai")
        arguments.setdefault("base_url", server.base_url(provider))
        arguments.setdefault("api_key", "any")
        arguments.setdefault("tools", [weather])
        return run_tools(prompt, **arguments)

    return run


def results(loop: ToolLoop) -> list[ToolResult]:
    """Read a loop to its end and return the results."""
    return [event for event in loop.events() if isinstance(event, ToolResult)]


class TestRounds:
    @pytest.mark.parametrize("provider", CORE)
    def test_the_text_of_all_rounds_is_one_stream(
        self, server: FakeServer, run: Run, provider: str
    ) -> None:
        """A plain loop prints what is said before the call and after its result."""
        server.enqueue(say("Let me see. "), call_tool("weather", {"city": "Oslo"}, id="a"))
        server.enqueue(say("It rains."))
        loop = run(provider=provider)
        assert "".join(loop) == "Let me see. It rains."
        assert loop.text() == loop.completion.text == "It rains."
        assert isinstance(loop, TokenStream)
        assert loop.provider == provider

    def test_the_events_of_all_rounds(self, server: FakeServer, run: Run) -> None:
        """Each round is a well-formed stream, and each result stands between two of them."""
        server.enqueue(call_tool("weather", {"city": "Oslo"}, id="a"))
        server.enqueue(say("Rain."))
        events = list(run().events())
        kinds = (StreamStart, ToolCall, ToolResult, TextDelta, Usage, Finish)
        assert [type(event) for event in events if isinstance(event, kinds)] == [
            *(StreamStart, ToolCall, Usage, Finish),
            ToolResult,
            *(StreamStart, TextDelta, Usage, Finish),
        ]
        assert ToolResult("a", "weather", "rain in Oslo for 1 d") in events

    def test_calls_run_in_order_in_the_callers_thread(self, server: FakeServer, run: Run) -> None:
        """Parallel calls are run one after the other by whoever reads the loop."""
        ran: list[tuple[str, int]] = []

        def note(word: str) -> None:
            """Note a word."""
            ran.append((word, threading.get_ident()))

        server.enqueue(*(call_tool("note", {"word": word}, id=word) for word in "abc"))
        server.enqueue(say("Done."))
        loop = run(tools=[note])
        assert loop.text() == "Done."
        assert ran == [(word, threading.get_ident()) for word in "abc"]

    @pytest.mark.parametrize(
        ("result", "content"),
        [
            ("plain", "plain"),
            ("", ""),
            (None, "null"),
            ({"a": [1, 2.5]}, '{"a":[1,2.5]}'),
            (Usage(1, 2), msgspec.json.encode(Usage(1, 2)).decode()),
        ],
        ids=str,
    )
    def test_a_result_is_a_text_or_json(
        self, server: FakeServer, run: Run, result: Any, content: str
    ) -> None:
        """A text is sent as it is, anything else as JSON."""

        def give() -> Any:
            """Give it."""
            return result

        server.enqueue(call_tool("give", {}, id="a"))
        server.enqueue(say("Done."))
        assert results(run(tools=[give])) == [ToolResult("a", "give", content)]
        assert server.requests[1].json["messages"][-1] == {
            "role": "tool",
            "tool_call_id": "a",
            "content": content,
        }

    def test_without_a_call_there_is_one_round(self, server: FakeServer, run: Run) -> None:
        """An answer without calls ends the loop, and is in the conversation."""
        server.enqueue(say("Hello."))
        loop = run("Hi")
        assert loop.text() == "Hello."
        assert [(turn.role, turn.content) for turn in loop.messages] == [
            ("user", "Hi"),
            ("assistant", "Hello."),
        ]
        assert len(server.requests) == 1
        loop.messages.clear()
        assert len(loop.messages) == 2

    def test_an_empty_answer_is_no_turn(self, server: FakeServer, run: Run) -> None:
        """A message without anything in it would be refused by the next provider."""
        server.enqueue(finish("stop"))
        loop = run("Hi")
        assert loop.text() == ""
        assert [turn.role for turn in loop.messages] == ["user"]

    def test_usage_is_the_sum_of_all_rounds(self, server: FakeServer, run: Run) -> None:
        """What every round costs is added up; the last round's own is in its completion."""
        server.enqueue(say("a b c"), call_tool("weather", {"city": "Oslo"}, id="a"))
        server.enqueue(say("d e"))
        loop = run()
        usages = [event for event in loop.events() if isinstance(event, Usage)]
        assert len(usages) == 2
        assert loop.usage is not None
        assert loop.completion.usage is not None
        assert loop.usage.output_tokens == sum(usage.output_tokens or 0 for usage in usages)
        assert loop.completion.usage.output_tokens == 2

    def test_a_demanded_call_is_demanded_once(self, server: FakeServer, run: Run) -> None:
        """`tool_choice="required"` holds for the first round; `auto` stays."""
        for choice in ("required", "weather", "auto"):
            server.enqueue(call_tool("weather", {"city": "Oslo"}, id="a"))
            server.enqueue(say("Rain."))
            assert run(tool_choice=choice).text() == "Rain."
        asked = [request.json.get("tool_choice") for request in server.requests]
        named = {"type": "function", "function": {"name": "weather"}}
        assert asked == ["required", None, named, None, "auto", "auto"]

    def test_the_same_arguments_hold_for_all_rounds(self, server: FakeServer, run: Run) -> None:
        """Model, system and tools are sent with each round."""
        server.enqueue(call_tool("weather", {"city": "Oslo"}, id="a"))
        server.enqueue(say("Rain."))
        run(model="m", system="Be brief.", temperature=0).text()
        first, second = (request.json for request in server.requests)
        for name in ("model", "tools", "temperature"):
            assert first[name] == second[name]
        assert second["messages"][0] == {"role": "system", "content": "Be brief."}
        assert second["messages"][:2] == first["messages"]

    @pytest.mark.parametrize(
        ("provider", "choice", "stays"),
        [
            ("openai", {"type": "function", "function": {"name": "weather"}}, False),
            ("openai", {"type": "allowed_tools", "allowed_tools": {"mode": "auto"}}, True),
            ("openai", {"type": "allowed_tools", "allowed_tools": {"mode": "required"}}, False),
            ("anthropic", {"type": "tool", "name": "weather"}, False),
            ("anthropic", {"type": "any"}, False),
            ("anthropic", {"type": "auto", "disable_parallel_tool_use": True}, True),
            ("gemini", {"functionCallingConfig": {"mode": "ANY"}}, False),
            ("gemini", {"functionCallingConfig": {"mode": "AUTO"}}, True),
        ],
        ids=str,
    )
    def test_a_call_demanded_in_a_providers_own_words(
        self, server: FakeServer, run: Run, provider: str, choice: dict[str, Any], stays: bool
    ) -> None:
        """A provider's own object that demands a call holds for the first round only, too."""
        server.enqueue(call_tool("weather", {"city": "Oslo"}, id="a"))
        server.enqueue(say("Rain."))
        assert run(provider=provider, tool_choice=choice).text() == "Rain."
        name = "toolConfig" if provider == "gemini" else "tool_choice"
        first, second = (request.json.get(name) for request in server.requests)
        assert first is not None
        assert second == (first if stays else None)

    def test_texts_of_a_class_of_their_own(self, server: FakeServer, run: Run) -> None:
        """What parsers of HTML and numeric libraries return is sent as what it says."""

        class Found(str):
            __slots__ = ()

        class Number(float):
            pass

        class Color(str, enum.Enum):
            RED = "red"

        given: list[Any] = [Found("a"), {"b": [Found("c"), Number(1.5)]}, Color.RED]

        def give(place: int) -> Any:
            """Give it."""
            return given[place]

        server.enqueue(*(call_tool("give", {"place": n}, id=str(n)) for n in range(3)))
        server.enqueue(say("Done."))
        told = [result.content for result in results(run(Found("Hi"), tools=[give]))]
        assert told == ["a", '{"b":["c",1.5]}', "red"]
        assert {type(text) for text in told} == {str}
        assert server.requests[0].json["messages"][0]["content"] == "Hi"

    def test_pictures_are_results(self, server: FakeServer, run: Run) -> None:
        """A tool that returns what `image_part` makes, alone or beside text, shows a picture."""
        picture = image_part(b"\x89PNG\r\n\x1a\n")
        data = picture["image_url"]["url"].partition(",")[2]
        text = {"type": "text", "text": "The chart:"}

        def draw(beside: bool) -> Any:
            """Draw it."""
            return [text, picture] if beside else picture

        server.enqueue(
            call_tool("draw", {"beside": False}, id="a"),
            call_tool("draw", {"beside": True}, id="b"),
        )
        server.enqueue(say("Nice."))
        loop = run(provider="anthropic", tools=[draw])
        assert [result.content for result in results(loop)] == [[picture], [text, picture]]
        shown = {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": data},
        }
        blocks = server.requests[1].json["messages"][-1]["content"]
        assert [block["content"] for block in blocks] == [[shown], [text, shown]]

    def test_a_picture_where_none_can_be_a_result(self, server: FakeServer, run: Run) -> None:
        """A provider that takes text only says so; the conversation can go on elsewhere."""

        def draw() -> Any:
            """Draw it."""
            return image_part(b"\x89PNG\r\n\x1a\n")

        server.enqueue(call_tool("draw", {}, id="a"))
        loop = run(tools=[draw])
        with pytest.raises(ConfigurationError, match="takes text only as a tool's result"):
            loop.text()
        server.enqueue(say("Nice."))
        later = run(None, provider="anthropic", messages=loop.messages, tools=[draw])
        assert later.text() == "Nice."

    @pytest.mark.parametrize(
        "result",
        [
            [{"type": "file", "file": "a.txt"}],
            {"type": "file", "file": {"name": "a.txt"}},
            [{"type": "text", "text": "a"}],
            [image_part("https://h/x.png"), 5],
            {"type": ["image_url"]},
        ],
        ids=str,
    )
    def test_what_only_looks_like_a_part(self, server: FakeServer, run: Run, result: Any) -> None:
        """Other dictionaries have a type, too: they stay JSON."""

        def give() -> Any:
            """Give it."""
            return result

        server.enqueue(call_tool("give", {}, id="a"))
        server.enqueue(say("Done."))
        (told,) = results(run(tools=[give]))
        assert told.content == msgspec.json.encode(result).decode()


class TestProviders:
    """The second round's request, in each provider's documented shape."""

    def second(self, server: FakeServer, run: Run, provider: str) -> Any:
        """Play two calls in one answer, one of them wrong; return the second request."""
        server.enqueue(
            say("Let me see."),
            call_tool("weather", {"city": "Oslo", "days": 2}, id="a"),
            call_tool("weather", {"town": "Rome"}, id="b"),
        )
        server.enqueue(say("Rain."))
        loop = run(provider=provider)
        assert loop.text() == "Rain."
        wrong = [event.content for event in loop.messages if event.role == "tool"][1]
        assert isinstance(wrong, str)
        assert wrong.startswith("Error: the arguments are wrong")
        return server.requests[1].json, wrong

    def test_openai(self, server: FakeServer, run: Run) -> None:
        """Chat Completions: the assistant's `tool_calls`, then a `tool` message for each."""
        sent, wrong = self.second(server, run, "openai")
        call = {"type": "function", "function": {"name": "weather"}}
        assert sent["messages"] == [
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "content": "Let me see.",
                "tool_calls": [
                    {
                        **call,
                        "id": "a",
                        "function": {"name": "weather", "arguments": '{"city":"Oslo","days":2}'},
                    },
                    {
                        **call,
                        "id": "b",
                        "function": {"name": "weather", "arguments": '{"town":"Rome"}'},
                    },
                ],
            },
            {"role": "tool", "tool_call_id": "a", "content": "rain in Oslo for 2 d"},
            {"role": "tool", "tool_call_id": "b", "content": wrong},
        ]
        assert sent["tools"] == [
            {
                "type": "function",
                "function": {
                    "name": "weather",
                    "description": "Tell the weather in a city.",
                    "parameters": Tool.from_function(weather).parameters,
                },
            }
        ]

    def test_a_gateway_gets_the_reasoning_back(self, server: FakeServer, run: Run) -> None:
        """DeepSeek refuses a call that comes back without the reasoning that led to it."""
        server.enqueue(think("It is far."), call_tool("weather", {"city": "Oslo"}, id="a"))
        server.enqueue(say("Rain."))
        assert run(provider="deepseek").text() == "Rain."
        (_, turn, result) = server.requests[1].json["messages"]
        assert turn["reasoning_content"] == "It is far."
        assert result["tool_call_id"] == "a"

    def test_anthropic(self, server: FakeServer, run: Run) -> None:
        """Messages: `tool_use` blocks, then all results in one user turn."""
        sent, wrong = self.second(server, run, "anthropic")

        def text(text: str) -> dict[str, Any]:
            return {"type": "text", "text": text}

        assert sent["messages"] == [
            {"role": "user", "content": [text("Weather?")]},
            {
                "role": "assistant",
                "content": [
                    text("Let me see."),
                    {
                        "type": "tool_use",
                        "id": "a",
                        "name": "weather",
                        "input": {"city": "Oslo", "days": 2},
                    },
                    {"type": "tool_use", "id": "b", "name": "weather", "input": {"town": "Rome"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "a",
                        "content": [text("rain in Oslo for 2 d")],
                    },
                    {"type": "tool_result", "tool_use_id": "b", "content": [text(wrong)]},
                ],
            },
        ]
        assert sent["tools"][0]["input_schema"] == Tool.from_function(weather).parameters

    def test_gemini(self, server: FakeServer, run: Run) -> None:
        """streamGenerateContent: `functionCall` parts, then a `functionResponse` for each."""
        sent, wrong = self.second(server, run, "gemini")
        unsigned = {"thoughtSignature": "skip_thought_signature_validator"}

        def call(id: str, args: dict[str, Any]) -> dict[str, Any]:
            return {"functionCall": {"id": id, "name": "weather", "args": args}}

        def response(id: str, said: str) -> dict[str, Any]:
            result = {"id": id, "name": "weather", "response": {"result": said}}
            return {"functionResponse": result}

        assert sent["contents"] == [
            {"role": "user", "parts": [{"text": "Weather?"}]},
            {
                "role": "model",
                "parts": [
                    {"text": "Let me see."},
                    {**call("a", {"city": "Oslo", "days": 2}), **unsigned},
                    call("b", {"town": "Rome"}),
                ],
            },
            {
                "role": "user",
                "parts": [response("a", "rain in Oslo for 2 d"), response("b", wrong)],
            },
        ]

    def test_geminis_signature_comes_back(self, server: FakeServer, run: Run) -> None:
        """A signed call without an identifier goes back with its signature and without one."""
        part = {
            "functionCall": {"name": "weather", "args": {"city": "Oslo"}},
            "thoughtSignature": "c2ln",
        }
        event = {"candidates": [{"content": {"role": "model", "parts": [part]}}]}
        server.enqueue(raw(b"data: " + msgspec.json.encode(event) + b"\r\n\r\n"))
        server.enqueue(say("Rain."))
        assert run(provider="gemini").text() == "Rain."
        contents = server.requests[1].json["contents"]
        assert contents[1] == {"role": "model", "parts": [part]}
        response = {"name": "weather", "response": {"result": "rain in Oslo for 1 d"}}
        assert contents[2]["parts"] == [{"functionResponse": response}]

    def test_calls_without_identifiers(self, run: Run) -> None:
        """The same call, made again, has an identifier of its own, and its result names it.

        Neither the calls nor the answers have one here, as from a local server.
        """
        part = {"functionCall": {"name": "weather", "args": {"city": "Oslo"}}}
        bodies = [
            {"content": {"parts": parts}, "finishReason": "STOP"}
            for parts in ([part, part], [part, part], [{"text": "Rain."}])
        ]
        wire = [b"data: %b\r\n\r\n" % msgspec.json.encode({"candidates": [b]}) for b in bodies]
        with WireServer(*(stream([data], framing="chunked") for data in wire)) as server:
            loop = run(provider="gemini", base_url=server.url)
            told = [result.id for result in results(loop)]
        assert len(set(told)) == 4
        calls = [call["id"] for turn in loop.messages for call in turn.tool_calls or ()]
        assert calls == told == [turn.tool_call_id for turn in loop.messages if turn.role == "tool"]

    def test_anthropics_thinking_comes_back(self, server: FakeServer, run: Run) -> None:
        """Signed thinking goes back before the call, to Anthropic."""
        blocks = [
            {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
            {"type": "redacted_thinking", "data": "xyz"},
            {"type": "tool_use", "id": "a", "name": "weather", "input": {"city": "Oslo"}},
        ]
        events = [
            event
            for index, block in enumerate(blocks)
            for event in (
                {"type": "content_block_start", "index": index, "content_block": block},
                {"type": "content_block_stop", "index": index},
            )
        ]
        server.enqueue(
            *(raw(b"data: " + msgspec.json.encode(event) + b"\n\n") for event in events),
            finish("tool_calls"),
        )
        server.enqueue(say("Rain."))
        loop = run(provider="anthropic")
        assert loop.text() == "Rain."
        assert server.requests[1].json["messages"][1] == {"role": "assistant", "content": blocks}

    @pytest.mark.parametrize("first", CORE)
    @pytest.mark.parametrize("second", CORE)
    def test_the_conversation_goes_on_elsewhere(
        self, server: FakeServer, run: Run, first: str, second: str
    ) -> None:
        """The list of one loop, thoughts, calls and errors in it, begins one at any provider."""
        server.enqueue(
            think("Hm."),
            call_tool("weather", {"city": "Oslo"}, id="a"),
            call_tool("weather", "{broken", id="b"),
            call_tool("nothing", {}, id="c"),
        )
        server.enqueue(say("Rain."))
        earlier = run(provider=first)
        assert earlier.text() == "Rain."
        server.enqueue(call_tool("weather", {"city": "Rome"}, id="d"))
        server.enqueue(say("Sun."))
        later = run("And Rome?", provider=second, messages=earlier.messages)
        assert later.text() == "Sun."
        assert [turn.role for turn in later.messages] == [
            *("user", "assistant", "tool", "tool", "tool", "assistant"),
            *("user", "assistant", "tool", "assistant"),
        ]
        again = msgspec.json.decode(msgspec.json.encode(later.messages), type=list[Message])
        assert again == later.messages


class TestFailures:
    def test_an_exception_is_told_to_the_model(self, server: FakeServer, run: Run) -> None:
        """A function that fails ends nothing, whatever it says."""
        server.enqueue(call_tool("broken", {"city": "Oslo"}, id="a"))
        server.enqueue(say("Sorry."))
        loop = run(tools=[broken])
        (result,) = results(loop)
        assert result == ToolResult(
            "a", "broken", "Error: LookupError: no Oslo?", "LookupError: no Oslo?"
        )
        assert loop.completion.text == "Sorry."

    def test_an_exception_can_be_let_through(self, server: FakeServer, run: Run) -> None:
        """With `on_tool_error="raise"` it is the loop's ending, and stays it."""
        server.enqueue(call_tool("broken", {"city": "Oslo"}, id="a"))
        loop = run(tools=[broken], on_tool_error="raise")
        with pytest.raises(LookupError):
            loop.text()
        with pytest.raises(LookupError):
            list(loop)
        assert len(server.requests) == 1

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
    def test_the_users_wish_to_end_is_no_result(
        self, server: FakeServer, run: Run, error: type[BaseException]
    ) -> None:
        """Ctrl-C and exit() go through, and close the loop."""

        def leave() -> None:
            """Leave."""
            raise error

        server.enqueue(call_tool("leave", {}, id="a"))
        loop = run(tools=[leave])
        with pytest.raises(error):
            list(loop)
        with pytest.raises(StreamClosed):
            list(loop)

    @pytest.mark.parametrize("on_tool_error", ["send", "raise"])
    @pytest.mark.parametrize(
        ("name", "arguments", "said"),
        [
            ("weather", {"city": 5}, "the arguments are wrong: Expected `str`, got `int`"),
            ("weather", {}, "missing required field `city`"),
            ("weather", {"city": "a", "x": 1}, "unknown field `x`"),
            ("weather", "{nonsense", "not valid JSON: .*; you wrote: {nonsense"),
            ("nothing", {}, "there is no tool 'nothing'; there are: weather"),
        ],
        ids=str,
    )
    def test_a_models_mistake_is_told_to_it(
        self,
        server: FakeServer,
        run: Run,
        name: str,
        arguments: Any,
        said: str,
        on_tool_error: Any,
    ) -> None:
        """Wrong arguments and unknown tools are results, for they are the model's to mend."""
        server.enqueue(call_tool(name, arguments, id="a"))
        server.enqueue(say("Sorry."))
        (result,) = results(run(on_tool_error=on_tool_error))
        assert result.error is not None
        assert re.search(said, result.error)
        assert result.content == f"Error: {result.error}"

    @pytest.mark.parametrize("on_tool_error", ["send", "raise"])
    def test_a_class_that_fails_over_its_arguments(
        self, server: FakeServer, run: Run, on_tool_error: Any
    ) -> None:
        """Whatever a caller's class raises over them makes them wrong; or it is let through."""

        @dataclasses.dataclass
        class Place:
            city: str

            def __post_init__(self) -> None:
                raise KeyError(self.city)

        def visit(place: Any) -> None:
            """Visit it."""

        visit.__annotations__["place"] = Place
        server.enqueue(call_tool("visit", {"place": {"city": "Oslo"}}, id="a"))
        server.enqueue(say("Sorry."))
        loop = run(tools=[visit], on_tool_error=on_tool_error)
        if on_tool_error == "raise":
            with pytest.raises(KeyError, match="Oslo"):
                loop.text()
            return
        (result,) = results(loop)
        assert result.error == "the arguments are wrong: KeyError: 'Oslo'"

    def test_an_exception_that_cannot_be_shown(self, server: FakeServer, run: Run) -> None:
        """An exception whose own text fails is told by its class."""

        class Mute(Exception):
            def __str__(self) -> str:
                raise ValueError("no text")

        def fail() -> None:
            """Fail."""
            raise Mute

        server.enqueue(call_tool("fail", {}, id="a"))
        server.enqueue(say("Sorry."))
        assert [result.error for result in results(run(tools=[fail]))] == ["Mute"]

    def test_a_stop_iteration(self, server: FakeServer, run: Run) -> None:
        """It would end the loop over the answer in silence, so it is let through as the cause."""

        def first() -> Any:
            """Give the first of nothing."""
            return next(iter([]))

        server.script(call_tool("first", {}, id="a"))
        loop = run(tools=[first], on_tool_error="raise")
        with pytest.raises(RuntimeError, match="the tool 'first' raised StopIteration") as caught:
            list(loop)
        assert isinstance(caught.value.__cause__, StopIteration)

    @pytest.mark.parametrize("on_tool_error", ["send", "raise"])
    @pytest.mark.parametrize(
        ("source", "said"),
        [
            ("async def f(): ...", "returned something to await"),
            ("async def f(): yield", "returned something to await"),
            ("def f(): yield", "returned a generator"),
        ],
    )
    def test_what_has_yet_to_run_is_no_result(
        self, server: FakeServer, run: Run, source: str, said: str, on_tool_error: Any
    ) -> None:
        """What runs only when somebody waits for it is the caller's to mend, not the model's."""
        names: dict[str, Any] = {}
        exec(source, names)

        def hidden() -> Any:
            """Give it."""
            return names["f"]()

        server.enqueue(call_tool("hidden", {}, id="a"))
        loop = run(tools=[hidden], on_tool_error=on_tool_error)
        with pytest.raises(ConfigurationError, match=f"the tool 'hidden' {said}") as caught:
            list(loop)
        assert caught.value.completion == loop.completion
        assert len(server.requests) == 1

    def test_a_result_that_is_no_json_is_a_failure(self, server: FakeServer, run: Run) -> None:
        """What cannot be sent is told to the model like an exception."""

        def give(half: bool) -> Any:
            """Give something odd."""
            return "\ud800" if half else object()

        server.enqueue(
            call_tool("give", {"half": True}, id="a"), call_tool("give", {"half": False}, id="b")
        )
        server.enqueue(say("Sorry."))
        assert [result.error is None for result in results(run(tools=[give]))] == [False, False]

    def test_too_many_rounds(self, server: FakeServer, run: Run) -> None:
        """An answer that asks for more than `max_rounds` is an error; its calls do not run."""
        for number in range(3):
            server.enqueue(call_tool("weather", {"city": str(number)}, id=f"c{number}"))
        loop = run(max_rounds=2)
        with pytest.raises(TooManyRounds, match="answer 2 still asks for tools") as caught:
            list(loop)
        assert caught.value.completion == loop.completion
        assert caught.value.completion.tool_calls[0].id == "c1"
        assert [turn.role for turn in loop.messages] == ["user", "assistant", "tool"]
        assert len(server.requests) == 2
        with pytest.raises(TooManyRounds):
            loop.text()

    def test_a_round_that_fails_ends_the_loop(self, server: FakeServer, run: Run) -> None:
        """The error of a later round is the loop's; what was said before stays in the messages."""
        server.enqueue(call_tool("weather", {"city": "Oslo"}, id="a"))
        server.enqueue(say("It"), cut())
        loop = run()
        with pytest.raises(ConnectionLost) as caught:
            list(loop)
        assert caught.value.completion.text == "It"
        assert [turn.role for turn in loop.messages] == ["user", "assistant", "tool"]
        with pytest.raises(ConnectionLost):
            list(loop)

    def test_a_request_that_is_refused(self, server: FakeServer, run: Run) -> None:
        """The provider's no to the second round is raised where the loop is read."""
        server.enqueue(call_tool("weather", {"city": "Oslo"}, id="a"))
        server.enqueue(status(400, "no"))
        with pytest.raises(InvalidRequestError):
            run().text()

    @pytest.mark.parametrize("reason", ["length", "content_filter"])
    def test_calls_of_a_cut_answer_do_not_run(
        self, server: FakeServer, run: Run, reason: Any
    ) -> None:
        """An answer that ended otherwise ends the loop; its calls are in no conversation."""
        server.enqueue(say("So"), call_tool("weather", {"city": "Oslo"}, id="a"), finish(reason))
        loop = run()
        assert results(loop) == []
        assert loop.completion.finish_reason == reason
        assert [(turn.role, turn.tool_calls) for turn in loop.messages] == [
            ("user", None),
            ("assistant", None),
        ]

    def test_errors_carry_no_frames_that_hold_the_key(self, server: FakeServer, run: Run) -> None:
        """What goes wrong when a later round is asked shows its arguments to nobody."""

        def draw() -> Any:
            """Draw it."""
            return image_part(b"\x89PNG\r\n\x1a\n")

        server.enqueue(call_tool("draw", {}, id="a"))
        with pytest.raises(ConfigurationError) as caught:
            run(tools=[draw], api_key="sk-secret-key").text()
        assert locals_with("sk-secret-key", caught.value) == []


class TestYours:
    @pytest.mark.parametrize(
        "tool",
        [
            Tool("ask", "Ask a person."),
            {"type": "function", "function": {"name": "ask"}},
            {"name": "ask", "input_schema": {"type": "object"}},
        ],
        ids=["Tool", "openai", "anthropic"],
    )
    def test_a_tool_without_a_function_ends_the_loop(
        self, server: FakeServer, run: Run, tool: Any
    ) -> None:
        """Its call is the caller's to answer; the calls beside it have run."""
        server.enqueue(call_tool("ask", {}, id="a"), call_tool("weather", {"city": "Oslo"}, id="b"))
        loop = run(tools=[tool, weather])
        assert [result.id for result in results(loop)] == ["b"]
        assert loop.completion.finish_reason == "tool_calls"
        server.enqueue(say("Done."))
        answer = Message(role="tool", tool_call_id="a", content="yes")
        later = run(None, tools=[tool, weather], messages=[*loop.messages, answer])
        assert later.text() == "Done."
        roles = [turn["role"] for turn in server.requests[1].json["messages"]]
        assert roles == ["user", "assistant", "tool", "tool"]

    def test_it_needs_no_round_for_that(self, server: FakeServer, run: Run) -> None:
        """A call that is the caller's is no reason to complain of too many rounds."""
        server.enqueue(call_tool("ask", {}, id="a"))
        assert run(tools=[Tool("ask")], max_rounds=1).completion.tool_calls[0].name == "ask"

    def test_geminis_own_declarations(self, server: FakeServer, run: Run) -> None:
        """The names inside a provider's own dictionary count, too."""
        own = {"functionDeclarations": [{"name": "ask"}, {"name": "tell"}]}
        server.enqueue(call_tool("tell", {}, id="a"))
        loop = run(provider="gemini", tools=[own])
        assert results(loop) == []
        assert loop.completion.finish_reason == "tool_calls"


class TestEndings:
    def test_close_while_a_tool_runs(self, server: FakeServer, run: Run) -> None:
        """The tool is not interrupted; when it returns, the loop just stops."""
        running, closed = threading.Event(), threading.Event()

        def wait() -> str:
            """Wait."""
            running.set()
            assert closed.wait(10)
            return "late"

        server.enqueue(call_tool("wait", {}, id="a"))
        loop = run(tools=[wait])

        def close() -> None:
            """Close the loop from another thread."""
            running.wait(10)
            loop.close()
            closed.set()

        thread = threading.Thread(target=close)
        thread.start()
        assert results(loop) == []
        thread.join()
        assert len(server.requests) == 1
        assert loop.completion.finish_reason is None
        with pytest.raises(StreamClosed, match="closed before its end"):
            loop.text()
        assert [turn.content for turn in loop.messages] == ["Weather?", None, "late"]

    @pytest.mark.parametrize("how", ["close", "interrupt", "raise", "break"])
    def test_ended_while_tools_run(self, server: FakeServer, run: Run, how: str) -> None:
        """However a loop ends between calls, it looks ended early, and its list can be sent."""

        def step(n: int) -> str:
            """Do a step."""
            if n == 2 and how == "close":
                loop.close()
            if n == 2 and how == "interrupt":
                raise KeyboardInterrupt
            if n == 2 and how == "raise":
                raise LookupError("secret")
            return f"did {n}"

        server.enqueue(say("So "), *(call_tool("step", {"n": n}, id=str(n)) for n in (1, 2, 3)))
        loop = run(tools=[step], on_tool_error="raise")
        ending = {"interrupt": KeyboardInterrupt, "raise": LookupError}.get(how)
        with pytest.raises(ending) if ending else nullcontext():
            for event in loop.events():
                assert [turn.role for turn in loop.messages] == ["user"]
                if isinstance(event, ToolResult) and how == "break":
                    break
        assert loop.completion.finish_reason is None
        assert loop.completion.text == "So "
        with pytest.raises(LookupError if how == "raise" else StreamClosed):
            loop.text()
        second = {"close": "did 2", "break": "Error: not run"}.get(how, "Error: it was begun")
        assert [turn.role for turn in loop.messages] == ["user", "assistant", *["tool"] * 3]
        told = [turn.content for turn in loop.messages[2:]]
        assert told[0] == "did 1"
        assert str(told[1]).startswith(second)
        assert str(told[2]).startswith("Error: not run")
        assert [turn.tool_call_id for turn in loop.messages[2:]] == ["1", "2", "3"]
        server.enqueue(say("Done."))
        assert run(None, tools=[step], messages=loop.messages).text() == "Done."

    def test_the_list_grows_by_whole_rounds(self, server: FakeServer, run: Run) -> None:
        """At the last result of a round all of it is in the list, and nothing before."""
        server.enqueue(
            *(call_tool("weather", {"city": city}, id=city) for city in ("Rome", "Oslo"))
        )
        server.enqueue(say("Rain."))
        loop = run()
        lengths = [len(loop.messages) for event in loop.events() if isinstance(event, ToolResult)]
        assert lengths == [1, 4]
        assert len(loop.messages) == 5

    def test_left_at_its_last_event(self, server: FakeServer, run: Run) -> None:
        """An answer that was read to its end is in the list, though the loop was left there."""
        server.enqueue(say("Rain."))
        loop = run()
        for event in loop.events():
            if isinstance(event, Finish):
                break
        assert loop.text() == "Rain."
        assert [turn.role for turn in loop.messages] == ["user", "assistant"]

    def test_a_tool_that_reads_the_loop(self, server: FakeServer, run: Run) -> None:
        """The answer that asked for tools is not the loop's, for a tool that asks for it either."""

        def peek() -> str:
            """Look."""
            return loop.text()

        server.enqueue(say("So "), call_tool("peek", {}, id="a"))
        server.enqueue(say("Done."))
        loop = run(tools=[peek])
        (result,) = results(loop)
        assert "StreamClosed: this stream is being read" in str(result.error)

    def test_looked_at_between_two_rounds(self, server: FakeServer, run: Run) -> None:
        """Who looks at a round that nobody reads yet, from another thread, takes nothing of it."""
        server.enqueue(call_tool("weather", {"city": "Oslo"}, id="a"))
        server.enqueue(say("Rain."))
        loop = run()
        looked: list[Any] = []
        ask = loop._rounds._ask

        class Looked(TokenStream):
            """A round at which somebody looks just before it is read."""

            def events(self) -> Iterator[Event]:
                looked.extend([loop.completion, loop.usage])
                return super().events()

        loop._rounds._ask = lambda *asked: Looked(ask(*asked)._reader)
        assert "".join(loop) == "Rain."
        assert [looked[0].text, looked[0].finish_reason] == ["", None]
        assert looked[1] is not None

    def test_close_before_a_tool_runs(self, server: FakeServer, run: Run) -> None:
        """Whoever closes the loop at the end of a round does not want its calls to run."""
        ran: list[int] = []

        def note() -> None:
            """Note it."""
            ran.append(1)

        server.enqueue(call_tool("note", {}, id="a"))
        loop = run(tools=[note])
        for event in loop.events():
            if isinstance(event, Finish):
                loop.close()
        assert ran == []
        assert len(server.requests) == 1
        assert loop.completion.finish_reason is None
        assert [turn.role for turn in loop.messages] == ["user"]

    def test_close_while_a_later_round_streams(self, server: FakeServer, run: Run) -> None:
        """Closing from another thread ends whichever round is under way."""
        server.enqueue(call_tool("weather", {"city": "Oslo"}, id="a"))
        server.enqueue(say("It"), pause(30), say(" rains."))
        loop = run()
        tokens = iter(loop)
        assert next(tokens) == "It"
        thread = threading.Thread(target=loop.close)
        thread.start()
        assert list(tokens) == []
        thread.join()
        assert loop.completion.finish_reason is None
        with pytest.raises(StreamClosed, match="closed before its end"):
            loop.text()

    def test_leaving_the_loop_closes_it(self, server: FakeServer, run: Run) -> None:
        """A `break` in the second round ends its connection."""
        server.enqueue(call_tool("weather", {"city": "Oslo"}, id="a"))
        server.enqueue(say("It"), pause(30), say(" rains."))
        for token in run():
            assert token == "It"
            break
        until(lambda: len(server.requests) == 2 and server.requests[1].ended.is_set())
        assert server.requests[1].outcome == "disconnected"

    def test_the_end_of_a_with_block_closes_it(self, server: FakeServer, run: Run) -> None:
        """After the block nothing more is read."""
        server.enqueue(say("It"), pause(30))
        with run() as loop:
            assert next(loop) == "It"
        assert list(loop) == []
        assert loop.completion.text == "It"

    @pytest.mark.parametrize("begun", [False, True])
    def test_dropping_it_closes_it(self, server: FakeServer, run: Run, begun: bool) -> None:
        """The last reference takes the round under way with it, without the collector's help."""
        call = call_tool("weather", {"city": "Oslo"}, id="a")
        server.enqueue(*([call] if begun else [call, pause(30)]))
        server.enqueue(say("It"), pause(30))
        loop = run()
        assert loop.wait_started(10)
        if begun:
            assert next(loop) == "It"
        gone = weakref.ref(loop)
        gc.disable()
        try:
            del loop
            assert gone() is None
            until(lambda: server.requests[-1].outcome == "disconnected")
        finally:
            gc.enable()

    def test_it_has_one_reader(self, server: FakeServer, run: Run) -> None:
        """A second loop over it, between rounds, too, is refused and disturbs nothing."""
        server.enqueue(call_tool("weather", {"city": "Oslo"}, id="a"))
        server.enqueue(say("Rain."))
        loop = run()
        got: list[Event] = []
        for event in loop.events():
            got.append(event)
            if isinstance(event, ToolResult):
                with pytest.raises(StreamClosed, match="is being read already"):
                    next(iter(loop))
        assert isinstance(got[-1], Finish)
        with pytest.raises(StreamClosed, match="read to its end"):
            next(iter(loop))

    def test_what_it_tells_on_the_way(self, server: FakeServer, run: Run) -> None:
        """Status, request, pace and text so far are those of the round under way."""
        server.enqueue(say("a"), call_tool("weather", {"city": "Oslo"}, id="a"))
        server.enqueue(say("Rain."))
        loop = run()
        assert repr(loop) == "<ToolLoop provider='openai' open>"
        assert loop.wait_started(10)
        first = loop.request_id
        assert first is not None
        assert next(loop) == "a"
        assert loop.completion.text == "a"
        assert list(loop) == ["Rain."]
        assert loop.request_id not in (None, first)
        assert loop.metrics.deltas == 1
        assert [each.deltas for each in loop.round_metrics] == [1, 1]
        assert loop.round_metrics[-1] == loop.metrics
        assert repr(loop) == "<ToolLoop provider='openai' ended>"

    def test_a_first_round_that_is_refused(self, server: FakeServer, run: Run) -> None:
        """A view can still answer with the provider's status."""
        server.enqueue(status(400, "no"))
        loop = run()
        with pytest.raises(InvalidRequestError):
            loop.wait_started(10)
        with pytest.raises(InvalidRequestError):
            list(loop)

    def test_closed_between_two_rounds(self, server: FakeServer) -> None:
        """A close that comes while the next round is being opened closes that one, too."""
        opened: list[Any] = []
        server.enqueue(call_tool("weather", {"city": "Oslo"}, id="a"))
        server.enqueue(say("never"), pause(30))

        def ask(messages: list[Message], number: int) -> TokenStream:
            if number == 2:
                rounds.close()
            stream = stream_openai(
                messages=messages, base_url=server.base_url("openai"), api_key="any"
            )
            opened.append(stream)
            return stream

        functions = {"weather": Tool.from_function(weather)}
        conversation = [Message(role="user", content="Hi")]
        rounds = Rounds(ask, conversation, functions, 10, "send")
        assert [event for event in rounds.events() if isinstance(event, TextDelta)] == []
        assert "ended" in repr(opened[1])

    def test_closed_just_before_its_first_event(self, run: Run) -> None:
        """A close that comes between the claim and the first event is no error either."""
        loop = run()
        loop._rounds._claim = loop.close  # type: ignore[method-assign]
        assert list(loop.events()) == []

    def test_its_stream_was_closed_behind_its_back(self, run: Run) -> None:
        """A round that somebody else has closed is an error, not a silent end."""
        loop = run()
        loop._rounds.stream.close()
        for _ in range(2):
            with pytest.raises(StreamClosed):
                list(loop)


class TestMistakes:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ({"max_rounds": 0}, "max_rounds must be at least 1, not 0"),
            ({"max_rounds": True}, "max_rounds must be at least 1"),
            ({"on_tool_error": "ignore"}, "on_tool_error is 'send' or 'raise'"),
            ({"tools": weather}, "tools must be a list, not function"),
            ({"tools": {"name": "x"}}, "tools must be a list"),
            ({"tools": [5]}, "a tool must be a Tool or a dict, not int"),
            ({"tools": [weather, Tool("weather")]}, "two tools of the name 'weather'"),
            ({"tools": [lambda: 1]}, "cannot be a tool's name"),
            ({"messages": "Hi"}, "messages must be a list of messages"),
            ({"messages": 5}, "messages must be a list"),
            ({"messages": [{"role": "robot"}]}, "wrong message"),
            ({"prompt": 5}, "prompt must be a str"),
            ({"prompt": None}, "nothing to ask"),
            ({"temperature": -1}, "temperature"),
        ],
        ids=str,
    )
    def test_mistakes_are_found_at_once(self, run: Run, arguments: Any, said: str) -> None:
        """Whatever is wrong is said before anything is sent."""
        with pytest.raises(ConfigurationError, match=said):
            run(**{"prompt": "Hi", **arguments})

    def test_a_list_that_the_provider_cannot_take(self, server: FakeServer, run: Run) -> None:
        """What goes wrong between two rounds is the loop's error, with the last answer."""
        server.enqueue(say("So"), call_tool("weather", {"city": "Oslo"}, id="a"))
        loop = run()
        loop._rounds._ask = lambda *_: (_ for _ in ()).throw(ConfigurationError("no"))
        with pytest.raises(ConfigurationError, match="no") as caught:
            list(loop)
        assert caught.value.completion.text == "So"
