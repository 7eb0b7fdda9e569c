"""Tools: what a model may ask the caller to run, described by hand or read from a function.

::

    def weather(city: str, unit: Literal["C", "F"] = "C") -> str:
        '''Tell the current weather in a city.'''

    tool = Tool.from_function(weather)
    tool.parameters  # {"type": "object", "properties": {"city": {"type": "string"}, ...}, ...}
    tool.call({"city": "Oslo"})  # checks and converts the arguments, then calls weather("Oslo")

`tool_signature` reads the function, and is imported only then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import UNSET, Struct

__all__ = ["FunctionTool", "Tool"]


class Tool(Struct, frozen=True):
    """A function that the model may ask the caller to run.

    Attributes:
        name: Its name.
        description: What it does and when to use it, for the model.
        parameters: Its parameters, as a JSON Schema object.
    """

    name: str
    description: str = ""
    parameters: dict[str, Any] = msgspec.field(
        default_factory=lambda: {"type": "object", "properties": {}}
    )

    @classmethod
    def from_function(
        cls,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
    ) -> FunctionTool:
        """Describe a function: its name, its docstring and its annotations are the description.

        Parameters with a default may be left out by the model. What the default is stands nowhere
        in the description, because it may be a secret; one of `None` lets the model give `null`,
        too. The annotations can be whatever
        msgspec can check: the types of JSON, `Literal`, enums, `Optional`, dataclasses,
        `TypedDict`s, `Struct`s, dates, `Annotated[..., msgspec.Meta(description=...)]`. What a
        parameter is for is taken from the docstring, too, if `docstring-parser` is installed (the
        extra `tools`); without it the whole docstring is the description.

        Args:
            function: A function, a method, a `functools.partial` (what it has bound is not shown
                to the model), or an object with `__call__`.
            name: The tool's name; else the function's.
            description: What it does; else the docstring's text.

        Raises:
            ConfigurationError: The model could not call it.
        """
        from .tool_signature import read_function  # noqa: PLC0415  # inspect takes long to import

        return read_function(function, name, description)


class FunctionTool(Tool, frozen=True, kw_only=True):
    """A tool that knows its function; `Tool.from_function` makes it.

    Attributes:
        function: What runs when the model asks for it.
        signature: The parameters as a struct, which checks and converts the arguments. Its fields
            are numbered: only what is encoded has the parameters' names.
    """

    function: Callable[..., Any]
    signature: type[Struct]

    def call(self, arguments: Mapping[str, Any]) -> Any:
        """Check and convert what the model gave, then call the function with it.

        Raises:
            msgspec.ValidationError: The arguments are not what the annotations ask for.
        """
        return self.function(**self.convert(arguments))

    def convert(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Check and convert arguments; those that were left out stay out.

        Raises:
            msgspec.ValidationError: They are not what the annotations ask for.
        """
        try:
            values = msgspec.convert(arguments, self.signature)
        except msgspec.ValidationError as problem:
            try:  # 3.0 is an integer in JSON Schema
                values = msgspec.convert(_with_integers(arguments), self.signature)
            except msgspec.ValidationError:
                raise problem from None
        fields = zip(
            self.signature.__struct_encode_fields__, self.signature.__struct_fields__, strict=True
        )
        named = ((name, getattr(values, field)) for name, field in fields)
        return {name: value for name, value in named if value is not UNSET}


def _with_integers(value: Any) -> Any:
    """Write numbers without a fraction as integers, as deep as they stand."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {name: _with_integers(item) for name, item in value.items()}
    return [_with_integers(item) for item in value] if isinstance(value, list) else value
