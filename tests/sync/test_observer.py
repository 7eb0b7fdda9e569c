from __future__ import annotations

import pytest

from llm_sse.chat import ChatRequest
from llm_sse.errors import ConnectionLost
from llm_sse.events import Event, Finish, StreamStart, Usage
from llm_sse.providers import Provider
from llm_sse.sync.observer import Outcome, observer, set_observer
from llm_sse.testing import FakeServer, cut, say
from tests.helpers import until
from tests.sync.conftest import Ask


class Witness:
    """Who remembers what it was told; it may fail at every word."""

    def __init__(self, *, fails: bool = False) -> None:
        self.told: list[object] = []
        self.outcomes: list[Outcome] = []
        self._fails = fails

    def called(self, provider: Provider, chat: ChatRequest, base_url: str) -> Witness:
        """Be the observation of every call."""
        self.told.append((provider.name, chat.stream, base_url))
        return self

    def begins(self) -> None:
        """Note it."""
        self._note("begins")

    def event(self, event: Event) -> None:
        """Note it."""
        self._note(type(event))

    def ended(self, outcome: Outcome) -> None:
        """Note it."""
        self.outcomes.append(outcome)
        self._note("ended")

    def _note(self, what: object) -> None:
        self.told.append(what)
        if self._fails:
            raise LookupError(what)


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
