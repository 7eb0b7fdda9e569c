"""The form of an answer, as providers are told it.

What a caller gives as `response_format` is read by `structured`, which is not imported before there
is something to read: schemas, types and their libraries take longer to import than all the rest.
"""

from __future__ import annotations

from typing import Any, Union

from msgspec import Struct

__all__ = ["WRAPPER", "ResponseFormat", "read_format"]

#: The only property of the object that stands for an answer whose root is no object.
WRAPPER = "value"


class ResponseFormat(Struct, frozen=True, kw_only=True):
    """The form of an answer, in no provider's words.

    Attributes:
        name: What it is called, in letters, digits, `_` and `-`.
        schema: Its JSON Schema; `None` is any JSON object.
        strict: Whether the schema fits the strict mode of those that have one.
        description: What it is for, for the model.
        wrapped: Whether the answer is the one property `value` of an object, because its own root
            is none and some providers take nothing else.
    """

    name: str
    schema: Union[dict[str, Any], None] = None
    strict: bool = False
    description: Union[str, None] = None
    wrapped: bool = False

    def described_schema(self) -> dict[str, Any] | None:
        """Return the schema with the description in it, for who has no other place for that."""
        if self.schema is None or self.description is None:
            return self.schema
        own = self.schema.get("description")
        said = f"{self.description}\n{own}" if isinstance(own, str) and own else self.description
        return {**self.schema, "description": said}


def read_format(given: Any) -> ResponseFormat | None:
    """Read what a caller gave as `response_format`.

    A type is ready to be decoded into then.

    Args:
        given: A type, a JSON Schema, OpenAI's own objects, or the word `json_object`.

    Raises:
        ConfigurationError: It is none of these.
    """
    if given is None or isinstance(given, ResponseFormat):
        return given
    from .structured import format_of  # noqa: PLC0415  # see above

    return format_of(given)
