"""What a fake provider shall do: a list of actions, played from left to right.

::

    server.script(think("Hm."), say("Hello."), pause(0.5), say(" Bye."))
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Union

import msgspec
from msgspec import Struct

from ..errors import ConfigurationError
from ..events import FinishReason

__all__ = [
    "Action",
    "CallTool",
    "Cut",
    "Fail",
    "FinishWith",
    "Pause",
    "Raw",
    "Say",
    "Status",
    "Think",
    "call_tool",
    "cut",
    "fail",
    "finish",
    "pause",
    "raw",
    "say",
    "status",
    "think",
]


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


class Cut(Struct, frozen=True):
    """Close the connection here, in the middle of the body."""


class Status(Struct, frozen=True):
    """Answer with an HTTP status instead of a stream; must come first."""

    status: int
    message: str
    code: Union[str, None]
    headers: dict[str, str]


class Fail(Struct, frozen=True):
    """Report an error inside the stream, as the provider does, and end it."""

    status: int
    message: str


class FinishWith(Struct, frozen=True):
    """End the answer for this reason."""

    reason: FinishReason


class Raw(Struct, frozen=True):
    """Send these bytes as they are, as one HTTP chunk."""

    data: bytes


Action = Union[Say, Think, CallTool, Pause, Cut, Status, Fail, FinishWith, Raw]


def say(text: str) -> Say:
    """Send text, one delta per word, at the server's pace."""
    return Say(_text(text))


def think(text: str) -> Think:
    """Send reasoning, one delta per word, at the server's pace."""
    return Think(_text(text))


def call_tool(
    name: str, arguments: Mapping[str, Any] | str = "{}", *, id: str | None = None
) -> CallTool:
    """Ask for a tool to be called.

    Args:
        name: The tool's name.
        arguments: Its arguments; as a text they may be anything, also broken JSON.
        id: The call's identifier; one is made up where it is missing.
    """
    text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
    return CallTool(name, text, id)


def pause(seconds: float) -> Pause:
    """Send nothing for a while."""
    if not is_time(seconds):
        raise ConfigurationError(f"pause needs a number of seconds of at least 0, not {seconds!r}")
    return Pause(seconds)


def cut() -> Cut:
    """Close the connection here, in the middle of the body."""
    return Cut()


def status(
    status: int,
    message: str = "",
    *,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Status:
    """Answer with an HTTP status and the provider's error body instead of a stream.

    Args:
        status: The HTTP status.
        message: The provider's message.
        code: The provider's word for the error.
        headers: More headers, such as `{"Retry-After": "1"}`.
    """
    if isinstance(status, bool) or not isinstance(status, int) or not 300 <= status <= 599:
        raise ConfigurationError(f"status() needs an HTTP status from 300 to 599, not {status!r}")
    return Status(status, message or f"the script says {status}", code, dict(headers or {}))


def fail(status: int = 500, message: str = "the script says so") -> Fail:
    """Report an error inside the stream, as the provider does, and end it.

    Args:
        status: The HTTP status that the error corresponds to.
        message: The provider's message.
    """
    return Fail(status, message)


def finish(reason: FinishReason) -> FinishWith:
    """End the answer for another reason than `stop`, or `tool_calls` where tools were called."""
    return FinishWith(reason)


def raw(data: bytes) -> Raw:
    """Send these bytes as they are, as one HTTP chunk."""
    return Raw(data)


def is_time(seconds: object) -> bool:
    """Whether this is a number of seconds that somebody could wait."""
    number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    return number and 0 <= seconds < float("inf")  # type: ignore[operator]


def _text(text: object) -> str:
    if not isinstance(text, str):
        raise ConfigurationError(f"a fake provider says a str, not {type(text).__name__}")
    return text


def words(text: str) -> list[str]:
    """Cut a text the way providers like to: each word with the space before it."""
    return re.findall(r"\s*\S+|\s+\Z", text)
