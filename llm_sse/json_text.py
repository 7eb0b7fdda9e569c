"""The JSON in what a model writes: without the fence and the prose that many put around it.

What is taken for the answer: the whole text, if it begins with a bracket, or if its first line is
nothing but a string, a number, or one of the words `true`, `false` and `null`; else the first
Markdown fence that is marked `json`, or not marked at all. White space, a byte order mark, prose
before that fence and whatever follows it are left out. JSON in the middle of a sentence is not
looked for: where it begins would be a guess.
"""

from __future__ import annotations

import re

import msgspec

__all__ = ["MARKED_FENCE", "JSONText", "json_text"]

_SPACE = " \t\r\n\ufeff"
_OPENS = frozenset("{[")
_BEGINS_SCALAR = frozenset('"-0123456789tfn')
_FENCE = re.compile(r'```[ \t]*(?:jsonc?(?![\w-])[ \t]*)?(?:\r?\n|(?=[{\["]))', re.IGNORECASE)
#: The beginning of a fence that says that it is JSON.
MARKED_FENCE = re.compile(r"```[ \t]*jsonc?(?![\w-])[ \t]*(?:\r?\n|(?=[{\[]))", re.IGNORECASE)
_CLOSING = re.compile(r"```+[ \t]*\r?\n")
_MARK = re.compile(r'[\\"`]')
#: A fence's first line that is longer is none.
_MAX_FENCE_CHARS = 64


def json_text(text: str) -> str:
    """Return the JSON in a whole text; empty where there is none.

    A text that begins with a bracket, and is no JSON, may be prose: `[Note] Here it is:`. Then a
    fence in it that is marked `json` is the answer.
    """
    finder = JSONText()
    found = finder.feed(text) + finder.end()
    if found and not finder.fenced and not _is_json(found):
        finder = JSONText(MARKED_FENCE)
        return finder.feed(text) + finder.end() or found
    return found


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True


class JSONText:
    """Find the JSON in a text that comes in pieces; the time is linear in the text.

    Args:
        fence: What begins a fence that is looked for; with one, JSON without a fence is not.

    Attributes:
        fenced: Whether the JSON stands in a fence.
    """

    def __init__(self, fence: re.Pattern[str] | None = None) -> None:
        self.fenced = False
        self._fence = fence or _FENCE
        self._line = ""
        self._scalar: list[str] = []
        self._first = fence is None
        self._skipping = False
        self._foreign = False
        self._found = False
        self._quoted = False
        self._escaped = False
        self._over = False

    def feed(self, text: str) -> str:
        """Take the next piece; return what of it belongs to the JSON."""
        if self._over:
            return ""
        if self._found:
            return self._inside(text) if self.fenced else text
        if self._scalar:
            return self._on_scalar(text)
        text, self._line = self._line + text, ""
        while text:
            if self._skipping:
                _, newline, text = text.partition("\n")
                self._skipping = not newline
                continue
            text = text.lstrip(_SPACE)
            if not text:
                break
            if self._first and text[0] in _OPENS:
                self._found = True
                return text
            if self._first and text[0] in _BEGINS_SCALAR:
                return self._on_scalar(text)
            if not self._foreign and (fence := self._fence.match(text)):
                self._found = self.fenced = True
                return self._inside(text[fence.end() :])
            if text[0] == "`" and "\n" not in text and len(text) < _MAX_FENCE_CHARS:
                self._line = text  # it may yet become a fence
                return ""
            if text.startswith("```"):
                self._foreign = not (self._foreign and _CLOSING.match(text))
            self._first = False
            self._skipping = True
        return ""

    def end(self, *, cut: bool = False) -> str:
        """Take note that the text is over; return a scalar that had no other end.

        Args:
            cut: Whether the text goes no further because of a limit: then what has no other end
                than the text's may be half of a scalar.
        """
        line, self._scalar = "".join(self._scalar).strip(_SPACE), []
        whole = line.endswith('"') or not cut
        return line if whole and _is_json(line) else ""

    def _on_scalar(self, text: str) -> str:
        """Hold the first line back until it is whole: what begins as a scalar may be prose."""
        before, newline, _ = text.partition("\n")
        self._scalar.append(before)
        if not newline:
            return ""
        line, self._scalar = "".join(self._scalar), []
        self._first = False
        if _is_json(line.strip(_SPACE)):
            self._found = True
            return line + text[len(before) :]
        return self.feed(text[len(before) :])

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
