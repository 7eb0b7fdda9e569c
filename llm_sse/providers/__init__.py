"""The table of providers: one row each."""

from __future__ import annotations

from ..errors import ConfigurationError
from .anthropic import Anthropic
from .base import Provider
from .gemini import Gemini
from .ollama import Ollama
from .openai import OpenAI
from .responses import Responses

__all__ = ["PROVIDERS", "Provider", "find_provider"]

_CHECKED = "2026-11-22"

#: The rows by name, in the order in which they are listed to people. A default model is written
#: here and nowhere else; an alias that its provider keeps alive is better than a dated name.
PROVIDERS: dict[str, Provider] = {
    row.name: row
    for row in (
        OpenAI(
            "openai",
            base_url="https://api.openai.com/v1",
            model="gpt-6-luna",
            checked=_CHECKED,
            key_env=("OPENAI_API_KEY",),
            model_env="OPENAI_MODEL",
            base_url_env="OPENAI_BASE_URL",
            tools_body={"reasoning_effort": "none"},
        ),
        Responses(
            "openai-responses",
            base_url="https://api.openai.com/v1",
            model="gpt-6-luna",
            checked=_CHECKED,
            key_env=("OPENAI_API_KEY",),
            model_env="OPENAI_MODEL",
            base_url_env="OPENAI_BASE_URL",
        ),
        Anthropic(
            "anthropic",
            base_url="https://api.anthropic.com",
            model="claude-sonnet-5-5",
            checked=_CHECKED,
            key_env=("ANTHROPIC_API_KEY",),
            model_env="ANTHROPIC_MODEL",
            base_url_env="ANTHROPIC_BASE_URL",
        ),
        Gemini(
            "gemini",
            base_url="https://generativelanguage.googleapis.com",
            model="gemini-flash-latest",
            checked=_CHECKED,
            key_env=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
            model_env="GEMINI_MODEL",
            base_url_env="GOOGLE_GEMINI_BASE_URL",
        ),
        Ollama(
            "ollama",
            base_url="http://127.0.0.1:11434",
            model="gemma4",
            checked=_CHECKED,
            key_env=("OLLAMA_API_KEY",),
            model_env="OLLAMA_MODEL",
            base_url_env="OLLAMA_HOST",
        ),
    )
}


def find_provider(name: object) -> Provider:
    """Return the row of a provider.

    Raises:
        ConfigurationError: There is none of that name.
    """
    row = PROVIDERS.get(name) if isinstance(name, str) else None
    if row is None:
        raise ConfigurationError(f"unknown provider {name!r}; there are: {', '.join(PROVIDERS)}")
    return row
