"""What a fake provider shall do: a list of actions, played from left to right.

::

    server.script(think("Hm."), say("Hello."), pause(0.5), say(" Bye."))

A request that asks for no stream gets the same as one JSON body: the waits pass before it, `cut`
sends half of it, and `fail` is the provider's error with its status.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import msgspec

from ..errors import ConfigurationError
from ..events import FinishReason
from .actions import (
    Action,
    CallTool,
    Cut,
    CutHow,
    DripHead,
    Fail,
    FinishWith,
    Framed,
    Framing,
    Hang,
    HangUp,
    Page,
    Pause,
    Ping,
    Raw,
    Say,
    Stall,
    Status,
    Think,
)

__all__ = [
    "call_tool",
    "checked",
    "cut",
    "drip_head",
    "fail",
    "finish",
    "framing",
    "hang",
    "hang_up",
    "is_time",
    "one_of",
    "page",
    "pause",
    "ping",
    "raw",
    "say",
    "stall",
    "status",
    "think",
    "words",
]

_ACTIONS = get_args(Action)
_MODIFIERS = (Framed, DripHead)
_AFTER_FINISH = (Raw, Pause, Stall, Ping, Cut)
#: What answers instead of a stream, in the words that scripts are written in.
_ALONE: dict[type, str] = {Status: "status()", Page: "page()", Hang: "hang()", HangUp: "hang_up()"}


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


def ping(every_s: float, times: int | None = None) -> Ping:
    """Send signs of life without content, as the provider does: an event, a comment, an empty line.

    Args:
        every_s: The time before each of them, in seconds.
        times: How many; `None` means until the client goes, and nothing may follow.
    """
    if not is_time(every_s) or (every_s == 0 and times is None):
        raise ConfigurationError(f"ping needs a number of seconds above 0, not {every_s!r}")
    if times is not None and (isinstance(times, bool) or not isinstance(times, int) or times < 1):
        raise ConfigurationError(f"ping: times must be at least 1 or None, not {times!r}")
    return Ping(every_s, times)


def stall() -> Stall:
    """Send nothing more, and keep the connection open until the client goes."""
    return Stall()


def cut(how: CutHow = "close", *, inside: bool = False) -> Cut:
    """Break the answer off here; nothing may follow.

    Args:
        how: `close` closes the connection in the middle of the body; `reset` resets it; `truncate`
            announces an HTTP chunk, sends half of it and closes (where the body is not made of HTTP
            chunks it is `close`); `end` ends the body properly as HTTP, but the provider's last
            event never comes.
        inside: Whether the first half of one more event is sent before that.
    """
    one_of(CutHow, how, "cut")
    return Cut(how, bool(inside))


def fail(status: int = 500, message: str = "the script says so") -> Fail:
    """Report an error inside the stream, as the provider does, and end it.

    Args:
        status: The HTTP status that the error corresponds to.
        message: The provider's message.
    """
    if isinstance(status, bool) or not isinstance(status, int) or not 400 <= status <= 599:
        raise ConfigurationError(f"fail() needs an HTTP status from 400 to 599, not {status!r}")
    return Fail(status, _text(message))


def finish(reason: FinishReason | None = None) -> FinishWith:
    """Write the provider's last events here: finish reason, usage, terminal event.

    A script without it finishes at its end. What follows (`raw`, `pause`, `ping`, `stall`, `cut`)
    comes after the provider's last event and before the end of the body.

    Args:
        reason: Why the answer ends; `None` is `stop`, or `tool_calls` where tools were called.
    """
    if reason is not None:
        one_of(FinishReason, reason, "finish()")
    return FinishWith(reason)


def raw(data: bytes) -> Raw:
    """Send these bytes as they are, framed like an event: in `chunked`, as one HTTP chunk.

    They are part of a stream only.
    """
    if not isinstance(data, bytes):
        raise ConfigurationError(f"raw() sends bytes, not {type(data).__name__}")
    return Raw(data)


def framing(how: Framing) -> Framed:
    """Frame this answer's body in another way than the server's; must stand at the beginning.

    Args:
        how: `chunked`, each event is one HTTP chunk, in one write; `bytes`, each byte is an HTTP
            chunk of its own; `dribble`, the whole body is one HTTP chunk, written byte by byte;
            `close`, the connection's end is the body's; `length`, with a Content-Length; `gzip`,
            chunked and compressed, flushed after each event, whether the client asked for it or
            not. With `length` and `dribble` a script that does not end its body announces more
            than it sends.
    """
    one_of(Framing, how, "framing")
    return Framed(how)


def drip_head(every_s: float) -> DripHead:
    """Send the status line and the headers byte by byte; must stand at the beginning.

    Args:
        every_s: The time after each byte, in seconds.
    """
    if not is_time(every_s):
        raise ConfigurationError(f"drip_head needs a number of at least 0, not {every_s!r}")
    return DripHead(every_s)


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


def page(body: bytes | str, *, content_type: str = "text/html", status: int = 200) -> Page:
    """Answer with something that is no event stream, as proxies and wrong addresses do.

    Args:
        body: What is sent; text as UTF-8.
        content_type: What it is said to be.
        status: The HTTP status.
    """
    if isinstance(body, str):
        body = body.encode()
    if not isinstance(body, bytes):
        raise ConfigurationError(f"page() needs bytes or a str, not {type(body).__name__}")
    number = isinstance(status, int) and not isinstance(status, bool)
    if not number or not 200 <= status <= 599 or status in (204, 304):
        raise ConfigurationError(f"page() needs an HTTP status that has a body, not {status!r}")
    return Page(body, content_type, status)


def hang() -> Hang:
    """Take the request and never answer, until the client goes."""
    return Hang()


def hang_up(*, reset: bool = False) -> HangUp:
    """Close the connection without an answer.

    Args:
        reset: Whether it is reset instead.
    """
    return HangUp(bool(reset))


def checked(actions: Sequence[Action]) -> tuple[Action, ...]:
    """Return a script that can be played.

    Raises:
        ConfigurationError: It is made of other things, or in an order that means nothing.
    """
    if not isinstance(actions, Sequence):
        raise ConfigurationError(f"a script is a list of actions, not {actions!r}")
    before: list[Action] = []
    for action in actions:
        if not isinstance(action, _ACTIONS):
            raise ConfigurationError(f"a script is made of say(), think(), ...; not of {action!r}")
        if type(action) in _ALONE and len(actions) > 1:
            raise ConfigurationError(
                f"{_ALONE[type(action)]} answers instead of a stream: it must stand alone"
            )
        _check_order(action, before)
        before.append(action)
    return tuple(actions)


def _check_order(action: Action, before: list[Action]) -> None:
    """Refuse an action that cannot follow those before it."""
    if isinstance(action, _MODIFIERS):
        name = "framing()" if isinstance(action, Framed) else "drip_head()"
        if not all(isinstance(earlier, _MODIFIERS) for earlier in before):
            raise ConfigurationError(f"{name} must stand at the beginning of a script")
        if any(type(earlier) is type(action) for earlier in before):
            raise ConfigurationError(f"{name} can be said once only")
    last = before[-1] if before else None
    if isinstance(last, (Cut, Stall)) or (isinstance(last, Ping) and last.times is None):
        said = type(last).__name__.lower()
        raise ConfigurationError(f"nothing can follow {said}() in a script, but {action!r} does")
    if not isinstance(action, _AFTER_FINISH) and any(
        isinstance(earlier, FinishWith) for earlier in before
    ):
        raise ConfigurationError(
            f"only raw, pause, stall, ping and cut can follow finish(), not {action!r}"
        )


def is_time(seconds: object) -> bool:
    """Whether this is a number of seconds that somebody could wait."""
    number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    return number and 0 <= seconds < float("inf")  # type: ignore[operator]


def one_of(words: Any, word: object, where: str) -> None:
    """Refuse what is none of a `Literal`'s words."""
    known = get_args(words)
    if word not in known:
        raise ConfigurationError(f"{where} must be one of {', '.join(known)}; not {word!r}")


def _text(text: object) -> str:
    if not isinstance(text, str):
        raise ConfigurationError(f"a fake provider says a str, not {type(text).__name__}")
    return text


def words(text: str) -> list[str]:
    """Cut a text the way providers like to: each word with the space before it."""
    return re.findall(r"\s*\S+|\s+\Z", text)
