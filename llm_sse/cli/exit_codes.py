"""What the command tells a script about how it ended."""

from __future__ import annotations

from ..errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    InvalidRequestError,
    ProtocolError,
    RateLimitError,
    ServerError,
    StreamError,
    StreamTimeout,
)

__all__ = ["CLOSED_PIPE", "HELP", "INTERRUPTED", "exit_code"]

INTERRUPTED = 130
#: What a shell reports of a program that SIGPIPE ended.
CLOSED_PIPE = 141

_EXIT_CODES: tuple[tuple[int, str, tuple[type[StreamError], ...]], ...] = (
    (0, "the answer is complete", ()),
    (2, "wrong usage or configuration, such as a missing key", (ConfigurationError,)),
    (3, "the provider does not accept the key", (AuthenticationError,)),
    (4, "rate limit or quota", (RateLimitError,)),
    (5, "the provider does not accept the request", (InvalidRequestError,)),
    (6, "the provider failed or is overloaded", (ServerError,)),
    (7, "no connection, or it was lost", (ConnectError, ConnectionLost)),
    (8, "the provider took too long", (StreamTimeout,)),
    (9, "the answer was not what the provider's protocol allows", (ProtocolError,)),
    (1, "any other error", (StreamError,)),
    (INTERRUPTED, "interrupted by Ctrl-C", ()),
    (CLOSED_PIPE, "whoever read the output has closed the pipe", ()),
)
#: All of them, below the options.
HELP = "\b\nExit codes:\n" + "\n".join(f"{code:5}  {text}" for code, text, _ in _EXIT_CODES)


def exit_code(error: StreamError) -> int:
    """Return the code of an error's kind."""
    return next(code for code, _, kinds in _EXIT_CODES if isinstance(error, kinds))
