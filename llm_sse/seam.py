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
    """Yield a continuation's events without the text that repeats the end of `partial`.

    The log-probabilities of the tokens in a repetition go with it.
    """
    window = partial[-WINDOW_CHARS:]
    held = ""
    tokens: list[TokenLogprob] = []
    repeated_chars = 0
    deciding = len(window) >= MIN_OVERLAP_CHARS
    try:
        for event in events:
            if isinstance(event, Logprobs) and (deciding or repeated_chars):
                if deciding:
                    tokens += event.tokens
                else:
                    kept, repeated_chars = _new_tokens(event.tokens, repeated_chars)
                    yield from kept
                continue
            if not deciding or isinstance(event, (StreamStart, ReasoningDelta, Unknown)):
                yield event
                continue
            if isinstance(event, TextDelta):
                held += event.text
                if _may_repeat(window, held):
                    continue
            deciding = False
            new, repeated_chars = _new_text(window, held, tokens)
            yield from new
            if not isinstance(event, TextDelta):
                yield event
    except StreamError:
        if deciding:
            yield from _new_text(window, held, tokens)[0]
        raise
    if deciding:
        yield from _new_text(window, held, tokens)[0]


def _new_text(window: str, text: str, tokens: Iterable[TokenLogprob]) -> tuple[list[Event], int]:
    """Return what is left of a text without the repetition at its start, if anything is.

    Also how many characters the repetition has whose tokens are still to come.
    """
    cut = _overlap(window, text)
    rest = text[cut:]
    kept, cut = _new_tokens(tokens, cut)
    return [*([TextDelta(rest)] if rest else []), *kept], cut


def _new_tokens(tokens: Iterable[TokenLogprob], cut: int) -> tuple[list[Event], int]:
    """Return the tokens without those that begin in a repetition, and what is left of that."""
    kept: list[TokenLogprob] = []
    for token in tokens:
        if cut > 0:
            cut -= len(token.token)
        else:
            kept.append(token)
    return [Logprobs(tuple(kept))] if kept else [], max(0, cut)


def _may_repeat(window: str, text: str) -> bool:
    """Whether more text could still make this a longer repetition of the window's end."""
    return any(window.startswith(text, at) for at in range(len(window) - len(text)))


def _overlap(window: str, text: str) -> int:
    """Return how many characters of `text` repeat the window's end; 0 if too few to be sure."""
    for length in range(min(len(window), len(text)), MIN_OVERLAP_CHARS - 1, -1):
        if window.endswith(text[:length]):
            return 0 if text[:length].isspace() else length  # an indent is no repetition
    return 0
