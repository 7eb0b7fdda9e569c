"""What may pass is asked again, politely and for a bounded time; what cannot succeed is not."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import msgspec
import pytest

from llm_sse import RetryPolicy
from llm_sse.errors import APIError, ConnectError, ConnectionLost, RateLimitError, ServerError
from llm_sse.events import Event, Retrying, TextDelta
from llm_sse.testing import FakeServer, cut, fail, hang_up, page, say, status, think
from llm_sse.testing.script import Action
from tests.reliability.asking import ask, read
from tests.sync.bodies import ask_openai
from tests.wire import Connection, WireServer, head

AT_ONCE = RetryPolicy(backoff_s=0)
LONG = RetryPolicy(backoff_s=0, max_backoff_s=7200)


def first_event(server: FakeServer, provider: str, retry: RetryPolicy) -> Event:
    """Return the first event of a stream, and leave."""
    with ask(server, provider, retry=retry) as answer:
        return next(iter(answer.events()))


def wait_s(server: FakeServer, provider: str = "openai", retry: RetryPolicy = LONG) -> float:
    """Return how long the first wait is, without waiting."""
    event = first_event(server, provider, retry)
    assert isinstance(event, Retrying)
    return event.delay_s


class TestAgain:
    @pytest.mark.parametrize(
        "failure",
        [
            [hang_up()],
            [hang_up(reset=True)],
            [fail(429)],
            [fail(500)],
            [fail(529)],
            [cut("end")],
            [cut("close", inside=True)],
            [cut("reset")],
        ],
        ids=lambda script: repr(script[0]),
    )
    def test_a_failure_before_the_first_content_is_never_seen(
        self, server: FakeServer, provider: str, failure: list[Action]
    ) -> None:
        """The request is repeated; but for an event the loop is told nothing of it."""
        server.enqueue(*failure)
        server.script(say("fine"))
        events = list(ask(server, provider, retry=AT_ONCE).events())
        assert [event.attempt for event in events if isinstance(event, Retrying)] == [1]
        assert [event for event in events if isinstance(event, TextDelta)] == [TextDelta("fine")]

    def test_a_refused_connection_is_tried_again(self) -> None:
        """A server that comes up between two attempts is found."""
        with FakeServer() as was:
            port = int(was.url.rpartition(":")[2])
        policy = RetryPolicy(max_retries=1000, backoff_s=0.02, max_backoff_s=0.02)
        answer = ask(was, retry=policy)
        events = answer.events()
        first = next(events)
        assert isinstance(first, Retrying)
        assert "refused" in first.error
        with FakeServer("there", port=port):
            rest = list(events)
        assert TextDelta("there") in rest

    def test_a_refused_connection_is_a_connect_error_in_the_end(self) -> None:
        """After the last retry the error names the address."""
        with FakeServer() as was:
            pass
        deltas, error = read(ask(was, retry=AT_ONCE))
        assert deltas == []
        assert type(error) is ConnectError
        assert was.url in str(error)

    def test_content_ends_the_right_to_repeat(self, server: FakeServer, provider: str) -> None:
        """After the first delta nothing is asked again, for it would be said twice."""
        server.script(say("one"), cut())
        deltas, error = read(ask(server, provider, retry=AT_ONCE))
        assert (deltas, type(error)) == (["one"], ConnectionLost)
        assert len(server.requests) == 1

    def test_reasoning_is_content(self, server: FakeServer, provider: str) -> None:
        """Reasoning that was shown would be shown again."""
        server.script(think("hm"), cut())
        _, error = read(ask(server, provider, retry=AT_ONCE))
        assert type(error) is ConnectionLost
        assert len(server.requests) == 1


class TestNotAgain:
    def test_a_quota_that_is_used_up(self, server: FakeServer) -> None:
        """A 429 that no waiting cures is final."""
        server.script(status(429, "You exceeded your quota", code="insufficient_quota"))
        with pytest.raises(RateLimitError) as caught:
            ask(server, retry=AT_ONCE).text()
        assert len(server.requests) == 1
        assert not caught.value.retryable

    def test_a_server_that_says_so(self, server: FakeServer, provider: str) -> None:
        """`x-should-retry: false` ends it, whatever the status."""
        server.script(status(503, headers={"x-should-retry": "false"}))
        with pytest.raises(ServerError):
            ask(server, provider, retry=AT_ONCE).text()
        assert len(server.requests) == 1

    def test_a_server_that_asks_for_it(self, server: FakeServer, provider: str) -> None:
        """`x-should-retry: true` makes a final status a passing one."""
        server.enqueue(status(400, headers={"x-should-retry": "true"}))
        server.script(say("fine"))
        assert ask(server, provider, retry=AT_ONCE).text() == "fine"

    def test_an_error_event_that_is_the_requests_fault(
        self, server: FakeServer, provider: str
    ) -> None:
        """A refusal inside a 200 stream is as final as one by status."""
        server.script(fail(400))
        _, error = read(ask(server, provider, retry=AT_ONCE))
        assert isinstance(error, APIError)
        assert len(server.requests) == 1


class TestHints:
    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({"Retry-After": "7"}, 7.0),
            ({"Retry-After": "0.5"}, 0.5),
            ({"retry-after-ms": "1500"}, 1.5),
            ({"llm_provider-retry-after": "3"}, 3.0),
            ({"Retry-After": "1", "retry-after-ms": "0"}, 1.0),
            ({"Retry-After": "1", "retry-after-ms": "2500"}, 2.5),
            ({"Retry-After": "soon"}, 0.0),
            ({"Retry-After": "-5"}, 0.0),
            ({"Retry-After": "nan"}, 0.0),
        ],
    )
    def test_the_longest_hint_wins(
        self, server: FakeServer, provider: str, headers: dict[str, str], seconds: float
    ) -> None:
        """Every header that providers use is read; nonsense is no hint."""
        server.script(status(429, headers=headers))
        assert wait_s(server, provider) == pytest.approx(seconds)

    def test_a_date(self, server: FakeServer, provider: str) -> None:
        """`Retry-After` may be a moment; it is read against the server's own clock."""
        then = datetime.now(timezone.utc) + timedelta(hours=1)
        server.script(status(503, headers={"Retry-After": format_datetime(then, usegmt=True)}))
        assert wait_s(server, provider) == pytest.approx(3600, abs=5)

    def test_a_date_without_a_date(self) -> None:
        """A server without a clock means ours."""
        then = datetime.now(timezone.utc) + timedelta(hours=1)
        hint = {"Retry-After": format_datetime(then, usegmt=True)}

        def busy(connection: Connection) -> None:
            connection.send(head(503, hint, framing="0"))

        with WireServer(busy) as server, ask_openai(server.url, retry=LONG) as answer:
            event = next(answer.events())
        assert isinstance(event, Retrying)
        assert event.delay_s == pytest.approx(3600, abs=5)

    def test_what_gemini_says_in_the_body(self, server: FakeServer) -> None:
        """google.rpc.RetryInfo counts like a header, and the longer of the two wins."""
        details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7.5s"}]
        error = {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "m", "details": details}
        body = msgspec.json.encode({"error": error})
        server.script(page(body, content_type="application/json", status=429))
        assert wait_s(server, "gemini") == 7.5

    def test_the_policys_ceiling_stands_above_it(self, server: FakeServer, provider: str) -> None:
        """Nobody waits an hour because a server says so."""
        server.script(status(429, headers={"Retry-After": "3600"}))
        policy = RetryPolicy(backoff_s=0, max_backoff_s=2.5)
        assert wait_s(server, provider, policy) == 2.5


class TestBounds:
    def test_a_server_that_says_no_for_ever(self, server: FakeServer, provider: str) -> None:
        """It costs max_retries waits of max_backoff_s at most, whatever it asks for."""
        server.script(status(503, headers={"Retry-After": "3600"}))
        begun = time.monotonic()
        with pytest.raises(ServerError):
            ask(server, provider, retry=RetryPolicy(max_retries=3, max_backoff_s=0.05)).text()
        assert 0.15 <= time.monotonic() - begun < 0.15 + 1.0
        assert len(server.requests) == 4

    def test_a_server_that_always_cuts(self, server: FakeServer, provider: str) -> None:
        """An answer that never gets further is given up, too."""
        server.script(cut())
        _, error = read(ask(server, provider, retry=RetryPolicy(max_retries=3, backoff_s=0)))
        assert type(error) is ConnectionLost
        assert len(server.requests) == 4

    def test_a_pooled_connection_that_was_closed_costs_no_retry(self, provider: str) -> None:
        """A server that promises keep-alive and closes all the same goes unnoticed."""
        with FakeServer("fine", close_after=True) as server:
            for _ in range(5):
                assert ask(server, provider).text() == "fine"
            assert [recorded.connection for recorded in server.requests] == [1, 2, 3, 4, 5]
