"""What a visitor may know of an error: its class, and whether to try again; nothing more.

| what went wrong | status | code |
| --- | --- | --- |
| `RateLimitError` | 429 | `rate_limited` |
| `StreamTimeout` | 504 | `timeout` |
| `ConnectionLost` | 503 | `incomplete` |
| `ServerError`, `ConnectError`; any other that is `retryable` | 503 | `unavailable` |
| any other refusal: a key, a model, a request that is wrong | 502 | `misconfigured` |
| `ProtocolError`, `TooManyRounds`, an answer without its end | 502 | `incomplete` |
| everything else | 500 | `internal` |
| what is to be told again is not kept (any longer) | 410 | `gone` |
| `ReadElsewhereError` | 409 | `read_elsewhere` |
"""

from __future__ import annotations

import math

import msgspec
from msgspec import Struct

from ..errors import (
    APIError,
    ConnectionLost,
    ProtocolError,
    RateLimitError,
    ServerError,
    StreamError,
    StreamTimeout,
    TooManyRounds,
    TransportError,
)

__all__ = [
    "NOTHING_MORE",
    "Problem",
    "ReadElsewhereError",
    "RefusedError",
    "gone",
    "misconfigured",
    "problem_of",
]

#: The statuses in HTTP's words. Source: RFC 9110, section 15; RFC 6585, section 4.
_TITLES = {
    409: "Conflict",
    410: "Gone",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}

_DETAILS = {
    "gone": "This answer is not kept any longer.",
    "read_elsewhere": "This answer is being read elsewhere.",
    "rate_limited": "The model has too much to do at the moment.",
    "timeout": "The model did not answer in time.",
    "unavailable": "The model cannot be reached at the moment.",
    "misconfigured": "This site could not ask the model.",
    "incomplete": "The model's answer broke off.",
    "internal": "Something went wrong on this site.",
}


class ReadElsewhereError(StreamError):
    """An answer that has one reader at a time has got another one."""


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A problem document, which holds nothing of the provider's and nothing of the site's.

    Source: RFC 9457, sections 3.1 and 3.2; `code`, `retryable` and `retry_after_s` are extensions.

    Attributes:
        title: The status in HTTP's words.
        status: The HTTP status.
        detail: A sentence for the visitor.
        code: The class of trouble; see the table above.
        retryable: Whether the same request may succeed when it is made again.
        retry_after_s: How long to wait before that, in whole seconds; `None` if that is unknown.
    """

    title: str
    status: int
    detail: str
    code: str
    retryable: bool
    retry_after_s: int | None = None

    @property
    def body(self) -> bytes:
        """The document."""
        return msgspec.json.encode(self)

    @property
    def headers(self) -> dict[str, str]:
        """The headers of a response that is this problem."""
        headers = {"Content-Type": "application/problem+json", "Cache-Control": "no-store"}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(self.retry_after_s)
        return headers


class _NothingMore(Problem, frozen=True, kw_only=True):
    """No problem at all: everything has been told. `EventSource` takes 204 for the end."""

    @property
    def body(self) -> bytes:
        """Nothing: such a response has no body."""
        return b""

    @property
    def headers(self) -> dict[str, str]:
        """The headers of a response without a body."""
        return {"Cache-Control": "no-store"}


#: Source: https://html.spec.whatwg.org/multipage/server-sent-events.html: "Clients will reconnect
#: if the connection is closed; a client can be told to stop reconnecting using the HTTP 204 No
#: Content response code."
NOTHING_MORE: Problem = _NothingMore(
    title="No Content", status=204, detail="", code="complete", retryable=False
)


class RefusedError(Exception):
    """A request is answered with a problem; whoever raises it has told the site's log why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.code)
        self.problem = problem


def problem_of(error: BaseException) -> Problem:
    """Return what a visitor may know of an error."""
    if isinstance(error, RefusedError):
        return error.problem
    status, code = _class_of(error)
    retryable = isinstance(error, StreamError) and error.retryable
    # A used-up quota is not retryable, and yet 429 says when it will be there again.
    retry_after_s = getattr(error, "retry_after_s", None) if retryable or status == 429 else None
    return Problem(
        title=_TITLES[status],
        status=status,
        detail=_DETAILS[code],
        code=code,
        retryable=retryable,
        retry_after_s=None if retry_after_s is None else math.ceil(retry_after_s),
    )


def misconfigured() -> Problem:
    """Return what is said where the site itself cannot ask: it has no key, say."""
    return Problem(
        title=_TITLES[502],
        status=502,
        detail=_DETAILS["misconfigured"],
        code="misconfigured",
        retryable=False,
    )


def gone() -> Problem:
    """Return what is said to who asks for the rest of an answer that is not there."""
    return Problem(
        title=_TITLES[410], status=410, detail=_DETAILS["gone"], code="gone", retryable=False
    )


def _class_of(error: BaseException) -> tuple[int, str]:
    if isinstance(error, RateLimitError):
        return 429, "rate_limited"
    if isinstance(error, StreamTimeout):
        return 504, "timeout"
    if isinstance(error, ConnectionLost):
        return 503, "incomplete"
    if isinstance(error, (APIError, TransportError)):
        if error.retryable or isinstance(error, ServerError):
            return 503, "unavailable"
        return 502, "misconfigured"
    if isinstance(error, (ProtocolError, TooManyRounds)):
        return 502, "incomplete"
    if isinstance(error, ReadElsewhereError):
        return 409, "read_elsewhere"
    return 500, "internal"
