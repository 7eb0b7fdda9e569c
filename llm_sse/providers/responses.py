"""OpenAI Responses: `POST {base_url}/responses`, and the servers that speak it, too.

Wire shape -> events (the `type` inside the JSON counts; many servers write no SSE event name):

    response.created, .queued, .in_progress  {"response": {...}}     StreamStart, once
    response.output_text.delta               {"delta"}               TextDelta
    response.output_text.delta               {"logprobs": [...]}     Logprobs
    response.refusal.delta                   {"delta"}               RefusalDelta
    response.reasoning_summary_text.delta    {"delta"}               ReasoningDelta
    response.reasoning_text.delta            {"delta"}               ReasoningDelta
    response.output_text.annotation.added    {"annotation"}          Citation
    response.output_item.added               {"item": function_call} ToolCallDelta
    response.function_call_arguments.delta   {"delta"}               ToolCallDelta
    response.custom_tool_call_input.delta    {"delta"}               ToolCallDelta
    response.output_item.done                {"item": function_call} ToolCall
                                             {"item": reasoning}     ReasoningDelta, if encrypted
    response.completed, .incomplete          {"response": {...}}     Usage, Finish
    response.failed                          {"response": {"error"}} raises APIError
    error                                    flat or {"error": {}}   raises APIError
    keepalive, [DONE]                                                nothing

Whatever was said in pieces is said again whole, up to four times: when its part, its item and the
response are done. What is told is what goes beyond the pieces that came: nothing, from most
servers; everything, from those that send no pieces. Items are known by `item_id` and
`output_index`, of which servers leave out one, or change the other on the way.

Items of hosted tools, and events of a type that has no word here, become `Unknown`.

Source: https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

import copy
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any, ClassVar
from urllib.parse import quote

import msgspec
from msgspec import Struct

from ..chat import ChatRequest, HTTPRequest
from ..completion import Completion
from ..errors import APIError, ConfigurationError, ProtocolError
from ..events import (
    Citation,
    Event,
    Finish,
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    StreamStart,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    Unknown,
    Usage,
)
from ..logprobs import tokens_event
from ..sse import ServerSentEvent, encode_sse
from .base import (
    Accepted,
    Decoder,
    Provider,
    asked_logprobs,
    end_of_body,
    merge,
    normalised,
    then_raise,
)
from .calls import ToolCallBuilder
from .lenient import (
    decode_json,
    lenient_decode,
    objects_in,
    plain_decode,
    prepare,
    text_or_none,
)
from .refusals import (
    QUOTA_CODES,
    decode_body,
    error_text,
    is_listed_error,
    is_unknown_model,
    status_in,
)
from .responses_encoder import (
    INCOMPLETE,
    Encoder,
    error_object,
    output_items,
    response_object,
    usage_object,
)
from .responses_input import (
    input_items,
    last_user_text,
    text_format,
    tool_choice_object,
    tool_object,
)

__all__ = ["ROW", "Responses"]

_REASONS: dict[str, FinishReason] = {"completed": "stop", "cancelled": "error"}

_ENDS = {
    "response.completed": "completed",
    "response.incomplete": "incomplete",
    "response.failed": "failed",
    "response.cancelled": "cancelled",
    "response.done": "completed",
}
_UNDER_WAY = {
    "response.created": "in_progress",
    "response.queued": "queued",
    "response.in_progress": "in_progress",
}
_ERRORS = frozenset({"error", "response.error"})
#: What a request includes to be told the log-probabilities.
_LOGPROBS = "message.output_text.logprobs"
_STATUSES = frozenset({*_ENDS.values(), *_UNDER_WAY.values()})

#: The kinds of text, each with the events that bring it, in pieces and whole.
_DELTAS = {
    "response.output_text.delta": "text",
    "response.refusal.delta": "refusal",
    "response.reasoning_summary_text.delta": "summary",
    "response.reasoning_text.delta": "thinking",
}
_WHOLES = {kind.replace(".delta", ".done"): text for kind, text in _DELTAS.items()}
_FAMILIES = {
    "text": "message",
    "refusal": "message",
    "summary": "reasoning",
    "thinking": "reasoning",
}
_TEXT_EVENTS: dict[str, type[TextDelta | RefusalDelta | ReasoningDelta]] = {
    "text": TextDelta,
    "refusal": RefusalDelta,
    "summary": ReasoningDelta,
    "thinking": ReasoningDelta,
}
_CALL_DELTAS = frozenset(
    {"response.function_call_arguments.delta", "response.custom_tool_call_input.delta"}
)
_CALL_WHOLES = frozenset(
    {"response.function_call_arguments.done", "response.custom_tool_call_input.done"}
)
_CALLS = frozenset({"function_call", "custom_tool_call"})
_PARTS = frozenset({"response.content_part.added", "response.content_part.done"})
_ITEMS = frozenset({"response.output_item.added", "response.output_item.done"})
_KNOWN_PARTS = frozenset({"output_text", "text", "refusal", "reasoning_text", "summary_text"})
_SILENT = frozenset(
    {
        "keepalive",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_part.done",
    }
)


#: The HTTP status that an error's code or type stands for inside a stream.
_ERROR_STATUSES: dict[str, int] = {
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "too_many_requests": 429,
    "insufficient_quota": 429,
    "invalid_api_key": 401,
    "authentication_error": 401,
    "permission_error": 403,
    "overloaded_error": 529,
    "vector_store_timeout": 504,
    **dict.fromkeys(
        (
            *("invalid_request_error", "invalid_request", "invalid_prompt", "model_not_found"),
            *("context_length_exceeded", "string_above_max_length", "previous_response_not_found"),
            *("data_residency_mismatch", "bio_policy", "misalignment_policy_violation"),
            *("cyber_policy_violation", "invalid_image", "invalid_image_format"),
            *("invalid_base64_image", "invalid_image_url", "invalid_image_mode"),
            *("image_too_large", "image_too_small", "image_parse_error", "image_file_too_large"),
            *("image_content_policy_violation", "unsupported_image_media_type"),
            *("empty_image_file", "failed_to_download_image", "image_file_not_found"),
        ),
        400,
    ),
}


class _Wire(Struct):
    type: str = ""
    sequence_number: int | None = None
    output_index: int | None = None
    content_index: int | None = None
    summary_index: int | None = None
    item_id: str | None = None
    delta: str | None = None
    text: str | None = None
    refusal: str | None = None
    arguments: Any = None
    input: Any = None
    annotation: Any = None
    logprobs: list[Any] | None = None
    part: dict[str, Any] | None = None
    item: dict[str, Any] | None = None
    response: dict[str, Any] | None = None
    error: Any = None


prepare(_Wire)
_decode_wire = msgspec.json.Decoder(_Wire)


class Responses(Provider, frozen=True):
    """A row for OpenAI's Responses, or for a server that speaks it."""

    format: ClassVar[str] = "Responses"
    paths: ClassVar[tuple[str, ...]] = (r"/v1/responses",)
    root: ClassVar[str] = "/v1"
    #: Neither is OpenAI's own; servers that serve any model take them.
    telemetry_settings: ClassVar[Mapping[str, str]] = {"seed": "seed", "top_k": "top_k"}
    ping: ClassVar[bytes] = encode_sse('{"type":"keepalive"}', event="keepalive")

    def request(self, chat: ChatRequest, key: str, base_url: str) -> HTTPRequest:
        """Write `POST {base_url}/responses`."""
        if chat.stop:
            raise ConfigurationError(
                f"{self.name} has no stop texts: leave stop out, or use a provider that has them",
                provider=self.name,
            )
        body: dict[str, Any] = {
            "model": chat.model,
            "input": input_items(self.name, chat.messages),
            "stream": chat.stream,
        }
        if chat.system:
            body["instructions"] = chat.system
        if chat.max_tokens is not None:
            body["max_output_tokens"] = chat.max_tokens
        if chat.temperature is not None:
            body["temperature"] = chat.temperature
        if chat.top_p is not None:
            body["top_p"] = chat.top_p
        if chat.tools:
            body["tools"] = [tool_object(tool) for tool in chat.tools]
        if chat.tool_choice is not None:
            body["tool_choice"] = tool_choice_object(chat.tool_choice)
        if chat.response_format is not None:
            body["text"] = {"format": text_format(chat.response_format)}
        if chat.logprobs is not None:
            body.update(include=[_LOGPROBS], top_logprobs=chat.logprobs)
        return HTTPRequest(
            url=f"{base_url}/responses",
            body=msgspec.json.encode(merge(body, chat.extra_body)),
            headers={"Content-Type": "application/json"},
            credentials=self.credentials(key),
        )

    def decoder(self) -> Decoder:
        """Return a decoder for one response body."""
        return _Decoder(self)

    def retold(self, answer: dict[str, Any]) -> Iterable[Any]:
        """A whole answer is the object that a stream's last event carries."""
        status = answer.get("status")
        if not (isinstance(answer.get("output"), list) or answer.get("object") == "response"):
            return [answer]
        if status in ("queued", "in_progress"):
            id_ = text_or_none(answer.get("id"))
            raise ProtocolError(
                f"{self.name}: the response {id_ or '(without id)'} is {status}: it runs on in the "
                "background, and is not asked for again; stream it (stream=True), or fetch it with "
                f"GET .../responses/{id_ or 'ID'}",
                provider=self.name,
            )
        known = isinstance(status, str) and status in _STATUSES
        return [{"type": f"response.{status if known else 'completed'}", "response": answer}]

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> APIError:
        """Read `{"error": {"message", "type", "param", "code"}}` and its many relatives.

        Source: https://platform.openai.com/docs/guides/error-codes
        """
        return self._error(status, decode_body(body), headers)

    def stream_error(self, decoded: Any) -> APIError:
        """Read an error that came inside a 200 stream; its words stand for its status.

        OpenAI documents it flat and sends it nested, then with the headers that tell how long to
        wait.
        """
        outer = decoded[0] if isinstance(decoded, list) and decoded else decoded
        inner = outer.get("error") if isinstance(outer, dict) else None
        levels = [level for level in (inner, outer) if isinstance(level, dict)]
        names = ("status_code", "status", "code", "type")
        words = [level.get(name) for level in levels for name in names]
        status = next((found for word in words if (found := status_in(word, _ERROR_STATUSES))), 500)
        headers: dict[str, str] = {}
        for level in levels:
            given = level.get("headers")
            if isinstance(given, dict):
                headers.update((str(name).lower(), str(value)) for name, value in given.items())
        return self._error(status, decoded, headers)

    def _error(self, status: int, decoded: Any, headers: Mapping[str, str]) -> APIError:
        message, code = error_text(decoded)
        if code == "error":  # the event's own type, where the error has neither type nor code
            code = None
        return self.api_error(
            status,
            message,
            code=code,
            body=decoded,
            headers=headers,
            retryable=False if code in QUOTA_CODES else None,
            unknown_model=is_unknown_model(status, message, code),
        )

    def accept(self, path: str, headers: Mapping[str, str], body: bytes) -> Accepted:
        """Read a request as OpenAI's endpoint does."""
        if self.needs_key and not self.has_key(headers):
            raise self.api_error(401, "You didn't provide an API key.", code="invalid_api_key")
        try:
            asked = msgspec.json.decode(body, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError):
            raise self._refusal("We could not parse the JSON body of your request.") from None
        for name in ("model", "input"):
            if asked.get(name, "") == "" and (name == "model" or name not in asked):
                raise self._missing(f"Missing required parameter: '{name}'.")
        model, said = asked["model"], asked["input"]
        for name, value, types in (("model", model, str), ("input", said, (str, list))):
            if not isinstance(value, types):
                raise self._refusal(f"Invalid type for '{name}': expected a string.")
        earlier = ("previous_response_id", "prompt", "conversation")
        if not said and not any(asked.get(name) for name in earlier):
            raise self._missing(
                "One of \"input\" or \"previous_response_id\" or 'prompt' or 'conversation' must "
                "be provided."
            )
        include = asked.get("include")
        likely = isinstance(include, list) and _LOGPROBS in include
        return Accepted(
            model=model,
            stream=asked.get("stream") is True,
            usage=True,
            prompt=last_user_text(said),
            logprobs=asked_logprobs(likely, asked.get("top_logprobs")),
        )

    def _missing(self, message: str) -> APIError:
        return self.api_error(400, message, code="missing_required_parameter")

    def _refusal(self, message: str) -> APIError:
        return self.api_error(400, message)

    def encoder(self, *, model: str, usage: bool = True) -> Encoder:
        """Return an encoder for one response body."""
        return Encoder(model)

    def answer_body(self, completion: Completion) -> bytes:
        """Write a `response`."""
        start = StreamStart(completion.model, completion.response_id)
        reason = completion.finish_reason or "stop"
        finish = Finish(reason, completion.raw_finish_reason)
        usage = completion.usage
        response = response_object(
            start, finish, output_items(completion), usage and usage_object(usage)
        )
        return msgspec.json.encode(response)

    def error_body(self, error: APIError) -> bytes:
        """Write `{"error": {"message", "type", "param", "code"}}`."""
        return msgspec.json.encode({"error": error_object(error)})

    def take_up(
        self, broken: Decoder, key: str, base_url: str, request: HTTPRequest
    ) -> tuple[HTTPRequest, Decoder] | None:
        """Write the request for what follows the last event that came.

        OpenAI keeps the events of a response that runs in the background, and of no other: the
        end of any other one's connection is the end of the answer.

        Source: https://platform.openai.com/docs/guides/background#streaming-a-background-response
        """
        cursor = broken.cursor if isinstance(broken, _Decoder) else None
        if cursor is None or not isinstance(broken, _Decoder):
            return None
        id_, number = cursor
        url = f"{base_url}/responses/{quote(id_, safe='')}?stream=true&starting_after={number}"
        rest = HTTPRequest(url, b"", credentials=self.credentials(key), method="GET")
        return rest, broken.rest()


class _Told:
    """What has been told: texts by kind, and how many there were of what is no text."""

    __slots__ = ("counts", "texts")

    def __init__(self) -> None:
        self.texts: defaultdict[str, list[str]] = defaultdict(list)
        self.counts: Counter[str] = Counter()


class _Item(_Told):
    """What has been told of one output item; its parts are told apart, too."""

    __slots__ = ("closed", "parts")

    def __init__(self) -> None:
        super().__init__()
        self.closed = False
        self.parts: defaultdict[tuple[str, int], list[str]] = defaultdict(list)


class _Rest:
    """What goes beyond what has been told, while all of it is said again in its order.

    A text that is not what was told is compared with it part by part, because the pieces of several
    parts may come by turns. Where that does not fit, either, its kind is left as told.

    Attributes:
        item: The item that is said again, where it is known.
    """

    def __init__(self, told: _Told) -> None:
        self.item = told if isinstance(told, _Item) else None
        self._texts = {kind: "".join(pieces) for kind, pieces in told.texts.items()}
        self._counts = dict(told.counts)
        self._at: Counter[str] = Counter()
        self._differing: set[str] = set()

    def told(self, kind: str) -> bool:
        """Whether any text of this kind has been told."""
        return bool(self._texts.get(kind))

    def by_part(self, kind: str, wholes: Mapping[int, str]) -> dict[int, str] | None:
        """Return what of each part of the item has not been told; `None` if that cannot be said."""
        parts = {} if self.item is None else self.item.parts
        told = {at: "".join(pieces) for (of, at), pieces in parts.items() if of == kind and pieces}
        if not told or any(not wholes.get(at, "").startswith(said) for at, said in told.items()):
            return None
        return {at: whole[len(told.get(at, "")) :] for at, whole in wholes.items()}

    def text(self, kind: str, whole: str, tail_of_part: str | None = None) -> str:
        """Return what of the next text of a kind has not been told.

        Args:
            kind: The kind of text.
            whole: The text.
            tail_of_part: What of it has not been told, if its part alone is looked at.
        """
        told, at = self._texts.get(kind, ""), self._at[kind]
        if told.startswith(whole, at):
            self._at[kind] += len(whole)
            return ""
        if kind in self._differing:
            return ""
        tail = told[at:]
        if not whole.startswith(tail):
            if tail_of_part is not None:
                return tail_of_part
            self._differing.add(kind)
            return ""
        self._at[kind] = len(told)
        return whole[len(tail) :]

    def is_new(self, kind: str) -> bool:
        """Whether the next thing of a kind has not been told."""
        self._at[kind] += 1
        return self._at[kind] > self._counts.get(kind, 0)


class _Call(ToolCallBuilder):
    """One tool call."""

    __slots__ = ("closed", "custom", "given", "item_id")

    def __init__(self, index: int, item_id: str | None) -> None:
        super().__init__(index, None, "")
        self.item_id = item_id
        self.closed = False
        self.custom = False
        self.given = ""

    def build(self) -> ToolCall:
        """Return the complete call; what a custom tool is given is no JSON, but any text."""
        if self.custom:
            return ToolCall(self.id, self.name, {}, self.text, kind="custom")
        return super().build()

    def is_told_by(self, raw: dict[str, Any]) -> bool:
        """Whether a complete item only repeats this call."""
        id_, whole = text_or_none(raw.get("id")), _arguments(raw)
        same_id = id_ is not None and id_ == self.item_id
        return not self.closed or same_id or not whole or _value(whole) == _value(self.text)


class _Decoder:
    """One response body of Responses; see the module's table."""

    def __init__(self, provider: Responses) -> None:
        self.done = False
        self.raw_finish_reason: str | None = None
        self._provider = provider
        self._started = False
        self._start = StreamStart()
        self._told = _Told()
        self._items: dict[tuple[str, int | None, str | None], Any] = {}
        self._calls: list[_Call] = []
        self._by_call_id: dict[str, _Call] = {}
        self._held: APIError | None = None
        self._kept = False
        self._number: int | None = None
        self._after: int | None = None

    def decode(self, sse: ServerSentEvent) -> Iterable[Event]:
        """Return what one wire event means."""
        data = sse.data
        if self.done or not data or data.startswith("[DONE]"):
            return ()
        if sse.event == "error":
            return self._hold(plain_decode(data))
        wire = lenient_decode(data, _Wire, _decode_wire)
        if not isinstance(wire, _Wire):
            if is_listed_error(wire):
                return self._hold(wire)
            return (Unknown(sse.event, wire),)
        if self._is_known(wire.sequence_number):
            return ()
        kind = wire.type or sse.event
        if self._started and self._held is None:  # the way of nearly all events
            if (text := _DELTAS.get(kind)) is not None:
                return self._delta(text, wire)
            if kind in _CALL_DELTAS:
                return self._arguments(wire)
        if kind in _ERRORS or (wire.error and not wire.type):
            return self._hold(decode_json(data))
        if kind in _SILENT:
            return ()
        if self._held is not None:
            return self._end_held(kind, wire.response or {})
        begun = self._begin(kind, wire.response)
        return chain(begun, self._meaning(kind, wire, data))

    def _meaning(self, kind: str, wire: _Wire, data: str) -> Iterable[Event]:
        if kind in _DELTAS:
            return self._delta(_DELTAS[kind], wire)
        if kind in _CALL_DELTAS:
            return self._arguments(wire)
        if kind in _WHOLES:
            return self._whole_text(_WHOLES[kind], wire)
        if kind in _CALL_WHOLES:
            return self._whole_arguments(wire)
        if kind == "response.output_text.annotation.added":
            return self._annotation(wire)
        if kind in _ENDS:
            return self._finish(_ENDS[kind], wire.response or {})
        if kind in _UNDER_WAY:
            return ()
        part, item = wire.part, wire.item
        if kind in _PARTS and part is not None:
            return self._part(kind, wire, part, data)
        if kind in _ITEMS and item is not None:
            return self._output_item(kind, wire, item, data)
        return (Unknown(kind, decode_json(data)),)

    def _part(self, kind: str, wire: _Wire, part: dict[str, Any], data: str) -> Iterable[Event]:
        """Leave out what only frames texts; a part of another kind is told as it is."""
        if text_or_none(part.get("type")) in _KNOWN_PARTS:
            return ()
        if kind.endswith(".done"):
            self._count("part", self._item("message", wire))
        return (Unknown(kind, decode_json(data)),)

    def _output_item(
        self, kind: str, wire: _Wire, item: dict[str, Any], data: str
    ) -> Iterable[Event]:
        type_, done = text_or_none(item.get("type")), kind.endswith(".done")
        if type_ in _CALLS:
            return self._call_done(wire, item) if done else self._call_added(wire, item)
        if type_ in ("message", "reasoning"):
            if done:
                return self._item_done(wire, item)
            id_ = text_or_none(item.get("id"))
            found: _Item | None = self._look_up(type_, wire.output_index, id_)
            if found is None or found.closed:
                self._register(type_, wire.output_index, id_, _Item())
            return ()
        self._told.counts["item"] += done
        return (Unknown(kind, decode_json(data)),)

    @property
    def complete(self) -> bool:
        """Only an end event completes an answer; an error may be followed by one."""
        return self.done or self._held is not None

    @property
    def cursor(self) -> tuple[str, int] | None:
        """The response's identifier and the last event's number; `None` if nobody keeps them."""
        id_ = self._start.response_id
        over = self._held is not None or self.raw_finish_reason is not None
        if over or not self._kept or id_ is None or self._number is None:
            return None
        return id_, self._number

    def rest(self) -> _Decoder:
        """Return a decoder for what follows; it knows what has been told."""
        rest = copy.copy(self)
        rest.done = rest._started = False
        rest._after = self._number
        return rest

    def end(self) -> Iterable[Event]:
        """The body ended: after the end event, after an error, or too early."""
        if self.done:
            return ()
        self.done = True
        return then_raise((), self._held or end_of_body(self._provider.name))

    def _begin(self, kind: str, response: dict[str, Any] | None) -> list[Event]:
        """Start the stream, where an event says who answers or is part of the answer."""
        if response is not None:
            self._start = StreamStart(
                text_or_none(response.get("model")) or self._start.model,
                text_or_none(response.get("id")) or self._start.response_id,
            )
            if "background" in response:
                kept = response.get("store") is not False
                self._kept = response["background"] is True and kept
        if self._started or not kind.startswith("response."):
            return []
        if kind == "response.failed":
            return []
        self._started = True
        return [self._start]

    def _is_known(self, number: int | None) -> bool:
        """Take note of an event's number; say whether it came before this connection."""
        if number is not None:
            if self._after is not None and number <= self._after:
                return True
            self._number = number
        return False

    def _hold(self, decoded: Any) -> Iterable[Event]:
        """Keep an error: the response's end, with its last word, may follow."""
        self._held = self._held or self._provider.stream_error(decoded)
        return ()

    def _end_held(self, kind: str, response: dict[str, Any]) -> Iterable[Event]:
        assert self._held is not None
        self.done = True
        if kind in _ENDS:
            self.raw_finish_reason = _status_of(response, _ENDS[kind])
            if response.get("error"):  # the same one once more, in its final form
                self._held.body = {"error": response["error"]}
        return then_raise(_usages(response), self._held)

    def _finish(self, status: str, response: dict[str, Any]) -> Iterable[Event]:
        self.done = True
        word = self.raw_finish_reason = _status_of(response, status)
        usages = _usages(response)
        said = response.get("error")
        if word == "failed" or (said and word != "completed"):
            error = {"error": said} if said else {"message": f"the response is {word}"}
            return then_raise(usages, self._provider.stream_error(error))
        events = self._whole_output(objects_in(response.get("output")))
        if word != "cancelled":
            for call in self._calls:
                events += self._close(call, "")
        details = response.get("incomplete_details")
        detail = text_or_none(details.get("reason")) if isinstance(details, dict) else None
        if word == "incomplete" or detail in INCOMPLETE:
            reason = INCOMPLETE.get(detail or "", "other")
        else:
            table = {status: _REASONS.get(status, "other"), **_REASONS}
            reason = normalised(
                word if word in table else status, table, called_tools=bool(self._calls)
            )
        return [*events, *usages, Finish(reason, word, detail)]

    # Items

    def _look_up(self, family: str, index: int | None, id_: str | None) -> Any:
        """Find an item: by both its marks, by its identifier, by its place.

        A known identifier says more than a place: gateways that make up the places get them wrong.
        One that changed on the way is unknown, and leaves the place.
        """
        items = self._items
        found = items.get((family, index, id_ or None))
        if found is None and id_:
            found = items.get((family, None, id_))
        if found is None and index is not None:
            found = items.get((family, index, None))
        return found

    def _register(self, family: str, index: int | None, id_: str | None, item: Any) -> None:
        id_ = id_ or None
        for key in ((index, id_), (index, None), (None, id_), (None, None)):
            self._items[family, key[0], key[1]] = item

    def _item(self, family: str, wire: _Wire, whole: str | None = None) -> _Item:
        """Return the item that an event is about; without any mark that is the latest one.

        Args:
            family: `message` or `reasoning`.
            wire: The event.
            whole: The item's text, where the event tells it.
        """
        id_ = text_or_none(wire.item.get("id")) if wire.item else wire.item_id
        found: _Item | None = self._look_up(family, wire.output_index, id_)
        if found is not None:
            return found
        latest: _Item | None = self._items.get((family, None, None))
        if latest is not None and not latest.closed:
            told = next(filter(None, map("".join, latest.texts.values())), "") if whole else ""
            if wire.output_index is None or (told and whole and whole.startswith(told)):
                return latest
        found = _Item()
        self._register(family, wire.output_index, id_, found)
        return found

    def _tell(self, kind: str, text: str, item: _Item) -> None:
        item.texts[kind].append(text)
        self._told.texts[kind].append(text)

    def _count(self, kind: str, item: _Item) -> None:
        item.counts[kind] += 1
        self._told.counts[kind] += 1

    def _delta(self, kind: str, wire: _Wire) -> Iterable[Event]:
        text = wire.delta
        if wire.logprobs:
            return self._likely_delta(kind, wire)
        if not text:
            return ()
        item = self._item(_FAMILIES[kind], wire)
        item.parts[kind, _part_index(kind, wire)].append(text)
        self._tell(kind, text, item)
        return (_TEXT_EVENTS[kind](text),)

    def _likely_delta(self, kind: str, wire: _Wire) -> Iterable[Event]:
        """Tell a piece of text, and the log-probabilities of its tokens."""
        logprobs, wire.logprobs = wire.logprobs or [], None
        item = self._item(_FAMILIES[kind], wire)
        for _ in logprobs:  # the whole part will have them once more
            self._count("logprob", item)
        return [*self._delta(kind, wire), *tokens_event("logprobs", logprobs)]

    def _whole_text(self, kind: str, wire: _Wire) -> Iterable[Event]:
        """Tell what of a part came in no piece; what cannot be compared waits for the item."""
        whole = wire.refusal if kind == "refusal" else wire.text
        if not whole:
            return ()
        item = self._item(_FAMILIES[kind], wire, whole)
        key = (kind, _part_index(kind, wire))
        if key not in item.parts and item.texts[kind]:
            return ()
        told = "".join(item.parts[key])
        if len(told) >= len(whole) or not whole.startswith(told):
            return ()
        rest = whole[len(told) :]
        item.parts[key] = [told, rest]
        self._tell(kind, rest, item)
        return (_TEXT_EVENTS[kind](rest),)

    def _annotation(self, wire: _Wire) -> Iterable[Event]:
        if not isinstance(wire.annotation, dict):
            return ()
        self._count("citation", self._item("message", wire))
        return (_citation(wire.annotation),)

    def _item_done(self, wire: _Wire, raw: dict[str, Any]) -> Iterable[Event]:
        item = self._item(raw["type"], wire, "".join(text for _, text in _texts(raw)))
        item.closed = True
        events: list[Event] = []
        for kind, told, event in _beyond(raw, _Rest(item)):
            if told:
                self._tell(kind, told, item)
            else:
                self._count(kind, item)
            if event is not None:
                events.append(event)
        if raw["type"] == "message":  # the whole response will be compared with this
            for at, (kind, whole) in enumerate(_texts(raw)):
                item.parts[kind, at] = [whole]
        return events

    def _whole_output(self, output: list[dict[str, Any]]) -> list[Event]:
        """Tell what of the whole answer has not been told."""
        events: list[Event] = []
        rest = _Rest(self._told)
        told = iter(self._told_calls([raw for raw in output if _is_call(raw)]))
        for index, raw in enumerate(output):
            kind = text_or_none(raw.get("type"))
            if _is_call(raw):
                events += self._closed(next(told) or self._new_call(index, raw), raw)
            elif kind in ("message", "reasoning"):
                rest.item = self._look_up(kind, index, text_or_none(raw.get("id")))
                events += [event for *_, event in _beyond(raw, rest) if event is not None]
            elif rest.is_new("item"):
                done = {"type": "response.output_item.done", "output_index": index, "item": raw}
                events.append(Unknown("response.output_item.done", done))
        return events

    # Calls

    def _told_calls(self, output: list[dict[str, Any]]) -> list[_Call | None]:
        """Find the call that each of the answer's is; each is one of them at most.

        Several may have one identifier: then the item's own tells them apart, or their order.
        """
        free = list(self._calls)
        found: list[_Call | None] = [None] * len(output)
        marks: tuple[Callable[[_Call, dict[str, Any]], bool], ...] = (
            lambda call, raw: _call_id(raw) == call.id and raw.get("id") == call.item_id,
            lambda call, raw: _call_id(raw) == call.id,
        )
        for fits in marks:
            for at, raw in enumerate(output):
                if found[at] is None and _call_id(raw) is not None:
                    found[at] = next((call for call in free if fits(call, raw)), None)
                    free = [call for call in free if call is not found[at]]
        if len(output) <= len(self._calls):  # identifiers that changed on the way
            found = [call or (free.pop(0) if free else None) for call in found]
        return found

    def _new_call(self, index: int | None, raw: dict[str, Any]) -> _Call:
        id_ = text_or_none(raw.get("id"))
        call = _Call(len(self._calls), id_)
        call.custom = raw.get("type") == "custom_tool_call"
        self._calls.append(call)
        self._register("call", index, id_, call)
        return call

    def _call_added(self, wire: _Wire, raw: dict[str, Any]) -> Iterable[Event]:
        call: _Call | None = self._look_up("call", wire.output_index, text_or_none(raw.get("id")))
        if call is None or call.closed or not _is_same(call, raw):
            call = self._new_call(wire.output_index, raw)
        # Whether deltas will repeat what an item has at its beginning only its end can tell.
        call.given = _arguments(raw) or call.given
        return self._fragment(call, "", raw)

    def _call_done(self, wire: _Wire, raw: dict[str, Any]) -> Iterable[Event]:
        call: _Call | None = self._look_up("call", wire.output_index, text_or_none(raw.get("id")))
        if call is None or not _is_same(call, raw):
            call = self._by_call_id.get(_call_id(raw) or "")
        if call is not None and not call.is_told_by(raw):
            call = None  # servers give one identifier to several calls
        if call is None and wire.output_index is None:
            latest: _Call | None = self._items.get(("call", None, None))
            open_ = latest is not None and not latest.closed and _is_same(latest, raw)
            call = latest if open_ else None
        return self._closed(call or self._new_call(wire.output_index, raw), raw)

    def _call_of(self, wire: _Wire) -> _Call:
        call: _Call | None = self._look_up("call", wire.output_index, wire.item_id)
        if call is None and wire.output_index is None:
            call = self._items.get(("call", None, None))
        if call is None:
            custom = wire.type.startswith("response.custom_tool_call")
            type_ = "custom_tool_call" if custom else "function_call"
            call = self._new_call(wire.output_index, {"id": wire.item_id, "type": type_})
        return call

    def _arguments(self, wire: _Wire) -> Iterable[Event]:
        call = self._call_of(wire)
        return self._fragment(call, wire.delta, {}) if wire.delta and not call.closed else ()

    def _whole_arguments(self, wire: _Wire) -> Iterable[Event]:
        call = self._call_of(wire)
        whole = _arguments({"arguments": wire.arguments, "input": wire.input})
        call.given = whole or call.given
        told = call.text
        if call.closed or len(whole) <= len(told) or not whole.startswith(told):
            return ()
        return self._fragment(call, whole[len(told) :], {})

    def _fragment(self, call: _Call, text: str, raw: dict[str, Any]) -> list[Event]:
        """Tell a piece of a call, and its identifier and name when they are new."""
        id_ = _call_id(raw) if call.id is None else None
        name = text_or_none(raw.get("name")) if not call.name else None
        if id_ is not None:
            call.id = id_
            self._by_call_id.setdefault(id_, call)
        call.name = call.name or name or ""
        if text:
            call.pieces.append(text)
        return [ToolCallDelta(call.index, id_, name, text)] if id_ or name or text else []

    def _closed(self, call: _Call, raw: dict[str, Any]) -> list[Event]:
        if call.closed:
            return []
        return [*self._fragment(call, "", raw), *self._close(call, _arguments(raw))]

    def _close(self, call: _Call, whole: str) -> list[Event]:
        """Complete a call: from its pieces, or from the arguments that came whole."""
        if call.closed:
            return []
        call.closed = True
        whole, told = whole or call.given, call.text
        # Without an identifier of its own nobody could answer it.
        events = self._fragment(call, "", {"call_id": call.item_id})
        if whole.startswith(told):
            events += self._fragment(call, whole[len(told) :], {})
        elif whole and (call.custom or call.build().error is not None):
            call.pieces = [whole]
        return [*events, call.build()]


def _status_of(response: dict[str, Any], status: str) -> str:
    """Return the last word of a response; one that denies its own end does not count."""
    word = text_or_none(response.get("status"))
    return status if word is None or word in ("in_progress", "queued") else word


def _part_index(kind: str, wire: _Wire) -> int:
    return (wire.summary_index if kind == "summary" else wire.content_index) or 0


def _is_same(call: _Call, raw: dict[str, Any]) -> bool:
    """Whether nothing speaks against an item's being this call."""
    id_, name = _call_id(raw), text_or_none(raw.get("name"))
    return (call.id is None or id_ is None or call.id == id_) and (
        not call.name or name is None or call.name == name
    )


def _is_call(raw: dict[str, Any]) -> bool:
    return text_or_none(raw.get("type")) in _CALLS


def _value(text: str) -> Any:
    """Return what a call's arguments say, however they are spelt."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text


def _call_id(raw: dict[str, Any]) -> str | None:
    return text_or_none(raw.get("call_id"))


def _arguments(raw: dict[str, Any]) -> str:
    """Return a call's arguments, or a custom tool's input, as a text."""
    for name in ("arguments", "input"):
        value = raw.get(name)
        if value is not None:
            return value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return ""


def _texts(raw: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the texts of a message or reasoning item, in their order, with their kinds."""
    texts: list[tuple[str, str]] = []
    if raw.get("type") == "reasoning":
        for name, kind in (("summary", "summary"), ("content", "thinking")):
            texts += [
                (kind, text_or_none(part.get("text")) or "") for part in objects_in(raw.get(name))
            ]
        return texts
    texts += map(_text_of, objects_in(raw.get("content")))
    return texts


def _text_of(part: dict[str, Any]) -> tuple[str, str]:
    """Return the kind of a message's part, and its text."""
    kind = "refusal" if part.get("type") == "refusal" else "text"
    return kind, text_or_none(part.get(kind)) or ""


def _beyond(raw: dict[str, Any], rest: _Rest) -> Iterable[tuple[str, str, Event | None]]:
    """Say what of a whole item has not been told: each time its kind, its text and its event.

    What opens a reasoning item's seal is told together with its text. A further text of the same
    item has no event of its own then.
    """
    if raw.get("type") == "message":
        yield from _beyond_message(raw, rest)
        return
    wholes: dict[str, str] = {"summary": "", "thinking": ""}
    for kind, text in _texts(raw):
        wholes[kind] += text
    if wholes["summary"] == wholes["thinking"]:  # some servers tell the same thing as both
        wholes["thinking" if rest.told("summary") else "summary"] = ""
    signature, redacted = (
        text_or_none(raw.get("signature")),
        text_or_none(raw.get("encrypted_content")),
    )
    told = [(kind, text) for kind, whole in wholes.items() if (text := rest.text(kind, whole))]
    if (signature or redacted) and rest.is_new("seal"):
        text = "".join(text for _, text in told)
        yield from ((kind, text, None) for kind, text in told)
        id_ = text_or_none(raw.get("id")) if redacted else None
        yield "seal", "", ReasoningDelta(text, signature, redacted, id_)
    else:
        yield from ((kind, text, ReasoningDelta(text)) for kind, text in told)


def _beyond_message(raw: dict[str, Any], rest: _Rest) -> Iterable[tuple[str, str, Event | None]]:
    content = objects_in(raw.get("content"))
    said = {at: _text_of(part) for at, part in enumerate(content)}
    tails = {
        kind: rest.by_part(kind, {at: text for at, (of, text) in said.items() if of == kind})
        for kind in ("text", "refusal")
    }
    for at, part in enumerate(content):
        type_ = text_or_none(part.get("type")) or "content_part"
        if type_ not in _KNOWN_PARTS:
            if rest.is_new("part"):
                yield "part", "", Unknown(type_, part)
            continue
        kind, whole = said[at]
        text = rest.text(kind, whole, (tails[kind] or {}).get(at))
        if text:
            yield kind, text, _TEXT_EVENTS[kind](text)
        logprobs = part.get("logprobs")
        told = logprobs if isinstance(logprobs, list) else []
        if new := [token for token in told if rest.is_new("logprob")]:
            for event in tokens_event("logprobs", new):
                yield "logprob", "", event
            yield from (("logprob", "", None) for _ in new[1:])
        for annotation in objects_in(part.get("annotations")):
            if rest.is_new("citation"):
                yield "citation", "", _citation(annotation)


def _citation(annotation: dict[str, Any]) -> Citation:
    """Read `{"type": "url_citation", "url", "title"}`, also nested as in Chat Completions.

    A file has no address: its name is the title.
    """
    inner = annotation.get("url_citation")
    source = inner if isinstance(inner, dict) else annotation
    title = text_or_none(source.get("title")) or text_or_none(source.get("filename"))
    return Citation(
        text_or_none(source.get("url")), title, text_or_none(source.get("content")), annotation
    )


def _usages(response: dict[str, Any]) -> list[Usage]:
    """Read `usage`, which only the last event has."""
    raw = response.get("usage")
    if not isinstance(raw, dict) or not raw:
        return []

    def count(name: str, details: str | None = None) -> int | None:
        source = raw.get(details) if details else raw
        value = source.get(name) if isinstance(source, dict) else None
        return value if isinstance(value, int) else None

    input_tokens = count("input_tokens")
    cached = count("cached_tokens", "input_tokens_details")
    if input_tokens is not None and cached is not None and cached > input_tokens:
        input_tokens += cached  # xAI has been seen to count them beside each other
    return [
        Usage(
            input_tokens,
            count("output_tokens"),
            cached,
            count("reasoning_tokens", "output_tokens_details"),
            raw,
        )
    ]


#: The vendor's own row.
ROW = Responses(
    "openai-responses",
    telemetry_name="openai",
    base_url="https://api.openai.com/v1",
    model="gpt-6-luna",
    checked="2026-11-22",
    key_env=("OPENAI_API_KEY",),
    model_env="OPENAI_MODEL",
    base_url_env="OPENAI_BASE_URL",
)
