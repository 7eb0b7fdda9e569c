"""What form an answer shall have, and the value that it then is."""

from __future__ import annotations

import builtins
import dataclasses
import datetime
import sys
import typing
from typing import Any, Literal, Optional, Union

import msgspec
import pydantic
import pytest

from llm_sse.chat import make_chat
from llm_sse.completion import Completion
from llm_sse.errors import ConfigurationError, InvalidOutputError
from llm_sse.events import ToolCall
from llm_sse.response_format import ResponseFormat, read_format
from llm_sse.testing import FakeServer


class Step(msgspec.Struct):
    text: str
    minutes: Optional[int] = None


class Recipe(msgspec.Struct):
    title: str
    steps: list[Step]
    kind: Literal["soup", "cake"] = "soup"


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Pair(typing.TypedDict):
    left: int
    right: int


class Cat(msgspec.Struct, tag="cat"):
    lives: int


class Dog(msgspec.Struct, tag="dog"):
    name: str


class Box(msgspec.Struct, tag="box"):
    value: int


class Single(msgspec.Struct):
    value: int


class Person(pydantic.BaseModel):
    name: str = pydantic.Field(min_length=2)
    age: int = 0


class Tree(pydantic.BaseModel):
    name: str
    children: list[Tree] = []


PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
OPEN = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


def answer(text: str, **fields: Any) -> Completion:
    """Return a whole answer."""
    fields.setdefault("finish_reason", "stop")
    return Completion(text=text, provider="openai", **fields)


def error_of(completion: Completion, response_format: Any = None) -> InvalidOutputError:
    """Return the error instead of the value."""
    with pytest.raises(InvalidOutputError) as caught:
        completion.parsed(response_format)
    assert caught.value.completion is completion
    assert caught.value.provider == "openai"
    assert caught.value.retryable is False
    return caught.value


class TestReadFormat:
    def test_a_struct(self) -> None:
        """A class goes as its schema, under its name, strict."""
        format_ = read_format(Recipe)
        assert format_ is not None
        assert (format_.name, format_.strict, format_.wrapped) == ("Recipe", True, False)
        schema = format_.schema
        assert schema is not None
        assert schema["type"] == "object"
        assert schema["required"] == ["title", "steps", "kind"]
        assert schema["properties"]["steps"] == {"type": "array", "items": {"$ref": "#/$defs/Step"}}
        assert schema["$defs"]["Step"]["required"] == ["text", "minutes"]

    @pytest.mark.parametrize("type_", [Point, Pair, Person, Tree], ids=lambda t: t.__name__)
    def test_other_classes(self, type_: Any) -> None:
        """Dataclasses, TypedDicts and pydantic's models are classes like any other."""
        format_ = read_format(type_)
        assert format_ is not None
        assert (format_.name, format_.strict, format_.wrapped) == (type_.__name__, True, False)
        assert format_.schema is not None
        assert format_.schema["additionalProperties"] is False

    @pytest.mark.parametrize(
        "type_", [list[int], int, Union[Cat, Dog], list[Person], Literal["a", "b"]], ids=str
    )
    def test_what_is_no_object_is_wrapped_in_one(self, type_: Any) -> None:
        """Some providers take an object only, so the value is its one property."""
        format_ = read_format(type_)
        assert format_ is not None
        assert (format_.wrapped, format_.strict) == (True, True)
        assert format_.schema is not None
        assert format_.schema["required"] == ["value"]

    @pytest.mark.parametrize("type_", [dict[str, int], dict, list[Any], tuple[int, str]], ids=str)
    def test_what_cannot_be_strict(self, type_: Any) -> None:
        """A type that strict mode has no words for goes without it, and unchanged."""
        format_ = read_format(type_)
        assert format_ is not None
        assert format_.strict is False
        assert format_.schema is not None

    def test_a_raw_schema(self) -> None:
        """A caller's own schema goes as it is, and strict only if it is that already."""
        assert read_format(PERSON) == ResponseFormat(name="answer", schema=PERSON, strict=True)
        assert read_format(OPEN) == ResponseFormat(name="answer", schema=OPEN)
        titled = read_format({**OPEN, "title": "A person!"})
        assert titled is not None
        assert titled.name == "A_person_"

    def test_a_large_class(self) -> None:
        """A class that is larger than strict mode takes goes without it."""
        fields = [(f"f{n}", int) for n in range(5001)]
        large = read_format(msgspec.defstruct("Large", fields))
        assert large is not None
        assert not large.strict
        assert large.schema is not None

    def test_a_schema_in_json(self) -> None:
        """Sets and tuples in a caller's schema are lists, and it may change after the call."""
        given: dict[str, Any] = {"type": "object", "required": ("a",), "x": {"enum": {"a"}}}
        format_ = read_format(given)
        given["type"] = "array"
        assert format_ is not None
        assert format_.schema == {"type": "object", "required": ["a"], "x": {"enum": ["a"]}}

    @pytest.mark.parametrize(
        "given",
        [
            {"type": "objekt"},
            {"type": "object", "properties": {"a": {"$ref": "#/$defs/gone"}}},
            {"type": "object", "$defs": {"b": {"items": {"$ref": "#nowhere"}}}},
            {"type": "string", "pattern": "(a"},
            {"enum": "a"},
            {"$schema": "http://json-schema.org/draft-07/schema#", "items": {"$ref": "x.json"}},
        ],
        ids=str,
    )
    def test_a_wrong_schema(self, given: dict[str, Any]) -> None:
        """A mistake in a schema is found by the call, before anybody is paid for an answer."""
        for form in (
            given,
            {"type": "json_schema", "json_schema": {"name": "a", "schema": given}},
            {"type": "json_object", "schema": given},
        ):
            with pytest.raises(ConfigurationError, match="no JSON Schema"):
                read_format(form)

    def test_where_a_schema_is_wrong(self) -> None:
        """The error says in one line what is wrong with a schema, and where."""
        given: dict[str, Any] = {"properties": {"a": {"type": "objekt"}}}
        with pytest.raises(ConfigurationError) as caught:
            read_format(given)
        assert "'objekt' is not valid" in str(caught.value)
        assert str(caught.value).endswith("- at `$.properties.a.type`")
        with pytest.raises(ConfigurationError, match=r"the reference '#/a' leads nowhere$"):
            read_format({"$ref": "#/a"})

    @pytest.mark.parametrize(
        "given",
        [
            {"properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {"b": {}}},
            {"$id": "https://host/a", "items": {"$ref": "a#/$defs/b"}, "$defs": {"b": {}}},
            {"properties": {"$ref": {"type": "string"}}},
            {"enum": [{"$ref": "#/gone"}]},
            {"items": {"$ref": "#"}},
            {"$ref": "http://json-schema.org/draft-07/schema#"},
            {"definitions": {"a": {"$anchor": "A"}}, "items": {"$ref": "#/definitions/a"}},
        ],
        ids=str,
    )
    def test_references_that_lead_somewhere(self, given: dict[str, Any]) -> None:
        """A reference may lead anywhere in the schema; what is data is no reference."""
        format_ = read_format(given)
        assert format_ is not None
        assert format_.schema == given

    def test_a_schema_that_contains_itself(self) -> None:
        """It has no end, and so no JSON; the error says what to do instead."""
        given: dict[str, Any] = {"type": "object"}
        given["properties"] = {"next": given}
        with pytest.raises(ConfigurationError, match=r"contains itself.*\$ref"):
            read_format(given)

    def test_a_schema_that_is_very_deep(self) -> None:
        """What is nested too deeply for any reader is refused like that."""
        given: dict[str, Any] = {}
        for _ in range(400):
            given = {"items": given}
        with pytest.raises(ConfigurationError, match="too deeply"):
            read_format(given)

    def test_openais_own_objects(self) -> None:
        """The objects of Chat Completions, and the flat one of Responses, say the same here."""
        inner = {"name": "p", "schema": OPEN, "strict": True, "description": "d"}
        expected = ResponseFormat(name="p", schema=OPEN, strict=True, description="d")
        assert read_format({"type": "json_schema", "json_schema": inner}) == expected
        assert read_format({"type": "json_schema", **inner}) == expected
        lax = {"type": "json_schema", "json_schema": {"name": "p", "schema": OPEN}}
        assert read_format(lax) == ResponseFormat(name="p", schema=OPEN)

    @pytest.mark.parametrize("given", ["json_object", {"type": "json_object"}], ids=str)
    def test_any_json_object(self, given: Any) -> None:
        """The word and OpenAI's object ask for any JSON object."""
        assert read_format(given) == ResponseFormat(name="answer")

    def test_a_schema_beside_json_object(self) -> None:
        """llama.cpp's form has its schema there."""
        given = {"type": "json_object", "schema": PERSON}
        assert read_format(given) == ResponseFormat(name="answer", schema=PERSON, strict=True)

    @pytest.mark.parametrize(
        "given",
        [
            {"type": "json_object", "schem": PERSON},
            {"type": "text", "schema": PERSON},
            {"type": "json_schema", "json_schema": {"name": "p", "schema": OPEN}, "strict": True},
            {"type": "json_schema", "json_schema": {"name": "p", "schema": OPEN, "strikt": True}},
            {"type": "json_schema", "name": "p", "schema": OPEN, "strikt": True},
        ],
        ids=str,
    )
    def test_keys_that_nobody_would_be_told(self, given: Any) -> None:
        """Nothing in a provider's own object is dropped without a word."""
        with pytest.raises(ConfigurationError, match=r"no key 's.*extra_body"):
            read_format(given)

    @pytest.mark.parametrize("given", [None, {"type": "text"}], ids=str)
    def test_plain_text(self, given: Any) -> None:
        """Plain text is no format."""
        assert read_format(given) is None

    @pytest.mark.parametrize(
        ("given", "why"),
        [
            ("json", "'json_object'"),
            (object, "not supported"),
            (Recipe("x", []), "msgspec.Struct"),
            (5, "msgspec.Struct"),
            ({"type": "json_schema"}, "must look like"),
            ({"type": "json_schema", "json_schema": 1}, "must look like"),
            ({"type": "json_schema", "name": "a b", "schema": {}}, "letters"),
            ({"type": "json_schema", "schema": {}}, "letters"),
            ({"type": "json_schema", "name": "a", "schema": {}, "strict": 1}, "a bool"),
            ({"type": "json_schema", "name": "a", "schema": {}, "description": 1}, "a str"),
            ({"type": "json_object", "schema": 5}, "must be a dict"),
        ],
        ids=str,
    )
    def test_nothing_that_can_be_asked_for(self, given: Any, why: str) -> None:
        """The call says what is wrong, and what to pass instead."""
        with pytest.raises(ConfigurationError, match=why):
            make_chat("Hi", None, model="m", response_format=given)

    def test_a_schema_that_is_no_json(self) -> None:
        """What cannot be sent is refused like any other argument."""
        with pytest.raises(ConfigurationError, match="response_format cannot be written as JSON"):
            make_chat("Hi", None, model="m", response_format={"type": "object", "x": object()})

    def test_pydantic_is_never_imported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without pydantic loaded, nobody has one of its models, and nothing looks for it."""
        monkeypatch.delitem(sys.modules, "pydantic")
        assert read_format(Recipe) is not None
        assert "pydantic" not in sys.modules


class TestParsed:
    def test_a_struct(self) -> None:
        """The value is an instance of the class, its parts too."""
        text = '{"title": "Soup", "steps": [{"text": "stir", "minutes": 3}], "kind": "soup"}'
        recipe = answer(text).parsed(Recipe)
        assert recipe == Recipe("Soup", [Step("stir", 3)])
        assert recipe.steps[0].minutes == 3

    @pytest.mark.parametrize(
        ("type_", "text", "value"),
        [
            (Point, '{"x": 1, "y": 2}', Point(1, 2)),
            (Pair, '{"left": 1, "right": 2}', {"left": 1, "right": 2}),
            (Person, '{"name": "Ada", "age": 36}', Person(name="Ada", age=36)),
            (Tree, '{"name": "a", "children": []}', Tree(name="a")),
            (list[int], '{"value": [1, 2]}', [1, 2]),
            (list[int], "[1, 2]", [1, 2]),
            (list[Person], '{"value": [{"name": "Ada"}]}', [Person(name="Ada")]),
            (Union[Cat, Dog], '{"value": {"type": "dog", "name": "Rex"}}', Dog("Rex")),
            (Union[Cat, Dog], '{"type": "cat", "lives": 9}', Cat(9)),
            (Union[Cat, Box], '{"type": "box", "value": 3}', Box(3)),
            (Optional[Single], '{"value": 3}', Single(3)),
            (Optional[Single], '{"value": {"value": 3}}', Single(3)),
            (Optional[Single], '{"value": null}', None),
            (datetime.date, '{"value": "2026-11-22"}', datetime.date(2026, 11, 22)),
            (int, '{"value": 5}', 5),
            (dict[str, int], '{"value": 5}', {"value": 5}),
            (PERSON, '{"name": "Ada", "age": 36}', {"name": "Ada", "age": 36}),
            ("json_object", '{"a": [1]}', {"a": [1]}),
            (None, "[1, null]", [1, None]),
            (None, '```json\n{"a": 1}\n```', {"a": 1}),
            (Point, 'Here:\n```\n{"x": 1, "y": 2}\n```\nBye', Point(1, 2)),
        ],
        ids=str,
    )
    def test_every_kind_of_format(self, type_: Any, text: str, value: Any) -> None:
        """Each format gives its own kind of value."""
        assert answer(text).parsed(type_) == value

    @pytest.mark.parametrize(
        ("format_", "text", "where"),
        [
            (Recipe, '{"title": 5, "steps": []}', "`$.title`"),
            (Recipe, '{"title": "x", "steps": [{}]}', "`$.steps[0]`"),
            (list[int], '{"value": [1, "x"]}', "`$[1]`"),
            (Person, '{"name": "A", "age": "x"}', "`$.name`; .*`$.age`"),
            (list[Person], '[{"name": "Ada", "age": []}]', r"`$[0].age`"),
            (PERSON, '{"name": 5, "age": 3}', "5 is not of type 'string' - at `$.name`"),
            (PERSON, "[]", "at `$`"),
            (Optional[Single], '{"value": "x"}', "Expected `object | null`, got `str`"),
            ("json_object", "[]", "Expected `object`"),
            (Union[Cat, Dog], '{"value": {"type": "fox"}}', "`$.type`"),
        ],
        ids=str,
    )
    def test_what_does_not_fit(self, format_: Any, text: str, where: str) -> None:
        """The error says what does not fit, and where."""
        said = str(error_of(answer(text), format_))
        assert said.startswith("openai: the answer does not fit: ")
        for one in where.split("; .*"):
            assert one in said

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("Sorry, no.", "the answer is not JSON: 'Sorry, no.'"),
            ("[1, 2", "the answer is not JSON"),
            ('{"a": 1} or so', "trailing characters"),
            ("", "the answer is empty"),
            (" \n ", "the answer is empty"),
            ("```json\n```", "the answer is not JSON"),
        ],
    )
    @pytest.mark.parametrize("format_", [None, Recipe, Person, list[int], OPEN], ids=str)
    def test_what_is_no_json(self, text: str, why: str, format_: Any) -> None:
        """The error shows how the text begins."""
        with pytest.raises(InvalidOutputError, match=why):
            answer(text).parsed(format_)

    def test_what_was_cut(self) -> None:
        """An answer that reached its limit says so, and what to do."""
        said = str(error_of(answer('{"title": "So', finish_reason="length"), Recipe))
        assert said == (
            "openai: the answer was cut by the limit of tokens after 13 characters; "
            "pass a larger max_tokens"
        )

    @pytest.mark.parametrize("text", ["12", '{"a": 1', ""])
    def test_half_a_value_is_none(self, text: str) -> None:
        """What the limit may have cut is no value, although half a number is a number."""
        assert "limit of tokens" in str(error_of(answer(text, finish_reason="length")))

    def test_a_value_that_was_whole_before_the_limit(self) -> None:
        """Some models go on with white space until they are stopped; their value counts."""
        assert answer('{"a": 1}\n\n\n', finish_reason="length").parsed() == {"a": 1}

    def test_a_refusal(self) -> None:
        """The model's words stand in the error."""
        refused = answer("", refusal="I cannot help with that.")
        assert str(error_of(refused)) == "openai: the model refused: I cannot help with that."

    def test_an_answer_that_the_provider_stopped(self) -> None:
        """A filtered answer is none, even if it is JSON so far."""
        stopped = answer("{}", finish_reason="content_filter", raw_finish_reason="refusal")
        assert str(error_of(stopped)) == "openai: the provider stopped the answer (refusal): '{}'"

    def test_tool_calls_instead(self) -> None:
        """Who asked for tools, too, may get a call instead of a value."""
        call = ToolCall("a", "weather", {}, "{}")
        called = answer("", finish_reason="tool_calls", tool_calls=(call,))
        assert "calls tools (weather) instead" in str(error_of(called))

    def test_an_answer_that_broke_off(self) -> None:
        """What has no end is no value."""
        assert "broke off" in str(error_of(answer("{}", finish_reason=None)))

    def test_another_ending(self) -> None:
        """Where something else than the limit ended the answer, its word is told."""
        paused = answer("[1", finish_reason="pause", raw_finish_reason="pause_turn")
        assert str(error_of(paused)).endswith("'[1'; it ended with 'pause_turn'")

    def test_deep_nesting(self) -> None:
        """JSON that is nested too deeply is an error like any other."""
        error_of(answer("[" * 100_000 + "]" * 100_000))

    def test_without_jsonschema(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without the library a schema's value is whatever JSON came."""
        real = builtins.__import__

        def without(name: str, *args: Any, **kwargs: Any) -> Any:
            if name == "jsonschema":
                raise ImportError(name)
            return real(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", without)
        assert answer('{"name": 5}').parsed(PERSON) == {"name": 5}

    def test_a_schema_that_is_none(self) -> None:
        """A wrong schema is the caller's mistake."""
        with pytest.raises(ConfigurationError, match="no JSON Schema"):
            answer("{}").parsed({"type": "nonsense"})

    def test_no_schema_is_fetched(self, server: FakeServer) -> None:
        """A reference to somewhere in the network is not followed."""
        with pytest.raises(ConfigurationError, match="no JSON Schema"):
            answer("{}").parsed({"$ref": f"{server.url}/schema.json"})
        assert server.requests == []
