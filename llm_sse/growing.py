"""A JSON value that grows while its text arrives, in linear time.

`ijson`'s push parser reads each piece once; its events build one value, which is never copied. The
library is optional: it comes with the extra `structured`.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import ijson

from .json_text import JSONText
from .structured import WRAPPER

__all__ = ["GrowingValue"]

_OPENINGS: dict[str, type] = {"start_map": dict, "start_array": list}
_ENDS = frozenset({"end_map", "end_array"})


class GrowingValue:
    """One JSON value, as much of it as has arrived.

    Args:
        wrapped: Whether the value is the one property of an object (`ResponseFormat.wrapped`).

    Attributes:
        complete: Whether the value is whole.
        problem: Why the text is no JSON, once that is known.
    """

    def __init__(self, *, wrapped: bool = False) -> None:
        self.complete = False
        self.problem: str | None = None
        self._text = JSONText()
        self._begun = False
        self._events: Any = ijson.sendable_list()
        self._parser: Any = ijson.basic_parse_coro(self._events)
        self._wrapped = wrapped
        self._root: Any = None
        #: The open containers from the root inwards, and the key under which each one's next
        #: value will stand.
        self._open: list[Any] = []
        self._keys: list[str | None] = []

    def feed(self, text: str) -> Iterator[Any]:
        """Take the next piece; yield the value after each field or item that it completes."""
        found = self._text.feed(text)
        if found and self.problem is None:
            self._begun = True
            yield from self._parse(found)

    def end(self) -> Iterator[Any]:
        """Take note that the text is over; yield a number that had no other end."""
        if self._begun and self.problem is None:
            yield from self._parse(None)

    def _parse(self, text: str | None) -> Iterator[Any]:
        problem = None
        try:
            if text is None:
                self._parser.close()
            else:
                self._parser.send(text.encode("utf-8", "replace"))
        except ijson.JSONError as error:
            problem = str(error).partition("\n")[0]  # a picture of the place follows
        events = list(self._events)
        del self._events[:]
        for kind, value in events:
            if self._take(kind, value):
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
        self._put(float(value) if isinstance(value, Decimal) else value)
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
