"""`curl -N` on our views."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from typing import IO

import pytest

from llm_sse.errors import ConnectionLost, RateLimitError
from llm_sse.events import Event, Finish, StreamStart, TextDelta
from tests.helpers import until
from tests.web.live import answering, serving

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


class Answer:
    """An answer that says a word, and the rest when it is told to.

    Args:
        error: What breaks it off, instead of the rest.
        at_once: Whether it breaks off before it has said anything.
    """

    def __init__(self, error: Exception | None = None, *, at_once: bool = False) -> None:
        self.go_on = threading.Event()
        self.closed = threading.Event()
        self._error = error
        self._at_once = at_once

    def __call__(self) -> Iterator[Event]:
        """Begin it."""
        if self._error is not None and self._at_once:
            raise self._error
        yield StreamStart()
        yield TextDelta("one\n")
        try:
            while not self.go_on.wait(0.02):
                yield TextDelta("")  # where a stream of somebody else's learns of its end
        except GeneratorExit:
            self.closed.set()
            raise
        if self._error is not None:
            raise self._error
        yield TextDelta("two\n")
        yield Finish("stop")


class Curl:
    """`curl -N`, as it runs."""

    def __init__(self, url: str, *flags: str) -> None:
        self._process = subprocess.Popen(
            ["curl", "-q", "-sS", "-N", "--noproxy", "*", *flags, url],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert self._process.stdout is not None
        self.out: IO[bytes] = self._process.stdout

    def end(self) -> tuple[bytes, int]:
        """Wait for its end; return what it has written since, and its exit code."""
        with self.out:
            return self.out.read(), self._process.wait(20)

    def interrupt(self) -> None:
        """End it, as Ctrl-C does."""
        self._process.terminate()
        self.end()


class TestCurl:
    def test_shows_text_as_it_comes(self) -> None:
        """The first line is there before the answer has ended; the exit code is 0."""
        answer = Answer()
        with serving(answering(answer, "text")) as url:
            curl = Curl(f"{url}/stream")
            assert curl.out.readline() == b"one\n"
            answer.go_on.set()
            assert curl.end() == (b"two\n", 0)

    def test_shows_events_as_they_come(self) -> None:
        """Each is there before the next one is sent; the last line is the ending."""
        answer = Answer()
        with serving(answering(answer, "tokens")) as url:
            curl = Curl(f"{url}/stream")
            assert curl.out.readline() == b"id: 0\n"
            while b'"one' not in curl.out.readline():
                pass
            answer.go_on.set()
            said, code = curl.end()
        assert said.endswith(b"data: [DONE]\n\n")
        assert code == 0

    def test_text_that_breaks_off_is_an_exit_code(self) -> None:
        """18 is curl's word for a body that was cut, where it came in chunks; the text is there."""
        answer = Answer(ConnectionLost("a secret of the site's"))
        with serving(answering(answer, "text")) as url:
            curl = Curl(f"{url}/stream")
            assert curl.out.readline() == b"one\n"
            answer.go_on.set()
            said, code = curl.end()
        assert code == 18
        assert b"secret" not in said

    def test_events_that_break_off_end_with_an_error(self) -> None:
        """The body is whole; its last event says what has happened."""
        answer = Answer(ConnectionLost("a secret of the site's"))
        with serving(answering(answer, "tokens")) as url:
            curl = Curl(f"{url}/stream")
            answer.go_on.set()
            said, code = curl.end()
        *_, last, empty = said.split(b"\n\n")
        assert empty == b""
        assert b"event: error\n" in last
        assert b'"code":"incomplete"' in last
        assert b"secret" not in said
        assert code == 0

    def test_a_refusal_is_an_exit_code(self) -> None:
        """With `--fail-with-body` it is 22, and the problem is shown."""
        answer = Answer(RateLimitError("of the provider", status=429), at_once=True)
        with serving(answering(answer, "tokens")) as url:
            said, code = Curl(f"{url}/stream", "--fail-with-body").end()
        assert b'"status":429' in said
        assert code == 22

    def test_ctrl_c_ends_the_answer(self) -> None:
        """The stream is closed within a heartbeat."""
        answer = Answer()
        with serving(answering(answer, "tokens")) as url:
            curl = Curl(f"{url}/stream")
            while b'"one' not in curl.out.readline():
                pass
            curl.interrupt()
            until(answer.closed.is_set)
