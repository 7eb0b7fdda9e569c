"""The error tree: what is whose kind, what may be tried again, what survives a pickle."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from llm_sse import errors
from llm_sse.completion import Completion
from llm_sse.errors import (
    APIError,
    AuthenticationError,
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    InvalidOutputError,
    InvalidRequestError,
    ProtocolError,
    RateLimitError,
    ServerError,
    StreamClosed,
    StreamError,
    StreamTimeout,
    TooManyRounds,
    TransportError,
)

#: Every class, with what it needs beyond its message.
CLASSES: dict[type[StreamError], dict[str, Any]] = {
    StreamError: {},
    ConfigurationError: {},
    TransportError: {},
    ConnectError: {},
    StreamTimeout: {"phase": "idle", "limit_s": 1.5},
    ConnectionLost: {},
    APIError: {"status": 302},
    AuthenticationError: {"status": 401},
    InvalidRequestError: {"status": 400},
    RateLimitError: {"status": 429},
    ServerError: {"status": 529},
    ProtocolError: {},
    InvalidOutputError: {},
    StreamClosed: {},
    TooManyRounds: {},
}

each_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)


def test_the_table_is_complete() -> None:
    """Every public error class is tested here."""
    public = {getattr(errors, name) for name in errors.__all__} - {errors.TimeoutPhase}
    assert set(CLASSES) == public


class TestStreamError:
    @pytest.mark.parametrize(
        ("cls", "bases"),
        [
            (StreamError, [Exception]),
            (ConfigurationError, [StreamError, ValueError]),
            (TransportError, [StreamError]),
            (ConnectError, [TransportError]),
            (StreamTimeout, [TransportError, TimeoutError]),
            (ConnectionLost, [TransportError]),
            (APIError, [StreamError]),
            (AuthenticationError, [APIError]),
            (InvalidRequestError, [APIError]),
            (RateLimitError, [APIError]),
            (ServerError, [APIError]),
            (ProtocolError, [StreamError]),
            (InvalidOutputError, [StreamError, ValueError]),
            (StreamClosed, [StreamError, RuntimeError]),
            (TooManyRounds, [StreamError]),
        ],
    )
    def test_tree(self, cls: type[StreamError], bases: list[type]) -> None:
        """Every error is a StreamError, and the builtin that callers may already catch."""
        assert list(cls.__bases__) == bases
        assert issubclass(cls, StreamError)

    @each_class
    def test_defaults(self, cls: type[StreamError]) -> None:
        """A new error says its message, and nothing that it does not know."""
        error = cls("what happened", **CLASSES[cls])
        assert str(error) == "what happened"
        assert error.args == ("what happened",)
        assert error.provider is None
        assert error.request_id is None
        assert error.completion is None

    @each_class
    def test_retryable_by_default(self, cls: type[StreamError]) -> None:
        """Failures of networks and servers and full buckets pass; everything else stays."""
        error = cls("what happened", **CLASSES[cls])
        passing = (TransportError, RateLimitError, ServerError)
        assert error.retryable is isinstance(error, passing)

    @each_class
    def test_retryable_by_word(self, cls: type[StreamError]) -> None:
        """Who raises an error may know better than its class whether to try again."""
        assert cls("what happened", retryable=True, **CLASSES[cls]).retryable is True
        assert cls("what happened", retryable=False, **CLASSES[cls]).retryable is False

    @each_class
    def test_pickle(self, cls: type[StreamError]) -> None:
        """An error comes back from another process with its message and every attribute."""
        more = {"code": "c", "detail": "d", "retry_after_s": 2.5, "body": {"error": ["x", 1]}}
        error = cls(
            "what happened",
            retryable=True,
            provider="openai",
            request_id="req_1",
            **CLASSES[cls],
            **(more if issubclass(cls, APIError) else {}),
        )
        error.completion = Completion(text="Hel", finish_reason="length")
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            again = pickle.loads(pickle.dumps(error, protocol))
            assert type(again) is cls
            assert again.args == error.args
            assert str(again) == "what happened"
            assert vars(again) == vars(error)

    @each_class
    def test_copy(self, cls: type[StreamError]) -> None:
        """A copy of an error is the same error."""
        error = cls("what happened", **CLASSES[cls])
        for again in (copy.copy(error), copy.deepcopy(error)):
            assert repr(again) == repr(error)
            assert vars(again) == vars(error)

    def test_pickle_of_a_subclass(self) -> None:
        """A caller's own subclass, whatever its signature, survives a pickle."""
        again = pickle.loads(pickle.dumps(_Own(7)))
        assert (type(again), str(again), again.number) == (_Own, "number 7", 7)


class _Own(StreamError):
    def __init__(self, number: int) -> None:
        super().__init__(f"number {number}")
        self.number = number


class TestStreamTimeout:
    def test_attributes(self) -> None:
        """A timeout says which clock ran out, and at what."""
        error = StreamTimeout("slow", phase="first_token", limit_s=60.0, provider="gemini")
        assert (error.phase, error.limit_s, error.provider) == ("first_token", 60.0, "gemini")

    def test_is_caught_as_the_builtin(self) -> None:
        """`except TimeoutError` catches it."""
        with pytest.raises(TimeoutError, match="slow"):
            raise StreamTimeout("slow", phase="total", limit_s=1.0)


class TestAPIError:
    def test_defaults(self) -> None:
        """What the provider did not say is empty."""
        error = APIError("no", status=400)
        assert (error.status, error.code, error.detail) == (400, None, "")
        assert (error.retry_after_s, error.body) == (None, None)

    @pytest.mark.parametrize(
        ("status", "cls"),
        [
            (200, APIError),
            (302, APIError),
            (399, APIError),
            (400, InvalidRequestError),
            (401, AuthenticationError),
            (402, InvalidRequestError),
            (403, AuthenticationError),
            (404, InvalidRequestError),
            (408, InvalidRequestError),
            (428, InvalidRequestError),
            (429, RateLimitError),
            (430, InvalidRequestError),
            (499, InvalidRequestError),
            (500, ServerError),
            (503, ServerError),
            (529, ServerError),
            (599, ServerError),
        ],
    )
    def test_class_for(self, status: int, cls: type[APIError]) -> None:
        """Every HTTP status has its class."""
        assert APIError.class_for(status) is cls
