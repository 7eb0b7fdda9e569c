"""The first word is a command, or all of them are a question; every ending has an exit code."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from typing import Any

import click

from ..errors import StreamError
from .exit_codes import CLOSED_PIPE, INTERRUPTED, exit_code
from .terminal import drop_output, note

__all__ = ["PromptOrCommand"]


class PromptOrCommand(click.Group):
    """A group that asks a model unless the first word is exactly the name of a command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Leave what is no option and no command in `ctx.args`: the prompt."""
        # The shell's bytes need not be UTF-8, but a request is.
        args = [arg.encode("utf-8", "replace").decode() for arg in args]
        if args and args[0] in self.commands:
            return super().parse_args(ctx, args)
        ctx.allow_interspersed_args = True  # options may follow the prompt
        return click.Command.parse_args(self, ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run, and turn every ending into its exit code."""
        # A character that has no encoding is no reason to lose the rest.
        for stream in (sys.stdin, sys.stdout):
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(errors="replace")
        try:
            return super().invoke(ctx)
        except StreamError as error:
            note(f"error: {error}")
            sys.exit(exit_code(error))
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
        except BrokenPipeError:
            drop_output()
            sys.exit(CLOSED_PIPE)
        except OSError as error:  # of our own output: the network's are StreamErrors
            note(f"error: {error}")
            drop_output()
            sys.exit(1)
