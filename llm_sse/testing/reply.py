"""One streamed answer: what the script says, rendered into steps, and the steps played."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Literal, Protocol, Union

import msgspec
from msgspec import Struct

from ..events import (
    Event,
    Finish,
    Logprobs,
    ReasoningDelta,
    StreamStart,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from ..providers import Provider
from ..providers.base import Accepted, Encoder
from .actions import (
    Action,
    CallTool,
    Cut,
    DripHead,
    Fail,
    FinishWith,
    Framed,
    Framing,
    Pause,
    Ping,
    Raw,
    Say,
    Stall,
    Think,
)
from .body import NEEDS_LENGTH, Body, body
from .record import RecordedRequest
from .script import words

__all__ = ["Break", "Farewell", "Line", "Pace", "Reply", "head_of"]

#: How a connection is closed: after all was said, in the middle of it, or with a reset.
Farewell = Literal["polite", "abrupt", "reset"]

#: What a body that breaks off announces beyond what it sends, in bytes.
_MISSING_BYTES = 1000


class Line(Protocol):
    """What an answer needs of its connection."""

    def send(self, data: bytes) -> None:
        """Write bytes as they are."""

    def send_head(self, headers: dict[str, str], drip_s: float | None) -> None:
        """Send status 200 and headers; byte by byte, if `drip_s` is a number."""

    def wait(self, seconds: float | None) -> None:
        """Sleep, for ever with `None`; raise if the client goes away."""

    def hang_up(self, how: Farewell) -> None:
        """Close the connection when the answer has been played."""


class Pace(Protocol):
    """How fast the deltas come."""

    def ttft_s(self) -> float:
        """Return the time to the first one."""

    def gap_s(self) -> float:
        """Return the time to the next one."""


class _Piece(Struct, frozen=True):
    """Bytes to send, together; `before` is called immediately before the last of them."""

    data: bytes
    before: Union[Callable[[], None], None] = None
    paced: bool = False


class _Silence(Struct, frozen=True):
    """Send nothing for a while; for ever with `None`."""

    seconds: Union[float, None]


class _Pings(Struct, frozen=True):
    """Send the same bytes at intervals; for ever with `times=None`."""

    data: bytes
    every_s: float
    times: Union[int, None]


class Break(Struct, frozen=True):
    """End the answer before its end; `rest` is what a truncated chunk would have held."""

    how: str
    rest: bytes = b""


_Step = Union[_Piece, _Silence, _Pings, Break]


class Reply:
    """One streamed answer.

    Args:
        line: Where it is sent.
        recorded: Where it is noted how it goes.
        provider: Whose format it is in.
        accepted: What was asked.
        number: Which answer of the server's it is.
    """

    def __init__(
        self,
        line: Line,
        recorded: RecordedRequest,
        provider: Provider,
        accepted: Accepted,
        number: int,
    ) -> None:
        self._line = line
        self._recorded = recorded
        self._provider = provider
        self._accepted = accepted
        self._number = number
        self._encoder: Encoder = provider.encoder_for(accepted)
        self._calls = 0
        self._deltas = 0

    @property
    def request_id(self) -> str:
        """The identifier under which this provider would know the request."""
        return f"req_fake_{id(self._recorded):x}"

    def play(self, actions: Sequence[Action], pace: Pace, how: Framing) -> None:
        """Send the headers, then what the script says, then a proper end.

        Args:
            actions: The script.
            pace: The server's.
            how: The server's framing, where the script says nothing of it.
        """
        due = time.monotonic() + pace.ttft_s()
        how, drip_s = head_of(actions, how)
        steps: Iterable[_Step] = self._steps(actions)
        length = 0
        if how in NEEDS_LENGTH:
            steps = list(steps)
            length = _announced(steps)
        line = self._line
        framed = body(how, line.send, length)
        headers = {
            "Content-Type": self._content_type(),
            "Cache-Control": "no-cache",
            "X-Request-Id": self.request_id,
            **framed.headers,
        }
        line.send_head(headers, drip_s)
        for step in steps:
            if isinstance(step, _Piece):
                if step.paced:
                    line.wait(due - time.monotonic())
                    due = max(due, time.monotonic()) + pace.gap_s()
                framed.write(step.data, step.before)
            elif isinstance(step, _Silence):
                line.wait(step.seconds)
            elif isinstance(step, _Pings):
                self._ping(step, framed)
            else:
                self._break_off(step, framed, how)
                return
        framed.end()
        if how == "close":
            line.hang_up("polite")

    def _content_type(self) -> str:
        kind = self._provider.frames().content_type
        return f"{kind}; charset=utf-8" if kind == "text/event-stream" else kind

    def _ping(self, pings: _Pings, framed: Body) -> None:
        left = pings.times
        while left is None or left > 0:
            self._line.wait(pings.every_s)
            framed.write(pings.data)
            left = left and left - 1

    def _break_off(self, step: Break, framed: Body, how: Framing) -> None:
        self._recorded.end("cut")  # before the client can see the end, and look
        if step.how == "truncate":
            framed.truncate(step.rest)
        if step.how != "end":
            self._line.hang_up("reset" if step.how == "reset" else "abrupt")
            return
        framed.end()
        if how == "close":
            self._line.hang_up("polite")

    # --- the script, rendered ---

    def _steps(self, actions: Sequence[Action]) -> Iterator[_Step]:
        """Yield what the script means in this provider's format; a broken answer ends with it."""
        encode = self._encoder.encode
        yield _Piece(encode(StreamStart(self._accepted.model, f"fake-{self._number}")))
        finished = False
        for action in actions:
            if isinstance(action, (Say, Think, CallTool)):
                for event in self._events(action):
                    text = isinstance(event, TextDelta)
                    before = self._recorded.sends_text if text else None
                    yield _Piece(encode(event), before, True)
            elif isinstance(action, FinishWith):
                finished = True
                yield self._last(action)
            elif isinstance(action, Cut):
                yield from self._cut(action)
                return
            elif isinstance(action, Fail):
                error = self._provider.api_error(action.status, action.message)
                yield _Piece(self._encoder.error(error))
                yield Break("close")
                return
            else:
                yield from self._contentless(action)
        if not finished:
            yield self._last(FinishWith(None))

    def _contentless(self, action: Action) -> Iterator[_Step]:
        if isinstance(action, Raw):
            yield _Piece(action.data)
        elif isinstance(action, Ping):
            yield _Pings(self._provider.ping, action.every_s, action.times)
        elif isinstance(action, Pause):
            yield _Silence(action.seconds)
        elif isinstance(action, Stall):
            yield _Silence(None)

    def _events(self, action: Say | Think | CallTool) -> Iterator[Event]:
        """Yield what one action says, and count its deltas."""
        for event in self._told(action):
            yield event
            if not isinstance(event, (ToolCall, Logprobs)):
                self._deltas += 1

    def _told(self, action: Say | Think | CallTool) -> Iterator[Event]:
        if isinstance(action, Say):
            for word in words(action.text):
                yield TextDelta(word)
                if self._accepted.logprobs is not None:
                    yield _likely(word, self._accepted.logprobs)
        elif isinstance(action, Think):
            yield from map(ReasoningDelta, words(action.text))
        else:
            call_id = action.id or f"call_fake_{self._calls}"
            yield ToolCallDelta(self._calls, call_id, action.name)
            for piece in words(action.arguments_text):
                yield ToolCallDelta(self._calls, arguments=piece)
            self._calls += 1
            try:
                arguments = msgspec.json.decode(action.arguments_text, type=dict[str, Any])
            except msgspec.DecodeError:
                arguments = {}
            yield ToolCall(call_id, action.name, arguments, action.arguments_text)

    def _last(self, finish: FinishWith) -> _Piece:
        """Return the provider's last events; the answer is complete when they are sent."""
        data = b"".join(self._encoder.encode(event) for event in self._last_events(finish))
        # Noted before the client can see the end, and look.
        return _Piece(data, partial(self._recorded.end, "complete"))

    def _last_events(self, finish: FinishWith) -> tuple[Usage, Finish]:
        usage = Usage(len(words(self._accepted.prompt)), self._deltas)
        return usage, Finish(finish.reason or ("tool_calls" if self._calls else "stop"))

    def _cut(self, cut: Cut) -> Iterator[_Step]:
        event = self._encoder.encode(TextDelta(" never"))
        if cut.inside:
            begins = event.rfind(b"\n\n", 0, -2) + 2  # one delta may be several events
            begins = 0 if begins == 1 else begins
            half = (begins + len(event)) // 2
            yield _Piece(event[:half])
            event = event[half:]
        yield Break(cut.how, event)


def _likely(word: str, alternatives: int) -> Logprobs:
    """Make up how likely a word was, and what might have stood there."""
    own = TokenLogprob(word, -0.25, word.encode())
    others = [
        TokenLogprob(f"{word}{n}", -2.0 - n, f"{word}{n}".encode()) for n in range(1, alternatives)
    ]
    top = (own, *others) if alternatives else ()
    return Logprobs((msgspec.structs.replace(own, top=top),))


def head_of(actions: Sequence[Action], how: Framing) -> tuple[Framing, float | None]:
    """Return what stands at the beginning of a script: the framing, and the pace of the headers."""
    drip_s: float | None = None
    for action in actions:
        if isinstance(action, Framed):
            how = action.how
        elif isinstance(action, DripHead):
            drip_s = action.every_s
    return how, drip_s


def _announced(steps: Sequence[_Step]) -> int:
    """Return how long a body says it is: longer than it is, if it never ends."""
    length = 0
    for step in steps:
        if isinstance(step, _Piece):
            length += len(step.data)
        elif isinstance(step, _Pings):
            length += len(step.data) * (step.times or 0)
        breaks_off = isinstance(step, Break) and step.how != "end"
        if breaks_off or (isinstance(step, (_Silence, _Pings)) and _is_endless(step)):
            length += _MISSING_BYTES
    return length


def _is_endless(step: _Silence | _Pings) -> bool:
    return (step.seconds if isinstance(step, _Silence) else step.times) is None
