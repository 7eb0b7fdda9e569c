from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.db import connection, connections
from django.db.backends.signals import connection_created
from django.http import HttpResponseBase
from django.test import AsyncClient, AsyncRequestFactory, Client, RequestFactory

from llm_sse import run_tools, stream_openai
from llm_sse.errors import ConfigurationError
from llm_sse.events import Event, Finish, TextDelta
from llm_sse.sse import SSEDecoder
from llm_sse.testing import FakeServer, call_tool, cut, hang, pause, say, stall, status
from llm_sse.web.django import SSEResponse, asse_response, sse_response
from llm_sse.web.replay import MemoryReplay, ReplayWriter
from tests.helpers import until
from tests.web import app_django  # the project, whose settings hold in this process, too

assert app_django
_GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "web.md"
_ANSWER: list[Event] = [TextDelta("one"), Finish("stop")]
_BODY = b'id: 0\n: connected\nid: 1\ndata: {"token":"one"}\n\nid: 2\ndata: [DONE]\n\n'


async def _read(chunks: Any) -> bytes:
    return b"".join([chunk async for chunk in chunks])


def _get(server: FakeServer, way: str, **query: object) -> tuple[HttpResponseBase, bytes]:
    """Ask a view, as WSGI or ASGI would; return the response and its whole body."""
    handler, _, view = way.partition(" ")
    asked = {"base_url": server.base_url("openai"), **query}
    if handler == "WSGI":
        response: Any = Client(raise_request_exception=False).get(view, asked)
        return response, response.getvalue()

    async def ask() -> tuple[Any, bytes]:
        response: Any = await AsyncClient(raise_request_exception=False).get(view, asked)
        return response, await _read(response) if response.streaming else response.content

    return asyncio.run(ask())


@pytest.fixture(params=["WSGI /stream", "ASGI /stream", "ASGI /async"])
def way(request: pytest.FixtureRequest) -> str:
    """Each handler with each kind of view, in turn."""
    way: str = request.param
    return way


class TestSSEResponse:
    def test_is_an_event_stream(self, way: str, server: FakeServer) -> None:
        """The headers keep it from being cached, compressed and buffered."""
        server.script(say("one"))
        response, body = _get(server, way)
        assert response.status_code == 200
        headers = response.headers
        assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert headers["Cache-Control"] == "no-cache, no-transform"
        assert headers["Content-Encoding"] == "identity"
        assert headers["X-Accel-Buffering"] == "no"
        assert body == _BODY

    @pytest.mark.parametrize(("theirs", "ours"), [(429, 429), (500, 503), (401, 502)])
    def test_what_fails_before_the_first_byte_has_a_status(
        self, way: str, server: FakeServer, theirs: int, ours: int
    ) -> None:
        """The answer is a problem document that reveals nothing."""
        server.script(status(theirs, "gpt-secret", headers={"Retry-After": "2"}))
        response, body = _get(server, way)
        assert response.status_code == ours
        assert response.headers["Content-Type"] == "application/problem+json"
        assert response.headers.get("Retry-After") == ("2" if ours in (429, 503) else None)
        assert b"secret" not in body

    def test_a_refusal_that_lasts_longer_than_the_wait_is_the_status(
        self, way: str, server: FakeServer
    ) -> None:
        """Also where the stream would be asked for again."""
        server.script(status(429, headers={"Retry-After": "20"}))
        response, _ = _get(server, way, retry="default")
        assert (response.status_code, response.headers["Retry-After"]) == (429, "20")
        assert len(server.requests) == 1

    def test_a_provider_that_takes_its_time_is_not_waited_for(
        self, way: str, server: FakeServer
    ) -> None:
        """After `status_wait_s` the response begins; what goes wrong later is its last event."""
        server.script(cut())
        response, body = _get(server, way, status_wait_s=0)
        assert response.status_code in (200, 503)  # whatever is first
        assert b'"code":"incomplete"' in body

    @pytest.mark.parametrize("in_loop", [False, True], ids=["sync", "async"])
    def test_a_browser_that_comes_back_is_told_to_stop(self, in_loop: bool) -> None:
        """Without a store nothing is told again, and the question is not asked twice."""
        asked: list[str] = []
        request = RequestFactory().get("/stream", headers={"Last-Event-ID": "4"})

        def ask() -> list[Event]:
            asked.append("again")
            return _ANSWER

        if in_loop:
            response = asyncio.run(asse_response(ask, request=request))
        else:
            response = sse_response(ask, request=request)
        assert response.status_code == 204
        assert asked == []

    def test_a_store_that_hangs_does_not_fill_the_loops_threads(self) -> None:
        """Other work of the same loop finds a thread, however many browsers wait for the store."""
        gate = threading.Event()

        class Hanging(MemoryReplay):
            may_block = True

            def begin(self, stream: str) -> ReplayWriter | None:
                gate.wait(20)
                return super().begin(stream)

        async def serve() -> None:
            loop = asyncio.get_running_loop()
            loop.set_default_executor(ThreadPoolExecutor(2))
            how: Any = {"replay": Hanging(), "key": "ann", "request": RequestFactory().get("/")}
            asked = [asyncio.ensure_future(asse_response(lambda: _ANSWER, **how)) for _ in range(4)]
            await asyncio.sleep(0)
            assert await asyncio.wait_for(asyncio.to_thread(lambda: "done"), 10) == "done"
            gate.set()
            for task in asked:
                assert await _read(await task) != b""

        asyncio.run(serve())

    def test_wrong_arguments_are_refused(self, way: str, server: FakeServer) -> None:
        """The view fails, where the author sees it."""
        response, _ = _get(server, way, format="xml")
        assert response.status_code == 500

    def test_an_async_view_needs_the_async_function(self, server: FakeServer) -> None:
        """What would block the event loop is an error that says what to write."""
        server.script(stall())

        async def view() -> None:
            stream = stream_openai("Hi", base_url=server.base_url("openai"), api_key="any")
            with pytest.raises(ConfigurationError, match="await asse_response"):
                sse_response(stream)

        asyncio.run(view())
        gc.collect()
        assert all(request.ended.wait(5) for request in server.requests)

    def test_a_request_that_is_cancelled_closes_the_stream(self, server: FakeServer) -> None:
        """Under ASGI a browser that leaves is a cancelled request."""
        server.script(hang())

        async def visit() -> HttpResponseBase:
            stream = stream_openai("Hi", base_url=server.base_url("openai"), api_key="any")
            response = await asse_response(stream, status_wait_s=0.01)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(_read(response), 0.1)
            return response

        response = asyncio.run(visit())  # Django holds it, too
        until(lambda: server.requests)
        assert server.requests[0].ended.wait(5)
        assert response.streaming

    def test_waiting_for_the_status_can_be_cancelled(self, server: FakeServer) -> None:
        """A browser that leaves before that ends the question, too."""
        server.script(hang())

        async def visit() -> None:
            stream = stream_openai("Hi", base_url=server.base_url("openai"), api_key="any")
            task = asyncio.ensure_future(asse_response(stream))
            while not server.requests:
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(visit())
        assert server.requests[0].ended.wait(5)

    def test_an_async_view_under_wsgi_is_read_by_the_server(self) -> None:
        """Where the view ran does not count; who reads decides."""
        response = async_to_sync(asse_response)(_ANSWER)
        assert isinstance(response, SSEResponse)
        assert not response.is_async
        assert b"".join(response) == _BODY

    def test_a_sync_view_under_asgi_is_read_by_the_loop(self) -> None:
        """A sync view runs in a thread; the body is not read there."""

        async def serve() -> bytes:
            def view() -> HttpResponseBase:
                response = sse_response(_ANSWER)
                assert isinstance(response, SSEResponse)
                assert response.is_async  # middleware in this thread must know
                return response

            return await _read(await sync_to_async(view)())

        assert asyncio.run(serve()) == _BODY

    def test_middleware_may_wrap_the_body(self) -> None:
        """What middleware puts around it is read in the same way, and closes it."""

        def loud(parts: Iterator[bytes]) -> Iterator[bytes]:
            return (part.upper() for part in parts)

        async def aloud(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
            async for part in parts:
                yield part.upper()

        async def serve() -> bytes:
            response: Any = await asse_response(_ANSWER)
            assert response.is_async
            response.streaming_content = aloud(response.streaming_content)
            return await _read(response)

        response: Any = sse_response(_ANSWER)
        assert not response.is_async
        response.streaming_content = loud(response.streaming_content)
        assert b"".join(response) == _BODY.upper()
        assert asyncio.run(serve()) == _BODY.upper()

    def test_closing_the_response_closes_the_stream(self, server: FakeServer) -> None:
        """WSGI servers do it when the browser has gone."""
        server.script(say("one"), stall())
        stream = stream_openai("Hi", base_url=server.base_url("openai"), api_key="any")
        response = sse_response(stream)
        assert next(iter(response)) == b"id: 0\n: connected\n"
        response.close()
        assert server.requests[0].ended.wait(5)

    def test_what_tools_opened_is_closed(
        self, server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A tool may ask the database; its connection ends with the thread that it runs in."""
        monkeypatch.setitem(connections.settings["default"], "NAME", str(tmp_path / "db"))
        opened: list[Any] = []

        def count() -> int:
            """Count."""
            opened.append(connections["default"])
            with connection.cursor() as cursor:
                cursor.execute("select 42")
                assert opened[0].connection is not None
                return int(cursor.fetchone()[0])

        server.enqueue(call_tool("count"))
        loop = run_tools("Hi", tools=[count], base_url=server.base_url("openai"), api_key="any")
        assert b'"content":"42"' in b"".join(sse_response(loop, format="events"))
        until(lambda: opened[0].connection is None)


class TestFactory:
    @pytest.mark.parametrize("query", ["", "kept"], ids=["no-replay", "replay"])
    def test_may_use_the_database_in_an_async_view(
        self, query: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It runs where `sync_to_async` runs; Django closes its connection after the response."""
        monkeypatch.setitem(connections.settings["default"], "NAME", str(tmp_path / "db"))
        opened: list[Any] = []

        def note(connection: Any, **_: Any) -> None:
            opened.append(connection)

        connection_created.connect(note)
        try:
            body = asyncio.run(_serve(AsyncRequestFactory().get(f"/database?{query}").scope))
        finally:
            connection_created.disconnect(note)
        assert b"It is 42." in body
        assert [one.connection for one in opened] == [None]

    @pytest.mark.parametrize("kept", [False, True], ids=["no-replay", "replay"])
    def test_runs_in_the_requests_thread_under_wsgi(self, kept: bool) -> None:
        """There an async view has the request's own thread for what is not async."""
        how: Any = {"replay": MemoryReplay(), "key": "ann"} if kept else {}
        ran: list[threading.Thread] = []

        def opens() -> list[Event]:
            ran.append(threading.current_thread())
            return _ANSWER

        request = RequestFactory().get("/stream")
        response: Any = async_to_sync(asse_response)(opens, request=request, **how)
        assert response.getvalue().endswith(b"data: [DONE]\n\n")
        assert ran == [threading.current_thread()]

    def test_is_not_called_for_who_has_left(self) -> None:
        """A store that is slow may have kept the request waiting longer than its browser waits."""
        asked: list[str] = []
        begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

        class Slow(MemoryReplay):
            def begin(self, stream: str) -> Any:
                begun.set()
                assert go_on.wait(10)
                writer = super().begin(stream)
                assert writer is not None
                close = writer.close
                writer.close = lambda: (close(), ended.set())  # type: ignore[method-assign]
                return writer

        async def leave() -> None:
            request = RequestFactory().get("/stream")
            answer = asse_response(
                lambda: asked.append("asked") or _ANSWER,  # type: ignore[func-returns-value]
                request=request,
                replay=Slow(),
                key="ann",
            )
            task = asyncio.ensure_future(answer)
            while not begun.is_set():
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            go_on.set()
            while not ended.is_set():
                await asyncio.sleep(0.001)

        asyncio.run(leave())
        assert asked == []


async def _serve(scope: Any) -> bytes:
    """Have the whole of Django's ASGI handler answer a request; return the body."""
    given, sent = iter([{"type": "http.request", "body": b""}]), bytearray()

    async def receive() -> Any:
        for message in given:
            return message
        return await asyncio.Future()

    async def send(message: Any) -> None:
        sent.extend(message.get("body", b""))

    await ASGIHandler()(scope, receive, send)
    return bytes(sent)


class TestHead:
    def test_a_server_reads_nothing_of_the_answer(self, way: str, server: FakeServer) -> None:
        """The headers are those of GET; the provider, whom the view has asked, is left at once."""
        server.script(say("one"), pause(2), say("two"))
        handler, _, view = way.partition(" ")
        query = {"base_url": server.base_url("openai")}
        if handler == "WSGI":
            request: Any = RequestFactory().head(view, query)
            answer: Any = WSGIHandler().get_response(request)
            body = b"".join(answer)
            answer.close()
        else:

            async def ask() -> tuple[Any, bytes]:
                answer = await ASGIHandler().get_response_async(
                    AsyncRequestFactory().head(view, query)
                )
                body = await _read(answer)
                await sync_to_async(answer.close)()
                return answer, body

            answer, body = asyncio.run(ask())
        assert (answer.status_code, body) == (200, b"")
        assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert server.requests[0].ended.wait(5)
        assert server.requests[0].outcome == "disconnected"
        assert len(server.requests) == 1

    @pytest.mark.parametrize("in_loop", [False, True], ids=["sse_response", "asse_response"])
    def test_nobody_is_asked_where_the_request_is_known(
        self, server: FakeServer, in_loop: bool
    ) -> None:
        """A function is not called, a stream that is open already is closed; with replay, too."""
        server.script(stall())
        request = RequestFactory().head("/stream")

        def answer(stream: Any, **how: Any) -> HttpResponseBase:
            if in_loop:
                return asyncio.run(asse_response(stream, request=request, **how))
            return sse_response(stream, request=request, **how)

        def opens() -> Any:
            raise AssertionError("opened")

        for how in ({}, {"replay": MemoryReplay(), "key": "ann"}):
            response: Any = answer(opens, **how)
            assert (response.status_code, b"".join(response)) == (200, b"")
            assert response.streaming  # so nobody gives it a length
            assert response.headers["X-Accel-Buffering"] == "no"
        stream = stream_openai("Hi", base_url=server.base_url("openai"), api_key="any")
        answer(stream)
        assert repr(stream).endswith("ended>")


class TestReplay:
    @pytest.mark.parametrize("in_loop", [False, True], ids=["sse_response", "asse_response"])
    def test_a_browser_that_comes_back_misses_nothing(self, in_loop: bool) -> None:
        """It gets what follows its last event; nothing more after the end; 410 for what is not."""
        store, opened, method = MemoryReplay(), [], "GET"

        def opens() -> list[Event]:
            opened.append(True)
            return _ANSWER

        def ask(**headers: str) -> tuple[int, bytes]:
            request = RequestFactory().generic(method, "/stream", headers=headers)
            how: Any = {"request": request, "replay": store, "key": "ann"}

            async def answer() -> tuple[int, bytes]:
                response: Any = await asse_response(opens, **how)
                body = await _read(response) if response.streaming else response.content
                return response.status_code, body

            if in_loop:
                return asyncio.run(answer())
            response: Any = sse_response(opens, **how)
            return response.status_code, response.getvalue()

        _, body = ask()
        first, last = SSEDecoder().feed(body)
        assert (first.data, last.data) == ('{"token":"one"}', "[DONE]")
        status, rest = ask(**{"Last-Event-ID": first.id})
        assert (status, SSEDecoder().feed(rest)) == (200, [last])
        assert ask(**{"Last-Event-ID": last.id}) == (204, b"")
        assert ask(**{"Last-Event-ID": "7"})[0] == 410
        assert len(opened) == 1
        method = "HEAD"
        statuses = [ask(**{"Last-Event-ID": id_})[0] for id_ in (first.id, last.id, "7")]
        assert statuses == [200, 204, 410]

    def test_the_guides_views_tell_again_and_stop(
        self, server: FakeServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The documentation's two views, with a session: who stops is not who else asks."""
        monkeypatch.setenv("ANTHROPIC_API_KEY", "any")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.base_url("anthropic"))
        text = _GUIDE.read_text(encoding="utf-8").partition("The same two views in Django:")[2]
        made: dict[str, Any] = {"__name__": "__main__"}
        exec(text.partition("```python\n")[2].partition("```")[0], made)
        server.script(say("one"), stall())
        session: dict[str, str] = {}

        def ask(id_: str | None = None) -> Any:
            headers = {} if id_ is None else {"Last-Event-ID": id_}
            request = RequestFactory().get("/stream", {"prompt": "Why"}, headers=headers)
            request.session = session  # type: ignore[assignment]
            return made["stream"](request)

        def stop(whose: dict[str, str]) -> None:
            request = RequestFactory().post("/stop", {"id": seen.id})
            request.session = whose  # type: ignore[assignment]
            assert made["stop"](request).status_code == 204

        first, decoder = ask(), SSEDecoder()
        chunks = iter(first)
        while not (events := decoder.feed(next(chunks))):
            pass
        seen = events[0]
        stop({"visitor": "another"})
        assert not server.requests[0].ended.is_set()
        again = ask(seen.id)
        stop(session)
        assert b'"code":"incomplete"' in again.getvalue()
        assert server.requests[0].ended.wait(5)
        first.close()
        assert len(server.requests) == 1

    def test_the_request_is_needed(self) -> None:
        """Without it nobody knows what the browser has."""
        with pytest.raises(ConfigurationError, match="request=request"):
            sse_response(lambda: _ANSWER, replay=MemoryReplay(), key="ann")

    def test_a_stream_without_the_request_is_closed(self, server: FakeServer) -> None:
        """A mistake of the view's leaves no stream open, though somebody still holds it."""
        server.script(stall())
        stream = stream_openai("Hi", base_url=server.base_url("openai"), api_key="any")
        until(lambda: server.requests)
        with pytest.raises(ConfigurationError, match="request=request"):
            sse_response(stream, replay=MemoryReplay(), key="visitor")
        assert server.requests[0].ended.wait(5)
        assert repr(stream).endswith("ended>")
