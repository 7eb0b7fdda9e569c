from __future__ import annotations

from typing import Any

import pytest

from llm_sse import RetryPolicy, benchmark
from llm_sse.errors import ConfigurationError
from llm_sse.spread import RunError
from llm_sse.sync.benchmark import BenchmarkRun
from llm_sse.testing import FakeServer, fail, say, status
from tests.wire import WireServer, stream


def entry(server: FakeServer, provider: str = "openai", **more: Any) -> dict[str, Any]:
    """Say how a fake provider is asked."""
    return {
        "provider": provider,
        "base_url": server.base_url(provider),
        "api_key": "any",
        **more,
    }


class TestBenchmark:
    def test_the_providers_take_turns(self) -> None:
        """Each is asked as often as said, one at a time, and each turn begins with another."""
        ended: list[BenchmarkRun] = []
        with FakeServer("a b c d", ttft_s=0.01) as server:
            providers = [entry(server), entry(server, "anthropic"), entry(server, "gemini")]
            result = benchmark(providers, "Hi", on_run=ended.append, max_tokens=9)
            assert len(server.requests) == 15
        turns = [tuple(run.label for run in ended[turn : turn + 3]) for turn in range(0, 15, 3)]
        names = ("openai", "anthropic", "gemini")
        assert turns == [
            names,
            ("anthropic", "gemini", "openai"),
            ("gemini", "openai", "anthropic"),
            names,
            ("anthropic", "gemini", "openai"),
        ]
        assert [run.iteration for run in ended] == [turn for turn in range(1, 6) for _ in range(3)]
        assert all(run.metrics is not None and run.error is None for run in ended)
        assert [each.label for each in result.providers] == list(names)
        assert (result.prompt, result.iterations) == ("Hi", 5)
        for each in result.providers:
            assert each.enough
            assert each.model
            assert len(each.runs) == 5
            assert each.first_token_s is not None
            assert each.first_token_s.median >= 0.01
            assert each.first_token_s.lowest <= each.first_token_s.q1 <= each.first_token_s.median
            assert [run.deltas for run in each.runs] == [4] * 5
            assert each.errors == ()

    def test_errors_are_counted_and_told(self, server: FakeServer) -> None:
        """A run that fails is in no figure, and is not repeated; too few runs mark the result."""
        server.enqueue(status(503, "come back"))
        server.enqueue(say("one"), fail(529, "overloaded"))
        (result,) = benchmark([entry(server)], "Hi").providers
        assert len(server.requests) == 5
        assert [(error.iteration, error.error) for error in result.errors] == [
            (1, "ServerError"),
            (2, "ServerError"),
        ]
        assert "come back" in result.errors[0].message
        assert len(result.runs) == 3
        assert not result.enough

    def test_a_provider_that_always_fails(self, server: FakeServer) -> None:
        """Without any run there are no figures, and the others are measured all the same."""
        ended: list[BenchmarkRun] = []
        with WireServer(stream([b"down"], status=500, framing="length")) as down:
            broken = entry(server, "anthropic", base_url=down.url)
            result = benchmark([broken, entry(server)], "Hi", on_run=ended.append)
        none, all_ = result.providers
        assert (none.first_token_s, none.runs, len(none.errors)) == (None, (), 5)
        assert none.gaps.total == 0
        assert isinstance(ended[0].error, RunError)
        assert ended[0].error.error == "ServerError"
        assert len(all_.runs) == 5

    def test_models_of_one_provider(self, server: FakeServer) -> None:
        """A provider may come several times; the model is part of its name then."""
        providers = [entry(server, model="small"), entry(server, model="large:8b")]
        result = benchmark(providers, "Hi")
        assert [each.label for each in result.providers] == ["openai:small", "openai:large:8b"]
        assert [each.model for each in result.providers] == ["small", "large:8b"]

    def test_retries_when_asked_for(self, server: FakeServer) -> None:
        """With a policy of the caller's a failure costs time instead of the run."""
        server.enqueue(status(503))
        (result,) = benchmark(
            [entry(server)], "Hi", retry=RetryPolicy(max_retries=1, backoff_s=0)
        ).providers
        assert [run.attempts for run in result.runs] == [2, 1, 1, 1, 1]

    def test_no_policy_is_no_retry(self, server: FakeServer) -> None:
        """`None` means what it says everywhere: the default, which is not to ask again."""
        server.enqueue(status(503))
        (result,) = benchmark([entry(server)], "Hi", retry=None).providers
        assert [run.attempts for run in result.runs] == [1, 1, 1, 1]
        assert len(result.errors) == 1

    def test_addresses_of_one_provider(self, server: FakeServer) -> None:
        """With a label for each, two servers can be compared that are otherwise the same."""
        with FakeServer() as other:
            providers = [entry(server, label="here"), entry(other, label="there")]
            result = benchmark(providers, "Hi")
            assert len(server.requests) == len(other.requests) == 5
        assert [each.label for each in result.providers] == ["here", "there"]
        assert [each.provider for each in result.providers] == ["openai", "openai"]
        assert "label" in providers[0]

    @pytest.mark.parametrize(
        ("providers", "arguments", "complaint"),
        [
            (["openai"], {"iterations": 4}, "iterations must be at least 5"),
            (["openai"], {"iterations": True}, "iterations must be at least 5"),
            ([], {}, "needs a list of providers"),
            (5, {}, "needs a list of providers"),
            ([{"model": "m"}], {}, '"provider"'),
            ([{"provider": "openai", "prompt": "x"}], {}, "cannot have 'prompt'"),
            (["openai", "openai"], {}, 'there twice; give each a "model" or a "label"'),
            ([{"provider": "openai", "label": "x"}] * 2, {}, "x is there twice"),
            ([{"provider": "openai", "label": 5}], {}, "a label is a text, not 5"),
            ([{"provider": "openai", "label": " "}], {}, "a label is a text"),
            (["openai", "opnai"], {}, "opnai"),
            ([5], {}, "provider"),
            (["openai"], {"fallback": "gemini"}, "takes no fallback"),
            (["openai"], {"record": "x"}, "takes no record"),
            (["openai"], {"iteration": 5}, "no argument 'iteration'"),
            (["openai"], {"temperature": "hot"}, "temperature"),
        ],
    )
    def test_a_mistake_is_found_before_anything_is_sent(
        self, server: FakeServer, providers: Any, arguments: dict[str, Any], complaint: str
    ) -> None:
        """Whatever is wrong with any of the providers, the call itself says so."""
        given = {"base_url": server.base_url("openai"), "api_key": "any", **arguments}
        with pytest.raises(ConfigurationError, match=complaint):
            benchmark(providers, "Hi", **given)
        assert server.requests == []
