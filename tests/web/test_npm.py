"""Other people's clients, in JavaScript, on our views: npm's `openai` and `ai`."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flask
import pytest

from llm_sse import run_tools, stream_sync
from llm_sse.events import Citation, Event, Finish, StreamStart, TextDelta
from llm_sse.testing import FakeServer, call_tool, cut, finish, pause, say, status, think
from llm_sse.web.flask import sse_response
from tests.helpers import until
from tests.web.browser import Chromium
from tests.web.live import WORDS, Pausing, Provider, answering, serving
from tests.web.node import Npm
from tests.web.test_page import Served

# The first test that is run installs the packages.
pytestmark = [pytest.mark.sdk, pytest.mark.timeout(300)]

_WEB = Path(__file__).parent.parent.parent / "docs" / "how-to" / "web.md"
_MESSAGES = [{"role": "user", "content": "Hi"}]
_LOOK = {"name": "look", "parameters": {"type": "object", "properties": {"x": {}}}}
_ASK = {"model": "openai", "messages": _MESSAGES}


@pytest.fixture(params=["flask", "serve"])
def openai_client(request: pytest.FixtureRequest, server: FakeServer) -> Iterator[dict[str, Any]]:
    """The settings of a client for a view in the format `openai`, and for `llm-sse serve`."""
    if request.param == "serve":
        site = Served(server)
        yield {"baseURL": f"{site.url}v1"}
        site.end()
        return
    app = flask.Flask(__name__)

    @app.post("/chat/completions")
    def complete() -> flask.Response:
        messages = flask.request.get_json()["messages"]
        asked = stream_sync(messages=messages, base_url=server.base_url("openai"), api_key="any")
        return sse_response(asked, format="openai")

    with serving(app) as url:
        yield {"baseURL": url}


class TestOpenAI:
    def test_reads_text_and_calls(
        self, npm: Npm, server: FakeServer, openai_client: dict[str, Any]
    ) -> None:
        """Its own accumulator, which is strict, has the whole answer."""
        server.script(say("one two"), call_tool("look", {"x": 1}), finish("tool_calls"))
        asked = {**_ASK, "tools": [{"type": "function", "function": _LOOK}]}
        with npm.run("openai.mjs", client=openai_client, params=asked) as script:
            *chunks, end = script.rest()
        told = [chunk["chunk"]["choices"][0]["delta"].get("content") for chunk in chunks]
        assert [text for text in told if text] == ["one", " two"]
        (choice,) = end["completion"]["choices"]
        assert choice["finish_reason"] == "tool_calls"
        assert choice["message"]["content"] == "one two"
        (call,) = choice["message"]["tool_calls"]
        assert (call["type"], call["function"]["name"]) == ("function", "look")
        assert call["function"]["arguments"].replace(" ", "") == '{"x":1}'

    def test_reads_over_heartbeats(self, npm: Npm) -> None:
        """Those before the answer and those in it are no chunks; nothing is lost behind them."""
        with Provider() as provider:
            app = answering(
                lambda: stream_sync("Hi", base_url=provider.url, api_key="any"), "openai"
            )
            Pausing(app, provider)
            with (
                serving(app) as url,
                npm.run("openai.mjs", client={"baseURL": url}, params=_ASK) as script,
            ):
                end = script.until("completion")
        words = "".join(f"w{number} " for number in range(WORDS))
        assert end["choices"][0]["message"]["content"] == words

    def test_a_refusal_is_its_own_error(
        self, npm: Npm, server: FakeServer, openai_client: dict[str, Any]
    ) -> None:
        """429 is its `RateLimitError`, with the time to wait and nothing of the provider's."""
        server.script(status(429, "quota of key 7", headers={"Retry-After": "0.1"}))
        with npm.run("openai.mjs", client=openai_client, params=_ASK) as script:
            (told,) = script.rest()
        error = told["error"]
        assert (error["class"], error["status"]) == ("RateLimitError", 429)
        assert error["retryAfter"] == "1"
        assert "quota" not in error["message"]

    def test_an_answer_that_breaks_off_is_an_error(
        self, npm: Npm, server: FakeServer, openai_client: dict[str, Any]
    ) -> None:
        """After the text that has come, it raises what the last chunk says."""
        server.script(say("one"), cut())
        with npm.run("openai.mjs", client=openai_client, params=_ASK) as script:
            assert script.until("chunk")["choices"][0]["delta"]["role"] == "assistant"
            assert script.until("chunk")["choices"][0]["delta"]["content"] == "one"
            (told,) = script.rest()
        assert told["error"]["code"] == "incomplete"
        assert "The model's answer broke off." in told["error"]["message"]

    @pytest.mark.parametrize("openai_client", ["serve"], indirect=True)
    def test_is_told_the_usage_where_it_asks(
        self, npm: Npm, server: FakeServer, openai_client: dict[str, Any]
    ) -> None:
        """`llm-sse serve` tells it in the last chunk."""
        server.script(say("one"))
        asked = {**_ASK, "stream_options": {"include_usage": True}}
        with npm.run("openai.mjs", client=openai_client, params=asked) as script:
            end = script.until("completion")
        assert end["usage"]["completion_tokens"] > 0

    def test_has_each_chunk_before_the_next_is_sent(self, npm: Npm) -> None:
        """Nothing waits for the answer's end."""
        go_on = threading.Event()
        with (
            serving(_two_words(go_on, "openai")) as url,
            npm.run("openai.mjs", client={"baseURL": url}, params=_ASK) as script,
        ):
            while "one" not in script.until("chunk")["choices"][0]["delta"].get("content", ""):
                pass
            go_on.set()
            assert script.until("completion")["choices"][0]["message"]["content"] == "one two"


class TestUIMessages:
    def test_has_each_part_before_the_next_is_sent(self, npm: Npm) -> None:
        """Nothing waits for the answer's end."""
        go_on = threading.Event()
        with (
            serving(_two_words(go_on, "ui-message")) as url,
            npm.run("ui-message.mjs", api=f"{url}/chat/completions", text="Hi") as script,
        ):
            while script.until("part").get("delta") != "one":
                pass
            go_on.set()
            assert _parts(script.until("end"))[-1]["text"] == "one two"

    @pytest.mark.parametrize("ai", ["ai-5", "ai-6"])
    def test_reads_all_that_an_answer_has(self, npm: Npm, server: FakeServer, ai: str) -> None:
        """Text, reasoning, tools with their outputs and their failures, and sources.

        The oldest version that is promised does, too: its schemas refuse fields unknown to them.
        """
        rounds = iter(
            [
                [think("Hm."), call_tool("look", {"x": 1}), call_tool("fail", {})],
                [say("It is one.")],
            ]
        )
        server.script(lambda request: next(rounds))

        def look(x: int) -> str:
            """Look."""
            return f"seen {x}"

        def fail() -> str:
            """Fail."""
            raise ValueError("a secret of the site")

        def answer() -> Iterator[Event]:
            asked = run_tools(
                "Hi", tools=[look, fail], base_url=server.base_url("openai"), api_key="any"
            )
            for event in asked.events():
                if isinstance(event, TextDelta):
                    yield Citation("https://example.org/", "Example")
                yield event

        with (
            serving(answering(answer, "ui-message")) as url,
            npm.run("ui-message.mjs", api=f"{url}/chat/completions", text="Hi", ai=ai) as script,
        ):
            told = script.rest()
        message = told[-1]["end"]
        assert message["role"] == "assistant"
        reasoning, looked, failed, *rest = _parts(message)
        assert (reasoning["type"], reasoning["text"]) == ("reasoning", "Hm.")
        assert (looked["type"], looked["toolName"]) == ("dynamic-tool", "look")
        assert (looked["state"], looked["input"]) == ("output-available", {"x": 1})
        assert looked["output"] == "seen 1"
        assert (failed["state"], failed["errorText"]) == ("output-error", "the tool failed")
        assert {part["url"] for part in rest if part["type"] == "source-url"} == {
            "https://example.org/"
        }
        assert "".join(part["text"] for part in rest if part["type"] == "text") == "It is one."
        assert all(part["state"] == "done" for part in rest if part["type"] == "text")
        assert [one["part"] for one in told if "part" in one][-1] == {
            "type": "finish",
            "finishReason": "stop",
        }

    def test_an_answer_that_breaks_off_is_an_error(self, npm: Npm, server: FakeServer) -> None:
        """It raises what the error part says; the text that has come is there."""
        server.script(say("one"), cut())
        with (
            serving(answering(lambda: stream_sync("Hi", **_of(server)), "ui-message")) as url,
            npm.run("ui-message.mjs", api=f"{url}/chat/completions", text="Hi") as script,
        ):
            *told, end = script.rest()
        assert end["error"]["message"] == "The model's answer broke off."
        states = [one["message"] for one in told if "message" in one]
        assert _parts(states[-1])[-1]["text"] == "one"

    def test_a_refusal_is_an_error(self, npm: Npm, server: FakeServer) -> None:
        """A status before the first byte is raised with the problem as its message."""
        server.script(status(401, "quota of key 7"))
        with (
            serving(answering(lambda: stream_sync("Hi", **_of(server)), "ui-message")) as url,
            npm.run("ui-message.mjs", api=f"{url}/chat/completions", text="Hi") as script,
        ):
            (told,) = script.rest()
        assert '"code":"misconfigured"' in told["error"]["message"]


class TestUseChat:
    def test_chats_with_flask_as_the_docs_say(
        self,
        npm: Npm,
        server: FakeServer,
        browser: Chromium,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        """React shows each word, a tool's output and an error, and sends the whole conversation.

        Both halves are the blocks of the documentation, on one site.
        """
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url("openai"))
        section = _WEB.read_text().partition("### A chat with `useChat`")[2]
        python, jsx = (
            re.search(rf"```{name}\n(.*?)```", section, re.DOTALL)[1]  # type: ignore[index]
            for name in ("python", "jsx")
        )
        made: dict[str, Any] = {"__name__": "__main__"}
        exec(python, made)
        script = npm.bundle(jsx)
        page = '<div id="root"></div><script src="/chat.js" defer></script>'
        site = flask.Flask(__name__)
        site.add_url_rule("/api/chat", view_func=made["chat"], methods=["POST"])
        site.add_url_rule("/", "page", lambda: page)
        site.add_url_rule(
            "/chat.js", "script", lambda: flask.Response(script, mimetype="text/javascript")
        )

        def shown(selector: str) -> Any:
            return browser.run(
                "return [...document.querySelectorAll(arguments[0])].map(one => one.textContent)",
                selector,
            )

        def ask(text: str) -> None:
            browser.type("question", text)
            browser.press("question", "Enter")

        with serving(site) as url:
            browser.open(url)
            browser.wait(lambda: shown("form"))
            rounds = iter(
                [
                    [call_tool("weather", {"city": "Oslo"})],
                    [say("It rains.")],
                ]
            )
            server.script(lambda request: next(rounds))
            ask("Weather?")
            answer = "weather: rainIt rains."
            browser.wait(lambda: shown(".assistant") == [answer])
            browser.wait(lambda: shown("form[data-status=ready]"))
            browser.screenshot(tmp_path / "useChat.png")

            server.script(say("Yes"), cut())
            ask("Still?")
            browser.wait(lambda: shown("[role=alert]") == ["The model's answer broke off."])
            assert shown(".assistant") == [answer, "Yes"]
            sent = server.requests[-1].json["messages"]
            assert [turn["content"] for turn in sent] == ["Weather?", "It rains.", "Still?"]

            server.script(say("A"), *[act for _ in range(2000) for act in (pause(0.01), say("x"))])
            ask("Again?")
            browser.wait(lambda: shown(".assistant")[-1].startswith("A"))
            browser.click("stop")
            until(server.requests[-1].ended.is_set)
            assert server.requests[-1].outcome == "disconnected"
            browser.open("about:blank")


def _of(server: FakeServer) -> dict[str, Any]:
    return {"base_url": server.base_url("openai"), "api_key": "any"}


def _parts(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a message's parts, but for the marks between its steps."""
    return [part for part in message["parts"] if part["type"] != "step-start"]


def _two_words(go_on: threading.Event, format: str) -> flask.Flask:
    """Return a site that says its second word when it is told to."""

    def answer() -> Iterator[Event]:
        yield StreamStart()
        yield TextDelta("one")
        assert go_on.wait(20)
        yield TextDelta(" two")
        yield Finish("stop")

    return answering(answer, format)
