"""What is measured: of whom, how much, and in what order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from .clients import ALL, Client, find

__all__ = ["GROUPS", "Measurement", "in_order", "plan"]

#: What `--only` knows.
GROUPS = ("drain", "paced", "scale", "start", "memory")

#: Who is told apart where many streams run at once, which takes long.
_PACED = ("floor", "llm-sse", "tutorial", "openai")
_IDLE = ("llm-sse", "tutorial", "httpx-sse", "openai", "anthropic")
_EVENT = ("llm-sse", "httpx-sse", "openai", "anthropic", "google-genai")
#: Whose import is measured: each package once.
_IMPORTS = (
    *("llm-sse", "tutorial", "sseclient-py", "httpx-sse"),
    *("openai", "anthropic", "google-genai", "litellm"),
)
_FIRST_TOKEN = ("floor", *_IMPORTS)

_ALL, _FEWER = 1_000_000, 3


class Measurement(NamedTuple):
    """One figure's origin: a task of one contestant.

    Attributes:
        key: What it is called in the results.
        client: The contestant.
        task: A task of `child`, or of `start`.
        arguments: The task's.
        most_rounds: In how many rounds it is made at most.
    """

    key: str
    client: Client
    task: str
    arguments: Mapping[str, Any]
    most_rounds: int = _ALL


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
    """Yield them interleaved: everything once, then everything once more."""
    for number in range(rounds):
        for measurement in measurements:
            if number < measurement.most_rounds:
                yield number, measurement


def _drain(quick: bool) -> Iterator[Measurement]:
    for client in ALL:
        deltas = 200 if quick else round(20_000 * client.share)
        yield Measurement("drain", client, "drain", {"deltas": deltas})


def _paced(quick: bool) -> Iterator[Measurement]:
    for streams in (1, 5) if quick else (1, 50, 500):
        many = streams > 100  # which takes long where it is too much for one interpreter
        for name in _PACED:
            deltas = 5 if quick else 25 if many else 50
            arguments = {"streams": streams, "per_s": 25.0, "deltas": deltas}
            yield Measurement(
                *(f"paced {streams}", find(name), "paced", arguments),
                most_rounds=_FEWER if many else _ALL,
            )


def _scale(quick: bool) -> Iterator[Measurement]:
    streams = 10 if quick else 1000
    for name in ("llm-sse", "tutorial"):
        arguments = {"streams": streams, "per_s": 5.0, "deltas": 4 if quick else 15}
        yield Measurement("scale", find(name), "paced", arguments, _FEWER)


def _start(quick: bool) -> Iterator[Measurement]:  # there is no smaller start
    for name in _IMPORTS:
        yield Measurement("import", find(name), "import", {})
    for name in _FIRST_TOKEN:
        yield Measurement("first token", find(name), "first token", {})


def _memory(quick: bool) -> Iterator[Measurement]:
    arguments: dict[str, Any] = {"streams": 5 if quick else 200}
    for name in _IDLE:
        yield Measurement("idle", find(name), "idle", arguments)
    arguments = {"deltas": 20_000 if quick else 1_000_000, "sleep_s": 0.1 if quick else 0.5}
    arguments["to_the_end"] = True
    yield Measurement("sleeper", find("llm-sse"), "sleeper", arguments)
    arguments = {"bytes_": 160_000 if quick else 16_000_000}
    for name in _EVENT:
        yield Measurement("event", find(name), "event", arguments, _FEWER)


_MAKE = {"drain": _drain, "paced": _paced, "scale": _scale, "start": _start, "memory": _memory}
