from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from llm_sse.completion import Completion
from llm_sse.errors import (
    APIError,
    AuthenticationError,
    ConnectionLost,
    InvalidRequestError,
    ProtocolError,
    RateLimitError,
    ServerError,
)
from llm_sse.events import Event, TextDelta, ToolCall
from llm_sse.providers import PROVIDERS
from llm_sse.providers.base import bearer_token, end_of_body, merge, normalised, then_raise
from llm_sse.providers.calls import ToolCallBuilder
from llm_sse.providers.lenient import lenient_convert, lenient_decode, plain_decode
from llm_sse.providers.refusals import decode_body, error_text, request_id, retry_after_s
from tests.providers.bodies import ask

ROW = PROVIDERS["openai"]
DATE = "Sun, 22 Nov 2026 12:00:00 GMT"


class Inner(Struct):
    text: str | None = None
    number: int = 7


class Outer(Struct):
    inner: Inner | None = None
    items: list[Inner] | None = None
    either: str | list[Any] | None = None
    anything: Any = None
    table: dict[str, Any] | None = None
    renamed: int | None = msgspec.field(default=None, name="re-named")


class TestLenientDecode:
    DECODER = msgspec.json.Decoder(Outer)

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ({}, Outer()),
            ({"other": 5}, Outer()),
            ({"inner": {"text": "a"}}, Outer(Inner("a"))),
            ({"inner": 5, "either": "x"}, Outer(either="x")),
            ({"inner": {"text": 5, "number": 8}}, Outer(Inner(None, 8))),
            ({"inner": {"text": "a", "number": None}}, Outer(Inner("a", 7))),
            ({"items": [{"text": "a"}, 5, {"text": 6}]}, Outer(items=[Inner("a"), Inner()])),
            ({"items": {"0": 1}, "anything": [1]}, Outer(anything=[1])),
            ({"either": 5, "table": {"x": 1}}, Outer(table={"x": 1})),
            ({"either": [5], "table": [1]}, Outer(either=[5])),
            ({"re-named": 3, "inner": 5}, Outer(renamed=3)),
            ({"re-named": "x", "table": "x"}, Outer()),
        ],
        ids=str,
    )
    def test_what_does_not_fit_takes_its_default(self, value: Any, expected: Outer) -> None:
        """Fields of a wrong type are left out, the others are read."""
        assert lenient_decode(json.dumps(value), Outer, self.DECODER) == expected

    @pytest.mark.parametrize("value", [5, "x", [1], None, True])
    def test_what_is_no_object_is_returned_as_it_is(self, value: Any) -> None:
        """JSON that is no object comes back plain."""
        assert lenient_decode(json.dumps(value), Outer, self.DECODER) == value

    @pytest.mark.parametrize(
        "data",
        ["", "{", "x", '{"inner": 5, "items": [', "[" * 9000, '{"inner": 5, "x": ' + "[" * 9000],
    )
    def test_what_is_no_json_is_a_protocol_error(self, data: str) -> None:
        """Broken JSON is one error, wherever it breaks."""
        with pytest.raises(ProtocolError, match="not valid JSON in the stream"):
            lenient_decode(data, Outer, self.DECODER)

    def test_the_error_shows_only_the_beginning(self) -> None:
        """A large broken event does not fill the log."""
        with pytest.raises(ProtocolError) as caught:
            lenient_decode("{" + "x" * 5000, Outer, self.DECODER)
        assert len(str(caught.value)) < 400

    JSON = st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda children: (
            st.lists(children, max_size=3)
            | st.dictionaries(
                st.sampled_from(Outer.__struct_fields__ + Inner.__struct_fields__), children
            )
        ),
        max_leaves=8,
    )

    @given(JSON)
    @settings(deadline=None)
    def test_any_json_can_be_converted(self, value: Any) -> None:
        """No object makes the conversion fail."""
        converted = lenient_convert(value, Outer)
        assert isinstance(converted, Outer) if isinstance(value, dict) else converted is None


class TestErrorText:
    @pytest.mark.parametrize(
        ("error", "said"),
        [
            ({"error": {"message": "m", "type": "t", "param": None, "code": "c"}}, ("m", "c")),
            ({"error": {"message": "m", "type": "t", "code": None}}, ("m", "t")),
            ({"error": {"message": "m", "code": 502, "metadata": {}}}, ("m", "502")),
            ({"error": {"code": 400, "message": "m", "status": "S"}}, ("m", "S")),
            ({"error": {"code": 400, "message": "m", "type": "t", "n_ctx": 1}}, ("m", "t")),
            ({"error": {"code": "400", "message": "m", "type": "t"}}, ("m", "t")),
            ({"error": {"message": "m", "status": "S"}}, ("m", "S")),
            ({"error": "m"}, ("m", None)),
            ({"error": "m", "code": "c"}, ("m", "c")),
            ({"error": "m", "error_type": "t"}, ("m", "t")),
            ({"object": "error", "message": "m", "code": 1500}, ("m", "1500")),
            ({"detail": "m"}, ("m", None)),
            ({"detail": [{"msg": "m"}]}, ('[{"msg":"m"}]', None)),
            ({"message": "m", "request_id": "r"}, ("m", None)),
            ({"msg": "m"}, ("m", None)),
            ({"error_message": "m"}, ("m", None)),
            ({"message": {"detail": "m"}}, ('{"detail":"m"}', None)),
            ([{"error": {"message": "m"}}], ("m", None)),
            ([], ("", None)),
            ({}, ("{}", None)),
            ({"x": 1}, ('{"x":1}', None)),
            ("m", ("m", None)),
            (None, ("", None)),
            (5, ("", None)),
        ],
        ids=str,
    )
    def test_message_and_code_are_found(self, error: Any, said: tuple[str, str | None]) -> None:
        """Every shape that has been seen has a message, and a code where there is one."""
        assert error_text(error) == said

    def test_an_object_without_a_message_is_shown_in_part(self) -> None:
        """An unheard-of object is its own message, but not all of a long one."""
        assert len(error_text({"x": "y" * 5000})[0]) == 500


class TestDecodeBody:
    @pytest.mark.parametrize(
        ("body", "decoded"),
        [
            (b'{"a": 1}', {"a": 1}),
            (b'  [\n{"a": 1}\n]\n', [{"a": 1}]),
            (b'data: {"a": 1}\n\ndata: [DONE]\n\n', {"a": 1}),
            (b'\n\nevent: error\r\ndata:{"a": 1}', {"a": 1}),
            (b"data: not json\n\n", "data: not json"),
            (b" <html>x</html>\n", "<html>x</html>"),
            (b"", ""),
            (b'{"a": "\xff"}', '{"a": "\ufffd"}'),
            (b"\xff\xfe", "\ufffd\ufffd"),
            (b"[" * 9000, "[" * 2000),
        ],
        ids=lambda value: str(value)[:20],
    )
    def test_a_body_is_json_or_an_event_or_text(self, body: bytes, decoded: Any) -> None:
        """An error's body is decoded as what it turns out to be."""
        assert decode_body(body) == decoded

    @pytest.mark.parametrize(
        ("data", "decoded"), [('{"a": 1}', {"a": 1}), ("plain", "plain"), ("[" * 9000, "[" * 9000)]
    )
    def test_an_errors_data_is_json_or_text(self, data: str, decoded: Any) -> None:
        """What is said to be an error is never a protocol error."""
        assert plain_decode(data) == decoded


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("headers", "wait_s"),
        [
            ({}, None),
            ({"retry-after": ""}, None),
            ({"retry-after": "7"}, 7),
            ({"retry-after": "0.5"}, 0.5),
            ({"retry-after": "0"}, 0),
            ({"retry-after-ms": "250"}, 0.25),
            ({"llm_provider-retry-after": "3"}, 3),
            ({"retry-after": "1", "retry-after-ms": "0"}, 1),
            ({"retry-after": "1", "retry-after-ms": "2500"}, 2.5),
            ({"retry-after": "2", "llm_provider-retry-after": "30"}, 30),
            ({"retry-after": "Sun, 22 Nov 2026 12:00:30 GMT", "date": DATE}, 30),
            ({"retry-after": "Sun, 22 Nov 2026 13:00:05 +0100", "date": DATE}, 5),
            ({"retry-after": "Sun, 22 Nov 2026 11:00:00 GMT", "date": DATE}, None),
            ({"retry-after": "Sun, 22 Nov 2026 12:00:30 GMT"}, None),
            ({"retry-after": "Sun, 22 Nov 2026 12:00:30 -0000", "date": DATE}, None),
            ({"retry-after": "Sun, 22 Nov 99999 12:00:30 GMT", "date": DATE}, None),
            ({"retry-after": "soon", "date": DATE}, None),
            ({"retry-after": "soon", "retry-after-ms": "100"}, 0.1),
            ({"retry-after": "-1"}, None),
            ({"retry-after": "nan"}, None),
            ({"retry-after": "inf"}, None),
            ({"x-ratelimit-reset-requests": "1s"}, None),
        ],
        ids=str,
    )
    def test_the_longest_hint_wins(self, headers: dict[str, str], wait_s: float | None) -> None:
        """Seconds, milliseconds and dates are read; what cannot be read is no hint."""
        assert retry_after_s(headers) == wait_s

    @given(st.text(max_size=40), st.text(max_size=40))
    @settings(deadline=None)
    def test_any_header_can_be_read(self, value: str, date: str) -> None:
        """No header makes the reading fail."""
        wait_s = retry_after_s({"retry-after": value, "date": date})
        assert wait_s is None or wait_s >= 0


class TestApiError:
    @pytest.mark.parametrize(
        ("status", "cls", "retryable"),
        [
            (400, InvalidRequestError, False),
            (401, AuthenticationError, False),
            (402, InvalidRequestError, False),
            (403, AuthenticationError, False),
            (404, InvalidRequestError, False),
            (408, InvalidRequestError, True),
            (409, InvalidRequestError, True),
            (413, InvalidRequestError, False),
            (422, InvalidRequestError, False),
            (429, RateLimitError, True),
            (500, ServerError, True),
            (502, ServerError, True),
            (503, ServerError, True),
            (529, ServerError, True),
            (302, APIError, False),
        ],
    )
    def test_the_status_decides(self, status: int, cls: type[APIError], retryable: bool) -> None:
        """Class and retryability follow from the status, for every provider alike."""
        for row in PROVIDERS.values():
            error = row.error(status, {}, b'{"error": {"message": "m"}}')
            assert type(error) is cls
            assert (error.retryable, error.status, error.provider) == (retryable, status, row.name)

    @pytest.mark.parametrize(
        ("wish", "retryable"), [("true", True), ("false", False), ("maybe", False)]
    )
    def test_the_server_may_say_whether_to_retry(self, wish: str, retryable: bool) -> None:
        """`x-should-retry` counts more than the status; an odd value does not count."""
        assert ROW.error(400, {"x-should-retry": wish}, b"").retryable is retryable

    def test_a_bad_key_names_the_variable(self) -> None:
        """The message says where the key comes from."""
        for row in PROVIDERS.values():
            message = str(row.error(401, {}, b'{"error": {"message": "m"}}'))
            assert message.endswith(f"(check {' or '.join(row.key_env)} or api_key=...)")

    def test_everything_said_is_kept(self) -> None:
        """Identifier, wait, code and body are attributes."""
        body = {"error": {"message": "m", "code": "c"}}
        headers = {"x-request-id": "r", "retry-after": "2"}
        error = ROW.error(429, headers, json.dumps(body).encode())
        assert (error.request_id, error.retry_after_s, error.code) == ("r", 2, "c")
        assert error.body == body


class TestHeaders:
    @pytest.mark.parametrize(
        ("headers", "id_"),
        [
            ({"x-request-id": "a", "cf-ray": "b"}, "a"),
            ({"request-id": "a"}, "a"),
            ({"apim-request-id": "a"}, "a"),
            ({"x-goog-request-id": "a"}, "a"),
            ({"cf-ray": "a"}, "a"),
            ({}, None),
        ],
    )
    def test_the_request_has_an_identifier(self, headers: dict[str, str], id_: str | None) -> None:
        """The provider's own header counts before the proxy's."""
        assert request_id(headers) == id_

    @pytest.mark.parametrize(
        ("value", "token"),
        [("Bearer x", "x"), ("bearer  x ", "x"), ("Bearer", ""), ("Basic x", ""), ("", "")],
    )
    def test_a_bearer_token_is_found(self, value: str, token: str) -> None:
        """Only a Bearer token is one."""
        assert bearer_token({"authorization": value}) == token
        assert bearer_token({}) == ""


class TestMerge:
    @pytest.mark.parametrize(
        ("extra", "merged"),
        [
            ({}, {"a": 1, "b": {"c": 2, "d": {"e": 3}}}),
            ({"a": 9}, {"a": 9, "b": {"c": 2, "d": {"e": 3}}}),
            ({"z": 9}, {"a": 1, "b": {"c": 2, "d": {"e": 3}}, "z": 9}),
            ({"b": {"d": {"f": 4}}}, {"a": 1, "b": {"c": 2, "d": {"e": 3, "f": 4}}}),
            ({"b": None}, {"a": 1, "b": None}),
            ({"b": [1]}, {"a": 1, "b": [1]}),
            ({"a": {"x": 1}}, {"a": {"x": 1}, "b": {"c": 2, "d": {"e": 3}}}),
        ],
        ids=str,
    )
    def test_objects_are_merged_and_the_rest_replaced(self, extra: Any, merged: Any) -> None:
        """The caller's values win, object by object."""
        inner = {"c": 2, "d": {"e": 3}}
        assert merge({"a": 1, "b": inner}, extra) == merged
        assert inner == {"c": 2, "d": {"e": 3}}


class TestToolCallBuilder:
    @pytest.mark.parametrize(
        ("pieces", "arguments", "error"),
        [
            ([], {}, None),
            ([" ", "\n"], {}, None),
            (['{"a"', ":1}"], {"a": 1}, None),
            (['{"a": 1}   '], {"a": 1}, None),
            (["{"], {}, "the arguments are not valid JSON"),
            (["[" * 9000], {}, "the arguments are not valid JSON"),
            (["null"], {}, "the arguments are not a JSON object"),
        ],
        ids=lambda value: str(value)[:20],
    )
    def test_the_pieces_become_arguments(
        self, pieces: list[str], arguments: Any, error: str | None
    ) -> None:
        """No text is no arguments; broken text is an error that keeps the text."""
        builder = ToolCallBuilder(0, "a", "f")
        builder.pieces += pieces
        call = builder.build()
        assert (call.arguments, call.arguments_text) == (arguments, "".join(pieces))
        assert (call.error or "").startswith(error or "")
        assert (call.error is None) == (error is None)


class TestResume:
    def test_a_cut_answer_travels_in_a_user_turn(self, provider: str) -> None:
        """The partial answer is shown to the model, and the conversation ends with the user."""
        chat = ask(system="S")
        again = PROVIDERS[provider].resume(chat, Completion(text="Half an"))
        assert again is not None
        assert again.messages[:-1] == chat.messages
        assert again.messages[-1].role == "user"
        assert "<partial_answer>Half an</partial_answer>" in str(again.messages[-1].content)
        assert again.system == "S"

    def test_nothing_said_is_asked_again(self, provider: str) -> None:
        """An answer without visible text begins anew."""
        chat = ask()
        assert PROVIDERS[provider].resume(chat, Completion(reasoning="Hm")) is chat

    @pytest.mark.parametrize(
        "partial",
        [
            Completion(text="x", tool_calls=(ToolCall("a", "f", {}, "{}"),)),
            Completion(text="x", refusal="No"),
        ],
        ids=["call", "refusal"],
    )
    def test_some_answers_cannot_be_continued(self, provider: str, partial: Completion) -> None:
        """A call or a refusal that had begun has no rest to ask for."""
        assert PROVIDERS[provider].resume(ask(), partial) is None


class TestEnds:
    def test_events_come_before_the_error(self) -> None:
        """What came together with an error is delivered first."""
        events: list[Event] = []
        with pytest.raises(ConnectionLost) as caught:
            for event in then_raise([TextDelta("Hi")], end_of_body("openai")):
                events.append(event)  # noqa: PERF402
        assert events == [TextDelta("Hi")]
        assert caught.value.provider == "openai"
        assert caught.value.retryable

    @pytest.mark.parametrize(
        ("raw", "called", "reason"),
        [
            ("end", False, "stop"),
            ("end", True, "tool_calls"),
            ("cut", True, "length"),
            ("odd", True, "other"),
            (None, False, "other"),
        ],
    )
    def test_calls_beat_stop_only(self, raw: str | None, called: bool, reason: str) -> None:
        """Delivered calls change `stop` and nothing else."""
        table: Any = {"end": "stop", "cut": "length"}
        assert normalised(raw, table, called_tools=called) == reason
