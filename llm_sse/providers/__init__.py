"""The table of providers: one row each. Six have a format of their own, the others share one.

A format is imported when one of its rows is asked for: most programs need one of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .base import Provider
from .registry import (
    FORMATS,
    PROVIDERS,
    find_provider,
    provider_names,
    register_provider,
    unused_offers,
)

if TYPE_CHECKING:
    from .anthropic import Anthropic
    from .gemini import Gemini
    from .ollama import Ollama
    from .openai import OpenAI
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

_CLASSES = frozenset({"Anthropic", "Gemini", "Ollama", "OpenAI", "Responses", "View"})


def __getattr__(name: str) -> Any:
    """Import a format when its class is asked for."""
    if name not in _CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{name.lower()}", __name__), name)


def __dir__() -> list[str]:
    """Return the names that are there, the formats' classes included."""
    return sorted({*globals(), *_CLASSES})
