from __future__ import annotations

import io
from typing import Any

import pytest

from llm_sse import (
    RetryPolicy,
    StreamError,
    measure_stream,
    stream_sync,
    stream_with_count,
    stream_with_retry,
)
from llm_sse.errors import ConfigurationError, StreamClosed
from llm_sse.events import Resumed, TextDelta
from llm_sse.testing import FakeServer, cut, pause, say, status
from tests.helpers import locals_with

_AT_ONCE = RetryPolicy(backoff_s=0.0)


@pytest.fixture
def fake(server: FakeServer) -> dict[str, Any]:
    """The arguments that lead a call to the fake provider."""
    return {"base_url": server.base_url("openai"), "api_key": "any"}


class TestStreamWithCount:
    def test_counts_and_prints(self, server: FakeServer, fake: dict[str, Any]) -> None:
        """The deltas pass, then one line says how many they were."""
        server.script(say("one two three"))
        file = io.StringIO()
        counted = stream_with_count("Hi", file=file, **fake)
        assert "".join(counted) == "one two three"
        assert file.getvalue() == "[3 tokens, 13 chars]\n"
        assert (counted.tokens, counted.chars) == (3, 13)

    def test_prints_below_the_answer_by_default(
        self, server: FakeServer, fake: dict[str, Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """On standard output, where the tokens went, the line stands by itself."""
        server.script(say("one"))
        for token in stream_with_count("Hi", **fake):
            print(token, end="")
        assert capsys.readouterr().out == "one\n[1 tokens, 3 chars]\n"

    def test_leaves_the_counts_readable_when_the_loop_is_left(
        self, server: FakeServer, fake: dict[str, Any]
    ) -> None:
        """After a break nothing is printed, and the counts are those so far."""
        file = io.StringIO()
        counted = stream_with_count("Hi", file=file, **fake)
        for _ in counted:
            break
        assert counted.tokens == 1
        assert file.getvalue() == ""


class TestStreamWithRetry:
    def test_asks_again_before_the_first_token(
        self, server: FakeServer, fake: dict[str, Any]
    ) -> None:
        """A server that is overloaded for a moment goes unnoticed."""
        server.enqueue(status(503))
        server.script(say("fine"))
        assert stream_with_retry("Hi", retry=_AT_ONCE, **fake).text() == "fine"

    def test_continues_from_the_partial_answer(
        self, server: FakeServer, fake: dict[str, Any]
    ) -> None:
        """After a cut the text goes on, without what the continuation repeats, over a seam."""
        server.enqueue(say("The quick brown fox jumps"), cut())
        server.script(say("brown fox jumps over the lazy dog."))
        stream = stream_with_retry("Tell me", retry=_AT_ONCE, **fake)
        events = list(stream.events())
        assert stream.completion.text == "The quick brown fox jumps over the lazy dog."
        seam = next(i for i, event in enumerate(events) if isinstance(event, Resumed))
        assert "".join(e.text for e in events[:seam] if isinstance(e, TextDelta)).endswith("jumps")
        asked = server.requests[1].json["messages"]
        assert asked[-1]["role"] == "user"
        assert "The quick brown fox jumps" in asked[-1]["content"]

    def test_gives_up_with_everything_that_had_arrived(
        self, server: FakeServer, fake: dict[str, Any]
    ) -> None:
        """When the continuations are used up, the error holds all the text."""
        server.enqueue(say("one"), cut())
        server.enqueue(say(" two"), cut())
        with pytest.raises(StreamError) as caught:
            stream_with_retry("Hi", max_retries=1, retry=_AT_ONCE, **fake).text()
        assert caught.value.completion.text == "one two"
        assert len(server.requests) == 2

    def test_refuses_what_is_no_policy(self, fake: dict[str, Any]) -> None:
        """A retry that is no RetryPolicy is a mistake."""
        with pytest.raises(ConfigurationError, match="RetryPolicy"):
            stream_with_retry("Hi", **{**fake, "retry": {"max_retries": 1}})


class TestMeasureStream:
    def test_measures_a_new_stream(self) -> None:
        """The figures are those of the server's pace, counted in deltas and in usage tokens."""
        with FakeServer("a b c d e f g h i j", ttft_s=0.05, tokens_per_s=100) as server:
            metrics = measure_stream("Hi", base_url=server.base_url("openai"), api_key="any")
        assert metrics.deltas == 10
        assert metrics.output_tokens == 10
        assert metrics.ttft_ms is not None
        assert metrics.ttft_ms >= 50
        assert metrics.total_s >= 0.05 + 9 * 0.01
        assert metrics.deltas_per_s is not None
        assert 0 < metrics.deltas_per_s <= 120
        assert metrics.tokens_per_s == pytest.approx(10 / metrics.total_s)

    def test_measures_a_given_stream(self, server: FakeServer, fake: dict[str, Any]) -> None:
        """A stream that has not been read can be measured, too."""
        server.script(say("one two"))
        assert measure_stream(stream_sync("Hi", **fake)).deltas == 2

    def test_refuses_what_was_closed(self, server: FakeServer, fake: dict[str, Any]) -> None:
        """A stream that was left before its end has no figures of an answer."""
        server.script(say("one two"), pause(3600))
        stream = stream_sync("Hi", **fake)
        next(stream)
        stream.close()
        with pytest.raises(StreamClosed, match="closed before its end"):
            measure_stream(stream)

    def test_a_stream_that_was_read_has_its_figures(
        self, server: FakeServer, fake: dict[str, Any]
    ) -> None:
        """Whoever reads it, wholly or in part: all of it is measured, once it has ended."""
        server.script(say("one two"))
        stream = stream_sync("Hi", **fake)
        next(stream)
        metrics = measure_stream(stream)
        assert metrics.deltas == 2
        assert measure_stream(stream) == metrics

    def test_its_frame_holds_no_key(self, server: FakeServer, fake: dict[str, Any]) -> None:
        """The error of the stream that it opened shows its arguments to nobody."""
        server.script(status(400))
        with pytest.raises(StreamError) as caught:
            measure_stream("Hi", **{**fake, "api_key": "sk-secret-key"})
        assert locals_with("sk-secret-key", caught.value) == []

    def test_refuses_arguments_that_come_too_late(self, fake: dict[str, Any]) -> None:
        """A stream that is open already cannot be given a provider."""
        with (
            stream_sync("Hi", **fake) as stream,
            pytest.raises(ConfigurationError, match="provider"),
        ):
            measure_stream(stream, provider="gemini")

    def test_takes_the_arguments_of_stream_sync(
        self, server: FakeServer, fake: dict[str, Any]
    ) -> None:
        """Also those that have a name of its own: a prompt by name, and no streaming."""
        server.script(say("one two"))
        metrics = measure_stream(prompt="What is SSE?", stream=False, **fake)
        assert "What is SSE?" in str(server.requests[0].body)
        assert metrics.first_token_s == metrics.last_content_s
        assert metrics.deltas_per_s is None
        messages = [{"role": "user", "content": "Hi"}]
        assert measure_stream(messages=messages, stream=True, **fake).deltas == 2
        assert measure_stream(stream=stream_sync("Hi", **fake)).deltas == 2

    @pytest.mark.parametrize(
        ("given", "more", "complaint"),
        [
            (("Hi",), {"prompt": "Ho"}, "two prompts"),
            (("Hi",), {"stream": "yes"}, "stream"),
            ((), {}, "prompt"),
            ((5,), {}, "prompt"),
        ],
    )
    def test_refuses_what_does_not_go_together(
        self,
        server: FakeServer,
        fake: dict[str, Any],
        given: tuple[Any, ...],
        more: dict[str, Any],
        complaint: str,
    ) -> None:
        """A mistake is told in the words of stream_sync, before anything is sent."""
        with pytest.raises(ConfigurationError, match=complaint):
            measure_stream(*given, **more, **fake)
        assert server.requests == []
