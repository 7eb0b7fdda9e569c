"""Events as the parts of the AI SDK's UI message stream, version 1.

| event | parts |
| --- | --- |
| `StreamStart` | `start` (once), `start-step` |
| `TextDelta`, `RefusalDelta` | `text-start`, `text-delta`, `text-end` |
| `ReasoningDelta` | `reasoning-start`, `reasoning-delta`, `reasoning-end` |
| `ToolCallDelta` | `tool-input-start`, `tool-input-delta` |
| `ToolCall` | `tool-input-available`, or `tool-input-error` |
| `ToolResult` | `tool-output-available`, or `tool-output-error` |
| `Citation` | `source-url` |
| `Finish` | `finish-step`; at the end of all, `finish` |

Usage, and what has no part in the protocol, is not told; nor is a source that is no web page,
because its address becomes a link on a page. `finishReason` came with npm's `ai` 5.0.92: older
versions refuse it.

Source: https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol; for the fields that each part may have,
`packages/ai/src/ui-message-stream/ui-message-chunks.ts` of https://github.com/vercel/ai.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ..events import (
    CONTENT,
    Citation,
    Event,
    Finish,
    ReasoningDelta,
    RefusalDelta,
    StreamStart,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolResult,
)

__all__ = ["UIMessageChunks"]

#: The protocol's words, where they are not ours.
_REASONS = {"tool_calls": "tool-calls", "content_filter": "content-filter", "pause": "other"}


#: What may be a link: in others (`javascript:`) a page would run what a model has written.
_WEB = re.compile(r"https?://", re.IGNORECASE)


class UIMessageChunks:
    """One message while it is written.

    Args:
        tool_failed: What is said of a tool that failed; why is not the visitor's affair.
    """

    def __init__(self, tool_failed: str) -> None:
        self._tool_failed = tool_failed
        self._started = False
        self._in_step = False
        self._part: str | None = None
        self._parts = 0
        self._calls = 0
        self._sources = 0
        self._of_index: dict[int, str] = {}
        self._begun: list[tuple[str, str]] = []
        self._open: list[tuple[str, str]] = []
        self._finish: Finish | None = None

    def of(self, event: Event) -> Iterator[dict[str, Any]]:
        """Yield the parts for an event."""
        if isinstance(event, StreamStart) or (type(event) in CONTENT and not self._in_step):
            yield from self._begin()
        if isinstance(event, (TextDelta, RefusalDelta)):
            yield from self._delta("text", event.text)
        elif isinstance(event, ReasoningDelta):
            yield from self._delta("reasoning", event.text)
        elif isinstance(event, ToolCallDelta):
            yield from self._fragment(event)
        elif isinstance(event, ToolCall):
            yield from self._call(event)
        elif isinstance(event, ToolResult):
            yield from self._result(event)
        elif isinstance(event, Citation):
            yield from self._source(event)
        elif isinstance(event, Finish):
            self._finish = event

    def end(self) -> Iterator[dict[str, Any]]:
        """Yield the parts that end the message."""
        yield from self._end_step()
        reason = "stop" if self._finish is None else self._finish.reason
        yield {"type": "finish", "finishReason": _REASONS.get(reason, reason)}

    def _begin(self) -> Iterator[dict[str, Any]]:
        """Begin a step; a further attempt at the same answer goes on with it."""
        if self._in_step and self._finish is None:
            return
        yield from self._end_step()
        if not self._started:
            self._started = True
            yield {"type": "start"}
        self._in_step = True
        self._finish = None
        self._of_index.clear()
        yield {"type": "start-step"}

    def _end_step(self) -> Iterator[dict[str, Any]]:
        yield from self._end_part()
        if self._in_step:
            self._in_step = False
            yield {"type": "finish-step"}

    def _delta(self, kind: str, text: str) -> Iterator[dict[str, Any]]:
        if not text:
            return
        if self._part != kind:
            yield from self._end_part()
            self._part = kind
            self._parts += 1
            yield {"type": f"{kind}-start", "id": str(self._parts)}
        yield {"type": f"{kind}-delta", "id": str(self._parts), "delta": text}

    def _end_part(self) -> Iterator[dict[str, Any]]:
        if self._part is not None:
            yield {"type": f"{self._part}-end", "id": str(self._parts)}
            self._part = None

    def _fragment(self, delta: ToolCallDelta) -> Iterator[dict[str, Any]]:
        call_id = self._of_index.get(delta.index)
        if call_id is None:
            yield from self._end_part()
            call_id, name = self._new_id(delta.id), delta.name or ""
            self._of_index[delta.index] = call_id
            self._begun.append((call_id, name))
            yield {
                "type": "tool-input-start",
                "toolCallId": call_id,
                "toolName": name,
                "dynamic": True,
            }
        if delta.arguments:
            yield {
                "type": "tool-input-delta",
                "toolCallId": call_id,
                "inputTextDelta": delta.arguments,
            }

    def _call(self, call: ToolCall) -> Iterator[dict[str, Any]]:
        """A complete call ends the oldest of its fragments, or comes without any."""
        begun = next((one for one in self._begun if one[0] == call.id), None)
        begun = begun or next((one for one in self._begun if one[1] == call.name), None)
        if begun is not None:
            self._begun.remove(begun)
            call_id = begun[0]
        else:
            yield from self._end_part()
            call_id = self._new_id(call.id)
        self._open.append((call_id, call.name))
        part = {"toolCallId": call_id, "toolName": call.name, "dynamic": True}
        if call.error is None:
            yield {"type": "tool-input-available", **part, "input": call.arguments}
        else:
            error = {"input": call.arguments_text, "errorText": "the arguments are no JSON object"}
            yield {"type": "tool-input-error", **part, **error}

    def _result(self, result: ToolResult) -> Iterator[dict[str, Any]]:
        """Results come in the order of the calls; a call without an id is found by its name."""
        answered = next((one for one in self._open if one[0] == result.id), None)
        answered = answered or next((one for one in self._open if one[1] == result.name), None)
        if answered is not None:
            self._open.remove(answered)
        part = {"toolCallId": answered[0] if answered else result.id, "dynamic": True}
        if result.error is None:
            yield {"type": "tool-output-available", **part, "output": result.content}
        else:
            yield {"type": "tool-output-error", **part, "errorText": self._tool_failed}

    def _source(self, citation: Citation) -> Iterator[dict[str, Any]]:
        if not _WEB.match(citation.url or ""):
            return
        self._sources += 1
        part = {"type": "source-url", "sourceId": str(self._sources), "url": citation.url}
        yield part if citation.title is None else {**part, "title": citation.title}

    def _new_id(self, given: str | None) -> str:
        self._calls += 1
        return given or f"call_{self._calls}"
