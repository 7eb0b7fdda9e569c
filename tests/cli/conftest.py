"""The command, asking the fake server or started as a process."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import Result

from llm_sse.spread import Benchmark, ProviderRuns, RunError
from llm_sse.testing import FakeServer
from tests.cli.benchmarks import FAILED, answers
from tests.cli.command import KEY, command_line, invoke


@pytest.fixture
def ask(server: FakeServer) -> Callable[..., Result]:
    """Ask the fake server, as OpenAI, in this process."""

    def asked(*args: str, **more: Any) -> Result:
        env = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": server.base_url("openai")}
        return invoke(*args, **env, **more)

    return asked


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start the command in a process of its own; it does not outlive the test."""
    started: list[subprocess.Popen[bytes]] = []

    def started_with(*args: str | bytes, **options: Any) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        given: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": pipe, "stderr": pipe}
        process: subprocess.Popen[bytes] = subprocess.Popen(
            command_line(*args), **(given | options)
        )
        started.append(process)
        return process

    yield started_with
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def result() -> Benchmark:
    """A benchmark of one provider that was well, one that had an error, and one that was not."""
    times = (0.204, 0.21, 0.216, 0.1, 0.9)
    well = ProviderRuns.of("a", "a", "m", answers(*times), [])
    ill = ProviderRuns.of("b:$x$", "b", "$x$", answers(*times[:4]), [FAILED])
    errors = [RunError(iteration=n, error="ServerError", message="no") for n in range(1, 6)]
    return Benchmark(
        prompt="Hi", iterations=5, providers=(well, ill, ProviderRuns.of("c", "c", "", [], errors))
    )
