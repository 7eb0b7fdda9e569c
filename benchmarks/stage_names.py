"""The stages of a drained delta, as the page tells them."""

from __future__ import annotations

__all__ = ["STAGES"]

#: The figures' names; what each stage is called; what it is for.
STAGES = {
    "read_us": ("read the socket", "the kernel's work, 64 KB at a time"),
    "chunks_us": ("HTTP chunks", "any framing, also cut anywhere"),
    "sse_us": ("server-sent events", "CR, LF and CRLF, several data lines, bounded memory"),
    "json_us": (
        "JSON into typed structs",
        "22 fields instead of the floor's one: reasoning, tool calls, usage, errors",
    ),
    "meaning_us": ("what it means", "events in one vocabulary, every gateway's dialect"),
    "so_far_us": ("answer so far, and metrics", "`completion`, `metrics`"),
    "threads_us": (
        "all the rest: two threads, and the hand-over between them",
        "deadlines, Ctrl-C, `close()`, heartbeats while the model thinks",
    ),
    "whole_us": ("**the whole**", "a drained answer, as a caller reads it"),
}
