"""`llm-sse serve` as a process: what it says, whom it serves, how it ends."""

from __future__ import annotations

import http.client
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import openai
import pytest
from click.testing import CliRunner

from llm_sse.cli import cli
from llm_sse.testing import FakeServer, cut, say, stall, status
from llm_sse.web.app import Site, Target
from llm_sse.web.serve import listen
from llm_sse.web.serve import serve as run_server
from tests.helpers import until

_TOKEN = "a-token-of-a-good-length"
_KEY = "sk-secret-of-the-site"
_PROMPT = "a prompt that nobody may log"

#: The command, in a process that has some descriptors taken, or may have so many.
_MAIN = """
import os, resource
from llm_sse.cli import main
from llm_sse.web import serve
if {idle_s}:
    serve._IDLE_S = {idle_s}
if {limits}:
    resource.setrlimit(resource.RLIMIT_NOFILE, {limits})
for _ in range({taken}):
    os.open(os.devnull, os.O_RDONLY)
main()
"""
#: Where Linux lists the children of a thread.
_CHILDREN = Path(f"/proc/self/task/{os.getpid()}/children")

Serve = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def serve(server: FakeServer) -> Iterator[Serve]:
    """Start the command; it does not outlive the test."""
    started: list[subprocess.Popen[str]] = []

    def run(
        *args: str,
        ready: bool = True,
        taken: int = 0,
        limits: tuple[int, int] | None = None,
        idle_s: int | None = None,
        **env: str,
    ) -> subprocess.Popen[str]:
        keys = {"OPENAI_API_KEY": _KEY, "OPENAI_BASE_URL": server.base_url("openai")}
        code = _MAIN.format(taken=taken, limits=limits, idle_s=idle_s)
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code, "serve", "--port", "0", *args],
            env={**os.environ, **keys, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        if ready:
            assert process.stdout is not None
            vars(process)["url"] = process.stdout.readline().strip()
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def _connection(process: subprocess.Popen[str]) -> http.client.HTTPConnection:
    address = urlsplit(vars(process)["url"])
    return http.client.HTTPConnection(str(address.hostname), address.port, timeout=20)


def _ask_for_all(process: subprocess.Popen[str]) -> http.client.HTTPConnection:
    """Ask for a whole answer, as OpenAI's clients do; return where it will come."""
    connection = _connection(process)
    asked = {"model": "openai", "messages": [{"role": "user", "content": "Hi"}]}
    kind = {"Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(asked), kind)
    return connection


def _answers(process: subprocess.Popen[str]) -> bool:
    """Whether there is a place for a question, which is asked and answered."""
    answer = _get(process, "/stream?prompt=Hi")
    answer.read()
    _close(answer)
    return bool(answer.status == 200)


def _get(process: subprocess.Popen[str], path: str, **headers: str) -> Any:
    connection = _connection(process)
    connection.request("GET", path, headers={"Sec-Fetch-Site": "same-origin", **headers})
    response = connection.getresponse()
    vars(response)["connection"] = connection
    return response


def _close(response: Any) -> None:
    response.close()
    response.connection.close()


class TestCommand:
    def test_without_a_key_the_fake_answers_and_says_so(self, serve: Serve) -> None:
        """On standard error, and on the page."""
        process = serve(OPENAI_API_KEY="")
        answer = _get(process, "/api/providers")
        assert b'"fake":true' in answer.read()
        _close(answer)
        answer = _get(process, "/stream?prompt=Hi")
        assert b'data: {"token":"Server-sent"}' in answer.read()
        _close(answer)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        assert process.returncode == 0
        assert "the answers come from the built-in fake provider" in err

    @pytest.mark.parametrize(
        ("args", "said"),
        [
            (["--host", "0.0.0.0"], "it needs --token, or LLM_SSE_TOKEN"),
            (["--host", "0.0.0.0", "--token", "short"], "at least 16 characters"),
            (["--allow-origin", "*"], "an origin is a scheme and a host"),
            (["--provider", "anthropic"], "anthropic cannot be asked: set ANTHROPIC_API_KEY"),
            (["--provider", "nobody"], "unknown provider 'nobody'"),
            (["--max-streams", "0"], "--max-streams"),
        ],
    )
    def test_says_what_is_wrong(self, serve: Serve, args: list[str], said: str) -> None:
        """With exit code 2, before it listens."""
        process = serve(*args, ready=False)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out) == (2, "")
        assert said in " ".join(err.split())

    def test_says_that_an_extra_is_missing(self) -> None:
        """And how it is installed."""
        code = "import sys; sys.modules['waitress'] = None; from llm_sse.cli import main; main()"
        result = subprocess.run(
            [sys.executable, "-c", code, "serve"], capture_output=True, timeout=20, check=False
        )
        assert result.returncode == 2
        assert b'pip install "llm-sse[cli,serve]"' in result.stderr

    def test_an_address_that_is_taken(self) -> None:
        """It is said which."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(Exception, match=f"cannot listen on 127.0.0.1:{port}"):
                listen("127.0.0.1", port)

    def test_beyond_loopback_with_a_token(self, serve: Serve) -> None:
        """It listens, and asks for the token; the environment may hold it."""
        process = serve("--host", "0.0.0.0", LLM_SSE_TOKEN=_TOKEN)
        assert vars(process)["url"].startswith("http://127.0.0.1:")  # an address that reaches it
        for headers, expected in (({}, 401), ({"Authorization": f"Bearer {_TOKEN}"}, 200)):
            answer = _get(process, "/api/providers", **headers)
            assert answer.status == expected
            _close(answer)

    @pytest.mark.parametrize("keys", [{}, {"OPENAI_API_KEY": _KEY}])
    def test_runs_in_this_process(
        self, server: FakeServer, monkeypatch: pytest.MonkeyPatch, keys: dict[str, str]
    ) -> None:
        """When it has ended, no thread, no socket and no signal handler is left."""
        if keys:
            monkeypatch.setenv("OPENAI_BASE_URL", server.base_url("openai"))
        server.script(say("one"), stall())
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        question = Request(f"http://127.0.0.1:{port}/stream?prompt=Hi")
        question.add_header("Sec-Fetch-Site", "same-origin")
        seen: list[bytes] = []

        def visit() -> None:
            answer = None
            while answer is None:
                with suppress(OSError):
                    answer = urlopen(question, timeout=20)
            with answer:
                while b'"token"' not in (line := answer.readline()):
                    pass
                os.kill(os.getpid(), signal.SIGTERM)
                seen.append(line)
                seen.append(answer.read())

        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        visitor = threading.Thread(target=visit)
        visitor.start()
        names = [f"--provider={name}" for name in ("openai",) if keys]
        result = CliRunner().invoke(cli, ["serve", "--port", str(port), *names], env=keys)
        visitor.join(20)
        assert (result.exit_code, result.stdout) == (0, f"http://127.0.0.1:{port}/\n")
        assert ("built-in fake" in result.stderr) is not bool(keys)
        assert b"event: error" in seen[1]
        assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


class TestEnding:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_ends_streams_and_server(
        self, serve: Serve, server: FakeServer, number: signal.Signals
    ) -> None:
        """The reader gets an error as the last event, the provider is left, the exit code is 0."""
        server.script(say("one"), stall())
        process = serve()
        answer = _get(process, "/stream?prompt=Hi")
        while b"one" not in answer.readline():
            pass
        process.send_signal(number)
        assert b"event: error" in answer.read()
        _close(answer)
        _, err = process.communicate(timeout=20)
        assert process.returncode == 0
        assert "Traceback" not in err
        until(server.requests[0].ended.is_set)

    def test_a_signal_ends_a_whole_answer(self, serve: Serve, server: FakeServer) -> None:
        """Who waits for all of it is told that it broke off, and not that the site is broken."""
        server.script(say("one"), stall())
        process = serve()
        with closing(_ask_for_all(process)) as client:
            until(lambda: server.requests)
            process.send_signal(signal.SIGTERM)
            answer = client.getresponse()
            assert (answer.status, json.load(answer)["error"]["code"]) == (503, "incomplete")

    def test_the_interpreter_is_left_as_it_was(self) -> None:
        """While it serves, threads ask for the interpreter less often; and not any longer."""
        before, seen = sys.getswitchinterval(), []
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

        def ready() -> None:
            seen.append(sys.getswitchinterval())
            raise KeyboardInterrupt

        site = Site([Target(name="any", model="any", arguments={"api_key": "any"})])
        with listen("127.0.0.1", 0) as listener:
            run_server(site, listener, ready)
        assert seen == [pytest.approx(0.1)]
        assert sys.getswitchinterval() == before
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers

    @pytest.mark.parametrize("script", [[say("one")], []])
    def test_a_reader_who_leaves_ends_the_providers_stream(
        self, serve: Serve, server: FakeServer, script: list[Any]
    ) -> None:
        """Its place is free again, also where it left before the first token."""
        server.script(*script, stall())
        process = serve("--max-streams", "1", "--grace-s", "0.2")
        answer = _get(process, "/stream?prompt=Hi")
        while (b"one" if script else b"connected") not in answer.readline():
            pass
        full = _get(process, "/stream?prompt=Hi")
        assert (full.status, full.headers["Retry-After"]) == (429, "5")
        _close(full)
        _close(answer)
        until(server.requests[0].ended.is_set)
        server.script(say("two"))
        until(lambda: _answers(process))

    @pytest.mark.skipif(not _CHILDREN.exists(), reason="the system does not list children")
    def test_it_is_one_process(self, serve: Serve, server: FakeServer) -> None:
        """So its limits are those of the whole site."""
        server.script(say("one"), stall())
        process = serve("--max-streams", "2")
        answers = [_get(process, "/stream?prompt=Hi") for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]
        tasks = Path(f"/proc/{process.pid}/task").iterdir()
        assert not [task for task in tasks if (task / "children").read_text()]
        for answer in answers:
            _close(answer)
        process.terminate()
        process.communicate(timeout=20)

    def test_many_readers_get_every_token_in_order(self, serve: Serve, server: FakeServer) -> None:
        """As many as there may be, at once."""
        words = [f"w{number} " for number in range(50)]
        server.script(*map(say, words))
        process = serve("--max-streams", "200", "--max-streams-per-client", "200")
        got: list[bytes] = []

        def read() -> None:
            answer = _get(process, "/stream?prompt=Hi&format=text")
            got.append(answer.read())
            _close(answer)

        readers = [threading.Thread(target=read) for _ in range(200)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(40)
        assert got == ["".join(words).encode()] * 200


class TestDescriptors:
    def test_there_may_be_more_than_select_can_take(self, serve: Serve) -> None:
        """Descriptors above 1023 are like the others."""
        process = serve(OPENAI_API_KEY="", taken=1100, limits=(2000, 2000))
        answer = _get(process, "/stream?prompt=Hi")
        assert b"[DONE]" in answer.read()
        _close(answer)

    def test_takes_as_many_as_its_streams_need(self, serve: Serve) -> None:
        """The soft limit is raised; where the hard one is too low, it says so at once."""
        process = serve("--max-streams", "400", OPENAI_API_KEY="", limits=(256, 2000))
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (1764, 2000)
        process = serve("--max-streams", "400", ready=False, limits=(256, 1000))
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out) == (2, "")
        assert "max_streams=400 needs 1764 file descriptors" in " ".join(err.split())


class TestConnections:
    def test_idle_ones_of_an_address_do_not_stop_the_others(
        self, serve: Serve, server: FakeServer
    ) -> None:
        """Those beyond its share are closed at once, the others stay as long as they may."""
        process = serve("--max-streams", "64", "--max-streams-per-client", "4", idle_s=3600)
        address = urlsplit(vars(process)["url"])
        where = (str(address.hostname), address.port or 0)
        with ExitStack() as stack:
            idle = [stack.enter_context(socket.create_connection(where, 20)) for _ in range(300)]
            share = 2 * 4 + 32
            assert [one.recv(1) for one in idle[share:]] == [b""] * (300 - share)
            assert select.select(idle[:share], [], [], 0)[0] == []
            other = stack.enter_context(socket.socket())
            other.bind(("127.0.0.2", 0))
            other.settimeout(20)
            other.connect(where)
            other.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert other.recv(15) == b"HTTP/1.1 200 OK"

    def test_one_that_says_nothing_is_closed_soon(self, serve: Serve) -> None:
        """It takes nobody's place for long."""
        address = urlsplit(vars(serve(idle_s=2))["url"])
        where = (str(address.hostname), address.port or 0)
        with socket.create_connection(where, 20) as idle:
            assert idle.recv(1) == b""

    def test_who_waits_for_a_whole_answer_and_leaves_ends_it(
        self, serve: Serve, server: FakeServer
    ) -> None:
        """Nothing is written before it is there; the place is free again all the same."""
        server.script(say("one"), stall())
        process = serve("--max-streams", "1")
        with closing(_ask_for_all(process)):
            until(lambda: server.requests)
        until(server.requests[0].ended.is_set)
        assert server.requests[0].outcome == "disconnected"
        server.script(say("two"))
        until(lambda: _answers(process))


class TestSecrets:
    def test_no_log_has_them(self, serve: Serve, server: FakeServer) -> None:
        """Neither the key, nor the token, nor a prompt, whatever goes wrong."""
        process = serve("--token", _TOKEN)
        query = "prompt=" + _PROMPT.replace(" ", "%20")
        known = {"Authorization": f"Bearer {_TOKEN}"}
        quoted = status(400, f"Invalid prompt: {_PROMPT}\nFAKE LINE\x1b[2J")
        scripts = ([status(401, f"no {_KEY}")], [say("one"), cut()], [say("whole")], [quoted])
        for script in scripts:
            server.script(*script)
            for path in (f"/stream?{query}", f"/stream?{query}&token={_TOKEN}&max_tokens=x"):
                answer = _get(process, path, **known)
                answer.read()
                _close(answer)
        answer = _get(process, f"/stream?{query}", Authorization=f"Basic {_TOKEN}")
        assert answer.status == 401
        _close(answer)
        process.terminate()
        out, err = process.communicate(timeout=20)
        assert "AuthenticationError: openai, status 401" in err
        assert "InvalidRequestError: openai, status 400" in err
        for secret in (_KEY, _TOKEN, "nobody may log", "nobody%20may", "FAKE LINE", "\x1b"):
            assert secret not in out + err


@pytest.mark.sdk
class TestOpenAIsOwnClient:
    def test_streams_and_asks_whole(self, serve: Serve, server: FakeServer) -> None:
        """The token is its key; errors are its own exceptions."""
        url = vars(serve("--token", _TOKEN))["url"]
        messages: Any = [{"role": "user", "content": "Hi"}]
        server.script(say("one two"))
        with openai.OpenAI(base_url=f"{url}v1", api_key=_TOKEN, max_retries=0) as sdk:
            assert "openai" in [row.id.partition("/")[0] for row in sdk.models.list()]
            whole = sdk.chat.completions.create(model="openai", messages=messages)
            assert whole.choices[0].message.content == "one two"
            assert whole.usage is not None
            with sdk.chat.completions.create(
                model="openai",
                messages=messages,
                stream=True,
                stream_options={"include_usage": True},
            ) as chunks:
                read = list(chunks)
            told = [chunk.choices[0].delta.content or "" for chunk in read if chunk.choices]
            assert "".join(told) == "one two"
            assert read[-1].usage is not None
            server.script(say("one"), cut())
            with pytest.raises(openai.APIError, match="The model's answer broke off"):
                list(sdk.chat.completions.create(model="openai", messages=messages, stream=True))
            with pytest.raises(openai.BadRequestError, match="unknown field `seed`"):
                sdk.chat.completions.create(model="openai", messages=messages, seed=1)
        with (
            openai.OpenAI(base_url=f"{url}v1", api_key="wrong", max_retries=0) as sdk,
            pytest.raises(openai.AuthenticationError),
        ):
            sdk.chat.completions.create(model="openai", messages=messages)
        until(lambda: all(request.ended.is_set() for request in server.requests))
