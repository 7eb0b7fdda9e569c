"""Fold the events of a stream into what was said."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from typing import Any, TypeVar, overload

import msgspec
from msgspec import Struct

from .chat import Message
from .events import (
    Citation,
    Event,
    FellBack,
    Finish,
    FinishReason,
    Logprobs,
    ReasoningDelta,
    RefusalDelta,
    Retrying,
    StreamStart,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    Usage,
)

__all__ = ["MADE_UP", "Accumulator", "Completion", "assistant_turn"]

T = TypeVar("T")

#: How identifiers begin that a call without one is given, so that its result can name it.
MADE_UP = "call_made_"


class Completion(Struct, frozen=True, kw_only=True):
    """An answer as a whole, or as much of it as had arrived.

    Attributes:
        text: The visible answer.
        reasoning: The model's reasoning, or the provider's summary of it.
        refusal: The model's explanation why it will not answer.
        tool_calls: The tool calls in the order in which they began. A call that was cut off has
            its `error` set and what there was of it in `arguments_text`.
        citations: The sources that the answer names.
        usage: What the answer cost, where the provider said so; the sum of what all attempts told,
            of which one that was cut may have told nothing.
        finish_reason: Why the answer ended; `None` while it has not, or when it broke off.
        raw_finish_reason: The provider's own word for it. It can be there without a
            `finish_reason`: then the stream broke after the word and before its end.
        model: The model that answered, as the provider names it.
        response_id: The provider's identifier of the answer.
        provider: The provider's name.
        reasoning_details: The reasoning in pieces, where any of it is signed or encrypted and has
            to go back to the provider unchanged; `after_chars` of a piece says how much of the text
            stands before it.
        logprobs: The log-probabilities of the text's tokens, where they were asked for.
    """

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    citations: tuple[Citation, ...] = ()
    usage: Usage | None = None
    finish_reason: FinishReason | None = None
    raw_finish_reason: str | None = None
    model: str | None = None
    response_id: str | None = None
    provider: str | None = None
    reasoning_details: tuple[dict[str, Any], ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()

    @overload
    def parsed(self, response_format: type[T]) -> T: ...

    @overload
    def parsed(self, response_format: Any = None) -> Any: ...

    def parsed(self, response_format: Any = None) -> Any:
        """Return the value that the answer is, checked.

        White space, a Markdown fence around the JSON and prose around that fence are left out.

        Args:
            response_format: What was asked for, in any form that `stream_sync` takes. A type gives
                an instance of it, checked by msgspec, or by pydantic where its models are in it.
                A schema gives what JSON gives; it is checked against the schema if `jsonschema` is
                installed (the extra `structured`), and otherwise only that it is JSON.
                `json_object` gives a dictionary. `None` gives any JSON.

        Raises:
            InvalidOutputError: It is not that; or it was cut, refused, or is a tool call.
            ConfigurationError: `response_format` is nothing that can be asked for.
        """
        from .structured import parse_output  # noqa: PLC0415  # see `response_format`

        return parse_output(self, response_format)

    def message(self) -> Message:
        """Return the answer as the assistant's turn of a conversation.

        It holds what the provider wants back: calls, signatures, encrypted reasoning. It can go to
        any other provider as well, for whom that reasoning is left out. A call without an
        identifier is given one. Arguments that are no JSON object are wrapped in one, under
        `INVALID_JSON`, because no request could hold them otherwise.
        """
        return assistant_turn(self)


def assistant_turn(completion: Completion, salt: str = "") -> Message:
    """Return `completion.message()`; the identifiers that it makes up depend on the salt, too."""
    calls = [
        _call_object(call, call.id or _made_up_id(completion, index, salt))
        for index, call in enumerate(completion.tool_calls)
    ]
    details = [dict(detail) for detail in completion.reasoning_details]
    if not details and completion.reasoning:
        details = [{"type": "reasoning.text", "text": completion.reasoning}]
    if completion.provider is not None:
        for detail in details:
            detail["format"] = completion.provider
    return Message(
        role="assistant",
        content=completion.text + completion.refusal or None,
        tool_calls=calls or None,
        reasoning_details=details or None,
    )


def _call_object(call: ToolCall, id_: str) -> dict[str, Any]:
    if call.kind == "custom":
        custom = {"name": call.name, "input": call.arguments_text}
        return {"id": id_, "type": "custom", "custom": custom}
    arguments = call.arguments_text or "{}"
    if call.error is not None:
        arguments = msgspec.json.encode({"INVALID_JSON": call.arguments_text}).decode()
    encoded: dict[str, Any] = {
        "id": id_,
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }
    if call.signature is not None:
        encoded["extra_content"] = {"google": {"thought_signature": call.signature}}
    return encoded


def _made_up_id(completion: Completion, index: int, salt: str) -> str:
    """Make an identifier that this call always gets, and no call of another answer."""
    known = (salt, completion.response_id, completion.text, completion.tool_calls, index)
    return MADE_UP + hashlib.sha256(msgspec.json.encode(known)).hexdigest()[:16]


class Accumulator:
    """Add events one by one; ask for the `Completion` at any time.

    Thread: none of its own; whoever reads the events owns it.
    """

    def __init__(self, provider: str | None = None) -> None:
        self.text_deltas: list[str] = []
        self.raw_finish_reason: str | None = None
        self._provider = provider
        self._thoughts: list[tuple[ReasoningDelta, int, int]] = []
        self._opaque = False
        self._attempt = 0
        self._refusal: list[str] = []
        self._calls: list[ToolCall | _OpenCall] = []
        self._open: dict[int, _OpenCall] = {}
        #: Where a complete call finds its fragments: by identifier and name. Nearly always that is
        #: one call; several, which have no identifiers, stand in their order.
        self._fragments: dict[tuple[str | None, str], int | deque[int]] = {}
        self._citations: list[Citation] = []
        self._logprobs: list[TokenLogprob] = []
        self._earlier_usage: Usage | None = None
        self._usage: Usage | None = None
        self._finish: Finish | None = None
        self._start = StreamStart()

    def add(self, event: Event) -> None:
        """Fold in one event."""
        if isinstance(event, TextDelta):
            self.text_deltas.append(event.text)
        elif isinstance(event, ReasoningDelta):
            self._thoughts.append((event, len(self.text_deltas), self._attempt))
            self._opaque |= event.signature is not None or event.redacted is not None
        elif isinstance(event, RefusalDelta):
            self._refusal.append(event.text)
        elif isinstance(event, ToolCallDelta):
            self._add_fragment(event)
        elif isinstance(event, ToolCall):
            self._add_call(event)
        elif isinstance(event, Citation):
            self._citations.append(event)
        elif isinstance(event, Logprobs):
            self._logprobs += event.tokens
        elif isinstance(event, Usage):
            self._usage = event
        elif isinstance(event, Finish):
            self._finish = event
            self.raw_finish_reason = event.raw_reason
        elif isinstance(event, StreamStart):
            self._begin(event)
        elif isinstance(event, (Retrying, FellBack)):
            self._end_attempt()
            self._provider = getattr(event, "provider", self._provider)

    @property
    def usage(self) -> Usage | None:
        """What has been spent so far, over all attempts."""
        return add_usage(self._earlier_usage, self._usage)

    def completion(self) -> Completion:
        """Return what has been said so far."""
        finish = self._finish
        return Completion(
            text="".join(self.text_deltas),
            reasoning="".join(thought.text for thought, _, _ in self._thoughts),
            refusal="".join(self._refusal),
            tool_calls=tuple(
                call if isinstance(call, ToolCall) else call.as_cut_off() for call in self._calls
            ),
            citations=tuple(self._citations),
            usage=self.usage,
            finish_reason=finish.reason if finish else None,
            raw_finish_reason=self.raw_finish_reason,
            model=self._start.model,
            response_id=self._start.response_id,
            provider=self._provider,
            reasoning_details=tuple(self._details()) if self._opaque else (),
            logprobs=tuple(self._logprobs),
        )

    def _details(self) -> Iterator[dict[str, Any]]:
        """Yield the reasoning in pieces: a signature, a text or a new attempt ends one."""
        pieces: list[str] = []
        open_at: tuple[int, int] | None = None
        chars = counted = 0
        for thought, position, attempt in self._thoughts:
            if pieces and open_at != (position, attempt):
                yield _detail(chars, "reasoning.text", text="".join(pieces))
                pieces = []
            open_at = (position, attempt)
            chars += sum(map(len, self.text_deltas[counted:position]))
            counted = position
            if thought.text:
                pieces.append(thought.text)
            if thought.signature is not None:
                text, pieces = "".join(pieces), []
                yield _detail(chars, "reasoning.text", text=text, signature=thought.signature)
            if thought.redacted is not None:
                if pieces:
                    yield _detail(chars, "reasoning.text", text="".join(pieces))
                    pieces = []
                marks = {"id": thought.id} if thought.id is not None else {}
                yield _detail(chars, "reasoning.encrypted", data=thought.redacted, **marks)
        if pieces:
            yield _detail(chars, "reasoning.text", text="".join(pieces))

    def _begin(self, start: StreamStart) -> None:
        self._end_attempt()
        self._attempt += 1
        self._start = start

    def _end_attempt(self) -> None:
        """An attempt's usage is final when the next one begins."""
        self._earlier_usage = add_usage(self._earlier_usage, self._usage)
        self._usage = None

    def _add_fragment(self, delta: ToolCallDelta) -> None:
        call = self._open.get(delta.index)
        if call is None:
            call = self._open[delta.index] = _OpenCall(len(self._calls))
            self._calls.append(call)
        if delta.id or delta.name or not call.arguments:
            call.id = call.id or delta.id
            call.name = call.name or delta.name or ""
            self._remember((call.id, call.name), delta.index)
        call.arguments.append(delta.arguments)

    def _remember(self, key: tuple[str | None, str], index: int) -> None:
        known = self._fragments.setdefault(key, index)
        if isinstance(known, deque):
            known.append(index)
        elif known != index:
            self._fragments[key] = deque((known, index))

    def _add_call(self, call: ToolCall) -> None:
        """A complete call takes the place of its fragments, which came in the same order."""
        key = (call.id, call.name)
        known = self._fragments.pop(key, None)
        indices = known if isinstance(known, deque) else deque(() if known is None else (known,))
        while indices:
            index = indices.popleft()
            fragments = self._open.get(index)
            if fragments is not None and (fragments.id, fragments.name) == key:
                del self._open[index]
                self._calls[fragments.position] = call
                if indices:
                    self._fragments[key] = indices
                return
        self._calls.append(call)


def _detail(after_chars: int, type_: str, **fields: str) -> dict[str, Any]:
    place = {"after_chars": after_chars} if after_chars else {}
    return {"type": type_, **fields, **place}


class _OpenCall:
    """The fragments of a call that is not complete."""

    def __init__(self, position: int) -> None:
        self.position = position
        self.id: str | None = None
        self.name = ""
        self.arguments: list[str] = []

    def as_cut_off(self) -> ToolCall:
        return ToolCall(
            id=self.id,
            name=self.name,
            arguments={},
            arguments_text="".join(self.arguments),
            error="the stream ended before the call was complete",
        )


def add_usage(first: Usage | None, second: Usage | None) -> Usage | None:
    """Add up the usage of two attempts; the later provider object stays as `raw`."""
    if first is None or second is None:
        return first or second

    def plus(one: int | None, two: int | None) -> int | None:
        return two if one is None else one if two is None else one + two

    raw: Any = second.raw if second.raw is not None else first.raw
    return Usage(
        plus(first.input_tokens, second.input_tokens),
        plus(first.output_tokens, second.output_tokens),
        plus(first.cached_input_tokens, second.cached_input_tokens),
        plus(first.reasoning_tokens, second.reasoning_tokens),
        raw,
        plus(first.cache_creation_tokens, second.cache_creation_tokens),
    )
