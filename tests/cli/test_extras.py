"""What is said of a library that is missing."""

from __future__ import annotations

import sys

import pytest

from tests.cli.command import invoke, run_python

_NEEDS_EXTRA = 'llm-sse: the command needs the extra "cli": pip install "llm-sse[cli]"\n'


@pytest.mark.parametrize(("missing", "word"), [("click", "Hi"), ("rich", "providers")])
def test_without_the_extra_the_command_says_what_to_install(missing: str, word: str) -> None:
    """A missing `click` or `rich` is one line that names the extra, and exit code 2."""
    result = run_python(
        f"import runpy, sys; sys.modules[{missing!r}] = None; sys.argv = ['llm-sse', {word!r}]; "
        "runpy.run_module('llm_sse', run_name='__main__')"
    )
    assert (result.returncode, result.stdout) == (2, b"")
    assert result.stderr.decode() == _NEEDS_EXTRA


def test_without_rich_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table alone needs `rich`; the JSON of the same does not."""
    monkeypatch.setitem(sys.modules, "rich.console", None)
    result = invoke("providers")
    assert (result.exit_code, result.stderr) == (2, _NEEDS_EXTRA)
    assert invoke("providers", "--json").exit_code == 0


def test_the_library_needs_no_extra() -> None:
    """Only the command imports `click`, and `rich` when it prints; only its face a framework."""
    result = run_python(
        "import importlib, pkgutil, sys, llm_sse\n"
        "extras = [f'llm_sse.web.{name}' for name in ('flask', 'django', 'app', 'serve')]\n"
        "def import_all(package):\n"
        "    for info in pkgutil.iter_modules(package.__path__, package.__name__ + '.'):\n"
        "        if info.name not in ('llm_sse.cli', 'llm_sse.__main__', *extras):\n"
        "            module = importlib.import_module(info.name)\n"
        "            if info.ispkg:\n"
        "                import_all(module)\n"
        "import_all(llm_sse)\n"
        "assert 'llm_sse.web.formats' in sys.modules\n"
        "assert not {'click', 'rich', 'flask', 'django', 'waitress'} & set(sys.modules)\n"
        "import llm_sse.cli\n"
        "assert 'click' in sys.modules and 'rich' not in sys.modules\n"
    )
    assert result.stderr == b""
    assert result.returncode == 0
