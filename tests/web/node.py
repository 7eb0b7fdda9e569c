"""Clients in JavaScript: npm's packages, installed once and kept outside the tree."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

_FOLDER = Path(__file__).parent / "npm"
_INSTALL_S = 240.0
_END_S = 20.0


class NotInstalled(Exception):
    """There is no Node.js, no npm, or the packages cannot be had."""


class Npm:
    """The packages of `npm/package.json`, and the scripts beside it.

    They are installed into the user's cache, in a folder that is named after what is wanted.

    Args:
        folder: Where the scripts run.

    Raises:
        NotInstalled: They cannot be.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for script in _FOLDER.glob("*.mjs"):
            shutil.copy(script, folder)
        (folder / "node_modules").symlink_to(_install())

    def run(self, script: str, **arguments: Any) -> Script:
        """Start a script."""
        return Script(self.folder, script, arguments)

    def bundle(self, source: str) -> str:
        """Return a browser's script, with all that it imports, of a module in JSX."""
        (self.folder / "bundled.jsx").write_text(source)
        words = ("--bundle", "--jsx=automatic", "--define:process.env.NODE_ENV='production'")
        esbuild = self.folder / "node_modules" / ".bin" / "esbuild"
        return subprocess.run(
            [esbuild, "bundled.jsx", "--log-level=warning", *words],
            cwd=self.folder,
            check=True,
            capture_output=True,
            text=True,
            timeout=_INSTALL_S,
        ).stdout


class Script:
    """A script that runs, and tells what it sees in lines of JSON.

    Args:
        folder: Where it is.
        name: Its name.
        arguments: What it is told.
    """

    def __init__(self, folder: Path, name: str, arguments: dict[str, Any]) -> None:
        self._errors = (folder / f"{name}.log").open("w+")
        self._process = subprocess.Popen(
            ["node", name, json.dumps(arguments)],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        assert self._process.stdout is not None
        self._lines = self._process.stdout

    def __enter__(self) -> Script:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._lines.close()
        self._errors.close()

    def until(self, kind: str) -> Any:
        """Wait for the next line of a kind, and return what it tells."""
        for line in self._lines:
            told = json.loads(line)
            if kind in told:
                return told[kind]
        raise AssertionError(f"it ended without {kind!r}: {self._end()}")

    def rest(self) -> list[dict[str, Any]]:
        """Wait for its end, and return what it has told since."""
        told = [json.loads(line) for line in self._lines]
        said = self._end()
        assert self._process.returncode == 0, said
        return told

    def _end(self) -> str:
        """Wait for its end, and return what it has complained about."""
        self._process.wait(_END_S)
        self._errors.seek(0)
        return self._errors.read()


def _install() -> Path:
    """Return the folder `node_modules`; install it where that was not done yet."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise NotInstalled("Node.js and npm are not installed (Debian: apt-get install nodejs npm)")
    wanted = (_FOLDER / "package.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llm-sse-tests"
    installed = cache / f"npm-{hashlib.sha256(wanted).hexdigest()[:16]}"
    if not installed.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as temporary:
            folder = Path(temporary) / "new"
            folder.mkdir()
            (folder / "package.json").write_bytes(wanted)
            flags = ("--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund")
            try:
                subprocess.run(
                    [npm, "install", *flags],
                    cwd=folder,
                    check=True,
                    capture_output=True,
                    text=True,
                    timeout=_INSTALL_S,
                )
            except subprocess.SubprocessError as error:
                said = " ".join(str(getattr(error, "stderr", None) or error).split())[:300]
                raise NotInstalled(f"npm cannot install the clients: {said}") from error
            try:
                folder.rename(installed)
            except OSError:  # another run was faster
                if not installed.exists():
                    raise
    return installed / "node_modules"
