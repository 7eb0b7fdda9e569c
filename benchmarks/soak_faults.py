"""Every fault of the soak, as a table: what the server does, and how a stream may end by it."""

from __future__ import annotations

from typing import Any, Final, Literal

from msgspec import Struct

from llm_sse.testing import (
    cut,
    drip_head,
    fail,
    hang,
    hang_up,
    page,
    pause,
    ping,
    raw,
    stall,
    status,
)

__all__ = ["FAULTS", "FINISH", "Clock", "Fault", "Place", "timeout"]

Place = Literal["instead", "start", "middle", "call", "end"]
Clock = Literal["first_token", "idle", "total"]


class Fault(Struct, frozen=True):
    """One thing that a server can do to an answer.

    Attributes:
        name: What the tables call it.
        place: Where it happens: instead of an answer, before its content, in the middle of its
            text, after its tool call, or after the provider's last event.
        actions: What the server does.
        endings: How a stream may end by it, if nothing helps: classes of errors, or `finish`.
        again: Whether it may succeed when it is asked again.
        goes_on: Whether the answer goes on after it.
        lossy: Whether it can take along what was sent before, even the status.
        clock: Which limit is set short, so that it is tripped.
    """

    name: str
    place: Place
    actions: tuple[Any, ...]
    endings: tuple[str, ...]
    again: bool = False
    goes_on: bool = False
    lossy: bool = False
    clock: Clock | None = None


FINISH = ("finish",)
_LOST = ("ConnectionLost",)
_BROKEN = ("ProtocolError",)
_REFUSED_FOR_NOW = {
    408: ("InvalidRequestError", {}),
    409: ("InvalidRequestError", {"Retry-After": "0"}),
    429: ("RateLimitError", {"Retry-After": "0.3"}),
    500: ("ServerError", {}),
    502: ("ServerError", {"Retry-After": "0"}),
    503: ("ServerError", {"Retry-After": "0.1"}),
    529: ("ServerError", {"Retry-After": "0.2"}),
}
_REFUSED_FOR_GOOD = {
    400: "InvalidRequestError",
    401: "AuthenticationError",
    404: "InvalidRequestError",
}
_FAILED = {429: "RateLimitError", 500: "ServerError", 529: "ServerError"}
_CUTS: Final = ("close", "reset", "truncate", "end")
_PLACES: tuple[tuple[Place, str], ...] = (("start", "before content"), ("middle", "in the middle"))
_BAD_JSON = raw(b'data: {"choices": [{"del\n\n')
_AFTERWARDS = raw(b": this comes too late\n\n")
_JSON_ERROR = b'{"error": {"message": "overloaded", "type": "server_error", "code": 503}}'


def timeout(clock: Clock) -> tuple[str, ...]:
    """Return the ending of a stream whose clock runs out."""
    return (f"StreamTimeout/{clock}",)


def _faults() -> tuple[Fault, ...]:
    faults = [
        Fault("error 400 in the middle", "middle", (fail(400),), ("InvalidRequestError",)),
        *(
            Fault(f"refused: {code}", "instead", (status(code, headers=head),), (name,), again=True)
            for code, (name, head) in _REFUSED_FOR_NOW.items()
        ),
        *(
            Fault(f"refused: {code}", "instead", (status(code),), (name,))
            for code, name in _REFUSED_FOR_GOOD.items()
        ),
        Fault("hang-up", "instead", (hang_up(),), _LOST, again=True, lossy=True),
        Fault("hang-up: reset", "instead", (hang_up(reset=True),), _LOST, again=True, lossy=True),
        Fault("page: HTML", "instead", (page("<html>Hello</html>"),), _BROKEN),
        Fault(
            "page: JSON error with 200",
            "instead",
            (page(_JSON_ERROR, content_type="application/json"),),
            ("ServerError",),
            again=True,
        ),
        Fault("page: 502", "instead", (page("Bad", status=502),), ("ServerError",), again=True),
        Fault("no headers", "instead", (hang(),), timeout("first_token"), clock="first_token"),
        Fault(
            "dripping headers, too slow",
            "start",
            (drip_head(0.2),),
            timeout("first_token"),
            clock="first_token",
        ),
        Fault("dripping headers", "start", (drip_head(0.002),), FINISH, goes_on=True),
        Fault(
            "stall before content",
            "start",
            (stall(),),
            timeout("first_token"),
            clock="first_token",
        ),
        Fault(
            "pings before content, endless",
            "start",
            (ping(0.2),),
            timeout("first_token"),
            clock="first_token",
        ),
        Fault("pings before content", "start", (ping(0.05, 5),), FINISH, goes_on=True),
        Fault("pings in the middle", "middle", (ping(0.05, 5),), FINISH, goes_on=True),
        Fault("pause in the middle", "middle", (pause(0.5),), FINISH, goes_on=True),
        Fault("stall in the middle", "middle", (stall(),), timeout("idle"), clock="idle"),
        Fault("pings, endless", "middle", (ping(0.2),), timeout("idle"), clock="idle"),
        Fault("stall, total_s", "middle", (stall(),), timeout("total"), clock="total"),
        Fault("not JSON before content", "start", (_BAD_JSON,), _BROKEN),
        Fault("not JSON in the middle", "middle", (_BAD_JSON,), _BROKEN),
        Fault("cut after a tool call", "call", (cut(),), _LOST),
        Fault("comment after the end", "end", (_AFTERWARDS,), FINISH),
        Fault("closed after the end", "end", (cut(),), FINISH),
        Fault("truncated after the end", "end", (cut("truncate"),), FINISH),
        Fault("the body never ends", "end", (stall(),), FINISH, clock="idle"),
    ]
    for code, name in _FAILED.items():
        for place, where in _PLACES:
            faults.append(Fault(f"error {code} {where}", place, (fail(code),), (name,), again=True))
    faults.append(
        Fault("error 400 in the middle", "middle", (fail(400),), ("InvalidRequestError",))
    )
    for how in _CUTS:
        for place, where in _PLACES:
            for inside in (False, True):
                name = f"cut: {how} {where}" + (", inside an event" if inside else "")
                action = cut(how, inside=inside)
                lossy = how == "reset"
                faults.append(Fault(name, place, (action,), _LOST, again=True, lossy=lossy))
    return tuple(faults)


FAULTS = _faults()
