"""The folding of events into what was said."""

from __future__ import annotations

import pickle
import time

import pytest

from llm_sse.chat import Message, json_arguments
from llm_sse.completion import MADE_UP, Accumulator, Completion, add_usage, assistant_turn
from llm_sse.events import (
    Citation,
    Event,
    Finish,
    ReasoningDelta,
    RefusalDelta,
    Resumed,
    Retrying,
    StreamStart,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    Unknown,
    Usage,
)

CUT = "the stream ended before the call was complete"


def fold(*events: Event) -> Completion:
    """Fold events into a completion."""
    accumulator = Accumulator()
    for event in events:
        accumulator.add(event)
    return accumulator.completion()


class TestAccumulator:
    def test_nothing(self) -> None:
        """Without events there is an empty completion that knows its provider."""
        assert fold() == Completion()
        assert Accumulator("gemini").completion() == Completion(provider="gemini")

    @pytest.mark.parametrize(
        ("events", "completion"),
        [
            ([StreamStart("m", "r")], Completion(model="m", response_id="r")),
            ([TextDelta("Hel"), TextDelta("lo")], Completion(text="Hello")),
            ([ReasoningDelta("so "), ReasoningDelta("so")], Completion(reasoning="so so")),
            (
                [ReasoningDelta(signature="s"), ReasoningDelta(redacted="x")],
                Completion(
                    reasoning_details=(
                        {"type": "reasoning.text", "text": "", "signature": "s"},
                        {"type": "reasoning.encrypted", "data": "x"},
                    )
                ),
            ),
            ([RefusalDelta("I "), RefusalDelta("won't")], Completion(refusal="I won't")),
            (
                [Citation(url="a"), Citation(url="b")],
                Completion(citations=(Citation(url="a"), Citation(url="b"))),
            ),
            ([Usage(1, 2)], Completion(usage=Usage(1, 2))),
            (
                [Finish("length", "max_tokens")],
                Completion(finish_reason="length", raw_finish_reason="max_tokens"),
            ),
            ([Unknown("ping", 1), Retrying(1, 0.5, "x"), Resumed(1, 5, "x")], Completion()),
        ],
        ids=lambda value: type(value[0]).__name__ if isinstance(value, list) else "",
    )
    def test_each_kind(self, events: list[Event], completion: Completion) -> None:
        """Every kind of event has its place, or none."""
        assert fold(*events) == completion

    def test_kinds_do_not_mix(self) -> None:
        """Text, reasoning and refusal are kept apart however they interleave."""
        completion = fold(
            TextDelta("a"), ReasoningDelta("b"), RefusalDelta("c"), TextDelta("d"), TextDelta("")
        )
        assert (completion.text, completion.reasoning, completion.refusal) == ("ad", "b", "c")

    def test_asking_changes_nothing(self) -> None:
        """A completion may be asked for at any time, and stays what it was."""
        accumulator = Accumulator()
        accumulator.add(TextDelta("a"))
        accumulator.add(ToolCallDelta(0, "c", "f", "{"))
        accumulator.add(Usage(1))
        first = accumulator.completion()
        assert accumulator.completion() == first
        accumulator.add(TextDelta("b"))
        assert (first.text, accumulator.completion().text) == ("a", "ab")

    def test_text_deltas_can_be_counted(self) -> None:
        """The text deltas are kept one by one."""
        accumulator = Accumulator()
        accumulator.add(TextDelta("a"))
        accumulator.add(TextDelta("b"))
        assert accumulator.text_deltas == ["a", "b"]

    def test_complete_calls_replace_their_fragments(self) -> None:
        """A complete call stands once, in the order of completion; its fragments are gone."""
        first = ToolCall("c1", "f", {"a": 1}, '{"a":1}')
        second = ToolCall("c2", "f", {}, "")
        assert fold(
            ToolCallDelta(0, "c1", "f"),
            ToolCallDelta(0, arguments='{"a":1}'),
            ToolCallDelta(1, "c2", "f"),
            first,
            second,
        ) == Completion(tool_calls=(first, second))

    def test_calls_without_fragments(self) -> None:
        """A provider may send complete calls only."""
        call = ToolCall(None, "f", {}, "")
        assert fold(call, call).tool_calls == (call, call)

    def test_calls_without_identifiers(self) -> None:
        """Of two open calls that look the same, the one that began first is completed first."""
        call = ToolCall(None, "f", {"a": 1}, '{"a":1}')
        assert fold(
            ToolCallDelta(0, name="f", arguments='{"a":1}'),
            ToolCallDelta(1, name="f", arguments='{"b":'),
            call,
        ).tool_calls == (call, ToolCall(None, "f", {}, '{"b":', CUT))

    def test_another_call_leaves_fragments_alone(self) -> None:
        """A complete call takes only fragments with its own identifier and name."""
        call = ToolCall("c2", "f", {}, "")
        other = ToolCall("c1", "g", {}, "")
        assert fold(ToolCallDelta(0, "c1", "f", "{"), call, other).tool_calls == (
            ToolCall("c1", "f", {}, "{", CUT),
            call,
            other,
        )

    def test_calls_that_were_cut_off(self) -> None:
        """What there was of an unfinished call is kept as text, with an error, in order."""
        done = ToolCall("c0", "f", {}, "{}")
        assert fold(
            ToolCallDelta(0, "c0", "f", "{}"),
            done,
            ToolCallDelta(1, "c1", "g", '{"ci'),
            ToolCallDelta(2, "c2", "h"),
            ToolCallDelta(1, arguments='ty": '),
        ).tool_calls == (
            done,
            ToolCall("c1", "g", {}, '{"city": ', CUT),
            ToolCall("c2", "h", {}, "", CUT),
        )

    def test_the_first_fragment_names_the_call(self) -> None:
        """Identifier and name are the first that came, even if they came late or come again."""
        assert fold(
            ToolCallDelta(0), ToolCallDelta(0, "c", "f"), ToolCallDelta(0, "d", "g", "x")
        ).tool_calls == (ToolCall("c", "f", {}, "x", CUT),)

    def test_the_last_usage_of_an_attempt_counts(self) -> None:
        """Usage within an attempt is a running figure, not a sum."""
        assert fold(StreamStart(), Usage(5, 1), Usage(5, 9)).usage == Usage(5, 9)

    def test_usage_is_summed_over_attempts(self) -> None:
        """A new StreamStart begins an attempt, which costs on top of those before."""
        assert fold(
            StreamStart("m1", "r1"),
            TextDelta("a"),
            Usage(10, 1, 4, raw={"one": 1}, cache_creation_tokens=5),
            Resumed(1, 1, "gone"),
            StreamStart("m2", "r2"),
            TextDelta("b"),
            Usage(20, 2, None, 3, raw={"two": 2}),
            StreamStart("m3", "r3"),
            Usage(30, 3),
            Finish("stop", "end"),
        ) == Completion(
            text="ab",
            usage=Usage(60, 6, 4, 3, {"two": 2}, 5),
            finish_reason="stop",
            raw_finish_reason="end",
            model="m3",
            response_id="r3",
        )

    def test_usage_of_a_failed_attempt_counts(self) -> None:
        """What an attempt that is retried had cost is paid, even if the next one never starts."""
        assert fold(StreamStart(), Usage(10, 1), Retrying(1, 0, "x")).usage == Usage(10, 1)
        assert fold(
            StreamStart(), Usage(10, 1), Retrying(1, 0, "x"), Usage(5), StreamStart(), Usage(1, 1)
        ).usage == Usage(16, 2)

    def test_attempts_without_usage(self) -> None:
        """An attempt whose usage never came adds nothing, and erases nothing."""
        assert fold(StreamStart(), StreamStart()).usage is None
        assert fold(StreamStart(), Usage(1), StreamStart()).usage == Usage(1)
        assert fold(StreamStart(), StreamStart(), Usage(1)).usage == Usage(1)

    def test_raw_reason_without_a_finish(self) -> None:
        """A stream that broke after the provider's word has the word but no finish."""
        accumulator = Accumulator()
        accumulator.raw_finish_reason = "stop"
        completion = accumulator.completion()
        assert (completion.finish_reason, completion.raw_finish_reason) == (None, "stop")


class TestAddUsage:
    def test_unknown_figures(self) -> None:
        """A figure that one attempt does not know is the other's; zero is known."""
        assert add_usage(Usage(1, None, 0, None), Usage(None, 2, 3, None)) == Usage(1, 2, 3, None)

    def test_none(self) -> None:
        """No usage is neutral."""
        assert add_usage(None, None) is None
        assert add_usage(Usage(), None) == Usage()
        assert add_usage(None, Usage()) == Usage()

    def test_raw(self) -> None:
        """The later provider's object stays, if there is one."""
        assert add_usage(Usage(raw={}), Usage(raw=None)) == Usage(raw={})
        assert add_usage(Usage(raw={"a": 1}), Usage(raw={})) == Usage(raw={})


class TestCompletion:
    def test_frozen(self) -> None:
        """A completion cannot be changed."""
        with pytest.raises(AttributeError):
            Completion().text = "a"  # type: ignore[misc]

    def test_pickle(self) -> None:
        """A completion survives a pickle, because errors carry it through them."""
        completion = fold(TextDelta("a"), ToolCallDelta(0, "c", "f", "{"), Usage(1, raw={"a": 1}))
        assert pickle.loads(pickle.dumps(completion)) == completion


class TestManyCalls:
    def test_a_hundred_thousand_calls_cost_a_hundred_thousand_times_one(self) -> None:
        """The work per call does not grow with the number of calls."""

        def seconds(count: int) -> float:
            accumulator = Accumulator()
            begun = time.thread_time()
            for index in range(count):
                accumulator.add(ToolCallDelta(index, f"c{index}", "f", "{}"))
            for index in range(count):
                accumulator.add(ToolCall(f"c{index}", "f", {}, "{}"))
            assert len(accumulator.completion().tool_calls) == count
            return time.thread_time() - begun

        few = min(seconds(2_000) for _ in range(5))
        many = min(seconds(40_000) for _ in range(2))
        assert many < 200 * few  # 20 times is measured; the square would be 400


class TestReasoningDetails:
    """The reasoning that has to go back, in pieces."""

    @pytest.mark.parametrize(
        ("events", "details"),
        [
            ([ReasoningDelta("so")], []),
            (
                [StreamStart(), *map(ReasoningDelta, "Hm"), ReasoningDelta(signature="s")],
                [{"type": "reasoning.text", "text": "Hm", "signature": "s"}],
            ),
            (
                [ReasoningDelta("a", "s"), ReasoningDelta("b"), ReasoningDelta("c", "t")],
                [
                    {"type": "reasoning.text", "text": "a", "signature": "s"},
                    {"type": "reasoning.text", "text": "bc", "signature": "t"},
                ],
            ),
            (
                [ReasoningDelta("a"), ReasoningDelta(redacted="x"), ReasoningDelta("b")],
                [
                    {"type": "reasoning.text", "text": "a"},
                    {"type": "reasoning.encrypted", "data": "x"},
                    {"type": "reasoning.text", "text": "b"},
                ],
            ),
            (
                [ReasoningDelta("a", "s", "x")],
                [
                    {"type": "reasoning.text", "text": "a", "signature": "s"},
                    {"type": "reasoning.encrypted", "data": "x"},
                ],
            ),
            (
                [
                    ReasoningDelta("a"),
                    TextDelta("He"),
                    TextDelta("y"),
                    ReasoningDelta("b"),
                    ReasoningDelta(signature="s"),
                    TextDelta("!"),
                    ReasoningDelta(signature="t"),
                ],
                [
                    {"type": "reasoning.text", "text": "a"},
                    {"type": "reasoning.text", "text": "b", "signature": "s", "after_chars": 3},
                    {"type": "reasoning.text", "text": "", "signature": "t", "after_chars": 4},
                ],
            ),
            (
                [StreamStart(), ReasoningDelta("a"), StreamStart(), ReasoningDelta("b", "s")],
                [
                    {"type": "reasoning.text", "text": "a"},
                    {"type": "reasoning.text", "text": "b", "signature": "s"},
                ],
            ),
        ],
        ids=["plain", "deltas", "signed", "encrypted", "both", "between texts", "two attempts"],
    )
    def test_pieces(self, events: list[Event], details: list[dict[str, object]]) -> None:
        """A signature, a text and a new attempt end a piece; plain reasoning has none."""
        assert list(fold(*events).reasoning_details) == details

    def test_many_deltas_are_cheap(self) -> None:
        """The time is that of the number of deltas, not of its square."""
        accumulator = Accumulator()
        for _ in range(100_000):
            accumulator.add(ReasoningDelta("word "))
            accumulator.add(TextDelta("word "))
        accumulator.add(ReasoningDelta(signature="s"))
        begun = time.perf_counter()
        details = accumulator.completion().reasoning_details
        assert time.perf_counter() - begun < 5
        assert len(details) == 100_001


class TestMessage:
    """The answer as a turn of a conversation."""

    def test_text(self) -> None:
        """Text, or a refusal, is the content; nothing at all has none."""
        assert Completion(text="Hi").message() == Message(role="assistant", content="Hi")
        assert Completion(refusal="No.").message().content == "No."
        assert Completion().message() == Message(role="assistant")

    def test_calls(self) -> None:
        """Calls have OpenAI's shape, with the signature where Google puts it."""
        calls = (ToolCall("a", "f", {"x": 1}, '{"x": 1}'), ToolCall("b", "g", {}, "", None, "sig"))
        assert Completion(tool_calls=calls).message().tool_calls == [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
            {
                "id": "b",
                "type": "function",
                "function": {"name": "g", "arguments": "{}"},
                "extra_content": {"google": {"thought_signature": "sig"}},
            },
        ]

    def test_arguments_that_are_no_json(self) -> None:
        """They are wrapped, so that every provider's request can hold them, and none is lost."""
        call = ToolCall("a", "f", {}, '{"x', "not valid JSON")
        (sent,) = Completion(tool_calls=(call,)).message().tool_calls or ()
        assert json_arguments(sent) == ("a", "f", {"INVALID_JSON": '{"x'})

    def test_calls_without_identifiers(self) -> None:
        """Each is given one that is its own, the same whenever it is asked for."""
        calls = (ToolCall(None, "f", {}, "{}"), ToolCall("", "f", {}, "{}"))
        answer = Completion(tool_calls=calls, response_id="r")

        def ids(answer: Completion, salt: str = "") -> list[str]:
            return [call["id"] for call in assistant_turn(answer, salt).tool_calls or ()]

        assert ids(answer) == ids(answer)
        other = Completion(tool_calls=calls, response_id="s")
        all_ids = [*ids(answer), *ids(other), *ids(answer, "1")]
        assert len(set(all_ids)) == 6
        assert all(id_.startswith(MADE_UP) and len(id_) <= 40 for id_ in all_ids)

    def test_reasoning(self) -> None:
        """Reasoning says whose it is; the completion's own stays as it was."""
        details = ({"type": "reasoning.text", "text": "Hm", "signature": "s"},)
        answer = Completion(reasoning="Hm", reasoning_details=details, provider="anthropic")
        assert answer.message().reasoning_details == [{**details[0], "format": "anthropic"}]
        assert "format" not in details[0]
        plain = Completion(reasoning="Hm", provider="openai").message()
        assert plain.reasoning_details == [
            {"type": "reasoning.text", "text": "Hm", "format": "openai"}
        ]
