"""The actions that a script is made of, as values; `llm_sse.testing.script` makes them."""

from __future__ import annotations

from typing import Literal, Union

from msgspec import Struct

from ..events import FinishReason

__all__ = [
    "Action",
    "CallTool",
    "Cut",
    "CutHow",
    "DripHead",
    "Fail",
    "FinishWith",
    "Framed",
    "Framing",
    "Hang",
    "HangUp",
    "Page",
    "Pause",
    "Ping",
    "Raw",
    "Say",
    "Stall",
    "Status",
    "Think",
]

#: How a body is framed; see `framing()`.
Framing = Literal["chunked", "bytes", "dribble", "close", "length", "gzip"]
#: How an answer breaks off; see `cut()`.
CutHow = Literal["close", "reset", "truncate", "end"]


class Say(Struct, frozen=True):
    """Send text, one delta per word."""

    text: str


class Think(Struct, frozen=True):
    """Send reasoning, one delta per word."""

    text: str


class CallTool(Struct, frozen=True):
    """Ask for a tool to be called."""

    name: str
    arguments_text: str
    id: Union[str, None]


class Pause(Struct, frozen=True):
    """Send nothing for a while."""

    seconds: float


class Ping(Struct, frozen=True):
    """Send signs of life without content."""

    every_s: float
    times: Union[int, None]


class Stall(Struct, frozen=True):
    """Send nothing more, and keep the connection open."""


class Cut(Struct, frozen=True):
    """Break the answer off here."""

    how: CutHow
    inside: bool


class Fail(Struct, frozen=True):
    """Report an error inside the stream, as the provider does, and end it."""

    status: int
    message: str


class FinishWith(Struct, frozen=True):
    """Write the provider's last events here."""

    reason: Union[FinishReason, None]


class Raw(Struct, frozen=True):
    """Send these bytes as they are, framed like an event."""

    data: bytes


class Framed(Struct, frozen=True):
    """Frame this answer's body in another way than the server's."""

    how: Framing


class DripHead(Struct, frozen=True):
    """Send the status line and the headers byte by byte."""

    every_s: float


class Status(Struct, frozen=True):
    """Answer with an HTTP status instead of a stream; must stand alone."""

    status: int
    message: str
    code: Union[str, None]
    headers: dict[str, str]


class Page(Struct, frozen=True):
    """Answer with something that is no event stream; must stand alone."""

    body: bytes
    content_type: str
    status: int


class Hang(Struct, frozen=True):
    """Take the request and never answer; must stand alone."""


class HangUp(Struct, frozen=True):
    """Close the connection without an answer; must stand alone."""

    reset: bool


Action = Union[
    Say,
    Think,
    CallTool,
    Pause,
    Ping,
    Stall,
    Cut,
    Fail,
    FinishWith,
    Raw,
    Framed,
    DripHead,
    Status,
    Page,
    Hang,
    HangUp,
]
