"""A JSON value that grows while its text arrives."""

from __future__ import annotations

import copy
import itertools
import sys
import time
from types import FrameType
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_sse.growing import GrowingValue

scalars = st.none() | st.booleans() | st.integers() | st.text()
scalars |= st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


def grow(text: str, *, size: int = 1, wrapped: bool = False) -> tuple[list[Any], GrowingValue]:
    """Feed a text in pieces; return copies of all that was seen, and what it came to."""
    growing = GrowingValue(wrapped=wrapped)
    seen = []
    for at in range(0, len(text), size):
        seen += [copy.deepcopy(value) for value in growing.feed(text[at : at + size])]
    seen += [copy.deepcopy(value) for value in growing.end()]
    return seen, growing


class TestGrowingValue:
    def test_each_field_and_item_is_seen(self) -> None:
        """There is one value for each field or item that is whole, from the inside outwards."""
        seen, growing = grow('{"title": "Soup", "steps": [{"n": 1}, "stir"], "done": true}')
        assert seen == [
            {"title": "Soup"},
            {"title": "Soup", "steps": [{"n": 1}]},
            {"title": "Soup", "steps": [{"n": 1}]},  # the step is whole
            {"title": "Soup", "steps": [{"n": 1}, "stir"]},
            {"title": "Soup", "steps": [{"n": 1}, "stir"]},  # the list is whole
            {"title": "Soup", "steps": [{"n": 1}, "stir"], "done": True},
        ]
        assert growing.complete
        assert growing.problem is None

    @given(values, st.integers(1, 50))
    def test_the_last_one_is_the_whole(self, value: Any, size: int) -> None:
        """Whatever JSON it is, and however it is cut, the last value is what a parser gives."""
        text = msgspec.json.encode(value).decode() if _small(value) else "[0]"
        seen, growing = grow(text, size=size)
        assert growing.complete
        assert seen[-1] == msgspec.json.decode(text)

    @pytest.mark.parametrize("text", ["42", "-1.5e3", '"x"', "null", "true", "[]", "{}", "[[]]"])
    def test_scalars_and_what_is_empty(self, text: str) -> None:
        """A value without parts is seen once, when it is whole."""
        seen, growing = grow(text)
        assert growing.complete
        assert seen == [msgspec.json.decode(text)]

    def test_numbers_are_plain(self) -> None:
        """Whole numbers of any size are exact, and the others are floats."""
        seen, _ = grow("[12345678901234567890123, 0.1, 1E2]")
        assert seen[-1] == [12345678901234567890123, 0.1, 100.0]
        assert [type(number) for number in seen[-1]] == [int, float, float]

    def test_it_is_the_same_object_each_time(self) -> None:
        """Nothing is copied: what is seen early grows on."""
        growing = GrowingValue()
        seen = [value for piece in ('{"a": 1, ', '"b": [2, 3]}') for value in growing.feed(piece)]
        assert len(seen) == 4
        assert all(value is seen[0] for value in seen)
        assert seen[0] == {"a": 1, "b": [2, 3]}

    def test_each_value_is_seen_before_the_next_one_is_in_it(self) -> None:
        """Several fields in one piece are still seen one by one."""
        growing = GrowingValue()
        assert [len(value) for value in growing.feed("[1, 2, 3]")] == [1, 2, 3]

    def test_a_wrapped_value_is_taken_out(self) -> None:
        """Of an object around the value nothing is seen."""
        assert grow('{"value": [1, {"a": 2}]}', wrapped=True)[0] == [[1], *[[1, {"a": 2}]] * 2]
        assert grow('{"value": 5}', wrapped=True)[0] == [5]
        assert grow("[1, 2]", wrapped=True)[0] == [[1], [1, 2]]
        assert grow('{"other": 1}', wrapped=True)[0] == [{"other": 1}]

    def test_a_fence_and_prose_around_it(self) -> None:
        """What models put around JSON is not part of it."""
        seen, growing = grow('Sure!\n```json\n{"a": "`"}\n```\nAnything else?', size=3)
        assert seen == [{"a": "`"}]
        assert growing.complete
        assert growing.problem is None

    @pytest.mark.parametrize("size", [1, 3, 1000])
    @pytest.mark.parametrize("prose", ["the answer:", "[note] Here:", "2 results", "- so", "{x}"])
    def test_prose_that_begins_like_json(self, prose: str, size: int) -> None:
        """A fence that is marked as JSON is found behind prose that only begins like it."""
        seen, growing = grow(f'{prose}\n```json\n{{"a": 1}}\n```\nBye', size=size)
        assert seen == [{"a": 1}]
        assert growing.complete
        assert growing.problem is None

    @pytest.mark.parametrize(
        ("text", "seen", "complete"),
        [
            ("[1, 23", [[1]], False),
            ("12", [], False),
            ("tru", [], False),
            ('{"a": 12', [], False),
            ("```json\n12", [], False),
            ("12\n", [12], True),
            ('"ab"', ["ab"], True),
            ("[12]", [[12]], True),
        ],
    )
    def test_what_was_cut(self, text: str, seen: list[Any], complete: bool) -> None:
        """A number at the end of a text that was cut may be half of one, and is not seen."""
        growing = GrowingValue()
        got = [copy.deepcopy(value) for value in growing.feed(text)]
        got += [copy.deepcopy(value) for value in growing.end(cut=True)]
        assert (got, growing.complete) == (seen, complete)

    @pytest.mark.parametrize("number", ["1e999", "-1e999", "1" * 5000])
    def test_numbers_that_no_float_holds(self, number: str) -> None:
        """A number that cannot be told is a mistake, as it is in the whole answer."""
        seen, growing = grow(f'{{"a": 1, "b": {number}, "c": 2}}', size=7)
        assert seen == [{"a": 1}]
        assert growing.problem is not None
        assert growing.problem.startswith("a number ")

    @pytest.mark.parametrize(
        "text",
        ['{"a": "%s"}', '"%s"', '```json\n["%s"]\n```', '{"%s": 1}'],
    )
    def test_a_long_token_takes_linear_time(self, text: str) -> None:
        """A string that comes in small pieces is read once: 64 would be the square."""

        def seconds(chars: int) -> float:
            growing, whole = GrowingValue(), text % ("1" * chars)
            begun = time.process_time()
            for at in range(0, len(whole), 4):
                list(growing.feed(whole[at : at + 4]))
            list(growing.end())
            assert growing.complete
            return time.process_time() - begun

        small = min(seconds(10_000) for _ in range(3))
        assert min(seconds(80_000) for _ in range(2)) < 32 * small

    def test_escapes_that_are_cut(self) -> None:
        """A quotation mark behind a backslash ends nothing, wherever the pieces are cut."""
        value = {"a\\": '"b\\"', "\\": ["", "\\\\"], "n": -1500.5, "t": True}
        text = msgspec.json.encode(value).decode()
        for size in range(1, len(text) + 1):
            assert grow(text, size=size)[0][-1] == value

    @pytest.mark.parametrize(
        ("text", "seen", "complete"),
        [
            ('{"a": 1, "b": "x', [{"a": 1}], False),
            ("[1, oops]", [[1]], False),
            ('{"a": 1} and more', [{"a": 1}], True),
            ("Sorry.", [], False),
            ("", [], False),
            ("nope", [], False),
        ],
    )
    def test_what_is_no_json(self, text: str, seen: list[Any], complete: bool) -> None:
        """What came before the mistake is seen; then it is known to be wrong, or not whole."""
        got, growing = grow(text)
        assert got == seen
        assert growing.complete is complete
        assert not complete or growing.problem is not None

    def test_after_a_mistake_nothing_more_is_read(self) -> None:
        """Text that follows a mistake changes nothing."""
        growing = GrowingValue()
        assert list(growing.feed("[1, oops")) == [[1]]
        problem = growing.problem
        assert problem is not None
        assert "\n" not in problem
        assert list(growing.feed(", 2]")) == list(growing.end()) == []
        assert growing.problem == problem

    def test_the_work_is_linear(self) -> None:
        """Sixteen times the answer, in as many pieces, is about sixteen times the work."""
        small, large = _calls(250), _calls(4000)
        assert 12 * small < large < 20 * small

    def test_the_time_is_linear(self) -> None:
        """Nothing in the parser's own code looks at the whole again: 64 would be the square."""
        small = min(_seconds(1000) for _ in range(3))
        large = min(_seconds(8000) for _ in range(3))
        assert large < 32 * small


def _small(value: Any) -> bool:
    """Whether msgspec's own reader takes the value's numbers without rounding."""
    return bool(msgspec.json.decode(msgspec.json.encode(value)) == value)


def _feed(items: int) -> None:
    growing = GrowingValue()
    count = itertools.count()
    for piece in ("[", *('{"name": "some text", "n": [1, 2]},' for _ in range(items)), "0]"):
        for _ in growing.feed(piece):
            next(count)
    assert growing.complete
    assert next(count) == items * 5 + 1


def _seconds(items: int) -> float:
    begun = time.process_time()
    _feed(items)
    return time.process_time() - begun


def _calls(items: int) -> int:
    calls = 0

    def count(frame: FrameType, event: str, arg: Any) -> None:
        nonlocal calls
        calls += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        _feed(items)
    finally:
        sys.setprofile(before)
    return calls
