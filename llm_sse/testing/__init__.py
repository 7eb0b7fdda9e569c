"""A fake provider to test with: real HTTP on the loopback interface, no key, no network."""

from .actions import Action, Framing
from .record import RecordedRequest
from .script import (
    call_tool,
    cut,
    drip_head,
    fail,
    finish,
    framing,
    hang,
    hang_up,
    page,
    pause,
    ping,
    raw,
    say,
    stall,
    status,
    think,
)
from .server import FakeServer

__all__ = [
    "Action",
    "FakeServer",
    "Framing",
    "RecordedRequest",
    "call_tool",
    "cut",
    "drip_head",
    "fail",
    "finish",
    "framing",
    "hang",
    "hang_up",
    "page",
    "pause",
    "ping",
    "raw",
    "say",
    "stall",
    "status",
    "think",
]
