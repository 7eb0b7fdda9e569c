from __future__ import annotations

import subprocess
import sys

import pytest

import llm_sse
import llm_sse.providers
from llm_sse import stream_sync
from llm_sse.testing import FakeServer


def test_a_plain_loop_prints_the_answer(server: FakeServer, provider: str) -> None:
    """Tokens come out of a plain for loop, whichever provider answers."""
    text = "".join(
        stream_sync("Hi", provider=provider, base_url=server.base_url(provider), api_key="any")
    )
    assert text.startswith("Server-sent events")


def test_every_public_name_is_there() -> None:
    """What __all__ names can be imported, and has a docstring where it is ours to write one."""
    for name in llm_sse.__all__:
        assert getattr(llm_sse, name).__doc__ or name == "__version__"


def test_nothing_optional_is_imported() -> None:
    """The library needs its three dependencies and nothing of its extras."""
    code = (
        "import sys, llm_sse, llm_sse.testing\n"
        "optional = ['ijson', 'jsonschema', 'pydantic', 'docstring_parser']\n"
        "print(sorted({'click', 'rich', 'pytest', 'asyncio', *optional} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_importing_is_light() -> None:
    """What only some programs need is imported when it is asked for."""
    code = (
        "import sys, requests\n"
        "before = {*sys.modules}\n"
        "import llm_sse\n"
        "print(*sorted({*sys.modules} - before))\n"
        "llm_sse.run_tools, llm_sse.consume_stream, llm_sse.ToolLoop\n"
        "print({*llm_sse.__all__} <= {*dir(llm_sse)})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported, all_there = done.stdout.splitlines()
    ours = {name.removeprefix("llm_sse.") for name in imported.split()}
    late = {"structured", "typed", "json_schema", "tool_signature", "recording", "growing"}
    assert not ours & (late | {"sync.tools", "sync.consume", "sync.recorder"})
    formats = {f"providers.{name}" for name in ("openai", "anthropic", "gemini", "gateways")}
    assert not ours & formats
    assert not ours & {
        "docstring_parser",
        "ijson",
        "statistics",
        "email.mime",
        "importlib.metadata",
    }
    assert all_there == "True"


def test_a_name_that_is_not_there() -> None:
    """A name that the package does not have is an AttributeError, as everywhere."""
    for module in (llm_sse, llm_sse.providers):
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            module.nothing  # noqa: B018


def test_formats_are_listed_and_found() -> None:
    """A format's class is a name of the package, although it is imported when it is asked for."""
    names = {"Anthropic", "Gemini", "Ollama", "OpenAI", "Responses", "View"}
    assert names <= {*dir(llm_sse.providers)}
    for name in names:
        assert issubclass(getattr(llm_sse.providers, name), llm_sse.providers.Provider)
