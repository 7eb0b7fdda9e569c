from __future__ import annotations

from typing import Any

import pytest
import requests

from llm_sse.errors import ConfigurationError
from llm_sse.testing import (
    FakeServer,
    call_tool,
    fail,
    finish,
    pause,
    raw,
    say,
    status,
    think,
)
from tests.testing.conftest import Post


class TestScript:
    def test_refuses_what_is_no_action(self, server: FakeServer) -> None:
        """A script is made of actions."""
        with pytest.raises(ConfigurationError, match="say"):
            server.script("hello")  # type: ignore[arg-type]

    def test_a_status_stands_alone(self, server: FakeServer) -> None:
        """An answer cannot have begun when its status comes."""
        with pytest.raises(ConfigurationError, match="alone"):
            server.script(say("one"), status(500))

    def test_a_pause_is_a_time(self) -> None:
        """A pause has a length."""
        for no_time in (-1, float("inf"), "x"):
            with pytest.raises(ConfigurationError, match="pause"):
                pause(no_time)  # type: ignore[arg-type]

    @pytest.mark.parametrize("code", [200, 204, 99, 1000, "500"])
    def test_a_status_is_one_of_a_refusal(self, code: Any) -> None:
        """What is no refusal has no error body."""
        with pytest.raises(ConfigurationError, match="300 to 599"):
            status(code)

    def test_says_only_text(self) -> None:
        """What is said is a str."""
        for speak in (say, think):
            with pytest.raises(ConfigurationError, match="not int"):
                speak(5)  # type: ignore[arg-type]

    def test_nothing_raw_is_nothing(self, post: Post, server: FakeServer) -> None:
        """Empty bytes do not end the body."""
        server.script(say("one"), raw(b""), say("two"))
        assert "two" in post().text

    def test_a_script_without_an_end_of_its_own_is_ended(
        self, post: Post, server: FakeServer
    ) -> None:
        """Every kind of action can be played, and the body has its proper end."""
        server.script(
            think("Hm. "), say("Hello. "), call_tool("f"), call_tool("g", "{", id="g1"), pause(0)
        )
        assert post().status_code == 200
        server.script(finish("content_filter"))
        assert post().status_code == 200
        server.script(say("x"), fail())
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            post()
