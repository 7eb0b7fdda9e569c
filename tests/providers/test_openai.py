from __future__ import annotations

import json
from typing import Any

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
from llm_sse.providers.openai import OpenAI
from tests.providers.bodies import KEY, Decoded, ask, body_of, sse

ROW = PROVIDERS["openai"]
DONE = "[DONE]"
USAGE = {"prompt_tokens": 4, "completion_tokens": 6, "total_tokens": 10}


def chunk(delta: Any = None, finish: Any = None, **fields: Any) -> dict[str, Any]:
    """Return a chunk with one choice, without the keys that were not given."""
    choice = {"index": 0, "delta": {} if delta is None else delta}
    if finish is not None:
        choice["finish_reason"] = finish
    return {"id": "c1", "model": "m", "choices": [choice], **fields}


def call(**fragment: Any) -> dict[str, Any]:
    """Return a chunk with one tool fragment; `name` and `arguments` go into its function."""
    names = [name for name in ("name", "arguments") if name in fragment]
    function = {name: fragment.pop(name) for name in names}
    return chunk({"tool_calls": [{**fragment, "function": function}]})


def decode(*wire: Any) -> Decoded:
    """Decode wire events and the end of the body."""
    return Decoded("openai", *wire)


def finished(*wire: Any, reason: str = "stop") -> Decoded:
    """Decode chunks that are followed by a finish reason and `[DONE]`."""
    return decode(*wire, chunk({}, reason), DONE)


def calls(decoded: Decoded) -> list[tuple[str | None, str, Any]]:
    """Return identifier, name and arguments of each call."""
    return [(one.id, one.name, one.arguments) for one in decoded.completion.tool_calls]


class TestText:
    @pytest.mark.parametrize(
        ("delta", "events"),
        [
            ({"content": "Hi"}, [TextDelta("Hi")]),
            ({"content": ""}, []),
            ({"content": None}, []),
            ({}, []),
            ({"role": "assistant"}, []),
            ({"role": "assistant", "content": "Hi", "refusal": None}, [TextDelta("Hi")]),
            ({"refusal": "No."}, [RefusalDelta("No.")]),
            ({"reasoning_content": "Hm"}, [ReasoningDelta("Hm")]),
            ({"reasoning": "Hm", "channel": "analysis"}, [ReasoningDelta("Hm")]),
            (
                {"reasoning_content": "Hm", "reasoning": "Hm", "content": "Hi"},
                [ReasoningDelta("Hm"), TextDelta("Hi")],
            ),
            ({"reasoning_content": None, "content": "Hi"}, [TextDelta("Hi")]),
        ],
    )
    def test_a_delta_becomes_what_it_holds(self, delta: Any, events: list[Any]) -> None:
        """Each field of a delta that holds something becomes one event."""
        assert finished(chunk(delta)).content == events

    @pytest.mark.parametrize(
        ("content", "events"),
        [
            ([{"type": "text", "text": "Hi"}], [TextDelta("Hi")]),
            ([{"type": "text", "text": ""}], []),
            (["Hi"], [TextDelta("Hi")]),
            (
                [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}],
                [ReasoningDelta("Hm")],
            ),
            ([{"type": "thinking", "thinking": "Hm"}], [ReasoningDelta("Hm")]),
            ([{"type": "thinking", "thinking": [{"type": "text", "text": ""}, 5]}], []),
            (
                [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]},
                    {"type": "text", "text": "Hi"},
                ],
                [ReasoningDelta("Hm"), TextDelta("Hi")],
            ),
            (
                [{"type": "reference", "reference_ids": [1]}],
                [Unknown("reference", {"type": "reference", "reference_ids": [1]})],
            ),
            ([7], [Unknown("content", 7)]),
        ],
    )
    def test_content_may_be_a_list(self, content: Any, events: list[Any]) -> None:
        """A list of content parts is read part by part."""
        assert finished(chunk({"content": content})).content == events

    def test_content_may_switch_from_lists_to_strings(self) -> None:
        """A stream that begins with thinking parts may go on with plain text."""
        thinking = [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}]
        got = finished(chunk({"content": thinking}), chunk({"content": "Hi"}))
        assert got.content == [ReasoningDelta("Hm"), TextDelta("Hi")]

    def test_a_cumulative_message_beside_the_delta_is_not_told_again(self) -> None:
        """Only the delta counts where a server repeats the whole message so far."""
        one, two = chunk({"content": "a"}), chunk({"content": "b"}, "stop")
        one["choices"][0]["message"] = {"role": "assistant", "content": "a"}
        two["choices"][0]["message"] = {"role": "assistant", "content": "ab"}
        last = chunk({"content": ""}, "stop", object="chat.completion.done")
        last["choices"][0]["message"] = {"role": "assistant", "content": "ab"}
        assert decode(one, two, last).completion.text == "ab"

    def test_a_duplicate_of_the_delta_beside_it_is_not_told_again(self) -> None:
        """A choice's `text` beside its delta is the same text."""
        doubled = chunk({"content": "Hi"})
        doubled["choices"][0]["text"] = "Hi"
        assert finished(doubled).completion.text == "Hi"

    def test_padding_and_extra_fields_are_dropped(self) -> None:
        """Fields that carry nothing for the caller leave no trace."""
        padded = chunk(
            {"content": "Hi"},
            obfuscation="x8s",
            p="abc",
            system_fingerprint=None,
            service_tier="default",
            provider="Somebody",
            time_info={"queue": 0.1},
            created=0,
            seed=2**60,
            content_filter_offsets={"start": 1},
        )
        padded["choices"][0]["logprobs"] = {"content": None}
        padded["choices"][0]["content_filter_results"] = {"hate": {"filtered": False}}
        padded["choices"][0]["native_finish_reason"] = None
        assert finished(padded).content == [TextDelta("Hi")]

    def test_only_choice_0_is_the_answer(self) -> None:
        """Interleaved further choices become `Unknown` and finish nothing."""

        def of(index: int, content: str, finish: str | None = None) -> dict[str, Any]:
            choice = {"index": index, "delta": {"content": content}, "finish_reason": finish}
            return {"id": "c1", "choices": [choice]}

        got = decode(of(0, "a"), of(1, "x"), of(0, "b", "stop"), of(1, "y", "length"), DONE)
        assert got.completion.text == "ab"
        assert [event.kind for event in got.events if isinstance(event, Unknown)] == ["choice"] * 2
        assert got.events[-1] == Finish("stop", "stop")


class TestStart:
    def test_the_first_chunk_names_model_and_id(self) -> None:
        """The stream's start carries the model and the identifier."""
        assert finished(chunk({"role": "assistant"})).events[0] == StreamStart("m", "c1")

    def test_a_first_chunk_without_choices_waits_for_the_names(self) -> None:
        """A prompt's filter results come first, with empty names: the start is the next chunk."""
        first = {"id": "", "model": "", "created": 0, "choices": [], "prompt_filter_results": []}
        got = finished(first, chunk({"content": "Hi"}))
        assert got.events[:2] == [StreamStart("m", "c1"), TextDelta("Hi")]

    def test_empty_names_are_no_names(self) -> None:
        """An answer without an identifier has none, not an empty one."""
        got = decode(chunk({"content": "Hi"}, "stop", id="", model=""))
        assert got.events[0] == StreamStart(None, None)

    def test_there_is_one_start_only(self) -> None:
        """However many chunks repeat the role, the stream starts once."""
        got = finished(chunk({"role": "assistant"}), chunk({"role": "assistant"}))
        assert [type(event) for event in got.events] == [StreamStart, Finish]


class TestWhatMayBeMissing:
    @pytest.mark.parametrize(
        "odd",
        [
            {},
            {"choices": None},
            {"choices": []},
            {"choices": [{}]},
            {"choices": [{"index": 0}]},
            {"choices": [{"index": 0, "delta": None, "finish_reason": None}]},
            {"choices": [{"index": None, "delta": {}, "finish_reason": ""}]},
            {"choices": [{"delta": {"tool_calls": None, "function_call": None}}]},
            {"choices": [{"delta": {"tool_calls": []}}]},
            {"choices": [{"delta": {"tool_calls": [{}]}}]},
            {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": None}]}}]},
            {"choices": [{"delta": {"function_call": {}}}]},
            {"choices": [{"delta": {"reasoning_details": [], "annotations": []}}]},
            {"choices": [{"delta": {"role": "assistant", "content": None}}], "prompt_progress": {}},
            {"usage": None},
            {"usage": {}},
            {"x_groq": None},
            {"x_groq": {"id": "req"}},
            {"error": None, "object": None},
            {"type": "ping"},
        ],
        ids=str,
    )
    def test_nothing_said_is_nothing_told(self, odd: Any) -> None:
        """Whatever is missing, null or empty, the rest of the answer arrives."""
        got = finished(chunk({"content": "a"}), odd, chunk({"content": "b"}))
        assert got.content == [TextDelta("a"), TextDelta("b")]
        assert got.events[-1] == Finish("stop", "stop")

    @pytest.mark.parametrize(
        "odd",
        [
            {"id": 5, "model": ["m"], "choices": "none"},
            {"choices": [5, None, "x"]},
            {"choices": {"0": {}}},
            {"choices": [{"delta": "text"}]},
            {"choices": [{"delta": {"content": 5}}]},
            {"choices": [{"delta": {"reasoning": {"text": "x"}}}]},
            {"choices": [{"delta": {"tool_calls": "x"}}]},
            {"choices": [{"delta": {"tool_calls": [5]}}]},
            {"choices": [{"delta": {"annotations": [5], "reasoning_details": ["x"]}}]},
            {"choices": [{"finish_reason": 5}]},
            {"usage": "much"},
            {"x_groq": "x"},
            {"citations": [5, None], "search_results": [{"url": 5}]},
            {"object": 5},
        ],
        ids=str,
    )
    def test_a_field_of_a_wrong_type_does_not_kill_the_stream(self, odd: Any) -> None:
        """What cannot be understood is skipped; the rest of the answer arrives."""
        got = finished(chunk({"content": "a"}), odd, chunk({"content": "b"}))
        assert got.content == [TextDelta("a"), TextDelta("b")]
        assert got.events[-1] == Finish("stop", "stop")

    def test_what_stands_beside_a_wrong_type_is_read(self) -> None:
        """A chunk with one wrong field still delivers its other ones."""
        odd = chunk({"content": "Hi", "refusal": 5}, id=7, usage={"prompt_tokens": 1})
        assert finished(odd).completion.text == "Hi"

    @pytest.mark.parametrize("data", ["5", '"text"', "[]", "[1]", "null"])
    def test_json_that_is_no_object_is_unknown(self, data: str) -> None:
        """A wire event that is no object becomes `Unknown` with its data."""
        got = finished(chunk({"content": "a"}), data)
        assert got.content[-1] == Unknown("message", json.loads(data))

    @pytest.mark.parametrize(
        "data", ["{", '{"id": 5, "choices": [', "nonsense", '{"x": ' + "[" * 9000]
    )
    def test_what_is_not_json_is_a_protocol_error(self, data: str) -> None:
        """Broken JSON is reported with its beginning, also behind a field of a wrong type."""
        with pytest.raises(ProtocolError) as caught:
            ROW.decoder().decode(sse(data))
        assert data[:20] in str(caught.value)

    def test_an_event_without_data_says_nothing(self) -> None:
        """An empty data line is skipped."""
        assert finished("", chunk({"content": "Hi"})).content == [TextDelta("Hi")]


class TestFinish:
    @pytest.mark.parametrize(
        ("word", "reason"),
        [
            ("stop", "stop"),
            ("eos", "stop"),
            ("eos_token", "stop"),
            ("stop_sequence", "stop"),
            ("end_turn", "stop"),
            ("length", "length"),
            ("max_tokens", "length"),
            ("model_length", "length"),
            ("tool_calls", "tool_calls"),
            ("function_call", "tool_calls"),
            ("content_filter", "content_filter"),
            ("error", "error"),
            ("insufficient_system_resource", "error"),
            ("network_error", "error"),
            ("sensitive", "content_filter"),
            ("model_context_window_exceeded", "length"),
            ("abort", "error"),
            ("newly_invented", "other"),
        ],
    )
    def test_the_words_are_translated(self, word: str, reason: Any) -> None:
        """Every server's word for the end has one of ours, and stays readable as `raw_reason`."""
        assert finished(chunk({}), reason=word).events[-1] == Finish(reason, word)

    @pytest.mark.parametrize("end", [[], [DONE], ["[DONE] "], [DONE, DONE]], ids=str)
    def test_a_finish_reason_ends_the_answer_with_or_without_done(self, end: list[str]) -> None:
        """Servers that never send `[DONE]` finish their answers all the same, and once."""
        got = decode(chunk({"content": "Hi"}), chunk({}, "stop"), *end)
        assert got.events[1:] == [TextDelta("Hi"), Finish("stop", "stop")]

    @pytest.mark.parametrize("end", [[], [DONE]], ids=["cut", "done"])
    def test_no_finish_reason_is_no_end(self, end: list[str]) -> None:
        """Without a finish reason the answer is incomplete, even if `[DONE]` was sent."""
        got = decode(chunk({"content": "Hi"}), *end)
        assert isinstance(got.error, ConnectionLost)
        assert got.error.retryable
        assert got.events[1:] == [TextDelta("Hi")]
        assert got.raw_finish_reason is None

    def test_an_empty_body_is_no_answer(self) -> None:
        """A body that never said anything was cut."""
        assert isinstance(decode().error, ConnectionLost)

    def test_nothing_after_done_counts(self) -> None:
        """What follows `[DONE]` is not part of the answer."""
        got = decode(chunk({"content": "Hi"}, "stop"), DONE, chunk({"content": "more"}))
        assert got.completion.text == "Hi"

    @pytest.mark.parametrize("later", [None, "", "missing"])
    def test_a_later_null_does_not_erase_the_reason(self, later: str | None) -> None:
        """An empty chunk after the finish reason changes nothing."""
        extra = chunk({"role": "assistant", "content": ""}, usage=USAGE)
        if later != "missing":
            extra["choices"][0]["finish_reason"] = later
        got = decode(chunk({"content": "Hi"}, "length"), extra, DONE)
        assert got.events[-1] == Finish("length", "length")

    def test_the_last_reason_counts(self) -> None:
        """A reason that comes again, or comes otherwise, is the one that holds."""
        got = decode(chunk({}, "stop"), chunk({}, "stop"), chunk({}, "length"), DONE)
        assert got.events[-1] == Finish("length", "length")

    def test_an_empty_reason_on_every_chunk_is_none(self) -> None:
        """A server that writes `""` for "not yet" does not finish on its first chunk."""
        first = chunk({"content": "a"})
        first["choices"][0]["finish_reason"] = ""
        assert isinstance(decode(first).error, ConnectionLost)

    def test_content_on_the_finish_chunk_is_told(self) -> None:
        """The chunk that finishes may hold the last piece of text."""
        assert decode(chunk({"content": "Hi"}, "stop")).completion.text == "Hi"

    def test_delivered_calls_beat_stop(self) -> None:
        """A forced tool call ends with the word `stop`, but it asks for a tool all the same."""
        got = finished(call(index=0, id="a", name="f", arguments="{}"))
        assert got.events[-1] == Finish("tool_calls", "stop")

    def test_delivered_calls_do_not_beat_length(self) -> None:
        """A limit that was reached stays the reason, with or without calls."""
        got = finished(call(index=0, id="a", name="f", arguments='{"x'), reason="length")
        assert got.events[-1] == Finish("length", "length")


class TestUsage:
    @pytest.mark.parametrize(
        "wire",
        [
            [chunk({}, "stop"), {"id": "c1", "choices": [], "usage": USAGE}, DONE],
            [chunk({}, "stop", usage=USAGE), DONE],
            [chunk({}, "stop", usage=USAGE)],
            [chunk({}, "stop"), chunk({"content": ""}, usage=USAGE), DONE],
            [chunk({}, "stop", x_groq={"id": "r", "usage": USAGE}), DONE],
            [
                chunk({}, "stop", x_groq={"usage": {"prompt_tokens": 1}}),
                {"choices": [], "usage": USAGE, "x_groq": {"usage": {"prompt_tokens": 1}}},
            ],
            [chunk({"content": ""}, usage={"prompt_tokens": 4}), chunk({}, "stop", usage=USAGE)],
            [
                chunk({"content": ""}, usage={"prompt_tokens": 4, "completion_tokens": None}),
                chunk({}, "stop", usage=USAGE),
            ],
            [chunk({}, "stop", usage=USAGE), {"choices": [], "usage": None, "moderation": {}}],
            [chunk({}, "stop", usage=USAGE), {"choices": [], "usage": {}}],
            [chunk({}, "stop", usage=USAGE), {"choices": [], "usage": {"prompt_tokens": None}}],
            [{"choices": [], "usage": USAGE}, chunk({}, "stop"), DONE],
        ],
        ids=[
            "own chunk",
            "finish chunk",
            "no done",
            "empty delta",
            "groq",
            "groq and own chunk",
            "cumulative",
            "partly null",
            "later null",
            "later empty",
            "later nulls",
            "before the finish",
        ],
    )
    def test_the_last_usage_is_told_once_before_the_finish(self, wire: list[Any]) -> None:
        """Wherever and however often it comes, usage is one event before the last."""
        got = decode(*wire)
        assert got.events[1:] == [Usage(4, 6, None, None, USAGE), Finish("stop", "stop")]

    @pytest.mark.parametrize(
        ("raw", "usage"),
        [
            ({"prompt_tokens": 5}, Usage(5)),
            ({"prompt_tokens": "5", "completion_tokens": 1.5}, Usage()),
            (
                {**USAGE, "prompt_tokens_details": {"cached_tokens": 3}},
                Usage(4, 6, 3),
            ),
            ({**USAGE, "prompt_cache_hit_tokens": 2}, Usage(4, 6, 2)),
            ({**USAGE, "cached_tokens": 2}, Usage(4, 6, 2)),
            ({**USAGE, "reasoning_tokens": 2}, Usage(4, 6, None, 2)),
            ({**USAGE, "prompt_tokens_details": {"cached_tokens": 5}}, Usage(9, 6, 5)),
            ({**USAGE, "prompt_tokens_details": None}, Usage(4, 6)),
            (
                {**USAGE, "completion_tokens_details": {"reasoning_tokens": 5}},
                Usage(4, 6, None, 5),
            ),
            (
                {
                    "prompt_tokens": 4,
                    "completion_tokens": 6,
                    "total_tokens": 17,
                    "completion_tokens_details": {"reasoning_tokens": 7},
                },
                Usage(4, 13, None, 7),
            ),
        ],
    )
    def test_the_figures_are_normalised(self, raw: Any, usage: Usage) -> None:
        """Cached and reasoning tokens are found; reasoning counts as output, also where beside."""
        got = decode(chunk({}, "stop", usage=raw)).completion.usage
        assert got == Usage(
            usage.input_tokens,
            usage.output_tokens,
            usage.cached_input_tokens,
            usage.reasoning_tokens,
            raw,
        )

    def test_usage_before_a_cut_is_saved(self) -> None:
        """What was used up is told even if the answer breaks off."""
        got = decode(chunk({"content": "Hi"}, usage=USAGE))
        assert isinstance(got.error, ConnectionLost)
        assert got.events[-1] == Usage(4, 6, None, None, USAGE)


class TestToolCalls:
    def test_fragments_come_first_and_whole_calls_at_the_end(self) -> None:
        """Fragments are told as they come, the parsed call before usage and finish."""
        got = decode(
            chunk({"role": "assistant", "content": None}),
            call(index=0, id="a", type="function", name="f", arguments=""),
            call(index=0, arguments='{"x":'),
            call(index=0, arguments=" 1}"),
            chunk({}, "tool_calls", usage=USAGE),
            DONE,
        )
        assert got.events[1:] == [
            ToolCallDelta(0, "a", "f", ""),
            ToolCallDelta(0, arguments='{"x":'),
            ToolCallDelta(0, arguments=" 1}"),
            ToolCall("a", "f", {"x": 1}, '{"x": 1}'),
            Usage(4, 6, None, None, USAGE),
            Finish("tool_calls", "tool_calls"),
        ]

    @pytest.mark.parametrize(
        "wire",
        [
            [
                call(index=0, id="a", name="f", arguments=""),
                call(index=1, id="b", name="g", arguments=""),
                call(index=0, arguments='{"x":1'),
                call(index=1, arguments='{"y":2}'),
                call(index=0, arguments="}"),
            ],
            [
                call(index=1, id="a", name="f", arguments='{"x":1}'),
                call(index=2, id="b", name="g", arguments='{"y":2}'),
            ],
            [
                call(id="a", name="f", arguments='{"x":1}'),
                call(id="b", name="g", arguments='{"y":2}'),
            ],
            [
                call(id="a", name="f", arguments='{"x":'),
                call(arguments="1}"),
                call(id="b", name="g", arguments='{"y":2'),
                call(arguments="}"),
            ],
            [
                call(id="a", name="f", arguments='{"x":'),
                call(id="b", name="g", arguments='{"y":'),
                call(id="a", arguments="1}"),
                call(id="b", arguments="2}"),
            ],
            [
                call(index=0, id="a", name="f", arguments='{"x":1}'),
                call(index=0, id="b", name="g", arguments='{"y":2}'),
            ],
            [
                call(index=0, id="a", name="f", arguments={"x": 1}),
                call(index=0, id="b", name="g", arguments={"y": 2}),
            ],
            [
                call(index=0, id="a", name="f", arguments='{"x":'),
                call(index=0, id="", name="", arguments="1}"),
                call(index=1, id="b", name="g", arguments='{"y":'),
                call(index=1, id="", arguments="2}"),
            ],
            [
                call(index=0, id="a", name="f", arguments='{"x":'),
                call(index=0, id="null", arguments="1}"),
                call(index=1, id="b", name="g", arguments='{"y":'),
                call(index=1, id="null", name=None, arguments="2}"),
            ],
            [
                call(index=0, id="a", name="f", arguments=None),
                call(index=0, id="a", name="f", arguments='{"x":'),
                call(index=0, id="a", name="f", arguments="1}"),
                call(index=1, id="b", name="g", arguments='{"y":2}'),
            ],
            [
                call(index=0, id="a"),
                call(index=0, name="f"),
                call(index=0, arguments='{"x":1}'),
                call(index=1, name="g"),
                call(index=1, id="b", arguments='{"y":2}'),
            ],
            [
                call(id="a", name="f", arguments='{"x":'),
                call(index=0, arguments="1}"),
                call(index=1, id="b", name="g", arguments='{"y":2}'),
            ],
            [
                call(index=0, id="a", name="f", arguments='{"x":'),
                call(index=0, id="zz", arguments="1}"),
                call(index=1, id="b", name="g", arguments='{"y":2}'),
            ],
        ],
        ids=[
            "interleaved",
            "index from 1",
            "no index, whole",
            "no index, pieces",
            "no index, interleaved by id",
            "all index 0",
            "all index 0, objects",
            "empty ids",
            "null ids",
            "repeated ids and names",
            "id and name late",
            "index late",
            "another id on each piece",
        ],
    )
    def test_two_calls_stay_two(self, wire: list[Any]) -> None:
        """Two calls arrive as two, however a server numbers and names their fragments."""
        got = finished(*wire, reason="tool_calls")
        assert calls(got) == [("a", "f", {"x": 1}), ("b", "g", {"y": 2})]
        deltas = [event for event in got.events if isinstance(event, ToolCallDelta)]
        for index, name, text in ((0, "f", "x"), (1, "g", "y")):
            mine = [delta for delta in deltas if delta.index == index]
            assert [delta.name for delta in mine if delta.name] == [name]
            assert len([delta.id for delta in mine if delta.id]) == 1
            assert text in json.loads("".join(delta.arguments for delta in mine))

    @pytest.mark.parametrize("index", [{}, {"index": 0}])
    @pytest.mark.parametrize("arguments", ["{}", "", '{"x":1}'])
    def test_calls_without_ids_are_told_apart_by_their_names(
        self, index: dict[str, int], arguments: str
    ) -> None:
        """Another name is another call, even at the same index and without an identifier."""
        got = finished(
            call(**index, name="f", arguments=arguments),
            call(**index, name="g", arguments=arguments),
        )
        assert [one.name for one in got.completion.tool_calls] == ["f", "g"]

    def test_a_name_that_comes_again_after_whole_arguments_is_another_call(self) -> None:
        """Two calls of one tool at one index are told apart by the first one being complete."""
        got = finished(
            call(index=0, name="f", arguments='{"x":1}'),
            call(index=0, name="f", arguments='{"x":2}'),
        )
        assert calls(got) == [(None, "f", {"x": 1}), (None, "f", {"x": 2})]

    def test_a_name_that_comes_again_before_is_the_same_call(self) -> None:
        """A server that repeats the name on every fragment speaks of one call."""
        got = finished(
            call(index=0, name="f", arguments='{"x":'), call(index=0, name="f", arguments="1}")
        )
        assert calls(got) == [(None, "f", {"x": 1})]

    def test_calls_may_come_together_in_one_chunk(self) -> None:
        """Several fragments in one chunk belong each to its own call."""
        fragments = [
            {"index": i, "id": id_, "function": {"name": "f", "arguments": "{}"}}
            for i, id_ in enumerate("ab")
        ]
        assert calls(finished(chunk({"tool_calls": fragments}, "tool_calls"))) == [
            ("a", "f", {}),
            ("b", "f", {}),
        ]

    @pytest.mark.parametrize("arguments", [None, "", " "])
    def test_no_arguments_are_an_empty_object(self, arguments: str | None) -> None:
        """A tool without parameters is called with none."""
        assert calls(finished(call(index=0, id="a", name="f", arguments=arguments))) == [
            ("a", "f", {})
        ]

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            ('{"x":', "not valid JSON"),
            ("[1]", "not a JSON object"),
            ('"x"', "not a JSON object"),
            (5, "not a JSON object"),
        ],
    )
    def test_arguments_that_cannot_be_parsed_are_an_error(self, arguments: Any, error: str) -> None:
        """A call with broken arguments is told with its text and with what is wrong."""
        (got,) = finished(
            call(index=0, id="a", name="f", arguments=arguments)
        ).completion.tool_calls
        assert got.arguments == {}
        assert got.arguments_text == str(arguments)
        assert got.error is not None
        assert error in got.error

    def test_the_legacy_function_call_is_a_call(self) -> None:
        """`function_call` deltas become one call without an identifier."""
        got = decode(
            chunk({"role": "assistant", "function_call": {"name": "f", "arguments": ""}}),
            chunk({"function_call": {"arguments": '{"x":1}'}}),
            chunk({}, "function_call"),
            DONE,
        )
        assert calls(got) == [(None, "f", {"x": 1})]
        assert got.events[-1] == Finish("tool_calls", "function_call")

    @pytest.mark.parametrize("late", [False, True])
    def test_a_signature_stays_with_its_call(self, late: bool) -> None:
        """The opaque proof beside a call is kept, for it must be sent back."""
        extra = {"note": "x", "google": {"thought_signature": "sig=="}}
        whole = {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}
        pieces = (
            [whole, {"index": 0, "extra_content": extra}]
            if late
            else [{**whole, "extra_content": extra}]
        )
        got = finished(*(chunk({"tool_calls": [piece]}) for piece in pieces))
        assert got.completion.tool_calls == (ToolCall("a", "f", {}, "{}", signature="sig=="),)

    @pytest.mark.parametrize("extra", [{"google": {}}, {"google": "x"}, {}, "x", None])
    def test_extra_content_without_a_signature_says_nothing(self, extra: Any) -> None:
        """Other extra content leaves the call as it is."""
        got = finished(call(index=0, id="a", name="f", arguments="{}", extra_content=extra))
        assert got.completion.tool_calls == (ToolCall("a", "f", {}, "{}"),)

    def test_a_call_that_was_cut_is_not_delivered_as_whole(self) -> None:
        """Without a finish reason no call is complete, even if its JSON is."""
        got = decode(call(index=0, id="a", name="f", arguments="{}"))
        assert not any(isinstance(event, ToolCall) for event in got.events)
        (cut,) = got.completion.tool_calls
        assert cut.error is not None
        assert "before the call was complete" in cut.error


class TestReasoningDetails:
    def test_details_that_repeat_the_reasoning_are_not_told_again(self) -> None:
        """The same text in `reasoning` and in `reasoning_details` counts once."""
        details = [{"type": "reasoning.text", "text": "Hm", "format": "x", "index": 0}]
        got = finished(chunk({"content": "", "reasoning": "Hm", "reasoning_details": details}))
        assert got.content == [ReasoningDelta("Hm")]

    @pytest.mark.parametrize(
        ("detail", "event"),
        [
            ({"type": "reasoning.text", "text": "Hm"}, ReasoningDelta("Hm")),
            ({"type": "reasoning.summary", "summary": "Hm"}, ReasoningDelta("Hm")),
            (
                {"type": "reasoning.text", "text": "Hm", "signature": "sig"},
                ReasoningDelta("Hm", "sig"),
            ),
            (
                {"type": "reasoning.text", "text": None, "signature": "sig"},
                ReasoningDelta("", "sig"),
            ),
            ({"type": "reasoning.encrypted", "data": "xyz"}, ReasoningDelta("", None, "xyz")),
        ],
    )
    def test_details_alone_are_the_reasoning(self, detail: Any, event: ReasoningDelta) -> None:
        """Text, summary, signature and encrypted reasoning are read from the details."""
        assert finished(chunk({"reasoning_details": [detail]})).content == [event]

    def test_what_only_the_details_have_is_told_beside_the_reasoning(self) -> None:
        """A signature is kept even where the text came as `reasoning`."""
        detail = {"type": "reasoning.text", "text": "Hm", "signature": "sig"}
        got = finished(chunk({"reasoning": "Hm", "reasoning_details": [detail]}))
        assert got.content == [ReasoningDelta("Hm"), ReasoningDelta("", "sig")]

    @pytest.mark.parametrize("detail", [{}, {"type": "reasoning.text", "text": ""}, {"text": 5}])
    def test_details_that_say_nothing_are_skipped(self, detail: Any) -> None:
        """An empty detail is no event."""
        assert finished(chunk({"reasoning_details": [detail]})).content == []


class TestCitations:
    @pytest.mark.parametrize(
        "raw",
        [
            {"type": "url_citation", "url_citation": {"url": "u", "title": "t", "content": "c"}},
            {"type": "url_citation", "url": "u", "title": "t", "content": "c"},
            {"url": "u", "title": "t", "snippet": "c"},
        ],
    )
    def test_annotations_are_citations(self, raw: Any) -> None:
        """An annotation, nested or flat, with or without an index, is a citation."""
        assert finished(chunk({"annotations": [raw]})).content == [Citation("u", "t", "c", raw)]

    def test_sources_that_every_chunk_lists_are_told_once(self) -> None:
        """Cumulative lists of sources become one citation for each address."""
        one = {"title": "t", "url": "u1", "date": "2026-01-01"}
        got = finished(
            chunk({"content": "a"}, citations=["u1"], search_results=[one]),
            chunk({"content": "b"}, citations=["u1", "u2"], search_results=[one]),
        )
        assert got.completion.citations == (
            Citation("u1", "t", None, one),
            Citation("u2", None, None, {"url": "u2"}),
        )

    def test_an_annotated_source_is_not_listed_again(self) -> None:
        """A list of sources adds only those that no annotation has named."""
        note = {"type": "url_citation", "url": "u1", "start_index": 0}
        got = finished(chunk({"annotations": [note, {**note, "start_index": 9}]}, citations=["u1"]))
        assert [citation.raw["start_index"] for citation in got.completion.citations] == [0, 9]


class TestStreamErrors:
    @pytest.mark.parametrize(
        ("wire", "cls", "said"),
        [
            (
                {"error": {"message": "boom", "type": "server_error", "code": None}},
                ServerError,
                (500, "server_error", "boom"),
            ),
            (
                {"error": {"message": "m", "code": "rate_limit_exceeded"}},
                RateLimitError,
                (429, "rate_limit_exceeded", "m"),
            ),
            ({"error": {"message": "m", "code": 502}}, ServerError, (502, "502", "m")),
            ({"error": {"message": "m", "code": "429"}}, RateLimitError, (429, "429", "m")),
            ({"error": {"message": "m", "code": 7}}, ServerError, (500, "7", "m")),
            ({"error": "boom"}, ServerError, (500, None, "boom")),
            ({"error": "boom", "code": "429"}, RateLimitError, (429, "429", "boom")),
            (
                {"object": "error", "message": "m", "type": "BadRequestError", "code": 400},
                InvalidRequestError,
                (400, "BadRequestError", "m"),
            ),
            ({"message": "boom", "request_id": "r"}, ServerError, (500, None, "boom")),
            ([{"error": {"code": 503, "message": "m"}}], ServerError, (503, "503", "m")),
            (
                {"error": {"message": "m", "code": "tool_use_failed", "status_code": 400}},
                InvalidRequestError,
                (400, "tool_use_failed", "m"),
            ),
            (
                chunk({"content": ""}, "error", error={"code": 502, "message": "m"}),
                ServerError,
                (502, "502", "m"),
            ),
            (
                {"error": {"type": "overloaded_error", "message": "m"}},
                ServerError,
                (529, "overloaded_error", "m"),
            ),
        ],
        ids=[
            "object",
            "rate limit",
            "int code",
            "str code",
            "odd code",
            "string",
            "string with code",
            "flat",
            "flat without object",
            "list",
            "status_code",
            "beside choices",
            "overloaded",
        ],
    )
    @pytest.mark.parametrize("end", [[], [DONE]], ids=["closed", "done"])
    def test_an_error_in_the_stream_is_raised(
        self, wire: Any, cls: type[APIError], said: tuple[int, str | None, str], end: list[str]
    ) -> None:
        """Every known shape of an error in mid-stream is raised after what came before it."""
        got = decode(chunk({"content": "Hi"}), wire, *end)
        assert got.completion.text == "Hi"
        assert type(got.error) is cls
        assert isinstance(got.error, APIError)
        assert (got.error.status, got.error.code, got.error.detail) == said
        assert got.error.body == wire
        assert not any(isinstance(event, Finish) for event in got.events)

    @pytest.mark.parametrize(
        ("data", "detail"),
        [
            ({"error": {"message": "m", "status_code": 400}}, "m"),
            ({"message": "m"}, "m"),
            ('"m"', "m"),
            ("upstream went away", "upstream went away"),
        ],
        ids=str,
    )
    def test_an_event_named_error_is_one(self, data: Any, detail: str) -> None:
        """`event: error` raises, whatever its data looks like."""
        got = decode(chunk({"content": "Hi"}), sse(data, "error"))
        assert isinstance(got.error, APIError)
        assert got.error.detail == detail

    def test_content_beside_the_error_is_told_first(self) -> None:
        """What came in the same chunk as the error is not lost."""
        got = decode(chunk({"content": "Hi"}, error={"message": "boom"}))
        assert got.completion.text == "Hi"
        assert isinstance(got.error, ServerError)

    def test_an_error_after_the_finish_reason_is_still_raised(self) -> None:
        """An answer that finished and then failed has failed, with its word for the end kept."""
        got = decode(
            call(index=0, id="a", name="f", arguments="{}"),
            chunk({}, "length", usage=USAGE),
            chunk({"content": ""}, error={"message": "boom", "code": 500}),
            DONE,
        )
        assert isinstance(got.error, ServerError)
        assert got.raw_finish_reason == "length"
        assert got.events[-2:] == [ToolCall("a", "f", {}, "{}"), Usage(4, 6, None, None, USAGE)]

    def test_used_up_quota_in_the_stream_is_not_retryable(self) -> None:
        """No repetition helps against an empty account."""
        got = decode({"error": {"message": "pay", "code": "insufficient_quota"}})
        assert isinstance(got.error, RateLimitError)
        assert not got.error.retryable


class TestErrorBodies:
    @pytest.mark.parametrize(
        ("status", "body", "cls", "code", "detail"),
        [
            (
                401,
                {"error": {"message": "Bad key", "type": "x", "code": "invalid_api_key"}},
                AuthenticationError,
                "invalid_api_key",
                "Bad key",
            ),
            (
                400,
                {"error": {"message": "m", "type": "invalid_request_error", "code": None}},
                InvalidRequestError,
                "invalid_request_error",
                "m",
            ),
            (401, {"error": {"code": "401", "message": "m"}}, AuthenticationError, "401", "m"),
            (401, {"detail": "Unauthorized"}, AuthenticationError, None, "Unauthorized"),
            (
                422,
                {"detail": [{"loc": ["body"], "msg": "no"}]},
                InvalidRequestError,
                None,
                '[{"loc":["body"],"msg":"no"}]',
            ),
            (401, {"message": "no", "request_id": "r"}, AuthenticationError, None, "no"),
            (400, {"code": "Bad", "error": "m"}, InvalidRequestError, "Bad", "m"),
            (422, "Failed to parse", InvalidRequestError, None, "Failed to parse"),
            (503, {"error": "m", "error_type": "overloaded"}, ServerError, "overloaded", "m"),
            (
                400,
                {"object": "error", "message": "m", "type": "BadRequestError", "code": 400},
                InvalidRequestError,
                "BadRequestError",
                "m",
            ),
            (500, 'data: {"error": {"message": "m", "code": "c"}}\n\n', ServerError, "c", "m"),
            (
                404,
                {"error": "model 'x' not found"},
                InvalidRequestError,
                None,
                "model 'x' not found",
            ),
            (502, "<html>Bad Gateway</html>", ServerError, None, "<html>Bad Gateway</html>"),
            (500, "", ServerError, None, ""),
            (500, "null", ServerError, None, ""),
            (500, {"odd": 1}, ServerError, None, '{"odd":1}'),
            (403, [{"error": {"message": "m", "status": "S"}}], AuthenticationError, "S", "m"),
        ],
        ids=str,
    )
    def test_a_body_is_read_whatever_its_shape(
        self, status: int, body: Any, cls: type[APIError], code: str | None, detail: str
    ) -> None:
        """Message and code are found in every known shape of an error body."""
        sent = body if isinstance(body, str) else json.dumps(body)
        error = ROW.error(status, {"content-type": "application/octet-stream"}, sent.encode())
        assert type(error) is cls
        assert (error.status, error.code, error.detail) == (status, code, detail)
        assert f"openai answered {status}: {detail or 'no message'}" in str(error)

    @pytest.mark.parametrize(
        ("code", "retryable"), [("insufficient_quota", False), ("rate_limit_exceeded", True)]
    )
    def test_429_has_two_meanings(self, code: str, retryable: bool) -> None:
        """Too fast may be repeated, too poor may not."""
        body = json.dumps({"error": {"message": "m", "code": code}}).encode()
        error = ROW.error(429, {}, body)
        assert isinstance(error, RateLimitError)
        assert error.retryable is retryable

    @pytest.mark.parametrize(
        ("status", "error"),
        [
            (404, {"message": "m", "code": "model_not_found"}),
            (400, {"message": "m", "code": "model_not_found"}),
            (404, {"message": "m", "code": "DeploymentNotFound"}),
            (400, {"message": "m", "type": "invalid_model"}),
            (404, {"message": "The model `x` does not exist."}),
            (400, {"message": "Model Not Exist"}),
            (404, {"message": "model 'x' not found"}),
            (400, {"message": "x is not a valid model ID"}),
        ],
    )
    def test_an_unknown_model_names_the_default(self, status: int, error: Any) -> None:
        """The message for an unknown model says which default there is and how to override it."""
        got = ROW.error(status, {}, json.dumps({"error": error}).encode())
        assert f"default model is {ROW.model!r}, checked {ROW.checked}" in str(got)
        assert "pass model=... or set OPENAI_MODEL" in str(got)
        assert not got.retryable

    @pytest.mark.parametrize("message", ["no such file", "the model is too small for this"])
    def test_other_errors_do_not_speak_of_models(self, message: str) -> None:
        """Advice on models is given only where the model is the matter."""
        got = ROW.error(404, {}, json.dumps({"error": {"message": message}}).encode())
        assert "default model" not in str(got)


class TestRequest:
    def test_the_type_of_an_address_stays_at_home(self) -> None:
        """OpenAI's shape has no media type, and a server may refuse one."""
        parts = [
            {"type": "text", "text": "a"},
            image_part("https://h/x", "image/png"),
            file_part("https://h/x", "application/pdf"),
        ]
        (turn,) = body_of("openai", messages=[{"role": "user", "content": parts}])["messages"]
        assert turn["content"] == [
            parts[0],
            {"type": "image_url", "image_url": {"url": "https://h/x"}},
            {"type": "file", "file": {"file_data": "https://h/x"}},
        ]

    def test_the_least(self) -> None:
        """A plain question is one user message, streamed, with the usage asked for."""
        assert body_of("openai") == {
            "model": "m",
            "messages": [{"role": "user", "content": "Hi"}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    @pytest.mark.parametrize(
        ("arguments", "fields"),
        [
            ({"max_tokens": 5}, {"max_completion_tokens": 5}),
            ({"temperature": 0}, {"temperature": 0.0}),
            ({"top_p": 0.5}, {"top_p": 0.5}),
            ({"stop": "a"}, {"stop": ["a"]}),
            ({"stop": ["a", "b"]}, {"stop": ["a", "b"]}),
            ({"tool_choice": "auto"}, {"tool_choice": "auto"}),
            ({"tool_choice": "none"}, {"tool_choice": "none"}),
            ({"tool_choice": "required"}, {"tool_choice": "required"}),
            (
                {"tool_choice": "f"},
                {"tool_choice": {"type": "function", "function": {"name": "f"}}},
            ),
            ({"tool_choice": {"type": "x"}}, {"tool_choice": {"type": "x"}}),
            (
                {"tools": [{"type": "function", "function": {"name": "f"}}]},
                {
                    "tools": [
                        {
                            "type": "function",
                            "function": {
                                "name": "f",
                                "description": "",
                                "parameters": {"type": "object", "properties": {}},
                            },
                        }
                    ]
                },
            ),
            ({"tools": [{"type": "web_search"}]}, {"tools": [{"type": "web_search"}]}),
            ({"extra_body": {"seed": 1}}, {"seed": 1}),
            (
                {"extra_body": {"stream_options": {"include_obfuscation": False}}},
                {"stream_options": {"include_usage": True, "include_obfuscation": False}},
            ),
            ({"extra_body": {"stream_options": None}}, {"stream_options": None}),
        ],
        ids=str,
    )
    def test_each_argument_has_its_field(
        self, arguments: dict[str, Any], fields: dict[str, Any]
    ) -> None:
        """Each argument adds exactly its own field to the body."""
        assert body_of("openai", **arguments) == {**body_of("openai"), **fields}

    def test_the_system_prompt_comes_first(self) -> None:
        """The instructions are the first message."""
        assert body_of("openai", system="Be brief.")["messages"] == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
        ]

    def test_a_tool_loop_is_sent_as_it_is(self) -> None:
        """Assistant calls and tool results keep OpenAI's shape."""
        loop = [
            {"role": "user", "content": [{"type": "text", "text": "Hi"}], "name": "Ann"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
                ],
            },
            {"role": "tool", "tool_call_id": "a", "content": "42"},
        ]
        assert body_of("openai", messages=loop)["messages"] == loop

    PARTS = [
        {"type": "text", "text": "a"},
        {"type": "image_url", "image_url": {"url": "https://h/x", "detail": "high"}},
        {"type": "file", "file": {"file_id": "f"}},
        {"type": "input_audio", "input_audio": {"data": "eA==", "format": "wav"}},
        {"type": "video_url", "video_url": {"url": "https://h/x"}},
    ]

    def test_parts_are_sent_as_they_are(self) -> None:
        """The parts of a user's message have OpenAI's shape already."""
        messages = [{"role": "user", "content": self.PARTS}]
        assert body_of("openai", messages=messages)["messages"] == messages

    @pytest.mark.parametrize("part", PARTS[1:4], ids=lambda part: part["type"])
    def test_a_tools_result_is_text(self, part: dict[str, Any]) -> None:
        """What the API does not take as a tool's result is refused before it is sent."""
        result = {"role": "tool", "tool_call_id": "a", "content": [part]}
        with pytest.raises(ConfigurationError, match=f"text only .*{part['type']!r}"):
            body_of("openai", messages=[{"role": "user", "content": "Hi"}, result])

    ASSISTANT = {
        "role": "assistant",
        "content": "Hi",
        "tool_calls": [
            {"id": "a", "function": {"name": "f"}, "signature": "s"},
            {
                "id": "b",
                "function": {"name": "f"},
                "extra_content": {"google": {"thought_signature": "t"}},
            },
        ],
        "reasoning_details": [
            {"type": "reasoning.text", "text": "A", "format": "openai", "after_chars": 1},
            {"type": "reasoning.text", "text": "B", "format": "anthropic", "signature": "u"},
            {"type": "reasoning.text", "text": "C", "format": "anthropic-claude-v1", "index": 0},
            {"type": "reasoning.encrypted", "data": "D"},
        ],
    }

    def assistant(self, *wants_back: str) -> Any:
        """Return the assistant's turn as a server gets it that wants this back."""
        row = PROVIDERS["openai"].replace(wants_back=wants_back)  # type: ignore[call-arg]
        request = row.request(ask(prompt="?", messages=[self.ASSISTANT]), KEY, "https://host")
        return json.loads(request.body)["messages"][0]

    def test_what_openai_does_not_know_is_left_out(self) -> None:
        """Reasoning and signatures do not go to a server that refuses the fields."""
        calls = [{"id": id_, "function": {"name": "f"}} for id_ in "ab"]
        assert self.assistant() == {"role": "assistant", "content": "Hi", "tool_calls": calls}

    def test_what_a_gateway_wants_back(self) -> None:
        """A row says what its server wants of an assistant's turn beside OpenAI's own fields."""
        assert self.assistant("reasoning_details")["reasoning_details"] == [
            {"type": "reasoning.text", "text": "A"},
            {"type": "reasoning.text", "text": "C", "format": "anthropic-claude-v1", "index": 0},
            {"type": "reasoning.encrypted", "data": "D"},
        ]
        assert self.assistant("reasoning_content")["reasoning_content"] == "ABC"
        extra = [call["extra_content"] for call in self.assistant("extra_content")["tool_calls"]]
        assert extra == [
            {"google": {"thought_signature": "s"}},
            {"google": {"thought_signature": "t"}},
        ]

    def test_the_default_model_gets_what_it_needs_with_tools(self) -> None:
        """Only with tools, and only for the default model, the row adds its own fields."""
        tools = [{"type": "web_search"}]
        with_tools = body_of("openai", model=ROW.model, tools=tools)
        assert with_tools["reasoning_effort"] == "none"
        assert "reasoning_effort" not in body_of("openai", model=ROW.model)
        assert "reasoning_effort" not in body_of("openai", tools=tools)
        overridden = body_of(
            "openai", model=ROW.model, tools=tools, extra_body={"reasoning_effort": "low"}
        )
        assert overridden["reasoning_effort"] == "low"

    def test_a_compatible_server_names_the_limit_its_own_way(self) -> None:
        """A row may call the limit `max_tokens`, and its key's header otherwise."""
        row = OpenAI(
            "other",
            base_url="https://other/v1",
            model="o",
            checked="2026-11-22",
            key_env=("OTHER_KEY",),
            model_env="OTHER_MODEL",
            base_url_env="OTHER_URL",
            auth_header="api-key",
            auth_prefix="",
            max_tokens_field="max_tokens",
        )
        request = row.request(ask(max_tokens=5), KEY, row.base_url)
        assert json.loads(request.body)["max_tokens"] == 5
        assert request.credentials == {"api-key": KEY}

    def test_where_it_goes_and_how_the_key_travels(self) -> None:
        """The key is in the credentials and nowhere else."""
        request = ROW.request(ask(), KEY, "https://host/v1")
        assert request.url == "https://host/v1/chat/completions"
        assert request.method == "POST"
        assert request.headers == {"Content-Type": "application/json"}
        assert request.credentials == {"Authorization": f"Bearer {KEY}"}
        assert KEY not in repr(request)
        assert KEY.encode() not in request.body


class TestAccept:
    HEADERS = {"authorization": "Bearer any"}

    def test_a_request_is_read(self) -> None:
        """Model, streaming, usage and the last user turn are found."""
        request = ROW.request(ask(system="S", prompt="Hi there"), KEY, "https://host/v1")
        got = ROW.accept("/v1/chat/completions", self.HEADERS, request.body)
        assert (got.model, got.stream, got.usage, got.prompt) == ("m", True, True, "Hi there")

    @pytest.mark.parametrize(
        ("messages", "prompt"),
        [
            ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "a"),
            ([{"role": "user", "content": [{"type": "text", "text": "a"}, {"x": 1}, 5]}], "a"),
            ([{"role": "user", "content": None}], ""),
            (["x", {"role": "assistant"}], ""),
        ],
    )
    def test_the_prompt_is_the_last_user_turn(self, messages: list[Any], prompt: str) -> None:
        """Whatever shape the turns have, the last user's text is the prompt."""
        body = json.dumps({"model": "m", "messages": messages}).encode()
        got = ROW.accept("/v1/chat/completions", self.HEADERS, body)
        assert (got.prompt, got.stream, got.usage) == (prompt, False, False)

    @pytest.mark.parametrize("authorization", ["", "Bearer ", "Bearer", "Basic eDp5"])
    def test_no_key_is_refused(self, authorization: str) -> None:
        """Without a Bearer token the answer is 401."""
        with pytest.raises(AuthenticationError) as caught:
            ROW.accept("/v1/chat/completions", {"authorization": authorization}, b"{}")
        assert caught.value.status == 401

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"[]",
            b"[" * 9000,
            b'{"messages": [{}]}',
            b'{"model": "", "messages": [{}]}',
            b'{"model": 5, "messages": [{}]}',
            b'{"model": "m"}',
            b'{"model": "m", "messages": []}',
            b'{"model": "m", "messages": "Hi"}',
        ],
    )
    def test_a_wrong_body_is_refused(self, body: bytes) -> None:
        """What the real endpoint calls a bad request is one here."""
        with pytest.raises(InvalidRequestError) as caught:
            ROW.accept("/v1/chat/completions", self.HEADERS, body)
        assert caught.value.status == 400


class TestErrorBody:
    @pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
    def test_a_written_error_reads_back(self, status: int) -> None:
        """The fake server's error bodies are what the client's side understands."""
        written = ROW.error_body(ROW.api_error(status, "m", code="c"))
        error = ROW.error(status, {}, written)
        assert (error.status, error.code, error.detail) == (status, "c", "m")
