from __future__ import annotations

import threading
import time
from contextvars import Context, ContextVar, copy_context
from typing import Any

import pytest
import requests

from llm_sse import RetryPolicy, Timeouts
from llm_sse.chat import ChatRequest
from llm_sse.errors import ConnectionLost, RateLimitError, StreamError
from llm_sse.events import Event, Finish, StreamStart, Usage
from llm_sse.providers import Provider
from llm_sse.sync import reader
from llm_sse.sync.observer import Outcome, close_all, observer, set_observer, wait_until_told
from llm_sse.testing import FakeServer, cut, pause, say, status
from tests.helpers import until
from tests.sync.conftest import Ask

_seen: ContextVar[str] = ContextVar("seen", default="nothing")


class Witness:
    """Who remembers what it was told; it may fail at every word, or take long over the ending."""

    def __init__(
        self,
        *,
        fails: bool = False,
        holds: threading.Event | None = None,
        error: type[BaseException] = LookupError,
    ) -> None:
        self.told: list[object] = []
        self.outcomes: list[Outcome] = []
        self._fails = fails
        self._holds = holds
        self._error = error

    def called(self, provider: Provider, chat: ChatRequest, base_url: str) -> Witness:
        """Be the observation of every call."""
        self.told.append((provider.name, chat.stream, base_url))
        return self

    def begins(self) -> None:
        """Note it."""
        self._note("begins")

    def sending(self) -> Context | None:
        """Send in a context of its own."""
        if self._fails:
            raise self._error("sending")
        context = copy_context()
        context.run(_seen.set, "the request")
        return context

    def event(self, event: Event) -> None:
        """Note it."""
        self._note(type(event))

    def ended(self, outcome: Outcome) -> None:
        """Note it."""
        if self._holds is not None:
            self._holds.wait(60)
        self.outcomes.append(outcome)
        self._note("ended")

    def _note(self, what: object) -> None:
        self.told.append(what)
        if self._fails:
            raise self._error(what)


class TestObserver:
    def test_it_is_told_what_is_no_content(self, server: FakeServer, openai: Ask) -> None:
        """It hears of the call, the beginning, what stands beside the content, and the end."""
        witness = Witness()
        set_observer(witness)
        assert observer() is witness
        openai().text()
        until(lambda: witness.outcomes)
        url = server.base_url("openai")
        middle = [StreamStart, Usage, Finish]
        assert witness.told == [("openai", True, url), "begins", *middle, "ended"]
        (outcome,) = witness.outcomes
        assert (outcome.error, outcome.whole) == (None, True)
        assert outcome.metrics.attempts == 1
        assert 0 <= outcome.asked_s <= outcome.metrics.total_s

    def test_it_is_told_of_an_error(self, server: FakeServer, openai: Ask) -> None:
        """The error that ends a stream is named, not shown."""
        witness = Witness()
        set_observer(witness)
        server.script(say("one"), cut())
        with pytest.raises(ConnectionLost):
            openai().text()
        until(lambda: witness.outcomes)
        assert (witness.outcomes[0].error, witness.outcomes[0].whole) == ("ConnectionLost", False)

    def test_its_mistakes_do_not_end_the_stream(
        self, server: FakeServer, openai: Ask, caplog: pytest.LogCaptureFixture
    ) -> None:
        """An observer that raises is a warning in the log."""
        witness = Witness(fails=True)
        set_observer(witness)
        server.script(say("one two"))
        assert openai().text() == "one two"
        until(lambda: "ended" in witness.told)
        until(lambda: caplog.text.count("LookupError: ended") == 1)
        assert "the stream goes on" in caplog.text

    def test_not_even_an_exit_of_its_own_ends_the_stream(
        self, server: FakeServer, openai: Ask, caplog: pytest.LogCaptureFixture
    ) -> None:
        """In the stream's own thread whatever it raises is a mistake."""
        witness = Witness(fails=True, error=SystemExit)
        set_observer(witness)
        server.script(say("one two"))
        assert openai().text() == "one two"
        wait_until_told(10)
        assert witness.told[-1] == "ended"
        assert caplog.text.count("SystemExit") >= 4

    def test_a_ctrl_c_at_the_call_is_the_callers(self, server: FakeServer, openai: Ask) -> None:
        """What comes while it is asked whom to tell, in the caller's thread, may be no mistake."""

        class Interrupted(Witness):
            def called(self, provider: Provider, chat: ChatRequest, base_url: str) -> Witness:
                raise KeyboardInterrupt

        set_observer(Interrupted())
        with pytest.raises(KeyboardInterrupt):
            openai()
        assert server.requests == []

    def test_a_mistake_at_the_call_opens_the_stream_all_the_same(
        self, openai: Ask, caplog: pytest.LogCaptureFixture
    ) -> None:
        """An observer that raises when it is asked whom to tell is told nothing more."""

        class Broken(Witness):
            def called(self, provider: Provider, chat: ChatRequest, base_url: str) -> Witness:
                raise LookupError("called")

        witness = Broken()
        set_observer(witness)
        assert openai().text()
        assert "LookupError: called" in caplog.text
        assert witness.told == []

    @pytest.mark.parametrize(
        ("script", "kind"),
        [((say("one"), cut()), ConnectionLost), ((status(429),), RateLimitError)],
    )
    def test_it_makes_no_ending_late(
        self,
        server: FakeServer,
        openai: Ask,
        monkeypatch: pytest.MonkeyPatch,
        script: tuple[Any, ...],
        kind: type[StreamError],
    ) -> None:
        """The reader has the error before the observer is told, and does not wait for it."""
        monkeypatch.setattr(reader, "_JOIN_S", 30)
        told = threading.Event()
        witness = Witness(holds=told)
        set_observer(witness)
        server.script(*script)
        begun = time.monotonic()
        limits = Timeouts(first_token_s=5, idle_s=5)
        with pytest.raises(kind):
            openai(timeouts=limits, retry=RetryPolicy(max_retries=0)).text()
        assert time.monotonic() - begun < 15
        assert witness.outcomes == []
        told.set()
        wait_until_told(10)
        assert witness.outcomes[0].error == kind.__name__

    def test_it_makes_no_answer_late(self, openai: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nor does the reader of a whole answer wait for it."""
        monkeypatch.setattr(reader, "_JOIN_S", 30)
        monkeypatch.setattr(reader, "_SETTLE_S", 30)
        told = threading.Event()
        witness = Witness(holds=told)
        set_observer(witness)
        begun = time.monotonic()
        openai().text()
        assert time.monotonic() - begun < 15
        told.set()
        wait_until_told(10)
        assert witness.outcomes[0].whole

    def test_an_error_of_any_kind_is_named(
        self, server: FakeServer, openai: Ask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also one that should not be: it is no success."""

        def wrong(*given: Any) -> bool:
            raise ValueError("a mistake of ours")

        monkeypatch.setattr(RetryPolicy, "delay_s", wrong)
        server.script(status(503))
        witness = Witness()
        set_observer(witness)
        with pytest.raises(ValueError, match="a mistake of ours"):
            openai().text()
        wait_until_told(10)
        assert (witness.outcomes[0].error, witness.outcomes[0].whole) == ("ValueError", False)

    def test_a_stream_that_runs_is_not_waited_for(self, server: FakeServer, openai: Ask) -> None:
        """Waiting is for what is over; what is closed is told without an error."""
        witness = Witness()
        set_observer(witness)
        server.script(say("one two"), pause(3600))
        with openai() as answer:
            next(answer)
            begun = time.monotonic()
            wait_until_told(30)
            assert time.monotonic() - begun < 15
        wait_until_told(10)
        assert (witness.outcomes[0].error, witness.outcomes[0].whole) == (None, False)

    def test_at_the_end_of_all_what_runs_is_closed(self, server: FakeServer, openai: Ask) -> None:
        """A process that ends has told of a stream that was read by half, as of one closed."""
        witness = Witness()
        set_observer(witness)
        server.script(say("one"), pause(3600))
        answer = openai()
        next(answer)
        close_all(10)
        assert (witness.outcomes[0].error, witness.outcomes[0].whole) == (None, False)
        assert list(answer) == []

    def test_requests_are_sent_in_its_context(self, server: FakeServer, openai: Ask) -> None:
        """Whatever watches HTTP sees whose the request is; every attempt's."""
        saw: list[str] = []

        class Watched(requests.Session):
            def send(self, *given: Any, **more: Any) -> requests.Response:
                saw.append(_seen.get())
                return super().send(*given, **more)

        set_observer(Witness())
        server.enqueue(status(503))
        with Watched() as session:
            openai(session=session, retry=RetryPolicy(max_retries=1, backoff_s=0)).text()
        assert saw == ["the request", "the request"]
        assert _seen.get() == "nothing"
