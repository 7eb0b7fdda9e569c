"""Answers that are asked for whole: the same events, errors, retries and limits as a stream."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from llm_sse import Completion, RetryPolicy, Timeouts, complete_sync, stream_ollama, stream_sync
from llm_sse.errors import (
    APIError,
    AuthenticationError,
    ConnectionLost,
    ProtocolError,
    RateLimitError,
    ServerError,
    StreamTimeout,
)
from llm_sse.events import Finish, Retrying, StreamStart, TextDelta
from llm_sse.providers.whole import WholeAnswer
from llm_sse.testing import (
    Action,
    FakeServer,
    Framing,
    call_tool,
    cut,
    drip_head,
    fail,
    finish,
    framing,
    hang,
    hang_up,
    page,
    pause,
    say,
    stall,
    status,
    think,
)
from tests.helpers import FORMATS, locals_with, until
from tests.sync.bodies import ONCE, producers
from tests.sync.conftest import Ask
from tests.wire import Connection, WireServer, head

AGAIN = RetryPolicy(backoff_s=0)

Complete = Callable[..., Completion]


@pytest.fixture
def complete(server: FakeServer, provider: str) -> Complete:
    """Ask the fake provider for a whole answer, in each provider's format in turn."""

    def complete(prompt: str | None = "Hi", **arguments: Any) -> Completion:
        arguments.setdefault("base_url", server.base_url(provider))
        arguments.setdefault("api_key", "any")
        return complete_sync(prompt, provider=provider, **arguments)

    return complete


def _comparable(completion: Completion) -> Completion:
    """Leave out what tells one answer from the next: its number, and the spelling of JSON."""
    calls = tuple(
        msgspec.structs.replace(call, arguments_text="") for call in completion.tool_calls
    )
    usage = completion.usage
    return msgspec.structs.replace(
        completion,
        response_id=None,
        tool_calls=calls,
        usage=usage and msgspec.structs.replace(usage, raw=None),
    )


class TestTheSameAnswer:
    @pytest.mark.parametrize(
        "actions",
        [
            (say("Hello there."),),
            (think("Hm, well."), say("Hello there."), call_tool("f", {"a": 1}, id="c1")),
            (call_tool("f", {"a": [1, "x"]}, id="c1"), call_tool("g", id="c2")),
            (say("Hello"), finish("length")),
            (say("Grüße 🎉"),),
        ],
        ids=repr,
    )
    def test_whole_or_streamed(
        self, server: FakeServer, ask: Ask, complete: Complete, actions: tuple[Action, ...]
    ) -> None:
        """What a stream ends up with is what a whole answer has, usage and reasons included."""
        server.script(*actions)
        whole = complete()
        assert _comparable(whole) == _comparable(ask().completion)
        assert _comparable(whole) == _comparable(ask(stream=False).completion)
        assert whole.finish_reason in ("stop", "length", "tool_calls")
        assert whole.usage is not None
        assert whole.model

    def test_the_provider_is_asked_for_no_stream(
        self, server: FakeServer, complete: Complete, provider: str
    ) -> None:
        """The request says so in the provider's way, and the answer is one JSON body."""
        complete()
        recorded = server.requests[0]
        if provider == "gemini":
            assert recorded.path.endswith(":generateContent")
        else:
            assert recorded.json["stream"] is False
        assert (recorded.outcome, recorded.deltas_sent) == ("complete", 1)

    def test_the_loop_gets_it_in_one_piece(self, server: FakeServer, ask: Ask) -> None:
        """The events begin with StreamStart and end with Finish; the text is one delta."""
        server.script(say("one two three"))
        events = list(ask(stream=False).events())
        assert isinstance(events[0], StreamStart)
        assert [event for event in events if isinstance(event, TextDelta)] == [
            TextDelta("one two three")
        ]
        assert isinstance(events[-1], Finish)

    @pytest.mark.parametrize("how", ["bytes", "dribble", "close", "length", "gzip"])
    def test_in_every_framing(self, server: FakeServer, complete: Complete, how: Framing) -> None:
        """However its body is framed, a whole answer is the same."""
        server.script(framing(how), drip_head(0), say("one two"))
        assert complete().text == "one two"

    def test_a_connection_is_used_again(self, server: FakeServer, complete: Complete) -> None:
        """A whole answer gives its connection back."""
        for _ in range(5):
            complete()
        assert {recorded.connection for recorded in server.requests} == {1}

    def test_ollama_without_a_key(self, server: FakeServer) -> None:
        """stream_ollama needs no key, streamed or whole, and sends none."""
        where = server.base_url("ollama")
        for stream in (True, False):
            answer = stream_ollama("Hi", base_url=where, stream=stream)
            assert answer.provider == "ollama"
            assert answer.text().startswith("Server-sent")
        assert all("authorization" not in recorded.headers for recorded in server.requests)


class TestErrors:
    def test_its_frame_holds_no_key(self, server: FakeServer, complete: Complete) -> None:
        """What the answer ends in shows the arguments of the call to nobody."""
        server.script(status(400))
        with pytest.raises(APIError) as caught:
            complete(api_key="sk-secret-key")
        assert locals_with("sk-secret-key", caught.value) == []

    def test_a_status_is_retried(self, server: FakeServer, ask: Ask) -> None:
        """429 and 503 are asked again, as long as the provider wants it."""
        server.enqueue(status(429, headers={"Retry-After": "0"}))
        server.enqueue(status(503))
        server.script(say("fine"))
        events = list(ask(stream=False, retry=AGAIN).events())
        assert [type(event) for event in events[:2]] == [Retrying, Retrying]
        assert TextDelta("fine") in events
        assert len(server.requests) == 3

    @pytest.mark.parametrize(("code", "error"), [(401, AuthenticationError), (429, RateLimitError)])
    def test_a_status_is_its_error(
        self, server: FakeServer, complete: Complete, code: int, error: type[APIError]
    ) -> None:
        """Without retries a status is the error that it is for a stream, too."""
        server.script(status(code, "not you"))
        with pytest.raises(error, match="not you") as caught:
            complete(retry=ONCE)
        assert caught.value.status == code
        assert caught.value.request_id

    @pytest.mark.parametrize("how", ["close", "reset", "truncate", "end"])
    @pytest.mark.parametrize("framed", ["chunked", "close", "gzip"])
    def test_half_an_answer_is_lost(
        self, server: FakeServer, complete: Complete, how: Any, framed: Framing
    ) -> None:
        """A cut in the middle of the JSON is ConnectionLost, and nothing of it is told."""
        server.script(framing(framed), say("one two"), cut(how))
        with pytest.raises(ConnectionLost) as caught:
            complete(retry=ONCE)
        assert caught.value.retryable
        assert caught.value.completion.text == ""
        assert server.requests[0].ended.wait(5)
        assert server.requests[0].outcome == "cut"

    @pytest.mark.parametrize("how", ["close", "end"])
    def test_half_an_answer_is_asked_for_again(
        self, server: FakeServer, complete: Complete, how: Any
    ) -> None:
        """As nothing of it was seen, an answer that was cut is retried."""
        server.enqueue(say("one two"), cut(how))
        server.enqueue(hang_up())
        server.script(say("fine"))
        assert complete(retry=AGAIN).text == "fine"
        assert len(server.requests) == 3

    def test_what_comes_after_the_answer_does_not_matter(
        self, server: FakeServer, complete: Complete
    ) -> None:
        """A connection that is closed behind a whole answer has brought it."""
        server.script(say("fine"), finish(), cut())
        assert complete(retry=ONCE).text == "fine"
        assert server.requests[0].outcome == "complete"

    def test_a_page_is_no_answer(self, server: FakeServer, complete: Complete) -> None:
        """An HTML page with status 200 is a ProtocolError that shows how it begins."""
        server.script(page("<html>Log in</html>"))
        with pytest.raises(ProtocolError, match=r"text/html.*base_url.*Log in"):
            complete()
        assert len(server.requests) == 1

    @pytest.mark.parametrize("body", ["{}", '{"detail": "Not Found"}', "null", '"text"', "[]"])
    def test_json_that_is_no_answer(
        self, server: FakeServer, complete: Complete, body: str
    ) -> None:
        """Complete JSON of another kind is a ProtocolError that shows it, without a retry."""
        server.script(page(body, content_type="application/json"))
        with pytest.raises(ProtocolError, match=r"base_url right\? It begins: ") as caught:
            complete(retry=AGAIN)
        assert repr(body) in str(caught.value)
        assert not caught.value.retryable
        assert len(server.requests) == 1

    def test_an_answer_without_an_end_is_none(
        self, server: FakeServer, complete: Complete, provider: str
    ) -> None:
        """A body of the right shape that does not say why it ends is not asked for again."""
        bodies = {
            "openai": '{"id": "x", "choices": []}',
            "anthropic": '{"type": "ping"}',
            "gemini": '{"candidates": []}',
            "ollama": '{"model": "m", "message": {"content": "hi"}, "done": false}',
            "openai-responses": '{"object": "response", "status": "in_progress", "output": []}',
        }
        server.script(page(bodies[provider], content_type="application/json"))
        with pytest.raises(ProtocolError):
            complete(retry=AGAIN)
        assert len(server.requests) == 1

    def test_an_error_with_status_200_is_the_providers(
        self, server: FakeServer, complete: Complete
    ) -> None:
        """JSON that is an error is one, whatever the status says."""
        body = '{"error": {"message": "no such deployment", "code": "nowhere"}}'
        server.script(page(body, content_type="application/json"))
        with pytest.raises(APIError, match="no such deployment"):
            complete(retry=ONCE)

    def test_a_failure_in_the_script_has_its_status(
        self, server: FakeServer, complete: Complete
    ) -> None:
        """What is an error inside a stream is an answer's status, as nothing was sent before."""
        server.script(say("one"), fail(503, "overloaded"))
        with pytest.raises(ServerError, match="overloaded") as caught:
            complete(retry=ONCE)
        assert caught.value.status == 503
        assert server.requests[0].outcome == "refused"

    def test_a_body_without_end_is_given_up(self, provider: str) -> None:
        """An answer larger than the bound is a ProtocolError, long before memory is full."""
        piece = b'{"a":"' + b"x" * (1 << 20)

        def flood(connection: Connection) -> None:
            connection.send(head(headers={"Content-Type": "application/json"}, framing="close"))
            while True:  # until the client has gone
                connection.send(piece)

        with WireServer(flood) as server, pytest.raises(ProtocolError, match="larger than"):
            complete_sync("Hi", provider=provider, base_url=server.url, api_key="any", retry=ONCE)

    def test_the_bound_is_that_of_the_bytes(self) -> None:
        """The bound itself is still taken, one byte more is not."""
        frames = WholeAnswer(lambda answer: [answer], max_bytes=9)
        assert frames.feed(b'{"a": 12}') == []
        assert [sse.data for sse in frames.end()] == ['{"a":12}']
        with pytest.raises(ProtocolError, match="larger than 9 bytes"):
            frames.feed(b'{"a": 123}')


class TestLimits:
    @pytest.mark.parametrize("actions", [(hang(),), (stall(),), (pause(3600), say("x"))], ids=repr)
    def test_a_whole_answer_has_its_first_token_at_the_end(
        self, server: FakeServer, complete: Complete, actions: tuple[Action, ...]
    ) -> None:
        """first_token_s limits the whole wait."""
        server.script(*actions)
        with pytest.raises(StreamTimeout) as caught:
            complete(timeouts=Timeouts(first_token_s=0.2), retry=ONCE)
        assert caught.value.phase == "first_token"
        until(lambda: server.requests)
        assert server.requests[0].ended.wait(5)
        assert server.requests[0].outcome == "disconnected"

    def test_the_scripts_waits_pass_before_the_answer(self, provider: str) -> None:
        """ttft_s and pauses take their time; the pace of deltas does not count."""
        with FakeServer("a b c d", ttft_s=0.05, tokens_per_s=0.001) as server:
            server.enqueue(say("a b"), pause(0.1), say(" c"))
            where = {"base_url": server.base_url(provider), "api_key": "any"}
            begun = time.monotonic()
            assert complete_sync("Hi", provider=provider, **where).text == "a b c"
            assert time.monotonic() - begun >= 0.05 + 0.1

    def test_close_ends_the_wait(self, server: FakeServer, ask: Ask) -> None:
        """A whole answer that nobody wants any more is let go at once."""
        server.script(hang())
        answer = ask(stream=False)
        until(lambda: server.requests)
        answer.close()
        assert server.requests[0].ended.wait(5)
        until(lambda: not producers())


def test_every_row_can_be_asked_for_both(server: FakeServer) -> None:
    """One process asks all rows, whole and streamed, on the same server."""
    for name in FORMATS:
        for stream in (True, False):
            where = {"base_url": server.base_url(name), "api_key": "any"}
            assert stream_sync("Hi", provider=name, stream=stream, **where).text()
    assert len(server.requests) == 2 * len(FORMATS)
