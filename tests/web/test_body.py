from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from llm_sse import RetryPolicy, TokenStream, run_tools, stream_openai
from llm_sse.errors import ConfigurationError, ProtocolError, RateLimitError
from llm_sse.events import Event, Finish, ReasoningDelta, StreamStart, TextDelta, Unknown
from llm_sse.testing import FakeServer, call_tool, cut, hang, say, stall, status
from llm_sse.web.body import BrokenBody, StreamBody, make_body
from llm_sse.web.pump import EventStream
from tests.helpers import until

_CONNECTED = b"id: 0\n: connected\n"
_HEARTBEAT = b": heartbeat\n"
_ANSWER: list[Event] = [StreamStart(), TextDelta("one"), TextDelta(" two"), Finish("stop")]

Ask = Callable[..., TokenStream]


@pytest.fixture
def ask(server: FakeServer) -> Ask:
    """Ask the fake provider once."""

    def ask(**arguments: Any) -> TokenStream:
        return stream_openai(
            "Hi",
            base_url=server.base_url("openai"),
            api_key="any",
            retry=RetryPolicy(max_retries=0),
            **arguments,
        )

    return ask


def _body(stream: EventStream, format: str = "tokens", **how: Any) -> StreamBody:
    return make_body(
        stream, **{"format": format, "status_wait_s": 10.0, "heartbeat_s": 10.0, **how}
    )


def _without_key() -> TokenStream:
    return stream_openai("Hi")


async def _all(body: StreamBody) -> bytes:
    return b"".join([chunk async for chunk in body])


def _both_ways(body: StreamBody, in_loop: bool) -> bytes:
    return asyncio.run(_all(body)) if in_loop else b"".join(body)


def _texts(gate: threading.Event) -> Iterator[Event]:
    """Say one word; the rest only when it is allowed."""
    yield TextDelta("one")
    gate.wait(20)
    yield TextDelta(" two")
    yield Finish("stop")


@pytest.mark.parametrize("in_loop", [False, True], ids=["waiting", "loop"])
class TestStreamBody:
    def test_tells_the_stream_from_greeting_to_end(self, in_loop: bool) -> None:
        """The body begins with a comment and ends with the format's end."""
        assert _both_ways(_body(_ANSWER), in_loop) == (
            _CONNECTED + b'id: 1\ndata: {"token":"one"}\n\n'
            b'id: 2\ndata: {"token":" two"}\n\n'
            b"id: 3\ndata: [DONE]\n\n"
        )

    def test_an_error_is_the_last_event(
        self, ask: Ask, server: FakeServer, in_loop: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        """What went wrong is told to the visitor by its class, and to the site by its words."""
        server.script(say("one"), cut())
        body = _both_ways(_body(ask()), in_loop)
        assert body.startswith(_CONNECTED + b'id: 1\ndata: {"token":"one"}\n\n')
        assert b"event: error\nid: 2\n" in body
        assert b"[DONE]" not in body
        (record,) = caplog.records
        assert record.name == "llm_sse.web.body"
        assert record.levelno == logging.WARNING
        assert record.getMessage().startswith("ConnectionLost: openai: ")

    def test_an_exception_of_the_sites_is_logged(
        self, in_loop: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It is an internal error to the visitor; the log has its traceback."""

        def broken() -> Iterator[Event]:
            yield TextDelta("one")
            raise KeyError("sk-secret")

        body = _both_ways(_body(broken()), in_loop)
        assert b'"code":"internal"' in body
        assert b"secret" not in body
        (record,) = caplog.records
        assert record.levelno == logging.ERROR
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], KeyError)

    def test_a_stream_that_stops_without_an_end_is_no_answer(self, in_loop: bool) -> None:
        """Events without a `Finish` do not look like a whole answer."""
        body = _both_ways(_body(_ANSWER[:-1]), in_loop)
        assert b'"code":"incomplete"' in body
        assert b"[DONE]" not in body

    def test_what_was_written_before_an_error_is_sent(self, in_loop: bool) -> None:
        """An event that the format cannot write does not take those before it along."""
        events = [TextDelta("ok"), Unknown("thing", object()), Finish("stop")]
        body = _both_ways(_body(events, format="events"), in_loop)
        assert body.startswith(_CONNECTED + b"event: text_delta\nid: 1\n")
        assert b"event: error\nid: 2\n" in body

    def test_a_signal_while_the_status_is_awaited_is_the_sites(
        self, in_loop: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Ctrl-C, or a worker that is told to end, is no problem of the visitor's."""

        def interrupted(timeout_s: float | None = None) -> None:
            raise KeyboardInterrupt

        body = _body(_ANSWER)
        monkeypatch.setattr(body._channel, "get", interrupted)
        with pytest.raises(KeyboardInterrupt):
            if in_loop:
                asyncio.run(body.await_started(10))
            else:
                body.wait_started(10)
        body.close()

    def test_what_is_no_event_is_an_error(
        self, in_loop: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The log says what should have been there."""
        texts: Any = ["one"]
        assert b'"code":"internal"' in _both_ways(_body(texts), in_loop)
        assert "made of events (llm_sse.events), not str" in caplog.text

    def test_a_text_that_breaks_off_breaks_the_body(
        self, ask: Ask, server: FakeServer, in_loop: bool
    ) -> None:
        """A format without a word for an error raises, so that the server cuts the connection."""
        server.script(say("one"), cut())
        with pytest.raises(BrokenBody):
            _both_ways(_body(ask(), "text"), in_loop)

    def test_a_text_ends_with_its_last_token(self, in_loop: bool) -> None:
        """A whole answer is its text, and the body ends as bodies do."""
        assert _both_ways(_body(_ANSWER, "text"), in_loop) == b"one two"

    def test_a_refusal_is_known_before_the_first_byte(
        self, ask: Ask, server: FakeServer, in_loop: bool
    ) -> None:
        """Waiting for the start tells of the problem, and the body has nothing to say."""
        server.script(status(429, headers={"Retry-After": "3"}))
        body = _body(ask())
        wait = body.await_started(10) if in_loop else body.wait_started(10)
        problem = asyncio.run(wait) if in_loop else wait  # type: ignore[arg-type]
        assert (problem.status, problem.retry_after_s) == (429, 3)  # type: ignore[union-attr]
        assert _both_ways(body, in_loop) == b""

    def test_the_wait_for_the_start_has_an_end(
        self, ask: Ask, server: FakeServer, in_loop: bool
    ) -> None:
        """A provider that does not answer does not keep the response back."""
        server.script(hang())
        body = _body(ask())
        wait = body.await_started(0.05) if in_loop else body.wait_started(0.05)
        assert (asyncio.run(wait) if in_loop else wait) is None  # type: ignore[arg-type]
        body.close()

    def test_nothing_is_lost_by_the_wait_for_the_start(self, in_loop: bool) -> None:
        """What came meanwhile is told, in its place."""

        async def both(body: StreamBody) -> bytes:
            assert await body.await_started(10) is None
            return await _all(body)

        body = _body(_ANSWER)
        if in_loop:
            told = asyncio.run(both(body))
        else:
            assert body.wait_started(10) is None
            told = b"".join(body)
        assert told.count(b"data: ") == 3

    def test_heartbeats_come_while_nothing_else_does(self, in_loop: bool) -> None:
        """Four writes in each, as a server may need to notice a reset; a token is one of them."""
        gate = threading.Event()
        body = _body(_texts(gate), heartbeat_s=0.2)

        async def read(count: int) -> list[bytes]:
            return [await body.__anext__() for _ in range(count)]

        begun = time.monotonic()
        chunks = asyncio.run(read(10)) if in_loop else [next(body) for _ in range(10)]
        took_s = time.monotonic() - begun
        assert chunks == [_CONNECTED, b'id: 1\ndata: {"token":"one"}\n\n', *[_HEARTBEAT] * 8]
        assert 2 * 0.2 <= took_s < 5 * 0.2
        gate.set()
        assert _both_ways(body, in_loop).endswith(b"data: [DONE]\n\n")

    def test_what_comes_seldom_does_not_put_off_the_next_write(self, in_loop: bool) -> None:
        """A token is followed by a comment within a moment, not after most of a heartbeat."""
        gate = threading.Event()
        body = _body(_texts(gate), heartbeat_s=4)

        async def read() -> list[bytes]:
            return [await body.__anext__() for _ in range(3)]

        begun = time.monotonic()
        chunks = asyncio.run(read()) if in_loop else [next(body) for _ in range(3)]
        assert time.monotonic() - begun < 2
        assert chunks[2] == _HEARTBEAT
        gate.set()
        body.close()

    def test_what_a_format_does_not_tell_is_no_sign_of_life(self, in_loop: bool) -> None:
        """While a model reasons, a browser that is told the text alone gets heartbeats."""
        closed = threading.Event()

        def reason() -> Iterator[Event]:
            while not closed.wait(0.001):
                yield ReasoningDelta("Hm")

        body = _body(reason(), heartbeat_s=0.08)

        async def read() -> list[bytes]:
            return [await body.__anext__(), await body.__anext__()]

        chunks = asyncio.run(read()) if in_loop else [next(body), next(body)]
        assert chunks == [_CONNECTED, _HEARTBEAT]
        closed.set()
        body.close()

    def test_a_body_that_is_closed_says_nothing_more(
        self, ask: Ask, server: FakeServer, in_loop: bool
    ) -> None:
        """Neither an end nor an error follows, and the provider's connection is gone."""
        server.script(say("one"), stall())
        body = _body(ask())
        if in_loop:
            asyncio.run(body.__anext__())
        else:
            next(body)
        until(lambda: server.requests)
        body.close()
        body.close()
        assert _both_ways(body, in_loop) == b""
        assert server.requests[0].ended.wait(5)

    def test_a_body_that_is_dropped_closes_its_stream(
        self, ask: Ask, server: FakeServer, in_loop: bool
    ) -> None:
        """A response that nobody reads costs nothing."""
        server.script(say("one"), stall())
        body = _body(ask())
        if in_loop:
            asyncio.run(body.__anext__())
        else:
            assert body.wait_started(10) is None
        until(lambda: server.requests)
        del body
        gc.collect()
        assert server.requests[0].ended.wait(5)


class TestThePump:
    def test_heartbeats_come_while_a_tool_runs(self, server: FakeServer) -> None:
        """The tool's thread is not the one that writes."""
        gate = threading.Event()

        def wait() -> str:
            """Wait."""
            gate.wait(20)
            return "done"

        server.enqueue(call_tool("wait"))
        loop = run_tools("Hi", tools=[wait], base_url=server.base_url("openai"), api_key="any")
        body = _body(loop, heartbeat_s=0.08)
        until(lambda: next(body) == _HEARTBEAT)
        gate.set()
        assert b"".join(body).endswith(b"[DONE]\n\n")

    def test_a_browser_that_does_not_read_holds_the_stream_back(self) -> None:
        """The stream is asked for no more than a bounded number of events."""
        asked: list[int] = []

        def count() -> Iterator[Event]:
            for number in range(1000):
                asked.append(number)
                yield TextDelta(str(number))
            yield Finish("stop")

        body = _body(count())
        until(lambda: len(asked) >= 32)
        assert len(asked) == 32
        assert b"".join(body).count(b"token") == 1000

    def test_close_wakes_a_reader(self, ask: Ask, server: FakeServer) -> None:
        """A body may be closed by another thread than the one that waits for it."""
        server.script(stall())
        body = _body(ask())
        chunks: list[bytes] = []
        thread = threading.Thread(target=lambda: chunks.extend(body), name="llm-sse-test")
        thread.start()
        until(lambda: chunks)
        body.close()
        thread.join(5)
        assert chunks == [_CONNECTED]

    def test_close_wakes_an_event_loop(self, ask: Ask, server: FakeServer) -> None:
        """Also a loop that waits."""
        server.script(stall())
        body = _body(ask())

        async def read() -> bytes:
            asyncio.get_running_loop().call_later(0.02, body.close)
            return await asyncio.wait_for(_all(body), 5)

        assert asyncio.run(read()) == _CONNECTED

    def test_an_event_loop_is_not_blocked(self, ask: Ask, server: FakeServer) -> None:
        """While a body waits, the loop does other things."""
        server.script(stall())
        body = _body(ask())

        async def read() -> int:
            task = asyncio.ensure_future(_all(body))
            for _ in range(10):
                await asyncio.sleep(0.001)
            assert not task.done()
            body.close()
            await task
            return 10

        assert asyncio.run(read()) == 10

    def test_a_loop_that_is_over_troubles_nobody(self) -> None:
        """News that comes when the loop is closed is no error."""
        gate = threading.Event()
        body = _body(_texts(gate))

        async def read() -> None:
            await body.await_started(5)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(_all(body), 0.02)

        asyncio.run(read())
        gate.set()
        assert b"".join(body).endswith(b"[DONE]\n\n")

    def test_context_variables_go_along(self) -> None:
        """What a tool or a log record looks up there is that of the view."""
        user: contextvars.ContextVar[str] = contextvars.ContextVar("user")
        user.set("Ann")

        def tell() -> Iterator[Event]:
            yield TextDelta(user.get())
            yield Finish("stop")

        assert b'"Ann"' in b"".join(_body(tell()))

    def test_an_iterable_is_closed_where_it_was_read(self) -> None:
        """A generator of the site's own is closed in its thread, before that thread's end."""
        seen: list[str] = []

        def endless() -> Iterator[Event]:
            try:
                while True:
                    yield TextDelta("x")
            finally:
                seen.append(f"closed in {threading.current_thread().name}")

        body = _body(endless(), on_thread_end=lambda: seen.append("thread ends"))
        next(body)
        body.close()
        until(lambda: len(seen) == 2)
        assert seen == ["closed in llm-sse-web", "thread ends"]

    def test_an_iterable_with_a_close_is_closed_at_once(self) -> None:
        """What waits for somebody else's events, without a word, need not wait to be told."""

        class Events:
            def __init__(self) -> None:
                self.closed = threading.Event()

            def __iter__(self) -> Iterator[Event]:
                yield TextDelta("one")
                self.closed.wait(20)

            def close(self) -> None:
                self.closed.set()

        events = Events()
        body = _body(events)
        next(body)
        body.close()
        assert events.closed.is_set()


class TestMakeBody:
    @pytest.mark.parametrize(
        ("how", "match"),
        [
            ({"format": "xml"}, "unknown format 'xml'"),
            ({"status_wait_s": -1}, "status_wait_s must be a number of seconds from 0 on"),
            ({"status_wait_s": None}, "status_wait_s"),
            ({"heartbeat_s": 0}, "heartbeat_s must be a number of seconds above 0"),
            ({"heartbeat_s": True}, "heartbeat_s"),
            ({"heartbeat_s": float("inf")}, "heartbeat_s"),
            ({"heartbeat_s": float("nan")}, "heartbeat_s"),
        ],
    )
    def test_wrong_arguments_close_the_stream(
        self, ask: Ask, server: FakeServer, how: dict[str, Any], match: str
    ) -> None:
        """The error says what was wrong; the question that was asked already is given up."""
        server.script(stall())
        stream = ask()
        stream.wait_started(10)
        with pytest.raises(ConfigurationError, match=match):
            _body(stream, **how)
        assert server.requests[0].ended.wait(5)

    def test_a_site_that_cannot_ask_is_a_problem(self, caplog: pytest.LogCaptureFixture) -> None:
        """A key that is missing is the site's fault: its log has it, the visitor gets 502."""
        problem: Any = _body(_without_key)  # type: ignore[arg-type]
        assert (problem.status, problem.code) == (502, "misconfigured")
        assert b"OPENAI" not in problem.body
        assert "OPENAI_API_KEY" in caplog.text

    @pytest.mark.parametrize("stream", ["one", b"one", None, 1])
    def test_what_is_no_stream_is_refused(self, stream: Any) -> None:
        """A text is not streamed letter by letter."""
        with pytest.raises(ConfigurationError, match=f"not {type(stream).__name__}"):
            _body(stream)

    def test_a_stream_that_failed_already_is_a_problem(self) -> None:
        """An iterable that raises at once is answered with a status."""

        def refuse() -> Iterator[Event]:
            raise RateLimitError("no", status=429)
            yield

        problem = _body(refuse()).wait_started(10)
        assert problem is not None
        assert problem.status == 429

    def test_a_stream_that_is_empty_is_a_problem(self) -> None:
        """Nothing at all is no answer."""
        problem = _body([]).wait_started(10)
        assert problem is not None
        assert (problem.status, problem.code) == (502, "incomplete")

    def test_a_stream_that_was_read_is_no_answer(self, ask: Ask) -> None:
        """A mistake of the view's is an internal error."""
        stream = ask()
        stream.text()
        assert b'"code":"internal"' in b"".join(_body(stream))

    def test_a_protocol_error_can_be_of_the_streams(self) -> None:
        """What our errors say is mapped, wherever they come from."""

        def broken() -> Iterator[Event]:
            yield TextDelta("one")
            raise ProtocolError("no")

        assert b'"status":502' in b"".join(_body(broken()))
