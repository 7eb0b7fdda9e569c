"""What a provider's headers say about how much may still be asked of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Literal

from msgspec import Struct

__all__ = ["RateLimit", "read_rate_limit"]

_Field = Literal["limit", "remaining", "reset"]

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d{1,18}(?:\.\d{1,9})?(?:ms|s|m|h|d))+", re.ASCII)
_TERM = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)
_NUMBER = re.compile(r"\d{1,18}(?:\.\d{1,9})?", re.ASCII)

#: Larger numbers are no durations, but dates: seconds, or milliseconds, since 1970.
_EPOCH_S = 1_000_000_000
_EPOCH_MS = 1_000_000_000_000


class RateLimit(Struct, frozen=True, kw_only=True):
    """How much may still be asked of a provider, as it said when it answered.

    `None` stands for what the provider does not say. Where it counts several windows (a minute and
    a day, input and output tokens), the figures are those of the window with the least left.

    Attributes:
        limit_requests: How many requests the window has.
        remaining_requests: How many of them are left.
        reset_requests_s: How long until they are all there again, in seconds.
        limit_tokens: How many tokens the window has.
        remaining_tokens: How many of them are left.
        reset_tokens_s: How long until they are all there again, in seconds.
        raw: All of the provider's headers of this kind; the names are lower-case.
    """

    limit_requests: int | None = None
    remaining_requests: int | None = None
    reset_requests_s: float | None = None
    limit_tokens: int | None = None
    remaining_tokens: int | None = None
    reset_tokens_s: float | None = None
    raw: dict[str, str] = {}


class _Window:
    """One window of one kind: what its headers say."""

    def __init__(self) -> None:
        self.limit: int | None = None
        self.remaining: int | None = None
        self.reset_s: float | None = None


def read_rate_limit(headers: Mapping[str, str]) -> RateLimit | None:
    """Read the rate-limit headers of a response; `None` where there are none.

    The kind, the window and the figure are words of the header's name, in any order:
    `x-ratelimit-remaining-requests`, `anthropic-ratelimit-input-tokens-reset`,
    `x-ratelimit-limit-tokens-minute`, `x-ratelimit-remaining`. Dates are read against the
    response's own `Date`, so that nobody's clock has to be right.

    Args:
        headers: The response's headers; the names are lower-case.

    Source: https://platform.openai.com/docs/guides/rate-limits and
    https://docs.anthropic.com/en/api/rate-limits; the others' are variations of these.
    """
    raw = {name: value for name, value in headers.items() if "ratelimit" in name}
    windows: dict[str, dict[str, _Window]] = {"requests": {}, "tokens": {}}
    for name, value in raw.items():
        words = re.split("[-_]", name)
        figure = next((word for word in ("limit", "remaining", "reset") if word in words), None)
        if figure is None:
            continue
        kind = "tokens" if "tokens" in words else "requests"
        rest = " ".join(word for word in words if word not in (figure, kind))
        window = windows[kind].setdefault(rest, _Window())
        if figure == "limit":
            window.limit = _count(value)
        elif figure == "remaining":
            window.remaining = _count(value)
        else:
            window.reset_s = _reset_s(value, headers.get("date", ""))
    if not raw:
        return None
    calls, tokens = (_tightest(windows[kind]) for kind in ("requests", "tokens"))
    return RateLimit(
        limit_requests=calls.limit,
        remaining_requests=calls.remaining,
        reset_requests_s=calls.reset_s,
        limit_tokens=tokens.limit,
        remaining_tokens=tokens.remaining,
        reset_tokens_s=tokens.reset_s,
        raw=raw,
    )


def _tightest(windows: Mapping[str, _Window]) -> _Window:
    """Return the window with the least left; the first one where nobody says."""

    def left(window: _Window) -> float:
        return float("inf") if window.remaining is None else window.remaining

    return min(windows.values(), key=left, default=_Window())


def _count(value: str) -> int | None:
    return int(float(value)) if _NUMBER.fullmatch(value.strip()) else None


def _reset_s(value: str, date: str) -> float | None:
    """Read a duration (`6m0s`, `12ms`, `30`) or a date (RFC 3339, or since 1970)."""
    value = value.strip()
    if _DURATION.fullmatch(value):
        return sum(float(number) * _UNITS_S[unit] for number, unit in _TERM.findall(value))
    at: float | None = None
    if _NUMBER.fullmatch(value):
        at = float(value)
        if at < _EPOCH_S:
            return at
        at = at / 1000 if at >= _EPOCH_MS else at
    with suppress(ValueError, TypeError, OverflowError):
        now = parsedate_to_datetime(date).timestamp()
        if at is None:
            at = datetime.fromisoformat(value.replace("Z", "+00:00")).timestamp()
        return max(0.0, at - now)
    return None
