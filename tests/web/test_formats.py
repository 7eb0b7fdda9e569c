from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from llm_sse.errors import APIError, ConfigurationError, ServerError
from llm_sse.events import (
    Citation,
    Event,
    FellBack,
    Finish,
    ReasoningDelta,
    RefusalDelta,
    Resumed,
    Retrying,
    StreamStart,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolResult,
    Unknown,
    Usage,
)
from llm_sse.providers import find_provider
from llm_sse.sse import ServerSentEvent, SSEDecoder
from llm_sse.web.formats import FORMATS, Format, find_format
from llm_sse.web.problem import problem_of

_PROBLEM = problem_of(ServerError("sk-secret", status=500))
_SSE_FORMATS = [name for name in FORMATS if name != "text"]

#: Every event there is.
_EVERYTHING: list[Event] = [
    Retrying(1, 0.5, "sk-secret"),
    FellBack("secret-one", "secret-two", "sk-secret"),
    StreamStart("model-1", "id-1"),
    ReasoningDelta("Hm", signature="sig"),
    TextDelta("one\ntwo"),
    RefusalDelta("no"),
    Citation("https://example.org", "Title", "text", {"their": "own"}),
    Resumed(1, 7, "sk-secret"),
    Unknown("thing", {"type": "thing"}),
    ToolCallDelta(0, "call_1", "add", '{"a":'),
    ToolCallDelta(0, arguments="1}"),
    ToolCall("call_1", "add", {"a": 1}, '{"a":1}'),
    Usage(1, 2, raw={"their": "own"}),
    Finish("tool_calls", "tool_use"),
    ToolResult("call_1", "add", "2"),
    ToolResult("call_2", "sub", "Error: sk-secret", "sk-secret"),
    StreamStart("model-1", "id-2"),
    TextDelta("two"),
    Usage(1, 2),
    Finish("stop", "end_turn"),
]


def _said(name: str, events: Iterable[Event], error: bool = False) -> list[ServerSentEvent]:
    """Return what a browser reads of a whole body, with ids."""
    format_ = find_format(name)
    format_.number()
    body = format_.greeting + b"".join(map(format_.encode, events))
    body += (format_.error(_PROBLEM) or b"") if error else format_.end()
    return list(SSEDecoder().feed(body))


def _json(said: list[ServerSentEvent]) -> list[Any]:
    return [json.loads(sse.data) for sse in said if sse.data != "[DONE]"]


def _blocks(format_: Format) -> list[bytes]:
    """Return what stands between the blank lines of an answer, heartbeats between its events."""
    body = format_.greeting
    for event in _EVERYTHING:
        body += (format_.heartbeat or b"") + format_.encode(event)
    body += format_.end()
    assert body.endswith(b"\n\n")
    return body.split(b"\n\n")[:-1]


class TestFormat:
    @pytest.mark.parametrize("name", _SSE_FORMATS)
    def test_what_has_ids_has_no_block_without_data(self, name: str) -> None:
        """A client that takes every blank line after an id for an event's end finds data."""
        format_ = find_format(name)
        format_.number()
        blocks = _blocks(format_)
        assert blocks[0].startswith(b"id: 0\n: connected\n: heartbeat\n")
        for block in blocks:
            assert len([line for line in block.split(b"\n") if line.startswith(b"data: ")]) == 1

    @pytest.mark.parametrize("name", FORMATS)
    def test_half_a_character_is_replaced(self, name: str) -> None:
        """The name of a file may hold one; the answer does not end for it."""
        half = "caf\udce9"
        format_ = find_format(name)
        events: list[Event] = [
            StreamStart(),
            ToolCall("call_1", "look", {half: [half]}, half),
            ToolResult("call_1", "look", half),
            TextDelta(half),
            ToolCall("call_2", "look", {half: [half]}, half),
            Finish("stop"),
        ]
        body = b"".join(map(format_.encode, events)) + format_.end()
        assert "caf?" in body.decode()

    def test_what_has_no_ids_has_comments_in_blocks_of_their_own(self) -> None:
        """A client that expects `data:` after every blank line finds it, or a comment."""
        blocks = _blocks(find_format("openai"))
        assert blocks[:2] == [b": connected", b": heartbeat"]
        assert all(block == b": heartbeat" or block[:7] == b"data: {" for block in blocks[1:-1])

    @pytest.mark.parametrize("name", _SSE_FORMATS)
    def test_an_event_source_knows_an_id_at_once(self, name: str) -> None:
        """A blank line follows it, for only then the standard has it kept; no event does."""
        format_ = find_format(name)
        format_.number("a-")
        format_.for_event_source = True
        decoder = SSEDecoder()
        assert decoder.feed(format_.greeting) == []
        assert decoder.last_event_id == "a-0"

    @pytest.mark.parametrize("name", _SSE_FORMATS)
    def test_every_event_has_its_position(self, name: str) -> None:
        """The identifiers count from 1, without a gap, to the end."""
        said = _said(name, _EVERYTHING)
        assert [sse.id for sse in said] == [str(number) for number in range(1, len(said) + 1)]
        assert said[-1].data == "[DONE]"
        assert [sse.data for sse in said].count("[DONE]") == 1

    @pytest.mark.parametrize("name", _SSE_FORMATS)
    def test_an_error_is_the_last_event(self, name: str) -> None:
        """It tells what a visitor may know, in place of the end."""
        said = _said(name, _EVERYTHING, error=True)
        assert _PROBLEM.detail in said[-1].data
        assert "[DONE]" not in [sse.data for sse in said]

    @pytest.mark.parametrize("name", list(FORMATS))
    def test_nothing_that_failed_says_why(self, name: str) -> None:
        """What exceptions said, and who was asked in vain, is not for the visitor."""
        format_ = find_format(name)
        assert b"secret" not in b"".join(map(format_.encode, _EVERYTHING)) + format_.end()

    @pytest.mark.parametrize("name", ["json", "", None, 1, "Tokens"])
    def test_an_unknown_name_is_refused(self, name: Any) -> None:
        """The error names the formats that there are."""
        with pytest.raises(ConfigurationError, match="tokens, events, openai, ui-message, text"):
            find_format(name)


class TestTokens:
    def test_tells_the_text(self) -> None:
        """Each text delta is one event, a refusal's too; nothing else is told."""
        told = [{"token": "one\ntwo"}, {"token": "no"}, {"token": "two"}]
        assert _json(_said("tokens", _EVERYTHING)) == told

    @pytest.mark.parametrize("reason", ["length", "content_filter", "tool_calls", "other", "error"])
    def test_an_answer_that_was_cut_does_not_look_whole(self, reason: Any) -> None:
        """An end that is not the model's own is told, under a name, before `[DONE]`."""
        *_, finish, done = _said("tokens", [TextDelta("cut"), Finish(reason, "their word")])
        assert (finish.event, json.loads(finish.data)) == (
            "finish",
            {"type": "finish", "reason": reason},
        )
        assert done.data == "[DONE]"

    def test_an_error_has_a_name(self) -> None:
        """An `EventSource` can tell it from a token."""
        (said,) = _said("tokens", [], error=True)
        assert said.event == "error"
        assert json.loads(said.data)["code"] == "unavailable"


class TestEvents:
    def test_tells_everything(self) -> None:
        """Each event is its JSON form under its type's name; what failed is replaced."""
        said = _said("events", _EVERYTHING)[:-1]
        assert len(said) == len(_EVERYTHING)
        for sse, event in zip(said, _EVERYTHING, strict=True):
            assert sse.event == json.loads(sse.data)["type"]
            decoded = msgspec.json.decode(sse.data, type=Event)
            assert type(decoded) is type(event)
            if "secret" not in str(event):
                assert decoded == event

    def test_a_failed_tool_is_told_as_one(self) -> None:
        """What the tool's exception said stays here."""
        (told,) = _json(_said("events", [ToolResult("1", "add", "Error: x", "x")]))
        assert told["error"] == "the tool failed"
        assert told["content"] == "Error: the tool failed"


class TestOpenAIChunks:
    def _decoded(self, events: Iterable[Event]) -> list[Event]:
        """Return what our own decoder of that format reads."""
        decoder = find_provider("openai").decoder()
        return [event for sse in _said("openai", events) for event in decoder.decode(sse)]

    def test_is_read_as_chat_completions(self) -> None:
        """What another provider said is understood by whoever understands OpenAI's chunks."""
        events = [
            StreamStart("model-1", "id-1"),
            ReasoningDelta("Hm"),
            TextDelta("one"),
            ToolCallDelta(0, "call_1", "add", '{"a":1}'),
            ToolCall("call_1", "add", {"a": 1}, '{"a":1}'),
            Finish("tool_calls", "tool_calls"),
        ]
        assert self._decoded(events) == events

    def test_tools_that_ran_here_are_not_the_clients(self) -> None:
        """Of several rounds it tells one answer: all text, the last finish reason, no calls."""
        told = self._decoded(_EVERYTHING)
        assert not [event for event in told if isinstance(event, (ToolCall, ToolCallDelta))]
        assert [event.text for event in told if isinstance(event, TextDelta)] == ["one\ntwo", "two"]
        assert told[-1] == Finish("stop", "stop")
        assert [type(event) for event in told].count(StreamStart) == 1

    @pytest.mark.parametrize(
        ("reason", "word"),
        [
            ("stop", "stop"),
            ("length", "length"),
            ("content_filter", "content_filter"),
            ("pause", "stop"),
            ("other", "stop"),
        ],
    )
    def test_the_finish_reason_is_one_of_openais(self, reason: Any, word: str) -> None:
        """A reason for which it has no word is `stop`, whatever the provider called it."""
        last = _json(_said("openai", [StreamStart(), Finish(reason, "theirs")]))[-1]
        assert last["choices"][0]["finish_reason"] == word

    def test_an_answer_that_is_an_error_has_no_end(self) -> None:
        """Where the provider itself says that it failed, no client takes it for whole."""
        said = _said("openai", [StreamStart(), TextDelta("half"), Finish("error")])
        assert "error" in json.loads(said[-1].data)
        assert "[DONE]" not in [sse.data for sse in said]

    def test_an_error_is_openais(self) -> None:
        """It is the object for which its clients look, without an event name."""
        (said,) = _said("openai", [], error=True)
        assert said.event == "message"
        assert json.loads(said.data)["error"]["message"] == _PROBLEM.detail
        with pytest.raises(APIError, match="cannot be reached"):
            list(find_provider("openai").decoder().decode(said))


class TestUIMessages:
    def _parts(self, *events: Event) -> list[dict[str, Any]]:
        return _json(_said("ui-message", events))

    def test_has_its_header(self) -> None:
        """The client knows the protocol's version by a header."""
        assert find_format("ui-message").headers == {"x-vercel-ai-ui-message-stream": "v1"}

    def test_tells_text_and_reasoning_in_parts(self) -> None:
        """A part begins, has deltas and ends before the next one begins."""
        assert self._parts(
            StreamStart(),
            ReasoningDelta("Hm"),
            ReasoningDelta(signature="sig"),
            TextDelta("one"),
            TextDelta(" two"),
            Finish("length"),
        ) == [
            {"type": "start"},
            {"type": "start-step"},
            {"type": "reasoning-start", "id": "1"},
            {"type": "reasoning-delta", "id": "1", "delta": "Hm"},
            {"type": "reasoning-end", "id": "1"},
            {"type": "text-start", "id": "2"},
            {"type": "text-delta", "id": "2", "delta": "one"},
            {"type": "text-delta", "id": "2", "delta": " two"},
            {"type": "text-end", "id": "2"},
            {"type": "finish-step"},
            {"type": "finish", "finishReason": "length"},
        ]

    def test_tells_tools_and_their_results(self) -> None:
        """Each round is a step; a result goes to its call, also to one without an identifier."""
        call = {"toolName": "add", "dynamic": True}
        assert self._parts(
            StreamStart(),
            ToolCallDelta(0, None, "add", '{"a"'),
            ToolCallDelta(0, arguments=":1}"),
            ToolCall(None, "add", {"a": 1}, '{"a":1}'),
            ToolCall("b", "add", {}, "{broken", error="no JSON"),
            Finish("tool_calls"),
            ToolResult("made_up", "add", "2"),
            ToolResult("b", "add", "Error: x", "x"),
            StreamStart(),
            TextDelta("two"),
            Finish("stop"),
        ) == [
            {"type": "start"},
            {"type": "start-step"},
            {"type": "tool-input-start", "toolCallId": "call_1", **call},
            {"type": "tool-input-delta", "toolCallId": "call_1", "inputTextDelta": '{"a"'},
            {"type": "tool-input-delta", "toolCallId": "call_1", "inputTextDelta": ":1}"},
            {"type": "tool-input-available", "toolCallId": "call_1", **call, "input": {"a": 1}},
            {
                "type": "tool-input-error",
                "toolCallId": "b",
                **call,
                "input": "{broken",
                "errorText": "the arguments are no JSON object",
            },
            {
                "type": "tool-output-available",
                "toolCallId": "call_1",
                "dynamic": True,
                "output": "2",
            },
            {
                "type": "tool-output-error",
                "toolCallId": "b",
                "dynamic": True,
                "errorText": "the tool failed",
            },
            {"type": "finish-step"},
            {"type": "start-step"},
            {"type": "text-start", "id": "1"},
            {"type": "text-delta", "id": "1", "delta": "two"},
            {"type": "text-end", "id": "1"},
            {"type": "finish-step"},
            {"type": "finish", "finishReason": "stop"},
        ]

    def test_a_further_attempt_goes_on_in_the_same_part(self) -> None:
        """A resumed answer is one text."""
        parts = self._parts(
            StreamStart(), TextDelta("a"), Resumed(1, 1, "x"), StreamStart(), TextDelta("b")
        )
        assert [part["type"] for part in parts] == [
            *("start", "start-step", "text-start", "text-delta", "text-delta", "text-end"),
            *("finish-step", "finish"),
        ]

    def test_tells_sources_on_the_web(self) -> None:
        """A citation becomes a source; one without an address has no part.

        Nor has one whose address would be a script on the page that makes a link of it.
        """
        scripts = ("javascript:alert(1)", " javascript:1", "data:text/html,x", "\nhttps://c.org")
        parts = self._parts(
            Citation("https://a.org", "A"), *map(Citation, scripts), Citation("HTTP://b.org")
        )
        assert [part for part in parts if part["type"] == "source-url"] == [
            {"type": "source-url", "sourceId": "1", "url": "https://a.org", "title": "A"},
            {"type": "source-url", "sourceId": "2", "url": "HTTP://b.org"},
        ]


class TestText:
    def test_is_the_text_alone(self) -> None:
        """Nothing stands before, between or after the deltas; a refusal is the answer, too."""
        format_ = find_format("text")
        body = format_.greeting + b"".join(map(format_.encode, _EVERYTHING)) + format_.end()
        assert body == b"one\ntwonotwo"
        assert format_.heartbeat is None
        assert format_.error(_PROBLEM) is None
