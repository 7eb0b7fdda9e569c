from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import flask
import openai
import pytest
from flask.testing import FlaskClient

from benchmarks.web_processes import ServerProcess
from llm_sse import RetryPolicy, run_tools, stream_openai
from llm_sse.errors import ConfigurationError
from llm_sse.events import Event, Finish, TextDelta
from llm_sse.sse import SSEDecoder
from llm_sse.testing import FakeServer, call_tool, cut, hang, say, stall, status
from llm_sse.web.flask import sse_response
from llm_sse.web.replay import MemoryReplay
from tests.helpers import until

_ANSWER: list[Event] = [TextDelta("one"), Finish("stop")]


@pytest.fixture
def app() -> flask.Flask:
    """A site without a view."""
    return flask.Flask(__name__)


@pytest.fixture
def client(app: flask.Flask, server: FakeServer) -> FlaskClient:
    """A site whose view streams from the fake provider; the query goes to `sse_response`."""

    @app.get("/stream")
    def stream() -> flask.Response:
        how: dict[str, Any] = {
            name: value if name == "format" else float(value)
            for name, value in flask.request.args.items()
        }
        answer = stream_openai(
            "Hi",
            base_url=server.base_url("openai"),
            api_key="sk-secret",
            retry=RetryPolicy(max_retries=0),
        )
        return sse_response(answer, **how)

    return app.test_client()


class TestSSEResponse:
    def test_is_an_event_stream(self, client: FlaskClient, server: FakeServer) -> None:
        """The headers keep it from being cached, compressed and buffered; none is hop-by-hop."""
        server.script(say("one"))
        answer = client.get("/stream")
        assert answer.status_code == 200
        assert dict(answer.headers) == {
            "Content-Type": "text/event-stream; charset=utf-8",
            "Cache-Control": "no-cache, no-transform",
            "Content-Encoding": "identity",
            "X-Accel-Buffering": "no",
        }
        assert answer.text == (
            'id: 0\n: connected\nid: 1\ndata: {"token":"one"}\n\nid: 2\ndata: [DONE]\n\n'
        )

    @pytest.mark.parametrize(
        ("format", "content_type"),
        [("text", "text/plain; charset=utf-8"), ("openai", "text/event-stream; charset=utf-8")],
    )
    def test_the_format_is_an_argument(
        self, client: FlaskClient, format: str, content_type: str
    ) -> None:
        """Each format has its type."""
        assert client.get(f"/stream?format={format}").headers["Content-Type"] == content_type

    def test_the_formats_own_headers_go_along(self, client: FlaskClient) -> None:
        """What the AI SDK wants to see is there."""
        answer = client.get("/stream?format=ui-message")
        assert answer.headers["x-vercel-ai-ui-message-stream"] == "v1"

    @pytest.mark.parametrize(
        ("theirs", "ours"), [(429, 429), (500, 503), (529, 503), (401, 502), (404, 502), (400, 502)]
    )
    def test_what_fails_before_the_first_byte_has_a_status(
        self, client: FlaskClient, server: FakeServer, theirs: int, ours: int
    ) -> None:
        """The answer is a problem document that reveals nothing."""
        server.script(status(theirs, "gpt-secret", headers={"Retry-After": "2"}))
        answer = client.get("/stream")
        assert answer.status_code == ours
        assert answer.content_type == "application/problem+json"
        assert answer.get_json()["status"] == ours
        assert answer.headers.get("Retry-After") == ("2" if ours in (429, 503) else None)
        assert "secret" not in answer.text

    def test_a_provider_that_takes_its_time_is_not_waited_for(
        self, client: FlaskClient, server: FakeServer
    ) -> None:
        """After `status_wait_s` the response begins; what goes wrong later is its last event."""
        server.script(hang())
        answer = client.get("/stream?status_wait_s=0.01&heartbeat_s=0.05", buffered=False)
        assert answer.status_code == 200
        chunks = iter(answer.response)
        assert [next(chunks), next(chunks)] == [b"id: 0\n: connected\n", b": heartbeat\n"]
        until(lambda: server.requests)
        answer.close()
        assert server.requests[0].ended.wait(5)

    def test_a_later_error_is_the_last_event(self, client: FlaskClient, server: FakeServer) -> None:
        """The status is out by then."""
        server.script(say("one"), cut())
        answer = client.get("/stream")
        assert answer.status_code == 200
        assert answer.text.split("\n\n")[-2].startswith("event: error\nid: 2\ndata: {")

    def test_a_browser_that_comes_back_is_told_to_stop(
        self, client: FlaskClient, server: FakeServer
    ) -> None:
        """Without a store nothing is told again, and the question is not asked twice."""
        server.script(say("one"))
        last_id = client.get("/stream").text.rpartition("id: ")[2].partition("\n")[0]
        server.script(say("one"), stall())
        again = client.get("/stream", headers={"Last-Event-ID": last_id})
        assert (again.status_code, again.data) == (204, b"")
        assert all(request.ended.wait(5) for request in server.requests)

    @pytest.mark.parametrize("format", ["tokens", "events", "openai", "ui-message"])
    def test_a_browser_that_is_cut_off_before_the_first_event_is_told_so_too(
        self, client: FlaskClient, server: FakeServer, format: str
    ) -> None:
        """An `EventSource` has an id from the beginning, so that it does not ask again."""
        server.script(hang())
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
        query = {"status_wait_s": "0.01", "format": format}
        answer = client.get("/stream", query_string=query, headers=headers, buffered=False)
        decoder = SSEDecoder()
        assert decoder.feed(next(iter(answer.response))) == []
        answer.close()
        headers["Last-Event-ID"] = decoder.last_event_id
        assert client.get("/stream", query_string=query, headers=headers).status_code == 204

    @pytest.mark.parametrize("replay", [None, MemoryReplay()])
    def test_an_empty_id_is_none(self, app: flask.Flask, replay: MemoryReplay | None) -> None:
        """By the standard a browser without an id sends no header; who sends it empty has none."""
        kept: dict[str, Any] = {"replay": replay, "key": "ann"} if replay else {}
        app.add_url_rule("/stream", view_func=lambda: sse_response(lambda: _ANSWER, **kept))
        answer = app.test_client().get("/stream", headers={"Last-Event-ID": ""})
        assert answer.text.endswith("data: [DONE]\n\n")

    def test_a_question_in_a_function_is_not_even_asked(self, app: flask.Flask) -> None:
        """Who passes what asks, instead of an answer, pays for nothing."""
        asked: list[str] = []

        @app.get("/stream")
        def stream() -> flask.Response:
            return sse_response(lambda: asked.append("again"))  # type: ignore[arg-type, return-value]

        assert app.test_client().get("/stream", headers={"Last-Event-ID": "4"}).status_code == 204
        assert asked == []

    def test_a_head_is_answered_without_a_body(
        self, client: FlaskClient, server: FakeServer
    ) -> None:
        """Flask answers HEAD for every GET; the question is given up at once."""
        server.script(say("one"), stall())
        answer = client.head("/stream")
        assert answer.status_code == 200
        assert "Content-Length" not in answer.headers  # GET has none, either
        assert answer.headers["X-Accel-Buffering"] == "no"
        assert all(request.ended.wait(5) for request in server.requests)

    def test_a_head_has_the_status_of_a_get(self, app: flask.Flask) -> None:
        """For who comes back it depends on what is kept."""
        kept: Any = {"replay": MemoryReplay(), "key": "ann"}
        app.add_url_rule("/kept", "kept", lambda: sse_response(lambda: _ANSWER, **kept))
        app.add_url_rule("/once", "once", lambda: sse_response(lambda: _ANSWER))
        client = app.test_client()
        first, last = SSEDecoder().feed(client.get("/kept").data)
        for path, id_ in (("kept", first.id), ("kept", last.id), ("kept", "7"), ("once", "1")):
            headers = {"Last-Event-ID": id_}
            get, head = client.get(path, headers=headers), client.head(path, headers=headers)
            assert (head.status_code, head.data) == (get.status_code, b"")

    def test_a_response_that_is_dropped_closes_its_stream(
        self, app: flask.Flask, client: FlaskClient, server: FakeServer
    ) -> None:
        """When the site fails after the view, nobody closes the response."""
        server.script(say("one"), stall())
        app.logger.disabled = True  # pytest keeps the records, and with them the response

        @app.after_request
        def fail(response: flask.Response) -> flask.Response:
            raise KeyError("mine")

        assert client.get("/stream").status_code == 500
        gc.collect()
        assert server.requests[0].ended.wait(5)

    @pytest.mark.parametrize("replay", [None, MemoryReplay()])
    def test_what_fails_while_it_is_opened_has_a_status(
        self, app: flask.Flask, server: FakeServer, replay: MemoryReplay | None
    ) -> None:
        """The function may have asked somebody else before, and waited for the answer."""
        server.script(status(429, "gpt-secret", headers={"Retry-After": "2"}))
        kept: dict[str, Any] = {"replay": replay, "key": "ann"} if replay else {}
        how: Any = {"base_url": server.base_url("openai"), "api_key": "any"}

        def opens() -> Any:
            language = stream_openai("Which?", retry=RetryPolicy(max_retries=0), **how).text()
            return stream_openai(language, **how)

        app.add_url_rule("/stream", view_func=lambda: sse_response(opens, **kept))
        answer = app.test_client().get("/stream")
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "2")
        assert "secret" not in answer.text

    def test_wrong_arguments_are_refused(self, client: FlaskClient, app: flask.Flask) -> None:
        """The view fails, where the author sees it."""
        app.testing = True
        with pytest.raises(ConfigurationError, match="unknown format 'xml'"):
            client.get("/stream?format=xml")

    def test_runs_tools(self, app: flask.Flask, server: FakeServer) -> None:
        """A tool finds the request in whose answer it runs."""
        server.enqueue(call_tool("whoami"))

        def whoami() -> str:
            """Say who asks."""
            return flask.request.args["name"]

        @app.get("/tools")
        def tools() -> flask.Response:
            answer = run_tools(
                "Hi", tools=[whoami], base_url=server.base_url("openai"), api_key="any"
            )
            return sse_response(answer, format="events")

        body = app.test_client().get("/tools?name=Ann").text
        assert '"content":"Ann","error":null' in body
        assert body.endswith("data: [DONE]\n\n")


@pytest.fixture
def site(tmp_path: Any) -> Iterator[ServerProcess]:
    """A Flask site in a process of its own."""
    with (tmp_path / "log").open("wb") as log:
        process = ServerProcess(
            ("-m", "flask", "--app", "tests.web.app_flask", "run", "-p", "{port}"), log
        )
        process.wait()
        yield process
        process.end()
        process.join()


@pytest.mark.sdk
class TestOpenAIsOwnClient:
    @pytest.fixture
    def ask(self, site: ServerProcess, server: FakeServer) -> Callable[[], list[Any]]:
        """Ask the site with OpenAI's SDK, as if it were OpenAI."""

        def ask() -> list[Any]:
            url = f"http://127.0.0.1:{site.address[1]}"
            query = {"base_url": server.base_url("openai"), "format": "openai"}
            with openai.OpenAI(
                base_url=url, api_key="any", default_query=query, max_retries=0
            ) as sdk:
                messages: Any = [{"role": "user", "content": "Hi"}]
                with sdk.chat.completions.create(
                    model="any", messages=messages, stream=True
                ) as chunks:
                    return list(chunks)

        return ask

    def test_reads_the_view(self, ask: Callable[[], list[Any]], server: FakeServer) -> None:
        """Every chunk has a choice, and the answer is whole; errors are its own exceptions."""
        server.script(say("one two"))
        chunks = ask()
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "one two"
        assert chunks[-1].choices[0].finish_reason == "stop"
        server.script(say("one"), cut())
        with pytest.raises(openai.APIError, match="The model's answer broke off"):
            ask()
        server.script(status(429))
        with pytest.raises(openai.RateLimitError):
            ask()
        until(lambda: all(request.ended.is_set() for request in server.requests))
