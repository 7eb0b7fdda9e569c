"""200 event streams at once in one real browser."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import flask
import pytest

from benchmarks.web_processes import ServerProcess
from llm_sse.testing import Action, FakeServer, RecordedRequest, pause, say
from tests.web.browser import Chromium
from tests.web.live import serving
from tests.web.test_page import Served

# It takes a few seconds; what else this machine does may make it many.
_DEADLINE_S = 100.0
pytestmark = pytest.mark.timeout(150)

_STREAMS = 200
_TOKENS = 20
#: A browser opens six connections to one name at most, and any name below localhost is loopback.
_NAMES = [f"s{number}.localhost" for number in range(_STREAMS // 5)]
_APP = "tests.web.app_many:app"
_GUNICORN = ("-m", "gunicorn", "-b", "fd://{fd}", "-w", "1")
_GTHREAD = (*_GUNICORN, "-k", "gthread", "--threads", str(_STREAMS), _APP)
_GEVENT = (*_GUNICORN, "-k", "gevent", _APP)
_PAGE = """<!doctype html>
<title>Many</title>
<link rel="icon" href="data:,">
<script>
window.got = [];
window.ended = 0;
const read = (urls) => urls.forEach((url, number) => {
  const tokens = got[number] = [];
  const source = new EventSource(url);
  const end = (how) => {
    source.close();
    tokens.push(how);
    ended += 1;
  };
  source.onmessage = (event) => {
    if (event.data === "[DONE]") end("done");
    else tokens.push(JSON.parse(event.data).token);
  };
  source.onerror = (event) => end("failed: " + event.data);
});
</script>
"""


@pytest.fixture(autouse=True)
def _nothing_outlives_the_test() -> None:
    """The browser is for the whole session."""


@pytest.fixture
def page() -> Iterator[str]:
    """The origin of a page that reads event streams of other origins."""
    app = flask.Flask(__name__)
    app.add_url_rule("/", "page", lambda: _PAGE)
    with serving(app) as url:
        yield url


@contextmanager
def _serve(server: FakeServer, page: str, log: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """`llm-sse serve`, which is told whose page may ask, under which names."""
    site = Served(
        server,
        *("--max-streams", str(_STREAMS), "--max-streams-per-client", str(_STREAMS)),
        *("--allow-origin", page),
        *(word for name in _NAMES for word in ("--allow-host", name)),
    )
    yield urlsplit(site.url).port or 0, {}
    site.end()


@contextmanager
def _gunicorn(
    command: tuple[str, ...], server: FakeServer, log: Path
) -> Iterator[tuple[int, dict[str, str]]]:
    """A Flask app on gunicorn, one worker."""
    with log.open("wb") as out:
        process = ServerProcess(command, out)
        try:
            yield process.address[1], {"base_url": server.base_url("openai")}
        finally:
            process.end()
            process.join()


class TestMany:
    @pytest.mark.parametrize("how", ["serve", "gthread", "gevent"])
    def test_200_streams_at_once_have_every_token_in_order(
        self, browser: Chromium, server: FakeServer, page: str, tmp_path: Path, how: str
    ) -> None:
        """Each has its own answer, whole; no answer begins before all questions were asked."""
        together = threading.Barrier(_STREAMS)

        def answer(request: RecordedRequest) -> list[Action]:
            together.wait(_DEADLINE_S)
            prompt = request.json["messages"][-1]["content"]
            return [
                act
                for number in range(_TOKENS)
                for act in (say(f" {prompt}.{number}"), pause(0.02))
            ]

        server.script(answer)
        log = tmp_path / "log"
        site: Any = _serve(server, page, log)
        if how != "serve":
            site = _gunicorn(_GTHREAD if how == "gthread" else _GEVENT, server, log)
        with site as (port, query):
            browser.open(page)
            urls = [
                f"http://{_NAMES[number // 5]}:{port}/stream?"
                + urlencode({"prompt": f"q{number}", **query})
                for number in range(_STREAMS)
            ]
            browser.run("read(arguments[0])", urls)
            browser.wait(lambda: browser.run("return ended") == _STREAMS, _DEADLINE_S)
            got = browser.run("return got")
            browser.open("about:blank")
        for number, tokens in enumerate(got):
            assert tokens == [*(f" q{number}.{token}" for token in range(_TOKENS)), "done"]
