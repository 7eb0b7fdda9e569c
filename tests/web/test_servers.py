"""The same promises on every web server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPException

import pytest
from _pytest.mark.structures import ParameterSet

from benchmarks.web_nginx import nginx_binary
from benchmarks.web_processes import SERVERS, Address, Browser, Protocol
from benchmarks.web_sites import Sites, sites_up
from llm_sse.events import TextDelta
from llm_sse.providers import find_provider
from llm_sse.testing import FakeServer, cut, hang, say, stall, status
from tests.helpers import until
from tests.wire import Connection, WireServer, head

_NO_NGINX = pytest.mark.skipif(
    nginx_binary() is None, reason="nginx is not installed (Debian: apt-get install nginx)"
)
#: One of each kind; `benchmarks.web_servers` measures all of them.
_THROUGH_NGINX = {
    *("flask-waitress", "flask-gunicorn-gthread", "flask-uwsgi", "flask-uwsgi-socket"),
    "django-uvicorn",
}
#: Those whose bodies end with the connection: a text that breaks off looks whole.
_UNCHUNKED = {"flask-uwsgi", "flask-uwsgi-gevent", "flask-uwsgi-router", "flask-uwsgi-socket"}
_CHUNKED_FLASK = [name for name in SERVERS if name.startswith("flask-") and name not in _UNCHUNKED]


def _every_site() -> Iterator[ParameterSet]:
    """Each view of each server, and nginx before some of them."""
    for name, server in SERVERS.items():
        for view in server.views:
            if "HTTP/1.1" in server.protocols:
                yield pytest.param((name, view), id=f"{name}{view}")
            for protocol in server.protocols if name in _THROUGH_NGINX else ():
                parameter = name, view, protocol
                yield pytest.param(parameter, id=f"nginx-{protocol}-{name}{view}", marks=_NO_NGINX)


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    """Every server."""
    with sites_up(tmp_path_factory.mktemp("servers")) as up:
        yield up


@pytest.fixture(params=_every_site())
def site(request: pytest.FixtureRequest, sites: Sites) -> tuple[Address, str]:
    """The address of each server, or of nginx before it, and the path of each view, in turn."""
    return sites.find(*request.param)


def visit(site: tuple[Address, str], server: FakeServer, **query: object) -> Browser:
    """Ask a site, which asks the fake provider."""
    address, view = site
    return Browser(address, view, base_url=server.base_url("openai"), **query)


class TestEveryServer:
    def test_each_token_arrives_before_the_next_is_sent(self, site: tuple[Address, str]) -> None:
        """Neither middleware nor the server keeps a token back, the first one neither."""
        arrived, left = threading.Semaphore(0), threading.Event()
        encoder = find_provider("openai").encoder(model="any")

        def send(connection: Connection) -> None:
            connection.send(head(200, {"Content-Type": "text/event-stream"}, framing="chunked"))
            for token in ("one", " two", " three"):
                connection.chunk(encoder.encode(TextDelta(token)))
                assert arrived.acquire(timeout=20)
            connection.wait_closed()
            left.set()

        with WireServer(send) as provider:
            browser = Browser(site[0], site[1], base_url=provider.url)
            with closing(browser.response):
                for token in (b'"one"', b'" two"', b'" three"'):
                    browser.read_until(token)
                    arrived.release()
                browser.leave()
                assert left.wait(5)

    def test_a_browser_that_leaves_ends_the_question(
        self, site: tuple[Address, str], server: FakeServer
    ) -> None:
        """Also when the provider has not even answered; heartbeats arrive until then."""
        server.script(hang())
        browser = visit(site, server, status_wait_s=0)
        with closing(browser.response):
            browser.read_until(b"id: 0\n: connected\n" + b": heartbeat\n" * 2)
            until(lambda: server.requests)
            browser.leave()
            assert server.requests[0].ended.wait(5)
            assert server.requests[0].outcome == "disconnected"

    def test_head_ends_the_question(self, site: tuple[Address, str], server: FakeServer) -> None:
        """What the view has asked is closed unread, and nothing is asked a second time."""
        server.script(say("one"), stall())
        address, view = site
        browser = Browser(address, view, "HEAD", base_url=server.base_url("openai"))
        try:
            assert browser.response.status == 200
            assert browser.response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
            assert all(request.ended.wait(5) for request in server.requests)
            assert len(server.requests) <= 1  # it may be closed before it was sent
            assert browser.read() == b""
        finally:
            browser.leave()

    def test_a_browser_that_leaves_ends_no_other_question(
        self, site: tuple[Address, str], server: FakeServer
    ) -> None:
        """Three read at once; each that leaves ends its own question, while the others go on."""
        server.script(say("one"), stall())
        browsers = []
        for number in range(3):
            browsers.append(visit(site, server))
            browsers[-1].read_until(b'"one"')
            assert len(server.requests) == number + 1
        left = []
        for number in (1, 0, 2):
            left.append(number)
            browsers[number].leave()
            assert server.requests[number].ended.wait(5)
            ended = [request.ended.is_set() for request in server.requests]
            assert ended == [other in left for other in range(3)]

    def test_a_whole_answer_ends_once(self, site: tuple[Address, str], server: FakeServer) -> None:
        """All tokens come in order, numbered, and then one end; no compressor has taken them."""
        server.script(say(" ".join(map(str, range(200)))))
        browser = visit(site, server)
        events = browser.rest()
        browser.leave()
        assert [event.data for event in events[-2:]] == ['{"token":" 199"}', "[DONE]"]
        assert [event.id for event in events] == [str(number) for number in range(1, 202)]
        assert browser.response.headers["Content-Encoding"] == "identity"

    def test_a_refusal_is_a_status(self, site: tuple[Address, str], server: FakeServer) -> None:
        """What the provider refuses is answered with a status, not with a stream."""
        server.script(status(429, "slow down", headers={"Retry-After": "7"}))
        browser = visit(site, server)
        browser.rest()
        browser.leave()
        assert browser.response.status == 429
        assert browser.response.headers["Retry-After"] == "7"
        assert browser.response.headers["Content-Type"] == "application/problem+json"
        assert b"slow down" not in browser.raw


@pytest.mark.parametrize(
    ("name", "protocol"),
    [
        *((name, None) for name in _CHUNKED_FLASK),
        pytest.param("flask-gunicorn-gthread", "HTTP/1.1", marks=_NO_NGINX),
    ],
)
def test_a_text_that_breaks_off_breaks_the_body(
    sites: Sites, name: str, protocol: Protocol | None, server: FakeServer
) -> None:
    """Plain text has no word for an error: the body itself must not look whole."""
    server.script(say("one"), cut())
    site = sites.find(name, "/stream", protocol)
    browser = visit(site, server, format="text")
    with pytest.raises((HTTPException, ConnectionError)):
        while browser.read():
            pass
    browser.leave()
    assert browser.raw == b"one"


def test_an_event_loop_serves_200_browsers_at_once(sites: Sites, server: FakeServer) -> None:
    """No stream waits for a thread that another one has, and all of them end."""
    server.script(say("one"), stall())
    address, view = sites.find("django-uvicorn", "/async")
    browsers = [
        Browser(address, view, base_url=server.base_url("openai"), heartbeat_s=15)
        for _ in range(200)
    ]
    for browser in browsers:
        browser.read_until(b'{"token":"one"}')
    assert not any(request.ended.is_set() for request in server.requests)
    for browser in browsers:
        browser.leave()
    assert all(request.ended.wait(5) for request in server.requests)
