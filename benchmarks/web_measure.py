"""What a visitor of a site measures, and when the provider learns that the visitor has left."""

from __future__ import annotations

import math
import time
from http.client import HTTPConnection
from itertools import pairwise
from typing import NamedTuple
from urllib.parse import urlencode

from llm_sse import stream_sync
from llm_sse.testing import FakeServer, RecordedRequest, hang, pause, say, stall

from .web_processes import DEADLINE_S, Address, Browser

__all__ = ["Clock", "Pace", "Site", "asked_without_site"]

_TOKENS_PER_S = 20.0
_TTFT_S = 0.2
_ANSWER = " ".join(["word"] * 20)
#: The heartbeat's comments that follow the greeting; then nothing is sent for the longest time.
_COMMENTS = b": connected\n" + b": heartbeat\n" * 3


class Pace(NamedTuple):
    """How an answer arrived, compared with how the provider sent it.

    Attributes:
        first_ms: How much later than the provider's time to the first token it came, counted from
            the visitor's request.
        worst_gap_ms: By how much the time between two tokens differed at worst.
    """

    first_ms: float
    worst_gap_ms: float


class Clock(NamedTuple):
    """The times that a site is told.

    Attributes:
        heartbeat_s: How long nothing may be sent, in seconds.
        status_wait_s: How long the provider's status is waited for, in seconds.
    """

    heartbeat_s: float
    status_wait_s: float


class Site(NamedTuple):
    """A view, as a visitor reaches it.

    Attributes:
        address: Whom to connect to.
        path: The view's path.
    """

    address: Address
    path: str

    def answer(self) -> Pace:
        """Read an answer."""
        with _provider() as provider:
            asked_at = time.monotonic()
            browser = self._visit(provider)
            arrivals = []
            while (event := browser.event()) is not None:
                if event.data != "[DONE]":
                    arrivals.append(time.monotonic())
            browser.leave()
            return _pace(asked_at, arrivals, provider.requests[0])

    def leave_in_mid_answer(self) -> float:
        """Leave after the fifth token; return how many seconds later the provider knows."""
        endless = say(" ".join(["word"] * 2000))
        with FakeServer(script=[endless], tokens_per_s=_TOKENS_PER_S) as provider:
            browser = self._visit(provider)
            for _ in range(5):
                browser.event()
            return _left(browser, provider.requests[0])

    def leave_while_it_thinks(self, clock: Clock) -> float:
        """Leave before the first token, right after a heartbeat: the worst moment."""
        with FakeServer(script=[stall()]) as provider:
            browser = self._visit(provider, **clock._asdict())
            browser.read_until(_COMMENTS)
            return _left(browser, provider.requests[0])

    def leave_before_the_status(self, clock: Clock) -> float:
        """Leave at once, while the provider's status is still waited for."""
        with FakeServer(script=[hang()]) as provider:
            connection = HTTPConnection(*self.address, timeout=DEADLINE_S)
            query = {"base_url": provider.base_url("openai"), **clock._asdict()}
            connection.request("GET", f"{self.path}?{urlencode(query)}")
            while not provider.requests:
                time.sleep(0.001)
            left_at = time.monotonic()
            connection.close()
            return _known(left_at, provider.requests[0])

    def leave_after_the_wait(self, clock: Clock) -> float:
        """Leave when the status was waited for in vain, again right after a heartbeat."""
        with FakeServer(script=[hang()]) as provider:
            browser = self._visit(provider, **clock._asdict())
            browser.read_until(_COMMENTS)
            return _left(browser, provider.requests[0])

    def _visit(self, provider: FakeServer, **query: object) -> Browser:
        return Browser(self.address, self.path, base_url=provider.base_url("openai"), **query)


def asked_without_site() -> Pace:
    """Read an answer with `stream_sync` itself: what of the figures is not the web's."""
    with _provider() as provider:
        asked_at = time.monotonic()
        arrivals = [
            time.monotonic()
            for _ in stream_sync("Hi", base_url=provider.base_url("openai"), api_key="any")
        ]
        return _pace(asked_at, arrivals, provider.requests[0])


def _provider() -> FakeServer:
    return FakeServer(script=[pause(_TTFT_S), say(_ANSWER)], tokens_per_s=_TOKENS_PER_S)


def _pace(asked_at: float, arrivals: list[float], request: RecordedRequest) -> Pace:
    pairs = zip(pairwise(arrivals), pairwise(request.sent_at), strict=True)
    worst_s = max(abs((b - a) - (d - c)) for (a, b), (c, d) in pairs)
    return Pace((arrivals[0] - asked_at - _TTFT_S) * 1e3, worst_s * 1e3)


def _left(browser: Browser, request: RecordedRequest) -> float:
    left_at = time.monotonic()
    browser.leave()
    return _known(left_at, request)


def _known(left_at: float, request: RecordedRequest) -> float:
    known = request.ended.wait(DEADLINE_S)
    return time.monotonic() - left_at if known else math.inf
