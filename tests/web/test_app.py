from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient

from llm_sse.errors import ConfigurationError
from llm_sse.sse import ServerSentEvent, SSEDecoder
from llm_sse.testing import (
    FakeServer,
    call_tool,
    cut,
    finish,
    hang,
    say,
    stall,
    status,
)
from llm_sse.web.answers import Answers
from llm_sse.web.app import Limits, Site, Target
from llm_sse.web.guard import Guard
from llm_sse.web.replay import MemoryReplay
from llm_sse.web.slots import Slots
from tests.helpers import until

_TOKEN = "a-token-of-a-good-length"
_KEY = "sk-secret-of-the-site"
_ASK = {"prompt": "Hi"}
_PAGES = {"Sec-Fetch-Site": "same-origin"}
_NAME = "0123456789abcdef" * 2
_CHAT: dict[str, Any] = {"model": "any", "messages": [{"role": "user", "content": "Hi"}]}

_LONG = "x" * 300
_DATA = "data:image/png;base64," + "iVBORw0KGgo=" * 100

Make = Callable[..., FlaskClient]


@pytest.fixture
def make(server: FakeServer) -> Make:
    """Make a site that asks the fake server, as two providers."""

    def run(**given: Any) -> FlaskClient:
        targets = [
            Target(
                name, model, {"provider": name, "base_url": server.base_url(name), "api_key": _KEY}
            )
            for name, model in (("openai", "gpt-any"), ("anthropic", "claude-any"))
        ]
        site = Site(targets, **given)
        site.app.extensions["site"] = site
        return site.app.test_client()

    return run


def _picture(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def _data(answer: Any) -> list[str]:
    """Return the data of all events of an answer."""
    return [event.data for event in SSEDecoder().feed(answer.data)]


@pytest.fixture
def client(make: Make) -> FlaskClient:
    """A site without a token."""
    return make()


@pytest.fixture
def running(server: FakeServer) -> Iterator[list[Any]]:
    """Responses that are still running; they are closed after the test."""
    responses: list[Any] = []
    yield responses
    for response in responses:
        response.close()
    until(lambda: all(request.ended.is_set() for request in server.requests))


class TestPage:
    def test_has_a_strict_policy(self, client: FlaskClient) -> None:
        """No script of others, no frame, no referrer, no guessing of types, no inline script."""
        answer = client.get("/")
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert "<script>" not in answer.text
        assert " style=" not in answer.text
        answer.close()

    def test_is_three_files(self, client: FlaskClient) -> None:
        """Nothing comes from elsewhere."""
        for path, kind in (("/style.css", "text/css"), ("/app.js", "text/javascript")):
            with client.get(path) as answer:
                assert answer.mimetype == kind
                assert "https://" not in answer.text
        with client.get("/") as page:
            assert "https://" not in page.text

    def test_tells_who_can_be_asked(self, client: FlaskClient) -> None:
        """Names and models; no key, no address."""
        answer = client.get("/api/providers")
        assert answer.get_json()["providers"] == [
            {"name": "openai", "model": "gpt-any"},
            {"name": "anthropic", "model": "claude-any"},
        ]
        assert answer.get_json()["fake"] is False
        assert _KEY not in answer.text

    def test_is_healthy(self, client: FlaskClient) -> None:
        """A supervisor is told so, and nothing else."""
        assert client.get("/healthz").get_json() == {"status": "ok"}


class TestStream:
    def test_answers_json(self, client: FlaskClient, server: FakeServer) -> None:
        """Provider, model and settings are the visitor's."""
        server.script(say("one two"))
        asked = {
            **_ASK,
            "provider": "anthropic",
            "model": "claude-other",
            "system": "Be brief.",
            "max_tokens": 7,
            "temperature": 0.5,
        }
        answer = client.post("/stream", json=asked)
        assert _data(answer) == ['{"token":"one"}', '{"token":" two"}', "[DONE]"]
        sent = server.requests[0].json
        assert (sent["model"], sent["max_tokens"], sent["temperature"]) == ("claude-other", 7, 0.5)
        assert server.requests[0].provider == "anthropic"
        assert "Be brief." in str(sent["system"])

    def test_answers_a_query(self, client: FlaskClient, server: FakeServer) -> None:
        """Numbers in a query are numbers; what is there twice is refused."""
        answer = client.get("/stream?prompt=Hi&prompt=Ho", headers=_PAGES)
        assert (answer.status_code, len(server.requests)) == (400, 0)
        assert "'prompt' is there 2 times" in answer.get_json()["detail"]
        server.script(say("one"))
        answer = client.get("/stream?prompt=Hi&max_tokens=7&format=text", headers=_PAGES)
        assert answer.text == "one"
        assert server.requests[0].json["model"] == "gpt-any"
        assert 7 in server.requests[0].json.values()

    def test_does_not_ask_a_second_time(self, client: FlaskClient, server: FakeServer) -> None:
        """`EventSource` asks again after an answer's end, and is told to stop; HEAD is none."""
        answer = client.get("/stream?prompt=Hi", headers=_PAGES)
        known = {**_PAGES, "Last-Event-ID": SSEDecoder().feed(answer.data)[-1].id}
        assert client.get("/stream?prompt=Hi", headers=known).status_code == 204
        assert client.head("/stream?prompt=Hi").status_code == 200
        assert len(server.requests) == 1
        for path in ("/stream?prompt=Hi", "/stream?prompt=Hi&format=text"):
            answer = client.get(path, headers={**_PAGES, "Last-Event-ID": "4"})
            assert (answer.status_code, answer.get_json()["code"]) == (410, "gone")
        assert len(server.requests) == 1

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            ({}, "missing required field `prompt`"),
            ({**_ASK, "promt": "x"}, "unknown field `promt`"),
            ({**_ASK, "max_tokens": "many"}, "Expected `int"),
            ({**_ASK, "provider": "gemini"}, "there are: openai, anthropic"),
            ({**_ASK, "format": "xml"}, "unknown format 'xml'"),
            ({**_ASK, "max_tokens": -1}, "max_tokens"),
            ({"prompt": "\ud800"}, ""),
        ],
    )
    def test_says_what_is_wrong_with_a_question(
        self, client: FlaskClient, server: FakeServer, body: Any, said: str
    ) -> None:
        """It is the visitor's fault, and nothing is asked."""
        answer = client.post("/stream", json=body)
        assert answer.status_code == 400
        assert said in answer.get_json()["detail"]
        assert answer.content_type == "application/problem+json"
        assert server.requests == []

    def test_takes_json_only(self, client: FlaskClient) -> None:
        """What any page may send without being asked is refused; so is what is no JSON."""
        for kind in ("text/plain", "application/x-www-form-urlencoded"):
            answer = client.post("/stream", data='{"prompt": "Hi"}', content_type=kind)
            assert answer.status_code == 415
        for data in ("{", b"\xff", "[" * 100_000):
            answer = client.post("/stream", data=data, content_type="application/json")
            assert answer.status_code == 400

    def test_a_refusal_of_the_providers_has_a_status(
        self, client: FlaskClient, server: FakeServer
    ) -> None:
        """The key is the site's affair."""
        server.script(status(401, f"the key {_KEY} is wrong"))
        answer = client.post("/stream", json=_ASK)
        assert (answer.status_code, answer.get_json()["code"]) == (502, "misconfigured")
        assert _KEY not in answer.text

    @pytest.mark.parametrize(
        ("model", "wrong", "said"),
        [
            ("any", {"api_key": None}, "no key for openai: set the environment variable"),
            ("any", {"api_key": f"{_KEY}\n"}, "the key in api_key cannot be sent"),
            ("any", {"base_url": f"http://user:{_KEY}@intern.corp/v1"}, "base_url must not hold"),
            ("any", {"base_url": "intern.corp/v1"}, "base_url must look like"),
            ("", {}, "model"),
        ],
    )
    def test_a_site_that_cannot_ask_says_so_to_its_log_alone(
        self,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
        model: str,
        wrong: dict[str, Any],
        said: str,
    ) -> None:
        """The visitor gets 502 and no reason; the key is nowhere."""
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        arguments = {"provider": "openai", "api_key": _KEY, **wrong}
        client = Site([Target("first", model, arguments)]).app.test_client()
        for path, question in (
            ("/stream", _ASK),
            ("/stream", {**_ASK, "format": "text"}),
            ("/v1/chat/completions", {**_CHAT, "model": "first"}),
        ):
            caplog.clear()
            answer = client.post(path, json=question)
            assert answer.status_code == 502
            assert '"code":"misconfigured"' in answer.text
            assert "openai" not in answer.text.lower()
            assert "corp" not in answer.text
            assert f"first cannot be asked: {said}" in caplog.text
            assert _KEY not in caplog.text + answer.text

    def test_paths_and_methods_that_are_not_there(self, client: FlaskClient) -> None:
        """They are problems like the others; HTTP's own headers are there."""
        assert client.get("/nowhere").get_json()["status"] == 404
        answer = client.put("/stream")
        assert answer.status_code == 405
        assert set(answer.headers["Allow"].split(", ")) >= {"GET", "POST"}
        assert client.get("/v1/nowhere").get_json()["error"]["code"] == "invalid_request"


class Reader:
    """One who reads an answer as it comes."""

    def __init__(self, answer: Any) -> None:
        self.status: int = answer.status_code
        self._chunks = answer.iter_encoded()
        self._decoder = SSEDecoder()
        self.close = answer.close
        self.events: list[ServerSentEvent] = []

    def read(self, data: str) -> str:
        """Read until an event with this in it has come; return its id."""
        while True:
            for event in self.events:
                if data in event.data:
                    return event.id
            self.events += self._decoder.feed(next(self._chunks))

    def rest(self) -> list[str]:
        """Read to the end; return the data of all events."""
        self.events += [event for chunk in self._chunks for event in self._decoder.feed(chunk)]
        return [event.data for event in self.events]


class TestReconnect:
    def test_who_comes_back_takes_no_second_place(
        self, make: Make, server: FakeServer, running: list[Any]
    ) -> None:
        """The answer has one place and one reader: the newest one; the other is told."""
        server.script(say("one two"), stall())
        client = make(limits=Limits(max_streams=1), grace_s=60, heartbeat_s=0.1)

        def ask(**headers: str) -> Reader:
            answer = client.post("/stream", json=_ASK, headers=headers, buffered=False)
            running.append(answer)
            return Reader(answer)

        first = ask()
        seen = first.read('{"token":"one"}')
        second = ask(**{"Last-Event-ID": seen})
        assert (second.status, second.read("two")) == (200, f"{seen[:-1]}2")
        assert '"code":"read_elsewhere"' in first.rest()[-1]
        assert [event.event for event in second.events] == ["message"]
        assert ask().status == 429
        first.close()
        assert ask().status == 429
        assert len(server.requests) == 1
        client.application.extensions["site"].slots.close(0)

    def test_an_answer_that_nobody_reads_ends(
        self, make: Make, server: FakeServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        """After `grace_s` the provider is left, and the place is free; who is late is told.

        It is no trouble of the site's: the log has no warning of it.
        """
        server.script(say("one"), stall())
        client = make(limits=Limits(max_streams=1), grace_s=0.2, heartbeat_s=0.1)
        first = Reader(client.post("/stream", json=_ASK, buffered=False))
        seen = first.read("one")
        first.close()
        until(server.requests[0].ended.is_set)
        until(lambda: not client.application.extensions["site"].slots.taken)
        late = client.post("/stream", json=_ASK, headers={"Last-Event-ID": seen})
        assert (late.status_code, len(_data(late))) == (200, 1)
        assert '"code":"incomplete"' in late.text
        assert not [record for record in caplog.records if record.levelname != "INFO"]

    def test_a_place_is_needed_to_be_told_again(
        self, make: Make, server: FakeServer, running: list[Any]
    ) -> None:
        """A reader of an answer that has ended keeps a thread busy like the others."""
        server.enqueue(say("one two"))
        server.script(stall())
        client = make(limits=Limits(max_streams=1), heartbeat_s=0.1, grace_s=0.1)
        whole = client.post("/stream", json=_ASK)
        seen = {"Last-Event-ID": SSEDecoder().feed(whole.data)[0].id}
        running.append(client.post("/stream", json=_ASK, buffered=False))
        assert client.post("/stream", json=_ASK, headers=seen).status_code == 429
        running[0].close()
        until(lambda: client.post("/stream", json=_ASK, headers=seen).status_code == 200)
        assert _data(client.post("/stream", json=_ASK, headers=seen)) == _data(whole)[1:]

    def test_a_name_is_asked_once(self, client: FlaskClient, server: FakeServer) -> None:
        """Who asks again under it joins; another question under it is another one."""
        named = {**_ASK, "name": _NAME}
        answers = [_data(client.post("/stream", json=named)) for _ in range(2)]
        assert answers[0] == answers[1]
        assert len(server.requests) == 1
        client.post("/stream", json={**named, "prompt": "Why?"})
        assert server.requests[1].json["messages"][-1]["content"] == "Why?"

    @pytest.mark.parametrize("name", ["", "1", "x" * 31, "x" * 129, "x" * 31 + " ", "\u00e9" * 32])
    def test_a_name_cannot_be_guessed(
        self, client: FlaskClient, server: FakeServer, name: str
    ) -> None:
        """One that others could hit upon would give them the answer."""
        answer = client.post("/stream", json={**_ASK, "name": name})
        assert answer.status_code == 400
        assert "chosen at random" in answer.get_json()["detail"]
        assert server.requests == []

    def test_needs_the_token_again(self, make: Make, server: FakeServer) -> None:
        """An id is no key of the site's."""
        client = make(guard=Guard(token=_TOKEN))
        known = {"Authorization": f"Bearer {_TOKEN}"}
        answer = client.post("/stream", json=_ASK, headers=known)
        seen = {"Last-Event-ID": SSEDecoder().feed(answer.data)[0].id}
        assert client.post("/stream", json=_ASK, headers=seen).status_code == 401
        assert client.post("/stop", json={"name": _NAME}).status_code == 401
        assert client.post("/stream", json=_ASK, headers={**known, **seen}).status_code == 200

    def test_another_store_serves_several_processes(self, make: Make, server: FakeServer) -> None:
        """What one site has begun another one tells, where they share the store."""
        store = MemoryReplay()
        one, two = make(replay=store), make(replay=store)
        whole = one.post("/stream", json=_ASK)
        seen = {"Last-Event-ID": SSEDecoder().feed(whole.data)[0].id}
        assert _data(two.post("/stream", json=_ASK, headers=seen)) == _data(whole)[1:]
        assert make().post("/stream", json=_ASK, headers=seen).status_code == 410
        assert len(server.requests) == 1


class TestStop:
    @pytest.mark.parametrize("format", ["events", "text"])
    def test_ends_the_answer_of_a_name(
        self, make: Make, server: FakeServer, running: list[Any], format: str
    ) -> None:
        """At once, whoever reads it; the others go on."""
        server.script(say("one"), stall())
        client = make(heartbeat_s=0.1, grace_s=60)
        for name in (_NAME, _NAME[::-1]):
            asked = {**_ASK, "name": name, "format": format}
            running.append(client.post("/stream", json=asked, buffered=False))
        assert client.post("/stop", json={"name": _NAME}).status_code == 204
        until(server.requests[0].ended.is_set)
        assert not server.requests[1].ended.is_set()
        client.application.extensions["site"].slots.close(0)

    @pytest.mark.parametrize("begun", [True, False])
    def test_it_is_not_worth_another_try(
        self, make: Make, server: FakeServer, running: list[Any], begun: bool
    ) -> None:
        """Whoever reads it is told that it was the site's wish, and a client leaves it there."""
        server.script(*([say("one")] if begun else []), stall() if begun else hang())
        client = make(heartbeat_s=0.1, grace_s=60)
        asked = {**_ASK, "name": _NAME}

        def ask() -> None:
            running.append(client.post("/stream", json=asked, buffered=False))

        asking = threading.Thread(target=ask)
        asking.start()
        until(lambda: server.requests and (running or not begun))
        assert client.post("/stop", json={"name": _NAME}).status_code == 204
        asking.join(20)
        told = running[0].get_data(as_text=True)
        assert '"status":503' in told
        assert '"code":"incomplete"' in told
        assert '"retryable":false' in told

    def test_tells_nothing_of_names(self, client: FlaskClient) -> None:
        """An unknown name is answered in the same way; what is none is refused."""
        assert client.post("/stop", json={"name": _NAME}).status_code == 204
        assert client.post("/stop", json={}).status_code == 400
        assert client.post("/stop", data="{}", content_type="text/plain").status_code == 415
        assert client.get("/stop").status_code == 405
        evil = {"Origin": "https://evil.example"}
        assert client.post("/stop", json={"name": _NAME}, headers=evil).status_code == 403


class TestLimits:
    def test_streams_of_a_client_and_of_all(
        self, make: Make, server: FakeServer, running: list[Any]
    ) -> None:
        """One too many gets a 429 that says when to ask again; an end makes room."""
        server.script(say("one"), stall())
        limits = Limits(max_streams=3, max_streams_per_client=2)
        client = make(limits=limits, heartbeat_s=0.1, grace_s=0.1)

        def ask(address: str) -> Any:
            answer = client.post(
                "/stream", json=_ASK, environ_base={"REMOTE_ADDR": address}, buffered=False
            )
            running.append(answer)
            return answer

        assert [ask("10.0.0.1").status_code for _ in range(3)] == [200, 200, 429]
        assert running[-1].headers["Retry-After"] == "5"
        assert running[-1].get_json()["code"] == "too_many_streams"
        assert [ask("10.0.0.2").status_code for _ in range(2)] == [200, 429]
        assert "running here" in running[-1].get_json()["detail"]
        running[0].close()
        until(lambda: ask("10.0.0.1").status_code == 200)
        assert ask("10.0.0.1").status_code == 429

    @pytest.mark.parametrize("end", [say("one"), status(401), cut()])
    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("/stream", _ASK),
            ("/v1/chat/completions", _CHAT),
            ("/v1/chat/completions", {**_CHAT, "stream": True}),
            ("/stream", {**_ASK, "max_tokens": -1}),
            ("/v1/chat/completions", {**_CHAT, "max_tokens": -1}),
        ],
    )
    def test_every_ending_gives_the_place_back(
        self, make: Make, server: FakeServer, end: Any, path: str, body: dict[str, Any]
    ) -> None:
        """Also an error's, and that of a question that cannot be asked."""
        client = make(limits=Limits(max_streams=1))
        server.enqueue(end)
        assert client.post(path, json=body).data
        with client.post("/stream", json=_ASK) as answer:
            assert answer.status_code != 429
        until(lambda: all(request.ended.is_set() for request in server.requests))

    def test_a_response_that_is_dropped_gives_its_place_back(
        self, make: Make, server: FakeServer
    ) -> None:
        """When other code fails after the view, nobody closes the response."""
        server.script(say("one"), stall())
        client = make(limits=Limits(max_streams=1), grace_s=0.1)
        app = client.application
        app.logger.disabled = True

        errors = [KeyError("mine")]

        @app.after_request
        def fail(response: Any) -> Any:
            if errors:
                raise errors.pop()
            return response

        assert client.post("/stream", json=_ASK).status_code == 500
        gc.collect()

        def answered() -> bool:
            with client.post("/stream", json=_ASK, buffered=False) as answer:
                return bool(answer.status_code == 200)

        until(answered)
        until(lambda: all(request.ended.is_set() for request in server.requests))

    def test_the_length_of_a_question(self, make: Make, server: FakeServer) -> None:
        """Characters count; a text that looks like data is a text."""
        client = make(limits=Limits(max_prompt_chars=20))
        assert client.post("/stream", json={"prompt": "x" * 21}).status_code == 413
        assert client.post("/stream", json={"prompt": "x" * 20}).status_code == 200
        assert client.post("/stream", json={"prompt": "data:" + "x" * 16}).status_code == 413

    @pytest.mark.parametrize(
        ("asked", "expected"),
        [
            ({}, 200),
            ({"messages": [{"role": "user", "content": "x" * 150}] * 2}, 413),
            ({"messages": [{"role": "user", "content": "data:" + _LONG}]}, 413),
            ({"messages": [{"role": "user", "content": [{"type": "text", "data": _LONG}]}]}, 413),
            ({"messages": [{"role": "user", "content": "Hi", _LONG: 1}]}, 413),
            ({"messages": [{"role": "user", "content": [_picture(_DATA)]}]}, 200),
            ({"messages": [{"role": "user", "content": [_picture(_LONG)]}]}, 413),
            ({"messages": [{"role": "user", "content": [{**_picture(_DATA), "x": _LONG}]}]}, 413),
            ({"messages": [{"role": "user", "content": [{"type": ["file"]}]}]}, 200),
            ({"tools": [{"type": "function", "function": {"description": _LONG}}]}, 413),
            ({"tools": [{"type": "function", "function": {"parameters": {_LONG: {}}}}]}, 413),
            ({"tools": [{"type": "function", "function": {"enum": [1.5] * 200}}]}, 413),
            ({"response_format": {"type": "json_schema", "json_schema": {"url": _LONG}}}, 413),
            ({"stop": _LONG}, 413),
            ({"tool_choice": _LONG}, 413),
            ({"model": _LONG}, 400),
        ],
    )
    def test_the_length_of_a_request_of_openais(
        self, make: Make, server: FakeServer, asked: dict[str, Any], expected: int
    ) -> None:
        """All that is written counts, wherever it stands; but not a picture's data."""
        client = make(limits=Limits(max_prompt_chars=200))
        answer = client.post("/v1/chat/completions", json={**_CHAT, **asked})
        assert (answer.status_code, len(server.requests)) == (expected, expected == 200)
        if "model" in asked:
            assert client.post("/stream", json={**_ASK, "model": _LONG}).status_code == 400

    def test_the_size_of_a_request(self, make: Make, server: FakeServer) -> None:
        """It is not read to its end."""
        client = make(limits=Limits(max_request_bytes=100))
        assert client.post("/stream", json={"prompt": "x" * 100}).status_code == 413
        assert server.requests == []

    def test_wrong_limits(self) -> None:
        """None of them can be nothing."""
        with pytest.raises(ConfigurationError, match="max_streams must be at least 1, not 0"):
            Limits(max_streams=0)
        with pytest.raises(ConfigurationError, match="at least one provider"):
            Site([])
        for wrong in ({"grace_s": 0}, {"heartbeat_s": None}, {"replay": {}}):
            with pytest.raises(ConfigurationError, match=next(iter(wrong))):
                Site([Target("a", "b", {})], **wrong)  # type: ignore[arg-type]


class TestGuarded:
    def test_needs_the_token(self, make: Make, server: FakeServer) -> None:
        """All but the page and its health; OpenAI's clients are told in their words."""
        client = make(guard=Guard(token=_TOKEN))
        for path in ("/", "/healthz", "/app.js"):
            with client.get(path) as shown:
                assert shown.status_code == 200
        answer = client.post("/stream", json=_ASK)
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert client.get("/stream?prompt=Hi").status_code == 401
        assert client.get("/api/providers").status_code == 401
        assert client.get("/v1/models").get_json()["error"]["code"] == "unauthorized"
        assert server.requests == []
        known = {"Authorization": f"Bearer {_TOKEN}"}
        assert client.post("/stream", json=_ASK, headers=known).status_code == 200
        assert client.get("/stream?prompt=Hi", headers=known).status_code == 200
        assert client.get(f"/stream?prompt=Hi&token={_TOKEN}").status_code == 401

    def test_refuses_hosts_and_origins(self, client: FlaskClient, server: FakeServer) -> None:
        """Another name is refused everywhere, another page where it could ask."""
        assert client.get("/", headers={"Host": "evil.example"}).status_code == 421
        evil = {"Origin": "https://evil.example"}
        answer = client.post("/stream", json=_ASK, headers=evil)
        assert answer.status_code == 403
        assert "Access-Control-Allow-Origin" not in answer.headers
        image = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "image"}
        assert client.get("/stream?prompt=Hi", headers=image).status_code == 403
        with client.get("/", headers={"Sec-Fetch-Site": "cross-site"}) as followed:
            assert followed.status_code == 200  # a link on another page
        assert client.options("/stream", headers=evil).status_code == 403
        assert server.requests == []

    @pytest.mark.parametrize("host", ["localhost", "10.1.2.3:8766", "0.0.0.0:8766"])
    @pytest.mark.parametrize("accept", ["image/avif,*/*", "text/event-stream"])
    def test_a_query_has_to_come_from_a_page_of_its_own(
        self, make: Make, server: FakeServer, host: str, accept: str
    ) -> None:
        """A picture in another page, and a script's `no-cors` request, name nobody."""
        client = make()
        answer = client.get("/stream?prompt=Hi", headers={"Host": host, "Accept": accept})
        assert answer.status_code == (421 if host.startswith("0.") else 403)
        assert server.requests == []
        mine = make(guard=Guard(origins=["https://mine.example"]))
        asked = {"Origin": "https://mine.example", "Accept": accept}
        assert mine.get("/stream?prompt=Hi", headers=asked).status_code == 200

    def test_an_origin_that_is_none_is_refused(self, make: Make) -> None:
        """Before the token is looked at, and without a word in the log."""
        client = make(guard=Guard(token=_TOKEN))
        for origin in ("http://[bad", "http://]", "\xff"):
            assert client.post("/stream", json=_ASK, headers={"Origin": origin}).status_code == 403

    def test_lets_named_origins_ask(self, make: Make) -> None:
        """A preflight needs no token, because browsers send none; caches keep them apart."""
        mine = {"Origin": "https://mine.example", "Sec-Fetch-Site": "cross-site"}
        client = make(guard=Guard(token=_TOKEN, origins=["https://mine.example"]))
        wanted = "authorization,content-type,x-stainless-os"  # OpenAI's client has such of its own
        asked = {**mine, "Access-Control-Request-Headers": wanted}
        answer = client.options("/stream", headers=asked)
        assert answer.status_code == 204
        assert answer.headers["Access-Control-Allow-Origin"] == "https://mine.example"
        assert answer.headers["Access-Control-Allow-Headers"] == wanted
        assert answer.headers["Vary"] == "Origin"
        answer = client.post("/stream", json=_ASK, headers=mine)
        assert answer.status_code == 401
        assert answer.headers["Access-Control-Allow-Origin"] == "https://mine.example"


class TestChatCompletions:
    def test_answers_whole(self, client: FlaskClient, server: FakeServer) -> None:
        """Whoever answers, it is OpenAI's object, with nothing of the other provider's in it."""
        server.script(say("one two"))
        answer = client.post(
            "/v1/chat/completions", json={**_CHAT, "model": "anthropic"}
        ).get_json()
        assert answer["choices"][0]["message"]["content"] == "one two"
        assert answer["choices"][0]["finish_reason"] == "stop"
        assert answer["usage"]["completion_tokens"] > 0
        assert "input_tokens" not in answer["usage"]
        assert server.requests[0].provider == "anthropic"
        assert server.requests[0].json["model"] == "claude-any"

    @pytest.mark.parametrize(
        ("model", "provider", "asked"),
        [
            ("gpt-x", "openai", "gpt-x"),
            ("openai", "openai", "gpt-any"),
            ("anthropic/claude-x", "anthropic", "claude-x"),
            ("meta/llama", "openai", "meta/llama"),
        ],
    )
    def test_the_model_says_who_is_asked(
        self, client: FlaskClient, server: FakeServer, model: str, provider: str, asked: str
    ) -> None:
        """The name before the slash is a provider's, where there is such a provider."""
        client.post("/v1/chat/completions", json={**_CHAT, "model": model})
        request = server.requests[0]
        assert (request.provider, request.json["model"]) == (provider, asked)

    def test_passes_on_what_it_knows_and_refuses_the_rest(
        self, client: FlaskClient, server: FakeServer
    ) -> None:
        """Nothing is dropped in silence."""
        server.script(call_tool("look", {"x": 1}), finish("tool_calls"))
        tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
        asked = {
            **_CHAT,
            "model": "anthropic",
            "tools": [tool],
            "tool_choice": {"type": "function", "function": {"name": "look"}},
            "max_completion_tokens": 9,
            "stop": ["x"],
            "n": 1,
        }
        answer = client.post("/v1/chat/completions", json=asked).get_json()
        assert answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "look"
        assert answer["choices"][0]["finish_reason"] == "tool_calls"
        assert server.requests[0].json["max_tokens"] == 9
        assert server.requests[0].json["tool_choice"] == {"type": "tool", "name": "look"}
        for wrong in ({"n": 2}, {"seed": 1}, {"stream_options": {"x": 1}}):
            answer = client.post("/v1/chat/completions", json={**_CHAT, **wrong})
            assert answer.status_code == 400
            assert answer.get_json()["error"]["message"]
        assert len(server.requests) == 1

    @pytest.mark.parametrize(
        ("asked", "expected"),
        [
            ({"seed": 1}, (400, "invalid_request_error")),
            ({"messages": [{"role": "user", "content": _LONG}]}, (413, "invalid_request_error")),
            ({"model": "slow"}, (429, "rate_limit_error")),
            ({"model": "wrong"}, (502, "server_error")),
        ],
    )
    def test_an_error_has_a_type(
        self, make: Make, server: FakeServer, asked: dict[str, Any], expected: tuple[int, str]
    ) -> None:
        """OpenAI's clients tell by it whose fault it was."""
        said = {"slow": status(429, headers={"x-should-retry": "false"}), "wrong": status(401)}
        server.script(lambda request: [said[request.json["model"]]])
        client = make(limits=Limits(max_prompt_chars=200))
        answer = client.post("/v1/chat/completions", json={**_CHAT, **asked})
        assert (answer.status_code, answer.get_json()["error"]["type"]) == expected

    def test_a_conversation_may_be_nested(self, client: FlaskClient, server: FakeServer) -> None:
        """However deep an argument goes, it is counted, or refused."""
        deep = '{"model": "any", "messages": [{"role": "user", "content": %s"x"%s}]}'
        for levels in (1, 500, 5000):
            data = deep % ("[" * levels, "]" * levels)
            answer = client.post("/v1/chat/completions", data=data, content_type="application/json")
            assert answer.status_code == 400
        assert server.requests == []

    def test_tells_the_usage_to_who_asks(self, client: FlaskClient, server: FakeServer) -> None:
        """In a chunk of its own, as OpenAI does."""
        server.script(say("one"))
        asked = {**_CHAT, "model": "anthropic", "stream": True}
        assert '"usage":{' not in client.post("/v1/chat/completions", json=asked).text
        asked["stream_options"] = {"include_usage": True}
        body = client.post("/v1/chat/completions", json=asked).text
        assert body.count('"usage":{"prompt_tokens":') == 1
        assert body.endswith("data: [DONE]\n\n")

    def test_lists_the_models(self, client: FlaskClient) -> None:
        """Each name can be asked for."""
        data = client.get("/v1/models").get_json()["data"]
        assert [row["id"] for row in data] == ["openai/gpt-any", "anthropic/claude-any"]


class TestSlots:
    def test_a_place_may_be_given_back_by_a_garbage_collection(self) -> None:
        """One that runs where the places are being looked at waits for nobody who waits for it."""
        entered = threading.Event()

        class Watched(Slots):
            def take(self, *given: Any) -> Any:
                entered.set()
                return super().take(*given)

        slots = Watched(2, 2)
        visit = Answers(MemoryReplay(), slots).visit("10.0.0.1")
        writer = visit.begin("a")
        assert writer is not None
        entered.clear()
        asking = threading.Thread(target=visit.begin, args=("b",), daemon=True)

        def collect() -> None:
            with slots.lock:
                asking.start()
                entered.wait(0.1)  # with two locks it would come here, with one of them
                writer.close()

        thread = threading.Thread(target=collect, daemon=True)
        thread.start()
        thread.join(5)
        asking.join(5)
        assert not thread.is_alive()
        assert slots.taken == 1

    def test_closing_ends_streams_and_takes_no_more(
        self, server: FakeServer, running: list[Any]
    ) -> None:
        """A reader sees an error; who asks then is told to come back."""
        server.script(say("one"), stall())
        target = Target("openai", "any", {"base_url": server.base_url("openai"), "api_key": "any"})
        site = Site([target])
        client = site.app.test_client()
        answer = client.post("/stream", json=_ASK, buffered=False)
        running.append(answer)
        chunks = iter(answer.response)
        assert b"connected" in next(chunks)
        assert b"one" in next(chunks)
        closing = threading.Thread(target=site.slots.close, args=(5.0,))
        closing.start()
        assert b"event: error" in next(chunks)
        refused = client.post("/stream", json=_ASK)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
        answer.close()
        closing.join(5)
        assert not closing.is_alive()
        assert site.slots.taken == 0
