"""`llm-sse PROMPT`: ask a model, and print its answer."""

from __future__ import annotations

import sys
from typing import Any

import click

from .._version import __version__
from ..providers import PROVIDERS
from ..sync.ask import stream_sync
from . import exit_codes
from .answer import print_answer, stats_line
from .group import PromptOrCommand
from .options import COUNT, complete_name, system, temperature
from .targets import or_fake, ready_rows
from .terminal import note

__all__ = ["cli"]


@click.group(
    cls=PromptOrCommand,
    invoke_without_command=True,
    subcommand_metavar="[PROMPT] | COMMAND [ARGS]...",
    epilog=exit_codes.HELP,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
@click.option(
    "-p",
    "--provider",
    metavar="NAME",
    shell_complete=complete_name,
    help="Whom to ask, of those that `llm-sse providers` lists; else the first whose key is set.",
)
@click.option(
    "--fallback",
    metavar="NAME",
    multiple=True,
    shell_complete=complete_name,
    help="Who is asked when the provider fails or is late; may be given several times.",
)
@click.option("-m", "--model", help="The model; else the environment's or the provider's default.")
@system
@click.option("--max-tokens", type=COUNT, help="The longest answer, in tokens.")
@temperature
@click.option("--base-url", help="Another server that speaks the provider's format.")
@click.option("--json", "as_json", is_flag=True, help="Print every event, as one line of JSON.")
@click.option(
    "--record",
    type=click.Path(),
    help="Write requests and responses to a new file, without the key.",
)
@click.option("--stats", is_flag=True, help="Print the pace and the usage on standard error.")
@click.version_option(__version__, prog_name="llm-sse")
@click.pass_context
def cli(
    ctx: click.Context,
    /,
    provider: str | None,
    base_url: str | None,
    as_json: bool,
    stats: bool,
    **question: Any,
) -> None:
    """Ask a model; its answer streams to standard output.

    PROMPT is the question; "-", or no PROMPT and a pipe, reads it from standard input. To ask a
    command's name, write it after "--". Keys come from the environment; without any key, a
    built-in fake provider answers.
    """
    if ctx.invoked_subcommand is not None:
        return
    prompt = _prompt(ctx)
    found = _whom(provider, base_url, question["model"])
    with (
        or_fake(found, "this answer comes") as (target,),
        stream_sync(prompt, **target, **question) as stream,
    ):
        print_answer(stream, as_json)
        if stats:
            note(stats_line(stream.metrics, stream.completion))


def _prompt(ctx: click.Context) -> str:
    """Return the question, from the arguments or from standard input."""
    if len(ctx.args) > 1:
        ctx.fail("the prompt must be one argument: put it in quotes")
    if ctx.args and ctx.args != ["-"]:
        prompt: str = ctx.args[0]
    elif not ctx.args and sys.stdin.isatty():
        click.echo(ctx.get_help())
        ctx.exit()
    else:
        prompt = sys.stdin.read()
    if not prompt.strip():
        ctx.fail("the prompt is empty")
    return prompt


def _whom(provider: str | None, base_url: str | None, model: str | None) -> list[dict[str, Any]]:
    """Say where the question goes, in arguments of `stream_sync`; nowhere if nobody is ready."""
    names = [provider] if provider else [row.name for row in ready_rows(model)]
    if base_url and not names:
        names = list(PROVIDERS)
    return [{"provider": name, "base_url": base_url} for name in names[:1]]
