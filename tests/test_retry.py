"""Whether to try again and after how long, as plain arithmetic: nothing here waits."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_sse.errors import (
    APIError,
    AuthenticationError,
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    ProtocolError,
    RateLimitError,
    ServerError,
    StreamError,
    StreamTimeout,
)
from llm_sse.retry import RetryPolicy

LOST = ConnectionLost("gone")
ALMOST_1 = 1 - 2**-53


def busy(retry_after_s: float | None) -> RateLimitError:
    """Make the error of a provider that asks to wait."""
    return RateLimitError("busy", status=429, retry_after_s=retry_after_s)


class TestRetryPolicy:
    def test_defaults(self) -> None:
        """Without a word from the caller two retries and no resumption are made."""
        policy = RetryPolicy()
        assert (policy.max_retries, policy.backoff_s, policy.max_backoff_s) == (2, 0.5, 30.0)
        assert (policy.resume, policy.max_resumes) == (False, 3)

    def test_frozen(self) -> None:
        """A policy cannot be changed."""
        with pytest.raises(AttributeError):
            RetryPolicy().max_retries = 5  # type: ignore[misc]

    def test_keywords_only(self) -> None:
        """The numbers must be named, for nobody knows their order."""
        with pytest.raises(TypeError):
            RetryPolicy(2)  # type: ignore[misc]

    @pytest.mark.parametrize("name", ["max_retries", "max_resumes", "backoff_s", "max_backoff_s"])
    def test_wrong_number(self, name: str) -> None:
        """What is no number of at least 0 is refused by name."""
        wrong: list[Any] = [-1, -0.5, float("nan"), float("inf"), "2", None, True, [1]]
        for value in wrong:
            with pytest.raises(ConfigurationError, match=f"RetryPolicy: {name} must be"):
                RetryPolicy(**{name: value})

    @pytest.mark.parametrize("name", ["max_retries", "max_resumes"])
    def test_counts_are_whole(self, name: str) -> None:
        """Nothing is repeated one and a half times."""
        with pytest.raises(ConfigurationError, match=f"{name} must be a whole number"):
            RetryPolicy(**{name: 1.5})  # type: ignore[arg-type]

    @pytest.mark.parametrize("value", ["no", 1, None])
    def test_resume_is_a_bool(self, value: Any) -> None:
        """A word that only looks true does not make anybody pay for continuations."""
        with pytest.raises(ConfigurationError, match="resume must be a bool"):
            RetryPolicy(resume=value)

    def test_a_changed_copy_is_checked_too(self) -> None:
        """A policy that is made from another one obeys the same rules."""
        with pytest.raises(ConfigurationError, match="max_retries"):
            msgspec.structs.replace(RetryPolicy(), max_retries=-1)

    def test_zeros(self) -> None:
        """Nothing at all is a policy: never again, and at once."""
        policy = RetryPolicy(
            max_retries=0, max_resumes=0, backoff_s=0, max_backoff_s=0, resume=True
        )
        assert policy.delay_s(1, LOST, 0.5) is None
        assert policy.resume_delay_s(1, LOST, 0.5) is None
        assert RetryPolicy(backoff_s=0).delay_s(1, LOST, 0.5) == 0

    def test_the_ceiling_doubles(self) -> None:
        """The longest possible wait doubles with every retry, up to the policy's ceiling."""
        policy = RetryPolicy(max_retries=10, backoff_s=0.5, max_backoff_s=5)
        waits = [policy.delay_s(retry, LOST, ALMOST_1) for retry in range(1, 7)]
        assert waits == pytest.approx([0.5, 1, 2, 4, 5, 5])

    @settings(deadline=None)
    @given(
        retry=st.integers(1, 10**6),
        random=st.floats(0, 1, exclude_max=True),
        backoff_s=st.floats(0, 1e6),
        max_backoff_s=st.floats(0, 1e6),
        wished=st.none() | st.floats(0, 1e12),
    )
    def test_full_jitter(
        self,
        retry: int,
        random: float,
        backoff_s: float,
        max_backoff_s: float,
        wished: float | None,
    ) -> None:
        """A wait lies between 0, or the provider's wish, and the ceiling, in proportion to luck."""
        policy = RetryPolicy(max_retries=10**6, backoff_s=backoff_s, max_backoff_s=max_backoff_s)
        delay_s = policy.delay_s(retry, busy(wished), random)
        assert delay_s is not None
        assert min(wished or 0, max_backoff_s) <= delay_s <= max_backoff_s
        ceiling = min(max_backoff_s, backoff_s * 2.0 ** min(retry - 1, 60))
        if wished is None or wished <= random * ceiling:
            assert delay_s == random * ceiling

    def test_no_luck_is_no_wait(self) -> None:
        """Full jitter begins at zero."""
        assert RetryPolicy().delay_s(1, LOST, 0.0) == 0

    @pytest.mark.parametrize(
        ("wished", "random", "delay_s"),
        [
            (None, 0.5, 0.25),
            (0.0, 0.5, 0.25),
            (0.1, 0.5, 0.25),
            (7.0, 0.5, 7.0),
            (7.0, 0.0, 7.0),
            (3600.0, 0.5, 30.0),
        ],
    )
    def test_retry_after(self, wished: float | None, random: float, delay_s: float) -> None:
        """A provider's wish is a lower bound; the policy's ceiling stands above it."""
        assert RetryPolicy().delay_s(1, busy(wished), random) == delay_s

    def test_retries_are_used_up(self) -> None:
        """After the last retry there is no other."""
        policy = RetryPolicy(max_retries=2)
        assert policy.delay_s(2, LOST, 0.5) is not None
        assert policy.delay_s(3, LOST, 0.5) is None

    @pytest.mark.parametrize(
        ("error", "again"),
        [
            (ConnectError("no"), True),
            (LOST, True),
            (busy(None), True),
            (ServerError("no", status=500), True),
            (APIError("no", status=409, retryable=True), True),
            (StreamTimeout("slow", phase="connect", limit_s=1), True),
            (StreamTimeout("slow", phase="first_token", limit_s=1), False),
            (StreamTimeout("slow", phase="idle", limit_s=1), False),
            (StreamTimeout("slow", phase="total", limit_s=1), False),
            (StreamTimeout("slow", phase="connect", limit_s=1, retryable=False), False),
            (AuthenticationError("no", status=401), False),
            (RateLimitError("no money", status=429, retryable=False), False),
            (ProtocolError("what"), False),
            (ConfigurationError("what"), False),
        ],
    )
    def test_only_what_may_pass_is_retried(self, error: StreamError, again: bool) -> None:
        """Final errors, and limits that the caller has set, are not met with another try."""
        assert (RetryPolicy().delay_s(1, error, 0.5) is not None) is again

    def test_an_answer_is_continued_where_that_was_asked_for(self) -> None:
        """So often, after a passing error, and not without being asked."""
        policy = RetryPolicy(resume=True, max_resumes=2)
        assert policy.resume_delay_s(1, LOST, 0.5) is not None
        assert policy.resume_delay_s(2, LOST, 0.5) is not None
        assert policy.resume_delay_s(3, LOST, 0.5) is None
        assert policy.resume_delay_s(1, ProtocolError("what"), 0.5) is None
        assert RetryPolicy().resume_delay_s(1, LOST, 0.5) is None

    def test_a_continuation_waits_like_a_retry(self) -> None:
        """The ceiling doubles, and the provider's wish counts there, too."""
        policy = RetryPolicy(resume=True, max_resumes=9, backoff_s=0.5, max_backoff_s=5)
        waits = [policy.resume_delay_s(number, LOST, ALMOST_1) for number in range(1, 6)]
        assert waits == pytest.approx([0.5, 1, 2, 4, 5])
        assert policy.resume_delay_s(1, busy(3.0), 0.5) == 3.0
        assert policy.resume_delay_s(1, busy(60.0), 0.5) == 5.0
