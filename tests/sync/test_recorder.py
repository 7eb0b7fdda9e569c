from __future__ import annotations

import itertools
import json
import logging
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from llm_sse import (
    RetryPolicy,
    Timeouts,
    complete_sync,
    register_provider,
    run_tools,
    stream_sync,
)
from llm_sse.errors import ConfigurationError, ConnectionLost, StreamError, StreamTimeout
from llm_sse.events import TextDelta
from llm_sse.providers import PROVIDERS, OpenAI
from llm_sse.recording import parse_recording
from llm_sse.testing import (
    FakeServer,
    call_tool,
    cut,
    fail,
    finish,
    hang,
    hang_up,
    ping,
    raw,
    say,
    stall,
    status,
)
from tests.helpers import until
from tests.sync.conftest import Ask
from tests.wire import Connection, WireServer, head, stream

KEY = "sk-proj-Q7vX2mN9pL4kT8wZ-a1b2c3d4"
NEVER = RetryPolicy(max_retries=0)
SHORT = Timeouts(first_token_s=0.2, idle_s=0.2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where to record."""
    return tmp_path / "stream.jsonl"


def lines(path: Path) -> list[dict[str, Any]]:
    """Return a recording's lines."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def body(path: Path, attempt: int = 1) -> bytes:
    """Return the bytes of an attempt's response."""
    return b"".join(
        chunk.data for chunk in parse_recording(path.read_bytes(), "f")[1][attempt - 1].chunks
    )


class TestRecord:
    def test_a_recording_tells_the_whole_story(
        self, server: FakeServer, ask: Ask, path: Path
    ) -> None:
        """The request without its key, the response's head, its bytes and its end are written."""
        server.script(say("Grüße, 世界"))
        assert ask("Wie geht's?", record=path, api_key=KEY).text() == "Grüße, 世界"
        said = lines(path)
        kinds = [line["type"] for line in said]
        assert kinds == ["recording", "request", "response", *["chunk"] * (len(said) - 4), "end"]
        request, response, end = said[1], said[2], said[-1]
        assert request["url"].startswith(server.url)
        assert json.loads(request["text"]) == server.requests[0].json
        assert response["status"] == 200
        assert response["headers"]["x-request-id"].startswith("req_fake_")
        assert (end["how"], "error" in end) == ("end_of_body", False)
        times = [line["at_s"] for line in said[1:]]
        assert times == sorted(times)
        assert KEY not in path.read_text("utf-8")

    def test_the_text_can_be_read(self, server: FakeServer, openai: Ask, path: Path) -> None:
        """Text stands in the file as text, in characters and not in numbers."""
        server.script(say("Grüße"))
        openai(record=str(path)).text()
        assert "Grüße" in path.read_text("utf-8")

    @pytest.mark.parametrize("framing", ["close", "length", "dribble", "gzip", "bytes"])
    def test_bytes_survive_every_framing(
        self, framing: Any, path: Path, openai: Ask, server: FakeServer
    ) -> None:
        """What is recorded are the body's bytes, even where a character is cut in two."""
        server.script(say("Ü€😀 " * 5))
        openai(record=path.with_name("plain")).text()
        server.framing = framing
        openai(record=path).text()
        assert body(path) == body(path.with_name("plain")).replace(b"fake-1", b"fake-2")

    def test_the_time_of_a_chunk_is_that_of_its_arrival(
        self, server: FakeServer, openai: Ask, path: Path
    ) -> None:
        """A pause of the provider's is between the times of two chunks."""
        server.script(say("one"), ping(0.15, times=1), say(" two"))
        openai(record=path).text()
        at = [line["at_s"] for line in lines(path) if line["type"] == "chunk"]
        assert max(b - a for a, b in itertools.pairwise(at)) >= 0.14

    def test_each_line_is_written_at_once(
        self, server: FakeServer, openai: Ask, path: Path
    ) -> None:
        """What the caller has seen is in the file already, and a crash cannot take it away."""
        server.script(say("one"), stall())
        with openai(record=path, api_key=KEY) as answer:
            assert next(answer) == "one"
            assert '"one' in body_so_far(path)

    def test_nobody_else_can_read_it(self, openai: Ask, path: Path) -> None:
        """The file holds the prompt, so it is its owner's alone, whatever the umask says."""
        before = os.umask(0)
        try:
            openai(record=path).text()
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_a_whole_answer_is_recorded(
        self, server: FakeServer, provider: str, path: Path
    ) -> None:
        """complete_sync records as well, and the file says what kind of answer it is."""
        fake = {"base_url": server.base_url(provider), "api_key": KEY}
        assert complete_sync("Hi", provider=provider, record=path, **fake).text
        assert lines(path)[1]["stream"] is False
        assert json.loads(body(path))

    def test_all_attempts_are_in_one_file(
        self, server: FakeServer, openai: Ask, path: Path
    ) -> None:
        """Retries and continuations follow one another, each with its own ending."""
        server.enqueue(hang_up(reset=True))
        server.enqueue(status(503, headers={"Retry-After": "0"}))
        server.enqueue(say("one two"), cut())
        server.enqueue(say(" three"))
        policy = RetryPolicy(max_retries=2, backoff_s=0, resume=True)
        assert openai(record=path, retry=policy).text() == "one two three"
        ends = [(line["attempt"], line["how"]) for line in lines(path) if line["type"] == "end"]
        assert ends == [
            (1, "connection_lost"),
            (2, "end_of_body"),
            (3, "connection_lost"),
            (4, "end_of_body"),
        ]

    def test_all_rounds_of_a_tool_loop_are_in_one_file(
        self, server: FakeServer, path: Path
    ) -> None:
        """run_tools writes its rounds one after the other, and the result that was sent."""
        server.enqueue(call_tool("shout", {"text": "hi"}))
        server.enqueue(say("It says HI."))

        def shout(text: str) -> str:
            """Say it loudly."""
            return text.upper()

        fake = {"base_url": server.base_url("openai"), "api_key": KEY}
        assert run_tools("Hi", tools=[shout], record=path, **fake).text() == "It says HI."
        asked = [line for line in lines(path) if line["type"] == "request"]
        assert [line["attempt"] for line in asked] == [1, 2]
        assert json.loads(asked[1]["text"])["messages"][-1]["content"] == "HI"

    def test_a_session_of_ones_own_is_recorded(
        self, server: FakeServer, openai: Ask, path: Path
    ) -> None:
        """Bytes that come through the caller's own session are recorded, too."""
        with requests.Session() as session:
            text = openai(record=path, session=session).text()
        assert text.split()[0].encode() in body(path)
        assert lines(path)[-1]["how"] == "left"


def body_so_far(path: Path) -> str:
    """Return the text of the chunks that are in an unfinished file."""
    return "".join(line.get("text", "") for line in lines(path) if line["type"] == "chunk")


class TestEndings:
    def test_what_the_caller_closes_is_closed(
        self, server: FakeServer, openai: Ask, path: Path
    ) -> None:
        """Leaving the loop is written as the caller's own ending."""
        server.script(say("one"), stall())
        for _ in openai(record=path):
            break
        until(lambda: lines(path)[-1]["type"] == "end")
        assert lines(path)[-1]["how"] == "closed"

    @pytest.mark.parametrize("script", [[hang()], [say("one"), stall()]], ids=["head", "body"])
    def test_a_limit_is_a_timeout(
        self, server: FakeServer, openai: Ask, path: Path, script: Any
    ) -> None:
        """A stream that the caller's clock ended says so, with or without a response."""
        server.script(*script)
        with pytest.raises(StreamTimeout):
            openai(record=path, timeouts=SHORT, retry=NEVER).text()
        until(lambda: lines(path)[-1]["type"] == "end")
        assert lines(path)[-1]["how"] == "timeout"

    @pytest.mark.parametrize(
        ("script", "how", "error"),
        [
            ([say("one"), cut("reset")], "connection_lost", "ConnectionLost: openai: the conn"),
            (
                [say("one"), cut("end")],
                "end_of_body",
                "ConnectionLost: openai: the connection ended",
            ),
            ([say("one"), fail(500, "boo")], "left", "ServerError: openai"),
            ([say("one"), raw(b"data: {\n\n"), stall()], "left", "ProtocolError: openai"),
            ([hang_up()], "connection_lost", "ConnectionLost: openai: http://127.0.0.1"),
        ],
    )
    def test_an_error_is_written_with_what_the_connection_did(
        self, script: Any, how: str, error: str, server: FakeServer, openai: Ask, path: Path
    ) -> None:
        """What became of the connection and what became of the stream are two things."""
        server.script(*script)
        with pytest.raises(StreamError):
            openai(record=path, retry=NEVER).text()
        end = lines(path)[-1]
        assert end["error"].startswith(error)
        assert end["how"] == how

    def test_an_answer_whose_body_does_not_end_has_none(
        self, server: FakeServer, openai: Ask, path: Path
    ) -> None:
        """After the provider's last event the end of the body is waited for in vain."""
        server.script(say("one"), finish(), stall())
        assert openai(record=path).text() == "one"
        until(lambda: lines(path)[-1]["type"] == "end")
        assert lines(path)[-1]["how"] == "no_end"

    def test_no_connection_is_an_ending(self, path: Path) -> None:
        """An attempt that reaches nobody is recorded with the reason."""
        with FakeServer() as server:
            url = server.base_url("openai")
        with pytest.raises(StreamError):
            stream_sync("Hi", base_url=url, api_key=KEY, record=path, retry=NEVER).text()
        assert [line["type"] for line in lines(path)] == ["recording", "request", "end"]
        assert lines(path)[-1]["how"] == "no_connection"

    def test_broken_compression_is_an_ending(self, path: Path, openai: Ask) -> None:
        """Bytes that cannot be decompressed are not in the file, but that they came is."""

        def respond(connection: Connection) -> None:
            connection.send(head(200, {"Content-Encoding": "gzip"}, framing="chunked"))
            connection.chunk(b"this is no gzip")

        respond.closes = True  # type: ignore[attr-defined]
        with WireServer(respond) as wire, pytest.raises(StreamError):
            openai(base_url=wire.url, record=path).text()
        assert lines(path)[-1]["how"] == "broken_compression"

    def test_what_is_no_http_is_an_ending(self, path: Path, openai: Ask) -> None:
        """A server of another protocol is recorded as one."""

        def respond(connection: Connection) -> None:
            connection.send(b"SSH-2.0-OpenSSH_9\r\n")

        respond.closes = True  # type: ignore[attr-defined]
        with WireServer(respond) as wire, pytest.raises(StreamError):
            openai(base_url=wire.url, record=path).text()
        assert lines(path)[-1]["how"] == "no_http"


class TestSecrets:
    def test_no_secret_gets_into_the_file(self, path: Path, provider: str) -> None:
        """A key in the headers, the prompt and any part of the response is blotted out."""
        secret = "my-own-cookie-8d7f6e5c4b3a"
        row = PROVIDERS[provider]
        encoder = row.encoder(model="m")
        event = encoder.encode(TextDelta(f"{KEY}, {secret}"))
        pieces = [event[at : at + 5] for at in range(0, len(event), 5)]
        answers = [
            stream([row.error_body(row.api_error(503, KEY))], status=503),
            stream(pieces, headers={"Set-Cookie": secret, "X-Echo": KEY, "X-Request-Id": KEY}),
        ]
        with WireServer(*answers) as wire, pytest.raises(StreamError):
            stream_sync(
                f"Is {KEY} right?",
                provider=provider,
                base_url=wire.url,
                api_key=KEY,
                headers={"Cookie": secret},
                record=path,
                retry=RetryPolicy(max_retries=1, backoff_s=0),
            ).text()
        text = path.read_text("utf-8")
        assert body(path, 2).count(b"***") == 2
        for known in (KEY, secret):
            for at in range(len(known) - 11):
                assert known[at : at + 12] not in text

    def test_secrets_in_the_body_and_the_query_stay_out(
        self, server: FakeServer, path: Path
    ) -> None:
        """What the caller's own words call a key, a token or a password is blotted out, too."""
        query = "api-version=2024-10-21&subscription-key=query%2Dsecret-1&code=query-secret-2"
        row = OpenAI("acme", model="m", query=query, body={"api_key": "row-secret-12345"})
        register_provider(row)
        mcp = {
            "type": "mcp",
            "server_label": "acme",
            "authorization": "mcp-secret-12345",
            "headers": {"Authorization": "Bearer mcp-secret-67890"},
        }
        stream_sync(
            "The api_key is what I ask about.",
            provider="acme",
            base_url=server.base_url("acme"),
            api_key=KEY,
            tools=[mcp],
            extra_body={"a": [{"clientSecret": "extra-secret-12345"}], "prompt_cache_key": "users"},
            record=path,
        ).text()
        (asked,) = server.requests
        text = path.read_text("utf-8")
        assert b"mcp-secret-67890" in asked.body
        assert "secret-" not in text
        assert "api-version=2024-10-21" in text
        sent = json.loads(lines(path)[1]["text"])
        assert sent["tools"] == [
            {**mcp, "authorization": "***", "headers": {"Authorization": "***"}}
        ]
        assert (sent["prompt_cache_key"], sent["api_key"]) == ("users", "***")
        assert sent["messages"][0]["content"] == "The api_key is what I ask about."
        assert "secret" not in repr(row)

    def test_counts_of_tokens_are_no_secret(self, path: Path, openai: Ask) -> None:
        """Headers that count tokens are what a bug report needs, and stay."""
        counts = {"x-ratelimit-remaining-tokens": "149984"}
        with (
            WireServer(stream([], status=400, headers=counts)) as wire,
            pytest.raises(StreamError),
        ):
            openai(base_url=wire.url, record=path).text()
        assert lines(path)[2]["headers"]["x-ratelimit-remaining-tokens"] == "149984"


class TestMistakes:
    def test_a_file_that_is_there_is_not_overwritten(
        self, openai: Ask, path: Path, server: FakeServer
    ) -> None:
        """A recording cannot be lost to the next one: the call itself refuses, and asks nobody."""
        path.write_text("mine")
        with pytest.raises(ConfigurationError, match="exists already, and is not overwritten"):
            openai(record=path)
        assert (path.read_text(), server.requests) == ("mine", [])

    @pytest.mark.parametrize(
        ("name", "complaint"),
        [
            ("none/here", "cannot be made: No such file or directory"),
            ("", "cannot be made: Is a directory"),
            ("a\0b", "cannot be made: embedded null byte"),
        ],
    )
    def test_a_file_that_cannot_be_made_is_a_mistake(
        self, name: str, complaint: str, openai: Ask, tmp_path: Path
    ) -> None:
        """The call itself says why."""
        with pytest.raises(ConfigurationError, match=complaint):
            openai(record=f"{tmp_path}/{name}")

    @pytest.mark.parametrize("given", [b"bytes", 1, True])
    def test_what_is_no_path_is_a_mistake(self, given: Any, openai: Ask) -> None:
        """A file descriptor or bytes are no name of a file."""
        with pytest.raises(ConfigurationError, match="record must be a path, not"):
            openai(record=given)
        with pytest.raises(ConfigurationError, match="record must be a path, not"):
            run_tools("Hi", tools=[], api_key="any", record=given)

    def test_another_mistake_leaves_no_file_behind(self, openai: Ask, path: Path) -> None:
        """The file is made when nothing else can be wrong any more."""
        with pytest.raises(ConfigurationError):
            openai(record=path, buffer_size=0)
        assert not path.exists()


class TestFullDisk:
    @pytest.mark.skipif(sys.platform == "win32", reason="needs a limit for the size of files")
    def test_an_answer_is_worth_more_than_its_recording(
        self, server: FakeServer, path: Path
    ) -> None:
        """Where no more can be written the stream goes on, the log says so, the file is no lie."""
        program = f"""
import resource
from llm_sse import stream_sync
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
fake = {{"base_url": {server.base_url("openai")!r}, "api_key": "any"}}
answer = stream_sync("Hi", record={str(path)!r}, **fake)
print(answer.text())
"""
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=True
        )
        assert done.stdout.strip().endswith("being thought of.")
        assert done.stderr.count(f"the recording {str(path)!r} is incomplete") == 1
        assert "File too large; the stream goes on" in done.stderr
        assert path.read_bytes().endswith(b"}\n")
        with pytest.raises(
            ConfigurationError, match="has no end: the recording was cut, by a full"
        ):
            FakeServer(replay=path)

    @pytest.mark.skipif(sys.platform == "win32", reason="needs a limit for the size of files")
    def test_a_disk_that_is_full_from_the_beginning_is_a_mistake(self, path: Path) -> None:
        """Where not even the first line fits the call itself says so, and leaves nothing behind."""
        program = f"""
import resource
from llm_sse import stream_sync
from llm_sse.errors import ConfigurationError
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
try:
    stream_sync("Hi", base_url="http://127.0.0.1:1", api_key="any", record={str(path)!r})
except ConfigurationError as error:
    print(error)
"""
        command = [sys.executable, "-X", "dev", "-W", "error", "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True)
        assert "cannot be made: File too large" in done.stdout
        assert (done.stderr, path.exists()) == ("", False)

    def test_a_file_that_vanishes_between_two_rounds_is_missed(
        self, server: FakeServer, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A tool loop whose recording was deleted goes on, says so, and makes no second file."""
        server.enqueue(call_tool("forget"))
        server.enqueue(say("Gone."))

        def forget() -> str:
            """Delete the recording."""
            until(lambda: lines(path)[-1]["type"] == "end")
            path.unlink()
            return "done"

        fake = {"base_url": server.base_url("openai"), "api_key": "any"}
        with caplog.at_level(logging.WARNING, "llm_sse"):
            assert run_tools("Hi", tools=[forget], record=path, **fake).text() == "Gone."
        assert "is incomplete and cannot be replayed: No such file" in caplog.text
        assert not path.exists()


class TestStreamLostTwice:
    def test_silence_between_attempts_leaves_nothing_open(
        self, server: FakeServer, openai: Ask, path: Path
    ) -> None:
        """Closing a stream that waits for its next attempt adds no second ending."""
        server.script(hang_up())
        answer = openai(record=path, retry=RetryPolicy(max_retries=5, backoff_s=30))
        next(answer.events())
        answer.close()
        until(lambda: path.read_text("utf-8").count('"end"') == 1)
        with pytest.raises(ConnectionLost):
            openai(retry=NEVER).text()
        assert parse_recording(path.read_bytes(), "f")[1][0].end.how == "connection_lost"
