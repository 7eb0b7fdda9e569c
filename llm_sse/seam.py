"""Join a continuation to the answer that was cut off: what it repeats is removed.

A model that is asked to go on often begins a few words back. While the continuation could still be
a repetition of the partial answer's end it is held; as soon as it differs, or is over, the longest
repetition is cut away and the rest goes on its way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .errors import StreamError
from .events import (
    Event,
    Logprobs,
    ReasoningDelta,
    StreamStart,
    TextDelta,
    TokenLogprob,
    Unknown,
)

__all__ = ["MIN_OVERLAP_CHARS", "WINDOW_CHARS", "join"]

#: How far back a repetition is looked for, in characters.
WINDOW_CHARS = 2000
#: Shorter repetitions may be chance ("ha" after "ha") and stay.
MIN_OVERLAP_CHARS = 8


def join(partial: str, events: Iterable[Event]) -> Iterator[Event]:
    """Yield a continuation's events without the text that repeats the end of `partial`."""
    window = partial[-WINDOW_CHARS:]
    held = ""
    tokens: list[TokenLogprob] = []
    deciding = len(window) >= MIN_OVERLAP_CHARS
    try:
        for event in events:
            if not deciding or isinstance(event, (StreamStart, ReasoningDelta, Unknown)):
                yield event
                continue
            if isinstance(event, Logprobs):
                tokens += event.tokens
                continue
            if isinstance(event, TextDelta):
                held += event.text
                if _may_repeat(window, held):
                    continue
            deciding = False
            yield from _new_text(window, held, tokens)
            if not isinstance(event, TextDelta):
                yield event
    except StreamError:
        if deciding:
            yield from _new_text(window, held, tokens)
        raise
    if deciding:
        yield from _new_text(window, held, tokens)


def _new_text(window: str, text: str, tokens: list[TokenLogprob]) -> Iterator[Event]:
    """Yield what is left of a text without the repetition at its start, if anything is.

    The tokens that begin in the repetition go with it.
    """
    cut = _overlap(window, text)
    if rest := text[cut:]:
        yield TextDelta(rest)
    kept: list[TokenLogprob] = []
    begin = 0
    for token in tokens:
        if begin >= cut:
            kept.append(token)
        begin += len(token.token)
    if kept:
        yield Logprobs(tuple(kept))


def _may_repeat(window: str, text: str) -> bool:
    """Whether more text could still make this a longer repetition of the window's end."""
    return any(window.startswith(text, at) for at in range(len(window) - len(text)))


def _overlap(window: str, text: str) -> int:
    """Return how many characters of `text` repeat the window's end; 0 if too few to be sure."""
    for length in range(min(len(window), len(text)), MIN_OVERLAP_CHARS - 1, -1):
        if window.endswith(text[:length]):
            return 0 if text[:length].isspace() else length  # an indent is no repetition
    return 0
