"""A caller's types: made ready by one thread at a time, and read by msgspec or pydantic."""

from __future__ import annotations

import dataclasses
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, NewType, Optional

import msgspec
import pydantic
import pytest
from typing_extensions import TypeAliasType, TypedDict

from llm_sse import Tool
from llm_sse.completion import Completion
from llm_sse.errors import ConfigurationError, InvalidOutputError
from llm_sse.response_format import read_format
from llm_sse.typed import once_per_class, preparing


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


class Person(pydantic.BaseModel):
    """Somebody."""

    name: str

    @pydantic.field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        return {"Ada": "Ada Lovelace"}[name]


@dataclasses.dataclass
class Team:
    """A dataclass with a model in it."""

    lead: Person
    size: int = 1


class Pair(TypedDict):
    """A dictionary with models in it."""

    left: Person
    right: Optional[Person]


class Named(NamedTuple):
    """A tuple with a model in it."""

    who: Person


@dataclasses.dataclass
class Nested:
    """A dataclass that refers to itself, with a model deep in it."""

    teams: list[Team]
    inner: Optional[Nested] = None


class Holder(msgspec.Struct):
    """What cannot be: neither library knows both."""

    one: Person


@dataclasses.dataclass
class Mixed:
    """What cannot be, either."""

    holder: dict[str, Plain]
    person: Person


class Plain(msgspec.Struct):
    """A struct without a model."""

    n: int


@dataclasses.dataclass
class Picky:
    """A dataclass that refuses some values in its own way."""

    x: int

    def __post_init__(self) -> None:
        {2: "two"}[self.x]


Lead = NewType("Lead", Person)
People = TypeAliasType("People", list[Person])
ADA = '{"name": "Ada"}'
LOVELACE = Person.model_construct(name="Ada Lovelace")


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
        """The schema of a class is kept, and not made again."""
        type_ = fresh()
        first = read_format(type_)
        notes = Notes(monkeypatch)
        assert read_format(type_) is first
        assert notes.free == []

    def test_a_class_is_not_kept(self) -> None:
        """What is remembered of a class goes when the class goes."""

        class Short:
            pass

        made = once_per_class(lambda type_: type_.__name__)
        assert made(Short) == made(Short) == "Short"
        gone = weakref.ref(Short)
        del Short
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


class TestModelsInside:
    @pytest.mark.parametrize(
        ("type_", "text", "value"),
        [
            (Team, f'{{"lead": {ADA}}}', Team(LOVELACE)),
            (Pair, f'{{"left": {ADA}, "right": null}}', {"left": LOVELACE, "right": None}),
            (Named, f'{{"value": [{ADA}]}}', Named(LOVELACE)),
            (Nested, f'{{"teams": [{{"lead": {ADA}}}]}}', Nested([Team(LOVELACE)])),
            (Lead, ADA, LOVELACE),
            (People, f'{{"value": [{ADA}]}}', [LOVELACE]),
            (dict[str, People], f'{{"a": [{ADA}]}}', {"a": [LOVELACE]}),
            (Annotated[list[Lead], "some"], f"[{ADA}]", [LOVELACE]),
        ],
        ids=str,
    )
    def test_a_type_with_a_model_in_it(self, type_: Any, text: str, value: Any) -> None:
        """Wherever in a type a pydantic model is, pydantic reads the type."""
        format_ = read_format(type_)
        assert format_ is not None
        assert "Person" in str(format_.schema)
        assert Completion(text=text, finish_reason="stop").parsed(type_) == value

    @pytest.mark.parametrize("type_", [Holder, list[Holder], Mixed], ids=str)
    def test_a_struct_beside_a_model(self, type_: Any) -> None:
        """Neither library reads both, and the error says what to make of the struct."""
        with pytest.raises(ConfigurationError, match=r"make \w+ a dataclass or a pydantic model"):
            read_format(type_)

    def test_what_pydantic_says(self) -> None:
        """The reason why a model has no schema is told, and not only a link to it."""
        model = pydantic.create_model("Odd", a=(Callable[[], int], ...))
        with pytest.raises(ConfigurationError, match="CallableSchema") as caught:
            read_format(model)
        assert "errors.pydantic.dev" not in str(caught.value)

    def test_what_msgspec_says(self) -> None:
        """Of msgspec's words only those are told that are about the type."""
        with pytest.raises(ConfigurationError, match=r"cannot be .*: .*not supported; pass"):
            read_format(object)


class TestTheCallersOwnCode:
    @pytest.mark.parametrize(
        ("type_", "text"),
        [(Picky, '{"x": 1}'), (list[Picky], '[{"x": 1}]'), (Person, '{"name": "Bob"}')],
        ids=str,
    )
    def test_what_it_raises(self, type_: Any, text: str) -> None:
        """Whatever a validator or `__post_init__` raises, the answer is not what was asked for."""
        answer = Completion(text=text, finish_reason="stop")
        with pytest.raises(InvalidOutputError, match="does not fit: KeyError: ") as caught:
            answer.parsed(type_)
        assert isinstance(caught.value.__cause__, KeyError)
        assert caught.value.completion is answer
