from __future__ import annotations

from typing import Any

import pytest
import requests

from llm_sse.errors import ConfigurationError
from llm_sse.testing import (
    Action,
    FakeServer,
    RecordedRequest,
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
    ping,
    raw,
    say,
    stall,
    status,
    think,
)
from tests.testing.conftest import LAST, Client, Post


class TestScript:
    def test_refuses_what_is_no_action(self, server: FakeServer) -> None:
        """A script is made of actions."""
        with pytest.raises(ConfigurationError, match="say"):
            server.script("hello")  # type: ignore[arg-type]

    def test_a_status_stands_alone(self, server: FakeServer) -> None:
        """An answer cannot have begun when its status comes."""
        with pytest.raises(ConfigurationError, match="alone"):
            server.script(say("one"), status(500))

    @pytest.mark.parametrize(
        "actions",
        [
            (page("x"), say("one")),
            (say("one"), page("x")),
            (hang(), say("one")),
            (hang_up(), cut()),
            (framing("gzip"), status(500)),
            (drip_head(0.1), hang()),
        ],
        ids=repr,
    )
    def test_what_is_no_stream_stands_alone(
        self, server: FakeServer, actions: tuple[Action, ...]
    ) -> None:
        """What is instead of a stream cannot be mixed with one."""
        with pytest.raises(ConfigurationError, match=r"instead of a stream.*alone"):
            server.script(*actions)

    @pytest.mark.parametrize(
        ("actions", "complaint"),
        [
            ((say("one"), framing("gzip")), r"framing\(\) must stand at the beginning"),
            ((say("one"), drip_head(0)), r"drip_head\(\) must stand at the beginning"),
            ((framing("gzip"), drip_head(0), framing("close")), r"framing\(\) can be said once"),
            ((drip_head(0), drip_head(0)), r"drip_head\(\) can be said once"),
            ((cut(), say("one")), r"nothing can follow cut\(\)"),
            ((stall(), cut()), r"nothing can follow stall\(\)"),
            ((ping(1), say("one")), r"nothing can follow ping\(\)"),
            ((finish(), say("one")), r"can follow finish\(\)"),
            ((finish(), raw(b"x"), think("one")), r"can follow finish\(\)"),
            ((finish(), fail()), r"can follow finish\(\)"),
            ((finish(), call_tool("f")), r"can follow finish\(\)"),
            ((finish(), finish("length")), r"can follow finish\(\)"),
        ],
        ids=repr,
    )
    def test_refuses_an_order_that_means_nothing(
        self, server: FakeServer, actions: tuple[Action, ...], complaint: str
    ) -> None:
        """What could never be played is a mistake, wherever a script is given."""
        for give in (server.script, server.enqueue, lambda *given: FakeServer(script=given)):
            with pytest.raises(ConfigurationError, match=complaint):
                give(*actions)

    def test_takes_every_order_that_means_something(self, server: FakeServer) -> None:
        """The modifiers come in any order, and what may follow the last event may be repeated."""
        server.enqueue(drip_head(0), framing("gzip"), say("one"))
        server.enqueue(framing("gzip"), drip_head(0))
        server.enqueue(ping(1, times=2), finish(), raw(b"x"), pause(1), ping(1, times=1), stall())
        server.enqueue(finish(), pause(1), cut("reset", inside=True))
        server.enqueue(finish(), ping(1))
        server.enqueue()

    @pytest.mark.parametrize(
        ("make", "complaint"),
        [
            (lambda: cut("softly"), "cut must be one of close, reset, truncate, end"),  # type: ignore[arg-type]
            (lambda: framing("http2"), "framing must be one of chunked, bytes"),  # type: ignore[arg-type]
            (lambda: framing(["gzip"]), "framing must be one of"),  # type: ignore[arg-type]
            (lambda: ping(0), "ping needs"),
            (lambda: ping(-1, times=1), "ping needs"),
            (lambda: ping(True), "ping needs"),
            (lambda: ping(1, times=0), "times must be at least 1"),
            (lambda: ping(1, times=1.5), "times must be at least 1"),  # type: ignore[arg-type]
            (lambda: drip_head(-1), "drip_head needs"),
            (lambda: page(5), r"page\(\) needs bytes or a str, not int"),  # type: ignore[arg-type]
            (lambda: page("x", status=204), "status that has a body"),
            (lambda: page("x", status=99), "status that has a body"),
            (lambda: page("x", status=True), "status that has a body"),
        ],
    )
    def test_refuses_what_cannot_be(self, make: Any, complaint: str) -> None:
        """A word that nobody knows and a number that cannot be are mistakes."""
        with pytest.raises(ConfigurationError, match=complaint):
            make()

    def test_a_pause_is_a_time(self) -> None:
        """A pause has a length."""
        for no_time in (-1, float("inf"), "x"):
            with pytest.raises(ConfigurationError, match="pause"):
                pause(no_time)  # type: ignore[arg-type]

    @pytest.mark.parametrize("code", [200, 204, 99, 1000, "500"])
    def test_a_status_is_one_of_a_refusal(self, code: Any) -> None:
        """What is no refusal has no error body."""
        with pytest.raises(ConfigurationError, match="300 to 599"):
            status(code)

    def test_says_only_text(self) -> None:
        """What is said is a str."""
        for speak in (say, think):
            with pytest.raises(ConfigurationError, match="not int"):
                speak(5)  # type: ignore[arg-type]

    def test_nothing_raw_is_nothing(self, post: Post, server: FakeServer) -> None:
        """Empty bytes do not end the body."""
        server.script(say("one"), raw(b""), say("two"))
        assert "two" in post().text

    def test_a_script_without_an_end_of_its_own_is_ended(
        self, post: Post, server: FakeServer
    ) -> None:
        """Every kind of action can be played, and the body has its proper end."""
        server.script(
            think("Hm. "), say("Hello. "), call_tool("f"), call_tool("g", "{", id="g1"), pause(0)
        )
        assert post().status_code == 200
        server.script(finish("content_filter"))
        assert post().status_code == 200
        server.script(say("x"), fail())
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            post()


class TestFinish:
    @pytest.mark.parametrize(
        ("actions", "reason"),
        [
            ((say("one"), finish()), b'"finish_reason":"stop"'),
            ((call_tool("f"), finish()), b'"finish_reason":"tool_calls"'),
            ((call_tool("f"), finish("length")), b'"finish_reason":"length"'),
        ],
        ids=repr,
    )
    def test_writes_the_reason(
        self, server: FakeServer, actions: tuple[Action, ...], reason: bytes
    ) -> None:
        """A reason that is left out is the one that fits."""
        server.script(*actions)
        with Client(server) as client:
            assert reason in client.until(b"[DONE]")

    @pytest.mark.parametrize(("provider", "last"), LAST.items())
    def test_ends_the_answer_but_not_the_body(
        self, server: FakeServer, provider: str, last: bytes
    ) -> None:
        """What follows finish() comes after the provider's last event, in the same body."""
        server.script(say("one"), finish(), raw(b": more\n\n"), stall())
        with Client(server, provider) as client:
            client.until(b"8\r\n: more\n\n\r\n")
            before, _, after = client.body.partition(b"8\r\n: more")
            assert before.count(last) == 1
            assert after == b"\n\n\r\n"
            assert server.requests[0].outcome == "complete"

    def test_is_said_once_only(self, server: FakeServer) -> None:
        """A script that finishes is not finished again at its end."""
        server.script(say("one"), finish())
        with Client(server) as client:
            client.until(b"\r\n0\r\n\r\n")
            assert client.body.count(b"[DONE]") == 1


class TestFunctions:
    def test_a_function_is_asked_for_each_request(self, post: Post) -> None:
        """A function sees what was asked, and says what to do."""

        def answer(asked: RecordedRequest) -> list[Action]:
            return [say(f"{asked.provider} on {asked.path}, {len(asked.body)} bytes")]

        with FakeServer(script=answer) as asked:
            for _ in range(2):
                text = post(server=asked).text
            recorded = asked.requests[1]
            assert str(recorded.provider) in text
            assert str(len(recorded.body)) in text

    def test_a_function_can_be_given_later(self, post: Post, server: FakeServer) -> None:
        """script() takes a function, too; what is enqueued goes first."""
        server.script(lambda _: [say("by function")])
        server.enqueue(say("enqueued"))
        assert "enqueued" in post().text
        assert "function" in post().text

    @pytest.mark.parametrize(
        ("returned", "complaint"),
        [
            ([cut(), say("x")], "nothing can follow cut()"),
            (["hello"], "a script is made of"),
            (None, "a script is a list of actions"),
        ],
        ids=repr,
    )
    def test_what_it_returns_is_checked(
        self, post: Post, server: FakeServer, returned: Any, complaint: str
    ) -> None:
        """A script that cannot be played is the server's failure."""
        server.script(lambda _: returned)
        response = post()
        assert response.status_code == 500
        assert complaint in response.text

    def test_what_it_raises_is_told(self, post: Post, server: FakeServer) -> None:
        """An exception of the function's is status 500, in the provider's words."""

        def broken(_: RecordedRequest) -> list[Action]:
            raise LookupError("no such scene")

        server.script(broken)
        response = post()
        assert response.status_code == 500
        assert "no such scene" in str(response.json()["error"])
        assert server.requests[0].outcome == "refused"
        server.script(say("on it goes"))
        assert post().status_code == 200
