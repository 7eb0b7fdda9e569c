"""The page of `llm-sse serve`, in a real browser."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import flask
import pytest

from llm_sse.testing import (
    FakeServer,
    cut,
    drip_head,
    finish,
    pause,
    say,
    stall,
    status,
    think,
)
from tests.helpers import until
from tests.web.browser import Chromium, find_chromium
from tests.web.live import serving
from tests.web.proxy import Proxy

_TOKEN = "a-token-of-a-good-length"
_NO_RETRY = {"x-should-retry": "false"}

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="chromium and chromedriver are not installed"
)


class Served:
    """The command `llm-sse serve` in a process of its own, and the provider that it asks."""

    def __init__(self, provider: FakeServer, *args: str, port: str = "0") -> None:
        kept = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "llm_sse", "serve", "--port", port, *args],
            env={
                **kept,
                "OPENAI_API_KEY": "sk-secret-of-the-site",
                "OPENAI_BASE_URL": provider.base_url("openai"),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rstrip("/").rpartition(":")[2])

    def kill(self) -> None:
        """End it without a word."""
        self.process.kill()
        self.process.communicate(timeout=20)

    def end(self) -> str:
        """End it, and return what it has written."""
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=20)
        assert self.process.returncode == 0, err
        return out + err


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeServer]:
    """The provider behind the site."""
    with FakeServer() as fake:
        yield fake
        until(lambda: all(request.ended.is_set() for request in fake.requests))
    until(lambda: not [one for one in threading.enumerate() if one.name.startswith("llm-sse")])


@pytest.fixture(scope="module")
def served(provider: FakeServer) -> Iterator[Served]:
    """A site for all tests of this file."""
    site = Served(provider)
    yield site
    site.end()


@pytest.fixture(autouse=True)
def _nothing_outlives_the_test() -> None:
    """The browser and the provider are for the whole file; `provider` looks at its end."""


@pytest.fixture
def page(browser: Chromium, served: Served) -> Iterator[Chromium]:
    """The page, ready to be asked; nothing on it offends against the site's own policy."""
    browser.open("about:blank")
    browser.prefer("light")
    browser.open(served.url)
    browser.wait(lambda: browser.state() == "ready")
    browser.complaints()
    yield browser
    # What a test provokes: a question that is refused, or whose answer is cut.
    assert not [line for line in browser.complaints() if f"{served.url}stream" not in line]


def _ask(page: Chromium, prompt: str = "Explain SSE.") -> None:
    page.type("prompt", prompt)
    page.press("prompt", "Control", "Enter")


class TestPage:
    def test_tokens_appear_one_after_another(
        self, page: Chromium, provider: FakeServer, tmp_path: Path
    ) -> None:
        """Each delta is on the page before the next is sent; then the figures are there."""
        words = [f"word{number}" for number in range(12)]
        provider.script(think("Hm."), *(act for word in words for act in (say(word), pause(0.08))))
        page.run(
            "window.seen = [];"
            "new MutationObserver(() => seen.push(document.getElementById('answer').textContent))"
            ".observe(document.getElementById('answer'), {childList: true});"
        )
        _ask(page)
        page.wait(lambda: page.state() == "streaming")
        page.screenshot(tmp_path / "streaming.png")
        page.wait(lambda: page.state() == "done")
        seen = page.run("return seen.filter(text => text)")
        assert seen == ["".join(words[:count]) for count in range(1, len(words) + 1)]
        assert provider.requests[-1].json["messages"][-1]["content"] == "Explain SSE."
        assert page.text("ttft").endswith(" ms")
        assert 1 < float(page.text("rate")) < 25
        assert page.text("count") == str(len(words))
        assert int(page.text("tokens")) >= len(words)
        assert page.run("return document.querySelectorAll('#plot rect').length") == len(words)
        assert page.text("reasoning") == "Hm."
        page.screenshot(tmp_path / "done.png")

    def test_model_text_is_text(self, page: Chromium, provider: FakeServer) -> None:
        """HTML of the model's is shown, not obeyed."""
        evil = "<img src=x onerror=document.title='evil'><b>bold</b>"
        provider.script(say(evil))
        _ask(page)
        page.wait(lambda: page.state() == "done")
        assert page.text("answer") == evil
        assert page.run("return document.querySelectorAll('#answer *').length") == 0

    @pytest.mark.parametrize("how", ["button", "key"])
    def test_stop_ends_the_providers_connection(
        self, page: Chromium, provider: FakeServer, how: str
    ) -> None:
        """What had arrived stays; the site notices within a heartbeat."""
        provider.script(
            say("one two"), *[act for _ in range(2000) for act in (pause(0.01), say("x"))]
        )
        _ask(page)
        page.wait(lambda: "one two" in page.text("answer"))
        page.press("prompt", "Escape") if how == "key" else page.click("stop")
        page.wait(lambda: page.state() == "stopped")
        assert page.text("answer").startswith("one two")
        until(provider.requests[-1].ended.is_set)
        assert provider.requests[-1].outcome == "disconnected"
        assert page.text("status") == "Stopped"

    def test_an_error_is_shown_and_can_be_tried_again(
        self, page: Chromium, provider: FakeServer, tmp_path: Path
    ) -> None:
        """A refusal tells nothing of the provider's; the button asks once more."""
        provider.script(status(503, "secret trouble", headers=_NO_RETRY))
        _ask(page)
        page.wait(lambda: page.state() == "failed")
        assert page.text("what") == "The model cannot be reached at the moment."
        assert page.run("return document.getElementById('trouble').role") == "alert"
        page.screenshot(tmp_path / "error.png")
        assert not page.shows("again")  # the provider has said that it would be in vain
        provider.script(say("one"), cut())
        page.press("prompt", "Control", "Enter")
        page.wait(lambda: page.text("answer") == "one" and page.state() == "failed")
        assert page.text("what") == "The model's answer broke off."
        provider.script(say("whole"))
        page.click("again")
        page.wait(lambda: page.state() == "done")
        assert page.text("answer") == "whole"
        assert not page.shows("trouble")

    def test_dark_mode_follows_the_person_and_the_switch(
        self, page: Chromium, tmp_path: Path
    ) -> None:
        """The system's preference counts until the switch is used, which is remembered."""
        theme = "return document.documentElement.dataset.theme"
        assert page.run(theme) == "light"
        page.prefer("dark")
        page.wait(lambda: page.run(theme) == "dark")
        page.screenshot(tmp_path / "dark.png")
        page.click("theme")
        assert page.run(theme) == "light"
        page.run("location.reload()")
        page.wait(lambda: page.state() == "ready")
        assert page.run(theme) == "light"
        page.run("localStorage.clear()")

    def test_it_can_be_used_without_seeing_it(self, page: Chromium, provider: FakeServer) -> None:
        """Every control has a name, and whole sentences are spoken."""
        nameless = page.run(
            "return [...document.querySelectorAll('button, input, select, textarea')]"
            ".filter(one => !one.hidden && !one.textContent.trim() && !(one.labels ?? []).length)"
            ".map(one => one.id)"
        )
        assert nameless == []
        provider.script(say("One two. Three four."))
        _ask(page)
        page.wait(lambda: page.state() == "done")
        spoken = "return [...document.querySelectorAll('#spoken p')].map(one => one.textContent)"
        assert page.run(spoken) == ["One two.", "Three four."]
        assert page.run("return document.getElementById('spoken').ariaLive") == "polite"

    def test_the_focus_stays_where_it_was(self, page: Chromium, provider: FakeServer) -> None:
        """Whoever uses a keyboard goes on from the button that he pressed, or from Stop."""
        focus = "return document.activeElement.id"
        provider.script(status(503, headers=_NO_RETRY))
        page.type("prompt", "Hi")
        page.press("send", "Enter")
        page.wait(lambda: page.state() == "failed")
        assert page.run(focus) == "send"
        page.run("document.getElementById('again').hidden = false")
        provider.script(say("one"), stall())
        page.press("again", "Enter")
        page.wait(lambda: page.text("answer") == "one")
        assert page.run(focus) == "stop"
        page.press("stop", "Enter")
        page.wait(lambda: page.state() == "stopped")
        assert page.run(focus) == "stop"

    def test_the_end_is_followed_until_the_reader_looks_back(
        self, page: Chromium, provider: FakeServer
    ) -> None:
        """A long answer pushes neither the pace nor its own end out of sight."""
        provider.script(*(say(f"{number}.\n" * 30) for number in range(10)), stall())
        left = (
            "const {scrollHeight, scrollTop, clientHeight} = document.getElementById('answer');"
            "return scrollHeight - scrollTop - clientHeight"
        )
        top = "return document.getElementById('answer').scrollTop"
        _ask(page)
        page.wait(lambda: "9." in page.text("answer"))
        page.wait(lambda: page.run(top) > 100 and page.run(left) < 8)
        page.run("document.getElementById('answer').scrollTop = 10")
        page.wait(lambda: not page.run("return following"))
        page.run("followEnd()")
        assert page.run(top) == 10
        page.click("stop")
        page.wait(lambda: page.state() == "stopped")

    def test_what_was_spoken_is_not_there_twice(self, page: Chromium, provider: FakeServer) -> None:
        """A screen reader's user finds the answer once."""
        page.run("spokenMs = 50")
        provider.script(say("One two."))
        _ask(page)
        page.wait(lambda: page.state() == "done")
        page.wait(
            lambda: page.run("return document.getElementById('spoken').childElementCount") == 0
        )
        assert page.text("answer") == "One two."

    def test_a_question_that_is_too_long_is_said(
        self, page: Chromium, provider: FakeServer
    ) -> None:
        """Nothing of it is cut off in silence."""
        before = len(provider.requests)
        page.run("document.getElementById('prompt').value = '\U0001f600'.repeat(32001)")
        page.press("prompt", "Control", "Enter")
        page.wait(lambda: page.state() == "failed")
        assert page.text("what") == "The question is longer than 32000 characters."
        assert len(provider.requests) == before

    def test_a_length_limit_is_said(self, page: Chromium, provider: FakeServer) -> None:
        """An answer that ended early does not look whole."""
        provider.script(say("one"), finish("length"))
        _ask(page)
        page.wait(lambda: page.state() == "done")
        assert "greatest length" in page.text("what")

    def test_event_source_reads_the_view(self, page: Chromium, provider: FakeServer) -> None:
        """It gets every token and the ending; asked again, it is told that there is no more."""
        provider.script(say("one two three"))
        before = len(provider.requests)
        page.run(
            "window.got = []; window.over = false;"
            "const source = new EventSource('/stream?prompt=Hi');"
            "source.onmessage = (event) => got.push(event.data);"
            "source.onerror = () => { if (source.readyState === 2) over = true; };"
        )
        page.wait(lambda: page.run("return over"))
        assert page.run("return got") == [
            '{"token":"one"}',
            '{"token":" two"}',
            '{"token":" three"}',
            "[DONE]",
        ]
        assert len(provider.requests) == before + 1


_WORDS = [f"w{number} " for number in range(40)]
_WATCH = """
window.states = [];
new MutationObserver(() => states.push(
  document.body.dataset.state + ": " + document.getElementById("status").textContent
)).observe(document.body, {attributes: true, attributeFilter: ["data-state"]});
"""


@pytest.fixture
def network(served: Served) -> Iterator[Proxy]:
    """What is between the browser and the site."""
    with Proxy(("127.0.0.1", served.port)) as proxy:
        yield proxy


@pytest.fixture
def away(browser: Chromium, network: Proxy) -> Chromium:
    """The page, over a network that can be cut."""
    browser.open("about:blank")
    browser.open(f"{network.url}/")
    browser.wait(lambda: browser.state() == "ready")
    browser.run(_WATCH)
    return browser


class TestReconnect:
    def test_a_cut_connection_goes_on_where_it_was(
        self, away: Chromium, network: Proxy, provider: FakeServer, tmp_path: Path
    ) -> None:
        """Every token is on the page once, the provider is asked once, and the person is told."""
        provider.script(*(act for word in _WORDS for act in (say(word), pause(0.04))))
        before = len(provider.requests)
        _ask(away)
        for number in (5, 20):
            away.wait(lambda number=number: _WORDS[number] in away.text("answer"))
            network.cut()
            away.wait(lambda number=number: len(_lost(away)) > number // 20)
            if number == 5:
                away.screenshot(tmp_path / "reconnecting.png")
        away.wait(lambda: away.state() == "done")
        assert away.text("answer") == "".join(_WORDS)
        assert len(provider.requests) == before + 1
        assert away.run("return document.getElementById('status').role") == "status"
        assert not away.shows("trouble")
        away.screenshot(tmp_path / "resumed.png")

    def test_a_network_that_says_nothing_has_gone(
        self, away: Chromium, network: Proxy, provider: FakeServer
    ) -> None:
        """Without a heartbeat the page does not wait for ever for an end of the connection."""
        provider.script(say("one "), pause(1.5), say("two"))
        before = len(provider.requests)
        away.run("site.heartbeat_s = 0.1")
        _ask(away)
        away.wait(lambda: away.text("answer") == "one ")
        network.fall_silent()
        away.wait(lambda: _lost(away))
        away.wait(lambda: away.state() == "done")
        assert away.text("answer") == "one two"
        assert len(provider.requests) == before + 1

    def test_a_question_whose_answer_never_began_is_asked_once(
        self, away: Chromium, network: Proxy, provider: FakeServer
    ) -> None:
        """The connection breaks before the site has said anything: the page finds its answer.

        Here it may be the browser that posts the question again, without asking the page: its
        connection had been used before.
        """
        provider.script(drip_head(0.01), say("whole"))
        before = len(provider.requests)
        _ask(away)
        until(lambda: len(provider.requests) > before)
        network.cut()
        away.wait(lambda: away.state() == "done")
        assert away.text("answer") == "whole"
        assert len(provider.requests) == before + 1

    def test_a_network_that_is_gone_for_good_is_said(
        self, away: Chromium, network: Proxy, provider: FakeServer, tmp_path: Path
    ) -> None:
        """The page gives up when the site does; what has arrived stays, and can be asked again."""
        provider.script(say("one"), stall())
        away.run("site.grace_s = 0.5")
        _ask(away)
        away.wait(lambda: away.text("answer") == "one")
        network.close()
        away.wait(lambda: away.state() == "failed")
        assert away.text("what") == "The connection broke off, and the site cannot be reached."
        assert away.shows("again")
        assert away.text("answer") == "one"
        assert _lost(away)
        away.screenshot(tmp_path / "gone.png")

    def test_a_page_that_is_connected_again_says_so(
        self, away: Chromium, network: Proxy, provider: FakeServer
    ) -> None:
        """Also while the model says nothing; the button then stops it as ever."""
        provider.script(say("one"), stall())
        _ask(away)
        away.wait(lambda: away.text("answer") == "one")
        network.cut()
        away.wait(lambda: _lost(away) and away.state() == "streaming")
        assert away.text("status") == "Answering"
        away.click("stop")
        until(provider.requests[-1].ended.is_set)

    def test_stop_ends_the_provider_while_the_page_reconnects(
        self, away: Chromium, network: Proxy, provider: FakeServer
    ) -> None:
        """The site is told as soon as it is there, and not waited for."""
        provider.script(say("one"), stall())
        _ask(away)
        away.wait(lambda: away.text("answer") == "one")
        away.run("RECONNECT_MS.splice(0, 9, 60000)")
        network.cut()
        away.wait(lambda: _lost(away))
        away.click("stop")
        away.wait(lambda: away.state() == "stopped")
        until(provider.requests[-1].ended.is_set)

    def test_a_page_that_is_left_ends_the_provider(
        self, away: Chromium, provider: FakeServer
    ) -> None:
        """Who closes the tab does not come back."""
        provider.script(say("one"), stall())
        _ask(away)
        away.wait(lambda: away.text("answer") == "one")
        away.open("about:blank")
        until(provider.requests[-1].ended.is_set)

    def test_an_answer_that_a_restart_has_lost(
        self, browser: Chromium, provider: FakeServer, tmp_path: Path
    ) -> None:
        """A site that was killed knows nothing of it; the page says so, and asks nobody anew."""
        site = Served(provider)
        provider.script(say("one"), stall())
        browser.open(site.url)
        browser.wait(lambda: browser.state() == "ready")
        browser.run("site.grace_s = 60; RECONNECT_MS.splice(0, 9, 100);")
        _ask(browser)
        browser.wait(lambda: browser.text("answer") == "one")
        before = len(provider.requests)
        site.kill()
        browser.wait(lambda: browser.state() == "reconnecting")
        site = Served(provider, port=str(site.port))
        browser.wait(lambda: browser.state() == "failed")
        assert browser.text("what").startswith("The rest of the answer is lost")
        assert browser.text("answer") == "one"
        assert len(provider.requests) == before
        browser.screenshot(tmp_path / "lost.png")
        provider.script(say("whole"))
        browser.click("again")
        browser.wait(lambda: browser.state() == "done")
        assert browser.text("answer") == "whole"
        site.end()

    def test_event_source_goes_on_where_it_was(
        self, away: Chromium, network: Proxy, provider: FakeServer
    ) -> None:
        """The browser's own client, too: by the id of the last event, without a name."""
        provider.script(*(act for word in _WORDS for act in (say(word), pause(0.02))))
        before = len(provider.requests)
        away.run(
            "window.got = [];"
            "const source = new EventSource('/stream?prompt=Hi');"
            "source.onmessage = ({data}) => {"
            "  got.push(data);"
            "  if (data === '[DONE]') source.close();"
            "};"
        )
        away.wait(lambda: away.run("return got.length") > 5)
        network.cut()
        away.wait(lambda: away.run("return got.at(-1) === '[DONE]'"))
        *got, done = away.run("return got")
        assert "".join(json.loads(data)["token"] for data in got) == "".join(_WORDS)
        assert done == "[DONE]"
        assert len(provider.requests) == before + 1


def _lost(page: Chromium) -> list[str]:
    """Return what the page has said of connections that were lost."""
    said = page.run("return states")
    return [text for text in said if text == "reconnecting: Connection lost: reconnecting"]


class TestToken:
    def test_is_taken_from_the_fragment_or_the_form(
        self, browser: Chromium, provider: FakeServer, tmp_path: Path
    ) -> None:
        """It leaves the address at once, and no log has it; a wrong one is asked for again."""
        site = Served(provider, "--token", _TOKEN)
        provider.script(say("one"))
        try:
            browser.open(site.url)
            browser.wait(lambda: browser.shows("login"))
            browser.screenshot(tmp_path / "login.png")
            browser.type("token", "wrong")
            browser.press("token", "Enter")
            browser.wait(lambda: browser.shows("trouble"))
            assert not browser.shows("ask")
            browser.type("token", _TOKEN)
            browser.press("token", "Enter")
            browser.wait(lambda: browser.state() == "ready")
            browser.run("sessionStorage.clear()")
            browser.open("about:blank")
            browser.open(f"{site.url}#token={_TOKEN}")
            browser.wait(lambda: browser.state() == "ready")
            assert _TOKEN not in browser.url
            _ask(browser)
            browser.wait(lambda: browser.state() == "done")
            assert browser.text("answer") == "one"
        finally:
            written = site.end()
        assert _TOKEN not in written
        assert "secret" not in written


class TestOtherPages:
    def test_a_picture_in_another_page_asks_nothing(
        self, browser: Chromium, served: Served, provider: FakeServer
    ) -> None:
        """Under no name of this machine; nor does a script that hides where it is."""
        before = len(provider.requests)
        hosts = [f"{host}:{served.port}" for host in ("0.0.0.0", "127.0.0.1", "localhost")]
        other = flask.Flask(__name__)
        other.add_url_rule("/", "page", lambda: "a page of somebody else's")
        with serving(other) as url:
            browser.open(url.replace("127.0.0.1", "localhost"))
            browser.run(
                "window.ended = 0; const end = () => ended += 1;"
                "for (const host of arguments[0]) {"
                "  const url = `http://${host}/stream?prompt=evil`;"
                "  const picture = new Image();"
                "  picture.onload = picture.onerror = end;"
                "  picture.src = url;"
                "  const headers = {Accept: 'text/event-stream'};"
                "  fetch(url, {mode: 'no-cors', headers}).then(end, end);"
                "}",
                hosts,
            )
            browser.wait(lambda: browser.run("return ended") == 2 * len(hosts))
            browser.open("about:blank")
        browser.complaints()
        assert len(provider.requests) == before

    @pytest.mark.parametrize("address", ["/", "/script", "/stream?prompt=typed"])
    def test_an_address_in_the_address_bar_asks_nothing(
        self, browser: Chromium, served: Served, provider: FakeServer, address: str
    ) -> None:
        """One that redirects to a question, one whose page goes there, or the question itself."""
        before = len(provider.requests)
        evil = f"{served.url}stream?prompt=evil"
        other = flask.Flask(__name__)
        other.add_url_rule("/", "page", lambda: flask.redirect(evil))
        other.add_url_rule("/script", "script", lambda: f"<script>location = '{evil}'</script>")
        with serving(other) as url:
            typed = served.url.rstrip("/") if address.startswith("/stream") else url
            browser.open(typed.replace("127.0.0.1", "localhost") + address)
            browser.wait(lambda: "Forbidden" in browser.run("return document.body.textContent"))
            browser.open("about:blank")
        browser.complaints()
        assert len(provider.requests) == before


class TestEnd:
    def test_a_site_that_goes_down_ends_its_answers(
        self, browser: Chromium, provider: FakeServer
    ) -> None:
        """SIGTERM ends the stream with an error that the page shows; the page finds it again."""
        site = Served(provider)
        provider.script(say("one"), stall())
        browser.open(site.url)
        browser.wait(lambda: browser.state() == "ready")
        _ask(browser)
        browser.wait(lambda: browser.text("answer") == "one")
        site.end()
        browser.wait(lambda: browser.state() == "failed")
        assert browser.text("answer") == "one"
        until(provider.requests[-1].ended.is_set)
        provider.script(say("whole"))
        browser.click("again")
        browser.wait(lambda: browser.state() == "reconnecting")
        site = Served(provider, port=str(site.port))
        browser.wait(lambda: browser.state() == "done")
        assert browser.text("answer") == "whole"
        site.end()
