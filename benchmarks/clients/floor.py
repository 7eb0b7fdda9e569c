"""The floor: a bare socket, and the JSON decoder that llm-sse uses; nothing that makes it a client.

No connection is kept, no status looked at, no chunk taken out of its framing: the lines between the
events are passed over, which works because this server cuts chunks where events end.
"""

from __future__ import annotations

import json
import queue
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import msgspec

from . import Ask

__all__ = ["connect", "connect_in_thread"]


_WAIT_S = 60.0


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta


class _Chunk(msgspec.Struct):
    choices: list[_Choice]


def connect(url: str) -> Ask:
    """Return a function that asks over a bare socket."""
    where = urlsplit(url)
    address = (where.hostname or "", where.port or 80)
    decode = msgspec.json.Decoder(_Chunk).decode

    def ask(prompt: str) -> Iterator[str]:
        body = json.dumps({"messages": [{"role": "user", "content": prompt}]}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(address) as sock:
            sock.sendall(head.encode() + body)
            unfinished = b""
            while data := sock.recv(65536):
                lines = (unfinished + data).split(b"\n")
                unfinished = lines.pop()
                for line in lines:
                    if line.startswith(b"data: "):
                        if line == b"data: [DONE]":
                            return
                        text = decode(line[6:]).choices[0].delta.content
                        if text:
                            yield text

    return ask


def connect_in_thread(url: str) -> Ask:
    """Return a function that asks over a bare socket in a second thread, and nothing else.

    What the two threads share is the fastest that the standard library has. It is what a wait costs
    that can be given up.
    """
    alone = connect(url)

    def ask(prompt: str) -> Iterator[str]:
        texts: queue.SimpleQueue[str | None] = queue.SimpleQueue()

        def read() -> None:
            try:
                for text in alone(prompt):
                    texts.put(text)
            finally:
                texts.put(None)

        threading.Thread(target=read, daemon=True).start()
        while (text := texts.get(timeout=_WAIT_S)) is not None:
            yield text

    return ask
