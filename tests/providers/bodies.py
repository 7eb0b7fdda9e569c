"""Hand-written response bodies, and what a decoder makes of them."""

from __future__ import annotations

import json
from typing import Any

from llm_sse.chat import ChatRequest, make_chat
from llm_sse.completion import Accumulator, Completion
from llm_sse.errors import StreamError
from llm_sse.events import Event
from llm_sse.providers import PROVIDERS
from llm_sse.sse import ServerSentEvent

KEY = "sk-secret-0123456789"


class Decoded:
    """What came out of a decoder.

    Attributes:
        events: The events, in order.
        error: The error that ended them, or `None`.
        raw_finish_reason: The decoder's, at the end.
    """

    def __init__(self, provider: str, *wire: Any) -> None:
        self.events: list[Event] = []
        self.error: StreamError | None = None
        decoder = PROVIDERS[provider].decoder()
        try:
            for one in wire:
                wired = one if type(one) is ServerSentEvent else sse(one)
                for event in decoder.decode(wired):
                    self.events.append(event)
            for event in decoder.end():
                self.events.append(event)
        except StreamError as error:
            self.error = error
        self.raw_finish_reason = decoder.raw_finish_reason
        assert decoder.done

    @property
    def content(self) -> list[Event]:
        """The events without the first one and without the last one."""
        return self.events[1:-1]

    @property
    def completion(self) -> Completion:
        """The events, folded."""
        said = Accumulator()
        for event in self.events:
            said.add(event)
        return said.completion()


def sse(data: Any, event: str = "message") -> ServerSentEvent:
    """Return a wire event; what is no text goes as JSON."""
    return ServerSentEvent(data if isinstance(data, str) else json.dumps(data), event)


def ask(**arguments: Any) -> ChatRequest:
    """Return a request for the model `m`, asking `Hi` where nothing else is asked."""
    if "messages" not in arguments:
        arguments.setdefault("prompt", "Hi")
    return make_chat(
        arguments.pop("prompt", None),
        arguments.pop("messages", None),
        model=arguments.pop("model", "m"),
        **arguments,
    )


def body_of(provider: str, **arguments: Any) -> Any:
    """Return the JSON body that a provider gets."""
    row = PROVIDERS[provider]
    return json.loads(row.request(ask(**arguments), KEY, "https://host").body)
