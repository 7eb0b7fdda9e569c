"""Connections are used again, many streams at once lose nothing, and nothing stays behind."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llm_sse.sync.connection import shared_session
from llm_sse.testing import FakeServer, finish, say, stall
from tests.helpers import until
from tests.reliability.asking import ask
from tests.sync.bodies import END, ONE, ask_openai
from tests.wire import Connection, WireServer, head

THREADS = 100
LAST_CHUNK = b"0\r\n\r\n"
TEXT = "one two three four five six seven eight nine ten"


def descriptors() -> int:
    """Return how many files and sockets this process has open."""
    folder = next(path for path in map(Path, ("/proc/self/fd", "/dev/fd")) if path.is_dir())
    return len(list(folder.iterdir()))


class TestReuse:
    def test_twenty_streams_use_one_connection(self, server: FakeServer, provider: str) -> None:
        """Who asks again pays for no second handshake."""
        for _ in range(20):
            assert ask(server, provider).text()
        assert {recorded.connection for recorded in server.requests} == {1}

    def test_all_providers_share_the_pool(self, server: FakeServer) -> None:
        """Connections belong to a server, not to a format."""
        for provider in ("openai", "anthropic", "gemini") * 3:
            assert ask(server, provider).text()
        assert {recorded.connection for recorded in server.requests} == {1}

    def test_a_connection_that_was_not_read_to_its_end_is_not_reused(
        self, server: FakeServer
    ) -> None:
        """What is left of one answer never begins another."""
        server.enqueue(say("old " * 1000))
        server.script(say("new"))
        for _ in ask(server, buffer_size=1):
            break
        assert ask(server).text() == "new"
        assert [recorded.connection for recorded in server.requests] == [1, 2]

    def test_a_body_that_is_not_ended_costs_its_connection_only(self, server: FakeServer) -> None:
        """The next stream has a new one."""
        server.enqueue(say("one"), finish(), stall())
        server.script(say("two"))
        assert ask(server).text() == "one"
        assert ask(server).text() == "two"
        assert [recorded.connection for recorded in server.requests] == [1, 2]

    @pytest.mark.parametrize("together", [True, False], ids=["at once", "a moment later"])
    def test_what_follows_an_answers_end_costs_its_connection_only(self, together: bool) -> None:
        """Bytes that nobody asked for are no part of any answer.

        They are here before the next request is made: after it, nothing could tell them from its
        answer.
        """
        more = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
        said = threading.Semaphore(0)

        def says_more(connection: Connection) -> None:
            connection.send(head(framing="chunked"))
            connection.chunk(ONE + END)
            for data in [LAST_CHUNK + more] if together else [LAST_CHUNK, more]:
                connection.send(data)
            said.release()

        with WireServer(says_more) as server:
            for _ in range(3):
                assert ask_openai(server.url).text() == "one"
                assert said.acquire(timeout=30)
            assert server.connections == 3


class TestManyAtOnce:
    def test_a_hundred_threads_lose_nothing(
        self, provider: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A hundred streams are open at the same time; each is whole, and so is the next hundred.

        The pool has room for all of them: no connection is thrown away, and no warning says so.
        """
        caplog.set_level(logging.DEBUG)
        with FakeServer(TEXT) as server:
            for _ in range(2):
                everybody = threading.Barrier(THREADS, timeout=30)

                def read(everybody: threading.Barrier = everybody) -> str:
                    answer = ask(server, provider, buffer_size=2)
                    first = next(answer)
                    everybody.wait()  # now all of them are open
                    return first + "".join(answer)

                with ThreadPoolExecutor(THREADS) as pool:
                    texts = [done.result() for done in [pool.submit(read) for _ in range(THREADS)]]
                assert texts == [TEXT] * THREADS
            connections = {recorded.connection for recorded in server.requests}
            assert len(connections) == THREADS
        assert "pool is full" not in caplog.text
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]

    def test_threads_and_descriptors_come_back(self) -> None:
        """After a hundred streams at once there are as many of both as before."""
        with FakeServer() as warming_up:  # whatever the first stream opens for good
            assert ask(warming_up).text()
        shared_session().close()
        before = descriptors(), threading.active_count()
        with FakeServer(TEXT) as server, ThreadPoolExecutor(THREADS) as pool:
            texts = list(pool.map(lambda _: ask(server).text(), range(THREADS)))
        assert texts == [TEXT] * THREADS
        shared_session().close()
        until(lambda: (descriptors(), threading.active_count()) == before)
