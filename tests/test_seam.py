"""The joint between a cut answer and its continuation."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llm_sse.errors import ConnectionLost
from llm_sse.events import (
    Citation,
    Event,
    Finish,
    ReasoningDelta,
    RefusalDelta,
    StreamStart,
    TextDelta,
    ToolCallDelta,
    Unknown,
    Usage,
)
from llm_sse.seam import MIN_OVERLAP_CHARS, WINDOW_CHARS, join

PARTIAL = "The quick brown fox jumps over"
FINISH = Finish("stop", "stop")


def deltas(text: str, sizes: list[int]) -> list[Event]:
    """Cut a text into deltas of the given sizes, over and over."""
    cut: list[Event] = []
    rest = text
    for size in itertools.cycle(sizes):
        if not rest:
            break
        cut.append(TextDelta(rest[:size]))
        rest = rest[size:]
    return cut


def text_of(events: Iterable[Event]) -> str:
    """Put the text of events together."""
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def repeated_chars(partial: str, continuation: str) -> int:
    """Find the longest repetition by trying each, which is all the rule there is."""
    window = partial[-WINDOW_CHARS:]
    lengths = range(MIN_OVERLAP_CHARS, min(len(window), len(continuation)) + 1)
    return max((n for n in lengths if window.endswith(continuation[:n])), default=0)


def failing(events: Iterable[Event]) -> Iterator[Event]:
    """Yield events, then lose the connection."""
    yield from events
    raise ConnectionLost("gone again")


class Reader:
    """Reads what a join delivers, up to an error if need be, and what it has asked for."""

    def __init__(self, partial: str, events: Iterable[Event]) -> None:
        self.asked: list[Event] = []
        self.got: list[Event] = []
        self._events = join(partial, self._watched(events))

    def _watched(self, events: Iterable[Event]) -> Iterator[Event]:
        for event in events:
            self.asked.append(event)
            yield event

    def read(self) -> list[Event]:
        """Read to the end, which may be an error."""
        for event in self._events:
            self.got.append(event)
        return self.got


#: Few letters, so that texts repeat themselves in every way there is.
_FEW = st.text("ab", max_size=40)
_SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=5)


class TestJoin:
    def test_repetition_is_removed(self) -> None:
        """What the continuation repeats of the partial answer's end is cut away."""
        events = [TextDelta("jumps over the "), TextDelta("lazy dog"), FINISH]
        assert list(join(PARTIAL, events)) == [TextDelta(" the "), TextDelta("lazy dog"), FINISH]

    def test_no_repetition(self) -> None:
        """A continuation that repeats nothing passes event by event, as it is."""
        events = [StreamStart(), TextDelta(" the "), TextDelta("lazy dog"), Usage(1, 2), FINISH]
        assert list(join(PARTIAL, events)) == events

    def test_short_repetition_stays(self) -> None:
        """Fewer characters than can be sure are kept; from that number on they go."""
        partial = "1234567890"
        short = partial[-(MIN_OVERLAP_CHARS - 1) :]
        sure = partial[-MIN_OVERLAP_CHARS:]
        assert text_of(join(partial, [TextDelta(short + "x"), FINISH])) == short + "x"
        assert text_of(join(partial, [TextDelta(sure + "x"), FINISH])) == "x"

    def test_the_longest_repetition_counts(self) -> None:
        """Where several lengths fit, the longest is cut away."""
        partial = "x" + "ab" * 8
        assert text_of(join(partial, [TextDelta("ab" * 8 + "c"), FINISH])) == "c"
        assert text_of(join(partial, [TextDelta("ab" * 5 + "c"), FINISH])) == "c"

    def test_a_text_from_the_middle_is_no_repetition(self) -> None:
        """What only stands somewhere inside the partial answer was meant."""
        assert text_of(join(PARTIAL, [TextDelta("quick brown cow"), FINISH])) == "quick brown cow"

    def test_partial_answer_too_short_to_judge(self) -> None:
        """A partial answer below the minimum is not compared at all."""
        reader = Reader("abc", [TextDelta("abc"), TextDelta("d")])
        assert reader.read() == [TextDelta("abc"), TextDelta("d")]

    def test_the_whole_answer_again(self) -> None:
        """A continuation that is the partial answer once more adds nothing."""
        assert list(join(PARTIAL, [*deltas(PARTIAL, [3]), FINISH])) == [FINISH]

    def test_window(self) -> None:
        """A repetition is found as far back as the window reaches, and no further."""
        partial = "".join(chr(0x4E00 + number) for number in range(WINDOW_CHARS + 100))
        whole = partial[-WINDOW_CHARS:]
        too_long = partial[-WINDOW_CHARS - 1 :]
        assert text_of(join(partial, [*deltas(whole + "x", [700]), FINISH])) == "x"
        assert text_of(join(partial, [*deltas(too_long, [700]), FINISH])) == too_long

    def test_text_is_held_no_longer_than_needed(self) -> None:
        """As soon as the text cannot become a repetition it is delivered."""
        reader = Reader(PARTIAL, [])
        source = iter([TextDelta("brown"), TextDelta(" f"), TextDelta("rog"), TextDelta("s")])
        events = join(PARTIAL, reader._watched(source))
        assert next(events) == TextDelta("brown frog")
        assert reader.asked == [TextDelta("brown"), TextDelta(" f"), TextDelta("rog")]
        assert next(events) == TextDelta("s")

    def test_a_finished_repetition_is_not_waited_on(self) -> None:
        """When the repetition has reached the partial answer's end, the next text passes."""
        events = [TextDelta("jumps "), TextDelta("over"), TextDelta(" the"), FINISH]
        assert list(join(PARTIAL, events)) == [TextDelta(" the"), FINISH]

    def test_after_the_decision_nothing_is_compared(self) -> None:
        """Only the start of a continuation can be a repetition."""
        events = [TextDelta("!"), TextDelta("jumps over"), FINISH]
        assert list(join(PARTIAL, events)) == events

    @pytest.mark.parametrize(
        "between", [StreamStart("m"), ReasoningDelta("hm"), Unknown("ping")], ids=repr
    )
    def test_what_says_nothing_visible_passes_at_once(self, between: Event) -> None:
        """Events that are no part of the visible answer pass, and the comparison goes on."""
        events = [TextDelta("jumps "), between, TextDelta("over the"), FINISH]
        assert list(join(PARTIAL, events)) == [between, TextDelta(" the"), FINISH]

    @pytest.mark.parametrize(
        "after",
        [FINISH, Usage(1), Citation("u"), RefusalDelta("no"), ToolCallDelta(0, "c", "f")],
        ids=repr,
    )
    def test_held_text_comes_before_what_follows_it(self, after: Event) -> None:
        """Held text that turns out to be new is delivered before the next event, not after."""
        events = [TextDelta("brown"), after, TextDelta("jumps over")]
        assert list(join(PARTIAL, events)) == events

    def test_held_text_survives_an_error(self) -> None:
        """When the continuation breaks off, too, its held text comes before the error."""
        reader = Reader(PARTIAL, failing([TextDelta("bro"), TextDelta("wn")]))
        with pytest.raises(ConnectionLost, match="gone again"):
            reader.read()
        assert reader.got == [TextDelta("brown")]

    def test_a_repetition_does_not_survive_an_error(self) -> None:
        """When the continuation breaks off within a repetition, the repetition is not delivered."""
        reader = Reader("z" * 9 + PARTIAL, failing([TextDelta("zzzzzzzzz")]))
        with pytest.raises(ConnectionLost):
            reader.read()
        assert text_of(reader.got) == "zzzzzzzzz"
        reader = Reader(PARTIAL * 2, failing([TextDelta(PARTIAL)]))
        with pytest.raises(ConnectionLost):
            reader.read()
        assert reader.got == []

    def test_an_error_after_the_decision_adds_nothing(self) -> None:
        """An error later on finds nothing held."""
        reader = Reader(PARTIAL, failing([TextDelta("new")]))
        with pytest.raises(ConnectionLost):
            reader.read()
        assert reader.got == [TextDelta("new")]

    def test_held_text_survives_a_missing_finish(self) -> None:
        """Events that just stop have said all that they said."""
        assert list(join(PARTIAL, [TextDelta("brown")])) == [TextDelta("brown")]
        assert list(join(PARTIAL * 2, [TextDelta(PARTIAL)])) == []
        assert list(join(PARTIAL, [])) == []

    @settings(max_examples=300, deadline=None)
    @given(_FEW, _FEW, _SIZES)
    @example("b" * 9 + "a", "b" * 8 + "ab", [1])
    @example("abaabaaba", "abaabaabaaba", [1])
    def test_any_cutting_any_ending(
        self, partial: str, continuation: str, sizes: list[int]
    ) -> None:
        """However deltas are cut and end, all goes through but the longest repetition."""
        new = continuation[repeated_chars(partial, continuation) :]
        events = deltas(continuation, sizes)
        assert text_of(join(partial, [*events, FINISH])) == new
        assert text_of(join(partial, events)) == new
        reader = Reader(partial, failing(events))
        with pytest.raises(ConnectionLost):
            reader.read()
        assert text_of(reader.got) == new

    @settings(max_examples=100, deadline=None)
    @given(_FEW, st.integers(MIN_OVERLAP_CHARS, 40), st.text("cd", max_size=10), _SIZES)
    def test_new_text_after_a_repetition(
        self, partial: str, overlap: int, new: str, sizes: list[int]
    ) -> None:
        """A repetition of any length is cut away exactly where new text begins."""
        overlap = min(overlap, len(partial))
        repetition = partial[len(partial) - overlap :] if overlap >= MIN_OVERLAP_CHARS else ""
        assert text_of(join(partial, [*deltas(repetition + "c" + new, sizes), FINISH])) == "c" + new

    @settings(max_examples=100, deadline=None)
    @given(_FEW, st.text("cd", max_size=10), _SIZES)
    def test_unlike_text_is_untouched(self, partial: str, new: str, sizes: list[int]) -> None:
        """A text that shares nothing with the partial answer passes delta by delta."""
        events = [*deltas(new, sizes), FINISH]
        assert list(join(partial, events)) == events
