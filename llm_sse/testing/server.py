"""A fake provider on a loopback socket: every provider's wire format, real HTTP, no key.

It speaks Chat Completions, Messages and streamGenerateContent on their real paths, in chunked
HTTP/1.1 with keep-alive, and refuses what the real endpoints refuse.
"""

from __future__ import annotations

import random
import re
import selectors
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import TracebackType
from typing import Any, Literal, Union, get_args

import msgspec

from ..errors import APIError, ConfigurationError, InvalidRequestError
from ..events import (
    Event,
    Finish,
    ReasoningDelta,
    StreamStart,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from ..providers import PROVIDERS, Provider, find_provider
from ..providers.base import Accepted, Encoder
from .script import (
    Action,
    CallTool,
    Cut,
    Fail,
    FinishWith,
    Pause,
    Raw,
    Say,
    Status,
    Think,
    is_time,
    say,
    words,
)

__all__ = ["DEFAULT_TEXT", "FakeServer", "RecordedRequest"]

DEFAULT_TEXT = (
    "Server-sent events are a plain text format in which a server keeps one HTTP response open and "
    "sends one event after another, each a few lines that end with an empty line. Language models "
    "are streamed that way, so that the first words can be read while the last ones are still "
    "being thought of."
)
_MAX_BODY_BYTES = 64 * 1024 * 1024

#: How an answer can end.
Outcome = Literal["complete", "cut", "disconnected", "refused"]


class RecordedRequest:
    """One request that the server got, and what became of its answer.

    Attributes:
        method: The HTTP method.
        path: The path, without the query.
        query: The query, without the question mark.
        headers: The headers; the names are lower-case.
        body: The body.
        provider: Whose format was asked for; `None` where the path is nobody's.
        connection: Which connection it came on, counted from 1.
        deltas_sent: How many text deltas were written to the socket so far.
        outcome: How the answer ended; `None` while it has not. `disconnected` means that the client
            closed the connection.
        ended: Set when the answer has ended.
    """

    def __init__(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes, connection: int
    ) -> None:
        self.method = method
        self.path, _, self.query = target.partition("?")
        self.headers = dict(headers)
        self.body = body
        self.connection = connection
        self.provider: str | None = None
        self.deltas_sent = 0
        self.outcome: Union[Outcome, None] = None
        self.ended = threading.Event()

    @property
    def json(self) -> Any:
        """The body, decoded from JSON."""
        return msgspec.json.decode(self.body)

    def end(self, outcome: Outcome) -> None:
        """Note how the answer ended."""
        self.outcome = outcome
        self.ended.set()


class FakeServer:
    """A provider of your own, for tests and for trying things out; it runs until `close()`.

    ::

        with FakeServer(text="Hello there.") as server:
            for token in stream_sync("Hi", base_url=server.base_url("openai"), api_key="any"):
                ...

    Args:
        text: What it answers, where no script says otherwise.
        script: What it does for every request, instead of saying `text`; see `script()`.
        ttft_s: How long it takes to its first token, in seconds.
        tokens_per_s: How many deltas it sends per second; `None` is as fast as it can.
        jitter: How much the gaps vary, from 0 (not at all) to 1 (from none to twice as long).
        seed: Where the jitter's chance begins.
        port: Where it listens; 0 takes a free port.

    Attributes:
        requests: What was asked, in the order of arrival, and what became of it.
        url: The server's root, such as `http://127.0.0.1:40123`.

    Thread: one per connection; every method may be called from any thread.
    """

    def __init__(
        self,
        text: str = DEFAULT_TEXT,
        *,
        script: Sequence[Action] | None = None,
        ttft_s: float = 0.0,
        tokens_per_s: float | None = None,
        jitter: float = 0.0,
        seed: int = 0,
        port: int = 0,
    ) -> None:
        if not is_time(ttft_s):
            raise ConfigurationError(f"ttft_s must be a number of at least 0, not {ttft_s!r}")
        if tokens_per_s is not None and not (is_time(tokens_per_s) and tokens_per_s > 0):
            raise ConfigurationError(f"tokens_per_s must be above 0 or None, not {tokens_per_s!r}")
        if not (is_time(jitter) and jitter <= 1):
            raise ConfigurationError(f"jitter must be between 0 and 1, not {jitter!r}")
        self.requests: list[RecordedRequest] = []
        self._actions = _checked([say(text)] if script is None else script)
        self._queue: deque[tuple[Action, ...]] = deque()
        self._ttft_s = ttft_s
        self._gap_s = 1 / tokens_per_s if tokens_per_s else 0.0
        self._jitter = jitter
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._live: set[socket.socket] = set()
        self._connections = 0
        self._closed = False
        try:
            self._server = _Server(("127.0.0.1", port), self)
        except (OSError, OverflowError) as error:
            raise ConfigurationError(f"cannot listen on 127.0.0.1:{port}: {error}") from error
        self._port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self._port}"
        self._thread = threading.Thread(target=self._accept, name="llm-sse-fake", daemon=True)
        self._thread.start()

    def base_url(self, provider: str) -> str:
        """Return what to pass as `base_url=` for a provider's format."""
        return self.url + find_provider(provider).root

    def script(self, *actions: Action) -> None:
        """Say what to do for every request from now on."""
        self._actions = _checked(actions)

    def enqueue(self, *actions: Action) -> None:
        """Say what to do for one request only, after those enqueued before."""
        with self._lock:
            self._queue.append(_checked(actions))

    def close(self) -> None:
        """Stop listening, cut every connection, wait for the threads."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._port)):
            pass  # wakes the thread that accepts connections
        self._thread.join()
        with self._lock:
            live = list(self._live)
        for connection in live:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()
        for thread in self._server.threads:
            thread.join()

    def __enter__(self) -> FakeServer:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._closed:
            self._server.handle_request()

    def _connected(self, connection: socket.socket) -> int:
        with self._lock:
            self._live.add(connection)
            self._connections += 1
            if self._closed:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            return self._connections

    def _disconnected(self, connection: socket.socket) -> None:
        with self._lock:
            self._live.discard(connection)

    def _next_actions(self, recorded: RecordedRequest) -> tuple[Action, ...]:
        with self._lock:
            self.requests.append(recorded)
            return self._queue.popleft() if self._queue else self._actions

    def _gap(self) -> float:
        with self._lock:
            return self._gap_s * (1 + self._jitter * self._random.uniform(-1, 1))


def _checked(actions: Sequence[Action]) -> tuple[Action, ...]:
    for position, action in enumerate(actions):
        if not isinstance(action, get_args(Action)):
            raise ConfigurationError(f"a script is made of say(), think(), ...; not of {action!r}")
        if isinstance(action, Status) and (position or len(actions) > 1):
            raise ConfigurationError("status() answers instead of a stream: it must stand alone")
    return tuple(actions)


class _Disconnected(Exception):
    """The client has closed the connection."""


class _Server(HTTPServer):
    request_queue_size = 1024

    def __init__(self, address: tuple[str, int], fake: FakeServer) -> None:
        self.fake = fake
        self.threads: list[threading.Thread] = []
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread; a daemon, so that nobody has to close a fake to exit."""
        self.threads = [thread for thread in self.threads if thread.is_alive()]
        thread = threading.Thread(
            target=self._serve,
            args=(request, client_address),
            name="llm-sse-fake-connection",
            daemon=True,
        )
        self.threads.append(thread)
        thread.start()

    def _serve(self, request: Any, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except Exception:
            self.handle_error(request, client_address)
        finally:
            self.shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error of ours; everything else is."""
        if not isinstance(sys.exc_info()[1], (OSError, _Disconnected)):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """One connection, request after request."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self._number = self.server.fake._connected(self.connection)

    def finish(self) -> None:
        self.server.fake._disconnected(self.connection)
        with suppress(OSError):
            super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a test's output is the test's."""

    def do_POST(self) -> None:
        self._serve()

    do_GET = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = do_POST

    def _serve(self) -> None:
        fake = self.server.fake
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self._read_body(headers)
        if body is None:
            return
        recorded = RecordedRequest(self.command, self.path, headers, body, self._number)
        provider = _provider_at(recorded.path)
        recorded.provider = provider.name if provider is not None else None
        try:
            accepted = self._accept(recorded, provider)
        except APIError as error:
            with fake._lock:
                fake.requests.append(recorded)
            self._refuse(recorded, provider, error)
            return
        assert provider is not None
        actions = fake._next_actions(recorded)
        try:
            if len(actions) == 1 and isinstance(actions[0], Status):
                said = actions[0]
                refusal = provider.api_error(said.status, said.message, code=said.code)
                self._refuse(recorded, provider, refusal, said.headers)
            else:
                _Reply(self, recorded, provider, accepted).play(actions)
        except (OSError, _Disconnected):
            recorded.end("disconnected")
            self.close_connection = True

    def _read_body(self, headers: Mapping[str, str]) -> bytes | None:
        """Return the request's body; `None` where it cannot be read and the connection must end."""
        length = headers.get("content-length", "0")
        if "transfer-encoding" in headers or not length.isdigit() or int(length) > _MAX_BODY_BYTES:
            self.close_connection = True
            self.send_error(411 if "transfer-encoding" in headers else 413)
            return None
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            self.close_connection = True
            return None
        return body

    def _accept(self, recorded: RecordedRequest, provider: Provider | None) -> Accepted:
        if provider is None:
            raise InvalidRequestError(
                "", status=404, detail=f"Unknown request URL: {recorded.method} {recorded.path}"
            )
        if recorded.method != "POST":
            raise provider.api_error(405, f"{recorded.method} is not allowed here; use POST")
        accepted = provider.accept(recorded.path, recorded.headers, recorded.body)
        if not accepted.stream:
            raise provider.api_error(400, "this fake provider only streams: ask for a stream")
        return accepted

    def _refuse(
        self,
        recorded: RecordedRequest,
        provider: Provider | None,
        error: APIError,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        body = (provider or PROVIDERS["openai"]).error_body(error)
        self.send_response(error.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Request-Id", f"req_fake_{id(recorded):x}")
        if error.status == 405:
            self.send_header("Allow", "POST")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        recorded.end("refused")  # before the client can see the end, and look
        self.end_headers()
        if recorded.method != "HEAD":
            self.wfile.write(body)


def _provider_at(path: str) -> Provider | None:
    """Return the first row of the table whose endpoint has this path."""
    for row in PROVIDERS.values():
        if any(re.fullmatch(pattern, path) for pattern in row.paths):
            return row
    return None


class _Reply:
    """One streamed answer."""

    def __init__(
        self, handler: _Handler, recorded: RecordedRequest, provider: Provider, accepted: Accepted
    ) -> None:
        self._handler = handler
        self._recorded = recorded
        self._provider = provider
        self._accepted = accepted
        self._encoder: Encoder = provider.encoder(model=accepted.model, usage=accepted.usage)
        self._calls = 0
        self._deltas = 0
        self._due = time.monotonic() + handler.server.fake._ttft_s

    def play(self, actions: Sequence[Action]) -> None:
        """Send the headers, then what the script says, then a proper end."""
        handler = self._handler
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream; charset=utf-8")
        handler.send_header("Cache-Control", "no-cache")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.send_header("X-Request-Id", f"req_fake_{id(self._recorded):x}")
        handler.end_headers()
        self._event(StreamStart(self._accepted.model, f"fake-{len(handler.server.fake.requests)}"))
        finish: Finish | None = None
        for action in actions:
            if isinstance(action, (Cut, Fail)):
                self._break_off(action)
                return
            if isinstance(action, Pause):
                self._wait(action.seconds)
            elif isinstance(action, FinishWith):
                finish = Finish(action.reason)
            elif isinstance(action, Raw):
                self._write(action.data)
            else:
                for event in self._events(action):
                    self._pace()
                    self._event(event)
        prompt = len(words(self._accepted.prompt))
        self._event(Usage(prompt, self._deltas))
        self._recorded.end("complete")  # before the client can see the end, and look
        self._event(finish or Finish("tool_calls" if self._calls else "stop"))
        self._handler.wfile.write(b"0\r\n\r\n")

    def _break_off(self, action: Cut | Fail) -> None:
        if isinstance(action, Fail):
            error = self._provider.api_error(action.status, action.message)
            self._write(self._encoder.error(error))
        self._handler.close_connection = True
        self._recorded.end("cut")

    def _events(self, action: Action) -> Iterator[Event]:
        if isinstance(action, Say):
            yield from map(TextDelta, words(action.text))
        elif isinstance(action, Think):
            yield from map(ReasoningDelta, words(action.text))
        elif isinstance(action, CallTool):
            call_id = action.id or f"call_fake_{self._calls}"
            yield ToolCallDelta(self._calls, call_id, action.name)
            for piece in words(action.arguments_text):
                yield ToolCallDelta(self._calls, arguments=piece)
            self._calls += 1
            try:
                arguments = msgspec.json.decode(action.arguments_text, type=dict[str, Any])
            except msgspec.DecodeError:
                arguments = {}
            yield ToolCall(call_id, action.name, arguments, action.arguments_text)

    def _pace(self) -> None:
        """Wait until the next delta is due."""
        self._wait(self._due - time.monotonic())
        self._due = max(self._due, time.monotonic()) + self._handler.server.fake._gap()

    def _wait(self, seconds: float) -> None:
        """Sleep, unless the client goes away.

        Raises:
            _Disconnected: It has.
        """
        if seconds <= 0:
            return
        connection = self._handler.connection
        with selectors.DefaultSelector() as selector:
            selector.register(connection, selectors.EVENT_READ)
            readable = selector.select(seconds)
        if readable:
            if not connection.recv(1, socket.MSG_PEEK):
                raise _Disconnected
            time.sleep(seconds)  # a client that pipelines its next request

    def _event(self, event: Event) -> None:
        data = self._encoder.encode(event)
        if data:
            self._write(data)
        if isinstance(event, (TextDelta, ReasoningDelta, ToolCallDelta)):
            self._deltas += 1
        if isinstance(event, TextDelta):
            self._recorded.deltas_sent += 1

    def _write(self, data: bytes) -> None:
        if not data:
            return  # an empty HTTP chunk would be the body's end
        self._handler.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
