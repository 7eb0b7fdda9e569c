"""A site's own view, as `llm_sse.web` makes it: its stream of tokens, or of typed events.

Wire shape -> events:

    data: {"token": "..."}                        TextDelta
    event: text_delta, data: {"text": "..."}      that event, and so for every type of ours
    event: error, data: {"status": 503, ...}      raises APIError (a problem document, RFC 9457)
    data: [DONE]                                  Finish
    anything else                                 Unknown

What a view takes is its author's affair. Here it is what the documentation's examples take: an
object with a `prompt`, as JSON, as a form or as a query, beside it what else was asked, by name.

An event's id is `<stream>-<position>` where the view keeps its streams (`replay=`): then a
connection that broke goes on after the last one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlencode

import msgspec

from ..chat import ChatRequest, HTTPRequest, Message
from ..completion import Completion
from ..errors import APIError, ConfigurationError, ProtocolError
from ..events import Event, FellBack, Finish, Resumed, Retrying, StreamStart, TextDelta, Unknown
from ..sse import ServerSentEvent, SSEDecoder, encode_sse
from .base import Accepted, Decoder, Frames, Provider, end_of_body, merge, then_raise
from .lenient import decode_json
from .refusals import decode_body

__all__ = ["ROW", "View"]

_CURSOR = re.compile(r"([0-9a-f]{32})-([0-9]{1,15})")
#: What an `EventSource` says; a view tells it an id before there is an event, as it can come back.
#: Source: https://html.spec.whatwg.org/multipage/server-sent-events.html, "The EventSource
#: constructor", and https://fetch.spec.whatwg.org/#http-network-or-cache-fetch, cache mode
#: `no-store`.
_AS_EVENT_SOURCE = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
_SEND_AS = ("json", "form", "query")
_decode_event = msgspec.json.Decoder(Event)


class View(Provider, frozen=True):
    """A row for a view of a site's own; the base URL is the view's address.

    Attributes:
        model: What stands for the site's choice: it is not sent.
        send_as: How the question goes: `json` (POST), `form` (POST) or `query` (GET).
        slash: Whether the view's address ends with a slash.
    """

    model: str = "default"
    needs_key: bool = False
    send_as: str = "json"
    slash: bool = False

    format: ClassVar[str] = "a view of `llm_sse.web`"
    paths: ClassVar[tuple[str, ...]] = (r"/stream/?",)
    methods: ClassVar[tuple[str, ...]] = ("POST", "GET")
    root: ClassVar[str] = "/stream"

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        self._check("send_as", self.send_as in _SEND_AS, f"one of {', '.join(_SEND_AS)}")
        self._check("slash", isinstance(self.slash, bool), "a bool")

    def request(self, chat: ChatRequest, key: str, base_url: str) -> HTTPRequest:
        """Write the request to the view itself, with what was asked under its name."""
        for field in ("tools", "tool_choice", "response_format", "logprobs"):
            if getattr(chat, field) not in (None, ()):
                raise ConfigurationError(
                    f"{self.name} takes no {field}=: the view's site decides that; what its view "
                    "understands beside the prompt goes into extra_body=",
                    provider=self.name,
                )
        url = base_url + "/" * self.slash
        credentials = self.credentials(key)
        asked = merge(self._asked(chat), chat.extra_body)
        if self.send_as == "json":
            headers = {**_AS_EVENT_SOURCE, "Content-Type": "application/json"}
            return HTTPRequest(url, msgspec.json.encode(asked), headers, credentials)
        encoded = urlencode({name: self._text(name, value) for name, value in asked.items()})
        if self.send_as == "query":
            query = f"{url}?{encoded}"
            return HTTPRequest(query, b"", dict(_AS_EVENT_SOURCE), credentials, method="GET")
        headers = {**_AS_EVENT_SOURCE, "Content-Type": "application/x-www-form-urlencoded"}
        return HTTPRequest(url, encoded.encode("ascii"), headers, credentials)

    def _asked(self, chat: ChatRequest) -> dict[str, Any]:
        asked: dict[str, Any] = {}
        last = chat.messages[-1]
        if last.role == "user" and isinstance(last.content, str):
            asked["prompt"] = last.content
        if len(chat.messages) > 1 or last != Message(role="user", content=asked.get("prompt")):
            asked["messages"] = [msgspec.to_builtins(message) for message in chat.messages]
        settings = {
            "model": None if chat.model == self.model else chat.model,
            "system": chat.system,
            "max_tokens": chat.max_tokens,
            "temperature": chat.temperature,
            "top_p": chat.top_p,
            "stop": list(chat.stop) or None,
        }
        return asked | {name: value for name, value in settings.items() if value is not None}

    def _text(self, name: str, value: Any) -> str:
        if isinstance(value, (str, int, float)) and not isinstance(value, bool):
            return str(value)
        raise ConfigurationError(
            f"{name} cannot go as a {self.send_as}: send_as='json' takes it", provider=self.name
        )

    def frames(self, *, stream: bool = True) -> Frames:
        """Return what cuts one body into wire events; a view always streams."""
        return _Frames()

    def decoder(self) -> Decoder:
        """Return a decoder for one response body."""
        return _Decoder(self)

    def retold(self, answer: dict[str, Any]) -> Iterable[Any]:
        """Return the answer as it is: a view has no other form of it than the stream."""
        return [answer]

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> APIError:
        """Read a problem document."""
        return self._problem(status, decode_body(body), headers)

    def stream_error(self, decoded: Any) -> APIError:
        """Read an error that came inside a stream."""
        return self._problem(500, decoded, {})

    def _problem(self, status: int, decoded: Any, headers: Mapping[str, str]) -> APIError:
        said = decoded if isinstance(decoded, dict) else {}
        told, retryable, wait_s = (
            said.get("status"),
            said.get("retryable"),
            said.get("retry_after_s"),
        )
        if isinstance(told, int) and 400 <= told < 600 and not headers:
            status = told
        detail = said.get("detail") or said.get("title") or decoded
        return self.api_error(
            status,
            detail if isinstance(detail, str) else msgspec.json.encode(detail).decode()[:500],
            code=str(said["code"]) if said.get("code") else None,
            body=decoded,
            headers=headers,
            retryable=retryable if isinstance(retryable, bool) else None,
            wait_s=float(wait_s) if isinstance(wait_s, (int, float)) else None,
        )

    def accept(self, path: str, headers: Mapping[str, str], body: bytes) -> Accepted:
        """Read a question as the examples' views do, or that of one who has come back."""
        try:
            asked: Any = msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError):
            asked = dict(parse_qsl(body.decode("utf-8", "replace")))
        if not isinstance(asked, dict) or not isinstance(asked.get("prompt"), str):
            raise self.api_error(400, "there is no prompt", code="bad_request")
        model, after = asked.get("model"), None
        if "last-event-id" in headers:
            found = _CURSOR.fullmatch(headers["last-event-id"])
            if found is None:
                raise self.api_error(410, "this answer is not kept any longer", code="gone")
            after = (found[1], int(found[2]))
        return Accepted(
            model=model if isinstance(model, str) else self.model,
            stream=True,
            usage=True,
            prompt=asked["prompt"],
            after=after,
        )

    def encoder(self, *, model: str, usage: bool = True) -> _Encoder:
        """Return an encoder for one response body, in the format `events`."""
        return _Encoder()

    def encoder_for(self, accepted: Accepted) -> _Encoder:
        """Return one that goes on with the ids where the caller's answer broke off."""
        return _Encoder(accepted.after)

    def answer_body(self, completion: Completion) -> bytes:
        """Write an answer that is not streamed, which no view asks for: its text."""
        return msgspec.json.encode({"text": completion.text})

    def error_body(self, error: APIError) -> bytes:
        """Write a problem document."""
        return msgspec.json.encode(_problem_document(error))

    def resume(self, chat: ChatRequest, completion: Completion) -> ChatRequest | None:
        """Ask again only where nothing has come: what a view does with a text nobody knows."""
        return chat if not completion.text and not completion.tool_calls else None

    def take_up(
        self, broken: Decoder, key: str, base_url: str, request: HTTPRequest
    ) -> tuple[HTTPRequest, Decoder] | None:
        """Ask the same again, with the id of the last event that came.

        Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#the-last-event-id-header
        """
        if not isinstance(broken, _Decoder) or broken.cursor is None:
            return None
        headers = {**request.headers, "Last-Event-ID": broken.cursor}
        return msgspec.structs.replace(request, headers=headers), broken.rest()


class _Frames(SSEDecoder):
    """Tells also of an id that comes before any event: as an event that has no type."""

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """Take the next bytes; return the events that they complete."""
        known = self.last_event_id
        events = super().feed(chunk)
        if not events and self.last_event_id != known:
            events.append(ServerSentEvent("", "", self.last_event_id))
        return events


class _Decoder:
    """One response body of a view; see the module's table."""

    def __init__(self, provider: View, after: _Decoder | None = None) -> None:
        self.done = False
        self.raw_finish_reason: str | None = None
        #: The id after which the view can go on; `None` where it cannot.
        self.cursor: str | None = after.cursor if after else None
        self._provider = provider
        self._goes_on = after is not None
        self._started = False
        self._finish: Finish | None = after._finish if after else None

    @property
    def complete(self) -> bool:
        """Whether the answer is whole if the body ends here."""
        return self.done

    def rest(self) -> _Decoder:
        """Return the decoder of what follows the cursor."""
        return _Decoder(self._provider, self)

    def decode(self, sse: ServerSentEvent) -> Iterable[Event]:
        """Return what one event means."""
        if self.done:
            return ()
        if not sse.event:
            if not self._started and not self._goes_on:
                self.cursor = self._cursor(sse)
            return ()
        known, self.cursor = self.cursor, self._cursor(sse)
        if sse.event == "error":
            if sse.id != known:
                self.cursor = None  # it belongs to the stream: after it nothing comes
            return self._fail(sse)
        events: list[Event] = []
        if sse.data == "[DONE]" and sse.event == "message":
            self.done = True
            finish = self._finish or Finish("stop", "[DONE]")
            self.raw_finish_reason = finish.raw_reason
            events.append(finish)
        elif sse.event == "message":
            events += self._token(sse)
        else:
            events += self._typed(sse)
        if not self._started and not (events and isinstance(events[0], StreamStart)):
            events.insert(0, StreamStart())
        self._started = True
        return events

    def _cursor(self, sse: ServerSentEvent) -> str | None:
        """Return where the view could go on after this event.

        Raises:
            ProtocolError: It has begun another answer instead of going on.
        """
        found = _CURSOR.fullmatch(sse.id)
        if self._goes_on and sse.event != "error":
            known = _CURSOR.fullmatch(self.cursor or "")
            if not (found and known and found[1] == known[1] and int(found[2]) > int(known[2])):
                raise ProtocolError("the view did not go on after the id that it was given")
        return found and found[0]

    def _token(self, sse: ServerSentEvent) -> Iterable[Event]:
        said = decode_json(sse.data)
        token = said.get("token") if isinstance(said, dict) else None
        return [TextDelta(token)] if isinstance(token, str) else [Unknown(sse.event, said)]

    def _typed(self, sse: ServerSentEvent) -> Iterable[Event]:
        """Read one of our own events; how the site came by its answer is its own affair."""
        try:
            event: Any = _decode_event.decode(sse.data)
        except (msgspec.DecodeError, RecursionError):
            event = None
        unread = event is None or isinstance(event, (Retrying, Resumed, FellBack))
        if unread or event.__struct_config__.tag != sse.event:
            return [Unknown(sse.event, decode_json(sse.data))]
        if not isinstance(event, Finish):
            return [event]
        # There may be several, where the site has run tools: the last one is the end.
        earlier, self._finish = self._finish, event
        return [] if earlier is None else [Unknown("finish", msgspec.to_builtins(earlier))]

    def _fail(self, sse: ServerSentEvent) -> Iterable[Event]:
        try:
            said = decode_json(sse.data)
        except ProtocolError:
            said = sse.data
        return then_raise([], self._provider.stream_error(said))

    def end(self) -> Iterable[Event]:
        """Raise, if the body ended before its `[DONE]`."""
        if self.done:
            return ()
        self.done = True
        return then_raise([], end_of_body(self._provider.name))


class _Encoder:
    """The view's side of a body, in the format `events`; what a real one writes is the same.

    Its ids are those of a view that keeps its streams.

    Args:
        after: The stream and the position after which it goes on.
    """

    def __init__(self, after: tuple[str, int] | None = None) -> None:
        self._goes_on = after is not None
        self._stream, self._position = after or ("", 0)

    def encode(self, event: Event) -> bytes:
        """Return an event under the name of its type; `[DONE]` follows the last one."""
        if isinstance(event, StreamStart):
            if self._goes_on:
                return b""  # it was told
            self._stream = hashlib.sha256((event.response_id or "").encode()).hexdigest()[:32]
        name = str(event.__struct_config__.tag)
        written = self._event(msgspec.json.encode(event).decode(), name)
        return written + self._event("[DONE]") if isinstance(event, Finish) else written

    def error(self, error: APIError) -> bytes:
        """Return an error event."""
        return self._event(msgspec.json.encode(_problem_document(error)).decode(), "error")

    def _event(self, data: str, name: str | None = None) -> bytes:
        self._position += 1
        return encode_sse(data, event=name, id=self._id())

    def _id(self) -> str:
        return f"{self._stream}-{self._position}" if self._stream else str(self._position)


def _problem_document(error: APIError) -> dict[str, Any]:
    return {
        "status": error.status,
        "detail": error.detail,
        "code": error.code or "unavailable",
        "retryable": error.retryable,
    }


#: What a site of one's own speaks; its base URL is the view's address.
ROW = View("sse-view")
