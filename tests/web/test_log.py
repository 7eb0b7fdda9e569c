from __future__ import annotations

import logging

import pytest

from llm_sse import stream_sync
from llm_sse.errors import ConnectionLost, StreamError
from llm_sse.testing import FakeServer, cut, raw, say, status
from llm_sse.testing.actions import Action
from llm_sse.web.log import log_error

_log = logging.getLogger("tests.web.log")
_NO_RETRY = {"x-should-retry": "false"}
_WRITTEN = "a secret prompt\nWARNING a line of their own\x1b[2J\u202e"


def _logged(caplog: pytest.LogCaptureFixture, error: BaseException) -> dict[int, str]:
    """Log an error; return what was said, by its level."""
    with caplog.at_level(logging.DEBUG, _log.name):
        log_error(_log, error)
    assert not [one for one in caplog.records if not one.getMessage().isprintable()]
    return {one.levelno: one.getMessage() for one in caplog.records}


class TestLogError:
    @pytest.mark.parametrize(
        ("script", "expected"),
        [
            ([status(400, _WRITTEN)], "InvalidRequestError: openai, status 400, code "),
            ([status(503, _WRITTEN, headers=_NO_RETRY)], "ServerError: openai, status 503, code "),
            ([raw(f"data: {_WRITTEN}\n\n".encode())], "ProtocolError: openai"),
        ],
    )
    def test_what_a_provider_has_said_is_for_debugging(
        self,
        server: FakeServer,
        caplog: pytest.LogCaptureFixture,
        script: list[Action],
        expected: str,
    ) -> None:
        """A warning says which error it was; its words, which may quote a prompt, come at DEBUG."""
        server.script(*script)
        asked = stream_sync("Hi", base_url=server.base_url("openai"), api_key="any")
        with pytest.raises(StreamError) as caught:
            asked.text()
        said = _logged(caplog, caught.value)
        assert said[logging.WARNING].startswith(expected)
        assert "secret" not in said[logging.WARNING]
        assert "secret prompt" in said[logging.DEBUG]

    def test_words_of_our_own_are_told(
        self, server: FakeServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        """They quote nobody."""
        server.script(say("one"), cut())
        asked = stream_sync("Hi", base_url=server.base_url("openai"), api_key="any")
        with pytest.raises(ConnectionLost) as caught:
            asked.text()
        said = _logged(caplog, caught.value)
        assert said == {logging.WARNING: f"ConnectionLost: {caught.value}"}

    def test_a_line_stays_a_line(self, caplog: pytest.LogCaptureFixture) -> None:
        """What would move a terminal's cursor is an escape."""
        said = _logged(caplog, ConnectionLost("one\ntwo\x1b\u202e\u00e9"))
        assert said == {logging.WARNING: "ConnectionLost: one\\ntwo\\x1b\\u202e\u00e9"}
