"""JSON Schemas that fit what providers can enforce."""

from __future__ import annotations

from typing import Any

import pytest

from llm_sse.json_schema import Unfit, inlined_root, is_strict, strict_schema


def closed(**properties: Any) -> dict[str, Any]:
    """Return a closed object that requires all its properties."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


TEXT = {"type": "string"}


class TestStrictSchema:
    def test_objects_are_closed_and_all_fields_required(self) -> None:
        """Strict mode has no optional fields; a default is what the model has to write, too."""
        given = {
            "type": "object",
            "properties": {
                "a": {"type": "string", "default": "x"},
                "b": {"type": "object", "properties": {"c": TEXT}},
            },
            "required": [],
        }
        assert strict_schema(given) == closed(a=TEXT, b=closed(c=TEXT))

    def test_it_reaches_every_schema_inside(self) -> None:
        """Items, alternatives and definitions are made strict, too; references stay."""
        open_ = {"type": "object", "properties": {"next": {"$ref": "#/$defs/N"}}}
        given = {
            **closed(
                a={"type": "array", "items": open_},
                b={"anyOf": [open_, {"type": "null"}]},
            ),
            "$defs": {"N": open_},
        }
        inner = closed(next={"$ref": "#/$defs/N"})
        assert strict_schema(given) == {
            **closed(a={"type": "array", "items": inner}, b={"anyOf": [inner, {"type": "null"}]}),
            "$defs": {"N": inner},
        }

    def test_what_is_given_is_left_alone(self) -> None:
        """The caller's schema is not changed."""
        given = {"type": "object", "properties": {"a": {"type": "string", "default": "x"}}}
        strict_schema(given)
        assert given == {"type": "object", "properties": {"a": {"type": "string", "default": "x"}}}

    def test_a_strict_schema_stays_as_it_is(self) -> None:
        """What fits is not touched, and so the order in which the fields are required."""
        given = closed(a=TEXT, b={"type": "integer", "minimum": 1, "description": "how many"})
        given["required"] = ["b", "a"]
        assert strict_schema(given) == given

    def test_what_cannot_be_enforced_is_described(self) -> None:
        """Limits of texts and unheard-of formats are told to the model in words."""
        given = closed(
            a={"type": "string", "minLength": 3, "description": "A name."},
            b={"type": "string", "format": "decimal"},
            c={"type": "array", "items": TEXT, "uniqueItems": True},
            d={"type": "string", "format": "date-time"},
        )
        assert strict_schema(given)["properties"] == {
            "a": {"type": "string", "description": "A name. (minLength: 3)"},
            "b": {"type": "string", "description": "(format: decimal)"},
            "c": {"type": "array", "items": TEXT, "description": "(uniqueItems: true)"},
            "d": {"type": "string", "format": "date-time"},
        }

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ({"enum": ["a", "b"]}, {"enum": ["a", "b"], "type": "string"}),
            ({"enum": ["a", None]}, {"enum": ["a", None], "type": ["string", "null"]}),
            ({"const": 3}, {"enum": [3], "type": "integer"}),
            ({"const": True}, {"enum": [True], "type": "boolean"}),
            ({"oneOf": [TEXT], "discriminator": {}}, {"anyOf": [TEXT]}),
            (
                {"$ref": "#/$defs/A", "description": "x"},
                {"anyOf": [{"$ref": "#/$defs/A"}], "description": "x"},
            ),
        ],
    )
    def test_other_words_for_the_same(
        self, given: dict[str, Any], expected: dict[str, Any]
    ) -> None:
        """What strict mode says in another way is said in its way."""
        assert strict_schema(given) == expected

    @pytest.mark.parametrize(
        "given",
        [
            {"type": "object"},
            {"type": "object", "additionalProperties": {"type": "integer"}},
            {"type": "object", "properties": {"a": TEXT}, "additionalProperties": True},
            {},
            {"description": "anything"},
            {"type": "array"},
            {"type": "array", "prefixItems": [TEXT], "items": False},
            {"enum": [{"a": 1}]},
            {"not": TEXT},
            closed(a={"if": TEXT, "type": "string"}),
        ],
    )
    def test_what_does_not_fit(self, given: dict[str, Any]) -> None:
        """A schema that no rewriting can enforce is refused."""
        with pytest.raises(Unfit):
            strict_schema(given)

    @pytest.mark.parametrize("pattern", [r"^(?!x)\w+$", "(?=a)a", "a(?<=a)", r"\\(?<!a)b"])
    def test_patterns_that_look_around(self, pattern: str) -> None:
        """Nobody can hold a model to a look-around, so it is told in words."""
        asked = strict_schema(closed(a={"type": "string", "pattern": pattern}))
        description = f"(pattern: {pattern})"
        assert asked["properties"]["a"] == {"type": "string", "description": description}

    @pytest.mark.parametrize("pattern", ["^(?:a|b)$", r"^\(?=$", "a?=b"])
    def test_other_patterns_stay(self, pattern: str) -> None:
        """A pattern that only looks like one that looks around is kept."""
        given = closed(a={"type": "string", "pattern": pattern})
        assert strict_schema(given) == given


def nested(levels: int) -> dict[str, Any]:
    """Return objects inside of each other."""
    return closed(a=nested(levels - 1) if levels > 1 else TEXT)


def chain(levels: int) -> dict[str, Any]:
    """Return objects that refer to each other, as classes do."""
    definitions = {f"L{n}": closed(a={"$ref": f"#/$defs/L{n + 1}"}) for n in range(levels - 2)}
    definitions[f"L{levels - 2}"] = closed(a=TEXT)
    return {**closed(a={"$ref": "#/$defs/L0"}), "$defs": definitions}


def words(count: int, chars: int) -> dict[str, Any]:
    """Return an object with an enumeration of so many words of that length."""
    return closed(a={"type": "string", "enum": [f"{n:0{chars}}" for n in range(count)]})


class TestCheckSize:
    @pytest.mark.parametrize(
        "given",
        [
            nested(10),
            chain(10),
            closed(**{f"f{n}": TEXT for n in range(5000)}),
            words(1000, 15),
            words(250, 100),
            {**closed(a={"$ref": "#/$defs/N"}), "$defs": {"N": closed(n={"$ref": "#/$defs/N"})}},
        ],
        ids=lambda given: str(given)[:40],
    )
    def test_what_is_small_enough(self, given: dict[str, Any]) -> None:
        """Up to OpenAI's limits a schema may be strict; what refers to itself has no depth."""
        assert is_strict(given)

    @pytest.mark.parametrize(
        "given",
        [
            nested(11),
            chain(11),
            closed(a={"type": "array", "items": nested(9)}),
            closed(**{f"f{n}": TEXT for n in range(5001)}),
            closed(a=words(600, 5), b=words(401, 5)),
            words(251, 60),
            closed(**{f"{n:0400}": TEXT for n in range(301)}),
        ],
        ids=lambda given: str(given)[:40],
    )
    def test_what_is_too_large(self, given: dict[str, Any]) -> None:
        """Above any of OpenAI's limits a schema is not strict."""
        assert strict_schema(given) == given
        assert not is_strict(given)

    @pytest.mark.parametrize("word", ["properties", "$defs", "enum", "anyOf", "items"])
    def test_what_is_no_schema(self, word: str) -> None:
        """A word that has not the value it needs makes nothing strict, and raises nothing."""
        assert not is_strict({"type": "object", word: 5})


class TestInlinedRoot:
    def test_a_reference_at_the_root(self) -> None:
        """The root is the object itself; definitions that nobody refers to go."""
        assert inlined_root({"$ref": "#/$defs/A", "$defs": {"A": TEXT}}) == TEXT

    def test_definitions_that_are_needed_stay(self) -> None:
        """A recursive type keeps its definition."""
        node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/N"}}}
        given = {"$ref": "#/$defs/N", "$defs": {"N": node}}
        assert inlined_root(given) == {**node, "$defs": {"N": node}}

    @pytest.mark.parametrize("name", ["#/$defs/A", "#/$defs/gone", "https://host/a.json"])
    def test_a_reference_that_leads_nowhere(self, name: str) -> None:
        """What cannot be followed stays, and nothing runs in circles."""
        given = {"$ref": name, "$defs": {"A": {"$ref": "#/$defs/A"}}}
        assert inlined_root(given)["$ref"] == name
