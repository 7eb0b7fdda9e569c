from __future__ import annotations

import json
import os
import random
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llm_sse import RetryPolicy, complete_sync, file_part, image_part, stream_sync
from llm_sse.chat import HTTPRequest
from llm_sse.completion import Accumulator, Completion
from llm_sse.errors import (
    APIError,
    AuthenticationError,
    ConfigurationError,
    ConnectionLost,
    InvalidRequestError,
    ProtocolError,
    RateLimitError,
    ServerError,
    StreamError,
)
from llm_sse.events import (
    Citation,
    Event,
    Finish,
    ReasoningDelta,
    RefusalDelta,
    Resumed,
    StreamStart,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    Unknown,
    Usage,
)
from llm_sse.providers import PROVIDERS
from llm_sse.sse import SSEDecoder, encode_sse
from llm_sse.testing import FakeServer, page
from tests.providers.bodies import KEY, Decoded, ask, body_of, sse
from tests.wire import WireServer, stream

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what the package does at import is its own affair
    import openai
    import pydantic
    from openai.types.responses import ResponseStreamEvent

NAME = "openai-responses"
ROW = PROVIDERS[NAME]
ASKED = HTTPRequest("https://host/v1/responses", b"{}")
PICTURE = "data:image/png;base64,eA=="
PDF = "data:application/pdf;base64,eA=="
USAGE = {
    "input_tokens": 4,
    "input_tokens_details": {"cached_tokens": 1},
    "output_tokens": 6,
    "output_tokens_details": {"reasoning_tokens": 2},
    "total_tokens": 10,
}
CREATED = {
    "type": "response.created",
    "response": {"id": "r1", "model": "m", "status": "in_progress", "output": []},
}
_FOLDER = os.environ.get("LLM_SSE_RECORDINGS")


def said(kind: str, **fields: Any) -> dict[str, Any]:
    """Return a wire event."""
    return {"type": f"response.{kind}", **fields}


def text(delta: Any, **fields: Any) -> dict[str, Any]:
    """Return a piece of text of the first item, if no other is named."""
    marks = fields or {"output_index": 0, "item_id": "msg_1", "content_index": 0}
    return said("output_text.delta", delta=delta, **marks)


def message(*texts: str, id: str = "msg_1", **fields: Any) -> dict[str, Any]:
    """Return a message item."""
    parts = [{"type": "output_text", "text": one, **fields} for one in texts]
    return {"id": id, "type": "message", "role": "assistant", "content": parts}


def function(arguments: Any = "", **fields: Any) -> dict[str, Any]:
    """Return a function call's item."""
    call = {"id": "fc_1", "type": "function_call", "call_id": "c1", "name": "f"}
    return {**call, "arguments": arguments, **fields}


def added(item: Any, index: int | None = 0) -> dict[str, Any]:
    """Return the event with which an item begins."""
    place = {} if index is None else {"output_index": index}
    return said("output_item.added", item=item, **place)


def done(item: Any, index: int | None = 0) -> dict[str, Any]:
    """Return the event with which an item ends."""
    place = {} if index is None else {"output_index": index}
    return said("output_item.done", item=item, **place)


def arguments(delta: str, id: str = "fc_1", index: int | None = 0) -> dict[str, Any]:
    """Return a piece of a call's arguments."""
    place = {} if index is None else {"output_index": index}
    return said("function_call_arguments.delta", item_id=id, delta=delta, **place)


def end(*output: Any, status: str = "completed", **fields: Any) -> dict[str, Any]:
    """Return the last event of an answer, with all of it."""
    response = {"id": "r1", "model": "m", "status": status, "output": [*output], **fields}
    return said(status, response=response)


def decode(*wire: Any) -> Decoded:
    """Decode wire events and the end of the body."""
    return Decoded(NAME, *wire)


def finished(*wire: Any, output: Any = ()) -> Decoded:
    """Decode events between the first and the last one."""
    return decode(CREATED, *wire, end(*output))


def calls(decoded: Decoded) -> list[tuple[str | None, str, Any]]:
    """Return identifier, name and arguments of each call that is complete."""
    complete = [event for event in decoded.events if isinstance(event, ToolCall)]
    return [(one.id, one.name, one.arguments) for one in complete]


class TestText:
    @pytest.mark.parametrize(
        ("wire", "events"),
        [
            (text("Hi"), [TextDelta("Hi")]),
            (text(""), []),
            (text(None), []),
            (said("refusal.delta", delta="No."), [RefusalDelta("No.")]),
            (said("reasoning_summary_text.delta", delta="Hm"), [ReasoningDelta("Hm")]),
            (said("reasoning_text.delta", delta="Hm"), [ReasoningDelta("Hm")]),
            ({"type": "keepalive", "sequence_number": 3}, []),
            (said("in_progress", response={"id": "r1"}), []),
            (said("queued", response={"id": "r1"}), []),
            (said("content_part.added", part={"type": "output_text", "text": ""}), []),
            (said("reasoning_summary_part.added", part={"type": "summary_text"}), []),
            ("[DONE]", []),
            ("", []),
        ],
        ids=str,
    )
    def test_an_event_becomes_what_it_says(self, wire: Any, events: list[Any]) -> None:
        """Each delta that holds something becomes one event; what only frames it, none."""
        assert finished(wire).content == events

    def test_the_type_in_the_json_counts(self) -> None:
        """An event is read alike with and without an SSE event name."""
        named = sse({"delta": "Hi"}, "response.output_text.delta")
        assert finished(named, text(" you")).completion.text == "Hi you"

    def test_what_is_said_again_whole_is_told_once(self) -> None:
        """The text that its part, its item and the answer repeat comes once."""
        got = finished(
            added(message()),
            text("Hi"),
            text(" you"),
            said("output_text.done", output_index=0, item_id="msg_1", text="Hi you"),
            said("content_part.done", part={"type": "output_text", "text": "Hi you"}),
            done(message("Hi you")),
            output=[message("Hi you")],
        )
        assert got.content == [TextDelta("Hi"), TextDelta(" you")]

    @pytest.mark.parametrize(
        "whole",
        [
            [said("output_text.done", output_index=0, item_id="msg_1", text="Hi you")],
            [done(message("Hi you"))],
            [done(message("Hi", " you"))],
            [end(message("Hi you"))],
        ],
        ids=["part", "item", "item of two parts", "answer"],
    )
    @pytest.mark.parametrize("told", ["", "Hi"])
    def test_what_came_in_no_piece_is_told_when_it_comes_whole(
        self, whole: list[Any], told: str
    ) -> None:
        """A server that leaves out pieces is believed at the next place where it says them."""
        pieces = [text(told)] if told else []
        got = decode(CREATED, *pieces, *whole, end(message("Hi you")))
        assert got.completion.text == "Hi you"
        assert isinstance(got.events[-1], Finish)

    @pytest.mark.parametrize("final", ["Hello", "", "Hi yo", "hi you, all"])
    def test_a_whole_that_differs_from_the_pieces_is_not_told(self, final: str) -> None:
        """Nothing is delivered twice where a server changes the text on the way."""
        got = finished(text("Hi you"), done(message(final)), output=[message(final)])
        assert got.completion.text == "Hi you"

    def test_an_identifier_may_change_on_the_way(self) -> None:
        """An item whose identifier is another one each time is known by its place."""
        got = finished(
            added(message(id="a")),
            text("Hi", output_index=0, item_id="b"),
            text(" you", output_index=0, item_id="c"),
            said("output_text.done", output_index=0, item_id="d", text="Hi you"),
            done(message("Hi you", id="e")),
            output=[message("Hi you", id="f")],
        )
        assert got.completion.text == "Hi you"

    @pytest.mark.parametrize("ids", [["a", "a", "a"], ["a", "b", "c"], [None, None, None]])
    def test_there_may_be_no_place(self, ids: list[str | None]) -> None:
        """An item without an index is known by its identifier, or as the latest one."""
        got = finished(
            said("output_item.added", item=message(id="a")),
            text("Hi", item_id=ids[0]),
            text(" you", item_id=ids[1]),
            said("output_item.done", item={**message("Hi you"), "id": ids[2]}),
            output=[message("Hi you")],
        )
        assert got.completion.text == "Hi you"

    def test_the_first_part_may_have_any_index(self) -> None:
        """A message whose only part is number 1 is told once, too."""
        got = finished(
            text("Hi", output_index=1, item_id="a", content_index=1),
            said("output_text.done", output_index=1, content_index=0, text="Hi"),
            done(message("Hi", id="a"), 1),
            output=[message("Hi")],
        )
        assert got.completion.text == "Hi"

    def test_everything_may_claim_the_same_place(self) -> None:
        """Reasoning and message at one index are told apart by what they are."""
        got = finished(
            said("reasoning_summary_text.delta", output_index=0, delta="Hm"),
            text("Hi", output_index=0),
            done(message("Hi", id="x"), 0),
            output=[
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm"}]},
                message("Hi"),
            ],
        )
        assert got.content == [ReasoningDelta("Hm"), TextDelta("Hi")]

    def test_several_messages_follow_each_other(self) -> None:
        """What a further message adds is told, whether in pieces or whole."""
        got = finished(
            text("a", output_index=0, item_id="1"),
            done(message("a", id="1"), 0),
            done(message("b", id="2"), 1),
            output=[message("a"), message("b"), message("c")],
        )
        assert got.completion.text == "abc"

    def test_refusals_are_told_whole_too(self) -> None:
        """A refusal that comes with its part's end, or the answer's, is told once."""
        part = {"type": "refusal", "refusal": "No."}
        item = {**message(), "content": [part]}
        assert finished(output=[item]).content == [RefusalDelta("No.")]
        got = finished(said("refusal.done", output_index=0, refusal="No."), done(item))
        assert got.content == [RefusalDelta("No.")]


class TestReasoning:
    def item(self, summary: str = "", content: str = "", **fields: Any) -> dict[str, Any]:
        """Return a reasoning item."""
        return {
            "id": "rs_1",
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": summary}] if summary else [],
            "content": [{"type": "reasoning_text", "text": content}] if content else [],
            **fields,
        }

    def test_the_seal_is_told_when_the_item_is_done(self) -> None:
        """What an item has encrypted at its beginning may not be all of it yet."""
        sealed = self.item("Hm", encrypted_content="xyz")
        got = finished(
            added(self.item(encrypted_content="x")),
            said("reasoning_summary_text.delta", output_index=0, summary_index=0, delta="Hm"),
            done(sealed),
            output=[sealed],
        )
        assert got.content == [ReasoningDelta("Hm"), ReasoningDelta(redacted="xyz", id="rs_1")]

    def test_a_seal_and_its_text_are_one_event(self) -> None:
        """Reasoning that comes whole keeps its proof beside it."""
        item = self.item("Hm", signature="sig", encrypted_content="xyz")
        expected = [ReasoningDelta("Hm", "sig", "xyz", "rs_1")]
        assert finished(done(item), output=[item]).content == expected
        assert finished(output=[item]).content == expected

    def test_parts_of_a_summary_are_joined(self) -> None:
        """Every part of a summary is told, in pieces or whole."""
        first = said("reasoning_summary_text.delta", output_index=0, summary_index=0, delta="a")
        second = said("reasoning_summary_text.done", output_index=0, summary_index=1, text="b")
        item = self.item()
        item["summary"] = [{"type": "summary_text", "text": one} for one in "ab"]
        assert finished(first, second, done(item), output=[item]).completion.reasoning == "ab"

    def test_the_same_thing_as_summary_and_as_content_is_told_once(self) -> None:
        """A server that fills both fields alike has said it once."""
        item = self.item("Hm", "Hm")
        assert finished(output=[item]).completion.reasoning == "Hm"
        for kind in ("reasoning_text", "reasoning_summary_text"):
            got = finished(said(f"{kind}.delta", delta="Hm", output_index=0), done(item))
            assert got.completion.reasoning == "Hm"

    def test_a_summary_beside_the_content_is_told(self) -> None:
        """Two different texts are two."""
        assert finished(output=[self.item("In short", "Long")]).completion.reasoning == (
            "In shortLong"
        )


class TestCitations:
    URL = {"type": "url_citation", "url": "http://u", "title": "t", "start_index": 0}

    @pytest.mark.parametrize(
        ("annotation", "citation"),
        [
            (URL, Citation("http://u", "t", None, URL)),
            ({"type": "file_citation", "filename": "f"}, Citation(None, "f")),
            ({"type": "container_file_citation", "filename": "f"}, Citation(None, "f")),
            ({"url_citation": {"url": "u", "title": "t"}}, Citation("u", "t")),
            ({"url": 5, "title": None}, Citation()),
        ],
        ids=str,
    )
    def test_an_annotation_names_a_source(self, annotation: Any, citation: Citation) -> None:
        """Addresses and files become citations, with the provider's own object."""
        got = finished(said("output_text.annotation.added", annotation=annotation)).content
        (one,) = got
        assert isinstance(one, Citation)
        assert (one.url, one.title) == (citation.url, citation.title)
        assert one.raw == annotation

    def test_each_is_told_once(self) -> None:
        """The annotations that the item and the answer repeat come once; a new one is told."""
        other = {**self.URL, "url": "http://v"}
        item = message("Hi", annotations=[self.URL, other])
        got = finished(
            text("Hi"),
            said("output_text.annotation.added", output_index=0, annotation=self.URL),
            said("output_text.annotation.added", output_index=0, annotation="odd"),
            done(item),
            output=[item],
        )
        assert [one.url for one in got.completion.citations] == ["http://u", "http://v"]


class TestCalls:
    def test_a_call_is_told_in_fragments_and_whole(self) -> None:
        """Identifier and name come first, then the arguments, then the call."""
        got = finished(
            added(function()),
            arguments('{"a"'),
            arguments(": 1}"),
            said("function_call_arguments.done", output_index=0, arguments='{"a": 1}'),
            done(function('{"a": 1}')),
            output=[function('{"a": 1}')],
        )
        assert got.content == [
            ToolCallDelta(0, "c1", "f"),
            ToolCallDelta(0, arguments='{"a"'),
            ToolCallDelta(0, arguments=": 1}"),
            ToolCall("c1", "f", {"a": 1}, '{"a": 1}'),
        ]
        assert got.events[-1] == Finish("tool_calls", "completed")

    @pytest.mark.parametrize(
        "wire",
        [
            [end(function('{"a": 1}'))],
            [done(function('{"a": 1}'))],
            [added(function('{"a": 1}')), done(function('{"a": 1}'))],
            [added(function('{"a": 1}')), arguments('{"a": 1}'), done(function())],
            [added(function('{"a": 1}'))],
            [arguments('{"a": 1}'), done(function('{"a": 1}'))],
            [added(function()), said("function_call_arguments.done", arguments='{"a": 1}')],
            [added(function()), arguments('{"a"'), done(function('{"a": 1}'))],
            [added(function()), arguments('{"a"'), end(function('{"a": 1}'))],
            [added(function()), arguments('{"a":'), done(function({"a": 1}))],
            [added(function()), arguments("{}{"), done(function('{"a": 1}'))],
            [done(function({"a": 1})), done(function({"a": 1}))],
            [added(function()), added(function()), done(function({"a": 1}))],
            [added(function(), None), arguments('{"a": 1}', "fc_1", None)],
            [added(function(), None), arguments('{"a": 1}', "x", None), done(function(), None)],
            [added(function(call_id=None)), done(function('{"a": 1}'))],
        ],
    )
    def test_wherever_its_arguments_are_the_call_is_whole(self, wire: list[Any]) -> None:
        """A call is delivered once, whole, whichever of the places have its arguments."""
        got = decode(CREATED, *wire, end(function('{"a": 1}')))
        ((_, name, parsed),) = calls(got)
        assert (name, parsed) == ("f", {"a": 1})
        assert len(got.completion.tool_calls) == 1

    def test_item_identifiers_may_change(self) -> None:
        """Calls whose items change their identifiers are known by their place."""
        got = finished(
            added(function(id="a"), 0),
            added(function(id="b", call_id="c2"), 1),
            arguments('{"x":', "c", 1),
            arguments("{}", "d", 0),
            arguments("2}", "e", 1),
            done(function("{}", id="f"), 0),
            done(function('{"x":2}', id="g", call_id="c2"), 1),
        )
        assert calls(got) == [("c1", "f", {}), ("c2", "f", {"x": 2})]

    def test_places_may_all_be_the_same(self) -> None:
        """Calls that claim one place are known by their identifiers."""
        got = finished(
            added(function(id="a"), 0),
            added(function(id="b", call_id="c2"), 0),
            arguments('{"x":1}', "a", 0),
            arguments('{"x":2}', "b", 0),
            done(function(id="a"), 0),
            done(function(id="b", call_id="c2"), 0),
        )
        assert calls(got) == [("c1", "f", {"x": 1}), ("c2", "f", {"x": 2})]

    def test_places_may_be_wrong(self) -> None:
        """A known identifier counts more than a place that is one too small."""
        got = finished(
            added(function(id="a"), 1),
            added(function(id="b", call_id="c2"), 2),
            arguments('{"x":1}', "a", 0),
            arguments('{"x":2}', "b", 1),
            done(function(id="a"), 1),
            done(function(id="b", call_id="c2"), 2),
        )
        assert calls(got) == [("c1", "f", {"x": 1}), ("c2", "f", {"x": 2})]

    def test_identifiers_may_change_in_the_final_answer(self) -> None:
        """As many calls as were told are those that were told."""
        got = finished(done(function("{}")), output=[function("{}", call_id="other")])
        assert calls(got) == [("c1", "f", {})]

    def test_the_final_answer_may_have_one_more(self) -> None:
        """A call that only the final answer has is delivered."""
        more = function('{"x":2}', call_id="c2", id="fc_2")
        got = finished(done(function("{}")), output=[function("{}"), more])
        assert calls(got) == [("c1", "f", {}), ("c2", "f", {"x": 2})]

    def test_the_item_is_the_call_where_there_is_no_other_identifier(self) -> None:
        """A gateway without `call_id` has its item's identifier."""
        assert calls(finished(done(function("{}", call_id=None)))) == [("fc_1", "f", {})]

    def test_a_custom_tool_takes_a_text(self) -> None:
        """The input of a custom tool is kept as it is: it is no JSON, and no mistake."""
        custom = {"id": "ct", "type": "custom_tool_call", "call_id": "c1", "name": "sql"}
        got = finished(
            added({**custom, "input": ""}),
            said("custom_tool_call_input.delta", output_index=0, delta="SELECT"),
            said("custom_tool_call_input.done", output_index=0, input="SELECT 1"),
            done({**custom, "input": "SELECT 1"}),
        )
        (one,) = got.completion.tool_calls
        assert (one.id, one.name, one.arguments) == ("c1", "sql", {})
        assert one.arguments_text == "SELECT 1"
        assert (one.kind, one.error) == ("custom", None)
        assert got.events[-1] == Finish("tool_calls", "completed")

    @pytest.mark.parametrize(
        "pieces", [[], [said("custom_tool_call_input.delta", output_index=0, delta="SEL")]]
    )
    def test_a_custom_tools_call_goes_back_as_one(self, pieces: list[Any]) -> None:
        """The call and its result have the words that Responses has for custom tools."""
        custom = {"id": "ct", "type": "custom_tool_call", "call_id": "c1", "name": "sql"}
        got = finished(*pieces, done({**custom, "input": "SELECT"}))
        (one,) = got.completion.tool_calls
        assert (one.kind, one.arguments_text) == ("custom", "SELECT")
        turns = [got.completion.message(), {"role": "tool", "tool_call_id": "c1", "content": "1"}]
        assert body_of(NAME, messages=turns)["input"] == [
            {"type": "custom_tool_call", "call_id": "c1", "name": "sql", "input": "SELECT"},
            {"type": "custom_tool_call_output", "call_id": "c1", "output": "1"},
        ]

    @pytest.mark.parametrize("provider", ["anthropic", "gemini", "ollama"])
    def test_a_custom_tools_call_can_go_elsewhere(self, provider: str) -> None:
        """Who has no custom tools gets the text as an argument."""
        custom = {"name": "sql", "input": "SELECT"}
        call = {"id": "c1", "type": "custom", "custom": custom}
        body = body_of(provider, messages=[{"role": "assistant", "tool_calls": [call]}])
        assert '{"input": "SELECT"}' in json.dumps(body)

    @pytest.mark.parametrize("streamed", [True, False])
    @pytest.mark.parametrize("told", [True, False])
    def test_two_calls_with_one_identifier(self, streamed: bool, told: bool) -> None:
        """The second of two calls that share an identifier is not taken for the first."""
        items = [function('{"n": 1}'), function('{"n": 2}', id="fc_2")]
        events = [done(item, at) for at, item in enumerate(items)] if streamed else []
        calls = finished(*events, output=items if told or not streamed else []).completion
        assert [call.arguments for call in calls.tool_calls] == [{"n": 1}, {"n": 2}]
        assert [call.id for call in calls.tool_calls] == ["c1", "c1"]

    def test_a_second_call_that_only_the_end_tells(self) -> None:
        """The end brings what was never told, although its identifier is known."""
        items = [function('{"n": 2}', id="fc_2"), function('{"n": 1}')]
        calls = finished(done(items[1], 1), output=items).completion.tool_calls
        assert [call.arguments for call in calls] == [{"n": 1}, {"n": 2}]

    def test_a_call_that_is_told_again_is_one(self) -> None:
        """The same call under another item's identifier, or spelt otherwise, is no second one."""
        again = function('{"n":1}', id="fc_9")
        calls = finished(done(function('{"n": 1}')), done(again, 4)).completion.tool_calls
        assert len(calls) == 1

    def test_a_call_that_was_cut_off_says_so(self) -> None:
        """Arguments that end at the limit have an error, and what there was of them."""
        limit = {"incomplete_details": {"reason": "max_output_tokens"}}
        got = decode(
            CREATED, added(function()), arguments('{"a'), end(status="incomplete", **limit)
        )
        (one,) = got.completion.tool_calls
        assert (one.arguments_text, one.error is None) == ('{"a', False)
        assert got.events[-1] == Finish("length", "incomplete", "max_output_tokens")


class TestPartsByTurns:
    PIECES = (text("A1"), text("B1", output_index=0, item_id="msg_1", content_index=1))

    @pytest.mark.parametrize("item_is_done", [True, False])
    def test_what_is_missing_of_each_part_is_told(self, item_is_done: bool) -> None:
        """The tails of parts whose pieces came by turns are told, and once."""
        item = message("A1A2", "B1B2")
        got = finished(*self.PIECES, *([done(item)] if item_is_done else []), output=[item])
        assert got.completion.text == "A1B1A2B2"

    @pytest.mark.parametrize("item_is_done", [True, False])
    def test_what_is_complete_is_not_told_again(self, item_is_done: bool) -> None:
        """Parts that have come as a whole by turns bring nothing at the end."""
        rest = (text("A2"), text("B2", output_index=0, item_id="msg_1", content_index=1))
        item = message("A1A2", "B1B2")
        ends = [done(item)] if item_is_done else []
        got = finished(*self.PIECES, *rest, *ends, output=[item])
        assert got.completion.text == "A1B1A2B2"

    def test_what_differs_is_left_as_told(self) -> None:
        """A part that is not what was told brings nothing, and no other part of its item does."""
        item = message("other", "B1B2")
        assert finished(*self.PIECES, output=[item]).completion.text == "A1B1"


class TestUnknown:
    @pytest.mark.parametrize(
        "wire",
        [
            said("web_search_call.searching", output_index=0, item_id="ws"),
            said("image_generation_call.partial_image", partial_image_b64="x"),
            said("mcp_call.failed", error="broken"),
            said("newly_invented", delta="x"),
            said("output_item.added", item={"type": "web_search_call"}, output_index=0),
            said("output_item.done", item={"type": "compaction"}, output_index=0),
            said("content_part.done", part={"type": "output_audio"}, output_index=0),
            {"type": "advice"},
        ],
        ids=str,
    )
    def test_what_has_no_word_here_is_passed_on(self, wire: Any) -> None:
        """Hosted tools' progress and newer events arrive with their name and their data."""
        assert finished(wire).content == [Unknown(wire["type"], wire)]

    def test_items_of_hosted_tools_are_told_once(self) -> None:
        """What an item's end has told the final answer does not repeat; the rest it tells."""
        items = [{"type": "web_search_call", "id": one} for one in "ab"]
        (one, two) = finished(done(items[0]), output=items).content
        assert isinstance(one, Unknown)
        assert isinstance(two, Unknown)
        assert [one.data["item"], two.data["item"]] == items

    @pytest.mark.parametrize("data", ["5", '"text"', "[]", "null"])
    def test_json_that_is_no_object_is_unknown(self, data: str) -> None:
        """A wire event that is no object becomes `Unknown` with its data."""
        assert finished(data).content == [Unknown("message", json.loads(data))]

    @pytest.mark.parametrize("data", ["{", "nonsense", '{"x": ' + "[" * 9000])
    def test_what_is_not_json_is_a_protocol_error(self, data: str) -> None:
        """Broken JSON is reported."""
        with pytest.raises(ProtocolError):
            ROW.decoder().decode(sse(data))

    @pytest.mark.parametrize(
        "odd",
        [
            {},
            {"type": None},
            {"type": 5},
            said("output_text.delta"),
            said("output_text.delta", delta={"text": "x"}),
            said("output_text.delta", delta="", output_index="0", item_id=5),
            said("output_text.done", text=5),
            said("output_text.annotation.added", annotation=None),
            said("function_call_arguments.done", arguments=None),
            said("in_progress", response=None),
            said("in_progress", response={"id": 5, "model": [], "background": None}),
            said("output_item.added", item={"type": "message", "content": 5}),
            said("output_item.done", item={"type": "message", "content": [5, {"text": 5}]}),
            said("output_item.done", item={"type": "reasoning", "summary": "x", "content": [None]}),
        ],
        ids=str,
    )
    def test_a_field_of_a_wrong_type_does_not_kill_the_stream(self, odd: Any) -> None:
        """What cannot be understood is skipped; the rest of the answer arrives."""
        got = finished(text("a"), odd, text("b"), output=[5, None, message("ab"), {"type": []}])
        assert got.completion.text == "ab"
        assert got.completion.finish_reason in ("stop", "tool_calls")


class TestStart:
    def test_the_first_event_names_model_and_id(self) -> None:
        """The stream's start carries the model and the identifier, once."""
        got = finished(said("in_progress", response={"id": "r1"}), text("Hi"))
        assert got.events[:2] == [StreamStart("m", "r1"), TextDelta("Hi")]

    def test_a_stream_may_begin_anywhere(self) -> None:
        """Without `response.created` another event starts the stream."""
        got = decode(said("in_progress", response={"id": "r1", "model": "m"}), end())
        assert got.events == [StreamStart("m", "r1"), Finish("stop", "completed")]
        assert decode(text("Hi"), end()).events[:2] == [StreamStart(), TextDelta("Hi")]

    def test_the_last_event_alone_is_an_answer(self) -> None:
        """A server that sends only the final object has said everything."""
        got = decode(end(message("Hi"), function("{}"), usage=USAGE))
        assert got.events == [
            StreamStart("m", "r1"),
            TextDelta("Hi"),
            ToolCallDelta(0, "c1", "f"),
            ToolCallDelta(0, arguments="{}"),
            ToolCall("c1", "f", {}, "{}"),
            Usage(4, 6, 1, 2, USAGE),
            Finish("tool_calls", "completed"),
        ]


class TestFinish:
    @pytest.mark.parametrize(
        ("last", "finish"),
        [
            (end(), Finish("stop", "completed")),
            (end(status="incomplete"), Finish("other", "incomplete")),
            (
                end(status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
                Finish("length", "incomplete", "max_output_tokens"),
            ),
            (
                end(status="incomplete", incomplete_details={"reason": "content_filter"}),
                Finish("content_filter", "incomplete", "content_filter"),
            ),
            (
                end(status="incomplete", incomplete_details={"reason": "steered"}),
                Finish("other", "incomplete", "steered"),
            ),
            (end(incomplete_details={"reason": "content_filter"}), None),
            (end(status="cancelled"), Finish("error", "cancelled")),
            (said("completed", response=None), Finish("stop", "completed")),
            (said("completed", response={"status": "in_progress"}), Finish("stop", "completed")),
            (said("completed", response={"status": "odd"}), Finish("stop", "odd")),
            (said("done", response={"status": "completed"}), Finish("stop", "completed")),
            (
                said("completed", response={"status": "incomplete", "incomplete_details": 5}),
                Finish("other", "incomplete"),
            ),
        ],
        ids=str,
    )
    def test_the_status_says_why(self, last: Any, finish: Finish | None) -> None:
        """The response's status, and why it is incomplete, become the finish reason."""
        expected = finish or Finish("content_filter", "completed", "content_filter")
        got = decode(CREATED, text("Hi"), last, "[DONE]", text("more"))
        assert got.events[-1] == expected
        assert got.raw_finish_reason == expected.raw_reason

    @pytest.mark.parametrize("tail", [[], ["[DONE]"]], ids=str)
    def test_no_end_event_is_no_end(self, tail: list[str]) -> None:
        """Without the provider's own end the answer is incomplete, even if `[DONE]` was sent."""
        got = decode(CREATED, text("Hi"), done(message("Hi")), *tail)
        assert isinstance(got.error, ConnectionLost)
        assert got.completion.text == "Hi"
        assert got.raw_finish_reason is None

    def test_the_usage_is_read(self) -> None:
        """The figures are normalised, and the provider's object stays as it was."""
        got = decode(CREATED, end(usage=USAGE))
        assert got.events[-2] == Usage(4, 6, 1, 2, USAGE)
        beside = {**USAGE, "input_tokens_details": {"cached_tokens": 5}}
        got = decode(CREATED, end(usage=beside))
        assert got.events[-2] == Usage(9, 6, 5, 2, beside)

    @pytest.mark.parametrize("usage", [None, {}, "much", 5])
    def test_there_may_be_no_usage(self, usage: Any) -> None:
        """No usage is told where there is none."""
        assert decode(CREATED, end(usage=usage)).completion.usage is None

    def test_usage_may_lack_its_details(self) -> None:
        """What a server does not count is not known."""
        raw = {"input_tokens": 4, "output_tokens": None, "input_tokens_details": None}
        assert decode(CREATED, end(usage=raw)).completion.usage == Usage(4, None, None, None, raw)


class TestErrorsInTheStream:
    SAID = {"type": "insufficient_quota", "code": "insufficient_quota", "message": "No money"}

    def failed(self, error: Any = None, **fields: Any) -> dict[str, Any]:
        """Return the end of a response that failed."""
        return end(status="failed", error=error, **fields)

    @pytest.mark.parametrize(
        "wire",
        [
            {"type": "error", "error": SAID, "sequence_number": 2},
            {"type": "error", **SAID, "sequence_number": 2} | {"type": "error"},
            sse({"error": SAID}, "error"),
            {"error": SAID},
            [{"error": SAID}],
            {"type": "response.error", "error": SAID},
        ],
        ids=["nested", "flat", "named", "bare", "listed", "prefixed"],
    )
    @pytest.mark.parametrize("then_failed", [False, True])
    def test_every_shape_is_read(self, wire: Any, then_failed: bool) -> None:
        """An error is raised once, nested or flat, whether or not `response.failed` follows."""
        tail = [self.failed({"code": "insufficient_quota", "message": "No money"})]
        got = decode(CREATED, text("Hi"), wire, *(tail if then_failed else []))
        assert isinstance(got.error, RateLimitError)
        assert got.error.detail == "No money"
        assert got.error.code == "insufficient_quota"
        assert not got.error.retryable
        assert got.raw_finish_reason == ("failed" if then_failed else None)
        assert got.completion.text == "Hi"

    @pytest.mark.parametrize(
        ("code", "class_", "status"),
        [
            ("rate_limit_exceeded", RateLimitError, 429),
            ("server_error", ServerError, 500),
            ("vector_store_timeout", ServerError, 504),
            ("invalid_prompt", InvalidRequestError, 400),
            ("invalid_image_url", InvalidRequestError, 400),
            ("model_not_found", InvalidRequestError, 400),
            ("newly_invented", ServerError, 500),
            (None, ServerError, 500),
            ("503", ServerError, 503),
            (429, RateLimitError, 429),
        ],
    )
    def test_a_failed_response_is_an_error(self, code: Any, class_: Any, status: int) -> None:
        """The code of `response.failed` stands for the status that it would have had."""
        got = decode(CREATED, self.failed({"code": code, "message": "so"}, usage=USAGE))
        assert type(got.error) is class_
        assert isinstance(got.error, APIError)
        assert (got.error.status, got.error.detail) == (status, "so")
        assert got.error.body["error"] == {"code": code, "message": "so"}
        assert got.raw_finish_reason == "failed"
        assert got.completion.usage is not None

    def test_a_failure_without_a_word(self) -> None:
        """A response that failed for no reason has failed."""
        got = decode(CREATED, self.failed())
        assert isinstance(got.error, ServerError)
        assert "failed" in got.error.detail

    def test_a_failure_is_no_start(self) -> None:
        """A stream that only fails has not begun."""
        assert decode(self.failed({"code": "server_error", "message": "so"})).events == []

    def test_the_headers_in_an_error_are_its_headers(self) -> None:
        """How long to wait stands in the nested error's own headers."""
        error = {"code": "rate_limit_exceeded", "message": "so", "headers": {"Retry-After": "7"}}
        got = decode(CREATED, {"type": "error", "error": error})
        assert isinstance(got.error, APIError)
        assert got.error.retry_after_s == 7

    def test_an_error_that_is_no_json(self) -> None:
        """The text of an `error` event that is no JSON is its message."""
        got = decode(CREATED, sse("it broke", "error"))
        assert isinstance(got.error, APIError)
        assert got.error.detail == "it broke"

    def test_an_error_waits_for_the_end_only(self) -> None:
        """What follows an error and is no end does not hide it."""
        keepalive = {"type": "keepalive", "sequence_number": 3}
        got = decode(CREATED, {"type": "error", "error": self.SAID}, keepalive, text("more"))
        assert isinstance(got.error, RateLimitError)
        assert got.completion.text == ""

    def test_a_silent_server_does_not_hide_an_error(self) -> None:
        """An error arrives soon, although the body stays open behind it."""
        pieces = [
            encode_sse(json.dumps(one)) for one in (CREATED, {"type": "error", "error": self.SAID})
        ]
        closed = threading.Event()
        with WireServer(stream(pieces, then=lambda _: closed.wait(20) and None)) as server:
            began = time.monotonic()
            answer = stream_sync(
                "Hi", provider=NAME, base_url=f"{server.url}/v1", api_key="k", model="m"
            )
            with pytest.raises(RateLimitError):
                answer.text()
            assert time.monotonic() - began < 10
            closed.set()


class TestRequest:
    def test_the_url_and_the_key(self) -> None:
        """The request goes to `/responses`; the key travels apart."""
        request = ROW.request(ask(), KEY, "https://host/v1")
        assert request.url == "https://host/v1/responses"
        assert request.method == "POST"
        assert request.credentials == {"Authorization": f"Bearer {KEY}"}
        assert KEY not in repr(request)

    def test_all_settings(self) -> None:
        """Each setting has the name that Responses has for it."""
        assert body_of(
            NAME,
            system="Be brief.",
            max_tokens=5,
            temperature=0.5,
            top_p=0.9,
            stream=False,
            extra_body={"background": True, "reasoning": {"effort": "low"}, "top_p": 1},
        ) == {
            "model": "m",
            "input": [
                {
                    "type": "message",
                    "role": "user",
                    "content": [{"type": "input_text", "text": "Hi"}],
                }
            ],
            "stream": False,
            "instructions": "Be brief.",
            "max_output_tokens": 5,
            "temperature": 0.5,
            "top_p": 1,
            "background": True,
            "reasoning": {"effort": "low"},
        }

    def test_what_is_not_asked_for_is_not_sent(self) -> None:
        """A plain question has a model, an input and the wish for a stream."""
        assert set(body_of(NAME)) == {"model", "input", "stream"}

    def test_stop_texts_are_refused(self) -> None:
        """Responses has no stop texts, and says so before anything is sent."""
        with pytest.raises(ConfigurationError, match=r"openai-responses has no stop texts"):
            body_of(NAME, stop="x")

    def test_a_conversation_becomes_items(self) -> None:
        """Calls and their results are items beside the messages."""
        call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":'}}
        custom = {"id": "c2", "type": "custom", "custom": {"name": "sql", "input": "SELECT"}}
        objects = {"id": "c3", "function": {"name": "g", "arguments": {"x": 1}}}
        messages = [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Wait", "tool_calls": [call, custom, objects]},
            {"role": "tool", "tool_call_id": "c1", "content": "1", "name": "f"},
            {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "2"}]},
            {"role": "tool", "tool_call_id": "c3", "content": None},
            {"role": "assistant", "content": None, "tool_calls": [{**call, "id": "c4"}]},
        ]
        items = body_of(NAME, messages=messages)["input"]
        begun = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a":'}
        assert items[1:] == [
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "Wait"}],
            },
            begun,
            {"type": "custom_tool_call", "call_id": "c2", "name": "sql", "input": "SELECT"},
            {"type": "function_call", "call_id": "c3", "name": "g", "arguments": '{"x":1}'},
            {"type": "function_call_output", "call_id": "c1", "output": "1"},
            {
                "type": "custom_tool_call_output",
                "call_id": "c2",
                "output": [{"type": "input_text", "text": "2"}],
            },
            {"type": "function_call_output", "call_id": "c3", "output": ""},
            {**begun, "call_id": "c4"},
        ]

    @pytest.mark.parametrize(
        ("part", "sent"),
        [
            ({"type": "text", "text": "x"}, {"type": "input_text", "text": "x"}),
            (
                {"type": "image_url", "image_url": {"url": PICTURE, "detail": "low"}},
                {"type": "input_image", "image_url": PICTURE, "detail": "low"},
            ),
            (
                {"type": "image_url", "image_url": "https://h/a", "cache_control": {}},
                {
                    "type": "input_image",
                    "image_url": "https://h/a",
                    "detail": "auto",
                    "cache_control": {},
                },
            ),
            (
                image_part("https://h/a", "image/png"),
                {"type": "input_image", "image_url": "https://h/a", "detail": "auto"},
            ),
            (
                {"type": "file", "file": {"file_id": "f"}},
                {"type": "input_file", "file_id": "f"},
            ),
            (
                {"type": "file", "file": {"file_data": PDF, "filename": "n"}},
                {"type": "input_file", "file_data": PDF, "filename": "n"},
            ),
            (
                {"type": "file", "file": {"file_data": PDF, "detail": "high"}, "cache_control": 1},
                {"type": "input_file", "file_data": PDF, "detail": "high", "cache_control": 1},
            ),
            (
                file_part("https://h/a.pdf", "application/pdf"),
                {"type": "input_file", "file_url": "https://h/a.pdf"},
            ),
            ({"type": "input_image", "file_id": "f"}, {"type": "input_image", "file_id": "f"}),
        ],
        ids=str,
    )
    def test_a_part_is_translated(self, part: Any, sent: Any) -> None:
        """OpenAI's chat parts become those of Responses; its own stay."""
        messages = [{"role": "user", "content": [part]}]
        assert body_of(NAME, messages=messages)["input"][0]["content"] == [sent]

    @pytest.mark.parametrize(
        "message",
        [
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]},
            {"role": "user", "content": [image_part("gs://bucket/a.png")]},
            {"role": "user", "content": "Hi", "name": "Ann"},
            {"role": "tool", "content": "1"},
            {"role": "assistant", "tool_calls": [{"id": "c"}]},
            {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]},
        ],
        ids=str,
    )
    def test_what_cannot_be_said_is_refused(self, message: Any) -> None:
        """What Responses has no place for is an error that names the provider."""
        with pytest.raises(ConfigurationError, match=NAME):
            body_of(NAME, messages=[message])

    @pytest.mark.parametrize(
        "part",
        [
            {"type": "image_url"},
            {"type": "image_url", "image_url": {"file_id": "file-1"}},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,!!!!"}},
            {"type": "file", "file": {"file_data": "x"}},
        ],
        ids=str,
    )
    def test_a_part_without_its_content_is_refused(self, part: Any) -> None:
        """What would arrive as nothing is an error before anything is sent."""
        with pytest.raises(ConfigurationError):
            body_of(NAME, messages=[{"role": "user", "content": [part]}])

    def test_tools_are_flat_and_not_strict(self) -> None:
        """A tool is not taken for a strict one unless it says so; the provider's own stays."""
        own = {"type": "web_search"}
        strict = {"name": "g", "parameters": {}, "strict": True}
        sent = body_of(
            NAME,
            tools=[
                {"type": "function", "function": {"name": "f", "description": "d"}},
                {"type": "function", "function": strict},
                own,
            ],
        )["tools"]
        assert sent[0] == {
            "type": "function",
            "name": "f",
            "description": "d",
            "parameters": {"type": "object", "properties": {}},
            "strict": False,
        }
        assert sent[1:] == [{"type": "function", **strict}, own]

    @pytest.mark.parametrize(
        ("choice", "sent"),
        [
            ("auto", "auto"),
            ("none", "none"),
            ("required", "required"),
            ("f", {"type": "function", "name": "f"}),
            (
                {"type": "function", "function": {"name": "f"}},
                {"type": "function", "name": "f"},
            ),
            ({"type": "web_search"}, {"type": "web_search"}),
        ],
        ids=str,
    )
    def test_the_choice_of_a_tool(self, choice: Any, sent: Any) -> None:
        """A tool's name becomes Responses' object for it."""
        assert body_of(NAME, tool_choice=choice)["tool_choice"] == sent

    def test_encrypted_reasoning_goes_back_before_what_followed_from_it(self) -> None:
        """A turn's own sealed reasoning stands in front of its text and calls, without a name."""
        sealed = done({"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "x"})
        answer = Decoded(NAME, CREATED, sealed, text("Hi"), said("completed", response={}))
        turn = msgspec.structs.replace(answer.completion, provider=NAME).message()
        sent = body_of(NAME, messages=[{"role": "user", "content": "q"}, turn])["input"][1:]
        assert sent == [
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "Hi"}],
            },
        ]

    def test_a_summary_goes_back_with_its_seal(self) -> None:
        """Each sealed item has the summary that was told of it, streamed or whole."""
        items = [
            {
                "id": f"rs_{number}",
                "type": "reasoning",
                "summary": [{"type": "summary_text", "text": said_of_it}],
                "encrypted_content": f"x{number}",
            }
            for number, said_of_it in enumerate(("Hm", "Well"))
        ]
        piece = said("reasoning_summary_text.delta", output_index=0, summary_index=0, delta="Hm")
        answer = finished(piece, done(items[0]), done(items[1], 1), output=items)
        turn = msgspec.structs.replace(answer.completion, provider=NAME).message()
        assert body_of(NAME, messages=[turn])["input"] == items

    def test_the_reasoning_of_others_stays_away(self) -> None:
        """What another provider sealed, or what can be read, is nothing for this one."""
        details = [
            {"type": "reasoning.encrypted", "data": "x", "format": "anthropic"},
            {"type": "reasoning.text", "text": "Hm"},
        ]
        turn = {"role": "assistant", "content": "Hi", "reasoning_details": details}
        (_, answer) = body_of(NAME, messages=[{"role": "user", "content": "q"}, turn])["input"]
        assert answer["type"] == "message"


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "error", "class_"),
        [
            (401, {"message": "no key", "code": "invalid_api_key"}, AuthenticationError),
            (400, {"message": "bad", "code": None}, InvalidRequestError),
            (429, {"message": "slow", "code": "rate_limit_exceeded"}, RateLimitError),
            (500, {"message": "broken"}, ServerError),
        ],
    )
    def test_a_status_has_its_class(self, status: int, error: Any, class_: Any) -> None:
        """The body's message and code become the error's."""
        got = ROW.error(status, {"x-request-id": "q"}, json.dumps({"error": error}).encode())
        assert type(got) is class_
        assert (got.detail, got.code, got.request_id) == (error["message"], error.get("code"), "q")

    @pytest.mark.parametrize(
        "error",
        [
            {"message": "gone", "code": "model_not_found"},
            {"message": "The requested model 'x' does not exist.", "code": None},
        ],
    )
    def test_an_unknown_model_names_the_default(self, error: Any) -> None:
        """Responses says 400 where Chat Completions says 404; both say which model there is."""
        got = ROW.error(400, {}, json.dumps({"error": error}).encode())
        assert f"the default model is {ROW.model!r}" in str(got)

    def test_no_money_is_not_retried(self) -> None:
        """A 429 that means an empty account cannot be waited out."""
        body = json.dumps({"error": {"message": "no", "code": "insufficient_quota"}}).encode()
        assert not ROW.error(429, {}, body).retryable


class TestAccept:
    HEADERS = {"authorization": f"Bearer {KEY}"}

    def accept(self, body: Any, **headers: str) -> Any:
        """Let the fake endpoint read a request."""
        encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
        return ROW.accept("/v1/responses", headers or self.HEADERS, encoded)

    def test_its_own_requests_are_accepted(self) -> None:
        """What the client writes the fake endpoint reads, with the last user turn as prompt."""
        messages = [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": [{"type": "text", "text": "How "}]},
        ]
        request = ROW.request(ask(messages=messages), KEY, "https://host/v1")
        got = ROW.accept("/v1/responses", self.HEADERS, request.body)
        assert (got.model, got.stream, got.usage, got.prompt) == ("m", True, True, "How ")

    @pytest.mark.parametrize(
        ("said", "prompt"),
        [
            ("Hi", "Hi"),
            ([{"role": "user", "content": "Hi"}], "Hi"),
            ([{"role": "user", "content": [{"text": "Hi"}]}, {"role": "assistant"}], "Hi"),
            ([5, {"type": "function_call_output"}], ""),
        ],
        ids=str,
    )
    def test_the_input_may_be_a_text_or_items(self, said: Any, prompt: str) -> None:
        """Both shapes of an input have a prompt."""
        got = self.accept({"model": "m", "input": said})
        assert (got.prompt, got.stream) == (prompt, False)

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            ({"input": "Hi"}, "Missing required parameter: 'model'."),
            ({"model": "", "input": "Hi"}, "Missing required parameter: 'model'."),
            ({"model": 5, "input": "Hi"}, "Invalid type for 'model'"),
            ({"model": "m"}, "Missing required parameter: 'input'."),
            ({"model": "m", "input": None}, "Invalid type for 'input'"),
            ({"model": "m", "input": []}, 'One of "input" or "previous_response_id"'),
            (b"{", "We could not parse the JSON body of your request."),
            (b"[]", "We could not parse the JSON body of your request."),
        ],
        ids=str,
    )
    def test_what_is_missing_is_refused(self, body: Any, message: str) -> None:
        """A request that the real endpoint refuses gets its message."""
        with pytest.raises(InvalidRequestError) as caught:
            self.accept(body)
        assert caught.value.status == 400
        assert caught.value.detail.startswith(message)

    def test_an_earlier_response_makes_up_for_an_empty_input(self) -> None:
        """An input may be empty where there is something to go on from."""
        assert self.accept({"model": "m", "input": [], "previous_response_id": "r"}).prompt == ""

    @pytest.mark.parametrize("header", ["", "Basic x", "Bearer "])
    def test_without_a_key_there_is_no_answer(self, header: str) -> None:
        """Only a Bearer token opens the door."""
        with pytest.raises(AuthenticationError):
            self.accept({"model": "m", "input": "Hi"}, authorization=header)


class TestWholeAnswers:
    COMPLETE = Completion(
        text="Hi you",
        reasoning="Hm",
        tool_calls=(
            ToolCall("c1", "f", {"a": 1}, '{"a": 1}'),
            ToolCall("c2", "g", {}, "{}"),
        ),
        citations=(Citation("u", "t", None, {"url": "u", "title": "t"}),),
        usage=Usage(4, 6, 1, 2, USAGE),
        finish_reason="tool_calls",
        raw_finish_reason="completed",
        model="m",
        response_id="r1",
    )
    PARTIAL = Completion(
        text="Hi",
        refusal="No.",
        finish_reason="length",
        raw_finish_reason="incomplete",
        model="m",
        response_id="r1",
    )

    @pytest.mark.parametrize("completion", [COMPLETE, PARTIAL], ids=["whole", "partial"])
    def test_an_answer_there_and_back(self, completion: Completion) -> None:
        """What is written as a whole answer is read as the same completion."""
        answer = json.loads(ROW.answer_body(completion))
        assert decode(*ROW.retold(answer)).completion == completion

    @pytest.mark.parametrize("reason", ["stop", "length", "content_filter", "other", "pause"])
    def test_a_reason_without_a_providers_word(self, reason: Any) -> None:
        """Our word alone is enough to end an answer."""
        answer = json.loads(ROW.answer_body(Completion(finish_reason=reason)))
        expected = "other" if reason == "pause" else reason
        assert decode(*ROW.retold(answer)).completion.finish_reason == expected

    def test_a_failed_answer_is_an_error(self) -> None:
        """A whole answer whose status is `failed` raises what it says."""
        answer = {"object": "response", "status": "failed", "error": {"message": "so"}}
        got = decode(*ROW.retold(answer))
        assert isinstance(got.error, ServerError)
        assert got.error.detail == "so"

    def test_an_error_is_returned_as_it_is(self) -> None:
        """What is no response is not made one."""
        error = {"error": {"message": "so", "code": "invalid_prompt"}}
        assert list(ROW.retold(error)) == [error]
        assert isinstance(decode(*ROW.retold(error)).error, InvalidRequestError)

    @pytest.mark.parametrize("status", ["queued", "in_progress"])
    def test_an_answer_that_has_not_ended_is_none(self, status: str) -> None:
        """A background response that is still running is not a complete answer."""
        answer = {"object": "response", "id": "resp_1", "status": status, "output": []}
        with pytest.raises(ProtocolError, match=f"the response resp_1 is {status}") as caught:
            list(ROW.retold(answer))
        assert not caught.value.retryable

    def test_a_background_response_is_asked_for_once(self) -> None:
        """A job that only has begun is not begun again: the error names it."""
        begun = {"object": "response", "id": "resp_1", "status": "queued", "output": []}
        with FakeServer() as server:
            server.script(page(json.dumps(begun), content_type="application/json"))
            with pytest.raises(ProtocolError, match="resp_1 is queued"):
                complete_sync(
                    "Hi",
                    provider=NAME,
                    base_url=server.base_url(NAME),
                    api_key="k",
                    extra_body={"background": True},
                )
            assert len(server.requests) == 1

    def test_a_custom_call_there_and_back(self) -> None:
        """A custom tool's call that is written whole is read as one, streamed or not."""
        one = ToolCall("c1", "sql", {}, "SELECT", kind="custom")
        written = Completion(tool_calls=(one,), finish_reason="tool_calls")
        answer = json.loads(ROW.answer_body(written))
        assert decode(*ROW.retold(answer)).completion.tool_calls == (one,)
        encoder = ROW.encoder(model="m")
        frames = SSEDecoder()
        streamed = [StreamStart("m", "r1"), one, Finish("tool_calls", "completed")]
        wire = [sse for event in streamed for sse in frames.feed(encoder.encode(event))]
        assert decode(*wire).completion.tool_calls == (one,)

    def test_a_status_that_nobody_knows_is_an_end(self) -> None:
        """A whole answer without a status is complete."""
        got = decode(*ROW.retold({"output": [message("Hi")]}))
        assert got.events[-2:] == [TextDelta("Hi"), Finish("stop", "completed")]


class _Background:
    """What the server of a background response was asked, and what it sends each time."""

    def __init__(self, *bodies: bytes) -> None:
        self.bodies = list(bodies)
        self.asked: list[tuple[str, str, str | None]] = []
        self.url = ""


@contextmanager
def background(*bodies: bytes) -> Iterator[_Background]:
    """Serve bodies one after the other, each until the connection's end."""
    served = _Background(*bodies)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            served.asked.append((self.command, self.path, self.headers.get("Authorization")))
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self.wfile.write(served.bodies.pop(0))

        do_GET = do_POST

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()


def numbered(first: int, *wire: dict[str, Any]) -> list[dict[str, Any]]:
    """Return wire events with their sequence numbers."""
    return [{**one, "sequence_number": first + at} for at, one in enumerate(wire)]


def kept(**fields: Any) -> dict[str, Any]:
    """Return the first event of a background response."""
    response = {**CREATED["response"], "background": True, "store": True, **fields}
    return said("created", response=response)


class TestCursor:
    BROKEN = (kept(), text("Hi"), added(function(), 1), arguments('{"a"', index=1))

    def broken(self, *wire: dict[str, Any]) -> Any:
        """Return a decoder whose connection broke after these events."""
        decoder = ROW.decoder()
        for one in wire:
            list(decoder.decode(sse(one)))
        with pytest.raises(ConnectionLost):
            list(decoder.end())
        return decoder

    def test_a_background_response_is_asked_for_its_rest(self) -> None:
        """The request names the response and the last event that came."""
        found = ROW.take_up(self.broken(*numbered(3, *self.BROKEN)), KEY, "https://host/v1", ASKED)
        assert found is not None
        request, _ = found
        assert request.method == "GET"
        assert request.body == b""
        assert request.url == "https://host/v1/responses/r1?stream=true&starting_after=6"
        assert request.credentials == {"Authorization": f"Bearer {KEY}"}

    def test_an_identifier_cannot_leave_its_place_in_the_url(self) -> None:
        """Whatever a server calls its response, the path is this one."""
        broken = self.broken(*numbered(0, kept(id="../x?y#z")))
        found = ROW.take_up(broken, KEY, "https://host/v1", ASKED)
        assert found is not None
        assert found[0].url.startswith("https://host/v1/responses/..%2Fx%3Fy%23z?stream=true")

    @pytest.mark.parametrize(
        "wire",
        [
            [],
            numbered(0, CREATED),
            numbered(0, kept(background=False)),
            numbered(0, kept(background=None)),
            numbered(0, kept(store=False)),
            numbered(0, kept(id=None)),
            [kept()],
        ],
        ids=["nothing", "unsaid", "false", "null", "not stored", "no id", "no numbers"],
    )
    def test_no_other_response_can_be_taken_up(self, wire: list[Any]) -> None:
        """What runs in the foreground, or is not kept, ends with its connection."""
        assert ROW.take_up(self.broken(*wire), KEY, "https://host/v1", ASKED) is None

    def test_what_failed_is_not_taken_up(self) -> None:
        """A response that has ended has no rest."""
        decoder = ROW.decoder()
        list(decoder.decode(sse(numbered(0, kept())[0])))
        list(decoder.decode(sse({"type": "error", "message": "so"})))
        assert ROW.take_up(decoder, KEY, "https://host/v1", ASKED) is None

    def test_another_providers_decoder_has_no_cursor(self) -> None:
        """Only a decoder of this format can be asked for its place."""
        assert ROW.take_up(PROVIDERS["openai"].decoder(), KEY, "https://host/v1", ASKED) is None

    def test_the_rest_completes_what_had_begun(self) -> None:
        """Calls that had begun are completed, texts go on, and nothing is told again."""
        first = numbered(0, *self.BROKEN)
        decoder = self.broken(*first)
        found = ROW.take_up(decoder, KEY, "https://host/v1", ASKED)
        assert found is not None
        rest = found[1]
        assert not rest.done
        wire = [
            *first[-2:],  # some servers begin a little earlier than they are asked to
            *numbered(
                4,
                text(" you"),
                arguments(": 1}", index=1),
                done(function('{"a": 1}'), 1),
                end(message("Hi you"), function('{"a": 1}')),
            ),
        ]
        events = [event for one in wire for event in rest.decode(sse(one))]
        assert events == [
            StreamStart("m", "r1"),
            TextDelta(" you"),
            ToolCallDelta(0, arguments=": 1}"),
            ToolCall("c1", "f", {"a": 1}, '{"a": 1}'),
            Finish("tool_calls", "completed"),
        ]

    def test_an_answer_goes_on_over_its_connections(self) -> None:
        """A stream that breaks twice delivers the whole answer, with its calls, in order."""
        final = end(message("Hi you"), function('{"a": 1}'), usage=USAGE)
        bodies = [
            numbered(0, *self.BROKEN),
            numbered(4, text(" you")),
            numbered(5, arguments(": 1}", index=1), done(function('{"a": 1}'), 1), final),
        ]
        encoded = [b"".join(encode_sse(json.dumps(one)) for one in body) for body in bodies]
        with background(*encoded) as server:
            answer = stream_sync(
                "Hi",
                provider=NAME,
                model="m",
                base_url=server.url,
                api_key=KEY,
                extra_body={"background": True},
                retry=RetryPolicy(backoff_s=0, resume=True),
            )
            events = list(answer.events())
        assert [path for _, path, _ in server.asked] == [
            "/v1/responses",
            "/v1/responses/r1?stream=true&starting_after=3",
            "/v1/responses/r1?stream=true&starting_after=4",
        ]
        assert {method for method, *_ in server.asked[1:]} == {"GET"}
        assert {key for *_, key in server.asked} == {f"Bearer {KEY}"}
        assert sum(isinstance(event, Resumed) for event in events) == 2
        told = Accumulator()
        for event in events:
            told.add(event)
        completion = told.completion()
        assert completion.text == "Hi you"
        assert [call.arguments for call in completion.tool_calls] == [{"a": 1}]
        assert completion.finish_reason == "tool_calls"
        assert completion.usage == Usage(4, 6, 1, 2, USAGE)


class TestEncoder:
    EVENTS: tuple[Event, ...] = (
        StreamStart("gpt-fake", "resp_1"),
        ReasoningDelta("Let me"),
        ReasoningDelta(" see"),
        ReasoningDelta(redacted="xyz", id="rs_7"),
        TextDelta("Hi"),
        TextDelta(" you"),
        Citation("http://u", "t"),
        ToolCallDelta(0, "c1", "f"),
        ToolCallDelta(0, arguments='{"a"'),
        ToolCallDelta(1, "c2", "g"),
        ToolCallDelta(0, arguments=": 1}"),
        ToolCall("c1", "f", {"a": 1}, '{"a": 1}'),
        ToolCallDelta(1, arguments="{}"),
        ToolCall("c2", "g", {}, "{}"),
        RefusalDelta("No."),
        Usage(3, 4, 0, 0),
    )

    def body(self, *events: Event) -> list[bytes]:
        """Encode events."""
        encoder = ROW.encoder(model="gpt-fake")
        return [encoder.encode(event) for event in events]

    @pytest.mark.parametrize(
        "finish", [Finish("tool_calls"), Finish("length"), Finish("error"), Finish("pause")]
    )
    def test_every_event_is_one_of_openais(self, finish: Finish) -> None:
        """The official package's own types accept each event, numbered and named."""
        frames = SSEDecoder().feed(b"".join(self.body(*self.EVENTS, finish)))
        known = pydantic.TypeAdapter(ResponseStreamEvent)
        for number, frame in enumerate(frames):
            wire = json.loads(frame.data)
            assert frame.event == wire["type"]
            assert wire["sequence_number"] == number
            details = (wire.get("response") or {}).get("incomplete_details")
            if finish.reason == "pause" and details:  # a word that only this package has
                details["reason"] = None
            known.validate_python(wire)

    def test_the_events_come_in_openais_order(self) -> None:
        """Each item begins, has its parts, and ends before the next one."""
        events = (StreamStart("m", "r"), TextDelta("Hi"), Finish("stop"))
        frames = SSEDecoder().feed(b"".join(self.body(*events)))
        assert [frame.event.removeprefix("response.") for frame in frames] == [
            "created",
            "in_progress",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "completed",
        ]

    def test_the_official_package_streams_it(self) -> None:
        """`responses.create(stream=True)` reads every delta and the whole answer."""
        with (
            WireServer(stream(self.body(*self.EVENTS, Finish("tool_calls")))) as server,
            openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client,
        ):
            events = list(client.responses.create(model="m", input="Hi", stream=True))
        texts = [event.delta for event in events if event.type == "response.output_text.delta"]
        assert "".join(texts) == "Hi you"
        last = events[-1]
        assert last.type == "response.completed"
        assert last.response.output_text == "Hi you"
        assert last.response.usage is not None
        assert last.response.usage.output_tokens == 4

    def test_the_official_package_accumulates_it(self) -> None:
        """`responses.stream(...)` puts the same answer together."""
        tools: Any = [{"type": "function", "name": name, "parameters": {}} for name in "fg"]
        with (
            WireServer(stream(self.body(*self.EVENTS, Finish("tool_calls")))) as server,
            openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client,
            client.responses.stream(model="m", input="Hi", tools=tools) as got,
        ):
            response = got.get_final_response()
        assert response.output_text == "Hi you"
        called = [item for item in response.output if item.type == "function_call"]
        assert [(item.call_id, item.name, item.arguments) for item in called] == [
            ("c1", "f", '{"a": 1}'),
            ("c2", "g", "{}"),
        ]

    def test_the_official_package_raises_its_errors(self) -> None:
        """An error inside the stream is the package's own exception."""
        encoder = ROW.encoder(model="m")
        body = encoder.encode(StreamStart("m", "r")) + encoder.error(ROW.api_error(500, "broken"))
        with (
            WireServer(stream([body])) as server,
            openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client,
            pytest.raises(openai.APIError, match="broken"),
        ):
            list(client.responses.create(model="m", input="Hi", stream=True))

    def test_a_call_that_was_never_closed_is_closed_at_the_end(self) -> None:
        """The final answer has every call that was begun."""
        got = Decoded(
            NAME,
            *SSEDecoder().feed(
                b"".join(
                    self.body(
                        StreamStart("m", "r"),
                        ToolCallDelta(0, "c1", "f", "{}"),
                        ToolCall("c2", "g", {}, "{}"),
                        Finish("stop"),
                    )
                )
            ),
        )
        assert sorted(calls(got)) == [("c1", "f", {}), ("c2", "g", {})]

    def test_reasons_of_other_providers_are_translated(self) -> None:
        """A status is one of OpenAI's, whoever ended the answer."""
        for finish, status in (
            (Finish("stop", "end_turn"), "completed"),
            (Finish("length", "max_tokens"), "incomplete"),
            (Finish("error", "cancelled"), "cancelled"),
        ):
            (frame,) = SSEDecoder().feed(self.body(finish)[0])
            assert json.loads(frame.data)["response"]["status"] == status

    def test_an_unknown_thing_without_a_type_is_wrapped(self) -> None:
        """Responses has only events with a type."""
        (frame,) = SSEDecoder().feed(self.body(Unknown("odd", [1]))[0])
        assert json.loads(frame.data) == {"type": "odd", "data": [1]}


class TestSize:
    #: On a busy machine, and while coverage is measured; what grows with the square takes minutes.
    LIMIT_S = 30.0

    def seconds(self, wire: list[dict[str, Any]]) -> float:
        """Measure the decoding of a body."""
        encoded = [sse(one) for one in wire]
        decoder = ROW.decoder()
        began = time.process_time()
        for one in encoded:
            for _ in decoder.decode(one):
                pass
        assert decoder.done
        return time.process_time() - began

    def test_many_small_deltas(self) -> None:
        """100,000 pieces of one text are decoded in linear time."""
        whole = "x" * 100_000
        wire = [CREATED, *[text("x")] * 100_000, done(message(whole)), end(message(whole))]
        assert self.seconds(wire) < self.LIMIT_S

    def test_many_pieces_of_arguments(self) -> None:
        """100,000 pieces of one call are decoded in linear time."""
        whole = '{"a": "' + "x" * 100_000 + '"}'
        pieces = [arguments(one) for one in whole]
        wire = [CREATED, added(function()), *pieces, done(function(whole)), end(function(whole))]
        assert self.seconds(wire) < self.LIMIT_S

    @pytest.mark.parametrize("interleaved", [False, True])
    def test_many_calls(self, interleaved: bool) -> None:
        """10,000 calls are decoded in linear time, one by one or all at once."""
        items = [function("{}", id=f"fc_{n}", call_id=f"c{n}") for n in range(10_000)]
        parts = [
            [added(item, n), arguments("{}", item["id"], n), done(item, n)]
            for n, item in enumerate(items)
        ]
        if interleaved:
            parts = [list(column) for column in zip(*parts, strict=True)]
        wire = [CREATED, *(one for part in parts for one in part), end(*items)]
        assert self.seconds(wire) < self.LIMIT_S

    def test_many_messages(self) -> None:
        """10,000 messages that come whole only are decoded in linear time."""
        items = [message("x" * 20, id=f"msg_{n}") for n in range(10_000)]
        wire = [CREATED, *(done(item, n) for n, item in enumerate(items)), end(*items)]
        assert self.seconds(wire) < self.LIMIT_S
        unplaced = [done({**item, "id": None}, None) for item in items]
        assert self.seconds([CREATED, *unplaced, end(*items)]) < self.LIMIT_S


def bodies() -> list[bytes]:
    """Return what the encoder writes, and recordings where there are any."""
    encoder = ROW.encoder(model="m")
    found = [b"".join(map(encoder.encode, (*TestEncoder.EVENTS, Finish("tool_calls"))))]
    for path in sorted(Path(_FOLDER).glob("*/responses-*.sse")) if _FOLDER else []:
        body = path.read_bytes()
        if len(body) < 100_000:
            found.append(body)
    return found


class TestBrokenBodies:
    MUTATIONS = 120

    def mutated(self, chance: random.Random, lines: list[bytes]) -> bytes:
        """Drop, repeat, swap and change lines and bytes of a body."""
        lines = list(lines)
        for _ in range(chance.randint(1, 6)):
            at, other = chance.randrange(len(lines)), chance.randrange(len(lines))
            match chance.randrange(6):
                case 0:
                    lines[at] = b""
                case 1:
                    lines.insert(at, lines[other])
                case 2:
                    lines[at], lines[other] = lines[other], lines[at]
                case 3:
                    lines[at] = lines[at][: chance.randrange(len(lines[at]) + 1)]
                case 4:
                    line = lines[at].replace(
                        chance.choice([b"item_id", b"output_index", b"delta", b"call_id", b"type"]),
                        chance.choice([b"odd", b"item", b"text", b"response"]),
                    )
                    lines[at] = line
                case _:
                    values = [b"null", b"[]", b"{}", b"5", b'"x"', b"true", b"-1", b"1e999"]
                    head, colon, tail = lines[at].partition(b'":')
                    lines[at] = head + colon + chance.choice(values) + tail[chance.randrange(9) :]
        return b"\n".join(lines)

    @pytest.mark.parametrize("at", range(len(bodies())))
    def test_any_body_ends_in_one_way_of_the_tree(self, at: int) -> None:
        """Whatever the bytes are, there are events, then a finish or one error of ours."""
        chance = random.Random(at)
        lines = bodies()[at].split(b"\n")
        for _ in range(self.MUTATIONS):
            frames = SSEDecoder()
            wire = frames.feed(self.mutated(chance, lines))
            wire += frames.end(dispatch_unfinished=True)
            decoder, told = ROW.decoder(), Accumulator()
            finishes, error = 0, None
            try:
                for one in wire:
                    for event in decoder.decode(one):
                        told.add(event)
                        finishes += isinstance(event, Finish)
                for event in decoder.end():
                    told.add(event)
            except StreamError as problem:
                error = problem
            assert (finishes, error is None) in ((1, True), (0, False))
            told.completion()
