"""Calls that may take long, in threads of their own: whoever waits for them can stop waiting."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["Late", "call_within"]

T = TypeVar("T")


class Late(Exception):
    """A call has not returned in time; it goes on."""


class _Call:
    """One call, and who wants to know what became of it.

    It has a daemon thread of its own, with a copy of this one's context variables: calls that hang
    fill no pool that others need, and keep no process alive.

    Thread: `settled` and `give_up` are everybody's.
    """

    def __init__(self, function: Callable[[], Any], late: Callable[[Any], object]) -> None:
        self._function = function
        self._late = late
        self._lock = threading.Lock()
        self._given_up = False
        self.settled = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None

    def start(self) -> None:
        """Begin."""
        context = contextvars.copy_context()
        threading.Thread(
            target=context.run, args=(self._run,), name="llm-sse-web-store", daemon=True
        ).start()

    def give_up(self) -> bool:
        """Wait no longer; say whether there is no result yet, so that `late` will get it."""
        with self._lock:
            self._given_up = not self.settled.is_set()
            return self._given_up

    def _run(self) -> None:
        try:
            self.result = self._function()
        except BaseException as error:
            self.error = error
        with self._lock:
            self.settled.set()
            late = self._given_up
        if late and self.error is None:
            self._late(self.result)


def call_within(
    function: Callable[[], T], timeout_s: float, *, late: Callable[[T], object] = lambda _: None
) -> T:
    """Call a function, and wait for it no longer than `timeout_s`.

    Args:
        function: What is called, in a thread of its own.
        timeout_s: How long, in seconds.
        late: Called there with a result for which nobody waits any longer.

    Raises:
        Late: It has not returned by then.
    """
    call = _Call(function, late)
    call.start()
    try:
        returned = call.settled.wait(timeout_s)
    except BaseException:  # a signal's
        if not call.give_up() and call.error is None:
            late(call.result)
        raise
    if not returned and call.give_up():
        raise Late
    result: T = _outcome(call)
    return result


def _outcome(call: _Call) -> Any:
    error, call.error = call.error, None
    if error is None:
        return call.result
    try:
        raise error
    finally:
        error = None  # its traceback has this frame
