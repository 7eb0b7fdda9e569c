"""The command `llm-sse`: a model's answer on standard output, token by token.

It is the only part that needs `click` and `rich`, the extra `cli`; nothing imports it.
"""

from __future__ import annotations

from .extras import needs

with needs("cli", "click"):
    from . import bench, fake, providers, serve
    from .ask import cli

__all__ = ["cli", "main"]

for _command in (bench.bench, fake.fake, providers.providers, serve.serve):
    cli.add_command(_command)


def main() -> None:
    """Run the command with the process's arguments, and exit."""
    cli(prog_name="llm-sse")
