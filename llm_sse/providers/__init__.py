"""The table of providers: one row each. Six have a format of their own, the others share one."""

from __future__ import annotations

from .anthropic import Anthropic
from .base import Provider
from .gateways import GATEWAYS
from .gemini import Gemini
from .ollama import Ollama
from .openai import OpenAI
from .registry import (
    PROVIDERS,
    find_provider,
    provider_names,
    register_provider,
    unused_offers,
)
from .responses import Responses
from .view import View

__all__ = [
    "FORMATS",
    "PROVIDERS",
    "Anthropic",
    "Gemini",
    "Ollama",
    "OpenAI",
    "Provider",
    "Responses",
    "View",
    "find_provider",
    "provider_names",
    "register_provider",
    "unused_offers",
]

_CHECKED = "2026-11-22"

#: The rows whose format is the vendor's own. A default model is written in a row and nowhere else;
#: an alias that its provider keeps alive is better than a dated name.
_VENDORS: tuple[Provider, ...] = (
    OpenAI(
        "openai",
        base_url="https://api.openai.com/v1",
        model="gpt-6-luna",
        checked=_CHECKED,
        key_env=("OPENAI_API_KEY",),
        model_env="OPENAI_MODEL",
        base_url_env="OPENAI_BASE_URL",
        tools_body={"reasoning_effort": "none"},
        call_ids=".{1,40}",
    ),
    Responses(
        "openai-responses",
        telemetry_name="openai",
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
        telemetry_name="gcp.gemini",
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

#: The name of each format's first row: whose format it is.
FORMATS = tuple(row.name for row in _VENDORS)

#: What a site of one's own speaks; its base URL is the view's address.
_VIEW = View("sse-view")

for _row in (*_VENDORS, *GATEWAYS, _VIEW):
    register_provider(_row)
