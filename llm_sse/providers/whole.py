"""Answers that were not streamed, cut into the wire events that would have told them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from ..errors import ProtocolError
from ..sse import ServerSentEvent
from .lenient import decode_json

__all__ = ["WholeAnswer"]


class WholeAnswer:
    """The frames of an answer that was not streamed: one JSON body, retold as wire events.

    Args:
        retold: The provider's way to retell it.
        max_bytes: The most that the body may have.
    """

    content_type = "application/json"

    #: The beginning of a body that was complete JSON, whatever it says; empty before that.
    beginning = b""

    def __init__(
        self,
        retold: Callable[[dict[str, Any]], Iterable[Any]],
        *,
        max_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        self.ignored = bytearray()
        self._retold = retold
        self._max_bytes = max_bytes
        self._body = bytearray()

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """Keep the bytes: nothing is known before the last one.

        Raises:
            ProtocolError: The body is larger than `max_bytes`.
        """
        self._body += chunk
        if len(self._body) > self._max_bytes:
            raise ProtocolError(f"the answer is larger than {self._max_bytes} bytes")
        return []

    def end(self, *, dispatch_unfinished: bool = False) -> list[ServerSentEvent]:
        """Return the wire events; none where the body is no JSON object."""
        body, self._body = bytes(self._body), bytearray()
        try:
            answer = decode_json(body.decode("utf-8", "replace"))
            self.beginning = body[:1024]
        except ProtocolError:
            answer = None
        if not isinstance(answer, dict):
            self.ignored += body[:65536]
            return []
        return [
            ServerSentEvent(msgspec.json.encode(event).decode()) for event in self._retold(answer)
        ]
