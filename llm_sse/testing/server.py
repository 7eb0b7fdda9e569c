"""A fake provider on a loopback socket: every provider's wire format, real HTTP, no key.

It speaks each format on its real path, streamed or whole, in HTTP/1.1 with keep-alive, refuses what
the real endpoints refuse, and breaks as networks do when it is told to.
"""

from __future__ import annotations

import random
import selectors
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Literal, Union

from ..errors import ConfigurationError
from ..providers import FORMATS, Provider, find_provider
from ..providers.base import Accepted
from .actions import Action, Framing
from .connection import Handler, close_socket, gone, secured
from .record import RecordedRequest
from .replay import Line, Playback, Recordings, Replay
from .reply import Farewell
from .script import checked, is_time, one_of, say

__all__ = ["DEFAULT_TEXT", "FakeServer", "OnConnect", "RecordedRequest", "Script"]

DEFAULT_TEXT = (
    "Server-sent events are a plain text format in which a server keeps one HTTP response open and "
    "sends one event after another, each a few lines that end with an empty line. Language models "
    "are streamed that way, so that the first words can be read while the last ones are still "
    "being thought of."
)
_BACKLOG = 1024
#: More connections than the smallest backlog of any system holds.
_FILLING = 8
#: How long a connection that is to be reset may be silent, in seconds.
_SILENT_S = 1.0

#: What happens to those who connect.
OnConnect = Literal["serve", "ignore", "reset", "black_hole"]
#: Says for each request what to do.
Script = Callable[[RecordedRequest], Sequence[Action]]


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
        framing: How the bodies are framed, where a script says nothing of it; see
            `llm_sse.testing.framing`.
        ssl_context: Makes it speak TLS, with the certificate of this context.
        on_connect: What happens to those who connect. `serve`: they are answered. `ignore`: their
            connection is taken, and no byte is read or written (a handshake or headers that never
            come). `reset`: it is taken, and reset at the client's first byte (or soon, if there is
            none; a reset in the middle of connecting would be another error). `black_hole`: a
            connection attempt gets no answer at all, as long as the server lives. That relies on
            how Linux treats a full backlog, which the server keeps full by itself.
        close_after: Closes the connection after each complete answer without having announced it.
        replay: One file that `stream_sync(record=...)` has written, or several: they are played
            instead of a text or a script. Each request gets the next recorded attempt of its
            format, after the last one the first again.
        replay_speed: How many times faster than recorded; `None` is as fast as it can.

    Attributes:
        requests: What was asked, in the order of arrival, and what became of it.
        url: The server's root, such as `http://127.0.0.1:40123`.
        close_after: As above; may be changed at any time.

    Thread: one per connection; every method may be called from any thread.
    """

    def __init__(
        self,
        text: str = DEFAULT_TEXT,
        *,
        script: Sequence[Action] | Script | None = None,
        ttft_s: float = 0.0,
        tokens_per_s: float | None = None,
        jitter: float = 0.0,
        seed: int = 0,
        port: int = 0,
        framing: Framing = "chunked",
        ssl_context: ssl.SSLContext | None = None,
        on_connect: OnConnect = "serve",
        close_after: bool = False,
        replay: Recordings | None = None,
        replay_speed: float | None = 1.0,
    ) -> None:
        one_of(OnConnect, on_connect, "on_connect")
        if ssl_context is not None and (
            not isinstance(ssl_context, ssl.SSLContext)
            or ssl_context.protocol == ssl.PROTOCOL_TLS_CLIENT
        ):
            raise ConfigurationError(f"ssl_context must be a server's, not {ssl_context!r}")
        self.requests: list[RecordedRequest] = []
        self.framing = framing
        self.close_after = close_after
        self._pace = _Pace(ttft_s, tokens_per_s, jitter, seed)
        self._script = _script([say(text)] if script is None else script)
        if replay is not None and (text is not DEFAULT_TEXT or script is not None):
            raise ConfigurationError("a replay says what was recorded: pass no text and no script")
        self._replay = Replay(replay, replay_speed) if replay is not None else None
        self._queue: deque[tuple[Action, ...]] = deque()
        self._ssl_context = ssl_context
        self._on_connect: OnConnect = on_connect
        self._lock = threading.Lock()
        self._live: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._connections = 0
        self._closing = threading.Event()
        if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
            raise ConfigurationError(f"port must be between 0 and 65535, not {port!r}")
        backlog = 0 if on_connect == "black_hole" else _BACKLOG
        try:
            self._listener = socket.create_server(("127.0.0.1", port), backlog=backlog)
        except OSError as error:
            raise ConfigurationError(f"cannot listen on 127.0.0.1:{port}: {error}") from error
        self._address = self._listener.getsockname()
        scheme = "http" if ssl_context is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._address[1]}"
        self._filling = _filled(self._listener) if on_connect == "black_hole" else []
        self._thread = threading.Thread(target=self._accept, name="llm-sse-fake", daemon=True)
        if on_connect != "black_hole":
            self._thread.start()

    @property
    def framing(self) -> Framing:
        """How the bodies are framed; may be changed at any time."""
        return self._framing

    @framing.setter
    def framing(self, how: Framing) -> None:
        one_of(Framing, how, "framing")
        self._framing: Framing = how

    @property
    def on_connect(self) -> OnConnect:
        """What happens to those who connect; may be changed at any time, but for `black_hole`."""
        return self._on_connect

    @on_connect.setter
    def on_connect(self, what: OnConnect) -> None:
        one_of(OnConnect, what, "on_connect")
        if what != self._on_connect and "black_hole" in (what, self._on_connect):
            raise ConfigurationError("a black hole is one for its whole life: make another server")
        self._on_connect = what

    @property
    def connections(self) -> int:
        """How many connections were taken so far."""
        return self._connections

    def base_url(self, provider: str) -> str:
        """Return what to pass as `base_url=` for a provider, one of your own included.

        The five formats are at the server's root, the others below their names.
        """
        row = find_provider(provider)
        if row.name in FORMATS:
            return self.url + row.root
        return f"{self.url}/{row.name}{row.base_url_suffix or row.root}"

    def script(self, *actions: Action | Script) -> None:
        """Say what to do for every request from now on; a replay ends with it.

        Args:
            actions: A script; or one function that is given each `RecordedRequest`, in the
                connection's thread, and returns the script for it. Where it raises, the answer is
                status 500.
        """
        given = actions[0] if len(actions) == 1 and callable(actions[0]) else actions
        self._script = _script(given)  # type: ignore[arg-type]
        self._replay = None

    def enqueue(self, *actions: Action) -> None:
        """Say what to do for one request only, after those enqueued before."""
        script = checked(actions)
        with self._lock:
            self._queue.append(script)

    def close(self) -> None:
        """Stop listening, cut every connection, wait for the threads."""
        with self._lock:
            if self._closing.is_set():
                return
            self._closing.set()
        if self._thread.ident is not None:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            with suppress(OSError), socket.create_connection(self._address):
                pass  # wakes the thread that accepts connections, where a shutdown does not
            self._thread.join()
        self._listener.close()
        for sock in self._filling:
            sock.close()
        with self._lock:
            for sock in self._live:
                with suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
        for thread in self._threads:
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

    # --- connections ---

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:  # closed; or out of descriptors, which passes
                self._closing.wait(0.01)
                continue
            if self._closing.is_set():  # it was close() that called
                close_socket(sock, "reset")
                return
            self._connections += 1
            # A daemon, so that nobody has to close a fake to exit.
            thread = threading.Thread(
                target=self._treatment(),
                args=(sock, self._connections),
                name="llm-sse-fake-connection",
                daemon=True,
            )
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            self._threads.append(thread)
            thread.start()

    def _treatment(self) -> Callable[[socket.socket, int], None]:
        treatments = {"reset": self._reset, "ignore": self._ignore}
        return treatments.get(self._on_connect, self._serve)

    def _serve(self, sock: socket.socket, number: int) -> None:
        """Serve one connection to its end. A client that goes away is no error of ours."""
        farewell: Farewell = "abrupt"
        try:
            if self._ssl_context is not None:
                sock = secured(sock, self._ssl_context)
            self._joins(sock)
            if isinstance(sock, ssl.SSLSocket):
                sock.do_handshake()
            handler = Handler(sock, self, number)
            handler.run()
            farewell = handler.farewell
        except OSError:
            pass
        finally:
            self._leaves(sock, farewell)

    def _ignore(self, sock: socket.socket, number: int) -> None:
        """Take a connection, and nothing more, until the client goes."""
        try:
            self._joins(sock)
            gone(sock, None, self._closing)
        except OSError:
            pass
        finally:
            self._leaves(sock, "abrupt")

    def _reset(self, sock: socket.socket, number: int) -> None:
        """Reset a connection, as soon as the client can be known to have it."""
        try:
            self._joins(sock)
            with selectors.DefaultSelector() as selector:
                selector.register(sock, selectors.EVENT_READ)
                selector.select(_SILENT_S)
        finally:
            self._leaves(sock, "reset")

    def _joins(self, sock: socket.socket) -> None:
        """Let `close()` know of a connection."""
        with self._lock:
            self._live.add(sock)
            if self._closing.is_set():
                with suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def _leaves(self, sock: socket.socket, how: Farewell) -> None:
        with self._lock:
            self._live.discard(sock)
        close_socket(sock, how)

    # --- requests ---

    def _record(self, recorded: RecordedRequest) -> int:
        """Note a request; return which it is, counted from 1."""
        with self._lock:
            self.requests.append(recorded)
            return len(self.requests)

    def _played(
        self, line: Line, recorded: RecordedRequest, provider: Provider, accepted: Accepted
    ) -> Playback | None:
        """Return what is replayed for a request, if anything is.

        Raises:
            APIError: Nothing of that kind was recorded.
        """
        with self._lock:
            if self._replay is None or self._queue:
                return None
            attempt = self._replay.next(provider, accepted)
            return Playback(line, recorded, attempt, self._replay.speed)

    def _taken_up(self, line: Line, recorded: RecordedRequest) -> Playback | None:
        """Return what is replayed for a request for an answer that the provider has kept.

        Raises:
            APIError: It is not what was recorded next.
        """
        with self._lock:
            if self._replay is None:
                return None
            attempt = self._replay.taken_up(recorded)
            return Playback(line, recorded, attempt, self._replay.speed)

    def _actions_for(self, recorded: RecordedRequest) -> tuple[Action, ...]:
        with self._lock:
            if self._queue:
                return self._queue.popleft()
            script = self._script
        return checked(script(recorded)) if callable(script) else script


class _Pace:
    """How fast deltas come; one chance for the whole server."""

    def __init__(self, ttft_s: float, tokens_per_s: float | None, jitter: float, seed: int) -> None:
        if not is_time(ttft_s):
            raise ConfigurationError(f"ttft_s must be a number of at least 0, not {ttft_s!r}")
        if tokens_per_s is not None and not (is_time(tokens_per_s) and tokens_per_s > 0):
            raise ConfigurationError(f"tokens_per_s must be above 0 or None, not {tokens_per_s!r}")
        if not (is_time(jitter) and jitter <= 1):
            raise ConfigurationError(f"jitter must be between 0 and 1, not {jitter!r}")
        self._ttft_s = ttft_s
        self._gap_s = 1 / tokens_per_s if tokens_per_s else 0.0
        self._jitter = jitter
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    def ttft_s(self) -> float:
        """Return the time to the first delta."""
        return self._ttft_s

    def gap_s(self) -> float:
        """Return the time to the next delta."""
        if not self._gap_s:
            return 0.0
        with self._lock:
            return self._gap_s * (1 + self._jitter * self._random.uniform(-1, 1))


def _script(given: Sequence[Action] | Script) -> Union[tuple[Action, ...], Script]:
    return given if callable(given) else checked(given)


def _filled(listener: socket.socket) -> list[socket.socket]:
    """Fill a listener's backlog; return the connections that do it."""
    filling = []
    for _ in range(_FILLING):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(listener.getsockname())
        filling.append(sock)
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.select()  # until the first of them is in
    return filling
