"""Who is asked: whoever is named, else who is ready to be, else the built-in fake provider."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import requests

from ..errors import ConfigurationError
from ..providers import FORMATS, PROVIDERS, Provider, find_provider, provider_names
from .terminal import note

__all__ = ["all_rows", "is_ready", "model_of", "or_fake", "ready_rows"]


def all_rows() -> Iterator[Provider]:
    """Yield all rows; say of those that other distributions offer why one cannot be loaded."""
    for name in provider_names():
        try:
            yield find_provider(name)
        except ConfigurationError as error:
            note(f"error: {error}")


def model_of(row: Provider) -> str:
    """Return the model that is asked where none is named; empty where there is none."""
    return os.environ.get(row.model_env) or row.model


def is_ready(row: Provider, model: str | None = None) -> bool:
    """Whether a provider can be asked without saying more: there is a key, a model, an address."""
    environ = os.environ
    return (
        any(environ.get(name) for name in row.key_env)
        and bool(model or model_of(row))
        and bool(environ.get(row.base_url_env) or row.base_url)
    )


def ready_rows(model: str | None = None) -> list[Provider]:
    """Return those that can be asked: of the table, else of what other distributions offer."""
    ready = [row for row in PROVIDERS.values() if is_ready(row, model)]
    # Only now, for looking at the others takes time.
    return ready or [row for row in all_rows() if is_ready(row, model)]


@contextmanager
def or_fake(found: Sequence[dict[str, Any]], what: str) -> Iterator[Sequence[dict[str, Any]]]:
    """Give who was found; where that is nobody run the built-in fake provider, and say so.

    Args:
        found: The arguments with which `stream_sync` asks each.
        what: What comes from the fake provider then, for the note.
    """
    if found:
        yield found
        return
    # Only here, because whoever has a key does not need it.
    from ..testing.server import FakeServer  # noqa: PLC0415

    rows = [PROVIDERS[name] for name in FORMATS]
    keys = ", ".join(dict.fromkeys(" or ".join(row.key_env) for row in rows))
    note(f"no key found ({keys}, ...): {what} from the built-in fake provider")
    first = next(iter(PROVIDERS))
    with FakeServer(ttft_s=0.2, tokens_per_s=40) as server, requests.Session() as session:
        session.trust_env = False  # a proxy cannot reach this machine's loopback
        yield [
            {
                "provider": first,
                "base_url": server.base_url(first),
                "api_key": "fake",
                "session": session,
            }
        ]
