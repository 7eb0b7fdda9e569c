"""Lenient reading of JSON: what does not fit must not kill a stream that can be read without it."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from ..errors import ProtocolError

__all__ = [
    "decode_json",
    "lenient_convert",
    "lenient_decode",
    "map_strings",
    "objects_in",
    "plain_decode",
    "prepare",
    "text_or_none",
]

T = TypeVar("T")
_CONSTANTS = {"-Infinity": float("-inf")}


def lenient_decode(data: str, type_: type[T], decoder: msgspec.json.Decoder[T]) -> T | Any:
    """Decode JSON into a struct that names only the fields we read.

    A field of an unexpected type must not kill a stream that can be read without it: then the
    value is converted field by field, and what does not fit takes its default.

    Returns:
        The struct; or the plain value, if the JSON is no object at all.

    Raises:
        ProtocolError: It is not JSON.
    """
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, RecursionError):  # a wrong type is a DecodeError, too
        value = decode_json(data)
    return lenient_convert(value, type_) if isinstance(value, dict) else value


def decode_json(data: str) -> Any:
    """Decode JSON, also where it is only JavaScript's idea of it.

    Gateways written in JavaScript or Python have been seen to cut an emoji between its two
    surrogates, and to print `NaN`. Half a character becomes U+FFFD, a number that is none `None`;
    `-Infinity` is one, the logarithm of a probability of zero.

    Raises:
        ProtocolError: It is not JSON in anybody's reading.
    """
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        complaint = f"not valid JSON in the stream: {error}: {data[:200]!r}"
    try:
        return map_strings(_without_surrogates, json.loads(data, parse_constant=_CONSTANTS.get))
    except (ValueError, RecursionError):
        raise ProtocolError(complaint) from None


def _without_surrogates(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def map_strings(change: Callable[[str], str], value: Any) -> Any:
    """Return a decoded JSON value with every string in it changed, the objects' names included.

    It may be nested more deeply than functions can call each other.
    """
    todo: list[Any] = []

    def changed(item: Any) -> Any:
        if isinstance(item, str):
            return change(item)
        if isinstance(item, (list, dict)):
            item = item.copy()
            todo.append(item)
        return item

    root = changed(value)
    while todo:
        node = todo.pop()
        if isinstance(node, list):
            node[:] = map(changed, node)
        else:
            items = [(change(name), changed(item)) for name, item in node.items()]
            node.clear()
            node.update(items)
    return root


def prepare(*types: type[Struct]) -> None:
    """Let msgspec prepare types before several threads use them at once (see `llm_sse.chat`)."""
    for type_ in types:
        with suppress(msgspec.ValidationError):
            msgspec.convert({}, type_)


def lenient_convert(value: Any, type_: Any) -> Any:
    """Convert what can be converted; `None` or the field's default stands for what cannot."""
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError:
        pass
    for option in (type_, *get_args(type_)):
        if isinstance(value, list) and get_origin(option) is list:
            items = (lenient_convert(item, get_args(option)[0]) for item in value)
            return [item for item in items if item is not None]
        if isinstance(value, dict) and _is_struct(option):
            return option(**_lenient_fields(value, option))
    return None


def _is_struct(option: Any) -> bool:
    """Whether a type is a struct; on 3.10 `dict[str, Any]` passes for a class, but is none."""
    return get_origin(option) is None and isinstance(option, type) and issubclass(option, Struct)


def _lenient_fields(value: dict[str, Any], type_: type[Struct]) -> dict[str, Any]:
    hints = get_type_hints(type_)
    converted = {
        field.name: lenient_convert(value[field.encode_name], hints[field.name])
        for field in msgspec.structs.fields(type_)
        if field.encode_name in value
    }
    return {name: field for name, field in converted.items() if field is not None}


def plain_decode(data: str) -> Any:
    """Decode what is said to be an error: its JSON, or the text itself where it is none."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return data


def text_or_none(value: Any) -> str | None:
    """Return a text; nothing at all where it is empty or no text."""
    return value if isinstance(value, str) and value else None


def objects_in(values: Any) -> list[dict[str, Any]]:
    """Return the objects in what should be a list of them."""
    return [one for one in values if isinstance(one, dict)] if isinstance(values, list) else []
