"""What a terminal, or whatever else stands there, is shown: text without commands to it."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import click

from ..providers import PROVIDERS
from ..sync.redaction import MIN_KEY_CHARS

__all__ = ["drop_output", "harmless", "note", "without_controls", "write"]

#: C0, DEL and C1 but for tab and line feed: everything that begins a terminal's control sequence.
_CONTROL = dict.fromkeys({*range(0x20), *range(0x7F, 0xA0)} - {ord("\t"), ord("\n")})


def without_controls(text: str) -> str:
    """Return the text without the characters that drive a terminal."""
    return text.translate(_CONTROL)


def harmless(text: str) -> str:
    """Return what a terminal may be shown of model text; a pipe gets it unchanged."""
    return without_controls(text) if sys.stdout.isatty() else text


def write(text: str) -> None:
    """Print model text at once."""
    sys.stdout.write(harmless(text))
    sys.stdout.flush()


def note(text: str) -> None:
    """Print one line on standard error: nobody's line breaks, control characters or keys in it."""
    for row in list(PROVIDERS.values()):
        for key in filter(None, map(os.environ.get, row.key_env)):
            if len(key) >= MIN_KEY_CHARS:
                text = text.replace(key, "***")
    click.echo("llm-sse: " + without_controls(" ".join(text.split())), err=True)


def drop_output() -> None:
    """Let the interpreter's last flush succeed, where nobody can be written to any more."""
    with suppress(OSError), open(os.devnull, "wb") as devnull:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(devnull.fileno(), stream.fileno())
