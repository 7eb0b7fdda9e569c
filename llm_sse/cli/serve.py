"""`llm-sse serve`: a page that streams, and OpenAI's API, for whoever may ask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from ..errors import ConfigurationError
from ..providers import find_provider
from .extras import needs
from .options import ABOVE_0, COUNT, PORT, complete_name
from .targets import is_ready, model_of, or_fake, ready_rows

if TYPE_CHECKING:
    from ..web.questions import Target

__all__ = ["serve"]


@click.command()
@click.option("--host", default="127.0.0.1", help="The address; beyond loopback it needs --token.")
@click.option("--port", type=PORT, default=8766, help="0 takes a free one.")
@click.option(
    "-p",
    "--provider",
    "names",
    metavar="NAME",
    multiple=True,
    shell_complete=complete_name,
    help="Who can be asked; may be given several times. Else all whose key is set.",
)
@click.option(
    "--token",
    envvar="LLM_SSE_TOKEN",
    show_envvar=True,
    help="What visitors have to know. Others see the command line, but not the environment.",
)
@click.option("--allow-host", metavar="NAME", multiple=True, help="A name under which it is known.")
@click.option(
    "--allow-origin", metavar="URL", multiple=True, help="Another site whose pages may ask."
)
@click.option("--max-streams", type=COUNT, default=32, help="Answers at once.")
@click.option("--max-streams-per-client", type=COUNT, default=8, help="Of them, per address.")
@click.option(
    "--grace-s",
    type=ABOVE_0,
    default=15.0,
    help="How long an answer goes on that nobody reads; its reader may come back.",
)
@click.option("--max-prompt-chars", type=COUNT, default=32_000, help="The longest question.")
@click.option("--max-request-bytes", type=COUNT, default=1024 * 1024, help="The largest body.")
def serve(
    *,
    host: str,
    port: int,
    names: tuple[str, ...],
    token: str | None,
    allow_host: tuple[str, ...],
    allow_origin: tuple[str, ...],
    grace_s: float,
    **limits: int,
) -> None:
    """Serve a page that streams, and OpenAI's API, until Ctrl-C."""
    # Only here, because they are in an extra of their own.
    with needs("serve", "flask", "waitress", "werkzeug", what="`serve`"):
        from ..web.app import Limits, Site  # noqa: PLC0415
        from ..web.guard import Guard, is_loopback  # noqa: PLC0415
        from ..web.serve import listen  # noqa: PLC0415
        from ..web.serve import serve as run  # noqa: PLC0415

    token = token or None
    if token is None and not is_loopback(host):
        raise click.UsageError(
            f"--host {host} is reached by others: it needs --token, or LLM_SSE_TOKEN"
        )
    guard = Guard(token=token, hosts=allow_host, origins=allow_origin)
    with _targets(names) as targets, listen(host, port) as listener:
        at = listener.getsockname()
        # What listens everywhere is under no such address: the site refuses it as a host.
        address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(at[0], at[0])
        shown = f"[{address}]" if ":" in address else address
        site = Site(targets, guard=guard, limits=Limits(**limits), grace_s=grace_s)
        run(site, listener, lambda: click.echo(f"http://{shown}:{at[1]}/"))


@contextmanager
def _targets(names: Sequence[str]) -> Iterator[list[Target]]:
    """Say who can be asked on a page: those who are named, else who is ready, else a fake.

    Raises:
        ConfigurationError: A provider that is named lacks its key, its model or its address.
    """
    from ..web.questions import Target  # noqa: PLC0415 - no other command needs it

    rows = [find_provider(name) for name in dict.fromkeys(names)]
    for row in rows:
        if not is_ready(row):
            raise ConfigurationError(
                f"{row.name} cannot be asked: set {' or '.join(row.key_env)}, and, where it has no "
                f"default, {row.model_env} and {row.base_url_env}",
                provider=row.name,
            )
    rows = rows or ready_rows()
    shown = [(row.name, model_of(row)) for row in rows] or [("fake", "fake")]
    with or_fake([{"provider": row.name} for row in rows], "the answers come") as asked:
        yield [
            Target(name, model, arguments, fake=not rows)
            for (name, model), arguments in zip(shown, asked, strict=True)
        ]
