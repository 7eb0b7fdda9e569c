from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_sse.sync.redaction import BytesRedaction, Redaction


class TestRedaction:
    KEY = "sk-proj-" + "".join(chr(65 + number % 26) + str(number) for number in range(300))

    def test_a_secret_is_cut_out_wherever_it_stands(self) -> None:
        """Whole, its beginning, its end, or its middle: twelve characters are too many."""
        clean = Redaction([self.KEY])
        for part in (self.KEY, self.KEY[:12], self.KEY[-30:], self.KEY[100:140]):
            assert clean(f"the key <{part}> is wrong") == "the key <***> is wrong"
        assert clean(f"x{self.KEY}x{self.KEY}") == "x***x***"

    def test_what_is_not_secret_stays(self) -> None:
        """A vendor's prefix, and words of the same letters, are nobody's key."""
        clean = Redaction([self.KEY, "short-one"])
        text = "sk-proj- is how it begins; A0B1C2 is chance"
        assert clean(text) == text
        assert clean("a short-one, a short") == "a ***, a short"

    def test_nothing_to_hide_changes_nothing(self) -> None:
        """Without a secret every text stays as it is."""
        assert Redaction([])("anything at all") == "anything at all"

    def test_it_takes_little_time(self) -> None:
        """A long key and a body of many texts are no reason to wait."""
        clean = Redaction([self.KEY])
        begun = time.thread_time()
        for _ in range(100_000):
            clean("a")
        clean(self.KEY[:11] * 100_000)
        assert time.thread_time() - begun < 3


class TestBytesRedaction:
    KEY = 'sk-/a"1b2c3d4e5f6g7h8i9j0é'

    @settings(max_examples=200, deadline=None)
    @given(st.data())
    def test_a_secret_is_found_wherever_the_bytes_are_cut(self, data: st.DataObject) -> None:
        """Released piece by piece, the bytes show no more than those of the whole would."""
        part = st.sampled_from([self.KEY, self.KEY[:9], "8i9j0", "ab ", "\n", "é", "x" * 60])
        whole = "".join(data.draw(st.lists(part, max_size=12))).encode()
        cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=20)))
        redacted = BytesRedaction([self.KEY])
        shown, held = b"", b""
        for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
            held += whole[begin:end]
            until = redacted.settled(held)
            shown, held = shown + redacted(held[:until]), held[until:]
        shown += redacted(held)
        assert shown == redacted(whole)

    def test_a_secret_is_found_in_every_way_to_write_it(self) -> None:
        """As it is, in JSON with and without its escapes, and in a URL."""
        redacted = BytesRedaction([self.KEY])
        for written in (
            self.KEY,
            r"sk-/a\"1b2c3d4e5f6g7h8i9j0é",
            r"sk-\/a\"1b2c3d4e5f6g7h8i9j0\u00e9",
            "sk-%2Fa%221b2c3d4e5f6g7h8i9j0%C3%A9",
        ):
            assert redacted(f"<{written}>".encode()) == b"<***>"

    def test_what_ends_an_event_is_not_held_back(self) -> None:
        """Bytes whose last one is in no secret are settled at once."""
        assert BytesRedaction([self.KEY]).settled(b'data: {"a":1}\n\n') == 15

    def test_an_endless_word_is_not_held_back_for_ever(self) -> None:
        """Of what could all be a secret's letters, only as much is held as a secret is long."""
        data = b"abcdefgh" * 1000
        assert len(data) - BytesRedaction([self.KEY]).settled(data) < 100

    @pytest.mark.parametrize("secret", [KEY, "short-key", "abab" * 5, "a" * 12, "a" * 40])
    def test_a_secret_without_an_end_is_not_held_back_for_ever(self, secret: str) -> None:
        """An answer that repeats the key without a gap is written as it comes, and not shown."""
        redacted = BytesRedaction([secret])
        shown, held = b"", b"<"
        for _ in range(2000):
            held += secret.encode() * 3
            until = redacted.settled(held)
            shown, held = shown + redacted(held[:until]), held[until:]
            assert len(held) < 150
        shown += redacted(held + b">")
        assert set(shown) == set(b"<*>")

    def test_nothing_to_hide_holds_nothing_back(self) -> None:
        """Without a secret all bytes are settled, and stay."""
        redacted = BytesRedaction([])
        assert (redacted.settled(b"abc"), redacted(b"abc")) == (3, b"abc")
