"""`EventSource` in a real browser, on views that keep their streams."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import flask
import pytest

from benchmarks.web_processes import ServerProcess
from llm_sse.web.event_source import is_event_source
from llm_sse.web.replay import MemoryReplay
from tests.web.app_replay import make_app
from tests.web.browser import Chromium
from tests.web.live import WORDS, Provider, serving
from tests.web.proxy import Proxy
from tests.web.redis_server import RedisServer

Address = tuple[str, int]
_WORKER = ("-m", "tests.web.app_replay", "{fd}")
_STATUS = "return document.getElementById('status').textContent"


@pytest.fixture(autouse=True)
def _nothing_outlives_the_test() -> None:
    """The browser is for the whole session."""


class Site(ABC):
    """A site to which two tabs come, each through a proxy of its own.

    Attributes:
        proxies: The proxies.
        dropped: How often each tab has been dropped.
    """

    def __init__(self, stack: ExitStack, *targets: Address) -> None:
        self.proxies = [stack.enter_context(Proxy(target)) for target in targets]
        self.dropped = [0, 0]

    @abstractmethod
    def drop(self) -> None:
        """Drop the second tab, or both, in mid-answer."""


class OneProcess(Site):
    """Streams are kept in the memory of one process, and the network breaks."""

    def __init__(self, stack: ExitStack, provider: Provider) -> None:
        parts = urlsplit(stack.enter_context(serving(make_app(MemoryReplay(), provider.url))))
        address = (str(parts.hostname), parts.port or 0)
        super().__init__(stack, address, address)

    def drop(self) -> None:
        """Cut all connections."""
        self.dropped = [1, 1]
        for proxy in self.proxies:
            proxy.cut()


class Workers(Site):
    """Streams are kept in Redis, each tab has a worker of its own, and workers are killed."""

    def __init__(self, stack: ExitStack, provider: Provider, redis_port: int, log: Path) -> None:
        self._stack = stack
        self._log = stack.enter_context(log.open("wb"))
        self._arguments = (str(redis_port), provider.url)
        self.workers = [self._start(), self._start()]
        super().__init__(stack, *(worker.address for worker in self.workers))

    def drop(self) -> None:
        """Kill the second one, in whose place another one comes."""
        self.dropped = [0, 1]
        self.proxies[1].target = self._start().address
        self.workers[1].kill()

    def _start(self) -> ServerProcess:
        worker = ServerProcess((*_WORKER, *self._arguments), self._log)
        self._stack.callback(worker.kill)
        return worker


@pytest.fixture
def provider() -> Iterator[Provider]:
    """A provider that says a word whenever it is told to."""
    with Provider() as provider:
        yield provider
        provider.allow(WORDS)


@pytest.fixture
def workers(
    provider: Provider, redis: Any, redis_server: RedisServer, tmp_path: Path
) -> Iterator[Workers]:
    """A site of several workers."""
    with ExitStack() as stack:
        yield Workers(stack, provider, redis_server.port, tmp_path / "workers.log")


@pytest.fixture(params=["memory", "redis"])
def site(request: pytest.FixtureRequest, provider: Provider) -> Iterator[Site]:
    """A site that keeps its streams in each of the stores, in turn."""
    if request.param == "redis":
        yield request.getfixturevalue("workers")
        return
    with ExitStack() as stack:
        yield OneProcess(stack, provider)


class Tab:
    """A tab with the site's page."""

    def __init__(self, browser: Chromium, proxy: Proxy, *, second: bool = False) -> None:
        self._browser = browser
        self._id = browser.open_tab() if second else browser.tab
        browser.open(f"{proxy.url}/?name=question")

    def got(self, words: int, *, done: bool = False) -> bool:
        """Whether it has these many words, each once and in order, and perhaps the ending."""
        self._browser.show(self._id)
        expected = [f'{{"token":"w{number} "}}' for number in range(words)] + ["[DONE]"] * done
        got: list[str] = self._browser.run("return got")
        assert got == expected[: len(got)], got
        return len(got) == len(expected)

    def status(self) -> str:
        """Return what the page says."""
        self._browser.show(self._id)
        return str(self._browser.run(_STATUS))

    def picture(self, path: Path) -> None:
        """Write a picture of it."""
        self._browser.show(self._id)
        self._browser.screenshot(path)


@pytest.fixture
def browsing(browser: Chromium) -> Iterator[Chromium]:
    """A browser that has one tab, and nothing on it."""
    first = browser.tab
    yield browser
    browser.keep(first)
    browser.open("about:blank")


def _two_tabs(browsing: Chromium, site: Site, provider: Provider) -> tuple[Tab, Tab]:
    """Open a tab at each proxy, one after the other; both have three words then."""
    provider.allow(3)
    first = Tab(browsing, site.proxies[0])
    browsing.wait(lambda: first.got(3))
    second = Tab(browsing, site.proxies[1], second=True)
    browsing.wait(lambda: second.got(3))
    return first, second


class TestEventSource:
    def test_comes_back_by_itself_and_misses_nothing(
        self, browsing: Chromium, site: Site, provider: Provider, tmp_path: Path
    ) -> None:
        """Two tabs are dropped in mid-answer, and have every word once; then they ask no more."""
        first, second = _two_tabs(browsing, site, provider)
        site.drop()
        provider.allow(3)
        browsing.wait(lambda: first.got(6) and second.got(6))
        second.picture(tmp_path / "reconnected.png")
        provider.allow(WORDS)
        for tab in (first, second):
            browsing.wait(lambda tab=tab: tab.got(WORDS, done=True))
            browsing.wait(lambda tab=tab: tab.status() == "complete")  # it was told 204
        second.picture(tmp_path / "complete.png")
        for proxy, dropped in zip(site.proxies, site.dropped, strict=True):
            positions = [id_.rpartition("-")[2] for id_ in proxy.asked("/stream")]
            assert positions == ["", *["3"] * dropped, str(WORDS + 1)]
        assert len(provider.requests) == 1

    def test_is_told_that_the_worker_who_asked_is_dead(
        self, browsing: Chromium, workers: Workers, provider: Provider, tmp_path: Path
    ) -> None:
        """Both tabs, also that of another worker, end with an error after the words that came."""
        first, second = _two_tabs(browsing, workers, provider)
        workers.proxies[0].target = workers.workers[1].address
        workers.workers[0].kill()
        for tab in (first, second):
            browsing.wait(lambda tab=tab: tab.status() == "error: incomplete")
            assert tab.got(3)
        first.picture(tmp_path / "dead.png")
        assert len(provider.requests) == 1


_GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "web.md"
_GUIDE_PAGE = """<!doctype html>
<title>The guide's script</title>
<link rel="icon" href="data:,">
<p id="output"></p>
<p id="log"></p>
<script>
const prompt = "Why", output = document.getElementById("output");
console.log = (text) => document.getElementById("log").append(text);
%s
</script>
"""


def _guides_script() -> str:
    (script,) = re.findall(r"```js\n(.*?)```", _GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    return str(script)


class TestTheGuide:
    @pytest.mark.parametrize("kept", [True, False], ids=["replay", "no-replay"])
    def test_its_script_comes_back_and_is_not_asked_twice(
        self, browsing: Chromium, provider: Provider, kept: bool
    ) -> None:
        """A cut costs nothing where the stream is kept, and is told where it is not."""
        app = make_app(MemoryReplay() if kept else None, provider.url)
        app.add_url_rule("/guide", view_func=lambda: _GUIDE_PAGE % _guides_script())
        known: dict[str, bool] = {}

        @app.before_request
        def note() -> None:
            known[flask.request.path] = is_event_source(flask.request.headers.get)

        provider.allow(3)
        with serving(app) as url:
            parts = urlsplit(url)
            with Proxy((str(parts.hostname), parts.port or 0)) as proxy:
                browsing.open(f"{proxy.url}/guide")
                browsing.wait(lambda: browsing.text("output").split() == ["w0", "w1", "w2"])
                proxy.cut()
                provider.allow(WORDS)
                words = [f"w{number}" for number in range(WORDS if kept else 3)]
                if not kept:
                    browsing.wait(lambda: browsing.text("log") == "There is no (more) answer.")
                browsing.wait(lambda: browsing.text("output").split() == words)
                browsing.open("about:blank")
                assert [id_.rpartition("-")[2] for id_ in proxy.asked("/stream")] == ["", "3"]
        assert (known["/stream"], known["/guide"]) == (True, False)
        assert len(provider.requests) == 1
