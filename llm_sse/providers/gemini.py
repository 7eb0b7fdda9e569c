"""Gemini and Vertex: `POST {base_url}/v1beta/models/{model}:streamGenerateContent?alt=sse`.

Every wire event is a slice of one `GenerateContentResponse`; there are no event names and no
terminal event, so the end is the end of the body after a `finishReason` (or a blocked prompt).

Wire shape -> events:

    candidates[0].content.parts[]:
        {"text": "..."}                                   TextDelta
        {"text": "...", "thought": true}                  ReasoningDelta, with its signature
        {"thoughtSignature": "..."} on a text             ReasoningDelta with the signature only
        {"functionCall": {"id", "name", "args"}}          ToolCall
        {"functionCall": {"partialArgs", "willContinue"}} ToolCall, once the call is complete
        executableCode, inlineData, ... and newer parts   Unknown
    candidates[0].finishReason                            (kept for the end, the last one counts)
    candidates[0].groundingMetadata, citationMetadata     Citation, each source once
    candidates[0].urlContextMetadata                      Unknown, once
    promptFeedback.blockReason                            (kept for the end)
    usageMetadata, cumulative on every event              (kept for the end, the last one counts)
    {"error": {"code", "message", "status", "details"}}   raises APIError

Source: https://ai.google.dev/api/generate-content
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar
from urllib.parse import quote

import msgspec
from msgspec import Struct

from ..chat import ChatRequest, HTTPRequest, Message, Tool, json_arguments, own_reasoning
from ..completion import MADE_UP, Completion
from ..errors import APIError, ConfigurationError
from ..events import (
    Citation,
    Event,
    Finish,
    FinishReason,
    Logprobs,
    ReasoningDelta,
    StreamStart,
    TextDelta,
    TokenLogprob,
    ToolCall,
    Unknown,
    Usage,
)
from ..logprobs import says_something, token_of
from ..media import Media, read_media
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
from .lenient import decode_json, lenient_convert, lenient_decode, prepare
from .refusals import decode_body, error_text, is_listed_error

__all__ = ["ROW", "Gemini"]

_REASONS: dict[str, FinishReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_OTHER": "content_filter",
    "IMAGE_RECITATION": "content_filter",
    "NO_IMAGE": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "ESCALATION": "content_filter",
    "PUP_LIMITED_DISABLED": "content_filter",
    "CONTINUATION": "pause",
    "MALFORMED_FUNCTION_CALL": "error",
    "MALFORMED_RESPONSE": "error",
    "UNEXPECTED_TOOL_CALL": "error",
    "TOO_MANY_TOOL_CALLS": "error",
    "MISSING_THOUGHT_SIGNATURE": "error",
    "OTHER": "error",
}
_WORDS: dict[FinishReason, str] = {
    **{reason: word for word, reason in reversed(_REASONS.items())},
    "error": "OTHER",
    "tool_calls": "STOP",
}

#: The google.rpc status that belongs to an HTTP status.
_RPC_STATUSES: dict[int, str] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_HTTP_STATUSES = {name: status for status, name in _RPC_STATUSES.items()}
_VALUES = ("stringValue", "numberValue", "boolValue", "nullValue")
_PARTS = frozenset({"text", "thought", "thoughtSignature", "functionCall"})

#: What gateways that hand Gemini's signatures on call their format.
_REASONING = "google-gemini-v1"
#: What stands for the signature of a call that Gemini did not make itself: without any, newer
#: models refuse the conversation. Source: https://ai.google.dev/gemini-api/docs/thought-signatures
_UNSIGNED = "skip_thought_signature_validator"


class _FunctionCall(Struct):
    id: str | None = None
    name: str | None = None
    args: Any = None
    partialArgs: list[Any] | None = None
    willContinue: bool | None = None


class _Part(Struct):
    text: str | None = None
    thought: bool | None = None
    thoughtSignature: str | None = None
    functionCall: _FunctionCall | None = None

    def is_known(self) -> bool:
        return (
            self.text is not None
            or self.functionCall is not None
            or self.thoughtSignature is not None
        )


class _Content(Struct):
    parts: list[Any] | None = None


class _Candidate(Struct):
    content: _Content | None = None
    finishReason: str | None = None
    finishMessage: str | None = None
    logprobsResult: Any = None
    index: int | None = None
    groundingMetadata: dict[str, Any] | None = None
    citationMetadata: dict[str, Any] | None = None
    urlContextMetadata: dict[str, Any] | None = None


class _PromptFeedback(Struct):
    blockReason: str | None = None
    blockReasonMessage: str | None = None


class _Response(Struct):
    candidates: list[_Candidate] | None = None
    promptFeedback: _PromptFeedback | None = None
    usageMetadata: dict[str, Any] | None = None
    modelVersion: str | None = None
    responseId: str | None = None
    error: Any = None


prepare(_FunctionCall, _Part, _Content, _Candidate, _PromptFeedback, _Response)
_decode_response = msgspec.json.Decoder(_Response)


class Gemini(Provider, frozen=True):
    """A row for Gemini. The key travels in a header: URLs end up in logs."""

    auth_header: str = "x-goog-api-key"
    auth_prefix: str = ""

    format: ClassVar[str] = "streamGenerateContent"
    paths: ClassVar[tuple[str, ...]] = (
        r"/v1(?:beta)?/models/(?P<model>[^/:]+):(?P<method>streamGenerateContent|generateContent)",
    )
    telemetry_settings: ClassVar[Mapping[str, str]] = {
        "generationConfig.seed": "seed",
        "generationConfig.topK": "top_k",
        "generationConfig.candidateCount": "choice.count",
    }

    def request(self, chat: ChatRequest, key: str, base_url: str) -> HTTPRequest:
        """Write `POST {base_url}/v1beta/models/{model}:streamGenerateContent?alt=sse`.

        A whole answer has a path of its own, `:generateContent`.
        """
        body: dict[str, Any] = {"contents": _contents(self.name, chat.messages)}
        if chat.system:
            body["systemInstruction"] = {"parts": [{"text": chat.system}]}
        settings = {
            "maxOutputTokens": chat.max_tokens,
            "temperature": chat.temperature,
            "topP": chat.top_p,
            "stopSequences": list(chat.stop) or None,
            "responseLogprobs": None if chat.logprobs is None else True,
            "logprobs": chat.logprobs or None,
        }
        config: dict[str, Any] = {
            name: value for name, value in settings.items() if value is not None
        }
        if chat.response_format is not None:
            config["responseMimeType"] = "application/json"
            if (schema := chat.response_format.described_schema()) is not None:
                config["responseJsonSchema"] = schema
        if config:
            body["generationConfig"] = config
        if chat.tools:
            body["tools"] = _tools(chat.tools)
        if chat.tool_choice is not None:
            body["toolConfig"] = _tool_choice(chat.tool_choice)
        model = quote(chat.model.removeprefix("models/"), safe="")
        method = "streamGenerateContent?alt=sse" if chat.stream else "generateContent"
        return HTTPRequest(
            url=f"{base_url}/v1beta/models/{model}:{method}",
            body=msgspec.json.encode(merge(body, chat.extra_body)),
            headers={"Content-Type": "application/json"},
            credentials=self.credentials(key),
        )

    def decoder(self) -> Decoder:
        """Return a decoder for one response body."""
        return _Decoder(self)

    def retold(self, answer: dict[str, Any]) -> Iterable[Any]:
        """A whole answer has the shape of every event of a stream."""
        return [answer]

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> APIError:
        """Read `{"error": {"code", "message", "status", "details"}}`, also inside a list.

        Source: https://cloud.google.com/apis/design/errors
        """
        return self._error(status, decode_body(body), headers)

    def stream_error(self, decoded: Any) -> APIError:
        """Read an error that came inside a 200 stream; its `code` is the status."""
        inner = _error_of(decoded)
        code = inner.get("code")
        if not isinstance(code, int) or code < 400:
            code = _HTTP_STATUSES.get(str(inner.get("status")), 500)
        return self._error(code, decoded, {})

    def _error(self, status: int, decoded: Any, headers: Mapping[str, str]) -> APIError:
        message, _ = error_text(decoded)
        inner = _error_of(decoded)
        rpc_status = inner.get("status")
        bad_key = "API_KEY_INVALID" in _reasons(inner) or "API key not valid" in message
        return self.api_error(
            status,
            message,
            code=rpc_status if isinstance(rpc_status, str) else None,
            body=decoded,
            headers=headers,
            wait_s=_retry_delay_s(inner),
            unknown_model=status == 404,
            bad_key=bad_key,
        )

    def accept(self, path: str, headers: Mapping[str, str], body: bytes) -> Accepted:
        """Read a request as Google's endpoint does."""
        if self.needs_key and not self.has_key(headers):
            raise self.api_error(403, "Method doesn't allow unregistered callers.")
        try:
            asked = msgspec.json.decode(body, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError):
            raise self.api_error(400, "Invalid JSON payload received.") from None
        contents = asked.get("contents")
        if not isinstance(contents, list) or not contents:
            raise self.api_error(
                400, "* GenerateContentRequest.contents: contents is not specified"
            )
        config = asked.get("generationConfig")
        config = config if isinstance(config, dict) else {}
        match = re.fullmatch(self.paths[0], path)
        last = contents[-1] if isinstance(contents[-1], dict) else {}
        parts = last.get("parts")
        texts = (
            [part.get("text") for part in parts if isinstance(part, dict)]
            if isinstance(parts, list)
            else []
        )
        return Accepted(
            model=match["model"] if match else self.model,
            stream=match is not None and match["method"] == "streamGenerateContent",
            usage=True,
            prompt="".join(text for text in texts if isinstance(text, str)),
            logprobs=asked_logprobs(config.get("responseLogprobs"), config.get("logprobs")),
        )

    def encoder(self, *, model: str, usage: bool = True) -> _Encoder:
        """Return an encoder for one response body."""
        return _Encoder(model)

    def answer_body(self, completion: Completion) -> bytes:
        """Write a `GenerateContentResponse`."""
        parts: list[dict[str, Any]] = []
        if completion.reasoning:
            parts.append({"text": completion.reasoning, "thought": True})
        if text := completion.text or completion.refusal:
            parts.append({"text": text})
        parts += map(_call_part, completion.tool_calls)
        reason = completion.finish_reason or "stop"
        word = completion.raw_finish_reason or _WORDS.get(reason, "FINISH_REASON_UNSPECIFIED")
        candidate: dict[str, Any] = {
            "content": {"parts": parts, "role": "model"},
            "finishReason": word,
            "index": 0,
        }
        if completion.citations:
            candidate["citationMetadata"] = {
                "citations": [
                    citation.raw or _source(citation) for citation in completion.citations
                ]
            }
        if completion.logprobs:
            candidate["logprobsResult"] = _logprobs_object(completion.logprobs)
        usage = completion.usage or Usage()
        return msgspec.json.encode(
            {
                "candidates": [candidate],
                "usageMetadata": usage.raw or _usage_object(usage),
                "modelVersion": completion.model,
                "responseId": completion.response_id,
            }
        )

    def error_body(self, error: APIError) -> bytes:
        """Write `{"error": {"code", "message", "status"}}`."""
        return msgspec.json.encode(_error_object(error))


def _contents(provider: str, messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Translate the turns; tool results become user turns, neighbours of one role are joined."""
    turns: list[dict[str, Any]] = []
    names: dict[str | None, str] = {}
    for message in messages:
        role = "model" if message.role == "assistant" else "user"
        parts = _parts_of(provider, message, names)
        if turns and turns[-1]["role"] == role:
            turns[-1]["parts"] += parts
        else:
            turns.append({"role": role, "parts": parts})
    return turns


def _parts_of(
    provider: str, message: Message, names: dict[str | None, str]
) -> list[dict[str, Any]]:
    """Translate one turn; `names` remembers which tool a call's identifier belongs to."""
    if message.role == "tool":
        return [{"functionResponse": _result(message, names)}]
    if message.name:
        raise ConfigurationError("gemini takes no name of a speaker; write it into the text")
    parts = _content_parts(message)
    if message.role == "assistant":
        details = own_reasoning(message, provider, _REASONING)
        parts = _with_signatures(details, message.content, parts)
    calls: list[dict[str, Any]] = []
    for call in message.tool_calls or []:
        id_, name, arguments = json_arguments(call)
        names[id_] = name
        part: dict[str, Any] = {"functionCall": {"name": name, "args": arguments}}
        if id_ and not id_.startswith(MADE_UP):
            part["functionCall"]["id"] = id_
        if signature := _signature_of(call):
            part["thoughtSignature"] = signature
        calls.append(part)
    if calls and not any("thoughtSignature" in part for part in calls):
        calls[0]["thoughtSignature"] = _UNSIGNED
    return parts + calls


def _result(message: Message, names: dict[str | None, str]) -> dict[str, Any]:
    """Translate a tool's result: its text, and beside it the pictures and documents."""
    name = message.name or names.get(message.tool_call_id)
    if name is None:
        raise ConfigurationError(
            "gemini needs the tool's name with its result: give the message a name, or keep "
            f"the assistant's call {message.tool_call_id!r} in the conversation"
        )
    texts: list[str] = []
    media: list[dict[str, Any]] = []
    for part in _content_parts(message):
        if isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif "inlineData" in part:
            media.append(part)
        else:
            raise ConfigurationError("gemini takes text and data in a tool's result, no URLs")
    result: dict[str, Any] = {"name": name, "response": {"result": "".join(texts)}}
    if media:
        result["parts"] = media
    if message.tool_call_id and not message.tool_call_id.startswith(MADE_UP):
        result["id"] = message.tool_call_id
    return result


def _signature_of(call: Mapping[str, Any]) -> str | None:
    """Read a call's signature: ours, or the one that Google's OpenAI-compatible endpoint gives."""
    extra = call.get("extra_content")
    google = extra.get("google") if isinstance(extra, Mapping) else None
    found = google.get("thought_signature") if isinstance(google, Mapping) else None
    signature = found or call.get("signature")
    return signature if isinstance(signature, str) else None


def _with_signatures(
    details: list[dict[str, Any]], content: Any, parts: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Put the signatures of texts back where they stood; the thoughts themselves are not sent."""
    text = content if isinstance(content, str) else ""
    ordered: list[dict[str, Any]] = []
    told = 0
    for detail in details:
        signature, after = detail.get("signature"), detail.get("after_chars")
        if not isinstance(signature, str) or not signature:
            continue
        if isinstance(after, int) and text[told:after]:
            ordered.append({"text": text[told:after]})
            told = after
        ordered.append({"text": "", "thoughtSignature": signature})
    if told:
        return [*ordered, {"text": text[told:]}] if text[told:] else ordered
    return [*ordered, *parts]


def _content_parts(message: Message) -> list[dict[str, Any]]:
    if isinstance(message.content, str):
        return [{"text": message.content}] if message.content else []
    parts: list[dict[str, Any]] = []
    for part in message.content or []:
        kind = part.get("type")
        media = read_media(part)
        if media is not None:
            parts.append({**_media_part(media), **media.beside})
        elif kind == "text":
            parts.append({"text": part.get("text", "")})
        elif kind is None and message.role != "tool":
            parts.append(part)
        else:
            raise ConfigurationError(
                f"gemini does not take a content part of type {kind!r}; pass text, image_url, file "
                'or input_audio, or Gemini\'s own part, such as {"fileData": {"fileUri": ...}}'
            )
    return parts


def _media_part(media: Media) -> dict[str, Any]:
    """Write data as `inlineData`, and what is to be fetched, or was uploaded, as `fileData`.

    Source: https://ai.google.dev/api/caching#Part
    """
    if media.data is not None:
        return {"inlineData": {"mimeType": media.media_type, "data": media.data}}
    if media.file_id is not None:
        if "://" not in media.file_id:
            raise ConfigurationError(
                f"gemini knows an uploaded file by its URI, not by {media.file_id!r}"
            )
        told = {"mimeType": media.media_type} if media.media_type else {}
        return {"fileData": {**told, "fileUri": media.file_id}}
    if media.media_type is None:
        raise ConfigurationError(
            f"gemini must be told the media type of {media.url!r}, and its name does not tell it: "
            "pass media_type=..., or the bytes"
        )
    return {"fileData": {"mimeType": media.media_type, "fileUri": media.url}}


def _tools(tools: Iterable[Tool | dict[str, Any]]) -> list[dict[str, Any]]:
    declarations: list[dict[str, Any]] = []
    own: list[dict[str, Any]] = []
    for tool in tools:
        if isinstance(tool, Tool):
            declarations.append(
                {
                    "name": tool.name,
                    "description": tool.description,
                    "parametersJsonSchema": tool.parameters,
                }
            )
        else:
            own.append(tool)
    return ([{"functionDeclarations": declarations}] if declarations else []) + own


def _tool_choice(choice: str | dict[str, Any]) -> dict[str, Any]:
    if isinstance(choice, dict):
        return choice
    modes = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
    config: dict[str, Any] = {"mode": modes.get(choice, "ANY")}
    if choice not in modes:
        config["allowedFunctionNames"] = [choice]
    return {"functionCallingConfig": config}


def _error_of(decoded: Any) -> dict[str, Any]:
    """Return the inner error object, out of its envelope and out of a list."""
    if isinstance(decoded, list) and decoded:
        decoded = decoded[0]
    inner = decoded.get("error", decoded) if isinstance(decoded, dict) else {}
    return inner if isinstance(inner, dict) else {}


def _details(error: dict[str, Any]) -> Iterable[dict[str, Any]]:
    details = error.get("details")
    return filter(
        lambda detail: isinstance(detail, dict), details if isinstance(details, list) else []
    )


def _reasons(error: dict[str, Any]) -> set[str]:
    return {str(detail.get("reason")) for detail in _details(error)}


def _retry_delay_s(error: dict[str, Any]) -> float | None:
    """Read google.rpc.RetryInfo: `{"retryDelay": "7.5s"}`."""
    for detail in _details(error):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)s", str(detail.get("retryDelay")))
        if match:
            return float(match[1])
    return None


class _StreamedCall:
    """A function call whose arguments arrive one by one, each with its JSONPath."""

    def __init__(self, call: _FunctionCall) -> None:
        self.signature: str | None = None
        self._id = call.id
        self._name = call.name or ""
        self._arguments: dict[str, Any] = dict(call.args) if isinstance(call.args, dict) else {}
        self._error: str | None = None

    def add(self, pieces: Iterable[Any]) -> None:
        """Put each value where its path says; what has no place makes the call an error."""
        for piece in pieces:
            fields = piece if isinstance(piece, dict) else {}
            kind = next((kind for kind in _VALUES if kind in fields), None)
            value = None if kind in (None, "nullValue") else fields[kind]
            steps = _path(str(fields.get("jsonPath", "")))
            if kind is None or not steps or not _set_path(self._arguments, steps, value):
                self._error = f"a piece of the arguments has no place: {piece!r}"

    def build(self, *, complete: bool) -> ToolCall:
        """Return the call; one that the answer's end has cut off is an error, too."""
        cut = None if complete else "the stream ended before the call was complete"
        whole = msgspec.json.decode(msgspec.json.encode(self._arguments, enc_hook=_Text.joined))
        return _tool_call(self._id, self._name, whole, self.signature, cut or self._error)


class _Text:
    """A text that grows; to join it for every piece would cost what all pieces before it cost."""

    def __init__(self, text: str) -> None:
        self.pieces = [text]

    def joined(self) -> str:
        """Return all of it."""
        return "".join(self.pieces)


def _tool_call(
    id_: str | None, name: str, arguments: Any, signature: str | None, error: str | None = None
) -> ToolCall:
    text = msgspec.json.encode(arguments).decode()
    if not isinstance(arguments, dict):
        error = "the arguments are not a JSON object"
    return ToolCall(id_ or None, name, {} if error else arguments, text, error, signature)


_STEP = re.compile(r"""\.([^.\[\]]+)|\['([^']*)'\]|\["([^"]*)"\]|\[(\d{1,9})\]""")


def _path(json_path: str) -> list[str | int]:
    """Split `$.a['b c'][0]` into its keys and indices."""
    steps: list[str | int] = []
    for name, single, double, index in _STEP.findall(json_path):
        steps.append(int(index) if index else name or single or double)
    return steps


def _set_path(root: dict[str, Any], steps: list[str | int], value: Any) -> bool:
    """Set a value deep in nested objects and lists; a string continues the string that is there.

    Returns:
        Whether it has a place: a list cannot begin in its middle, nor a text have members.
    """
    target: Any = root
    if isinstance(value, str):
        value = _Text(value)
    for position, step in enumerate(steps):
        last = position == len(steps) - 1
        fresh: Any = value if last else [] if isinstance(steps[position + 1], int) else {}
        if isinstance(step, int) and isinstance(target, list) and step <= len(target):
            is_new = step == len(target)
            if is_new:
                target.append(fresh)
        elif isinstance(step, str) and isinstance(target, dict):
            is_new = step not in target
            target.setdefault(step, fresh)
        else:
            return False
        if last and not is_new:
            old = _Text(target[step]) if isinstance(target[step], str) else target[step]
            if isinstance(old, _Text) and isinstance(value, _Text):
                old.pieces += value.pieces
                value = old
            target[step] = value
        target = target[step]
    return True


class _Decoder:
    """One response body of streamGenerateContent; see the module's table."""

    def __init__(self, provider: Gemini) -> None:
        self.done = False
        self.raw_finish_reason: str | None = None
        self._provider = provider
        self._started = False
        self._block: str | None = None
        self._message: str | None = None
        self._usage: dict[str, Any] | None = None
        self._streamed: _StreamedCall | None = None
        self._called = False
        self._url_context: Any = None
        self._cited: set[str] = set()

    def decode(self, sse: ServerSentEvent) -> Iterable[Event]:
        """Return what one wire event means."""
        if self.done or not sse.data:
            return ()
        response = lenient_decode(sse.data, _Response, _decode_response)
        if not isinstance(response, _Response):
            if is_listed_error(response):
                return self._fail(response)
            return (Unknown(sse.event, response),)
        if response.error:
            return self._fail(decode_json(sse.data))
        events: list[Event] = []
        if not self._started and (
            response.candidates
            or response.promptFeedback
            or response.modelVersion
            or response.responseId
        ):
            self._started = True
            events.append(StreamStart(response.modelVersion or None, response.responseId or None))
        for candidate in response.candidates or ():
            if candidate.index:
                events.append(Unknown("candidate", msgspec.to_builtins(candidate)))
            else:
                self._candidate(candidate, events)
        feedback = response.promptFeedback
        if feedback is not None and feedback.blockReason:
            self._block = feedback.blockReason
            self._message = ": ".join(
                filter(None, ("the prompt was blocked", self._block, feedback.blockReasonMessage))
            )
        if response.usageMetadata:
            self._usage = response.usageMetadata
        return events

    @property
    def complete(self) -> bool:
        """A finish reason, or the prompt's refusal, completes the answer."""
        return self.raw_finish_reason is not None or self._block is not None

    def end(self) -> Iterable[Event]:
        """The body ended: after a finish reason or a blocked prompt, or too early."""
        if self.done:
            return ()
        self.done = True
        saved: list[Event] = []
        if self.raw_finish_reason is not None:
            # Some servers never close a streamed call; any end but `stop` means that it was cut.
            complete = _REASONS.get(self.raw_finish_reason) == "stop"
            self._end_call(saved, complete=complete)
            reason = normalised(self.raw_finish_reason, _REASONS, called_tools=self._called)
        elif self._block is not None:
            reason = "content_filter"
        else:
            return then_raise(self._saved(), end_of_body(self._provider.name))
        return [*saved, *self._saved(), Finish(reason, self.raw_finish_reason, self._message)]

    def _fail(self, decoded: Any) -> Iterable[Event]:
        self.done = True
        return then_raise(self._saved(), self._provider.stream_error(decoded))

    def _saved(self) -> list[Event]:
        saved: list[Event] = []
        self._end_call(saved, complete=False)
        if self._usage is not None:
            saved.append(_usage(self._usage))
        return saved

    def _candidate(self, candidate: _Candidate, events: list[Event]) -> None:
        parts = candidate.content.parts if candidate.content is not None else None
        for raw in parts or ():
            self._part(raw, events)
        if candidate.logprobsResult is not None:
            events += _logprobs(candidate.logprobsResult)
        if candidate.finishReason:
            self.raw_finish_reason = candidate.finishReason
            self._message = candidate.finishMessage or self._message
        if candidate.groundingMetadata or candidate.citationMetadata:
            self._cite(candidate, events)
        if candidate.urlContextMetadata and candidate.urlContextMetadata != self._url_context:
            self._url_context = candidate.urlContextMetadata
            events.append(Unknown("urlContextMetadata", self._url_context))

    def _part(self, raw: Any, events: list[Event]) -> None:
        part = lenient_convert(raw, _Part)
        if part is None:
            events.append(Unknown("part", raw))
        elif part.functionCall is not None:
            self._function_call(part.functionCall, part.thoughtSignature, events)
        elif not part.is_known():
            if any(value is not None for value in raw.values()):
                events.append(Unknown(next((n for n in raw if n not in _PARTS), "part"), raw))
        elif part.thought:
            if part.text or part.thoughtSignature:
                events.append(ReasoningDelta(part.text or "", part.thoughtSignature or None))
        else:
            if part.text:
                events.append(TextDelta(part.text))
            if part.thoughtSignature:
                events.append(ReasoningDelta("", part.thoughtSignature))

    def _function_call(
        self, call: _FunctionCall, signature: str | None, events: list[Event]
    ) -> None:
        if call.name:
            self._end_call(events, complete=True)
            if not call.willContinue and not call.partialArgs:
                self._called = True
                args = {} if call.args is None else call.args
                events.append(_tool_call(call.id, call.name, args, signature))
                return
            self._streamed = _StreamedCall(call)
        if self._streamed is None:
            return
        self._streamed.signature = self._streamed.signature or signature
        self._streamed.add(call.partialArgs or ())
        if not call.willContinue:
            self._end_call(events, complete=True)

    def _end_call(self, events: list[Event], *, complete: bool) -> None:
        if self._streamed is not None:
            events.append(self._streamed.build(complete=complete))
            self._streamed = None
            self._called = self._called or complete

    def _cite(self, candidate: _Candidate, events: list[Event]) -> None:
        """Tell each source once, although the metadata may come again on later events."""
        for raw in _sources(candidate):
            key = msgspec.json.encode(raw).decode()
            if key in self._cited:
                continue
            self._cited.add(key)
            kinds = ("web", "retrievedContext", "maps")
            source = next((raw[kind] for kind in kinds if isinstance(raw.get(kind), dict)), raw)
            url, title, text = (_str(source.get(name)) for name in ("uri", "title", "text"))
            events.append(Citation(url, title, text, raw))


def _str(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _logprobs(raw: Any) -> list[Event]:
    """Read `{"chosenCandidates": [...], "topCandidates": [{"candidates": [...]}, ...]}`.

    Source: https://ai.google.dev/api/generate-content#LogprobsResult
    """
    fields = raw if isinstance(raw, dict) else {}
    chosen, tops = fields.get("chosenCandidates"), fields.get("topCandidates")
    tops = tops if isinstance(tops, list) else []
    tokens: list[TokenLogprob] = []
    for place, one in enumerate(chosen if isinstance(chosen, list) else []):
        token = _token(one)
        if token is None:
            continue
        others = tops[place].get("candidates") if _has_top(tops, place) else None
        top = tuple(filter(None, map(_token, others if isinstance(others, list) else ())))
        tokens.append(msgspec.structs.replace(token, top=top))
    if tokens:
        return [Logprobs(tuple(tokens))]
    return [Unknown("logprobsResult", raw)] if says_something(raw) else []


def _has_top(tops: list[Any], place: int) -> bool:
    return place < len(tops) and isinstance(tops[place], dict)


def _token(raw: Any) -> TokenLogprob | None:
    fields = raw if isinstance(raw, dict) else {}
    return token_of({"token": fields.get("token"), "logprob": fields.get("logProbability")})


def _logprobs_object(tokens: Iterable[TokenLogprob]) -> dict[str, Any]:
    def written(token: TokenLogprob) -> dict[str, Any]:
        return {"token": token.token, "logProbability": token.logprob}

    return {
        "chosenCandidates": [written(token) for token in tokens],
        "topCandidates": [{"candidates": [*map(written, token.top)]} for token in tokens],
    }


def _sources(candidate: _Candidate) -> Iterable[dict[str, Any]]:
    grounding, citations = candidate.groundingMetadata or {}, candidate.citationMetadata or {}
    for found in (
        grounding.get("groundingChunks"),
        citations.get("citations"),
        citations.get("citationSources"),
    ):
        for raw in found if isinstance(found, list) else ():
            if isinstance(raw, dict):
                yield raw


def _usage(raw: dict[str, Any]) -> Usage:
    """Read `usageMetadata`, where thoughts and tool prompts are counted separately."""

    def count(*names: str) -> int | None:
        found = [raw[name] for name in names if isinstance(raw.get(name), int)]
        return sum(found) if found else None

    return Usage(
        count("promptTokenCount", "toolUsePromptTokenCount"),
        count("candidatesTokenCount", "thoughtsTokenCount"),
        count("cachedContentTokenCount"),
        count("thoughtsTokenCount"),
        raw,
    )


def _error_object(error: APIError) -> dict[str, Any]:
    status = error.code or _RPC_STATUSES.get(error.status, "UNKNOWN")
    return {"error": {"code": error.status, "message": error.detail, "status": status}}


def _usage_object(usage: Usage) -> dict[str, Any]:
    """Write `usageMetadata` from the normalised figures, the thoughts beside the others."""
    thoughts = usage.reasoning_tokens
    raw: dict[str, Any] = {
        "promptTokenCount": usage.input_tokens or 0,
        "candidatesTokenCount": (usage.output_tokens or 0) - (thoughts or 0),
    }
    if thoughts is not None:
        raw["thoughtsTokenCount"] = thoughts
    if usage.cached_input_tokens is not None:
        raw["cachedContentTokenCount"] = usage.cached_input_tokens
    return raw


def _call_part(call: ToolCall) -> dict[str, Any]:
    function: dict[str, Any] = {"name": call.name, "args": call.arguments}
    if call.id is not None:
        function["id"] = call.id
    part: dict[str, Any] = {"functionCall": function}
    if call.signature is not None:
        part["thoughtSignature"] = call.signature
    return part


def _source(citation: Citation) -> dict[str, Any]:
    return {"uri": citation.url, "title": citation.title}


class _Encoder:
    """The same table, from right to left."""

    def __init__(self, model: str) -> None:
        self._start = StreamStart(model, "fake")
        self._usage: dict[str, Any] | None = None

    def encode(self, event: Event) -> bytes:
        """Return the bytes for an event."""
        if isinstance(event, StreamStart):
            self._start = event
            return self._wire({})
        if isinstance(event, TextDelta):
            return self._part({"text": event.text})
        if isinstance(event, ReasoningDelta):
            part: dict[str, Any] = {"text": event.text}
            if event.text:
                part["thought"] = True
            if event.signature is not None:
                part["thoughtSignature"] = event.signature
            return self._part(part)
        if isinstance(event, ToolCall):
            return self._part(_call_part(event))
        if isinstance(event, Citation):
            raw = event.raw or _source(event)
            return self._wire({"candidates": [{"citationMetadata": {"citations": [raw]}}]})
        if isinstance(event, Logprobs):
            result = _logprobs_object(event.tokens)
            return self._wire({"candidates": [{"logprobsResult": result, "index": 0}]})
        if isinstance(event, Usage):
            self._usage = event.raw or _usage_object(event)
        elif isinstance(event, Unknown):
            return self._part(event.data)
        elif isinstance(event, Finish):
            return self._finish(event)
        return b""

    def error(self, error: APIError) -> bytes:
        """Return `data: {"error": {...}}`."""
        return encode_sse(msgspec.json.encode(_error_object(error)).decode())

    def _finish(self, finish: Finish) -> bytes:
        word = finish.raw_reason or _WORDS.get(finish.reason, "FINISH_REASON_UNSPECIFIED")
        candidate: dict[str, Any] = {"finishReason": word, "index": 0}
        if finish.message is not None:
            candidate["finishMessage"] = finish.message
        fields: dict[str, Any] = {"candidates": [candidate]}
        if self._usage is not None:
            fields["usageMetadata"] = self._usage
        return self._wire(fields)

    def _part(self, part: Any) -> bytes:
        content = {"parts": [part], "role": "model"}
        return self._wire({"candidates": [{"content": content, "index": 0}]})

    def _wire(self, fields: dict[str, Any]) -> bytes:
        response = {
            **fields,
            "modelVersion": self._start.model,
            "responseId": self._start.response_id,
        }
        return encode_sse(msgspec.json.encode(response).decode())


#: The vendor's own row.
ROW = Gemini(
    "gemini",
    telemetry_name="gcp.gemini",
    base_url="https://generativelanguage.googleapis.com",
    model="gemini-flash-latest",
    checked="2026-11-22",
    key_env=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    model_env="GEMINI_MODEL",
    base_url_env="GOOGLE_GEMINI_BASE_URL",
)
