from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import flask
import pytest

from llm_sse import RetryPolicy, stream_openai
from llm_sse.errors import ConfigurationError, RateLimitError, ServerError
from llm_sse.events import Event, Finish, TextDelta, Unknown
from llm_sse.sse import ServerSentEvent, SSEDecoder
from llm_sse.testing import FakeServer, cut, say, stall, status
from llm_sse.web.flask import sse_response
from llm_sse.web.redis import RedisReplay
from llm_sse.web.replay import Gone, MemoryReplay, ReplayStore
from llm_sse.web.retelling import stop_stream
from tests.helpers import until

_PROMPT_S = 0.3


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> ReplayStore:
    """Each store in turn."""
    if request.param == "memory":
        return MemoryReplay()
    return RedisReplay(request.getfixturevalue("redis"), lease_s=_PROMPT_S)


class Site:
    """A Flask site with one view, whose streams say what the test allows.

    Attributes:
        started: How many streams were opened.
        closed: Is set when one was closed before its end.
        finished: Is set when one has said everything.
    """

    def __init__(self, store: ReplayStore, **how: Any) -> None:
        self.started = 0
        self.closed = threading.Event()
        self.finished = threading.Event()
        self._words = threading.Semaphore(0)
        self._store = store
        self._how = how
        self.app = flask.Flask(__name__)
        self.app.add_url_rule("/stream", view_func=self._view, methods=["GET", "POST"])

    def _view(self) -> flask.Response:
        asked = flask.request.args
        how = {"key": asked.get("key", "ann"), "name": asked.get("name"), **self._how}
        return sse_response(self._open, replay=self._store, heartbeat_s=0.1, **how)

    def _open(self) -> Iterator[Event]:
        self.started += 1
        return self._events()

    def _events(self) -> Iterator[Event]:
        try:
            for number in range(5):
                while not self._words.acquire(timeout=0.02):
                    yield TextDelta("")  # where a stream of somebody else's learns of its end
                yield TextDelta(f"w{number} ")
            self.finished.set()
            yield Finish("stop")
        except GeneratorExit:
            self.closed.set()
            raise

    def allow(self, words: int) -> None:
        """Let the stream say more words."""
        self._words.release(words)


def visit(site: Site, last_event_id: str | None = None, **query: str) -> Tab:
    """Open a tab on a site."""
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
    if last_event_id is not None:
        headers["Last-Event-ID"] = last_event_id
    return Tab(site.app.test_client().get("/stream", query_string=query, headers=headers))


class Tab:
    """A browser's tab that reads an answer as it comes."""

    def __init__(self, response: Any) -> None:
        self.response = response
        self.status: int = response.status_code
        self._chunks = response.iter_encoded()
        self._decoder = SSEDecoder()
        self.last_event_id = ""
        self.events: list[ServerSentEvent] = []

    def read(self, words: int) -> list[str]:
        """Read until there are so many words."""
        while len(self.words) < words:
            self._feed(next(self._chunks))
        return self.words

    def rest(self) -> list[str]:
        """Read to the end."""
        for chunk in self._chunks:
            self._feed(chunk)
        return self.words

    def _feed(self, chunk: bytes) -> None:
        self.events += self._decoder.feed(chunk)
        self.last_event_id = self._decoder.last_event_id

    @property
    def words(self) -> list[str]:
        """What has been said."""
        told = [event.data for event in self.events if event.event == "message"]
        return [data for data in told if data != '{"token":""}']

    def leave(self) -> None:
        """Close the tab."""
        self.response.close()


def said(*numbers: int, done: bool = False) -> list[str]:
    """Return the data of these words' events."""
    return [f'{{"token":"w{number} "}}' for number in numbers] + ["[DONE]"] * done


class TestReplay:
    def test_a_browser_that_comes_back_misses_nothing(self, store: ReplayStore) -> None:
        """It gets what follows its last event, and then what is said live; nothing is asked."""
        site = Site(store)
        site.allow(3)
        first = visit(site)
        assert first.read(2)[:2] == said(0, 1)
        seen = next(one.id for one in first.events if one.data == said(1)[0])
        first.leave()
        second = visit(site, seen)
        assert second.read(1)[:1] == said(2)
        site.allow(2)
        assert second.rest() == said(2, 3, 4, done=True)
        assert site.started == 1

    def test_a_second_tab_reads_along(self, store: ReplayStore) -> None:
        """Two that come back at the same time get the same events, with the same ids."""
        site = Site(store)
        site.allow(1)
        first = visit(site)
        first.read(1)
        second, third = visit(site, first.last_event_id), visit(site, first.last_event_id)
        site.allow(4)
        assert second.rest() == third.rest() == said(1, 2, 3, 4, done=True)
        assert [one.id for one in second.events] == [one.id for one in third.events]
        first.leave()

    def test_before_the_first_event_there_is_an_id(self, store: ReplayStore) -> None:
        """A browser that is cut off while the model thinks does not ask again."""
        site = Site(store)
        first = visit(site)
        first._feed(next(first._chunks))
        first.leave()
        site.allow(5)
        assert visit(site, first.last_event_id).rest() == said(0, 1, 2, 3, 4, done=True)
        assert site.started == 1

    def test_who_has_everything_is_told_so(self, store: ReplayStore) -> None:
        """After a complete stream a browser that asks again gets 204, and no new stream."""
        site = Site(store)
        site.allow(5)
        first = visit(site)
        first.rest()
        again = visit(site, first.last_event_id)
        assert (again.status, again.response.data) == (204, b"")
        assert site.started == 1

    @pytest.mark.parametrize("id_", ["7", f"{'0' * 32}-3", "no id", f"{'0' * 32}-{'9' * 40}"])
    def test_an_unknown_id_is_gone(self, store: ReplayStore, id_: str) -> None:
        """What is not kept is answered with 410, and is never a new question."""
        site = Site(store)
        until(lambda: not store.is_recovering())  # a Redis that has just been started
        again = visit(site, id_)
        assert again.status == 410
        assert again.response.json["code"] == "gone"
        assert site.started == 0

    def test_nobody_reads_another_ones_stream(self, store: ReplayStore) -> None:
        """An id is of no use under another key."""
        site = Site(store)
        site.allow(5)
        first = visit(site, key="ann")
        first.rest()
        assert visit(site, f"{first.last_event_id[:33]}1", key="bob").status == 410
        assert visit(site, f"{first.last_event_id[:33]}1", key="ann").status == 200

    def test_a_name_is_asked_once(self, store: ReplayStore) -> None:
        """Who asks what was asked already, without an id, joins; other names and keys do not."""
        site = Site(store)
        site.allow(5)
        first = visit(site, name="question 1")
        assert first.rest() == visit(site, name="question 1").rest()
        assert site.started == 1
        site.allow(10)
        visit(site, name="question 2").rest()
        visit(site, name="question 1", key="bob").rest()
        assert site.started == 3

    def test_a_stream_that_nobody_reads_ends(self, store: ReplayStore) -> None:
        """Without a reader for `grace_s` the stream is closed; who comes later is told."""
        site = Site(store, grace_s=0.2)
        site.allow(1)
        first = visit(site)
        first.read(1)
        assert not site.closed.is_set()
        first.leave()
        assert site.closed.wait(5)
        late = visit(site, f"{first.last_event_id[:33]}1")
        late.rest()
        assert late.events[-1].event == "error"
        assert visit(site, late.last_event_id).status == 204

    def test_a_stream_can_be_kept_running(self, store: ReplayStore) -> None:
        """With `keep_running` the answer is complete when the visitor comes back."""
        site = Site(store, grace_s=0.05, keep_running=True)
        site.allow(1)
        first = visit(site)
        first.read(1)
        seen = next(one.id for one in first.events if one.data in said(0))
        first.leave()
        site.allow(4)
        assert site.finished.wait(5)
        assert visit(site, seen).rest() == said(1, 2, 3, 4, done=True)
        assert site.started == 1

    def test_the_first_answer_still_has_a_status(
        self, store: ReplayStore, server: FakeServer
    ) -> None:
        """A refusal before the first byte is a status, and is not kept under the name."""
        server.enqueue(status(429, headers={"Retry-After": "3"}))
        server.script(say("one"))

        def ask() -> flask.Response:
            return sse_response(lambda: _ask(server), replay=store, key="ann", name="question")

        app = flask.Flask(__name__)
        app.add_url_rule("/stream", view_func=ask)
        refused = app.test_client().get("/stream")
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "3")
        assert b'"one"' in app.test_client().get("/stream").data

    def test_an_error_is_an_ending(self, store: ReplayStore, server: FakeServer) -> None:
        """A stream that breaks off does so for everybody, and once."""
        server.script(say("one"), cut())
        app = flask.Flask(__name__)
        app.add_url_rule(
            "/stream",
            view_func=lambda: sse_response(lambda: _ask(server), replay=store, key="ann"),
        )
        body = app.test_client().get("/stream").data
        assert b'"code":"incomplete"' in body
        id_ = SSEDecoder().feed(body)[-1].id
        again = app.test_client().get("/stream", headers={"Last-Event-ID": id_})
        assert again.status_code == 204
        assert len(server.requests) == 1

    def test_what_cannot_be_written_is_an_ending(self, store: ReplayStore) -> None:
        """Nobody waits for a stream that the format has no words for."""
        events: list[Event] = [TextDelta("one"), Unknown("x", object()), Finish("stop")]
        app = flask.Flask(__name__)
        app.add_url_rule(
            "/stream",
            view_func=lambda: sse_response(
                lambda: events, format="events", replay=store, key="ann"
            ),
        )
        body = app.test_client().get("/stream").data
        assert b'"text":"one"' in body
        assert b'"code":"internal"' in body

    def test_nothing_is_opened_for_a_head_request(self, store: ReplayStore) -> None:
        """HEAD asks nobody."""
        site = Site(store)
        assert site.app.test_client().head("/stream").status_code == 200
        assert site.started == 0


class TestNames:
    def test_what_has_failed_is_asked_again(self, store: ReplayStore, server: FakeServer) -> None:
        """Who asks without an id begins another stream; who comes back gets that one's end."""
        server.script(say("one"), cut())
        client = _named_site(store, server)
        broken = client.get("/stream").data
        assert b'"code":"incomplete"' in broken
        server.script(say("whole"))
        for _ in range(2):
            assert b'"whole"' in client.get("/stream").data
        assert len(server.requests) == 2
        ids = [sse.id for sse in SSEDecoder().feed(broken)]
        rest = client.get("/stream", headers={"Last-Event-ID": ids[0]}).data
        assert b'"code":"incomplete"' in rest
        assert b"whole" not in rest

    def test_what_fails_again_and_again_is_asked_each_time(
        self, store: ReplayStore, server: FakeServer
    ) -> None:
        """No number of failures makes a name useless."""
        server.script(say("one"), cut())
        client = _named_site(store, server)
        for number in range(1, 20):
            assert b'"code":"incomplete"' in client.get("/stream").data
            assert len(server.requests) == number

    def test_the_failed_one_expires_first(self, server: FakeServer) -> None:
        """When only the answer that followed it is kept, that is the one that is joined."""
        store = MemoryReplay()
        server.script(say("one"), cut())
        client = _named_site(store, server)
        assert b'"code":"incomplete"' in client.get("/stream").data
        server.script(say("whole"))
        assert b'"whole"' in client.get("/stream").data
        with store._lock:
            store._drop_ended()
        assert b'"whole"' in client.get("/stream").data
        assert len(server.requests) == 2

    def test_what_nobody_read_to_its_end_is_asked_again(self, store: ReplayStore) -> None:
        """A stream that was closed because everybody had gone is no answer."""
        site = Site(store, grace_s=0.1)
        site.allow(1)
        first = visit(site, name="question")
        first.read(1)
        first.leave()
        assert site.closed.wait(5)
        until(lambda: visit(site, f"{first.last_event_id[:33]}1").rest() is not None)
        site.allow(5)
        assert visit(site, name="question").rest() == said(0, 1, 2, 3, 4, done=True)
        assert site.started == 2

    def test_who_joins_a_question_that_is_refused_is_refused(
        self, store: ReplayStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """All of them get the one refusal as their status, at once, and nothing is kept."""
        gate = threading.Event()
        readers: list[str] = []
        follow = store.reader

        def reader(stream: str, *how: Any) -> Any:
            readers.append(stream)
            return follow(stream, *how)

        monkeypatch.setattr(store, "reader", reader)

        def refuse() -> Iterator[Event]:
            gate.wait(20)
            raise RateLimitError("no", status=429, retry_after_s=3)
            yield

        app = flask.Flask(__name__)
        asked = [[TextDelta("one"), Finish("stop")], refuse()]
        app.add_url_rule(
            "/stream",
            view_func=lambda: sse_response(asked.pop, replay=store, key="ann", name="question"),
        )
        with ThreadPoolExecutor(3) as pool:
            answers = [pool.submit(app.test_client().get, "/stream") for _ in range(3)]
            until(lambda: len(readers) == 3)
            gate.set()
            for answer in answers:
                refused = answer.result(20)
                assert (refused.status_code, refused.headers["Retry-After"]) == (429, "3")
        assert b'"one"' in app.test_client().get("/stream").data

    def test_who_is_too_late_for_a_refusal_asks_himself(self) -> None:
        """A question that is refused between a look at its name and the joining is asked anew."""
        gate = threading.Event()

        class Slow(MemoryReplay):
            readers = 0

            def reader(self, stream: str, *how: Any) -> Any:
                self.readers += 1
                if self.readers == 2:
                    gate.set()
                    until(lambda: not self._streams)
                return super().reader(stream, *how)

        def refuse() -> Iterator[Event]:
            gate.wait(20)
            raise RateLimitError("no", status=429)
            yield

        store = Slow()
        app = flask.Flask(__name__)
        asked = [[TextDelta("one"), Finish("stop")], refuse()]
        app.add_url_rule(
            "/stream",
            view_func=lambda: sse_response(asked.pop, replay=store, key="ann", name="question"),
        )
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(app.test_client().get, "/stream")
            until(lambda: store.readers == 1)
            assert b'"one"' in app.test_client().get("/stream").data
            assert first.result(20).status_code == 429

    def test_another_format_is_another_stream(self, store: ReplayStore) -> None:
        """A tab that asks for one format gets no other, under the same name or with an id."""
        app = flask.Flask(__name__)
        answer = [TextDelta("one"), Finish("stop")]

        @app.get("/<format>")
        def view(format: str) -> flask.Response:
            return sse_response(
                lambda: answer, format=format, replay=store, key="ann", name="question"
            )

        client = app.test_client()
        tokens = client.get("/tokens").data
        assert b'{"token":"one"}' in tokens
        assert b"text-delta" in client.get("/ui-message").data
        headers = {"Last-Event-ID": next(iter(SSEDecoder().feed(tokens))).id}
        assert client.get("/ui-message", headers=headers).status_code == 410
        assert client.get("/tokens", headers=headers).status_code == 200


class TestStopStream:
    @pytest.fixture(params=["memory", "redis"])
    def store(self, request: pytest.FixtureRequest) -> ReplayStore:
        """Each store in turn, with a lease that a loaded machine keeps."""
        if request.param == "memory":
            return MemoryReplay()
        return RedisReplay(request.getfixturevalue("redis"), lease_s=3.0)

    @pytest.mark.parametrize("by", ["name", "last_event_id"])
    def test_a_stream_that_is_stopped_ends(self, store: ReplayStore, by: str) -> None:
        """Its stream is closed although somebody reads it, and its readers are told."""
        site = Site(store, keep_running=True)
        site.allow(1)
        tab = visit(site, name="question")
        tab.read(1)
        which = {by: "question" if by == "name" else tab.last_event_id}
        assert not stop_stream(store, key="bob", **which)
        assert not stop_stream(store, key="ann", format="events", **which)
        assert stop_stream(store, key="ann", **which)
        assert site.closed.wait(5)
        tab.rest()
        assert tab.events[-1].event == "error"
        assert '"retryable":false' in tab.events[-1].data
        assert not stop_stream(store, key="ann", **which)

    @pytest.mark.parametrize("by", ["name", "last_event_id"])
    def test_its_format_need_not_be_said(self, store: ReplayStore, by: str) -> None:
        """An id says which stream it is, and a name is stopped in every format."""
        site = Site(store, keep_running=True, format="events")
        tab = visit(site, name="question")
        tab._feed(next(tab._chunks))
        which = {by: "question" if by == "name" else tab.last_event_id}
        assert stop_stream(store, key="ann", **which)
        assert site.closed.wait(5)
        tab.rest()

    def test_what_is_not_known_cannot_be_stopped(self, store: ReplayStore) -> None:
        """A visitor who asks for nonsense does no harm."""
        for id_ in ("", "7", f"{'0' * 32}-3"):
            assert not stop_stream(store, key="ann", last_event_id=id_)
        assert not stop_stream(store, key="ann", name="question")

    @pytest.mark.parametrize(
        "how", [{}, {"name": "a", "last_event_id": "b"}, {"name": ""}, {"name": "a", "key": ""}]
    )
    def test_what_cannot_be_is_refused(self, how: dict[str, Any]) -> None:
        """A stream has a key, and a name or an id."""
        with pytest.raises(ConfigurationError):
            stop_stream(MemoryReplay(), **{"key": "ann", **how})


class TestArguments:
    @pytest.mark.parametrize(
        ("how", "message"),
        [
            ({"replay": {}, "key": "ann"}, "replay must be a store"),
            ({"replay": MemoryReplay()}, "needs key="),
            ({"replay": MemoryReplay(), "key": ""}, "needs key="),
            ({"replay": MemoryReplay(), "key": 7}, "needs key="),
            ({"replay": MemoryReplay(), "key": "ann", "name": ""}, "name must be"),
            ({"replay": MemoryReplay(), "key": "ann", "format": "text"}, "has no ids"),
            ({"replay": MemoryReplay(), "key": "ann", "grace_s": 0}, "grace_s must be"),
            ({"replay": MemoryReplay(), "key": "ann", "keep_running": 1}, "keep_running must be"),
            ({"key": "ann"}, "go with replay="),
            ({"name": "question"}, "go with replay="),
            ({"keep_running": True}, "go with replay="),
        ],
    )
    def test_what_cannot_be_is_refused(self, how: dict[str, Any], message: str) -> None:
        """The error says what was wrong, and nothing is opened."""

        def opened() -> Any:
            raise AssertionError("opened")

        with pytest.raises(ConfigurationError, match=message):
            sse_response(opened, **how)

    def test_a_stream_that_is_open_already_is_refused(self, server: FakeServer) -> None:
        """It would be paid for at each reconnect; it is closed."""
        server.script(stall())
        stream = _ask(server)
        with pytest.raises(ConfigurationError, match="lambda: stream_sync"):
            sse_response(stream, replay=MemoryReplay(), key="ann")
        assert "ended" in repr(stream)

    def test_what_is_no_stream_is_refused(self) -> None:
        """The function's result is looked at, and nothing stays under the name."""
        store = MemoryReplay()
        none: Any = None
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="the function must return"):
                sse_response(lambda: none, replay=store, key="ann", name="question")

    def test_a_site_that_cannot_ask_is_a_problem(self) -> None:
        """A key that is missing is 502 and no word about it; nothing stays under the name."""
        store = MemoryReplay()
        for _ in range(2):
            answer = sse_response(lambda: stream_openai("Hi"), replay=store, key="ann", name="q")
            assert answer.status_code == 502
            assert answer.json["code"] == "misconfigured"  # type: ignore[index]
            assert b"OPENAI" not in answer.data

    def test_a_thread_that_cannot_be_started_leaves_nothing(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The name is free again, and nobody waits for a stream without a writer."""

        def fail(*arguments: object) -> None:
            raise RuntimeError("can't start new thread")

        store, answer = MemoryReplay(), [TextDelta("one"), Finish("stop")]
        with monkeypatch.context() as patch:
            patch.setattr("llm_sse.web.generation.start_pump", fail)
            with pytest.raises(RuntimeError):
                sse_response(lambda: answer, replay=store, key="ann", name="question")
        told = sse_response(lambda: answer, replay=store, key="ann", name="question").data
        assert b'"one"' in told

    def test_a_stream_that_cannot_be_kept_ends(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever its store's trouble is, its readers do not wait for ever."""

        def fail(*arguments: object, **more: object) -> None:
            raise ValueError("a bug of the store's")

        store = MemoryReplay()
        monkeypatch.setattr(store, "_add", fail)
        told = sse_response(lambda: [TextDelta("one"), Finish("stop")], replay=store, key="ann")
        assert b'"code":"incomplete"' in told.data

    def test_a_function_is_taken_without_a_store_too(self, server: FakeServer) -> None:
        """It is called, and its stream is told."""
        server.script(say("one"))
        response = sse_response(lambda: _ask(server))
        assert b'"one"' in response.data

    @pytest.mark.parametrize("name", ["max_streams", "max_bytes", "ttl_s"])
    @pytest.mark.parametrize("value", [0, -1, True, "7", None])
    def test_a_store_has_bounds(self, name: str, value: Any) -> None:
        """What is no bound is refused."""
        with pytest.raises(ConfigurationError, match=name):
            MemoryReplay(**{name: value})


def _broken(position: int) -> bytes:
    return b"broken"


def _written(store: MemoryReplay, stream: str, *events: bytes, last: bool = True) -> Any:
    writer = store.begin(stream)
    assert writer is not None
    writer.append(events, last=last)
    return writer


class TestMemoryReplay:
    def test_streams_that_have_ended_make_room(self) -> None:
        """At `max_streams` the one that ended first goes; if none has ended, there is no room."""
        store = MemoryReplay(max_streams=2)
        _written(store, "a", b"1")
        _written(store, "b", b"1", last=False)
        _written(store, "c", b"1", last=False)
        assert store.state("a") is None
        with pytest.raises(ServerError, match="max_streams"):
            store.begin("d")

    def test_a_reader_may_be_closed_by_a_garbage_collection(self) -> None:
        """One that runs in the very thread that is at work in the store does not block it."""
        store = MemoryReplay()
        _written(store, "a", b"1")
        reader = store.reader("a", 0, _broken)

        def collect() -> None:
            with store._lock:
                reader.close()

        thread = threading.Thread(target=collect, daemon=True)
        thread.start()
        thread.join(5)
        assert not thread.is_alive()

    def test_a_position_that_never_was_is_gone(self) -> None:
        """Who makes one up does not wait for it, and keeps no stream alive."""
        site = Site(MemoryReplay(), grace_s=0.1)
        site.allow(1)
        first = visit(site)
        first.read(1)
        assert visit(site, f"{first.last_event_id[:33]}999").status == 410
        first.leave()

    def test_a_writer_that_fails_leaves_nobody_waiting(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Whatever went wrong while writing, its readers are told, and nothing is kept."""
        store = MemoryReplay()
        monkeypatch.setattr(store, "_add", lambda *given: {}["unknown"])
        site = Site(store)
        site.allow(1)
        tab = visit(site)
        tab.rest()
        assert tab.events[-1].event == "error"
        assert '"code":"incomplete"' in tab.events[-1].data
        until(site.closed.is_set)
        assert not store._streams
        assert "a stream could not be kept for replay" in caplog.text

    def test_a_system_without_threads_leaves_nothing(
        self, server: FakeServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What was opened is closed, and can be asked again."""
        store = MemoryReplay()
        server.script(stall())

        def refuse(*given: object) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr("llm_sse.web.generation.start_pump", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            sse_response(lambda: _ask(server), replay=store, key="ann", name="question")
        assert all(request.ended.wait(5) for request in server.requests)
        assert not store._streams

    def test_without_room_the_visitor_gets_503(self) -> None:
        """A full store is the site's trouble, and passes."""
        store = MemoryReplay(max_streams=1)
        _written(store, "a", b"1", last=False)
        response = sse_response(lambda: [Finish("stop")], replay=store, key="ann")
        assert (response.status_code, response.headers["Retry-After"]) == (503, "5")

    def test_bytes_are_bounded(self) -> None:
        """Ended streams go first, then the oldest events; who needs them is told."""
        store = MemoryReplay(max_bytes=10)
        _written(store, "a", b"12345")
        slow = store.reader("a", 0, _broken)
        writer = _written(store, "b", b"12345", last=False)
        assert store.state("a") is not None
        late, early = store.reader("b", 1, _broken), store.reader("b", 0, _broken)
        writer.append([b"1234", b"5678"], last=True)
        assert store.state("a") is None
        assert store.state("b") == (2, 3, True)
        assert [entry.data for entry in late.read(0)] == [b"1234", b"5678"]
        for reader in (slow, early):
            with pytest.raises(Gone):
                reader.read(0)

    def test_the_largest_stream_pays_for_the_room(self) -> None:
        """Where all streams grow, a small one loses nothing for the sake of a large one."""
        store = MemoryReplay(max_bytes=10)
        large = _written(store, "large", b"1234", b"5678", last=False)
        small = _written(store, "small", b"12", last=False)
        small.append([b"3"])
        assert store.state("small") == (1, 2, False)
        assert store.state("large") == (2, 2, False)
        large.append([b"90", b"12"], last=True)
        small.append([b"4567"])
        assert store.state("large") is None
        assert store.state("small") == (1, 3, False)

    def test_a_reader_may_be_closed_in_the_thread_that_holds_the_lock(self) -> None:
        """A garbage collection does that, wherever it comes; the store goes on."""
        store = MemoryReplay()
        writer = _written(store, "a", b"1", last=False)
        reader = store.reader("a", 1, _broken)

        def collect() -> None:
            with store._lock:
                reader.close()
            writer.append([b"2"], last=True)

        thread = threading.Thread(target=collect, daemon=True)
        thread.start()
        thread.join(5)
        assert not thread.is_alive()
        assert store.state("a") == (1, 2, True)

    def test_a_response_may_be_collected_anywhere_in_the_store(self) -> None:
        """One that was dropped in a cycle, as a traceback leaves it, blocks nobody."""
        store, gate = MemoryReplay(), threading.Event()
        writer = _written(store, "other", b"1", last=False)

        def wait() -> Iterator[Event]:
            yield TextDelta("one")
            gate.wait(20)

        def collect() -> None:
            cycle: list[Any] = [sse_response(wait, replay=store, key="ann")]
            cycle.append(cycle)
            del cycle
            with store._lock:
                gc.collect()

        thread = threading.Thread(target=collect, daemon=True)
        thread.start()
        thread.join(5)
        gate.set()
        assert not thread.is_alive()
        writer.append([b"2"], last=True)
        assert store.state("other") == (1, 2, True)

    def test_a_position_that_was_never_told_is_gone(self) -> None:
        """A forged id of a stream that runs is 410, and no reader."""
        store = MemoryReplay()
        site = Site(store, grace_s=0.1)
        site.allow(1)
        first = visit(site)
        first.read(1)
        assert visit(site, f"{first.last_event_id[:33]}999999").status == 410
        first.leave()
        assert site.closed.wait(5)

    def test_a_stream_expires_after_its_end(self) -> None:
        """After `ttl_s` it is unknown; one that still grows is not."""
        store = MemoryReplay(ttl_s=1e-9)
        _written(store, "a", b"1")
        _written(store, "b", b"1", last=False)
        assert store.state("a") is None
        assert store.state("b") == (1, 1, False)

    def test_a_part_that_is_not_kept_is_gone(self) -> None:
        """Who comes back for what was dropped gets 410, not a text with a hole in it."""
        store = MemoryReplay(max_bytes=100)
        site = Site(store, keep_running=True)
        site.allow(5)
        first = visit(site)
        first._feed(next(first._chunks))
        first.leave()
        until(lambda: store._ended)
        assert visit(site, first.last_event_id).status == 410
        assert visit(site, f"{first.last_event_id[:33]}6").status == 204


def _named_site(store: ReplayStore, server: FakeServer) -> Any:
    app = flask.Flask(__name__)
    app.add_url_rule(
        "/stream",
        view_func=lambda: sse_response(
            lambda: _ask(server), replay=store, key="ann", name="question"
        ),
    )
    return app.test_client()


def _ask(server: FakeServer) -> Any:
    return stream_openai(
        "Hi", base_url=server.base_url("openai"), api_key="any", retry=RetryPolicy(max_retries=0)
    )
