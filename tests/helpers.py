"""What several tests need to wait for things without guessing how long they take."""

from __future__ import annotations

import time
from collections.abc import Callable

from llm_sse.providers import PROVIDERS

_DEADLINE_S = 10.0

#: The first row of each class: one per wire format. The other rows share these formats, so a test
#: of streams runs over these.
FORMATS = tuple(
    name
    for name, row in PROVIDERS.items()
    if row is next(first for first in PROVIDERS.values() if type(first) is type(row))
)


def until(happened: Callable[[], object]) -> None:
    """Wait until something is true; fail if it never is."""
    deadline = time.monotonic() + _DEADLINE_S
    while not happened():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.002)
