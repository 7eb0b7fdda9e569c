from __future__ import annotations

import msgspec
import pytest

from llm_sse.errors import ConfigurationError
from llm_sse.recording import Chunk, as_text, parse_recording

HEAD = '{"type":"recording","version":1,"provider":"openai","format":"openai"}'
REQUEST = (
    '{"type":"request","attempt":1,"at_s":0,"method":"POST","url":"https://host/v1",'
    '"stream":true,"text":"{}"}'
)
RESPONSE = '{"type":"response","attempt":1,"at_s":0.1,"status":200,"headers":{"a":"b"}}'
CHUNK = '{"type":"chunk","attempt":1,"at_s":0.2,"text":"hällo"}'
END = '{"type":"end","attempt":1,"at_s":0.3,"how":"end_of_body"}'


def file(*lines: str) -> bytes:
    """Return a file of these lines."""
    return "".join(f"{line}\n" for line in lines).encode()


class TestParseRecording:
    def test_reads_what_happened(self) -> None:
        """An attempt is its request, the head of its response, its chunks and its end."""
        head, (attempt,) = parse_recording(file(HEAD, REQUEST, RESPONSE, CHUNK, END), "f")
        assert (head.provider, attempt.format) == ("openai", "openai")
        assert attempt.request.stream
        assert attempt.response is not None
        assert attempt.response.headers == {"a": "b"}
        assert [chunk.data for chunk in attempt.chunks] == ["hällo".encode()]
        assert attempt.end.how == "end_of_body"

    def test_a_headers_name_may_be_written_in_any_case(self) -> None:
        """Who edits a file by hand need not know how the names of headers are compared."""
        edited = RESPONSE.replace('"a"', '"Content-Type"')
        _, (attempt,) = parse_recording(file(HEAD, REQUEST, edited, END), "f")
        assert attempt.response is not None
        assert attempt.response.headers == {"content-type": "b"}

    def test_tells_overlapping_attempts_apart(self) -> None:
        """Lines of two attempts may alternate; each says whose it is."""
        second = [line.replace('"attempt":1', '"attempt":2') for line in (REQUEST, END)]
        lines = (HEAD, REQUEST, second[0], RESPONSE, second[1], CHUNK, END)
        _, (first, other) = parse_recording(file(*lines), "f")
        assert (len(first.chunks), other.response) == (1, None)

    def test_an_empty_line_and_a_missing_last_line_break_say_nothing(self) -> None:
        """What editors do to a file's end does not spoil it."""
        data = file(HEAD, "", REQUEST, END, "", "")
        assert len(parse_recording(data, "f")[1]) == 1
        assert len(parse_recording(data.rstrip(), "f")[1]) == 1

    @pytest.mark.parametrize(
        ("lines", "complaint"),
        [
            ([], "line 1: the file is empty"),
            (["<html>"], "line 1: this is no recording of llm-sse: JSON is malformed"),
            (['{"a":1}'], "line 1: this is no recording of llm-sse"),
            (['{"type":"x","version":1}'], "line 1: this is no recording of llm-sse"),
            ([HEAD.replace(":1,", ":2,")], "line 1: the recording has version 2, and this"),
            ([HEAD.replace("provider", "p")], "line 1: Object missing required field `provider`"),
            ([HEAD], "line 1: nothing was asked"),
            ([HEAD, '{"type":"noise","attempt":1}'], "line 2: Invalid value 'noise'"),
            ([HEAD, REQUEST.replace("true", '"yes"')], "line 2: Expected `bool`, got `str`"),
            ([HEAD, REQUEST, REQUEST], "line 3: attempt 1 has begun before"),
            ([HEAD, RESPONSE], "line 2: attempt 1 has no request before this line"),
            ([HEAD, REQUEST, CHUNK], "line 3: attempt 1 has no response before this chunk"),
            ([HEAD, REQUEST, RESPONSE, RESPONSE], "line 4: attempt 1 has a response already"),
            ([HEAD, REQUEST, END, RESPONSE], "line 4: at_s is 0.1, but attempt 1 was at 0.3"),
            ([HEAD, REQUEST, END, END], "line 4: attempt 1 has ended before this line"),
            ([HEAD, REQUEST, END.replace("0.3", "-1")], "line 3: at_s is -1"),
            ([HEAD, REQUEST, END.replace("end_of", "head_of")], "line 3: Invalid enum value"),
            ([HEAD, REQUEST, RESPONSE.replace("200", "100")], "line 3: 100 is no HTTP status"),
            ([HEAD, REQUEST, RESPONSE.replace('"b"', '"b\\r\\nc"')], "line 3: the header a"),
            (
                [HEAD, REQUEST, RESPONSE.replace('"a"', '"A":"c","a"')],
                "line 3: the header a is there twice",
            ),
            ([HEAD, REQUEST, RESPONSE, CHUNK.replace("hällo", "")], "line 4: a chunk needs bytes"),
            (
                [HEAD, REQUEST, RESPONSE, CHUNK.replace("}", ',"base64":"aGk="}')],
                "line 4: bytes are either text or base64, not both",
            ),
            (
                [HEAD, REQUEST, RESPONSE, CHUNK.replace('"text":"hällo"', '"base64":"?"')],
                "line 4: Invalid base64 encoded string",
            ),
            ([HEAD, REQUEST, RESPONSE, CHUNK], "line 4: attempt 1 has no end: the recording was"),
        ],
    )
    def test_says_what_is_wrong_and_where(self, lines: list[str], complaint: str) -> None:
        """A file that was cut or edited is a mistake, told with its line."""
        with pytest.raises(ConfigurationError) as caught:
            parse_recording(file(*lines), "the file")
        assert str(caught.value).startswith(f"the file, {complaint}")

    def test_says_that_a_file_was_cut_inside_a_line(self) -> None:
        """Half a line at the end is what is left of a longer file."""
        data = file(HEAD, REQUEST, RESPONSE, CHUNK)[:-10]
        with pytest.raises(ConfigurationError, match=r"line 4: .*; the file may have been"):
            parse_recording(data, "f")

    def test_what_it_says_of_a_missing_end_mends_it(self) -> None:
        """The line that the error proposes makes a crashed program's recording playable."""
        cut = file(HEAD, REQUEST, RESPONSE, CHUNK)
        with pytest.raises(ConfigurationError) as caught:
            parse_recording(cut, "f")
        line = str(caught.value).partition("add a line ")[2]
        _, (attempt,) = parse_recording(cut + line.encode(), "f")
        assert (attempt.end.how, len(attempt.chunks)) == ("connection_lost", 1)


class TestAsText:
    @pytest.mark.parametrize(
        "data", [b"plain\r\n\x00\x1f\x7f", "€\u2028\ufeff".encode(), b"\xe2\x82"]
    )
    def test_bytes_survive_exactly(self, data: bytes) -> None:
        """Text, control characters and half a character come back from a line as they were."""
        chunk = Chunk(attempt=1, at_s=0, **as_text(data))  # type: ignore[arg-type]
        line = msgspec.json.encode(chunk)
        assert b"\n" not in line
        assert msgspec.json.decode(line, type=Chunk).data == data
