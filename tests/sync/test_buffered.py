from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from llm_sse import buffered
from llm_sse.errors import ConfigurationError, StreamClosed
from tests.helpers import until


class TestBuffered:
    def test_yields_what_the_iterable_yields(self) -> None:
        """Items come in order, none is lost."""
        assert list(buffered(range(1000))) == list(range(1000))

    def test_an_item_is_there_before_the_next_one_is_made(self) -> None:
        """An item is handed over at once, however long the next one takes."""
        more = threading.Event()

        def slow() -> Iterator[int]:
            yield 1
            more.wait()
            yield 2

        items = buffered(slow())
        assert next(items) == 1
        more.set()
        assert list(items) == [2]

    def test_runs_at_most_buffer_size_items_ahead(self) -> None:
        """The iterable is not asked for more than fits."""
        made: list[int] = []

        def count() -> Iterator[int]:
            for item in range(10):
                made.append(item)
                yield item

        items = buffered(count(), buffer_size=3)
        until(lambda: len(made) == 3)
        assert list(items) == list(range(10))

    def test_the_iterables_error_comes_after_its_items(self) -> None:
        """An exception of the iterable is raised where it is read, as it is, once."""

        def broken() -> Iterator[int]:
            yield 1
            raise KeyError("mine")

        items = buffered(broken())
        assert next(items) == 1
        with pytest.raises(KeyError, match="mine"):
            next(items)
        assert list(items) == []

    def test_a_failed_iterator_is_collected(self) -> None:
        """Nothing keeps what has failed, once its error is gone."""

        def broken() -> Iterator[int]:
            raise KeyError("mine")
            yield 1

        items = buffered(broken())
        failed = weakref.ref(items)
        with pytest.raises(KeyError, match="mine"):
            next(items)
        del items
        gc.collect()
        assert failed() is None

    def test_a_second_reader_does_not_end_the_first(self) -> None:
        """A stray next() in another thread is refused, and the first reader loses nothing."""
        more = threading.Event()

        def slow() -> Iterator[int]:
            more.wait()
            yield from range(100)

        items: Any = buffered(slow())
        got: list[int] = []
        reader = threading.Thread(target=lambda: got.extend(items))
        reader.start()
        until(lambda: items._channel._reading)
        with pytest.raises(StreamClosed):
            next(items)
        more.set()
        reader.join()
        assert got == list(range(100))

    def test_closing_closes_the_iterable(self) -> None:
        """After close() nothing more is made, and a generator is closed in its own thread."""
        closed = threading.Event()

        def endless() -> Iterator[int]:
            try:
                while True:
                    yield 1
            finally:
                closed.set()

        items: Any = buffered(endless())
        assert next(items) == 1
        items.close()
        assert closed.wait(5)
        assert list(items) == []

    def test_dropping_it_closes_the_iterable(self) -> None:
        """Nobody has to close what nobody holds."""
        closed = threading.Event()

        def endless() -> Iterator[int]:
            try:
                while True:
                    yield 1
            finally:
                closed.set()

        for _ in buffered(endless()):
            break
        assert closed.wait(5)

    @pytest.mark.parametrize("size", [0, -1, "1"])
    def test_refuses_a_size_that_is_no_bound(self, size: Any) -> None:
        """A bound below 1 is no bound."""
        with pytest.raises(ConfigurationError, match="buffer_size"):
            buffered([1], buffer_size=size)

    def test_refuses_what_cannot_be_iterated(self) -> None:
        """A mistake is reported where it is made, not in a thread."""
        with pytest.raises(ConfigurationError, match="iterable, not int"):
            buffered(1)  # type: ignore[arg-type]
