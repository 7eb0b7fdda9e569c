"""Every Python example of the README and the documentation runs, against the fake provider."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from llm_sse.providers import PROVIDERS
from llm_sse.testing import FakeServer, call_tool

_ROOT = Path(__file__).parent.parent
_PAGES = [_ROOT / "README.md", *sorted((_ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _examples() -> list[object]:
    return [
        pytest.param(page, match[1], id=f"{page.relative_to(_ROOT)}:{number}")
        for page in _PAGES
        for number, match in enumerate(_BLOCK.finditer(page.read_text("utf-8")))
    ]


@pytest.mark.parametrize(("page", "code"), _examples())
def test_an_example_runs_as_it_is_printed(
    page: Path, code: str, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An example needs nothing but a key and, here, an address in the environment."""
    _run(page, code, server, monkeypatch)


def test_who_is_slow_in_an_answer_without_text(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The example that tells whose fault it is also holds for an answer of tool calls only."""
    page = _ROOT / "docs" / "how-to" / "measure.md"
    server.script(call_tool("f"))
    (code,) = (c for c in _BLOCK.findall(page.read_text("utf-8")) if "producer_waited_s > 1" in c)
    _run(page, code, server, monkeypatch)
    assert "no text came" in capsys.readouterr().out


def _run(page: Path, code: str, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for row in PROVIDERS.values():
        monkeypatch.setenv(row.key_env[0], "any")
        monkeypatch.setenv(row.base_url_env, server.base_url(row.name))
        if not row.model:
            monkeypatch.setenv(row.model_env, "any")
    # Without this file's own `from __future__ import annotations`.
    compiled = compile(code, str(page), "exec", dont_inherit=True)
    exec(compiled, {"__name__": "__main__"})


def test_a_page_names_the_packages_that_it_imports() -> None:
    """Where an example needs more than an extra of ours brings, the page says what to install."""
    page = (_ROOT / "docs" / "how-to" / "measure.md").read_text("utf-8")
    assert "from opentelemetry.sdk" in page
    assert re.search(r"^pip install .*\bopentelemetry-sdk\b", page, re.MULTILINE)


def test_the_extra_of_the_plot_is_the_one_that_the_command_names() -> None:
    """The page on benchmarks does not send anybody to an extra that brings much more."""
    page = (_ROOT / "docs" / "how-to" / "benchmark.md").read_text("utf-8")
    named = re.search(r"`--plot`\s+\(extra\s+`(\w+)`\)", page)
    assert named is not None
    assert f",{named[1]}]" in (_ROOT / "llm_sse" / "cli" / "bench_plot.py").read_text("utf-8")


def test_the_readme_begins_with_the_command() -> None:
    """The first code block of the README is complete, and comes early."""
    lines = (_ROOT / "README.md").read_text("utf-8").splitlines()
    first = next(number for number, line in enumerate(lines, 1) if line.startswith("```"))
    assert first <= 12
    assert lines[first].startswith("python3 -m venv .venv && ")
    assert "llm-sse " in lines[first]


def test_the_table_of_providers_is_that_of_the_code() -> None:
    """The tables of the reference page hold what the rows say; `python docs/tables.py` does it."""
    page = (_ROOT / "docs" / "reference" / "providers.md").read_text("utf-8")
    written = runpy.run_path(str(_ROOT / "docs" / "tables.py"))["written"]
    assert written(page) == page, "the page is not up to date: run python docs/tables.py"


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(_ROOT)))
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    """A promise that names the test which keeps it is not left alone when the test moves."""
    for path, _, name in re.findall(r"`(tests/[\w/]+\.py)(::(\w+))?", page.read_text("utf-8")):
        assert (_ROOT / path).is_file(), path
        source = (_ROOT / path).read_text("utf-8")
        assert re.search(rf"^ *(class|def) {name}\b", source, re.MULTILINE) or not name, name
