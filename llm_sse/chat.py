"""What is asked: messages, tools and settings; and `HTTPRequest`, what of it goes on the wire.

Messages have the shape that everybody's code already has, OpenAI's chat messages. Each provider's
module translates them into its own; what a provider cannot take is a `ConfigurationError` there,
never dropped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, TypeVar, Union
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct, field

from .errors import ConfigurationError
from .response_format import ResponseFormat, read_format
from .tools import Tool

__all__ = [
    "ChatRequest",
    "HTTPRequest",
    "Message",
    "Tool",
    "check_base_url",
    "check_header",
    "json_arguments",
    "make_chat",
    "make_message",
    "own_reasoning",
    "read_turns",
]

T = TypeVar("T", bound=Struct)
Role = Literal["system", "developer", "user", "assistant", "tool"]


class Message(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One turn of a conversation.

    Attributes:
        role: Who speaks.
        content: The text, or a list of parts such as `{"type": "text", "text": "..."}`.
        tool_calls: The calls that an assistant made: `{"id": ..., "type": "function",
            "function": {"name": ..., "arguments": "<JSON text>"}}`.
        tool_call_id: Which call a `tool` message answers.
        name: The speaker's or the tool's name.
        reasoning_details: The reasoning that an assistant's provider wants back unchanged, as
            `Completion.message()` writes it: `{"type": "reasoning.text", "text": ...,
            "signature": ...}` or `{"type": "reasoning.encrypted", "data": ...}`, with `format`
            saying whose it is; nobody else gets it.
    """

    role: Role
    content: Union[str, list[dict[str, Any]], None] = None
    tool_calls: Union[list[dict[str, Any]], None] = None
    tool_call_id: Union[str, None] = None
    name: Union[str, None] = None
    reasoning_details: Union[list[dict[str, Any]], None] = None


class ChatRequest(Struct, frozen=True, kw_only=True):
    """Everything that is asked of a provider, in no provider's words.

    Attributes:
        model: The model's name.
        messages: The conversation, without `system` messages.
        system: The instructions that stand above the conversation.
        max_tokens: The most tokens that the answer may have.
        temperature: Sampling temperature.
        top_p: Nucleus sampling threshold.
        stop: Texts at which the answer ends.
        tools: Neutral `Tool`s, and dictionaries in a provider's own words.
        tool_choice: `auto`, `none`, `required`, a tool's name, or a provider's own object.
        response_format: The form that the answer shall have.
        logprobs: How many alternatives shall be told for each token; `None` asks for no
            log-probabilities at all.
        extra_body: Merged into the request's JSON last, key by key.
        stream: Whether the answer shall come piece by piece.
    """

    model: str
    messages: tuple[Message, ...]
    system: Union[str, None] = None
    max_tokens: Union[int, None] = None
    temperature: Union[float, None] = None
    top_p: Union[float, None] = None
    stop: tuple[str, ...] = ()
    tools: tuple[Any, ...] = ()
    tool_choice: Union[str, dict[str, Any], None] = None
    response_format: Union[ResponseFormat, None] = None
    logprobs: Union[int, None] = None
    extra_body: dict[str, Any] = {}
    stream: bool = True


# msgspec prepares a type when it is first used, which several threads must not do at once (as of
# 0.22 that is a crash): so each is used here.
for _type in (Message, Tool, ResponseFormat, ChatRequest):
    with suppress(msgspec.ValidationError):
        msgspec.convert({}, _type)


class HTTPRequest(Struct, frozen=True):
    """One request as it goes on the wire.

    The headers are not part of the `repr`: a caller's own may hold secrets, too.

    Attributes:
        url: Where to; never holds a key.
        body: The JSON body.
        headers: The headers that are no secret.
        credentials: The headers that are; kept apart so that they travel by `auth=`.
        method: The HTTP method.
    """

    url: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    credentials: Mapping[str, str] = field(default_factory=dict)
    method: str = "POST"

    def __repr__(self) -> str:
        """Show what is no secret."""
        return f"HTTPRequest(url={self.url!r}, body={self.body!r}, method={self.method!r})"


def make_chat(
    prompt: str | None,
    messages: Sequence[Message | Mapping[str, Any]] | None,
    *,
    model: str,
    system: str | None = None,
    stop: str | Sequence[str] | None = None,
    tools: Sequence[Tool | Mapping[str, Any]] | None = None,
    response_format: Any = None,
    extra_body: Mapping[str, Any] | None = None,
    **settings: Any,
) -> ChatRequest:
    """Check what the caller gave and make one `ChatRequest` of it.

    Args:
        prompt: The last user turn, appended to `messages`.
        messages: The conversation; `system` messages become part of `system`.
        model: The model's name.
        system: Instructions that stand above the conversation.
        stop: One text, or several, at which the answer ends.
        tools: Tools, neutral, in OpenAI's shape, or in the provider's own.
        response_format: The form of the answer: a type, a JSON Schema, OpenAI's own objects, or
            `json_object`.
        extra_body: What else shall be in the request's JSON.
        settings: `max_tokens`, `temperature`, `top_p`, `tool_choice`, `logprobs`, `stream`.

    Raises:
        ConfigurationError: Something is missing, of the wrong type or out of range.
    """
    turns = read_turns(prompt, messages)
    if system is not None and not isinstance(system, str):
        raise ConfigurationError(f"system must be a str, not {type(system).__name__}")
    above = [system, *(_text_of(turn) for turn in turns if turn.role in ("system", "developer"))]
    spoken = [turn for turn in turns if turn.role not in ("system", "developer")]
    if not spoken:
        raise ConfigurationError("nothing to ask: pass a prompt, or messages with a user turn")
    fields = {
        "model": model,
        "messages": spoken,
        "system": "\n\n".join(filter(None, above)) or None,
        "stop": (stop,) if isinstance(stop, str) else tuple(_sequence(stop, "stop")),
        "tools": tuple(_tool(tool) for tool in _sequence(tools, "tools")),
        "response_format": read_format(response_format),
        "extra_body": {} if extra_body is None else extra_body,
        **settings,
    }
    chat = _convert(fields, ChatRequest, "argument")
    _check_ranges(chat)
    _check_encodable(chat)
    return chat


def json_arguments(call: Mapping[str, Any]) -> tuple[str | None, str, dict[str, Any]]:
    """Read the identifier, the name and the parsed arguments of a message's tool call.

    The free text of a custom tool is the argument `input`, for those who have no such tools.

    Raises:
        ConfigurationError: The call has not the shape of `Message.tool_calls`.
    """
    function = call.get("function")
    custom = call.get("custom")
    if function is None and isinstance(custom, Mapping):
        function = {"name": custom.get("name"), "arguments": {"input": custom.get("input") or ""}}
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise ConfigurationError(
            'a tool call in messages must look like {"id": ..., "type": "function", '
            '"function": {"name": ..., "arguments": "<JSON text>"}}'
        )
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = msgspec.json.decode(arguments)
        except (ValueError, RecursionError) as error:  # not JSON, or not even UTF-8
            raise ConfigurationError(
                f"the arguments of the tool call {function['name']!r} are not JSON: {error}"
            ) from None
    if not isinstance(arguments, dict):
        raise ConfigurationError(
            f"the arguments of the tool call {function['name']!r} must be a JSON object"
        )
    return call.get("id"), function["name"], arguments


def own_reasoning(message: Message, *formats: str) -> list[dict[str, Any]]:
    """Return the reasoning in a message that is this provider's own, or is not said to be anyone's.

    Args:
        message: An assistant's turn.
        formats: The provider's name, and other names of its format.
    """
    details = message.reasoning_details or []
    return [detail for detail in details if detail.get("format") in (None, *formats)]


def check_base_url(base_url: object, name: str = "base_url") -> str:
    """Return a base URL without trailing slashes.

    Args:
        base_url: What was given.
        name: The argument's name.

    Raises:
        ConfigurationError: It is not an absolute http or https URL, or it holds credentials.
    """
    if not isinstance(base_url, str):
        raise ConfigurationError(f"{name} must be a str, not {type(base_url).__name__}")
    try:
        parts = urlsplit(base_url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        usable = usable and parts.port != 0
    except ValueError:
        usable = False
        parts = urlsplit("")
    if not usable or re.search(r"[\s\x00-\x1f\x7f]", base_url):
        # Where a malformed URL's password begins and ends is anybody's guess.
        shown = "" if "@" in base_url else f", not {redact_url(base_url)!r}"
        raise ConfigurationError(f"{name} must look like https://host/path{shown}")
    if "@" in parts.netloc:
        raise ConfigurationError(f"{name} must not hold a user name or password; use api_key")
    if "?" in base_url or "#" in base_url:
        raise ConfigurationError(f"{name} must end before the '?': {redact_url(base_url)!r}")
    return base_url.rstrip("/")


def redact_url(url: str) -> str:
    """Return a URL without what may be secret in it: user, password, query and fragment."""
    return re.sub(r"[?#].*", "?***", re.sub(r"//[^/]*@", "//***@", url), flags=re.DOTALL)


def check_header(name: object, value: object, *, secret: bool = False) -> None:
    """Refuse a header that could not be sent, or that would smuggle in another one.

    Raises:
        ConfigurationError: The name or the value is not allowed in HTTP; a secret is not shown.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", name):
        shown = repr(name)
        if secret and isinstance(name, str):  # the value may stand in it, too
            shown = repr(re.split(r"[^!#$%&'*+\-.^_`|~0-9A-Za-z]", name)[0]) + ", and more"
        raise ConfigurationError(f"not a header name: {shown}")
    shown = "" if secret else f": {value!r}"
    if not isinstance(value, str):
        raise ConfigurationError(f"the header {name} must be a str, not {type(value).__name__}")
    if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", value) or value != value.strip():
        raise ConfigurationError(
            f"the header {name} holds a line break, a control character or outer space{shown}"
        )
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        raise ConfigurationError(
            f"the header {name} holds characters outside Latin-1{shown}"
        ) from None


def _sequence(value: Any, name: str) -> Sequence[Any]:
    if value is None:
        return ()
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Sequence):
        raise ConfigurationError(f"{name} must be a list, not {type(value).__name__}")
    return value


def _tool(tool: Tool | Mapping[str, Any]) -> Tool | dict[str, Any]:
    """Make a `Tool` of OpenAI's shape; leave a provider's own tools as they are.

    So is a function that says more than a `Tool` can (`strict`): it is OpenAI's own.
    """
    if isinstance(tool, Tool):
        return _convert(tool, Tool, "tool")
    if not isinstance(tool, Mapping):
        raise ConfigurationError(f"a tool must be a Tool or a dict, not {type(tool).__name__}")
    function = tool.get("function")
    if tool.get("type") == "function" and isinstance(function, Mapping):
        fields = {key: value for key, value in function.items() if value is not None}
        if set(fields) <= set(Tool.__struct_fields__):
            return _convert(fields, Tool, "tool")
    return dict(tool)


def _text_of(message: Message) -> str:
    """Return the text of a message that can hold nothing else."""
    if isinstance(message.content, str):
        return message.content
    texts: list[str] = []
    for part in message.content or []:
        if part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise ConfigurationError(f"a {message.role} message can hold text only")
        texts.append(part["text"])
    return "".join(texts)


def read_turns(prompt: Any, messages: Any) -> list[Message]:
    """Return the conversation with the prompt as its last turn.

    Raises:
        ConfigurationError: It is none.
    """
    if prompt is not None and not isinstance(prompt, str):
        raise ConfigurationError(
            f"prompt must be a str, not {type(prompt).__name__}; a conversation goes into messages="
        )
    if isinstance(messages, (str, bytes, Mapping)):
        raise ConfigurationError(
            "messages must be a list of messages; pass a single text as prompt instead"
        )
    turns = [make_message(message) for message in _sequence(messages, "messages")]
    if prompt is not None:
        turns.append(Message(role="user", content=_plain(prompt)))
    return turns


def make_message(message: Any) -> Message:
    """Make a `Message`; what it could not carry is refused rather than lost.

    Fields without a value pass: SDKs' own messages, echoed, are full of them.

    Raises:
        ConfigurationError: It has not the shape of one.
    """
    if isinstance(message, Mapping):
        for field, value in message.items():
            if value and field not in Message.__struct_fields__:
                raise ConfigurationError(f"wrong message: it cannot have a field {field!r}")
    made = _convert(message, Message, "message")
    return msgspec.structs.replace(made, content=_plain(made.content))


def _plain(content: Any) -> Any:
    """Make texts of a class of their own, such as those of HTML parsers, ones that JSON has."""
    if isinstance(content, str):
        return str.__str__(content)
    if isinstance(content, list):
        return [_plain(item) for item in content]
    if isinstance(content, dict):
        return {name: _plain(value) for name, value in content.items()}
    return content


def _convert(value: Any, type_: type[T], what: str) -> T:
    if isinstance(value, type_):  # made by hand, so nobody has checked the types
        value = msgspec.structs.asdict(value)
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"wrong {what}: {error}") from None


def _check_ranges(chat: ChatRequest) -> None:
    if not chat.model.strip():
        raise ConfigurationError("model must not be empty")
    if chat.max_tokens is not None and chat.max_tokens < 1:
        raise ConfigurationError(f"max_tokens must be at least 1, not {chat.max_tokens}")
    if chat.logprobs is not None and chat.logprobs < 0:
        raise ConfigurationError(
            f"logprobs is how many alternatives to tell, at least 0, not {chat.logprobs}"
        )
    for name in ("temperature", "top_p"):
        value = getattr(chat, name)
        if value is not None and not 0 <= value < float("inf"):
            raise ConfigurationError(f"{name} must be a number of at least 0, not {value}")


def _check_encodable(chat: ChatRequest) -> None:
    """Refuse now what the thread that sends it could only stumble over."""
    for name in chat.__struct_fields__:
        try:
            msgspec.json.encode(getattr(chat, name))
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigurationError(f"{name} cannot be written as JSON: {error}") from None
