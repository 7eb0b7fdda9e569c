"""Libraries that only the command, or one of its commands, needs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["needs"]


@contextmanager
def needs(extra: str, *libraries: str, what: str = "the command") -> Iterator[None]:
    """Where a library is missing, say in one line what to install, and exit with 2.

    Args:
        extra: What brings the libraries.
        *libraries: Those that may be missing; that any other one is, is a fault of the package.
        what: What needs them.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in libraries:
            raise
        extras = ",".join(dict.fromkeys(("cli", extra)))
        install = f'pip install "llm-sse[{extras}]"'
        said = f'llm-sse: {what} needs the extra "{extra}": {install}'
        print(said, file=sys.stderr, flush=True)
        raise SystemExit(2) from None
