"""The one error tree: whatever goes wrong is a `StreamError`, and says what to do next.

::

    StreamError                      .retryable  .provider  .request_id  .completion
    |- ConfigurationError            the caller's mistake, found before any byte is sent
    |- TransportError                no usable answer came back
    |  |- ConnectError               the request was not sent
    |  |- StreamTimeout              a clock ran out: .phase, .limit_s
    |  `- ConnectionLost             the body ended before the provider's own end
    |- APIError                      the provider said no: .status .code .retry_after_s .body
    |  |- AuthenticationError        401, 403
    |  |- InvalidRequestError        every other 4xx
    |  |- RateLimitError             429
    |  `- ServerError                5xx, 529, and overload reported inside a stream
    |- ProtocolError                 bytes or JSON that cannot be what the provider meant
    |- InvalidOutputError            the answer is not the JSON that was asked for
    |- StreamClosed                  read after the end, or by two readers at once
    `- TooManyRounds                 the model called tools again and again: `max_rounds` is reached

No message, attribute or `repr` in this module ever holds a key.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

__all__ = [
    "APIError",
    "AuthenticationError",
    "ConfigurationError",
    "ConnectError",
    "ConnectionLost",
    "InvalidOutputError",
    "InvalidRequestError",
    "ProtocolError",
    "RateLimitError",
    "ServerError",
    "StreamClosed",
    "StreamError",
    "StreamTimeout",
    "TimeoutPhase",
    "TooManyRounds",
    "TransportError",
]

TimeoutPhase = Literal["connect", "first_token", "idle", "total"]


def _rebuild(cls: type[StreamError], args: tuple[Any, ...], state: dict[str, Any]) -> StreamError:
    """Recreate an error without calling its `__init__`, whose signature differs per class."""
    error = cls.__new__(cls)
    error.args = args  # OSError's `__new__`, the timeout's, leaves them empty
    error.__dict__.update(state)
    return error


class StreamError(Exception):
    """The base of every error that this library raises.

    Attributes:
        retryable: Whether the same call may succeed when it is made again.
        provider: The provider's name, such as `"openai"`; `None` where none was involved yet.
        request_id: The provider's identifier of the request, for its support; `None` if unknown.
        completion: What had arrived when the error came (a `Completion`), or `None` before any
            stream existed.
        earlier: The errors of the providers that were asked before this one, with `fallback`.
    """

    default_retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        retryable: bool | None = None,
        provider: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.retryable = self.default_retryable if retryable is None else retryable
        self.provider = provider
        self.request_id = request_id
        self.completion: Any = None
        self.earlier: tuple[StreamError, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        """Let errors cross process boundaries: batch jobs send them through pickles."""
        return _rebuild, (type(self), self.args, self.__dict__)


class ConfigurationError(StreamError, ValueError):
    """The caller asked for something that cannot work; nothing was sent."""


class TransportError(StreamError):
    """The network gave no usable answer."""

    default_retryable = True


class ConnectError(TransportError):
    """No connection could be made, so the request was not sent."""


class StreamTimeout(TransportError, TimeoutError):
    """The provider took longer than one of the caller's limits.

    Attributes:
        phase: Which clock ran out: `connect`, `first_token`, `idle` or `total`.
        limit_s: That clock's limit in seconds.
    """

    def __init__(
        self, message: str, *, phase: TimeoutPhase, limit_s: float, **context: Any
    ) -> None:
        super().__init__(message, **context)
        self.phase: TimeoutPhase = phase
        self.limit_s = limit_s


class ConnectionLost(TransportError):
    """The body ended, or broke, before the provider's own end of the answer."""


class APIError(StreamError):
    """The provider answered, and the answer was no.

    Attributes:
        status: The HTTP status, or the one that an error inside a stream corresponds to.
        code: The provider's own word for the error, if it gave one.
        detail: The provider's own message.
        retry_after_s: How long the provider asks to wait, in seconds; `None` if it did not say.
        body: The provider's error object, decoded from JSON, or the text of a body that is none.
        headers: The response's headers; the names are lower-case.
        rate_limit: What they say about how much may still be asked (a `RateLimit`), or `None`.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str | None = None,
        detail: str = "",
        retry_after_s: float | None = None,
        body: Any = None,
        **context: Any,
    ) -> None:
        super().__init__(message, **context)
        self.status = status
        self.code = code
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.body = body
        self.headers: dict[str, str] = {}
        self.rate_limit: Any = None

    @staticmethod
    def class_for(status: int) -> type[APIError]:
        """Return the class of the tree that stands for an HTTP status."""
        if status in (401, 403):
            return AuthenticationError
        if status == 429:
            return RateLimitError
        if 400 <= status < 500:
            return InvalidRequestError
        if status >= 500:
            return ServerError
        return APIError


class AuthenticationError(APIError):
    """The key is missing, wrong, or not allowed to do this (401, 403)."""


class InvalidRequestError(APIError):
    """The provider does not accept the request (4xx)."""


class RateLimitError(APIError):
    """Too many requests or tokens (429); a used-up quota is not `retryable`."""

    default_retryable = True


class ServerError(APIError):
    """The provider failed or is overloaded (5xx, 529)."""

    default_retryable = True


class ProtocolError(StreamError):
    """The bytes are not what the provider's protocol allows."""


class InvalidOutputError(StreamError, ValueError):
    """The answer ended, and its text is not the JSON that was asked for; it is in `.completion`.

    It is no JSON, does not fit, was cut by the limit of tokens, or is a refusal or a tool call
    instead. The message says which, and where.
    """


class StreamClosed(StreamError, RuntimeError):
    """The stream was read after its end or its `close()`, or by two readers at once."""


class TooManyRounds(StreamError):
    """The model still asks for tools after as many answers as `run_tools` was allowed."""
