"""A fake provider to test with: real HTTP on the loopback interface, no key, no network."""

from .script import call_tool, cut, fail, finish, pause, raw, say, status, think
from .server import FakeServer, RecordedRequest

__all__ = [
    "FakeServer",
    "RecordedRequest",
    "call_tool",
    "cut",
    "fail",
    "finish",
    "pause",
    "raw",
    "say",
    "status",
    "think",
]
