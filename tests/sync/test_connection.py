from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import trustme

from llm_sse import Timeouts, stream_openai
from llm_sse.errors import ConnectError, StreamTimeout
from llm_sse.events import Finish
from llm_sse.sync.channel import Channel
from llm_sse.sync.connection import shared_session
from llm_sse.testing import FakeServer
from tests.helpers import until
from tests.sync.bodies import END, ONCE, ONE, ask_openai
from tests.wire import Connection, WireServer, head, stream


class TestConnecting:
    def test_a_listener_that_does_not_accept(self) -> None:
        """Where nobody answers the connection attempt, connect_s ends it."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            address = listener.getsockname()
            with _filled(address):
                limits = Timeouts(connect_s=0.1)
                with pytest.raises(StreamTimeout) as caught:
                    ask_openai(f"http://127.0.0.1:{address[1]}", timeouts=limits).text()
        assert caught.value.phase == "connect"
        assert caught.value.limit_s == 0.1

    def test_the_next_address_is_tried(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A name's address that does not answer leaves time for the next one."""
        with socket.socket() as listener, WireServer(stream([ONE, END])) as server:
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            live = ("127.0.0.1", int(server.url.rpartition(":")[2]))
            kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
            found = [(*kind, listener.getsockname()), (*kind, live)]
            with _filled(listener.getsockname()):
                monkeypatch.setattr(socket, "getaddrinfo", lambda *_: found)
                limits = Timeouts(connect_s=0.4)
                assert ask_openai("http://two.example:80", timeouts=limits).text() == "one"

    def test_a_slow_look_up_leaves_the_connection_its_time(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The look-up of a name does not count against connect_s."""
        with WireServer(stream([ONE, END])) as server:
            live = ("127.0.0.1", int(server.url.rpartition(":")[2]))
            found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", live)]
            limits: list[float | None] = []
            settimeout = socket.socket.settimeout

            def look_up(*_: object) -> list[object]:
                threading.Event().wait(0.3)
                return list(found)

            def spy(sock: socket.socket, seconds: float | None) -> None:
                limits.append(seconds)
                settimeout(sock, seconds)

            monkeypatch.setattr(socket, "getaddrinfo", look_up)
            monkeypatch.setattr(socket.socket, "settimeout", spy)
            answer = ask_openai("http://slow.example:80", timeouts=Timeouts(connect_s=0.25))
            assert answer.text() == "one"
            assert limits[0] is not None
            assert limits[0] > 0.001  # the least that is ever given

    def test_a_long_prompt_is_not_limited_by_connect_s(self) -> None:
        """connect_s ends with the connection, however long the request takes to be sent."""
        limit_s = 0.15

        def slow(connection: Connection) -> None:
            stream([ONE, END])(connection)

        class SlowServer(WireServer):
            def _serve(self, sock: socket.socket) -> None:
                hold = threading.Event()
                hold.wait(3 * limit_s)  # the request fills the buffers meanwhile
                super()._serve(sock)

        prompt = "x" * 12_000_000
        with SlowServer(slow) as server:
            answer = stream_openai(
                prompt,
                base_url=server.url,
                api_key="any",
                retry=ONCE,
                timeouts=Timeouts(connect_s=limit_s),
            )
            assert answer.text() == "one"

    def test_close_ends_a_connection_attempt(self) -> None:
        """A stream that is closed while it connects frees its thread at once."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            address = listener.getsockname()
            with _filled(address):
                answer = ask_openai(
                    f"http://127.0.0.1:{address[1]}", timeouts=Timeouts(connect_s=60)
                )
                until(lambda: answer._reader.channel._interrupt is not None)
                answer.close()
                thread = answer._reader.thread
                assert thread is not None
                thread.join(5)
                assert not thread.is_alive()

    def test_connections_are_kept_alive_by_probes(self) -> None:
        """A dead peer is noticed by the system's keep-alive probes."""

        def alive(connection: Connection) -> None:
            stream([ONE], then=Connection.wait_closed)(connection)

        with WireServer(alive) as server:
            answer = ask_openai(server.url)
            next(answer)
            probed = []
            for sock in _open_sockets():
                with sock:
                    probed.append(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1)
            assert probed.count(True) == 1
            answer.close()


class TestReuse:
    def test_a_stream_that_has_ended_leaves_its_connection_alone(
        self, server: FakeServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A close() that comes late cannot end a connection that is in the pool again."""
        interrupts: list[object] = []
        original = Channel.interrupt_with

        def spy(channel: Channel[object], interrupt: object) -> None:
            interrupts.append(interrupt)
            original(channel, interrupt)  # type: ignore[arg-type]

        monkeypatch.setattr(Channel, "interrupt_with", spy)
        ask_openai(server.base_url("openai")).text()
        assert interrupts
        for interrupt in interrupts:
            if callable(interrupt):
                interrupt()
        ask_openai(server.base_url("openai")).text()
        assert {recorded.connection for recorded in server.requests} == {1}

    def test_what_follows_the_end_is_not_looked_for_on_anothers_connection(self) -> None:
        """A connection that went back to the pool with the last bytes keeps its new owner's limits.

        The first stream's events wait for their reader while the second one uses the connection.
        """
        words = [ONE.replace(b"one", b"w%d" % number) for number in range(8)]
        b_may_end = threading.Event()

        def slowly(connection: Connection) -> None:
            body = b"".join(words) + END
            connection.send(head(200, framing=str(len(body))) + body[:200])
            assert b_may_end.wait(10)
            connection.send(body[200:])

        with WireServer(stream([b"".join(words) + END], framing="length"), slowly) as server:
            a = ask_openai(server.url, buffer_size=2)
            assert next(a) == "w0"
            b = ask_openai(server.url)
            assert next(b) == "w0"
            assert len(list(a)) == 7
            call: Any = getattr(b._reader.channel._interrupt, "__self__", None)
            assert call.sock.gettimeout() is None
            b_may_end.set()
            assert len(list(b)) == 7
            assert server.connections == 1

    def test_leaving_at_finish_keeps_the_connection(self) -> None:
        """A loop that is left at its last event has nothing to interrupt any more."""

        def ends_late(connection: Connection) -> None:
            connection.send(head(200, framing="chunked"))
            connection.chunk(ONE + END)
            threading.Event().wait(0.05)
            connection.chunk(b"")

        with WireServer(ends_late) as server:
            for _ in range(3):
                for event in ask_openai(server.url).events():
                    if isinstance(event, Finish):
                        break
            assert server.connections == 1


class TestSharedSession:
    def test_the_shared_session_keeps_no_cookies(self, server: FakeServer) -> None:
        """What one answer sets is not sent with the next question."""
        respond = stream([ONE, END], headers={"Set-Cookie": "id=1; Path=/"})
        with WireServer(respond) as wire:
            ask_openai(wire.url).text()
            ask_openai(wire.url).text()
            assert b"cookie" not in wire.requests[1].lower()
        assert len(shared_session().cookies) == 0

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
    def test_a_child_has_a_session_of_its_own(self, server: FakeServer) -> None:
        """After a fork the child neither uses its parent's connections nor hangs on its locks."""
        ask_openai(server.base_url("openai")).text()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = int(ask_openai(server.base_url("openai")).text() == "")
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert ask_openai(server.base_url("openai")).text() != ""
        assert [recorded.connection for recorded in server.requests] == [1, 2, 1]


class TestTLS:
    @pytest.fixture
    def authority(self) -> trustme.CA:
        """A certificate authority that nobody knows."""
        return trustme.CA()

    @pytest.fixture
    def url(self, authority: trustme.CA) -> Iterator[str]:
        """A server with a certificate of that authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)

        with WireServer(stream([ONE, END]), context=context) as server:
            yield server.url.replace("http://127.0.0.1", "https://localhost")

    @pytest.fixture
    def bundle(
        self, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Path:
        """A bundle with that authority, which is the one to be used."""
        bundle = tmp_path / "ca.pem"
        authority.cert_pem.write_to_path(str(bundle))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
        return bundle

    @pytest.mark.usefixtures("bundle")
    def test_streams_over_tls(self, url: str) -> None:
        """A certificate of an authority named in REQUESTS_CA_BUNDLE is trusted."""
        assert ask_openai(url).text() == "one"

    @pytest.mark.usefixtures("bundle")
    def test_a_bundle_is_read_once(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Connections share what was read: the usual bundle takes 20 ms, and 0.8 MB."""
        read: list[object] = []
        load = ssl.SSLContext.load_verify_locations

        def note(context: ssl.SSLContext, *where: Any) -> None:
            read.append(where)
            load(context, *where)

        monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", note)
        for _ in range(3):
            assert ask_openai(url).text() == "one"
            shared_session().close()  # and the connection with it
        assert len(read) == 1

    def test_a_bundle_that_was_replaced_is_read_again(
        self, authority: trustme.CA, url: str, bundle: Path
    ) -> None:
        """A process that runs for long trusts whom its bundle names now."""
        trustme.CA().cert_pem.write_to_path(str(bundle))
        with pytest.raises(ConnectError, match="REQUESTS_CA_BUNDLE"):
            ask_openai(url).text()
        bundle.unlink()
        authority.cert_pem.write_to_path(str(bundle))
        assert ask_openai(url).text() == "one"

    @pytest.mark.usefixtures("bundle")
    def test_many_threads_may_make_the_first_connections(self, url: str) -> None:
        """They wait for one context, and all of them use it."""
        with ThreadPoolExecutor(50) as pool:
            texts = list(pool.map(lambda _: ask_openai(url).text(), range(200)))
        assert texts == ["one"] * 200

    def test_a_handshake_that_hangs_is_a_connect_timeout(self) -> None:
        """connect_s holds for the TLS handshake, too."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"https://127.0.0.1:{silent.getsockname()[1]}"
            with pytest.raises(StreamTimeout) as caught:
                ask_openai(url, timeouts=Timeouts(connect_s=0.1)).text()
        assert caught.value.phase == "connect"

    def test_close_ends_a_handshake(self) -> None:
        """A stream that is closed in the middle of a handshake frees its thread."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            answer = ask_openai(f"https://127.0.0.1:{silent.getsockname()[1]}")
            connection, _ = silent.accept()
            with connection:
                connection.recv(65536)
                answer.close()
                thread = answer._reader.thread
                assert thread is not None
                thread.join(5)
                assert not thread.is_alive()

    def test_verifies_certificates(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A certificate of an unknown authority ends the attempt, for good."""
        monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
        monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
        with pytest.raises(ConnectError, match="REQUESTS_CA_BUNDLE") as caught:
            ask_openai(url).text()
        assert not caught.value.retryable


class _filled:  # noqa: N801
    """Fill a listener's backlog, so that the next connection attempt waits."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> None:
        for _ in range(8):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(self._address)
            self._sockets.append(sock)

    def __exit__(self, *_: object) -> None:
        for sock in self._sockets:
            sock.close()


def _open_sockets() -> Iterator[socket.socket]:
    """Duplicate every connected TCP socket of this process."""
    found = [name for name in os.listdir("/proc/self/fd") if _link(name).startswith("socket:")]
    for name in found:
        sock = socket.socket(fileno=os.dup(int(name)))
        if sock.type == socket.SOCK_STREAM and sock.family == socket.AF_INET:
            yield sock
        else:
            sock.close()


def _link(name: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{name}")
    except OSError:
        return ""
