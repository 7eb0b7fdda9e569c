"""What is asked of OpenAI Responses: turns as input items, and tools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from ..chat import Message, Tool, own_reasoning
from ..errors import ConfigurationError
from ..media import Media, read_media
from ..response_format import ResponseFormat
from .call_ids import with_fitting_ids
from .lenient import objects_in, text_or_none

__all__ = ["input_items", "last_user_text", "text_format", "tool_choice_object", "tool_object"]

#: How gateways call the reasoning that this format seals.
_REASONING = "openai-responses-v1"
#: The identifiers of calls that it takes.
_CALL_ID = ".{1,64}"


def input_items(provider: str, messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Translate the turns: calls and their results are items of their own."""
    items: list[dict[str, Any]] = []
    custom: set[Any] = set()
    for message in with_fitting_ids(messages, _CALL_ID):
        if message.role == "tool":
            items.append(_result(provider, message, custom))
            continue
        if message.name:
            raise ConfigurationError(
                f"{provider} takes no name of a speaker; write it into the text"
            )
        items += _sealed(provider, message)
        parts = _parts(provider, message)
        if parts or message.role != "assistant":
            items.append({"type": "message", "role": message.role, "content": parts})
        for call in message.tool_calls or []:
            item = _call_item(provider, call)
            items.append(item)
            if item["type"] == "custom_tool_call":
                custom.add(item["call_id"])
    return items


def _sealed(provider: str, message: Message) -> Iterable[dict[str, Any]]:
    """Hand back the encrypted reasoning of a turn, before what followed from it.

    What could be read of it goes with it: what stands before a seal is its summary. What has no
    seal is not sent.

    Source: https://platform.openai.com/docs/guides/reasoning#encrypted-reasoning-items
    """
    summary: list[dict[str, Any]] = []
    for detail in own_reasoning(message, provider, _REASONING):
        if said := text_or_none(detail.get("text")):
            summary.append({"type": "summary_text", "text": said})
        if sealed := text_or_none(detail.get("data")):
            id_ = text_or_none(detail.get("id"))
            marks = {"id": id_} if id_ else {}
            yield {"type": "reasoning", **marks, "summary": summary, "encrypted_content": sealed}
            summary = []


def _result(provider: str, message: Message, custom: set[Any]) -> dict[str, Any]:
    if not message.tool_call_id:
        raise ConfigurationError(f"{provider} needs the tool_call_id of a tool message")
    output: Any = message.content or ""
    if not isinstance(output, str):
        output = _parts(provider, message)
    kind = "custom_tool_call" if message.tool_call_id in custom else "function_call"
    return {"type": f"{kind}_output", "call_id": message.tool_call_id, "output": output}


def _call_item(provider: str, call: Mapping[str, Any]) -> dict[str, Any]:
    """Translate one call; its arguments are a text on both sides, and go as they are."""
    function, custom = call.get("function"), call.get("custom")
    id_ = call.get("id")
    if isinstance(id_, str) and id_:
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            arguments = function.get("arguments") or "{}"
            if not isinstance(arguments, str):
                arguments = msgspec.json.encode(arguments).decode()
            kind = {"type": "function_call", "call_id": id_, "name": function["name"]}
            return {**kind, "arguments": arguments}
        if isinstance(custom, dict) and isinstance(custom.get("name"), str):
            kind = {"type": "custom_tool_call", "call_id": id_, "name": custom["name"]}
            return {**kind, "input": str(custom.get("input") or "")}
    raise ConfigurationError(
        f'a tool call in messages must look, for {provider}, like {{"id": "...", "type": '
        '"function", "function": {"name": "...", "arguments": "<JSON text>"}}'
    )


def _parts(provider: str, message: Message) -> list[dict[str, Any]]:
    """Translate the parts of a message; those in the provider's own words stay."""
    kind = "output_text" if message.role == "assistant" else "input_text"
    if isinstance(message.content, str):
        return [{"type": kind, "text": message.content}] if message.content else []
    parts: list[dict[str, Any]] = []
    for part in message.content or []:
        if part.get("type") == "text":
            parts.append({**part, "type": kind})
        elif part.get("type") == "input_audio":
            raise ConfigurationError(
                f"{provider} takes no content part of type 'input_audio'; a provider that speaks "
                "Chat Completions may"
            )
        elif (media := read_media(part, also=("detail",))) is not None:
            parts.append({**_media_part(provider, part, media), **media.beside})
        else:
            parts.append(part)
    return parts


def _media_part(provider: str, part: Mapping[str, Any], media: Media) -> dict[str, Any]:
    """Write a picture or a file; an address has a field of its own there.

    Source: https://platform.openai.com/docs/guides/file-inputs
    """
    if media.url is not None and not media.url.lower().startswith(("http://", "https://")):
        raise ConfigurationError(f"{provider} fetches no {media.url[:80]!r}; pass the bytes")
    source = media.url or f"data:{media.media_type};base64,{media.data}"
    inner = part[media.kind]
    detail = inner.get("detail") if isinstance(inner, Mapping) else None
    if media.kind == "image_url":
        return {"type": "input_image", "image_url": source, "detail": detail or "auto"}
    file = {"type": "input_file"}
    if media.file_id is not None:
        file["file_id"] = media.file_id
    else:
        file["file_url" if media.url else "file_data"] = source
    named = {"filename": media.filename, "detail": detail}
    return {**file, **{name: value for name, value in named.items() if value is not None}}


def tool_object(tool: Tool | dict[str, Any]) -> dict[str, Any]:
    """Translate a tool. Without a word on it OpenAI would take every schema for a strict one."""
    if isinstance(tool, Tool):
        encoded: dict[str, Any] = {"type": "function", **msgspec.to_builtins(tool)}
        return {**encoded, "strict": False}
    function = tool.get("function")
    if tool.get("type") == "function" and isinstance(function, dict):
        return {"type": "function", "strict": False, **function}
    return tool


def tool_choice_object(choice: str | dict[str, Any]) -> Any:
    """Translate a tool choice."""
    if isinstance(choice, dict):
        function = choice.get("function")
        return {"type": "function", **function} if isinstance(function, dict) else choice
    if choice in ("auto", "none", "required"):
        return choice
    return {"type": "function", "name": choice}


def text_format(format_: ResponseFormat) -> dict[str, Any]:
    """Write `text.format`: what Chat Completions nests is flat here.

    Source: https://platform.openai.com/docs/api-reference/responses/create (`text`)
    """
    if format_.schema is None:
        return {"type": "json_object"}
    asked: dict[str, Any] = {"name": format_.name, "schema": format_.schema}
    if format_.description is not None:
        asked["description"] = format_.description
    return {"type": "json_schema", **asked, "strict": format_.strict}


def last_user_text(said: str | list[Any]) -> str:
    """Return the text of the last user turn, whatever its shape."""
    if isinstance(said, str):
        return said
    for item in reversed(said):
        if isinstance(item, dict) and item.get("role") == "user":
            content = item.get("content")
            if isinstance(content, str):
                return content
            return "".join(str(part.get("text") or "") for part in objects_in(content))
    return ""
