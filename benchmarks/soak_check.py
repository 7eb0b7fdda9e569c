"""Judge what came of a stream, and of the whole soak: every function returns what is wrong."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence

from msgspec import Struct

from llm_sse.events import ToolCall

from .soak_plan import Case, endings, outlasts_s
from .soak_usage import Usage

__all__ = ["Result", "check", "growth", "growth_bound_mb", "leaks", "text_fault"]

#: How much later than its limits say a stream may end before it counts as hanging.
GRACE_S = 5.0

#: How many objects more there may be at the end: what the soak itself has counted and noted.
MORE_OBJECTS = 3000


class Result(Struct, kw_only=True):
    """What a reader saw of a stream.

    Attributes:
        ending: `finish`, `left`, `closed`, or the error's class, for a timeout with its clock.
        message: The error's message.
        heard: The text that the reader got, piece by piece.
        text: The completion's text; `None` where there was no stream left to ask.
        reasoning: The completion's.
        calls: The completion's.
        reason: The completion's.
        took_s: How long it took, without the reader's own pauses.
        complaints: What else the reader noticed.
    """

    ending: str = ""
    message: str = ""
    heard: list[str] = []
    text: str | None = None
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    reason: str | None = None
    took_s: float = 0.0
    complaints: list[str] = []


def check(case: Case, result: Result) -> list[str]:
    """Return what is wrong with a result, each as `kind: what`."""
    wrong = list(result.complaints)
    allowed = endings(case)
    if result.ending not in allowed:
        wrong.append(
            f"wrong ending: {result.ending} instead of {' or '.join(sorted(allowed))} "
            f"({result.message})"
        )
    finished = result.ending == "finish"
    heard = "".join(result.heard)
    if result.text is not None:
        if (finished or case.reader != "text") and result.text != heard:
            wrong.append(f"wrong completion: {result.text!r} where the loop got {heard!r}")
        heard = result.text
        wrong += _completion_faults(case, result, finished=finished)
    if fault := text_fault(case.words, heard, finished=finished):
        wrong.append(fault)
    if result.took_s > outlasts_s(case) + GRACE_S:
        wrong.append(f"hang: {result.took_s:.1f} s")
    return wrong


def _completion_faults(case: Case, result: Result, *, finished: bool) -> list[str]:
    wrong = []
    right = result.reasoning == case.reasoning
    if not (right or (not finished and case.reasoning.startswith(result.reasoning))):
        wrong.append(f"wrong reasoning: {result.reasoning!r} instead of {case.reasoning!r}")
    said = [call.arguments_text for call in result.calls]
    right = said == [case.arguments_text] * case.calls_tool
    if not (right or (not finished and _is_beginning(case, said))):
        wrong.append(f"wrong tool call: {said} instead of {case.arguments_text}")
    reason = ("tool_calls" if case.calls_tool else case.reason) if finished else None
    if result.reason != reason:
        wrong.append(f"wrong finish reason: {result.reason} instead of {reason}")
    return wrong


def _is_beginning(case: Case, said: Sequence[str]) -> bool:
    return not said or (
        case.calls_tool and len(said) == 1 and case.arguments_text.startswith(said[0])
    )


def text_fault(words: Sequence[str], heard: str, *, finished: bool) -> str | None:
    """Say what is wrong with a text: loss, duplication, reordering, corruption; or `None`.

    Args:
        words: The answer's words; each begins with its number.
        heard: What was delivered of them.
        finished: Whether that should be the whole, and not only its beginning.
    """
    expected = " ".join(words)
    if heard == expected or (not finished and expected.startswith(heard)):
        return None
    numbers = [int(number) for number in re.findall(r"(?<!\d)\d{4}", heard)]
    if len(set(numbers)) < len(numbers):
        kind = "duplication"
    elif numbers != sorted(numbers):
        kind = "reordering"
    elif numbers != list(range(len(words) if finished else len(numbers))):
        kind = "loss"
    else:
        kind = "corruption"
    at = next(
        (at for at, (one, other) in enumerate(zip(heard, expected, strict=False)) if one != other),
        min(len(heard), len(expected)),
    )
    around = slice(max(0, at - 40), at + 80)
    return f"{kind}: at {at} {heard[around]!r} instead of {expected[around]!r}"


def leaks(who: str, start: Usage, end: Usage) -> list[str]:
    """Return what a process at rest has more of at the end than at the start."""
    wrong = []
    for what, more in (("threads", 0), ("descriptors", 0), ("objects", MORE_OBJECTS)):
        if end[what] > start[what] + more:
            wrong.append(f"leak: the {who} has {end[what]:.0f} {what}, {start[what]:.0f} at first")
    if wrong:
        names = ", ".join(sorted(thread.name for thread in threading.enumerate()))
        wrong[0] += f" (threads here: {names})"
    return wrong


def growth_bound_mb(quarter_mb: float) -> float:
    """Return by how much memory may grow after the first quarter: a tenth, and 5 MB."""
    return 0.1 * quarter_mb + 5.0


def growth(who: str, quarter_mb: float, end_mb: float) -> list[str]:
    """Return the complaint about memory that has grown beyond the bound, if it has."""
    if end_mb - quarter_mb <= growth_bound_mb(quarter_mb):
        return []
    return [f"leak: the {who} grew from {quarter_mb:.1f} MB to {end_mb:.1f} MB"]
