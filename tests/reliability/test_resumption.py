"""After a cut the text goes on where it stopped, if the caller asked for that."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

from llm_sse import RetryPolicy, stream_with_retry
from llm_sse.chat import HTTPRequest
from llm_sse.errors import ConnectionLost, ServerError
from llm_sse.events import Event, Finish, Resumed, TextDelta, ToolCall
from llm_sse.providers import PROVIDERS
from llm_sse.providers.base import end_of_body, then_raise
from llm_sse.providers.openai import OpenAI
from llm_sse.sse import ServerSentEvent, encode_sse
from llm_sse.testing import FakeServer, RecordedRequest, call_tool, cut, fail, say, status, think
from llm_sse.testing.script import Action
from tests.helpers import FORMATS
from tests.reliability.asking import ask, read
from tests.sync.bodies import ask_openai
from tests.wire import Connection, WireServer, stream

TEXT = "one two three four five six seven eight nine ten eleven twelve"
WORDS = TEXT.split()
RESUME = RetryPolicy(backoff_s=0, resume=True)


def partial(request: RecordedRequest) -> str:
    """Return what a request says had arrived."""
    found = re.search(r"<partial_answer>(.*)</partial_answer>", repr(request.json), re.DOTALL)
    return found[1] if found else ""


def teller(
    *endings: Action, repeats: int = 0, per_attempt: int = 4
) -> Callable[[RecordedRequest], Sequence[Action]]:
    """Tell TEXT on from what had arrived, some words at a time, each attempt with an ending.

    Args:
        endings: How the attempts end, one after the other; after those they are complete.
        repeats: How many words a continuation says again.
        per_attempt: How many words an attempt says before it ends early.
    """
    left = list(endings)

    def tell(request: RecordedRequest) -> Sequence[Action]:
        said = partial(request)
        assert TEXT.startswith(said)
        at = len(said.split())
        start = max(0, at - repeats)
        if not left:
            return [say(_words(start, len(WORDS)))]
        return [say(_words(start, at + per_attempt)), left.pop(0)]

    return tell


def _words(start: int, end: int) -> str:
    return " " * (start > 0) + " ".join(WORDS[start:end])


@pytest.fixture(params=FORMATS)
def provider(request: pytest.FixtureRequest) -> str:
    """The name of each provider in turn."""
    name: str = request.param
    return name


class TestContinuation:
    @pytest.mark.parametrize(
        "ending",
        [cut(), cut(inside=True), cut("reset"), cut("end"), cut("truncate"), fail(529), fail(500)],
        ids=repr,
    )
    def test_the_text_goes_on(self, server: FakeServer, provider: str, ending: Action) -> None:
        """Whatever broke it, the whole text arrives, once and in order."""
        server.script(teller(ending, ending))
        answer = ask(server, provider, retry=RESUME)
        assert answer.text() == TEXT
        assert answer.completion.finish_reason == "stop"
        assert len(server.requests) == 3

    @pytest.mark.parametrize("repeats", [2, 3, 4])
    def test_what_is_repeated_is_removed(
        self, server: FakeServer, provider: str, repeats: int
    ) -> None:
        """A continuation that begins a few words back says nothing twice."""
        server.script(teller(cut(), cut(), repeats=repeats))
        assert ask(server, provider, retry=RESUME).text() == TEXT

    def test_the_seam_is_visible(self, server: FakeServer, provider: str) -> None:
        """An event stands where the parts meet: how many characters in, and why."""
        server.script(teller(cut()))
        events = list(ask(server, provider, retry=RESUME).events())
        (seam,) = (event for event in events if isinstance(event, Resumed))
        before = events[: events.index(seam)]
        said = "".join(event.text for event in before if isinstance(event, TextDelta))
        assert said == "one two three four"
        assert (seam.attempt, seam.offset_chars) == (1, len(said))
        assert provider in seam.error

    def test_the_partial_answer_travels_in_a_user_turn(
        self, server: FakeServer, provider: str
    ) -> None:
        """The new request holds the question and what had arrived, and ends with the user."""
        server.script(teller(cut()))
        assert ask(server, provider, retry=RESUME).text() == TEXT
        first, second = (request.json for request in server.requests)
        turns = {"gemini": "contents", "openai-responses": "input"}.get(provider, "messages")
        assert "Hi" in repr(first[turns])
        assert "Hi" in repr(second[turns])
        assert {turn["role"] for turn in second[turns]} == {"user"}
        assert partial(server.requests[1]) == "one two three four"

    def test_usage_is_summed(self) -> None:
        """What all attempts cost is what the answer cost."""
        usage = '"usage":{"prompt_tokens":%d,"completion_tokens":%d}'
        first = b'data: {"choices":[{"delta":{"content":"one"}}],%s}\n\n'
        last = b'data: {"choices":[{"delta":{"content":" two"},"finish_reason":"stop"}],%s}\n\n'
        bodies = [
            stream([first % (usage % (10, 1)).encode()], then=lambda connection: None),
            stream([last % (usage % (30, 2)).encode(), b"data: [DONE]\n\n"]),
        ]
        with WireServer(*bodies) as server:
            completion = ask_openai(server.url, retry=RESUME).completion
        assert completion.text == "one two"
        assert completion.usage is not None
        assert (completion.usage.input_tokens, completion.usage.output_tokens) == (40, 3)

    def test_usage_of_a_part_is_no_rate(self) -> None:
        """What was cut before it told its usage is missing in the count, and the metrics say so."""
        first = b'data: {"choices":[{"delta":{"content":"one"}}]}\n\n'
        last = (
            b'data: {"choices":[{"delta":{"content":" two"},"finish_reason":"stop"}],'
            b'"usage":{"prompt_tokens":30,"completion_tokens":2}}\n\n'
        )
        bodies = [
            stream([first], then=lambda connection: None),
            stream([last, b"data: [DONE]\n\n"]),
        ]
        with WireServer(*bodies) as server:
            answer = ask_openai(server.url, retry=RESUME)
            assert answer.text() == "one two"
        assert answer.completion.usage is not None
        assert answer.completion.usage.output_tokens == 2
        metrics = answer.metrics
        assert (metrics.attempts, metrics.resumes, metrics.output_tokens) == (2, 1, 2)
        assert (metrics.output_tokens_per_s, metrics.tokens_per_s) == (None, None)

    def test_a_refusal_between_two_parts_is_retried(
        self, server: FakeServer, provider: str
    ) -> None:
        """A continuation has retries of its own before its first content."""
        refusals = [status(503), status(429), None]
        tell = teller(cut())

        def moody(request: RecordedRequest) -> Sequence[Action]:
            refusal = refusals.pop(0) if partial(request) else None
            return [refusal] if refusal else tell(request)

        server.script(moody)
        assert ask(server, provider, retry=RESUME).text() == TEXT
        assert len(server.requests) == 4


class TestLimits:
    def test_without_being_asked_nothing_is_resumed(
        self, server: FakeServer, provider: str
    ) -> None:
        """A continuation costs money and may differ: it is the caller's to want it."""
        server.script(teller(cut()))
        deltas, error = read(ask(server, provider, retry=RetryPolicy(backoff_s=0)))
        assert type(error) is ConnectionLost
        assert "".join(deltas) == "one two three four"

    def test_at_most_so_often(self, server: FakeServer, provider: str) -> None:
        """After max_resumes the error comes, with everything that had arrived."""
        server.script(teller(*[cut()] * 9, per_attempt=2))
        policy = RetryPolicy(backoff_s=0, resume=True, max_resumes=2)
        deltas, error = read(ask(server, provider, retry=policy))
        assert type(error) is ConnectionLost
        assert "".join(deltas) == error.completion.text == "one two three four five six"
        assert len(server.requests) == 3

    def test_not_after_a_tool_call(self, server: FakeServer, provider: str) -> None:
        """A call that had begun cannot be begun a second time."""
        server.script(say("I ask"), call_tool("look", {"at": "it"}), cut())
        deltas, error = read(ask(server, provider, retry=RESUME))
        assert type(error) is ConnectionLost
        assert deltas
        assert [call.name for call in error.completion.tool_calls] == ["look"]
        assert len(server.requests) == 1

    def test_not_after_an_error_that_stays(self, server: FakeServer, provider: str) -> None:
        """What the provider will not do, it will not do the second time either."""
        server.script(say("one"), fail(400))
        read(ask(server, provider, retry=RESUME))
        assert len(server.requests) == 1

    def test_reasoning_alone_is_asked_anew(self, server: FakeServer, provider: str) -> None:
        """Where nothing visible had arrived, the question itself is repeated."""
        server.enqueue(think("Hm, let me see."), cut())
        server.script(say("fine"))
        answer = ask(server, provider, retry=RESUME)
        assert answer.text() == "fine"
        assert partial(server.requests[1]) == ""

    def test_stream_with_retry_resumes(self, server: FakeServer, provider: str) -> None:
        """The wrapper of that name switches it on."""
        server.script(teller(cut(), fail(529)))
        answer = stream_with_retry(
            "Hi",
            provider=provider,
            base_url=server.base_url(provider),
            api_key="any",
            retry=RetryPolicy(backoff_s=0),
        )
        assert answer.text() == TEXT

    def test_the_last_failure_is_the_error(self, server: FakeServer, provider: str) -> None:
        """Where the resumptions are used up, what the provider said last is raised."""
        server.script(say("one"), fail(529))
        policy = RetryPolicy(backoff_s=0, resume=True, max_resumes=1)
        _, error = read(ask(server, provider, retry=policy))
        assert type(error) is ServerError
        assert len(server.requests) == 2


class _Numbered:
    """A decoder that remembers the last event's number, and whose answer can be taken up again."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.cursor = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def decode(self, sse: ServerSentEvent) -> Iterable[Event]:
        self.cursor = sse.id or self.cursor
        events: Iterable[Event] = self._inner.decode(sse)
        return events

    def end(self) -> Iterable[Event]:
        events: Iterable[Event] = self._inner.end() if self.complete else self.lost()
        return events

    def lost(self) -> Iterable[Event]:
        return then_raise([], end_of_body("openai"))

    def rest(self) -> _Numbered:
        return _Numbered(self._inner)


class _Cursored(OpenAI, frozen=True):
    """A provider that numbers its events and can go on after any of them."""

    def decoder(self) -> Any:
        return _Numbered(super().decoder())

    def take_up(
        self, broken: Any, key: str, base_url: str, request: HTTPRequest
    ) -> tuple[HTTPRequest, Any] | None:
        rest = HTTPRequest(
            f"{base_url}/rest",
            b"{}",
            headers={"Last-Event-ID": broken.cursor},
            credentials={self.auth_header: self.auth_prefix + key},
        )
        return rest, broken.rest()


class TestCursor:
    """A provider with a cursor of its own takes the very same answer up again."""

    CALL = '{"tool_calls":[{"index":0,"id":"c1","function":{"name":"f","arguments":"{\\"a\\":"}}]}'
    REST = '{"tool_calls":[{"index":0,"function":{"arguments":" 1}"}}]}'

    @pytest.fixture
    def cursored(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put such a provider in OpenAI's place."""
        row = PROVIDERS["openai"]
        fields = {name: getattr(row, name) for name in row.__struct_fields__}
        monkeypatch.setitem(PROVIDERS, "openai", _Cursored(**fields))

    @staticmethod
    def event(number: int, delta: str, reason: str = "null") -> bytes:
        """Write one numbered chunk."""
        data = f'{{"choices":[{{"delta":{delta},"finish_reason":{reason}}}]}}'
        return encode_sse(data, id=str(number))

    def events(self, *responses: list[bytes]) -> tuple[list[Event], list[bytes]]:
        """Stream responses that are all cut but for the last; return the events and requests."""

        def cut_off(connection: Connection) -> None:
            """End the connection without the body's end."""

        bodies = [stream(pieces, then=cut_off) for pieces in responses[:-1]]
        with WireServer(*bodies, stream(responses[-1])) as server:
            events = list(ask_openai(server.url, retry=RESUME).events())
            return events, server.requests

    @pytest.mark.usefixtures("cursored")
    def test_the_answer_goes_on_at_the_cursor(self) -> None:
        """The provider is asked for the rest, and nothing is taken for a repetition."""
        ha = '{"content":"ha ha ha ha ha ha"}'
        events, requests = self.events(
            [self.event(1, ha), self.event(2, ha)],
            [self.event(3, ha), self.event(4, "{}", '"stop"'), b"data: [DONE]\n\n"],
        )
        texts = [event.text for event in events if isinstance(event, TextDelta)]
        assert texts == ["ha ha ha ha ha ha"] * 3
        assert [type(event) for event in events].count(Resumed) == 1
        assert isinstance(events[-1], Finish)
        assert requests[1].startswith(b"POST /rest")
        assert b"last-event-id: 2" in requests[1].lower()
        assert b"authorization: bearer any" in requests[1].lower()

    @pytest.mark.usefixtures("cursored")
    def test_a_tool_call_goes_on_too(self) -> None:
        """A call that had begun is completed by the same answer's rest."""
        events, _ = self.events(
            [self.event(1, self.CALL)],
            [self.event(2, self.REST), self.event(3, "{}", '"tool_calls"'), b"data: [DONE]\n\n"],
        )
        calls = [event for event in events if isinstance(event, ToolCall)]
        assert [(call.id, call.name, call.arguments) for call in calls] == [("c1", "f", {"a": 1})]

    @pytest.mark.usefixtures("cursored")
    def test_a_cursor_survives_several_cuts(self) -> None:
        """Each continuation begins where the last one stopped."""
        events, requests = self.events(
            [self.event(1, '{"content":"a"}')],
            [self.event(2, '{"content":"b"}')],
            [self.event(3, '{"content":"c"}', '"stop"'), b"data: [DONE]\n\n"],
        )
        assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "abc"
        cursors = [re.search(rb"(?i)last-event-id: (\d+)", one) for one in requests]
        assert [found and found[1] for found in cursors] == [None, b"1", b"2"]
