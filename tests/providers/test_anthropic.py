from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from llm_sse.errors import (
    APIError,
    AuthenticationError,
    ConfigurationError,
    ConnectionLost,
    InvalidRequestError,
    ProtocolError,
    RateLimitError,
    ServerError,
)
from llm_sse.events import (
    Citation,
    Finish,
    ReasoningDelta,
    RefusalDelta,
    StreamStart,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    Unknown,
    Usage,
)
from llm_sse.media import file_part, image_part
from llm_sse.providers import PROVIDERS
from tests.providers.bodies import KEY, Decoded, ask, body_of, sse

ROW = PROVIDERS["anthropic"]
STOP = {"type": "message_stop"}
PING = {"type": "ping"}


def begin(usage: Any = None, **fields: Any) -> dict[str, Any]:
    """Return a `message_start`."""
    message = {"id": "msg_1", "model": "m", "role": "assistant", "content": [], **fields}
    return {"type": "message_start", "message": {**message, "usage": usage or {}}}


def start(index: int, kind: str, **fields: Any) -> dict[str, Any]:
    """Return a `content_block_start`."""
    block = {"type": kind, **fields}
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, kind: str, **fields: Any) -> dict[str, Any]:
    """Return a `content_block_delta`."""
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **fields}}


def close(index: int) -> dict[str, Any]:
    """Return a `content_block_stop`."""
    return {"type": "content_block_stop", "index": index}


def end(reason: str | None = "end_turn", usage: Any = None, **fields: Any) -> list[Any]:
    """Return the `message_delta` and the `message_stop`."""
    said = {"stop_reason": reason, "stop_sequence": None, **fields}
    return [{"type": "message_delta", "delta": said, "usage": usage or {}}, STOP]


def text(index: int, *pieces: str) -> list[Any]:
    """Return a whole text block."""
    deltas = [delta(index, "text_delta", text=piece) for piece in pieces]
    return [start(index, "text", text=""), *deltas, close(index)]


def tool(index: int, *pieces: str, id: str = "a", name: str = "f", input: Any = None) -> list[Any]:
    """Return a whole tool block."""
    deltas = [delta(index, "input_json_delta", partial_json=piece) for piece in pieces]
    first = start(index, "tool_use", id=id, name=name, input={} if input is None else input)
    return [first, *deltas, close(index)]


def decode(*wire: Any) -> Decoded:
    """Decode wire events and the end of the body."""
    return Decoded("anthropic", *wire)


def answer(*wire: Any) -> list[Any]:
    """Return what blocks mean in a complete message, without its start and its finish."""
    return decode(begin(), *wire, *end()).content


class TestText:
    def test_a_plain_answer(self) -> None:
        """Start, text pieces, usage and finish come in order."""
        got = decode(
            begin({"input_tokens": 3, "output_tokens": 1}),
            PING,
            *text(0, "He", "llo"),
            *end(usage={"output_tokens": 5}),
        )
        assert got.events == [
            StreamStart("m", "msg_1"),
            TextDelta("He"),
            TextDelta("llo"),
            Usage(3, 5, None, None, {"input_tokens": 3, "output_tokens": 5}),
            Finish("stop", "end_turn"),
        ]

    @pytest.mark.parametrize(
        ("wire", "events"),
        [
            ([start(0, "text", text="Hi")], [TextDelta("Hi")]),
            ([start(0, "text", text=None), start(0, "text")], []),
            ([delta(0, "text_delta", text="")], []),
            ([delta(0, "text_delta", text=None), delta(0, "text_delta")], []),
            ([delta(0, "thinking_delta", thinking="Hm")], [ReasoningDelta("Hm")]),
            ([delta(0, "thinking_delta", thinking="")], []),
            ([delta(0, "signature_delta", signature="s")], [ReasoningDelta("", "s")]),
            ([delta(0, "signature_delta", signature="")], []),
            ([start(0, "thinking", thinking="", signature="")], []),
            ([start(0, "thinking", thinking="Hm", signature="s")], [ReasoningDelta("Hm", "s")]),
            (
                [start(0, "thinking", thinking=""), delta(0, "signature_delta", signature="s")],
                [ReasoningDelta("", "s")],
            ),
            ([start(0, "redacted_thinking", data="xyz")], [ReasoningDelta("", None, "xyz")]),
            ([start(0, "redacted_thinking")], []),
            ([PING, PING], []),
            ([close(0), close(7)], []),
            (['{"type": "ping"            }'], []),
            ([""], []),
            ([{"type": "content_block_delta", "index": 0}], []),
            ([{"type": "content_block_delta", "index": 0, "delta": None}], []),
        ],
        ids=str,
    )
    def test_a_wire_event_becomes_what_it_holds(self, wire: list[Any], events: list[Any]) -> None:
        """Blocks and deltas that say something become events; the empty ones do not."""
        assert answer(*wire) == events

    def test_json_may_be_padded(self) -> None:
        """Spaces that hide the length of an event mean nothing."""
        padded = json.dumps(delta(0, "text_delta", text="Hi"))[:-1] + " " * 40 + "}"
        assert answer(start(0, "text", text=""), padded) == [TextDelta("Hi")]

    def test_blocks_are_told_apart_by_their_index(self) -> None:
        """A block may get its signature and its end after the next one has begun."""
        got = answer(
            start(0, "thinking", thinking=""),
            delta(0, "thinking_delta", thinking="Hm"),
            start(1, "text", text=""),
            delta(1, "text_delta", text="Hi"),
            delta(0, "signature_delta", signature=""),
            close(0),
            close(1),
        )
        assert got == [ReasoningDelta("Hm"), TextDelta("Hi")]

    @pytest.mark.parametrize("event", ["content_block_delta", "message"])
    def test_the_type_counts_and_not_the_event_name(self, event: str) -> None:
        """A look-alike may leave the SSE event's name out."""
        said = delta(0, "text_delta", text="Hi")
        assert answer(sse(said, event)) == [TextDelta("Hi")]

    def test_the_event_name_stands_in_for_a_missing_type(self) -> None:
        """A look-alike may leave the JSON's type out."""
        got = decode(begin(), *end()[:1], sse({}, "message_stop"))
        assert got.events[-1] == Finish("stop", "end_turn")


class TestUnknown:
    @pytest.mark.parametrize(
        ("wire", "event"),
        [
            (
                start(0, "server_tool_use", id="s", name="web_search", input={}),
                Unknown(
                    "server_tool_use",
                    {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
                ),
            ),
            (
                start(0, "brand_new", x=[1]),
                Unknown("brand_new", {"type": "brand_new", "x": [1]}),
            ),
            (
                delta(0, "compaction_delta", content="c"),
                Unknown("compaction_delta", delta(0, "compaction_delta", content="c")),
            ),
            (
                delta(5, "input_json_delta", partial_json="{"),
                Unknown("input_json_delta", delta(5, "input_json_delta", partial_json="{")),
            ),
            ({"type": "brand_new", "x": 1}, Unknown("brand_new", {"type": "brand_new", "x": 1})),
            (sse({"x": 1}, "odd"), Unknown("odd", {"x": 1})),
            ({"type": "content_block_start", "index": 0}, Unknown("content_block", None)),
            ("5", Unknown("message", 5)),
            ("[1]", Unknown("message", [1])),
        ],
        ids=str,
    )
    def test_what_has_no_word_here_is_passed_on(self, wire: Any, event: Unknown) -> None:
        """Newer blocks, deltas and events become `Unknown`, and the answer goes on."""
        assert answer(wire, *text(1, "Hi")) == [event, TextDelta("Hi")]

    @pytest.mark.parametrize(
        "odd",
        [
            {"type": "content_block_delta", "index": "0", "delta": {"type": 5}},
            {"type": "content_block_delta", "index": 0, "delta": "x"},
            {"type": "content_block_delta", "delta": {"type": "text_delta", "text": 5}},
            {"type": "message_delta", "delta": "x", "usage": "y"},
            {"type": "message_delta", "delta": {"stop_reason": 5, "stop_details": "x"}},
            {"type": "message_start", "message": "x"},
            {"type": "message_start", "message": {"content": [5, "x"], "usage": 5}},
            {"type": "content_block_stop", "index": None},
        ],
        ids=str,
    )
    def test_a_field_of_a_wrong_type_does_not_kill_the_stream(self, odd: Any) -> None:
        """What cannot be understood is skipped; the rest of the answer arrives."""
        got = decode(begin(), *text(0, "a"), odd, *text(1, "b"), *end())
        assert got.completion.text == "ab"
        assert got.events[-1] == Finish("stop", "end_turn")

    def test_what_is_not_json_is_a_protocol_error(self) -> None:
        """Broken JSON is reported."""
        with pytest.raises(ProtocolError, match="not valid JSON"):
            ROW.decoder().decode(sse('{"type": 5, "delta": {'))


class TestStart:
    @pytest.mark.parametrize(
        ("message", "started"),
        [
            ({"id": "i", "model": "m"}, StreamStart("m", "i")),
            ({"id": "", "model": ""}, StreamStart(None, None)),
            ({"content": None, "usage": None}, StreamStart(None, None)),
            (None, StreamStart(None, None)),
        ],
    )
    def test_the_start_names_model_and_id(self, message: Any, started: StreamStart) -> None:
        """The stream's start carries the model and the identifier, where they are given."""
        assert decode({"type": "message_start", "message": message}, *end()).events[0] == started

    def test_a_second_message_start_does_not_start_again(self) -> None:
        """A proxy's duplicate is no second answer."""
        got = decode(
            begin({"input_tokens": 3}),
            begin({"input_tokens": 4}, id="msg_2"),
            *text(0, "Hi"),
            *end(),
        )
        assert [event for event in got.events if isinstance(event, StreamStart)] == [
            StreamStart("m", "msg_1")
        ]
        assert got.completion.text == "Hi"

    def test_content_may_stand_inside_message_start(self) -> None:
        """Blocks that come whole with the start are told like any others."""
        content = [
            {"type": "thinking", "thinking": "Hm", "signature": "s"},
            {"type": "text", "text": "Hi"},
            {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
            {"type": "brand_new"},
        ]
        got = decode(begin(content=content, stop_reason="tool_use"), STOP)
        assert got.events[1:] == [
            ReasoningDelta("Hm", "s"),
            TextDelta("Hi"),
            ToolCallDelta(0, "a", "f"),
            ToolCallDelta(0, arguments='{"x":1}'),
            ToolCall("a", "f", {"x": 1}, '{"x":1}'),
            Unknown("brand_new", {"type": "brand_new"}),
            Finish("tool_calls", "tool_use"),
        ]


class TestToolCalls:
    @pytest.mark.parametrize(
        ("wire", "events"),
        [
            (
                tool(0, "", '{"x":', " 1}"),
                [
                    ToolCallDelta(0, "a", "f"),
                    ToolCallDelta(0, arguments='{"x":'),
                    ToolCallDelta(0, arguments=" 1}"),
                    ToolCall("a", "f", {"x": 1}, '{"x": 1}'),
                ],
            ),
            (tool(0, ""), [ToolCallDelta(0, "a", "f"), ToolCall("a", "f", {}, "")]),
            (tool(0), [ToolCallDelta(0, "a", "f"), ToolCall("a", "f", {}, "")]),
            (
                tool(0, input={"x": [1]}),
                [
                    ToolCallDelta(0, "a", "f"),
                    ToolCallDelta(0, arguments='{"x":[1]}'),
                    ToolCall("a", "f", {"x": [1]}, '{"x":[1]}'),
                ],
            ),
            (
                tool(0, '{"x":2}', input={"x": 1}),
                [
                    ToolCallDelta(0, "a", "f"),
                    ToolCallDelta(0, arguments='{"x":2}'),
                    ToolCall("a", "f", {"x": 2}, '{"x":2}'),
                ],
            ),
            (
                [start(0, "tool_use", id="a", name="f"), close(0)],
                [ToolCallDelta(0, "a", "f"), ToolCall("a", "f", {}, "")],
            ),
            (
                [start(3, "tool_use", id="a", name="f"), start(3, "tool_use", id="b", name="g")],
                [
                    ToolCallDelta(0, "a", "f"),
                    ToolCall("a", "f", {}, ""),
                    ToolCallDelta(1, "b", "g"),
                    ToolCall("b", "g", {}, ""),
                ],
            ),
        ],
        ids=["pieces", "empty piece", "no piece", "whole", "both", "no input", "never closed"],
    )
    def test_a_call_arrives(self, wire: list[Any], events: list[Any]) -> None:
        """Input comes in pieces, whole, empty or not at all, and is one parsed call."""
        assert answer(*wire) == events

    def test_interleaved_calls_stay_apart(self) -> None:
        """Fragments go to the block that they name."""
        got = decode(
            begin(),
            start(1, "tool_use", id="a", name="f", input={}),
            start(2, "tool_use", id="b", name="g", input={}),
            delta(2, "input_json_delta", partial_json='{"y":'),
            delta(1, "input_json_delta", partial_json='{"x":1}'),
            delta(2, "input_json_delta", partial_json="2}"),
            close(2),
            close(1),
            *end("tool_use"),
        )
        assert [(one.id, one.arguments) for one in got.completion.tool_calls] == [
            ("a", {"x": 1}),
            ("b", {"y": 2}),
        ]
        assert got.events[-1] == Finish("tool_calls", "tool_use")

    def test_cut_input_is_an_error_and_not_an_empty_object(self) -> None:
        """A call whose JSON the limit has cut is told with its text and with what is wrong."""
        got = decode(begin(), *tool(0, '{"path": "/tm'), *end("max_tokens"))
        (cut,) = got.completion.tool_calls
        assert (cut.arguments, cut.arguments_text) == ({}, '{"path": "/tm')
        assert cut.error is not None
        assert "not valid JSON" in cut.error
        assert got.events[-1] == Finish("length", "max_tokens")

    def test_a_call_in_a_stream_that_was_cut_is_not_whole(self) -> None:
        """Without its block's end no call is delivered."""
        got = decode(begin(), *tool(0, "{}")[:-1])
        assert isinstance(got.error, ConnectionLost)
        assert not any(isinstance(event, ToolCall) for event in got.events)

    def test_a_delivered_call_beats_end_turn(self) -> None:
        """A look-alike that ends with `end_turn` after a call asks for a tool all the same."""
        got = decode(begin(), *tool(0, "{}"), *end("end_turn"))
        assert got.events[-1] == Finish("tool_calls", "end_turn")


class TestCitations:
    @pytest.mark.parametrize(
        ("raw", "citation"),
        [
            (
                {"type": "web_search_result_location", "url": "u", "title": "t", "cited_text": "c"},
                ("u", "t", "c"),
            ),
            (
                {"type": "char_location", "document_title": "t", "cited_text": "c"},
                (None, "t", "c"),
            ),
            ({"type": "search_result_location", "source": "u", "title": None}, ("u", None, None)),
            ("odd", (None, None, None)),
            (None, (None, None, None)),
        ],
        ids=str,
    )
    def test_a_citation_is_read(self, raw: Any, citation: tuple[Any, ...]) -> None:
        """Address, title and passage are found, in a delta or in the block's start."""
        expected = Citation(*citation, raw)
        assert answer(delta(0, "citations_delta", citation=raw)) == [expected]
        assert answer(start(0, "text", text="", citations=[raw])) == [expected]


class TestUsage:
    def test_later_figures_overlay_earlier_ones(self) -> None:
        """`message_delta` raises what `message_start` said; a null and a silence change nothing."""
        got = decode(
            begin(
                {"input_tokens": 3, "cache_read_input_tokens": 10, "output_tokens": 1, "x": None}
            ),
            *end(usage={"input_tokens": 7, "cache_read_input_tokens": None, "output_tokens": 20}),
        )
        raw = {"input_tokens": 7, "cache_read_input_tokens": 10, "output_tokens": 20, "x": None}
        assert got.completion.usage == Usage(17, 20, 10, None, raw)

    @pytest.mark.parametrize(
        ("raw", "figures"),
        [
            ({"output_tokens": 2}, (None, 2, None, None, None)),
            (
                {
                    "input_tokens": 1,
                    "cache_creation_input_tokens": 2,
                    "cache_read_input_tokens": 4,
                    "output_tokens": 8,
                    "output_tokens_details": {"thinking_tokens": 5},
                },
                (7, 8, 4, 5, 2),
            ),
            ({"input_tokens": "1", "output_tokens_details": "x"}, (None,) * 5),
            ({"output_tokens_details": {"thinking_tokens": None}}, (None,) * 5),
        ],
    )
    def test_the_figures_are_normalised(self, raw: Any, figures: tuple[Any, ...]) -> None:
        """Input counts all of the prompt; what was read from the cache or written is of it."""
        *counts, written = figures
        assert decode(begin(raw), *end()).completion.usage == Usage(*counts, raw, written)

    def test_no_usage_is_none(self) -> None:
        """A look-alike that says nothing of usage gets no made-up zeros."""
        assert decode(begin(), *end()).completion.usage is None

    def test_usage_before_a_cut_is_saved(self) -> None:
        """What was used up is told even if the answer breaks off."""
        got = decode(begin({"input_tokens": 3}), *text(0, "Hi"))
        assert isinstance(got.error, ConnectionLost)
        assert got.events[-1] == Usage(3, None, None, None, {"input_tokens": 3})


class TestFinish:
    @pytest.mark.parametrize(
        ("word", "reason"),
        [
            ("end_turn", "stop"),
            ("stop_sequence", "stop"),
            ("max_tokens", "length"),
            ("model_context_window_exceeded", "length"),
            ("tool_use", "tool_calls"),
            ("refusal", "content_filter"),
            ("pause_turn", "pause"),
            ("compaction", "pause"),
            ("newly_invented", "other"),
            (None, "other"),
        ],
    )
    def test_the_words_are_translated(self, word: str | None, reason: Any) -> None:
        """Every stop reason has one of our words, and stays readable as `raw_reason`."""
        assert decode(begin(), *end(word)).events[-1] == Finish(reason, word)

    @pytest.mark.parametrize("explanation", ["It is unsafe.", None])
    def test_a_refusal_explains_itself(self, explanation: str | None) -> None:
        """The explanation of a refusal, which may have no block at all, is the finish's message."""
        details = {"type": "refusal", "category": "cyber", "explanation": explanation}
        got = decode(begin(), *end("refusal", stop_details=details, container=None))
        assert got.events[1:] == [Finish("content_filter", "refusal", explanation)]

    def test_a_refusal_may_come_after_half_a_call(self) -> None:
        """A call that the refusal has cut is told as an error."""
        got = decode(begin(), *tool(0, '{"x')[:-1], *end("refusal"))
        (cut,) = got.completion.tool_calls
        assert cut.error is not None
        assert got.events[-1] == Finish("content_filter", "refusal")

    def test_a_later_null_does_not_erase_the_reason(self) -> None:
        """A second `message_delta` without a reason changes nothing."""
        got = decode(begin(), end("max_tokens")[0], *end(None))
        assert got.events[-1] == Finish("length", "max_tokens")

    @pytest.mark.parametrize("wire", [[], [begin()], [begin(), *text(0, "Hi")]], ids=len)
    def test_a_stream_without_message_stop_was_cut(self, wire: list[Any]) -> None:
        """Only `message_stop` ends an answer."""
        got = decode(*wire)
        assert isinstance(got.error, ConnectionLost)
        assert not any(isinstance(event, Finish) for event in got.events)

    def test_a_stop_reason_alone_does_not_end_the_answer(self) -> None:
        """A stream cut between the reason and the end was cut, and keeps the word."""
        got = decode(begin(), *text(0, "Hi"), end()[0])
        assert isinstance(got.error, ConnectionLost)
        assert got.raw_finish_reason == "end_turn"

    def test_nothing_after_message_stop_counts(self) -> None:
        """What follows the end, such as a stray `[DONE]`, is not part of the answer."""
        assert (
            decode(begin(), *text(0, "Hi"), *end(), "[DONE]", *text(1, "x")).completion.text == "Hi"
        )


class TestStreamErrors:
    @pytest.mark.parametrize(
        ("kind", "cls", "status"),
        [
            ("overloaded_error", ServerError, 529),
            ("rate_limit_error", RateLimitError, 429),
            ("api_error", ServerError, 500),
            ("timeout_error", ServerError, 504),
            ("invalid_request_error", InvalidRequestError, 400),
            ("authentication_error", AuthenticationError, 401),
            ("permission_error", AuthenticationError, 403),
            ("newly_invented", ServerError, 500),
        ],
    )
    @pytest.mark.parametrize("name", ["error", "message"])
    def test_an_error_event_is_raised(
        self, kind: str, cls: type[APIError], status: int, name: str
    ) -> None:
        """An error's type stands for the status that it would have had."""
        said = {"type": "error", "error": {"details": None, "type": kind, "message": "Sorry"}}
        got = decode(begin({"input_tokens": 3}), *text(0, "Hi"), sse(said, name))
        assert got.completion.text == "Hi"
        assert isinstance(got.events[-1], Usage)
        assert type(got.error) is cls
        assert isinstance(got.error, APIError)
        assert (got.error.status, got.error.code) == (status, kind)
        assert (got.error.detail, got.error.body) == ("Sorry", said)

    def test_an_error_may_be_the_only_event(self) -> None:
        """An error before any message is the error, not a cut."""
        got = decode(sse({"type": "error", "error": {"type": "api_error"}}, "error"))
        assert isinstance(got.error, ServerError)
        assert got.events == []

    @pytest.mark.parametrize(
        "data", ["Overloaded", '"Overloaded"', {"error": "Overloaded"}], ids=str
    )
    def test_an_event_named_error_is_one(self, data: Any) -> None:
        """`event: error` raises, whatever its data looks like."""
        got = decode(begin(), sse(data, "error"))
        assert isinstance(got.error, ServerError)
        assert got.error.detail == "Overloaded"

    def test_an_error_without_a_type_is_one(self) -> None:
        """A gateway's error object needs no type."""
        assert isinstance(decode({"error": {"message": "boom"}}).error, ServerError)

    def test_an_error_after_the_stop_reason_is_still_raised(self) -> None:
        """An answer that stopped and then failed has failed, with its word for the end kept."""
        got = decode(begin(), end()[0], {"type": "error", "error": {"type": "api_error"}})
        assert isinstance(got.error, ServerError)
        assert got.raw_finish_reason == "end_turn"


class TestErrorBodies:
    def test_a_body_is_read(self) -> None:
        """Type, message and the request's identifier are found."""
        said = {"type": "error", "error": {"type": "t", "message": "m"}, "request_id": "req_1"}
        error = ROW.error(413, {}, json.dumps(said).encode())
        assert type(error) is InvalidRequestError
        assert (error.status, error.code, error.detail) == (413, "t", "m")
        assert (error.request_id, error.body) == ("req_1", said)

    @pytest.mark.parametrize(
        ("said", "id_"), [({"request_id": "b"}, "h"), ({"request_id": 5}, "h"), ("text", "h")]
    )
    def test_the_header_names_the_request_first(self, said: Any, id_: str) -> None:
        """The header's identifier counts before the body's."""
        assert ROW.error(500, {"request-id": "h"}, json.dumps(said).encode()).request_id == id_
        assert ROW.error(500, {}, b'{"request_id": 5}').request_id is None

    @pytest.mark.parametrize(
        ("status", "headers", "retryable", "wait_s"),
        [
            (429, {"retry-after": "17"}, True, 17),
            (429, {"x-should-retry": "false"}, False, None),
            (529, {}, True, None),
            (400, {"x-should-retry": "true"}, True, None),
            (400, {}, False, None),
        ],
    )
    def test_the_headers_say_what_to_do(
        self, status: int, headers: dict[str, str], retryable: bool, wait_s: float | None
    ) -> None:
        """`x-should-retry` decides, `retry-after` says when."""
        error = ROW.error(status, headers, b"{}")
        assert (error.retryable, error.retry_after_s) == (retryable, wait_s)

    def test_an_unknown_model_names_the_default(self) -> None:
        """The message for an unknown model says which default there is and how to override it."""
        said = {"error": {"type": "not_found_error", "message": "model: claude-old"}}
        error = ROW.error(404, {}, json.dumps(said).encode())
        assert f"default model is {ROW.model!r}" in str(error)
        assert "ANTHROPIC_MODEL" in str(error)


class TestRequest:
    def test_the_least(self) -> None:
        """A plain question is one user turn, streamed, with the limit that the format demands."""
        assert body_of("anthropic") == {
            "model": "m",
            "max_tokens": 16384,
            "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
            "stream": True,
        }

    @pytest.mark.parametrize(
        ("arguments", "fields"),
        [
            ({"system": "Be brief."}, {"system": "Be brief."}),
            ({"max_tokens": 5}, {"max_tokens": 5}),
            ({"temperature": 0}, {"temperature": 0.0}),
            ({"top_p": 0.5}, {"top_p": 0.5}),
            ({"stop": ["a", "b"]}, {"stop_sequences": ["a", "b"]}),
            ({"tool_choice": "auto"}, {"tool_choice": {"type": "auto"}}),
            ({"tool_choice": "none"}, {"tool_choice": {"type": "none"}}),
            ({"tool_choice": "required"}, {"tool_choice": {"type": "any"}}),
            ({"tool_choice": "f"}, {"tool_choice": {"type": "tool", "name": "f"}}),
            ({"tool_choice": {"type": "x"}}, {"tool_choice": {"type": "x"}}),
            (
                {"tools": [{"type": "function", "function": {"name": "f", "description": "d"}}]},
                {
                    "tools": [
                        {
                            "name": "f",
                            "description": "d",
                            "input_schema": {"type": "object", "properties": {}},
                        }
                    ]
                },
            ),
            (
                {"tools": [{"type": "function", "function": {"name": "f"}}]},
                {"tools": [{"name": "f", "input_schema": {"type": "object", "properties": {}}}]},
            ),
            (
                {"tools": [{"type": "web_search_20260101", "name": "web_search"}]},
                {"tools": [{"type": "web_search_20260101", "name": "web_search"}]},
            ),
            (
                {"extra_body": {"thinking": {"type": "adaptive"}}},
                {"thinking": {"type": "adaptive"}},
            ),
        ],
        ids=str,
    )
    def test_each_argument_has_its_field(
        self, arguments: dict[str, Any], fields: dict[str, Any]
    ) -> None:
        """Each argument adds exactly its own field to the body."""
        assert body_of("anthropic", **arguments) == {**body_of("anthropic"), **fields}

    def test_extra_body_reaches_into_objects(self) -> None:
        """The caller's fields are merged into ours, object by object."""
        got = body_of(
            "anthropic",
            tool_choice="auto",
            extra_body={"tool_choice": {"disable_parallel_tool_use": True}},
        )
        assert got["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}

    def test_a_tool_loop_is_translated(self) -> None:
        """Calls become `tool_use`, results `tool_result`; neighbours of one role are one turn."""
        messages = [
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "content": "Let me see.",
                "tool_calls": [
                    {
                        "id": "a",
                        "type": "function",
                        "function": {"name": "f", "arguments": '{"x":1}'},
                    },
                    {"id": "b", "type": "function", "function": {"name": "g", "arguments": ""}},
                ],
            },
            {"role": "tool", "tool_call_id": "a", "content": "sun", "name": "f"},
            {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "rain"}]},
            {"role": "user", "content": "And now?"},
        ]
        assert body_of("anthropic", messages=messages)["messages"] == [
            {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "Let me see."},
                    {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
                    {"type": "tool_use", "id": "b", "name": "g", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "a",
                        "content": [{"type": "text", "text": "sun"}],
                    },
                    {
                        "type": "tool_result",
                        "tool_use_id": "b",
                        "content": [{"type": "text", "text": "rain"}],
                    },
                    {"type": "text", "text": "And now?"},
                ],
            },
        ]

    def test_own_content_blocks_pass(self) -> None:
        """A block in Anthropic's own shape is sent as it is."""
        block = {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}
        got = body_of("anthropic", messages=[{"role": "user", "content": [block]}])
        assert got["messages"][0]["content"] == [block]

    @pytest.mark.parametrize(
        ("part", "block"),
        [
            (
                image_part("https://h/x"),
                {"type": "image", "source": {"type": "url", "url": "https://h/x"}},
            ),
            (
                image_part(b"x", "image/webp"),
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/webp", "data": "eA=="},
                },
            ),
            (
                {**image_part(b"x", "image/png"), "cache_control": {"type": "ephemeral"}},
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/png", "data": "eA=="},
                    "cache_control": {"type": "ephemeral"},
                },
            ),
            (
                file_part(b"x", "image/png"),
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/png", "data": "eA=="},
                },
            ),
            (
                file_part(b"x", "application/pdf", "a.pdf"),
                {
                    "type": "document",
                    "source": {"type": "base64", "media_type": "application/pdf", "data": "eA=="},
                    "title": "a.pdf",
                },
            ),
            (
                file_part("h\u00e9".encode(), "text/markdown"),
                {
                    "type": "document",
                    "source": {"type": "text", "media_type": "text/plain", "data": "h\u00e9"},
                    "title": "file.md",
                },
            ),
            (
                file_part("https://h/x"),
                {"type": "document", "source": {"type": "url", "url": "https://h/x"}},
            ),
            (
                file_part("https://h/x.png"),
                {"type": "image", "source": {"type": "url", "url": "https://h/x.png"}},
            ),
            (
                {"type": "file", "file": {"file_id": "f"}},
                {"type": "document", "source": {"type": "file", "file_id": "f"}},
            ),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("role", ["user", "tool"])
    def test_pictures_and_documents(
        self, part: dict[str, Any], block: dict[str, Any], role: str
    ) -> None:
        """Parts in OpenAI's shape become Anthropic's blocks, in a question and in a result."""
        message = {"role": role, "content": [part]}
        if role == "tool":
            message["tool_call_id"] = "a"
        (turn,) = body_of("anthropic", messages=[message])["messages"]
        content = turn["content"][0]["content"] if role == "tool" else turn["content"]
        assert content == [block]

    DETAILS = [
        {"type": "reasoning.text", "text": "A", "signature": "s", "format": "anthropic"},
        {"type": "reasoning.encrypted", "data": "B", "format": "anthropic"},
        {"type": "reasoning.text", "text": "unsigned", "format": "anthropic"},
        {"type": "reasoning.text", "text": "C", "signature": "t", "format": "gemini"},
        {"type": "reasoning.text", "text": "", "signature": "u", "format": "anthropic-claude-v1"},
        {"type": "reasoning.text", "text": "D", "signature": "v", "after_chars": 2},
    ]

    @pytest.mark.parametrize("content", ["Hi there", "Hi", "  there", None, [{"type": "text"}]])
    def test_thinking_goes_back_where_it_stood(self, content: Any) -> None:
        """Anthropic's own signed blocks are sent, in their order; no text is blank or lost."""
        message = {"role": "assistant", "content": content, "reasoning_details": self.DETAILS}
        turn = body_of("anthropic", prompt="?", messages=[message])["messages"][0]

        def text(text: str) -> dict[str, Any]:
            return {"type": "text", "text": text}

        last = {"type": "thinking", "thinking": "D", "signature": "v"}
        tails: dict[str, Any] = {
            "Hi there": [text("Hi"), last, text(" there")],
            "Hi": [text("Hi"), last],
            "  there": [last, text("  there")],
            "None": [last],
            str([{"type": "text"}]): [last, {"type": "text"}],
        }
        assert turn["content"] == [
            {"type": "thinking", "thinking": "A", "signature": "s"},
            {"type": "redacted_thinking", "data": "B"},
            {"type": "thinking", "thinking": "", "signature": "u"},
            *tails[str(content)],
        ]

    def test_what_was_thought_comes_back_as_it_came(self) -> None:
        """An answer's thinking, decoded and sent again, is the same blocks."""
        blocks = [
            {"type": "thinking", "thinking": "Hm", "signature": "s"},
            {"type": "text", "text": "Let me see."},
            {"type": "redacted_thinking", "data": "xyz"},
            {"type": "thinking", "thinking": "Oh", "signature": "t"},
            {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
        ]
        answer = {"type": "message", "role": "assistant", "content": blocks, "stop_reason": None}
        got = Decoded("anthropic", *ROW.retold(answer)).completion
        message = msgspec.structs.replace(got, provider="anthropic").message()
        sent = body_of("anthropic", prompt="?", messages=[message])["messages"]
        assert sent[0] == {"role": "assistant", "content": blocks}

    @pytest.mark.parametrize(
        ("message", "said"),
        [
            ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, "image_url"),
            ({"role": "user", "content": [image_part("gs://b/x.png")]}, "fetches no 'gs://"),
            ({"role": "user", "content": [image_part(b"x", "image/bmp")]}, "takes no image/bmp"),
            ({"role": "user", "content": [file_part(b"x", "a/b")]}, "takes no a/b"),
            ({"role": "user", "content": [file_part(b"\xff", "text/plain")]}, "must be UTF-8"),
            ({"role": "user", "content": [file_part("https://h/a.txt")]}, "not text/plain"),
            (
                {
                    "role": "user",
                    "content": [
                        {"type": "input_audio", "input_audio": {"data": "eA==", "format": "wav"}}
                    ],
                },
                "takes no audio/wav",
            ),
            ({"role": "tool", "content": "x"}, "tool_call_id"),
            ({"role": "user", "content": "x", "name": "Ann"}, "name of a speaker"),
            ({"role": "assistant", "tool_calls": [{"id": "a"}]}, "must look like"),
        ],
        ids=str,
    )
    def test_what_it_cannot_take_is_refused(self, message: Any, said: str) -> None:
        """Nothing of a message is dropped in silence."""
        messages = [{"role": "user", "content": "Hi"}, message]
        with pytest.raises(ConfigurationError, match=said):
            body_of("anthropic", messages=messages)

    def test_where_it_goes_and_how_the_key_travels(self) -> None:
        """The key is in the credentials and nowhere else."""
        request = ROW.request(ask(), KEY, "https://host")
        assert request.url == "https://host/v1/messages"
        assert request.headers == {
            "Content-Type": "application/json",
            "anthropic-version": "2023-06-01",
        }
        assert request.credentials == {"x-api-key": KEY}
        assert KEY not in repr(request)
        assert KEY.encode() not in request.body


class TestAccept:
    HEADERS = {"x-api-key": "any", "anthropic-version": "2023-06-01"}
    BODY = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]}

    def accept(self, headers: dict[str, str], body: Any) -> Any:
        """Read a request at the endpoint's path."""
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        return ROW.accept("/v1/messages", headers, sent)

    @pytest.mark.parametrize("key", [{"x-api-key": "k"}, {"authorization": "Bearer k"}])
    @pytest.mark.parametrize("version", ["2023-06-01", "2026-10-21"])
    def test_a_request_is_read(self, key: dict[str, str], version: str) -> None:
        """Either header may carry the key, and any version is good."""
        request = ROW.request(ask(prompt="Hi there"), KEY, "https://host")
        got = self.accept({**key, "anthropic-version": version}, request.body)
        assert (got.model, got.stream, got.usage, got.prompt) == ("m", True, True, "Hi there")

    @pytest.mark.parametrize("content", ["Hi", [{"type": "text", "text": "Hi"}, {"x": 1}, 5]])
    def test_the_prompt_is_the_last_turn(self, content: Any) -> None:
        """The content may be a text or a list of blocks."""
        body = {**self.BODY, "messages": [{"role": "user", "content": content}]}
        got = self.accept(self.HEADERS, body)
        assert (got.prompt, got.stream) == ("Hi", False)

    def test_an_odd_content_has_no_text(self) -> None:
        """A content of a wrong type counts as an empty prompt."""
        body = {**self.BODY, "messages": [{"role": "user", "content": 5}]}
        assert self.accept(self.HEADERS, body).prompt == ""

    @pytest.mark.parametrize("key", [{}, {"x-api-key": ""}, {"authorization": "Bearer"}])
    def test_no_key_is_refused(self, key: dict[str, str]) -> None:
        """Without a key the answer is 401."""
        with pytest.raises(AuthenticationError) as caught:
            self.accept({"anthropic-version": "2023-06-01", **key}, self.BODY)
        assert caught.value.status == 401

    def test_no_version_is_refused(self) -> None:
        """The version's header is required."""
        with pytest.raises(InvalidRequestError, match="anthropic-version"):
            self.accept({"x-api-key": "k"}, self.BODY)

    @pytest.mark.parametrize("name", ["model", "max_tokens", "messages"])
    def test_a_missing_field_is_refused(self, name: str) -> None:
        """Model, limit and messages are required."""
        body = {field: value for field, value in self.BODY.items() if field != name}
        with pytest.raises(InvalidRequestError, match=f"{name}: Field required"):
            self.accept(self.HEADERS, body)

    @pytest.mark.parametrize("body", [b"", b"[]", b"{", b"[" * 9000])
    def test_what_is_no_object_is_refused(self, body: bytes) -> None:
        """The body must be a JSON object."""
        with pytest.raises(InvalidRequestError, match="not valid JSON"):
            self.accept(self.HEADERS, body)

    @pytest.mark.parametrize("messages", [["x"], [{"role": "assistant", "content": "Hi"}]])
    def test_a_conversation_must_end_with_the_user(self, messages: list[Any]) -> None:
        """A prefilled assistant turn is refused, as current models do."""
        with pytest.raises(InvalidRequestError, match="must end with a user message"):
            self.accept(self.HEADERS, {**self.BODY, "messages": messages})


class TestErrorBody:
    @pytest.mark.parametrize(
        ("status", "code", "kind"),
        [
            (429, None, "rate_limit_error"),
            (529, None, "overloaded_error"),
            (418, None, "api_error"),
            (500, "newly_invented", "api_error"),
            (400, "overloaded_error", "overloaded_error"),
        ],
    )
    def test_a_written_error_has_anthropics_words(
        self, status: int, code: str | None, kind: str
    ) -> None:
        """The error's type follows from its code, or from the status."""
        written = ROW.error_body(ROW.api_error(status, "m", code=code))
        assert json.loads(written) == {"type": "error", "error": {"type": kind, "message": "m"}}


class TestEncoder:
    def test_a_refusal_goes_out_as_text(self) -> None:
        """The format has no refusal text of its own."""
        encoder = ROW.encoder(model="m")
        assert b'"text":"No."' in encoder.encode(RefusalDelta("No."))
