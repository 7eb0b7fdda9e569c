from __future__ import annotations

import base64
import json
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_sse import RetryPolicy, Tool, complete_sync, stream_ollama
from llm_sse.chat import Message
from llm_sse.completion import Accumulator, Completion
from llm_sse.errors import (
    APIError,
    AuthenticationError,
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    InvalidRequestError,
    ProtocolError,
    RateLimitError,
    ServerError,
)
from llm_sse.events import (
    Citation,
    Finish,
    ReasoningDelta,
    RefusalDelta,
    StreamStart,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    Unknown,
    Usage,
)
from llm_sse.providers import PROVIDERS
from tests.providers.bodies import KEY, Decoded, ask, body_of, sse
from tests.wire import Body, Connection, WireServer, head, stream

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what the package does at import is its own affair
    import ollama

ROW = PROVIDERS["ollama"]
NDJSON = {"Content-Type": "application/x-ndjson"}
ONCE = RetryPolicy(max_retries=0)
COUNTS = {
    "total_duration": 182242375,
    "load_duration": 41295167,
    "prompt_eval_count": 26,
    "prompt_eval_duration": 24573166,
    "eval_count": 15,
    "eval_duration": 115959084,
}
PIXEL = base64.b64encode(b"\x89PNG\r\n").decode()
PICTURE: Any = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}


def line(content: str | None = None, **message: Any) -> dict[str, Any]:
    """Return a line that is not the last one."""
    if content is not None:
        message["content"] = content
    return {
        "model": "m",
        "created_at": "2026-01-01T00:00:00Z",
        "message": {"role": "assistant", **message},
        "done": False,
    }


def last(reason: str | None = "stop", **fields: Any) -> dict[str, Any]:
    """Return the last line; without a reason where it is `None`."""
    given = {} if reason is None else {"done_reason": reason}
    return {**line(""), "done": True, **given, **fields}


def call(name: Any = "f", arguments: Any = None, **fields: Any) -> dict[str, Any]:
    """Return a line with one whole call; `index` goes into its function."""
    function = {"name": name}
    if arguments is not None:
        function["arguments"] = arguments
    if "index" in fields:
        function["index"] = fields.pop("index")
    return line("", tool_calls=[{**fields, "function": function}])


def decode(*wire: Any) -> Decoded:
    """Decode lines and the end of the body."""
    return Decoded("ollama", *wire)


def calls(decoded: Decoded) -> list[tuple[str | None, str, Any]]:
    """Return identifier, name and arguments of each call."""
    return [(one.id, one.name, one.arguments) for one in decoded.completion.tool_calls]


def body(*lines: Any) -> bytes:
    """Return lines as they go over the wire."""
    return b"".join(json.dumps(one, ensure_ascii=False).encode() + b"\n" for one in lines)


def served(content: bytes, **options: Any) -> Body:
    """Return a response that sends a body in one piece."""
    return stream([content], headers=NDJSON, **options)


def whole(content: bytes, status: int = 200, **headers: str) -> Body:
    """Return a response that is no stream."""

    def respond(connection: Connection) -> None:
        given = {"Content-Type": "application/json; charset=utf-8", **headers}
        connection.send(head(status, given, framing=str(len(content))) + content)

    return respond


def question(server: WireServer, **arguments: Any) -> Any:
    """Ask whoever listens, once."""
    return stream_ollama("Hi", **{"base_url": server.url, "retry": ONCE, **arguments})


class TestText:
    @pytest.mark.parametrize(
        ("message", "events"),
        [
            ({"content": "Hi"}, [TextDelta("Hi")]),
            ({"content": ""}, []),
            ({"content": None}, []),
            ({}, []),
            ({"thinking": "Hm"}, [ReasoningDelta("Hm")]),
            ({"content": "", "thinking": "Hm"}, [ReasoningDelta("Hm")]),
            ({"content": "Hi", "thinking": "Hm"}, [ReasoningDelta("Hm"), TextDelta("Hi")]),
            ({"content": "Hi", "images": None, "tool_calls": None}, [TextDelta("Hi")]),
        ],
        ids=str,
    )
    def test_a_message_becomes_what_it_holds(self, message: Any, events: list[Any]) -> None:
        """Each field of a message that holds something becomes one event, thinking first."""
        assert decode(line(**message), last()).content == events

    def test_the_last_line_may_bring_text(self) -> None:
        """A line that ends the answer is read like every other one."""
        got = decode(line("a"), {**last(), "message": {"content": "b", "thinking": "c"}})
        assert got.events == [
            StreamStart("m"),
            TextDelta("a"),
            ReasoningDelta("c"),
            TextDelta("b"),
            Finish("stop", "stop"),
        ]

    def test_other_fields_leave_no_trace(self) -> None:
        """What carries nothing for the caller is dropped."""
        odd = {**line("Hi"), "logprobs": [{"token": "Hi"}], "remote_model": "x", "context": [1]}
        assert decode(odd, last()).content == [TextDelta("Hi")]


class TestStart:
    def test_the_first_line_names_the_model(self) -> None:
        """The stream starts once, with the model's name, and with no identifier."""
        got = decode(line(""), line("a"), last())
        assert got.events[:2] == [StreamStart("m", None), TextDelta("a")]

    @pytest.mark.parametrize("model", [None, "", 5])
    def test_a_missing_model_is_none(self, model: Any) -> None:
        """A model without a name has none."""
        assert decode({**line("a"), "model": model}, last()).events[0] == StreamStart(None)

    def test_an_error_starts_nothing(self) -> None:
        """A body that is only an error has no start."""
        assert decode({"error": "no"}).events == []


class TestWhatMayBeMissing:
    @pytest.mark.parametrize(
        "odd",
        [
            {"model": "m"},
            {"done": False},
            {"message": {}},
            {"model": "m", "message": None, "done": None},
            {"model": "m", "message": {"content": None, "tool_calls": []}},
            {"model": "m", "message": {"tool_calls": [{}]}},
            {"model": "m", "message": {"tool_calls": [{"function": None}]}},
            {"model": "m", "message": {"tool_calls": [{"function": {}}]}},
            {"model": "m", "error": None},
            {"model": "m", "error": ""},
            {"model": "m", "done_reason": ""},
        ],
        ids=str,
    )
    def test_nothing_said_is_nothing_told(self, odd: Any) -> None:
        """Whatever is missing, null or empty, the rest of the answer arrives."""
        got = decode(line("a"), odd, line("b"), last())
        assert got.content == [TextDelta("a"), TextDelta("b")]
        assert got.events[-1] == Finish("stop", "stop")

    @pytest.mark.parametrize(
        "odd",
        [
            {"model": ["m"], "done": False, "message": {"content": ""}},
            {"model": "m", "message": "text"},
            {"model": "m", "message": {"content": 5}},
            {"model": "m", "message": {"content": ["a"]}},
            {"model": "m", "message": {"thinking": {"text": "x"}}},
            {"model": "m", "message": {"tool_calls": "x"}},
            {"model": "m", "message": {"tool_calls": [5, None]}},
            {"model": "m", "message": {"tool_calls": [{"function": "f"}]}},
            {"model": "m", "message": {"tool_calls": [{"id": 5, "function": {"name": 5}}]}},
            {"model": "m", "done": "yes"},
            {"model": "m", "done": 1},
            {"model": "m", "done": False, "done_reason": 5},
        ],
        ids=str,
    )
    def test_a_field_of_a_wrong_type_does_not_kill_the_stream(self, odd: Any) -> None:
        """What cannot be understood is skipped; the rest of the answer arrives."""
        got = decode(line("a"), odd, line("b"), last())
        assert got.content == [TextDelta("a"), TextDelta("b")]
        assert got.events[-1] == Finish("stop", "stop")

    def test_what_stands_beside_a_wrong_type_is_read(self) -> None:
        """A line with wrong fields still delivers its other ones."""
        got = decode({**line("Hi", thinking=5), "model": 5}, last(eval_count="x"))
        assert got.completion.text == "Hi"
        assert got.completion.usage == Usage(raw={"eval_count": "x"})

    @pytest.mark.parametrize("value", [[], [1], {}, {"status": "pulling manifest"}])
    def test_what_is_no_line_of_an_answer_is_unknown(self, value: Any) -> None:
        """A value without any of the known fields is passed on as it is."""
        got = decode(line("a"), json.dumps(value), last())
        assert got.content == [TextDelta("a"), Unknown("message", value)]

    @pytest.mark.parametrize("data", ['{"model": 5, "message', "{nonsense}", "[1"])
    def test_what_is_not_json_is_a_protocol_error(self, data: str) -> None:
        """Broken JSON is reported with its beginning, also behind a field of a wrong type."""
        with pytest.raises(ProtocolError) as caught:
            ROW.decoder().decode(sse(data))
        assert repr(data) in str(caught.value)


class TestFinish:
    @pytest.mark.parametrize(
        ("word", "reason"),
        [
            ("stop", "stop"),
            ("length", "length"),
            ("load", "error"),
            ("unload", "error"),
            ("newly_invented", "other"),
        ],
    )
    def test_the_words_are_translated(self, word: str, reason: Any) -> None:
        """Each word for the end has one of ours, and stays readable as `raw_reason`."""
        assert decode(line("a"), last(word)).events[-1] == Finish(reason, word)

    @pytest.mark.parametrize("reason", [None, ""])
    def test_an_end_may_have_no_reason(self, reason: Any) -> None:
        """The oldest servers only say that it is the end: it counts, for an unknown reason."""
        got = decode(line("a"), last(reason))
        assert got.error is None
        assert got.events[-1] == Finish("other", None)

    @pytest.mark.parametrize(("word", "raw"), [("stop", "stop"), (None, None)])
    def test_calls_are_a_reason(self, word: str | None, raw: str | None) -> None:
        """An answer that calls tools ended for that, though Ollama says `stop`, or nothing."""
        assert decode(call(), last(word)).events[-1] == Finish("tool_calls", raw)

    def test_a_cut_answer_with_calls_stays_cut(self) -> None:
        """Calls do not make an answer complete that ran out of tokens."""
        assert decode(call(), last("length")).events[-1] == Finish("length", "length")

    def test_a_reason_may_be_the_last_word(self) -> None:
        """A `done_reason` without `done` ends the answer when the body ends, with its counts."""
        got = decode(line("a"), {**line(""), "done_reason": "stop", "eval_count": 3})
        assert got.error is None
        assert got.events[-2:] == [Usage(None, 3, raw={"eval_count": 3}), Finish("stop", "stop")]

    def test_a_reason_makes_the_answer_complete(self) -> None:
        """After a reason the body may end at any time; before it, it may not."""
        decoder = ROW.decoder()
        list(decoder.decode(sse(line("a"))))
        assert not decoder.complete
        list(decoder.decode(sse({**line(""), "done_reason": "stop"})))
        assert decoder.complete
        assert not decoder.done

    @pytest.mark.parametrize("wire", [[], [line("a")], [line("a"), call()]], ids=len)
    def test_a_body_without_an_end_was_cut(self, wire: list[Any]) -> None:
        """An answer without its last line is incomplete; what had arrived is delivered."""
        got = decode(*wire)
        assert isinstance(got.error, ConnectionLost)
        assert got.error.retryable
        assert got.raw_finish_reason is None
        assert not any(isinstance(event, Finish) for event in got.events)

    def test_nothing_after_the_end_counts(self) -> None:
        """What follows the last line is not part of the answer."""
        got = decode(line("a"), last(), line("b"), last("length"), {"error": "x"})
        assert got.events[1:] == [TextDelta("a"), Finish("stop", "stop")]

    def test_the_end_is_told_once(self) -> None:
        """After the end there is nothing left to tell."""
        decoder = ROW.decoder()
        list(decoder.decode(sse(last())))
        assert decoder.done
        assert list(decoder.end()) == []


class TestUsage:
    @pytest.mark.parametrize(
        ("counts", "usage"),
        [
            (COUNTS, Usage(26, 15, raw=COUNTS)),
            ({"eval_count": 15}, Usage(None, 15, raw={"eval_count": 15})),
            ({"prompt_eval_count": 0, "eval_count": 0}, Usage(0, 0, raw=...)),
            ({"total_duration": 7}, Usage(raw={"total_duration": 7})),
            ({"eval_count": None}, Usage(raw={"eval_count": None})),
            ({"new_kind_count": 3}, Usage(raw={"new_kind_count": 3})),
        ],
        ids=str,
    )
    def test_the_counts_and_durations_are_the_usage(self, counts: Any, usage: Usage) -> None:
        """The figures of the last line are normalised; all of them are in `raw`, and nothing else.

        A prompt that was cached has no `prompt_eval_count`.
        """
        expected = msgspec.structs.replace(usage, raw=counts)
        assert decode(line("a"), last(**counts)).content == [TextDelta("a"), expected]

    def test_no_counts_are_no_usage(self) -> None:
        """Where nothing is counted there is no usage."""
        assert decode(line("a"), last()).content == [TextDelta("a")]


class TestToolCalls:
    @pytest.mark.parametrize(
        ("wire", "expected"),
        [
            (call("f", {"x": 1}), ToolCall(None, "f", {"x": 1}, '{"x":1}')),
            (call("f", {"x": 1}, id="c1"), ToolCall("c1", "f", {"x": 1}, '{"x":1}')),
            (call("f", {"x": 1}, id=""), ToolCall(None, "f", {"x": 1}, '{"x":1}')),
            (call("f", {}), ToolCall(None, "f", {}, "{}")),
            (call("f"), ToolCall(None, "f", {}, "")),
            (call("f", {"big": 10**30}), ToolCall(None, "f", {"big": 10**30}, ...)),
            (call("f", '{"x": 1}'), ToolCall(None, "f", {"x": 1}, '{"x": 1}')),
            (call("f", '{"x"'), ToolCall(None, "f", {}, '{"x"', error=...)),
            (call("f", [1]), ToolCall(None, "f", {}, "[1]", error=...)),
            (call(None, {"x": 1}), ToolCall(None, "", {"x": 1}, '{"x":1}')),
        ],
        ids=str,
    )
    def test_a_call_arrives_whole(self, wire: Any, expected: ToolCall) -> None:
        """A call is told as one fragment and as the call; arguments are an object, or its text."""
        delta, got = decode(wire, last()).content
        assert isinstance(got, ToolCall)
        assert (got.id, got.name, got.arguments) == (
            expected.id,
            expected.name,
            expected.arguments,
        )
        assert expected.arguments_text in (..., got.arguments_text)
        assert (got.error is None) == (expected.error is None)
        assert delta == ToolCallDelta(0, got.id, got.name or None, got.arguments_text)

    @pytest.mark.parametrize("together", [True, False])
    @pytest.mark.parametrize("index", [{}, {"index": 0}])
    @pytest.mark.parametrize("id_", [{}, {"id": "same"}])
    def test_calls_are_never_merged(self, together: bool, index: Any, id_: Any) -> None:
        """Calls of one name, all with index 0 or none, stay apart and keep their order."""
        wire = [call("f", {"x": n}, **index, **id_) for n in range(3)]
        if together:
            everything = [one["message"]["tool_calls"][0] for one in wire]
            wire = [line("", tool_calls=everything)]
        got = decode(*wire, last())
        assert calls(got) == [(id_.get("id"), "f", {"x": n}) for n in range(3)]
        deltas = [event for event in got.events if isinstance(event, ToolCallDelta)]
        assert [delta.index for delta in deltas] == [0, 1, 2]

    def test_text_and_calls_in_one_line(self) -> None:
        """Text that stands beside a call comes before it."""
        both = call("f", {})
        both["message"].update(content="Hi", thinking="Hm")
        kinds = [type(event) for event in decode(both, last()).content]
        assert kinds == [ReasoningDelta, TextDelta, ToolCallDelta, ToolCall]


class TestErrorsInTheStream:
    @pytest.mark.parametrize(
        ("wire", "cls", "status", "message"),
        [
            ({"error": "model crashed"}, ServerError, 500, "model crashed"),
            ({"error": "slow down", "status": 429}, RateLimitError, 429, "slow down"),
            ({"StatusCode": 401, "error": "no"}, AuthenticationError, 401, "no"),
            ({"error": "no", "status": "429"}, ServerError, 500, "no"),
            ({"error": "no", "status": 200}, ServerError, 500, "no"),
            ({"error": {"message": "no", "code": 7}}, ServerError, 500, "no"),
            ({**line("b"), "error": "no"}, ServerError, 500, "no"),
            ([{"error": {"message": "no"}}], ServerError, 500, "no"),
        ],
        ids=str,
    )
    def test_an_error_line_is_raised(
        self, wire: Any, cls: type[APIError], status: int, message: str
    ) -> None:
        """An error line ends the answer, after what came before it or with it."""
        got = decode(line("a"), json.dumps(wire), line("c"))
        assert type(got.error) is cls
        assert isinstance(got.error, APIError)
        assert (got.error.status, got.error.detail) == (status, message)
        assert got.error.body == wire
        beside = "b" if isinstance(wire, dict) and "message" in wire else ""
        assert got.completion.text == "a" + beside

    def test_an_error_after_the_reason_is_still_raised(self) -> None:
        """A reason without `done` is not the end: an error may follow, and the counts are kept."""
        got = decode({**line("a"), "done_reason": "stop", "eval_count": 2}, {"error": "no"})
        assert isinstance(got.error, ServerError)
        assert got.events[-1] == Usage(None, 2, raw={"eval_count": 2})


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "cls"),
        [
            (400, InvalidRequestError),
            (401, AuthenticationError),
            (429, RateLimitError),
            (500, ServerError),
            (503, ServerError),
        ],
    )
    def test_the_status_makes_the_class(self, status: int, cls: type[APIError]) -> None:
        """An answer that says no is an error with the server's words."""
        error = ROW.error(status, {"x-request-id": "r"}, b'{"error": "not so"}')
        assert type(error) is cls
        assert (error.detail, error.request_id) == ("not so", "r")
        assert error.body == {"error": "not so"}
        assert str(error).startswith(f"ollama answered {status}: not so")

    @pytest.mark.parametrize(
        ("message", "pull"),
        [
            ("model 'nope:latest' not found", "nope:latest"),
            ('model "nope" not found, try pulling it first', "nope"),
            ("The model `nope` does not exist", "nope"),
            ("model not found", "..."),
        ],
    )
    def test_an_unknown_model_names_the_default_and_the_command(
        self, message: str, pull: str
    ) -> None:
        """The error says which model there is by default, and how to fetch one."""
        error = ROW.error(404, {}, json.dumps({"error": message}).encode())
        assert str(error) == (
            f"ollama answered 404: {message} (the default model is {ROW.model!r}, checked "
            f"{ROW.checked}; pass model=... or set OLLAMA_MODEL); `ollama pull {pull}` fetches "
            "a model"
        )

    def test_a_wrong_path_asks_for_the_address(self) -> None:
        """A 404 that is about no model is about the address."""
        error = ROW.error(404, {}, b"404 page not found")
        assert str(error) == "ollama answered 404: 404 page not found (is base_url right?)"

    def test_a_missing_thing_of_another_status_is_no_missing_model(self) -> None:
        """Only a 404 says that there is no such model."""
        error = ROW.error(500, {}, b'{"error": "model runner not found"}')
        assert "default model" not in str(error)

    @pytest.mark.parametrize("content", [b"", b"<html>", b"5", b"null", b"[]", b"\xff", b'{"a":1}'])
    def test_an_odd_body_is_still_an_error(self, content: bytes) -> None:
        """Whatever the body is, the status counts."""
        assert ROW.error(502, {}, content).status == 502


class TestBaseURL:
    @pytest.mark.parametrize(
        "host",
        [
            *("1.2.3.4", "1.2.3.4:56789", ":56789", "example.com", "example.com:56789"),
            *("http://1.2.3.4", "https://1.2.3.4", "http://1.2.3.4:5", "https://example.com:5"),
            *("example.com/", "example.com:5/", "https://example.com/", "example.com//"),
            *("example.com/path", "example.com:5/path/", "https://example.com:5/a/b/"),
            *("[::2]", "[::2]:5", "http://[::2]", "https://[::2]", "https://[::2]:5/path/"),
            *("[0001:002::1]", "localhost", "localhost:0", "Example.COM", "xn--bcher-kva.example"),
        ],
    )
    def test_a_host_is_read_as_ollamas_own_client_reads_it(self, host: str) -> None:
        """Each form that the official client takes leads to the same address."""
        reads = sys.modules[ollama.Client.__module__]._parse_host
        assert ROW.find_base_url({"OLLAMA_HOST": host}) == reads(host)

    @pytest.mark.parametrize(
        ("host", "url"),
        [
            ("0.0.0.0", "http://127.0.0.1:11434"),
            ("0.0.0.0:5", "http://127.0.0.1:5"),
            ("http://0.0.0.0", "http://127.0.0.1:80"),
            ("[::]:5", "http://[::1]:5"),
            ("::", "http://[::1]:11434"),
            ("::1", "http://[::1]:11434"),
            ("HTTPS://example.com", "https://example.com:443"),
            (' "example.com" ', "http://example.com:11434"),
        ],
    )
    def test_other_forms(self, host: str, url: str) -> None:
        """A listening address is reached locally; bare IPv6, quotes and capitals do no harm."""
        assert ROW.find_base_url({"OLLAMA_HOST": host}) == url

    @pytest.mark.parametrize("environ", [{}, {"OLLAMA_HOST": ""}, {"OLLAMA_HOST": "  "}])
    def test_without_a_host_it_is_the_rows(self, environ: dict[str, str]) -> None:
        """Where the variable says nothing the server is the local one."""
        assert ROW.find_base_url(environ) == ROW.base_url == "http://127.0.0.1:11434"

    @pytest.mark.parametrize(
        "host",
        [
            *("ftp://example.com", "localhost:99999", "localhost:x", "a b", "a\nb", "://", "[::1"),
            *("http://", "https:///path", "host?key=s3cret-value", "host#part", "\0"),
        ],
    )
    def test_a_wrong_host_names_the_variable(self, host: str) -> None:
        """What is no address is refused with the variable's name, and shows no secret."""
        with pytest.raises(ConfigurationError, match=r"^OLLAMA_HOST must look like") as caught:
            ROW.find_base_url({"OLLAMA_HOST": host})
        assert caught.value.provider == "ollama"
        assert "s3cret" not in str(caught.value)

    @pytest.mark.parametrize("host", ["me:s3cret@host", "https://me:s3cret@host:5/x", "s3cret@"])
    def test_a_password_is_refused_unseen(self, host: str) -> None:
        """Credentials in the address are neither sent nor shown."""
        with pytest.raises(ConfigurationError, match="without a user name or password") as caught:
            ROW.find_base_url({"OLLAMA_HOST": host})
        assert "s3cret" not in str(caught.value)

    def test_a_wrong_host_is_told_by_the_call(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The call itself raises, before anything is sent."""
        monkeypatch.setenv("OLLAMA_HOST", "localhost:x")
        with pytest.raises(ConfigurationError, match="OLLAMA_HOST"):
            stream_ollama("Hi")


class TestRequest:
    def test_the_least(self) -> None:
        """A question alone is a model, a message, and the word that it shall be streamed."""
        assert body_of("ollama") == {
            "model": "m",
            "messages": [{"role": "user", "content": "Hi"}],
            "stream": True,
        }

    @pytest.mark.parametrize(
        ("arguments", "fields"),
        [
            ({"stream": False}, {"stream": False}),
            ({"max_tokens": 9}, {"options": {"num_predict": 9}}),
            ({"temperature": 0}, {"options": {"temperature": 0}}),
            ({"top_p": 0.5}, {"options": {"top_p": 0.5}}),
            ({"stop": "x"}, {"options": {"stop": ["x"]}}),
            (
                {"max_tokens": 9, "extra_body": {"options": {"num_ctx": 4096, "num_predict": 5}}},
                {"options": {"num_predict": 5, "num_ctx": 4096}},
            ),
            (
                {"extra_body": {"think": False, "format": "json", "keep_alive": 0}},
                {"think": False, "format": "json", "keep_alive": 0},
            ),
            (
                {"tools": [Tool("f", "d", {"type": "object"})]},
                {
                    "tools": [
                        {
                            "type": "function",
                            "function": {
                                "name": "f",
                                "description": "d",
                                "parameters": {"type": "object"},
                            },
                        }
                    ]
                },
            ),
            ({"tools": [{"own": 1}], "tool_choice": "auto"}, {"tools": [{"own": 1}]}),
            ({"tools": [{"own": 1}], "tool_choice": "none"}, {}),
            ({"tool_choice": "none"}, {}),
        ],
        ids=str,
    )
    def test_each_argument_has_its_field(
        self, arguments: dict[str, Any], fields: dict[str, Any]
    ) -> None:
        """Each argument becomes the field that Ollama has for it; `extra_body` comes last."""
        assert body_of("ollama", **arguments) == {**body_of("ollama"), **fields}

    @pytest.mark.parametrize("choice", ["required", "f", {"type": "function"}])
    def test_a_tool_choice_is_refused(self, choice: Any) -> None:
        """Ollama cannot be told to call a tool, and is not asked in vain."""
        with pytest.raises(ConfigurationError, match="ollama has no tool_choice"):
            body_of("ollama", tools=[Tool("f")], tool_choice=choice)

    def test_a_tool_loop_is_translated(self) -> None:
        """Arguments go as objects, and a result names the tool whose call it answers."""
        messages = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "c1",
                        "type": "function",
                        "function": {"name": "f", "arguments": '{"x": 1}'},
                    },
                    {"type": "function", "function": {"name": "g", "arguments": ""}},
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
            {"role": "tool", "name": "g", "content": [{"type": "text", "text": "warm"}]},
            {"role": "tool", "tool_call_id": "lost", "content": "?"},
            {"role": "assistant", "content": "Sunny."},
        ]
        assert body_of("ollama", messages=messages, prompt="Sure?")["messages"] == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {"id": "c1", "function": {"name": "f", "arguments": {"x": 1}}},
                    {"function": {"name": "g", "arguments": {}}},
                ],
            },
            {"role": "tool", "content": "sunny", "tool_name": "f", "tool_call_id": "c1"},
            {"role": "tool", "content": "warm", "tool_name": "g"},
            {"role": "tool", "content": "?", "tool_call_id": "lost"},
            {"role": "assistant", "content": "Sunny."},
            {"role": "user", "content": "Sure?"},
        ]

    @pytest.mark.parametrize("start", ["data:image/png;base64,", "DATA:image/PNG;BASE64,"])
    @pytest.mark.parametrize("nested", [True, False])
    def test_texts_are_joined_and_images_stand_beside_them(self, start: str, nested: bool) -> None:
        """Text parts become one text, data: URLs the list of images in base64."""
        image = start + PIXEL
        url: Any = {"url": image, "detail": "auto"} if nested else image
        parts = [
            {"type": "text", "text": "What "},
            {"type": "image_url", "image_url": url},
            {"type": "text", "text": "is it?"},
        ]
        (message,) = body_of("ollama", messages=[{"role": "user", "content": parts}])["messages"]
        assert message == {"role": "user", "content": "What is it?", "images": [PIXEL]}

    @pytest.mark.parametrize(
        ("part", "said"),
        [
            ({"type": "image_url", "image_url": {"url": "https://x/y.png"}}, "pass a data: URL"),
            ({"type": "image_url", "image_url": {"url": "data:image/png,abc"}}, "must look like"),
            ({"type": "image_url", "image_url": {"url": 5}}, "needs image_url.url"),
            ({"type": "image_url"}, "must have an object"),
            ({"type": "image_url", "image_url": "data:image/png;base64,!!!!"}, "is not base64"),
            ({"type": "image_url", "image_url": "data:;base64,abcd"}, "has no media type"),
            ({**PICTURE, "cache_control": {}}, r"nothing beside an image: \['cache_control'\]"),
            (
                {"type": "image_url", "image_url": {**PICTURE["image_url"], "detail": "high"}},
                "picture's detail: 'high'",
            ),
            ({"type": "input_audio", "input_audio": {}}, "'input_audio'"),
            ({"type": "file", "file": {}}, "'file'"),
            ({"type": "text", "text": None}, "'text'"),
            ({"text": "x"}, "None"),
        ],
        ids=str,
    )
    def test_what_it_cannot_take_is_refused(self, part: Any, said: str) -> None:
        """A part that would be lost is an error that says what can be sent."""
        with pytest.raises(ConfigurationError, match=said):
            body_of("ollama", messages=[{"role": "user", "content": [part]}])

    def test_its_own_thinking_goes_back(self) -> None:
        """A turn's thinking stands beside its calls; that of another provider stays away."""
        thought = decode(
            line("", thinking="I must "), line("", thinking="call."), call("f"), last()
        )
        said = Accumulator("ollama")
        for event in thought.events:
            said.add(event)
        foreign = {"type": "reasoning.text", "text": "Hm", "format": "deepseek"}
        turns = [
            said.completion().message(),
            Message(role="assistant", reasoning_details=[foreign]),
        ]
        mine, other = body_of("ollama", messages=turns)["messages"]
        assert mine["thinking"] == "I must call."
        assert mine["tool_calls"]
        assert "thinking" not in other

    @pytest.mark.parametrize("role", ["user", "assistant"])
    def test_a_speakers_name_is_refused(self, role: str) -> None:
        """Only a tool has a name."""
        with pytest.raises(ConfigurationError, match="no name of a speaker"):
            body_of("ollama", messages=[{"role": role, "content": "x", "name": "Ann"}])

    def test_where_it_goes_and_how_the_key_travels(self) -> None:
        """The path is below the host's root; a key, where there is one, is a Bearer token."""
        request = ROW.request(ask(), KEY, "https://ollama.com")
        assert request.url == "https://ollama.com/api/chat"
        assert request.credentials == {"Authorization": f"Bearer {KEY}"}
        assert ROW.request(ask(), "", "https://host").credentials == {}

    def test_no_key_is_needed(self) -> None:
        """Nobody has to name a key; the cloud's variable counts where it is set."""
        assert ROW.key(None, {}) == ""
        assert ROW.key(None, {"OLLAMA_API_KEY": KEY}) == KEY

    def test_an_empty_key_is_none(self) -> None:
        """With an empty `api_key` the cloud's key stays away from another server."""
        key = ROW.key("", {"OLLAMA_API_KEY": KEY})
        assert ROW.request(ask(), key, "https://host").credentials == {}


def accepted(**changed: Any) -> Any:
    """Read a request with some fields changed."""
    asked = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **changed}
    return ROW.accept("/api/chat", {}, json.dumps(asked).encode())


class TestAccept:
    @pytest.mark.parametrize(
        ("changed", "streams"), [({}, True), ({"stream": True}, True), ({"stream": False}, False)]
    )
    def test_it_streams_unless_told_not_to(self, changed: Any, streams: bool) -> None:
        """Without a word about it a stream is meant, and no key is asked for."""
        got = accepted(**changed)
        assert (got.model, got.stream, got.usage, got.prompt) == ("m", streams, True, "Hi")

    def test_null_is_nothing(self) -> None:
        """A null says as little as a field that is not there."""
        assert accepted(stream=None, messages=None).stream
        assert accepted(messages=None).prompt == ""

    @pytest.mark.parametrize(
        ("messages", "prompt"),
        [
            ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "a"),
            ([{"role": "assistant", "content": "b"}], ""),
            ([5, {"role": "user", "content": 5}], ""),
        ],
    )
    def test_the_last_user_turn_is_the_prompt(self, messages: Any, prompt: str) -> None:
        """The prompt is the text of the last user turn."""
        assert accepted(messages=messages).prompt == prompt

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "missing request body"),
            (b" \n", "missing request body"),
            (b"{", "unexpected EOF"),
            (b"hello", "invalid character 'h' looking for beginning of value"),
            (b"\xff", "invalid character '\ufffd' looking for beginning of value"),
            (b"[]", "array into Go value of type api.ChatRequest"),
            (b"1.5", "number into Go value of type api.ChatRequest"),
            (b"null", "model is required"),
            (b"{}", "model is required"),
            (b'{"model": ""}', "model is required"),
            (
                b'{"model": 5}',
                "number into Go struct field ChatRequest.model of type string",
            ),
            (
                b'{"model": "m", "messages": "Hi"}',
                "string into Go struct field ChatRequest.messages of type []api.Message",
            ),
            (
                b'{"model": "m", "stream": {}}',
                "object into Go struct field ChatRequest.stream of type bool",
            ),
        ],
    )
    def test_a_wrong_body_is_refused_in_ollamas_words(self, content: bytes, message: str) -> None:
        """What the real server refuses is a 400 with what it says."""
        if " into Go " in message:
            message = f"json: cannot unmarshal {message}"
        with pytest.raises(InvalidRequestError) as caught:
            ROW.accept("/api/chat", {}, content)
        assert (caught.value.status, caught.value.detail) == (400, message)
        assert ROW.error_body(caught.value) == msgspec.json.encode({"error": message})


class TestEncoder:
    def test_an_answer_in_full(self) -> None:
        """An answer is written as Ollama writes it, line by line."""
        encoder = ROW.encoder(model="m")
        events = [
            StreamStart("m2"),
            ReasoningDelta("Hm"),
            TextDelta("Hi"),
            ToolCallDelta(0, "c", "f", '{"x": 1}'),
            ToolCall("c", "f", {"x": 1}, '{"x": 1}'),
            Usage(7, 5),
            Finish("tool_calls"),
        ]
        got = [json.loads(line) for line in b"".join(map(encoder.encode, events)).splitlines()]
        same = {"model": "m2", "created_at": "1970-01-01T00:00:00Z", "done": False}
        message = {"role": "assistant", "content": ""}
        function = {"name": "f", "arguments": {"x": 1}}
        end = {"done": True, "done_reason": "stop", "prompt_eval_count": 7, "eval_count": 5}
        assert got == [
            {**same, "message": message},
            {**same, "message": {**message, "thinking": "Hm"}},
            {**same, "message": {**message, "content": "Hi"}},
            {**same, "message": {**message, "tool_calls": [{"id": "c", "function": function}]}},
            {**same, "message": message, **end},
        ]

    @pytest.mark.parametrize(
        ("event", "events"),
        [
            (RefusalDelta("No."), [TextDelta("No.")]),
            (ReasoningDelta("Hm", "sig"), [ReasoningDelta("Hm")]),
            (ReasoningDelta("", "sig"), []),
            (ReasoningDelta(redacted="xyz"), []),
            (Citation("https://x"), []),
            (Usage(7, 5, 3, 2), [Usage(7, 5, raw={"prompt_eval_count": 7, "eval_count": 5})]),
            (
                Usage(7, 5, raw={"done": False, "model": "x", "tokens": 12}),
                [Usage(7, 5, raw={"prompt_eval_count": 7, "eval_count": 5})],
            ),
            (Usage(7, raw={"done": 0, "eval_count": 1}), [Usage(None, 1, raw={"eval_count": 1})]),
        ],
        ids=str,
    )
    def test_what_the_format_cannot_say(self, event: Any, events: list[Any]) -> None:
        """A refusal goes as text; what Ollama has no field for is left out, and breaks nothing."""
        encoder = ROW.encoder(model="m")
        body = b"".join(map(encoder.encode, [StreamStart("m"), event, Finish("stop")]))
        lines = [line.decode() for line in body.splitlines()]
        assert decode(*lines).content == events
        assert json.loads(lines[-1])["model"] == "m"
        assert json.loads(lines[-1])["done"] is True

    def test_an_error_is_a_line(self) -> None:
        """The status is said only where it is not the one that an error line stands for."""
        encoder = ROW.encoder(model="m")
        assert encoder.error(ROW.api_error(500, "crashed")) == b'{"error":"crashed"}\n'
        busy = encoder.error(ROW.api_error(503, "busy"))
        assert json.loads(busy) == {"error": "busy", "status": 503}


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_CALLS = st.lists(
    st.builds(
        lambda id_, name, arguments: ToolCall(
            id_, name, arguments, msgspec.json.encode(arguments).decode()
        ),
        st.none() | _TEXT.filter(bool),
        _TEXT.filter(bool),
        st.dictionaries(_TEXT, st.none() | st.integers() | _TEXT | st.lists(_TEXT), max_size=3),
    ),
    max_size=3,
).map(tuple)


@st.composite
def completions(draw: st.DrawFn) -> Completion:
    """Make an answer with all that Ollama can say."""
    called = draw(_CALLS)
    word, reason = draw(st.sampled_from([("stop", "stop"), ("length", "length"), ("odd", "other")]))
    counts = draw(
        st.none() | st.fixed_dictionaries({}, optional={n: st.integers() for n in COUNTS})
    )
    usage = None
    if counts:
        usage = Usage(counts.get("prompt_eval_count"), counts.get("eval_count"), raw=counts)
    return Completion(
        text=draw(_TEXT),
        reasoning=draw(_TEXT),
        tool_calls=called,
        usage=usage,
        finish_reason="tool_calls" if called and reason == "stop" else reason,
        raw_finish_reason=word,
        model=draw(_TEXT.filter(bool)),
        provider="ollama",
    )


class TestWholeAnswer:
    @settings(deadline=None)
    @given(completions(), st.integers(1, 50))
    def test_an_answer_that_is_written_is_read_again(
        self, completion: Completion, size: int
    ) -> None:
        """What `answer_body` writes, the frames and the decoder give back, however it is cut."""
        body = ROW.answer_body(completion)
        frames, decoder, said = ROW.frames(stream=False), ROW.decoder(), Accumulator("ollama")
        for at in range(0, len(body), size):
            assert frames.feed(body[at : at + size]) == []
        for one in frames.end():
            for event in decoder.decode(one):
                said.add(event)
        assert decoder.done
        assert said.completion() == completion

    def test_a_refusal_is_text(self) -> None:
        """Ollama has no refusals of its own."""
        body = json.loads(ROW.answer_body(Completion(refusal="No.")))
        assert body["message"]["content"] == "No."
        assert (body["done"], body["done_reason"]) == (True, "stop")

    def test_it_comes_over_the_wire(self) -> None:
        """`complete_sync` asks for no stream and gets everything at once."""
        answer = {**last(**COUNTS), "message": {"content": "Hi", "thinking": "Hm"}}
        with WireServer(whole(json.dumps(answer, indent=2).encode())) as server:
            got = complete_sync("Hi", provider="ollama", base_url=server.url, retry=ONCE)
            assert b'"stream":false' in server.requests[0]
        assert (got.text, got.reasoning, got.finish_reason) == ("Hi", "Hm", "stop")
        assert got.usage == Usage(26, 15, raw=COUNTS)

    @pytest.mark.parametrize("content", [b'{"error": "crashed"}', b'{"error":"crashed"}\n'])
    def test_an_error_is_an_error(self, content: bytes) -> None:
        """An error that comes with status 200 is raised."""
        with WireServer(whole(content)) as server, pytest.raises(ServerError, match="crashed"):
            complete_sync("Hi", provider="ollama", base_url=server.url, retry=ONCE)

    def test_an_answer_that_is_not_done_is_none(self) -> None:
        """Without `done` an answer is not whole."""
        content = json.dumps({"model": "m", "message": {"content": "Hi"}}).encode()
        with WireServer(whole(content)) as server, pytest.raises(ProtocolError) as caught:
            complete_sync("Hi", provider="ollama", base_url=server.url, retry=ONCE)
        assert caught.value.completion.text == "Hi"


ANSWER = body(line("Grüße, "), line("", thinking="Hm"), call("f", {"x": "é"}), last(**COUNTS))


class TestOverTheWire:
    @pytest.mark.parametrize("framing", ["chunked", "close", "length"])
    @pytest.mark.parametrize("size", [1, 7, 9999])
    @pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
    def test_an_answer_arrives_in_every_framing(
        self, framing: str, size: int, newline: bytes
    ) -> None:
        """However the body is framed and cut, the answer is the same."""
        content = ANSWER.replace(b"\n", newline)
        pieces = [content[at : at + size] for at in range(0, len(content), size)]
        with WireServer(stream(pieces, framing=framing, headers=NDJSON)) as server:
            got = question(server).completion
        assert (got.text, got.reasoning, got.finish_reason) == ("Grüße, ", "Hm", "tool_calls")
        assert [one.arguments for one in got.tool_calls] == [{"x": "é"}]
        assert got.usage == Usage(26, 15, raw=COUNTS)
        assert (got.model, got.provider, got.raw_finish_reason) == ("m", "ollama", "stop")

    def test_the_first_line_does_not_wait_for_the_second(self) -> None:
        """A token is there as soon as its line is, while the server is still silent."""
        tokens: Iterator[str]

        def respond(connection: Connection) -> None:
            connection.send(head(200, NDJSON, framing="chunked"))
            connection.chunk(body(line("one")))
            connection.wait_closed()

        with WireServer(respond) as server, question(server) as tokens:
            assert next(tokens) == "one"

    def test_the_last_line_needs_no_end(self) -> None:
        """The end of the body ends the last line, too."""
        with WireServer(served(ANSWER.rstrip(b"\n"))) as server:
            assert question(server).completion.finish_reason == "tool_calls"

    def test_a_reason_without_done_does_not_wait(self) -> None:
        """An answer whose last line lacks `done` ends with the body."""
        content = body(line("Hi"), {**line(""), "done_reason": "stop"})
        with WireServer(served(content)) as server:
            assert question(server).text() == "Hi"

    @pytest.mark.parametrize("framing", ["chunked", "close"])
    @pytest.mark.parametrize("at", [0, 1, 50, len(ANSWER) - 200, len(ANSWER) - 3])
    def test_a_cut_answer_is_lost(self, framing: str, at: int) -> None:
        """A body that stops before its last line is complete is a ConnectionLost."""
        with (
            WireServer(served(ANSWER[:at], framing=framing)) as server,
            pytest.raises(ConnectionLost),
        ):
            question(server).text()

    def test_an_error_in_mid_stream_keeps_what_had_arrived(self) -> None:
        """An error line after status 200 is raised, with the text before it."""
        content = body(line("Hi"), {"error": "an error was encountered"})
        with WireServer(served(content)) as server, pytest.raises(ServerError) as caught:
            question(server).text()
        assert caught.value.detail == "an error was encountered"
        assert caught.value.completion.text == "Hi"

    @pytest.mark.parametrize("indent", [None, 2])
    @pytest.mark.parametrize("kind", ["application/x-ndjson", "application/json"])
    def test_an_error_instead_of_a_stream(self, indent: int | None, kind: str) -> None:
        """An error with status 200 is found, also where it is indented over several lines."""
        content = json.dumps({"error": "no way"}, indent=indent).encode()
        response = stream([content], headers={"Content-Type": kind})
        with WireServer(response) as server, pytest.raises(ServerError, match="no way"):
            question(server).text()

    @pytest.mark.parametrize(
        ("kind", "content"),
        [
            ("text/html", b"<html>\n<p>Sign in</p>\n</html>"),
            ("text/event-stream", b'data: {"choices":[]}\n\ndata: [DONE]\n\n'),
            ("text/plain", b"Ollama is running"),
        ],
    )
    def test_what_is_no_answer_is_named(self, kind: str, content: bytes) -> None:
        """A body of another kind is told by its media type, with its beginning."""
        response = stream([content], headers={"Content-Type": kind})
        with WireServer(response) as server, pytest.raises(ProtocolError) as caught:
            question(server).text()
        assert f"the answer is {kind}, not application/x-ndjson" in str(caught.value)
        assert repr(content[:10].decode().split("\n")[0])[:-1] in str(caught.value)

    def test_a_line_that_is_no_json_is_an_error(self) -> None:
        """A broken line in the middle is not passed over."""
        content = body(line("a")) + b'{"message": {"content": "lost\n' + body(line("b"), last())
        with WireServer(served(content)) as server, pytest.raises(ProtocolError) as caught:
            question(server).text()
        assert caught.value.completion.text == "a"

    def test_a_missing_model_is_a_404(self) -> None:
        """The server's refusal names the model, the default, and what to do."""
        response = whole(b'{"error":"model \'nope\' not found"}', 404)
        with (
            WireServer(response) as server,
            pytest.raises(InvalidRequestError, match="`ollama pull nope` fetches a model"),
        ):
            question(server, model="nope").text()

    def test_without_a_key_none_is_sent(self) -> None:
        """The local server gets no Authorization; the cloud gets the variable's."""
        with WireServer(served(ANSWER)) as server:
            question(server).text()
            question(server, api_key="k" * 20).text()
        first, second = server.requests
        assert b"authorization" not in first.lower()
        assert b"authorization: bearer " + b"k" * 20 in second.lower()

    def test_the_host_is_taken_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """`OLLAMA_HOST`, as one writes it for Ollama itself, says where the server is."""
        with WireServer(served(ANSWER)) as server:
            monkeypatch.setenv("OLLAMA_HOST", server.url.removeprefix("http://127.0.0.1"))
            assert stream_ollama("Hi", retry=ONCE).text() == "Grüße, "
        assert server.requests[0].startswith(b"POST /api/chat ")
        assert json.loads(server.requests[0].partition(b"\r\n\r\n")[2])["model"] == ROW.model

    def test_a_server_that_is_not_there(self) -> None:
        """Where nobody listens the error asks for the address."""
        with WireServer(served(ANSWER)) as server:
            url = server.url
        with pytest.raises(ConnectError, match="is the address right"):
            stream_ollama("Hi", base_url=url, retry=ONCE).text()

    def test_the_connection_is_used_again(self) -> None:
        """After the last line the rest is read, and the next question needs no new connection."""
        with WireServer(served(ANSWER)) as server:
            for _ in range(3):
                question(server).text()
            assert server.connections == 1


def encoded(*events: Any) -> bytes:
    """Return what the encoder makes of events."""
    encoder = ROW.encoder(model="m")
    return b"".join(map(encoder.encode, events))


@pytest.mark.sdk
@pytest.mark.filterwarnings("default")
class TestOllamaPackage:
    """The official package reads what the encoder writes, as it reads the real server."""

    def _chat(self, response: Body, **arguments: Any) -> list[Any]:
        question = [{"role": "user", "content": "Hi"}]
        with WireServer(response) as server, ollama.Client(server.url) as client:
            if "stream" in arguments:
                return list(client.chat(model="m", messages=question, stream=True))
            return [client.chat(model="m", messages=question)]

    def test_it_reads_a_stream(self) -> None:
        """Text, reasoning, calls, counts and reason arrive."""
        content = encoded(
            StreamStart("m"),
            ReasoningDelta("Hm"),
            TextDelta("Grüße"),
            ToolCall("c", "f", {"x": [1, None]}, '{"x":[1,null]}'),
            ToolCall(None, "g", {}, "{}"),
            Usage(7, 5),
            Finish("tool_calls"),
        )
        parts = self._chat(served(content), stream=True)
        assert [part.model for part in parts] == ["m"] * 6
        assert "".join(part.message.content for part in parts) == "Grüße"
        assert "".join(part.message.thinking or "" for part in parts) == "Hm"
        called = [one for part in parts for one in part.message.tool_calls or []]
        assert [(one.function.name, one.function.arguments) for one in called] == [
            ("f", {"x": [1, None]}),
            ("g", {}),
        ]
        assert [part.done for part in parts] == [False] * 5 + [True]
        end = parts[-1]
        assert (end.done_reason, end.prompt_eval_count, end.eval_count) == ("stop", 7, 5)

    def test_it_reads_a_whole_answer(self) -> None:
        """An answer that is not streamed arrives at once."""
        completion = Completion(
            text="Hi",
            reasoning="Hm",
            tool_calls=(ToolCall("c", "f", {"x": 1}, '{"x":1}'),),
            usage=Usage(7, 5),
            finish_reason="length",
            model="m",
        )
        (got,) = self._chat(whole(ROW.answer_body(completion)))
        assert (got.message.content, got.message.thinking) == ("Hi", "Hm")
        assert got.message.tool_calls[0].function.arguments == {"x": 1}
        assert (got.done, got.done_reason, got.eval_count) == (True, "length", 5)

    def test_it_raises_an_error_line(self) -> None:
        """An error in mid-stream is one to the package, too."""
        content = encoded(StreamStart("m"), TextDelta("Hi"))
        content += ROW.encoder(model="m").error(ROW.api_error(503, "busy"))
        with pytest.raises(ollama.ResponseError, match="busy"):
            self._chat(served(content), stream=True)

    def test_it_raises_a_refusal(self) -> None:
        """A status with an error body is one to the package, too."""
        refusal = ROW.api_error(404, "model 'm' not found")
        with pytest.raises(ollama.ResponseError, match="model 'm' not found") as caught:
            self._chat(whole(ROW.error_body(refusal), 404))
        assert caught.value.status_code == 404

    def test_its_request_is_accepted(self) -> None:
        """What the package sends is what `accept` understands, streamed or not."""
        content = encoded(StreamStart("m"), Finish("stop"))
        answer = ROW.answer_body(Completion(text="x"))
        question = [{"role": "user", "content": "Hi you"}]
        with (
            WireServer(served(content), whole(answer)) as server,
            ollama.Client(server.url) as client,
        ):
            list(client.chat(model="m", messages=question, stream=True))
            client.chat(model="m", messages=question)
        got = [ROW.accept("/api/chat", {}, one.split(b"\r\n\r\n")[1]) for one in server.requests]
        assert [(one.model, one.stream, one.prompt) for one in got] == [
            ("m", True, "Hi you"),
            ("m", False, "Hi you"),
        ]
