"""Newline-delimited JSON: one value per line, however the bytes are cut."""

from __future__ import annotations

import itertools
import json
import time
import tracemalloc
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_sse.errors import ConfigurationError, ProtocolError
from llm_sse.ndjson import DEFAULT_MAX_LINE_BYTES, NDJSONDecoder, encode_ndjson
from llm_sse.sse import ServerSentEvent

BOM = b"\xef\xbb\xbf"


def decode(*chunks: bytes) -> list[ServerSentEvent]:
    """Feed chunks to a new decoder and return the events."""
    decoder = NDJSONDecoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)]


def datas(*chunks: bytes) -> list[str]:
    """Feed chunks to a new decoder and return the data of the events."""
    return [event.data for event in decode(*chunks)]


def feed_all(decoder: NDJSONDecoder, chunks: Iterable[bytes]) -> None:
    """Feed chunks to a decoder whose events are of no interest."""
    for chunk in chunks:
        decoder.feed(chunk)


def cut(stream: bytes, sizes: list[int]) -> list[bytes]:
    """Cut a stream into chunks of the given sizes, over and over."""
    chunks, start = [], 0
    for size in itertools.cycle(sizes):
        if start >= len(stream):
            return chunks
        chunks.append(stream[start : start + size])
        start += size
    raise AssertionError("no sizes")


def reference(stream: bytes) -> tuple[list[str], bytes]:
    """Read a whole stream as the module says it; return the values and the lines that are none."""
    *lines, _unfinished = stream.removeprefix(BOM).split(b"\n")
    values, others = [], b""
    for line in lines:
        value = line.strip(b" \t\r")
        if value[:1] in (b"{", b"[") and value not in (b"{", b"["):
            values.append(value.decode("utf-8", "replace"))
        elif value:
            others += line + b"\n"
    return values, others


#: What bodies are made of when they mean harm.
AWKWARD = st.sampled_from(
    [
        *(b'{"a":1}', b"[1]", b"{", b"[", b"}", b"]", b'"', b"\\", b"7", b"null", b"data: ", b"<"),
        *(b"\n", b"\n", b"\n\n", b"\r", b"\r\n", b"\r\n\r\n", b" ", b"\t", b"\0"),
        *(BOM, BOM[:1], BOM[1:2], BOM[2:]),
        *("é".encode(), "😀".encode(), "😀".encode()[:3], "\u2028".encode(), b"\x85", b"\xff"),
        *(b"\x0b", b"\x0c", b"\x1c"),
    ]
)
STREAMS = st.lists(AWKWARD, max_size=40).map(b"".join)
SIZES = st.lists(st.integers(1, 7), min_size=1, max_size=6)


class TestNDJSONDecoder:
    def test_a_line_is_an_event(self) -> None:
        """Each line is one event without a name, in order."""
        assert decode(b'{"a":1}\n{"b":2}\n[3]\n') == [
            ServerSentEvent('{"a":1}'),
            ServerSentEvent('{"b":2}'),
            ServerSentEvent("[3]"),
        ]

    def test_the_media_type(self) -> None:
        """The decoder names the media type that it is for."""
        assert NDJSONDecoder().content_type == "application/x-ndjson"

    def test_a_line_is_returned_with_its_end(self) -> None:
        """A line is complete with its LF, and not before."""
        decoder = NDJSONDecoder()
        assert decoder.feed(b'{"a":1}') == []
        assert decoder.feed(b"\n") == [ServerSentEvent('{"a":1}')]

    @pytest.mark.parametrize("sizes", [[1], [2], [3], [999]])
    def test_crlf_and_blank_lines(self, sizes: list[int]) -> None:
        """A CRLF ends a line as an LF does, and blank lines are nothing."""
        stream = b'\n\r\n{"a":1}\r\n \t\r\n\n{"b":2}\n\r\n'
        assert datas(*cut(stream, sizes)) == ['{"a":1}', '{"b":2}']

    def test_white_space_around_a_value(self) -> None:
        """Spaces and tabs around a value are no part of it."""
        assert datas(b' \t{"a": 1} \t\n') == ['{"a": 1}']

    @pytest.mark.parametrize("char", ["\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"])
    def test_other_separators_end_no_line(self, char: str) -> None:
        """What is no LF is part of its line, wherever it stands."""
        line = f'{{"a":"x{char}y"}}'
        assert datas(line.encode() + b"\n") == [line]

    def test_characters_cut_at_any_byte(self) -> None:
        """A character that the network cuts arrives whole, wherever the cut is."""
        line = '{"a":"é€😀"}'
        encoded = line.encode() + b"\n"
        for at in range(len(encoded)):
            assert datas(encoded[:at], encoded[at:]) == [line]

    def test_invalid_utf8_is_replaced(self) -> None:
        """Bytes that are no UTF-8 become U+FFFD and cost nothing else."""
        assert datas(b'{"a":"x\xffy"}\n{"b":1}\n') == ['{"a":"x\ufffdy"}', '{"b":1}']

    @pytest.mark.parametrize("sizes", [[1], [2], [99]])
    def test_one_leading_bom_is_removed(self, sizes: list[int]) -> None:
        """A byte order mark at the start goes, whole or in pieces; elsewhere it stays."""
        decoder = NDJSONDecoder()
        got = [event for chunk in cut(BOM + b'{"a":1}\n', sizes) for event in decoder.feed(chunk)]
        assert got == [ServerSentEvent('{"a":1}')]
        assert decoder.feed(BOM + b'{"b":1}\n') == []
        assert decoder.ignored == BOM + b'{"b":1}\n'

    @pytest.mark.parametrize(
        "end", [b"", b"\r", b"\n"], ids=["no line end", "half a line end", "a line end"]
    )
    def test_the_last_line_needs_no_end_if_asked(self, end: bytes) -> None:
        """`end(dispatch_unfinished=True)` returns a last line without its LF, once."""
        decoder = NDJSONDecoder()
        events = decoder.feed(b'{"a":1}\n{"b":2}' + end)
        events += decoder.end(dispatch_unfinished=True)
        assert [event.data for event in events] == ['{"a":1}', '{"b":2}']
        assert decoder.end(dispatch_unfinished=True) == []

    def test_the_last_line_without_an_end_is_discarded(self) -> None:
        """`end()` alone returns nothing, and keeps nothing."""
        decoder = NDJSONDecoder()
        decoder.feed(b'{"a":1}')
        assert decoder.end() == []
        assert decoder.end(dispatch_unfinished=True) == []
        assert decoder.ignored == b""

    def test_nothing_unfinished_means_no_event(self) -> None:
        """`end(dispatch_unfinished=True)` invents no event."""
        decoder = NDJSONDecoder()
        decoder.feed(b'{"a":1}\n')
        assert decoder.end(dispatch_unfinished=True) == []

    @pytest.mark.parametrize("broken", [b'{"a":', b'{"a":1}}', b"{nonsense", b"[1", b'{"a":1} x'])
    def test_a_broken_value_is_handed_out(self, broken: bytes) -> None:
        """What begins as a value is never set aside: a piece of the answer may be missing."""
        assert datas(broken + b"\n") == [broken.decode()]

    @pytest.mark.parametrize(
        "body",
        [
            b"<!DOCTYPE html>\n<html>\n  <p>Bad gateway</p>\n</html>\n",
            b'data: {"a":1}\n\nevent: x\n',
            b"404 page not found\n",
            b'"text"\n7\nnull\ntrue\n',
        ],
        ids=["html", "event stream", "text", "bare values"],
    )
    def test_other_lines_are_kept_aside(self, body: bytes) -> None:
        """Lines that are no value change nothing and can be read in `ignored`."""
        decoder = NDJSONDecoder()
        assert decoder.feed(body) == []
        assert decoder.ignored == body.replace(b"\n\n", b"\n")

    @pytest.mark.parametrize("indent", [1, 2, 4])
    @pytest.mark.parametrize("end", ["", "\n"])
    def test_an_indented_value_can_be_read_in_ignored(self, indent: int, end: str) -> None:
        """An error that was printed for people is no value, but is there to be looked at."""
        value: Any = {"error": {"message": "no", "details": {"code": 7}}, "empty": []}
        decoder = NDJSONDecoder()
        body = json.dumps(value, indent=indent) + end
        assert decoder.feed(body.encode()) + decoder.end(dispatch_unfinished=True) == []
        assert json.loads(decoder.ignored) == value

    def test_ignored_is_bounded(self) -> None:
        """At most 64 KiB are kept aside, from the start, whether in many lines or in one."""
        for body in (b"first " + b"x" * 200_000 + b"\n", b"first\n" + b"x\n" * 100_000):
            decoder = NDJSONDecoder()
            decoder.feed(body)
            assert decoder.ignored.startswith(b"first")
            assert 65_000 < len(decoder.ignored) <= 65_536

    @pytest.mark.parametrize(
        "endless",
        [
            pytest.param([b"{" + b"x" * 100], id="at once"),
            pytest.param([b"{" + b"x" * 100 + b"\n"], id="with its end"),
            pytest.param([b"x"] * 101, id="in pieces"),
            pytest.param([b"{" + b"x" * 99, b"y\n"], id="with its end in another piece"),
        ],
    )
    def test_a_line_beyond_the_limit_is_refused(self, endless: list[bytes]) -> None:
        """However a line grows, it ends in a ProtocolError that names the limit, and stays so."""
        decoder = NDJSONDecoder(max_line_bytes=100)
        with pytest.raises(ProtocolError, match=r"larger than 100 bytes \(max_line_bytes\)"):
            feed_all(decoder, endless)
        with pytest.raises(ProtocolError):
            decoder.feed(b"{}\n")
        with pytest.raises(ProtocolError):
            decoder.end()

    def test_what_came_before_an_endless_line_is_delivered(self) -> None:
        """Lines that are complete are returned first; the next call raises."""
        decoder = NDJSONDecoder(max_line_bytes=100)
        assert decoder.feed(b'{"a":1}\n{' + b"x" * 200) == [ServerSentEvent('{"a":1}')]
        with pytest.raises(ProtocolError):
            decoder.feed(b"")

    def test_a_line_within_the_limit_passes(self) -> None:
        """A line that fills the limit is delivered, and so is the next: they never add up."""
        decoder = NDJSONDecoder(max_line_bytes=100)
        line = b"{" + b"x" * 98 + b"}"
        for _ in range(3):
            feed_all(decoder, cut(line, [7]))
            assert decoder.feed(b"\n") == [ServerSentEvent(line.decode())]

    def test_default_limit(self) -> None:
        """Without a word from the caller a line may have 16 MiB."""
        assert NDJSONDecoder().max_line_bytes == DEFAULT_MAX_LINE_BYTES == 16 * 1024 * 1024

    @pytest.mark.parametrize("limit", [0, -1, True, 1.5, "9", None])
    def test_senseless_limit(self, limit: Any) -> None:
        """A limit that is no number of bytes is the caller's mistake."""
        with pytest.raises(ConfigurationError, match="max_line_bytes must be"):
            NDJSONDecoder(max_line_bytes=limit)

    @settings(max_examples=300, deadline=None)
    @given(STREAMS, SIZES)
    def test_agrees_with_a_plain_reading_however_it_is_cut(
        self, stream: bytes, sizes: list[int]
    ) -> None:
        """The decoder and a plain reading of the whole see the same, for any cutting."""
        decoder = NDJSONDecoder()
        got = [event.data for chunk in cut(stream, sizes) for event in decoder.feed(chunk)]
        assert (got, bytes(decoder.ignored)) == reference(stream)

    @settings(max_examples=100, deadline=None)
    @given(STREAMS)
    def test_every_line_is_returned_as_early_as_possible(self, stream: bytes) -> None:
        """After each byte the decoder has returned all lines that are complete by then."""
        decoder = NDJSONDecoder()
        seen = 0
        for at in range(len(stream)):
            seen += len(decoder.feed(stream[at : at + 1]))
            assert seen == len(reference(stream[: at + 1])[0])

    def test_work_is_linear(self) -> None:
        """A line of megabytes costs about as much as the same bytes in short lines."""

        def cpu_s(chunk: bytes) -> float:
            """Measure this thread's own time, which a busy machine does not lengthen."""
            best = float("inf")
            for _ in range(3):
                decoder = NDJSONDecoder()
                before = time.thread_time()
                for _ in range(2048):
                    decoder.feed(chunk)
                best = min(best, time.thread_time() - before)
            return best

        # Measured: about 1. Copying what has been gathered with each chunk makes it over 100.
        long, short = b"{" + b"x" * 1023, b"{" + b"x" * 1022 + b"\n"
        assert cpu_s(long) < 12 * max(cpu_s(short), 0.002)

    def test_memory_is_bounded_by_the_limit(self) -> None:
        """However small the pieces are, a decoder occupies little more than its limit."""
        decoder = NDJSONDecoder(max_line_bytes=100_000)
        tracemalloc.start()
        try:
            with pytest.raises(ProtocolError):
                feed_all(decoder, itertools.repeat(b"xy", 200_000))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 300_000


_TEXT = st.text(max_size=8) | st.sampled_from(["\n", "\r\n", "\u2028", "\ufeff", "\x85", "\\n"])
_VALUES = st.lists(
    st.dictionaries(_TEXT, st.none() | st.integers() | _TEXT | st.lists(_TEXT, max_size=2)),
    max_size=4,
)


class TestEncodeNDJSON:
    def test_a_value_is_a_line(self) -> None:
        """Text and bytes become the same line."""
        assert encode_ndjson('{"a":"é"}') == encode_ndjson('{"a":"é"}'.encode())
        assert encode_ndjson('{"a":"é"}') == '{"a":"é"}\n'.encode()

    @settings(max_examples=100, deadline=None)
    @given(_VALUES, st.none() | st.integers(0, 2), st.booleans(), SIZES)
    def test_round_trip(
        self, values: list[Any], indent: int | None, ascii_only: bool, sizes: list[int]
    ) -> None:
        """What is encoded is decoded again, also where it was indented, however it is cut."""
        texts = [json.dumps(value, indent=indent, ensure_ascii=ascii_only) for value in values]
        body = b"".join(map(encode_ndjson, texts))
        assert body.count(b"\n") == len(values)
        assert [json.loads(data) for data in datas(*cut(body, sizes))] == values

    def test_line_breaks_cannot_forge_a_line(self) -> None:
        """A line break becomes a space, which means the same between the tokens of JSON."""
        assert encode_ndjson('{"a":\r\n1,\r"b":\n2}') == b'{"a":  1, "b": 2}\n'

    def test_lone_surrogates(self) -> None:
        """Half a surrogate pair, which UTF-8 cannot hold, becomes a question mark."""
        assert encode_ndjson('"a\ud800"') == b'"a?"\n'
