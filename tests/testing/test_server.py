from __future__ import annotations

import http.client
import json
import select
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from typing import Any

import pytest
import requests

from llm_sse.errors import ConfigurationError
from llm_sse.testing import (
    Action,
    FakeServer,
    RecordedRequest,
    call_tool,
    cut,
    finish,
    framing,
    hang,
    pause,
    raw,
    say,
    stall,
    status,
    think,
)
from tests.helpers import until
from tests.testing.conftest import (
    BODIES,
    KEYS,
    LAST,
    PATHS,
    TURN,
    Client,
    Post,
    http_chunks,
    mark_of_end,
    media_type,
    request_bytes,
)


class TestRefusals:
    def test_answers_a_proper_request(self, post: Post, server: FakeServer, provider: str) -> None:
        """What the real endpoint takes is taken, and the request is there to look at."""
        response = post()
        assert response.status_code == 200
        assert response.headers["Content-Type"].startswith(media_type(provider))
        assert response.headers["Transfer-Encoding"] == "chunked"
        recorded = server.requests[0]
        assert (recorded.method, recorded.provider) == ("POST", provider)
        assert recorded.path == PATHS[provider].partition("?")[0]
        assert recorded.json == BODIES[provider]
        assert recorded.outcome == "complete"

    def test_refuses_a_missing_key(self, post: Post, provider: str) -> None:
        """Without a key the answer is 401, at Google's 403; Ollama asks for none."""
        kept = {"anthropic-version": "2023-06-01"}
        expected = {"gemini": 403, "ollama": 200}.get(provider, 401)
        assert post(headers=kept).status_code == expected

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD"])
    def test_refuses_another_method(self, post: Post, method: str) -> None:
        """Only POST is allowed, and the answer says so."""
        response = post(method=method)
        assert response.status_code == 405
        assert response.headers["Allow"] == "POST"

    def test_refuses_an_unknown_path(self, post: Post) -> None:
        """A path that is nobody's is a 404."""
        response = post(path="/v1/nowhere")
        assert response.status_code == 404
        assert "/v1/nowhere" in response.text

    @pytest.mark.parametrize("data", [b"{", b"[]", b""])
    def test_refuses_malformed_json(self, post: Post, data: bytes) -> None:
        """A body that is no JSON object is a 400."""
        assert post(data=data).status_code == 400

    @pytest.mark.parametrize("provider", [name for name in PATHS if name != "ollama"])
    def test_refuses_an_empty_conversation(self, post: Post) -> None:
        """Without messages there is nothing to answer; Ollama just loads its model then."""
        changed = {"messages": [], "contents": [], "input": []}
        assert post(changed=changed).status_code == 400

    @pytest.mark.parametrize("provider", ["openai", "openai-responses", "anthropic", "ollama"])
    def test_refuses_a_missing_model(self, post: Post) -> None:
        """The model must be named in the body, where it is named there."""
        response = post(changed={"model": None})
        assert response.status_code == 400
        assert "model" in response.text

    @pytest.mark.parametrize("provider", ["anthropic"])
    @pytest.mark.parametrize("missing", ["max_tokens", "anthropic-version"])
    def test_refuses_what_only_anthropic_demands(self, post: Post, missing: str) -> None:
        """Anthropic demands max_tokens in the body and a version in the headers."""
        headers = {k: v for k, v in KEYS["anthropic"].items() if k != missing}
        response = post(headers=headers, changed={"max_tokens": None} if "_" in missing else {})
        assert response.status_code == 400
        assert missing in response.text

    @pytest.mark.parametrize("provider", ["anthropic"])
    def test_refuses_a_prefilled_answer(self, post: Post) -> None:
        """Anthropic's current models demand that the user has the last word."""
        turns = [TURN, {"role": "assistant", "content": "Well,"}]
        assert post(changed={"messages": turns}).status_code == 400

    @pytest.mark.parametrize("provider", ["anthropic", "gemini"])
    def test_takes_a_bearer_token_too(self, post: Post) -> None:
        """The vendors' newer clients send their key as a bearer token."""
        headers = {"Authorization": "Bearer any", "anthropic-version": "2026-10-21"}
        assert post(headers=headers).status_code == 200

    @pytest.mark.parametrize("provider", ["gemini"])
    def test_takes_both_versions_of_the_path(self, post: Post) -> None:
        """google-genai for Python posts below /v1, others below /v1beta."""
        path = PATHS["gemini"].replace("v1beta", "v1")
        assert post(path=path).status_code == 200

    def test_refuses_a_body_of_unknown_length(self, post: Post) -> None:
        """A chunked request is answered with 411."""
        assert post(data=iter([b"{}"])).status_code == 411


class TestFakeServer:
    def test_paces_its_deltas(self, post: Post) -> None:
        """The first token takes ttft_s, the others come at tokens_per_s."""
        with FakeServer("a b c d e", ttft_s=0.05, tokens_per_s=100, jitter=0.5) as slow:
            begun = time.monotonic()
            requests.post(
                slow.url + PATHS["openai"],
                json=BODIES["openai"],
                headers=KEYS["openai"],
                timeout=10,
            )
            assert time.monotonic() - begun >= 0.05 + 4 * 0.005

    def test_counts_connections(self, post: Post, server: FakeServer) -> None:
        """Connections are kept alive, and each request knows its own."""
        with requests.Session() as session:
            for _ in range(3):
                session.post(
                    server.url + PATHS["openai"],
                    json=BODIES["openai"],
                    headers=KEYS["openai"],
                    timeout=10,
                )
        assert [recorded.connection for recorded in server.requests] == [1, 1, 1]

    def test_a_script_can_be_given_at_once(self, post: Post) -> None:
        """What a server does for every request can be said where it is made."""
        with FakeServer(script=[say("scripted"), call_tool("f")]) as scripted:
            answer = post(server=scripted)
        assert "scripted" in answer.text

    def test_enqueued_scripts_come_first(self, post: Post, server: FakeServer) -> None:
        """A script for one request only is used up by it."""
        server.script(say("always"))
        server.enqueue(say("once"))
        assert "once" in post().text
        assert "always" in post().text

    def test_sends_a_status_with_its_headers(self, post: Post, server: FakeServer) -> None:
        """A scripted status has the provider's error body and the headers of one's choosing."""
        server.script(status(429, "slow down", headers={"Retry-After": "7"}))
        response = post()
        assert response.status_code == 429
        assert response.headers["Retry-After"] == "7"
        assert "slow down" in response.text
        assert server.requests[0].outcome == "refused"

    def test_cuts_the_connection(self, post: Post, server: FakeServer) -> None:
        """A cut body has no proper end."""
        server.script(say("one"), cut())
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            post()
        assert server.requests[0].outcome == "cut"

    def test_sends_bytes_as_they_are(self, post: Post, server: FakeServer) -> None:
        """raw() writes anything at all."""
        server.script(raw(b": anything\n\n"))
        assert ": anything\n\n" in post().text

    def test_notices_that_the_client_has_gone(self, post: Post, server: FakeServer) -> None:
        """A client that hangs up in a pause ends its answer."""
        server.script(say("one"), pause(3600))
        response = post(stream=True)
        response.close()
        assert server.requests[0].ended.wait(5)
        assert server.requests[0].outcome == "disconnected"

    def test_close_ends_live_answers(self, post: Post, server: FakeServer) -> None:
        """close() waits for nobody, and may be called again."""
        server.script(say("one"), pause(3600))
        response = post(stream=True)
        server.close()
        server.close()
        assert server.requests[0].ended.is_set()
        response.close()

    def test_serves_many_at_once(self, server: FakeServer) -> None:
        """Answers do not wait for each other."""
        server.script(pause(0.2), say("done"))
        texts: list[str] = []

        def ask() -> None:
            response = requests.post(
                server.url + PATHS["openai"],
                json=BODIES["openai"],
                headers=KEYS["openai"],
                timeout=30,
            )
            texts.append(response.text)

        threads = [threading.Thread(target=ask) for _ in range(20)]
        begun = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len([text for text in texts if "done" in text]) == 20
        assert time.monotonic() - begun < 20 * 0.2

    def test_nobody_has_to_close_it_to_exit(self) -> None:
        """A script that forgets its fake server ends all the same."""
        script = (
            "from llm_sse import stream_openai\n"
            "from llm_sse.testing import FakeServer\n"
            "server = FakeServer('fine')\n"
            "print(stream_openai('Hi', base_url=server.base_url('openai'), api_key='any').text())\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False
        )
        assert (done.returncode, done.stdout) == (0, "fine\n")

    def test_a_pipelined_request_is_no_hang_up(self, server: FakeServer) -> None:
        """Bytes that arrive in a pause are the next request, not the end of this one."""
        server.script(pause(0.05), say("done"))
        host, _, port = server.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as sock:
            sock.sendall(2 * request_bytes())
            answer = b""
            while answer.count(b"\r\n0\r\n\r\n") < 2:
                answer += sock.recv(65536)
        assert answer.count(b"HTTP/1.1 200") == 2

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            ({"ttft_s": -1}, "ttft_s"),
            ({"tokens_per_s": 0}, "tokens_per_s"),
            ({"jitter": 2}, "jitter"),
            ({"ttft_s": "1"}, "ttft_s"),
            ({"tokens_per_s": float("inf")}, "tokens_per_s"),
            ({"text": None}, "a fake provider says a str"),
            ({"port": 99999}, "99999"),
            ({"port": "http"}, "http"),
            ({"on_connect": "explode"}, "on_connect must be one of serve, ignore"),
            ({"ssl_context": True}, "ssl_context must be a server's"),
            ({"ssl_context": ssl.create_default_context()}, "ssl_context must be a server's"),
        ],
    )
    def test_refuses_what_cannot_be(self, arguments: dict[str, Any], complaint: str) -> None:
        """A pace that cannot be kept is a mistake, and so is a switch that there is not."""
        with pytest.raises(ConfigurationError, match=complaint):
            FakeServer(**arguments)

    def test_says_when_its_port_is_taken(self, server: FakeServer) -> None:
        """A port that somebody else has is named."""
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(ConfigurationError, match=str(port)):
            FakeServer(port=port)


class TestRecord:
    @pytest.mark.parametrize("how", ["chunked", "dribble"])
    def test_notes_when_each_text_delta_was_sent(self, server: FakeServer, how: Any) -> None:
        """sent_at is a time between the arrival of what was before and that of the delta."""
        server.script(framing(how), think("Hm."), say("one"), pause(0.05), say("two"))
        with Client(server, asks=False) as client:
            asked = time.monotonic()
            client.ask()
            client.until(b'"one"')
            came_first = time.monotonic()
            client.until(b'"two"')
            came_second = time.monotonic()
            client.until(b"[DONE]")
        first, second = server.requests[0].sent_at
        assert asked <= first
        assert first + 0.05 <= second
        if how == "chunked":
            assert first <= came_first
            assert second <= came_second
        assert server.requests[0].deltas_sent == 2

    def test_counts_only_what_was_sent(self, server: FakeServer) -> None:
        """A delta that has not been sent yet is not counted, also where all was made before."""
        server.script(framing("length"), say("one two"), pause(3600), say("three"))
        with Client(server) as client:
            client.until(b'" two"')
            assert server.requests[0].deltas_sent == 2

    @pytest.mark.parametrize("how", ["chunked", "bytes", "dribble"])
    def test_an_answer_is_complete_before_its_end_can_be_seen(
        self, server: FakeServer, provider: str, how: Any
    ) -> None:
        """Whoever has seen the provider's last event finds the outcome there."""
        end = mark_of_end(provider)
        server.script(framing(how), say("one"), finish(), stall())
        with Client(server, provider) as client:
            while LAST[provider] not in _text(client) or not _text(client).endswith(end):
                client.received += client.sock.recv(65536)
            assert server.requests[0].outcome == "complete"
            assert server.requests[0].ended.is_set()


def _text(client: Client) -> bytes:
    chunks, left = http_chunks(client.body)
    return b"".join(chunks) or left


class TestCloseAfter:
    def test_closes_unannounced(self, server: FakeServer) -> None:
        """With close_after each answer's connection is closed, and no header has said so."""
        with FakeServer("one", close_after=True) as closing:
            port = int(closing.url.rpartition(":")[2])
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            headers = {"Content-Type": "application/json", **KEYS["openai"]}
            connection.request("POST", PATHS["openai"], json.dumps(BODIES["openai"]), headers)
            response = connection.getresponse()
            assert response.headers["Connection"] is None
            assert b"[DONE]" in response.read()
            assert connection.sock.recv(1) == b""
            connection.close()
            assert closing.requests[0].outcome == "complete"

    def test_holds_for_refusals_too(self) -> None:
        """A complete answer is also one that says no; the switch can be used at any time."""

        def refuse(_: RecordedRequest) -> list[Action]:
            server.close_after = len(server.requests) == 2
            return [status(503)]

        with FakeServer(script=refuse) as server:
            with Client(server) as client:
                client.ask()
                assert client.rest().count(b"HTTP/1.1 503") == 2
            assert [recorded.connection for recorded in server.requests] == [1, 1]


class TestOnConnect:
    def test_ignores(self, server: FakeServer) -> None:
        """A connection that is ignored is made, and nothing is read or said on it."""
        server.on_connect = "ignore"
        with Client(server) as client:
            client.sock.settimeout(0.1)
            with pytest.raises(TimeoutError):
                client.rest()
        assert server.connections == 1
        assert server.requests == []

    @pytest.mark.skipif(not hasattr(select, "POLLRDHUP"), reason="needs POLLRDHUP")
    def test_lets_an_ignored_connection_go(self, server: FakeServer) -> None:
        """Who has been ignored and goes leaves nothing behind."""
        server.on_connect = "ignore"
        with Client(server):
            until(lambda: server._live)
        until(lambda: not server._live)

    def test_resets(self) -> None:
        """A connection that is reset was made before, whether its client says something or not."""
        with FakeServer(on_connect="reset") as server:
            for asks in (True, False):
                with Client(server, asks=asks) as client, pytest.raises(ConnectionResetError):
                    client.rest()
            assert server.connections == 2
            assert server.requests == []

    def test_can_be_switched(self, server: FakeServer) -> None:
        """What happens to the next connection can be changed at any time."""
        server.script(say("one"))
        server.on_connect = "reset"
        with Client(server) as client, pytest.raises(ConnectionResetError):
            client.rest()
        server.on_connect = "serve"
        with Client(server) as client:
            client.until(b"[DONE]")
        assert server.on_connect == "serve"
        with pytest.raises(ConfigurationError, match="on_connect must be one of"):
            server.on_connect = "fly"  # type: ignore[assignment]

    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's backlog")
    def test_is_a_black_hole(self) -> None:
        """A connection attempt gets no answer, however often it is made."""
        with FakeServer(on_connect="black_hole") as server:
            address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
            for _ in range(20):
                with socket.socket() as sock:
                    sock.settimeout(0.02)
                    with pytest.raises(TimeoutError):
                        sock.connect(address)
            assert server.connections == 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)

    def test_a_black_hole_stays_one(self, server: FakeServer) -> None:
        """No server becomes a black hole, and no black hole a server."""
        with pytest.raises(ConfigurationError, match="whole life"):
            server.on_connect = "black_hole"
        with FakeServer(on_connect="black_hole") as hole:
            with pytest.raises(ConfigurationError, match="whole life"):
                hole.on_connect = "serve"
            hole.on_connect = "black_hole"


class TestTLS:
    def test_serves_over_tls(
        self, server_context: ssl.SSLContext, client_context: ssl.SSLContext, provider: str
    ) -> None:
        """With a context its URLs are https, and connections live on."""
        with FakeServer("one", ssl_context=server_context) as server:
            assert server.url.startswith("https://127.0.0.1:")
            assert server.base_url(provider).startswith(server.url)
            with Client(server, provider, context=client_context) as client:
                client.until(b"\r\n0\r\n\r\n")
                client.ask()
                while client.received.count(b"\r\n0\r\n\r\n") < 2:
                    client.received += client.sock.recv(65536)
            assert {recorded.connection for recorded in server.requests} == {1}

    def test_a_failed_handshake_is_no_matter(
        self, server_context: ssl.SSLContext, client_context: ssl.SSLContext
    ) -> None:
        """Who does not speak TLS, or does not trust it, disturbs nobody."""
        with FakeServer("one", ssl_context=server_context) as server:
            with Client(server) as client:
                client.rest()
            with pytest.raises(ssl.SSLCertVerificationError):
                Client(server, context=ssl.create_default_context())
            with Client(server, context=client_context) as client:
                client.until(b"[DONE]")
            assert len(server.requests) == 1

    def test_a_client_that_resets_at_once_is_no_matter(
        self, server_context: ssl.SSLContext
    ) -> None:
        """A connection that is gone before its handshake begins is closed here, too."""
        with FakeServer("one", ssl_context=server_context) as server:
            for _ in range(50):
                with Client(server, asks=False) as client:
                    at_once = struct.pack("ii", 1, 0)
                    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
            until(lambda: server.connections == 50)
            until(lambda: not server._live)

    def test_close_ends_a_handshake(self, server_context: ssl.SSLContext) -> None:
        """A client that says nothing is not waited for."""
        with (
            FakeServer(ssl_context=server_context) as server,
            Client(server, asks=False) as client,
        ):
            until(lambda: server._live)
            server.close()
            assert client.rest() == b""

    @pytest.mark.parametrize("polite", [True, False])
    def test_only_a_proper_end_is_one_of_tls(
        self, server_context: ssl.SSLContext, client_context: ssl.SSLContext, polite: bool
    ) -> None:
        """Where the connection's end is the body's, TLS tells an end from a cut."""
        script: list[Action] = [say("one")] if polite else [say("one"), cut()]
        with (
            FakeServer(script=script, ssl_context=server_context, framing="close") as server,
            Client(server, context=client_context) as client,
        ):
            client.until(b'"one"')
            assert isinstance(client.sock, ssl.SSLSocket)
            client.sock.suppress_ragged_eofs = False  # type: ignore[attr-defined]
            with nullcontext() if polite else pytest.raises(ssl.SSLEOFError):
                client.rest()

    def test_resets_over_tls(
        self, server_context: ssl.SSLContext, client_context: ssl.SSLContext
    ) -> None:
        """A reset is one below TLS, too."""
        with (
            FakeServer(script=[say("one"), cut("reset")], ssl_context=server_context) as server,
            Client(server, context=client_context) as client,
            pytest.raises(ConnectionResetError),
        ):
            while socket.socket.recv(client.sock, 65536):
                pass

    def test_ignores_a_handshake(self, server_context: ssl.SSLContext) -> None:
        """An ignored connection's handshake is never answered."""
        with FakeServer(ssl_context=server_context, on_connect="ignore") as server:
            assert server.url.startswith("https:")
            with Client(server, asks=False) as client:
                client.sock.settimeout(0.1)
                with pytest.raises(TimeoutError):
                    ssl.create_default_context().wrap_socket(
                        client.sock, server_hostname="127.0.0.1"
                    )

    def test_close_ends_what_hangs(
        self, server_context: ssl.SSLContext, client_context: ssl.SSLContext
    ) -> None:
        """close() cuts a connection over TLS as it does a plain one."""
        with (
            FakeServer(script=[hang()], ssl_context=server_context) as server,
            Client(server, context=client_context) as client,
        ):
            until(lambda: server.requests)
            server.close()
            assert client.rest() == b""
