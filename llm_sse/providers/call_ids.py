"""Identifiers of tool calls, made fit for the provider that a conversation goes to.

Each provider names its calls as it likes, some repeat a name in every answer, and some refuse what
others have given:

    Anthropic         letters, digits, `_` and `-`; none twice
    Chat Completions  at most 40 characters, with OpenAI itself
    Responses         at most 64 characters; none twice
    Mistral           nine letters and digits

Source: the providers' own refusals, as in https://github.com/maximhq/bifrost/issues/5097,
https://github.com/langmanus/langmanus/issues/119, https://github.com/AnswerDotAI/fastllm/issues/45
and https://github.com/langchain-ai/langchain/pull/24668
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Iterable
from typing import Any

import msgspec

from ..chat import Message

__all__ = ["with_fitting_ids"]

#: So many hexadecimal digits are an identifier that everybody takes.
_LENGTH = 9


def with_fitting_ids(messages: Iterable[Message], pattern: str) -> list[Message]:
    """Give a new identifier to each call whose own does not fit, or was given before.

    The results follow their calls: of several calls that had one identifier, the latest answer's,
    and of these each in its turn. The same conversation always gets the same identifiers, also when
    it has grown, so what a provider has cached of it stays good. A call without an identifier, and
    a result whose call is not here, stay as they are.

    Args:
        messages: The turns.
        pattern: A regular expression that fits a whole identifier.
    """
    turns = list(messages)
    fits = re.compile(pattern, re.DOTALL)
    taken = {id_ for turn in turns for call in turn.tool_calls or () if (id_ := _id_of(call))}
    given: set[str] = set()
    renamed: dict[str, deque[str]] = {}
    fitting: list[Message] = []
    for turn in turns:
        if turn.tool_calls:
            calls, renamed_here = _named(turn.tool_calls, fits, taken, given)
            renamed.update(renamed_here)
            fitting.append(msgspec.structs.replace(turn, tool_calls=calls))
        elif turn.tool_call_id in renamed:
            names = renamed[turn.tool_call_id]
            name = names.popleft() if len(names) > 1 else names[0]
            fitting.append(msgspec.structs.replace(turn, tool_call_id=name))
        else:
            fitting.append(turn)
    return fitting


def _named(
    calls: Iterable[dict[str, Any]], fits: re.Pattern[str], taken: set[str], given: set[str]
) -> tuple[list[dict[str, Any]], dict[str, deque[str]]]:
    """Return one answer's calls with identifiers that fit, and what each old one became."""
    named: list[dict[str, Any]] = []
    renamed: dict[str, deque[str]] = {}
    for call in calls:
        old = _id_of(call)
        if old is None:
            named.append(call)
            continue
        new = old
        if old in given or not fits.fullmatch(old):
            new = _made(old, taken)
        given.add(new)
        renamed.setdefault(old, deque()).append(new)
        named.append({**call, "id": new})
    return named, renamed


def _id_of(call: dict[str, Any]) -> str | None:
    id_ = call.get("id")
    return id_ if isinstance(id_, str) and id_ else None


def _made(old: str, taken: set[str]) -> str:
    """Make an identifier out of an old one that no other call of the conversation has."""
    number = 0
    while True:
        digest = hashlib.sha256(f"{number} {old}".encode("utf-8", "replace")).hexdigest()
        if (made := digest[:_LENGTH]) not in taken:
            taken.add(made)
            return made
        number += 1
