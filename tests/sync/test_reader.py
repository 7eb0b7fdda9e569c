from __future__ import annotations

import threading
from typing import Any

import pytest

from llm_sse import RetryPolicy, Timeouts
from llm_sse.errors import (
    AuthenticationError,
    ConfigurationError,
    RateLimitError,
    StreamClosed,
    StreamTimeout,
)
from llm_sse.events import Event, Retrying
from llm_sse.sync.channel import Channel, ChannelTimeout
from llm_sse.testing import FakeServer, pause, raw, say, status
from tests.helpers import until
from tests.sync.conftest import Ask
from tests.wire import Connection, WireServer, head


class TestWaitStarted:
    def test_returns_before_the_first_token(self, server: FakeServer, ask: Ask) -> None:
        """The status is known while the model still thinks; nothing is taken from the loop."""
        server.script(pause(3600), say("never"))
        answer = ask()
        assert answer.wait_started(5) is True
        answer.close()

    def test_takes_nothing_from_the_loop(self, server: FakeServer, ask: Ask) -> None:
        """What had already arrived is delivered to the loop that follows."""
        server.enqueue(status(503))
        server.script(say("one two"))
        answer = ask(retry=RetryPolicy(backoff_s=0.0), buffer_size=1)
        assert answer.wait_started(5)
        events = list(answer.events())
        assert isinstance(events[0], Retrying)
        assert answer.completion.text == "one two"
        assert answer.wait_started(0)

    def test_raises_what_the_provider_refused(self, server: FakeServer, ask: Ask) -> None:
        """A view can still answer 429 when the provider does."""
        server.script(status(429))
        answer = ask(retry=RetryPolicy(max_retries=0))
        with pytest.raises(RateLimitError):
            answer.wait_started(5)
        with pytest.raises(RateLimitError):
            list(answer)

    def test_a_refusal_that_lasts_too_long_is_raised(self, server: FakeServer, ask: Ask) -> None:
        """A view cannot wait so long; it is told also where the pause has begun already."""
        server.script(status(429, headers={"Retry-After": "20"}))
        answer = ask(retry=RetryPolicy(max_retries=1))
        assert answer.wait_started(0.05) is False
        until(lambda: server.requests)
        with pytest.raises(RateLimitError):
            answer.wait_started(15, retry_within_s=15)
        assert len(server.requests) == 1

    def test_a_pause_of_our_own_is_waited_for(self, server: FakeServer, ask: Ask) -> None:
        """Nobody has said that it has to last; the next attempt may be the answer."""
        server.enqueue(status(503))
        server.script(say("one"))
        answer = ask(retry=RetryPolicy(max_retries=1, backoff_s=0.05))
        assert answer.wait_started(5, retry_within_s=0.0001)
        assert answer.text() == "one"

    def test_says_when_it_is_still_open(self, ask: Ask) -> None:
        """Without an answer in time it returns False, and the stream goes on."""
        with WireServer(Connection.wait_closed) as silent:
            answer = ask(base_url=silent.url)
            assert answer.wait_started(0.01) is False
            answer.close()

    def test_a_second_reader_does_not_end_it(self, ask: Ask) -> None:
        """Whoever comes while somebody waits is refused, and the wait goes on."""
        answered = threading.Event()

        def respond(connection: Connection) -> None:
            answered.wait(5)
            connection.send(head(200, {"Content-Type": "text/event-stream"}, framing="chunked"))
            connection.wait_closed()

        told: list[bool] = []
        with WireServer(respond) as server:
            answer = ask(base_url=server.url)
            waiting = threading.Thread(target=lambda: told.append(answer.wait_started(5)))
            waiting.start()
            until(lambda: answer._reader.claimed)
            with pytest.raises(StreamClosed, match="one reader"):
                next(answer.events())
            answered.set()
            waiting.join()
            answer.close()
        assert told == [True]

    def test_says_at_once_what_is_known(self, server: FakeServer, ask: Ask) -> None:
        """Inside one's own loop the status is known."""
        server.script(say("one two"))
        answer = ask()
        for _ in answer:
            assert answer.wait_started(0) is True

    def test_a_stream_that_ended_has_not_started(self, server: FakeServer, ask: Ask) -> None:
        """A stream that was closed or has failed never says that the provider accepted."""
        closed = ask()
        closed.close()
        with pytest.raises(StreamClosed):
            closed.wait_started(5)
        server.script(status(401))
        failed = ask()
        for _ in range(2):
            with pytest.raises(AuthenticationError):
                failed.wait_started(5)
        with WireServer(Connection.wait_closed) as silent:
            answer = ask(base_url=silent.url)
            closer = threading.Thread(
                target=lambda: (until(lambda: silent.requests), answer.close())
            )
            closer.start()
            with pytest.raises(StreamClosed):
                answer.wait_started(5)
            closer.join()

    def test_the_streams_limits_count(self, ask: Ask) -> None:
        """A limit that runs out while waiting is the stream's end."""
        with WireServer(Connection.wait_closed) as silent:
            answer = ask(base_url=silent.url, timeouts=Timeouts(first_token_s=0.02))
            with pytest.raises(StreamTimeout, match="first_token_s"):
                answer.wait_started()


class TestTimeouts:
    def test_a_first_token_that_never_comes(self, server: FakeServer, ask: Ask) -> None:
        """Headers alone are no token: the limit runs until the first content."""
        server.script(pause(3600))
        with pytest.raises(StreamTimeout) as caught:
            ask(timeouts=Timeouts(first_token_s=0.4)).text()
        assert caught.value.phase == "first_token"
        assert caught.value.limit_s == 0.4
        assert caught.value.request_id is not None
        assert caught.value.provider is not None

    def test_a_clock_that_is_a_little_off(
        self, openai: Ask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A wait that ends a moment too early by our clock is a timeout all the same."""

        def too_early(channel: Channel[Event], timeout_s: float | None = None) -> None:
            raise ChannelTimeout

        monkeypatch.setattr(Channel, "get", too_early)
        with pytest.raises(StreamTimeout):
            next(openai())

    def test_a_stall_in_the_middle(self, server: FakeServer, ask: Ask) -> None:
        """A provider that stops talking trips idle_s; what it had said is kept."""
        server.script(say("one two"), pause(3600))
        with pytest.raises(StreamTimeout) as caught:
            ask(timeouts=Timeouts(idle_s=0.05)).text()
        assert caught.value.phase == "idle"
        assert caught.value.completion.text == "one two"

    def test_pings_are_no_content(self, server: FakeServer, openai: Ask) -> None:
        """Comments keep a connection open, but not the idle clock from running."""
        pings = [action for _ in range(2000) for action in (raw(b": ping\n\n"), pause(0.01))]
        server.script(say("one"), *pings)
        with pytest.raises(StreamTimeout) as caught:
            openai(timeouts=Timeouts(idle_s=0.1)).text()
        assert caught.value.phase == "idle"

    def test_all_waiting_together(self, ask: Ask) -> None:
        """total_s ends a stream that is never idle for long."""
        with FakeServer("word " * 10000, tokens_per_s=200) as slow:
            answer = ask(
                base_url=slow.base_url(ask().provider), timeouts=Timeouts(total_s=0.2, idle_s=10)
            )
            with pytest.raises(StreamTimeout) as caught:
                answer.text()
        assert caught.value.phase == "total"
        assert caught.value.completion.text.startswith("word")

    def test_a_slow_consumer_trips_nothing(self, server: FakeServer, openai: Ask) -> None:
        """The clocks run only while the caller waits for the provider."""
        server.script(say("one two three"))
        limits = Timeouts(first_token_s=0.5, idle_s=0.05, total_s=0.5)
        answer = openai(timeouts=limits, buffer_size=1)
        waiting = threading.Event()
        got = []
        for token in answer:
            got.append(token)
            waiting.wait(0.1)
        assert got == ["one", " two", " three"]

    @pytest.mark.parametrize(
        "limits",
        [
            {"idle_s": 0},
            {"first_token_s": -1},
            {"total_s": "1"},
            {"connect_s": None},
            {"idle_s": float("inf")},
            {"total_s": float("nan")},
            {"first_token_s": 1e10},
        ],
    )
    def test_refuses_what_is_no_limit(self, limits: dict[str, Any]) -> None:
        """A limit is a number of seconds above 0."""
        with pytest.raises(ConfigurationError, match=next(iter(limits))):
            Timeouts(**limits)
