"""The answers that the benchmarks' server gives, in each provider's wire format.

Every delta is one server-sent event in one HTTP chunk, with all the fields that the providers send
around it: a client pays for reading past them, too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

__all__ = ["BLOCK", "END", "FORMATS", "HEAD", "Format", "answer_text", "block", "chunk"]

#: How many deltas are written beforehand; longer answers repeat them.
BLOCK = 1000

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"
)
#: The end of a chunked body.
END = b"0\r\n\r\n"

_MODEL = "bench-1-mini"


class Format(NamedTuple):
    """One wire format.

    Attributes:
        path: What the path of a request in this format contains.
        begin: What is sent before the first delta.
        delta: Writes one delta.
        finish: What is sent after the last one.
    """

    path: bytes
    begin: bytes
    delta: Callable[[str], bytes]
    finish: bytes


def chunk(data: bytes) -> bytes:
    """Write bytes as one HTTP chunk."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def _word(number: int) -> str:
    return f" w{number:03d}"


def block(format_: Format) -> bytes:
    """Return the deltas that every long answer consists of."""
    return b"".join(chunk(format_.delta(_word(number))) for number in range(BLOCK))


def answer_text(deltas: int) -> str:
    """Return the text of an answer of so many deltas."""
    return "".join(_word(number % BLOCK) for number in range(deltas))


def _sse(data: Mapping[str, Any], *, named: bool = False) -> bytes:
    name = f"event: {data['type']}\n" if named else ""
    return f"{name}data: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


# --- OpenAI Chat Completions ---


def _openai(delta: Mapping[str, Any], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return _sse(
        {
            "id": "chatcmpl-bench0123456789abcdefghijkl",
            "object": "chat.completion.chunk",
            "created": 1_790_000_000,
            "model": _MODEL,
            "service_tier": "default",
            "system_fingerprint": "fp_0123456789",
            "choices": [choice],
        }
    )


# --- Anthropic Messages ---


def _anthropic(type_: str, **fields: Any) -> bytes:
    return _sse({"type": type_, **fields}, named=True)


def _anthropic_begin() -> bytes:
    message: dict[str, Any] = {
        "id": "msg_bench0123456789abcdef",
        "type": "message",
        "role": "assistant",
        "model": _MODEL,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 9, "output_tokens": 1},
    }
    opened = _anthropic("content_block_start", index=0, content_block={"type": "text", "text": ""})
    return chunk(_anthropic("message_start", message=message)) + chunk(opened)


def _anthropic_delta(text: str) -> bytes:
    delta = {"type": "text_delta", "text": text}
    return _anthropic("content_block_delta", index=0, delta=delta)


def _anthropic_finish() -> bytes:
    delta = {"stop_reason": "end_turn", "stop_sequence": None}
    return (
        chunk(_anthropic("content_block_stop", index=0))
        + chunk(_anthropic("message_delta", delta=delta, usage={"output_tokens": 5}))
        + chunk(_anthropic("message_stop"))
        + END
    )


# --- Gemini ---


def _gemini(text: str, finish_reason: str | None = None) -> bytes:
    candidate: dict[str, Any] = {
        "content": {"parts": [{"text": text}], "role": "model"},
        "index": 0,
    }
    if finish_reason is not None:
        candidate["finishReason"] = finish_reason
    return _sse(
        {
            "candidates": [candidate],
            "usageMetadata": {
                "promptTokenCount": 9,
                "candidatesTokenCount": 5,
                "totalTokenCount": 14,
                "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 9}],
            },
            "modelVersion": _MODEL,
            "responseId": "bench0123456789abcdef",
        }
    )


FORMATS = {
    "openai": Format(
        b"/chat/completions",
        chunk(_openai({"role": "assistant", "content": "", "refusal": None})),
        lambda text: _openai({"content": text}),
        chunk(_openai({}, "stop")) + chunk(b"data: [DONE]\n\n") + END,
    ),
    "anthropic": Format(b"/v1/messages", _anthropic_begin(), _anthropic_delta, _anthropic_finish()),
    "gemini": Format(b":streamGenerateContent", b"", _gemini, chunk(_gemini("", "STOP")) + END),
}
