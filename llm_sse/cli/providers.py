"""`llm-sse providers`: who can be asked, and whose keys are set."""

from __future__ import annotations

import os
from typing import Any

import click
import msgspec

from ..chat import redact_url
from ..errors import ConfigurationError
from ..providers import Provider, unused_offers
from .extras import needs
from .targets import all_rows, model_of
from .terminal import note

__all__ = ["providers"]

#: A narrower terminal gets the base URLs below the models.
_WIDE_COLUMNS = 110


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def providers(as_json: bool) -> None:
    """List the providers, and whose keys are set."""
    rows = [
        {
            "name": row.name,
            "model": model_of(row) or None,
            "model_from": row.model_env if os.environ.get(row.model_env) else None,
            "base_url": redact_url(_base_url(row)) or None,
            "base_url_from": row.base_url_env if os.environ.get(row.base_url_env) else None,
            "keys": {name: bool(os.environ.get(name)) for name in row.key_env},
        }
        for row in all_rows()
    ]
    for complaint in unused_offers():
        note(complaint)
    if as_json:
        click.echo(msgspec.json.encode(rows))
    else:
        _print_table(rows)


def _base_url(row: Provider) -> str:
    """Return where a provider is; what the environment says wrongly is shown as it stands."""
    try:
        return row.find_base_url(os.environ)
    except ConfigurationError:
        return os.environ.get(row.base_url_env, "")


def _print_table(rows: list[dict[str, Any]]) -> None:
    """Print the providers for people."""
    # Only here, because it takes longer to import than everything else.
    with needs("cli", "rich"):
        from rich.console import Console  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415
    console = Console(markup=False, emoji=False, highlight=False)
    wide = console.width >= _WIDE_COLUMNS
    where = ("model", "base URL") if wide else ("model\nbase URL",)
    table = Table("provider", *where, "keys", box=None, pad_edge=False)
    for column in table.columns[1:-1]:
        column.overflow = "fold"
    for row in rows:
        model, url = (
            (row[what] or "-") + (f"\n(from {row[source]})" if row[source] else "")
            for what, source in (("model", "model_from"), ("base_url", "base_url_from"))
        )
        keys = (f"{name} {'set' if there else 'unset'}" for name, there in row["keys"].items())
        cells = (model, url) if wide else (f"{model}\n{url}",)
        table.add_row(row["name"], *cells, "\n".join(keys))
    console.print(table)
