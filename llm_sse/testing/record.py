"""What a fake provider was asked, and what became of the answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any, Literal, Union

import msgspec

__all__ = ["Outcome", "RecordedRequest"]

#: How an answer can end.
Outcome = Literal["complete", "cut", "disconnected", "refused"]


class RecordedRequest:
    """One request that the server got, and what became of its answer.

    Attributes:
        method: The HTTP method.
        path: The path, without the query.
        query: The query, without the question mark.
        headers: The headers; the names are lower-case.
        body: The body.
        provider: Who was asked; `None` where the path is nobody's.
        connection: Which connection it came on, counted from 1.
        sent_at: `time.monotonic()` of each text delta, taken immediately before its last byte is
            written to the socket. The text of an answer that is not streamed counts as one.
        outcome: How the answer ended; `None` while it has not. `complete`: the provider's last
            event was written, whatever happens after it. `cut`: the script broke the answer off.
            `disconnected`: the client (or the server's `close()`) ended the connection. `refused`:
            the answer was an error or a page.
        ended: Set when the answer has ended, once, and before the client can see it.
    """

    def __init__(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes, connection: int
    ) -> None:
        self.method = method
        self.path, _, self.query = target.partition("?")
        self.headers = dict(headers)
        self.body = body
        self.connection = connection
        self.provider: str | None = None
        self.sent_at: list[float] = []
        self.outcome: Union[Outcome, None] = None
        self.ended = threading.Event()

    @property
    def json(self) -> Any:
        """The body, decoded from JSON."""
        return msgspec.json.decode(self.body)

    @property
    def deltas_sent(self) -> int:
        """How many text deltas were written to the socket so far."""
        return len(self.sent_at)

    def sends_text(self) -> None:
        """Note that a text delta is about to be on the wire."""
        self.sent_at.append(time.monotonic())

    def end(self, outcome: Outcome) -> None:
        """Note how the answer ended; what is noted first counts."""
        if self.outcome is None:
            self.outcome = outcome
            self.ended.set()
