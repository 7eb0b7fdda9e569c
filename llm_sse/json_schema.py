"""JSON Schemas, made to fit what providers can hold a model to.

Providers that enforce a schema take only a part of JSON Schema. What they cannot enforce is put
into the `description` beside it, where the model at least reads it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

__all__ = [
    "LOOKAROUND",
    "Unfit",
    "check_size",
    "described",
    "inlined_root",
    "is_strict",
    "rewritten",
    "strict_schema",
]

#: What looks ahead or behind in a regular expression: providers cannot hold a model to that.
#: Source: https://github.com/vercel/ai/pull/21037 (OpenAI's words: "lookaround is not supported")
LOOKAROUND = re.compile(r"(?<!\\)(?:\\\\)*\(\?<?[=!]")
#: The most that a strict schema may have of each.
#: Source: https://developers.openai.com/api/docs/guides/structured-outputs#supported-schemas
_MAX_LEVELS = 10
_MAX_PROPERTIES = 5000
_MAX_ENUM_VALUES = 1000
_MAX_NAME_CHARS = 120_000
#: The most characters in the texts of one enumeration that has more values than that.
_LARGE_ENUM_VALUES = 250
_MAX_LARGE_ENUM_CHARS = 15_000

#: What strict mode takes as it is.
#: Source: https://developers.openai.com/api/docs/guides/structured-outputs#supported-schemas
_STRICT = frozenset(
    {
        *("$ref", "$defs", "anyOf", "description", "enum", "format", "items", "title", "type"),
        *("additionalProperties", "properties", "required", "pattern", "minItems", "maxItems"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    }
)
_FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
)
#: What says nothing more about the answer: every field is in it, and its tag has one value.
_IDLE = frozenset({"default", "discriminator", "$schema"})
#: What no provider enforces, and a model can be told.
_TOLD = frozenset(
    {"format", "contentEncoding", "minLength", "maxLength", "uniqueItems", "examples"}
)
_TYPES: dict[type, str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    type(None): "null",
}


class Unfit(ValueError):
    """A schema says something for which there is no place."""


def strict_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema that fits OpenAI's strict mode and means the same for a whole answer.

    Every object is closed, and all of its fields are required: a field with a default is one that
    the model has to write, too.

    Raises:
        Unfit: It cannot: objects of any keys, values of any type, tuples, `not`, `if`.

    Source: https://developers.openai.com/api/docs/guides/structured-outputs#supported-schemas
    """
    return rewritten(schema, _strict_node)


def is_strict(schema: Mapping[str, Any]) -> bool:
    """Whether a schema fits the strict mode as it stands."""
    try:
        fits = strict_schema(schema) == schema
        check_size(schema)
    except (Unfit, RecursionError):
        return False
    return fits


def check_size(schema: Mapping[str, Any]) -> None:
    """Check that a schema is no larger than OpenAI's strict mode takes.

    A reference counts as what it refers to, but one from within that: those have no end.

    Raises:
        Unfit: It is larger.

    Source: https://developers.openai.com/api/docs/guides/structured-outputs#supported-schemas
    """
    properties = enum_values = name_chars = 0
    for node in _nodes(schema):
        named = [*_part(node, "properties"), *_part(node, "$defs")]
        values = node["enum"] if isinstance(node.get("enum"), list) else []
        texts = [value for value in values if isinstance(value, str)]
        chars = sum(map(len, texts))
        properties += len(_part(node, "properties"))
        enum_values += len(values)
        name_chars += sum(map(len, named)) + chars
        if len(texts) > _LARGE_ENUM_VALUES and chars > _MAX_LARGE_ENUM_CHARS:
            raise Unfit("it has an enumeration with too much text")
    if properties > _MAX_PROPERTIES:
        raise Unfit("it has too many properties")
    if enum_values > _MAX_ENUM_VALUES:
        raise Unfit("it has too many enumerated values")
    if name_chars > _MAX_NAME_CHARS:
        raise Unfit("it has too much text in its names and enumerations")
    if _levels(schema, _part(schema, "$defs"), {}) > _MAX_LEVELS:
        raise Unfit("it is nested too deeply")


def inlined_root(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema whose root is no reference, as msgspec and pydantic write it."""
    root = dict(schema)
    seen: set[str] = set()
    while isinstance(name := root.get("$ref"), str) and name not in seen:
        seen.add(name)
        definitions = root.get("$defs")
        found = definitions.get(name.removeprefix("#/$defs/")) if definitions else None
        if not isinstance(found, dict):
            break
        root = {**found, "$defs": definitions}
    definitions = root.get("$defs")
    if definitions and '"#/' not in msgspec.json.encode(root).decode():
        del root["$defs"]
    return root


def rewritten(
    schema: Mapping[str, Any], change: Callable[[dict[str, Any]], dict[str, Any]]
) -> dict[str, Any]:
    """Return a schema with each schema in it changed, the inner ones first."""
    node = dict(schema)
    for name in ("properties", "$defs", "definitions"):
        if isinstance(inner := node.get(name), Mapping):
            node[name] = {key: _rewritten_value(value, change) for key, value in inner.items()}
    for name in ("anyOf", "oneOf", "allOf", "prefixItems"):
        if isinstance(inner := node.get(name), (list, tuple)):
            node[name] = [_rewritten_value(value, change) for value in inner]
    for name in ("items", "additionalProperties"):
        if isinstance(inner := node.get(name), Mapping):
            node[name] = rewritten(inner, change)
    return change(node)


def _rewritten_value(value: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    return rewritten(value, change) if isinstance(value, Mapping) else value


def _inner(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the schemas right inside of one, but its definitions."""
    options = schema.get("anyOf")
    found = [*_part(schema, "properties").values(), schema.get("items")]
    found += options if isinstance(options, list) else []
    yield from (inner for inner in found if isinstance(inner, Mapping))


def _part(schema: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the schemas under a name; none where something else stands there."""
    found = schema.get(name)
    return found if isinstance(found, Mapping) else {}


def _nodes(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield a schema and all that are in it."""
    todo = [schema]
    while todo:
        node = todo.pop()
        yield node
        todo += _inner(node)
        todo += [one for one in _part(node, "$defs").values() if isinstance(one, Mapping)]


def _levels(
    schema: Mapping[str, Any], definitions: Mapping[str, Any], known: dict[str, int]
) -> int:
    """Return how many objects and lists stand inside each other."""
    found = max((_levels(inner, definitions, known) for inner in _inner(schema)), default=0)
    name = str(schema.get("$ref", "")).removeprefix("#/$defs/")
    if name in definitions and name not in known:
        known[name] = 0  # while it is looked at
        known[name] = _levels(definitions[name], definitions, known)
    found = max(found, known.get(name, 0))
    kinds = schema.get("type")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    return found + ("object" in kinds or "array" in kinds)


def _strict_node(node: dict[str, Any]) -> dict[str, Any]:
    node = {name: value for name, value in node.items() if name not in _IDLE}
    if "oneOf" in node and "anyOf" not in node:
        node["anyOf"] = node.pop("oneOf")
    if "const" in node:
        node["enum"] = [node.pop("const")]
    if isinstance(node.get("enum"), list):
        node.setdefault("type", _types_of(node["enum"]))
    told = {
        name: node.pop(name)
        for name in _TOLD & set(node)
        if name != "format" or node["format"] not in _FORMATS
    }
    if LOOKAROUND.search(str(node.get("pattern", ""))):
        told["pattern"] = node.pop("pattern")
    node = described(node, told)
    if unknown := set(node) - _STRICT:
        raise Unfit(f"it cannot be enforced: {', '.join(sorted(unknown))}")
    if not set(node) & {"type", "anyOf", "$ref"}:
        raise Unfit("a value of any type cannot be enforced")
    if node.get("type") == "object" or "properties" in node:
        node = _closed(node)
    if node.get("type") == "array" and not isinstance(node.get("items"), dict):
        raise Unfit("a list of anything cannot be enforced")
    if "$ref" in node and set(node) - {"$ref", "$defs"}:
        # A reference must stand alone.
        node["anyOf"] = [{"$ref": node.pop("$ref")}]
    return node


def _closed(node: dict[str, Any]) -> dict[str, Any]:
    """Close an object, and require all of its fields."""
    properties = node.get("properties")
    if not isinstance(properties, dict) or node.get("additionalProperties", False) is not False:
        raise Unfit("an object of any keys cannot be enforced")
    required = node.get("required")
    if not isinstance(required, list) or set(required) != set(properties):
        required = list(properties)
    return {**node, "additionalProperties": False, "required": required}


def described(node: dict[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema whose description also says what cannot be enforced."""
    if not told:
        return node
    said = ", ".join(f"{name}: {_plain(told[name])}" for name in sorted(told))
    description = node.get("description")
    return {**node, "description": f"{description} ({said})" if description else f"({said})"}


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _types_of(values: list[Any]) -> str | list[str]:
    """Return the JSON type of an enumeration's values, or their types."""
    found = dict.fromkeys(_TYPES.get(type(value)) for value in values)
    names = [name for name in found if name is not None]
    if len(names) != len(found) or not names:
        raise Unfit("an enumeration of objects cannot be enforced")
    return names[0] if len(names) == 1 else names
