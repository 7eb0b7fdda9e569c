"""The one event vocabulary: what a stream says, whichever provider speaks.

Every event is a frozen `msgspec.Struct` with a `type` tag, so that
`msgspec.json.encode(event)` is its JSON form and two events compare by value.

A well-formed stream is one `StreamStart`, any content events, at most one `Usage`, then one
`Finish`. Where log-probabilities were asked for, `Logprobs` follow the text that they belong to.
`Retrying`, `Resumed` and `FellBack` mark where a new attempt begins; a new `StreamStart` follows.

What `run_tools` tells is several such streams, with a `ToolResult` for each call between them.
"""

from __future__ import annotations

from typing import Any, Literal, Union

from msgspec import Struct, field

__all__ = [
    "CONTENT",
    "Citation",
    "Event",
    "FellBack",
    "Finish",
    "FinishReason",
    "Logprobs",
    "ReasoningDelta",
    "RefusalDelta",
    "Resumed",
    "Retrying",
    "StreamStart",
    "TextDelta",
    "TokenLogprob",
    "ToolCall",
    "ToolCallDelta",
    "ToolResult",
    "Unknown",
    "Usage",
]

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "pause", "error", "other"]


class StreamStart(Struct, frozen=True, tag="stream_start"):
    """The answer has begun.

    Attributes:
        model: The model that answers, as the provider names it.
        response_id: The provider's identifier of this answer.
    """

    model: str | None = None
    response_id: str | None = None


class TextDelta(Struct, frozen=True, tag="text_delta"):
    """A piece of the visible answer, as the provider cut it (not one model token)."""

    text: str


class ReasoningDelta(Struct, frozen=True, tag="reasoning_delta"):
    """A piece of the model's reasoning, or of the provider's summary of it.

    Attributes:
        text: The piece; empty when only a signature arrived.
        signature: The provider's opaque proof of the reasoning, to be sent back unchanged.
        redacted: Reasoning that the provider hands over encrypted only.
        id: The provider's identifier of what is encrypted, where it has one.
    """

    text: str = ""
    signature: str | None = None
    redacted: str | None = None
    id: str | None = None


class RefusalDelta(Struct, frozen=True, tag="refusal_delta"):
    """A piece of the model's explanation why it will not answer."""

    text: str


class ToolCallDelta(Struct, frozen=True, tag="tool_call_delta"):
    """A fragment of a tool call.

    Attributes:
        index: Which call of this answer, counted from 0 in the order in which they began.
        id: The call's identifier, on its first fragment.
        name: The tool's name, on its first fragment.
        arguments: The next piece of the arguments' JSON text; may be empty.
    """

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


class ToolCall(Struct, frozen=True, tag="tool_call"):
    """A complete tool call.

    Attributes:
        id: The provider's identifier of the call; `None` where the provider gives none.
        name: The tool's name.
        arguments: The arguments, parsed; empty when `error` is set.
        arguments_text: The arguments' JSON text as it arrived.
        error: Why the arguments could not be parsed, or `None`.
        signature: The provider's opaque proof of the reasoning behind the call (Gemini).
        kind: `custom` for a call of a tool that takes a free text (OpenAI Responses): this text is
            `arguments_text`, and `arguments` stays empty.
    """

    id: str | None
    name: str
    arguments: dict[str, Any]
    arguments_text: str
    error: str | None = None
    signature: str | None = None
    kind: Literal["function", "custom"] = "function"


_Bytes = bytes


class TokenLogprob(Struct, frozen=True):
    """One token of the model's, and how likely it was.

    Attributes:
        token: Its text, as far as it is text: a character may be cut between two tokens.
        logprob: The natural logarithm of its probability; -9999.0 where that is zero.
        bytes: Its UTF-8 bytes, where the provider tells them; those of several tokens make text.
        top: The most likely tokens at its place, itself often among them; these have no `top`.
    """

    token: str
    logprob: float
    bytes: _Bytes | None = None
    top: tuple[TokenLogprob, ...] = ()


class Logprobs(Struct, frozen=True, tag="logprobs"):
    """The log-probabilities of the text just told; they are no content themselves.

    Attributes:
        tokens: The tokens, in their order.
    """

    tokens: tuple[TokenLogprob, ...]


class Citation(Struct, frozen=True, tag="citation"):
    """A source that the answer names.

    Attributes:
        url: The source's address, where it has one.
        title: The source's title.
        text: The passage that is cited.
        raw: The provider's own object.
    """

    url: str | None = None
    title: str | None = None
    text: str | None = None
    raw: Any = None


class Usage(Struct, frozen=True, tag="usage"):
    """What the answer cost, in model tokens; final figures, once per answer.

    Attributes:
        input_tokens: All tokens of the prompt, cached ones included.
        output_tokens: All generated tokens, reasoning included.
        cached_input_tokens: How many of the input tokens came from the provider's cache.
        reasoning_tokens: How many of the output tokens were reasoning.
        raw: The provider's own object, untouched.
        cache_creation_tokens: How many of the input tokens were written to the provider's cache.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    reasoning_tokens: int | None = None
    raw: Any = None
    cache_creation_tokens: int | None = None


class Finish(Struct, frozen=True, tag="finish"):
    """The provider ended its answer; the last event of a stream.

    Attributes:
        reason: Why, in this library's words.
        raw_reason: Why, in the provider's word.
        message: The provider's explanation, where it gives one.
    """

    reason: FinishReason
    raw_reason: str | None = None
    message: str | None = None


class Retrying(Struct, frozen=True, tag="retrying"):
    """An attempt failed before any content; another one follows.

    Attributes:
        attempt: Which retry this is, counted from 1.
        delay_s: How long the wait is, in seconds.
        error: What went wrong.
    """

    attempt: int
    delay_s: float
    error: str


class Resumed(Struct, frozen=True, tag="resumed"):
    """The connection was lost in mid-answer; what follows continues the text.

    Attributes:
        attempt: Which resumption this is, counted from 1.
        offset_chars: How many characters of visible text stand before the seam.
        error: What went wrong.
    """

    attempt: int
    offset_chars: int
    error: str


class FellBack(Struct, frozen=True, tag="fell_back"):
    """A provider failed, or was late, before any content; another one is asked.

    Attributes:
        failed: The provider that gave no answer.
        provider: The provider that is asked now.
        error: What went wrong.
    """

    failed: str
    provider: str
    error: str


class ToolResult(Struct, frozen=True, tag="tool_result"):
    """A tool has run, and its result goes to the model; `run_tools` tells it, no provider.

    Attributes:
        id: Which call it answers: the identifier that the call has in the conversation.
        name: The tool's name.
        content: What the model is told: a text, or parts as in a message's content.
        error: Why the call failed, or `None`; the model is told that, too.
    """

    id: str
    name: str
    content: Union[str, list[dict[str, Any]]]
    error: str | None = None


class Unknown(Struct, frozen=True, tag="unknown"):
    """Something that the provider sent and this version has no word for.

    Attributes:
        kind: The provider's name for it.
        data: Its content, decoded from JSON.
    """

    kind: str
    data: Any = field(default=None)


Event = Union[
    StreamStart,
    TextDelta,
    ReasoningDelta,
    RefusalDelta,
    ToolCallDelta,
    ToolCall,
    Citation,
    Logprobs,
    Usage,
    Finish,
    Retrying,
    Resumed,
    FellBack,
    ToolResult,
    Unknown,
]

#: The events that are part of the answer itself. Once one has been delivered, a failed request
#: can no longer be repeated in silence, and the `first_token_s` clock gives way to `idle_s`.
CONTENT = frozenset({TextDelta, ReasoningDelta, RefusalDelta, ToolCallDelta, ToolCall, Citation})
