from __future__ import annotations

import itertools
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_sse.chunked import ChunkedDecoder


def encode(*chunks: bytes, trailers: bytes = b"") -> bytes:
    """Return a body in chunks, with its end."""
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + (
        b"0\r\n" + trailers + b"\r\n"
    )


def decode(*pieces: bytes) -> tuple[bytes, ChunkedDecoder]:
    """Return what a decoder makes of a body that comes in pieces."""
    decoder = ChunkedDecoder()
    return b"".join(map(decoder.feed, pieces)), decoder


class TestChunkedDecoder:
    @given(
        st.lists(st.binary(min_size=1, max_size=40), max_size=12),
        st.lists(st.integers(0, 600), max_size=12),
        st.sampled_from([b"", b"A: b\r\n", b"A: b\r\nC: d\r\n"]),
    )
    def test_gives_the_body_however_its_bytes_are_cut(
        self, chunks: list[bytes], cuts: list[int], trailers: bytes
    ) -> None:
        """The body is the chunks' content, and its end is seen, wherever the network cuts."""
        wire = encode(*chunks, trailers=trailers)
        points = [0, *sorted(cuts), len(wire)]
        pieces = [wire[a:b] for a, b in itertools.pairwise(points)]
        for cut in (pieces, [wire], [wire[i : i + 1] for i in range(len(wire))]):
            body, decoder = decode(*cut)
            assert body == b"".join(chunks)
            assert decoder.done
            assert decoder.excess == b""
            assert decoder.broken is None

    def test_gives_each_byte_as_soon_as_it_is_there(self) -> None:
        """Half a chunk is not held back until its other half comes."""
        decoder = ChunkedDecoder()
        assert decoder.feed(b"8\r\nhalf") == b"half"
        assert decoder.feed(b"more") == b"more"
        assert not decoder.done

    @pytest.mark.parametrize(
        "wire",
        [
            b"3;name=value\r\none\r\n0\r\n\r\n",
            b'3;name="a;b"\r\none\r\n0;x\r\n\r\n',
            b"3 \r\none\r\n0\r\n\r\n",
            b"003\r\none\r\n000\r\n\r\n",
            b"0000000000000003\r\none\r\n0000000000000000\r\n\r\n",
            b"3\none\n0\n\n",
            b"3\r\none\r\n0\r\nA: b\r\nC: d\r\n\r\n",
            b"1\r\no\r\n2\r\nne\r\n0\r\n\r\n",
        ],
    )
    def test_takes_all_that_servers_send(self, wire: bytes) -> None:
        """Extensions, trailers, leading zeros, outer space and bare line feeds are no trouble."""
        for cut in ([wire], [wire[i : i + 1] for i in range(len(wire))]):
            body, decoder = decode(*cut)
            assert (body, decoder.done) == (b"one", True)

    def test_upper_case_sizes_are_sizes(self) -> None:
        """Hexadecimal digits come in both cases."""
        for digits in (b"1A", b"1a"):
            body, decoder = decode(digits + b"\r\n" + b"x" * 26 + b"\r\n0\r\n\r\n")
            assert (len(body), decoder.done) == (26, True)

    @pytest.mark.parametrize(
        ("wire", "complaint"),
        [
            (b"-5\r\n", "not the size of a chunk: b'-5'"),
            (b"0x5\r\n", "not the size of a chunk"),
            (b"1_0\r\n", "not the size of a chunk"),
            (b"\r\n", "not the size of a chunk"),
            (b"data: {}\n\n", "not the size of a chunk"),
            (b"7" * 16 + b"\r\n", "not the size of a chunk"),
            (b"2\r\ntoo\r\n", "longer than it says"),
            (b"0" * 20_000, "does not end"),
            (b"0\r\nA: " + b"b" * 20_000, "does not end"),
        ],
    )
    def test_what_is_no_chunk_is_told_after_what_was(self, wire: bytes, complaint: str) -> None:
        """The chunks before the mistake are delivered; then the decoder says what is wrong."""
        body, decoder = decode(encode(b"good")[:-5] + wire)
        assert body.startswith(b"good")
        assert complaint in str(decoder.broken)
        assert not decoder.done

    def test_what_follows_the_end_belongs_to_nobody(self) -> None:
        """It is no part of the body; whoever owns the connection is told of it."""
        body, decoder = decode(encode(b"one") + b"HTTP/1.1 400")
        assert (body, decoder.done, decoder.excess) == (b"one", True, b"HTTP/1.1 400")

    def test_a_line_that_comes_byte_by_byte_costs_no_more_than_its_limit(self) -> None:
        """What is kept of a line that does not end has a bound."""
        decoder = ChunkedDecoder()
        fed = 0
        while decoder.broken is None:
            decoder.feed(b"0")
            fed += 1
        assert fed <= 16 * 1024

    def test_a_size_that_comes_byte_by_byte_is_read_in_linear_time(self) -> None:
        """Zeros before a size are allowed, and are not all looked at anew with each of them."""
        decoder = ChunkedDecoder()
        begun = time.process_time()
        for _ in range(16_000):
            assert decoder.feed(b"0") == b""
        assert time.process_time() - begun < 2  # it was 14 s where they were
        assert decoder.feed(b"1\r\nx\r\n") == b"x"

    def test_trailers_are_bounded(self) -> None:
        """Trailers without an end are no trailers; nobody needs what is in them."""
        decoder = ChunkedDecoder()
        line = b"X: " + b"y" * 1000 + b"\r\n"
        assert decoder.feed(b"0\r\n" + line * 60) == b""
        assert decoder.broken is None
        assert decoder.feed(line * 10) == b""
        assert "trailers" in str(decoder.broken)

    def test_a_large_chunk_is_not_gathered(self) -> None:
        """Of a chunk of any size nothing is kept: every byte is given on at once."""
        decoder = ChunkedDecoder()
        assert decoder.feed(b"FFFFFFFFFFF\r\n") == b""
        chance = random.Random(1)
        for _ in range(20):
            piece = chance.randbytes(1000)
            assert decoder.feed(piece) == piece
