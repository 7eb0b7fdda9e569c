"""What a function's signature says to a model: its name, its docstring, and a schema.

The schema and the check come from one `msgspec.Struct` that is made of the function's signature.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Optional, get_type_hints

import msgspec
from msgspec import UNSET, Struct

from .errors import ConfigurationError
from .tools import FunctionTool
from .typed import preparing

__all__ = ["read_function"]

#: What all providers take as a tool's name.
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_REF = "#/$defs/"
#: What of a schema no provider is told. A discriminator maps to definitions that are written out,
#: whose tags say the same; a default may be a key that only the function needs.
_LEFT_OUT = ("discriminator", "default")
#: Words of a schema whose values are no schemas.
_VALUES = ("enum", "const", "examples")


def read_function(
    function: Callable[..., Any], name: str | None, description: str | None
) -> FunctionTool:
    """Make a tool of a function; `Tool.from_function` says how.

    Raises:
        ConfigurationError: The model could not call it.
    """
    if not callable(function):
        raise ConfigurationError(
            f"a tool is made of a function, not of a {type(function).__name__}"
        )
    code = _code_of(function)
    name = _name_of(function, code) if name is None else name
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} cannot be a tool's name: pass name=... of letters, digits, _ and - only"
        )
    if inspect.iscoroutinefunction(code) or inspect.isasyncgenfunction(code):
        raise ConfigurationError(f"the tool {name!r} is async, and there is no event loop here")
    if inspect.isgeneratorfunction(code):
        raise ConfigurationError(
            f"the tool {name!r} is a generator, which a call does not run: let it return a list"
        )
    said, told = _documentation(_docstring(function, code), description)
    fields = _fields(function, code, name)
    # An UNSET default says that the argument was left out: then the function's own one counts. The
    # fields have names of our own, because a struct cannot have a field of any name (`__t`).
    signature = msgspec.defstruct(
        "Arguments",
        [
            (f"p{number}", type_) if each.default is each.empty else (f"p{number}", type_, UNSET)
            for number, (each, type_) in enumerate(fields)
        ],
        kw_only=True,
        forbid_unknown_fields=True,
        rename={f"p{number}": each.name for number, (each, _) in enumerate(fields)},
    )
    parameters = _parameters(signature, fields, name)
    for each, _ in fields:
        if each.name in told:
            parameters["properties"][each.name].setdefault("description", told[each.name])
    return FunctionTool(name, said, parameters, function=function, signature=signature)


def _code_of(function: Any) -> Any:
    """Return the function in the middle of partials, methods and callable objects."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif inspect.ismethod(function):
            function = function.__func__
        elif isinstance(function, type):
            return vars(function).get("__init__", function)
        elif not inspect.isroutine(function):
            function = type(function).__call__
        else:
            return function


def _name_of(function: Any, code: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isroutine(function) or isinstance(function, type):
        return function.__name__
    return type(function).__name__


def _docstring(function: Any, code: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    own = function if inspect.isroutine(function) or isinstance(function, type) else type(function)
    return inspect.getdoc(own) or inspect.getdoc(code) or ""


def _documentation(docstring: str, description: str | None) -> tuple[str, dict[str, str]]:
    """Return what a docstring says of the function, and of each parameter."""
    try:
        import docstring_parser  # noqa: PLC0415  # optional, and only needed here
    except ImportError:
        return docstring if description is None else description, {}
    parsed = docstring_parser.parse(docstring)
    if description is None:
        texts = (parsed.short_description, parsed.long_description)
        description = "\n\n".join(text for text in texts if text)
    told = {param.arg_name: param.description for param in parsed.params}
    return description, {name: text for name, text in told.items() if text}


def _fields(function: Any, code: Any, name: str) -> list[tuple[inspect.Parameter, Any]]:
    """Return the parameters that the model has to give, with their types."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
        hints = get_type_hints(code, include_extras=True)
    except Exception as error:  # an annotation is code, and may raise anything
        raise ConfigurationError(f"the tool {name!r} cannot be read: {error}") from None
    bound: set[str] = set()
    while isinstance(function, functools.partial):
        bound.update(function.keywords)
        function = function.func
    fields: list[tuple[inspect.Parameter, Any]] = []
    for parameter in parameters:
        if parameter.name in bound:
            continue
        which = f"the parameter {parameter.name!r} of the tool {name!r}"
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ConfigurationError(f"{which} has no fixed name: write its parameters out")
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise ConfigurationError(f"{which} is positional only, and a model names its arguments")
        if parameter.name not in hints:
            raise ConfigurationError(f"{which} has no annotation: the model must know its type")
        type_ = hints[parameter.name]
        # `days: int = None` is what people write, and mean that None may be given.
        fields.append((parameter, Optional[type_] if parameter.default is None else type_))
    return fields


class _Unreadable(TypeError):
    """A type is none that can be made of JSON; its text is the type's name."""


def _schema(type_: Any) -> dict[str, Any]:
    """Return a type's schema; let msgspec prepare it before several threads use it (see `chat`)."""
    with preparing:
        with suppress(msgspec.ValidationError):
            msgspec.convert({}, type_)
        return msgspec.json.schema(type_, schema_hook=_refuse)


def _refuse(type_: Any) -> dict[str, Any]:
    name = getattr(type_, "__qualname__", None)
    full = f"{type_.__module__}.{name}" if name else repr(type_)
    raise _Unreadable(full.removeprefix("builtins."))


def _parameters(
    signature: type[Struct], fields: Iterable[tuple[inspect.Parameter, Any]], name: str
) -> dict[str, Any]:
    """Return the parameters as one JSON Schema object."""
    for parameter, type_ in fields:
        try:
            _schema(type_)
        except Exception as error:  # what msgspec cannot do is a TypeError, mostly
            reason = str(error)
            if isinstance(error, _Unreadable):
                reason = (
                    f"there is no JSON for {error}: take a str and make it of that, or describe it "
                    "as a dataclass, a TypedDict or a msgspec.Struct"
                )
            raise ConfigurationError(
                f"the parameter {parameter.name!r} of the tool {name!r} has a type that cannot be "
                f"read from JSON: {reason}"
            ) from None
    schema = _schema(signature)
    definitions = schema.pop("$defs")
    own = definitions.pop(schema["$ref"].removeprefix(_REF))
    resolved: dict[str, Any] = _resolve(own, definitions, ())
    del resolved["title"]
    kept = _kept(resolved, definitions)
    return {**resolved, "$defs": kept} if kept else resolved


def _resolve(
    value: Any, definitions: Mapping[str, Any], inside: tuple[str, ...], *, is_schema: bool = True
) -> Any:
    """Put definitions where they are referred to: not every server looks them up.

    A type that holds itself cannot be written out, so its inner mention stays a reference.

    Args:
        value: A schema, a list of them, or the words and values in one.
        definitions: What is referred to.
        inside: The definitions that are being written out.
        is_schema: Whether its keys are a schema's words; else they are names of properties.
    """
    if isinstance(value, list):
        return [_resolve(item, definitions, inside) for item in value]
    if not isinstance(value, dict):
        return value
    name = value.get("$ref") if is_schema else None
    if isinstance(name, str):
        key = name.removeprefix(_REF)
        if key in inside:
            return {word: item for word, item in value.items() if word not in _LEFT_OUT}
        beside = {word: item for word, item in value.items() if word not in ("$ref", *_LEFT_OUT)}
        return {**_resolve(definitions[key], definitions, (*inside, key)), **beside}
    return {
        word: item
        if is_schema and word in _VALUES
        else _resolve(item, definitions, inside, is_schema=not (is_schema and word == "properties"))
        for word, item in value.items()
        if not (is_schema and word in _LEFT_OUT)
    }


def _kept(value: Any, definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the definitions that are still referred to, by each other, too."""
    kept: dict[str, Any] = {}
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item
        elif isinstance(item, dict):
            waiting += item.values()
            name = item.get("$ref")
            if isinstance(name, str) and (key := name.removeprefix(_REF)) not in kept:
                kept[key] = _resolve(definitions[key], definitions, tuple(definitions))
                waiting.append(kept[key])
    return kept
