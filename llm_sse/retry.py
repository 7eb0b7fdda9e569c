"""Whether to try again, and after how long. Nothing here sleeps, draws lots or reads a clock."""

from __future__ import annotations

from msgspec import Struct

from .errors import APIError, ConfigurationError, StreamError, StreamTimeout

__all__ = ["RetryPolicy"]


class RetryPolicy(Struct, frozen=True, kw_only=True):
    """How failures are met.

    Before the first content event a request is repeated, for nothing of it has been seen. After
    it, the answer is continued only where `resume` asks for that: the continuation is a new
    request, costs tokens, and may differ in style.

    Attributes:
        max_retries: How often a request is repeated, at most.
        backoff_s: The ceiling of the first wait in seconds; it doubles with every retry.
        max_backoff_s: The ceiling of every wait, a provider's own wish included.
        resume: Whether to continue an answer that was cut off.
        max_resumes: How often an answer is continued, at most.
    """

    max_retries: int = 2
    backoff_s: float = 0.5
    max_backoff_s: float = 30.0
    resume: bool = False
    max_resumes: int = 3

    def __post_init__(self) -> None:
        for name, types, what in (
            ("max_retries", int, "a whole number"),
            ("max_resumes", int, "a whole number"),
            ("backoff_s", (int, float), "a finite number"),
            ("max_backoff_s", (int, float), "a finite number"),
        ):
            value = getattr(self, name)
            if (
                isinstance(value, bool)
                or not isinstance(value, types)
                or not 0 <= value < float("inf")
            ):
                raise ConfigurationError(
                    f"RetryPolicy: {name} must be {what} of at least 0, not {value!r}"
                )
        if not isinstance(self.resume, bool):
            raise ConfigurationError(f"RetryPolicy: resume must be a bool, not {self.resume!r}")

    def delay_s(self, retry: int, error: StreamError, random: float) -> float | None:
        """Say how long to wait before a retry, or that there shall be none.

        Exponential back-off with full jitter; a provider's `Retry-After` is a lower bound.

        Args:
            retry: Which retry this would be, counted from 1.
            error: What went wrong.
            random: A number in [0, 1), drawn by the caller.

        Returns:
            The wait in seconds; `None` if the error is final or the retries are used up.
        """
        if (
            retry > self.max_retries
            or not error.retryable
            or (isinstance(error, StreamTimeout) and error.phase != "connect")
        ):
            return None
        return self._wait_s(retry, error, random)

    def resume_delay_s(self, resumption: int, error: StreamError, random: float) -> float | None:
        """Say how long to wait before a cut answer is continued, or that it shall not be.

        Args:
            resumption: Which one this would be, counted from 1.
            error: What went wrong.
            random: A number in [0, 1), drawn by the caller.

        Returns:
            The wait in seconds, as for a retry; `None` if the answer ends here.
        """
        if not self.resume or resumption > self.max_resumes or not error.retryable:
            return None
        return self._wait_s(resumption, error, random)

    def _wait_s(self, attempt: int, error: StreamError, random: float) -> float:
        ceiling = min(self.max_backoff_s, self.backoff_s * 2.0 ** min(attempt - 1, 60))
        wished = error.retry_after_s if isinstance(error, APIError) else None
        return min(self.max_backoff_s, max(random * ceiling, wished or 0.0))
