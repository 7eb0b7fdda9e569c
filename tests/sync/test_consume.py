from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import flask
import pytest
import requests
from werkzeug.serving import make_server

from llm_sse import RetryPolicy, complete_sync, consume_stream, stream_openai
from llm_sse.errors import (
    APIError,
    ConfigurationError,
    ConnectionLost,
    ProtocolError,
    RateLimitError,
    ServerError,
)
from llm_sse.events import Event, Finish, Resumed, TextDelta
from llm_sse.testing import FakeServer, cut, fail, say, status, think
from llm_sse.web.flask import sse_response
from llm_sse.web.replay import MemoryReplay

_ONCE = RetryPolicy(max_retries=0)
_NOW = RetryPolicy(backoff_s=0, resume=True)


class Site:
    """A Flask site with one view; its first answers are cut off where the test says so.

    Attributes:
        opened: How many streams were opened.
        asked: What the view was asked.
    """

    def __init__(self, model: FakeServer, cuts: Iterable[int] = (), **how: Any) -> None:
        self.opened = 0
        self.asked: list[Any] = []
        self._model = model
        self._cuts = list(cuts)
        self._how = how
        self.app = flask.Flask(__name__)
        self.app.add_url_rule("/stream/", view_func=self._view, methods=["GET", "POST"])
        self.app.wsgi_app = self._breaking(self.app.wsgi_app)  # type: ignore[method-assign]

    def _view(self) -> flask.Response:
        request = flask.request
        self.asked.append(request.get_json(silent=True) or request.values.to_dict())
        return sse_response(self._open, **self._how)

    def _open(self) -> Any:
        self.opened += 1
        return stream_openai(
            "Hi", base_url=self._model.base_url("openai"), api_key="any", retry=_ONCE
        )

    def _breaking(self, app: Any) -> Any:
        def wrapped(environ: Any, start: Any) -> Iterator[bytes]:
            chunks = app(environ, start)
            with closing(chunks):
                limit = self._cuts.pop(0) if self._cuts else None
                said = b""
                for chunk in chunks:
                    said += chunk
                    if limit is not None and said.count(b"\n\n") > limit:
                        parts = said.split(b"\n\n")
                        yield b"\n\n".join(parts[: limit + 1]) + b"\n\n"
                        return
                    if limit is None:
                        yield chunk

        return wrapped

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Serve it; the value is the view's address."""
        server = make_server("127.0.0.1", 0, self.app, threaded=True)
        server.log = lambda *_: None  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/stream/"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def _texts(events: Iterable[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, TextDelta)]


class TestConsumeStream:
    @pytest.mark.parametrize("send_as", ["json", "form", "query"])
    @pytest.mark.parametrize("format", ["tokens", "events"])
    def test_a_view_is_streamed_like_a_provider(
        self, server: FakeServer, format: str, send_as: str
    ) -> None:
        """The tokens come as the model cut them, and the view gets the question."""
        server.script(say("one two three"))
        site = Site(server, format=format)
        with site.serving() as url:
            stream = consume_stream(url, "Why?", send_as=send_as, extra_body={"turn": "7"})
            assert list(stream) == ["one", " two", " three"]
        assert stream.completion.finish_reason == "stop"
        assert stream.provider == "sse-view"
        assert site.asked == [{"prompt": "Why?", "turn": "7"}]

    def test_events_tell_more_than_text(self, server: FakeServer) -> None:
        """In the format `events` everything that the site tells arrives."""
        server.script(think("Hm"), say("one"))
        with Site(server, format="events").serving() as url:
            completion = consume_stream(url, "Why?").completion
        assert (completion.reasoning, completion.text) == ("Hm", "one")
        assert completion.usage is not None

    def test_a_cut_answer_goes_on_where_it_was(self, server: FakeServer) -> None:
        """With a view that keeps its streams nothing is lost, doubled or asked twice."""
        words = " ".join(f"w{number}" for number in range(40))
        server.script(say(words))
        site = Site(server, cuts=[4, 3, 6], replay=MemoryReplay(), key="ann")
        with site.serving() as url:
            events = list(consume_stream(url, "Why?", retry=_NOW).events())
        assert "".join(_texts(events)) == words
        assert sum(isinstance(event, Resumed) for event in events) == 3
        assert isinstance(events[-1], Finish)
        assert (site.opened, len(server.requests)) == (1, 1)

    def test_what_is_cut_before_its_first_event_goes_on_too(self, server: FakeServer) -> None:
        """The view has said by then which answer it will be."""
        server.script(say("one two"))
        site = Site(server, cuts=[0, 0], replay=MemoryReplay(), key="ann")
        with site.serving() as url:
            assert consume_stream(url, "Why?", retry=_NOW).text() == "one two"
        assert (site.opened, len(site.asked)) == (1, 3)

    def test_it_reconnects_unless_told_otherwise(self, server: FakeServer) -> None:
        """That costs nothing, so it is the default; a policy of one's own wins."""
        server.script(say("one two three four"))
        site = Site(server, cuts=[3], replay=MemoryReplay(), key="ann")
        with site.serving() as url:
            assert consume_stream(url, "Why?").text() == "one two three four"
        site = Site(server, cuts=[3], replay=MemoryReplay(), key="ann")
        with site.serving() as url, pytest.raises(ConnectionLost) as caught:
            consume_stream(url, "Why?", retry=RetryPolicy()).text()
        assert caught.value.completion.text == "one two three"

    def test_a_view_that_keeps_nothing_is_not_asked_twice(self, server: FakeServer) -> None:
        """Without a store a cut answer is an error: the view would begin anew."""
        server.script(say("one two three four"))
        site = Site(server, cuts=[3])
        with site.serving() as url, pytest.raises(ConnectionLost) as caught:
            consume_stream(url, "Why?", retry=_NOW).text()
        assert caught.value.completion.text == "one two three"
        assert site.opened == 1

    def test_a_refusal_is_its_error(self, server: FakeServer) -> None:
        """The view's status and its wait come through, and not the provider's words."""
        server.script(status(429, "secret", headers={"Retry-After": "9"}))
        with Site(server).serving() as url, pytest.raises(RateLimitError) as caught:
            consume_stream(url, "Why?", retry=_ONCE).text()
        assert (caught.value.code, caught.value.retry_after_s) == ("rate_limited", 9)
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize("how", [{}, {"replay": MemoryReplay(), "key": "ann"}])
    def test_an_error_event_is_its_error(self, server: FakeServer, how: dict[str, Any]) -> None:
        """What breaks the site's stream ends this one, and is not taken up."""
        server.script(say("one"), fail(529))
        site = Site(server, **how)
        with site.serving() as url, pytest.raises(ServerError) as caught:
            consume_stream(url, "Why?", retry=_NOW).text()
        assert (caught.value.code, caught.value.completion.text) == ("unavailable", "one")
        assert len(site.asked) == 1

    def test_what_is_no_view_is_said(self, server: FakeServer) -> None:
        """A page is not a stream."""
        site = Site(server)
        site.app.add_url_rule("/page", view_func=lambda: "<h1>Hello</h1>", methods=["POST"])
        with site.serving() as url, pytest.raises(ProtocolError, match="not text/event-stream"):
            consume_stream(url.replace("stream/", "page"), "Why?", retry=_ONCE).text()

    @pytest.mark.parametrize(
        ("url", "arguments", "message"),
        [
            ("stream", {}, "must look like"),
            ("https://host/stream?a=b", {}, "must end before"),
            (7, {}, "must be a str"),
            ("https://host/stream", {"send_as": "xml"}, "send_as"),
            ("https://host/stream", {"provider": "openai"}, "leave provider= out"),
            ("https://host/stream", {"base_url": "x"}, "leave base_url= out"),
            ("https://host/stream", {"fallback": "openai"}, "leave fallback= out"),
            ("https://host/stream", {"tools": [{"name": "f"}]}, "takes no tools="),
        ],
    )
    def test_what_cannot_be_is_refused(
        self, url: Any, arguments: dict[str, Any], message: str
    ) -> None:
        """The error says what was wrong, before anything is sent."""
        with pytest.raises(ConfigurationError, match=message):
            consume_stream(url, "Why?", **arguments)

    def test_it_is_a_provider_like_the_others(self, server: FakeServer) -> None:
        """The row can be asked by its name, whole answers and all, and the fake speaks it."""
        server.script(think("Hm"), say("one two"))
        answer = complete_sync("Why?", provider="sse-view", base_url=server.base_url("sse-view"))
        assert (answer.reasoning, answer.text, answer.finish_reason) == ("Hm", "one two", "stop")
        assert server.requests[0].json == {"prompt": "Why?"}

    def test_the_fake_cuts_it_too(self, server: FakeServer) -> None:
        """The faults of the fake are those of a view's connection."""
        server.script(say("one"), cut())
        with suppress(ConnectionLost):
            stream = consume_stream(server.base_url("sse-view"), "Why?")
            assert list(stream) == ["one"]
            raise AssertionError("it ended as if it were whole")
        server.script(status(503, "down"))
        with pytest.raises(ServerError, match="down"):
            consume_stream(server.base_url("sse-view"), "Why?", retry=_ONCE).text()


class TestFakeView:
    @pytest.mark.parametrize("send_as", ["json", "form", "query"])
    @pytest.mark.parametrize("how", [cut(), cut("reset"), cut("end"), cut(inside=True)])
    def test_who_comes_back_is_told_the_rest(
        self, server: FakeServer, send_as: str, how: Any
    ) -> None:
        """The next script is the rest of the answer, and its ids go on."""
        server.enqueue(say("one two"), how)
        server.enqueue(say(" three"), how)
        server.enqueue(say(" four"))
        url = server.base_url("sse-view")
        stream = consume_stream(url, "Why?", send_as=send_as, retry=_NOW)
        events = list(stream.events())
        assert "".join(_texts(events)) == "one two three four"
        assert sum(isinstance(event, Resumed) for event in events) == 2
        assert sum(isinstance(event, Finish) for event in events) == 1
        ids = [request.headers.get("last-event-id") for request in server.requests]
        assert ids[0] is None
        assert ids[1:] == [f"{str(ids[1])[:32]}-3", f"{str(ids[1])[:32]}-4"]
        assert {request.method for request in server.requests} == {
            "GET" if send_as == "query" else "POST"
        }

    def test_an_answer_may_be_lost_there(self, server: FakeServer) -> None:
        """A view that was restarted has a status for it, which a script can say."""
        server.enqueue(say("one"), cut())
        server.enqueue(status(410, "gone", code="gone"))
        with pytest.raises(APIError) as caught:
            consume_stream(server.base_url("sse-view"), "Why?", retry=_NOW).text()
        assert (caught.value.status, caught.value.code) == (410, "gone")
        assert caught.value.completion.text == "one"

    def test_it_refuses_what_a_view_refuses(self, server: FakeServer) -> None:
        """An id that is none of a view's is 410, another method than GET and POST is 405."""
        url = server.base_url("sse-view")
        answer = requests.get(f"{url}?prompt=Hi", headers={"Last-Event-ID": "7"}, timeout=10)
        assert (answer.status_code, answer.json()["code"]) == (410, "gone")
        answer = requests.put(url, timeout=10)
        assert (answer.status_code, answer.headers["Allow"]) == (405, "POST, GET")
        assert requests.get(url, timeout=10).status_code == 400
