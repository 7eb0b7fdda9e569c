"""Servers that send too much of something: each stream has one ending, in bounded time and memory.

The client runs in a process of its own, so that its memory and its processor time can be told from
the server's.
"""

from __future__ import annotations

import importlib
import json
import time
import zlib
from collections.abc import Callable, Iterator

import pytest

from llm_sse.errors import (
    APIError,
    ConfigurationError,
    ConnectionLost,
    InvalidRequestError,
    ProtocolError,
    RateLimitError,
    ServerError,
    StreamError,
    StreamTimeout,
)
from llm_sse.sse import DEFAULT_MAX_EVENT_BYTES
from tests.reliability.measured import KEY, Measured, Runner
from tests.reliability.pieces import (
    CHUNKED,
    EVENT_STREAM,
    HEAD,
    PIECES,
    Pieces,
    argument_at,
    chunk,
    data,
    sends,
)
from tests.wire import Body, Connection, WireServer, head

MIB = 1024 * 1024
#: What a stream may take beside what it delivers.
MAX_GROWTH_BYTES = 4 * DEFAULT_MAX_EVENT_BYTES
#: What a call may take on top of that: as it arrives, as an event, and in the completion.
CALL_BYTES = 1024
#: The longest message that is worth printing.
MAX_MESSAGE_CHARS = 8192
#: A clock for what only a clock ends.
SOON_S = 0.3
#: What ends by itself takes half a second; the rest is for a busy machine.
AT_ONCE_S = 5.0
#: More processor time than an error may take, however much there is of it.
NOTICED_S = 3.0

MANY = 100_000
DEEP = 100_000
FILLER = b"x" * 65536


def numbered(make: Callable[[int], bytes], count: int, *, downwards: bool = False) -> bytes:
    """Return the same bytes many times, each with a number of its own."""
    placeholder = 123456789
    template, old = make(placeholder), b"%d" % placeholder
    numbers = range(count)
    each = reversed(numbers) if downwards else numbers
    return b"".join(template.replace(old, b"%d" % number) for number in each)


def nested(depth: int) -> bytes:
    """Return JSON of lists in lists."""
    return b"[" * depth + b"]" * depth


ONE, END = PIECES["openai"].text("one"), PIECES["openai"].end


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    """What reads the streams."""
    with Runner() as running:
        yield running


def ask(runner: Runner, body: Body, provider: str = "openai", **limits: float) -> Measured:
    """Read a response; say whether it ended, and left nothing."""
    with WireServer(body) as server:
        measured = runner.run(server.url, provider, timeouts=limits)
    assert not measured.died, "it did not end"
    assert measured.in_tree, measured.message
    assert measured.threads == 0
    return measured


def check(
    measured: Measured, error: type[StreamError] | None = None, *, extra_bytes: int = 0
) -> None:
    """Assert how a stream ended, and that it did so within its memory."""
    assert measured.error == (error and error.__name__), measured.message
    assert measured.grown_bytes < MAX_GROWTH_BYTES + extra_bytes
    if error is None:
        assert measured.finish_reason is not None


class TestBodiesWithoutEnd:
    @pytest.mark.parametrize("field", [b"data: ", b": ", b"", b"event: ", b"id: "])
    def test_a_line(self, runner: Runner, field: bytes) -> None:
        """A line without end is refused, whatever it begins with."""
        measured = ask(runner, sends(HEAD, ONE, field, forever=FILLER))
        check(measured, ProtocolError)
        assert measured.text_chars == 3

    def test_a_line_in_chunks(self, runner: Runner) -> None:
        """A line without end is refused, whatever carries it."""
        check(ask(runner, sends(CHUNKED, forever=chunk(FILLER))), ProtocolError)

    @pytest.mark.parametrize("line", [b"x" * 64, b""], ids=["filled", "empty"])
    def test_an_event(self, runner: Runner, provider: str, line: bytes) -> None:
        """An event of lines without end is refused."""
        filled = sends(HEAD, b"data: " + FILLER * 255, b"\n", forever=b"data: %s\n" % line * 1000)
        check(ask(runner, filled, provider), ProtocolError)

    @pytest.mark.parametrize("line", [b": ping\n\n", b"\n", b"event: ping\n", b"retry: 1\n\n"])
    def test_nothing_but_noise(self, runner: Runner, line: bytes) -> None:
        """What says nothing can be sent for ever, but not be waited for."""
        measured = ask(runner, sends(HEAD, forever=line * 1000), first_token_s=SOON_S)
        check(measured, StreamTimeout)
        assert measured.phase == "first_token"

    def test_nothing_but_noise_after_content(self, runner: Runner, provider: str) -> None:
        """The same holds in the middle of an answer."""
        body = sends(HEAD, PIECES[provider].text("one"), forever=b": ping\n\n" * 1000)
        measured = ask(runner, body, provider, idle_s=SOON_S)
        check(measured, StreamTimeout)
        assert (measured.phase, measured.text_chars) == ("idle", 3)


class TestManyEvents:
    def test_a_million_comments(self, runner: Runner) -> None:
        """A million comments before the first word cost little, and nothing stays of them."""
        check(ask(runner, sends(HEAD, *[b": ping\n\n" * 10_000] * 100, ONE, END)))

    def test_events_without_data(self, runner: Runner) -> None:
        """So do events that have a name and no data."""
        check(ask(runner, sends(HEAD, *[b"event: x\n\n" * 10_000] * 10, ONE, END)))

    def test_lines_that_mean_nothing(self, runner: Runner) -> None:
        """Of lines that belong to no field only the first few are kept."""
        lines = (b"x" * 1023 + b"\n") * 1024
        check(ask(runner, sends(HEAD, *[lines] * 128, b"\n", ONE, END)))

    def test_tiny_deltas(self, runner: Runner, provider: str) -> None:
        """A hundred thousand deltas of one character arrive, each as an event."""
        wire = PIECES[provider]
        measured = ask(runner, sends(HEAD, wire.text("x") * MANY, wire.end), provider)
        check(measured)
        assert (measured.text_chars, measured.events["TextDelta"]) == (MANY, MANY)


class TestManyCalls:
    def test_an_event_each(self, runner: Runner, provider: str) -> None:
        """A hundred thousand calls arrive, each in events of its own."""
        wire = PIECES[provider]
        body = sends(HEAD, numbered(wire.calls, MANY), wire.end)
        measured = ask(runner, body, provider)
        check(measured, extra_bytes=MANY * CALL_BYTES)
        assert measured.calls == (MANY, 0)

    @pytest.mark.parametrize("name", ["openai", "gemini"])
    def test_all_in_one_event(self, runner: Runner, name: str) -> None:
        """A hundred thousand calls arrive in one event, where the format allows it."""
        wire = PIECES[name]
        measured = ask(runner, sends(HEAD, wire.calls(*range(MANY)), wire.end), name)
        check(measured, extra_bytes=MANY * CALL_BYTES)
        assert measured.calls == (MANY, 0)

    def test_all_cut_off(self, runner: Runner) -> None:
        """A hundred thousand calls that had begun are in the completion of a cut answer."""
        measured = ask(runner, sends(HEAD, numbered(PIECES["openai"].calls, MANY)))
        check(measured, ConnectionLost, extra_bytes=MANY * CALL_BYTES)
        assert measured.calls == (MANY, MANY)


class TestDeepNesting:
    def test_an_event(self, runner: Runner, provider: str) -> None:
        """JSON that nobody can read is none."""
        measured = ask(runner, sends(HEAD, data(nested(DEEP)), PIECES[provider].end), provider)
        check(measured, ProtocolError)

    def test_a_field_that_nobody_reads(self, runner: Runner, provider: str) -> None:
        """That holds where the depth is in a field without meaning, too."""
        event = data(b'{"type":"ping","more":%s}' % nested(DEEP))
        measured = ask(runner, sends(HEAD, event, PIECES[provider].end), provider)
        check(measured, ProtocolError)

    @pytest.mark.parametrize("name", ["openai", "anthropic"])
    def test_arguments_in_text(self, runner: Runner, name: str) -> None:
        """Arguments that arrive as a text are a call's error, and the answer goes on."""
        wire = PIECES[name]
        deep = '","b":' + nested(DEEP).decode() + ',"c":"'
        call = wire.begun_call() + wire.fragment(deep) + wire.ended_call()
        measured = ask(runner, sends(HEAD, call, wire.text("one"), wire.end), name)
        check(measured)
        assert (measured.calls, measured.text_chars) == ((1, 1), 3)

    def test_arguments_in_json(self, runner: Runner) -> None:
        """Arguments that arrive as JSON are part of their event, which cannot be read."""
        wire = PIECES["gemini"]
        call = wire.calls(0).replace(b"{}", b'{"a":%s}' % nested(DEEP))
        check(ask(runner, sends(HEAD, call, wire.end), "gemini"), ProtocolError)

    def test_arguments_by_their_path(self, runner: Runner) -> None:
        """Arguments whose path goes down without end are a call's error, or the event's."""
        body = sends(HEAD, argument_at("$" + ".a" * DEEP), PIECES["gemini"].end)
        measured = ask(runner, body, "gemini")
        check(measured, ProtocolError if measured.error else None)

    @pytest.mark.parametrize("pair", [(b"[", b"]"), (b'{"error":', b"}")], ids=["list", "error"])
    def test_an_error_body(self, runner: Runner, pair: tuple[bytes, bytes]) -> None:
        """A refusal is told as one at every depth, also where it can only just be read."""
        for depth in [*range(50, 1050, 50), DEEP]:
            body = b'{"error":%s0%s}' % (pair[0] * depth, pair[1] * depth)
            measured = ask(runner, sends(head(400, framing=str(len(body))), body))
            check(measured, InvalidRequestError)

    def test_an_error_event(self, runner: Runner, provider: str) -> None:
        """An error in mid-answer is told, or refused as JSON that cannot be read."""
        for depth in [*range(50, 1050, 50), DEEP]:
            event = data(b'{"type":"error","error":{"message":"no","more":%s}}' % nested(depth))
            measured = ask(runner, sends(HEAD, event), provider)
            check(
                measured,
                ServerError if depth < 400 or measured.message.endswith("no") else ProtocolError,
            )


class TestHeads:
    @pytest.mark.parametrize(
        "body",
        [
            sends(b"HTTP/1.1 200 ", forever=FILLER),
            sends(forever=FILLER),
            sends(b"HTTP/1.1 200 OK\r\nA: " + FILLER * 1024 + b"\r\n", HEAD, ONE, END),
            sends(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1_000_000 + b"\r\n", ONE, END),
            sends(b"HTTP/1.1 100 Continue\r\n", forever=b"A: b\r\n" * 1000),
            sends(b"HTTP/1.1 302 Found\r\nLocation: http://", forever=FILLER),
            sends(b"HTTP/1.1 429 No\r\nRetry-After: " + b"9" * 1_000_000 + b"\r\n\r\n"),
        ],
        ids=[
            "status line",
            "no status line",
            "header of 64 MB",
            "million headers",
            "headers of a 1xx",
            "location",
            "million digits",
        ],
    )
    def test_too_much(self, runner: Runner, body: Body) -> None:
        """Lines without end, and headers without number, are no HTTP."""
        check(ask(runner, body), ProtocolError)

    def test_interim_responses(self, runner: Runner) -> None:
        """Interim responses without end are no answer, and the clock says so."""
        interim = b"HTTP/1.1 100 Continue\r\n\r\n" * 1000
        measured = ask(runner, sends(forever=interim), first_token_s=SOON_S)
        check(measured, StreamTimeout)
        assert measured.phase == "first_token"

    def test_as_much_as_is_allowed(self, runner: Runner) -> None:
        """The most that a head may have does not hinder an answer."""
        headers = {f"X-{number}": "x" * 65_000 for number in range(90)}
        check(ask(runner, sends(head(200, headers, framing="close"), ONE, END)))


#: What can go on for ever where a chunk should begin.
ENDLESS_FRAMING = {
    "size": (b"", b"0" * 65536),
    "extension": (b"5;", FILLER),
    "trailers": (b"0\r\n", b"A: b\r\n" * 1000),
    "trailer": (b"0\r\nA: ", FILLER),
}


class TestChunkedFraming:
    @pytest.mark.parametrize("kind", ["size", "extension", "trailer"])
    def test_a_line_in_mid_answer(self, runner: Runner, kind: str) -> None:
        """A line of the framing's that does not end breaks the answer off."""
        begin, forever = ENDLESS_FRAMING[kind]
        measured = ask(runner, sends(CHUNKED, chunk(ONE), begin, forever=forever))
        check(measured, ConnectionLost)
        assert "does not end" in (measured.message or "")
        assert measured.text_chars == 3

    def test_trailers_in_mid_answer(self, runner: Runner) -> None:
        """Trailers without end, each of them short, are a body that does not end."""
        begin, forever = ENDLESS_FRAMING["trailers"]
        body = sends(CHUNKED, chunk(ONE), begin, forever=forever)
        measured = ask(runner, body)
        check(measured, ConnectionLost)
        assert "trailers" in (measured.message or "")
        assert measured.text_chars == 3

    @pytest.mark.parametrize("name", ["openai", "anthropic"])
    @pytest.mark.parametrize("kind", ENDLESS_FRAMING)
    def test_after_the_last_event(self, runner: Runner, name: str, kind: str) -> None:
        """After the last event none of this keeps a complete answer from its reader."""
        begin, forever = ENDLESS_FRAMING[kind]
        wire = PIECES[name]
        body = sends(CHUNKED, chunk(wire.text("one") + wire.end), begin, forever=forever)
        measured = ask(runner, body, name)
        check(measured)
        assert measured.text_chars == 3
        assert measured.wall_s < AT_ONCE_S

    @pytest.mark.parametrize("kind", ["size", "extension", "trailer"])
    def test_where_the_bodys_end_is_the_last_event(self, runner: Runner, kind: str) -> None:
        """Neither do lines without end where a format has nothing but the body's end."""
        begin, forever = ENDLESS_FRAMING[kind]
        wire = PIECES["gemini"]
        body = sends(CHUNKED, chunk(wire.text("one") + wire.end), begin, forever=forever)
        check(ask(runner, body, "gemini"))

    def test_trailers_where_the_bodys_end_is_the_last_event(self, runner: Runner) -> None:
        """There trailers without end are a silence at worst."""
        begin, forever = ENDLESS_FRAMING["trailers"]
        wire = PIECES["gemini"]
        body = sends(CHUNKED, chunk(wire.text("one") + wire.end), begin, forever=forever)
        measured = ask(runner, body, "gemini", idle_s=SOON_S)
        check(measured, StreamTimeout if measured.error else None)
        assert measured.text_chars == 3

    def test_a_dribble_after_the_last_event(self, runner: Runner) -> None:
        """Neither does a line of the framing's that comes byte by byte."""

        def dribble(connection: Connection) -> None:
            connection.send(CHUNKED + chunk(ONE + END))
            while True:
                connection.send(b"0")
                time.sleep(0.02)

        measured = ask(runner, dribble)
        check(measured)
        assert measured.wall_s < AT_ONCE_S

    @pytest.mark.parametrize("size", [b"F" * 60_000, b"-5", b"0x7", b"7" * 17])
    def test_a_size_that_cannot_be(self, runner: Runner, size: bytes) -> None:
        """A chunk whose size nobody can mean is read for what it has, or refused."""
        measured = ask(runner, sends(CHUNKED, size + b"\r\n" + ONE + END))
        check(measured, ConnectionLost if measured.error else None)


def deflated(payload: bytes, *, wbits: int = 31) -> bytes:
    """Compress, by default as gzip."""
    compressor = zlib.compressobj(9, wbits=wbits)
    return compressor.compress(payload) + compressor.flush()


def bomb(wbits: int = 31) -> bytes:
    """Return a line of 1 GB, compressed; its end is missing, which nobody gets to see."""
    compressor = zlib.compressobj(9, wbits=wbits)
    first, again = (
        compressor.compress(bytes(4 * MIB)) + compressor.flush(zlib.Z_FULL_FLUSH) for _ in range(2)
    )
    return first + again * 255


def bombs() -> dict[str, bytes]:
    """Return bombs by their codings, as far as this installation can read them."""
    gzipped = bomb()
    found = {"gzip": gzipped, "x-gzip": gzipped, "deflate": bomb(15), "Deflate": bomb(-15)}
    found["gzip, gzip"] = deflated(gzipped)
    found["gzip, deflate, gzip"] = deflated(deflated(gzipped, wbits=15))
    found["gzip, " * 4 + "gzip"] = deflated(deflated(deflated(deflated(gzipped))))
    found["gzip, " * 19 + "gzip"] = gzipped
    for coding, name in (("br", "brotli"), ("br", "brotlicffi"), ("zstd", "backports.zstd")):
        try:
            found[coding] = importlib.import_module(name).compress(bytes(128 * MIB))
        except ImportError:
            continue
    return found


BOMBS = bombs()


def compressed(coding: str, status: int = 200, **headers: str) -> bytes:
    """Return the head of a compressed response."""
    return head(status, {**EVENT_STREAM, "Content-Encoding": coding, **headers}, framing="close")


class TestDecompressionBombs:
    @pytest.mark.parametrize(("coding", "payload"), BOMBS.items(), ids=list(BOMBS))
    def test_a_body(self, runner: Runner, coding: str, payload: bytes) -> None:
        """A body is never inflated as a whole, however often it was deflated."""
        check(ask(runner, sends(compressed(coding), payload)), ProtocolError)

    def test_a_refusal(self, runner: Runner) -> None:
        """Of a refusal's body no more is inflated than is read."""
        check(ask(runner, sends(compressed("gzip", 500), BOMBS["gzip"])), ServerError)

    def test_nothing_but_empty_blocks(self, runner: Runner) -> None:
        """A compressed nothing without end is a silence."""
        empty = b"\x00\x00\x00\xff\xff" * 10_000
        begun = deflated(b"")[:10]
        measured = ask(
            runner, sends(compressed("gzip"), begun, forever=empty), first_token_s=SOON_S
        )
        check(measured, StreamTimeout)

    def test_empty_blocks_after_the_last_event(self, runner: Runner) -> None:
        """After the last event it keeps nobody waiting."""
        compressor = zlib.compressobj(9, wbits=31)
        answer = compressor.compress(ONE + END) + compressor.flush(zlib.Z_SYNC_FLUSH)
        empty = b"\x00\x00\x00\xff\xff" * 10_000
        measured = ask(runner, sends(compressed("gzip"), answer, forever=empty))
        check(measured)
        assert measured.wall_s < AT_ONCE_S


class TestRefusals:
    @pytest.mark.parametrize(
        ("status", "error"), [(400, InvalidRequestError), (500, ServerError)], ids=str
    )
    @pytest.mark.parametrize("framing", ["close", str(1024 * MIB)])
    def test_a_body_without_end(
        self, runner: Runner, status: int, error: type[APIError], framing: str
    ) -> None:
        """Of a refusal's body enough is read to tell what it says."""
        check(ask(runner, sends(head(status, framing=framing), forever=FILLER)), error)

    def test_a_million_small_values(self, runner: Runner) -> None:
        """A refusal in very many pieces is told in time."""
        body = b'{"error":[%s0]}' % (b'"",' * 340_000)
        measured = ask(runner, sends(head(400, framing=str(len(body))), body))
        check(measured, InvalidRequestError)
        assert measured.cpu_s < NOTICED_S

    @pytest.mark.parametrize("value", ["9" * 60_000, "1e999999", "(" * 60_000, "9," * 30_000])
    def test_a_wait_that_nobody_can_mean(self, runner: Runner, value: str) -> None:
        """A `Retry-After` that is no time is none."""
        headers = {"Retry-After": value, "Date": "Wed, 21 Oct 2015 07:28:00 GMT"}
        measured = ask(runner, sends(head(429, headers, framing="0")))
        check(measured, RateLimitError)
        assert measured.retry_after_s is None

    def test_a_date_that_nobody_can_mean(self, runner: Runner) -> None:
        """Neither is a date beyond the calendar."""
        headers = {"Retry-After": f"Wed, 21 Oct {'9' * 60_000} 07:28:00 GMT"}
        measured = ask(runner, sends(head(429, headers, framing="0")))
        check(measured, RateLimitError)
        assert measured.retry_after_s is None

    def test_a_delay_that_nobody_can_mean(self, runner: Runner) -> None:
        """Neither is a delay in the body that overflows."""
        details = [{"retryDelay": "9" * 60_000 + "s"}]
        body = json.dumps({"error": {"code": 429, "details": details}}).encode()
        measured = ask(runner, sends(head(429, framing=str(len(body))), body), "gemini")
        check(measured, RateLimitError)
        assert measured.retry_after_s is None


class TestRedirects:
    def test_a_body_without_end(self, runner: Runner) -> None:
        """A redirect is refused without its body being read."""
        redirect = head(302, {"Location": "http://elsewhere/"}, framing="close")
        measured = ask(runner, sends(redirect, forever=FILLER), first_token_s=2.0)
        check(measured, ConfigurationError)

    def test_a_bomb(self, runner: Runner) -> None:
        """Nor is it inflated."""
        redirect = compressed("gzip", 302, Location="http://elsewhere/")
        check(ask(runner, sends(redirect, BOMBS["gzip"]), first_token_s=5.0), ConfigurationError)


class TestMessages:
    @pytest.mark.parametrize(
        "body",
        [
            sends(b"x" * 60_000 + b"\r\n\r\n"),
            sends(head(302, {"Location": "http://x/" + "y" * 60_000}, framing="0")),
            sends(head(400, framing="close"), b'{"error":{"message":"%s"}}' % (FILLER * 10)),
            sends(HEAD, data(b'{"error":{"message":"%s"}}' % (FILLER * 160))),
        ],
        ids=["no HTTP", "redirect", "refusal", "error event"],
    )
    def test_what_a_server_says(self, runner: Runner, body: Body) -> None:
        """An error's message can be printed, however much the server had to say."""
        measured = ask(runner, body)
        assert measured.error is not None
        assert len(measured.message) <= MAX_MESSAGE_CHARS


class TestTextsMadeToBeSlow:
    def test_a_path(self, runner: Runner) -> None:
        """A path of brackets that do not close is no place for an argument, and costs little."""
        body = sends(HEAD, argument_at("['" * MANY), PIECES["gemini"].end)
        measured = ask(runner, body, "gemini")
        check(measured)
        assert measured.calls == (1, 1)

    def test_an_error_message(self, runner: Runner, provider: str) -> None:
        """An error's words are searched for hints, and for the key, without anybody noticing."""
        words = b"model " * (8 * MIB // 6)
        event = data(
            b'{"type":"error","error":{"type":"not_found_error","code":404,"message":"%s"}}' % words
        )
        measured = ask(runner, sends(HEAD, event), provider)
        assert measured.error in {"InvalidRequestError", "ServerError"}
        assert measured.cpu_s < NOTICED_S

    @pytest.mark.parametrize("text", ["", KEY[:20]], ids=["empty", "beginning of the key"])
    def test_an_error_in_small_pieces(self, runner: Runner, provider: str, text: str) -> None:
        """So are its parts, however many there are, and whatever they resemble."""
        values = json.dumps([text] * (4 * MIB // (len(text) + 4))).encode()
        event = data(b'{"type":"error","error":{"message":"no","more":%s}}' % values)
        measured = ask(runner, sends(HEAD, event), provider)
        assert measured.error == "ServerError"
        assert measured.cpu_s < NOTICED_S


Make = Callable[[Pieces, int], bytes]


def one_big_event(wire: Pieces, size: int) -> bytes:
    """Return a body with one event that is nearly all of it."""
    return wire.text("x" * (size - 512)) + wire.end


def small_events(wire: Pieces, size: int) -> bytes:
    """Return a body of deltas with one character."""
    one = wire.text("x")
    return one * (size // len(one)) + wire.end


def small_fragments(wire: Pieces, size: int) -> bytes:
    """Return a body with one call, whose arguments come in small pieces."""
    one = wire.fragment("x" * 32)
    return wire.begun_call() + one * (size // len(one)) + wire.ended_call() + wire.end


def _named_fragments(fill: str, size: int) -> bytes:
    call = {"index": 0, "function": {"name": "f", "arguments": fill * 32}}
    one = data({"choices": [{"delta": {"tool_calls": [call]}}]})
    return one * (size // len(one))


def small_fragments_with_a_name(wire: Pieces, size: int) -> bytes:
    """Return the same from a server that says the function's name with each piece."""
    return _named_fragments("x", size) + wire.end


def small_fragments_that_look_like_an_end(wire: Pieces, size: int) -> bytes:
    """Return the same with pieces after each of which the arguments may be complete."""
    return wire.begun_call() + _named_fragments("}", size) + wire.end


def small_calls(wire: Pieces, size: int) -> bytes:
    """Return a body of calls, each of them complete."""
    return numbered(wire.calls, size // len(wire.calls(MANY))) + wire.end


def calls_that_end_last_to_first(wire: Pieces, size: int) -> bytes:
    """Return a body of calls that are all open at once."""
    count = size // len(wire.begun_call(MANY) + wire.ended_call(MANY))
    begun = numbered(wire.begun_call, count)
    return begun + numbered(wire.ended_call, count, downwards=True) + wire.end


def in_chunks(payload: bytes, size: int) -> Body:
    """Return a chunked response in chunks of one size."""
    pieces = (payload[at : at + size] for at in range(0, len(payload), size))
    return sends(CHUNKED, b"".join(map(chunk, pieces)), b"0\r\n\r\n")


class TestLinearTime:
    """At 16 MB a byte costs at most twice of what it costs at 1 MB, in processor time."""

    SMALL, LARGE = MIB, 16 * MIB
    ROUNDS = 4

    def check(self, runner: Runner, provider: str, make: Make, *, chunk_bytes: int = 65536) -> None:
        """Compare the best of several repetitions; stop as soon as the outcome is clear."""
        wire = PIECES[provider]
        small, large = (in_chunks(make(wire, n), chunk_bytes) for n in (self.SMALL, self.LARGE))
        best = {self.SMALL: float("inf"), self.LARGE: float("inf")}
        with WireServer(small) as one, WireServer(large) as other:
            for _ in range(self.ROUNDS):
                for server, size, times in ((one, self.SMALL, 3), (other, self.LARGE, 1)):
                    for _ in range(times):
                        measured = runner.run(server.url, provider)
                        assert not measured.died, f"{size} bytes take too long"
                        assert measured.error is None, measured.message
                        best[size] = min(best[size], measured.cpu_s / size)
                if not 2 < best[self.LARGE] / best[self.SMALL] < 4:
                    break
        assert best[self.LARGE] <= 2 * best[self.SMALL], (
            f"{best[self.SMALL] * 1e9:.0f} -> {best[self.LARGE] * 1e9:.0f} ns per byte"
        )

    def test_one_big_event(self, runner: Runner, provider: str) -> None:
        """That holds for one event."""
        self.check(runner, provider, one_big_event)

    def test_one_line_in_small_pieces(self, runner: Runner, provider: str) -> None:
        """That holds for one line that comes in pieces of 1 KB."""
        self.check(runner, provider, one_big_event, chunk_bytes=1024)

    def test_small_events(self, runner: Runner, provider: str) -> None:
        """That holds for events of one character each."""
        self.check(runner, provider, small_events)

    def test_arguments_in_small_fragments(self, runner: Runner, provider: str) -> None:
        """That holds for the arguments of one call, in small fragments."""
        self.check(runner, provider, small_fragments)

    def test_fragments_that_repeat_the_name(self, runner: Runner) -> None:
        """That holds for servers that say the function's name with each fragment."""
        self.check(runner, "openai", small_fragments_with_a_name)

    def test_fragments_that_look_like_an_end(self, runner: Runner) -> None:
        """That holds where each of these fragments could be the call's last one."""
        self.check(runner, "openai", small_fragments_that_look_like_an_end)

    def test_calls(self, runner: Runner) -> None:
        """That holds for calls that are all open until the answer ends."""
        self.check(runner, "openai", small_calls)

    def test_calls_that_end_last_to_first(self, runner: Runner) -> None:
        """That holds for calls that are open at once and end in any order."""
        self.check(runner, "anthropic", calls_that_end_last_to_first)
