from __future__ import annotations

import json
from typing import Any

import pytest

from llm_sse.chat import Message
from llm_sse.completion import Completion
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

ROW = PROVIDERS["gemini"]
PATH = "/v1beta/models/m:streamGenerateContent"
CUT = "the stream ended before the call was complete"


def slice_of(*parts: Any, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    """Return one slice of a response."""
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "modelVersion": "m", "responseId": "r", **fields}


def candidate(**fields: Any) -> dict[str, Any]:
    """Return a slice with a candidate of just these fields."""
    return {"candidates": [fields]}


def function(**fields: Any) -> dict[str, Any]:
    """Return a slice with one function call."""
    return slice_of({"functionCall": fields})


def piece(path: str, more: bool = True, **value: Any) -> dict[str, Any]:
    """Return a slice with one streamed argument."""
    return function(partialArgs=[{"jsonPath": path, **value}], willContinue=more)


def decode(*wire: Any) -> Decoded:
    """Decode wire events and the end of the body."""
    return Decoded("gemini", *wire)


def answer(*wire: Any) -> list[Any]:
    """Return what slices mean in a finished answer, without its start and its finish."""
    return decode(slice_of(), *wire, candidate(finishReason="STOP")).content


class TestText:
    def test_a_plain_answer(self) -> None:
        """Start, text pieces, usage and finish come in order."""
        got = decode(
            slice_of({"text": "He"}, usageMetadata={"promptTokenCount": 3}),
            slice_of({"text": "llo"}, usageMetadata={"promptTokenCount": 3}),
            slice_of(
                {"text": ""},
                finish="STOP",
                usageMetadata={"promptTokenCount": 3, "candidatesTokenCount": 2},
            ),
        )
        assert got.events == [
            StreamStart("m", "r"),
            TextDelta("He"),
            TextDelta("llo"),
            Usage(3, 2, None, None, {"promptTokenCount": 3, "candidatesTokenCount": 2}),
            Finish("stop", "STOP"),
        ]

    @pytest.mark.parametrize(
        ("parts", "events"),
        [
            ([{"text": "a"}, {"text": "b"}], [TextDelta("a"), TextDelta("b")]),
            ([{"text": "Hm", "thought": True}], [ReasoningDelta("Hm")]),
            ([{"text": "Hi", "thought": False}], [TextDelta("Hi")]),
            (
                [{"text": "Hm", "thought": True}, {"text": "Hi"}],
                [ReasoningDelta("Hm"), TextDelta("Hi")],
            ),
            (
                [{"text": "Hm", "thought": True, "thoughtSignature": "s"}],
                [ReasoningDelta("Hm", "s")],
            ),
            ([{"text": "Hi", "thoughtSignature": "s"}], [TextDelta("Hi"), ReasoningDelta("", "s")]),
            ([{"text": "", "thoughtSignature": "s"}], [ReasoningDelta("", "s")]),
            ([{"thoughtSignature": "s"}], [ReasoningDelta("", "s")]),
            ([{"text": ""}], []),
            ([{"text": "", "thought": True}], []),
            ([{"text": None}], []),
            ([{}], []),
            ([], []),
        ],
        ids=str,
    )
    def test_parts_become_what_they_hold(self, parts: list[Any], events: list[Any]) -> None:
        """Text, thoughts and signatures are told part by part."""
        assert answer(slice_of(*parts)) == events

    @pytest.mark.parametrize(
        "part",
        [
            {"executableCode": {"language": "PYTHON", "code": "1"}},
            {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}},
            {"inlineData": {"mimeType": "image/png", "data": "AA=="}},
            {"toolCall": {"id": "x"}},
            {"toolResponse": {"id": "x"}},
            {"brandNew": 1, "thought": True},
        ],
        ids=lambda part: next(iter(part)),
    )
    def test_other_parts_are_unknown(self, part: dict[str, Any]) -> None:
        """A part that is no text and no call is passed on whole, and the text around it arrives."""
        kind = next(iter(part))
        assert answer(slice_of({"text": "a"}, part, {"text": "b"})) == [
            TextDelta("a"),
            Unknown(kind, part),
            TextDelta("b"),
        ]

    @pytest.mark.parametrize("part", [5, "x", None, [1]])
    def test_a_part_that_is_no_object_is_unknown(self, part: Any) -> None:
        """A part of a wrong type does not kill the stream."""
        assert answer(slice_of(part, {"text": "b"})) == [Unknown("part", part), TextDelta("b")]

    @pytest.mark.parametrize(
        "odd",
        [
            {},
            {"candidates": None},
            {"candidates": []},
            {"candidates": [{}]},
            candidate(content=None),
            candidate(content={}),
            candidate(content={"role": "model"}),
            candidate(content={"parts": None}),
            candidate(content={"parts": []}),
            candidate(finishReason=None, index=0),
            candidate(finishReason=""),
            {"usageMetadata": None},
            {"usageMetadata": {}},
            {"promptFeedback": {}},
            {"promptFeedback": {"safetyRatings": []}},
            {"error": None},
        ],
        ids=str,
    )
    def test_nothing_said_is_nothing_told(self, odd: Any) -> None:
        """Whatever is missing, null or empty, the rest of the answer arrives."""
        assert answer(slice_of({"text": "a"}), odd, slice_of({"text": "b"})) == [
            TextDelta("a"),
            TextDelta("b"),
        ]

    @pytest.mark.parametrize(
        "odd",
        [
            {"candidates": "x"},
            {"candidates": [5, None]},
            candidate(content="x"),
            candidate(content={"parts": "x"}),
            candidate(content={"parts": [{"text": 5}, {"thought": "x"}, {"functionCall": 5}]}),
            candidate(index="zero", finishReason=5),
            candidate(groundingMetadata="x", citationMetadata=[]),
            {"usageMetadata": 5, "modelVersion": 5, "responseId": 5},
            {"promptFeedback": "x"},
        ],
        ids=str,
    )
    def test_a_field_of_a_wrong_type_does_not_kill_the_stream(self, odd: Any) -> None:
        """What cannot be understood is skipped or unknown; the rest of the answer arrives."""
        got = decode(slice_of({"text": "a"}), odd, slice_of({"text": "b"}, finish="STOP"))
        assert got.completion.text == "ab"
        assert got.events[-1] == Finish("stop", "STOP")

    def test_a_known_part_among_odd_candidates_keeps_its_data(self) -> None:
        """Parts are passed on as they came, whatever stands beside them."""
        part = {"executableCode": {"code": "1"}}
        odd = {"candidates": [None, {"index": "x", "content": {"parts": [5, part]}}]}
        assert answer(odd) == [Unknown("part", 5), Unknown("executableCode", part)]

    def test_only_candidate_0_is_the_answer(self) -> None:
        """A further candidate becomes `Unknown` and finishes nothing."""
        other = candidate(index=1, content={"parts": [{"text": "x"}]}, finishReason="MAX_TOKENS")
        got = decode(slice_of({"text": "a"}, finish="STOP"), other)
        assert got.completion.text == "a"
        assert [event.kind for event in got.events if isinstance(event, Unknown)] == ["candidate"]
        assert got.events[-1] == Finish("stop", "STOP")

    @pytest.mark.parametrize("data", ["5", '"x"', "[]", "[1]", '[{"x": 1}]'])
    def test_json_that_is_no_object_is_unknown(self, data: str) -> None:
        """A wire event that is no object becomes `Unknown` with its data."""
        got = decode(slice_of(), data, candidate(finishReason="STOP"))
        assert got.content == [Unknown("message", json.loads(data))]

    def test_what_is_not_json_is_a_protocol_error(self) -> None:
        """Broken JSON is reported."""
        with pytest.raises(ProtocolError, match="not valid JSON"):
            ROW.decoder().decode(sse('{"modelVersion": 5, "candidates": ['))

    def test_an_event_without_data_says_nothing(self) -> None:
        """An empty data line is skipped."""
        assert answer("", slice_of({"text": "Hi"})) == [TextDelta("Hi")]


class TestStart:
    def test_a_first_event_with_usage_only_waits_for_the_names(self) -> None:
        """An early event that holds only traffic figures does not start the stream."""
        got = decode({"usageMetadata": {"trafficType": "ON_DEMAND"}}, slice_of({"text": "Hi"}))
        assert got.events[:2] == [StreamStart("m", "r"), TextDelta("Hi")]

    def test_missing_names_are_none(self) -> None:
        """An answer without model and identifier has none."""
        got = decode(slice_of(finish="STOP", modelVersion="", responseId=None))
        assert got.events[0] == StreamStart(None, None)


class TestFinish:
    @pytest.mark.parametrize(
        ("word", "reason"),
        [
            ("STOP", "stop"),
            ("MAX_TOKENS", "length"),
            ("SAFETY", "content_filter"),
            ("RECITATION", "content_filter"),
            ("LANGUAGE", "content_filter"),
            ("BLOCKLIST", "content_filter"),
            ("PROHIBITED_CONTENT", "content_filter"),
            ("SPII", "content_filter"),
            ("IMAGE_SAFETY", "content_filter"),
            ("IMAGE_PROHIBITED_CONTENT", "content_filter"),
            ("IMAGE_OTHER", "content_filter"),
            ("IMAGE_RECITATION", "content_filter"),
            ("NO_IMAGE", "content_filter"),
            ("MODEL_ARMOR", "content_filter"),
            ("ESCALATION", "content_filter"),
            ("PUP_LIMITED_DISABLED", "content_filter"),
            ("CONTINUATION", "pause"),
            ("MALFORMED_FUNCTION_CALL", "error"),
            ("MALFORMED_RESPONSE", "error"),
            ("UNEXPECTED_TOOL_CALL", "error"),
            ("TOO_MANY_TOOL_CALLS", "error"),
            ("MISSING_THOUGHT_SIGNATURE", "error"),
            ("OTHER", "error"),
            ("NEWLY_INVENTED", "other"),
        ],
    )
    def test_the_words_are_translated(self, word: str, reason: Any) -> None:
        """Every finish reason has one of our words, and stays readable as `raw_reason`."""
        got = decode(slice_of({"text": "Hi"}), candidate(finishReason=word, finishMessage="why"))
        assert got.events[-1] == Finish(reason, word, "why")

    def test_the_last_reason_counts(self) -> None:
        """A reason with every event is one reason, and a silent event after it changes nothing."""
        got = decode(
            slice_of({"text": "a"}, finish="STOP"),
            slice_of({"text": "b"}, finish="MAX_TOKENS"),
            candidate(content={}),
            {"usageMetadata": {"promptTokenCount": 1}},
        )
        assert got.completion.text == "ab"
        assert got.events[-1] == Finish("length", "MAX_TOKENS")

    def test_a_body_without_a_reason_was_cut(self) -> None:
        """No finish reason, no finish."""
        got = decode(slice_of({"text": "Hi"}, usageMetadata={"promptTokenCount": 1}))
        assert isinstance(got.error, ConnectionLost)
        assert got.events[1:] == [
            TextDelta("Hi"),
            Usage(1, None, None, None, {"promptTokenCount": 1}),
        ]

    @pytest.mark.parametrize(
        ("feedback", "message"),
        [
            ({"blockReason": "SAFETY"}, "the prompt was blocked: SAFETY"),
            (
                {"blockReason": "OTHER", "blockReasonMessage": "Not here."},
                "the prompt was blocked: OTHER: Not here.",
            ),
        ],
    )
    @pytest.mark.parametrize("names", [{"modelVersion": "m"}, {}], ids=["named", "unnamed"])
    def test_a_blocked_prompt_is_an_answer(
        self, feedback: dict[str, str], message: str, names: dict[str, str]
    ) -> None:
        """A refused prompt finishes with `content_filter` and says why."""
        got = decode({"promptFeedback": feedback, **names})
        assert got.events == [
            StreamStart(names.get("modelVersion")),
            Finish("content_filter", None, message),
        ]

    def test_the_end_is_told_once(self) -> None:
        """A body has one end."""
        decoder = ROW.decoder()
        list(decoder.decode(sse(slice_of(finish="STOP"))))
        assert [*decoder.end(), *decoder.end()] == [Finish("stop", "STOP")]
        assert list(decoder.decode(sse(slice_of({"text": "late"})))) == []


class TestUsage:
    @pytest.mark.parametrize(
        ("raw", "figures"),
        [
            ({"promptTokenCount": 1, "candidatesTokenCount": 2}, (1, 2, None, None)),
            (
                {
                    "promptTokenCount": 1,
                    "toolUsePromptTokenCount": 10,
                    "candidatesTokenCount": 2,
                    "thoughtsTokenCount": 20,
                    "cachedContentTokenCount": 1,
                    "totalTokenCount": 33,
                },
                (11, 22, 1, 20),
            ),
            ({"thoughtsTokenCount": 20}, (None, 20, None, 20)),
            ({"promptTokenCount": None, "candidatesTokenCount": "2"}, (None, None, None, None)),
        ],
    )
    def test_the_figures_are_normalised(self, raw: Any, figures: tuple[Any, ...]) -> None:
        """Thoughts count as output, what tools put into the prompt as input."""
        got = decode(slice_of(finish="STOP", usageMetadata=raw))
        assert got.completion.usage == Usage(*figures, raw)

    def test_cumulative_usage_is_told_once(self) -> None:
        """Of the usage on every event the last one counts, wherever it stands."""
        counts = [{"trafficType": "X"}, {"promptTokenCount": 1}, {"promptTokenCount": 2}]
        got = decode(*(slice_of(finish="STOP", usageMetadata=count) for count in counts))
        assert [event for event in got.events if isinstance(event, Usage)] == [
            Usage(2, None, None, None, {"promptTokenCount": 2})
        ]


class TestToolCalls:
    @pytest.mark.parametrize(
        ("call", "expected"),
        [
            ({"name": "f", "args": {"x": 1}}, ToolCall(None, "f", {"x": 1}, '{"x":1}')),
            ({"id": "a", "name": "f", "args": {}}, ToolCall("a", "f", {}, "{}")),
            ({"id": "", "name": "f"}, ToolCall(None, "f", {}, "{}")),
            ({"name": "f", "args": None}, ToolCall(None, "f", {}, "{}")),
            (
                {"name": "f", "partialArgs": None, "willContinue": None},
                ToolCall(None, "f", {}, "{}"),
            ),
            (
                {"name": "f", "args": "[1]"},
                ToolCall(None, "f", {}, '"[1]"', "the arguments are not a JSON object"),
            ),
        ],
        ids=str,
    )
    def test_a_call_arrives_whole(self, call: Any, expected: ToolCall) -> None:
        """A call is one event, with or without an identifier and arguments."""
        got = decode(function(**call), candidate(finishReason="STOP"))
        assert got.events[1:] == [expected, Finish("tool_calls", "STOP")]

    @pytest.mark.parametrize("together", [True, False])
    def test_parallel_calls_stay_apart(self, together: bool) -> None:
        """Several calls come as several parts or as several events."""
        parts = [{"functionCall": {"name": "f", "args": {"x": x}}} for x in (1, 2)]
        wire = [slice_of(*parts)] if together else [slice_of(part) for part in parts]
        assert [event.arguments for event in answer(*wire)] == [{"x": 1}, {"x": 2}]

    def test_a_signature_stays_with_its_call(self) -> None:
        """The opaque proof beside a call is kept, for it must be sent back."""
        part = {"functionCall": {"name": "f"}, "thoughtSignature": "s"}
        assert answer(slice_of(part)) == [ToolCall(None, "f", {}, "{}", signature="s")]

    @pytest.mark.parametrize("call", [{}, {"args": {"x": 1}}, {"willContinue": False}])
    def test_a_nameless_call_without_a_beginning_is_none(self, call: Any) -> None:
        """A closing piece alone closes nothing."""
        assert answer(function(**call)) == []


class TestStreamedCalls:
    @pytest.mark.parametrize(
        ("pieces", "arguments"),
        [
            ([piece("$.a", stringValue="x")], {"a": "x"}),
            ([piece("$.a", stringValue="x"), piece("$.a", stringValue="y")], {"a": "xy"}),
            ([piece("$.a", numberValue=1.5)], {"a": 1.5}),
            ([piece("$.a", boolValue=False)], {"a": False}),
            ([piece("$.a", nullValue="NULL_VALUE")], {"a": None}),
            ([piece("$.a.b.c", numberValue=1)], {"a": {"b": {"c": 1}}}),
            (
                [piece("$.a.b", numberValue=1), piece("$.a.c", numberValue=2)],
                {"a": {"b": 1, "c": 2}},
            ),
            (
                [
                    piece("$.a[0]", stringValue="x"),
                    piece("$.a[0]", stringValue="y"),
                    piece("$.a[1]", stringValue="z"),
                ],
                {"a": ["xy", "z"]},
            ),
            (
                [
                    piece("$.a[0].b", numberValue=1),
                    piece("$.a[0].c", numberValue=2),
                    piece("$.a[1].b", numberValue=3),
                ],
                {"a": [{"b": 1, "c": 2}, {"b": 3}]},
            ),
            (
                [piece("$.a[0][0]", numberValue=1), piece("$.a[0][1]", numberValue=2)],
                {"a": [[1, 2]]},
            ),
            (
                [piece("$['b c']", numberValue=1), piece('$["d.e"].f', numberValue=2)],
                {"b c": 1, "d.e": {"f": 2}},
            ),
            ([piece("$.a", numberValue=1), piece("$.a", numberValue=2)], {"a": 2}),
            ([function(partialArgs=[], willContinue=True)], {}),
            ([function(willContinue=True)], {}),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("end", [[function()], []], ids=["closed", "not closed"])
    def test_arguments_are_put_where_their_paths_say(
        self, pieces: list[Any], arguments: Any, end: list[Any]
    ) -> None:
        """Pieces of every kind build one object, whether or not the call is ever closed."""
        (call,) = answer(function(name="f", willContinue=True), *pieces, *end)
        assert call == ToolCall(None, "f", arguments, call.arguments_text)
        assert json.loads(call.arguments_text) == arguments

    def test_the_first_piece_may_bring_arguments(self) -> None:
        """Name, identifier, signature, whole and streamed arguments may share a piece."""
        first = {
            "functionCall": {
                "id": "a",
                "name": "f",
                "args": {"x": 1},
                "partialArgs": [{"jsonPath": "$.y", "numberValue": 2}],
            },
            "thoughtSignature": "s",
        }
        (call,) = answer(slice_of(first))
        assert call == ToolCall("a", "f", {"x": 1, "y": 2}, '{"x":1,"y":2}', signature="s")

    def test_a_signature_may_come_with_a_later_piece(self) -> None:
        """The first signature of a streamed call is the call's."""
        later = {"functionCall": {"willContinue": True}, "thoughtSignature": "s"}
        (call,) = answer(function(name="f", willContinue=True), slice_of(later), function())
        assert call.signature == "s"

    def test_the_last_piece_may_close_the_call(self) -> None:
        """A piece that does not announce more is the last one."""
        got = answer(
            function(name="f", willContinue=True),
            piece("$.a", more=False, numberValue=1),
            piece("$.b", numberValue=2),
        )
        assert [call.arguments for call in got] == [{"a": 1}]

    def test_the_next_name_closes_the_call(self) -> None:
        """A call that was not closed is complete when the next one begins."""
        got = answer(
            function(name="f", willContinue=True),
            piece("$.a", numberValue=1),
            function(name="g", willContinue=True),
            piece("$.b", numberValue=2),
            slice_of({"text": "Hi"}),
        )
        assert got == [
            ToolCall(None, "f", {"a": 1}, '{"a":1}'),
            TextDelta("Hi"),
            ToolCall(None, "g", {"b": 2}, '{"b":2}'),
        ]

    @pytest.mark.parametrize(
        "odd",
        [
            piece("$.a[3]", stringValue="x"),
            piece("$.ok.b", stringValue="x"),
            piece("$.ok[0]", stringValue="x"),
            piece("$[0]", stringValue="x"),
            piece("$", stringValue="x"),
            piece("$.a", structValue={}),
            piece("$.a"),
            function(partialArgs=[5], willContinue=True),
            function(partialArgs=[{"stringValue": "x"}], willContinue=True),
        ],
        ids=str,
    )
    def test_a_piece_without_a_place_makes_the_call_an_error(self, odd: Any) -> None:
        """A call of which something was lost is not handed out as whole."""
        (call,) = answer(
            function(name="f", willContinue=True), piece("$.ok", numberValue=1), odd, function()
        )
        assert call.arguments == {}
        assert call.error is not None
        assert "has no place" in call.error
        assert json.loads(call.arguments_text)["ok"] == 1

    @pytest.mark.parametrize(
        ("end", "error"),
        [
            ([candidate(finishReason="MAX_TOKENS")], None),
            ([], ConnectionLost),
            ([{"error": {"code": 503, "message": "m"}}], ServerError),
        ],
        ids=["limit", "cut", "error"],
    )
    def test_a_call_that_was_cut_is_an_error(self, end: list[Any], error: Any) -> None:
        """Only an answer that stopped by itself completes an open call."""
        got = decode(
            function(name="f", willContinue=True), piece("$.path", stringValue="/tm"), *end
        )
        assert got.completion.tool_calls == (ToolCall(None, "f", {}, '{"path":"/tm"}', CUT),)
        assert error is None or type(got.error) is error
        assert got.completion.finish_reason in (None, "length")


class TestCitations:
    @pytest.mark.parametrize(
        ("fields", "citation"),
        [
            (
                {"groundingMetadata": {"groundingChunks": [{"web": {"uri": "u", "title": "t"}}]}},
                Citation("u", "t", None, {"web": {"uri": "u", "title": "t"}}),
            ),
            (
                {"groundingMetadata": {"groundingChunks": [{"retrievedContext": {"text": "c"}}]}},
                Citation(None, None, "c", {"retrievedContext": {"text": "c"}}),
            ),
            ({"citationMetadata": {"citations": [{"uri": "u"}]}}, Citation("u", raw={"uri": "u"})),
            (
                {"citationMetadata": {"citationSources": [{"uri": "u", "title": 5}]}},
                Citation("u", raw={"uri": "u", "title": 5}),
            ),
            (
                {"groundingMetadata": {"groundingChunks": [{"web": "x"}]}},
                Citation(raw={"web": "x"}),
            ),
        ],
        ids=str,
    )
    def test_each_source_is_told_once(self, fields: Any, citation: Citation) -> None:
        """Metadata may come on any event, and again on later ones."""
        assert answer(candidate(**fields), candidate(**fields)) == [citation]

    @pytest.mark.parametrize(
        "fields",
        [
            {"groundingMetadata": {"webSearchQueries": ["x"]}},
            {"groundingMetadata": {"groundingChunks": "x"}},
            {"citationMetadata": {"citations": [5]}},
        ],
        ids=str,
    )
    def test_metadata_without_sources_is_no_citation(self, fields: Any) -> None:
        """Search queries and things of a wrong type cite nothing."""
        assert answer(candidate(**fields)) == []

    def test_url_context_is_passed_on_once(self) -> None:
        """What was retrieved is no citation, and not lost either."""
        metadata = {"urlMetadata": [{"retrievedUrl": "u"}]}
        wire = candidate(urlContextMetadata=metadata)
        assert answer(wire, wire) == [Unknown("urlContextMetadata", metadata)]


class TestStreamErrors:
    @pytest.mark.parametrize(
        ("error", "cls", "status"),
        [
            ({"code": 503, "message": "m", "status": "UNAVAILABLE"}, ServerError, 503),
            ({"code": 429, "message": "m", "status": "RESOURCE_EXHAUSTED"}, RateLimitError, 429),
            ({"message": "m", "status": "RESOURCE_EXHAUSTED"}, RateLimitError, 429),
            ({"code": 14, "message": "m", "status": "UNAVAILABLE"}, ServerError, 503),
            ({"code": "x", "message": "m"}, ServerError, 500),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("in_list", [False, True], ids=["object", "list"])
    def test_an_error_in_the_stream_is_raised(
        self, error: Any, cls: type[APIError], status: int, in_list: bool
    ) -> None:
        """An error object, also in a list, is raised after what came before it."""
        wire = [{"error": error}] if in_list else {"error": error}
        got = decode(slice_of({"text": "Hi"}, usageMetadata={"promptTokenCount": 1}), wire)
        assert got.completion.text == "Hi"
        assert isinstance(got.events[-1], Usage)
        assert type(got.error) is cls
        assert isinstance(got.error, APIError)
        assert (got.error.status, got.error.detail, got.error.body) == (status, "m", wire)
        assert got.error.code == error.get("status")

    def test_an_error_may_be_a_string(self) -> None:
        """A gateway's plain text is the message."""
        got = decode({"error": "boom"})
        assert isinstance(got.error, ServerError)
        assert got.error.detail == "boom"

    def test_an_error_after_the_finish_reason_is_still_raised(self) -> None:
        """An answer that finished and then failed has failed, with its word for the end kept."""
        got = decode(slice_of({"text": "Hi"}, finish="STOP"), {"error": {"code": 500}})
        assert isinstance(got.error, ServerError)
        assert got.raw_finish_reason == "STOP"


class TestErrorBodies:
    @pytest.mark.parametrize("in_list", [False, True], ids=["object", "list"])
    @pytest.mark.parametrize(
        ("status", "error", "cls"),
        [
            (400, {"message": "m", "status": "INVALID_ARGUMENT"}, InvalidRequestError),
            (403, {"message": "m", "status": "PERMISSION_DENIED"}, AuthenticationError),
            (429, {"message": "m", "status": "RESOURCE_EXHAUSTED"}, RateLimitError),
            (503, {"message": "m", "status": "UNAVAILABLE"}, ServerError),
        ],
    )
    def test_a_body_is_read(
        self, status: int, error: Any, cls: type[APIError], in_list: bool
    ) -> None:
        """Message and status word are found, also in a list and in pretty-printed JSON."""
        said = {"error": {"code": status, **error}}
        body = json.dumps([said] if in_list else said, indent=2).encode()
        got = ROW.error(status, {}, body)
        assert type(got) is cls
        assert (got.status, got.code, got.detail) == (status, error["status"], "m")

    @pytest.mark.parametrize(
        "error",
        [
            {"message": "API key not valid. Please pass a valid API key."},
            {"message": "m", "details": [{"reason": "API_KEY_INVALID"}]},
        ],
        ids=str,
    )
    def test_a_bad_key_is_an_authentication_error(self, error: Any) -> None:
        """Google answers 400 to a bad key; the message names the variables that hold it."""
        body = json.dumps({"error": {"code": 400, "status": "INVALID_ARGUMENT", **error}}).encode()
        got = ROW.error(400, {}, body)
        assert type(got) is AuthenticationError
        assert got.status == 400
        assert "check GEMINI_API_KEY or GOOGLE_API_KEY or api_key=..." in str(got)

    @pytest.mark.parametrize(
        ("details", "headers", "wait_s"),
        [
            ([{"@type": "x"}, {"retryDelay": "7.5s"}], {}, 7.5),
            ([{"retryDelay": "7s"}], {"retry-after": "9"}, 9),
            ([{"retryDelay": "7s"}], {"retry-after": "1"}, 7),
            ([{"retryDelay": "soon"}], {}, None),
            ([{"retryDelay": 7}], {}, None),
            ("x", {}, None),
            ([5], {}, None),
            (None, {"retry-after": "2"}, 2),
        ],
        ids=str,
    )
    def test_the_longest_wish_to_wait_wins(
        self, details: Any, headers: dict[str, str], wait_s: float | None
    ) -> None:
        """The body's `RetryInfo` and the headers are both heard."""
        body = json.dumps({"error": {"message": "m", "details": details}}).encode()
        assert ROW.error(429, headers, body).retry_after_s == wait_s

    def test_an_unknown_model_names_the_default(self) -> None:
        """The message for an unknown model says which default there is and how to override it."""
        got = ROW.error(404, {}, b'{"error": {"message": "models/x is not found"}}')
        assert f"default model is {ROW.model!r}" in str(got)
        assert "GEMINI_MODEL" in str(got)

    @pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'"x"', b"5"])
    def test_an_odd_body_is_still_an_error(self, body: bytes) -> None:
        """Whatever the body is, the status decides."""
        assert type(ROW.error(502, {}, body)) is ServerError


class TestRequest:
    @pytest.mark.parametrize(
        "part",
        [
            image_part("https://h/x", "application/pdf"),
            file_part("https://h/x", media_type="application/pdf"),
            {"type": "file", "file": {"file_id": "https://h/x", "media_type": "application/pdf"}},
        ],
        ids=str,
    )
    def test_the_type_of_an_address_is_told(self, part: Any) -> None:
        """What the caller says of an address reaches Gemini, which must be told."""
        (turn,) = body_of("gemini", messages=[{"role": "user", "content": [part]}])["contents"]
        assert turn["parts"] == [
            {"fileData": {"mimeType": "application/pdf", "fileUri": "https://h/x"}}
        ]

    def test_the_least(self) -> None:
        """A plain question is one user turn."""
        assert body_of("gemini") == {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}

    @pytest.mark.parametrize(
        ("arguments", "fields"),
        [
            ({"system": "S"}, {"systemInstruction": {"parts": [{"text": "S"}]}}),
            ({"max_tokens": 5}, {"generationConfig": {"maxOutputTokens": 5}}),
            ({"temperature": 0}, {"generationConfig": {"temperature": 0.0}}),
            ({"top_p": 0.5}, {"generationConfig": {"topP": 0.5}}),
            ({"stop": "a"}, {"generationConfig": {"stopSequences": ["a"]}}),
            (
                {"tool_choice": "auto"},
                {"toolConfig": {"functionCallingConfig": {"mode": "AUTO"}}},
            ),
            (
                {"tool_choice": "none"},
                {"toolConfig": {"functionCallingConfig": {"mode": "NONE"}}},
            ),
            (
                {"tool_choice": "required"},
                {"toolConfig": {"functionCallingConfig": {"mode": "ANY"}}},
            ),
            (
                {"tool_choice": "f"},
                {
                    "toolConfig": {
                        "functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}
                    }
                },
            ),
            ({"tool_choice": {"x": 1}}, {"toolConfig": {"x": 1}}),
            (
                {
                    "tools": [
                        {"type": "function", "function": {"name": "f", "description": "d"}},
                        {"googleSearch": {}},
                    ]
                },
                {
                    "tools": [
                        {
                            "functionDeclarations": [
                                {
                                    "name": "f",
                                    "description": "d",
                                    "parametersJsonSchema": {"type": "object", "properties": {}},
                                }
                            ]
                        },
                        {"googleSearch": {}},
                    ]
                },
            ),
            ({"tools": [{"codeExecution": {}}]}, {"tools": [{"codeExecution": {}}]}),
            (
                {
                    "max_tokens": 5,
                    "extra_body": {"generationConfig": {"thinkingConfig": {"thinkingBudget": 0}}},
                },
                {
                    "generationConfig": {
                        "maxOutputTokens": 5,
                        "thinkingConfig": {"thinkingBudget": 0},
                    }
                },
            ),
        ],
        ids=str,
    )
    def test_each_argument_has_its_field(
        self, arguments: dict[str, Any], fields: dict[str, Any]
    ) -> None:
        """Each argument adds exactly its own field to the body."""
        assert body_of("gemini", **arguments) == {**body_of("gemini"), **fields}

    def test_a_tool_loop_is_translated(self) -> None:
        """Calls and results become parts, with the names, identifiers and signatures they need."""
        messages = [
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "content": "Let me see.",
                "tool_calls": [
                    {
                        "id": "a",
                        "signature": "s",
                        "function": {"name": "f", "arguments": '{"x":1}'},
                    },
                    {"function": {"name": "g", "arguments": {}}},
                ],
            },
            {"role": "tool", "tool_call_id": "a", "content": "sun"},
            {"role": "tool", "name": "g", "content": [{"type": "text", "text": "rain"}]},
            {"role": "user", "content": [{"type": "text", "text": "And now?"}]},
        ]
        assert body_of("gemini", messages=messages)["contents"] == [
            {"role": "user", "parts": [{"text": "Weather?"}]},
            {
                "role": "model",
                "parts": [
                    {"text": "Let me see."},
                    {
                        "functionCall": {"id": "a", "name": "f", "args": {"x": 1}},
                        "thoughtSignature": "s",
                    },
                    {"functionCall": {"name": "g", "args": {}}},
                ],
            },
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"id": "a", "name": "f", "response": {"result": "sun"}}},
                    {"functionResponse": {"name": "g", "response": {"result": "rain"}}},
                    {"text": "And now?"},
                ],
            },
        ]

    def test_own_parts_pass(self) -> None:
        """A part in Gemini's own shape is sent as it is."""
        part = {"inlineData": {"mimeType": "image/png", "data": "AA=="}}
        got = body_of("gemini", messages=[{"role": "user", "content": [part]}])
        assert got["contents"][0]["parts"] == [part]

    @pytest.mark.parametrize(
        ("given", "sent"),
        [
            (
                image_part(b"x", "image/heic"),
                {"inlineData": {"mimeType": "image/heic", "data": "eA=="}},
            ),
            (
                file_part(b"x", "application/pdf", "a.pdf"),
                {"inlineData": {"mimeType": "application/pdf", "data": "eA=="}},
            ),
            (
                {"type": "input_audio", "input_audio": {"data": "eA==", "format": "mp3"}},
                {"inlineData": {"mimeType": "audio/mp3", "data": "eA=="}},
            ),
            (
                image_part("https://h/x.png"),
                {"fileData": {"mimeType": "image/png", "fileUri": "https://h/x.png"}},
            ),
            (
                file_part("gs://b/x", filename="x.pdf"),
                {"fileData": {"mimeType": "application/pdf", "fileUri": "gs://b/x"}},
            ),
            (
                {"type": "file", "file": {"file_id": "https://g/v1beta/files/a"}},
                {"fileData": {"fileUri": "https://g/v1beta/files/a"}},
            ),
            (
                {**image_part(b"x", "image/png"), "mediaResolution": {"level": "HIGH"}},
                {
                    "inlineData": {"mimeType": "image/png", "data": "eA=="},
                    "mediaResolution": {"level": "HIGH"},
                },
            ),
        ],
        ids=str,
    )
    def test_pictures_documents_and_sound(
        self, given: dict[str, Any], sent: dict[str, Any]
    ) -> None:
        """Parts in OpenAI's shape become Gemini's."""
        got = body_of("gemini", messages=[{"role": "user", "content": [given]}])
        assert got["contents"][0]["parts"] == [sent]

    def test_a_picture_in_a_result(self) -> None:
        """The text of a tool's result is its response, data stands beside it."""
        parts = [{"type": "text", "text": "a"}, image_part(b"x", "image/png")]
        message = {"role": "tool", "name": "f", "content": parts}
        got = body_of("gemini", messages=[message])
        assert got["contents"][0]["parts"][0]["functionResponse"] == {
            "name": "f",
            "response": {"result": "a"},
            "parts": [{"inlineData": {"mimeType": "image/png", "data": "eA=="}}],
        }

    @pytest.mark.parametrize(
        ("call", "signature"),
        [
            ({"signature": "s"}, "s"),
            ({"extra_content": {"google": {"thought_signature": "t"}}}, "t"),
            ({"extra_content": {"other": {}}}, "skip_thought_signature_validator"),
            ({"extra_content": 5, "signature": 5}, "skip_thought_signature_validator"),
        ],
        ids=str,
    )
    def test_a_calls_signature(self, call: dict[str, Any], signature: str) -> None:
        """It is read in both shapes; a call of another model gets the word that stands for one."""
        message = {"role": "assistant", "tool_calls": [{**call, "function": {"name": "f"}}]}
        got = body_of("gemini", prompt="?", messages=[message])
        assert got["contents"][0]["parts"][0]["thoughtSignature"] == signature

    def test_an_identifier_of_ours_is_not_sent(self) -> None:
        """An identifier that Gemini has not given is for the conversation only."""
        call = ToolCall(None, "f", {}, "{}", signature="s")
        turn = Completion(tool_calls=(call,)).message()
        assert turn.tool_calls is not None
        result = Message(role="tool", tool_call_id=turn.tool_calls[0]["id"], content="x")
        got = body_of("gemini", messages=[turn, result])["contents"]
        assert got[0]["parts"] == [
            {"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "s"}
        ]
        response = {"name": "f", "response": {"result": "x"}}
        assert got[1]["parts"] == [{"functionResponse": response}]

    @pytest.mark.parametrize("content", ["Hi there", "Hi", None, [{"type": "text", "text": "a"}]])
    def test_signatures_of_texts_go_back_where_they_stood(self, content: Any) -> None:
        """Gemini's own signatures are sent in parts of their own; thoughts are not sent."""
        details = [
            {"type": "reasoning.text", "text": "Hm", "format": "gemini"},
            {"type": "reasoning.text", "text": "A", "signature": "s", "format": "gemini"},
            {"type": "reasoning.text", "text": "", "signature": "x", "format": "anthropic"},
            {"type": "reasoning.text", "text": "", "signature": "t", "after_chars": 2},
        ]
        message = {"role": "assistant", "content": content, "reasoning_details": details}
        got = body_of("gemini", prompt="?", messages=[message])["contents"][0]["parts"]
        last = {"text": "", "thoughtSignature": "t"}
        tails: dict[str, Any] = {
            "Hi there": [{"text": "Hi"}, last, {"text": " there"}],
            "Hi": [{"text": "Hi"}, last],
            "None": [last],
            str([{"type": "text", "text": "a"}]): [last, {"text": "a"}],
        }
        assert got == [{"text": "", "thoughtSignature": "s"}, *tails[str(content)]]

    @pytest.mark.parametrize(
        ("message", "said"),
        [
            ({"role": "user", "content": [{"type": "image_url"}]}, "image_url"),
            ({"role": "user", "content": [image_part("https://h/x")]}, "or the bytes"),
            ({"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}, "its URI"),
            ({"role": "user", "content": [{"type": "image", "source": {}}]}, "type 'image'"),
            ({"role": "tool", "name": "f", "content": [image_part("gs://b/x.png")]}, "no URLs"),
            ({"role": "tool", "tool_call_id": "zz", "content": "x"}, "needs the tool's name"),
            ({"role": "tool", "name": "f", "content": [{"inlineData": {}}]}, "content part"),
            ({"role": "user", "content": "x", "name": "Ann"}, "name of a speaker"),
            (
                {
                    "role": "assistant",
                    "tool_calls": [{"function": {"name": "f", "arguments": "{"}}],
                },
                "not JSON",
            ),
        ],
        ids=str,
    )
    def test_what_it_cannot_take_is_refused(self, message: Any, said: str) -> None:
        """Nothing of a message is dropped in silence."""
        messages = [{"role": "user", "content": "Hi"}, message]
        with pytest.raises(ConfigurationError, match=said):
            body_of("gemini", messages=messages)

    @pytest.mark.parametrize(
        ("model", "path"), [("m", "m"), ("models/m", "m"), ("a/b?c", "a%2Fb%3Fc")]
    )
    def test_where_it_goes_and_how_the_key_travels(self, model: str, path: str) -> None:
        """The model is in the URL, the key in the credentials and nowhere else."""
        request = ROW.request(ask(model=model), KEY, "https://host")
        assert request.url == f"https://host/v1beta/models/{path}:streamGenerateContent?alt=sse"
        assert request.headers == {"Content-Type": "application/json"}
        assert request.credentials == {"x-goog-api-key": KEY}
        assert KEY not in repr(request)
        assert KEY.encode() not in request.body


class TestAccept:
    HEADERS = {"x-goog-api-key": "any"}

    @pytest.mark.parametrize("key", [{"x-goog-api-key": "k"}, {"authorization": "Bearer k"}])
    @pytest.mark.parametrize(
        ("path", "stream"),
        [
            ("/v1beta/models/m:streamGenerateContent", True),
            ("/v1/models/m:streamGenerateContent", True),
            ("/v1beta/models/m:generateContent", False),
        ],
    )
    def test_a_request_is_read(self, key: dict[str, str], path: str, stream: bool) -> None:
        """The model and the wish to stream are in the path, the prompt is the last turn."""
        body = json.dumps(body_of("gemini", prompt="Hi there")).encode()
        got = ROW.accept(path, key, body)
        assert (got.model, got.stream, got.usage, got.prompt) == ("m", stream, True, "Hi there")

    def test_another_path_asks_for_the_default_model(self) -> None:
        """A path without a model is read as far as it goes."""
        got = ROW.accept("/x", self.HEADERS, b'{"contents": [{"parts": [{"text": "Hi"}]}]}')
        assert (got.model, got.stream) == (ROW.model, False)

    @pytest.mark.parametrize(
        "contents",
        [["x"], [{}], [{"parts": "x"}], [{"parts": ["x", {"text": 5}, {"inlineData": {}}]}]],
        ids=str,
    )
    def test_odd_contents_have_no_text(self, contents: list[Any]) -> None:
        """What is no text counts as an empty prompt."""
        body = json.dumps({"contents": contents}).encode()
        assert ROW.accept(PATH, self.HEADERS, body).prompt == ""

    @pytest.mark.parametrize("key", [{}, {"x-goog-api-key": ""}, {"authorization": "Basic x"}])
    def test_no_key_is_refused(self, key: dict[str, str]) -> None:
        """Without a key the answer is 403."""
        with pytest.raises(AuthenticationError) as caught:
            ROW.accept(PATH, key, b"{}")
        assert caught.value.status == 403

    @pytest.mark.parametrize(
        "body", [b"", b"[]", b"[" * 9000, b"{}", b'{"contents": []}', b'{"contents": "Hi"}']
    )
    def test_a_wrong_body_is_refused(self, body: bytes) -> None:
        """What the real endpoint calls a bad request is one here."""
        with pytest.raises(InvalidRequestError) as caught:
            ROW.accept(PATH, self.HEADERS, body)
        assert caught.value.status == 400


class TestErrorBody:
    @pytest.mark.parametrize(
        ("status", "code", "word"),
        [(429, None, "RESOURCE_EXHAUSTED"), (418, None, "UNKNOWN"), (400, "OWN", "OWN")],
    )
    def test_a_written_error_has_googles_words(
        self, status: int, code: str | None, word: str
    ) -> None:
        """The status word is the code, or follows from the status."""
        written = ROW.error_body(ROW.api_error(status, "m", code=code))
        assert json.loads(written) == {"error": {"code": status, "message": "m", "status": word}}


class TestEncoder:
    def test_a_fragment_waits_for_its_call(self) -> None:
        """The format has no fragments: a call goes out whole."""
        encoder = ROW.encoder(model="m")
        assert encoder.encode(ToolCallDelta(0, "a", "f")) == b""
        assert b'"functionCall"' in encoder.encode(ToolCall("a", "f", {}, "{}"))
