from __future__ import annotations

import datetime
import re
from typing import Any

import pytest

from llm_sse.errors import ConfigurationError
from llm_sse.providers import FORMATS, PROVIDERS, OpenAI, View, find_provider
from tests.providers.bodies import KEY, ask

VARIABLES = {
    "openai": ("OPENAI_API_KEY",),
    "openai-responses": ("OPENAI_API_KEY",),
    "anthropic": ("ANTHROPIC_API_KEY",),
    "gemini": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    "ollama": ("OLLAMA_API_KEY",),
}
#: Ollama runs on one's own machine, where nobody needs a key.
NEED_A_KEY = [name for name in VARIABLES if name != "ollama"]


class TestProviders:
    def test_the_formats_come_first(self) -> None:
        """The first rows have a format each, gateways share one; a view of one's own comes last."""
        assert list(PROVIDERS)[: len(VARIABLES)] == list(VARIABLES) == list(FORMATS)
        *gateways, view = list(PROVIDERS.values())[len(VARIABLES) :]
        assert all(type(row) is OpenAI for row in gateways)
        assert type(view) is View

    def test_a_row_is_complete(self, provider: str) -> None:
        """Each row has a name, a model, an address and its variables.

        The address is one of https, but for Ollama's, which is this machine.
        """
        row = PROVIDERS[provider]
        assert row.name == provider
        assert row.model
        local = provider == "ollama"
        assert row.base_url.startswith("http://127.0.0.1:" if local else "https://")
        assert not row.base_url.endswith("/")
        assert row.key_env == VARIABLES[provider]
        assert row.model_env == f"{provider.partition('-')[0].upper()}_MODEL"
        assert row.base_url_env == "OLLAMA_HOST" or row.base_url_env.endswith("_BASE_URL")

    def test_the_model_was_checked_on_a_day(self, provider: str) -> None:
        """The date of the last check is an ISO date, and not in the future of the project."""
        checked = datetime.date.fromisoformat(PROVIDERS[provider].checked)
        assert datetime.date(2026, 1, 1) <= checked

    def test_no_dated_model(self, provider: str) -> None:
        """A default model has no date in its name, for dated ones are retired first."""
        assert not re.search(r"\d{6,}|\d{4}-\d{2}", PROVIDERS[provider].model)

    def test_rows_can_be_kept_in_sets(self) -> None:
        """A row is a value: frozen and hashable."""
        assert len(set(PROVIDERS.values())) == len(PROVIDERS)
        with pytest.raises(AttributeError):
            PROVIDERS["openai"].model = "x"  # type: ignore[misc]

    def test_the_endpoint_listens_where_the_client_asks(self, provider: str) -> None:
        """A row's paths match the URL that it writes, below its own root."""
        row = PROVIDERS[provider]
        url = row.request(ask(), KEY, f"https://host{row.root}").url
        path = url.removeprefix("https://host").partition("?")[0]
        assert any(re.fullmatch(pattern, path) for pattern in row.paths)
        assert row.base_url.endswith(row.root)


class TestFindProvider:
    def test_a_row_is_found_by_its_name(self, provider: str) -> None:
        """The name leads to the row."""
        assert find_provider(provider) is PROVIDERS[provider]

    def test_a_row_is_its_own(self) -> None:
        """Who has a row needs no name for it."""
        row = OpenAI("acme", base_url="https://acme.example/v1", model="m")
        assert find_provider(row) is row

    @pytest.mark.parametrize("name", ["OpenAI", "", "chatgpt", None, 5, ["openai"]])
    def test_an_unknown_name_lists_the_known_ones(self, name: Any) -> None:
        """The error says which providers there are."""
        with pytest.raises(ConfigurationError) as caught:
            find_provider(name)
        assert str(caught.value) == f"unknown provider {name!r}; there are: {', '.join(PROVIDERS)}"
        assert "ollama, azure, mistral" in str(caught.value)


class TestKey:
    def test_the_callers_key_comes_first(self, provider: str) -> None:
        """`api_key` counts before the environment."""
        row = PROVIDERS[provider]
        assert row.key("mine", {row.key_env[0]: "theirs"}) == "mine"

    def test_the_environment_is_asked_next(self, provider: str) -> None:
        """Without a key of the caller's the variable's is taken."""
        row = PROVIDERS[provider]
        assert row.key(None, {row.key_env[-1]: "theirs"}) == "theirs"

    @pytest.mark.parametrize("provider", NEED_A_KEY)
    def test_an_empty_key_is_a_mistake(self, provider: str) -> None:
        """A key that turned out empty is not silently another one."""
        row = PROVIDERS[provider]
        with pytest.raises(ConfigurationError, match=rf"api_key is empty.*{row.key_env[0]}"):
            row.key("", {row.key_env[0]: "theirs"})

    def test_where_no_key_is_needed_an_empty_one_is_none(self) -> None:
        """Ollama is asked without a key, and an empty one keeps the environment's at home."""
        row = PROVIDERS["ollama"]
        assert row.key(None, {}) == row.key("", {"OLLAMA_API_KEY": "theirs"}) == ""
        assert row.credentials("") == {}

    def test_the_first_variable_with_a_key_counts(self) -> None:
        """Of two variables the provider's own comes first; an empty one is none."""
        row = PROVIDERS["gemini"]
        both = {"GOOGLE_API_KEY": "second", "GEMINI_API_KEY": "first"}
        assert row.key(None, both) == "first"
        assert row.key(None, {**both, "GEMINI_API_KEY": ""}) == "second"

    @pytest.mark.parametrize("provider", NEED_A_KEY)
    def test_a_missing_key_names_its_variables(self, provider: str) -> None:
        """The error says what to set."""
        with pytest.raises(ConfigurationError) as caught:
            PROVIDERS[provider].key(None, {})
        assert str(caught.value) == (
            f"no key for {provider}: set the environment variable "
            f"{' or '.join(VARIABLES[provider])}, or pass api_key=..."
        )
        assert caught.value.provider == provider

    @pytest.mark.parametrize(
        "key", [f"{KEY}\n", f"{KEY}\r\nX-Evil: 1", f"{KEY}\0", f"{KEY} ", f"{KEY}é€"]
    )
    @pytest.mark.parametrize("from_environment", [False, True])
    def test_a_key_that_cannot_be_sent_is_refused_unseen(
        self, provider: str, key: str, from_environment: bool
    ) -> None:
        """A line break in a key is an error that does not show the key."""
        row = PROVIDERS[provider]
        with pytest.raises(ConfigurationError) as caught:
            if from_environment:
                row.key(None, {row.key_env[0]: key})
            else:
                row.key(key, {})
        assert row.auth_header in str(caught.value)
        assert KEY not in f"{caught.value} {caught.value!r} {caught.value.__cause__!r}"

    @pytest.mark.parametrize("key", [5, b"key", ["key"]])
    def test_a_key_of_a_wrong_type_is_refused_unseen(self, provider: str, key: Any) -> None:
        """A key must be a text; the error names the type only."""
        with pytest.raises(ConfigurationError, match=f"not {type(key).__name__}"):
            PROVIDERS[provider].key(key, {})
