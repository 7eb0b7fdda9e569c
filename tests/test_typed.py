"""A caller's types: made ready by one thread at a time, and read by msgspec or pydantic."""

from __future__ import annotations

import dataclasses
import gc
import threading
import weakref
from typing import Any

import msgspec
import pydantic
import pytest

from llm_sse import Tool
from llm_sse.completion import Completion
from llm_sse.errors import ConfigurationError
from llm_sse.structured import read_format
from llm_sse.typed import preparing


class Notes:
    """What was seen: for each preparation of a type, whether another thread could do one, too."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free: list[bool] = []
        for name in ("schema", "Decoder"):
            self._watch(monkeypatch, msgspec.json, name)
        self._watch(monkeypatch, pydantic, "TypeAdapter")

    def _watch(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def noting(*args: Any, **kwargs: Any) -> Any:
            other = threading.Thread(target=self._try)
            other.start()
            other.join()
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, noting)

    def _try(self) -> None:
        free = preparing.acquire(blocking=False)
        if free:
            preparing.release()
        self.free.append(free)


def fresh() -> Any:
    """Return a dataclass that nobody has prepared yet."""
    inner = dataclasses.make_dataclass("Inner", [("a", int)])
    return dataclasses.make_dataclass("Outer", [("items", list[inner]), ("one", inner)])


class TestPreparing:
    def test_one_thread_at_a_time_prepares_a_format(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A type is made ready under a lock: where threads do it at once, msgspec crashes."""
        notes = Notes(monkeypatch)
        read_format(fresh())
        assert notes.free
        assert not any(notes.free)

    @pytest.mark.parametrize("model", [False, True])
    def test_one_thread_at_a_time_prepares_what_is_parsed(
        self, monkeypatch: pytest.MonkeyPatch, model: bool
    ) -> None:
        """An answer without a format may be the first that a type is used for."""
        type_ = pydantic.create_model("Outer", one=(dict[str, int], ...)) if model else fresh()
        answer = Completion(text='{"items": [], "one": {"a": 1}}', finish_reason="stop")
        notes = Notes(monkeypatch)
        answer.parsed(type_)
        assert notes.free
        assert not any(notes.free)

    def test_one_thread_at_a_time_prepares_a_tool(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The types of a tool's parameters are made ready under the same lock."""

        def tool(x: Any) -> None:
            """Do it."""

        tool.__annotations__["x"] = fresh()
        notes = Notes(monkeypatch)
        Tool.from_function(tool)
        assert notes.free
        assert not any(notes.free)

    def test_a_class_is_described_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The schema of a class is kept while the class is there, and no longer."""
        type_ = fresh()
        first = read_format(type_)
        notes = Notes(monkeypatch)
        assert read_format(type_) is first
        assert notes.free == []
        gone = weakref.ref(type_)
        del type_
        gc.collect()
        assert gone() is None

    def test_a_class_that_cannot_be_remembered(self) -> None:
        """A class without a hash is refused like any other that nobody can read."""

        class Odd(type):
            __hash__ = None  # type: ignore[assignment]

        class Point(metaclass=Odd):
            x: int

        with pytest.raises(ConfigurationError, match="unhashable"):
            read_format(dataclasses.dataclass(Point))
