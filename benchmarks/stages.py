"""What lies between the floor and llm-sse: each stage of a drained delta by itself.

Every stage gets what the one before has made of the very same bytes, in one thread, and nothing
waits. What is left of the whole is what two threads cost that hand each other batches.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

from llm_sse.chunked import ChunkedDecoder
from llm_sse.completion import Accumulator
from llm_sse.metrics import MetricsRecorder
from llm_sse.providers import find_provider
from llm_sse.providers.openai import _decode_chunk
from llm_sse.sse import SSEDecoder

from .clients import Ask
from .server import order
from .wire import END, answer_text

__all__ = ["stages"]

_REPEATS = 3
_READ_BYTES = 64 * 1024


def stages(ask: Ask, *, url: str, deltas: int) -> dict[str, Any]:
    """Return the processor time of each stage for a delta of OpenAI's format, in microseconds.

    Each is the least of some repeats: what else the machine does can only add to it. What a stage
    makes is let go at once, as on its way through a stream.
    """
    pieces = list(_pieces(url, deltas))
    bodies = [*map(ChunkedDecoder().feed, pieces)]
    wire = [event for batch in map(SSEDecoder().feed, bodies) for event in batch]
    documents = [event.data for event in wire[:-1]]  # the last one says [DONE]
    row = find_provider("openai")
    events = [event for several in map(row.decoder().decode, wire) for event in several]
    makes: dict[str, Callable[[], Iterable[Any]]] = {
        "read_us": lambda: _pieces(url, deltas),
        "chunks_us": lambda: map(ChunkedDecoder().feed, pieces),
        "sse_us": lambda: map(SSEDecoder().feed, bodies),
        "json_us": lambda: map(_decode_chunk.decode, documents),
        "decode_us": lambda: map(row.decoder().decode, wire),
        "so_far_us": lambda: _so_far(events),
    }
    figures: dict[str, Any] = {name: _least_us(make) / deltas for name, make in makes.items()}
    figures["meaning_us"] = figures.pop("decode_us") - figures["json_us"]
    alone = sum(figures.values())
    figures["whole_us"] = _least_us(lambda: ask(order("drain", deltas))) / deltas
    figures["threads_us"] = figures["whole_us"] - alone
    texts = list(ask(order("drain", deltas)))
    figures["lost"] = deltas - len(texts)
    figures["right"] = "".join(texts) == answer_text(deltas)
    return figures


def _least_us(make: Callable[[], Iterable[Any]]) -> float:
    """Iterate to the end some times; return the least processor time that it took."""
    took_ns = []
    for _ in range(_REPEATS):
        begun_ns = time.process_time_ns()
        deque(make(), maxlen=0)
        took_ns.append(time.process_time_ns() - begun_ns)
    return min(took_ns) / 1000


def _pieces(url: str, deltas: int) -> Iterator[bytes]:
    """Ask over a bare socket; yield the body, still in its chunks, as it is read."""
    where = urlsplit(url)
    body = order("drain", deltas).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body)
    with socket.create_connection((where.hostname or "", where.port or 80)) as sock:
        sock.sendall(head + body)
        piece = sock.recv(_READ_BYTES).partition(b"\r\n\r\n")[2]
        last = b""
        while piece:
            yield piece
            last = (last + piece)[-len(END) :]
            if last == END:
                return
            piece = sock.recv(_READ_BYTES)
    raise SystemExit("the server closed before the answer's end")


def _so_far(events: list[Any]) -> Iterator[None]:
    said = Accumulator("openai")
    pace = MetricsRecorder(time.monotonic)
    for event in events:
        said.add(event)
        pace.content(type(event))
        yield
