"""A JSON value that grows while its text arrives, in linear time.

`ijson`'s push parser reads each piece once; its events build one value, which is never copied. It
reads a string or a number that is not whole from its beginning with each piece, so those are held
back until they are. The library is optional: it comes with the extra `structured`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import ijson

from .json_text import MARKED_FENCE, JSONText
from .response_format import WRAPPER

__all__ = ["GrowingValue"]

_OPENINGS: dict[str, type] = {"start_map": dict, "start_array": list}
_ENDS = frozenset({"end_map", "end_array"})
#: Python refuses to read numbers of more digits, if it is told to; ijson crashes then (as of 3.6).
_MAX_DIGITS = 640
_TOO_LONG = re.compile(rf"(?<![0-9])[0-9]{{{_MAX_DIGITS + 1}}}")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_IN_STRING = re.compile(r'[\\"]')
_NUMBER = "-+.eE0123456789"
_IN_NUMBER = re.compile(r"[-+.eE0-9]*")
_DIGITS = frozenset("-0123456789")


class GrowingValue:
    """One JSON value, as much of it as has arrived.

    Args:
        wrapped: Whether the value is the one property of an object (`ResponseFormat.wrapped`).

    Attributes:
        complete: Whether the value is whole.
        problem: Why the text is no JSON, once that is known.
    """

    def __init__(self, *, wrapped: bool = False) -> None:
        self._wrapped = wrapped
        self._begin(JSONText())

    def _begin(self, text: JSONText) -> None:
        self.complete = False
        self.problem: str | None = None
        self._text = text
        #: Where the JSON may be, if what begins like it is prose.
        self._fence: JSONText | None = None
        self._tokens = _WholeTokens()
        self._events: Any = ijson.sendable_list()
        self._parser: Any = ijson.basic_parse_coro(self._events)
        self._begun = False
        self._seen = False
        self._root: Any = None
        #: The open containers from the root inwards, and the key under which each one's next
        #: value will stand.
        self._open: list[Any] = []
        self._keys: list[str | None] = []

    def feed(self, text: str) -> Iterator[Any]:
        """Take the next piece; yield the value after each field or item that it completes."""
        if self.problem is None and (found := self._tokens.feed(self._text.feed(text))):
            yield from self._parse(found)
            self._fence = self._fence_behind()
        if self._fence is not None and (found := self._fence.feed(text)):
            self._begin(self._fence)
            if found := self._tokens.feed(found):
                yield from self._parse(found)

    def _fence_behind(self) -> JSONText | None:
        """Return what finds a fence, where the text that began like JSON is but prose."""
        is_prose = self.problem is not None and not self._seen and not self._text.fenced
        return JSONText(MARKED_FENCE) if is_prose else None

    def end(self, *, cut: bool = False) -> Iterator[Any]:
        """Take note that the text is over; yield a number that had no other end.

        Args:
            cut: Whether the text goes no further because of a limit: then a number that has no
                other end may be half of one.
        """
        if self.problem is not None:
            return
        found = self._tokens.feed(self._text.end(cut=cut))
        if found := found if cut else found + self._tokens.end():
            yield from self._parse(found)
        if self.problem is None and self._begun and not cut:
            yield from self._parse(None)

    def _parse(self, text: str | None) -> Iterator[Any]:
        self._begun = True
        problem = None
        try:
            if text is None:
                self._parser.close()
            elif _TOO_LONG.search(text) and _TOO_LONG.search(_STRING.sub("", text)):
                problem = f"a number of more than {_MAX_DIGITS} digits"
            else:
                self._parser.send(text.encode("utf-8", "replace"))
        except ijson.JSONError as error:
            problem = str(error).partition("\n")[0]  # a picture of the place follows
        events = list(self._events)
        del self._events[:]
        for kind, value in events:
            number = float(value) if isinstance(value, Decimal) else value
            if isinstance(number, float) and math.isinf(number):
                problem = "a number out of range"
                break
            if self._take(kind, number):
                self._seen = True
                yield self._shown()
        self.problem = problem

    def _take(self, kind: str, value: Any) -> bool:
        """Build one event in; say whether it completes something to be seen."""
        if kind == "map_key":
            self._keys[-1] = value
            return False
        if kind in _OPENINGS:
            container = _OPENINGS[kind]()
            self._put(container)
            self._open.append(container)
            self._keys.append(None)
            return False
        if kind in _ENDS:
            ended = self._open.pop()
            self._keys.pop()
            self.complete = not self._open
            return not ended or not self._is_outermost()
        self._put(value)
        self.complete = not self._open
        return True

    def _put(self, value: Any) -> None:
        if not self._open:
            self._root = value
        elif self._keys[-1] is None:
            self._open[-1].append(value)
        else:
            self._open[-1][self._keys[-1]] = value

    def _is_outermost(self) -> bool:
        """Whether what has just ended is the whole value, which its last part has completed."""
        return not self._open or (len(self._open) == 1 and self._is_wrapper())

    def _is_wrapper(self) -> bool:
        """Whether the root is an object around the value; a model may leave that out."""
        root = self._root
        return self._wrapped and isinstance(root, dict) and next(iter(root), None) == WRAPPER

    def _shown(self) -> Any:
        return self._root[WRAPPER] if self._is_wrapper() else self._root


class _WholeTokens:
    """Hold back a string or a number until it is whole; the time is linear in the text."""

    def __init__(self) -> None:
        self._held: list[str] = []
        self._number = False
        self._quoted = False
        self._escaped = False

    def feed(self, text: str) -> str:
        """Take the next piece; return all up to the first token that is not whole."""
        if self._number:
            digits = _IN_NUMBER.match(text)
            if digits is None or digits.end() == len(text):
                self._held.append(text)
                return ""
        whole = self._scan(text)
        if not whole:
            self._held.append(text)
            return ""
        found = "".join([*self._held, text[:whole]])
        self._held = [text[whole:]]
        return found

    def end(self) -> str:
        """Return what was held back."""
        found, self._held = "".join(self._held), []
        return found

    def _scan(self, text: str) -> int:
        """Return where the token begins that is not whole: at the end, where all are."""
        at = whole = 0
        while True:
            if not self._quoted:
                opening = text.find('"', at)
                if opening < 0:
                    return self._before_number(text, at)
                self._quoted, whole, at = True, opening, opening + 1
            at = self._after_string(text, at)
            if self._quoted:
                return whole

    def _after_string(self, text: str, at: int) -> int:
        """Return where the open string ends; it stays open if that is not in this piece."""
        if self._escaped and text:
            self._escaped, at = False, at + 1
        while mark := _IN_STRING.search(text, at):
            at = mark.end()
            if mark[0] == '"':
                self._quoted = False
                return at
            self._escaped = at == len(text)
            at += 1
        return len(text)

    def _before_number(self, text: str, at: int) -> int:
        """Return where the number begins at which a piece ends; more of it may follow."""
        begin = max(at, len(text.rstrip(_NUMBER)))
        self._number = text[begin : begin + 1] in _DIGITS and not text[begin - 1 : begin].isalpha()
        return begin if self._number else len(text)
