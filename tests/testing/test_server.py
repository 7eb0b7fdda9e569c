from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
import requests

from llm_sse.errors import ConfigurationError
from llm_sse.testing import (
    FakeServer,
    call_tool,
    cut,
    pause,
    raw,
    say,
    status,
)
from tests.testing.conftest import BODIES, KEYS, PATHS, TURN, Post


class TestRefusals:
    def test_answers_a_proper_request(self, post: Post, server: FakeServer, provider: str) -> None:
        """What the real endpoint takes is taken, and the request is there to look at."""
        response = post()
        assert response.status_code == 200
        assert response.headers["Content-Type"].startswith("text/event-stream")
        assert response.headers["Transfer-Encoding"] == "chunked"
        recorded = server.requests[0]
        assert (recorded.method, recorded.provider) == ("POST", provider)
        assert recorded.path == PATHS[provider].partition("?")[0]
        assert recorded.json == BODIES[provider]
        assert recorded.outcome == "complete"

    def test_refuses_a_missing_key(self, post: Post, provider: str) -> None:
        """Without a key the answer is 401, at Google's 403."""
        kept = {"anthropic-version": "2023-06-01"}
        assert post(headers=kept).status_code == (403 if provider == "gemini" else 401)

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

    def test_refuses_an_empty_conversation(self, post: Post) -> None:
        """Without messages there is nothing to answer."""
        assert post(changed={"messages": [], "contents": []}).status_code == 400

    @pytest.mark.parametrize("provider", ["openai", "anthropic"])
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

    def test_refuses_a_request_that_is_no_stream(self, post: Post, provider: str) -> None:
        """The fake only streams, and says so."""
        path = PATHS[provider].replace("streamGenerateContent", "generateContent")
        response = post(path=path, changed={"stream": False})
        assert response.status_code == 400
        assert "stream" in response.text

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
        request = requests.Request(
            "POST", server.url + PATHS["openai"], json=BODIES["openai"], headers=KEYS["openai"]
        ).prepare()
        lines = [f"{name}: {value}" for name, value in request.headers.items()]
        assert isinstance(request.body, bytes)
        once = "\r\n".join([f"POST {request.path_url} HTTP/1.1", "Host: fake", *lines, "", ""])
        host, _, port = server.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as sock:
            sock.sendall(2 * (once.encode() + request.body))
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
        ],
    )
    def test_refuses_an_impossible_pace(self, arguments: dict[str, Any], complaint: str) -> None:
        """A pace that cannot be kept is a mistake."""
        with pytest.raises(ConfigurationError, match=complaint):
            FakeServer(**arguments)

    def test_says_when_its_port_is_taken(self, server: FakeServer) -> None:
        """A port that somebody else has is named."""
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(ConfigurationError, match=str(port)):
            FakeServer(port=port)
