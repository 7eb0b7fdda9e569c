from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_sse.errors import (
    APIError,
    ConfigurationError,
    ConnectionLost,
    InvalidRequestError,
    ProtocolError,
    RateLimitError,
    ServerError,
)
from llm_sse.events import (
    Event,
    FellBack,
    Finish,
    RefusalDelta,
    Resumed,
    StreamStart,
    TextDelta,
    ToolCall,
    ToolResult,
    Unknown,
    Usage,
)
from llm_sse.providers import PROVIDERS, View
from llm_sse.sse import SSEDecoder
from llm_sse.web.formats import find_format
from llm_sse.web.problem import problem_of
from tests.providers.bodies import KEY, ask, sse
from tests.providers.test_round_trip import openai_answers

ROW = PROVIDERS["sse-view"]
ID = "0123456789abcdef" * 2
URL = "https://host/ask"


def _decoded(body: bytes, decoder: Any = None) -> list[Event]:
    decoder = decoder or ROW.decoder()
    events: list[Event] = []
    for one in SSEDecoder().feed(body):
        events += decoder.decode(one)
    return [*events, *decoder.end()]


def _written(format: str, events: Iterable[Event]) -> bytes:
    writer = find_format(format)
    return writer.greeting + b"".join(map(writer.encode, events)) + writer.end()


class TestRequest:
    def test_the_prompt_is_all_that_a_view_gets(self) -> None:
        """A plain question is one field, and goes to the address itself, with the key if any."""
        request = ROW.request(ask(model="default"), KEY, URL)
        assert (request.method, request.url) == ("POST", URL)
        assert msgspec.json.decode(request.body) == {"prompt": "Hi"}
        assert request.credentials == {"Authorization": f"Bearer {KEY}"}

    def test_what_else_is_asked_stands_beside_it(self) -> None:
        """Nothing that was asked is dropped."""
        chat = ask(
            messages=[{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}],
            prompt="Hi",
            system="S",
            max_tokens=5,
            temperature=0.5,
            top_p=0.1,
            stop="x",
            extra_body={"turn": 7},
        )
        assert msgspec.json.decode(ROW.request(chat, "", URL).body) == {
            "prompt": "Hi",
            "messages": [
                {"role": "user", "content": "A"},
                {"role": "assistant", "content": "B"},
                {"role": "user", "content": "Hi"},
            ],
            "model": "m",
            "system": "S",
            "max_tokens": 5,
            "temperature": 0.5,
            "top_p": 0.1,
            "stop": ["x"],
            "turn": 7,
        }

    def test_a_question_can_go_as_a_query_or_a_form(self) -> None:
        """What `EventSource` asks, and what an HTML form sends."""
        chat = ask(prompt="a&b ü", model="default", extra_body={"turn": 7})
        query = View("v", send_as="query").request(chat, "", URL)
        assert (query.method, query.body) == ("GET", b"")
        assert parse_qs(urlsplit(query.url).query) == {"prompt": ["a&b ü"], "turn": ["7"]}
        form = View("v", send_as="form", slash=True).request(chat, "", URL)
        assert (form.method, form.url) == ("POST", f"{URL}/")
        assert parse_qs(form.body.decode()) == {"prompt": ["a&b ü"], "turn": ["7"]}

    @pytest.mark.parametrize(
        "asked",
        [
            {"tools": [{"name": "f"}]},
            {"tool_choice": "auto"},
            {"response_format": "json_object"},
            {"logprobs": 0},
        ],
        ids=lambda asked: next(iter(asked)),
    )
    def test_what_the_site_decides_is_refused(self, asked: dict[str, Any]) -> None:
        """A view has no word for tools and forms."""
        with pytest.raises(ConfigurationError, match=f"takes no {next(iter(asked))}="):
            ROW.request(ask(**asked), "", URL)

    def test_a_form_holds_plain_values(self) -> None:
        """A conversation cannot go as a form."""
        with pytest.raises(ConfigurationError, match="messages cannot go as a form"):
            View("v", send_as="form").request(
                ask(messages=[{"role": "assistant", "content": "B"}], prompt="Hi"), "", URL
            )

    @pytest.mark.parametrize("fields", [{"send_as": "xml"}, {"slash": "yes"}])
    def test_a_row_is_checked(self, fields: dict[str, Any]) -> None:
        """A field that cannot be is refused."""
        with pytest.raises(ConfigurationError, match=next(iter(fields))):
            View("v", **fields)


class TestDecoder:
    @given(openai_answers())
    def test_events_come_back_as_they_were(self, events: list[Event]) -> None:
        """The format `events` tells an answer whole; the fake's encoder does the same."""
        events[:] = [event for event in events if not isinstance(event, Unknown)]
        encoder = ROW.encoder(model="m")
        assert _decoded(_written("events", events)) == events
        assert _decoded(b"".join(map(encoder.encode, events))) == events

    @given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
    def test_tokens_come_back_as_they_were(self, texts: list[str]) -> None:
        """The format `tokens` tells the text, to the letter."""
        body = _written("tokens", [StreamStart("m"), *map(TextDelta, texts), Finish("stop")])
        finish = Finish("stop", "[DONE]")
        assert _decoded(body) == [StreamStart(), *map(TextDelta, texts), finish]

    @pytest.mark.parametrize("reason", ["length", "content_filter", "tool_calls", "other"])
    def test_tokens_that_were_cut_are_not_said_to_be_whole(self, reason: Any) -> None:
        """The format `tokens` tells an end that is not the model's own."""
        body = _written("tokens", [StreamStart("m"), TextDelta("cut"), Finish(reason, "theirs")])
        assert _decoded(body) == [StreamStart(), TextDelta("cut"), Finish(reason)]

    def test_a_refusal_is_what_the_model_says(self) -> None:
        """The format `tokens` has no word of its own for it, but its text."""
        body = _written("tokens", [StreamStart("m"), RefusalDelta("no"), Finish("stop")])
        assert _decoded(body)[1] == TextDelta("no")

    def test_rounds_of_tools_have_one_end(self) -> None:
        """The answers between are told; only the last one's end is the stream's."""
        call = ToolCall("c", "f", {}, "{}")
        first = [StreamStart("m"), call, Usage(1, 1), Finish("tool_calls")]
        last = [ToolResult("c", "f", "x"), StreamStart("m"), TextDelta("y"), Finish("stop")]
        events = _decoded(_written("events", [*first, *last]))
        told = {"type": "finish", "reason": "tool_calls", "raw_reason": None, "message": None}
        assert events == [*first[:-1], *last[:-1], Unknown("finish", told), Finish("stop")]

    def test_how_the_site_came_by_it_is_its_own_affair(self) -> None:
        """The site's own attempts are not taken for the client's."""
        body = _written("events", [FellBack("a", "b", "c"), Resumed(1, 2, "x"), Finish("stop")])
        kinds = [event.kind for event in _decoded(body) if isinstance(event, Unknown)]
        assert kinds == ["fell_back", "resumed"]

    @pytest.mark.parametrize("data", ["{}", "7", '{"token":7}', '{"text":1}'])
    def test_what_is_unheard_of_is_told(self, data: str) -> None:
        """It is JSON, so it does not end the stream."""
        events = _decoded(
            f"data: {data}\n\nevent: text_delta\ndata: {data}\n\ndata: [DONE]\n\n".encode()
        )
        assert [type(event) for event in events] == [StreamStart, Unknown, Unknown, Finish]

    def test_what_is_no_json_is_no_view(self) -> None:
        """The error is the protocol's."""
        with pytest.raises(ProtocolError):
            _decoded(b"data: hello\n\n")

    def test_an_end_is_needed(self) -> None:
        """Without its `[DONE]` a body was cut."""
        with pytest.raises(ConnectionLost):
            _decoded(b'data: {"token":"a"}\n\n')

    @pytest.mark.parametrize(
        "error",
        [
            RateLimitError("x", status=429, retry_after_s=3),
            ServerError("x", status=503),
            ConnectionLost("x"),
            ProtocolError("x"),
            KeyError("x"),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_an_error_event_is_raised(self, error: Exception) -> None:
        """It says what the view's problem document says."""
        problem = problem_of(error)
        for format_ in ("tokens", "events"):
            said = find_format(format_).error(problem)
            with pytest.raises(APIError, match=problem.detail) as caught:
                _decoded(said or b"")
            assert type(caught.value) is APIError.class_for(problem.status)
            assert caught.value.retryable == problem.retryable
            assert caught.value.retry_after_s == problem.retry_after_s
            assert caught.value.code == problem.code

    def test_a_problem_is_an_error(self) -> None:
        """So does the body of a status."""
        problem = problem_of(RateLimitError("x", status=429, retry_after_s=3))
        error = ROW.error(429, {"retry-after": "3"}, problem.body)
        assert type(error) is RateLimitError
        assert (error.retry_after_s, error.code, error.detail) == (
            3,
            "rate_limited",
            problem.detail,
        )

    @pytest.mark.parametrize("body", [b"", b"<h1>No</h1>", b"[]", b'{"detail":{"a":1}}', b"7"])
    def test_another_servers_refusal_is_an_error_too(self, body: bytes) -> None:
        """A site's own 404 need be no problem document; of a page its title is told."""
        assert type(ROW.error(404, {}, body)) is InvalidRequestError


class TestTakeUp:
    REQUEST = ROW.request(ask(model="default"), KEY, URL)

    def broken(self, *ids: str) -> Any:
        """Return the decoder of a body that broke after events with these ids."""
        decoder = ROW.decoder()
        for id_ in ids:
            list(decoder.decode(msgspec.structs.replace(sse({"token": "a"}), id=id_)))
        return decoder

    def test_the_same_is_asked_again_after_the_last_event(self) -> None:
        """The view gets its question, because it reads that first, and the id."""
        found = ROW.take_up(self.broken(f"{ID}-1", f"{ID}-2"), KEY, URL, self.REQUEST)
        assert found is not None
        request, decoder = found
        assert request.headers["Last-Event-ID"] == f"{ID}-2"
        assert (request.url, request.body) == (self.REQUEST.url, self.REQUEST.body)
        rest = f'id: {ID}-2\n: connected\n\nid: {ID}-3\ndata: {{"token":"b"}}\n\n'
        events = _decoded(f"{rest}id: {ID}-4\ndata: [DONE]\n\n".encode(), decoder)
        assert TextDelta("b") in events

    @pytest.mark.parametrize("ids", [(), ("1", "2"), ("x",)])
    def test_a_view_that_keeps_nothing_is_not_asked_again(self, ids: tuple[str, ...]) -> None:
        """Its numbers begin anew with every answer."""
        assert ROW.take_up(self.broken(*ids), KEY, URL, self.REQUEST) is None

    @pytest.mark.parametrize("id_", ["1", f"{ID[::-1]}-3", f"{ID}-2", f"{ID}-1"])
    def test_a_view_that_begins_anew_is_found_out(self, id_: str) -> None:
        """Another answer is not appended to the first one."""
        found = ROW.take_up(self.broken(f"{ID}-2"), KEY, URL, self.REQUEST)
        assert found is not None
        with pytest.raises(ProtocolError, match="did not go on"):
            _decoded(f'id: {id_}\ndata: {{"token":"a"}}\n\n'.encode(), found[1])

    def test_after_the_views_own_error_there_is_no_rest(self) -> None:
        """An error with an id is the stream's end; one without is that response's alone."""
        for id_, is_end in ((f"{ID}-2", True), (f"{ID}-1", False)):
            decoder = self.broken(f"{ID}-1")
            with pytest.raises(APIError):
                list(decoder.decode(msgspec.structs.replace(sse({}, "error"), id=id_)))
            assert (ROW.take_up(decoder, KEY, URL, self.REQUEST) is None) == is_end
