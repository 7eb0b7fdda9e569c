from __future__ import annotations

import select
import ssl
import sys
import time
from contextlib import ExitStack
from typing import Any

import pytest

from llm_sse import RetryPolicy, Timeouts, stream_sync
from llm_sse.errors import (
    ConnectError,
    ConnectionLost,
    ProtocolError,
    ServerError,
    StreamError,
    StreamTimeout,
)
from llm_sse.testing import (
    Action,
    FakeServer,
    cut,
    drip_head,
    fail,
    finish,
    framing,
    hang,
    hang_up,
    page,
    pause,
    ping,
    raw,
    say,
    stall,
    status,
)
from tests.helpers import until
from tests.testing.conftest import LAST, Client, Post, http_chunks, mark_of_end

LAST_CHUNK = b"\r\n0\r\n\r\n"
#: Longer than any test; whoever does not wait for it does not take its time.
LONG_S = 3600.0
#: Long enough for anything that happens at once, on a busy machine.
SOON_S = 10.0


class TestCut:
    def test_closes(self, server: FakeServer) -> None:
        """cut() is FIN in the middle of the body: whole chunks, and no last one."""
        server.script(say("one"), cut())
        with Client(server) as client:
            chunks, left = http_chunks(client.rest()[len(client.head) + 4 :])
        assert left == b""
        assert b'"one"' in chunks[-1]
        assert server.requests[0].outcome == "cut"

    def test_resets(self, server: FakeServer) -> None:
        """cut("reset") is RST, after what was sent before it."""
        server.script(say("one"), cut("reset"))
        with Client(server) as client:
            with pytest.raises(ConnectionResetError):
                client.rest()
            assert b'"one"' in client.body
        assert server.requests[0].outcome == "cut"

    @pytest.mark.parametrize("how", ["chunked", "gzip"])
    def test_truncates(self, server: FakeServer, how: str) -> None:
        """cut("truncate") announces a chunk, and sends half of it."""
        server.script(framing(how), say("one"), cut("truncate"))  # type: ignore[arg-type]
        with Client(server) as client:
            _, left = http_chunks(client.rest()[len(client.head) + 4 :])
        announced, _, came = left.partition(b"\r\n")
        assert len(came) == int(announced, 16) // 2 > 0

    @pytest.mark.parametrize("how", ["close", "length", "dribble"])
    def test_truncates_nothing_where_there_are_no_chunks(
        self, server: FakeServer, how: str
    ) -> None:
        """Without a chunk for each event, cut("truncate") is cut()."""
        bodies = []
        for action in (cut("truncate"), cut()):
            server.script(framing(how), say("one"), action)  # type: ignore[arg-type]
            with Client(server) as client:
                client.rest()
                bodies.append(client.body.replace(b'"fake-2"', b'"fake-1"'))
        assert bodies[0] == bodies[1]

    def test_ends(self, server: FakeServer, provider: str) -> None:
        """cut("end") ends the body, not the answer; the connection lives on."""
        server.script(say("one"), cut("end"))
        with Client(server, provider) as client:
            client.until(LAST_CHUNK)
            _, left = http_chunks(client.body)
            assert left == b""
            assert LAST[provider] not in client.body
            client.ask()
            while client.received.count(LAST_CHUNK) < 2:
                client.received += client.sock.recv(65536)
        assert server.requests[0].outcome == "cut"

    def test_cuts_inside_an_event(self, server: FakeServer, provider: str) -> None:
        """With inside=True half an event is the last thing that comes, after whole ones."""
        server.script(cut(inside=True))
        with Client(server, provider) as client:
            chunks, left = http_chunks(client.rest()[len(client.head) + 4 :])
        assert left == b""
        whole, _, half = b"".join(chunks).rpartition(mark_of_end(provider))
        begin = b'{"model"' if provider == "ollama" else b"data: {"
        assert begin in whole
        assert begin in half
        assert not half.endswith(b"}")

    def test_truncates_inside_an_event(self, server: FakeServer) -> None:
        """With inside=True the truncated chunk goes on where the event stopped."""
        server.script(say("one"), cut("truncate", inside=True))
        with Client(server) as client:
            chunks, left = http_chunks(client.rest()[len(client.head) + 4 :])
        announced, _, came = left.partition(b"\r\n")
        assert len(came) == int(announced, 16) // 2
        assert not chunks[-1].endswith(b"\n\n")
        assert b"\n\n" not in came

    def test_a_cut_after_the_end_is_no_cut_of_the_answer(self, server: FakeServer) -> None:
        """What was complete stays complete."""
        server.script(say("one"), finish(), cut("reset"))
        with Client(server) as client, pytest.raises(ConnectionResetError):
            client.rest()
        assert b"[DONE]" in client.body
        assert server.requests[0].outcome == "complete"


class TestStall:
    def test_keeps_the_connection_open(self, server: FakeServer) -> None:
        """After what was said nothing comes, not even an end."""
        server.script(say("one"), stall())
        with Client(server) as client:
            client.until(b'"one"')
            client.sock.settimeout(0.1)
            with pytest.raises(TimeoutError):
                client.rest()
            assert server.requests[0].outcome is None
        assert server.requests[0].ended.wait(SOON_S)
        assert server.requests[0].outcome == "disconnected"

    def test_after_the_end_the_answer_is_complete(self, server: FakeServer) -> None:
        """A client that leaves a body that is not ended has got its answer."""
        server.script(say("one"), finish(), stall())
        with Client(server) as client:
            client.until(b"[DONE]")
            assert server.requests[0].ended.is_set()
        server.close()
        assert server.requests[0].outcome == "complete"


class TestPing:
    @pytest.mark.parametrize(
        ("provider", "sign"),
        [
            ("openai", b": ping\n\n"),
            ("anthropic", b'event: ping\ndata: {"type":"ping"}\n\n'),
            ("gemini", b": ping\n\n"),
            ("openai-responses", b'event: keepalive\ndata: {"type":"keepalive"}\n\n'),
            ("ollama", b"\n"),
        ],
    )
    def test_is_the_providers_sign_of_life(
        self, server: FakeServer, provider: str, sign: bytes
    ) -> None:
        """A ping is an event where the provider has one, a comment or an empty line elsewhere."""
        server.script(say("one"), ping(0.001, times=3), say("two"))
        with Client(server, provider) as client:
            client.until(LAST_CHUNK)
            chunks, _ = http_chunks(client.body)
        first = chunks.index(sign)
        assert chunks[first : first + 3] == [sign] * 3
        assert chunks.count(sign) == 3
        assert b"one" in chunks[first - 1]
        assert b"two" in chunks[first + 3]

    def test_takes_its_time(self, server: FakeServer) -> None:
        """Before each ping its interval passes."""
        server.script(say("one"), ping(0.05, times=3), say("two"))
        with Client(server) as client:
            client.until(LAST_CHUNK)
        first, second = server.requests[0].sent_at
        assert second - first >= 3 * 0.05

    def test_goes_on_until_the_client_goes(self, server: FakeServer) -> None:
        """Without a number pings do not end by themselves."""
        server.script(ping(0.001))
        with Client(server) as client:
            while client.body.count(b": ping") < 20:
                client.received += client.sock.recv(65536)
        assert server.requests[0].ended.wait(SOON_S)
        assert server.requests[0].outcome == "disconnected"


class TestInsteadOfAnAnswer:
    def test_hangs(self, server: FakeServer) -> None:
        """hang() takes the request and says nothing."""
        server.script(hang())
        with Client(server) as client:
            client.sock.settimeout(0.1)
            with pytest.raises(TimeoutError):
                client.rest()
            assert client.received == b""
            assert server.requests[0].json["model"] == "m"
        assert server.requests[0].ended.wait(SOON_S)
        assert server.requests[0].outcome == "disconnected"

    def test_hangs_up(self, server: FakeServer) -> None:
        """hang_up() closes without a word."""
        server.script(hang_up())
        with Client(server) as client:
            assert client.rest() == b""
        assert server.requests[0].outcome == "cut"

    def test_hangs_up_with_a_reset(self, server: FakeServer) -> None:
        """hang_up(reset=True) resets without a word."""
        server.script(hang_up(reset=True))
        with Client(server) as client, pytest.raises(ConnectionResetError):
            client.rest()
        assert client.received == b""
        assert server.requests[0].outcome == "cut"

    def test_sends_a_page(self, post: Post, server: FakeServer) -> None:
        """page() is any body of any type, and the connection lives on."""
        server.script(page("<h1>Grüße</h1>"))
        server.enqueue(page(b'{"error": "x"}', content_type="application/json", status=502))
        response = post()
        assert response.status_code == 502
        assert response.headers["Content-Type"] == "application/json"
        assert response.json() == {"error": "x"}
        response = post()
        assert response.status_code == 200
        assert response.headers["Content-Type"] == "text/html"
        assert response.content == "<h1>Grüße</h1>".encode()
        assert server.requests[1].outcome == "refused"

    def test_drips_the_head(self, server: FakeServer) -> None:
        """drip_head() lets time pass after each byte of the headers, and of nothing else."""
        server.script(drip_head(0.001), say("one"))
        with Client(server) as client:
            begun = time.monotonic()
            client.until(b"\r\n\r\n")
            assert time.monotonic() - begun >= 0.001 * (len(client.head) + 3)
            client.until(LAST_CHUNK)
        assert server.requests[0].outcome == "complete"


#: Everything that waits, and the bytes after which it does.
WAITS = [
    pytest.param((hang(),), b"", id="hang"),
    pytest.param((say("one"), stall()), b'"one"', id="stall"),
    pytest.param((say("one"), ping(LONG_S)), b'"one"', id="ping"),
    pytest.param((say("one"), pause(LONG_S)), b'"one"', id="pause"),
    pytest.param((drip_head(LONG_S),), b"H", id="drip_head"),
    pytest.param((say("one two"),), b'"one"', id="pace"),
]


@pytest.fixture(params=["http", "https"])
def contexts(
    request: pytest.FixtureRequest, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> tuple[ssl.SSLContext | None, ssl.SSLContext | None]:
    """What the server and the client need to speak, plain and over TLS."""
    return (server_context, client_context) if request.param == "https" else (None, None)


@pytest.fixture(params=["poll", "peek"])
def _way_to_see(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How the server sees that a client goes: as Linux tells it, and as the others do."""
    if request.param == "peek":
        monkeypatch.delattr(select, "POLLRDHUP", raising=False)
    elif not hasattr(select, "POLLRDHUP"):
        pytest.skip("this system has no POLLRDHUP")


def _paced(context: ssl.SSLContext | None) -> FakeServer:
    """A server with a very long time between its deltas."""
    return FakeServer(tokens_per_s=1 / LONG_S, ssl_context=context)


@pytest.mark.usefixtures("_way_to_see")
class TestWaiting:
    @pytest.mark.parametrize(("actions", "mark"), WAITS)
    def test_notices_that_the_client_goes(
        self,
        contexts: tuple[ssl.SSLContext | None, ssl.SSLContext | None],
        actions: tuple[Action, ...],
        mark: bytes,
    ) -> None:
        """Whatever the server waits for, a client that goes ends it at once."""
        with _paced(contexts[0]) as server:
            server.script(*actions)
            with Client(server, context=contexts[1]) as client:
                client.until(mark)
                until(lambda: server.requests)
            assert server.requests[0].ended.wait(SOON_S)
            assert server.requests[0].outcome == "disconnected"

    def test_notices_it_within_milliseconds(self, server: FakeServer) -> None:
        """The server does not look for a client from time to time: it is told."""
        server.script(hang())
        took_s = []
        for _ in range(10):  # a busy machine may be late, but not always
            with Client(server):
                until(lambda: server.requests)
            left = time.monotonic()
            assert server.requests[0].ended.wait(SOON_S)
            took_s.append(time.monotonic() - left)
            server.requests.clear()
        assert min(took_s) < 0.03

    @pytest.mark.parametrize(("actions", "mark"), WAITS)
    def test_close_ends_it(
        self,
        contexts: tuple[ssl.SSLContext | None, ssl.SSLContext | None],
        actions: tuple[Action, ...],
        mark: bytes,
    ) -> None:
        """close() waits for nothing that the script waits for, also not behind a next request."""
        with _paced(contexts[0]) as server:
            server.script(*actions)
            with Client(server, context=contexts[1]) as client:
                client.until(mark)
                client.ask()
                until(lambda: server.requests)
                begun = time.monotonic()
                server.close()
                assert time.monotonic() - begun < SOON_S
                assert server.requests[0].outcome == "disconnected"

    def test_a_goodbye_of_tls_is_no_request(
        self, server_context: ssl.SSLContext, client_context: ssl.SSLContext
    ) -> None:
        """A client that says goodbye in TLS before it closes has gone, too."""
        with FakeServer(script=[hang()], ssl_context=server_context) as server:
            with Client(server, context=client_context) as client:
                until(lambda: server.requests)
                client.sock.settimeout(0)
                with pytest.raises(ssl.SSLWantReadError):
                    client.sock.unwrap()  # type: ignore[attr-defined]
            if hasattr(select, "POLLRDHUP"):
                assert server.requests[0].ended.wait(SOON_S)


class TestPipelined:
    @pytest.mark.skipif(not hasattr(select, "POLLRDHUP"), reason="needs POLLRDHUP")
    def test_a_client_that_goes_is_noticed_behind_its_next_request(
        self, server: FakeServer
    ) -> None:
        """Bytes that nobody has read yet do not hide the end of the connection."""
        server.script(say("one"), stall())
        with Client(server) as client:
            client.until(b'"one"')
            client.ask()
        assert server.requests[0].ended.wait(SOON_S)

    @pytest.mark.usefixtures("_way_to_see")
    def test_a_next_request_is_no_end(self, server: FakeServer) -> None:
        """Bytes that arrive in a wait are the next request, and answered after this one."""
        server.script(say("one"), pause(0.1), say("two"))
        with Client(server) as client:
            client.ask()
            while client.received.count(b"[DONE]") < 2:
                client.received += client.sock.recv(65536)
        for recorded in server.requests:
            assert recorded.sent_at[1] - recorded.sent_at[0] >= 0.1


class TestMany:
    @pytest.mark.parametrize("on_connect", ["serve", "ignore"])
    def test_close_ends_three_hundred_connections(self, on_connect: str) -> None:
        """Three hundred connections are served at a time, and all end with the server."""
        with FakeServer(script=[say("one"), stall()]) as server, ExitStack() as stack:
            server.on_connect = on_connect  # type: ignore[assignment]
            clients = [stack.enter_context(Client(server)) for _ in range(300)]
            if on_connect == "serve":
                for client in clients:
                    client.until(b'"one"')
                assert len({recorded.connection for recorded in server.requests}) == 300
            until(lambda: server.connections == 300)
            begun = time.monotonic()
            server.close()
            assert time.monotonic() - begun < SOON_S
            assert all(recorded.ended.is_set() for recorded in server.requests)
            for client in clients:
                try:
                    client.rest()
                except ConnectionResetError:
                    assert on_connect == "ignore"  # the request was never read
            assert len(server.requests) == (300 if on_connect == "serve" else 0)


#: For each phase the limits that make it the one that takes too long, however busy the machine is.
LIMITS = {
    "connect": Timeouts(connect_s=0.2),
    "first_token": Timeouts(first_token_s=0.2),
    "idle": Timeouts(idle_s=0.2),
    None: Timeouts(),
}


def _ask(server: FakeServer, too_long: str | None = None) -> str:
    """Read an answer as users do, impatient in one phase."""
    with stream_sync(
        "Hi",
        base_url=server.base_url("openai"),
        api_key="any",
        timeouts=LIMITS[too_long],
        retry=RetryPolicy(max_retries=0),
    ) as stream:
        return stream.text()


class TestWhatOurClientSees:
    """The table of docs/how-to/testing.md, line by line."""

    @pytest.mark.parametrize(
        ("actions", "error"),
        [
            ((say("one"), cut()), ConnectionLost),
            ((say("one"), cut("reset")), ConnectionLost),
            ((say("one"), cut("truncate")), ConnectionLost),
            ((say("one"), cut("end")), ConnectionLost),
            ((say("one"), cut(inside=True)), ConnectionLost),
            ((framing("close"), say("one"), cut()), ConnectionLost),
            ((framing("length"), say("one"), cut()), ConnectionLost),
            ((framing("gzip"), say("one"), cut()), ConnectionLost),
            ((framing("gzip"), say("one"), cut("truncate")), ConnectionLost),
            ((framing("bytes"), say("one"), cut("end")), ConnectionLost),
            ((framing("dribble"), say("one"), cut()), ConnectionLost),
            ((hang_up(),), ConnectionLost),
            ((hang_up(reset=True),), ConnectionLost),
            ((say("one"), stall()), StreamTimeout),
            ((stall(),), StreamTimeout),
            ((ping(0.01),), StreamTimeout),
            ((say("one"), ping(0.01)), StreamTimeout),
            ((hang(),), StreamTimeout),
            ((drip_head(0.05),), StreamTimeout),
            ((page("<html>"),), ProtocolError),
            ((page('{"error": {"message": "no"}}', content_type="application/json"),), ServerError),
            ((page("<html>", status=502),), ServerError),
            ((status(500),), ServerError),
            ((say("one"), fail(500)), ServerError),
        ],
        ids=repr,
    )
    def test_error(
        self, server: FakeServer, actions: tuple[Action, ...], error: type[StreamError]
    ) -> None:
        """Each way to break an answer is the error that the table says, with the text before it."""
        server.script(*actions)
        text = "one" if say("one") in actions else ""
        phase = ("idle" if text else "first_token") if error is StreamTimeout else None
        with pytest.raises(error) as caught:
            _ask(server, phase)
        assert (caught.value.completion.text if caught.value.completion else "") == text
        assert getattr(caught.value, "phase", None) == phase

    @pytest.mark.parametrize(
        "actions",
        [
            (say("one"), finish(), cut("reset")),
            (say("one"), finish(), cut("truncate")),
            (say("one"), finish(), stall()),
            (say("one"), finish(), ping(0.01)),
            (say("one"), finish(), raw(b"data: {broken\n\n")),
            (drip_head(0), framing("dribble"), say("one")),
            (ping(0.01, times=3), say("one")),
        ],
        ids=repr,
    )
    def test_an_answer_is_complete(self, server: FakeServer, actions: tuple[Action, ...]) -> None:
        """What comes after the provider's last event breaks nothing."""
        server.script(*actions)
        assert _ask(server) == "one"

    @pytest.mark.parametrize("secure", [False, True])
    @pytest.mark.parametrize(
        ("on_connect", "error", "phase"),
        [
            ("reset", ConnectionLost, None),
            ("ignore", StreamTimeout, "first_token"),
            pytest.param(
                "black_hole",
                StreamTimeout,
                "connect",
                marks=pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's backlog"),
            ),
        ],
    )
    def test_connecting(
        self,
        on_connect: Any,
        error: type[StreamError],
        phase: str | None,
        secure: bool,
        server_context: ssl.SSLContext,
    ) -> None:
        """Each way to break a connection attempt is the error that the table says."""
        context = server_context if secure else None
        if secure and phase is not None:
            phase = "connect"  # of which the handshake is a part
        if secure and on_connect == "reset":
            error = ConnectError
        with (
            FakeServer(on_connect=on_connect, ssl_context=context) as server,
            pytest.raises(error) as caught,
        ):
            _ask(server, phase)
        assert getattr(caught.value, "phase", None) == phase

    def test_a_connection_that_was_closed_unannounced(self) -> None:
        """With close_after each question finds a connection, and nobody notices."""
        with FakeServer("one", close_after=True) as server:
            for _ in range(3):
                assert _ask(server) == "one"
            assert server.connections == 3
