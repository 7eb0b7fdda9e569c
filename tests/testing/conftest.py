"""How the tests of the fake provider talk to it, without any client of ours."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Callable
from types import TracebackType
from typing import Any

import pytest
import requests
import trustme

from llm_sse.testing import FakeServer

PATHS = {
    "openai": "/v1/chat/completions",
    "openai-responses": "/v1/responses",
    "anthropic": "/v1/messages",
    "gemini": "/v1beta/models/gemini-fake:streamGenerateContent?alt=sse",
    "ollama": "/api/chat",
}
KEYS = {
    "openai": {"Authorization": "Bearer any"},
    "openai-responses": {"Authorization": "Bearer any"},
    "anthropic": {"x-api-key": "any", "anthropic-version": "2023-06-01"},
    "gemini": {"x-goog-api-key": "any"},
    "ollama": {},
}
TURN = {"role": "user", "content": "Hi"}
BODIES: dict[str, dict[str, Any]] = {
    "openai": {"model": "m", "messages": [TURN], "stream": True},
    "openai-responses": {"model": "m", "input": [TURN], "stream": True},
    "anthropic": {"model": "m", "messages": [TURN], "max_tokens": 9, "stream": True},
    "gemini": {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]},
    "ollama": {"model": "m", "messages": [TURN], "stream": True},
}
#: What a stream of each provider's ends with.
LAST = {
    "openai": b"data: [DONE]\n\n",
    "openai-responses": b"event: response.completed\ndata: ",
    "anthropic": b'data: {"type":"message_stop"}\n\n',
    "gemini": b'"finishReason":"STOP"',
    "ollama": b'"done":true',
}


def media_type(provider: str) -> str:
    """Return what the streams of a provider are."""
    return "application/x-ndjson" if provider == "ollama" else "text/event-stream"


def mark_of_end(provider: str) -> bytes:
    """Return the bytes that end an event."""
    return b"\n" if provider == "ollama" else b"\n\n"


Post = Callable[..., requests.Response]


@pytest.fixture
def post(server: FakeServer, provider: str) -> Post:
    """Post to a provider's real path; what a test leaves out is as it should be."""

    def post(**given: Any) -> requests.Response:
        body = {**BODIES[provider], **given.pop("changed", {})}
        given.setdefault("json", {name: value for name, value in body.items() if value is not None})
        if "data" in given:
            del given["json"]
        given.setdefault("headers", KEYS[provider])
        url = given.pop("server", server).url + given.pop("path", PATHS[provider])
        return requests.request(given.pop("method", "POST"), url, timeout=10, **given)

    return post


def request_bytes(provider: str = "openai") -> bytes:
    """Return a proper request as it stands on the wire."""
    body = json.dumps(BODIES[provider]).encode()
    lines = [
        f"POST {PATHS[provider]} HTTP/1.1",
        "Host: fake",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in KEYS[provider].items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Client:
    """A bare socket that asks, and sees the bytes as they come.

    Args:
        server: Whom to ask.
        provider: In whose format.
        context: Speaks TLS, if it is given.
        asks: Whether it sends its request at once.

    Attributes:
        received: Everything that has come.
    """

    def __init__(
        self,
        server: FakeServer,
        provider: str = "openai",
        *,
        context: ssl.SSLContext | None = None,
        asks: bool = True,
    ) -> None:
        port = int(server.url.rpartition(":")[2])
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=10)
        if context is not None:
            self.sock = context.wrap_socket(self.sock, server_hostname="127.0.0.1")
        self.received = b""
        self._provider = provider
        if asks:
            self.ask()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.sock.close()

    def ask(self) -> None:
        """Send a proper request."""
        self.sock.sendall(request_bytes(self._provider))

    def until(self, mark: bytes) -> bytes:
        """Read until these bytes have come; return all that has come."""
        while mark not in self.received:
            data = self.sock.recv(65536)
            assert data, f"the server closed before {mark!r} came: {self.received!r}"
            self.received += data
        return self.received

    def rest(self) -> bytes:
        """Read until the server closes; return all that has come."""
        while data := self.sock.recv(65536):
            self.received += data
        return self.received

    @property
    def head(self) -> str:
        """The status line and the headers that have come."""
        return self.received.partition(b"\r\n\r\n")[0].decode()

    @property
    def body(self) -> bytes:
        """What has come after the headers."""
        return self.received.partition(b"\r\n\r\n")[2]


def http_chunks(body: bytes) -> tuple[list[bytes], bytes]:
    """Take a chunked body apart.

    Returns:
        The whole chunks, the empty last one included, and what is left behind them.
    """
    found = []
    while b"\r\n" in body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        if len(rest) < length + 2:
            break
        assert rest[length : length + 2] == b"\r\n"
        found.append(rest[:length])
        body = rest[length + 2 :]
    return found, body


@pytest.fixture(scope="session")
def _authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_context(_authority: trustme.CA) -> ssl.SSLContext:
    """What makes a fake server speak TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def client_context(_authority: trustme.CA) -> ssl.SSLContext:
    """What trusts that server."""
    context = ssl.create_default_context()
    _authority.configure_trust(context)
    return context
