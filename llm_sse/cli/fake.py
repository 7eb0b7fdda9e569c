"""`llm-sse fake`: the fake provider for clients in other programs."""

from __future__ import annotations

import signal
import threading
from contextlib import suppress
from typing import Any, NoReturn

import click
from click.core import ParameterSource

from .options import ABOVE_0, FROM_0, PORT
from .targets import all_rows
from .terminal import note

__all__ = ["fake"]


@click.command()
@click.option("--port", type=PORT, default=8765, help="0 takes a free one.")
@click.option("--text", help="What it answers.")
@click.option("--ttft-s", type=FROM_0, default=0.2, help="Seconds to the first token.")
@click.option("--tokens-per-s", type=ABOVE_0, default=40.0, help="The pace after it.")
@click.option(
    "--replay",
    type=click.Path(),
    multiple=True,
    help="A recording that it plays instead; several follow one another.",
)
@click.option(
    "--replay-speed", type=ABOVE_0, default=1.0, help="How many times faster than recorded."
)
def fake(
    *,
    port: int,
    text: str | None,
    ttft_s: float,
    tokens_per_s: float,
    replay: tuple[str, ...],
    replay_speed: float,
) -> None:
    """Serve a fake provider to any client, until Ctrl-C."""
    from ..testing.server import FakeServer  # noqa: PLC0415 - `llm-sse PROMPT` does not need it

    said = click.get_current_context().get_parameter_source
    for name in ("text", "ttft_s", "tokens_per_s") if replay else ("replay_speed",):
        if said(name) is ParameterSource.COMMANDLINE:
            option = f"--{name.replace('_', '-')}"
            raise click.UsageError(
                f"{option} and --replay do not go together"
                if replay
                else f"{option} needs --replay"
            )
    given: dict[str, Any] = {"ttft_s": ttft_s, "tokens_per_s": tokens_per_s}
    if replay:
        given = {"replay": replay, "replay_speed": replay_speed}
    elif text is not None:
        given["text"] = text
    # A supervisor's stop is as good as a person's.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with (
        suppress(KeyboardInterrupt),
        FakeServer(port=port, **given) as server,
    ):
        names = [row.name for row in all_rows()]
        width = max(map(len, names))
        for name in names:
            click.echo(f"{name:<{width}} {server.base_url(name)}")
        where = server.base_url("openai")
        note(f"a program asks it with OPENAI_API_KEY=any OPENAI_BASE_URL={where}")
        _wait()


def _wait() -> NoReturn:
    """Wait for a signal, in slices because Windows would not notice one within a wait."""
    never = threading.Event()
    while True:
        never.wait(0.5)
