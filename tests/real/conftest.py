"""A real server of somebody else's, in a process of its own."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def llamacpp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where llama.cpp's own server listens, with a model that always says the same."""
    reason = "there is no build of xllamacpp for this platform"
    pytest.importorskip("xllamacpp", reason=reason)
    from tests.real.model import write_model  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("llamacpp")
    write_model(folder / "tiny.gguf")
    log = folder / "log"
    program = Path(__file__).with_name("serve.py")
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [sys.executable, str(program), str(folder / "tiny.gguf")],
            stdin=subprocess.PIPE,  # its end, also by a crash of ours, is the server's end
            stdout=subprocess.PIPE,
            stderr=output,
        ) as server,
    ):
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            url = server.stdout.readline().decode().strip()
            assert url.startswith("http://127.0.0.1:"), log.read_text("utf-8", "replace")
            yield url
        finally:
            server.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(5)
            server.kill()
