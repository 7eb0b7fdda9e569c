from __future__ import annotations

import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
import requests

from llm_sse import (
    RetryPolicy,
    TokenStream,
    stream_anthropic,
    stream_gemini,
    stream_ollama,
    stream_openai,
    stream_sync,
)
from llm_sse.errors import (
    APIError,
    AuthenticationError,
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    InvalidRequestError,
    ProtocolError,
    StreamClosed,
    StreamError,
)
from llm_sse.events import Finish, StreamStart, TextDelta, ToolCall, Usage
from llm_sse.providers import PROVIDERS
from llm_sse.testing import FakeServer, call_tool, cut, fail, finish, pause, raw, say, status, think
from tests.helpers import FORMATS, locals_with, until
from tests.sync.bodies import producers
from tests.sync.conftest import Ask
from tests.wire import Connection, WireServer, head, stream


class TestTokenStream:
    def test_yields_the_deltas_as_the_provider_cut_them(self, server: FakeServer, ask: Ask) -> None:
        """A loop over the stream gets one string per text delta, and nothing else."""
        server.script(think("Hm."), say("one two three"), call_tool("f"))
        assert list(ask()) == ["one", " two", " three"]

    def test_events_tell_everything_in_order(self, server: FakeServer, ask: Ask) -> None:
        """The typed events begin with StreamStart and end with Usage and one Finish."""
        server.script(say("Hello."), call_tool("f", {"a": 1}, id="c1"))
        events = list(ask("two words", model="some-model").events())
        assert isinstance(events[0], StreamStart)
        assert events[0].model == "some-model"
        assert TextDelta("Hello.") in events
        assert ToolCall("c1", "f", {"a": 1}, '{"a":1}') in events
        assert isinstance(events[-2], Usage)
        assert events[-2].input_tokens == 2
        assert isinstance(events[-1], Finish)
        assert events[-1].reason == "tool_calls"

    def test_completion_waits_for_the_whole_answer(self, server: FakeServer, ask: Ask) -> None:
        """Without a loop, text() and completion read to the end."""
        server.script(think("Hm, well."), say("Hello there."), finish("length"))
        answer = ask()
        assert answer.text() == "Hello there."
        assert answer.completion.reasoning == "Hm, well."
        assert answer.completion.finish_reason == "length"
        assert answer.completion.provider == answer.provider

    def test_completion_inside_the_loop_is_what_has_arrived(self, openai: Ask) -> None:
        """Asked in mid-loop, the completion is partial and takes nothing away from the loop."""
        answer = openai()
        seen = ""
        for token in answer:
            seen += token
            assert answer.completion.text == seen
            assert answer.completion.finish_reason is None
        assert answer.completion.finish_reason == "stop"

    def test_leaving_the_loop_closes_the_connection(self, server: FakeServer, ask: Ask) -> None:
        """After a break the provider sees the connection close, though the stream is still held."""
        server.script(say("one two"), pause(3600))
        answer = ask()
        for _ in answer:
            break
        assert server.requests[0].ended.wait(5)
        assert server.requests[0].outcome == "disconnected"
        assert answer.completion.text == "one"
        assert answer.completion.finish_reason is None

    def test_an_exception_in_the_loop_closes_the_connection(
        self, server: FakeServer, openai: Ask
    ) -> None:
        """What goes wrong in the caller's own code frees the connection, too."""
        server.script(say("one two"), pause(3600))
        answer = openai()
        with pytest.raises(KeyError):
            for _ in answer:
                raise KeyError
        assert server.requests[0].ended.wait(5)

    def test_the_end_of_a_with_block_closes_the_connection(
        self, server: FakeServer, openai: Ask
    ) -> None:
        """A with block ends the stream however it is left."""
        server.script(say("one"), pause(3600))
        with openai() as answer:
            assert next(answer) == "one"
        assert server.requests[0].ended.wait(5)

    def test_dropping_the_stream_closes_the_connection(
        self, server: FakeServer, openai: Ask
    ) -> None:
        """A stream that nobody holds any more is gone, read or not."""
        server.script(say("one"), pause(3600))
        answer = openai()
        assert answer.wait_started(5)
        dropped = weakref.ref(answer)
        del answer
        gc.collect()
        assert dropped() is None
        assert server.requests[0].ended.wait(5)

    def test_next_does_not_close_the_stream(self, server: FakeServer, openai: Ask) -> None:
        """Single tokens can be taken by next(), and the loop goes on behind them."""
        server.script(say("one two three"))
        answer = openai()
        assert next(answer) == "one"
        assert next(answer) == " two"
        assert list(answer) == [" three"]

    def test_close_from_another_thread_just_ends_the_loop(
        self, server: FakeServer, ask: Ask
    ) -> None:
        """After close() the iteration stops, without an exception."""
        server.script(say("one"), pause(3600))
        answer = ask()
        got: list[str] = []
        closer = threading.Thread(target=lambda: (until(lambda: got), answer.close()))
        closer.start()
        for token in answer:
            got.append(token)  # noqa: PERF402
        closer.join()
        assert got == ["one"]
        assert answer.completion.finish_reason is None

    def test_close_before_the_headers_frees_the_thread(self, ask: Ask) -> None:
        """A provider that never answers cannot hold the thread of a stream that was closed."""
        with WireServer(Connection.wait_closed) as silent:
            answer = ask(base_url=silent.url)
            until(lambda: silent.requests)
            answer.close()
            until(lambda: not producers())

    def test_a_closed_stream_cannot_be_read(self, openai: Ask) -> None:
        """To begin reading after close() is a mistake, and says so."""
        answer = openai()
        answer.close()
        with pytest.raises(StreamClosed, match="closed"):
            list(answer)

    def test_a_stream_is_read_once(self, openai: Ask) -> None:
        """A second loop would be silently empty; it is refused instead."""
        answer = openai()
        list(answer)
        with pytest.raises(StreamClosed, match="read to its end"):
            list(answer)

    def test_a_stream_has_one_reader(self, openai: Ask) -> None:
        """A loop inside the loop over the same stream is refused."""
        answer = openai()
        with pytest.raises(StreamClosed, match="one reader"):
            for _ in answer:
                next(answer.events())

    def test_a_failed_stream_fails_again(self, server: FakeServer, openai: Ask) -> None:
        """Whoever reads a failed stream again gets its error again, never a partial answer."""
        server.script(say("one"), cut())
        answer = openai()
        with pytest.raises(ConnectionLost):
            answer.text()
        with pytest.raises(ConnectionLost):
            answer.text()
        with pytest.raises(ConnectionLost):
            list(answer)
        assert answer.completion.text == "one"

    def test_a_failed_stream_fails_again_after_next(self, server: FakeServer, openai: Ask) -> None:
        """A stream that broke under next() never looks like a finished one."""
        server.script(say("one"), cut())
        answer = openai()
        assert next(answer) == "one"
        for _ in range(2):
            with pytest.raises(ConnectionLost):
                next(answer)
        with pytest.raises(ConnectionLost):
            list(answer)
        with pytest.raises(ConnectionLost):
            answer.text()

    def test_a_garbage_collected_loop_needs_no_cycle_collector(
        self, server: FakeServer, openai: Ask
    ) -> None:
        """A stream whose tokens were taken by next() is freed by its last reference, too."""
        server.script(say("one two"), pause(3600))
        gc.collect()
        gc.disable()
        try:
            answer = openai()
            assert next(answer) == "one"
            del answer
            assert server.requests[0].ended.wait(5)
        finally:
            gc.enable()

    def test_a_failed_stream_is_collected(self, server: FakeServer, openai: Ask) -> None:
        """Nothing keeps a stream that has failed, once its error is gone."""
        server.script(say("one"), cut())
        failed: list[weakref.ref[object]] = []
        for _ in range(3):
            answer = openai()
            failed.append(weakref.ref(answer._reader))
            with pytest.raises(ConnectionLost):
                answer.text()
            del answer
        gc.collect()
        assert [reader() for reader in failed] == [None, None, None]

    def test_text_is_the_whole_answer_after_next(self, server: FakeServer, openai: Ask) -> None:
        """Deltas that next() took are part of text(), and so is what comes behind them."""
        server.script(say("one two three"))
        answer = openai()
        assert next(answer) == "one"
        assert answer.text() == "one two three"

    def test_text_is_never_a_part_of_the_answer(self, server: FakeServer, openai: Ask) -> None:
        """A stream that was closed, left, or is being read has no text(), only a completion."""
        closed = openai()
        closed.close()
        with pytest.raises(StreamClosed, match="closed before its end"):
            closed.text()
        left = openai()
        for _ in left:
            with pytest.raises(StreamClosed, match="being read"):
                left.text()
            break
        with pytest.raises(StreamClosed, match="closed before its end"):
            left.text()
        assert left.completion.text == "Server-sent"

    def test_a_loop_behind_next_closes_the_stream_too(
        self, server: FakeServer, openai: Ask
    ) -> None:
        """A break closes the stream, whatever took the first deltas."""
        server.script(say("one two"), pause(3600))
        answer = openai()
        assert next(answer) == "one"
        for _ in answer:
            break
        assert server.requests[0].ended.wait(5)

    def test_next_in_two_threads_is_refused(self, openai: Ask) -> None:
        """Two threads that take single deltas would each get some; one is told so."""
        with WireServer(Connection.wait_closed) as silent:
            answer = openai(base_url=silent.url)
            first = threading.Thread(target=lambda: next(answer, None))
            first.start()
            until(lambda: answer._reader.claimed)
            for read in (next, list, TokenStream.text):
                with pytest.raises(StreamClosed, match="two threads"):
                    read(answer)  # type: ignore[operator]
            answer.close()
            first.join()

    def test_a_signals_exception_is_not_the_streams(self, server: FakeServer, openai: Ask) -> None:
        """What a signal handler raises in the loop passes; it is not the stream's error."""
        server.script(pause(3600))
        answer = openai()
        assert answer.wait_started(5)

        def ring(*_: object) -> None:
            raise RuntimeError("the bell")

        previous = signal.signal(signal.SIGALRM, ring)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            with pytest.raises(RuntimeError, match="the bell"):
                next(answer)
        finally:
            signal.signal(signal.SIGALRM, previous)
        assert answer._reader.error is None
        assert server.requests[0].ended.wait(5)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
    def test_a_child_cannot_end_its_parents_stream(self, server: FakeServer, openai: Ask) -> None:
        """A fork that closes, drops and reads the parent's stream leaves the parent's alone."""
        server.script(say("one"), pause(0.3), say(" two"))
        answer = openai()
        assert next(answer) == "one"
        child = os.fork()
        if child == 0:
            code = 1
            try:
                next(answer)
            except StreamClosed:
                code = 0
            finally:
                answer.close()
                del answer
                gc.collect()
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        assert list(answer) == [" two"]

    def test_the_repr_shows_the_state_and_no_key(self, openai: Ask) -> None:
        """A stream's repr says what it is, and nothing secret."""
        answer = openai(api_key="sk-secret")
        assert repr(answer) == "<TokenStream provider='openai' open>"
        next(answer)
        assert "reading" in repr(answer)
        answer.close()
        assert "ended" in repr(answer)

    def test_metrics_are_there_at_any_time(self, server: FakeServer, openai: Ask) -> None:
        """The figures grow with the stream and stand still after its end."""
        server.script(say("one two"))
        answer = openai()
        assert answer.metrics.ttft_ms is None
        list(answer)
        assert answer.metrics.deltas == 2
        assert answer.metrics == answer.metrics

    def test_the_request_id_is_the_providers(self, openai: Ask) -> None:
        """The identifier for the provider's support is known once it has answered."""
        answer = openai()
        assert answer.wait_started(5)
        assert (answer.request_id or "").startswith("req_fake_")
        answer.close()

    def test_the_request_id_is_unknown_before_the_answer(self, openai: Ask) -> None:
        """Before the provider has answered there is no identifier."""
        with WireServer(Connection.wait_closed) as silent:
            answer = openai(base_url=silent.url)
            assert answer.request_id is None
            answer.close()


class TestBackPressure:
    @pytest.mark.parametrize("buffer_size", [1, 4])
    def test_a_consumer_that_sleeps_stops_the_sender(self, openai: Ask, buffer_size: int) -> None:
        """The server gets rid of what fits in the buffer and the kernel's, and no more."""
        piece = "x" * 1_000_000 + " "
        with FakeServer(piece * 60) as server:
            answer = openai(base_url=server.base_url("openai"), buffer_size=buffer_size)
            first = next(answer)
            recorded = server.requests[0]
            still = 0
            seen = -1
            while still < 25:  # the sender has not moved for a while
                still = still + 1 if recorded.deltas_sent == seen else 0
                seen = recorded.deltas_sent
                assert not recorded.ended.wait(0.01), "the whole answer was sent to a sleeper"
            assert recorded.deltas_sent < 40
            rest = list(answer)
        assert len(rest) == 60
        assert len(first) + sum(map(len, rest)) == 60 * 1_000_001


class TestErrors:
    @pytest.mark.parametrize("provider", [name for name in FORMATS if PROVIDERS[name].needs_key])
    def test_a_missing_key_names_the_variable(self, provider: str) -> None:
        """Without a key nothing is sent; the message says which variable to set."""
        with pytest.raises(ConfigurationError, match=r"_API_KEY.*api_key=") as caught:
            stream_sync("Hi", provider=provider)
        assert caught.value.provider == provider

    def test_a_key_from_the_environment_counts(
        self, server: FakeServer, provider: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The vendor's own variables are read, for the key, the server and the model."""
        vendor = provider.partition("-")[0].upper()
        monkeypatch.setenv(f"{vendor}_API_KEY", "from-env")
        monkeypatch.setenv(f"{vendor}_MODEL", "model-from-env")
        answer = stream_sync("Hi", provider=provider, base_url=server.base_url(provider))
        assert answer.completion.model == "model-from-env"
        assert "from-env" in str(server.requests[0].headers)

    def test_a_bad_key_says_where_to_look(self, server: FakeServer, ask: Ask) -> None:
        """A refused key is an AuthenticationError that names the variable and not the key."""
        server.script(status(401, "no such key"))
        with pytest.raises(AuthenticationError, match=r"no such key.*_API_KEY") as caught:
            ask(api_key="sk-wrong").text()
        assert "sk-wrong" not in str(caught.value)

    def test_a_key_that_the_provider_repeats_is_not_shown(
        self, server: FakeServer, ask: Ask
    ) -> None:
        """A provider that prints the key it refuses does not get it into the error."""
        message = "Incorrect key: sk-secret-key, or sk-secret-other"
        server.script(status(401, message, code="sk-secret-key"))
        with pytest.raises(AuthenticationError, match=r"Incorrect key: \*\*\*") as caught:
            ask(api_key="sk-secret-key", headers={"X-Token": "Token sk-secret-other"}).text()
        error = caught.value
        assert "sk-secret" not in f"{error!r} {error.detail} {error.body} {vars(error)}"

    def test_no_log_line_has_the_key(
        self, server: FakeServer, ask: Ask, caplog: pytest.LogCaptureFixture
    ) -> None:
        """At DEBUG, with all that the HTTP library says, the key is in no log line."""
        caplog.set_level(logging.DEBUG)
        server.enqueue(status(503))
        server.enqueue(say("one"), cut())
        with pytest.raises(ConnectionLost):
            ask(api_key="sk-secret-key", retry=RetryPolicy(backoff_s=0)).text()
        assert "POST" in caplog.text
        assert "sk-secret" not in caplog.text

    def test_a_key_that_was_cut_is_not_shown(self, server: FakeServer, openai: Ask) -> None:
        """Where a message shows the beginning of what came, it does not show that of the key."""
        key = "sk-proj-ABCDEFGHIJKLMNOPQRSTUVWXYZ"
        server.script(raw(b"data: {" + b"x" * 170 + key.encode() + b"\n\n"))
        with pytest.raises(ProtocolError) as caught:
            openai(api_key=key).text()
        assert "sk-proj-ABCD" not in str(caught.value)

    def test_a_number_that_looks_like_the_key(self, server: FakeServer, openai: Ask) -> None:
        """What is redacted in an error's body stays an error's body."""
        server.script(status(400, "no", code='1234567890 "quoted"'))
        with pytest.raises(InvalidRequestError) as caught:
            openai(api_key="1234567890").text()
        assert caught.value.body["error"]["code"] == '*** "quoted"'

    def test_what_a_provider_cannot_take_is_refused_by_the_call(self) -> None:
        """A part that a provider has no place for is a mistake, found before any thread."""
        part = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
        turn = {"role": "user", "content": [part]}
        with pytest.raises(ConfigurationError, match="takes no audio/wav"):
            stream_sync(provider="anthropic", messages=[turn], api_key="any")

    def test_an_unknown_model_names_the_default(self, server: FakeServer, ask: Ask) -> None:
        """A model that does not exist is answered with one that does."""
        message = "The model `gpt-9` does not exist"
        server.script(status(404, message, code="model_not_found"))
        with pytest.raises(InvalidRequestError, match=r"does not exist.*default model.*_MODEL"):
            ask(model="gpt-9").text()

    def test_an_unknown_provider_lists_the_known(self) -> None:
        """A misspelt provider is answered with the list."""
        with pytest.raises(ConfigurationError, match=r"'opnai'.*openai, .*anthropic, gemini"):
            stream_sync("Hi", provider="opnai", api_key="any")

    def test_a_refused_connection_asks_for_the_address(self, ask: Ask) -> None:
        """A server that is not there is a ConnectError, after the retries."""
        with FakeServer() as gone:
            url = gone.url
        with pytest.raises(ConnectError, match="is the address right") as caught:
            ask(base_url=url, retry=RetryPolicy(max_retries=1, backoff_s=0)).text()
        assert caught.value.retryable

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            ({"prompt": 1}, "prompt must be a str, not int"),
            ({"prompt": None}, "nothing to ask"),
            ({"model": 3}, "model must be a str"),
            ({"messages": "Hi"}, "messages must be a list"),
            ({"messages": [{"role": "wizard", "content": "x"}]}, "wizard"),
            ({"temperature": "hot"}, "temperature"),
            ({"temperature": -1}, "temperature"),
            ({"max_tokens": 0}, "max_tokens"),
            ({"api_key": 7}, "api_key must be a str"),
            ({"api_key": "", "base_url": None}, "api_key is empty"),
            ({"base_url": ""}, "https://host"),
            ({"api_key": "a\r\nX: y"}, "the key in api_key .* line break"),
            ({"base_url": "ftp://example.org"}, "https://host"),
            ({"headers": {"X-A": "a\r\nX-B: b"}}, "X-A"),
            ({"headers": [("X-A", "a")]}, "headers must be a dict"),
            ({"session": object()}, "requests.Session"),
            ({"buffer_size": 0}, "buffer_size"),
            ({"timeouts": 5}, r"timeouts=Timeouts\(\.\.\.\)"),
            ({"retry": 3}, r"retry=RetryPolicy\(\.\.\.\)"),
            ({"tools": [3]}, "a tool must be"),
            ({"stop": 3}, "stop"),
        ],
    )
    def test_a_wrong_argument_is_named_before_anything_is_sent(
        self, server: FakeServer, arguments: dict[str, Any], complaint: str
    ) -> None:
        """The call itself raises, and the message says which argument is wrong and how."""
        given = {"prompt": "Hi", "api_key": "any", "base_url": server.base_url("openai")}
        with pytest.raises(ConfigurationError, match=complaint):
            stream_sync(**{**given, **arguments})
        assert server.requests == []

    def test_an_error_inside_the_stream_keeps_what_was_said(
        self, server: FakeServer, ask: Ask
    ) -> None:
        """An error after content ends the stream, and the partial answer comes with it."""
        server.script(say("one two"), fail(529, "overloaded"))
        with pytest.raises(APIError, match="overloaded") as caught:
            ask().text()
        assert caught.value.completion.text == "one two"
        assert len(server.requests) == 1

    def test_a_cut_is_never_a_finished_answer(self, server: FakeServer, ask: Ask) -> None:
        """Without the provider's own end the answer is lost, not finished."""
        server.script(say("one two"), call_tool("f", '{"a": 1'), cut())
        with pytest.raises(ConnectionLost) as caught:
            ask(retry=RetryPolicy(max_retries=0)).text()
        assert caught.value.completion.text == "one two"
        assert caught.value.completion.finish_reason is None

    def test_errors_carry_no_frames_that_hold_the_key(self, server: FakeServer, ask: Ask) -> None:
        """No local variable on the error's traceback, and nothing chained to it, has the key."""
        server.script(status(400, "no"))
        with pytest.raises(StreamError) as caught:
            ask(api_key="sk-secret-key").text()
        error = caught.value
        assert error.__cause__ is None
        assert error.__context__ is None
        assert locals_with("sk-secret-key", error) == []


class TestConnections:
    def test_streams_one_after_the_other_share_a_connection(
        self, server: FakeServer, ask: Ask
    ) -> None:
        """A finished stream gives its connection back before its loop ends."""
        for _ in range(20):
            ask().text()
        assert {recorded.connection for recorded in server.requests} == {1}

    def test_a_session_of_the_callers_own_is_used_as_it_is(
        self, server: FakeServer, ask: Ask
    ) -> None:
        """Its headers and adapters count; it is neither changed nor closed."""
        with requests.Session() as session:
            session.headers["X-Mine"] = "yes"
            before = dict(session.headers)
            ask(session=session).text()
            assert server.requests[0].headers["x-mine"] == "yes"
            server.script(say("one"), pause(3600))
            answer = ask(session=session)
            assert next(answer) == "one"
            answer.close()
            assert server.requests[1].ended.wait(5)
            assert dict(session.headers) == before

    def test_the_callers_headers_win(self, server: FakeServer, ask: Ask) -> None:
        """headers= adds headers, and replaces ours where the names are the same."""
        ask(headers={"X-Mine": "yes", "authorization": "Bearer other", "x-api-key": "other",
                     "x-goog-api-key": "other"}).text()  # fmt: skip
        headers = server.requests[0].headers
        assert headers["x-mine"] == "yes"
        assert "any" not in str(headers)

    def test_netrc_cannot_touch_the_credentials(
        self, server: FakeServer, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A ~/.netrc entry for the host neither replaces the key nor adds another header."""
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login me password hunter2\n")
        monkeypatch.setenv("NETRC", str(netrc))
        ask(api_key="the-key").text()
        headers = server.requests[0].headers
        assert "the-key" in str(headers)
        assert "basic" not in headers.get("authorization", "").lower()

    def test_a_redirect_is_refused(self, ask: Ask) -> None:
        """Keys do not follow redirects."""

        def redirect(connection: Connection) -> None:
            location = {"Location": "http://example.org/?secret=1"}
            connection.send(head(307, location, framing="0"))

        with WireServer(redirect) as server:
            with pytest.raises(ConfigurationError, match=r"redirects.*example\.org") as caught:
                ask(base_url=server.url).text()
            assert "secret" not in str(caught.value)
            assert len(server.requests) == 1

    def test_a_connection_that_the_server_closed_is_replaced(self, openai: Ask) -> None:
        """A server that closes after every reply, although it promised not to, goes unnoticed."""
        body = (
            b'data: {"choices":[{"delta":{"content":"fine"},"finish_reason":"stop"}]}\n\n'
            b"data: [DONE]\n\n"
        )

        def hang_up(connection: Connection) -> None:
            connection.sock.close()

        answer = stream([body])
        with WireServer(answer, hang_up, answer) as server:
            retry = RetryPolicy(max_retries=0)
            assert openai(base_url=server.url, retry=retry).text() == "fine"
            assert openai(base_url=server.url, retry=retry).text() == "fine"
            assert server.connections == 2
            assert len(server.requests) == 3


class TestMessages:
    def test_a_conversation_reaches_the_provider(
        self, server: FakeServer, ask: Ask, provider: str
    ) -> None:
        """Messages, a system text and a prompt become one request; Responses has no stop texts."""
        stop = {} if provider == "openai-responses" else {"stop": ["END"]}
        ask(
            "And now?",
            system="Be brief.",
            messages=[
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hello."},
            ],
            max_tokens=7,
            temperature=0.5,
            top_p=0.9,
            extra_body={"metadata": {"user": "me"}},
            **stop,
        ).text()
        body = server.requests[0].body.decode()
        words = ["And now?", "Be brief.", "Hello.", "0.5", "0.9", '"user":"me"']
        for word in [*words, *stop.get("stop", [])]:
            assert word in body


class TestPerProvider:
    @pytest.mark.parametrize(
        "function", [stream_openai, stream_anthropic, stream_gemini, stream_ollama]
    )
    def test_each_provider_has_a_function_of_its_own(
        self, server: FakeServer, function: Ask
    ) -> None:
        """stream_openai and its siblings are stream_sync with the provider filled in."""
        name = function.__name__.removeprefix("stream_")
        answer = function("Hi", base_url=server.base_url(name), api_key="any")
        assert answer.provider == name
        assert answer.text().startswith("Server-sent")


class TestFirstStreams:
    def test_many_threads_may_open_the_first_streams(self) -> None:
        """The very first streams of a process can be opened by several threads at once."""
        script = (
            "import sys, threading\n"
            "from llm_sse import stream_sync\n"
            "sys.setswitchinterval(1e-4)\n"
            "barrier = threading.Barrier(16)\n"
            "def open_one():\n"
            "    barrier.wait()\n"
            "    stream_sync('x', api_key='k', base_url='http://127.0.0.1:9/v1').close()\n"
            "threads = [threading.Thread(target=open_one) for _ in range(16)]\n"
            "[thread.start() for thread in threads]\n"
            "[thread.join() for thread in threads]\n"
        )
        for _ in range(3):
            done = subprocess.run([sys.executable, "-c", script], timeout=30, check=False)
            assert done.returncode == 0


class TestInterpreterExit:
    def test_a_live_stream_does_not_keep_the_interpreter(self, server: FakeServer) -> None:
        """A script that ends in mid-stream ends: no hang, no traceback."""
        server.script(say("one"), pause(3600))
        script = (
            "from llm_sse import stream_openai\n"
            f"stream = stream_openai('Hi', base_url={server.base_url('openai')!r}, api_key='any')\n"
            "print(next(stream))\n"
        )
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-c", script],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "one\n", "")
