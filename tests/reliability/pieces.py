"""Pieces of bodies in the three formats, written by hand, and responses made of them."""

from __future__ import annotations

import json
from typing import Any, Protocol

from tests.wire import Body, Connection, head

EVENT_STREAM = {"Content-Type": "text/event-stream"}
#: Heads of responses whose bodies end with the connection, or are chunked.
HEAD = head(200, EVENT_STREAM, framing="close")
CHUNKED = head(200, EVENT_STREAM, framing="chunked")


class Pieces(Protocol):
    """What a format has to say, as bytes of an event stream.

    Attributes:
        end: What completes an answer.
    """

    end: bytes

    def text(self, text: str) -> bytes:
        """Return a text delta."""

    def calls(self, *numbers: int) -> bytes:
        """Return complete calls without arguments."""

    def begun_call(self, number: int = 0) -> bytes:
        """Return the beginning of a call with one argument, a text."""

    def fragment(self, text: str) -> bytes:
        """Return a piece of that text."""

    def ended_call(self, number: int = 0) -> bytes:
        """Return the end of that call."""


def data(value: Any) -> bytes:
    """Return an event with JSON in it; bytes are JSON already."""
    text = value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()
    return b"data: %s\n\n" % text


def chunk(payload: bytes) -> bytes:
    """Return an HTTP chunk."""
    return b"%x\r\n%s\r\n" % (len(payload), payload)


def sends(*parts: bytes, forever: bytes = b"") -> Body:
    """Return a response that writes some bytes, and then others for ever."""

    def respond(connection: Connection) -> None:
        for part in parts:
            connection.send(part)
        while forever:
            connection.send(forever)

    respond.closes = True  # type: ignore[attr-defined]
    return respond


class _OpenAI:
    end = data({"choices": [{"delta": {}, "finish_reason": "stop"}]}) + b"data: [DONE]\n\n"

    def text(self, text: str) -> bytes:
        return data({"choices": [{"delta": {"content": text}}]})

    def calls(self, *numbers: int) -> bytes:
        function = {"name": "f", "arguments": "{}"}
        return self._calls(
            *({"index": n, "id": f"call_{n}", "function": function} for n in numbers)
        )

    def begun_call(self, number: int = 0) -> bytes:
        function = {"name": "f", "arguments": '{"a":"'}
        return self._calls({"index": number, "id": f"call_{number}", "function": function})

    def fragment(self, text: str) -> bytes:
        return self._calls({"index": 0, "function": {"arguments": text}})

    def ended_call(self, number: int = 0) -> bytes:
        return self._calls({"index": number, "function": {"arguments": '"}'}})

    def _calls(self, *calls: dict[str, Any]) -> bytes:
        return data({"choices": [{"delta": {"tool_calls": calls}}]})


class _Anthropic:
    end = data({"type": "message_delta", "delta": {"stop_reason": "end_turn"}})
    end += data({"type": "message_stop"})

    def text(self, text: str) -> bytes:
        return self._delta({"type": "text_delta", "text": text})

    def calls(self, *numbers: int) -> bytes:
        return b"".join(self._start(n) + self._stop(n) for n in numbers)

    def begun_call(self, number: int = 0) -> bytes:
        piece = {"type": "input_json_delta", "partial_json": '{"a":"'}
        return self._start(number) + self._delta(piece, number)

    def fragment(self, text: str) -> bytes:
        return self._delta({"type": "input_json_delta", "partial_json": text})

    def ended_call(self, number: int = 0) -> bytes:
        piece = {"type": "input_json_delta", "partial_json": '"}'}
        return self._delta(piece, number) + self._stop(number)

    def _start(self, number: int) -> bytes:
        block = {"type": "tool_use", "id": f"call_{number}", "name": "f", "input": {}}
        return data({"type": "content_block_start", "index": number, "content_block": block})

    def _delta(self, delta: dict[str, str], number: int = 0) -> bytes:
        return data({"type": "content_block_delta", "index": number, "delta": delta})

    def _stop(self, number: int) -> bytes:
        return data({"type": "content_block_stop", "index": number})


class _Gemini:
    end = data({"candidates": [{"finishReason": "STOP"}]})

    def text(self, text: str) -> bytes:
        return self._parts({"text": text})

    def calls(self, *numbers: int) -> bytes:
        functions = ({"id": f"call_{n}", "name": "f", "args": {}} for n in numbers)
        return self._parts(*({"functionCall": function} for function in functions))

    def begun_call(self, number: int = 0) -> bytes:
        function = {"id": f"call_{number}", "name": "f", "willContinue": True}
        return self._parts({"functionCall": function})

    def fragment(self, text: str) -> bytes:
        piece = {"jsonPath": "$.a", "stringValue": text, "willContinue": True}
        return self._parts({"functionCall": {"partialArgs": [piece], "willContinue": True}})

    def ended_call(self, number: int = 0) -> bytes:
        return self._parts({"functionCall": {}})

    def _parts(self, *parts: dict[str, Any]) -> bytes:
        return data({"candidates": [{"content": {"parts": parts}}]})


#: The formats by their providers' names.
PIECES: dict[str, Pieces] = {"openai": _OpenAI(), "anthropic": _Anthropic(), "gemini": _Gemini()}


def argument_at(path: str) -> bytes:
    """Return a call of Gemini's whose one argument has this path."""
    piece = {"jsonPath": path, "stringValue": "x"}
    function = {"name": "f", "partialArgs": [piece]}
    return data({"candidates": [{"content": {"parts": [{"functionCall": function}]}}]})


def _gemini_parts(*parts: Any, **more: Any) -> bytes:
    return data({"candidates": [{"content": {"parts": parts}, **more}]})


def _streamed(path: str, value: str, *, last: bool = False) -> bytes:
    piece = {"jsonPath": path, "stringValue": value, "willContinue": not last}
    return _gemini_parts({"functionCall": {"partialArgs": [piece], "willContinue": not last}})


#: What servers have been seen to send and the package's own encoders never write.
ODD: dict[str, bytes] = {
    "openai": b"".join(
        [
            data({"choices": [{"delta": {"function_call": {"name": "f", "arguments": "{"}}}]}),
            data({"choices": [{"delta": {"function_call": {"arguments": "}"}}}]}),
            data({"choices": [{"delta": {"tool_calls": [{"function": {"name": "g"}}]}}]}),
            data({"choices": [{"delta": {"content": [{"type": "thinking", "thinking": "Hm"}]}}]}),
            data({"choices": [{"delta": {"reasoning": "Hm"}, "finish_reason": None}]}),
            data({"choices": [], "citations": ["http://a"], "search_results": [{"url": "b"}]}),
            data({"choices": [{"delta": None, "finish_reason": "eos"}], "usage": None}),
            data({"choices": [], "x_groq": {"usage": {"prompt_tokens": 1, "queue_time": 0.1}}}),
            data({"error": {"message": "no", "type": "server_error", "code": "500"}}),
            data({"object": "error", "message": "no", "code": 429}),
            b"data: [DONE]\n\n",
        ]
    ),
    "anthropic": b"".join(
        [
            data(
                {"type": "message_start", "message": {"content": [{"type": "text", "text": "a"}]}}
            ),
            data({"type": "ping"}),
            data(
                {"type": "content_block_start", "index": 3, "content_block": {"type": "tool_use"}}
            ),
            data(
                {
                    "type": "content_block_start",
                    "index": 4,
                    "content_block": {
                        "type": "tool_use",
                        "id": "a",
                        "name": "f",
                        "input": {"a": [1, None, "x"]},
                    },
                }
            ),
            data({"type": "content_block_stop", "index": 4}),
            data(
                {
                    "type": "content_block_start",
                    "index": 5,
                    "content_block": {"type": "server_tool_use", "name": "web"},
                }
            ),
            data({"type": "content_block_delta", "index": 5, "delta": {"type": "new_delta"}}),
            data(
                {
                    "type": "message_delta",
                    "delta": {"stop_reason": "refusal", "stop_details": {"explanation": "no"}},
                    "usage": {"output_tokens": 1},
                }
            ),
            b"event: error\n",
            data({"type": "error", "error": {"type": "overloaded_error", "message": "no"}}),
            data({"type": "message_stop"}),
        ]
    ),
    "gemini": b"".join(
        [
            _gemini_parts({"functionCall": {"name": "f", "args": {"a": 1}, "willContinue": True}}),
            _streamed("$.b", "x"),
            _streamed("$.b", "y"),
            _streamed("$.c[0].d['e f']", "z"),
            _streamed("$['g'][1]", "z", last=True),
            _gemini_parts({"executableCode": {"code": "1"}}, {"inlineData": {"data": "eA=="}}),
            _gemini_parts(
                {"text": "a"},
                groundingMetadata={"groundingChunks": [{"web": {"uri": "a", "title": "b"}}]},
            ),
            data({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"x": 1}}),
            data({"candidates": [{"index": 1, "finishReason": "STOP"}]}),
            data({"candidates": [{"finishReason": "STOP", "urlContextMetadata": {"a": []}}]}),
            data([{"error": {"code": 429, "message": "no", "details": [{"retryDelay": "7s"}]}}]),
        ]
    ),
    "openai-responses": b"".join(
        [
            data({"type": "response.output_text.delta", "delta": "a"}),
            data({"type": "keepalive", "sequence_number": 1}),
            data({"type": "response.output_item.added", "item": {"type": "web_search_call"}}),
            data({"type": "response.output_text.done", "text": "ab", "output_index": 0}),
            data({"type": "response.function_call_arguments.delta", "delta": "{"}),
            data({"type": "response.new.delta", "delta": None}),
            data({"type": "error", "code": "rate_limit_exceeded", "message": "no"}),
            data({"type": "response.failed", "response": {"error": {"code": "server_error"}}}),
            b"data: [DONE]\n\n",
        ]
    ),
    "ollama": b"".join(
        [
            b'{"model":"m","message":{"content":"a","thinking":"Hm"}}\r\n\n',
            b'{"message":{"tool_calls":[{"function":{"name":"f","arguments":"{"}},{}]}}\n',
            b'{"new":[1]}\n[]\nno value\n',
            b'{"done":true,"done_reason":"load","eval_count":1}\n',
            b'{"error":"no","status":429}\n',
        ]
    ),
}
