"""The event-stream format, sentence by sentence of the WHATWG HTML standard, section 9.2."""

from __future__ import annotations

import itertools
import re
import time
import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llm_sse.errors import ConfigurationError, ProtocolError
from llm_sse.sse import (
    DEFAULT_MAX_EVENT_BYTES,
    ServerSentEvent,
    SSEDecoder,
    encode_comment,
    encode_sse,
)

BOM = b"\xef\xbb\xbf"


def decode(*chunks: bytes) -> list[ServerSentEvent]:
    """Feed chunks to a new decoder and return the events."""
    decoder = SSEDecoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)]


def feed_all(decoder: SSEDecoder, chunks: Iterable[bytes]) -> None:
    """Feed chunks to a decoder whose events are of no interest."""
    for chunk in chunks:
        decoder.feed(chunk)


def datas(*chunks: bytes) -> list[str]:
    """Feed chunks to a new decoder and return the data of the events."""
    return [event.data for event in decode(*chunks)]


def cut(stream: bytes, sizes: list[int]) -> list[bytes]:
    """Cut a stream into chunks of the given sizes, over and over."""
    chunks, start = [], 0
    for size in itertools.cycle(sizes):
        if start >= len(stream):
            return chunks
        chunks.append(stream[start : start + size])
        start += size
    raise AssertionError("no sizes")


def reference(stream: bytes) -> tuple[list[ServerSentEvent], str, int | None]:
    """Read a whole stream as the standard says it, with no regard for anything else."""
    text = stream.removeprefix(BOM).decode("utf-8", "replace")
    *lines, _unfinished = re.split("\r\n|\n|\r", text)
    events: list[ServerSentEvent] = []
    data = event_type = last_id_buffer = last_id = ""
    reconnection_ms = None
    for line in lines:
        if line == "":
            last_id = last_id_buffer
            if data:
                events.append(ServerSentEvent(data[:-1], event_type or "message", last_id))
            data = event_type = ""
        elif not line.startswith(":"):
            field, _, value = line.partition(":")
            value = value[1:] if value[:1] == " " else value
            if field == "event":
                event_type = value
            elif field == "data":
                data += value + "\n"
            elif field == "id" and "\0" not in value:
                last_id_buffer = value
            elif field == "retry" and re.fullmatch("[0-9]{1,18}", value):
                reconnection_ms = int(value)
    return events, last_id, reconnection_ms


#: What streams are made of when they mean harm.
AWKWARD = st.sampled_from(
    [
        *(b"data", b"event", b"id", b"retry", b"other", b":", b":", b": ", b" ", b"x", b"7", b"\0"),
        *(b"data: ", b"data:", b"id: 4", b"event: e", b"retry: 10"),
        *(b"\n", b"\n", b"\n\n", b"\r", b"\r\r", b"\r\n", b"\r\n\r\n", b"\n\r"),
        *(BOM, BOM[:1], BOM[1:2], BOM[2:]),
        *("é".encode(), "€".encode(), "😀".encode(), "😀".encode()[:3], "€".encode()[:1]),
        *(b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5"),
        *(
            "\u2028".encode(),
            "\u2029".encode(),
            "\x85".encode(),
            b"\x0b",
            b"\x0c",
            b"\x1c",
            b"\x1e",
        ),
    ]
)
STREAMS = st.lists(AWKWARD, max_size=40).map(b"".join)
SIZES = st.lists(st.integers(1, 7), min_size=1, max_size=6)


class TestSSEDecoder:
    @pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
    def test_line_ends(self, end: bytes) -> None:
        """LF, CRLF and CR end a line alike."""
        stream = end.join([b"event: greeting", b"id: 1", b"data: Hi", b"data: there", b"", b""])
        assert decode(stream) == [ServerSentEvent("Hi\nthere", "greeting", "1")]

    @pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
    def test_line_ends_byte_by_byte(self, end: bytes) -> None:
        """Line ends count once even if every byte comes alone."""
        stream = end.join([b"data: a", b"data: b", b"", b"data: c", b"", b""])
        assert datas(*cut(stream, [1])) == ["a\nb", "c"]

    def test_line_ends_mixed(self) -> None:
        """A stream may mix all three line ends."""
        assert datas(b"data: a\rdata: b\ndata: c\r\n\ndata: d\n\r") == ["a\nb\nc", "d"]

    def test_lone_cr_is_acted_on_at_once(self) -> None:
        """The chunk that ends in the CR of the blank line already returns the event."""
        decoder = SSEDecoder()
        assert decoder.feed(b"data: a\r") == []
        assert decoder.feed(b"\r") == [ServerSentEvent("a")]

    def test_crlf_cut_in_two_dispatches_at_the_cr(self) -> None:
        """A CRLF that is cut in two dispatches at its CR; its LF is no blank line of its own."""
        decoder = SSEDecoder()
        assert decoder.feed(b"event: e\r\ndata: a\r\n\r") == [ServerSentEvent("a", "e")]
        assert decoder.feed(b"\nevent: f\r") == []
        assert decoder.feed(b"\ndata: b\r\n") == []
        assert decoder.feed(b"\r\n") == [ServerSentEvent("b", "f")]

    def test_only_one_lf_belongs_to_a_cr(self) -> None:
        """After a CR at a chunk's end only the first LF is part of it; the second one counts."""
        assert datas(b"data: a\r", b"\n\n") == ["a"]
        assert datas(b"data: a\r", b"\n", b"\n") == ["a"]

    def test_an_empty_chunk_between_cr_and_lf_changes_nothing(self) -> None:
        """Empty chunks are harmless, even between a CR and its LF."""
        decoder = SSEDecoder()
        assert decoder.feed(b"") == []
        assert decoder.feed(b"event: e\r") == []
        assert decoder.feed(b"") == []
        assert decoder.feed(b"\n") == []
        assert decoder.feed(b"data: a\r\r") == [ServerSentEvent("a", "e")]

    @pytest.mark.parametrize("char", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d"])
    def test_other_separators_are_text(self, char: str) -> None:
        """What only `str.splitlines` takes for a line end is part of the data."""
        assert datas(f"data: a{char}b\n\n".encode()) == [f"a{char}b"]

    def test_several_events_in_one_chunk(self) -> None:
        """One chunk may complete any number of events."""
        assert datas(b"data: a\n\ndata: b\n\n\n\ndata: c\n\nda") == ["a", "b", "c"]

    @pytest.mark.parametrize(
        ("line", "data"),
        [
            (b"data:a", "a"),
            (b"data: a", "a"),
            (b"data:  a", " a"),
            (b"data:\ta", "\ta"),
            (b"data: a ", "a "),
            (b"data: a: b", "a: b"),
            (b"data::", ":"),
            (b"data:", ""),
            (b"data: ", ""),
            (b"data", ""),
        ],
    )
    def test_exactly_one_leading_space_goes(self, line: bytes, data: str) -> None:
        """One space after the first colon is removed; everything else is the value."""
        assert datas(line + b"\n\n") == [data]

    def test_empty_data_lines(self) -> None:
        """Each empty data line adds a line break, and even one alone is dispatched."""
        assert datas(b"data\ndata\n\ndata:\n\ndata:\ndata: a\ndata:\n\n") == ["\n", "", "\na\n"]

    def test_field_names_are_exact(self) -> None:
        """A field name in another case, or with a space, is another field."""
        assert datas(b"Data: a\ndata : b\n data: c\ndatax: d\n\n") == []

    def test_comments_are_nothing(self) -> None:
        """A line that starts with a colon is skipped, wherever it stands."""
        assert datas(b": hi\n:\ndata: a\n:data: no\ndata: b\n\n: x\n\n") == ["a\nb"]

    def test_block_without_data_is_not_dispatched(self) -> None:
        """A block without a data line is no event, and its type is gone with it."""
        assert decode(b"event: e\nid: 1\n\ndata: a\n\n") == [ServerSentEvent("a", "message", "1")]

    def test_event_type_lasts_for_one_event(self) -> None:
        """The type belongs to its event; the last one named wins; an empty one is `message`."""
        assert decode(b"event: a\nevent: b\ndata\n\ndata\n\nevent: c\nevent\ndata\n\n") == [
            ServerSentEvent("", "b"),
            ServerSentEvent("", "message"),
            ServerSentEvent("", "message"),
        ]

    def test_id_outlives_its_event(self) -> None:
        """The identifier stays until another one comes; an empty one resets it."""
        decoder = SSEDecoder()
        events = decoder.feed(b"id: 1\ndata\n\ndata\n\nid: 2\n\ndata\n\n")
        assert [event.id for event in events] == ["1", "1", "2"]
        assert decoder.last_event_id == "2"
        assert decoder.feed(b"id: 3\n\n") == []
        assert decoder.last_event_id == "3"
        assert [event.id for event in decoder.feed(b"id\ndata\n\n")] == [""]
        assert decoder.last_event_id == ""

    def test_id_counts_only_at_the_dispatch(self) -> None:
        """An identifier whose blank line has not come is not yet the one to reconnect with."""
        decoder = SSEDecoder()
        decoder.feed(b"id: 1\ndata\n\nid: 2\ndata: cut off")
        decoder.end()
        assert decoder.last_event_id == "1"

    def test_id_with_nul_is_ignored(self) -> None:
        """An identifier with a NUL leaves the one before it in place."""
        assert decode(b"id: 1\nid: 2\0\ndata\n\n") == [ServerSentEvent("", "message", "1")]

    def test_retry(self) -> None:
        """The reconnection time is digits and nothing else; what is not leaves it as it was."""
        decoder = SSEDecoder()
        assert decoder.retry_ms is None
        for value in (b"", b"x", b"-1", b"1.5", b"+1", b"1 ", "\uff11".encode(), b"9" * 19):
            decoder.feed(b"retry: " + value + b"\n\n")
            assert decoder.retry_ms is None
        assert decoder.feed(b"retry: 0250\n") == []
        assert decoder.retry_ms == 250
        decoder.feed(b"retry: soon\n")
        assert decoder.retry_ms == 250

    @pytest.mark.parametrize("sizes", [[100], [1], [2], [1, 100], [2, 1, 100]])
    def test_bom_is_removed(self, sizes: list[int]) -> None:
        """A leading byte order mark is removed, whole or in pieces."""
        assert datas(*cut(BOM + b"data: a\n\n", sizes)) == ["a"]

    @pytest.mark.parametrize("sizes", [[100], [1], [2]])
    def test_only_one_bom_is_removed(self, sizes: list[int]) -> None:
        """A second byte order mark makes its line's field an unknown one."""
        assert datas(*cut(BOM + BOM + b"data: a\n\ndata: b\n\n", sizes)) == ["b"]

    @pytest.mark.parametrize("sizes", [[100], [1], [2]])
    def test_bom_elsewhere_is_text(self, sizes: list[int]) -> None:
        """A byte order mark anywhere but at the start is an ordinary character."""
        stream = b"\n" + BOM + b"data: a\n\ndata: " + BOM + b"b\n\n"
        assert datas(*cut(stream, sizes)) == ["\ufeffb"]

    @pytest.mark.parametrize("start", [BOM[:1], BOM[:2]])
    def test_half_a_bom_is_text(self, start: bytes) -> None:
        """Bytes that only begin like a byte order mark are kept."""
        decoder = SSEDecoder()
        assert [*decoder.feed(start), *decoder.feed(b"data: a\n\ndata: b\n\n")] == [
            ServerSentEvent("b")
        ]
        assert bytes(decoder.ignored) == start + b"data: a\n"
        ended = SSEDecoder()
        ended.feed(start)
        assert ended.end(dispatch_unfinished=True) == []
        assert bytes(ended.ignored) == start + b"\n"

    def test_characters_cut_at_any_byte(self) -> None:
        """A character that the network cuts arrives whole, wherever the cut is."""
        stream = "data: aé€😀z\nevent: é€😀\nid: 😀\n\n".encode()
        for at in range(len(stream) + 1):
            assert decode(stream[:at], stream[at:]) == [ServerSentEvent("aé€😀z", "é€😀", "😀")]

    def test_invalid_utf8_is_replaced(self) -> None:
        """Bytes that are no UTF-8 become U+FFFD and cost nothing else."""
        stream = b"event: \xff\nid: \xc3\ndata: a\xe2\x82\ndata: \xed\xa0\x80b\n\n"
        (event,) = decode(stream)
        assert event == ServerSentEvent("a\ufffd\n\ufffd\ufffd\ufffdb", "\ufffd", "\ufffd")

    def test_unfinished_event_is_discarded(self) -> None:
        """An event whose blank line never came is not dispatched at the end."""
        for stream in (b"data: a", b"data: a\n", b"data: a\r", b"event: e\ndata: a\nid: 1"):
            decoder = SSEDecoder()
            assert decoder.feed(stream) == []
            assert decoder.end() == []
            assert decoder.last_event_id == ""

    @pytest.mark.parametrize(
        "stream", [b"event: e\ndata: a", b"event: e\ndata: a\r", b"data:a\nevent:e"]
    )
    def test_unfinished_event_is_dispatched_on_request(self, stream: bytes) -> None:
        """`end(dispatch_unfinished=True)` returns what lacks only its blank line, once."""
        decoder = SSEDecoder()
        assert decoder.feed(stream) == []
        assert decoder.end(dispatch_unfinished=True) == [ServerSentEvent("a", "e")]
        assert decoder.end(dispatch_unfinished=True) == []

    @pytest.mark.parametrize("stream", [b"", b"data: a\n\n", b": ping", b"event: e\n", BOM])
    def test_nothing_unfinished_means_no_event(self, stream: bytes) -> None:
        """`end(dispatch_unfinished=True)` invents no event."""
        decoder = SSEDecoder()
        decoder.feed(stream)
        assert decoder.end(dispatch_unfinished=True) == []

    def test_unknown_fields_are_kept_aside(self) -> None:
        """Lines without a known field change no event and can be read in `ignored`."""
        decoder = SSEDecoder()
        events = decoder.feed(b'data: a\nerror: {"x":1}\n<html>\n\n{"error": 1}\n: no\n')
        assert events == [ServerSentEvent("a")]
        assert bytes(decoder.ignored) == b'error: {"x":1}\n<html>\n{"error": 1}\n'

    def test_ignored_is_bounded(self) -> None:
        """At most 64 KiB are kept aside, from the start, whether in many lines or in one."""
        for stream in (b"x" * 100_000 + b"\n" + b"y" * 100 + b"\n", b"xxxxxx\n" * 20_000):
            decoder = SSEDecoder()
            decoder.feed(stream)
            assert len(decoder.ignored) == 65_536
            assert decoder.ignored[:6] == b"xxxxxx"
            assert decoder.ignored[-1:] == b"\n"

    @pytest.mark.parametrize(
        "endless",
        [
            pytest.param([b"data: " + b"x" * 60], id="a line in one chunk"),
            pytest.param([b"data: ", *[b"x"] * 1000], id="a line that never ends"),
            pytest.param([b"x"] * 1000, id="a line that is no field"),
            pytest.param([b":" * 10] * 100, id="a comment that never ends"),
            pytest.param([b"data: xxxx\n"] * 1000, id="data lines"),
            pytest.param([b"data\n"] * 1000, id="empty data lines"),
            pytest.param([b"data: " + b"x" * 60 + b"\n\n"], id="a whole event in one chunk"),
            pytest.param([b"data: " + b"x" * 40, b"\n", b"data: xxxxxxxxx"], id="line and data"),
            pytest.param([b"event: " + b"x" * 60 + b"\n"], id="a type"),
            pytest.param([b"id: " + b"x" * 60 + b"\n"], id="an identifier"),
        ],
    )
    def test_an_event_beyond_the_limit_is_refused(self, endless: list[bytes]) -> None:
        """Whatever an event grows by, it ends in a ProtocolError that names the limit."""
        decoder = SSEDecoder(max_event_bytes=50)
        with pytest.raises(
            ProtocolError, match=r"larger than 50 bytes \(max_event_bytes\)"
        ) as info:
            feed_all(decoder, endless)
        assert info.value.retryable is False

    def test_an_event_within_the_limit_passes(self) -> None:
        """An event that fills the limit, line break included, is delivered, and so is the next."""
        decoder = SSEDecoder(max_event_bytes=50)
        for _ in range(3):
            assert decoder.feed(b"data:" + b"x" * 49 + b"\n\n") == [ServerSentEvent("x" * 49)]

    def test_the_same_type_again_and_again(self) -> None:
        """A type counts for its own event, also where it is the one of the event before."""
        decoder = SSEDecoder()
        lines = b"event: a\ndata: 1\n\nevent: a\ndata: 2\n\ndata: 3\n\nevent: b\ndata: 4\n\n"
        told = [(sse.event, sse.data) for sse in decoder.feed(lines + lines)]
        assert told == [("a", "1"), ("a", "2"), ("message", "3"), ("b", "4")] * 2
        long = b"event: " + b"x" * 100 + b"\ndata: 1\n\n"
        assert [sse.event for sse in decoder.feed(long * 2)] == ["x" * 100] * 2
        assert decoder.feed(b"event: message\nevent: a\ndata: 1\n\n")[0].event == "a"
        assert decoder.feed(b"event: a\nevent: message\ndata: 1\n\n")[0].event == "message"
        assert decoder.feed(b"data: 1\nevent: message\n\n")[0].event == "message"

    @pytest.mark.parametrize("name", [b"data: ", b"data:", b"event: ", b"id:", b": ", b"other: "])
    def test_what_is_too_large_is_so_however_it_is_cut(self, name: bytes) -> None:
        """A line at the limit passes whole and in two pieces, or does not in either."""

        def passes(*pieces: bytes) -> bool:
            decoder = SSEDecoder(max_event_bytes=20)
            try:
                for piece in (*pieces, b"\n"):
                    decoder.feed(piece)
            except ProtocolError:
                return False
            return True

        for size in range(10, 30):
            line = name + b"x" * size + b"\n"
            told = {passes(line[:at], line[at:]) for at in range(len(line) + 1)}
            assert told == {passes(line)}, size
        assert passes(name + b"x" * 10 + b"\n")
        assert not passes(name + b"x" * 29 + b"\n")

    def test_what_is_between_events_never_adds_up(self) -> None:
        """Comments, types, identifiers and unknown lines count one by one, not together."""
        decoder = SSEDecoder(max_event_bytes=20)
        for _ in range(1000):
            assert decoder.feed(b": ping\n\nevent: ping\nid: 1\nother: 1\n") == []
        assert decoder.feed(b"data: a\n\n") == [ServerSentEvent("a", "ping", "1")]

    def test_pings_inside_an_event_never_add_up(self) -> None:
        """Comments between an event's data lines do not make it larger."""
        decoder = SSEDecoder(max_event_bytes=20)
        decoder.feed(b"data: a\n")
        for _ in range(1000):
            decoder.feed(b": pi")
            decoder.feed(b"ng\n")
        assert decoder.feed(b"data: b\n\n") == [ServerSentEvent("a\nb")]

    def test_default_limit(self) -> None:
        """Without a word from the caller an event may have 16 MiB."""
        assert SSEDecoder().max_event_bytes == DEFAULT_MAX_EVENT_BYTES == 16 * 1024 * 1024

    @pytest.mark.parametrize("limit", [0, -1])
    def test_senseless_limit(self, limit: int) -> None:
        """A limit below one byte is the caller's mistake."""
        with pytest.raises(ConfigurationError, match="max_event_bytes"):
            SSEDecoder(max_event_bytes=limit)

    @settings(max_examples=400, deadline=None)
    @given(STREAMS, SIZES)
    @example(b"data: a\r\n\r\n", [8, 1])
    @example(BOM + b"data\n\n", [1])
    @example(b"\r\n" + BOM + b"data\n\n", [1, 1, 2])
    def test_agrees_with_the_standard_however_it_is_cut(
        self, stream: bytes, sizes: list[int]
    ) -> None:
        """The decoder and a literal reading of the standard see the same, for any cutting."""
        events, last_event_id, retry_ms = reference(stream)
        for chunks in ([stream], cut(stream, [1]), cut(stream, sizes)):
            decoder = SSEDecoder()
            assert [event for chunk in chunks for event in decoder.feed(chunk)] == events
            assert decoder.end() == []
            assert (decoder.last_event_id, decoder.retry_ms) == (last_event_id, retry_ms)

    @settings(max_examples=200, deadline=None)
    @given(STREAMS, SIZES)
    def test_dispatching_the_unfinished_is_adding_a_blank_line(
        self, stream: bytes, sizes: list[int]
    ) -> None:
        """`end(dispatch_unfinished=True)` yields what two more line ends would have yielded."""
        decoder = SSEDecoder()
        events = [event for chunk in cut(stream, sizes) for event in decoder.feed(chunk)]
        events += decoder.end(dispatch_unfinished=True)
        assert events == reference(stream + b"\n\n")[0]

    @settings(max_examples=100, deadline=None)
    @given(STREAMS)
    def test_every_event_is_returned_as_early_as_possible(self, stream: bytes) -> None:
        """After each byte the decoder has returned all events that are complete by then."""
        decoder = SSEDecoder()
        seen = 0
        for at in range(len(stream)):
            seen += len(decoder.feed(stream[at : at + 1]))
            assert seen == len(reference(stream[: at + 1])[0])

    @pytest.mark.parametrize(
        ("long", "short"),
        [
            pytest.param(b"x" * 1024, b"x" * 1022 + b"\n\n", id="one endless line"),
            pytest.param(
                b"data:" + b"x" * 1018 + b"\n",
                b"data:" + b"x" * 1017 + b"\n\n",
                id="one endless event",
            ),
        ],
    )
    def test_work_is_linear(self, long: bytes, short: bytes) -> None:
        """An event of megabytes costs about as much as the same bytes in short events."""

        def cpu_s(chunk: bytes) -> float:
            """Measure this thread's own time, which a busy machine does not lengthen."""
            best = float("inf")
            for _ in range(3):
                decoder = SSEDecoder()
                decoder.feed(b"data: ")
                before = time.thread_time()
                for _ in range(2048):
                    decoder.feed(chunk)
                best = min(best, time.thread_time() - before)
            return best

        # Measured: about 1. Copying what has been gathered with each chunk makes it over 100.
        assert cpu_s(long) < 12 * max(cpu_s(short), 0.002)

    @pytest.mark.parametrize(
        "piece",
        [pytest.param(b"xy", id="one endless line"), pytest.param(b"data:\n", id="empty lines")],
    )
    def test_memory_is_bounded_by_the_limit(self, piece: bytes) -> None:
        """However small the pieces are, a decoder occupies little more than its limit."""
        decoder = SSEDecoder(max_event_bytes=100_000)
        decoder.feed(b"data: x\n")
        tracemalloc.start()
        try:
            with pytest.raises(ProtocolError):
                feed_all(decoder, itertools.repeat(piece, 200_000))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 300_000


class TestServerSentEvent:
    def test_defaults(self) -> None:
        """An event without a type is a `message` without an identifier."""
        assert ServerSentEvent("a") == ServerSentEvent(data="a", event="message", id="")

    def test_frozen(self) -> None:
        """An event cannot be changed."""
        with pytest.raises(AttributeError):
            ServerSentEvent("a").data = "b"  # type: ignore[misc]


_LINE = st.text(max_size=8).map(lambda text: text.replace("\r", "").replace("\n", ""))
_ID = _LINE.map(lambda text: text.replace("\0", ""))
_DATA = st.lists(
    st.sampled_from(["\r", "\n", "\r\n", " ", ":", "data: x", "\0", "\ufeff"]) | st.text(max_size=5)
).map("".join)


class TestEncodeSSE:
    def test_all_fields(self) -> None:
        """Every field is a line, and a blank line ends the event."""
        assert encode_sse("a\nb", event="e", id="1", retry_ms=50) == (
            b"event: e\nid: 1\nretry: 50\ndata: a\ndata: b\n\n"
        )

    def test_data_alone(self) -> None:
        """Fields that are not given are not written; empty data is still an event."""
        assert encode_sse("") == b"data: \n\n"
        assert decode(encode_sse("")) == [ServerSentEvent("")]

    def test_empty_id_resets(self) -> None:
        """An empty identifier is written, for it resets the client's."""
        assert decode(encode_sse("a", id="1"), encode_sse("b", id="")) == [
            ServerSentEvent("a", "message", "1"),
            ServerSentEvent("b"),
        ]

    @settings(max_examples=200, deadline=None)
    @given(_DATA, st.none() | _LINE, st.none() | _ID, SIZES)
    @example(" two spaces", None, None, [3])
    @example("\r\n\r", "", "", [1])
    def test_round_trip(
        self, data: str, event: str | None, id: str | None, sizes: list[int]
    ) -> None:
        """What is encoded is decoded again, line breaks as LF, however the bytes are cut."""
        expected = ServerSentEvent(
            data.replace("\r\n", "\n").replace("\r", "\n"), event or "message", id or ""
        )
        encoded = encode_sse(data, event=event, id=id)
        assert decode(encoded) == [expected]
        assert decode(*cut(encoded, sizes)) == [expected]

    @pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\r\nb", "\n"])
    @pytest.mark.parametrize("field", ["event", "id"])
    def test_line_breaks_cannot_forge_fields(self, field: str, value: str) -> None:
        """A line break in a one-line field is refused."""
        with pytest.raises(ConfigurationError, match=f"SSE {field} cannot hold a line break"):
            encode_sse("a", **{field: value})  # type: ignore[arg-type]

    def test_nul_in_id(self) -> None:
        """An identifier that every client would ignore is refused."""
        with pytest.raises(ConfigurationError, match="NUL"):
            encode_sse("a", id="1\0")

    def test_retry(self) -> None:
        """The reconnection time arrives; a negative one is refused."""
        decoder = SSEDecoder()
        decoder.feed(encode_sse("a", retry_ms=0))
        assert decoder.retry_ms == 0
        with pytest.raises(ConfigurationError, match="retry_ms"):
            encode_sse("a", retry_ms=-1)

    def test_lone_surrogates(self) -> None:
        """Half a surrogate pair, which UTF-8 cannot hold, becomes a question mark."""
        assert encode_sse("a\ud800", event="\udc00") == b"event: ?\ndata: a?\n\n"


class TestEncodeComment:
    def test_bytes(self) -> None:
        """A comment is a line with a colon and a blank line, also without text."""
        assert encode_comment("ping") == b": ping\n\n"
        assert encode_comment() == b": \n\n"

    @settings(max_examples=50, deadline=None)
    @given(_DATA)
    def test_text_cannot_forge_an_event(self, text: str) -> None:
        """No text of a comment is ever an event, or anything else, to a client."""
        decoder = SSEDecoder()
        assert decoder.feed(encode_comment(text)) == []
        assert not decoder.ignored
        assert decoder.feed(encode_sse("a")) == [ServerSentEvent("a")]
