r"""The file format of a recorded stream: JSON Lines, one line for each thing that happened.

::

    {"type":"recording","version":1,"provider":"openai","format":"openai",...}
    {"type":"request","attempt":1,"at_s":0.0,"method":"POST","url":"https://...","stream":true,...}
    {"type":"response","attempt":1,"at_s":0.41,"status":200,"headers":{...}}
    {"type":"chunk","attempt":1,"at_s":0.42,"text":"data: {...}\n\n"}
    {"type":"end","attempt":1,"at_s":2.17,"how":"end_of_body"}

Bytes are `text` where they are UTF-8, else `base64`: a chunk whose cut goes through a character is
the latter. Times are seconds since the stream was opened. `sync/recorder.py` writes such files,
`testing/replay.py` plays them.
"""

from __future__ import annotations

from typing import Literal, Union

import msgspec
from msgspec import Struct, field

from .chat import check_header
from .errors import ConfigurationError

__all__ = [
    "VERSION",
    "Attempt",
    "Chunk",
    "End",
    "Head",
    "How",
    "Line",
    "Request",
    "Response",
    "as_text",
    "parse_recording",
]

#: Files of a later version are refused; a field more is no new version.
VERSION = 1

#: How an attempt ended. `end_of_body`: the server ended the body. `left`: the stream had all that
#: it wanted, or an error, and did not read on. `no_end`: it had, and waited for the end of the body
#: in vain. `connection_lost`: the connection broke. `broken_compression`: what came could not be
#: decompressed. `timeout`: one of the caller's limits passed. `closed`: the caller closed the
#: stream. `no_connection`: none could be made. `no_http`: the answer was none in HTTP. `not_sent`:
#: the request could not be sent.
How = Literal[
    "end_of_body",
    "left",
    "no_end",
    "connection_lost",
    "broken_compression",
    "timeout",
    "closed",
    "no_connection",
    "no_http",
    "not_sent",
]


class Head(Struct, frozen=True, kw_only=True, tag="recording"):
    """The first line.

    Attributes:
        version: The version of the format.
        provider: Whom was asked.
        format: The name of the provider's wire format.
        recorded_at: When, in UTC, as ISO 8601 has it.
        made_by: The program and its version.
    """

    version: int
    provider: str
    format: str
    recorded_at: str = ""
    made_by: str = ""


class _Happened(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What every other line says.

    Attributes:
        attempt: Which request it belongs to, counted from 1.
        at_s: When, in seconds since the stream was opened.
    """

    attempt: int
    at_s: float


class Request(_Happened, frozen=True, kw_only=True, omit_defaults=True, tag="request"):
    """An attempt begins.

    Attributes:
        method: The HTTP method.
        url: Where to.
        provider: Who is asked, where that is not the first line's (a fallback).
        format: The name of that provider's wire format.
        stream: Whether the answer was asked for piece by piece.
        headers: The headers; `***` where a value is a secret.
        text: The body, where it is UTF-8.
        base64: The body, where it is not.
    """

    method: str
    url: str
    stream: bool
    provider: str = ""
    format: str = ""
    headers: dict[str, str] = {}
    text: Union[str, None] = None
    base64: Union[bytes, None] = None


class Response(_Happened, frozen=True, kw_only=True, omit_defaults=True, tag="response"):
    """The response's head came.

    Attributes:
        status: The HTTP status.
        headers: The headers; the names are lower-case.
    """

    status: int
    headers: dict[str, str] = {}


class Chunk(_Happened, frozen=True, kw_only=True, omit_defaults=True, tag="chunk"):
    """Bytes of the body came, without HTTP's framing and compression.

    Attributes:
        text: The bytes, where they are UTF-8.
        base64: The bytes, where they are not.
    """

    text: Union[str, None] = None
    base64: Union[bytes, None] = None

    @property
    def data(self) -> bytes:
        """The bytes."""
        return self.text.encode() if self.text is not None else self.base64 or b""


class End(_Happened, frozen=True, kw_only=True, omit_defaults=True, tag="end"):
    """An attempt ended.

    Attributes:
        how: How.
        error: What became of it in the stream: the class of the error, and its text.
    """

    how: How
    error: str = ""


Line = Union[Request, Response, Chunk, End]


class Attempt(Struct):
    """One request, and everything that came back.

    Attributes:
        format: The name of the wire format.
        request: The request.
        response: The head of its response, if one came.
        chunks: The body.
        end: How it ended.
    """

    format: str
    request: Request
    end: End
    response: Response | None = None
    chunks: list[Chunk] = field(default_factory=list)


class _Version(Struct):
    """What every version's first line says."""

    type: str
    version: int


_version = msgspec.json.Decoder(_Version)
_head = msgspec.json.Decoder(Head)
_line: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


def as_text(data: bytes) -> dict[str, str | bytes]:
    """Return bytes as the field of a line that can hold them."""
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": data}


def parse_recording(data: bytes, name: str) -> tuple[Head, list[Attempt]]:
    """Read a recording.

    Args:
        data: The file's bytes.
        name: The file's name, for the errors.

    Raises:
        ConfigurationError: It is none, or was cut or edited so that it cannot be played; says in
            which line.
    """
    reading = _Reading()
    try:
        for line in data.split(b"\n"):
            reading.take(line)
        reading.finish()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        cut = "" if data.endswith(b"\n") else "; the file may have been cut here"
        raise ConfigurationError(f"{name}, line {reading.number}: {error}{cut}") from None
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}, line {reading.number}: {error}") from None
    assert reading.head is not None
    return reading.head, reading.attempts


class _Reading:
    """A recording while it is read, line by line.

    Attributes:
        head: The first line, once it was read.
        number: Which line was read last, counted from 1.
    """

    def __init__(self) -> None:
        self.head: Head | None = None
        self.number = 0
        self._began: dict[int, Request] = {}
        self._answered: dict[int, Response] = {}
        self._bodies: dict[int, list[Chunk]] = {}
        self._ended: dict[int, End] = {}
        self._last_s: dict[int, float] = {}

    @property
    def attempts(self) -> list[Attempt]:
        """The attempts, in their order."""
        name = self.head.format if self.head is not None else ""
        return [
            Attempt(
                request.format or name,
                request,
                self._ended[id_],
                self._answered.get(id_),
                self._bodies[id_],
            )
            for id_, request in self._began.items()
        ]

    def take(self, line: bytes) -> None:
        """Read the next line; an empty one, which editors like to leave, says nothing."""
        self.number += 1
        if not line.strip():
            return
        if self.head is None:
            self.head = _read_head(line)
            return
        happened = _line.decode(line)
        id_ = happened.attempt
        self._check_time(happened)
        if isinstance(happened, Request):
            if id_ in self._began:
                raise ConfigurationError(f"attempt {id_} has begun before")
            _check_bytes(happened)
            self._began[id_] = happened
            self._bodies[id_] = []
            return
        if id_ not in self._began:
            raise ConfigurationError(f"attempt {id_} has no request before this line")
        if id_ in self._ended:
            raise ConfigurationError(f"attempt {id_} has ended before this line")
        if isinstance(happened, Response):
            if id_ in self._answered:
                raise ConfigurationError(f"attempt {id_} has a response already")
            self._answered[id_] = _checked_response(happened)
        elif isinstance(happened, Chunk):
            if id_ not in self._answered:
                raise ConfigurationError(f"attempt {id_} has no response before this chunk")
            _check_bytes(happened)
            self._bodies[id_].append(happened)
        else:
            self._ended[id_] = happened

    def finish(self) -> None:
        """Check that nothing is missing at the end."""
        self.number = max(1, self.number - 1)  # behind the last line break there is nothing
        if self.head is None:
            raise ConfigurationError("the file is empty")
        if not self._began:
            raise ConfigurationError("nothing was asked: there is no line of the type request")
        for id_ in self._began:
            if id_ not in self._ended:
                raise ConfigurationError(
                    f"attempt {id_} has no end: the recording was cut, by a full disk or because "
                    'its program was killed; to play what there is, add a line {"type":"end",'
                    f'"attempt":{id_},"at_s":{self._last_s[id_]},"how":"connection_lost"}}'
                )

    def _check_time(self, happened: Line) -> None:
        last_s = self._last_s.get(happened.attempt, 0.0)
        if not last_s <= happened.at_s < float("inf"):
            raise ConfigurationError(
                f"at_s is {happened.at_s}, but attempt {happened.attempt} was at {last_s} before"
            )
        self._last_s[happened.attempt] = happened.at_s


def _read_head(line: bytes) -> Head:
    try:
        said = _version.decode(line)
    except msgspec.MsgspecError as error:
        raise ConfigurationError(f"this is no recording of llm-sse: {error}") from None
    if said.type != "recording":
        raise ConfigurationError("this is no recording of llm-sse: it must begin with its version")
    if said.version != VERSION:
        raise ConfigurationError(
            f"the recording has version {said.version}, and this llm-sse knows version {VERSION}"
        )
    return _head.decode(line)


def _check_bytes(line: Request | Chunk) -> None:
    if line.text is not None and line.base64 is not None:
        raise ConfigurationError("bytes are either text or base64, not both")
    if isinstance(line, Chunk) and not line.data:
        raise ConfigurationError("a chunk needs bytes, as text or as base64")


def _checked_response(response: Response) -> Response:
    """Return the head of a response, whose names are lower-case as the recorder writes them."""
    if not 200 <= response.status <= 599:
        raise ConfigurationError(f"{response.status} is no HTTP status of a response")
    headers: dict[str, str] = {}
    for name, value in response.headers.items():
        check_header(name, value)
        if name.lower() in headers:
            raise ConfigurationError(f"the header {name.lower()} is there twice")
        headers[name.lower()] = value
    return msgspec.structs.replace(response, headers=headers)
