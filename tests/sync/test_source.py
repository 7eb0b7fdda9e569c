from __future__ import annotations

import gc
import socket
import threading
from types import GeneratorType

import pytest

from llm_sse import RetryPolicy
from llm_sse.errors import (
    APIError,
    ConnectionLost,
    ProtocolError,
)
from llm_sse.events import Finish, Retrying, TextDelta, Unknown
from llm_sse.sse import SSEDecoder
from llm_sse.testing import FakeServer, cut, fail, pause, raw, say, status
from tests.helpers import until
from tests.sync.bodies import END, ONE, ask_openai, producers
from tests.sync.conftest import Ask
from tests.wire import Connection, WireServer, head, stream


class TestEndings:
    def test_the_connection_of_a_server_that_does_not_end_the_body_is_given_up(self) -> None:
        """After the provider's last event a body that stays open is waited for a moment only."""
        respond = stream([ONE, END], then=Connection.wait_closed)
        with WireServer(respond) as server:
            answer = ask_openai(server.url)
            assert answer.text() == "one"
            assert answer.completion.finish_reason == "stop"
            assert ask_openai(server.url).text() == "one"
            assert server.connections == 2

    def test_what_follows_the_last_event_does_not_count(self) -> None:
        """Data after [DONE] is neither delivered nor an error."""
        with WireServer(stream([ONE, END, ONE, b"data: {broken\n\n"])) as server:
            assert ask_openai(server.url).text() == "one"

    def test_a_flood_after_the_last_event_is_not_read(self) -> None:
        """More than a little after the end costs the connection, not the answer."""

        def flood(connection: Connection) -> None:
            for _ in range(1000):
                connection.chunk(b": flood\n" * 8192)

        with WireServer(stream([ONE, END], then=flood)) as server:
            assert ask_openai(server.url).text() == "one"

    def test_an_unfinished_last_event_is_decoded(self) -> None:
        """A provider's last event without its blank line counts."""
        with WireServer(stream([ONE, END.rstrip()], framing="close")) as server:
            assert ask_openai(server.url).completion.finish_reason == "stop"

    def test_a_cut_in_an_event_is_a_lost_connection(self) -> None:
        """Half an event is not an event, and not a protocol error either."""
        with (
            WireServer(stream([ONE, ONE[:30]], framing="close")) as server,
            pytest.raises(ConnectionLost) as caught,
        ):
            ask_openai(server.url).text()
        assert caught.value.completion.text == "one"

    def test_nothing_comes_after_finish(self) -> None:
        """An end without its blank line is the end, although the body's own end is missing."""
        broken = stream([ONE, END.rstrip() + b"\n"], then=lambda connection: None)
        with WireServer(broken) as server:
            events = list(ask_openai(server.url).events())
        assert isinstance(events[-1], Finish)

    def test_a_reset_is_a_lost_connection(self) -> None:
        """A connection that is reset in mid-answer loses the rest, not what had arrived."""
        was_read = threading.Event()

        def reset(connection: Connection) -> None:
            assert was_read.wait(10)
            linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

        with WireServer(stream([ONE], then=reset)) as server:
            answer = ask_openai(server.url)
            assert next(answer) == "one"
            was_read.set()
            with pytest.raises(ConnectionLost, match="broke") as caught:
                next(answer)
        assert caught.value.completion.text == "one"

    def test_a_finish_reason_survives_a_cut_that_takes_the_rest(self) -> None:
        """Where the answer itself was complete, a missing end of the body is no loss."""
        finish = b'data: {"choices":[{"delta":{},"finish_reason":"length"}]}\n\n'
        cut = stream([ONE, finish], then=lambda connection: None)
        with WireServer(cut) as server:
            assert ask_openai(server.url).completion.finish_reason == "length"

    def test_a_body_that_is_ended_without_an_answer_is_a_lost_connection(self) -> None:
        """[DONE] without any finish reason is the end of the body, not of the answer."""
        with (
            WireServer(stream([ONE, b"data: [DONE]\n\n"])) as server,
            pytest.raises(ConnectionLost) as caught,
        ):
            ask_openai(server.url).text()
        assert caught.value.completion.text == "one"

    def test_invalid_json_is_a_protocol_error(self) -> None:
        """An event that is no JSON ends the stream; what had arrived is kept."""
        with (
            WireServer(stream([ONE, b"data: {broken\n\n", END])) as server,
            pytest.raises(ProtocolError, match="broken") as caught,
        ):
            ask_openai(server.url).text()
        assert caught.value.completion.text == "one"

    def test_a_decoder_that_stumbles_is_a_protocol_error(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Even a mistake of this library's is an ending out of the tree, with what had arrived."""

        def stumble(frames: object, *, dispatch_unfinished: bool) -> None:
            raise TypeError("a mistake")

        monkeypatch.setattr(SSEDecoder, "end", stumble)
        with (
            WireServer(stream([ONE], framing="close")) as server,
            pytest.raises(ProtocolError, match="TypeError: a mistake") as caught,
        ):
            ask_openai(server.url).text()
        assert caught.value.completion.text == "one"

    def test_a_page_is_not_an_answer(self) -> None:
        """HTML with status 200 is no event stream, and the message shows how it begins."""
        page = [b"<!DOCTYPE html>\n<title>Log in to the Wi-Fi</title>\n"]
        with (
            WireServer(stream(page, headers={"Content-Type": "text/html"})) as server,
            pytest.raises(ProtocolError, match=r"text/html.*base_url.*Log in"),
        ):
            ask_openai(server.url).text()

    @pytest.mark.parametrize(
        "outside",
        [
            b'{"error": {"message": "all wrong", "code": 503}}',
            b'{\n  "error": {\n    "code": 503,\n    "message": "all wrong"\n  }\n}\n',
            b'error: {"code": 503, "message": "all wrong"}\n',
            b'error: {"code": 503, "message": "all wrong"}\n\ndata: [DONE]\n\n',
        ],
    )
    def test_an_error_outside_of_any_event_is_found(self, outside: bytes) -> None:
        """An error that a failing server prints into the body is the provider's no."""
        with (
            WireServer(stream([ONE, outside], framing="close")) as server,
            pytest.raises(APIError, match="all wrong") as caught,
        ):
            ask_openai(server.url).text()
        assert caught.value.status == 503
        assert caught.value.completion.text == "one"

    @pytest.mark.parametrize("outside", [b"42\n", b"null\n", b"[]\n", b"[1]\n", b'{"a": 1}\n'])
    def test_json_that_is_no_error_is_not_one(self, outside: bytes) -> None:
        """Other text outside of any event does not make a cut anything else than a cut."""
        with (
            WireServer(stream([ONE, outside], framing="close")) as server,
            pytest.raises(ConnectionLost),
        ):
            ask_openai(server.url).text()

    def test_half_an_emoji_does_not_kill_the_stream(self) -> None:
        """What only JavaScript calls JSON is read: a lone surrogate becomes U+FFFD."""
        odd = b'data: {"choices":[{"delta":{"content":"\\ud83d!"},"logprobs":NaN}]}\n\n'
        with WireServer(stream([odd, END])) as server:
            assert ask_openai(server.url).text() == "\N{REPLACEMENT CHARACTER}!"

    def test_a_body_without_any_byte_is_a_lost_connection(self) -> None:
        """An empty 200 is no answer."""
        with WireServer(stream([])) as server, pytest.raises(ConnectionLost):
            ask_openai(server.url).text()

    def test_an_error_body_is_read_within_bounds(self) -> None:
        """An endless error page is cut, and is an error all the same."""

        def page(connection: Connection) -> None:
            connection.send(head(502, framing="chunked"))
            for _ in range(100):
                connection.chunk(b"x" * 65536)

        with WireServer(page) as server, pytest.raises(APIError) as caught:
            ask_openai(server.url).text()
        assert caught.value.status == 502
        assert len(str(caught.value)) < 5000


class TestRetries:
    @pytest.mark.parametrize("code", [408, 409, 429, 500, 502, 503, 529])
    def test_passing_failures_are_asked_again(
        self, server: FakeServer, ask: Ask, code: int
    ) -> None:
        """A failure that may pass is repeated, and an event says so."""
        server.enqueue(status(code))
        server.script(say("fine"))
        events = list(ask(retry=RetryPolicy(backoff_s=0)).events())
        retries = [event for event in events if isinstance(event, Retrying)]
        assert [retry.attempt for retry in retries] == [1]
        assert str(code) in retries[0].error
        assert TextDelta("fine") in events

    @pytest.mark.parametrize("code", [400, 401, 403, 404, 422])
    def test_final_failures_are_not(self, server: FakeServer, ask: Ask, code: int) -> None:
        """What cannot succeed is not tried again."""
        server.script(status(code))
        with pytest.raises(APIError) as caught:
            ask().text()
        assert caught.value.status == code
        assert len(server.requests) == 1

    def test_an_error_before_the_first_content_is_asked_again(
        self, server: FakeServer, ask: Ask
    ) -> None:
        """An overload that comes inside a 200 stream, before any content, is retried."""
        server.enqueue(fail(529, "overloaded"))
        server.script(say("fine"))
        assert ask(retry=RetryPolicy(backoff_s=0)).text() == "fine"

    def test_the_retries_are_bounded(self, server: FakeServer, ask: Ask) -> None:
        """A server that says no for ever is asked max_retries times more, and no more."""
        server.script(status(503))
        with pytest.raises(APIError):
            ask(retry=RetryPolicy(max_retries=3, backoff_s=0)).text()
        assert len(server.requests) == 4

    def test_the_wish_of_the_provider_is_respected(self, server: FakeServer, openai: Ask) -> None:
        """Retry-After is the least that is waited."""
        server.enqueue(status(429, headers={"Retry-After": "0.05"}))
        server.script(say("fine"))
        events = list(openai(retry=RetryPolicy(backoff_s=0)).events())
        assert isinstance(events[0], Retrying)
        assert events[0].delay_s == pytest.approx(0.05)

    @pytest.mark.parametrize("provider", ["openai", "gemini"])
    def test_a_continuation_that_is_left_leaves_nothing(self, server: FakeServer, ask: Ask) -> None:
        """The connection of a later attempt is closed without the help of a garbage collection."""
        server.enqueue(say("one two three"), cut())
        server.script(say("four five " * 20), pause(3600))
        policy = RetryPolicy(backoff_s=0, resume=True)
        gc.collect()
        gc.disable()
        try:
            answer = ask(retry=policy, buffer_size=1)
            for token in answer:
                if "five" in token:
                    until(lambda: answer._reader.channel._queue.queue)  # it waits for room
                    break
            assert server.requests[1].ended.wait(5)
            thread = answer._reader.thread
            assert thread is not None
            thread.join(5)
            attempts = [
                one
                for one in gc.get_objects()
                if isinstance(one, GeneratorType) and one.__qualname__ == "EventSource._events"
            ]
            assert [one for one in attempts if one.gi_frame is not None] == []
        finally:
            gc.enable()

    def test_close_ends_the_wait_between_attempts(self, server: FakeServer, openai: Ask) -> None:
        """A stream that waits for its next attempt is closed at once."""
        server.script(status(429, headers={"Retry-After": "3600"}))
        answer = openai(retry=RetryPolicy(max_backoff_s=3600))
        events = answer.events()
        assert isinstance(next(events), Retrying)
        answer.close()
        until(lambda: not producers())


class TestUnknown:
    def test_what_a_newer_provider_sends_is_not_lost(self, server: FakeServer, openai: Ask) -> None:
        """JSON that is no chunk at all comes out as Unknown, and the stream goes on."""
        server.script(raw(b"data: [1, 2]\n\n"), say("fine"))
        events = list(openai().events())
        assert Unknown("message", [1, 2]) in events
        assert TextDelta("fine") in events
