"""How each format asks for a form of the answer, and for log-probabilities."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from llm_sse.errors import ConfigurationError
from llm_sse.providers import PROVIDERS
from llm_sse.providers.openai import OpenAI
from tests.providers.bodies import KEY, ask, body_of


class Person(msgspec.Struct):
    name: str


SCHEMA = {
    "title": "Person",
    "type": "object",
    "properties": {"name": {"type": "string"}},
    "required": ["name"],
    "additionalProperties": False,
}
LAX = {"type": "object", "properties": {"name": {"type": "string"}}}
NAMED = {"type": "json_schema", "name": "p", "schema": LAX, "description": "A person."}


class TestResponseFormat:
    def test_chat_completions(self) -> None:
        """The schema is nested under `json_schema`, with its name and whether it is strict."""
        asked = body_of("openai", response_format=Person)["response_format"]
        inner = {"name": "Person", "schema": SCHEMA, "strict": True}
        assert asked == {"type": "json_schema", "json_schema": inner}
        asked = body_of("openai", response_format=NAMED)["response_format"]
        inner = {"name": "p", "schema": LAX, "description": "A person.", "strict": False}
        assert asked == {"type": "json_schema", "json_schema": inner}
        asked = body_of("openai", response_format="json_object")["response_format"]
        assert asked == {"type": "json_object"}

    def test_responses(self) -> None:
        """The same is flat, under `text.format`."""
        asked = body_of("openai-responses", response_format=Person)["text"]
        expected = {"type": "json_schema", "name": "Person", "schema": SCHEMA, "strict": True}
        assert asked == {"format": expected}
        asked = body_of("openai-responses", response_format=NAMED)["text"]["format"]
        assert (asked["description"], asked["strict"]) == ("A person.", False)
        asked = body_of("openai-responses", response_format="json_object")["text"]
        assert asked == {"format": {"type": "json_object"}}

    def test_messages(self) -> None:
        """Anthropic takes the bare schema, under `output_config.format`, and no beta header."""
        asked = body_of("anthropic", response_format=Person)["output_config"]
        assert asked == {"format": {"type": "json_schema", "schema": SCHEMA}}
        row = PROVIDERS["anthropic"]
        sent = row.request(ask(response_format=Person), KEY, "https://host")
        assert "anthropic-beta" not in sent.headers

    def test_messages_beside_the_callers_own(self) -> None:
        """What a caller adds to `output_config` stands beside the format."""
        extra = {"output_config": {"effort": "low"}}
        asked = body_of("anthropic", response_format=Person, extra_body=extra)["output_config"]
        assert asked["effort"] == "low"
        assert asked["format"]["schema"] == SCHEMA

    def test_messages_without_what_it_refuses(self) -> None:
        """Limits go into the description, and open objects are closed."""
        given = {
            "type": "object",
            "properties": {
                "n": {"type": "integer", "minimum": 1, "maximum": 9, "description": "How many."},
                "tags": {"type": "array", "items": {"type": "string"}, "minItems": 3},
                "some": {"type": "array", "items": LAX, "minItems": 1},
            },
        }
        asked = body_of("anthropic", response_format=given)["output_config"]["format"]["schema"]
        assert asked["additionalProperties"] is False
        assert asked["properties"] == {
            "n": {"type": "integer", "description": "How many. (maximum: 9, minimum: 1)"},
            "tags": {
                "type": "array",
                "items": {"type": "string"},
                "description": "(minItems: 3)",
            },
            "some": {
                "type": "array",
                "items": {**LAX, "additionalProperties": False},
                "minItems": 1,
            },
        }

    @pytest.mark.parametrize("pattern", [r"^(?!x)", r"\bx", r"(a)\1", r"\\\\\Bx"])
    def test_messages_without_patterns_that_it_refuses(self, pattern: str) -> None:
        """Look-arounds, word boundaries and references to groups are told in words."""
        given = {"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}}
        asked = body_of("anthropic", response_format=given)["output_config"]["format"]["schema"]
        told = {"type": "string", "description": f"(pattern: {pattern})"}
        assert asked["properties"] == {"a": told}

    @pytest.mark.parametrize("pattern", ["^[a-z]+$", r"\\b", "(?:a|b){2}", r"\\\(?=x"])
    def test_messages_with_other_patterns(self, pattern: str) -> None:
        """A simple pattern stays where it is."""
        given = {"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}}
        asked = body_of("anthropic", response_format=given)["output_config"]["format"]["schema"]
        assert asked["properties"] == given["properties"]

    def test_a_description_has_its_place(self) -> None:
        """Who has no field for the description of a form finds it in the schema."""
        said = {**LAX, "description": "A person."}
        asked = body_of("anthropic", response_format=NAMED)["output_config"]["format"]
        assert asked["schema"]["description"] == "A person."
        asked = body_of("gemini", response_format=NAMED)["generationConfig"]
        assert asked["responseJsonSchema"] == said
        assert body_of("ollama", response_format=NAMED)["format"] == said
        row = PROVIDERS["openai"].replace(name="old", json_schema=False)
        sent = row.request(ask(response_format=NAMED), KEY, "https://host")
        assert "A person." in json.loads(sent.body)["messages"][0]["content"]
        own = {**NAMED, "schema": {**LAX, "description": "Of today."}}
        assert body_of("ollama", response_format=own)["format"]["description"] == (
            "A person.\nOf today."
        )
        assert body_of("openai", response_format=own)["response_format"]["json_schema"] == {
            "name": "p",
            "schema": own["schema"],
            "description": "A person.",
            "strict": False,
        }

    @pytest.mark.parametrize("given", ["json_object", dict[str, int]], ids=str)
    def test_what_messages_cannot_take(self, given: Any) -> None:
        """Anthropic must know every field, and the error says so."""
        with pytest.raises(ConfigurationError, match=r"anthropic (needs|takes no objects)"):
            body_of("anthropic", response_format=given)

    def test_generate_content(self) -> None:
        """Gemini takes a media type, and the schema beside it."""
        asked = body_of("gemini", response_format=Person, max_tokens=5)["generationConfig"]
        assert asked == {
            "maxOutputTokens": 5,
            "responseMimeType": "application/json",
            "responseJsonSchema": SCHEMA,
        }
        asked = body_of("gemini", response_format="json_object")["generationConfig"]
        assert asked == {"responseMimeType": "application/json"}

    def test_ollama(self) -> None:
        """Ollama takes the bare schema, or a word."""
        assert body_of("ollama", response_format=Person)["format"] == SCHEMA
        assert body_of("ollama", response_format="json_object")["format"] == "json"

    @pytest.mark.parametrize("system", [None, "Be brief."])
    def test_a_gateway_without_schemas(self, system: str | None) -> None:
        """Where only JSON objects can be asked for, the schema stands in the instructions."""
        row = PROVIDERS["openai"]
        assert isinstance(row, OpenAI)
        plain = row.replace(name="plain", json_schema=False)
        chat = ask(response_format=Person, system=system)
        body = json.loads(plain.request(chat, KEY, "https://host").body)
        assert body["response_format"] == {"type": "json_object"}
        said = body["messages"][0]
        assert said["role"] == "system"
        assert said["content"].startswith(system or "Answer with one JSON object")
        assert json.loads(said["content"].partition("JSON Schema:\n")[2]) == SCHEMA
        chat = ask(response_format="json_object", system=system)
        body = json.loads(plain.request(chat, KEY, "https://host").body)
        assert ("JSON" in str(body["messages"])) is False

    def test_no_format_is_not_sent(self, provider: str) -> None:
        """Who asks for nothing sends the request that was always sent."""
        assert body_of(provider) == body_of(provider, response_format={"type": "text"})


class TestLogprobs:
    @pytest.mark.parametrize(
        ("provider", "place", "none", "two"),
        [
            ("openai", (), {"logprobs": True, "top_logprobs": None}, {"top_logprobs": 2}),
            (
                "openai-responses",
                (),
                {"include": ["message.output_text.logprobs"], "top_logprobs": 0},
                {"top_logprobs": 2},
            ),
            ("gemini", ("generationConfig",), {"responseLogprobs": True}, {"logprobs": 2}),
            ("ollama", (), {"logprobs": True}, {"logprobs": True, "top_logprobs": 2}),
        ],
    )
    def test_what_is_asked_for(
        self, provider: str, place: tuple[str, ...], none: dict[str, Any], two: dict[str, Any]
    ) -> None:
        """0 asks for the chosen tokens alone, a number for so many alternatives beside them."""
        for logprobs, expected in ((0, none), (2, {**none, **two})):
            body = body_of(provider, logprobs=logprobs)
            for key in place:
                body = body[key]
            assert {name: body.get(name) for name in expected} == expected
        assert "logprobs" not in str(body_of(provider)).lower()

    def test_anthropic_has_none(self) -> None:
        """What a provider cannot tell is refused by the call."""
        with pytest.raises(ConfigurationError, match="anthropic tells no log-probabilities"):
            body_of("anthropic", logprobs=0)

    @pytest.mark.parametrize("logprobs", [-1, True, 1.5, "2"])
    def test_what_is_no_number_of_alternatives(self, logprobs: Any) -> None:
        """It is a whole number of at least 0."""
        with pytest.raises(ConfigurationError, match="logprobs"):
            ask(logprobs=logprobs)
