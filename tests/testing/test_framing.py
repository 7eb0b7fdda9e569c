from __future__ import annotations

import http.client
import json
import zlib
from typing import get_args

import pytest

from llm_sse.errors import ConfigurationError
from llm_sse.testing import Action, FakeServer, Framing, cut, fail, finish, framing, ping, say
from llm_sse.testing import raw as raw_bytes
from llm_sse.testing.body import body
from tests.testing.conftest import BODIES, KEYS, PATHS, Client, http_chunks, mark_of_end

FRAMINGS = get_args(Framing)
LAST_CHUNK = b"\r\n0\r\n\r\n"


def _events(server: FakeServer) -> bytes:
    """What the script's answer is without any framing."""
    with Client(server) as client:
        client.until(LAST_CHUNK)
        return b"".join(http_chunks(client.body)[0])


def _without_its_number(body: bytes) -> bytes:
    return body.replace(b'"fake-2"', b'"fake-1"')


class TestFramings:
    def test_chunked(self, server: FakeServer) -> None:
        """Each event is one HTTP chunk."""
        server.script(framing("chunked"), say("one two"))
        with Client(server) as client:
            client.until(LAST_CHUNK)
        assert "Transfer-Encoding: chunked" in client.head
        chunks, left = http_chunks(client.body)
        assert left == b""
        assert [chunk.count(b"\n\n") for chunk in chunks] == [1, 1, 1, 2, 0]

    def test_bytes(self, server: FakeServer) -> None:
        """Every byte is an HTTP chunk of its own."""
        server.script(say("one two"))
        plain = _events(server)
        server.framing = "bytes"
        with Client(server) as client:
            client.until(LAST_CHUNK)
        chunks, left = http_chunks(client.body)
        assert left == b""
        assert {len(chunk) for chunk in chunks[:-1]} == {1}
        assert _without_its_number(b"".join(chunks)) == plain

    def test_dribble(self, server: FakeServer) -> None:
        """The whole body is one HTTP chunk."""
        server.script(say("one two"))
        plain = _events(server)
        server.framing = "dribble"
        with Client(server) as client:
            client.until(LAST_CHUNK)
        chunks, left = http_chunks(client.body)
        assert left == b""
        assert [_without_its_number(chunk) for chunk in chunks] == [plain, b""]

    def test_close(self, server: FakeServer) -> None:
        """Nothing tells the body's length; the connection's end is its end."""
        server.script(say("one two"))
        plain = _events(server)
        server.framing = "close"
        with Client(server) as client:
            client.rest()
        assert "Connection: close" in client.head
        assert "Transfer-Encoding" not in client.head
        assert "Content-Length" not in client.head
        assert _without_its_number(client.body) == plain

    def test_length(self, server: FakeServer) -> None:
        """The length is announced, and the connection lives on."""
        server.script(say("one two"), ping(0, times=3), finish(), raw_bytes(b": x\n\n"))
        plain = _events(server)
        server.framing = "length"
        with Client(server) as client:
            client.until(b": x\n\n")
            assert f"Content-Length: {len(plain)}\r\n" in client.head + "\r\n"
            assert _without_its_number(client.body) == plain
            client.ask()
            client.until(b'"fake-3"')

    def test_gzip(self, server: FakeServer) -> None:
        """Each chunk can be decompressed as it comes, whether compression was asked for or not."""
        server.script(say("one two"))
        plain = _events(server)
        server.framing = "gzip"
        with Client(server) as client:
            client.until(LAST_CHUNK)
        assert "accept-encoding" not in server.requests[1].headers
        assert "Content-Encoding: gzip" in client.head
        chunks, left = http_chunks(client.body)
        assert left == b""
        inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        events = [inflate.decompress(chunk) for chunk in chunks]
        assert inflate.eof
        assert [event.count(b"\n\n") for event in events] == [1, 1, 1, 2, 0, 0]
        assert _without_its_number(b"".join(events)) == plain

    @pytest.mark.parametrize("how", FRAMINGS)
    def test_another_client_reads_it(self, provider: str, how: Framing) -> None:
        """Python's own HTTP client finds the same body in every framing."""
        with FakeServer("one two", framing=how) as server:
            port = int(server.url.rpartition(":")[2])
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            headers = {"Content-Type": "application/json", **KEYS[provider]}
            connection.request("POST", PATHS[provider], json.dumps(BODIES[provider]), headers)
            with connection.getresponse() as response:
                got = response.read()
            connection.close()
            if how == "gzip":
                got = zlib.decompress(got, wbits=zlib.MAX_WBITS | 16)
            assert b'"one"' in got
            assert got.endswith(mark_of_end(provider))
            assert server.requests[0].outcome == "complete"
            assert server.requests[0].deltas_sent == 2

    def test_the_scripts_own_framing_wins(self) -> None:
        """framing() is for one answer, the server's argument for all others."""
        with FakeServer(framing="close") as server:
            server.enqueue(framing("length"), say("one"))
            with Client(server) as client:
                assert b"Content-Length" in client.until(b"\r\n\r\n")
                client.until(b"[DONE]")
                client.ask()
                assert b"Connection: close" in client.rest()

    def test_refuses_an_unknown_framing(self, server: FakeServer) -> None:
        """A framing that nobody knows is a mistake, whenever it is said."""
        with pytest.raises(ConfigurationError, match="framing must be one of"):
            FakeServer(framing="spdy")  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="framing must be one of"):
            server.framing = "spdy"  # type: ignore[assignment]


class TestAnnouncements:
    @pytest.mark.parametrize(
        "actions",
        [(say("one"), cut()), (say("one"), cut(inside=True)), (say("one"), fail())],
        ids=repr,
    )
    @pytest.mark.parametrize("how", ["length", "dribble"])
    def test_a_body_that_breaks_off_was_announced_to_be_longer(
        self, server: FakeServer, actions: tuple[Action, ...], how: Framing
    ) -> None:
        """Where the length comes first, a cut body is shorter than that."""
        server.script(framing(how), *actions)
        with Client(server) as client:
            client.rest()
        assert 0 < len(_content(client, how)) < _announced(client, how)

    @pytest.mark.parametrize("how", ["length", "dribble"])
    def test_a_cut_that_ends_the_body_is_as_long_as_announced(
        self, server: FakeServer, how: Framing
    ) -> None:
        """cut("end") is a proper body of HTTP's, whatever is missing in it."""
        server.script(framing(how), say("one"), cut("end", inside=True))
        with Client(server) as client:
            client.ask()  # the connection lives on
            client.until(b'"fake-2"')
        content = _content(client, how)
        assert b"[DONE]" not in content
        assert b'"one"' in content
        assert not content.endswith(b"\n\n")
        behind = client.body.partition(content)[2]
        assert behind.startswith((LAST_CHUNK if how == "dribble" else b"") + b"HTTP/1.1 200 OK")


class TestWrites:
    """What is handed to the socket at once; on the wire the system may put it together."""

    @pytest.mark.parametrize(
        ("how", "writes"),
        [
            ("chunked", [b"3\r\nabc\r\n", b"2\r\nde\r\n", b"0\r\n\r\n"]),
            ("bytes", [*(b"1\r\n%c\r\n" % c for c in b"abcde"), b"0\r\n\r\n"]),
            ("dribble", [b"5\r\n", b"a", b"b", b"c", b"d", b"e", b"\r\n0\r\n\r\n"]),
            ("close", [b"abc", b"de"]),
            ("length", [b"abc", b"de"]),
        ],
    )
    def test_an_event_is_one_write_or_a_byte_is(self, how: Framing, writes: list[bytes]) -> None:
        """Events are written whole, but for the framings that write byte by byte."""
        written: list[bytes] = []
        framed = body(how, written.append, 5)
        framed.write(b"abc")
        framed.write(b"")
        framed.write(b"de")
        framed.end()
        assert written == writes

    @pytest.mark.parametrize("how", FRAMINGS)
    def test_the_moment_is_that_before_the_last_byte(self, how: Framing) -> None:
        """What is called before the last byte is called when all others have been written."""
        written: list[bytes] = []
        seen: list[int] = []
        framed = body(how, written.append, 5)
        framed.write(b"abc", lambda: seen.append(len(written)))
        framed.write(b"", lambda: seen.append(-1))
        assert seen == [len(written) - 1]


def _announced(client: Client, how: Framing) -> int:
    if how == "dribble":
        return int(client.body.partition(b"\r\n")[0], 16)
    line = next(line for line in client.head.splitlines() if line.startswith("Content-Length"))
    return int(line.partition(":")[2])


def _content(client: Client, how: Framing) -> bytes:
    content = client.body.partition(b"\r\n")[2] if how == "dribble" else client.body
    return content[: _announced(client, how)]
