"""What the site's log is told of an error: what happened, but not what somebody has written.

A provider's message may quote the prompt, and the prompt is the visitor's. So a warning says which
error it was; the provider's own words come at the level DEBUG. Neither begins a line of its own: a
visitor who can make a provider quote him must not write lines into a log.
"""

from __future__ import annotations

import logging

from ..errors import APIError, InvalidOutputError, ProtocolError, StreamError

__all__ = ["log_error", "one_line"]

#: The errors whose message holds what came from outside, where a provider was asked.
_QUOTING = (APIError, ProtocolError, InvalidOutputError)


def log_error(log: logging.Logger, error: BaseException, level: int = logging.WARNING) -> None:
    """Log what has ended a stream; an exception of the site's own with its traceback.

    Args:
        log: Where.
        error: What has ended it.
        level: How loudly, where it is an error of ours.
    """
    if not isinstance(error, StreamError):
        log.error("a stream for a browser failed", exc_info=error)
        return
    kind, words = type(error).__name__, one_line(str(error))
    if error.provider is None or not isinstance(error, _QUOTING):
        log.log(level, "%s: %s", kind, words)
        return
    said = {
        "status": getattr(error, "status", None),
        "code": getattr(error, "code", None),
        "request": error.request_id,
    }
    facts = (f"{name} {one_line(str(value))}" for name, value in said.items() if value is not None)
    log.log(level, "%s: %s", kind, ", ".join((error.provider, *facts)))
    log.debug("%s said: %s", error.provider, words)


def one_line(text: str) -> str:
    """Write what would move a terminal's cursor, or hide, as an escape."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
