"""However an answer ends, there is one documented outcome, and nothing that had arrived is lost."""

from __future__ import annotations

import time

import pytest

from llm_sse import Timeouts
from llm_sse.errors import (
    APIError,
    ConnectionLost,
    InvalidRequestError,
    ProtocolError,
    RateLimitError,
    ServerError,
    StreamError,
)
from llm_sse.events import Finish
from llm_sse.testing import FakeServer, cut, fail, finish, framing, page, pause, raw, say, stall
from llm_sse.testing.script import Action
from tests.helpers import FORMATS
from tests.reliability.asking import ask, read
from tests.sync.bodies import ask_openai
from tests.wire import Connection, WireServer, head

SAID = "one two three"

#: What a server does after `SAID`, and what the reader is told.
BROKEN: dict[str, tuple[list[Action], type[StreamError]]] = {
    "clean end without the last event": ([cut("end")], ConnectionLost),
    "clean end inside an event": ([cut("end", inside=True)], ConnectionLost),
    "FIN between events": ([cut("close")], ConnectionLost),
    "FIN inside an event": ([cut("close", inside=True)], ConnectionLost),
    "RST between events": ([cut("reset")], ConnectionLost),
    "RST inside an event": ([cut("reset", inside=True)], ConnectionLost),
    "FIN inside a chunk": ([cut("truncate")], ConnectionLost),
    "invalid JSON": ([raw(b"data: {broken\n\n{broken\n\n"), say(" four")], ProtocolError),
    "an error event, overloaded": ([fail(529)], ServerError),
    "an error event, too many requests": ([fail(429)], RateLimitError),
    "an error event, the request's fault": ([fail(400)], InvalidRequestError),
    "an HTML page in the middle": ([raw(b"<html>\n<h1>502</h1>\n"), cut("end")], ConnectionLost),
}

#: What a server does after the provider's last event: none of it matters.
TRAILING: dict[str, list[Action]] = {
    "nothing, and the body is not ended": [stall()],
    "a megabyte": [raw(b": flood\n" * 131072)],
    "FIN instead of the last chunk": [cut("close")],
    "RST": [cut("reset")],
    "half a chunk": [cut("truncate")],
}

#: Events after the last one. Gemini's last event is the last one of the body, whatever it is.
LATE: dict[str, bytes] = {
    "another delta": b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n',
    "invalid JSON": b"data: {broken\n\n",
    "an error": b'data: {"error":{"message":"late","type":"server_error"}}\n\n',
}

HTML = "<!DOCTYPE html>\n<title>Log in to the Wi-Fi</title>\n"
JSON_ERROR = '{"error": {"message": "no such deployment", "code": "nowhere"}}'


@pytest.fixture(params=FORMATS)
def provider(request: pytest.FixtureRequest) -> str:
    """The name of each provider in turn."""
    name: str = request.param
    return name


class TestBroken:
    @pytest.mark.parametrize("ending", BROKEN)
    def test_each_has_its_error_and_loses_nothing(
        self, server: FakeServer, provider: str, ending: str
    ) -> None:
        """The error is the documented one, and its completion is what the loop was given."""
        actions, expected = BROKEN[ending]
        server.script(say(SAID), *actions)
        deltas, error = read(ask(server, provider))
        assert type(error) is expected
        assert "".join(deltas) == SAID
        assert error.completion.text == SAID
        assert error.completion.finish_reason is None
        assert error.provider == provider

    @pytest.mark.parametrize("how", ["bytes", "dribble", "close", "length", "gzip"])
    @pytest.mark.parametrize("ending", [name for name in BROKEN if "chunk" not in name])
    def test_the_framing_changes_nothing(self, server: FakeServer, how: str, ending: str) -> None:
        """Where the body is framed otherwise, the same ending is the same error."""
        actions, expected = BROKEN[ending]
        server.script(framing(how), say(SAID), *actions)  # type: ignore[arg-type]
        deltas, error = read(ask(server))
        assert type(error) is expected
        assert "".join(deltas) == error.completion.text == SAID

    def test_a_stream_that_never_began_is_a_lost_connection(
        self, server: FakeServer, provider: str
    ) -> None:
        """A 200 whose body is empty is no answer, and no finished one."""
        server.script(cut("end"))
        deltas, error = read(ask(server, provider))
        assert (deltas, type(error)) == ([], ConnectionLost)

    def test_an_unfinished_tool_call_is_kept_as_one(self, server: FakeServer) -> None:
        """The arguments of a call that was cut off are there as text, and marked as broken."""
        start = b'{"index":0,"id":"c1","function":{"name":"f","arguments":"{\\"a\\": "}}'
        body = b'data: {"choices":[{"delta":{"tool_calls":[' + start + b"]}}]}\n\n"
        server.script(raw(body), cut())
        _, error = read(ask(server))
        assert type(error) is ConnectionLost
        (call,) = error.completion.tool_calls
        assert (call.name, call.arguments, call.arguments_text) == ("f", {}, '{"a": ')
        assert call.error is not None


class TestTrailing:
    @pytest.mark.parametrize("rest", TRAILING)
    def test_what_follows_the_last_event_does_not_matter(
        self, server: FakeServer, provider: str, rest: str
    ) -> None:
        """The answer is complete, in time, whatever the server does after it."""
        server.script(say(SAID), finish(), *TRAILING[rest])
        answer = ask(server, provider, timeouts=Timeouts(first_token_s=30, idle_s=30))
        events = list(answer.events())
        assert isinstance(events[-1], Finish)
        assert answer.completion.text == SAID
        assert answer.completion.finish_reason == "stop"

    @pytest.mark.parametrize("late", LATE)
    @pytest.mark.parametrize("provider", ["openai", "anthropic"])
    def test_events_after_the_last_one_do_not_count(
        self, server: FakeServer, provider: str, late: str
    ) -> None:
        """Neither text nor an error can follow the end."""
        server.script(say(SAID), finish(), raw(LATE[late]))
        assert ask(server, provider).text() == SAID

    @pytest.mark.parametrize(
        ("provider", "limit_s"), [(name, 2.0 if name == "gemini" else 0.25) for name in FORMATS]
    )
    def test_a_body_that_is_not_ended_costs_little_time(
        self, server: FakeServer, provider: str, limit_s: float
    ) -> None:
        """A server that holds its connection after the last event holds nobody up.

        Where the format has a last event that is a quarter of a second. Gemini has none: after the
        finish reason two seconds of silence are the end.
        """
        server.script(say(SAID), finish(), stall())
        begun = time.monotonic()
        answer = ask(server, provider)
        assert answer.text() == SAID
        assert answer.completion.finish_reason == "stop"
        assert time.monotonic() - begun < limit_s + 0.75
        assert server.requests[0].ended.wait(5)

    def test_a_server_that_forgets_the_last_event_is_not_waited_for(
        self, server: FakeServer
    ) -> None:
        """A finish reason completes the answer, although `[DONE]` never comes."""
        reason = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
        server.script(say(SAID), raw(reason), stall())
        begun = time.monotonic()
        assert ask(server).text() == SAID
        assert time.monotonic() - begun < 2.0 + 0.75

    def test_noise_after_a_finish_reason_is_no_reason_to_wait(self, server: FakeServer) -> None:
        """What is no event does not keep a complete answer from its end."""
        reason = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
        server.script(
            say(SAID), raw(reason), *[raw(b": keep-alive\n\nretry: 1\n\n"), pause(0.1)] * 100
        )
        begun = time.monotonic()
        assert ask(server).text() == SAID
        assert time.monotonic() - begun < 2.0 + 0.75

    def test_a_short_idle_limit_does_not_make_a_complete_answer_incomplete(
        self, server: FakeServer
    ) -> None:
        """The wait for what may follow is shorter than the limit for what must."""
        reason = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
        server.script(say(SAID), raw(reason), stall())
        assert ask(server, timeouts=Timeouts(idle_s=0.4)).text() == SAID


class TestNoStream:
    """A 200 that is no event stream."""

    def test_an_html_page_is_a_protocol_error(self, server: FakeServer, provider: str) -> None:
        """The message shows its kind and its beginning, and asks for the base URL."""
        server.script(page(HTML))
        with pytest.raises(ProtocolError, match=r"text/html.*base_url.*Log in") as caught:
            ask(server, provider).text()
        assert not caught.value.retryable

    def test_a_json_error_is_the_providers_no(self, server: FakeServer, provider: str) -> None:
        """An error that comes with status 200 is an APIError all the same."""
        server.script(page(JSON_ERROR, content_type="application/json"))
        with pytest.raises(APIError, match="no such deployment"):
            ask(server, provider).text()

    def test_json_that_is_no_error_is_a_protocol_error(
        self, server: FakeServer, provider: str
    ) -> None:
        """An answer in one piece, where a stream was asked for, is not taken for an empty one.

        To NDJSON one JSON object is a line like any other: there it is an answer without an end.
        """
        server.script(page('{"id": "x", "choices": []}', content_type="application/json"))
        error: type[StreamError] = ConnectionLost if provider == "ollama" else ProtocolError
        told = "ended before" if provider == "ollama" else "application/json"
        with pytest.raises(error, match=told):
            ask(server, provider).text()

    def test_the_wrong_content_type_alone_is_no_error(self, server: FakeServer) -> None:
        """Events are events, also where a server calls them something else."""
        body = (
            b'data: {"choices":[{"delta":{"content":"one"},"finish_reason":"stop"}]}\n\n'
            b"data: [DONE]\n\n"
        )
        server.script(page(body, content_type="application/octet-stream"))
        assert ask(server).text() == "one"

    @pytest.mark.parametrize("code", [503])
    def test_a_refusal_whose_body_does_not_end_is_still_the_status(self, code: int) -> None:
        """The status is known, and so is what to do about it: the rest is not waited for."""

        def dribble(connection: Connection) -> None:
            connection.send(head(code, framing="100000") + b"n")
            connection.wait_closed()

        begun = time.monotonic()
        with WireServer(dribble) as wire, pytest.raises(APIError) as caught:
            ask_openai(wire.url).text()
        assert caught.value.status == code
        assert time.monotonic() - begun < 2.0 + 0.75

    @pytest.mark.parametrize("code", [400, 401, 404, 429, 500, 503])
    def test_an_error_without_json_is_still_the_status(
        self, server: FakeServer, provider: str, code: int
    ) -> None:
        """A proxy's error page has no code and no message; the status decides what it is."""
        server.script(page(HTML, status=code))
        with pytest.raises(APIError) as caught:
            ask(server, provider).text()
        assert caught.value.status == code
        assert type(caught.value) is APIError.class_for(code)
