from __future__ import annotations

import json
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import requests

from llm_sse import RetryPolicy, Timeouts, complete_sync, run_tools, stream_sync
from llm_sse.errors import (
    ConfigurationError,
    ConnectionLost,
    InvalidRequestError,
    ProtocolError,
    StreamError,
    StreamTimeout,
)
from llm_sse.events import Event, Retrying
from llm_sse.providers import PROVIDERS
from llm_sse.testing import (
    Action,
    FakeServer,
    call_tool,
    cut,
    fail,
    finish,
    framing,
    hang,
    hang_up,
    page,
    pause,
    ping,
    say,
    stall,
    status,
    think,
)
from tests.helpers import until
from tests.wire import Connection, WireServer, head

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what the package does at import is its own affair
    import openai

SHORT = Timeouts(first_token_s=0.15, idle_s=0.15)
ONCE = RetryPolicy(max_retries=1, backoff_s=0)

#: Scripts, each for the requests that a stream makes.
STORIES: dict[str, Sequence[Sequence[Action]]] = {
    "text": [[think("Hm."), say("Grüße, 世界 and all of you.")]],
    "tools": [[say("Wait."), call_tool("weather", {"city": "Oslo"}), call_tool("time")]],
    "byte by byte": [[framing("bytes"), say("Ü€😀")]],
    "compressed": [[framing("gzip"), say("Small.")]],
    "refused twice": [[status(503)], [status(429, "slow down", headers={"Retry-After": "0"})]],
    "refused, then answered": [[status(503)], [say("Yes.")]],
    "hung up, then answered": [[hang_up()], [say("Yes.")]],
    "cut": [[say("Half an"), cut(inside=True)]],
    "reset": [[say("Half an"), cut("reset")]],
    "cut at the end of the body": [[say("Half an"), cut("end")]],
    "failed inside": [[say("Half an"), fail(500, "broken")]],
    "silent": [[say("Half an"), stall()]],
    "silent from the beginning": [[hang()]],
    "pings only": [[ping(0.05)]],
    "no end of the body": [[say("All."), finish(), stall()]],
    "a page": [[page("<html>no</html>")]],
}


#: Those that wait for a limit, and the limits that make them wait for less.
LIMITS = {
    **dict.fromkeys(("silent", "silent from the beginning", "pings only"), SHORT),
    "no end of the body": Timeouts(idle_s=1),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where to record."""
    return tmp_path / "stream.jsonl"


def outcome(server: FakeServer, provider: str, **arguments: Any) -> tuple[list[Event], Any]:
    """Return what a stream says, and how it ends but for the numbers of ports."""
    events: list[Event] = []
    arguments = {"api_key": "any", "retry": ONCE, **arguments}
    try:
        url = server.base_url(provider)
        answer = stream_sync("Hi", provider=provider, base_url=url, **arguments)
        events.extend(map(_without_reason, answer.events()))
    except StreamError as error:
        broke = "the connection broke" in str(error)  # and was not just ended
        return events, (type(error), broke, error.request_id, error.completion)
    return events, None


def _without_reason(event: Event) -> Event:
    """Leave out of a retry how long it waits and which port it failed at."""
    return Retrying(event.attempt, 0, "") if isinstance(event, Retrying) else event


class TestReplay:
    @pytest.mark.parametrize("story", STORIES)
    def test_tells_the_same_again(
        self, story: str, server: FakeServer, provider: str, path: Path
    ) -> None:
        """Every event and the ending of a recorded stream are those of its replay."""
        for script in STORIES[story]:
            server.enqueue(*script)
        limits = {"timeouts": LIMITS.get(story, Timeouts())}
        live = outcome(server, provider, record=path, **limits)
        until(lambda: '"type":"end"' in path.read_text("utf-8").splitlines()[-1])
        with FakeServer(replay=path, replay_speed=None) as replay:
            assert outcome(replay, provider, **limits) == live
            assert len(replay.requests) == len(server.requests)

    def test_tells_a_whole_answer_again(
        self, server: FakeServer, provider: str, path: Path
    ) -> None:
        """An answer that was not streamed is replayed as it was."""
        fake = {"provider": provider, "api_key": "any"}
        live = complete_sync("Hi", base_url=server.base_url(provider), record=path, **fake)
        with FakeServer(replay=path) as replay:
            assert complete_sync("Hi", base_url=replay.base_url(provider), **fake) == live

    def test_keeps_the_time(self, server: FakeServer, path: Path) -> None:
        """A pause is as long as it was, shorter by the speed, or none at all."""
        server.script(say("one"), pause(0.4), say(" two"))
        outcome(server, "openai", record=path)
        took = []
        for speed in (1.0, 4.0, None):
            with FakeServer(replay=path, replay_speed=speed) as replay:
                begun = time.monotonic()
                assert outcome(replay, "openai")[1] is None
                took.append(time.monotonic() - begun)
        assert took[0] >= 0.38
        assert took[0] - 0.1 > took[1] >= 0.09
        assert took[2] < 0.38

    def test_after_the_last_attempt_the_first_one_follows(
        self, server: FakeServer, path: Path
    ) -> None:
        """A replay has no end: who asks again hears the same again."""
        server.enqueue(status(503))
        server.enqueue(say("Yes."))
        live = outcome(server, "openai", record=path)
        with FakeServer(replay=path, replay_speed=None) as replay:
            assert [outcome(replay, "openai") for _ in range(3)] == [live] * 3
            assert [request.outcome for request in replay.requests] == ["refused", "complete"] * 3

    def test_several_recordings_follow_one_another(
        self, server: FakeServer, tmp_path: Path
    ) -> None:
        """Files are played in their order, and those of each format by themselves."""
        server.script(lambda asked: [say(f"{asked.provider} {len(server.requests)}")])
        asked = ["openai", "anthropic", "openai"]
        paths = [tmp_path / str(number) for number in range(3)]
        for provider, file in zip(asked, paths, strict=True):
            outcome(server, provider, record=file)
        with FakeServer(replay=[str(paths[0]), *paths[1:]]) as replay:
            said = [
                stream_sync("Hi", provider=name, base_url=replay.base_url(name), api_key="a").text()
                for name in ("openai", "openai", "anthropic")
            ]
        assert said == ["openai 1", "openai 3", "anthropic 2"]

    def test_plays_a_tool_loop(self, server: FakeServer, path: Path) -> None:
        """All rounds of run_tools are one recording, and one replay."""

        def shout(text: str) -> str:
            """Say it loudly."""
            return text.upper()

        server.enqueue(call_tool("shout", {"text": "hi"}))
        server.enqueue(say("It says HI."))
        fake = {"tools": [shout], "api_key": "any"}
        live = run_tools("Hi", base_url=server.base_url("openai"), record=path, **fake)
        events = list(live.events())
        with FakeServer(replay=path) as replay:
            again = run_tools("Hi", base_url=replay.base_url("openai"), **fake)
            assert list(again.events()) == events
            assert again.messages == live.messages

    def test_plays_an_answer_that_was_taken_up(self, path: Path) -> None:
        """The request for the rest of a response that the provider kept is answered, too."""
        row = PROVIDERS["openai-responses"]
        first = b"".join(
            b"data: " + json.dumps(event).encode() + b"\n\n"
            for event in (
                {
                    "type": "response.created",
                    "sequence_number": 0,
                    "response": {"id": "resp_1", "background": True, "status": "queued"},
                },
                {
                    "type": "response.output_text.delta",
                    "sequence_number": 1,
                    "item_id": "i",
                    "output_index": 0,
                    "content_index": 0,
                    "delta": "one",
                },
            )
        )
        rest = first.split(b"\n\n")[1].replace(b"one", b" two").replace(b": 1", b": 2", 1)
        last = {"id": "resp_1", "status": "completed", "output": []}
        done = {"type": "response.completed", "sequence_number": 3, "response": last}
        second = rest + b"\n\ndata: " + json.dumps(done).encode() + b"\n\n"

        def answer(data: bytes, *, whole: bool) -> Any:
            def respond(connection: Connection) -> None:
                kind = {"Content-Type": "text/event-stream"}
                connection.send(head(200, kind, framing="chunked"))
                connection.chunk(data)
                if whole:
                    connection.chunk(b"")

            respond.closes = not whole  # type: ignore[attr-defined]
            return respond

        policy = RetryPolicy(resume=True, backoff_s=0)
        fake = {"provider": row.name, "api_key": "any", "retry": policy}
        with WireServer(answer(first, whole=False), answer(second, whole=True)) as wire:
            text = stream_sync("Hi", base_url=f"{wire.url}/v1", record=path, **fake).text()
            assert wire.requests[1].startswith(b"GET /v1/responses/resp_1")
        assert text == "one two"
        with FakeServer(replay=path) as replay:
            url = replay.base_url(row.name)
            assert stream_sync("Hi", base_url=url, **fake).text() == text
            with pytest.raises(ConnectionLost):
                stream_sync("Hi", base_url=url, provider=row.name, api_key="any").text()

    def test_replays_what_cannot_be_decompressed(self, path: Path) -> None:
        """Broken compression is a protocol error the second time, too."""

        def respond(connection: Connection) -> None:
            kind = {"Content-Encoding": "gzip", "Content-Type": "text/event-stream"}
            connection.send(head(200, kind, framing="chunked"))
            connection.chunk(b"this is no gzip")

        respond.closes = True  # type: ignore[attr-defined]
        with WireServer(respond) as wire, pytest.raises(ProtocolError, match="compression"):
            stream_sync("Hi", base_url=wire.url, api_key="any", record=path).text()
        with FakeServer(replay=path) as replay, pytest.raises(ProtocolError, match="compression"):
            stream_sync("Hi", base_url=replay.base_url("openai"), api_key="any").text()

    def test_replays_what_is_no_http(self, path: Path) -> None:
        """Another protocol is a protocol error the second time, too."""

        def respond(connection: Connection) -> None:
            connection.send(b"SSH-2.0-OpenSSH_9\r\n")

        respond.closes = True  # type: ignore[attr-defined]
        with WireServer(respond) as wire, pytest.raises(ProtocolError, match="in HTTP"):
            stream_sync("Hi", base_url=wire.url, api_key="any", record=path).text()
        with FakeServer(replay=path) as replay, pytest.raises(ProtocolError, match="in HTTP"):
            stream_sync("Hi", base_url=replay.base_url("openai"), api_key="any").text()

    def test_a_redirect_is_one_again(self, path: Path) -> None:
        """A response without a body is replayed with its status and headers."""

        def respond(connection: Connection) -> None:
            connection.send(head(307, {"Location": "https://elsewhere/v1"}, framing="0"))

        with WireServer(respond) as wire, pytest.raises(ConfigurationError) as live:
            stream_sync("Hi", base_url=wire.url, api_key="any", record=path).text()
        with FakeServer(replay=path) as replay, pytest.raises(ConfigurationError) as again:
            stream_sync("Hi", base_url=replay.base_url("openai"), api_key="any").text()
        assert str(again.value) == str(live.value)

    def test_an_answer_that_never_came_is_not_asked_for_in_silence(self, path: Path) -> None:
        """A lost connection after a refusal is one more attempt, as it was when recorded."""

        def refuse(connection: Connection) -> None:
            connection.send(head(503, framing="close"))

        def hang_up(connection: Connection) -> None:
            connection.sock.close()

        refuse.closes = hang_up.closes = True  # type: ignore[attr-defined]
        retry = RetryPolicy(max_retries=2, backoff_s=0)
        with WireServer(refuse, hang_up, refuse) as wire, pytest.raises(StreamError):
            stream_sync("Hi", base_url=wire.url, api_key="a", record=path, retry=retry).text()
        with FakeServer(replay=path) as replay:
            events, _ = outcome(replay, "openai", retry=retry)
            assert len(replay.requests) == len(events) + 1 == 3

    def test_no_connection_becomes_one_that_is_reset(self, path: Path) -> None:
        """What cannot be replayed is replayed as the nearest thing that is asked again, too."""
        with FakeServer() as server:
            pass
        events, (live, *_) = outcome(server, "openai", record=path)
        with FakeServer(replay=path) as replay:
            again, (error, *_) = outcome(replay, "openai")
        assert (again, error) == (events, ConnectionLost)
        assert live is not ConnectionLost

    def test_hangs_where_the_caller_had_closed(self, server: FakeServer, path: Path) -> None:
        """What came after a stream was left nobody knows, so nothing comes."""
        server.script(say("one two"), stall())
        for _ in stream_sync(
            "Hi", base_url=server.base_url("openai"), api_key="a", record=path, buffer_size=1
        ):
            break
        until(lambda: '"how":"closed"' in path.read_text("utf-8"))
        with FakeServer(replay=path) as replay:
            assert outcome(replay, "openai", timeouts=SHORT)[1][0] is StreamTimeout
            until(lambda: replay.requests[0].outcome == "disconnected")

    @pytest.mark.sdk
    @pytest.mark.filterwarnings("default")
    @pytest.mark.parametrize("script", [[say("Hello there.")], [say("Hello"), cut()]])
    def test_the_openai_package_is_a_client_of_a_replay(
        self, script: Any, server: FakeServer, path: Path
    ) -> None:
        """The vendor's SDK reads the recorded answer, and loses its connection where we did."""
        server.script(*script)
        events, ending = outcome(server, "openai", record=path)
        text = "".join(event.text for event in events if hasattr(event, "text"))
        heard = ""
        with (
            FakeServer(replay=path) as replay,
            openai.OpenAI(
                base_url=replay.base_url("openai"), api_key="any", max_retries=0
            ) as client,
        ):
            asked = client.chat.completions.create(
                model="any", messages=[{"role": "user", "content": "Hi"}], stream=True
            )
            failed = False
            try:
                for chunk in asked:
                    heard += "".join(choice.delta.content or "" for choice in chunk.choices)
            except Exception:
                failed = True
        assert (heard, failed) == (text, ending is not None)


class TestRefusals:
    def test_another_format_is_told_so(self, server: FakeServer, path: Path) -> None:
        """A request in a format that was not recorded is refused with what was."""
        outcome(server, "openai", record=path)
        with FakeServer(replay=path) as replay:
            with pytest.raises(InvalidRequestError, match=r"in the format openai, .* in anthropic"):
                stream_sync(
                    "Hi",
                    provider="anthropic",
                    base_url=replay.base_url("anthropic"),
                    api_key="any",
                ).text()
            assert outcome(replay, "openai")[1] is None

    def test_another_kind_of_answer_is_told_so(self, server: FakeServer, path: Path) -> None:
        """A stream cannot answer who wants the whole at once."""
        outcome(server, "openai", record=path)
        with (
            FakeServer(replay=path) as replay,
            pytest.raises(InvalidRequestError, match="replays a stream, and was asked for a whole"),
        ):
            complete_sync("Hi", base_url=replay.base_url("openai"), api_key="any")

    def test_an_unknown_path_is_told_so(self, server: FakeServer, path: Path) -> None:
        """What is nobody's endpoint is not what was recorded."""
        outcome(server, "openai", record=path)
        with (
            FakeServer(replay=path) as replay,
            pytest.raises(InvalidRequestError, match="Unknown request URL: POST /chat"),
        ):
            stream_sync("Hi", base_url=replay.url, api_key="any").text()

    def test_what_was_not_taken_up_is_not_there(self, server: FakeServer, path: Path) -> None:
        """A request for the rest of an answer is no way to get another one's beginning."""
        outcome(server, "openai-responses", record=path)
        with FakeServer(replay=path) as replay:
            answer = requests.get(f"{replay.url}/v1/responses/resp_1", timeout=10)
            said = "GET /v1/responses/resp_1 is not what was recorded next"
            assert (answer.status_code, answer.json()["error"]["message"]) == (404, said)
            assert outcome(replay, "openai-responses")[1] is None

    def test_a_script_is_stronger(self, server: FakeServer, path: Path) -> None:
        """What is enqueued comes before the replay, and a script replaces it."""
        server.script(say("recorded"))
        outcome(server, "openai", record=path)
        with FakeServer(replay=path) as replay:
            fake = {"base_url": replay.base_url("openai"), "api_key": "any"}
            replay.enqueue(say("enqueued"))
            assert stream_sync("Hi", **fake).text() == "enqueued"
            assert stream_sync("Hi", **fake).text() == "recorded"
            replay.script(say("scripted"))
            assert stream_sync("Hi", **fake).text() == "scripted"

    def test_a_format_that_nobody_knows_is_a_mistake(self, server: FakeServer, path: Path) -> None:
        """It is told when the server is made, with the formats that there are."""
        outcome(server, "openai", record=path)
        path.write_text(path.read_text("utf-8").replace('"format":"openai"', '"format":"OpenAI"'))
        with pytest.raises(ConfigurationError, match=r"knows the format 'OpenAI'; .*: openai, "):
            FakeServer(replay=path)

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            ({"replay": "/no/such/file"}, "cannot be read: No such file"),
            ({"replay": "a\0b"}, "cannot be read: embedded null byte"),
            ({"replay": 7}, "replay must be a recording's path, or a list of them"),
            ({"replay": []}, "replay needs at least one recording"),
            ({"replay": __file__}, r"test_replay.py, line 1: this is no recording of llm-sse"),
            ({"replay": __file__, "replay_speed": 0}, "replay_speed must be above 0 or None"),
            ({"replay": __file__, "replay_speed": True}, "replay_speed must be above 0 or None"),
            ({"replay": __file__, "text": "x"}, "pass no text and no script"),
            ({"replay": __file__, "script": [say("x")]}, "pass no text and no script"),
        ],
    )
    def test_refuses_what_cannot_be_played(self, arguments: dict[str, Any], complaint: str) -> None:
        """A file that is no recording is a mistake, told before the server listens."""
        with pytest.raises(ConfigurationError, match=complaint):
            FakeServer(**arguments)
