"""OpenAI's Chat Completions, spoken by a server: requests in, answers out; no clock, no thread.

What a client asks for and we cannot pass on is refused by its name; nothing is dropped in silence.

Source: https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, Union

import msgspec
from msgspec import UNSET, Struct, UnsetType

from ..completion import Completion
from ..errors import APIError
from ..events import Event, StreamStart, Usage
from ..providers import find_provider
from .formats import OpenAIChunks
from .problem import Problem
from .questions import ModelName

__all__ = ["AskedChunks", "ChatCompletionsRequest", "answer_body", "error_body", "models_body"]

#: Words of ours for which OpenAI has none.
_REASONS = {"pause": "stop", "other": "stop", "error": "stop"}


class StreamOptions(Struct, forbid_unknown_fields=True):
    """What a streamed answer shall tell besides."""

    include_usage: bool = False
    #: Padding against side channels; what is not padded is no other answer.
    include_obfuscation: bool = False


class ChatCompletionsRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of a request, as far as it means the same to every provider."""

    model: ModelName
    messages: list[dict[str, Any]]
    stream: Union[bool, None] = None
    stream_options: Union[StreamOptions, None] = None
    max_tokens: Union[int, None] = None
    max_completion_tokens: Union[int, None] = None
    temperature: Union[float, None] = None
    top_p: Union[float, None] = None
    stop: Union[str, list[str], None] = None
    tools: Union[list[dict[str, Any]], None] = None
    tool_choice: Union[str, dict[str, Any], None] = None
    response_format: Union[dict[str, Any], None] = None
    logprobs: Union[bool, None] = None
    top_logprobs: Union[int, None] = None
    n: Union[Literal[1], UnsetType, None] = UNSET

    @property
    def include_usage(self) -> bool:
        """Whether the stream shall tell the usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    def arguments(self) -> dict[str, Any]:
        """Return what is asked in arguments of `stream_sync`, but for the model."""
        most = self.max_completion_tokens
        format_ = self.response_format
        given = {
            "messages": self.messages,
            "max_tokens": self.max_tokens if most is None else most,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "stop": self.stop,
            "tools": self.tools,
            "tool_choice": _tool_choice(self.tool_choice),
            "response_format": None if format_ == {"type": "text"} else format_,
            "logprobs": (self.top_logprobs or 0) if self.logprobs else None,
            "stream": bool(self.stream),
        }
        return {name: value for name, value in given.items() if value is not None}


class AskedChunks(OpenAIChunks):
    """Chunks that tell their usage to who asked for it, and whose model answers.

    Args:
        model: The model's name where the provider does not say it.
        usage: Whether the last chunk tells the usage.
    """

    def __init__(self, model: str, *, usage: bool) -> None:
        super().__init__()
        self._encoder = find_provider("openai").encoder(model=model, usage=usage)
        self._model = model
        self._usage = usage

    def encode(self, event: Event) -> bytes:
        """Return the bytes for a piece of the answer."""
        if isinstance(event, Usage) and self._usage:
            return self._write(msgspec.structs.replace(event, raw=None))
        if isinstance(event, StreamStart) and not event.model:
            event = msgspec.structs.replace(event, model=self._model)
        return super().encode(event)


def answer_body(completion: Completion, model: str) -> bytes:
    """Return an answer that is not streamed, without any provider's own objects."""
    reason = completion.finish_reason or "stop"
    usage = completion.usage
    return find_provider("openai").answer_body(
        msgspec.structs.replace(
            completion,
            model=completion.model or model,
            finish_reason=_REASONS.get(reason, reason),
            raw_finish_reason=None,
            usage=None if usage is None else msgspec.structs.replace(usage, raw=None),
            citations=tuple(
                msgspec.structs.replace(citation, raw=None) for citation in completion.citations
            ),
        )
    )


def error_body(problem: Problem) -> bytes:
    """Return a problem as OpenAI's error object."""
    kind = APIError.class_for(problem.status)  # its type is the body's `type`
    error = kind(problem.detail, status=problem.status, code=problem.code)
    error.detail = problem.detail
    return find_provider("openai").error_body(error)


def models_body(models: Iterable[str]) -> bytes:
    """Return the list of the models that can be asked."""
    rows = [
        {"id": name, "object": "model", "created": 0, "owned_by": name.partition("/")[0]}
        for name in models
    ]
    return msgspec.json.encode({"object": "list", "data": rows})


def _tool_choice(choice: str | Mapping[str, Any] | None) -> Any:
    """Return the name of the tool that OpenAI's object names; other providers do not know it."""
    if isinstance(choice, Mapping) and choice.get("type") == "function":
        function = choice.get("function")
        if isinstance(function, Mapping) and isinstance(function.get("name"), str):
            return function["name"]
    return choice
