"""What form the answer shall have, and what it then is: `response_format=`.

::

    response_format=Recipe --read_format()--> ResponseFormat --provider--> the request
    Completion.text --json_text()--> JSON --parse_output()--> Recipe(...)

A typed class is described by its JSON Schema, and the answer is decoded into it: what comes out has
been checked against the class by msgspec, or by pydantic for what is made of its models.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from .errors import ConfigurationError, InvalidOutputError
from .json_schema import Unfit, check_size, inlined_root, is_strict, strict_schema
from .json_text import json_text
from .own_schema import check_value, read_schema
from .response_format import WRAPPER, ResponseFormat, read_format
from .typed import Misfit, decode_typed, once_per_class, schema_of

__all__ = ["ending_problem", "format_of", "invalid_output", "parse_output"]

_SHOWN_CHARS = 200


def format_of(given: Any) -> ResponseFormat | None:
    """Read what a caller gave: a type, a JSON Schema, OpenAI's own objects, or a word.

    Raises:
        ConfigurationError: It is none of these.
    """
    if isinstance(given, str):
        if given != "json_object":
            raise ConfigurationError(
                f"response_format cannot be {given!r}: pass a class, a JSON Schema, "
                "or 'json_object' for any JSON object"
            )
        return ResponseFormat(name="answer")
    if not isinstance(given, Mapping):
        return _typed_format(given)
    kind = given.get("type")
    if kind == "text":
        _check_keys(given, "type")
        return None
    if kind == "json_object":
        _check_keys(given, "type", "schema")  # llama.cpp takes the schema there
        schema = given.get("schema")
        return ResponseFormat(name="answer") if schema is None else _schema_format(schema)
    if kind == "json_schema":
        return _openai_format(given)
    return _schema_format(given)


def parse_output(completion: Any, response_format: Any) -> Any:
    """Return the value that an answer is.

    Args:
        completion: The whole answer, a `Completion`.
        response_format: What was asked for; `None` is any JSON.

    Raises:
        InvalidOutputError: The answer is not that, or is no answer.
        ConfigurationError: `response_format` is nothing that can be asked for.
    """
    format_ = read_format(response_format)
    problem = ending_problem(completion)
    if problem is not None:
        raise invalid_output(completion, problem)
    found = json_text(completion.text)
    text = found.strip()
    cut = completion.finish_reason == "length"
    # Half a number would be a number, too.
    if not text or (cut and found[-1] not in '}]"\r\n\t '):
        raise invalid_output(completion, None)
    try:
        msgspec.json.decode(text, type=msgspec.Raw)  # is it JSON at all?
        value = _parser(response_format, format_)(text)
    except Misfit as error:
        raise invalid_output(completion, f"the answer does not fit: {error}") from error.__cause__
    except (msgspec.ValidationError, RecursionError) as error:
        raise invalid_output(completion, f"the answer does not fit: {error}") from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise invalid_output(completion, None, str(error)) from None
    return value


def ending_problem(completion: Any) -> str | None:
    """Say why an answer's end leaves no value, whatever its text; `None` where it may have one."""
    if completion.refusal:
        return f"the model refused: {completion.refusal}"
    if completion.tool_calls:
        names = ", ".join(call.name for call in completion.tool_calls)
        return f"the model calls tools ({names}) instead of answering"
    if completion.finish_reason is None:
        return "the answer broke off"
    if completion.finish_reason == "content_filter":
        word = completion.raw_finish_reason or "content_filter"
        said = f": {completion.text[:_SHOWN_CHARS]!r}" if completion.text else ""
        return f"the provider stopped the answer ({word}){said}"
    return None


def invalid_output(
    completion: Any, problem: str | None, detail: str | None = None
) -> InvalidOutputError:
    """Make the error for an answer without a value.

    Args:
        completion: The answer.
        problem: What is wrong; `None` where its text is not JSON, as far as it goes.
        detail: What the parser says of that text.
    """
    if problem is None:
        if completion.finish_reason == "length":
            problem = (
                "the answer was cut by the limit of tokens "
                f"after {len(completion.text)} characters; pass a larger max_tokens"
            )
        elif not completion.text.strip():
            problem = "the answer is empty"
        else:
            why = f" ({detail})" if detail else ""
            problem = f"the answer is not JSON{why}: {completion.text[:_SHOWN_CHARS]!r}"
            if completion.finish_reason != "stop":
                problem += f"; it ended with {completion.raw_finish_reason!r}"
    prefix = f"{completion.provider}: " if completion.provider else ""
    error = InvalidOutputError(prefix + problem, provider=completion.provider)
    error.completion = completion
    return error


@once_per_class
def _typed_format(type_: Any) -> ResponseFormat:
    schema = inlined_root(schema_of(type_))
    wrapped = schema.get("type") != "object"
    if wrapped:
        definitions = schema.pop("$defs", None)
        schema = {"type": "object", "properties": {WRAPPER: schema}, "required": [WRAPPER]}
        if definitions:
            schema["$defs"] = definitions
    name = _name(getattr(type_, "__name__", None))
    try:
        fitted = strict_schema(schema)
        check_size(fitted)
    except Unfit:
        return ResponseFormat(name=name, schema=schema, wrapped=wrapped)
    return ResponseFormat(name=name, schema=fitted, strict=True, wrapped=wrapped)


def _schema_format(given: Any) -> ResponseFormat:
    schema = read_schema(given)
    strict = schema.get("type") == "object" and is_strict(schema)
    return ResponseFormat(name=_name(schema.get("title")), schema=schema, strict=strict)


def _openai_format(given: Mapping[str, Any]) -> ResponseFormat:
    """Read `{"type": "json_schema", "json_schema": {...}}`, and the flat form of Responses."""
    inner = given
    if given.get("json_schema") is not None:
        _check_keys(given, "type", "json_schema")
        inner = given["json_schema"]
    if not isinstance(inner, Mapping) or not isinstance(inner.get("schema"), Mapping):
        raise ConfigurationError(
            'response_format must look like {"type": "json_schema", "json_schema": '
            '{"name": ..., "schema": {...}}}'
        )
    _check_keys(inner, "name", "schema", "strict", "description", *(["type"] * (inner is given)))
    name, strict, description = (inner.get(key) for key in ("name", "strict", "description"))
    if not isinstance(name, str) or _name(name) != name:
        raise ConfigurationError(
            f"response_format: the name must be 1 to 64 letters, digits, '_' and '-', not {name!r}"
        )
    if not isinstance(strict, (bool, type(None))):
        raise ConfigurationError(f"response_format: strict must be a bool, not {strict!r}")
    if not isinstance(description, (str, type(None))):
        raise ConfigurationError(f"response_format: description must be a str, not {description!r}")
    return ResponseFormat(
        name=name,
        schema=read_schema(inner["schema"]),
        strict=strict is True,
        description=description,
    )


def _check_keys(given: Mapping[str, Any], *known: str) -> None:
    """Refuse what no provider would be told."""
    unknown = [key for key, value in given.items() if key not in known and value is not None]
    if unknown:
        raise ConfigurationError(
            f"response_format: no key {unknown[0]!r} is known beside {', '.join(known)}; what only "
            "one provider knows goes into extra_body"
        )


def _name(name: object) -> str:
    """Return a name that all providers take."""
    return re.sub(r"[^a-zA-Z0-9_-]+", "_", name if isinstance(name, str) else "")[:64] or "answer"


def _parser(given: Any, format_: ResponseFormat | None) -> Callable[[str], Any]:
    """Return what makes a value of a JSON text, and raises where it does not fit."""
    if format_ is None:
        return msgspec.json.decode
    if not isinstance(given, (str, Mapping, ResponseFormat)):
        decode = _decode_wrapped if format_.wrapped else decode_typed
        return lambda text: decode(text, given)
    if format_.schema is None:
        return lambda text: msgspec.json.decode(text, type=dict[str, Any])
    schema = format_.schema
    return lambda text: check_value(msgspec.json.decode(text), schema)


def _decode_wrapped(text: str, type_: Any) -> Any:
    """Take the answer out of its object; a model that was not held to it may have left it out."""
    try:
        fields = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:
        fields = {}
    if set(fields) != {WRAPPER}:
        return decode_typed(text, type_)
    try:
        return decode_typed(bytes(fields[WRAPPER]), type_)
    except Misfit:
        with suppress(Misfit):  # the type may have a field of that name
            return decode_typed(text, type_)
        raise
