"""The vendors' own packages are clients of the fake provider, as they are of the real ones."""

from __future__ import annotations

import json
import warnings

import pytest

from llm_sse.testing import FakeServer, call_tool, fail, say, status, think

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what the packages do at import is their own affair
    import anthropic
    import ollama
    import openai
    from google import genai
    from google.genai import errors as genai_errors
    from google.genai import types as genai_types

pytestmark = [
    pytest.mark.sdk,
    pytest.mark.filterwarnings("default"),
]

_WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}}


def _openai(server: FakeServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.base_url("openai"), api_key="any", max_retries=0)


def _anthropic(server: FakeServer) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.base_url("anthropic"), api_key="any", max_retries=0)


def _gemini(server: FakeServer) -> genai.Client:
    options = genai_types.HttpOptions(base_url=server.base_url("gemini"))
    return genai.Client(api_key="any", http_options=options)


def _ollama(server: FakeServer) -> ollama.Client:
    return ollama.Client(host=server.base_url("ollama"))


class TestOpenAIPackage:
    def test_streams_the_text_and_the_usage(self, server: FakeServer) -> None:
        """The openai package reads every delta, the finish reason and the usage."""
        server.script(say("Hello there, world."))
        with _openai(server) as client:
            chunks = list(
                client.chat.completions.create(
                    model="gpt-fake",
                    messages=[{"role": "user", "content": "Hi you"}],
                    stream=True,
                    stream_options={"include_usage": True},
                )
            )
        texts = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
        assert "".join(texts) == "Hello there, world."
        reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices]
        assert reasons[-1] == "stop"
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 3
        assert chunks[0].model == "gpt-fake"

    @pytest.mark.parametrize("gateway", ["azure", "groq", "mistral", "vllm"])
    def test_streams_from_a_gateway(self, server: FakeServer, gateway: str) -> None:
        """With a gateway's address the openai package is served as that gateway's client."""
        server.script(say("Hello there."))
        url = server.base_url(gateway)
        with openai.OpenAI(base_url=url, api_key="any", max_retries=0) as client:
            chunks = list(
                client.chat.completions.create(
                    model="m", messages=[{"role": "user", "content": "Hi"}], stream=True
                )
            )
        texts = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
        assert "".join(texts) == "Hello there."
        assert (chunks[-1].usage is not None) is (gateway == "mistral")
        assert server.requests[0].provider == gateway

    def test_reads_a_whole_answer(self, server: FakeServer) -> None:
        """Without stream=True the openai package reads text, calls, reason and usage."""
        server.script(say("Hello there."), call_tool("weather", {"city": "Oslo"}))
        with _openai(server) as client:
            answer = client.chat.completions.create(
                model="gpt-fake", messages=[{"role": "user", "content": "Hi you"}]
            )
        choice = answer.choices[0]
        assert (choice.message.content, choice.finish_reason) == ("Hello there.", "tool_calls")
        assert choice.message.tool_calls is not None
        assert choice.message.tool_calls[0].function.name == "weather"
        assert answer.usage is not None
        assert answer.usage.prompt_tokens == 2

    def test_gets_no_usage_that_it_did_not_ask_for(self, server: FakeServer) -> None:
        """Without include_usage no chunk carries usage, as at OpenAI."""
        with _openai(server) as client:
            chunks = list(
                client.chat.completions.create(
                    model="gpt-fake", messages=[{"role": "user", "content": "Hi"}], stream=True
                )
            )
        assert all(chunk.usage is None for chunk in chunks)

    def test_accumulates_tool_calls(self, server: FakeServer) -> None:
        """The openai package's own accumulator puts two parallel calls together."""
        server.script(call_tool("weather", {"city": "New York"}), call_tool("time"))
        with (
            _openai(server) as client,
            client.chat.completions.stream(
                model="gpt-fake",
                messages=[{"role": "user", "content": "Hi"}],
                tools=[
                    {
                        "type": "function",
                        "function": {"name": "weather", "parameters": _WEATHER},
                    }
                ],
            ) as stream,
        ):
            message = stream.get_final_completion().choices[0].message
        assert message.tool_calls is not None
        assert [call.function.name for call in message.tool_calls] == ["weather", "time"]
        assert json.loads(message.tool_calls[0].function.arguments) == {"city": "New York"}

    def test_raises_its_own_errors(self, server: FakeServer) -> None:
        """A scripted status and an error inside the stream are the package's own exceptions."""
        server.enqueue(status(429, "slow down", code="rate_limit_exceeded"))
        server.enqueue(say("one"), fail(500, "broken"))
        with _openai(server) as client:
            ask = lambda: list(  # noqa: E731
                client.chat.completions.create(
                    model="gpt-fake", messages=[{"role": "user", "content": "Hi"}], stream=True
                )
            )
            with pytest.raises(openai.RateLimitError, match="slow down"):
                ask()
            with pytest.raises(openai.APIError, match="broken"):
                ask()


class TestOpenAIPackageWithResponses:
    def test_streams_events(self, server: FakeServer) -> None:
        """responses.create(stream=True) yields the text and ends with the whole response."""
        server.script(think("Hm, well."), say("Hello there."))
        with _openai(server) as client:
            events = list(client.responses.create(model="gpt-fake", input="Hi you", stream=True))
        texts = [event.delta for event in events if event.type == "response.output_text.delta"]
        assert "".join(texts) == "Hello there."
        assert events[-1].type == "response.completed"
        assert events[-1].response.output_text == "Hello there."
        assert events[-1].response.usage is not None
        assert events[-1].response.usage.output_tokens == 4

    def test_accumulates(self, server: FakeServer) -> None:
        """responses.stream() puts text and two calls together by itself."""
        server.script(say("Wait."), call_tool("weather", {"city": "Oslo"}), call_tool("time"))
        with (
            _openai(server) as client,
            client.responses.stream(model="gpt-fake", input="Hi") as stream,
        ):
            response = stream.get_final_response()
        assert response.output_text == "Wait."
        calls = [item for item in response.output if item.type == "function_call"]
        assert [(call.name, json.loads(call.arguments)) for call in calls] == [
            ("weather", {"city": "Oslo"}),
            ("time", {}),
        ]

    def test_reads_a_whole_answer(self, server: FakeServer) -> None:
        """Without stream=True the openai package reads the response at once."""
        server.script(think("Hm."), say("Hello there."), call_tool("time"))
        with _openai(server) as client:
            response = client.responses.create(model="gpt-fake", input="Hi you")
        assert (response.status, response.output_text) == ("completed", "Hello there.")
        assert [item.type for item in response.output] == ["reasoning", "message", "function_call"]
        assert response.usage is not None
        assert response.usage.input_tokens == 2

    def test_raises_its_own_errors(self, server: FakeServer) -> None:
        """A scripted status and an error inside the stream are the package's own exceptions."""
        server.enqueue(status(429, "slow down", code="rate_limit_exceeded"))
        server.enqueue(say("one"), fail(500, "broken"))
        with _openai(server) as client:
            for error, message in ((openai.RateLimitError, "slow"), (openai.APIError, "broken")):
                with pytest.raises(error, match=message):
                    list(client.responses.create(model="gpt-fake", input="Hi", stream=True))


class TestAnthropicPackage:
    def test_reads_a_whole_answer(self, server: FakeServer) -> None:
        """messages.create() reads thinking, text, a call and usage at once."""
        server.script(think("Hm."), say("Hello there."), call_tool("weather", {"city": "Oslo"}))
        with _anthropic(server) as client:
            message = client.messages.create(
                model="claude-fake", max_tokens=100, messages=[{"role": "user", "content": "Hi"}]
            )
        assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
        assert message.stop_reason == "tool_use"
        assert message.usage.input_tokens == 1

    def test_streams_thinking_text_and_usage(self, server: FakeServer) -> None:
        """The anthropic package reads thinking, text, stop reason and usage."""
        server.script(think("Let me see."), say("Hello there."))
        with (
            _anthropic(server) as client,
            client.messages.stream(
                model="claude-fake",
                max_tokens=100,
                messages=[{"role": "user", "content": "Hi you"}],
            ) as stream,
        ):
            assert "".join(stream.text_stream) == "Hello there."
            message = stream.get_final_message()
        assert [block.type for block in message.content] == ["thinking", "text"]
        assert message.stop_reason == "end_turn"
        assert message.usage.output_tokens == 5

    def test_accumulates_tool_calls(self, server: FakeServer) -> None:
        """The anthropic package's own accumulator puts two calls together."""
        server.script(say("Wait."), call_tool("weather", {"city": "Oslo"}), call_tool("time"))
        with (
            _anthropic(server) as client,
            client.messages.stream(
                model="claude-fake", max_tokens=100, messages=[{"role": "user", "content": "Hi"}]
            ) as stream,
        ):
            message = stream.get_final_message()
        calls = [block for block in message.content if block.type == "tool_use"]
        assert [(call.name, call.input) for call in calls] == [
            ("weather", {"city": "Oslo"}),
            ("time", {}),
        ]
        assert message.stop_reason == "tool_use"

    def test_raises_its_own_errors(self, server: FakeServer) -> None:
        """A scripted status and an error inside the stream are the package's own exceptions."""
        server.enqueue(status(529, "too much"))
        server.enqueue(say("one"), fail(529, "broken"))

        def ask(client: anthropic.Anthropic) -> None:
            with client.messages.stream(
                model="claude-fake", max_tokens=100, messages=[{"role": "user", "content": "Hi"}]
            ) as stream:
                stream.until_done()

        with _anthropic(server) as client:
            with pytest.raises(anthropic.APIStatusError, match="too much"):
                ask(client)
            with pytest.raises(anthropic.APIStatusError, match="broken"):
                ask(client)


class TestGoogleGenAIPackage:
    def test_reads_a_whole_answer(self, server: FakeServer) -> None:
        """generate_content() reads text, a call and usage at once."""
        server.script(think("Hm."), say("Hello there."), call_tool("weather", {"city": "Oslo"}))
        client = _gemini(server)
        answer = client.models.generate_content(model="gemini-fake", contents="Hi you")
        client.close()
        assert answer.candidates is not None
        parts = answer.candidates[0].content.parts if answer.candidates[0].content else None
        assert [part.text for part in parts or []] == ["Hm.", "Hello there.", None]
        assert [(call.name, call.args) for call in answer.function_calls or []] == [
            ("weather", {"city": "Oslo"})
        ]
        assert answer.usage_metadata is not None
        assert answer.usage_metadata.prompt_token_count == 2

    def test_streams_thoughts_text_and_usage(self, server: FakeServer) -> None:
        """The google-genai package reads thoughts, text, finish reason and usage."""
        server.script(think("Hm, well."), say("Hello there."))
        client = _gemini(server)
        chunks = list(client.models.generate_content_stream(model="gemini-fake", contents="Hi you"))
        client.close()
        parts = [
            part
            for chunk in chunks
            for candidate in chunk.candidates or []
            for part in (candidate.content.parts if candidate.content else None) or []
        ]
        assert "".join(part.text or "" for part in parts if not part.thought) == "Hello there."
        assert "".join(part.text or "" for part in parts if part.thought) == "Hm, well."
        assert chunks[-1].candidates is not None
        assert chunks[-1].candidates[0].finish_reason == genai_types.FinishReason.STOP
        assert chunks[-1].usage_metadata is not None
        assert chunks[-1].usage_metadata.candidates_token_count == 4

    def test_reads_function_calls(self, server: FakeServer) -> None:
        """The google-genai package reads whole function calls."""
        server.script(call_tool("weather", {"city": "Oslo"}))
        client = _gemini(server)
        chunks = list(client.models.generate_content_stream(model="gemini-fake", contents="Hi"))
        client.close()
        calls = [call for chunk in chunks for call in chunk.function_calls or []]
        assert [(call.name, call.args) for call in calls] == [("weather", {"city": "Oslo"})]

    def test_raises_its_own_errors(self, server: FakeServer) -> None:
        """A scripted status is the package's own exception."""
        server.enqueue(status(404, "no such model"))
        client = _gemini(server)
        with pytest.raises(genai_errors.ClientError, match="no such model"):
            list(client.models.generate_content_stream(model="gemini-fake", contents="Hi"))
        client.close()


class TestOllamaPackage:
    @pytest.mark.parametrize("stream", [True, False])
    def test_reads_thinking_text_calls_and_counts(self, server: FakeServer, stream: bool) -> None:
        """The ollama package reads everything, streamed and whole, without a key."""
        server.script(think("Hm."), say("Hello there."), call_tool("weather", {"city": "Oslo"}))
        turns = [{"role": "user", "content": "Hi you"}]
        client = _ollama(server)
        if stream:
            parts = list(client.chat(model="fake", messages=turns, stream=True))
        else:
            parts = [client.chat(model="fake", messages=turns)]
        client.close()
        assert "".join(part.message.content or "" for part in parts) == "Hello there."
        assert "".join(part.message.thinking or "" for part in parts) == "Hm."
        calls = [call.function for part in parts for call in part.message.tool_calls or []]
        assert [(call.name, call.arguments) for call in calls] == [("weather", {"city": "Oslo"})]
        assert (parts[-1].done, parts[-1].done_reason) == (True, "stop")
        assert parts[-1].prompt_eval_count == 2

    def test_raises_its_own_errors(self, server: FakeServer) -> None:
        """A scripted status and an error inside the stream are the package's own exception."""
        server.enqueue(status(404, "model 'fake' not found"))
        server.enqueue(say("one"), fail(500, "broken"))
        client = _ollama(server)
        for message in ("not found", "broken"):
            with pytest.raises(ollama.ResponseError, match=message):
                list(client.chat(model="fake", messages=[], stream=True))
        client.close()
