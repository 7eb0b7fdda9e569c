"""Ways to spoil an event stream, for Hypothesis to choose from."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st

#: Changes a body; made of numbers that say where, whatever its length.
Mutation = Callable[[bytes], bytes]

#: What has a meaning in some layer, and may come in the middle of another.
TOKENS = [
    b"\n",
    b"\n\n",
    b"\r",
    b"\r\n\r\n",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xf0\x9f",
    b":",
    b"data: ",
    b"data: [DONE]\n\n",
    b"data: null\n\n",
    b"data: []\n\n",
    b"data: {}\n\n",
    b"event: error\n",
    b"event: message_stop\ndata: {}\n\n",
    b"id: \0\n",
    b"retry: 1\n",
    b'error: {"error":{"message":"no"}}\n',
    b'{"error":{"message":"no"}}\n',
    b'data: {"error":{"message":"no","code":429}}\n\n',
    b'data: {"type":"error","error":{"type":"overloaded_error","message":"no"}}\n\n',
    b"[[[[",
    b"}",
    b'"',
    b"\\",
    b"\\ud83d",
    b"NaN",
    b"1e999",
    b"<html>\n",
]

#: What a field may hold instead of what it should.
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2**63, 10**30, 1.5, "", "x", "null", "\u00b2", "\u0000"),
    *("9" * 5000, "data: x\n\n", "\\"),
    *([], [None], [1], [""], [[]], [{}], {}, {"": None}, {"a": {"b": []}}),
    *("error", "stop", "STOP", "message_stop", "tool_use", "text_delta", "429", "data"),
    *([{"type": "text", "text": "x"}], [{"index": 1}], {"error": {"error": "x"}}),
    *({"message": ["x"], "code": [1]}, {"code": -(10**20)}, {"type": {}, "index": []}),
]

_places = st.integers(0, 2**20)
_lengths = st.integers(0, 300)


def _inserted(at: int, token: bytes) -> Mutation:
    def mutate(body: bytes) -> bytes:
        here = at % (len(body) + 1)
        return body[:here] + token + body[here:]

    return mutate


def _dropped(at: int, length: int) -> Mutation:
    def mutate(body: bytes) -> bytes:
        here = at % (len(body) + 1)
        return body[:here] + body[here + length :]

    return mutate


def _duplicated(at: int, length: int) -> Mutation:
    def mutate(body: bytes) -> bytes:
        here = at % (len(body) + 1)
        return body[: here + length] + body[here:]

    return mutate


def _flipped(at: int, bits: int) -> Mutation:
    def mutate(body: bytes) -> bytes:
        if not body:
            return body
        here = at % len(body)
        return body[:here] + bytes([body[here] ^ bits]) + body[here + 1 :]

    return mutate


def _truncated(at: int) -> Mutation:
    return lambda body: body[: at % (len(body) + 1)]


def _reordered(first: int, second: int, separator: bytes) -> Mutation:
    """Exchange two lines, or two events."""

    def mutate(body: bytes) -> bytes:
        parts = body.split(separator)
        a, b = first % len(parts), second % len(parts)
        parts[a], parts[b] = parts[b], parts[a]
        return separator.join(parts)

    return mutate


def _revalued(event: int, node: int, value: Any, *, rename: bool) -> Mutation:
    """Put another value, or another name, into the JSON of an event."""

    def mutate(body: bytes) -> bytes:
        lines = body.split(b"\n")
        found = [at for at, line in enumerate(lines) if line.startswith((b"data: {", b"data: ["))]
        if not found:
            return body
        at = found[event % len(found)]
        try:
            root = [json.loads(lines[at][6:])]
        except ValueError:
            return body
        places = list(_walk(root))
        container, key = places[node % len(places)]
        if rename and isinstance(container, dict):
            container[str(value)] = container.pop(key)
        else:
            container[key] = value
        lines[at] = b"data: " + json.dumps(root[0]).encode()
        return b"\n".join(lines)

    return mutate


def _walk(container: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place in JSON that has a value, from the outside in."""
    keys = list(container) if isinstance(container, dict) else range(len(container))
    for key in keys:
        yield container, key
        if isinstance(container[key], (dict, list)):
            yield from _walk(container[key])


def with_one_field_wrong(body: bytes) -> Iterator[bytes]:
    """Yield a body with each value of its JSON replaced by each other one, one at a time."""
    lines = body.split(b"\n")
    for at, line in enumerate(lines):
        if line.startswith((b"data: {", b"data: [")) and not line.startswith(b"data: [DONE]"):
            for node in range(len(list(_walk([json.loads(line[6:])])))):
                for value in VALUES:
                    root = [json.loads(line[6:])]
                    container, key = next(itertools.islice(_walk(root), node, None))
                    container[key] = value
                    changed = b"data: " + json.dumps(root[0]).encode()
                    yield b"\n".join([*lines[:at], changed, *lines[at + 1 :]])


def _spliced(at: int, other: bytes, there: int) -> Mutation:
    def mutate(body: bytes) -> bytes:
        return body[: at % (len(body) + 1)] + other[there % (len(other) + 1) :]

    return mutate


def mutations(others: st.SearchStrategy[bytes]) -> st.SearchStrategy[list[Mutation]]:
    """Make some changes to do one after the other.

    Args:
        others: Bodies to splice with.
    """
    values = st.sampled_from(VALUES)
    one = st.one_of(
        st.builds(_revalued, _places, _places, values, rename=st.just(False)),
        st.builds(_revalued, _places, _places, values, rename=st.booleans()),
        st.builds(_inserted, _places, st.sampled_from(TOKENS)),
        st.builds(_dropped, _places, _lengths),
        st.builds(_duplicated, _places, _lengths),
        st.builds(_flipped, _places, st.integers(1, 255)),
        st.builds(_truncated, _places),
        st.builds(_reordered, _places, _places, st.sampled_from([b"\n", b"\n\n"])),
        st.builds(_spliced, _places, others, _places),
    )
    return st.lists(one, min_size=1, max_size=6)
