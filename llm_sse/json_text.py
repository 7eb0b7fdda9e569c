"""The JSON in what a model writes: without the fence and the prose that many put around it.

What is taken for the answer: the whole text, if it begins as JSON; else the first Markdown fence
that is marked `json`, or not marked at all. White space, a byte order mark, prose before that fence
and whatever follows it are left out. JSON in the middle of a sentence is not looked for: where it
begins would be a guess.
"""

from __future__ import annotations

import re

__all__ = ["JSONText", "json_text"]

_SPACE = " \t\r\n\ufeff"
_BEGINS = frozenset('{["-0123456789tfn')
_FENCE = re.compile(r'```[ \t]*(?:jsonc?(?![\w-])[ \t]*)?(?:\r?\n|(?=[{\["]))', re.IGNORECASE)
_CLOSING = re.compile(r"```+[ \t]*\r?\n")
_MARK = re.compile(r'[\\"`]')
#: A fence's first line that is longer is none.
_MAX_FENCE_CHARS = 64


def json_text(text: str) -> str:
    """Return the JSON in a whole text; empty where there is none."""
    return JSONText().feed(text)


class JSONText:
    """Find the JSON in a text that comes in pieces; the time is linear in the text."""

    def __init__(self) -> None:
        self._line = ""
        self._first = True
        self._skipping = False
        self._foreign = False
        self._found = False
        self._fenced = False
        self._quoted = False
        self._escaped = False
        self._over = False

    def feed(self, text: str) -> str:
        """Take the next piece; return what of it belongs to the JSON."""
        if self._over:
            return ""
        if self._found:
            return self._inside(text) if self._fenced else text
        text, self._line = self._line + text, ""
        while text:
            if self._skipping:
                _, newline, text = text.partition("\n")
                self._skipping = not newline
                continue
            text = text.lstrip(_SPACE)
            if not text:
                break
            if self._first and text[0] in _BEGINS:
                self._found = True
                return text
            if not self._foreign and (fence := _FENCE.match(text)):
                self._found = self._fenced = True
                return self._inside(text[fence.end() :])
            if text[0] == "`" and "\n" not in text and len(text) < _MAX_FENCE_CHARS:
                self._line = text  # it may yet become a fence
                return ""
            if text.startswith("```"):
                self._foreign = not (self._foreign and _CLOSING.match(text))
            self._first = False
            self._skipping = True
        return ""

    def _inside(self, text: str) -> str:
        """Return what stands before the fence's end: a backtick outside of any string."""
        at = 0
        if self._escaped and text:
            self._escaped, at = False, 1
        while mark := _MARK.search(text, at):
            at = mark.end()
            if mark[0] == '"':
                self._quoted = not self._quoted
            elif mark[0] == "\\":
                self._escaped = at == len(text)
                at += 1
            elif not self._quoted:
                self._over = True
                return text[: mark.start()]
        return text
