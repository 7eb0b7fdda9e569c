"""The JSON in what a model writes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_sse.json_text import JSONText, json_text

FENCED = [
    ('```json\n{"a": 1}\n```', '{"a": 1}\n'),
    ("```\n[1]\n```\nThat is all.", "[1]\n"),
    ('```JSON\r\n"x"\r\n```', '"x"\r\n'),
    ('```json {"a": 1} ```', '{"a": 1} '),
    ('```{"a": 1}```', '{"a": 1}'),
    ('Here it is:\n\n```json\n{"a": 1}\n```\n', '{"a": 1}\n'),
    ("Sure.\n  ```json\n[1]\n```", "[1]\n"),
    ('```json\n{"a": "`\\"` and ```\\\\"}\n```', '{"a": "`\\"` and ```\\\\"}\n'),
    ("```python\n```json5```\nx = {}\n```\nSo:\n```\n[2]\n```", "[2]\n"),
    ("```python\nx = {}\n```\nSo:\n```\n[2]\n```", "[2]\n"),
    ("`x` is:\n```\n1\n```", "1\n"),
]
PROSE = [
    "the answer is:",
    "true story:",
    "- an item",
    '"Sure", she said',
    "2 results:",
    "not found here",
    "nullable:",
    "-",
]
BRACKETS = ["[note] Here it is:", "{thinking}", "[1] says so"]
BARE = ['{"a": 1}', " \n[1]", '\ufeff"x"', "12", "-1", "true", "null", '{"a": "```"} rest']
NOTHING = ["", "  \n", "Sorry, I cannot.", "The list [1, 2] is {}.", "```python\nx\n```", "`", "``"]

AFTER = [f"{prose}\n```json\n[2]\n```" for prose in PROSE]

pieces = st.lists(st.integers(1, 5), min_size=1, max_size=5)


class TestJSONText:
    @pytest.mark.parametrize(("text", "found"), FENCED)
    def test_a_fence_is_left_out(self, text: str, found: str) -> None:
        """What stands in the first fence that may be JSON is the answer."""
        assert json_text(text).strip() == found.strip()

    @pytest.mark.parametrize("prose", PROSE)
    @pytest.mark.parametrize("fence", ["```json", "```"])
    def test_prose_may_begin_like_a_scalar(self, prose: str, fence: str) -> None:
        """A first line that only begins like a word, a text or a number of JSON is prose."""
        assert json_text(f'{prose}\n{fence}\n{{"d": 1}}\n```\nBye').strip() == '{"d": 1}'

    @pytest.mark.parametrize("prose", BRACKETS)
    def test_prose_may_begin_with_a_bracket(self, prose: str) -> None:
        """Where a text is no JSON, a fence in it that is marked as JSON is the answer."""
        assert json_text(f'{prose}\n```json\n{{"d": 1}}\n```').strip() == '{"d": 1}'
        assert json_text(f"{prose}\n```\n[2]\n```").startswith(prose)

    @pytest.mark.parametrize(("text", "found"), [("12", ""), ("tru", ""), ('"x"', '"x"')])
    def test_half_a_scalar_is_none(self, text: str, found: str) -> None:
        """Of a text that was cut, a number or a word at its end may be half of one."""
        finder = JSONText()
        assert finder.feed(text) + finder.end(cut=True) == found

    @pytest.mark.parametrize("text", BARE)
    def test_bare_json_is_the_whole_text(self, text: str) -> None:
        """A text that begins as JSON is taken to its end, whatever follows."""
        assert json_text(text) == text.lstrip("\ufeff \n")

    @pytest.mark.parametrize("text", NOTHING)
    def test_nothing_is_guessed(self, text: str) -> None:
        """JSON in the middle of prose is not looked for."""
        assert json_text(text) == ""

    @given(st.sampled_from([*(text for text, _ in FENCED), *BARE, *NOTHING, *AFTER]), pieces)
    def test_the_cuts_do_not_matter(self, text: str, sizes: list[int]) -> None:
        """In pieces of any size the same is found as in one."""
        finder, found, at, turn = JSONText(), "", 0, 0
        while at < len(text):
            size = sizes[turn % len(sizes)]
            found += finder.feed(text[at : at + size])
            at, turn = at + size, turn + 1
        assert found + finder.end() == json_text(text)

    def test_endless_prose_is_not_kept(self) -> None:
        """A line that is no JSON leaves nothing behind, however long it is."""
        finder = JSONText()
        for _ in range(100):
            assert finder.feed("prose " * 100) == ""
        assert len(finder._line) < 100
