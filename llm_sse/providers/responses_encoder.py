"""The provider's side of OpenAI Responses: what a server writes, streamed or whole."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from ..completion import Completion
from ..errors import APIError, InvalidRequestError
from ..events import (
    Citation,
    Event,
    Finish,
    FinishReason,
    Logprobs,
    ReasoningDelta,
    RefusalDelta,
    StreamStart,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    Unknown,
    Usage,
)
from ..logprobs import token_object
from ..sse import encode_sse

__all__ = [
    "INCOMPLETE",
    "Encoder",
    "error_object",
    "output_items",
    "response_object",
    "usage_object",
]

#: Why a response is incomplete. What is not listed (`max_messages`, `steered`) is `other`.
INCOMPLETE: dict[str, FinishReason] = {
    "max_output_tokens": "length",
    "content_filter": "content_filter",
}
_DETAILS: dict[FinishReason, str] = {reason: word for word, reason in INCOMPLETE.items()}


def usage_object(usage: Usage) -> Any:
    """Write `usage`: the provider's own object, or one made from the normalised figures."""
    if usage.raw:
        return usage.raw
    input_tokens, output_tokens = usage.input_tokens or 0, usage.output_tokens or 0
    return {
        "input_tokens": input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_input_tokens,
            "cache_write_tokens": 0,
        },
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": input_tokens + output_tokens,
    }


def error_object(error: APIError) -> dict[str, Any]:
    """Write an error as OpenAI does, in a body or inside a stream."""
    kind = "invalid_request_error" if isinstance(error, InvalidRequestError) else "server_error"
    if error.status in (401, 403):
        kind = "authentication_error" if error.status == 401 else "permission_error"
    elif error.status == 429:
        kind = "rate_limit_error"
    return {"message": error.detail, "type": kind, "param": None, "code": error.code}


def _end(finish: Finish) -> tuple[str, str | None]:
    """Return the status with which a response ends for a reason, and why it is incomplete."""
    status = finish.raw_reason
    if status not in ("completed", "incomplete", "cancelled"):
        done = finish.reason in ("stop", "tool_calls")
        status = "completed" if done else "failed" if finish.reason == "error" else "incomplete"
    if status != "incomplete":
        return status, finish.message
    foreign = None if finish.raw_reason == "incomplete" else finish.raw_reason
    return status, finish.message or _DETAILS.get(finish.reason) or foreign


def response_object(
    start: StreamStart, finish: Finish | None, output: Any, usage: Any
) -> dict[str, Any]:
    """Write the response object, as it is before its end or at its end."""
    status, detail = ("in_progress", None) if finish is None else _end(finish)
    failed = {"code": "server_error", "message": detail or "The response failed."}
    return {
        "id": start.response_id or "",
        "object": "response",
        "created_at": 0,
        "status": status,
        "background": False,
        "error": failed if status == "failed" else None,
        "incomplete_details": {"reason": detail} if detail and status != "failed" else None,
        "instructions": None,
        "max_output_tokens": None,
        "model": start.model or "",
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": usage,
        "user": None,
        "metadata": {},
    }


def _text_part(
    text: str = "", annotations: Iterable[Any] = (), logprobs: Iterable[TokenLogprob] = ()
) -> dict[str, Any]:
    told = [token_object(token) for token in logprobs]
    return {"type": "output_text", "annotations": [*annotations], "logprobs": told, "text": text}


def _message_item(number: int, parts: list[dict[str, Any]]) -> dict[str, Any]:
    message = {"id": f"msg_{number}", "type": "message", "status": "completed"}
    return {**message, "role": "assistant", "content": parts}


def _reasoning_item(number: int, event: ReasoningDelta) -> dict[str, Any]:
    summary = [{"type": "summary_text", "text": event.text}] if event.text else []
    id_ = event.id or f"rs_{number}"
    item: dict[str, Any] = {"id": id_, "type": "reasoning", "summary": summary}
    if event.redacted is not None:
        item["encrypted_content"] = event.redacted
    if event.signature is not None:
        item["signature"] = event.signature
    return item


def _call_item(number: int, call: ToolCall) -> dict[str, Any]:
    if call.kind == "custom":
        return {
            "id": f"ctc_{number}",
            "type": "custom_tool_call",
            "status": "completed",
            "call_id": call.id or f"call_{number}",
            "name": call.name,
            "input": call.arguments_text,
        }
    return {
        "id": f"fc_{number}",
        "type": "function_call",
        "status": "completed",
        "call_id": call.id or f"call_{number}",
        "name": call.name,
        "arguments": call.arguments_text,
    }


def _annotation_object(citation: Citation) -> Any:
    place = {"type": "url_citation", "start_index": 0, "end_index": 0}
    source = {"url": citation.url or "", "title": citation.title or ""}
    passage = {} if citation.text is None else {"content": citation.text}
    return citation.raw or {**place, **source, **passage}


def output_items(completion: Completion) -> list[dict[str, Any]]:
    """Write the items of an answer: reasoning, message, calls."""
    output: list[dict[str, Any]] = []
    if completion.reasoning:
        output.append(_reasoning_item(0, ReasoningDelta(completion.reasoning)))
    parts: list[dict[str, Any]] = []
    if completion.text or completion.citations:
        annotations = map(_annotation_object, completion.citations)
        parts.append(_text_part(completion.text, annotations, completion.logprobs))
    if completion.refusal:
        parts.append({"type": "refusal", "refusal": completion.refusal})
    if parts:
        output.append(_message_item(len(output), parts))
    for call in completion.tool_calls:
        output.append(_call_item(len(output), call))
    return output


class _OpenCall:
    """A call whose fragments are being sent."""

    def __init__(self, place: int, item: dict[str, Any]) -> None:
        self.place = place
        self.item = item
        self.pieces: list[str] = []


class Encoder:
    """The same table, from right to left: an item at a time, but for calls."""

    def __init__(self, model: str) -> None:
        self._start = StreamStart(model, "resp_fake")
        self._usage: Any = None
        self._number = 0
        self._output: list[dict[str, Any]] = []
        self._item: dict[str, Any] | None = None
        self._place = 0
        self._part: dict[str, Any] | None = None
        self._pieces: list[str] = []
        self._calls: dict[int, _OpenCall] = {}

    def encode(self, event: Event) -> bytes:
        """Return the bytes for an event."""
        if isinstance(event, TextDelta):
            return self._text("output_text", event.text)
        if isinstance(event, StreamStart):
            self._start = event
            response = response_object(event, None, [], None)
            created = self._event("response.created", response=response)
            return created + self._event("response.in_progress", response=response)
        if isinstance(event, RefusalDelta):
            return self._text("refusal", event.text)
        if isinstance(event, ReasoningDelta):
            return self._reasoning(event)
        if isinstance(event, ToolCallDelta):
            return self._fragment(event)
        if isinstance(event, ToolCall):
            return self._call(event)
        if isinstance(event, Citation):
            return self._citation(event)
        if isinstance(event, Logprobs):
            return self._logprobs(event)
        if isinstance(event, Usage):
            self._usage = usage_object(event)
        elif isinstance(event, Finish):
            return self._finish(event)
        elif isinstance(event, Unknown):
            return _wire(_unknown_object(event))
        return b""

    def error(self, error: APIError) -> bytes:
        """Return `event: error`, nested as OpenAI sends it."""
        return self._event("error", error=error_object(error))

    def _event(self, kind: str, **fields: Any) -> bytes:
        event = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return _wire(event)

    def _add(self, item: dict[str, Any]) -> bytes:
        """Begin an item: it has its place in the output from now on."""
        self._output.append(item)
        begun = {**item, "status": "in_progress"}
        place = len(self._output) - 1
        return self._event("response.output_item.added", output_index=place, item=begun)

    def _done(self, place: int) -> bytes:
        item = self._output[place]
        return self._event("response.output_item.done", output_index=place, item=item)

    def _open(self, type_: str, item: dict[str, Any]) -> bytes:
        """Open a message or a reasoning item, unless one is open."""
        if self._item is not None and self._item["type"] == type_:
            return b""
        out = self._close()
        self._place = len(self._output)
        out += self._add({**item, "content" if type_ == "message" else "summary": []})
        self._item = self._output[self._place]
        return out

    def _open_part(self, part: dict[str, Any]) -> bytes:
        """Open a part of the open item, unless one of this kind is open."""
        if self._part is not None and self._part["type"] == part["type"]:
            return b""
        assert self._item is not None
        out = self._close_part()
        self._part, self._pieces = part, []
        summary = part["type"] == "summary_text"
        self._item["summary" if summary else "content"].append(part)
        kind = "reasoning_summary_part" if summary else "content_part"
        return out + self._event(f"response.{kind}.added", **self._at(), part=part)

    def _at(self) -> dict[str, Any]:
        """Return the marks of the open part."""
        assert self._item is not None
        name = "content" if self._item["type"] == "message" else "summary"
        index = {f"{name}_index": len(self._item[name]) - 1}
        return {"item_id": self._item["id"], "output_index": self._place, **index}

    def _text(self, type_: str, text: str) -> bytes:
        out = self._open("message", _message_item(len(self._output), []))
        part = _text_part() if type_ == "output_text" else {"type": "refusal", "refusal": ""}
        out += self._open_part(part)
        self._pieces.append(text)
        more: dict[str, Any] = {"logprobs": []} if type_ == "output_text" else {}
        return out + self._event(f"response.{type_}.delta", **self._at(), delta=text, **more)

    def _reasoning(self, event: ReasoningDelta) -> bytes:
        """Write plain reasoning as a summary in pieces; what is sealed is an item of its own."""
        if event.signature is not None or event.redacted is not None:
            out = self._close()
            item = _reasoning_item(len(self._output), event)
            return out + self._add(item) + self._done(len(self._output) - 1)
        item = _reasoning_item(len(self._output), ReasoningDelta())
        out = self._open("reasoning", item)
        out += self._open_part({"type": "summary_text", "text": ""})
        self._pieces.append(event.text)
        kind = "response.reasoning_summary_text.delta"
        return out + self._event(kind, **self._at(), delta=event.text)

    def _citation(self, citation: Citation) -> bytes:
        out = self._open("message", _message_item(len(self._output), []))
        out += self._open_part(_text_part())
        assert self._part is not None
        annotations = self._part["annotations"]
        annotations.append(_annotation_object(citation))
        return out + self._event(
            "response.output_text.annotation.added",
            **self._at(),
            annotation_index=len(annotations) - 1,
            annotation=annotations[-1],
        )

    def _logprobs(self, event: Logprobs) -> bytes:
        """Send tokens behind the text that they belong to; the whole part has them, too."""
        out = self._open("message", _message_item(len(self._output), []))
        out += self._open_part(_text_part())
        assert self._part is not None
        written = [token_object(token) for token in event.tokens]
        self._part["logprobs"] += written
        kind = "response.output_text.delta"
        return out + self._event(kind, **self._at(), delta="", logprobs=written)

    def _fragment(self, delta: ToolCallDelta) -> bytes:
        out = b""
        call = self._calls.get(delta.index)
        if call is None:
            out = self._close()
            place = len(self._output)
            item = _call_item(place, ToolCall(delta.id, delta.name or "", {}, ""))
            out += self._add(item)
            call = self._calls[delta.index] = _OpenCall(place, item)
        if not delta.arguments:
            return out
        call.pieces.append(delta.arguments)
        kind = "response.function_call_arguments.delta"
        marks = {"item_id": call.item["id"], "output_index": call.place}
        return out + self._event(kind, **marks, delta=delta.arguments)

    def _call(self, call: ToolCall) -> bytes:
        """Close the call whose fragments were sent; send another one whole."""
        out = b""
        index = self._index_of(call)
        if index is None and call.kind == "custom":
            out = self._close()
            out += self._add(_call_item(len(self._output), call))
            return out + self._done(len(self._output) - 1)
        if index is None:
            index = -1  # no fragment has it
            out = self._fragment(ToolCallDelta(index, call.id, call.name, call.arguments_text))
        return out + self._close_call(self._calls.pop(index))

    def _index_of(self, call: ToolCall) -> int | None:
        for index, open_ in self._calls.items():
            same = call.id is None or open_.item["call_id"] == call.id
            if same and open_.item["name"] == call.name:
                return index
        return None

    def _close_call(self, call: _OpenCall) -> bytes:
        whole = call.item["arguments"] = "".join(call.pieces)
        marks = {"item_id": call.item["id"], "output_index": call.place}
        kind = "response.function_call_arguments.done"
        out = self._event(kind, **marks, name=call.item["name"], arguments=whole)
        return out + self._done(call.place)

    def _close_part(self) -> bytes:
        """Say a part whole, twice: its text, and itself."""
        part = self._part
        if part is None:
            return b""
        name = "refusal" if part["type"] == "refusal" else "text"
        whole = part[name] = "".join(self._pieces)
        summary = part["type"] == "summary_text"
        kind = "reasoning_summary_text" if summary else part["type"]
        more = {"logprobs": part["logprobs"]} if kind == "output_text" else {}
        said = {name: whole, **more}
        out = self._event(f"response.{kind}.done", **self._at(), **said)
        kind = "reasoning_summary_part" if summary else "content_part"
        out += self._event(f"response.{kind}.done", **self._at(), part=part)
        self._part = None
        return out

    def _close(self) -> bytes:
        if self._item is None:
            return b""
        out = self._close_part() + self._done(self._place)
        self._item = None
        return out

    def _finish(self, finish: Finish) -> bytes:
        out = self._close()
        for index in list(self._calls):
            out += self._close_call(self._calls.pop(index))
        response = response_object(self._start, finish, self._output, self._usage)
        return out + self._event(f"response.{response['status']}", response=response)


def _unknown_object(event: Unknown) -> dict[str, Any]:
    """Return an event as it came; what came without a type is wrapped."""
    if isinstance(event.data, dict) and isinstance(event.data.get("type"), str):
        return event.data
    return {"type": event.kind, "data": event.data}


def _wire(fields: dict[str, Any]) -> bytes:
    return encode_sse(msgspec.json.encode(fields).decode(), event=fields["type"])
