"""What is asked for and told beside the text: the vendors' own packages do it in the same words."""

from __future__ import annotations

import warnings
from typing import Any

import pydantic
import pytest

from llm_sse import stream_sync
from llm_sse.testing import FakeServer, say

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what the packages do at import is their own affair
    import anthropic
    import ollama
    import openai
    from google import genai
    from google.genai import types as genai_types

pytestmark = [pytest.mark.sdk, pytest.mark.filterwarnings("default")]


class Pet(pydantic.BaseModel):
    name: str
    legs: int = 4


class Person(pydantic.BaseModel):
    name: str
    pets: list[Pet]


TEXT = '{"name": "Ada", "pets": [{"name": "Rex", "legs": 4}]}'
ADA = Person(name="Ada", pets=[Pet(name="Rex")])


@pytest.fixture(autouse=True)
def _script(server: FakeServer) -> None:
    server.script(say(TEXT))


def ours(server: FakeServer, provider: str, **arguments: Any) -> Any:
    """Ask for the model ourselves; return what was sent."""
    stream = stream_sync(
        "Hi", provider=provider, base_url=server.base_url(provider), api_key="any", **arguments
    )
    if "response_format" in arguments:
        assert stream.parsed() == ADA
    else:
        stream.text()
    return server.requests[-1].json


def _openai(server: FakeServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.base_url("openai"), api_key="any", max_retries=0)


class TestOpenAIPackage:
    def test_chat_asks_for_a_form_in_the_same_words(self, server: FakeServer) -> None:
        """The openai package's own `parse` sends the same `response_format`, and reads it."""
        with _openai(server) as client:
            answer = client.chat.completions.parse(
                model="m", messages=[{"role": "user", "content": "Hi"}], response_format=Person
            )
        assert answer.choices[0].message.parsed == ADA
        theirs = without_defaults(server.requests[-1].json["response_format"])
        assert ours(server, "openai", response_format=Person)["response_format"] == theirs

    def test_responses_ask_for_a_form_in_the_same_words(self, server: FakeServer) -> None:
        """So it is with Responses."""
        with _openai(server) as client:
            answer = client.responses.parse(model="m", input="Hi", text_format=Person)
        assert answer.output_parsed == ADA
        theirs = without_defaults(server.requests[-1].json["text"])
        asked = ours(server, "openai-responses", response_format=Person)["text"]
        assert asked == theirs

    def test_reads_logprobs(self, server: FakeServer) -> None:
        """The fake server's log-probabilities are the package's own objects."""
        server.script(say("one two"))
        with _openai(server) as client:
            with client.chat.completions.stream(
                model="m",
                messages=[{"role": "user", "content": "Hi"}],
                logprobs=True,
                top_logprobs=2,
            ) as stream:
                logprobs = stream.get_final_completion().choices[0].logprobs
            whole = client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "Hi"}], logprobs=True
            )
            with client.responses.stream(
                model="m", input="Hi", include=["message.output_text.logprobs"], top_logprobs=2
            ) as events:
                part: Any = events.get_final_response().output[0]
        assert logprobs is not None
        assert whole.choices[0].logprobs is not None
        for told in (logprobs.content, whole.choices[0].logprobs.content, part.content[0].logprobs):
            assert [token.token for token in told or ()] == ["one", " two"]
        assert [len(token.top_logprobs) for token in logprobs.content or ()] == [2, 2]


class TestAnthropicPackage:
    def test_asks_for_a_form_in_the_same_words(self, server: FakeServer) -> None:
        """The anthropic package's own `parse` sends the same place and kind of schema."""
        base_url = server.base_url("anthropic")
        with anthropic.Anthropic(base_url=base_url, api_key="any", max_retries=0) as client:
            answer = client.messages.parse(
                model="m",
                max_tokens=99,
                messages=[{"role": "user", "content": "Hi"}],
                output_format=Person,
            )
        assert answer.parsed_output == ADA
        request = server.requests[-1]
        theirs = request.json["output_config"]
        # Of a default the package tells the model in words; here every field is required.
        pet = theirs["format"]["schema"]["$defs"]["Pet"]
        del pet["properties"]["legs"]["description"]
        pet["required"] = ["name", "legs"]
        asked = ours(server, "anthropic", response_format=Person)["output_config"]
        assert asked == theirs
        assert "anthropic-beta" not in server.requests[-1].headers


class TestGoogleGenAIPackage:
    def test_asks_for_a_form_and_logprobs_in_the_same_words(self, server: FakeServer) -> None:
        """The google-genai package sends the same settings, and reads the log-probabilities."""
        options = genai_types.HttpOptions(base_url=server.base_url("gemini"))
        client = genai.Client(api_key="any", http_options=options)
        asked = ours(server, "gemini", response_format=Person, logprobs=2)["generationConfig"]
        answer = client.models.generate_content(
            model="m",
            contents="Hi",
            config=genai_types.GenerateContentConfig(
                response_mime_type="application/json",
                response_json_schema=asked["responseJsonSchema"],
                response_logprobs=True,
                logprobs=2,
            ),
        )
        assert server.requests[-1].json["generationConfig"] == asked
        assert answer.candidates is not None
        result = answer.candidates[0].logprobs_result
        assert result is not None
        chosen, top = result.chosen_candidates, result.top_candidates
        assert chosen is not None
        assert top is not None
        assert "".join(one.token or "" for one in chosen) == TEXT
        assert {len(one.candidates or ()) for one in top} == {2}


class TestOllamaPackage:
    def test_asks_for_a_form_and_logprobs_in_the_same_words(self, server: FakeServer) -> None:
        """The ollama package sends the same fields, and reads the log-probabilities."""
        asked = ours(server, "ollama", response_format=Person, logprobs=2)
        client = ollama.Client(host=server.base_url("ollama"))
        messages = [{"role": "user", "content": "Hi"}]
        lines = client.chat(
            model="m",
            messages=messages,
            format=asked["format"],
            logprobs=True,
            top_logprobs=2,
            stream=True,
        )
        told = [token.token for line in lines for token in line.logprobs or ()]
        client._client.close()  # it has no way of its own
        theirs = server.requests[-1].json
        for name in ("format", "logprobs", "top_logprobs"):
            assert theirs[name] == asked[name]
        assert "".join(told) == TEXT


def without_defaults(value: Any) -> Any:
    """Return a schema without defaults; the openai package leaves in those that are not null."""
    if isinstance(value, dict):
        kept = {key: inner for key, inner in value.items() if key != "default"}
        return {key: without_defaults(inner) for key, inner in kept.items()}
    if isinstance(value, list):
        return [without_defaults(inner) for inner in value]
    return value
