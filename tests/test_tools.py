"""Tools made of functions: what the model is told, and how its arguments come back."""

from __future__ import annotations

import builtins
import dataclasses
import datetime
import enum
import functools
import json
from collections.abc import Callable
from typing import Annotated, Any, Literal, Optional, TypedDict, Union

import msgspec
import pytest

from llm_sse.chat import make_chat
from llm_sse.errors import ConfigurationError
from llm_sse.tools import FunctionTool, Tool


class Unit(enum.Enum):
    """A scale."""

    CELSIUS = "C"
    FAHRENHEIT = "F"


@dataclasses.dataclass
class Place:
    city: str
    country: str = "NO"


class Span(TypedDict):
    start: datetime.date
    days: int


class Node(msgspec.Struct):
    name: str
    children: list[Node] = []


class Login(msgspec.Struct):
    user: str
    key: str = "sk-secret"
    others: list[Login] = []
    default: int = 1


class Cat(msgspec.Struct, tag="cat"):
    lives: int


class Dog(msgspec.Struct, tag="dog"):
    tricks: list[str]


def forecast(
    place: Place,
    span: Span,
    unit: Unit = Unit.CELSIUS,
    kind: Literal["short", "long"] = "short",
    notes: Optional[list[str]] = None,
    weights: dict[str, float] = {},  # noqa: B006
    limit: Annotated[int, msgspec.Meta(ge=1, description="At most.")] = 5,
) -> dict[str, Any]:
    """Tell the weather to come."""
    return {"place": place, "span": span, "unit": unit, "notes": notes, "limit": limit}


def documented(city: str, days: int = 1) -> str:
    """Tell the weather.

    It is a guess.

    Args:
        city: Where.
        days: How many days.
    """
    return f"{city} {days}"


def no_docstring_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `docstring-parser` impossible to import."""
    real = builtins.__import__

    def refuse(name: str, *arguments: Any, **more: Any) -> Any:
        if name == "docstring_parser":
            raise ImportError(name)
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)


class TestFromFunction:
    def test_all_kinds_of_annotations(self) -> None:
        """The annotations are one JSON Schema object, without references to look up."""
        tool = Tool.from_function(forecast)
        assert (tool.name, tool.description) == ("forecast", "Tell the weather to come.")
        properties = tool.parameters["properties"]
        assert properties["place"]["properties"] == {
            "city": {"type": "string"},
            "country": {"type": "string"},
        }
        assert properties["place"]["required"] == ["city"]
        assert properties["span"]["properties"]["start"] == {"type": "string", "format": "date"}
        assert properties["unit"]["enum"] == ["C", "F"]
        assert properties["kind"] == {"enum": ["long", "short"]}
        assert properties["notes"]["anyOf"][1] == {"type": "null"}
        assert properties["weights"]["additionalProperties"] == {"type": "number"}
        assert properties["limit"] == {
            "type": "integer",
            "minimum": 1,
            "description": "At most.",
        }
        assert tool.parameters["required"] == ["place", "span"]
        assert tool.parameters["type"] == "object"
        assert tool.parameters["additionalProperties"] is False
        assert set(tool.parameters) == {"type", "properties", "required", "additionalProperties"}
        assert "$ref" not in json.dumps(tool.parameters)

    def test_no_parameters(self) -> None:
        """A function without parameters is an object without properties."""

        def now() -> str:
            return "now"

        tool = Tool.from_function(now)
        assert tool.parameters["properties"] == {}
        assert tool.description == ""
        assert tool.call({}) == "now"

    def test_a_type_that_holds_itself(self) -> None:
        """What cannot be written out stays a reference, with its definition beside it."""

        def count(tree: Node) -> int:
            return len(tree.children)

        count.__annotations__["tree"] = Node
        tool = Tool.from_function(count)
        assert set(tool.parameters["$defs"]) == {"Node"}
        written_out = tool.parameters["properties"]["tree"]
        assert written_out["type"] == "object"
        assert written_out["properties"]["children"]["items"] == {"$ref": "#/$defs/Node"}
        assert tool.call({"tree": {"name": "a", "children": [{"name": "b"}]}}) == 1

    def test_a_description_beside_a_reference(self) -> None:
        """What an annotation says of a type that is written out stays."""

        def f(place: Annotated[Place, msgspec.Meta(description="Where.")]) -> None:
            """Do."""

        shown = Tool.from_function(f).parameters["properties"]["place"]
        assert (shown["description"], shown["required"]) == ("Where.", ["city"])

    def test_a_union_of_tagged_types(self) -> None:
        """The choice is written out; nothing refers to a definition that is gone."""

        def pet(animal: Union[Cat, Dog]) -> str:
            return type(animal).__name__

        tool = Tool.from_function(pet)
        choices = tool.parameters["properties"]["animal"]["anyOf"]
        assert [choice["properties"]["type"]["enum"] for choice in choices] == [["cat"], ["dog"]]
        assert "$" not in json.dumps(tool.parameters)
        assert tool.call({"animal": {"type": "dog", "tricks": []}}) == "Dog"

    def test_parameters_named_like_the_words_of_schemas(self) -> None:
        """A parameter may have any name, also one that a schema has a meaning for."""

        def odd(title: str, discriminator: str, type: int, properties: int = 0) -> str:
            return f"{title}{discriminator}{type}{properties}"

        tool = Tool.from_function(odd)
        assert list(tool.parameters["properties"]) == [
            *("title", "discriminator", "type", "properties")
        ]
        assert tool.call({"title": "a", "discriminator": "b", "type": 1}) == "ab10"

    def test_the_docstrings_parts(self) -> None:
        """With docstring-parser the parameters' descriptions stand where they belong."""
        pytest.importorskip("docstring_parser")
        tool = Tool.from_function(documented)
        assert tool.description == "Tell the weather.\n\nIt is a guess."
        assert tool.parameters["properties"] == {
            "city": {"type": "string", "description": "Where."},
            "days": {"type": "integer", "description": "How many days."},
        }

    def test_without_docstring_parser(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without it nothing of the docstring is lost: all of it is the description."""
        no_docstring_parser(monkeypatch)
        tool = Tool.from_function(documented)
        assert tool.description.startswith("Tell the weather.\n\nIt is a guess.\n\nArgs:\n    city")
        assert tool.parameters["properties"]["city"] == {"type": "string"}

    def test_an_annotations_own_description_wins(self) -> None:
        """What an annotation says of a parameter is not overwritten by the docstring."""
        pytest.importorskip("docstring_parser")

        def f(a: Annotated[int, msgspec.Meta(description="mine")]) -> None:
            """Do.

            Args:
                a: The docstring's.
            """

        assert Tool.from_function(f).parameters["properties"]["a"]["description"] == "mine"

    def test_a_name_and_a_description_of_ones_own(self) -> None:
        """What is passed wins over what the function says."""
        tool = Tool.from_function(lambda: 1, name="one", description="Give one.")
        assert (tool.name, tool.description) == ("one", "Give one.")

    def test_defaults_are_told_to_nobody(self) -> None:
        """A default may be a key, so none is in the schema, however deep; it still holds."""

        def f(login: Login, default: dict[str, str] = {"default": "sk-secret"}) -> str:  # noqa: B006
            return login.key + default["default"]

        tool = Tool.from_function(f)
        assert "sk-secret" not in json.dumps(tool.parameters)
        properties = tool.parameters["properties"]
        assert properties["default"]["type"] == "object"
        for login in (properties["login"], tool.parameters["$defs"]["Login"]):
            assert list(login["properties"]) == ["user", "key", "others", "default"]
            assert login["properties"]["default"] == {"type": "integer"}
            assert "default" not in login["properties"]["others"]
        assert tool.call({"login": {"user": "a"}}) == "sk-secretsk-secret"

    def test_a_default_of_none_may_be_given(self) -> None:
        """Who writes `= None` means that nothing may stand there, whatever the annotation says."""

        def f(n: int = None) -> str:  # type: ignore[assignment]  # noqa: RUF013
            return repr(n)

        tool = Tool.from_function(f)
        assert tool.parameters["properties"]["n"]["anyOf"] == [
            {"type": "integer"},
            {"type": "null"},
        ]
        assert [tool.call(given) for given in ({"n": None}, {"n": 3}, {})] == ["None", "3", "None"]

    def test_parameters_of_any_name(self) -> None:
        """A name that no struct could have as a field is a parameter's all the same."""
        names: dict[str, Any] = {}
        exec("def f(__t: int, __struct_fields__: int = 4): return __t, __struct_fields__", names)
        tool = Tool.from_function(names["f"])
        assert list(tool.parameters["properties"]) == ["__t", "__struct_fields__"]
        assert tool.call({"__t": 5}) == (5, 4)
        with pytest.raises(msgspec.ValidationError, match=r"at `\$.__t`"):
            tool.call({"__t": "5"})

    def test_a_default_that_json_has_no_word_for(self) -> None:
        """It is left out of the schema, and still the function's default."""
        marker = object()

        def f(a: Any = marker) -> bool:
            return a is marker

        tool = Tool.from_function(f)
        assert tool.parameters["properties"]["a"] == {}
        assert tool.parameters["required"] == []
        assert tool.call({}) is True

    def test_what_a_request_gets_is_a_plain_tool(self) -> None:
        """The function stays here: a request holds the description only."""
        tool = Tool.from_function(documented)
        (sent,) = make_chat("Hi", None, model="m", tools=[tool]).tools
        assert type(sent) is Tool
        assert sent == Tool(tool.name, tool.description, tool.parameters)


class Callables:
    def method(self, a: int) -> int:
        """Add one."""
        return a + 1

    @classmethod
    def of_class(cls, a: int) -> int:
        """Add one."""
        return a + 1

    @staticmethod
    def static(a: int) -> int:
        """Add one."""
        return a + 1

    def __call__(self, a: int) -> int:
        """Add one."""
        return a + 1


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function as decorators do."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


@decorated
def wrapped(a: int) -> int:
    """Add one."""
    return a + 1


def three(secret: object, a: int, b: int = 0) -> int:
    """Add one."""
    return a + 1 + b


class TestCallables:
    @pytest.mark.parametrize(
        ("function", "name"),
        [
            (Callables().method, "method"),
            (Callables.of_class, "of_class"),
            (Callables.static, "static"),
            (Callables(), "Callables"),
            (wrapped, "wrapped"),
            (functools.partial(wrapped), "wrapped"),
            (functools.partial(three, object(), b=0), "three"),
            (functools.partial(functools.partial(three, secret=None), b=0), "three"),
            (
                functools.partial(
                    Callables(),
                ),
                "Callables",
            ),
        ],
        ids=str,
    )
    def test_whatever_can_be_called(self, function: Any, name: str) -> None:
        """Methods, partials, wrappers and objects are functions like any other."""
        tool = Tool.from_function(function)
        assert isinstance(tool, FunctionTool)
        assert tool.name == name
        assert tool.description in ("Add one.", Callables.__doc__ or "Add one.")
        assert list(tool.parameters["properties"]) == ["a"]
        assert tool.call({"a": 1}) == 2

    def test_a_class(self) -> None:
        """A class is a function that makes its instances."""
        assert Tool.from_function(Place).call({"city": "Oslo"}) == Place("Oslo")

        class Plain:
            def __init__(self, a: int) -> None:
                self.a = a

        assert Tool.from_function(Plain).call({"a": 1}).a == 1

    def test_a_wrapper_that_waits(self) -> None:
        """It is the wrapper that is called: what it makes of an async function is its affair."""

        @decorated
        async def later(a: int) -> int:
            return a

        coroutine = Tool.from_function(later).call({"a": 1})
        with pytest.raises(StopIteration, match="1"):
            coroutine.send(None)


class TestRefused:
    @pytest.mark.parametrize(
        ("source", "said"),
        [
            ("def f(*args: int): ...", "parameter 'args' of the tool 'f' has no fixed name"),
            ("def f(a: int, **more: int): ...", "parameter 'more' .* has no fixed name"),
            ("def f(a: int, /): ...", "parameter 'a' .* is positional only"),
            ("def f(a): ...", "parameter 'a' .* has no annotation"),
            ("def f(a: int, b=1): ...", "parameter 'b' .* has no annotation"),
            ("def f(a: int, b: object): ...", "parameter 'b' .* has a type that cannot be read"),
            ("def f(a: 'Nowhere'): ...", "the tool 'f' cannot be read: .*Nowhere"),
            ("async def f(): ...", "the tool 'f' is async"),
            ("async def f(): yield 1", "the tool 'f' is async"),
            ("def f(a: int): yield a", "the tool 'f' is a generator, .* return a list"),
            (
                "import pathlib\ndef f(a: list[pathlib.Path]): ...",
                r"parameter 'a' .* no JSON for pathlib\.\w*\.?Path: take a str .* a dataclass",
            ),
            (
                "from typing import *\ndef f(a: Callable[[int], int]): ...",
                "parameter 'a' .* no JSON for collections.abc.Callable: take a str",
            ),
            ("class C: ...\ndef f(a: C = None): ...", "no JSON for C: take a str"),
            ("class C:\n async def __call__(self): ...\nf = C()", "the tool 'C' is async"),
            ("import functools\nasync def g(): ...\nf = functools.partial(g)", "'g' is async"),
            ("f = lambda: 1", "'<lambda>' cannot be a tool's name"),
            ("def größe(): ...\nf = größe", "cannot be a tool's name"),
            ("f = 5", "made of a function, not of a int"),
        ],
    )
    def test_what_no_model_could_call(self, source: str, said: str) -> None:
        """What cannot work is refused by the parameter's name, before anything is asked."""
        names: dict[str, Any] = {}
        exec(source, names)
        with pytest.raises(ConfigurationError, match=said):
            Tool.from_function(names["f"])

    def test_a_choice_that_json_cannot_tell_apart(self) -> None:
        """Two kinds of objects without a tag cannot both be meant by one."""

        def f(a: Union[Place, Span]) -> None:
            """Do."""

        with pytest.raises(ConfigurationError, match=r"parameter 'a' .* more than one"):
            Tool.from_function(f)

    @pytest.mark.parametrize("name", ["", "a b", "x" * 65, 5])
    def test_a_name_that_no_provider_takes(self, name: Any) -> None:
        """A name of one's own must be one that all providers take."""
        with pytest.raises(ConfigurationError, match="cannot be a tool's name"):
            Tool.from_function(documented, name=name)


class TestCall:
    def test_arguments_are_converted(self) -> None:
        """The function gets what its annotations say, not what JSON has."""
        got = Tool.from_function(forecast).call(
            {
                "place": {"city": "Oslo"},
                "span": {"start": "2026-11-22", "days": 2},
                "unit": "F",
                "notes": ["a"],
            }
        )
        assert got == {
            "place": Place("Oslo"),
            "span": {"start": datetime.date(2026, 11, 22), "days": 2},
            "unit": Unit.FAHRENHEIT,
            "notes": ["a"],
            "limit": 5,
        }

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ({}, "missing required field `city`"),
            ({"city": 5}, r"Expected `str`, got `int` - at `\$.city`"),
            ({"city": "a", "days": "5"}, r"Expected `int`, got `str` - at `\$.days`"),
            ({"city": "a", "town": "b"}, "unknown field `town`"),
        ],
    )
    def test_wrong_arguments(self, arguments: dict[str, Any], said: str) -> None:
        """What the annotations do not allow never reaches the function."""
        with pytest.raises(msgspec.ValidationError, match=said):
            Tool.from_function(documented).call(arguments)

    def test_a_number_without_a_fraction_is_an_integer(self) -> None:
        """`3.0` is an integer in JSON Schema, so it is one here; `3.5` is none."""
        seen: list[Any] = []

        def f(n: int, x: float = 0.0, more: Optional[list[int]] = None) -> None:
            seen.append((n, x, more))

        tool = Tool.from_function(f)
        tool.call({"n": 3.0, "x": 2.0, "more": [1.0]})
        assert repr(seen) == "[(3, 2.0, [1])]"
        with pytest.raises(msgspec.ValidationError, match=r"Expected `int`, got `float`"):
            tool.call({"n": 3.5})

    def test_limits_are_kept(self) -> None:
        """What `Meta` demands is checked, too."""
        tool = Tool.from_function(forecast)
        with pytest.raises(msgspec.ValidationError, match=">= 1"):
            tool.convert(
                {"place": {"city": "a"}, "span": {"start": "2026-01-01", "days": 1}, "limit": 0}
            )
