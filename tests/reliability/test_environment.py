"""What the environment may change, and what not: proxies, certificates, ~/.netrc, redirects."""

from __future__ import annotations

import base64
import datetime
import gc
import os
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme

from llm_sse import RetryPolicy, Timeouts, TokenStream, stream_sync
from llm_sse.errors import (
    APIError,
    ConfigurationError,
    ConnectError,
    InvalidRequestError,
    StreamError,
    StreamTimeout,
)
from llm_sse.events import Finish, StreamStart, TextDelta
from llm_sse.providers import PROVIDERS
from llm_sse.sync.connection import shared_session
from llm_sse.testing import FakeServer
from tests.helpers import until
from tests.reliability.conftest import machine_late_s
from tests.reliability.proxy import (
    Answer,
    Proxy,
    drip,
    establish_and_hang,
    flood,
    hang,
    refuse,
    send,
)
from tests.wire import Connection, WireServer, head, stream

KEY = "sk-env-Q7vX2mN9pL4kT8wZ"
PASSWORD = "hunter2-Zq8Wm3"
ONCE = RetryPolicy(max_retries=0)

#: What is promised beyond connect_s, and for close(), in seconds.
MARGIN_S = 0.2
FREED_S = 0.25

AUTHORITY = trustme.CA()
STRANGER = trustme.CA()


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Start without proxies, certificate bundles and a ~/.netrc."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in (
            *("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR", "NETRC"),
            "REQUEST_METHOD",  # a CGI script's; there HTTP_PROXY could be a stranger's header
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    """A file with the certificate of the authority that signs what the servers here show."""
    path = tmp_path / "authority.pem"
    AUTHORITY.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture
def _trusted(bundle: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust that authority."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", bundle)


trusted = pytest.mark.usefixtures("_trusted")


@pytest.fixture
def _names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every name below `example.test` be this machine, as /etc/hosts could."""
    look_up = socket.getaddrinfo

    def getaddrinfo(host: Any, *rest: Any, **named: Any) -> Any:
        here = isinstance(host, str) and host.endswith("example.test")
        return look_up("127.0.0.1" if here else host, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def context_for(
    *names: str,
    signed_by: trustme.CA = AUTHORITY,
    not_before: datetime.datetime | None = None,
    not_after: datetime.datetime | None = None,
) -> ssl.SSLContext:
    """Return a server's TLS settings, with a certificate for these names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf = signed_by.issue_cert(*names, not_before=not_before, not_after=not_after)
    leaf.configure_cert(context)
    return context


def answer_of(provider: str, text: str = "one") -> bytes:
    """Return a complete answer in a provider's format."""
    encoder = PROVIDERS[provider].encoder(model="m")
    events = (StreamStart("m", "r"), TextDelta(text), Finish("stop"))
    return b"".join(encoder.encode(event) for event in events)


def tls_server(provider: str, *names: str) -> WireServer:
    """Return a provider that is spoken to over TLS."""
    context = context_for(*(names or ("localhost",)))
    return WireServer(stream([answer_of(provider)]), context=context)


def by_name(url: str, *, name: str = "localhost", scheme: str | None = None) -> str:
    """Return a server's URL with a name in it: certificates and NO_PROXY are about names."""
    plain = url.replace("127.0.0.1", name)
    return plain if scheme is None else plain.replace("http", scheme, 1)


def secure(server: WireServer, name: str = "localhost") -> str:
    """Return a TLS server's URL."""
    return by_name(server.url, name=name, scheme="https")


def ask(provider: str, url: str, **arguments: Any) -> TokenStream:
    """Ask whoever listens at a URL, once."""
    given: dict[str, Any] = {"base_url": url, "api_key": KEY, "retry": ONCE, **arguments}
    return stream_sync("Hi", provider=provider, **given)


def fields(head: bytes) -> dict[str, str]:
    """Return a recorded head's header fields; the names are lower-case."""
    lines = head.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    pairs = (line.decode("latin-1").partition(": ") for line in lines)
    return {name.lower(): value for name, _, value in pairs}


def credentials_in(headers: dict[str, str]) -> dict[str, str]:
    """Return what a request says about who asks."""
    names = ("authorization", "proxy-authorization", "x-api-key", "x-goog-api-key", "cookie")
    return {name: headers[name] for name in names if name in headers}


def credentials_of(provider: str) -> dict[str, str]:
    """Return what a request shall say about who asks: the key, in the provider's own header."""
    row = PROVIDERS[provider]
    return {row.auth_header.lower(): row.auth_prefix + KEY}


def ended(answer: TokenStream) -> tuple[StreamError, float]:
    """Read a stream to the error that it must end with.

    Returns:
        The error, and how long it took, less what the machine was late.
    """
    begun = time.monotonic()
    with pytest.raises(StreamError) as caught:
        answer.text()
    return caught.value, time.monotonic() - begun - machine_late_s(begun)


def must_be_free(answer: TokenStream, begun: float, gone: Callable[[], bool]) -> None:
    """Assert that the thread and the connection of a closed stream go away in time."""
    thread = answer._reader.thread
    assert thread is not None
    thread.join(5)
    assert not thread.is_alive()
    until(gone)
    assert time.monotonic() - begun - machine_late_s(begun) < FREED_S


class Raw(WireServer):
    """A server that does something else with a connection than to read a request.

    Attributes:
        entered: Set when the client's first bytes have come.
        live: How many connections it has at the moment.
    """

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self.entered = threading.Event()
        self.live = 0
        self._serve_raw = serve
        super().__init__(Connection.wait_closed)

    def __enter__(self) -> Raw:
        return self

    def _serve(self, sock: socket.socket) -> None:
        self.live += 1
        with sock, suppress(OSError):
            sock.recv(1, socket.MSG_PEEK)
            self.entered.set()
            self._serve_raw(sock)
        self.live -= 1


def dribble_handshake(sock: socket.socket) -> None:
    """Be a TLS server whose part of the handshake comes one byte at a time."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context_for("localhost").wrap_bio(incoming, outgoing, server_side=True)
    tick = threading.Event()
    while data := sock.recv(65536):
        incoming.write(data)
        with suppress(ssl.SSLWantReadError):
            session.do_handshake()
        for byte in outgoing.read():
            sock.sendall(bytes([byte]))
            tick.wait(0.02)


class TestNetrc:
    @pytest.mark.parametrize(
        ("place", "entry"),
        [("HOME", "machine localhost"), ("HOME", "default"), ("NETRC", "default")],
    )
    @pytest.mark.parametrize("way", ["http", "https", "http by proxy", "https by proxy"])
    @trusted
    def test_the_credentials_stay_what_they_are(
        self,
        provider: str,
        place: str,
        entry: str,
        way: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A ~/.netrc neither replaces the key nor adds to it, on no way to the provider."""
        file = tmp_path / (".netrc" if place == "HOME" else "elsewhere")
        file.write_text(f"{entry} login me password {PASSWORD}\n")
        file.chmod(0o600)
        if place == "NETRC":
            monkeypatch.setenv("NETRC", str(file))
        assert requests.utils.get_netrc_auth("http://localhost/") == ("me", PASSWORD)
        with ExitStack() as stack:
            if way.startswith("https"):
                server = stack.enter_context(tls_server(provider))
                url = secure(server)
            else:
                server = stack.enter_context(WireServer(stream([answer_of(provider)])))
                url = by_name(server.url)
            if way.endswith("proxy"):
                proxy = stack.enter_context(Proxy())
                monkeypatch.setenv("ALL_PROXY", proxy.url)
            assert ask(provider, url).text() == "one"
            assert credentials_in(fields(server.requests[0])) == credentials_of(provider)
            assert PASSWORD.encode() not in server.requests[0]
            if way.endswith("proxy"):
                assert len(proxy.heads) == 1
                assert "proxy-authorization" not in fields(proxy.heads[0])


class TestProxies:
    @pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
    def test_http_goes_through_the_proxy(
        self, server: FakeServer, provider: str, variable: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An http provider is asked through the proxy, which gets the whole address."""
        url = server.base_url(provider)
        with Proxy() as proxy:
            monkeypatch.setenv(variable, proxy.url)
            assert ask(provider, url).text() != ""
            first_line = proxy.heads[0].partition(b"\r\n")[0].decode()
            path = server.requests[0].path
            query = server.requests[0].query
        assert first_line == f"POST {server.url}{path}{'?' + query if query else ''} HTTP/1.1"
        assert credentials_in(server.requests[0].headers) == credentials_of(provider)

    @pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
    @trusted
    def test_https_goes_through_a_tunnel_that_keeps_the_key(
        self, provider: str, variable: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """TLS goes from end to end: the proxy learns the host, and sees encrypted bytes."""
        with tls_server(provider) as server, Proxy() as proxy:
            monkeypatch.setenv(variable, proxy.url)
            assert ask(provider, secure(server)).text() == "one"
            assert credentials_in(fields(server.requests[0])) == credentials_of(provider)
            tunnel = proxy.tunnels[0]
            assert secure(server) == f"https://{tunnel.target}"
            assert KEY.encode() not in proxy.heads[0] + tunnel.sent + tunnel.received
            assert proxy.heads[0].startswith(b"CONNECT ")
            assert {"user-agent", "content-type"}.isdisjoint(fields(proxy.heads[0]))
            assert _is_tls(tunnel.sent)
            assert _is_tls(tunnel.received)

    @pytest.mark.parametrize("variable", ["HTTP_PROXY", "HTTPS_PROXY"])
    def test_a_variable_is_for_its_scheme_only(
        self, server: FakeServer, variable: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """HTTPS_PROXY is not asked for an http address."""
        with Proxy() as proxy:
            monkeypatch.setenv(variable, proxy.url)
            ask("openai", server.base_url("openai")).text()
            assert proxy.connections == (variable == "HTTP_PROXY")

    @pytest.mark.parametrize(
        ("made_by", "name", "why"),
        [(STRANGER, "localhost", "verify failed"), (AUTHORITY, "other.test", "ostname")],
        ids=["unknown authority", "another's name"],
    )
    @trusted
    def test_certificates_are_verified_inside_the_tunnel(
        self, made_by: trustme.CA, name: str, why: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A proxy that shows a certificate of its own gets no request."""
        context = context_for(name, signed_by=made_by)
        with (
            WireServer(stream([answer_of("openai")]), context=context) as server,
            Proxy() as proxy,
        ):
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
            with pytest.raises(ConnectError, match=why) as caught:
                ask("openai", secure(server)).text()
            assert not caught.value.retryable
            assert len(proxy.tunnels) == 1
            assert server.requests == []

    @pytest.mark.parametrize("scheme", ["http", "https"])
    @trusted
    def test_the_proxys_credentials_go_to_the_proxy_only(
        self, provider: str, scheme: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What stands before the `@` of a proxy's address is sent to the proxy, and ends there."""
        token = base64.b64encode(f"us er:{PASSWORD}".encode()).decode()
        context = context_for("localhost") if scheme == "https" else None
        with (
            WireServer(stream([answer_of(provider)]), context=context) as server,
            Proxy(credentials=f"us er:{PASSWORD}") as proxy,
        ):
            monkeypatch.setenv("ALL_PROXY", proxy.url.replace("us er", "us%20er"))
            url = by_name(server.url, scheme=scheme)
            assert ask(provider, url).text() == "one"
            assert fields(proxy.heads[0])["proxy-authorization"] == f"Basic {token}"
            assert PASSWORD not in proxy.heads[0].decode()
            assert credentials_in(fields(server.requests[0])) == credentials_of(provider)
            monkeypatch.setenv("NO_PROXY", "localhost")
            assert ask(provider, url).text() == "one"
            assert proxy.connections == 1
            for request in server.requests:
                assert PASSWORD.encode() not in request
                assert token.encode() not in request

    @pytest.mark.parametrize("scheme", ["http", "https"])
    @pytest.mark.parametrize("kind", ["http proxy", "https proxy"])
    @pytest.mark.filterwarnings("ignore:Unverified HTTPS request")  # has a test of its own
    @trusted
    def test_connections_through_a_proxy_are_used_again(
        self, scheme: str, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Twenty streams one after the other need one connection, and one tunnel."""
        context = context_for("localhost") if scheme == "https" else None
        own = context_for("localhost") if kind == "https proxy" else None
        with (
            WireServer(stream([answer_of("openai")]), context=context) as server,
            Proxy(context=own) as proxy,
        ):
            monkeypatch.setenv("ALL_PROXY", proxy.url)
            for _ in range(20):
                assert ask("openai", by_name(server.url, scheme=scheme)).text() == "one"
            assert (proxy.connections, server.connections) == (1, 1)
            assert len(proxy.heads) == (1 if scheme == "https" else 20)
            assert len(server.requests) == 20

    @pytest.mark.parametrize("scheme", ["http", "https"])
    @trusted
    def test_connections_through_a_proxy_are_set_up_like_others(
        self, scheme: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They do not hold small writes back, 40 ms for each request, and notice a dead peer."""
        context = context_for("localhost") if scheme == "https" else None
        begin = stream([answer_of("openai")[:-100]], then=Connection.wait_closed)
        with WireServer(begin, context=context) as server, Proxy() as proxy:
            monkeypatch.setenv("ALL_PROXY", proxy.url)
            with ask("openai", by_name(server.url, scheme=scheme)) as answer:
                assert answer.wait_started(5)
                call: Any = getattr(answer._reader.channel._interrupt, "__self__", None)
                assert call.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert call.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)

    def test_the_environment_counts_at_each_call(
        self, server: FakeServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A proxy that is named, or no longer named, counts from the next stream on."""
        url = server.base_url("openai")
        with Proxy() as proxy:
            ask("openai", url).text()
            monkeypatch.setenv("HTTP_PROXY", proxy.url)
            ask("openai", url).text()
            assert len(proxy.heads) == 1
            monkeypatch.delenv("HTTP_PROXY")
            ask("openai", url).text()
            assert len(proxy.heads) == 1


class TestNoProxy:
    @pytest.mark.parametrize(
        ("exceptions", "direct"),
        [
            ("api.example.test", True),
            ("example.test", True),
            (".example.test", True),
            ("*", True),
            ("api.example.test:PORT", True),
            ("example.test:PORT", True),
            (" other.test , api.example.test ", True),
            ("other.test", False),
            ("api.example.test:1", False),
            ("sub.api.example.test", False),
            ("", False),
        ],
    )
    @pytest.mark.parametrize("scheme", ["http", "https"])
    @pytest.mark.usefixtures("_names")
    @trusted
    def test_hosts_that_are_named_are_asked_directly(
        self,
        scheme: str,
        exceptions: str,
        direct: bool,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A host, its domain, its port or all of them can be excepted; nothing else is."""
        context = context_for("api.example.test") if scheme == "https" else None
        with (
            WireServer(stream([answer_of("openai")]), context=context) as server,
            Proxy() as proxy,
        ):
            port = server.url.rpartition(":")[2]
            monkeypatch.setenv("ALL_PROXY", proxy.url)
            monkeypatch.setenv("NO_PROXY", exceptions.replace("PORT", port))
            url = by_name(server.url, name="api.example.test", scheme=scheme)
            assert ask("openai", url).text() == "one"
            assert proxy.connections == (not direct)

    @pytest.mark.parametrize("exceptions", ["127.0.0.1", "10.0.0.1, 127.0.0.0/8", "*"])
    @pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
    def test_addresses_and_networks_can_be_named(
        self, server: FakeServer, variable: str, exceptions: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An address is excepted by itself or by its network, in either spelling."""
        with Proxy() as proxy:
            monkeypatch.setenv("http_proxy", proxy.url)
            monkeypatch.setenv(variable, exceptions)
            ask("openai", server.base_url("openai")).text()
            assert proxy.connections == 0


class TestProxiesOverTLS:
    @pytest.mark.parametrize("scheme", ["http", "https"])
    @pytest.mark.filterwarnings("ignore:Unverified HTTPS request")  # has a test of its own
    @trusted
    def test_a_proxy_may_be_spoken_to_over_tls(
        self, provider: str, scheme: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A proxy with an https:// address is spoken to over TLS, also with TLS inside."""
        context = context_for("localhost") if scheme == "https" else None
        with (
            WireServer(stream([answer_of(provider)]), context=context) as server,
            Proxy(context=context_for("localhost"), credentials=f"user:{PASSWORD}") as proxy,
        ):
            monkeypatch.setenv("ALL_PROXY", proxy.url)
            assert ask(provider, by_name(server.url, scheme=scheme)).text() == "one"
            assert credentials_in(fields(server.requests[0])) == credentials_of(provider)
            assert len(proxy.tunnels) == (scheme == "https")
            for tunnel in proxy.tunnels:
                assert KEY.encode() not in proxy.heads[0] + tunnel.sent + tunnel.received
                assert _is_tls(tunnel.sent)

    @pytest.mark.parametrize("scheme", ["http", "https"])
    @trusted
    def test_the_proxys_certificate_is_verified(
        self, scheme: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A stranger's certificate gets neither the proxy's password nor the key."""
        context = context_for("localhost") if scheme == "https" else None
        strange = context_for("localhost", signed_by=STRANGER)
        with (
            WireServer(stream([answer_of("openai")]), context=context) as server,
            Proxy(context=strange, credentials=f"user:{PASSWORD}") as proxy,
        ):
            monkeypatch.setenv("ALL_PROXY", proxy.url)
            error, _ = ended(ask("openai", by_name(server.url, scheme=scheme)))
            assert proxy.heads == []
            assert isinstance(error, ConnectError)
            assert "verify failed" in str(error)

    @trusted
    def test_a_proxy_without_tls_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An https:// address of a proxy that speaks plain http is a mistake about the proxy."""
        with Raw(send(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", secure(proxy))
            error, _ = ended(ask("openai", "https://api.example.test/v1"))
            assert isinstance(error, ConnectError)
            assert "proxy" in str(error)


class TestProxiesThatFail:
    """All of this is before the request: it has not been sent, so each is a ConnectError."""

    @pytest.mark.parametrize(
        ("status", "retryable"), [(302, False), (403, False), (407, False), (502, True)]
    )
    @trusted
    def test_a_tunnel_that_is_refused(
        self, status: int, retryable: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A refusal is told with the proxy's status, and repeated only if that may help."""
        answer = refuse(status, b"Location: http://127.0.0.1:9/\r\n" if status == 302 else b"")
        error, proxy = self._through(answer, monkeypatch)
        assert isinstance(error, ConnectError)
        assert str(status) in str(error)
        assert "proxy" in str(error)
        assert "HTTPS_PROXY" in str(error)
        assert proxy.connections == 1
        assert error.retryable == retryable

    @pytest.mark.parametrize(
        "answer",
        [
            pytest.param(lambda client: None, id="nothing"),
            pytest.param(send(b"HTTP/1.1 200 OK\r\nX-A: b"), id="half an answer"),
            pytest.param(send(b"HTTP/1.1 200 OK\r\n\r\n"), id="the tunnel at once"),
        ],
    )
    @trusted
    def test_a_proxy_that_hangs_up(self, answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
        """A proxy that closes before the request could be sent has made no connection."""
        error, proxy = self._through(answer, monkeypatch)
        assert isinstance(error, ConnectError)
        assert error.retryable
        assert "certificate" not in str(error)
        assert proxy.connections == 1

    @pytest.mark.parametrize(
        "answer",
        [
            pytest.param(send(b"\x00\x01 garbage\r\n\r\n"), id="garbage"),
            pytest.param(send(b"<html>Hello</html>\r\n\r\n"), id="a page"),
            pytest.param(send(b"HTTP/1.1 2\r\n\r\n"), id="no status"),
            pytest.param(flood(b"HTTP/1.1 200 ", b"x" * 4096), id="an endless status line"),
            pytest.param(flood(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 4096), id="an endless header"),
        ],
    )
    @trusted
    def test_a_proxy_that_does_not_speak_http(
        self, answer: Answer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What cannot be understood came from the proxy, and the error says so."""
        error, _ = self._through(answer, monkeypatch)
        assert isinstance(error, ConnectError)
        assert "proxy" in str(error)

    @pytest.mark.parametrize(
        "answer",
        [
            pytest.param(hang, id="nothing comes"),
            pytest.param(
                drip(b"HTTP/1.1 200 ", every_s=0.02, then=b"O"), id="an endless status line drips"
            ),
            pytest.param(
                drip(b"HTTP/1.1 200 OK\r\nX: ", every_s=0.02, then=b"x"),
                id="an endless header drips",
            ),
            pytest.param(
                drip(b"HTTP/1.1 200 OK\r\n", every_s=0.01, then=b"X: y\r\n"),
                id="headers without end drip",
            ),
            pytest.param(establish_and_hang, id="the handshake hangs"),
        ],
    )
    @trusted
    def test_a_proxy_that_takes_for_ever(
        self, answer: Answer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """connect_s bounds everything up to the request, however slowly bytes keep coming."""
        error, took_s = self._in_time(answer, monkeypatch, connect_s=0.3)
        assert isinstance(error, StreamTimeout)
        assert error.phase == "connect"
        assert took_s < 0.3 + MARGIN_S

    @trusted
    def test_headers_without_end_are_not_read_for_ever(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A flood of short headers is over when connect_s is, if not before."""
        answer = flood(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 10_000)
        _, took_s = self._in_time(answer, monkeypatch, connect_s=0.3)
        assert took_s < 0.3 + MARGIN_S

    @trusted
    def test_the_tunnel_and_the_handshake_share_connect_s(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A slow tunnel leaves the handshake what is left, not another connect_s."""

        def slow(client: socket.socket) -> None:
            threading.Event().wait(0.35)
            establish_and_hang(client)

        error, took_s = self._in_time(slow, monkeypatch, connect_s=0.5)
        assert isinstance(error, StreamTimeout)
        assert error.phase == "connect"
        assert took_s < 0.5 + MARGIN_S

    def test_an_http_request_that_the_proxy_refuses(
        self, server: FakeServer, provider: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without a tunnel a 407 is an answer like another, and final."""
        with Proxy(credentials=f"user:{PASSWORD}") as proxy:
            monkeypatch.setenv("HTTP_PROXY", proxy.url.replace(PASSWORD, "wrong-" + PASSWORD))
            with pytest.raises(InvalidRequestError, match="407") as caught:
                ask(provider, server.base_url(provider), retry=RetryPolicy(backoff_s=0)).text()
            assert caught.value.status == 407
            assert PASSWORD not in str(vars(caught.value))
            assert len(proxy.heads) == 1
            assert server.requests == []

    @trusted
    def test_an_http_request_to_a_target_that_is_not_there(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The proxy's own 502 is a server's error, and may pass."""
        with Proxy() as proxy, socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            monkeypatch.setenv("HTTP_PROXY", proxy.url)
            with pytest.raises(APIError, match="502") as caught:
                ask("openai", f"http://127.0.0.1:{unused.getsockname()[1]}").text()
            assert caught.value.retryable

    @trusted
    def test_a_tunnel_that_was_given_up_is_not_gone_into(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """When the time is up in the midst of the proxy's headers, no handshake is begun any more.

        It would be one over a dead connection, and leave a socket to the garbage collector.
        """
        dripping = drip(b"HTTP/1.1 200 OK\r\nX: ", every_s=0.0005, then=b"x")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(20):
                error, _ = self._in_time(dripping, monkeypatch, connect_s=0.05)
                assert isinstance(error, StreamTimeout)
            gc.collect()
        assert [str(warning.message) for warning in caught] == []

    @staticmethod
    def _through(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> tuple[StreamError, Proxy]:
        """Ask an https provider through such a proxy; return how it ended, and the proxy."""
        with Proxy(answer=answer) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
            error, _ = ended(ask("openai", "https://api.example.test/v1"))
            assert len(proxy.heads) == 1
            assert KEY.encode() not in proxy.heads[0]
        return error, proxy

    @staticmethod
    def _in_time(
        answer: Answer, monkeypatch: pytest.MonkeyPatch, *, connect_s: float
    ) -> tuple[StreamError, float]:
        """Ask through such a proxy, with a limit; return how it ended, and after how long."""
        limits = Timeouts(connect_s=connect_s, first_token_s=connect_s + 2)
        with Proxy(answer=answer) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
            return ended(ask("openai", "https://api.example.test/v1", timeouts=limits))


class TestClosing:
    """Wherever the producer waits, close() frees its thread and its connection at once."""

    @pytest.mark.parametrize("way", ["direct", "proxy"])
    @pytest.mark.parametrize("scheme", ["http", "https"])
    @pytest.mark.parametrize("moment", ["the look-up", "the attempt", "after the look-up"])
    def test_while_the_connection_is_made(
        self, moment: str, scheme: str, way: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A connection attempt is broken off, or not even made, if nobody wants it any more.

        The listener here does not accept: what has begun would go on until connect_s is over.
        """
        begun, may_go_on = threading.Event(), threading.Event()
        look_up = socket.getaddrinfo

        def slow_look_up(host: Any, *rest: Any, **named: Any) -> Any:
            if moment == "the look-up":
                begun.set()
                assert may_go_on.wait(5)
            return look_up("127.0.0.1", *rest, **named)

        def slowed(connect: Callable[[socket.socket, Any], Any]) -> Callable[..., Any]:
            def slow_connect(sock: socket.socket, address: Any) -> Any:
                begun.set()
                if moment == "after the look-up":
                    assert may_go_on.wait(5)
                return connect(sock, address)

            return slow_connect

        with ExitStack() as stack:
            address = _unaccepting(stack)
            monkeypatch.setattr(socket, "getaddrinfo", slow_look_up)
            for name in ("connect", "connect_ex"):
                monkeypatch.setattr(socket.socket, name, slowed(getattr(socket.socket, name)))
            if way == "proxy":
                monkeypatch.setenv("ALL_PROXY", f"http://proxy.example.test:{address[1]}")
            answer = ask("openai", f"{scheme}://api.example.test:{address[1]}")
            assert begun.wait(5)
            answer.close()
            since = time.monotonic()
            may_go_on.set()
            must_be_free(answer, since, lambda: True)

    @pytest.mark.parametrize("kind", ["http proxy", "https proxy"])
    @trusted
    def test_while_the_proxy_does_not_answer(
        self, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The wait for a tunnel is broken off."""
        own = context_for("localhost") if kind == "https proxy" else None
        with Proxy(answer=hang, context=own) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
            answer = ask("openai", "https://api.example.test/v1")
            assert proxy.asked.wait(5)
            self._close(answer, lambda: proxy.clients == 0)

    @trusted
    def test_while_the_proxy_is_answering(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A proxy in the midst of its headers is left, and what it sends is not gone into."""
        answering, tick = threading.Event(), threading.Event()

        def dripping(client: socket.socket) -> None:
            client.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            answering.set()
            while True:
                client.sendall(b"x")
                tick.wait(0.0005)

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(20):
                answering.clear()
                with Proxy(answer=dripping) as proxy:
                    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
                    answer = ask("openai", "https://api.example.test/v1")
                    assert answering.wait(5)
                    self._close(answer, lambda: True)
            gc.collect()
        assert [str(warning.message) for warning in caught] == []

    @trusted
    def test_while_the_proxys_own_handshake_hangs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The TLS handshake with the proxy is broken off."""
        with Raw(hang) as silent:
            monkeypatch.setenv("HTTPS_PROXY", secure(silent))
            answer = ask("openai", "https://api.example.test/v1")
            assert silent.entered.wait(5)
            self._close(answer, lambda: silent.live == 0)

    @pytest.mark.parametrize("kind", ["http proxy", "https proxy"])
    @pytest.mark.parametrize("serve", [hang, dribble_handshake], ids=["hangs", "drips"])
    @trusted
    def test_while_the_handshake_in_the_tunnel_goes_on(
        self, kind: str, serve: Answer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The TLS handshake inside the tunnel is broken off, whether it hangs or drips."""
        own = context_for("localhost") if kind == "https proxy" else None
        with Raw(serve) as target, Proxy(context=own) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
            answer = ask("openai", secure(target))
            assert target.entered.wait(5)
            self._close(answer, lambda: proxy.clients == target.live == 0)

    @pytest.mark.parametrize("kind", ["http proxy", "https proxy"])
    @pytest.mark.parametrize("scheme", ["http", "https"])
    @pytest.mark.parametrize("part", ["headers", "body"])
    @pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
    @trusted
    def test_while_the_answer_is_waited_for(
        self, part: str, scheme: str, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The wait for the headers, and for the next bytes, is broken off behind a proxy, too."""
        context = context_for("localhost") if scheme == "https" else None
        own = context_for("localhost") if kind == "https proxy" else None
        begin = stream([answer_of("openai")[:-100]], then=Connection.wait_closed)
        respond = Connection.wait_closed if part == "headers" else begin
        with WireServer(respond, context=context) as server, Proxy(context=own) as proxy:
            monkeypatch.setenv("ALL_PROXY", proxy.url)
            answer = ask("openai", by_name(server.url, scheme=scheme))
            if part == "body":
                assert answer.wait_started(5)
            until(lambda: server.requests)
            self._close(answer, lambda: proxy.clients == 0)

    @staticmethod
    def _close(answer: TokenStream, gone: Callable[[], bool]) -> None:
        begun = time.monotonic()
        try:
            answer.close()
            must_be_free(answer, begun, gone)
        finally:
            shared_session().close()


class TestCertificates:
    @pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
    def test_a_private_authority_can_be_named(
        self, provider: str, variable: str, bundle: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What either variable names is trusted, and nothing else: not without, not before."""
        with tls_server(provider) as server:
            with pytest.raises(ConnectError):
                ask(provider, secure(server)).text()
            monkeypatch.setenv(variable, bundle)
            assert ask(provider, secure(server)).text() == "one"
            monkeypatch.delenv(variable)
            with pytest.raises(ConnectError):
                ask(provider, secure(server)).text()

    def test_a_directory_of_authorities_can_be_named(
        self, bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """REQUESTS_CA_BUNDLE may be a directory; one that has not the authority trusts nobody."""
        empty = tmp_path / "empty"
        empty.mkdir()
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(empty))
        with tls_server("openai") as server, pytest.raises(ConnectError, match="verify failed"):
            ask("openai", secure(server)).text()

    def test_ssl_cert_file_is_not_asked(self, bundle: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """SSL_CERT_FILE is OpenSSL's own and does not count: requests brings authorities along."""
        monkeypatch.setenv("SSL_CERT_FILE", bundle)
        with tls_server("openai") as server:
            with pytest.raises(ConnectError, match="REQUESTS_CA_BUNDLE"):
                ask("openai", secure(server)).text()
            assert server.requests == []

    @pytest.mark.parametrize(
        ("wrong", "why"),
        [
            ("self-signed", "self.signed"),
            ("expired", "expired"),
            ("not yet valid", "not yet valid"),
            ("another's", "ostname mismatch.*localhost"),
        ],
    )
    @trusted
    def test_a_wrong_certificate_ends_the_attempt_for_good(
        self, provider: str, wrong: str, why: str
    ) -> None:
        """A certificate that proves nothing is a ConnectError with the reason; nothing is sent."""
        with WireServer(stream([answer_of(provider)]), context=_wrong(wrong)) as server:
            policy = RetryPolicy(backoff_s=0)
            with pytest.raises(ConnectError, match=why) as caught:
                ask(provider, secure(server), retry=policy).text()
            assert not caught.value.retryable
            assert server.connections == 1
            assert server.requests == []

    @pytest.mark.parametrize(
        ("wrong", "helps"),
        [("self-signed", True), ("expired", False), ("not yet valid", False), ("another's", False)],
    )
    @trusted
    def test_the_advice_fits_the_certificate(self, wrong: str, helps: bool) -> None:
        """A bundle is no remedy for a certificate whose authority is trusted already."""
        with WireServer(stream([answer_of("openai")]), context=_wrong(wrong)) as server:
            error, _ = ended(ask("openai", secure(server)))
            assert ("REQUESTS_CA_BUNDLE" in str(error)) == helps

    @pytest.mark.parametrize(
        "serve",
        [
            pytest.param(lambda sock: sock.recv(65536), id="end"),
            pytest.param(lambda sock: None, id="reset"),  # what was not read makes it one
        ],
    )
    @trusted
    def test_a_server_that_hangs_up_in_the_handshake(self, serve: Answer) -> None:
        """A connection that breaks in the handshake is no wrong certificate, and may work again."""
        with Raw(serve) as server:
            error, _ = ended(ask("openai", secure(server)))
            assert isinstance(error, ConnectError)
            assert error.retryable
            assert "REQUESTS_CA_BUNDLE" not in str(error)


class TestSlowHandshakes:
    @pytest.mark.parametrize("way", ["direct", "http proxy", "https proxy"])
    @trusted
    def test_a_handshake_that_drips_is_bounded(
        self, way: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """connect_s bounds the whole handshake, not the wait for each of its bytes."""
        own = context_for("localhost") if way == "https proxy" else None
        with Raw(dribble_handshake) as server, Proxy(context=own) as proxy:
            if way != "direct":
                monkeypatch.setenv("HTTPS_PROXY", proxy.url)
            limits = Timeouts(connect_s=0.3, first_token_s=2)
            error, took_s = ended(ask("openai", secure(server), timeouts=limits))
            assert isinstance(error, StreamTimeout)
            assert error.phase == "connect"
            assert took_s < 0.3 + MARGIN_S
            until(lambda: server.live == 0)

    @trusted
    def test_the_proxys_own_handshake_is_bounded_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A proxy over TLS whose own handshake drips has connect_s and no more."""
        with Raw(dribble_handshake) as server:
            monkeypatch.setenv("HTTPS_PROXY", secure(server))
            limits = Timeouts(connect_s=0.3, first_token_s=2)
            error, took_s = ended(ask("openai", "https://api.example.test", timeouts=limits))
            assert isinstance(error, StreamTimeout)
            assert error.phase == "connect"
            assert took_s < 0.3 + MARGIN_S


class TestRedirects:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    @pytest.mark.parametrize("where", ["another host", "the same host", "nowhere"])
    def test_a_redirect_is_refused(
        self, server: FakeServer, provider: str, status: int, where: str
    ) -> None:
        """No redirect is followed: the second host hears nothing; the advice is to name it."""
        locations = {
            "another host": server.base_url(provider) + "/chat/completions?a=1",
            "the same host": "/elsewhere",
        }
        headers = {"Location": locations[where]} if where in locations else {}
        moved = head(status, headers, framing="5") + b"moved"
        with WireServer(lambda connection: connection.send(moved)) as first:
            answer = ask(provider, first.url, retry=RetryPolicy(backoff_s=0))
            error, _ = ended(answer)
            assert isinstance(error, ConfigurationError)
            assert f"redirects ({status})" in str(error)
            assert "base_url" in str(error)
            assert not error.retryable
            assert len(first.requests) == 1
            assert credentials_in(fields(first.requests[0])) == credentials_of(provider)
            assert answer._reader.thread is not None
            answer._reader.thread.join(5)
            assert not answer._reader.thread.is_alive()
        assert server.requests == []
        assert server.connections == 0

    @pytest.mark.parametrize(
        "location", ["http://[", "", "http://a b/", "\xff", "//", "http://:x/"]
    )
    def test_a_redirect_to_what_is_no_address(self, location: str) -> None:
        """Where a redirect leads to does not matter: it is refused as one."""
        moved = head(307, {"Location": location}, framing="0")
        with WireServer(lambda connection: connection.send(moved)) as first:
            error, _ = ended(ask("openai", first.url))
            assert isinstance(error, ConfigurationError)
            assert "redirects (307)" in str(error)

    @pytest.mark.parametrize("piece", [b"", b"x" * 65536], ids=["stalls", "floods"])
    def test_the_page_of_a_redirect_is_not_waited_for(self, piece: bytes) -> None:
        """A redirect is refused when its headers are there, however its body goes on."""
        sent = 0
        gone = threading.Event()

        def redirect(connection: Connection) -> None:
            nonlocal sent
            location = {"Location": "http://other.test/"}
            connection.send(head(307, location, framing="chunked"))
            try:
                while piece and sent < 2000:
                    connection.chunk(piece)
                    sent += 1
                connection.wait_closed()
            finally:
                gone.set()

        with WireServer(redirect) as first:
            limits = Timeouts(first_token_s=1.5)
            error, took_s = ended(ask("openai", first.url, timeouts=limits))
            assert isinstance(error, ConfigurationError)
            assert took_s < 1
            assert gone.wait(5)
        assert sent < 1000

    def test_a_session_of_ones_own_does_not_follow_either(self, server: FakeServer) -> None:
        """A session whose habit it is to follow redirects does not do it here."""
        target = {"Location": server.base_url("openai") + "/chat/completions"}
        moved = head(307, target, framing="0")
        with (
            WireServer(lambda connection: connection.send(moved)) as first,
            requests.Session() as session,
            pytest.raises(ConfigurationError, match="307"),
        ):
            ask("openai", first.url, session=session).text()
        assert server.requests == []

    def test_a_redirect_through_a_proxy_is_refused(
        self, server: FakeServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A proxy that redirects, to its log-in page for example, does not get the key there."""
        page = b"Location: " + server.url.encode() + b"/login\r\n"
        with Proxy(answer=refuse(302, page)) as proxy:
            monkeypatch.setenv("HTTP_PROXY", proxy.url)
            with pytest.raises(ConfigurationError, match="302"):
                ask("openai", "http://api.example.test").text()
            assert len(proxy.heads) == 1
        assert server.requests == []


BREAKING = [
    pytest.param("a\r\nX-B: b", id="CRLF"),
    pytest.param("a\nb", id="LF"),
    pytest.param("a\rb", id="CR"),
    pytest.param("a\x00b", id="NUL"),
    pytest.param("a\N{EURO SIGN}", id="not Latin-1"),
    pytest.param("a\udce4", id="not UTF-8"),  # as the environment gives such a byte
]


class TestArguments:
    """What would break HTTP is refused by the call itself: nothing is sent, no thread is begun."""

    @pytest.mark.parametrize("text", BREAKING)
    @pytest.mark.parametrize("place", ["name", "value", "key"])
    def test_a_header_that_would_break_the_request(
        self, server: FakeServer, provider: str, place: str, text: str
    ) -> None:
        """Neither a header's name nor its value, nor the key, can smuggle anything in."""
        places: dict[str, dict[str, Any]] = {
            "name": {"headers": {text: "a"}},
            "value": {"headers": {"X-A": text}},
            "key": {"api_key": text},
        }
        arguments = places[place]
        self._must_be_refused(server, provider, server.base_url(provider), **arguments)

    @pytest.mark.parametrize("text", ["a\r\nX-B: b", "a\nb", "a\rb", "a\N{EURO SIGN}", "a\udce4"])
    def test_a_key_in_the_environment_that_would_break_the_request(
        self, server: FakeServer, provider: str, text: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A key out of the environment is looked at like any other."""
        monkeypatch.setenv(PROVIDERS[provider].key_env[0], text)
        url = server.base_url(provider)
        error = self._must_be_refused(server, provider, url, api_key=None)
        assert PROVIDERS[provider].key_env[0] in str(error)

    @pytest.mark.parametrize(
        "headers",
        [
            {"": "a"},
            {"X A": "a"},
            {"X-A:": "a"},
            {"X-Ä": "a"},
            {b"X-A": "a"},
            {"X-A": b"a"},
            {"X-A": 1},
            {"X-A": None},
            {"X-A": " a"},
            {"X-A": "a "},
        ],
        ids=repr,
    )
    def test_a_header_that_is_none(self, server: FakeServer, headers: dict[Any, Any]) -> None:
        """Names and values are texts of the kind that HTTP has."""
        self._must_be_refused(server, "openai", server.base_url("openai"), headers=headers)

    @pytest.mark.parametrize("place", ["argument", "environment"])
    @pytest.mark.parametrize(
        "url",
        [
            *(" ", "HOST", "//HOST", "ftp://HOST", "ws://HOST", "file:///etc/passwd"),
            *("data:,x", "http:HOST", "http:///v1", "http://", " http://HOST", "http://HOST "),
            *("http://HOST/a b", "http://HOST\t", "http://HO\nST", "http://HOST\r\nX-A: b"),
            *(f"http://user:{PASSWORD}@HOST", f"http://{PASSWORD}@HOST", "http://@HOST"),
            *("http://NAME:65536", "http://NAME:99999", "http://NAME:-1", "http://NAME:port"),
            *(
                "http://NAME:0",
                "http://NAME:+80",
                "http://NAME:8 0",
                "http://[::1",
                "http://HOST?a=b",
            ),
            *("http://HOST#a", "http://HOST\x7f", "http://HOST\\@other.test"),
        ],
    )
    def test_a_base_url_that_is_none(
        self, server: FakeServer, url: str, place: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A base URL is an absolute http or https address without credentials."""
        host = server.url.partition("//")[2]
        given = url.replace("HOST", host).replace("NAME", "127.0.0.1")
        if place == "environment":
            monkeypatch.setenv(PROVIDERS["openai"].base_url_env, given)
        argument = given if place == "argument" else None
        error = self._must_be_refused(server, "openai", argument)
        assert "base_url" in str(error)
        assert PASSWORD not in str(error)

    def test_an_empty_base_url(self, server: FakeServer) -> None:
        """An empty text is a wrong address; leaving the argument out takes the default."""
        error = self._must_be_refused(server, "openai", "")
        assert "base_url" in str(error)

    @staticmethod
    def _must_be_refused(
        server: FakeServer, provider: str, url: str | None, **arguments: Any
    ) -> ConfigurationError:
        before = threading.active_count()
        with pytest.raises(ConfigurationError) as caught:
            ask(provider, url, **arguments)  # type: ignore[arg-type]
        assert threading.active_count() == before
        assert server.connections == 0
        assert caught.value.provider == provider
        return caught.value


def _unaccepting(stack: ExitStack) -> Any:
    """Return the address of a listener whose backlog is full: who connects waits for an answer."""
    listener = stack.enter_context(socket.socket())
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    for _ in range(8):
        filler = stack.enter_context(socket.socket())
        filler.setblocking(False)
        filler.connect_ex(listener.getsockname())
    return listener.getsockname()


def _wrong(how: str) -> ssl.SSLContext:
    """Return a server's TLS settings with a certificate that does not prove who it is."""
    day = datetime.timedelta(days=1)
    now = datetime.datetime.now(datetime.timezone.utc)
    if how == "expired":
        return context_for("localhost", not_before=now - 9 * day, not_after=now - day)
    if how == "not yet valid":
        return context_for("localhost", not_before=now + day, not_after=now + 9 * day)
    if how == "another's":
        return context_for("other.test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    itself = trustme.CA()
    with itself.cert_pem.tempfile() as certificate, itself.private_key_pem.tempfile() as key:
        context.load_cert_chain(certificate, key)
    return context


def _is_tls(data: bytes | bytearray) -> bool:
    """Whether bytes are TLS records from the first to the last, however the last one is cut."""
    while len(data) > 1:
        if not (data[0] in range(20, 24) and data[1] == 3):
            return False
        data = data[5 + int.from_bytes(data[3:5], "big") :]
    return True
