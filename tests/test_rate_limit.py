from __future__ import annotations

import pytest

from llm_sse.rate_limit import RateLimit, read_rate_limit

DATE = "Sun, 22 Nov 2026 10:00:00 GMT"


class TestReadRateLimit:
    def test_openai_counts_requests_and_tokens(self) -> None:
        """Counts are whole numbers; what is left until they are back is in seconds."""
        raw = {
            "x-ratelimit-limit-requests": "60",
            "x-ratelimit-limit-tokens": "150000",
            "x-ratelimit-remaining-requests": "59",
            "x-ratelimit-remaining-tokens": "149984",
            "x-ratelimit-reset-requests": "1s",
            "x-ratelimit-reset-tokens": "6m0.5s",
        }
        assert read_rate_limit({"content-type": "text/event-stream", **raw}) == RateLimit(
            limit_requests=60,
            remaining_requests=59,
            reset_requests_s=1.0,
            limit_tokens=150000,
            remaining_tokens=149984,
            reset_tokens_s=360.5,
            raw=raw,
        )

    def test_anthropics_dates_are_read_against_the_responses_own(self) -> None:
        """A reset that is a date becomes a duration without any clock of ours."""
        limit = read_rate_limit(
            {
                "date": DATE,
                "anthropic-ratelimit-requests-limit": "50",
                "anthropic-ratelimit-requests-remaining": "49",
                "anthropic-ratelimit-requests-reset": "2026-11-22T10:00:30Z",
            }
        )
        assert limit is not None
        assert (limit.limit_requests, limit.remaining_requests) == (50, 49)
        assert limit.reset_requests_s == 30.0
        assert limit.remaining_tokens is None

    def test_the_window_with_the_least_left_counts(self) -> None:
        """Of a minute and a day, of input and output, it is the one that will stop us first."""
        limit = read_rate_limit(
            {
                "x-ratelimit-limit-requests-day": "14400",
                "x-ratelimit-remaining-requests-day": "7",
                "x-ratelimit-limit-requests-minute": "30",
                "x-ratelimit-remaining-requests-minute": "29",
                "anthropic-ratelimit-input-tokens-remaining": "9000",
                "anthropic-ratelimit-output-tokens-remaining": "800",
                "anthropic-ratelimit-output-tokens-limit": "8000",
            }
        )
        assert limit is not None
        assert (limit.limit_requests, limit.remaining_requests) == (14400, 7)
        assert (limit.limit_tokens, limit.remaining_tokens) == (8000, 800)

    def test_without_a_kind_requests_are_meant(self) -> None:
        """Gateways that count one thing only count requests."""
        limit = read_rate_limit({"x-ratelimit-limit": "20", "x-ratelimit-remaining": "0"})
        assert limit is not None
        assert (limit.limit_requests, limit.remaining_requests) == (20, 0)

    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            ("12ms", 0.012),
            ("2m59.5s", 179.5),
            ("1h", 3600.0),
            ("1d2h", 93600.0),
            ("30", 30.0),
            ("0.25", 0.25),
            ("1795341660", 60.0),
            ("1795341660000", 60.0),
            ("2026-11-22T10:01:00Z", 60.0),
            ("2026-11-22T11:01:00+01:00", 60.0),
            ("2026-11-22T09:00:00Z", 0.0),
            ("soon", None),
            ("", None),
            ("1e400", None),
            ("9" * 400, None),
            ("9" * 400 + "s", None),
            ("१s", None),
        ],
    )
    def test_a_reset_is_a_duration_or_a_date(self, value: str, seconds: float | None) -> None:
        """Whatever way it is written, it is told in seconds; nonsense is told as nothing."""
        headers = {"date": DATE, "x-ratelimit-reset-tokens": value}
        limit = read_rate_limit(headers)
        assert limit is not None
        assert limit.reset_tokens_s == seconds
        assert limit.raw == {"x-ratelimit-reset-tokens": value}

    def test_a_date_without_a_date_to_compare_it_with_says_nothing(self) -> None:
        """Our own clock is not asked."""
        limit = read_rate_limit({"x-ratelimit-reset-requests": "2026-11-22T10:01:00Z"})
        assert limit is not None
        assert limit.reset_requests_s is None

    @pytest.mark.parametrize("value", ["many", "", "-1", "9" * 400])
    def test_a_count_that_is_none_is_told_as_nothing(self, value: str) -> None:
        """What the provider wrote stays in `raw`."""
        limit = read_rate_limit({"x-ratelimit-remaining-requests": value})
        assert limit is not None
        assert limit.remaining_requests is None
        assert limit.raw["x-ratelimit-remaining-requests"] == value

    def test_no_such_header_is_no_limit(self) -> None:
        """Most local servers count nothing."""
        assert read_rate_limit({"content-type": "text/event-stream"}) is None

    def test_a_figure_of_another_name_is_raw_only(self) -> None:
        """A policy header is kept, and makes no figures."""
        raw = {"x-ratelimit-policy": "60;w=60"}
        assert read_rate_limit(raw) == RateLimit(raw=raw)
