"""An answer as it comes, on standard output, and what is said of it on standard error."""

from __future__ import annotations

import sys
from io import TextIOWrapper

import msgspec

from ..completion import Completion
from ..events import FellBack, Finish, Retrying, TextDelta
from ..metrics import StreamMetrics
from ..sync.stream import TokenStream
from .terminal import harmless, note, write

__all__ = ["print_answer", "stats_line"]


def print_answer(stream: TokenStream, as_json: bool) -> None:
    """Print an answer, end its last line whatever happens, and say what the text does not."""
    if as_json and isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # JSON has no other
    if getattr(sys, "stdout", None) is None:  # closed by whoever started us
        raise OSError("there is no standard output")
    finish = Finish("stop")
    shown = ""
    try:
        for event in stream.events():
            if as_json:
                write(msgspec.json.encode(event).decode() + "\n")
            elif isinstance(event, TextDelta):
                # Noted first: Ctrl-C may come as soon as the text is out.
                shown = harmless(event.text) or shown
                write(event.text)
            elif isinstance(event, Retrying):
                note(f"{event.error}; trying again in {event.delay_s:.1f} s")
            elif isinstance(event, FellBack):
                note(f"{event.error}; asking {event.provider}")
            if isinstance(event, Finish):
                finish = event
    finally:
        if shown and not shown.endswith("\n"):
            write("\n")
    if refusal := stream.completion.refusal:
        note(f"the model refuses: {refusal}")
    if finish.reason != "stop":
        details = ": ".join(filter(None, (finish.raw_reason, finish.message)))
        note(f"the answer ended early: {finish.reason}" + (f" ({details})" if details else ""))


def stats_line(metrics: StreamMetrics, completion: Completion) -> str:
    """Return the figures that there are, in one line."""
    usage = completion.usage
    figures = (
        ("first text after {:.0f} ms", metrics.ttft_ms),
        ("longest gap {:.2f} s", metrics.longest_gap_s),
        ("{:.1f} s in all", metrics.total_s),
        ("{} deltas", metrics.deltas),
        ("{:.1f} deltas/s", metrics.deltas_per_s),
        ("{:.1f} tokens/s", metrics.output_tokens_per_s),
        ("{} input tokens", usage and usage.input_tokens),
        ("{} of them cached", usage and usage.cached_input_tokens),
        ("{} output tokens", usage and usage.output_tokens),
        ("{} of them reasoning", usage and usage.reasoning_tokens),
    )
    return ", ".join(form.format(value) for form, value in figures if value is not None)
