"""The processes of a benchmark: its server, and one for each measurement of a contestant."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

from llm_sse import __version__

from .clients import Client
from .figures import Sample
from .plan import Measurement
from .server import order

__all__ = ["LIMIT_S", "Missing", "Server", "check_installed", "load", "measure", "own_version"]

_ROOT = Path(__file__).parents[1]
#: How long one measurement may take before its process is ended, in seconds.
LIMIT_S = 60.0
_SHOWN_CHARS = 300

#: Keep what is printed last: a library may print something itself.
_IMPORT = """
import time
cpu, wall = time.process_time_ns(), time.perf_counter_ns()
import {imports}
cpu, wall = time.process_time_ns() - cpu, time.perf_counter_ns() - wall
print('\\n{{"cpu_ms": %.3f, "wall_ms": %.3f, "right": true}}' % (cpu / 1e6, wall / 1e6))
"""
_FIRST_TOKEN = """
import sys, time
from benchmarks.clients.{module} import {connect} as connect
next(connect(sys.argv[1])(sys.argv[2]))
print('\\n{{"at_ns": %d, "cpu_ms": %.3f, "right": true}}'
      % (time.monotonic_ns(), time.process_time_ns() / 1e6), flush=True)
"""


class Missing(Exception):
    """A contestant's package is not installed."""


class Server:
    """The server, in a process of its own.

    Args:
        tls: Whether it speaks TLS as well; that needs `trustme`.

    Attributes:
        url: Where it is.
        tls_url: Where it speaks TLS, if it does.
        trusting: The environment of who trusts it there, and everybody else as usual: to read what
            is usual is part of the price.
    """

    def __init__(self, *, tls: bool = False) -> None:
        self._folder = tempfile.TemporaryDirectory()
        certificates: list[str] = []
        self.trusting: dict[str, str] = {}
        if tls:
            certificate, bundle = _certify(Path(self._folder.name))
            certificates.append(str(certificate))
            self.trusting = dict.fromkeys(("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"), str(bundle))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.server", *certificates],
            cwd=_ROOT,
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.url = f"http://127.0.0.1:{int(self._line())}"
        self.tls_url = f"https://127.0.0.1:{int(self._line())}" if tls else None

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()

    def cpu_s(self) -> float:
        """Return the processor time that it has used, in seconds."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def _certify(folder: Path) -> tuple[Path, Path]:
    """Write a certificate with its key, and a bundle of authorities that has its own among them."""
    import certifi  # noqa: PLC0415  # requests brings it
    import trustme  # noqa: PLC0415  # only who measures TLS needs it

    authority = trustme.CA()
    certificate, bundle = folder / "certificate.pem", folder / "bundle.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    bundle.write_bytes(Path(certifi.where()).read_bytes() + authority.cert_pem.bytes())
    return certificate, bundle


def check_installed(clients: Sequence[Client]) -> dict[str, str]:
    """Return the versions of what the contestants need.

    Raises:
        Missing: Something is not installed.
    """
    versions = {"llm-sse": own_version()}
    missing = []
    for client in clients:
        if client.distribution in versions:
            continue
        try:
            versions[client.distribution] = metadata.version(client.distribution)
        except metadata.PackageNotFoundError:
            missing.append(client.distribution)
    if missing:
        names = ", ".join(dict.fromkeys(missing))
        raise Missing(
            f"not installed: {names}. The extra has them: pip install -e '.[bench]'; or choose "
            "others with --clients"
        )
    return versions


def load() -> float | None:
    """Return how many threads ran or waited to, over the last minute; `None` where none is told."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def own_version() -> str:
    """Return llm-sse's version, with the commit where it is run from a repository.

    The commit has a `+` where files are not as it has them.
    """
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--exclude=*", "--abbrev=12", "--dirty=+"],
            cwd=_ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return __version__
    return f"{__version__} ({said.stdout.strip()})"


def measure(server: Server, measurement: Measurement, number: int) -> Sample:
    """Make one measurement in a process of its own."""
    client = measurement.client
    load_before = load()
    begun_cpu_s = server.cpu_s()
    begun_ns = time.monotonic_ns()
    try:
        figures, fault = _figures(
            _command(server.tls_url if measurement.tls else server.url, measurement),
            server.trusting if measurement.tls else {},
        )
    except subprocess.TimeoutExpired:
        figures, fault = {}, f"did not finish in {LIMIT_S:.0f} s"
    if "at_ns" in figures:
        figures["wall_ms"] = (figures.pop("at_ns") - begun_ns) / 1e6
    if figures:
        deltas = measurement.deltas
        if deltas:
            figures["server_us"] = (server.cpu_s() - begun_cpu_s) * 1e6 / deltas
        if figures.get("lost"):
            fault = f"{figures['lost']} deltas were lost"
        elif not figures["right"]:
            fault = "the text is not the one that was sent"
    return Sample(measurement.key, client.name, number, figures, fault, load_before)


def _command(url: str | None, measurement: Measurement) -> list[str]:
    client = measurement.client
    if measurement.task == "import":
        return ["-c", _IMPORT.format(imports=client.imports)]
    if measurement.task == "first token":
        code = _FIRST_TOKEN.format(module=client.module, connect=client.connect)
        return ["-c", code, str(url), order("drain", 1)]
    given = {"task": measurement.task, "client": client.name, "url": url, **measurement.arguments}
    return ["-m", "benchmarks.child", json.dumps(given)]


def _figures(command: Sequence[str], more: Mapping[str, str]) -> tuple[dict[str, Any], str | None]:
    """Run Python; return the JSON of its last line, or why there is none."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=_ROOT,
        env={**_environment(), **more},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().rpartition("\n")[2] or f"exit status {done.returncode}"
        return {}, said[:_SHOWN_CHARS]
    figures: dict[str, Any] = json.loads(done.stdout.strip().rpartition("\n")[2])
    return figures, None


def _environment() -> dict[str, str]:
    """Return the environment of every process: no proxy between, and compiled files kept."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name != "PYTHONDONTWRITEBYTECODE" and not name.lower().endswith("_proxy")
    }
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, (str(_ROOT), environment.get("PYTHONPATH")))
    )
    # It would fetch a list of prices first.
    environment["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    return environment
