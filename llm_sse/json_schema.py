"""JSON Schemas, made to fit what providers can hold a model to.

Providers that enforce a schema take only a part of JSON Schema. What they cannot enforce is put
into the `description` beside it, where the model at least reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

__all__ = ["Unfit", "described", "inlined_root", "rewritten", "strict_schema"]

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
