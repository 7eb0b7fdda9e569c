"""A fake provider to test with: real HTTP on the loopback interface, no key, no network."""

from .script import call_tool, cut, fail, finish, pause, raw, say, status, think
from .server import Exchange, FakeServer

__all__ = [
    "Exchange",
    "FakeServer",
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
