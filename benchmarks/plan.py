"""What is measured: of whom, how much, and in what order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

from .clients import ALL, FLOOR_IN_THREAD, Client, find

__all__ = ["BUFFERS", "GROUPS", "SWITCH_INTERVAL_S", "Measurement", "in_order", "plan"]

#: What `--only` knows.
GROUPS = ("drain", "stages", "paced", "scale", "start", "memory")

#: Who is told apart where many streams run at once, which takes long.
_PACED = ("floor", FLOOR_IN_THREAD, "llm-sse", "tutorial", "openai")
_SCALE = ("llm-sse", FLOOR_IN_THREAD, "tutorial")
_IDLE = ("llm-sse", "tutorial", "httpx-sse", "openai", "anthropic")
_IDLE_TLS = ("llm-sse", "tutorial", "openai", "anthropic")  # httpx itself names no bundle
_EVENT = ("llm-sse", "httpx-sse", "openai", "anthropic", "google-genai")
#: Whose import is measured: each package once.
_IMPORTS = (
    *("llm-sse", "tutorial", "sseclient-py", "httpx-sse"),
    *("openai", "anthropic", "google-genai", "litellm"),
)
_FIRST_TOKEN = ("floor", *_IMPORTS)

_ALL, _FEWER = 1_000_000, 3
#: Who takes so long that it has fewer rounds, lest the whole takes more than ten minutes.
_SLOW = ("litellm",)
#: Which `buffer_size`s are drained: the default, and one on either side of it.
BUFFERS = (50, 256, 500)
#: How long a thread may keep the interpreter where *scale* is told so, in seconds.
SWITCH_INTERVAL_S = 0.1


class Measurement(NamedTuple):
    """One figure's origin: a task of one contestant.

    Attributes:
        key: What it is called in the results.
        client: The contestant.
        task: A task of `child`, or of `start`.
        arguments: The task's.
        most_rounds: In how many rounds it is made at most.
        tls: Whether the server is asked over TLS.
    """

    key: str
    client: Client
    task: str
    arguments: Mapping[str, Any]
    most_rounds: int = _ALL
    tls: bool = False

    @property
    def deltas(self) -> int:
        """How many deltas all its streams have together; 0 where none are counted."""
        return int(self.arguments.get("deltas", 0)) * int(self.arguments.get("streams", 1))


def plan(
    groups: Sequence[str] = GROUPS, names: Sequence[str] | None = None, *, quick: bool = False
) -> list[Measurement]:
    """Return what one round consists of.

    Args:
        groups: Which of `GROUPS`.
        names: The contestants; all, if `None`.
        quick: Much less of everything: to see that it works, not to learn figures.
    """
    return [
        measurement
        for group in GROUPS
        if group in groups
        for measurement in _MAKE[group](quick)
        if names is None or measurement.client.name in names
    ]


def in_order(measurements: Sequence[Measurement], rounds: int) -> Iterator[tuple[int, Measurement]]:
    """Yield them interleaved: everything once, then everything once more.

    Who is compared follows one another directly, and each round begins with another one: nobody
    always comes first, or always after the same one.
    """
    groups = [list(group) for _, group in groupby(measurements, attrgetter("key"))]
    for number in range(rounds):
        for group in groups:
            first = number % len(group)
            for measurement in (*group[first:], *group[:first]):
                if number < measurement.most_rounds:
                    yield number, measurement


def _of(key: str, name: str, task: str, arguments: Mapping[str, Any]) -> Measurement:
    return Measurement(key, find(name), task, arguments, _FEWER if name in _SLOW else _ALL)


def _drain(quick: bool) -> Iterator[Measurement]:
    for client in ALL:
        if client.name != FLOOR_IN_THREAD:  # where nothing waits a thread buys nothing
            deltas = 200 if quick else round(20_000 * client.share)
            yield _of("drain", client.name, "drain", {"deltas": deltas})


def _stages(quick: bool) -> Iterator[Measurement]:
    deltas = 200 if quick else 20_000
    yield _of("stages", "llm-sse", "stages", {"deltas": deltas})
    for size in BUFFERS:
        arguments = {"deltas": deltas, "connect_with": {"buffer_size": size}}
        yield _of(f"buffer {size}", "llm-sse", "drain", arguments)


def _paced(quick: bool) -> Iterator[Measurement]:
    for streams in (1, 5) if quick else (1, 50, 500):
        many = streams > 100  # which takes long where it is too much for one interpreter
        for name in _PACED:
            deltas = 5 if quick else 50 if streams == 50 else 25
            arguments = {"streams": streams, "per_s": 25.0, "deltas": deltas}
            yield Measurement(
                *(f"paced {streams}", find(name), "paced", arguments),
                most_rounds=_FEWER if many else _ALL,
            )


def _scale(quick: bool) -> Iterator[Measurement]:
    streams = 10 if quick else 1000
    arguments: dict[str, Any] = {"streams": streams, "per_s": 5.0, "deltas": 4 if quick else 15}
    for name in _SCALE:
        yield Measurement("scale", find(name), "paced", arguments, _FEWER)
    arguments = {**arguments, "switch_interval_s": SWITCH_INTERVAL_S}
    yield Measurement("scale, patient", find("llm-sse"), "paced", arguments, _FEWER)


def _start(quick: bool) -> Iterator[Measurement]:  # there is no smaller start
    for name in _IMPORTS:
        yield _of("import", name, "import", {})
    for name in _FIRST_TOKEN:
        yield _of("first token", name, "first token", {})


def _memory(quick: bool) -> Iterator[Measurement]:
    arguments: dict[str, Any] = {"streams": 5 if quick else 200}
    for name in _IDLE:
        yield Measurement("idle", find(name), "idle", arguments)
    arguments = {"streams": 5 if quick else 100}
    for name in _IDLE_TLS:
        yield Measurement("idle, TLS", find(name), "idle", arguments, tls=True)
    arguments = {"deltas": 20_000 if quick else 1_000_000, "sleep_s": 0.1 if quick else 0.5}
    arguments["to_the_end"] = True
    yield Measurement("sleeper", find("llm-sse"), "sleeper", arguments)
    arguments = {"bytes_": 160_000 if quick else 16_000_000}
    for name in _EVENT:
        yield Measurement("event", find(name), "event", arguments, _FEWER)


_MAKE = {
    "drain": _drain,
    "stages": _stages,
    "paced": _paced,
    "scale": _scale,
    "start": _start,
    "memory": _memory,
}
