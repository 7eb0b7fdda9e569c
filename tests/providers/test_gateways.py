"""What each gateway is known to do differently: by its row, or by the decoder's leniency."""

from __future__ import annotations

import datetime
import json
import re
from typing import Any

import pytest

from llm_sse import stream_sync
from llm_sse.completion import Accumulator, Completion
from llm_sse.errors import ConfigurationError, ConnectionLost, RateLimitError, StreamError
from llm_sse.providers import FORMATS, PROVIDERS, OpenAI
from llm_sse.testing import FakeServer, say
from tests.providers.bodies import KEY, ask, body_of
from tests.wire import WireServer, stream

GATEWAYS = [
    name for name, row in PROVIDERS.items() if name not in FORMATS and isinstance(row, OpenAI)
]
LOCAL = ["ollama-openai", "vllm", "llamacpp", "lmstudio", "litellm"]
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
DONE = "data: [DONE]\n\n"


def data(delta: Any = None, finish: Any = None, **fields: Any) -> str:
    """Return a chunk's SSE event; a delta of `None` stands for no delta at all."""
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish}
    if delta is not None:
        choice["delta"] = delta
    return event({"id": "c1", "model": "m", "choices": [choice], **fields})


def event(value: Any) -> str:
    """Return an SSE event."""
    return f"data: {json.dumps(value)}\n\n"


def fragment(name: str, arguments: str, **fields: Any) -> dict[str, Any]:
    """Return a delta with one whole call."""
    return {"tool_calls": [{**fields, "function": {"name": name, "arguments": arguments}}]}


class Told:
    """What a row's decoder makes of a body."""

    def __init__(self, name: str, body: str) -> None:
        row = PROVIDERS[name]
        frames, decoder, said = row.frames(), row.decoder(), Accumulator(name)
        self.error: StreamError | None = None
        try:
            for sse in [*frames.feed(body.encode()), *frames.end(dispatch_unfinished=True)]:
                for one in decoder.decode(sse):
                    said.add(one)
            for one in decoder.end():
                said.add(one)
        except StreamError as error:
            self.error = error
        self.completion: Completion = said.completion()


class TestRows:
    @pytest.mark.parametrize("name", GATEWAYS)
    def test_a_row_is_complete(self, name: str) -> None:
        """Each row has an address or a variable for it, and a variable for each setting."""
        row = PROVIDERS[name]
        assert isinstance(row, OpenAI)
        assert row.name == name
        assert row.needs_key is (name not in LOCAL)
        scheme = "http://127.0.0.1:" if name in LOCAL else "https://"
        assert row.base_url.startswith(scheme) or (name, row.base_url) == ("azure", "")
        for variable in (*row.key_env, row.model_env, row.base_url_env):
            assert re.fullmatch("[A-Z][A-Z0-9_]+", variable)
        assert row.max_tokens_field in ("max_tokens", "max_completion_tokens")

    @pytest.mark.parametrize("name", GATEWAYS)
    def test_a_check_has_a_day(self, name: str) -> None:
        """The date of a check is an ISO date, and every default model has one; none is dated."""
        row = PROVIDERS[name]
        if row.checked or row.model:
            assert datetime.date.fromisoformat(row.checked) >= datetime.date(2026, 1, 1)
        assert not re.search(r"\d{6,}|\d{4}-\d{2}", row.model)

    @pytest.mark.parametrize("name", GATEWAYS)
    def test_what_is_sent_is_what_the_row_says(self, name: str) -> None:
        """The limit has the row's name, and the usage is asked for where the row says so."""
        row = PROVIDERS[name]
        assert isinstance(row, OpenAI)
        body = body_of(name, max_tokens=5)
        assert body[row.max_tokens_field] == 5
        assert len({"max_tokens", "max_completion_tokens"} & set(body)) == 1
        assert ("stream_options" in body) is row.ask_usage
        assert row.request(ask(), KEY, "https://host/v1").credentials == {
            row.auth_header: f"{row.auth_prefix}{KEY}"
        }

    @pytest.mark.parametrize("name", [name for name in PROVIDERS if not PROVIDERS[name].model])
    def test_without_a_default_model_one_must_be_named(self, name: str) -> None:
        """The call itself says that a model is missing, and how to name one."""
        row = PROVIDERS[name]
        with pytest.raises(ConfigurationError, match=f"no default model.*{row.model_env}"):
            stream_sync("Hi", provider=name, api_key="any", base_url="http://127.0.0.1:9")

    def test_an_unknown_model_without_a_default_is_answered_with_the_variable(self) -> None:
        """Where there is no default model, none is spoken of."""
        error = PROVIDERS["groq"].error(404, {}, b'{"error": {"code": "model_not_found"}}')
        assert str(error).endswith("(pass model=... or set GROQ_MODEL)")
        error = PROVIDERS["azure"].error(404, {}, b'{"error": {"code": "DeploymentNotFound"}}')
        assert str(error).endswith("(pass model=... or set AZURE_OPENAI_MODEL)")
        row = OpenAI("acme", model="large")
        error = row.error(404, {}, b'{"error": {"code": "model_not_found"}}')
        assert "(the default model is 'large'; pass" in str(error)


class TestAzure:
    def test_the_key_has_a_header_of_its_own(self) -> None:
        """The key goes as `api-key`, bare."""
        row = PROVIDERS["azure"]
        assert row.credentials(KEY) == {"api-key": KEY}

    @pytest.mark.parametrize(
        "endpoint",
        ["https://r.openai.azure.com", "https://r.openai.azure.com/openai/v1/"],
    )
    def test_the_endpoint_is_completed(self, endpoint: str) -> None:
        """The variable holds the resource's address, with the API's path or without it."""
        found = PROVIDERS["azure"].find_base_url({"AZURE_OPENAI_ENDPOINT": endpoint})
        assert found == "https://r.openai.azure.com/openai/v1"

    def test_without_an_address_there_is_nobody_to_ask(self) -> None:
        """The error says which variable holds the address, and what it must end with."""
        complaint = r"AZURE_OPENAI_ENDPOINT, or pass base_url='https://host/openai/v1'"
        with pytest.raises(ConfigurationError, match=complaint) as caught:
            stream_sync("Hi", provider="azure", model="m", api_key="any")
        assert caught.value.provider == "azure"

    def test_a_query_follows_the_path(self) -> None:
        """A row for the older URLs says what stands behind the question mark."""
        row = OpenAI(
            "old", base_url="https://r/openai/deployments/d", query="api-version=2024-10-21"
        )
        url = row.request(ask(), KEY, row.base_url).url
        assert url == "https://r/openai/deployments/d/chat/completions?api-version=2024-10-21"

    def test_filter_results_and_choices_without_a_delta_say_nothing(self) -> None:
        """What Azure's filters add stands in nobody's way; their verdict is a finish reason."""
        first = {"choices": [], "created": 0, "id": "", "model": "", "object": ""}
        told = Told(
            "azure",
            event({**first, "prompt_filter_results": [{"prompt_index": 0}]})
            + data({"role": "assistant", "content": "", "refusal": None})
            + data({"content": "Half"})
            + event({"choices": [{"index": 0, "content_filter_offsets": {"check_offset": 4}}]})
            + data({}, "content_filter")
            + DONE,
        )
        assert told.completion.text == "Half"
        assert told.completion.finish_reason == "content_filter"
        assert told.completion.model == "m"

    def test_a_wait_of_nothing_does_not_win(self) -> None:
        """Of two contradicting hints the longer one counts, and a numeric text is a code."""
        headers = {"retry-after": "1", "retry-after-ms": "0"}
        body = b'{"error": {"code": "RateLimitReached", "message": "Slow down."}}'
        error = PROVIDERS["azure"].error(429, headers, body)
        assert isinstance(error, RateLimitError)
        assert (error.retry_after_s, error.retryable) == (1, True)


class TestTold:
    @pytest.mark.parametrize(
        ("name", "body", "text", "reasoning", "finish"),
        [
            pytest.param(
                "mistral",
                data(
                    {
                        "content": [
                            {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
                            {"type": "text", "text": "Li"},
                        ]
                    }
                )
                + data({"content": "st"}, p="abc")
                + data({"content": ""}, "stop", usage=USAGE)
                + DONE,
                *("List", "Hm.", "stop"),
                id="mistral: lists, then texts; usage unasked",
            ),
            pytest.param(
                "groq",
                data({"content": "", "role": "assistant"}, x_groq={"id": "req_1"})
                + data({"reasoning": "Hm.", "channel": "analysis"})
                + data({"content": "Fast"})
                + data({}, "stop", x_groq={"id": "req_1", "usage": USAGE})
                + event({"choices": [], "usage": None})
                + DONE,
                *("Fast", "Hm.", "stop"),
                id="groq: usage in x_groq, on the finish chunk",
            ),
            pytest.param(
                "deepseek",
                ": keep-alive\n\n"
                + data({"content": None, "reasoning_content": "Hm."})
                + data({"content": "Deep", "reasoning_content": None})
                + data({"content": ""}, "insufficient_system_resource", usage=USAGE)
                + DONE,
                *("Deep", "Hm.", "error"),
                id="deepseek: comments, reasoning_content, its own finish reason",
            ),
            pytest.param(
                "openrouter",
                ": OPENROUTER PROCESSING\n\n" * 3
                + data(
                    {
                        "content": "",
                        "reasoning": "Hm.",
                        "reasoning_details": [{"type": "reasoning.text", "text": "Hm."}],
                    }
                )
                + data({"content": "Routed"}, provider="Somebody")
                + data({"content": ""}, "stop")
                + data({"content": ""}, "stop")
                + data({"role": "assistant", "content": ""}, None, usage=USAGE)
                + DONE,
                *("Routed", "Hm.", "stop"),
                id="openrouter: comments, reasoning twice, null after stop",
            ),
            pytest.param(
                "zai",
                data({"role": "assistant", "reasoning_content": "Hm."})
                + data({"role": "assistant", "content": "G"})
                + data({"role": "assistant", "content": ""}, "sensitive", usage=USAGE)
                + DONE,
                *("G", "Hm.", "content_filter"),
                id="zai: no object, role on every delta, `sensitive`",
            ),
            pytest.param(
                "cerebras",
                event({"id": "c", "model": "m", "choices": [{"delta": {"reasoning": "Hm."}}]})
                + event({"choices": [{"delta": {"content": "Wafer"}, "index": 0}]})
                + event(
                    {
                        "choices": [{"delta": {}, "finish_reason": "stop", "index": 0}],
                        "usage": USAGE,
                        "time_info": {"total_time": 0.1},
                    }
                ),
                *("Wafer", "Hm.", "stop"),
                id="cerebras: keys absent, no [DONE]",
            ),
            pytest.param(
                "together",
                event(
                    {
                        "id": "c",
                        "choices": [
                            {
                                "index": 0,
                                "text": "To",
                                "seed": 2**60,
                                "delta": {"content": "To", "token_id": 7},
                            }
                        ],
                    }
                )
                + data({"content": ""}, "eos", usage=USAGE)
                + DONE,
                *("To", "", "stop"),
                id="together: text beside the delta, a huge seed, `eos`",
            ),
            pytest.param(
                "huggingface",
                "data:"
                + json.dumps(
                    {
                        "object": "text_completion",
                        "id": "",
                        "choices": [{"delta": {"content": "Hug"}}],
                    }
                )
                + "\n\ndata:"
                + json.dumps(
                    {
                        "id": "",
                        "choices": [{"delta": {}, "finish_reason": "eos_token"}],
                        "usage": USAGE,
                    }
                )
                + "\n\n",
                *("Hug", "", "stop"),
                id="huggingface: no space after `data:`, `eos_token`, no [DONE]",
            ),
            pytest.param(
                "perplexity",
                (
                    ": ping\n\n"
                    + event(
                        {
                            "id": "p",
                            "model": "sonar",
                            "citations": ["https://a"],
                            "usage": {**USAGE, "completion_tokens": 1},
                            "choices": [
                                {
                                    "index": 0,
                                    "message": {"role": "assistant", "content": "So"},
                                    "delta": {"content": "So"},
                                }
                            ],
                        }
                    )
                    + event(
                        {
                            "object": "chat.completion.done",
                            "citations": ["https://a"],
                            "usage": USAGE,
                            "choices": [
                                {
                                    "index": 0,
                                    "finish_reason": "stop",
                                    "message": {"role": "assistant", "content": "Sonar"},
                                    "delta": {"content": "nar"},
                                }
                            ],
                        }
                    )
                ).replace("\n", "\r\n"),
                *("Sonar", "", "stop"),
                id="perplexity: CRLF, cumulative messages and usage, no [DONE]",
            ),
            pytest.param(
                "ollama-openai",
                data({"role": "assistant", "content": "", "reasoning": "Hm."}, "")
                + data({"content": "Llama"}, "")
                + data({"content": ""}, "stop")
                + event({"choices": [], "usage": USAGE})
                + DONE,
                *("Llama", "Hm.", "stop"),
                id="ollama-openai: reasoning, an empty finish reason on every chunk",
            ),
            pytest.param(
                "vllm",
                data({"role": "assistant", "content": ""})
                + data({"content": "Paged"}, stop_reason=None)
                + data({"content": ""}, "abort")
                + event({"choices": [], "usage": USAGE})
                + DONE,
                *("Paged", "", "error"),
                id="vllm: `abort`",
            ),
            pytest.param(
                "llamacpp",
                data({"role": "assistant", "content": None})
                + data({"role": "assistant"}, prompt_progress={"total": 9, "processed": 4})
                + data({"reasoning_content": "Hm."})
                + data({"content": "🦙"})
                + data({}, "stop", timings={"predicted_n": 2})
                + event({"choices": [], "usage": USAGE, "timings": {"predicted_n": 2}})
                + DONE,
                *("🦙", "Hm.", "stop"),
                id="llamacpp: null content, progress, timings",
            ),
            pytest.param(
                "moonshot",
                data({"reasoning_content": "Hm."})
                + data({"content": "Ki"})
                + data({}, "stop", usage={**USAGE, "cached_tokens": 2})
                + DONE,
                *("Ki", "Hm.", "stop"),
                id="moonshot: cached tokens at the top",
            ),
        ],
    )
    def test_an_answer_is_read_as_its_gateway_writes_it(
        self, name: str, body: str, text: str, reasoning: str, finish: str
    ) -> None:
        """Text and reasoning are told once, the end is understood, the usage is there."""
        told = Told(name, body)
        assert told.error is None
        answer = told.completion
        assert (answer.text, answer.reasoning, answer.finish_reason) == (text, reasoning, finish)
        if '"usage"' in body:
            assert answer.usage is not None
            assert (answer.usage.input_tokens, answer.usage.output_tokens) == (3, 2)
            assert answer.usage.cached_input_tokens == answer.usage.raw.get("cached_tokens")

    def test_perplexitys_sources_are_told_once(self) -> None:
        """Each chunk lists all sources; each is one citation."""
        body = data({"content": "a"}, citations=["https://a"]) * 2 + data({}, "stop")
        assert [one.url for one in Told("perplexity", body).completion.citations] == ["https://a"]

    def test_xai_counts_reasoning_beside_the_completion(self) -> None:
        """The total gives away that reasoning is not among the output tokens; then it is added."""
        usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 14}
        details = {"completion_tokens_details": {"reasoning_tokens": 5}}
        last = event({"choices": [], "usage": {**usage, **details}})
        told = Told("xai", data({"content": "a"}) + data({}, "stop") + last + DONE)
        assert told.completion.usage is not None
        assert told.completion.usage.output_tokens == 7


class TestCalls:
    @pytest.mark.parametrize(
        ("name", "fragments"),
        [
            ("cerebras", [{"index": 0, "id": "a"}, {"index": 0, "id": "b"}]),
            ("ollama-openai", [{"index": 0, "id": "a"}, {"index": 0, "id": "b"}]),
            ("mistral", [{"id": "a"}, {"id": "b"}]),
            ("gemini-openai", [{"id": "a", "type": "function"}, {"id": "b", "type": "function"}]),
            ("xai", [{"index": 0, "id": "a"}, {"index": 1, "id": "b"}]),
        ],
    )
    def test_two_whole_calls_are_two(self, name: str, fragments: list[dict[str, Any]]) -> None:
        """Calls that come whole are told apart with an index, without one, and with a wrong one."""
        first, second = fragments
        body = data(fragment("f", '{"x": 1}', **first)) + data(fragment("f", '{"x": 2}', **second))
        told = Told(name, body + data({}, "tool_calls") * 2 + DONE)
        calls = [(one.id, one.name, one.arguments) for one in told.completion.tool_calls]
        assert calls == [("a", "f", {"x": 1}), ("b", "f", {"x": 2})]
        assert told.completion.finish_reason == "tool_calls"

    def test_the_word_null_is_no_identifier(self) -> None:
        """Mistral's later fragments carry the text "null" for an identifier that they lack."""
        rest = {"tool_calls": [{"index": 0, "id": "null", "function": {"arguments": "1}"}}]}
        body = data(fragment("f", '{"x": ', index=0, id="a")) + data(rest) + data({}, "tool_calls")
        (call,) = Told("mistral", body + DONE).completion.tool_calls
        assert (call.id, call.arguments) == ("a", {"x": 1})


class TestGivenBack:
    @pytest.mark.parametrize("name", ["deepseek", "moonshot", "zai"])
    def test_a_tool_loop_gets_its_reasoning_back(self, name: str) -> None:
        """The turn with the calls goes back with the reasoning that led to them."""
        body = data({"reasoning_content": "Hm."}) + data(fragment("f", "{}", index=0, id="a"))
        turn = Told(name, body + data({}, "tool_calls") + DONE).completion.message()
        assert (
            body_of(name, messages=[turn], prompt="x")["messages"][0]["reasoning_content"] == "Hm."
        )

    @pytest.mark.parametrize("name", ["deepseek", "moonshot", "zai"])
    def test_a_turn_with_calls_has_reasoning_even_if_there_is_none(self, name: str) -> None:
        """A call that another provider made is no reason for a refusal; plain turns stay plain."""
        call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        turns = [{"role": "assistant", "tool_calls": [call]}, {"role": "assistant", "content": "x"}]
        first, second = body_of(name, messages=turns, prompt="x")["messages"][:2]
        assert first["reasoning_content"] == ""
        assert "reasoning_content" not in second

    def test_openrouter_gets_its_details_back(self) -> None:
        """Signed and encrypted reasoning goes back in the shape in which it came."""
        details = [{"type": "reasoning.encrypted", "data": "x", "format": "openai-responses-v1"}]
        body = data({"reasoning_details": details}) + data({"content": "a"}) + data({}, "stop")
        turn = Told("openrouter", body + DONE).completion.message()
        (sent, _) = body_of("openrouter", messages=[turn], prompt="x")["messages"]
        assert sent["reasoning_details"] == [{"type": "reasoning.encrypted", "data": "x"}]

    def test_gemini_gets_the_signatures_of_its_calls_back(self) -> None:
        """A call's signature travels as `extra_content`, both ways."""
        extra = {"google": {"thought_signature": "s"}}
        body = data(fragment("f", "{}", id="a", extra_content=extra)) + data({}, "stop") + DONE
        turn = Told("gemini-openai", body).completion.message()
        (sent, _) = body_of("gemini-openai", messages=[turn], prompt="x")["messages"]
        assert sent["tool_calls"][0]["extra_content"] == extra

    @pytest.mark.parametrize("name", ["groq", "azure", "mistral"])
    def test_others_get_none_of_it(self, name: str) -> None:
        """A server that refuses unknown fields is sent none."""
        body = data({"reasoning_content": "Hm."}) + data(fragment("f", "{}", index=0, id="a"))
        turn = Told(name, body + data({}, "tool_calls") + DONE).completion.message()
        (sent, _) = body_of(name, messages=[turn], prompt="x")["messages"]
        assert set(sent) == {"role", "content", "tool_calls"}


class TestErrors:
    @pytest.mark.parametrize(
        ("name", "body", "status", "says"),
        [
            pytest.param(
                "groq",
                'event: error\ndata: {"error": {"message": "no tool", "code": "tool_use_failed", '
                '"status_code": 400}}\n\n',
                *(400, "no tool"),
                id="groq: an event of its own",
            ),
            pytest.param(
                "openrouter",
                data({}, "length") + event({"error": {"code": 502, "message": "upstream"}}) + DONE,
                *(502, "upstream"),
                id="openrouter: after a finish reason, with a number",
            ),
            pytest.param(
                "litellm",
                data({"content": "a"}) + event({"error": {"message": "over", "code": "429"}}),
                *(429, "over"),
                id="litellm: a code that is a text, no [DONE]",
            ),
            pytest.param(
                "vllm",
                event({"error": {"message": "bad", "type": "BadRequestError", "code": 400}}) + DONE,
                *(400, "bad"),
                id="vllm: followed by [DONE]",
            ),
            pytest.param(
                "vllm",
                event({"object": "error", "message": "flat", "type": "X", "code": 500}) + DONE,
                *(500, "flat"),
                id="vllm: flat, in older versions",
            ),
            pytest.param(
                "xai",
                event({"code": "The service is unavailable", "error": "busy"}),
                *(500, "busy"),
                id="xai: a text",
            ),
        ],
    )
    def test_an_error_in_the_stream_is_one(
        self, name: str, body: str, status: int, says: str
    ) -> None:
        """However a gateway says it, the stream ends with an error of the right status."""
        error = Told(name, body).error
        assert error is not None
        assert (getattr(error, "status", None), getattr(error, "detail", None)) == (status, says)

    def test_done_without_a_finish_reason_is_no_end(self) -> None:
        """A server that failed sends just `[DONE]`: the answer is not complete."""
        assert isinstance(Told("vllm", data({"content": "a"}) + DONE).error, ConnectionLost)

    @pytest.mark.parametrize(
        ("name", "status", "body", "says"),
        [
            ("mistral", 401, {"detail": "Unauthorized"}, "Unauthorized"),
            ("mistral", 422, {"message": "bad", "request_id": "r"}, "bad"),
            ("xai", 400, {"code": "Bad", "error": "wrong key"}, "wrong key"),
            ("llamacpp", 400, {"error": {"code": 400, "message": "too long"}}, "too long"),
            ("openrouter", 429, {"error": {"code": 429, "message": "slow"}}, "slow"),
            ("huggingface", 404, "Not Found", "Not Found"),
        ],
    )
    def test_a_refusal_is_read_whatever_its_shape(
        self, name: str, status: int, body: Any, says: str
    ) -> None:
        """The provider's message is found in each of the shapes."""
        encoded = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        assert PROVIDERS[name].error(status, {}, encoded).detail == says

    def test_litellms_own_header_says_how_long_to_wait(self) -> None:
        """The proxy passes an upstream's `Retry-After` on under another name."""
        error = PROVIDERS["litellm"].error(429, {"llm_provider-retry-after": "3"}, b"{}")
        assert error.retry_after_s == 3


class TestAnyServer:
    def test_a_server_without_keys_needs_an_address_only(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With `base_url=` an empty key is none: not even the environment's is sent."""
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        body = data({"content": "Hi"}) + data({}, "stop") + DONE
        with WireServer(stream([body.encode()])) as server:
            answer = stream_sync("x", base_url=f"{server.url}/v1", api_key="", model="m")
            assert answer.text() == "Hi"
        assert b"authorization" not in server.requests[0].lower()

    def test_a_missing_key_for_another_server_may_be_meant(self) -> None:
        """The error for a missing key says how to do without, where that can be."""
        with pytest.raises(ConfigurationError, match='api_key="" where that server wants none'):
            stream_sync("x", base_url="http://127.0.0.1:9/v1")
        with pytest.raises(ConfigurationError) as caught:
            stream_sync("x")
        assert 'api_key=""' not in str(caught.value)


class TestFake:
    @pytest.mark.parametrize("name", GATEWAYS)
    def test_the_fake_answers_as_each_gateway(self, server: FakeServer, name: str) -> None:
        """One server answers for every row, knows which it was, and tells the usage as it does."""
        row = PROVIDERS[name]
        assert server.base_url(name).startswith(f"{server.url}/{name}/")
        key = {"api_key": "any"} if row.needs_key else {}
        server.script(say("Hello."))
        answer = stream_sync("x", provider=name, model="m", base_url=server.base_url(name), **key)
        assert answer.text() == "Hello."
        assert answer.completion.usage is not None
        (request,) = server.requests
        assert (request.provider, request.outcome) == (name, "complete")
        sent = request.headers.get(row.auth_header.lower())
        assert sent == (f"{row.auth_prefix}any" if row.needs_key else None)

    def test_a_gateway_that_needs_a_key_refuses_whoever_has_none(self, server: FakeServer) -> None:
        """The key is looked for in the row's own header, and in that of OpenAI's SDK."""
        row = PROVIDERS["azure"]
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}]}).encode()
        for headers in ({"api-key": "any"}, {"authorization": "Bearer any"}):
            assert row.accept("/v1/chat/completions", headers, body).model == "m"
        with pytest.raises(StreamError, match="API key"):
            row.accept("/v1/chat/completions", {"x-api-key": "any"}, body)
        with pytest.raises(StreamError, match="API key"):
            PROVIDERS["openai"].accept("/v1/chat/completions", {"api-key": "any"}, body)

    def test_the_environments_addresses_lead_to_the_fake(
        self, server: FakeServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What a vendor's SDK adds to an address is not added to the fake's a second time."""
        for name in ("azure", "groq", "cerebras"):
            row = PROVIDERS[name]
            monkeypatch.setenv(row.base_url_env, server.base_url(name))
            monkeypatch.setenv(row.key_env[0], "any")
            stream_sync("x", provider=name, model="m").text()
        assert [one.provider for one in server.requests] == ["azure", "groq", "cerebras"]

    @pytest.mark.parametrize("path", ["/nobody/v1/chat/completions", "/groq/v1/messages", "/groq"])
    def test_a_path_of_nobody_is_nobodys(self, server: FakeServer, path: str) -> None:
        """Only the rows' own endpoints are there."""
        with pytest.raises(StreamError, match="404"):
            url = server.url + path.removesuffix("/chat/completions")
            stream_sync("x", base_url=url, api_key="any").text()
        assert server.requests[0].provider is None
