from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from llm_sse import (
    RetryPolicy,
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
    StreamError,
)
from llm_sse.providers import PROVIDERS
from llm_sse.testing import FakeServer, call_tool, cut, fail, pause, raw, say, status
from tests.helpers import FORMATS, locals_with
from tests.sync.conftest import Ask
from tests.wire import Connection, WireServer, head, stream


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
