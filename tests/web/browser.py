"""A real browser, driven by the WebDriver protocol: Chromium without a window.

Source: WebDriver (W3C), sections 8 to 17.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

_DEADLINE_S = 20.0
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_KEYS = {"Enter": "\ue007", "Escape": "\ue00c", "Control": "\ue009"}
_SWITCHES = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--no-proxy-server", "--window-size=1100,1000"),
)


def find_chromium() -> tuple[str, str] | None:
    """Return the paths of Chromium and of its driver, where both are installed."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


class Chromium:
    """A browser; it has one tab at first.

    Args:
        browser: Where Chromium is.
        driver: Where its driver is.
        home: A folder for its profile and the driver's log.
    """

    def __init__(self, browser: str, driver: str, home: Path) -> None:
        self._http = requests.Session()
        self._http.trust_env = False
        self._log = (home / "driver.log").open("w+")
        self._process = subprocess.Popen(
            [driver, "--port=0"],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HOME": str(home)},
        )
        self._url = f"http://127.0.0.1:{self._find_port()}/session"
        options = {
            "binary": browser,
            "args": [*_SWITCHES, f"--user-data-dir={home / 'profile'}"],
        }
        caps = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        made = self._call("POST", "", {"capabilities": {"alwaysMatch": caps}})
        self._url += f"/{made['sessionId']}"

    def close(self) -> None:
        """End the browser and its driver."""
        try:
            self._call("DELETE", "")
        finally:
            self._process.terminate()
            self._process.wait(10)
            self._http.close()
            self._log.close()

    def open(self, url: str) -> None:
        """Go to a page."""
        self._call("POST", "/url", {"url": url})

    @property
    def tab(self) -> str:
        """The tab that is seen."""
        return str(self._call("GET", "/window"))

    def open_tab(self) -> str:
        """Open another tab, go there, and return it."""
        tab = str(self._call("POST", "/window/new", {"type": "tab"})["handle"])
        self.show(tab)
        return tab

    def show(self, tab: str) -> None:
        """Go to a tab."""
        self._call("POST", "/window", {"handle": tab})

    def keep(self, tab: str) -> None:
        """Close all tabs but one."""
        for other in self._call("GET", "/window/handles"):
            if other != tab:
                self.show(other)
                self._call("DELETE", "/window")
        self.show(tab)

    @property
    def url(self) -> str:
        """The page's address."""
        return str(self._call("GET", "/url"))

    def run(self, script: str, *arguments: object) -> Any:
        """Run a script's body in the page, and return what it returns."""
        return self._call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def text(self, id: str) -> str:
        """Return the text of an element."""
        return str(self.run("return document.getElementById(arguments[0]).textContent", id))

    def shows(self, id: str) -> bool:
        """Whether an element can be seen."""
        return bool(self.run("return document.getElementById(arguments[0]).checkVisibility()", id))

    def state(self) -> str | None:
        """Return what the page is at."""
        state: str | None = self.run("return document.body.dataset.state ?? null")
        return state

    def type(self, id: str, text: str) -> None:
        """Type into an element."""
        self._call("POST", f"{self._find(id)}/value", {"text": text})

    def press(self, id: str, *keys: str) -> None:
        """Press keys together in an element."""
        text = "".join(_KEYS[key] for key in keys)
        self._call("POST", f"{self._find(id)}/value", {"text": text})

    def click(self, id: str) -> None:
        """Click on an element, which has to be where a mouse reaches it."""
        self._call("POST", f"{self._find(id)}/click", {})

    def prefer(self, scheme: str) -> None:
        """Say whether the person prefers `dark` or `light`."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        command = {"cmd": "Emulation.setEmulatedMedia", "params": {"features": features}}
        self._call("POST", "/goog/cdp/execute", command)

    def screenshot(self, path: Path) -> None:
        """Write a picture of the whole page."""
        params = {"format": "png", "captureBeyondViewport": True}
        command = {"cmd": "Page.captureScreenshot", "params": params}
        path.write_bytes(base64.b64decode(self._call("POST", "/goog/cdp/execute", command)["data"]))

    def complaints(self) -> list[str]:
        """Return what the browser has complained about since the last call."""
        rows = self._call("POST", "/se/log", {"type": "browser"})
        return [row["message"] for row in rows]

    def wait(self, happened: Callable[[], Any], within_s: float = _DEADLINE_S) -> Any:
        """Wait until something is true, and return it; fail if it never is."""
        deadline = time.monotonic() + within_s
        while not (value := happened()):
            assert time.monotonic() < deadline, f"it never happened; the page is {self.state()}"
            time.sleep(0.02)
        return value

    def _find(self, id: str) -> str:
        found = self._call("POST", "/element", {"using": "css selector", "value": f"#{id}"})
        return f"/element/{found[_ELEMENT]}"

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        answer = self._http.request(method, self._url + path, json=body, timeout=60).json()
        value = answer["value"]
        assert not (isinstance(value, dict) and "error" in value), value
        return value

    def _find_port(self) -> int:
        deadline = time.monotonic() + _DEADLINE_S
        while True:
            written = Path(self._log.name).read_text("utf-8", "replace")
            _, found, rest = written.partition("started successfully on port ")
            if found and "." in rest:
                return int(rest.partition(".")[0])
            assert self._process.poll() is None, written
            assert time.monotonic() < deadline, written
            time.sleep(0.02)
