"""Log-probabilities as each format tells them."""

from __future__ import annotations

from typing import Any

import pytest

from llm_sse import complete_sync, stream_sync
from llm_sse.events import Event, Logprobs, RefusalDelta, TextDelta, TokenLogprob, Unknown
from llm_sse.seam import join
from llm_sse.testing import FakeServer, say
from tests.providers.bodies import Decoded

HI = {"token": "Hi", "logprob": -0.1, "bytes": [72, 105], "top_logprobs": []}
HALF = {
    "token": "\\xc3",
    "logprob": -1.5,
    "bytes": [195],
    "top_logprobs": [{"token": "Hey", "logprob": -2, "bytes": None}],
}
TOKENS = (
    TokenLogprob("Hi", -0.1, b"Hi"),
    TokenLogprob("\\xc3", -1.5, b"\xc3", (TokenLogprob("Hey", -2),)),
)
TELLING = ["openai", "openai-responses", "gemini", "ollama"]


def chat(logprobs: Any, **delta: Any) -> list[Event]:
    """Decode one chunk of Chat Completions, whose text is `Hi`."""
    choice = {"index": 0, "delta": {"content": "Hi", **delta}, "logprobs": logprobs}
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    return Decoded("openai", {"id": "x", "choices": [choice]}, end, "[DONE]").content


class TestChatCompletions:
    def test_they_follow_their_text(self) -> None:
        """The tokens of a chunk come right after the chunk's text, with their bytes."""
        told = chat({"content": [HI, HALF], "refusal": None})
        assert told == [TextDelta("Hi"), Logprobs(TOKENS)]

    @pytest.mark.parametrize(
        "nothing",
        [
            None,
            {"content": None, "refusal": None},
            {"content": [], "refusal": []},
            {"content": [{"token": None, "logprob": None, "bytes": None, "top_logprobs": None}]},
            {"content": [{"token": "Hi", "logprob": None, "bytes": [72]}]},
            {},
            [],
        ],
        ids=str,
    )
    def test_objects_full_of_nulls_are_nothing(self, nothing: Any) -> None:
        """Servers that send empty objects unasked cause no events."""
        assert chat(nothing) == [TextDelta("Hi")]

    @pytest.mark.parametrize("number", [float("-inf"), None], ids=str)
    def test_a_token_of_no_probability(self, number: float | None) -> None:
        """Its logarithm has no word in JSON; whatever a server writes, it leaves no gap."""
        tokens = [{"token": "H", "logprob": number}, {"token": "i", "logprob": -1.0}]
        told = chat({"content": tokens})
        expected = (TokenLogprob("H", -9999.0), TokenLogprob("i", -1.0))
        assert told == [TextDelta("Hi"), Logprobs(expected)]

    def test_those_of_a_refusal(self) -> None:
        """They are not the text's, and are told as they are."""
        told = chat({"content": None, "refusal": [HI]}, content=None, refusal="No")
        assert told == [RefusalDelta("No"), Unknown("logprobs", {"refusal": [HI]})]

    @pytest.mark.parametrize("odd", [{"tokens": ["Hi"], "token_logprobs": [-0.1]}, -0.5, [[1]]])
    def test_another_shape(self, odd: Any) -> None:
        """What has another shape is told as it is, and is no error."""
        assert chat(odd) == [TextDelta("Hi"), Unknown("logprobs", odd)]

    @pytest.mark.parametrize(
        "raw", [{"bytes": [999]}, {"bytes": "x"}, {"top_logprobs": 3}], ids=str
    )
    def test_a_field_of_another_type(self, raw: dict[str, Any]) -> None:
        """A wrong field leaves the rest of its token."""
        told = chat({"content": [{"token": "Hi", "logprob": -0.1, **raw}]})
        assert told[1] == Logprobs((TokenLogprob("Hi", -0.1),))


class TestResponses:
    def test_what_deltas_told_is_not_told_again(self) -> None:
        """The whole part and the whole answer repeat the tokens; each is told once."""
        item = {"id": "m", "type": "message", "role": "assistant"}
        part = {"type": "output_text", "text": "Hi", "annotations": [], "logprobs": [HI, HALF]}
        marks = {"item_id": "m", "output_index": 0, "content_index": 0}
        whole = {**item, "content": [part]}
        told = Decoded(
            "openai-responses",
            {"type": "response.created", "response": {"id": "r", "model": "m"}},
            {"type": "response.output_item.added", "output_index": 0, "item": item},
            {
                "type": "response.output_text.delta",
                **marks,
                "delta": "Hi",
                "logprobs": [HI, HALF],
            },
            {"type": "response.output_text.done", **marks, "text": "Hi", "logprobs": [HI, HALF]},
            {"type": "response.content_part.done", **marks, "part": part},
            {"type": "response.output_item.done", "output_index": 0, "item": whole},
            {"type": "response.completed", "response": {"status": "completed", "output": [whole]}},
        )
        assert told.content == [TextDelta("Hi"), Logprobs(TOKENS)]
        assert told.completion.logprobs == TOKENS

    def test_a_whole_answer_has_them_after_its_text(self) -> None:
        """Where no delta told them, the answer's own part does."""
        part = {"type": "output_text", "text": "Hi", "annotations": [], "logprobs": [HI, HALF]}
        answer = {"status": "completed", "output": [{"type": "message", "content": [part]}]}
        told = Decoded("openai-responses", {"type": "response.completed", "response": answer})
        assert told.content == [TextDelta("Hi"), Logprobs(TOKENS)]


class TestGemini:
    @pytest.mark.parametrize("nothing", [{}, {"chosenCandidates": []}, {"topCandidates": None}])
    def test_an_empty_result_is_nothing(self, nothing: Any) -> None:
        """A result without tokens causes no event."""
        assert self.told(nothing) == [TextDelta("Hi")]

    def test_a_token_of_no_probability(self) -> None:
        """A chosen token without a finite number keeps its place, and so its alternatives."""
        chosen = [{"token": "H", "logProbability": float("-inf")}]
        chosen.append({"token": "i", "logProbability": -0.5})
        told = self.told({"chosenCandidates": chosen})[1]
        assert told == Logprobs((TokenLogprob("H", -9999.0), TokenLogprob("i", -0.5)))

    def test_alternatives_stand_beside_the_chosen_ones(self) -> None:
        """The lists are put together by their places; a place may be missing."""
        chosen = [{"token": "Hi", "tokenId": 7, "logProbability": -0.1}]
        chosen.append({"token": "!", "tokenId": 8, "logProbability": -0.5})
        top = [{"candidates": [{"token": "Hey", "logProbability": -2}]}]
        assert self.told({"chosenCandidates": chosen, "topCandidates": top})[1] == Logprobs(
            (
                TokenLogprob("Hi", -0.1, top=(TokenLogprob("Hey", -2),)),
                TokenLogprob("!", -0.5),
            )
        )

    def test_another_shape(self) -> None:
        """What has another shape is told as it is."""
        assert self.told([1])[1] == Unknown("logprobsResult", [1])

    def told(self, result: Any) -> list[Event]:
        """Decode one event whose text is `Hi`."""
        content = {"parts": [{"text": "Hi"}]}
        candidate = {"content": content, "logprobsResult": result, "finishReason": "STOP"}
        return Decoded("gemini", {"candidates": [candidate]}).content


class TestStream:
    @pytest.mark.parametrize("provider", TELLING)
    @pytest.mark.parametrize("stream", [True, False])
    def test_they_come_with_the_answer(
        self, server: FakeServer, provider: str, stream: bool
    ) -> None:
        """Streamed or whole, each token is there, with as many alternatives as were asked for."""
        server.script(say("one two"))
        asked = {"provider": provider, "base_url": server.base_url(provider), "api_key": "any"}
        answer = stream_sync("Hi", logprobs=2, stream=stream, **asked).completion
        assert [token.token for token in answer.logprobs] == ["one", " two"]
        assert [len(token.top) for token in answer.logprobs] == [2, 2]
        assert complete_sync("Hi", **asked).logprobs == ()

    @pytest.mark.parametrize("provider", TELLING)
    def test_they_follow_the_text_they_belong_to(self, server: FakeServer, provider: str) -> None:
        """In a stream the events alternate: a piece of text, its tokens."""
        server.script(say("one two"))
        base_url = server.base_url(provider)
        stream = stream_sync("Hi", provider=provider, base_url=base_url, api_key="any", logprobs=0)
        told = [event for event in stream.events() if isinstance(event, (TextDelta, Logprobs))]
        assert [type(event) for event in told] == [TextDelta, Logprobs] * 2
        assert isinstance(told[1], Logprobs)
        assert told[1].tokens[0].top == ()


class TestSeam:
    def test_the_tokens_of_a_repetition_go_with_it(self) -> None:
        """What is removed from a continuation's text is removed from its tokens, too."""
        again, new = TokenLogprob("jumps over", -1), TokenLogprob(" the dog", -2)
        events: list[Event] = [
            *(TextDelta("jumps over"), Logprobs((again,))),
            *(TextDelta(" the dog"), Logprobs((new,))),
        ]
        joined = list(join("The fox jumps over", events))
        assert joined == [TextDelta(" the dog"), Logprobs((new,))]

    def test_the_tokens_may_come_after_the_text_is_decided(self) -> None:
        """Where a repetition and new text come in one piece, so may their tokens."""
        tokens = [TokenLogprob(text, -1) for text in ("jumps", " over", " the", " dog")]
        events: list[Event] = [TextDelta("jumps over the dog"), Logprobs(tuple(tokens))]
        joined = list(join("The fox jumps over", events))
        assert joined == [TextDelta(" the dog"), Logprobs(tuple(tokens[2:]))]

    def test_tokens_without_a_repetition_stay(self) -> None:
        """Where nothing is repeated, nothing is removed."""
        events: list[Event] = [TextDelta(" the dog"), Logprobs((TokenLogprob(" the dog", -2),))]
        assert list(join("The fox jumps over", events)) == events
