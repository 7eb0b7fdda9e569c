"""What several tests need: waiting without guessing, and a look into the frames of an error."""

from __future__ import annotations

import time
import traceback
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


def locals_with(secret: str, error: BaseException) -> list[str]:
    """Name the package's own local variables, in an error's frames, in which a secret stands."""
    return [
        f"{frame.f_code.co_name}: {name}"
        for frame, _ in traceback.walk_tb(error.__traceback__)
        if "llm_sse" in frame.f_code.co_filename
        for name, value in frame.f_locals.items()
        if secret in repr(value)
    ]
