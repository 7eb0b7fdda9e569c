from __future__ import annotations

import socket

import pytest

from llm_sse import RetryPolicy
from llm_sse.errors import ConnectError, ConnectionLost, ProtocolError
from llm_sse.testing import FakeServer
from tests.sync.bodies import ask_openai
from tests.wire import Connection, WireServer


class TestTranslated:
    def test_a_server_that_hangs_up_before_it_answers(self) -> None:
        """A connection that closes without any answer is a lost one."""
        with (
            WireServer(lambda connection: connection.sock.close()) as server,
            pytest.raises(ConnectionLost, match="before it answered"),
        ):
            ask_openai(server.url).text()

    def test_a_name_that_nobody_knows(self) -> None:
        """A name that cannot be resolved is a ConnectError that shows it."""
        with pytest.raises(ConnectError, match=r"nowhere\.invalid"):
            ask_openai("http://nowhere.invalid/v1").text()

    @pytest.mark.parametrize(
        ("greeting", "complaint"),
        [
            (b"SSH-2.0-OpenSSH_9.9\r\n", "does not answer in HTTP.*base_url"),
            (b"<html>\r\n", "does not answer in HTTP.*base_url"),
        ],
    )
    def test_a_server_of_another_protocol(self, greeting: bytes, complaint: str) -> None:
        """What is no HTTP at all is a protocol error, and is not tried again."""

        def greet(connection: Connection) -> None:
            connection.send(greeting)
            connection.sock.close()

        with WireServer(greet) as server:
            with pytest.raises(ProtocolError, match=complaint):
                ask_openai(server.url, retry=RetryPolicy(backoff_s=0)).text()
            assert len(server.requests) == 1

    def test_a_dead_proxy_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A proxy that is not there is said to be the proxy, and where it was named."""
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        with pytest.raises(ConnectError, match=r"through the proxy.*refused.*HTTPS_PROXY"):
            ask_openai("https://api.example/v1").text()

    def test_https_to_an_http_port_says_so(self, server: FakeServer) -> None:
        """The usual mix-up is asked about, not a certificate."""
        with pytest.raises(ConnectError, match="http:// server"):
            ask_openai(server.url.replace("http:", "https:")).text()
