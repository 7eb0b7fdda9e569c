"""Another provider answers where one fails or is late: over real sockets, one fake for each."""

from __future__ import annotations

import gc
import itertools
import pickle
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import requests

from llm_sse import RetryPolicy, Timeouts, TokenStream, complete_sync, run_tools, stream_sync
from llm_sse.errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectionLost,
    RateLimitError,
    ServerError,
    StreamClosed,
    StreamError,
    StreamTimeout,
)
from llm_sse.events import CONTENT, FellBack, Finish, Retrying, StreamStart, TextDelta
from llm_sse.testing import (
    FakeServer,
    call_tool,
    cut,
    fail,
    hang,
    pause,
    ping,
    say,
    stall,
    status,
    think,
)
from tests.helpers import until

ONCE = RetryPolicy(max_retries=0)
#: Long enough for a busy machine to answer in, short enough to wait for.
LATE = Timeouts(first_token_s=0.3)


class Three:
    """Three fakes: `openai`, asked first, then `anthropic`, then `gemini`."""

    def __init__(self) -> None:
        self.openai, self.anthropic, self.gemini = FakeServer(), FakeServer(), FakeServer()

    def others(self) -> list[dict[str, Any]]:
        """Return what `fallback=` takes."""
        return [
            {"provider": name, "base_url": getattr(self, name).base_url(name), "api_key": "any"}
            for name in ("anthropic", "gemini")
        ]

    def arguments(self, **more: Any) -> dict[str, Any]:
        """Return the arguments of a call."""
        url = self.openai.base_url("openai")
        common = {"base_url": url, "api_key": "first", "retry": ONCE, "fallback": self.others()}
        return {**common, **more}

    def ask(self, **more: Any) -> TokenStream:
        """Ask all three in turn."""
        return stream_sync("Hi", **self.arguments(**more))

    def asked(self) -> list[int]:
        """Return how many requests each of them got."""
        return [len(fake.requests) for fake in (self.openai, self.anthropic, self.gemini)]


@pytest.fixture
def three() -> Iterator[Three]:
    """Three fakes, each of which says its own name."""
    three = Three()
    with three.openai, three.anthropic, three.gemini:
        three.openai.script(say("from openai"))
        three.anthropic.script(say("from anthropic"))
        three.gemini.script(say("from gemini"))
        yield three


class TestFallback:
    def test_the_first_provider_that_answers_is_the_only_one_asked(self, three: Three) -> None:
        """Nobody else is asked while all goes well."""
        answer = three.ask()
        assert answer.text() == "from openai"
        assert three.asked() == [1, 0, 0]
        assert answer.provider == "openai"

    @pytest.mark.parametrize(
        "failure",
        [
            status(401),
            status(400),
            status(429),
            status(503),
            fail(529),
            cut(),
            cut("end"),
        ],
        ids=repr,
    )
    def test_the_next_one_is_asked_when_one_fails(self, three: Three, failure: Any) -> None:
        """Whatever goes wrong before any content, the answer is the next provider's."""
        three.openai.script(failure)
        answer = three.ask()
        assert answer.text() == "from anthropic"
        assert three.asked() == [1, 1, 0]
        assert answer.provider == answer.completion.provider == "anthropic"

    @pytest.mark.parametrize("silence", [hang(), stall(), ping(0.01), pause(60)], ids=repr)
    def test_the_next_one_is_asked_when_one_is_late(self, three: Three, silence: Any) -> None:
        """`first_token_s` counts for each provider; the late one's connection is closed."""
        three.openai.script(*([silence, say("too late")] if silence == pause(60) else [silence]))
        answer = three.ask(timeouts=LATE)
        assert answer.text() == "from anthropic"
        assert three.openai.requests[0].ended.wait(5)
        assert three.openai.requests[0].outcome == "disconnected"

    def test_an_event_says_so(self, three: Three) -> None:
        """Between the two streams stands who failed, who is asked, and why."""
        three.openai.script(status(503, "overloaded"))
        events = list(three.ask().events())
        assert events[0] == FellBack("openai", "anthropic", "openai answered 503: overloaded")
        assert isinstance(events[1], StreamStart)
        assert isinstance(events[-1], Finish)

    def test_each_has_its_retries_before_the_next_is_asked(self, three: Three) -> None:
        """A provider has failed when its retries are used up."""
        three.openai.script(status(503))
        three.anthropic.enqueue(status(503))
        events = list(three.ask(retry=RetryPolicy(max_retries=1, backoff_s=0)).events())
        kinds = [type(event) for event in events if isinstance(event, (Retrying, FellBack))]
        assert kinds == [Retrying, FellBack, Retrying]
        assert three.asked() == [2, 2, 0]

    def test_after_content_nobody_else_is_asked(self, three: Three) -> None:
        """Half an answer of one provider is never followed by another's."""
        three.openai.script(say("Half an"), cut())
        answer = three.ask()
        with pytest.raises(ConnectionLost) as caught:
            answer.text()
        assert caught.value.completion.text == "Half an"
        assert caught.value.earlier == ()
        assert three.asked() == [1, 0, 0]

    def test_reasoning_is_content(self, three: Three) -> None:
        """A model that has begun to think has begun to answer."""
        three.openai.script(think("Hm."), cut())
        with pytest.raises(ConnectionLost):
            three.ask().text()
        assert three.asked() == [1, 0, 0]

    def test_a_refusal_of_the_model_is_an_answer(self, three: Three) -> None:
        """An empty answer with a finish reason is no failure."""
        three.openai.script()
        assert three.ask().completion.finish_reason == "stop"
        assert three.asked() == [1, 0, 0]

    def test_the_last_error_is_raised_and_knows_the_others(self, three: Three) -> None:
        """When nobody answers, one exception ends the stream, and tells of them all."""
        three.openai.script(status(401))
        three.anthropic.script(status(429))
        three.gemini.script(status(503))
        answer = three.ask()
        with pytest.raises(ServerError) as caught:
            answer.text()
        error = caught.value
        assert error.provider == "gemini"
        assert [type(one) for one in error.earlier] == [AuthenticationError, RateLimitError]
        assert [one.provider for one in error.earlier] == ["openai", "anthropic"]
        assert str(error).startswith("gemini answered 503")
        assert "; before that, openai answered 401" in str(error)
        assert "; anthropic answered 429" in str(error)
        assert error.completion.provider == "gemini"
        with pytest.raises(ServerError):
            next(answer)
        again = pickle.loads(pickle.dumps(error))
        assert [str(one) for one in again.earlier] == [str(one) for one in error.earlier]

    def test_usage_of_a_failed_provider_counts(self, three: Three) -> None:
        """What a provider charged before it failed is part of the cost."""
        start = b'event: message_start\ndata: {"type":"message_start","message":{"usage":'
        start += b'{"input_tokens":7,"output_tokens":1}}}\n\n'
        from llm_sse.testing import raw  # noqa: PLC0415

        three.openai.script(status(503))
        three.anthropic.script(raw(start), fail(529))
        completion = three.ask().completion
        assert completion.text == "from gemini"
        assert completion.usage is not None
        alone = stream_sync("Hi", **three.others()[1]).completion.usage
        assert alone is not None
        assert completion.usage.input_tokens == (alone.input_tokens or 0) + 7

    def test_without_a_stream_it_is_the_same(self, three: Three) -> None:
        """`complete_sync` falls back, too."""
        three.openai.script(status(500))
        assert complete_sync("Hi", **three.arguments()).text == "from anthropic"

    def test_a_conversation_is_translated_for_each(self, three: Three) -> None:
        """Everybody is asked the same, in their own words."""
        three.openai.script(status(500))
        three.anthropic.script(status(500))
        assert three.ask(system="Be brief.", max_tokens=5).text() == "from gemini"
        assert three.openai.requests[0].json["max_completion_tokens"] == 5
        assert three.anthropic.requests[0].json["system"] == "Be brief."
        assert three.gemini.requests[0].json["generationConfig"]["maxOutputTokens"] == 5

    def test_what_is_the_first_ones_own_goes_to_nobody_else(self, three: Three) -> None:
        """Key, headers, model and `extra_body` stay with the provider they were given for."""
        three.openai.script(status(500))
        others = three.others()
        others[0].update(model="claude-x", headers={"X-Own": "1"}, extra_body={"top_k": 3})
        answer = three.ask(
            model="gpt-x", headers={"X-Secret": "s3cret"}, extra_body={"seed": 1}, fallback=others
        )
        assert answer.text() == "from anthropic"
        first, second = three.openai.requests[0], three.anthropic.requests[0]
        assert (first.json["model"], second.json["model"]) == ("gpt-x", "claude-x")
        assert "x-secret" in first.headers
        assert "x-secret" not in second.headers
        assert second.headers["x-own"] == "1"
        assert "seed" not in second.json
        assert second.json["top_k"] == 3
        assert "first" not in repr(second.headers)

    def test_names_are_enough(self, three: Three, monkeypatch: pytest.MonkeyPatch) -> None:
        """A provider's name takes its key and its address from the environment."""
        monkeypatch.setenv("ANTHROPIC_API_KEY", "any")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", three.anthropic.base_url("anthropic"))
        three.openai.script(status(500))
        for fallback in ("anthropic", ["anthropic"], ("anthropic",)):
            assert three.ask(fallback=fallback).text() == "from anthropic"

    def test_a_recording_has_all_of_them(self, three: Three, tmp_path: Path) -> None:
        """One file tells of every provider that was asked, and plays each in its own format."""
        three.openai.script(status(503))
        told = list(three.ask(record=tmp_path / "stream").events())
        with FakeServer(replay=tmp_path / "stream") as replay:
            fallback = {"provider": "anthropic", "base_url": replay.url, "api_key": "any"}
            url = replay.base_url("openai")
            again = stream_sync("Hi", base_url=url, api_key="any", retry=ONCE, fallback=[fallback])
            assert list(again.events()) == told

    def test_a_tool_loop_falls_back_in_each_round(self, three: Three) -> None:
        """The answer to a call can come from another provider than the call."""

        def add(a: int, b: int) -> int:
            """Add."""
            return a + b

        three.openai.enqueue(call_tool("add", {"a": 1, "b": 2}))
        three.openai.script(status(503))
        loop = run_tools("1 + 2?", tools=[add], **three.arguments())
        assert loop.text() == "from anthropic"
        assert loop.provider == "anthropic"
        sent = three.anthropic.requests[0].json["messages"]
        assert sent[-1]["content"][0]["type"] == "tool_result"
        loop.close()


class TestClocks:
    def test_total_s_is_for_all_of_them_together(self, three: Three) -> None:
        """A provider that is asked second has what the first has left; then nobody is asked."""
        three.openai.script(hang())
        three.anthropic.script(hang())
        with pytest.raises(StreamTimeout) as caught:
            three.ask(timeouts=Timeouts(first_token_s=0.2, total_s=0.3)).text()
        assert (caught.value.phase, caught.value.limit_s) == ("total", 0.3)
        assert three.asked() == [1, 1, 0]

    def test_the_time_to_the_first_token_counts_from_the_call(self, three: Three) -> None:
        """The wait for a provider that gave no answer is part of the figure."""
        three.openai.script(hang())
        answer = three.ask(timeouts=LATE)
        answer.text()
        assert answer.metrics.ttft_ms is not None
        assert answer.metrics.ttft_ms >= 300
        assert answer.metrics.total_s >= 0.3

    def test_attempts_and_bytes_are_those_of_all(self, three: Three) -> None:
        """What the providers before have cost is in the figures."""
        three.openai.script(status(400))
        three.anthropic.script(say("one two"))
        answer = three.ask()
        assert answer.text() == "one two"
        assert (answer.metrics.attempts, answer.metrics.deltas) == (2, 2)
        assert answer.metrics.body_bytes > 0
        assert answer.metrics.gaps.total >= 1

    def test_what_the_reader_does_before_it_reads_on_is_not_the_providers(
        self, three: Three
    ) -> None:
        """Nobody is asked while nobody reads: that is in `total_s`, and in no time of an answer."""
        three.openai.script(status(400))
        three.anthropic.script(status(400))
        answer = three.ask()
        until(lambda: not threads("llm-sse-openai"))
        own_s = 0.3
        time.sleep(own_s)
        assert answer.text() == "from gemini"
        metrics = answer.metrics
        assert metrics.headers_s is not None
        assert metrics.last_content_s is not None
        assert 0 < metrics.headers_s <= metrics.last_content_s <= metrics.total_s - own_s

    def test_a_failed_providers_wait_for_its_reader_is_not_its_own(self, three: Three) -> None:
        """Where a retry is not read, it is late; that is counted as the reader's, and of all."""
        three.openai.script(status(503))
        retry = RetryPolicy(max_retries=2, backoff_s=0)
        answer = three.ask(retry=retry, buffer_size=1)
        until(lambda: answer.metrics.producer_waited_s > 0)  # at the first of two retries
        waited_s = answer.metrics.producer_waited_s
        assert answer.text() == "from anthropic"
        metrics = answer.metrics
        assert metrics.attempts == 4
        assert metrics.producer_waited_s >= waited_s
        assert metrics.first_token_s is not None
        assert metrics.first_token_s <= metrics.total_s - waited_s

    def test_the_figures_never_go_back(self, three: Three) -> None:
        """Whoever looks at any moment of the change sees each attempt once."""
        three.openai.script(status(503))
        answer = three.ask(retry=RetryPolicy(max_retries=2, backoff_s=0))
        seen: list[tuple[int, float]] = []

        def at_each_line(frame: FrameType, event: str, arg: object) -> Any:
            metrics = answer.metrics
            seen.append((metrics.attempts, metrics.total_s))
            return at_each_line

        def at_each_call(frame: FrameType, event: str, arg: object) -> Any:
            return at_each_line if frame.f_code.co_name == "_advance" else None

        traced = sys.gettrace()
        sys.settrace(at_each_call)
        try:
            answer.text()
        finally:
            sys.settrace(traced)
        assert len(seen) > 5
        for before, after in itertools.pairwise([*seen, (4, answer.metrics.total_s)]):
            assert before[0] <= after[0]
            assert before[1] <= after[1]


def threads(name: str) -> int:
    """Return how many threads of this name run."""
    return sum(thread.name == name for thread in threading.enumerate())


class TestWaitStarted:
    def test_a_refusal_is_not_the_end(self, three: Three) -> None:
        """The status that is waited for is that of the one who will answer."""
        three.openai.script(status(429))
        answer = three.ask()
        assert answer.wait_started(5) is True
        assert answer.provider == "anthropic"
        events = list(answer.events())
        assert isinstance(events[0], FellBack)
        assert [event.text for event in events if isinstance(event, TextDelta)] == [
            "from",
            " anthropic",
        ]

    def test_a_refusal_that_lasts_too_long_is_a_failure(self, three: Three) -> None:
        """The next one is asked at once, instead of the first one again."""
        three.openai.script(status(429, headers={"Retry-After": "20"}))
        answer = three.ask(retry=RetryPolicy(max_retries=1))
        assert answer.wait_started(15, retry_within_s=15)
        assert answer.provider == "anthropic"
        assert len(three.openai.requests) == 1
        answer.close()

    def test_retries_that_nobody_has_read_are_told_before_it(self, three: Three) -> None:
        """No event is lost because the wait took it in."""
        three.openai.script(status(503))
        answer = three.ask(retry=RetryPolicy(max_retries=1, backoff_s=0))
        assert answer.wait_started(5)
        kinds = [type(event) for event in answer.events()][:3]
        assert kinds == [Retrying, FellBack, StreamStart]

    def test_the_last_refusal_is_raised(self, three: Three) -> None:
        """A view answers with the last one's status; the loop raises the same."""
        for fake, code in ((three.openai, 401), (three.anthropic, 503), (three.gemini, 429)):
            fake.script(status(code))
        answer = three.ask()
        with pytest.raises(RateLimitError) as caught:
            answer.wait_started(5)
        assert len(caught.value.earlier) == 2
        with pytest.raises(RateLimitError):
            answer.wait_started(5)
        with pytest.raises(RateLimitError):
            list(answer)

    def test_it_says_when_all_is_still_open(self, three: Three) -> None:
        """A wait that is over before anybody has answered returns False."""
        three.openai.script(hang())
        with three.ask() as answer:
            assert answer.wait_started(0.01) is False


class TestClose:
    def test_from_another_thread_asks_nobody_else(self, three: Three) -> None:
        """A loop whose stream is closed just stops, and the fallbacks stay unasked."""
        three.openai.script(hang())
        answer = three.ask()

        def close() -> None:
            until(lambda: three.openai.requests and answer._reader.claimed)
            answer.close()

        closer = threading.Thread(target=close)
        closer.start()
        assert list(answer) == []
        closer.join()
        assert answer.completion.finish_reason is None
        assert three.asked() == [1, 0, 0]
        with pytest.raises(StreamClosed):
            list(answer.events())

    def test_while_the_next_one_is_being_asked(
        self, three: Three, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever closes just then did not know the new stream; it is closed all the same."""
        three.openai.script(status(503))
        three.anthropic.script(hang())
        answer = three.ask()
        fallbacks: Any = answer._reader
        ask = fallbacks._left[0].__class__.open

        def open_and_close(candidate: Any, after: Any = None) -> Any:
            reader = ask(candidate, after)
            answer.close()
            return reader

        monkeypatch.setattr(fallbacks._left[0].__class__, "open", open_and_close)
        assert list(answer) == []
        assert three.asked()[2] == 0

    def test_while_a_view_waits_for_the_status_of_the_next_one(
        self, three: Three, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The stream that was opened meanwhile is closed, and the wait ends."""
        three.openai.script(status(503))
        three.anthropic.script(hang())
        answer = three.ask()
        kind = type(answer._reader._left[0])  # type: ignore[attr-defined]
        ask = kind.open

        def open_and_close(candidate: Any, after: Any = None) -> Any:
            reader = ask(candidate, after)
            answer._reader.ended = True  # what close() does first, in another thread
            return reader

        monkeypatch.setattr(kind, "open", open_and_close)
        with pytest.raises(StreamClosed):
            answer.wait_started(5)
        answer.close()

    def test_a_break_ends_the_one_that_answers(self, three: Three) -> None:
        """Leaving the loop closes the connection of the provider that was streaming."""
        three.openai.script(status(503))
        three.anthropic.script(say("one two"), stall())
        answer = three.ask()
        for event in answer.events():
            if type(event) in CONTENT:
                break
        assert three.anthropic.requests[0].ended.wait(5)
        assert three.anthropic.requests[0].outcome == "disconnected"

    def test_a_dropped_stream_leaves_nothing(self, three: Three) -> None:
        """The last reference gone, thread and connection go."""
        three.openai.script(stall())
        answer = three.ask()
        until(lambda: three.openai.requests)
        gone = weakref.ref(answer._reader)
        del answer
        gc.collect()
        assert gone() is None
        assert three.openai.requests[0].ended.wait(5)

    def test_two_readers_are_refused(self, three: Three) -> None:
        """As with any stream, the second loop is told."""
        three.openai.script(say("one two"))
        answer = three.ask()
        events = answer.events()
        next(events)
        with pytest.raises(StreamClosed, match="one reader"):
            next(answer.events())
        assert answer.wait_started(0) is True  # that is known already
        events.close()  # type: ignore[attr-defined]


class TestArguments:
    @pytest.mark.parametrize(
        ("fallback", "message"),
        [
            (5, "fallback must be a list of providers, not int"),
            (b"gemini", "fallback must be a list of providers, not bytes"),
            ([5], "a fallback is a provider's name or a dict, not int"),
            ([{"model": "m"}], "a fallback needs its provider"),
            ([{"provider": "gemini", "prompt": "x"}], "cannot have 'prompt' of its own"),
            (["chatgpt"], "unknown provider 'chatgpt'"),
            (["gemini"], "no key for gemini"),
            ([{"provider": "gemini", "api_key": "k", "base_url": "x"}], "base_url must look like"),
        ],
    )
    def test_a_wrong_one_is_refused_by_the_call(
        self, three: Three, fallback: Any, message: str
    ) -> None:
        """It is found before anything is sent, also where nobody would ever have been asked."""
        with pytest.raises(ConfigurationError, match=message):
            three.ask(fallback=fallback)
        assert three.asked() == [0, 0, 0]

    def test_what_one_of_them_cannot_take_is_refused_by_the_call(self, three: Three) -> None:
        """A question that a fallback could not be asked is a mistake now, not in the night."""
        picture = {"type": "image_url", "image_url": {"url": "ftp://host/x.png"}}
        with pytest.raises(ConfigurationError):
            three.ask(messages=[{"role": "user", "content": [picture]}])
        assert three.asked() == [0, 0, 0]

    def test_another_model_of_the_first_has_its_key_and_address(self, three: Three) -> None:
        """A fallback to the same provider needs to name its model only."""
        three.openai.enqueue(status(503))
        answer = three.ask(fallback=[{"provider": "openai", "model": "smaller"}])
        assert answer.text() == "from openai"
        assert [asked.json["model"] for asked in three.openai.requests][1] == "smaller"
        first, second = (asked.headers["authorization"] for asked in three.openai.requests)
        assert first == second

    def test_a_missing_key_says_whose(self, three: Three) -> None:
        """The error names the fallback, for the call has a key: the first one's."""
        with pytest.raises(ConfigurationError, match=r'fallback.*"api_key"') as caught:
            three.ask(fallback=["gemini"])
        assert caught.value.provider == "gemini"

    def test_a_session_that_holds_a_key_is_not_shared(self, three: Three) -> None:
        """One provider's key in a session's headers would reach the others."""
        with requests.Session() as session, requests.Session() as other:
            session.headers["api-key"] = "s3cret-s3cret"
            with pytest.raises(ConfigurationError, match="header api-key would go") as caught:
                three.ask(session=session)
            assert "s3cret" not in str(caught.value)
            three.openai.script(status(503))
            fallback = [{**three.others()[0], "session": other}]
            assert three.ask(session=session, fallback=fallback).text() == "from anthropic"
        assert "api-key" in three.openai.requests[0].headers
        assert "api-key" not in three.anthropic.requests[0].headers

    def test_no_fallback_is_none(self, three: Three) -> None:
        """An empty list changes nothing."""
        three.openai.script(status(503))
        for nobody in (None, [], ()):
            with pytest.raises(ServerError) as caught:
                three.ask(fallback=nobody).text()
            assert caught.value.earlier == ()

    def test_keys_stay_secret(self, three: Three) -> None:
        """Neither the event nor the error shows a key, whoever prints it."""
        key = "sk-" + "5ecret" * 6
        others = [{**other, "api_key": key[::-1]} for other in three.others()]
        three.openai.script(status(401, f"no such key: {key}"))
        three.anthropic.script(status(401, f"no such key: {key[::-1]}"))
        three.gemini.script(status(401, f"no such key: {key[::-1]}"))
        answer = three.ask(api_key=key, fallback=others)
        told: list[Any] = []
        with pytest.raises(StreamError) as caught:
            told.extend(answer.events())
        shown = f"{told} {caught.value} {caught.value.earlier} {answer!r}"
        assert key not in shown
        assert key[::-1] not in shown
