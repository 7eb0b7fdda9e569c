from __future__ import annotations

import json

import pytest

from llm_sse.errors import (
    APIError,
    AuthenticationError,
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    InvalidRequestError,
    ProtocolError,
    RateLimitError,
    ServerError,
    StreamClosed,
    StreamTimeout,
    TooManyRounds,
)
from llm_sse.web.problem import problem_of

_WORDS = "sk-secret gpt-secret said no"


class TestProblemOf:
    @pytest.mark.parametrize(
        ("error", "status", "code", "retryable"),
        [
            (RateLimitError(_WORDS, status=429), 429, "rate_limited", True),
            (RateLimitError(_WORDS, status=429, retryable=False), 429, "rate_limited", False),
            (StreamTimeout(_WORDS, phase="idle", limit_s=1.0), 504, "timeout", True),
            (ServerError(_WORDS, status=500), 503, "unavailable", True),
            (ServerError(_WORDS, status=529), 503, "unavailable", True),
            (ServerError(_WORDS, status=501, retryable=False), 503, "unavailable", False),
            (ConnectError(_WORDS), 503, "unavailable", True),
            (ConnectError(_WORDS, retryable=False), 502, "misconfigured", False),
            (ConnectionLost(_WORDS), 503, "incomplete", True),
            (InvalidRequestError(_WORDS, status=408, retryable=True), 503, "unavailable", True),
            (AuthenticationError(_WORDS, status=401), 502, "misconfigured", False),
            (AuthenticationError(_WORDS, status=403), 502, "misconfigured", False),
            (InvalidRequestError(_WORDS, status=404), 502, "misconfigured", False),
            (InvalidRequestError(_WORDS, status=400), 502, "misconfigured", False),
            (APIError(_WORDS, status=302), 502, "misconfigured", False),
            (ProtocolError(_WORDS), 502, "incomplete", False),
            (TooManyRounds(_WORDS), 502, "incomplete", False),
            (ConfigurationError(_WORDS), 500, "internal", False),
            (StreamClosed(_WORDS), 500, "internal", False),
            (KeyError(_WORDS), 500, "internal", False),
        ],
    )
    def test_the_class_of_trouble_is_told(
        self, error: Exception, status: int, code: str, retryable: bool
    ) -> None:
        """Each error has its status and its class, and says whether to try again; no word more."""
        problem = problem_of(error)
        assert (problem.status, problem.code, problem.retryable) == (status, code, retryable)
        assert b"secret" not in problem.body
        assert "Retry-After" not in problem.headers

    def test_it_is_a_problem_document(self) -> None:
        """The body is RFC 9457's JSON, with its media type, and no cache keeps it."""
        problem = problem_of(RateLimitError("x", status=429, retry_after_s=6.2))
        assert json.loads(problem.body) == {
            "title": "Too Many Requests",
            "status": 429,
            "detail": "The model has too much to do at the moment.",
            "code": "rate_limited",
            "retryable": True,
            "retry_after_s": 7,
        }
        assert problem.headers == {
            "Content-Type": "application/problem+json",
            "Cache-Control": "no-store",
            "Retry-After": "7",
        }

    def test_who_may_not_try_again_is_not_told_when(self) -> None:
        """A wait that would not help is not asked for."""
        error = ServerError("x", status=501, retry_after_s=6.2, retryable=False)
        assert problem_of(error).retry_after_s is None

    def test_a_used_up_quota_says_when_it_is_there_again(self) -> None:
        """429 stays 429 with its `Retry-After`, also where trying again at once is of no use."""
        error = RateLimitError("x", status=429, retry_after_s=6.2, retryable=False)
        assert problem_of(error).headers["Retry-After"] == "7"
