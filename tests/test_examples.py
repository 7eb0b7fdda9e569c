"""The programs of `examples/` run as they are, against the fake provider."""

from __future__ import annotations

import importlib.util
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_sse.testing import FakeServer, say

_EXAMPLES = Path(__file__).parent.parent / "examples"

Run = Callable[[str], str]


def _needs(*modules: str) -> pytest.MarkDecorator:
    missing = any(importlib.util.find_spec(name) is None for name in modules)
    return pytest.mark.skipif(missing, reason='the extra "examples" is not installed')


@pytest.fixture
def environment(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key and the address of the fake provider are in the environment."""
    server.script(say("one two three"))
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url("openai"))


@pytest.fixture
def run(environment: None, tmp_path: Path) -> Run:
    """Run code in a process of its own, beside the examples, and return what it prints.

    The frameworks' warnings, threads and settings of the whole process are not ours.
    """

    def run_code(code: str) -> str:
        result = subprocess.run(
            [sys.executable, "-c", code],
            cwd=_EXAMPLES,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join((str(_EXAMPLES), str(_EXAMPLES.parent))),
                "PYTHONDONTWRITEBYTECODE": "1",
                "HOME": str(tmp_path),
                "GRADIO_ANALYTICS_ENABLED": "False",
                "GRADIO_TEMP_DIR": str(tmp_path),
                "HF_HUB_OFFLINE": "1",
            },
            capture_output=True,
            text=True,
            timeout=55,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run_code


@pytest.mark.usefixtures("environment")
class TestFlaskApp:
    def test_streams(self) -> None:
        """Each token is an event."""
        app: Any = runpy.run_path(str(_EXAMPLES / "flask_app.py"))["app"]
        body = app.test_client().post("/stream", json={"prompt": "Hi"}).text
        assert 'data: {"token":" two"}' in body
        assert body.endswith("data: [DONE]\n\n")

    @pytest.mark.parametrize(
        "asked", [{}, [], {"prompt": 5}, {"prompt": ""}, {"prompt": "x" * 10_001}]
    )
    def test_refuses_what_is_no_question(self, asked: Any) -> None:
        """It is the visitor's mistake, and nobody is asked."""
        app: Any = runpy.run_path(str(_EXAMPLES / "flask_app.py"))["app"]
        assert app.test_client().post("/stream", json=asked).status_code == 400


class TestDjangoProject:
    def test_streams(self, run: Run) -> None:
        """Each token is an event; the other site's settings are its own."""
        said = run(
            "import django_project\n"
            "from django.test import Client\n"
            "client = Client(SERVER_NAME='localhost')\n"
            "answer = client.post('/stream', {'prompt': 'Hi'})\n"
            "print(b''.join(answer.streaming_content).decode())\n"
            "for asked in ({}, {'prompt': ''}, {'prompt': 'x' * 10_001}):\n"
            "    print(client.post('/stream', asked).status_code)\n"
        )
        assert 'data: {"token":" two"}' in said
        assert "data: [DONE]" in said
        assert said.split()[-3:] == ["400"] * 3


class TestNotebook:
    @_needs("nbclient", "nbformat", "ipykernel")
    def test_streams(self, run: Run) -> None:
        """Every cell runs; the tokens are in the first one's output."""
        said = run(
            "import nbclient, nbformat\n"
            "book = nbformat.read('notebook.ipynb', 4)\n"
            "nbformat.validate(book)\n"
            "nbclient.NotebookClient(book, timeout=40, kernel_name='python3').execute()\n"
            "cells = [cell for cell in book.cells if cell.cell_type == 'code']\n"
            "print([output.get('text') for output in cells[0].outputs])\n"
            "print(cells[1].outputs)\n"
        )
        assert "one two three" in said.replace("', '", "")
        assert "'stop'" in said

    def test_holds_no_output(self) -> None:
        """What somebody's run has left is not kept."""
        text = (_EXAMPLES / "notebook.ipynb").read_text("utf-8")
        assert text.count('"outputs": []') == text.count('"cell_type": "code"') > 0


class TestStreamlitPage:
    @_needs("streamlit")
    def test_streams(self, run: Run) -> None:
        """The question and its answer are on the page."""
        said = run(
            "from streamlit.testing.v1 import AppTest\n"
            "page = AppTest.from_file('streamlit_page.py', default_timeout=40).run()\n"
            "page.chat_input[0].set_value('Hi').run()\n"
            "assert not page.exception, page.exception\n"
            "print([one.value for one in page.text], [one.value for one in page.markdown])\n"
        )
        assert said == "['Hi'] ['one two three']\n"


class TestGradioApp:
    @_needs("gradio", "gradio_client")
    def test_streams(self, run: Run) -> None:
        """Its own client sees the answer grow."""
        said = run(
            "import gradio_app, gradio_client\n"
            "gradio_app.demo.launch(prevent_thread_lock=True, quiet=True)\n"
            "client = gradio_client.Client(gradio_app.demo.local_url, verbose=False)\n"
            "job = client.submit('Hi', api_name='/chat')\n"
            "job.result(40)\n"
            "print(job.outputs()[-1], len(job.outputs()) > 1)\n"
            "client.close()\n"
            "gradio_app.demo.close()\n"
        )
        assert "one two three True\n" in said


@pytest.mark.parametrize("path", sorted(_EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_python(path: Path) -> None:
    """Also where its framework is not installed."""
    compile(path.read_text("utf-8"), str(path), "exec")
