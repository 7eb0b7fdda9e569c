"""The package's laws, read from its source: who may know whom, and who may do what."""

from __future__ import annotations

import ast
import dataclasses
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import llm_sse
from llm_sse.providers import PROVIDERS

ROOT = "llm_sse"
DIRECTORY = Path(llm_sse.__file__).parent

#: What only the outer ring may touch: the network, threads, clocks, chance, the system.
WORLD = frozenset(
    {
        *("requests", "urllib3", "socket", "ssl", "http", "threading", "queue", "concurrent"),
        *("time", "asyncio", "select", "selectors", "random", "os", "subprocess", "signal"),
        *("multiprocessing", "importlib"),
    }
)
OUTER_OF_SYNC = ("web", "testing", "cli", "otel", "__main__")
OUTER = ("sync", *OUTER_OF_SYNC)

#: What of it the still core may touch, and what for.
WORLD_EXCEPTIONS = {
    "llm_sse.providers.registry": {
        "threading": "a lock: rows may come from any thread",
        "importlib": "entry points of other distributions, and formats when they are needed",
    },
    "llm_sse": {"importlib": "what few programs need"},
    "llm_sse.providers": {"importlib": "formats when they are needed"},
    "llm_sse.typed": {"threading": "a lock: msgspec crashes where threads prepare types at once"},
}

#: What of the web faces is still, like the core.
STILL_OF_WEB = frozenset(
    {
        "llm_sse.web.chat_completions",
        "llm_sse.web.formats",
        "llm_sse.web.guard",
        "llm_sse.web.problem",
        "llm_sse.web.questions",
        "llm_sse.web.ui_message",
    }
)

#: The only importers of each web framework.
FRAMEWORKS = {
    "flask": {"llm_sse.web.flask", "llm_sse.web.app"},
    "werkzeug": {"llm_sse.web.flask", "llm_sse.web.app"},
    "waitress": {"llm_sse.web.serve"},
    "django": {"llm_sse.web.django"},
    "asgiref": {"llm_sse.web.django"},
    "redis": {"llm_sse.web.redis"},
    "opentelemetry": {"llm_sse.otel"},
    "matplotlib": {"llm_sse.cli.bench_plot"},
}

#: The only modules that know requests and urllib3; each knows only those before it.
HTTP = ("llm_sse.sync.connection", "llm_sse.sync.transport_errors", "llm_sse.sync.transport")

#: Who may import requests at run time, beside these, and what for. Elsewhere in `sync` it may stand
#: under `if TYPE_CHECKING:`.
REQUESTS_EXCEPTIONS = {
    "llm_sse.sync.ask": "isinstance(session, requests.Session)",
    "llm_sse.cli.targets": "a caller like any other, that passes a session of its own for the fake",
}

#: What the formats share, in `llm_sse.providers`; each of these knows only those before it.
SHARED = ("lenient", "refusals", "call_ids", "calls", "whole", "base", "registry")
#: Who makes rows of the formats.
TABLES = frozenset({"gateways"})


@dataclasses.dataclass(frozen=True)
class Import:
    """One name that a module imports.

    Attributes:
        target: The module, in full; a name that is no module of ours is left off.
        line: Where.
        of_root: Whether it takes names from the package root, or the root itself.
        typing_only: Whether it stands under `if TYPE_CHECKING:`.
    """

    target: str
    line: int
    of_root: bool
    typing_only: bool

    @property
    def top(self) -> str:
        """The first part of the name."""
        return self.target.partition(".")[0]


@dataclasses.dataclass(frozen=True)
class Module:
    """One source file of the package."""

    name: str
    source: str
    is_package: bool = False

    @functools.cached_property
    def tree(self) -> ast.Module:
        """The parsed source."""
        return ast.parse(self.source)

    @property
    def part(self) -> str:
        """The part of the package it belongs to: `sync`, `providers`, `sse`; empty for the root."""
        return self.name.removeprefix(ROOT).lstrip(".").partition(".")[0]

    @property
    def is_core(self) -> bool:
        """Whether it is still: neither the outer ring nor the root that binds all together."""
        return self.part not in OUTER and self.part != ""

    @functools.cached_property
    def imports(self) -> list[Import]:
        """Everything it imports, wherever in the file."""
        typing_only = {
            id(inner)
            for node in ast.walk(self.tree)
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            for statement in node.body
            for inner in ast.walk(statement)
        }
        found = []
        for node in ast.walk(self.tree):
            quiet = id(node) in typing_only
            if isinstance(node, ast.Import):
                for alias in node.names:
                    of_root = alias.name == ROOT
                    found.append(Import(alias.name, node.lineno, of_root, quiet))
            elif isinstance(node, ast.ImportFrom):
                base = self._absolute(node)
                for alias in node.names:
                    full = f"{base}.{alias.name}"
                    target = full if full in MODULES else base
                    found.append(Import(target, node.lineno, base == ROOT, quiet))
        return found

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.name.split(".")
        parts = parts[: len(parts) - node.level + self.is_package]
        return ".".join([*parts, *([node.module] if node.module else [])])


def _read() -> dict[str, Module]:
    modules = {}
    for path in sorted(DIRECTORY.rglob("*.py")):
        parts = [ROOT, *path.relative_to(DIRECTORY).with_suffix("").parts]
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        modules[name] = Module(name, path.read_text("utf-8"), is_package)
    return modules


MODULES = _read()


def imports_the_world(module: Module) -> Iterator[str]:
    """Find imports of sockets, threads and clocks outside the outer ring."""
    if module.part in OUTER and module.name not in STILL_OF_WEB:
        return
    allowed = WORLD_EXCEPTIONS.get(module.name, {})
    for found in module.imports:
        if found.top in WORLD and found.top not in allowed:
            yield f"{module.name}:{found.line} imports {found.target}"


def imports_a_library_of_others(module: Module) -> Iterator[str]:
    """Find requests and urllib3 outside `HTTP`, any other library outside its own file."""
    for found in module.imports:
        where = f"{module.name}:{found.line} imports {found.target}"
        if module.name not in FRAMEWORKS.get(found.top, {module.name}):
            yield where
        if found.top in ("click", "rich") and module.part != "cli":
            yield where
        if found.top == "urllib3" and module.name not in HTTP:
            yield where
        if (
            found.top == "requests"
            and module.name not in HTTP
            and module.name not in REQUESTS_EXCEPTIONS
            and not (found.typing_only and module.part == "sync")
        ):
            yield where


def uses_more_than_the_session(module: Module) -> Iterator[str]:
    """Find anything that is done with requests elsewhere but to name its Session."""
    if module.name in HTTP:
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "requests":
            if node.attr != "Session":
                yield f"{module.name}:{node.lineno} uses requests.{node.attr}"
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "requests.Session":
            if module.part != "cli":
                yield f"{module.name}:{node.lineno} makes a requests.Session"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("requests"):
            yield f"{module.name}:{node.lineno} imports from requests"


def imports_a_later_http_module(module: Module) -> Iterator[str]:
    """Find connections that know what is sent over them."""
    if module.name not in HTTP:
        return
    later = HTTP[HTTP.index(module.name) :]
    for found in module.imports:
        if found.target in later:
            yield f"{module.name}:{found.line} imports {found.target}"


def imports_upwards(module: Module) -> Iterator[str]:
    """Find imports against the direction of knowledge: core <- sync <- everything else."""
    refuse = {"llm_sse.errors"}
    leaves = {"errors": set(), "events": set(), "media": refuse}
    leaves["tools"] = {"llm_sse.tool_signature"}
    leaves["response_format"] = {"llm_sse.structured"}
    leaves["chat"] = refuse | {"llm_sse.tools", "llm_sse.response_format"}
    for found in module.imports:
        if found.top != ROOT:
            continue
        where = f"{module.name}:{found.line} imports {found.target}"
        target = Module(found.target, "").part
        forbidden = OUTER if module.is_core else OUTER_OF_SYNC if module.part == "sync" else ()
        if target in forbidden or found.target not in leaves.get(module.part, {found.target}):
            yield where


def imports_a_sibling(module: Module) -> Iterator[str]:
    """Find formats that know each other: each knows what all share, and its own parts."""
    name = module.name.rpartition(".")[2]
    if module.part != "providers" or module.is_package or name in TABLES:
        return
    allowed = {f"llm_sse.providers.{shared}" for shared in SHARED[: _place(name)]}
    for found in module.imports:
        foreign = not found.target.startswith(f"{module.name}_")
        if found.target.startswith("llm_sse.providers") and foreign and found.target not in allowed:
            yield f"{module.name}:{found.line} imports {found.target}"


def _place(name: str) -> int | None:
    return SHARED.index(name) if name in SHARED else None


def compares_a_provider(module: Module) -> Iterator[str]:
    """Find decisions by a provider's name; what differs between providers is in their rows."""
    for node in ast.walk(module.tree):
        operands: list[ast.AST] = []
        if isinstance(node, ast.Compare) and any(
            isinstance(op, (ast.Eq, ast.NotEq, ast.In, ast.NotIn)) for op in node.ops
        ):
            operands = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            operands = [node.value]
        for operand in operands:
            for inner in ast.walk(operand):
                if isinstance(inner, ast.Constant) and inner.value in PROVIDERS:
                    yield f"{module.name}:{inner.lineno} compares {inner.value!r}"


def imports_the_root(module: Module) -> Iterator[str]:
    """Find modules that go through the front door from inside."""
    if module.name == ROOT:
        return
    for found in module.imports:
        if found.of_root:
            yield f"{module.name}:{found.line} imports from the package root"


def prints(module: Module) -> Iterator[str]:
    """Find output that nobody asked for."""
    if module.name in ("llm_sse.cli.extras", "llm_sse.sync.wrappers"):
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print":
            yield f"{module.name}:{node.lineno} prints"


def lacks_a_docstring(module: Module) -> Iterator[str]:
    """Find public modules that do not say what they are."""
    private = module.name.rpartition(".")[2].startswith("_")
    if not private and not ast.get_docstring(module.tree):
        yield f"{module.name} has no docstring"


def is_called_utils(module: Module) -> Iterator[str]:
    """Find modules whose name says nothing."""
    if module.name.rpartition(".")[2].strip("_") in ("utils", "util", "helpers", "common", "misc"):
        yield f"{module.name} needs a name that says what it is"


LAWS = [
    imports_the_world,
    imports_a_library_of_others,
    uses_more_than_the_session,
    imports_a_later_http_module,
    imports_upwards,
    imports_a_sibling,
    compares_a_provider,
    imports_the_root,
    prints,
    lacks_a_docstring,
    is_called_utils,
]


def offences(law: object, module: Module) -> list[str]:
    """Return what in a module is against a law."""
    assert callable(law)
    return list(law(module))


class TestPackage:
    def test_all_of_it_is_read(self) -> None:
        """The laws see every part of the package."""
        parts = {module.part for module in MODULES.values()}
        assert {
            "",
            "sse",
            "chat",
            "errors",
            "events",
            "providers",
            "sync",
            "testing",
            "web",
        } <= parts
        assert MODULES.keys() >= STILL_OF_WEB
        assert MODULES["llm_sse.sse"].is_core
        assert MODULES["llm_sse.providers.base"].is_core
        assert MODULES.keys() >= set(HTTP)
        assert not MODULES["llm_sse.sync.transport"].is_core

    @pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
    def test_law(self, law: object) -> None:
        """No module of the package offends against the law."""
        assert [found for module in MODULES.values() for found in offences(law, module)] == []

    def test_all_of_it_is_installed(self) -> None:
        """No package is missing in the list of what a wheel holds."""
        project = DIRECTORY.parent / "pyproject.toml"
        if not project.exists():
            pytest.skip("needs the sources")
        listed = re.search(r"^packages = (\[.*?\])", project.read_text("utf-8"), re.M | re.S)
        assert listed is not None
        packages = {module.name for module in MODULES.values() if module.is_package}
        assert set(ast.literal_eval(listed[1])) == packages

    def test_exceptions_are_needed(self) -> None:
        """An exception that nobody makes use of any longer is deleted."""
        for name in REQUESTS_EXCEPTIONS:
            assert any(
                found.top == "requests" and not found.typing_only for found in MODULES[name].imports
            )
        for name, allowed in WORLD_EXCEPTIONS.items():
            assert set(allowed) <= {found.top for found in MODULES[name].imports}


class TestLaws:
    @pytest.mark.parametrize(
        ("law", "name", "source"),
        [
            (imports_the_world, "llm_sse.sse", "import time"),
            (imports_the_world, "llm_sse.retry", "def f():\n    from time import sleep"),
            (imports_the_world, "llm_sse.providers.openai", "import http.client"),
            (imports_the_world, "llm_sse.chat", "from concurrent import futures"),
            (imports_the_world, "llm_sse", "import threading"),
            (imports_the_world, "llm_sse.web.formats", "import threading"),
            (imports_a_library_of_others, "llm_sse.sync.reader", "import requests"),
            (imports_a_library_of_others, "llm_sse.web.body", "import flask"),
            (imports_a_library_of_others, "llm_sse.web.flask", "from django.http import x"),
            (imports_a_library_of_others, "llm_sse.web.django", "from werkzeug import x"),
            (imports_a_library_of_others, "llm_sse.web.replay", "import redis"),
            (imports_a_library_of_others, "llm_sse.sync.source", "import urllib3"),
            (imports_a_library_of_others, "llm_sse.sync.observer", "import opentelemetry"),
            (imports_upwards, "llm_sse.sync.observer", "from ..otel import instrument"),
            (imports_a_library_of_others, "llm_sse.web", "from urllib3.util import Retry"),
            (imports_a_library_of_others, "llm_sse.sync.wrappers", "import rich.console"),
            (imports_a_library_of_others, "llm_sse.testing.server", "from click import echo"),
            (uses_more_than_the_session, "llm_sse.sync.ask", "requests.get('x')"),
            (uses_more_than_the_session, "llm_sse.sync.ask", "x = requests.Session()"),
            (uses_more_than_the_session, "llm_sse.sync.ask", "from requests import get"),
            (uses_more_than_the_session, "llm_sse.cli.targets", "requests.post('x')"),
            (imports_a_later_http_module, HTTP[0], "from .transport import send"),
            (imports_upwards, "llm_sse.errors", "from .events import Event"),
            (imports_upwards, "llm_sse.events", "from .errors import StreamError"),
            (imports_upwards, "llm_sse.chat", "from .events import Event"),
            (imports_upwards, "llm_sse.chat", "from . import events"),
            (imports_upwards, "llm_sse.sse", "from .sync.channel import Channel"),
            (imports_upwards, "llm_sse.providers.openai", "from ..testing import FakeServer"),
            (imports_upwards, "llm_sse.metrics", "from .cli import main"),
            (imports_upwards, "llm_sse.sync.ask", "from ..cli.targets import ready_rows"),
            (imports_upwards, "llm_sse.sync.stream", "from ..web.sse import respond"),
            (imports_a_sibling, "llm_sse.providers.openai", "from .gemini import Gemini"),
            (imports_a_sibling, "llm_sse.providers.openai", "from . import PROVIDERS"),
            (imports_a_sibling, "llm_sse.providers.base", "from .openai import OpenAI"),
            (imports_a_sibling, "llm_sse.providers.base", "import llm_sse.providers.openai"),
            (imports_a_sibling, "llm_sse.providers.lenient", "from .base import Provider"),
            (imports_a_sibling, "llm_sse.providers.openai", "from .responses_encoder import x"),
            (imports_a_sibling, "llm_sse.providers.openai", "from .gateways import GATEWAYS"),
            (compares_a_provider, "llm_sse.cli.ask", "if name == 'openai': pass"),
            (compares_a_provider, "llm_sse.cli.ask", "if 'gemini' != name: pass"),
            (compares_a_provider, "llm_sse.cli.ask", "x = name in ('a', 'anthropic')"),
            (compares_a_provider, "llm_sse.cli.ask", "x = name not in frozenset({'anthropic'})"),
            (compares_a_provider, "llm_sse.cli.ask", "match name:\n    case 'openai': pass"),
            (imports_the_root, "llm_sse.cli.ask", "import llm_sse"),
            (imports_the_root, "llm_sse.cli.ask", "from llm_sse import stream_sync"),
            (imports_the_root, "llm_sse.cli.ask", "from .. import sse"),
            (imports_the_root, "llm_sse.sync.stream", "from .. import errors"),
            (prints, "llm_sse.sync.stream", "def f():\n    print('x')"),
            (prints, "llm_sse.cli.answer", "print('x')"),
            (lacks_a_docstring, "llm_sse.cli.ask", "import os"),
            (lacks_a_docstring, "llm_sse.cli.ask", ""),
            (is_called_utils, "llm_sse.sync.utils", ""),
            (is_called_utils, "llm_sse._util", ""),
        ],
    )
    def test_offence(self, law: object, name: str, source: str) -> None:
        """Each law finds what it is meant to find."""
        assert len(offences(law, Module(name, source))) == 1

    @pytest.mark.parametrize(
        ("name", "source"),
        [
            ("llm_sse.sync.connection", "import requests, urllib3, socket, time"),
            ("llm_sse.sync.transport", "import urllib3\nfrom .connection import Call"),
            ("llm_sse.sync.reader", "if TYPE_CHECKING:\n    import requests"),
            ("llm_sse.sync.ask", "import requests\nx = isinstance(s, requests.Session)"),
            ("llm_sse.testing.server", "from http.server import HTTPServer\nimport threading"),
            ("llm_sse.cli.targets", "import click, requests\nx = requests.Session()"),
            ("llm_sse.cli.ask", "import click, rich, os\nfrom ..sync.stream import x"),
            ("llm_sse.cli.extras", "print('x')"),
            ("llm_sse.web.body", "import asyncio, time\nfrom ..sync.stream import TokenStream"),
            ("llm_sse.web.flask", "from flask import Response"),
            ("llm_sse.chat", "from .errors import ConfigurationError"),
            ("llm_sse.sse", "from ._version import __version__\nfrom .errors import StreamError"),
            ("llm_sse.sync.stream", "from .._version import __version__\nfrom ..chat import Tool"),
            (
                "llm_sse.providers.openai",
                "from .base import Provider\nfrom ..sse import SSEDecoder",
            ),
            ("llm_sse.providers.gemini", "name = 'gemini'\nx = f(provider='openai')"),
            ("llm_sse.providers.gemini", "x = {'openai': 1}\nx = name == 'acme'"),
        ],
    )
    def test_no_offence(self, name: str, source: str) -> None:
        """What is allowed offends against no law."""
        module = Module(name, f'"""Say."""\n{source}\n')
        assert [found for law in LAWS for found in offences(law, module)] == []

    def test_relative_imports_of_packages(self) -> None:
        """In a package's own file one dot is the package itself."""
        inside = Module(
            "llm_sse.providers", "from .gemini import Gemini\nfrom ..sse import x", True
        )
        assert [found.target for found in inside.imports] == [
            "llm_sse.providers.gemini",
            "llm_sse.sse",
        ]
        root = Module("llm_sse", "from . import errors\nfrom ._version import __version__", True)
        assert [found.target for found in root.imports] == ["llm_sse.errors", "llm_sse._version"]
