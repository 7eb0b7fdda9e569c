"""The soak's other process: fake providers that do to each request what its seed says.

It prints where it listens as one JSON line; then each line that it reads is answered with the
process's figures. It ends when there is nothing more to read.
"""

from __future__ import annotations

import json
import random
import re
import signal
import ssl
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import trustme

from llm_sse.testing import FakeServer, RecordedRequest, call_tool, finish, framing, say, think

from . import soak_plan as plan
from .soak_usage import usage, usage_at_rest

__all__ = ["Playwright", "script"]

#: How many streams' attempts are remembered; many more than can be under way.
_REMEMBERED = 2000

_PARTIAL = re.compile("<partial_answer>(.*)</partial_answer>", re.DOTALL)


class Playwright:
    """Write the script for each request.

    Args:
        case_of: Knows the stream that a seed stands for.

    Thread: any number of them.
    """

    def __init__(self, case_of: Callable[[str], plan.Case] = plan.draw) -> None:
        self._case_of = case_of
        self._attempts: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, request: RecordedRequest) -> Sequence[Any]:
        """Read the seed and the partial answer out of a request."""
        texts = list(_texts(request.json))
        asked = "\n".join(texts)
        found = re.search(r"soak (\S+)\.", asked)
        if found is None:
            raise ValueError(f"nobody's question: {asked!r}")
        seed = found[1]
        with self._lock:
            attempt = self._attempts.pop(seed, 0)
            self._attempts[seed] = attempt + 1
            if len(self._attempts) > _REMEMBERED:
                self._attempts.popitem(last=False)
        partial = _PARTIAL.search(texts[-1])
        return script(self._case_of(seed), attempt, partial[1] if partial else "")


def script(case: plan.Case, attempt: int, partial: str) -> list[Any]:
    """Write one answer, or what comes in its place.

    Args:
        case: The stream.
        attempt: Which request of the stream's it is, counted from 0.
        partial: What the stream has got already.
    """
    if not case.text.startswith(partial):
        return [say(f"This is not how the answer began: {partial}")]
    fault = case.fault(attempt)
    if fault is not None and fault.place == "instead":
        return list(fault.actions)
    begin = len(partial) - _repeated(case, attempt, partial)
    at = fault.place if fault is not None else None
    actions = fault.actions if fault is not None else ()
    over = fault is not None and not fault.goes_on
    answer: list[Any] = [framing(case.framing)]
    if at == "start":
        answer += actions
        if over:
            return answer
    if case.reasoning and not partial:
        answer.append(think(case.reasoning))
    if at == "middle":
        middle = len(" ".join(case.words[: case.positions[attempt]]))
        answer += [say(case.text[begin:middle]), *actions]
        if over:
            return answer
        begin = middle
    answer.append(say(case.text[begin:]))
    if case.calls_tool:
        answer.append(call_tool("lookup", case.arguments_text, id=f"call_{case.seed}"))
    if at == "call":
        return [*answer, *actions]
    answer.append(finish("tool_calls" if case.calls_tool else case.reason))
    if at == "end":
        answer += actions
    return answer


def _repeated(case: plan.Case, attempt: int, partial: str) -> int:
    """Say how many of the last characters a continuation repeats: none, or enough to be noticed."""
    rng = random.Random(f"{case.seed}/{attempt}")
    if len(partial) < 10 or rng.random() < 0.5:
        return 0
    return rng.randint(10, min(60, len(partial)))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def main(tokens_per_s: float) -> None:
    """Serve until there is nothing more to read.

    Args:
        tokens_per_s: How many deltas a second an answer has, on average.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the other process's affair
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    playwright = Playwright()
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                FakeServer(
                    script=playwright,
                    tokens_per_s=None if kind["fast"] else tokens_per_s,
                    jitter=1.0,
                    ssl_context=context if kind["tls"] else None,
                    close_after=kind["close_after"],
                )
            )
            for kind in plan.SERVERS
        ]
        urls = [{name: server.base_url(name) for name in plan.PROVIDERS} for server in servers]
        authority_pem = authority.cert_pem.bytes().decode()
        print(json.dumps({"servers": urls, "authority": authority_pem}), flush=True)
        for line in sys.stdin:
            for server in servers:
                server.requests.clear()  # a record of hours would be a leak of our own
            figures = usage_at_rest() if line == "rest\n" else usage()
            print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]))
