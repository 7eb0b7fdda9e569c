"""What the response's headers say, on the stream, over real sockets."""

from __future__ import annotations

from llm_sse import RateLimit, TokenStream
from llm_sse.testing import FakeServer
from tests.sync.bodies import END, ONE, ask_openai
from tests.sync.conftest import Ask
from tests.wire import Connection, WireServer, stream

KEY = "sk-" + "5ecret" * 6


def _answered(headers: dict[str, str], api_key: str = "any") -> TokenStream:
    """Return a stream that was read to its end, from a server that sends these headers."""
    with WireServer(stream([ONE, END], headers=headers)) as server:
        answer = ask_openai(server.url, api_key=api_key)
        assert answer.text() == "one"
        return answer


class TestTokenStream:
    def test_tells_how_much_may_still_be_asked(self) -> None:
        """`rate_limit` has the provider's figures, as numbers."""
        told = {"X-RateLimit-Remaining-Requests": "59", "X-RateLimit-Reset-Tokens": "1m2s"}
        limit = _answered(told).rate_limit
        assert isinstance(limit, RateLimit)
        assert limit.remaining_requests == 59
        assert limit.reset_tokens_s == 62.0
        assert limit.raw == {name.lower(): value for name, value in told.items()}

    def test_there_is_no_limit_where_the_provider_tells_none(self) -> None:
        """A server that counts nothing has no rate limit."""
        assert _answered({}).rate_limit is None

    def test_has_all_other_headers_too(self) -> None:
        """Names are lower-case; the caller's copy is the caller's."""
        answer = _answered({"OpenAI-Processing-Ms": "17", "X-Request-Id": "req_1"})
        assert answer.response_headers["openai-processing-ms"] == "17"
        assert answer.request_id == answer.response_headers["x-request-id"] == "req_1"
        answer.response_headers.clear()
        assert answer.response_headers

    def test_knows_nothing_before_the_answer(self) -> None:
        """Until the provider has answered there are no headers."""
        with WireServer(Connection.wait_closed) as silent, ask_openai(silent.url) as answer:
            assert answer.rate_limit is None
            assert answer.response_headers == {}
            assert answer.request_id is None

    def test_never_repeats_the_key(self) -> None:
        """A server that prints the key into a header does not make us print it."""
        answer = _answered({"X-Echo": f"Bearer {KEY}"}, api_key=KEY)
        assert KEY not in repr(answer.response_headers)
        assert answer.response_headers["x-echo"] == "Bearer ***"

    def test_every_provider_has_them(self, server: FakeServer, ask: Ask) -> None:
        """The headers are there whichever format is spoken."""
        with ask() as answer:
            assert answer.wait_started(5)
            assert "content-type" in answer.response_headers
