"""What several tests need to wait for things without guessing how long they take."""

from __future__ import annotations

import time
from collections.abc import Callable

from llm_sse import providers

_DEADLINE_S = 10.0

#: The first row of each wire format that models are asked in. The other rows share these formats,
#: so a test of streams runs over these; a view of one's own site is no model.
FORMATS = providers.FORMATS


def until(happened: Callable[[], object]) -> None:
    """Wait until something is true; fail if it never is."""
    deadline = time.monotonic() + _DEADLINE_S
    while not happened():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.002)
