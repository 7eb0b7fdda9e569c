"""A caller's own JSON Schema: read before it is sent, and what an answer is checked against.

`jsonschema` does the checking. It is optional, and comes with the extra `structured`; without it a
schema is taken as it is, and so is an answer.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from .errors import ConfigurationError
from .typed import Misfit

__all__ = ["check_value", "read_schema"]

_ENDLESS = (
    "response_format cannot be written as JSON: it contains itself, or is nested too deeply; let a "
    'schema that repeats itself refer to itself by "$ref"'
)


def read_schema(given: Any) -> dict[str, Any]:
    """Return a copy of a schema as JSON has it.

    Raises:
        ConfigurationError: It cannot be written as JSON, it is no JSON Schema, or a reference in
            it leads nowhere; nothing is fetched from the network.
    """
    if not isinstance(given, Mapping):
        raise ConfigurationError(
            f"response_format: the schema must be a dict, not {type(given).__name__}"
        )
    try:
        encoded = msgspec.json.encode(dict(given))
        schema: dict[str, Any] = msgspec.json.decode(encoded)
    except RecursionError:
        raise ConfigurationError(_ENDLESS) from None
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"response_format cannot be written as JSON: {error}") from None
    _check(encoded)
    return schema


def check_value(value: Any, schema: dict[str, Any]) -> Any:
    """Return a value that fits a schema that `read_schema` has seen.

    Raises:
        Misfit: It does not fit.
    """
    validator = _validator(schema)
    if validator is None:
        return value
    import jsonschema  # noqa: PLC0415  # optional, and only needed here

    worst = jsonschema.exceptions.best_match(validator.iter_errors(value))
    if worst is not None:
        raise Misfit(f"{worst.message} - at `{worst.json_path}`")
    return value


def _validator(schema: dict[str, Any]) -> Any:
    """Return what checks values; `None` without the library."""
    try:
        import jsonschema  # noqa: PLC0415  # optional, and only needed here
        import referencing  # noqa: PLC0415
    except ImportError:
        return None
    cls = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    # A registry of its own fetches nothing from the network.
    return cls(schema, registry=referencing.Registry())


@functools.lru_cache(maxsize=64)  # the same few are asked for again and again
def _check(encoded: bytes) -> None:
    schema = msgspec.json.decode(encoded)
    validator = _validator(schema)
    if validator is None:
        return
    import jsonschema  # noqa: PLC0415  # optional, and only needed here
    import jsonschema_specifications  # type: ignore[import-untyped]  # noqa: PLC0415
    import referencing.jsonschema  # noqa: PLC0415

    try:
        type(validator).check_schema(schema)
        specification = referencing.jsonschema.specification_with(
            validator.META_SCHEMA.get("$schema", ""), default=referencing.jsonschema.DRAFT202012
        )
        root = specification.create_resource(schema)
        resolver = jsonschema_specifications.REGISTRY.resolver_with_root(root)
        for target, near in _references(root, resolver):
            near.lookup(target)
    except jsonschema.SchemaError as error:
        raise ConfigurationError(
            f"response_format is no JSON Schema: {error.message} - at `{error.json_path}`"
        ) from None
    except referencing.exceptions.Unresolvable:
        raise ConfigurationError(
            f"response_format is no JSON Schema: the reference {target!r} leads nowhere"
        ) from None
    except RecursionError:
        raise ConfigurationError(_ENDLESS) from None


def _references(resource: Any, resolver: Any) -> Iterator[tuple[str, Any]]:
    """Yield every reference, with what looks it up from its place."""
    contents = resource.contents
    if isinstance(contents, Mapping):
        for word in ("$ref", "$dynamicRef"):
            if isinstance(target := contents.get(word), str):
                yield target, resolver
    for inner in resource.subresources():
        yield from _references(inner, resolver.in_subresource(inner))
