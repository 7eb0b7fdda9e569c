"""The event vocabulary as values: unchangeable, comparable, and JSON."""

from __future__ import annotations

import typing

import msgspec
import pytest

from llm_sse import events
from llm_sse.events import (
    CONTENT,
    Citation,
    Event,
    FellBack,
    Finish,
    FinishReason,
    Logprobs,
    ReasoningDelta,
    RefusalDelta,
    Resumed,
    Retrying,
    StreamStart,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    ToolResult,
    Unknown,
    Usage,
)

#: One event of every kind with every field set, by its tag.
FULL: dict[str, Event] = {
    "stream_start": StreamStart("m", "resp_1"),
    "text_delta": TextDelta("é€😀\n"),
    "reasoning_delta": ReasoningDelta("so", "c2ln", "eHh4"),
    "refusal_delta": RefusalDelta("no"),
    "tool_call_delta": ToolCallDelta(1, "call_1", "f", '{"a":'),
    "tool_call": ToolCall("call_1", "f", {"a": [1, None]}, '{"a":[1,null]}', "bad", "c2ln"),
    "citation": Citation("https://host", "T", "passage", {"type": "url"}),
    "logprobs": Logprobs((TokenLogprob("é", -0.5, b"\xc3", (TokenLogprob("e", -1.0),)),)),
    "usage": Usage(5, 4, 3, 2, {"prompt_tokens": 5}),
    "finish": Finish("stop", "end_turn", "done"),
    "retrying": Retrying(1, 0.5, "busy"),
    "resumed": Resumed(2, 100, "gone"),
    "fell_back": FellBack("a", "b", "gone"),
    "tool_result": ToolResult("call_1", "f", "no", "no"),
    "unknown": Unknown("ping", {"x": [1]}),
}

#: One event of every kind with nothing set that can be left out.
BARE: dict[str, Event] = {
    "stream_start": StreamStart(),
    "text_delta": TextDelta(""),
    "reasoning_delta": ReasoningDelta(),
    "refusal_delta": RefusalDelta(""),
    "tool_call_delta": ToolCallDelta(0),
    "tool_call": ToolCall(None, "f", {}, ""),
    "citation": Citation(),
    "logprobs": Logprobs(()),
    "usage": Usage(),
    "finish": Finish("other"),
    "retrying": Retrying(1, 0, ""),
    "resumed": Resumed(1, 0, ""),
    "fell_back": FellBack("a", "b", ""),
    "tool_result": ToolResult("call_1", "f", ""),
    "unknown": Unknown("ping"),
}

each_tag = pytest.mark.parametrize("tag", FULL)


class TestEvent:
    def test_the_tables_are_complete(self) -> None:
        """Every kind of the union is public, and tested here."""
        kinds = set(typing.get_args(Event))
        assert {type(event) for event in FULL.values()} == kinds
        assert {type(event) for event in BARE.values()} == kinds
        assert {kind.__name__ for kind in kinds} < set(events.__all__)
        assert len(kinds) == len(FULL) == len(BARE)

    @each_tag
    def test_json_round_trip(self, tag: str) -> None:
        """Every event is JSON with its tag as `type`, and comes back as an equal event."""
        for event in (FULL[tag], BARE[tag]):
            encoded = msgspec.json.encode(event)
            assert msgspec.json.decode(encoded)["type"] == tag
            again = msgspec.json.decode(encoded, type=Event)
            assert type(again) is type(event)
            assert again == event

    @each_tag
    def test_frozen(self, tag: str) -> None:
        """No field of an event can be changed."""
        event = FULL[tag]
        for field in event.__struct_fields__:
            with pytest.raises(AttributeError):
                setattr(event, field, None)

    @each_tag
    def test_fields_have_names_of_their_own(self, tag: str) -> None:
        """No field is called `type`, which is the tag's name in the JSON."""
        assert "type" not in FULL[tag].__struct_fields__

    def test_equality_is_by_value_and_kind(self) -> None:
        """Equal values make equal events, but only of one kind."""
        assert TextDelta("a") == TextDelta("a")
        assert TextDelta("a") != TextDelta("b")
        assert TextDelta("a") != RefusalDelta("a")

    def test_unknown_tags_are_refused(self) -> None:
        """JSON with a tag of no event is not decoded to something else."""
        with pytest.raises(msgspec.ValidationError, match="text_deltas"):
            msgspec.json.decode(b'{"type": "text_deltas", "text": "a"}', type=Event)


class TestContent:
    def test_kinds(self) -> None:
        """The content events are those that are part of the answer itself."""
        assert {"TextDelta", "ReasoningDelta", "RefusalDelta"} | {
            "ToolCallDelta",
            "ToolCall",
            "Citation",
        } == {kind.__name__ for kind in CONTENT}


class TestFinishReason:
    def test_words(self) -> None:
        """These words are an interface: programs compare them."""
        assert typing.get_args(FinishReason) == (
            "stop",
            "length",
            "tool_calls",
            "content_filter",
            "pause",
            "error",
            "other",
        )
