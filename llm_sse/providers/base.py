"""The seam between the stream and the providers.

A `Provider` is one frozen row of the table in `llm_sse.providers`: values, and pure functions from
our words to one wire format and back. Whatever changes while a stream runs lives in its `Decoder`,
one per attempt.

    ChatRequest --request()--> HTTPRequest ~~~ network ~~~ bytes --SSEDecoder--> ServerSentEvent
                                                                  --Decoder-----> Event

and the other way round, for the fake server: `accept()` reads a request as the real endpoint would,
the `Encoder` writes events as the provider does, `error_body()` an error.
"""

from __future__ import annotations

import re
from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Protocol, TypeVar

import msgspec
from msgspec import Struct, StructMeta

from ..chat import ChatRequest, HTTPRequest, Message, check_base_url, check_header
from ..completion import Completion
from ..errors import (
    APIError,
    AuthenticationError,
    ConfigurationError,
    ConnectionLost,
)
from ..events import Event, FinishReason
from ..sse import ServerSentEvent, SSEDecoder, encode_comment
from .refusals import request_id, retry_after_s
from .whole import WholeAnswer

__all__ = [
    "Accepted",
    "Decoder",
    "Encoder",
    "Frames",
    "Provider",
    "asked_logprobs",
    "bearer_token",
    "end_of_body",
    "merge",
    "then_raise",
]

T = TypeVar("T")
P = TypeVar("P", bound="Provider")


class Decoder(Protocol):
    """The meaning of one response body; made anew for every attempt.

    Attributes:
        done: The provider's terminal event was seen: nothing that follows counts.
        raw_finish_reason: The provider's last word on why the answer ended, even if the end itself
            never came.
    """

    done: bool
    raw_finish_reason: str | None

    @property
    def complete(self) -> bool:
        """Whether the answer is whole if the body ends here; something may still follow."""

    def decode(self, sse: ServerSentEvent) -> Iterable[Event]:
        """Return what a wire event means, in order.

        Raises:
            APIError: The provider reports an error inside the stream. It may be raised while the
                result is iterated, after the events that came with it.
            ProtocolError: The event is not the JSON that it should be.
        """

    def end(self) -> Iterable[Event]:
        """Return what is left to say when the body has ended.

        Raises:
            ConnectionLost: The body ended before the provider's own end. Raised while the result
                is iterated, after the events that could be saved.
        """


class Frames(Protocol):
    """What cuts a body's bytes into wire events; made anew for every attempt.

    Attributes:
        ignored: What was in the body outside of any wire event, as it came, at most 64 KiB.
    """

    ignored: bytearray

    @property
    def content_type(self) -> str:
        """The media type of such a body."""

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """Take the next bytes, of any number; return the wire events that they complete."""

    def end(self, *, dispatch_unfinished: bool = False) -> list[ServerSentEvent]:
        """Take note that no more bytes will come; return what they left unfinished, if asked."""


class Encoder(Protocol):
    """The provider's side of a response body."""

    def encode(self, event: Event) -> bytes:
        """Return the bytes for an event; none where the format says it later, or nowhere."""

    def error(self, error: APIError) -> bytes:
        """Return an error as the provider reports it inside a stream."""


class Accepted(Struct, frozen=True):
    """A request that the real endpoint would have answered.

    Attributes:
        model: The model that was asked for.
        stream: Whether a stream was asked for.
        usage: Whether the caller asked to be told the usage.
        prompt: The text of the last user turn.
        logprobs: How many alternatives the caller asked for with each token; `None` where no
            log-probabilities were asked for.
        after: Where the caller's answer broke off, if he has come back for the rest of it.
    """

    model: str
    stream: bool
    usage: bool
    prompt: str
    logprobs: int | None = None
    after: tuple[str, int] | None = None


class _AbstractStruct(StructMeta, ABCMeta):
    """A struct of which nobody makes one while it lacks a method."""


class Provider(Struct, frozen=True, metaclass=_AbstractStruct):
    """One provider, or one gateway that speaks its format: a row of the table.

    Attributes:
        name: What callers write as `provider=`.
        base_url: What the vendor's own SDK means by it; empty where each customer has another.
        model: The default model; empty where there is none that the provider keeps alive.
        checked: When somebody last compared the row with the provider's documentation (ISO date).
        key_env: The environment variables that may hold the key, the first one found counts; else
            `NAME_API_KEY`.
        model_env: The environment variable that overrides the default model; else `NAME_MODEL`.
        base_url_env: The environment variable that overrides the base URL; else `NAME_BASE_URL`.
        base_url_suffix: What belongs to the address in `base_url_env` where it is not there yet,
            because the vendor's SDK adds it.
        auth_header: The header that carries the key.
        auth_prefix: What stands before the key in that header.
        needs_key: Whether it answers nobody without a key.
        telemetry_name: What OpenTelemetry calls it (`gen_ai.provider.name`); else the name.

    Raises:
        ConfigurationError: A field is of the wrong type, or could not be sent.
    """

    name: str
    base_url: str = ""
    model: str = ""
    checked: str = ""
    key_env: tuple[str, ...] = ()
    model_env: str = ""
    base_url_env: str = ""
    base_url_suffix: str = ""
    auth_header: str = "Authorization"
    auth_prefix: str = "Bearer "
    needs_key: bool = True
    telemetry_name: str = ""

    #: Fields that the `repr` does not show, because they may hold a secret of the caller's.
    unshown: ClassVar[frozenset[str]] = frozenset()
    #: What the format is called.
    format: ClassVar[str] = ""
    #: Paths (regular expressions, matched whole) at which the real endpoint listens.
    paths: ClassVar[tuple[str, ...]] = ()
    #: How the real endpoint is asked.
    methods: ClassVar[tuple[str, ...]] = ("POST",)
    #: What stands between a server's root and the paths that the base URL leaves to us.
    root: ClassVar[str] = ""
    #: What may stand in a request (`outer.inner`) though no argument of ours writes it, and what
    #: OpenTelemetry calls that behind `gen_ai.request.`: `seed`, `top_k` or `choice.count`.
    telemetry_settings: ClassVar[Mapping[str, str]] = {}
    #: The argument that says where it is.
    address: ClassVar[str] = "base_url"
    #: What stands in a stream as a sign of life without content.
    ping: ClassVar[bytes] = encode_comment("ping")

    def __post_init__(self) -> None:
        """Check the fields, and fill in what follows from the name."""
        name = self.name
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ConfigurationError(
                f"a provider's name must be made of letters, digits, '-', '_' and '.', not {name!r}"
            )
        prefix = re.sub("[^A-Z0-9]", "_", name.upper())
        keys: Any = self.key_env
        if isinstance(keys, str) and keys:  # one name may come without the tuple around it
            keys = (keys,)
        filled = {
            "base_url": self.base_url and self._of_row(check_base_url, self.base_url),
            "key_env": keys or (f"{prefix}_API_KEY",),
            "telemetry_name": self.telemetry_name or name,
            "model_env": self.model_env or f"{prefix}_MODEL",
            "base_url_env": self.base_url_env or f"{prefix}_BASE_URL",
        }
        for field, value in filled.items():
            msgspec.structs.force_setattr(self, field, value)
        texts = ("base_url", "model", "checked", "model_env", "base_url_env")
        for field in (*texts, "base_url_suffix", "auth_prefix", "telemetry_name"):
            self._check(field, isinstance(getattr(self, field), str), "a str")
        self._check("needs_key", isinstance(self.needs_key, bool), "a bool")
        keys = self.key_env
        named = isinstance(keys, tuple) and all(map(_is_variable, keys))
        # Not shown, for it may be the key itself.
        self._check("key_env", named, "a tuple of names of variables", shown=False)
        for field in ("model_env", "base_url_env"):
            self._check(field, _is_variable(getattr(self, field)), "a variable's name")
        self._of_row(check_header, self.auth_header, f"{self.auth_prefix}key")

    def replace(self: P, **fields: Any) -> P:
        """Return such a row with some of its fields changed.

        Raises:
            ConfigurationError: It has no such field, or a field is of the wrong type.
        """
        unknown = [name for name in fields if name not in self.__struct_fields__]
        if unknown:
            raise ConfigurationError(
                f"the row {self.name!r} has no field {', '.join(map(repr, unknown))}; "
                f"it has {', '.join(self.__struct_fields__)}"
            )
        return msgspec.structs.replace(self, **fields)

    def __hash__(self) -> int:
        """Hash by name; some fields are dictionaries."""
        return hash((type(self), self.name))

    def __repr__(self) -> str:
        """Show the fields that are no secret."""
        shown = (name for name in self.__struct_fields__ if name not in self.unshown)
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
        return f"{type(self).__name__}({fields})"

    def _check(self, field: str, right: bool, what: str, *, shown: bool = True) -> None:
        """Refuse a field that is not right; what may be a secret is not shown."""
        if not right:
            value = getattr(self, field)
            given = f", not {value!r}" if shown else ""
            raise ConfigurationError(f"the row {self.name!r}: {field} must be {what}{given}")

    def _of_row(self, check: Callable[..., T], *values: object) -> T:
        """Check values; say in the error whose they are."""
        try:
            return check(*values)
        except ConfigurationError as error:
            raise ConfigurationError(f"the row {self.name!r}: {error}") from None

    @property
    def wire_format(self) -> str:
        """The wire format's name in a recording: that of the class which says where it listens."""
        speaker = next(cls for cls in type(self).__mro__ if "paths" in cls.__dict__)
        return speaker.__name__.lower()

    @abstractmethod
    def request(self, chat: ChatRequest, key: str, base_url: str) -> HTTPRequest:
        """Write a request, to `base_url` (without trailing slashes), with that key.

        Whether the answer shall be streamed is `chat.stream`.
        """

    def frames(self, *, stream: bool = True) -> Frames:
        """Return what cuts one body into wire events, whether it was streamed or comes whole."""
        return SSEDecoder() if stream else WholeAnswer(self.retold)

    @abstractmethod
    def decoder(self) -> Decoder:
        """Return a decoder for one response body."""

    @abstractmethod
    def retold(self, answer: dict[str, Any]) -> Iterable[Any]:
        """Return the wire events, as JSON values, that would have told a whole answer in pieces.

        So there is one understanding of an answer, whichever way it comes. An error, or anything
        else that is no answer, is returned as it is.
        """

    @abstractmethod
    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> APIError:
        """Read the answer of a provider that said no. The header names are lower-case."""

    @abstractmethod
    def stream_error(self, decoded: Any) -> APIError:
        """Read an error that came inside a 200 stream, decoded from JSON."""

    @abstractmethod
    def accept(self, path: str, headers: Mapping[str, str], body: bytes) -> Accepted:
        """Read a request as the real endpoint would. The header names are lower-case.

        Raises:
            APIError: The real endpoint would have refused it.
        """

    @abstractmethod
    def encoder(self, *, model: str, usage: bool = True) -> Encoder:
        """Return an encoder for one response body."""

    def encoder_for(self, accepted: Accepted) -> Encoder:
        """Return an encoder for the answer to one request."""
        return self.encoder(model=accepted.model, usage=accepted.usage)

    @abstractmethod
    def answer_body(self, completion: Completion) -> bytes:
        """Write an answer that is not streamed as the provider's JSON body."""

    @abstractmethod
    def error_body(self, error: APIError) -> bytes:
        """Write an error as the provider's JSON body."""

    def resume(self, chat: ChatRequest, completion: Completion) -> ChatRequest | None:
        """Ask for the rest of an answer that was cut off.

        The partial answer travels in a user turn, because current models refuse a conversation
        that ends with an assistant turn.

        Returns:
            The new request; `None` if the answer cannot be continued, because a tool call or a
            refusal had begun, or because a model that is held to a form would begin it anew.
        """
        if completion.tool_calls or completion.refusal:
            return None
        if not completion.text:
            return chat
        if chat.response_format is not None:
            return None
        turn = Message(
            role="user",
            content=(
                "Your answer to this was interrupted. What had arrived of it stands between the "
                "markers. Continue exactly where it stops: do not repeat any of it, do not "
                "comment on the interruption.\n<partial_answer>"
                f"{completion.text}</partial_answer>"
            ),
        )
        return msgspec.structs.replace(chat, messages=(*chat.messages, turn))

    def take_up(
        self, broken: Decoder, key: str, base_url: str, request: HTTPRequest
    ) -> tuple[HTTPRequest, Decoder] | None:
        """Write the request that takes an answer up again where its connection broke.

        What it brings is the rest of the same answer, to the letter: nothing has to be removed,
        and a tool call that had begun goes on, too.

        Args:
            broken: The decoder of what had arrived; it knows the provider's cursor.
            key: The key.
            base_url: Where the provider is.
            request: The request whose answer broke.

        Returns:
            The request, and the decoder of what it brings; `None` where the provider has nothing
            of the kind, as most.
        """
        return None

    def key(
        self, api_key: str | None, environ: Mapping[str, str], *, elsewhere: bool = False
    ) -> str:
        """Find the key: the caller's own, or the environment's.

        Args:
            api_key: The caller's.
            environ: The environment.
            elsewhere: Whether another server than the provider's own is asked: it may want no key.

        Raises:
            ConfigurationError: There is none, or it cannot be sent.
        """
        if api_key is not None and not isinstance(api_key, str):
            raise ConfigurationError(f"api_key must be a str, not {type(api_key).__name__}")
        if api_key == "" and self.needs_key and not elsewhere:
            raise ConfigurationError(
                f"api_key is empty; leave it out to use {' or '.join(self.key_env)}",
                provider=self.name,
            )
        source = next((name for name in self.key_env if environ.get(name)), None)
        if api_key == "":
            return ""  # on purpose: the environment's key shall not go to that server
        if api_key is not None:
            found, source = api_key, "api_key"
        elif source is not None:
            found = environ[source]
        elif not self.needs_key:
            return ""
        else:
            raise ConfigurationError(
                f"no key for {self.name}: set the environment variable "
                f"{' or '.join(self.key_env)}, or pass api_key=..."
                + (' (api_key="" where that server wants none)' if elsewhere else ""),
                provider=self.name,
            )
        try:
            check_header(self.auth_header, self.auth_prefix + found, secret=True)
        except ConfigurationError as error:
            raise ConfigurationError(f"the key in {source} cannot be sent: {error}") from None
        return found

    def credentials(self, key: str) -> dict[str, str]:
        """Return the header that carries the key; none where there is no key."""
        return {self.auth_header: self.auth_prefix + key} if key else {}

    def find_base_url(self, environ: Mapping[str, str]) -> str:
        """Return the environment's base URL, or the provider's own.

        Raises:
            ConfigurationError: There is none.
        """
        found = environ.get(self.base_url_env, "").rstrip("/")
        if found:
            return found if found.endswith(self.base_url_suffix) else found + self.base_url_suffix
        if not self.base_url:
            raise ConfigurationError(
                f"{self.name} has no address of its own: set {self.base_url_env}, or pass "
                f"base_url='https://host{self.base_url_suffix}'",
                provider=self.name,
            )
        return self.base_url

    def find_model(self, environ: Mapping[str, str]) -> str:
        """Return the environment's model, or the default one.

        Raises:
            ConfigurationError: There is none.
        """
        found = environ.get(self.model_env) or self.model
        if not found:
            raise ConfigurationError(
                f"{self.name} has no default model: pass model=..., or set {self.model_env}",
                provider=self.name,
            )
        return found

    def has_key(self, headers: Mapping[str, str]) -> bool:
        """Whether a request to the fake carries a key where this provider looks for it."""
        value = headers.get(self.auth_header.lower(), "")
        scheme = self.auth_prefix.strip().lower()
        if not scheme:
            return bool(value) or bool(bearer_token(headers))
        found, _, token = value.partition(" ")
        return found.lower() == scheme and bool(token.strip())

    def api_error(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        retryable: bool | None = None,
        wait_s: float | None = None,
        unknown_model: bool = False,
        bad_key: bool = False,
    ) -> APIError:
        """Make the error for a status, with what to do next in its message.

        Args:
            status: The HTTP status, or what an in-stream error corresponds to.
            message: The provider's message.
            code: The provider's word for the error.
            body: The provider's error object.
            headers: The response's headers, for the hints in them.
            retryable: What the provider's own words say of that; the header wins.
            wait_s: How long the body asks to wait; the longer of that and the headers' wins.
            unknown_model: Whether the provider's words say that the model does not exist.
            bad_key: Whether they say that the key is not valid, whatever the status.
        """
        headers = headers or {}
        cls = APIError.class_for(401 if bad_key else status)
        if status in (408, 409) and retryable is None:
            retryable = True
        wish = headers.get("x-should-retry")
        if wish in ("true", "false"):
            retryable = wish == "true"
        text = f"{self.name} answered {status}: {message or 'no message'}"
        if cls is AuthenticationError:
            text += f" (check {' or '.join(self.key_env)} or api_key=...)"
        elif unknown_model:
            checked = f", checked {self.checked}" if self.checked else ""
            default = f"the default model is {self.model!r}{checked}; "
            text += f" ({default if self.model else ''}pass model=... or set {self.model_env})"
        elif status == 404:
            text += f" (is {self.address} right?)"
        waits = [wait for wait in (wait_s, retry_after_s(headers)) if wait is not None]
        return cls(
            text,
            status=status,
            code=code,
            detail=message,
            retry_after_s=max(waits, default=None),
            body=body,
            retryable=retryable,
            provider=self.name,
            request_id=request_id(headers),
        )


def _is_variable(name: object) -> bool:
    """Whether that can be the name of an environment variable."""
    return isinstance(name, str) and bool(re.fullmatch("[A-Za-z0-9_]+", name))


def then_raise(events: Iterable[Event], error: Exception) -> Iterator[Event]:
    """Deliver what came together with an error before raising it."""
    yield from events
    raise error


def end_of_body(name: str) -> ConnectionLost:
    """Make the error for a body that stopped before the provider's own end."""
    return ConnectionLost(
        f"{name}: the connection ended before the answer did; what had arrived is in .completion",
        provider=name,
    )


def merge(body: dict[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the caller's `extra_body` into a request, object by object; the caller's values win."""
    for key, value in extra.items():
        mine = body.get(key)
        body[key] = (
            merge(dict(mine), value)
            if isinstance(mine, dict) and isinstance(value, dict)
            else value
        )
    return body


def asked_logprobs(asked: Any, alternatives: Any) -> int | None:
    """Return how many alternatives a request wants told, if it wants log-probabilities."""
    if asked is not True:
        return None
    return alternatives if isinstance(alternatives, int) else 0


def bearer_token(headers: Mapping[str, str]) -> str:
    """Return the token of a request's `Authorization: Bearer ...`; empty where there is none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def normalised(
    raw: str | None, table: Mapping[str, FinishReason], *, called_tools: bool
) -> FinishReason:
    """Return our word for a provider's finish reason; delivered tool calls beat `stop`."""
    reason = table.get(raw or "", "other")
    return "tool_calls" if called_tools and reason == "stop" else reason
