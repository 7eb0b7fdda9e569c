from __future__ import annotations

import gzip
import threading
import zlib

import pytest
import requests

from llm_sse import Timeouts
from llm_sse.errors import (
    ConfigurationError,
    ConnectionLost,
    ProtocolError,
    StreamTimeout,
    TransportError,
)
from llm_sse.testing import FakeServer, status
from tests.helpers import until
from tests.sync.bodies import END, ONE, ask_openai
from tests.wire import Connection, WireServer, head, stream


class TestFraming:
    @pytest.mark.parametrize("framing", ["chunked", "close", "length"])
    def test_a_delta_is_delivered_before_the_next_is_sent(self, framing: str) -> None:
        """In every framing a delta arrives although the server waits until it was read."""
        was_read = threading.Event()

        def respond(connection: Connection) -> None:
            body = ONE + END
            how = str(len(body)) if framing == "length" else framing
            connection.send(head(200, {"Content-Type": "text/event-stream"}, framing=how))
            write = connection.chunk if framing == "chunked" else connection.send
            write(ONE)
            assert was_read.wait(10)
            write(END)
            if framing == "chunked":
                connection.chunk(b"")

        respond.closes = framing == "close"  # type: ignore[attr-defined]
        with WireServer(respond) as server:
            answer = ask_openai(server.url)
            assert next(answer) == "one"
            was_read.set()
            assert list(answer) == []
            assert answer.completion.finish_reason == "stop"

    def test_one_dribbled_chunk_is_delivered_as_it_comes(self) -> None:
        """A delta is not held back until its HTTP chunk is complete."""
        was_read = threading.Event()

        def respond(connection: Connection) -> None:
            connection.send(head(200, framing="chunked"))
            connection.send(b"%x\r\n" % len(ONE + END) + ONE)
            assert was_read.wait(10)
            connection.send(END + b"\r\n0\r\n\r\n")

        with WireServer(respond) as server:
            answer = ask_openai(server.url)
            assert next(answer) == "one"
            was_read.set()
            assert list(answer) == []

    @pytest.mark.parametrize("encoding", ["gzip", "deflate"])
    def test_a_compressed_stream_is_decoded_all_the_same(self, encoding: str) -> None:
        """What comes compressed, although identity was asked for, is read all the same."""
        body = (gzip.compress if encoding == "gzip" else zlib.compress)(ONE + END)
        respond = stream([body[:20], body[20:]], headers={"Content-Encoding": encoding})
        with WireServer(respond) as server:
            assert ask_openai(server.url).text() == "one"
            assert b"Accept-Encoding: identity" in server.requests[0]

    def test_broken_compression_is_a_protocol_error(self) -> None:
        """Bytes that cannot be decompressed are not the end of the answer."""
        respond = stream([b"this is not gzip"], headers={"Content-Encoding": "gzip"})
        with WireServer(respond) as server, pytest.raises(ProtocolError, match="compression"):
            ask_openai(server.url).text()


class TestSend:
    def test_a_request_that_may_have_been_worked_on_is_not_repeated(self) -> None:
        """A reused connection that breaks late may have broken over the request."""

        def work_and_die(connection: Connection) -> None:
            threading.Event().wait(1.2)
            connection.sock.close()

        with WireServer(stream([ONE, END]), work_and_die) as server:
            ask_openai(server.url).text()
            with pytest.raises(ConnectionLost):
                ask_openai(server.url).text()
            assert len(server.requests) == 2

    def test_a_certificate_bundle_that_is_not_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A wrong REQUESTS_CA_BUNDLE is a mistake of the configuration."""
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere.pem")
        with pytest.raises(ConfigurationError, match=r"/nowhere\.pem"):
            ask_openai("https://api.example/v1").text()

    def test_what_a_session_of_ones_own_raises(self, server: FakeServer) -> None:
        """An exception out of the caller's own session is an ending of the tree."""

        def hook(*_: object, **__: object) -> None:
            raise ZeroDivisionError("mine")

        with requests.Session() as session:
            session.hooks["response"].append(hook)
            with pytest.raises(TransportError, match="ZeroDivisionError: mine"):
                ask_openai(server.base_url("openai"), session=session).text()
            session.hooks["response"][:] = [lambda answer, **_: answer.raise_for_status()]
            server.script(status(503))
            with pytest.raises(TransportError, match="503"):
                ask_openai(server.base_url("openai"), session=session).text()

    def test_a_session_of_ones_own_does_not_wait_for_ever(self) -> None:
        """Where nobody can interrupt the wait for the headers, the limits end it."""
        with WireServer(Connection.wait_closed) as server, requests.Session() as session:
            limits = Timeouts(first_token_s=0.1, idle_s=0.1)
            answer = ask_openai(server.url, session=session, timeouts=limits)
            with pytest.raises(StreamTimeout):
                answer.text()
            until(lambda: answer._reader.thread and not answer._reader.thread.is_alive())


class TestBaseURL:
    def test_trailing_slashes_do_not_matter(self, server: FakeServer) -> None:
        """A base URL means the same with and without a slash at its end."""
        ask_openai(server.base_url("openai") + "//").text()
        assert server.requests[0].path == "/v1/chat/completions"

    @pytest.mark.parametrize(
        "url", ["localhost:8080", "file:///etc/passwd", "http://", "http://a b"]
    )
    def test_must_be_an_http_url(self, url: str) -> None:
        """What is no http or https URL is refused at once."""
        with pytest.raises(ConfigurationError, match="base_url"):
            ask_openai(url)
