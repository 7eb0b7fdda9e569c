from __future__ import annotations

import contextvars
import threading

import pytest

from llm_sse.web.aside import Late, call_within

_WHO = contextvars.ContextVar("_WHO", default="nobody")


class TestCallWithin:
    def test_a_call_that_returns_in_time_is_as_any_other(self) -> None:
        """Its result is returned, its error is raised, and it has the caller's context."""
        _WHO.set("ann")
        assert call_within(_WHO.get, 20) == "ann"
        with pytest.raises(ZeroDivisionError):
            call_within(lambda: 1 / 0, 20)

    def test_a_call_that_takes_longer_is_left_alone(self) -> None:
        """The caller goes on; what comes too late is given to who tidies up."""
        gate, tidied = threading.Event(), threading.Event()

        def hang() -> str:
            gate.wait(20)
            return "late"

        late: list[str] = []

        def tidy(result: str) -> None:
            late.append(result)
            tidied.set()

        with pytest.raises(Late):
            call_within(hang, 0.01, late=tidy)
        gate.set()
        assert tidied.wait(20)
        assert late == ["late"]

    def test_an_error_that_comes_too_late_is_nobodys(self) -> None:
        """Nobody tidies up after a call that made nothing."""
        gate = threading.Event()

        def fail() -> None:
            gate.wait(20)
            raise ZeroDivisionError

        with pytest.raises(Late):
            call_within(fail, 0.01, late=lambda _: pytest.fail("nothing was made"))
        gate.set()
