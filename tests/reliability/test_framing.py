from __future__ import annotations

import ssl
import statistics
import time
from collections.abc import Callable
from typing import get_args

import pytest

from llm_sse import Timeouts
from llm_sse.events import TextDelta
from llm_sse.testing import FakeServer, Framing, finish, say, stall
from tests.helpers import FORMATS
from tests.reliability.conftest import ask, machine_late_s

FRAMINGS = get_args(Framing)

_DELTAS = 12
_GAP_S = 0.03


#: A delta that is held back is late each time; one that the machine had no time for is not.
_ATTEMPTS = 4


def paced(framing: Framing, context: ssl.SSLContext | None) -> tuple[list[float], list[float]]:
    """Read a paced answer; return when its deltas came, and when they had been sent."""
    arrived: list[float] = []
    with FakeServer(
        "word " * _DELTAS, tokens_per_s=1 / _GAP_S, framing=framing, ssl_context=context
    ) as server:
        for event in ask(server).events():
            if type(event) is TextDelta:
                arrived.append(time.monotonic())  # noqa: PERF401
        return arrived, server.requests[0].sent_at


@pytest.fixture(params=FORMATS)
def provider(request: pytest.FixtureRequest) -> str:
    """The name of each provider in turn."""
    name: str = request.param
    return name


@pytest.mark.parametrize("framing", FRAMINGS)
class TestNothingIsHeldBack:
    def test_a_delta_does_not_wait_for_its_successor(
        self, framing: Framing, provider: str, tls: ssl.SSLContext | None
    ) -> None:
        """A delta is delivered although nothing at all comes after it."""
        with FakeServer(framing=framing, ssl_context=tls) as server:
            for said in ("one", "one two three"):
                server.script(say(said), stall())
                limits = Timeouts(first_token_s=5.0, idle_s=5.0)
                with ask(server, provider, timeouts=limits) as answer:
                    got = ""
                    while got != said:  # a token that is held back ends in a StreamTimeout
                        got += next(answer)

    def test_the_end_does_not_wait_for_the_end_of_the_body(
        self, framing: Framing, tls: ssl.SSLContext | None
    ) -> None:
        """The provider's last event ends the answer, whatever HTTP still waits for."""
        script = [say("one"), finish(), stall()]
        with FakeServer(script=script, framing=framing, ssl_context=tls) as server:
            answer = ask(server, timeouts=Timeouts(idle_s=5.0))
            assert answer.text() == "one"
            assert answer.completion.finish_reason == "stop"


class TestLatency:
    @pytest.mark.parametrize("framing", FRAMINGS)
    def test_a_delta_comes_as_soon_as_it_was_sent(
        self,
        framing: Framing,
        tls: ssl.SSLContext | None,
        record_property: Callable[[str, object], None],
    ) -> None:
        """From the write of a delta's last byte to the caller's loop it takes milliseconds."""
        for _ in range(_ATTEMPTS):
            begun = time.monotonic()
            arrived, sent = paced(framing, tls)
            late_s = machine_late_s(begun) / _DELTAS  # next to nothing where the machine rests
            waits_ms = sorted((a - s) * 1000 for a, s in zip(arrived, sent, strict=True))
            median_ms = statistics.median(waits_ms)
            in_time = sum(a < then + late_s for a, then in zip(arrived, sent[1:], strict=False))
            if median_ms < 20.0 + late_s * 1000 and in_time >= 0.9 * (_DELTAS - 1):
                break
        line = f"{framing:8} {'https' if tls else 'http':5} median {median_ms:6.2f} ms, p99 "
        print(f"\n{line}{waits_ms[-1]:6.2f} ms")
        record_property("median_ms", median_ms)
        record_property("p99_ms", waits_ms[-1])
        assert median_ms < 20.0 + late_s * 1000
        assert in_time >= 0.9 * (_DELTAS - 1)
