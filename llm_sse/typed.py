"""A caller's types: their JSON Schemas, and the values that a JSON text is of them.

msgspec does the work, and pydantic for what is made of its models.

Thread: every function may be called from any thread.
"""

from __future__ import annotations

import dataclasses
import sys
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from .errors import ConfigurationError

__all__ = ["Misfit", "decode_typed", "once_per_class", "preparing", "schema_of"]

T = TypeVar("T")

#: msgspec prepares a caller's type when it is first used. Several threads that do so at once have
#: been seen to crash the interpreter (as of 0.22), so whoever may be the first holds this lock.
#: Reentrant, because annotations are code.
preparing = threading.RLock()


class Misfit(ValueError):
    """A value is JSON, and not what was asked for; the message says where."""


def once_per_class(make: Callable[[Any], T]) -> Callable[[Any], T]:
    """Remember what is made of a class for as long as the class lives; make it under the lock.

    What is made of other types, such as `list[int]`, is made anew each time.
    """
    known: weakref.WeakKeyDictionary[type, T] = weakref.WeakKeyDictionary()

    def made(type_: Any) -> T:
        with preparing:
            if not _is_class(type_):
                return make(type_)
            try:
                found = known.get(type_)
            except TypeError:  # its metaclass has made it unhashable
                return make(type_)
            if found is None:
                found = known[type_] = make(type_)
            return found

    return made


def schema_of(type_: Any) -> dict[str, Any]:
    """Return a type's JSON Schema; the type can be decoded into then.

    Raises:
        ConfigurationError: It has none, or nothing can be decoded into it.
    """
    try:
        with preparing:
            if (adapter := _pydantic_adapter(type_)) is not None:
                schema: dict[str, Any] = adapter.json_schema()
                return schema
            msgspec.json.Decoder(type_)  # a schema can be made of more than can be decoded
            return msgspec.json.schema(type_)
    except Exception as error:  # annotations are code, and may raise anything
        raise ConfigurationError(
            f"response_format cannot be {type_!r}: {_reason(error)}; pass a msgspec.Struct, a "
            "dataclass, a TypedDict, a pydantic model, or a JSON Schema"
        ) from None


def decode_typed(text: str | bytes, type_: Any) -> Any:
    """Decode a JSON text into a type that `schema_of` has seen.

    Raises:
        Misfit: The value does not fit, or the caller's own code refuses it.
        msgspec.DecodeError: The text is no JSON.
    """
    with preparing:
        adapter = _pydantic_adapter(type_)
        read = msgspec.json.Decoder(type_).decode if adapter is None else adapter.validate_json
    try:
        return read(text)
    except msgspec.ValidationError as error:
        raise Misfit(str(error)) from error
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise
    except Exception as error:  # validators and `__post_init__` may raise anything
        if adapter is not None and isinstance(error, sys.modules["pydantic"].ValidationError):
            found = error.errors(include_url=False)
            said = "; ".join(f"{one['msg']} - at `{_path(one['loc'])}`" for one in found)
        else:
            said = f"{type(error).__name__}: {error}"
        raise Misfit(said) from error


def _reason(error: Exception) -> str:
    """Return what a library says about a type, without its advice for other calls than ours."""
    said = getattr(error, "message", None)  # pydantic's own; a link follows in its str()
    if isinstance(said, str):
        return said.partition("\n\n")[0].rstrip(".")
    # msgspec puts its advice first.
    return str(error).partition("\n\n")[2] or str(error)


def _pydantic_adapter(type_: Any) -> Any:
    """Return pydantic's own reader of a type that has a model in it; `None` for any other type.

    Whoever has such a type has imported pydantic.
    """
    adapter = getattr(sys.modules.get("pydantic"), "TypeAdapter", None)
    if adapter is None:
        return None
    parts = list(_parts(type_))
    if not any(map(_is_model, parts)):
        return None
    for part in parts:
        if _is_class(part) and issubclass(part, Struct):
            raise TypeError(
                f"a pydantic model and the msgspec.Struct {part.__name__} cannot be in one type: "
                f"make {part.__name__} a dataclass or a pydantic model"
            )
    return adapter(type_)


def _is_class(type_: Any) -> bool:
    """Whether a type is a class; on 3.10 `list[int]` passes for one, but is none."""
    return isinstance(type_, type) and get_origin(type_) is None


def _is_model(type_: Any) -> bool:
    return _is_class(type_) and hasattr(type_, "__pydantic_validator__")


def _parts(type_: Any) -> Iterable[Any]:
    """Yield a type and all that are in it: what a generic is of, what fields are, aliases' values.

    What is in a model is left out: pydantic has looked at it already.
    """
    todo, seen = [type_], set()
    while todo:
        part = todo.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        inner = [*get_args(part), get_origin(part)]
        inner += [getattr(part, name, None) for name in ("__supertype__", "__value__")]
        if _is_class(part) and not _is_model(part):
            inner += _fields(part)
        todo += [one for one in inner if one is not None]


def _fields(type_: type) -> Iterable[Any]:
    """Return the types of a class's fields; none where it has none, or they cannot be read."""
    named = any(hasattr(type_, name) for name in ("__required_keys__", "_fields"))
    if not (named or dataclasses.is_dataclass(type_) or issubclass(type_, Struct)):
        return ()
    try:
        return get_type_hints(type_, include_extras=True).values()
    except Exception:  # the library that reads them next says what is wrong
        return ()


def _path(steps: tuple[int | str, ...]) -> str:
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
