"""Tool calls that come in fragments."""

from __future__ import annotations

from typing import Any

import msgspec

from ..events import ToolCall

__all__ = ["ToolCallBuilder"]


class ToolCallBuilder:
    """The fragments of one tool call.

    Attributes:
        index: Its place among the calls of this answer.
        indexed: Whether the provider gives it an index.
        id: The provider's identifier, once it came.
        name: The tool's name, once it came.
        pieces: The arguments' JSON text so far, in pieces.
        signature: The provider's proof of the reasoning behind the call.
    """

    __slots__ = (
        "_look_no_more_at",
        "_looked_at",
        "id",
        "index",
        "indexed",
        "name",
        "pieces",
        "signature",
    )

    def __init__(self, index: int, id: str | None, name: str) -> None:
        self.index = index
        self.indexed = False
        self.id = id
        self.name = name
        self.pieces: list[str] = []
        self.signature: str | None = None
        self._looked_at = 0
        self._look_no_more_at = 0

    def is_whole(self) -> bool:
        """Whether the arguments are a complete JSON object so far.

        After many looks in vain the answer is no: each costs what the text is long.
        """
        if not self.pieces or not self.pieces[-1].rstrip().endswith("}"):
            return False
        if self._looked_at > self._look_no_more_at:
            return False
        size = len(self.text)
        self._looked_at += size
        self._look_no_more_at = 8 * size + 65536
        return self.build().error is None

    @property
    def text(self) -> str:
        """The arguments' JSON text so far."""
        if len(self.pieces) > 1:
            self.pieces = ["".join(self.pieces)]
        return self.pieces[0] if self.pieces else ""

    def build(self) -> ToolCall:
        """Return the complete call. No arguments at all mean an empty object."""
        text = self.text
        error = None
        arguments: Any = {}
        if text.strip():
            try:
                arguments = msgspec.json.decode(text)
            except (msgspec.DecodeError, RecursionError) as problem:
                error = f"the arguments are not valid JSON: {problem}"
            else:
                if not isinstance(arguments, dict):
                    error = "the arguments are not a JSON object"
        return ToolCall(
            id=self.id,
            name=self.name,
            arguments={} if error else arguments,
            arguments_text=text,
            error=error,
            signature=self.signature,
        )
