"""Rows from outside the package: registered by a call, or offered by another distribution."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from llm_sse import register_provider, stream_sync
from llm_sse.cli import cli
from llm_sse.errors import ConfigurationError
from llm_sse.providers import (
    PROVIDERS,
    Anthropic,
    Gemini,
    Ollama,
    OpenAI,
    Provider,
    Responses,
    find_provider,
    provider_names,
    registry,
)
from llm_sse.testing import FakeServer, say
from tests.wire import WireServer, stream

CLASSES: list[type[Provider]] = [OpenAI, Responses, Anthropic, Gemini, Ollama]
Offer = Callable[..., None]


@pytest.fixture
def offer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Offer:
    """Install a distribution that offers `name`, with a module that holds `source`."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(name: str, source: str, *, dist: str = "acme-llm", value: str = "ROW") -> None:
        module = dist.replace("-", "_") + "_rows"
        monkeypatch.delitem(sys.modules, module, raising=False)
        (tmp_path / f"{module}.py").write_text(
            f"from llm_sse.providers import Anthropic, OpenAI\n{source}\n"
        )
        folder = tmp_path / f"{dist.replace('-', '_')}-1.2.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: 1.2\n")
        (folder / "entry_points.txt").write_text(
            f"[llm_sse.providers]\n{name} = {module}:{value}\n"
        )

    return install


class TestRegisterProvider:
    def test_a_gateway_is_one_row(self) -> None:
        """A server that nobody here knows streams with one row, and its name is enough."""
        body = (
            b'data: {"model":"big","choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
            b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
        )
        with WireServer(stream([body])) as server:
            register_provider(
                OpenAI("acme", base_url=server.url, model="big", max_tokens_field="max_tokens")
            )
            answer = stream_sync("x", provider="acme", api_key="secret-of-acme", max_tokens=3)
            assert answer.text() == "Hi"
            assert answer.completion.provider == "acme"
        (request,) = server.requests
        assert request.startswith(b"POST /chat/completions ")
        assert b"Bearer secret-of-acme" in request
        assert b'"model":"big"' in request
        assert b'"max_tokens":3' in request

    @pytest.mark.parametrize("cls", CLASSES)
    def test_every_format_takes_rows(self, server: FakeServer, cls: type[Provider]) -> None:
        """A row of any class is known by its name, and the fake answers in that name."""
        register_provider(cls("acme", model="m"))
        server.script(say("Hello."))
        url = server.base_url("acme")
        assert stream_sync("x", provider="acme", base_url=url, api_key="any").text() == "Hello."
        assert server.requests[0].provider == "acme"
        assert url.startswith(f"{server.url}/acme")

    def test_it_is_listed_with_the_others(self) -> None:
        """Errors and lists name it, after the built-in rows."""
        register_provider(OpenAI("acme"))
        assert provider_names()[-1] == "acme"
        with pytest.raises(ConfigurationError, match="sse-view, acme"):
            find_provider("nobody")

    def test_a_name_is_taken_once(self) -> None:
        """Another row of a known name is refused, unless it is said to take the place."""
        mine = OpenAI("groq", base_url="https://mine.example/v1")
        with pytest.raises(ConfigurationError, match=r"'groq' already.*replace=True"):
            register_provider(mine)
        register_provider(mine, replace=True)
        assert find_provider("groq") is mine

    @pytest.mark.parametrize(
        ("row", "shown"), [("groq", "not str"), (OpenAI, "not the class OpenAI itself")]
    )
    def test_what_is_no_row_is_refused(self, row: Any, shown: str) -> None:
        """The error says what was given instead of a row."""
        with pytest.raises(ConfigurationError, match=shown):
            register_provider(row)

    def test_one_of_many_threads_gets_a_name(self) -> None:
        """When several register the same name at once, exactly one does."""
        start = threading.Barrier(8)
        outcomes: list[str] = []

        def register() -> None:
            row = OpenAI("acme")
            start.wait()
            try:
                register_provider(row)
                outcomes.append("taken")
            except ConfigurationError:
                outcomes.append("refused")

        threads = [threading.Thread(target=register) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["refused"] * 7 + ["taken"]


class TestRows:
    def test_a_row_that_is_put_there_during_the_import_stays(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever puts a row in the place of a built-in one is not overruled by who looks it up."""
        rows, mine = registry._Rows(), OpenAI("anthropic", base_url="https://proxy.example/v1")
        real = registry.import_module

        def importing(name: str, package: str | None = None) -> Any:
            module = real(name, package)
            if name == ".anthropic":
                rows["anthropic"] = mine
            return module

        monkeypatch.setattr(registry, "import_module", importing)
        assert rows["anthropic"] is mine
        assert rows["anthropic"] is mine

    def test_what_comes_with_the_package_can_be_taken_away(self) -> None:
        """A row is a row, whether it has been imported or not."""
        rows = registry._Rows()
        assert len(rows) == len(PROVIDERS)
        del rows["anthropic"]
        assert "anthropic" not in rows
        assert list(rows) == [name for name in PROVIDERS if name != "anthropic"]


class TestRow:
    def test_a_row_like_another(self) -> None:
        """`replace` gives a row with other fields, checked like a new one; the old one stays."""
        row = OpenAI("acme", base_url="https://host/v1", model="big")
        other = row.replace(name="acme-2", query="api-version=1")
        assert (other.name, other.model, other.query) == ("acme-2", "big", "api-version=1")
        assert (type(other), row.name, row.query) == (OpenAI, "acme", "")
        with pytest.raises(ConfigurationError, match="has no field 'modle'; it has name, base_url"):
            row.replace(modle="x")
        with pytest.raises(ConfigurationError, match="model must be a str"):
            row.replace(model=1)

    def test_only_the_name_must_be_there(self) -> None:
        """What can follow from the name does."""
        row = OpenAI("my-gate.2")
        assert row.key_env == ("MY_GATE_2_API_KEY",)
        assert (row.model_env, row.base_url_env) == ("MY_GATE_2_MODEL", "MY_GATE_2_BASE_URL")
        assert (row.base_url, row.model, row.checked) == ("", "", "")
        assert row.auth_header == "Authorization"

    def test_small_things_are_forgiven(self) -> None:
        """A trailing slash goes, and one variable needs no tuple."""
        row = OpenAI("x", base_url="https://host/v1/", key_env="MY_KEY")  # type: ignore[arg-type]
        assert (row.base_url, row.key_env) == ("https://host/v1", ("MY_KEY",))

    @pytest.mark.parametrize(
        ("fields", "complaint"),
        [
            ({"name": ""}, "name must be made of"),
            ({"name": "a b"}, "name must be made of"),
            ({"name": "../x"}, "name must be made of"),
            ({"name": 5}, "name must be made of"),
            ({"base_url": "host/v1"}, "'x': base_url must look like"),
            ({"base_url": "https://u:p@host"}, "'x': base_url must not hold"),
            ({"base_url": "https://host?a=b"}, "'x': base_url must end before"),
            ({"base_url": 5}, "'x': base_url must be a str"),
            ({"base_url": None}, "'x': base_url must be a str"),
            ({"auth_header": "bad header"}, "'x': not a header name"),
            ({"auth_prefix": "a\n"}, "'x': the header Authorization holds a line break"),
            ({"model": None}, "'x': model must be a str"),
            ({"key_env": ("A", "")}, "'x': key_env must be a tuple of names of variables"),
            ({"key_env": ["A"]}, "'x': key_env must be a tuple of names of variables"),
            ({"needs_key": 1}, "'x': needs_key must be a bool"),
            ({"max_tokens_field": ""}, "'x': max_tokens_field must be a field's name"),
            ({"wants_back": ("all",)}, "'x': wants_back must be a tuple of extra_content"),
            ({"wants_back": "reasoning_content"}, "'x': wants_back must be a tuple"),
            ({"wants_back": ([],)}, "'x': wants_back must be a tuple of extra_content"),
            ({"ask_usage": None}, "'x': ask_usage must be a bool"),
            ({"json_schema": "no"}, "'x': json_schema must be a bool"),
            ({"key_env": ("A=B",)}, "'x': key_env must be a tuple of names of variables"),
            ({"base_url_env": "A\0"}, "'x': base_url_env must be a variable's name"),
            ({"model_env": "A=B"}, "'x': model_env must be a variable's name"),
            ({"body": [1]}, "'x': body must be a dict"),
            ({"query": "?a=b"}, "'x': query must be what follows"),
        ],
    )
    def test_a_wrong_field_is_refused_at_once(self, fields: dict[str, Any], complaint: str) -> None:
        """A row that could not be used is not made; the error names the row and the field."""
        with pytest.raises(ConfigurationError, match=complaint):
            OpenAI(**{"name": "x", **fields})

    def test_what_may_be_a_secret_is_not_in_an_error(self) -> None:
        """A body or a query that is refused is not repeated: it may hold a key."""
        for field, value in (("query", "key=my secret"), ("body", ["secret"])):
            with pytest.raises(ConfigurationError, match=f"'x': {field} must be") as caught:
                OpenAI("x", **{field: value})  # type: ignore[arg-type]
            assert "secret" not in str(caught.value)

    def test_a_row_has_a_body_of_its_own(self) -> None:
        """What a server always needs is sent; the caller's own words win."""
        row = OpenAI("acme", model="m", body={"safe": True, "options": {"a": 1}})
        register_provider(row)
        with FakeServer("Hi") as server:
            url = server.base_url("acme")
            extra = {"options": {"b": 2}, "safe": False}
            stream_sync("x", provider="acme", base_url=url, api_key="any", extra_body=extra).text()
        body = server.requests[0].json
        assert (body["safe"], body["options"]) == (False, {"a": 1, "b": 2})
        assert row.body == {"safe": True, "options": {"a": 1}}


class TestEntryPoints:
    @pytest.mark.parametrize(
        ("source", "value"),
        [
            ("ROW = OpenAI('acme', model='m')", "ROW"),
            ("def row():\n    return OpenAI('acme', model='m')", "row"),
        ],
    )
    def test_an_installed_row_is_found(
        self, server: FakeServer, offer: Offer, source: str, value: str
    ) -> None:
        """A distribution's row, or its function's, is there without any import."""
        offer("acme", source, value=value)
        assert "acme" in provider_names()
        assert "acme" not in PROVIDERS
        url = server.base_url("acme")
        assert stream_sync("x", provider="acme", base_url=url, api_key="any").text()
        assert find_provider("acme") is PROVIDERS["acme"]

    @pytest.mark.parametrize(
        ("source", "reason"),
        [
            ("import no_such_module", "cannot be loaded: ModuleNotFoundError: .*no_such_module"),
            ("", "cannot be loaded: AttributeError"),
            ("def ROW(): raise ValueError('why')", "cannot be loaded: ValueError: why"),
            ("ROW = OpenAI", "cannot be loaded: TypeError"),
            ("ROW = OpenAI('acme', base_url='x')", "cannot be loaded: ConfigurationError"),
            ("raise SystemExit('bye')", "cannot be loaded: SystemExit: bye"),
            ("ROW = 'acme'", "must be a Provider or a function that returns one, not str"),
            ("ROW = lambda: Anthropic", "not the class Anthropic itself"),
            ("ROW = OpenAI('other')", "calls itself 'other'"),
        ],
    )
    def test_what_cannot_be_loaded_names_its_distribution(
        self, offer: Offer, source: str, reason: str
    ) -> None:
        """The error says whose entry point it is, and why it is of no use."""
        offer("acme", source)
        with pytest.raises(ConfigurationError, match=reason) as caught:
            find_provider("acme")
        assert "the provider 'acme' of acme-llm 1.2 (acme_llm_rows:ROW)" in str(caught.value)
        assert "acme" not in PROVIDERS
        assert "acme" in provider_names()

    def test_an_entry_point_that_asks_for_itself_is_told_so(self, offer: Offer) -> None:
        """The error says it once, and the next one who asks is told the same."""
        offer(
            "acme",
            "from llm_sse.providers import find_provider\ndef ROW(): return find_provider('acme')",
        )
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="asks for itself") as caught:
                find_provider("acme")
            assert str(caught.value).count("cannot be loaded") == 1

    def test_two_distributions_cannot_have_one_name(self, offer: Offer) -> None:
        """Nobody can know which is meant, so the error names both."""
        offer("acme", "ROW = OpenAI('acme')")
        offer("acme", "ROW = OpenAI('acme')", dist="other-llm")
        with pytest.raises(ConfigurationError, match=r"by acme-llm 1\.2 .* and by other-llm 1\.2"):
            find_provider("acme")

    def test_a_registered_row_comes_before_an_offered_one(self, offer: Offer) -> None:
        """What the program itself says counts; so do the built-in rows."""
        offer("acme", "ROW = OpenAI('acme')")
        mine = OpenAI("acme")
        register_provider(mine)
        assert find_provider("acme") is mine

    def test_the_command_lists_it_and_says_what_is_wrong(
        self, offer: Offer, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """`llm-sse providers` shows offered rows, and goes on after one that cannot be loaded."""
        offer("acme", "ROW = OpenAI('acme', model='large')")
        offer("broken", "ROW = 5", dist="broken-llm")
        offer("groq", "ROW = OpenAI('groq')", dist="other-groq")
        code = "from llm_sse.cli import main; main()"
        environ = {"PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "150"}
        command = [sys.executable, "-c", code, "providers"]
        subprocess.run(command, env=environ, check=True)
        out, err = capfd.readouterr()
        assert any(line.split()[:2] == ["acme", "large"] for line in out.splitlines())
        assert "the provider 'broken' of broken-llm 1.2" in err
        assert "the provider 'groq' of other-groq 1.2 (other_groq_rows:ROW) is not used" in err
        assert err.count("not used") == 1

    def test_the_command_finds_the_key_of_an_installed_row(
        self, server: FakeServer, offer: Offer, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """A key in the environment is enough, whoever has brought the row."""
        offer("acme", "ROW = OpenAI('acme', model='large')")
        environ = {
            "PYTHONPATH": os.pathsep.join(sys.path),
            "ACME_API_KEY": "any",
            "ACME_BASE_URL": f"{server.url}/v1",
        }
        server.script(say("Of acme."))
        code = "from llm_sse.cli import main; main()"
        subprocess.run([sys.executable, "-c", code, "Hi"], env=environ, check=True)
        assert capfd.readouterr() == ("Of acme.\n", "")

    def test_a_benchmark_finds_the_key_of_an_installed_row(
        self, server: FakeServer, offer: Offer
    ) -> None:
        """`llm-sse bench` does not measure the built-in fake where there is a key to use."""
        offer("acme", "ROW = OpenAI('acme', model='large')")
        server.script(say("Of acme."))
        environ = {"ACME_API_KEY": "any", "ACME_BASE_URL": f"{server.url}/v1"}
        result = CliRunner().invoke(cli, ["bench", "--csv", "Hi"], env=environ)
        assert (result.exit_code, result.stderr) == (0, "")
        assert [line.split(",")[0] for line in result.stdout.splitlines()[1:]] == ["acme"] * 5

    def test_nothing_is_looked_for_until_it_is_asked_for(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A known name costs no search, and the import of the package no library for it."""
        searches: list[str] = []

        def entry_points(group: str) -> list[Any]:
            searches.append(group)
            return []

        monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
        find_provider("groq")
        assert searches == []
        with pytest.raises(ConfigurationError):
            find_provider("nobody")
        assert set(searches) == {"llm_sse.providers"}
        assert "importlib" not in vars(registry)
        assert "entry_points" not in vars(registry)
