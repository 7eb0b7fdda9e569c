"""Identifiers of calls on their way to a provider that may refuse those of others."""

from __future__ import annotations

from typing import Any

import pytest

from llm_sse.chat import Message
from llm_sse.errors import ConfigurationError
from llm_sse.providers import OpenAI
from llm_sse.providers.call_ids import with_fitting_ids
from tests.providers.bodies import body_of

FITS = "[a-z0-9]+"


def called(*ids: Any) -> Message:
    """Return an assistant's turn with calls of these identifiers."""
    calls = [{"id": id_, "type": "function", "function": {"name": "f"}} for id_ in ids]
    return Message(role="assistant", tool_calls=calls)


def result(id: str) -> Message:
    """Return a tool's result."""
    return Message(role="tool", tool_call_id=id, content=f"of {id}")


def ids(turns: list[Message]) -> list[Any]:
    """Return the identifiers of calls and results, in their order."""
    found: list[Any] = []
    for turn in turns:
        found += [call.get("id") for call in turn.tool_calls or []]
        found += [turn.tool_call_id] if turn.role == "tool" else []
    return found


class TestWithFittingIds:
    def test_what_fits_stays(self) -> None:
        """A conversation whose identifiers fit is the same conversation."""
        turns = [called("a", "b"), result("a"), result("b"), called("c"), result("c")]
        assert with_fitting_ids(iter(turns), FITS) == turns

    def test_what_does_not_fit_gets_another_one(self) -> None:
        """A call and its result get the same new identifier, which fits."""
        turns = [called("functions.f:0"), result("functions.f:0")]
        call, answer = ids(with_fitting_ids(turns, FITS))
        assert call == answer
        assert call.isalnum()
        assert len(call) == 9

    def test_what_comes_again_in_a_later_answer_gets_another_one(self) -> None:
        """An identifier of two answers stays the first one's; results go to the latest answer."""
        turns = [called("a"), result("a"), called("a"), result("a"), called("a"), result("a")]
        got = ids(with_fitting_ids(turns, FITS))
        assert got[:2] == ["a", "a"]
        assert got[2] == got[3]
        assert got[4] == got[5]
        assert len(set(got)) == 3

    def test_what_comes_again_in_one_answer_gets_another_one(self) -> None:
        """Of two calls with one identifier each gets its own result, in their order."""
        got = ids(with_fitting_ids([called("a", "a"), result("a"), result("a")], FITS))
        assert got[:2] == got[2:]
        assert got[0] == "a" != got[1]

    def test_a_conversation_that_grows_keeps_its_identifiers(self) -> None:
        """What was sent in a round is sent again in the next one."""
        turns = [called("x.1"), result("x.1"), called("a", "a"), result("a"), result("a")]
        grown = [*turns, called("x.1"), result("x.1")]
        before = with_fitting_ids(turns, FITS)
        assert with_fitting_ids(grown, FITS)[: len(turns)] == before

    def test_a_new_identifier_is_nobody_elses(self) -> None:
        """A call that came with the very identifier that would be made keeps it."""
        made = ids(with_fitting_ids([called("x.1")], FITS))[0]
        got = ids(with_fitting_ids([called("x.1"), called(made)], FITS))
        assert got[1] == made != got[0]

    @pytest.mark.parametrize("id_", [None, "", 5])
    def test_a_call_without_one_stays_as_it_is(self, id_: Any) -> None:
        """What is missing is not made up here."""
        assert ids(with_fitting_ids([called(id_)], FITS)) == [id_]

    def test_a_result_whose_call_is_elsewhere_stays_as_it_is(self) -> None:
        """A provider may know a call that is not in the list."""
        assert ids(with_fitting_ids([result("x.1"), called("x.1")], FITS))[0] == "x.1"


CALL = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
#: Kimi's, one of 41 characters, one of 65, and one that comes twice.
FOREIGN = ["functions.f:0", "c" * 41, "d" * 65, "call_0", "call_0"]


def sent(provider: str) -> tuple[list[str], list[str]]:
    """Return the identifiers of calls and of results that a provider gets."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "q"}]
    for id_ in FOREIGN:
        messages.append({"role": "assistant", "tool_calls": [{"id": id_, **CALL}]})
        messages.append({"role": "tool", "tool_call_id": id_, "content": "r"})
    body = body_of(provider, messages=messages)
    if provider == "anthropic":
        blocks = [block for turn in body["messages"] for block in turn["content"]]
        return (
            [block["id"] for block in blocks if block["type"] == "tool_use"],
            [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"],
        )
    if provider == "openai-responses":
        items = [item for item in body["input"] if "call_id" in item]
        calls = [item["call_id"] for item in items if item["type"] == "function_call"]
        return calls, [item["call_id"] for item in items if item["type"] != "function_call"]
    turns = body["messages"]
    calls = [call["id"] for turn in turns for call in turn.get("tool_calls", ())]
    return calls, [turn["tool_call_id"] for turn in turns if turn["role"] == "tool"]


class TestProviders:
    @pytest.mark.parametrize(
        ("provider", "kept"),
        [
            ("anthropic", {1, 3}),
            ("openai", {0, 3}),
            ("azure", {0, 3}),
            ("openai-responses", {0, 1, 3}),
            ("mistral", set()),
        ],
    )
    def test_a_strict_provider_gets_what_it_takes(self, provider: str, kept: set[int]) -> None:
        """Anthropic, OpenAI and Mistral get identifiers of their own kind, and none twice."""
        calls, results = sent(provider)
        assert calls == results
        assert len(set(calls)) == len(calls)
        assert {at for at, id_ in enumerate(calls) if id_ == FOREIGN[at]} == kept

    @pytest.mark.parametrize("provider", ["deepseek", "openrouter", "vllm", "ollama"])
    def test_others_get_what_there_is(self, provider: str) -> None:
        """A server that takes every identifier gets the models' own ones: some depend on them."""
        if provider == "ollama":
            messages = [{"role": "assistant", "tool_calls": [{"id": FOREIGN[0], **CALL}]}]
            (turn,) = body_of(provider, messages=messages)["messages"]
            assert turn["tool_calls"][0]["id"] == FOREIGN[0]
            return
        assert sent(provider) == (FOREIGN, FOREIGN)

    @pytest.mark.parametrize("call_ids", ["[", 5, None])
    def test_a_row_says_it_as_a_regular_expression(self, call_ids: Any) -> None:
        """What is none is refused with the row."""
        with pytest.raises(ConfigurationError, match=r"call_ids must be a regular expression"):
            OpenAI("mine", base_url="https://host", call_ids=call_ids)
