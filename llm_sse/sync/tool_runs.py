"""Run one call of a tool: convert its arguments, call the function, write down what came of it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import msgspec

from ..errors import ConfigurationError
from ..events import ToolCall, ToolResult
from ..tools import FunctionTool

__all__ = ["run_call"]

#: How much of what a model wrote is told to it again when it is no JSON, in characters.
_SHOWN_CHARS = 1000
#: The parts of a message that are no text, and what one of each has to hold to be one.
_MEDIA = {
    "image_url": ("url",),
    "file": ("file_data", "file_id"),
    "input_audio": ("data",),
}


def run_call(
    call: ToolCall, id_: str, functions: Mapping[str, FunctionTool | None], *, raises: bool
) -> ToolResult:
    """Run one call; whatever is wrong with it becomes its result.

    Args:
        call: What the model wrote.
        id_: The identifier that the call has in the conversation.
        functions: The tools by name.
        raises: Whether an exception of the caller's own code is let through instead.

    Raises:
        ConfigurationError: The function returned something that still has to run: the caller has
            to know that, not the model.
        Exception: Whatever the caller's code raised, with `raises`.
    """
    tool = functions.get(call.name)
    if call.error is not None:
        return _failed(call, id_, f"{call.error}; you wrote: {call.arguments_text[:_SHOWN_CHARS]}")
    if tool is None:
        names = ", ".join(functions)
        return _failed(call, id_, f"there is no tool {call.name!r}; there are: {names}")
    try:
        try:
            arguments = tool.convert(call.arguments)
        except (msgspec.ValidationError, RecursionError) as problem:
            return _failed(call, id_, f"the arguments are wrong: {problem}")
        except Exception as problem:  # of a class that the arguments are made into
            if raises:
                raise
            return _failed(call, id_, f"the arguments are wrong: {_said(problem)}")
        try:
            result = tool.function(**arguments)
            _check_finished(result)
            return ToolResult(id_, call.name, _content_of(result))
        except _Unfinished as problem:
            raise ConfigurationError(f"the tool {call.name!r} {problem}") from None
        except Exception as problem:
            if raises:
                raise
            return _failed(call, id_, _said(problem))
    except StopIteration as problem:
        # No iterator can let it through: whoever reads one takes it for the end.
        raise RuntimeError(f"the tool {call.name!r} raised StopIteration") from problem


def _failed(call: ToolCall, id_: str, error: str) -> ToolResult:
    error = error.encode("utf-8", "replace").decode()
    return ToolResult(id_, call.name, f"Error: {error}", error)


def _said(problem: Exception) -> str:
    """Return an exception's class and its text, if it can be asked for one."""
    name = type(problem).__name__
    try:
        return f"{name}: {problem}"
    except Exception:
        return name


class _Unfinished(Exception):
    """What a function returned is no value: it has yet to run."""


def _check_finished(result: Any) -> None:
    """Refuse what an async function, or one with a `yield` in it, returns behind a wrapper."""
    if inspect.iscoroutine(result):
        result.close()  # else Python warns that nobody has awaited it
    if inspect.isawaitable(result) or inspect.isasyncgen(result):
        raise _Unfinished("returned something to await, and there is no event loop here")
    if inspect.isgenerator(result):
        raise _Unfinished("returned a generator, of which nothing has run: return a list")


def _content_of(result: Any) -> str | list[dict[str, Any]]:
    """Return what the model is told: a text as it is, parts as parts, anything else as JSON."""
    encoded = msgspec.json.encode(result, enc_hook=_plain)  # a text, too: half a character could
    if isinstance(result, str):  # not be sent
        return str.__str__(result)
    parts = result if isinstance(result, list) else [result]
    if any(map(_is_media, parts)) and all(_is_media(part) or _is_text(part) for part in parts):
        written: Any = msgspec.json.decode(encoded)
        return written if isinstance(written, list) else [written]
    return encoded.decode()


def _plain(value: Any) -> Any:
    """Make a text or number of a class of its own, as other libraries return it, one of JSON's."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (int, float)):
        return float.__float__(value) if isinstance(value, float) else int.__int__(value)
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON")


def _is_media(part: Any) -> bool:
    """Whether this is what `image_part` and `file_part` make: other things have a type, too."""
    if not isinstance(part, dict) or not isinstance(kind := part.get("type"), str):
        return False
    inner = part.get(kind)
    return isinstance(inner, dict) and any(
        isinstance(inner.get(name), str) for name in _MEDIA.get(kind, ())
    )


def _is_text(part: Any) -> bool:
    if not isinstance(part, dict) or part.get("type") != "text":
        return False
    return isinstance(part.get("text"), str)
