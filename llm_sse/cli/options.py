"""What several commands take: types of values, names that a shell completes, options."""

from __future__ import annotations

import click

from ..providers import provider_names

__all__ = ["ABOVE_0", "COUNT", "FROM_0", "PORT", "complete_name", "system", "temperature"]

COUNT = click.IntRange(min=1)
FROM_0 = click.FloatRange(min=0)
ABOVE_0 = click.FloatRange(min=0, min_open=True)
PORT = click.IntRange(0, 65535)


def complete_name(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of providers that a shell may complete a word to."""
    return [name for name in provider_names() if name.startswith(incomplete)]


system = click.option("-s", "--system", help="Instructions that stand above the prompt.")
temperature = click.option("--temperature", type=FROM_0, help="Sampling temperature.")
