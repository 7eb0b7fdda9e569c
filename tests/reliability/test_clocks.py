from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from llm_sse import RetryPolicy, Timeouts, TokenStream
from llm_sse.errors import StreamTimeout, TransportError
from llm_sse.events import Resumed, Retrying, TextDelta
from llm_sse.testing import (
    Action,
    FakeServer,
    cut,
    drip_head,
    hang,
    hang_up,
    pause,
    ping,
    raw,
    say,
    stall,
    status,
)
from tests.helpers import until
from tests.reliability.conftest import (
    ESTABLISHED,
    FAR_S,
    SYN_SENT,
    ask,
    connections,
    machine_late_s,
    port_of,
    retries,
    seconds_until_gone,
)

#: How much later than its limit a timeout may come, in seconds.
_MARGIN_S = 0.2
#: The limits that do not run out: one test, one clock.
_FAR = {"connect_s": FAR_S, "first_token_s": FAR_S, "idle_s": FAR_S, "total_s": FAR_S}
_LIMIT_S = 0.1

#: An event without content, as each provider sends it before and between the ones that count.
_EMPTY = {
    "openai": b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n',
    "anthropic": b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"text_delta","text":""}}\n\n',
    "gemini": b'data: {"candidates":[{"content":{"role":"model","parts":[{"text":""}]}}]}\n\n',
}


#: Each format without TLS, and TLS once: no decoder knows of it.
_IN_EACH_FORMAT = pytest.mark.parametrize(
    ("provider", "context"),
    [("openai", None), ("anthropic", None), ("gemini", None), ("openai", "secure")],
    indirect=["context"],
)


@pytest.fixture
def context(request: pytest.FixtureRequest) -> ssl.SSLContext | None:
    """What makes a server one of the scheme that a test asks for."""
    found: ssl.SSLContext | None = request.param and request.getfixturevalue(request.param)
    return found


def limits(**seconds: float) -> Timeouts:
    """Set one clock, and the others so far that they do not run out."""
    return Timeouts(**{**_FAR, **seconds})


def over_and_over(data: bytes) -> list[Action]:
    """Send the same bytes every hundredth of a second, for longer than any limit."""
    return [step for _ in range(300) for step in (raw(data), pause(0.01))]


@contextmanager
def times_out(phase: str, limit_s: float, *, since: list[float]) -> Iterator[None]:
    """Expect a StreamTimeout, in time: counted from the last of the moments that are noted."""
    with pytest.raises(StreamTimeout) as caught:
        yield
    took_s = time.monotonic() - since[-1]
    late_s = machine_late_s(since[-1])
    error = caught.value
    assert (error.phase, error.limit_s) == (phase, limit_s)
    assert limit_s - 0.01 <= took_s < limit_s + _MARGIN_S + late_s
    assert isinstance(error, TimeoutError)
    assert isinstance(error, TransportError)
    assert f"timeouts.{phase}_s" in str(error)


def read(answer: TokenStream, progress: list[float]) -> None:
    """Read to the end; note when the reading began, and when each delta came."""
    progress.append(time.monotonic())
    for event in answer.events():
        if type(event) is TextDelta:
            progress.append(time.monotonic())  # noqa: PERF401


def assert_left(server: FakeServer) -> None:
    """See that the timeout has ended the stream's thread, and its connection as the server saw."""
    assert seconds_until_gone(time.monotonic()) < 0.25
    until(lambda: not connections(port_of(server)))
    for recorded in server.requests[-1:]:  # none, where the machine was too late to send it
        assert recorded.ended.wait(1)
        assert recorded.outcome == "disconnected"


class TestConnect:
    def test_nobody_answers_the_connection_attempt(self) -> None:
        """connect_s ends the attempt to reach an address where packets vanish."""
        with FakeServer(on_connect="black_hole") as server:
            before = connections(port_of(server), SYN_SENT, to=True)
            with times_out("connect", _LIMIT_S, since=[time.monotonic()]):
                ask(server, timeouts=limits(connect_s=_LIMIT_S)).text()
            assert seconds_until_gone(time.monotonic()) < 0.25
            assert connections(port_of(server), SYN_SENT, to=True) <= before

    def test_the_handshake_never_comes(self, secure: ssl.SSLContext) -> None:
        """connect_s ends a TLS handshake that the server does not answer."""
        with FakeServer(on_connect="ignore", ssl_context=secure) as server:
            answer = ask(server, timeouts=limits(connect_s=_LIMIT_S))
            with times_out("connect", _LIMIT_S, since=[time.monotonic()]):
                answer.text()
            assert answer.completion.text == ""
            assert seconds_until_gone(time.monotonic()) < 0.25
            until(lambda: not connections(port_of(server), ESTABLISHED))

    @pytest.mark.parametrize(
        ("clock", "phase"), [("first_token_s", "first_token"), ("total_s", "total")]
    )
    def test_the_other_clocks_run_while_it_connects(self, clock: str, phase: str) -> None:
        """A limit that is shorter than connect_s ends a connection attempt, under its own name."""
        with FakeServer(on_connect="black_hole") as server:
            answer = ask(server, timeouts=limits(**{clock: _LIMIT_S}))
            with times_out(phase, _LIMIT_S, since=[time.monotonic()]):
                answer.text()
            assert seconds_until_gone(time.monotonic()) < 0.25

    def test_it_counts_for_each_attempt(self) -> None:
        """Every attempt has the whole of connect_s."""
        seen = []
        with FakeServer(on_connect="black_hole") as server:
            answer = ask(
                server,
                timeouts=limits(connect_s=_LIMIT_S),
                retry=RetryPolicy(max_retries=2, backoff_s=0),
            )
            begun = time.monotonic()
            with pytest.raises(StreamTimeout) as caught:
                for event in answer.events():
                    seen.append(event)  # noqa: PERF402
            took_s = time.monotonic() - begun
            late_s = machine_late_s(begun)
        assert [type(event) for event in seen] == [Retrying, Retrying]
        assert (caught.value.phase, caught.value.limit_s) == ("connect", _LIMIT_S)
        assert 3 * _LIMIT_S - 0.01 <= took_s < 3 * _LIMIT_S + _MARGIN_S + late_s


class TestFirstToken:
    @pytest.mark.parametrize(
        "script",
        [[hang()], [drip_head(0.02), say("late")]],
        ids=["no headers", "headers byte by byte"],
    )
    def test_the_headers_do_not_come(
        self, script: list[Action], tls: ssl.SSLContext | None
    ) -> None:
        """first_token_s ends the wait for headers that never come, or never end."""
        with FakeServer(script=script, ssl_context=tls) as server:
            answer = ask(server, timeouts=limits(first_token_s=_LIMIT_S))
            with times_out("first_token", _LIMIT_S, since=[time.monotonic()]):
                answer.text()
            assert answer.request_id is None
            assert_left(server)

    def test_the_request_is_not_read(self) -> None:
        """A server that takes the connection and reads nothing trips first_token_s."""
        with FakeServer(on_connect="ignore") as server:
            answer = ask(server, timeouts=limits(first_token_s=_LIMIT_S))
            with times_out("first_token", _LIMIT_S, since=[time.monotonic()]):
                answer.text()
            assert seconds_until_gone(time.monotonic()) < 0.25
            until(lambda: not connections(port_of(server), ESTABLISHED))

    @pytest.mark.parametrize("what", ["nothing", "pings", "comments", "empty events"])
    @_IN_EACH_FORMAT
    def test_no_content_comes(
        self, what: str, provider: str, context: ssl.SSLContext | None
    ) -> None:
        """Headers, pings, comments and events without content are no token."""
        script: dict[str, list[Action]] = {
            "nothing": [stall()],
            "pings": [ping(0.01)],
            "comments": over_and_over(b": still thinking\n\n"),
            "empty events": over_and_over(_EMPTY[provider]),
        }
        with FakeServer(script=script[what], ssl_context=context) as server:
            answer = ask(server, provider, timeouts=limits(first_token_s=_LIMIT_S))
            until(lambda: answer.request_id)  # nobody waits for the stream yet: no clock runs
            with times_out("first_token", _LIMIT_S, since=[time.monotonic()]):
                answer.text()
            assert answer.completion.text == ""
            with pytest.raises(StreamTimeout) as again:
                answer.text()
            assert again.value.provider == provider
            assert again.value.completion.finish_reason is None
            assert (again.value.request_id or "").startswith("req_fake_")
            assert_left(server)

    def test_it_counts_over_all_attempts(self) -> None:
        """However many attempts fail, the first token has one limit."""
        with FakeServer(script=[hang_up()]) as server:
            answer = ask(
                server,
                timeouts=limits(first_token_s=_LIMIT_S),
                retry=retries(backoff_s=0.01, max_backoff_s=0.01),
            )
            with times_out("first_token", _LIMIT_S, since=[time.monotonic()]):
                answer.text()
            assert len(server.requests) > 2
            assert seconds_until_gone(time.monotonic()) < 0.25

    def test_it_counts_while_a_provider_wants_to_be_left_alone(self) -> None:
        """The waits between the attempts are part of the wait for the first token."""
        with FakeServer(script=[status(503, headers={"Retry-After": "20"})]) as server:
            answer = ask(server, timeouts=limits(first_token_s=_LIMIT_S), retry=retries())
            with times_out("first_token", _LIMIT_S, since=[time.monotonic()]):
                answer.text()
            assert len(server.requests) == 1
            assert seconds_until_gone(time.monotonic()) < 0.25

    def test_a_continuation_has_a_first_token_of_its_own(self) -> None:
        """After a cut the wait for the next content is again one for a first token."""
        with FakeServer() as server:
            server.enqueue(say("one two"), cut())
            server.enqueue(hang())
            answer = ask(
                server,
                timeouts=limits(first_token_s=_LIMIT_S),
                retry=RetryPolicy(resume=True, backoff_s=0),
            )
            since: list[float] = []
            with times_out("first_token", _LIMIT_S, since=since):
                for event in answer.events():
                    if type(event) is Resumed:
                        since.append(time.monotonic())  # noqa: PERF401
            assert answer.completion.text == "one two"
            assert_left(server)


class TestIdle:
    @pytest.mark.parametrize("what", ["nothing", "pings", "comments", "empty events"])
    @_IN_EACH_FORMAT
    def test_no_more_content_comes(
        self, what: str, provider: str, context: ssl.SSLContext | None
    ) -> None:
        """A stream without content is idle, whatever else keeps it busy; what was said is kept."""
        script: dict[str, list[Action]] = {
            "nothing": [stall()],
            "pings": [ping(0.01)],
            "comments": over_and_over(b": still there\n\n"),
            "empty events": over_and_over(_EMPTY[provider]),
        }
        with FakeServer(
            script=[say("one two"), *script[what]],
            ssl_context=context,
        ) as server:
            answer = ask(server, provider, timeouts=limits(idle_s=_LIMIT_S))
            progress: list[float] = []
            with times_out("idle", _LIMIT_S, since=progress):
                read(answer, progress)
            assert len(progress) == 3
            with pytest.raises(StreamTimeout) as again:
                answer.text()
            assert again.value.provider == provider
            assert again.value.completion.text == "one two"
            assert again.value.completion.finish_reason is None
            assert (again.value.request_id or "").startswith("req_fake_")
            assert_left(server)

    def test_a_stall_after_retries(self, tls: ssl.SSLContext | None) -> None:
        """The attempts before do not change the clocks of the answer that comes at last."""
        with FakeServer(script=[say("one"), stall()], ssl_context=tls) as server:
            server.enqueue(status(503))
            server.enqueue(hang_up())
            answer = ask(
                server,
                timeouts=limits(idle_s=_LIMIT_S),
                retry=RetryPolicy(max_retries=2, backoff_s=0),
            )
            progress: list[float] = []
            with times_out("idle", _LIMIT_S, since=progress):
                read(answer, progress)
            assert answer.completion.text == "one"
            assert len(server.requests) == 3
            assert_left(server)

    def test_slow_but_steady_is_not_idle(self, provider: str) -> None:
        """Each content event starts the clock anew, however long the whole answer takes."""
        with FakeServer("one two three four five six", tokens_per_s=1 / 0.06) as server:
            answer = ask(server, provider, timeouts=limits(idle_s=0.25, first_token_s=0.25))
            begun = time.monotonic()
            assert answer.text() == "one two three four five six"
            assert time.monotonic() - begun > 0.25


class TestTotal:
    @_IN_EACH_FORMAT
    def test_an_endless_answer(self, provider: str, context: ssl.SSLContext | None) -> None:
        """total_s ends an answer that is never idle and never over."""
        with FakeServer("word " * 10_000, tokens_per_s=200, ssl_context=context) as server:
            answer = ask(server, provider, timeouts=limits(total_s=_LIMIT_S))
            with times_out("total", _LIMIT_S, since=[time.monotonic()]):
                answer.text()
            assert answer.completion.text.startswith("word word")
            assert_left(server)

    @pytest.mark.parametrize("script", [[hang()], [stall()], [ping(0.01)]])
    def test_before_the_first_token(self, script: list[Action], tls: ssl.SSLContext | None) -> None:
        """total_s counts from the question on, not from the first token."""
        with FakeServer(script=script, ssl_context=tls) as server:
            timeouts = Timeouts(first_token_s=None, idle_s=None, total_s=_LIMIT_S)
            with times_out("total", _LIMIT_S, since=[time.monotonic()]):
                ask(server, timeouts=timeouts).text()
            assert_left(server)

    def test_it_counts_over_attempts_and_continuations(self) -> None:
        """Nothing that starts anew inside a stream gives it more time in all."""
        with FakeServer(script=[say("one two"), pause(0.02), cut()]) as server:
            answer = ask(
                server,
                timeouts=limits(total_s=2 * _LIMIT_S),
                retry=retries(resume=True, max_resumes=10**6, backoff_s=0, max_backoff_s=0),
            )
            with times_out("total", 2 * _LIMIT_S, since=[time.monotonic()]):
                answer.text()
            assert len(server.requests) > 2
            assert seconds_until_gone(time.monotonic()) < 0.25


class TestOffClocks:
    def test_none_is_no_limit(self) -> None:
        """A clock that is switched off never runs out."""
        with FakeServer(script=[pause(0.1), say("one"), pause(0.1), say(" two")]) as server:
            timeouts = Timeouts(first_token_s=None, idle_s=None, total_s=None)
            assert ask(server, timeouts=timeouts).text() == "one two"


class TestSlowConsumer:
    @pytest.mark.parametrize("buffer_size", [1, 50])
    def test_the_time_between_two_tokens_is_the_consumers(
        self, buffer_size: int, tls: ssl.SSLContext | None
    ) -> None:
        """A consumer that thinks longer than every limit trips none, not with a full buffer."""
        with FakeServer("one two three four", ssl_context=tls) as server:
            timeouts = Timeouts(connect_s=0.3, first_token_s=0.3, idle_s=0.1, total_s=0.3)
            answer = ask(server, timeouts=timeouts, buffer_size=buffer_size)
            thinking = threading.Event()
            for token in answer:
                if token == " two":
                    thinking.wait(0.35)
            assert answer.completion.finish_reason == "stop"

    def test_the_time_before_the_first_token_is_the_consumers(
        self, tls: ssl.SSLContext | None
    ) -> None:
        """A stream that is read long after it was opened has lost no time."""
        with FakeServer("one two", ttft_s=0.15, ssl_context=tls) as server:
            timeouts = Timeouts(connect_s=0.1, first_token_s=0.1, idle_s=0.1, total_s=0.1)
            answer = ask(server, timeouts=timeouts)
            assert server_has_ended(server)
            threading.Event().wait(0.15)
            assert answer.text() == "one two"

    def test_a_full_buffer_is_not_the_providers_silence(self, tls: ssl.SSLContext | None) -> None:
        """While the consumer lets the provider wait, no clock runs."""
        piece = "x" * 500_000 + " "
        with FakeServer(piece * 30, ssl_context=tls) as server:
            timeouts = Timeouts(first_token_s=2.0, idle_s=0.3, total_s=5.0)
            answer = ask(server, timeouts=timeouts, buffer_size=2)
            got = [next(answer)]
            threading.Event().wait(0.5)
            assert not server.requests[0].ended.is_set()
            got += answer
            assert sum(map(len, got)) == 30 * len(piece)


def server_has_ended(server: FakeServer) -> bool:
    """Wait until the only answer is complete."""
    until(lambda: server.requests)
    return server.requests[0].ended.wait(5)


class TestWaitStarted:
    @pytest.mark.parametrize(
        ("clock", "phase"), [("first_token_s", "first_token"), ("total_s", "total")]
    )
    def test_it_keeps_the_limits(self, clock: str, phase: str, tls: ssl.SSLContext | None) -> None:
        """A limit that runs out while the status is awaited ends the stream there."""
        with FakeServer(script=[hang()], ssl_context=tls) as server:
            answer = ask(server, timeouts=limits(**{clock: _LIMIT_S}))
            with times_out(phase, _LIMIT_S, since=[time.monotonic()]):
                answer.wait_started(5)
            assert_left(server)

    def test_a_connection_that_is_not_made(self) -> None:
        """connect_s ends the wait for the status, too."""
        with FakeServer(on_connect="black_hole") as server:
            answer = ask(server, timeouts=limits(connect_s=_LIMIT_S))
            with times_out("connect", _LIMIT_S, since=[time.monotonic()]):
                answer.wait_started(5)

    @pytest.mark.parametrize("then", [TokenStream.text, TokenStream.wait_started])
    def test_what_it_waited_counts(self, then: Callable[[TokenStream], Any]) -> None:
        """The waiting that was in vain is taken off the limit for what follows."""
        with FakeServer(script=[hang()]) as server:
            answer = ask(server, timeouts=limits(first_token_s=0.5))
            begun = time.monotonic()
            assert answer.wait_started(0.2) is False
            assert answer.wait_started(0.2) is False
            with times_out("first_token", 0.5, since=[begun]):
                then(answer)
            assert_left(server)
