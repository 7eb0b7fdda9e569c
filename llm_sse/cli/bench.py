"""`llm-sse bench`: providers measured against each other."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import click
import msgspec

from ..providers import find_provider
from ..spread import MIN_RUNS
from ..sync.benchmark import Measurement
from . import exit_codes
from .bench_plot import check_plot, draw
from .bench_report import INTERRUPTED, print_result, progress
from .bench_report import as_csv as csv_of
from .extras import needs
from .options import COUNT, complete_name, system, temperature
from .targets import or_fake, ready_rows
from .terminal import note, without_controls

__all__ = ["bench"]


@click.command()
@click.argument("prompt", default="Explain server-sent events in five sentences.")
@click.option(
    "-p",
    "--provider",
    "names",
    metavar="NAME[:MODEL]",
    multiple=True,
    shell_complete=complete_name,
    help="Whom to measure; may be given several times. Else one for each key that is set.",
)
@click.option(
    "-n",
    "--iterations",
    type=click.IntRange(min=MIN_RUNS),
    default=MIN_RUNS,
    help="How often each is asked.",
)
@system
@click.option("--max-tokens", type=COUNT, default=200, help="The longest answer, in tokens.")
@temperature
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Print one line of CSV for each run.")
@click.option("--plot", type=click.Path(dir_okay=False), help="Draw the distributions to a file.")
def bench(
    *,
    prompt: str,
    names: tuple[str, ...],
    iterations: int,
    as_json: bool,
    as_csv: bool,
    plot: str | None,
    **question: Any,
) -> None:
    """Measure providers against each other: time to the first token, gaps, tokens per second.

    They are asked in turn, at least 5 times each; without any key, the built-in fake provider is
    measured.
    """
    if as_json and as_csv:
        raise click.UsageError("--json and --csv do not go together")
    if plot is not None:
        check_plot(plot)
    named = _entries(names)
    with or_fake(named, "the figures come") as entries:
        asked = entries if named else [_as_fake(entry) for entry in entries]
        measurement = Measurement(asked, prompt, iterations, question)
        with (
            needs("cli", "rich"),
            progress(iterations * len(entries)) as on_run,
            suppress(KeyboardInterrupt),
        ):
            measurement.run(on_run)
    result = measurement.result()
    if as_json:
        click.echo(msgspec.json.encode(result))
    elif as_csv:
        click.echo(without_controls(csv_of(result)), nl=False)
    else:
        print_result(result, without_controls)
    for provider in result.providers:
        for failure in provider.errors:
            note(f"{provider.label}, run {failure.iteration}: {failure.message}")
        for end in provider.early:
            note(f"{provider.label}, run {end.iteration}: {end}")
    if plot is not None:
        draw(result, plot)
    if result.interrupted:  # what there is was paid for, and is shown
        note(INTERRUPTED)
        sys.exit(exit_codes.INTERRUPTED)
    if not any(provider.runs for provider in result.providers):
        sys.exit(1)


def _entries(names: Sequence[str]) -> list[dict[str, Any]]:
    """Say who is measured, in arguments of `stream_sync`: those who are named, else who is ready.

    Of the rows that share a key, which are one vendor's, the first is measured.
    """
    vendors: dict[tuple[str, ...], str] = {}
    if not names:
        for row in ready_rows():
            vendors.setdefault(row.key_env, row.name)
    split = (name.partition(":") for name in names or vendors.values())
    return [{"provider": name, "model": model or None} for name, _, model in split]


def _as_fake(entry: dict[str, Any]) -> dict[str, Any]:
    """Return the built-in fake provider under its own name, for its figures are nobody else's."""
    row = msgspec.structs.replace(find_provider(entry["provider"]), name="fake")
    return {**entry, "provider": row, "model": "fake", "label": "fake"}
