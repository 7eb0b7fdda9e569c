"""HTTP: the only module that knows `requests` and `urllib3`.

An `HTTPRequest` goes in, a `ByteStream` comes out, and every error of theirs becomes one of ours.

Bytes are read with `urllib3`'s `read1`, the only reader that returns what has arrived in every
framing: `iter_content` and `iter_lines` wait for a full buffer where the body is not chunked, or
where one chunk is dribbled.

A read is ended from another thread by shutting the socket down: to close a response that another
thread is reading blocks until the next byte. Before the headers there is no response yet, so the
connection classes below tell the transport about their socket as soon as there is one.
"""

from __future__ import annotations

import errno
import http.client
import os
import re
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from contextvars import ContextVar
from email.utils import formatdate
from http.cookiejar import DefaultCookiePolicy
from io import BufferedReader
from typing import TYPE_CHECKING, Any, Protocol

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from .._version import __version__
from ..chat import HTTPRequest, redact_url
from ..chunked import ChunkedDecoder
from ..errors import (
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    ProtocolError,
    StreamError,
    StreamTimeout,
    TransportError,
)

if TYPE_CHECKING:
    from ..recording import How

__all__ = ["ByteStream", "Tap", "send", "shared_session"]

_READ_BYTES = 65536
#: What one read of a chunked body asks for until it is not enough.
_FEW_BYTES = 8192
_POOL_SIZE = 1024

#: How soon it shows that a pooled connection had been closed, in seconds: after one round trip,
#: and what a busy machine adds to that.
_STALE_S = 1.0

Interrupt = Callable[[], object]


class Tap(Protocol):
    """Whoever is shown a response while it comes."""

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """See the response's head."""

    def chunk(self, data: bytes) -> None:
        """See bytes of the body, at least one."""

    def body_ended(self, how: How) -> None:
        """See how the body ended."""


class ByteStream:
    """The body of one response, chunk by chunk, as it arrives.

    Attributes:
        status: The HTTP status.
        headers: The response's headers; the names are lower-case.

    Thread: read and closed by one thread only; another one ends it through the interrupt.
    """

    def __init__(
        self,
        response: requests.Response,
        before_read: Callable[[], object],
        call: _Call,
    ) -> None:
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = _headers(response)
        self._response = response
        self._before_read = before_read
        self._call = call
        self._deadline: float | None = None
        #: Where there are chunks and nothing else to take off them, they are read all at once.
        self._body: _Body = _Chunked.of(response.raw) or _Plain(response.raw)

    def show(self, tap: Tap) -> None:
        """Show the response to somebody, from here on."""
        tap.answered(self.status, self.headers)
        self._body = _Tapped(self._body, tap)

    def __iter__(self) -> Iterator[bytes]:
        """Yield bytes as they arrive, until the body ends.

        Raises:
            ConnectionLost: The connection broke, or ended before the body's announced end.
            ProtocolError: The body's compression is broken.
        """
        while True:
            self._before_read()
            if self._deadline is not None and self._call.sock is not None:
                left_s = self._deadline - time.monotonic()
                if left_s <= 0:
                    raise ConnectionLost("the answer's body does not end")
                with suppress(OSError):  # a read will say what is wrong
                    self._call.sock.settimeout(left_s)
            chunk = self._read()
            if chunk:
                yield chunk
            elif chunk is None:
                return

    def read_all(self, max_bytes: int, max_s: float) -> bytes:
        """Return the body, cut at `max_bytes` and after `max_s`; as much as can be had of it."""
        body = bytearray()
        self.end_within(max_s)
        with suppress(StreamError):
            for chunk in self:
                body += chunk
                if len(body) >= max_bytes:
                    break
        return bytes(body[:max_bytes])

    def end_within(self, seconds: float) -> None:
        """Take what has not come by then for lost; not in a session of the caller's own."""
        self._deadline = time.monotonic() + seconds

    def drain(self, max_bytes: int, max_s: float) -> None:
        """Read what little may follow the provider's last event: then the connection can be reused.

        A body that goes on beyond the limits, or a server that does not end it, costs the
        connection and nothing else.
        """
        deadline = time.monotonic() + max_s
        try:
            while max_bytes > 0 and (left_s := deadline - time.monotonic()) > 0:
                if self._call.sock is None:
                    return  # the connection is in the pool already, or was never ours
                self._call.sock.settimeout(left_s)
                chunk = self._read()
                if chunk is None:
                    return
                max_bytes -= len(chunk)
        except (StreamError, OSError):
            pass

    def close(self) -> None:
        """Close the connection, unless the body was read to its end: then it is in the pool."""
        self._call.leaves()
        with suppress(Exception):
            self._response.close()

    def _read(self) -> bytes | None:
        """Return what has come of the body, waiting for it if need be; `None` at its end."""
        try:
            return self._body.read()
        except urllib3.exceptions.DecodeError as error:
            raise ProtocolError(f"the response's compression is broken: {error}") from None
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            # ValueError: the chunks are none, or the file below was closed by a shutdown in the
            # middle of a read.
            raise ConnectionLost(
                f"the connection broke while the answer arrived: {_say(error)}"
            ) from error


class _Body(Protocol):
    """What the bytes of a body are read from."""

    def read(self) -> bytes | None:
        """Return what has come, perhaps nothing, waiting for it if need be; `None` at the end."""


class _Plain:
    """A body as urllib3 reads it."""

    def __init__(self, raw: urllib3.HTTPResponse) -> None:
        self._raw = raw

    def read(self) -> bytes | None:
        """Return what has arrived, decompressed."""
        return self._raw.read1(_READ_BYTES, decode_content=True) or None


class _Chunked:
    """A chunked body, read past `http.client`: all chunks that one read of the socket brings.

    Args:
        raw: The response.
        message: What `http.client` knows of it.
        file: The connection's bytes, buffered.
    """

    def __init__(
        self, raw: urllib3.HTTPResponse, message: http.client.HTTPResponse, file: BufferedReader
    ) -> None:
        self._raw = raw
        self._message = message
        self._file = file
        self._decoder = ChunkedDecoder()
        self._read_bytes = _FEW_BYTES

    @classmethod
    def of(cls, raw: urllib3.HTTPResponse) -> _Chunked | None:
        """Return the reader for a response; `None` where there is more to it than chunks."""
        message = getattr(raw, "_fp", None)
        file = getattr(message, "fp", None)
        if (
            not isinstance(message, http.client.HTTPResponse)
            or not isinstance(file, BufferedReader)
            or not message.chunked
            or raw.headers.get("content-encoding", "identity").lower() != "identity"
        ):
            return None
        return cls(raw, message, file)

    def read(self) -> bytes | None:
        """Return what one read of the socket brings, perhaps nothing; `None` at the body's end.

        Raises:
            ValueError: There are no chunks.
            OSError: The connection broke, or ended before the body.
        """
        if self._decoder.done:
            self._end()
            return None
        if self._decoder.broken is not None:
            raise self._decoder.broken
        data = self._file.read1(self._read_bytes)
        if not data:
            raise ConnectionResetError("the connection ended in the middle of the body")
        # A read that waits holds all the memory that it may fill: little where deltas come singly.
        if len(data) == self._read_bytes:
            self._read_bytes = _READ_BYTES
        elif len(data) < _FEW_BYTES // 8:
            self._read_bytes = _FEW_BYTES
        return self._decoder.feed(data)

    def _end(self) -> None:
        """Give the connection back, unless there is something in it that belongs to nobody."""
        if self._decoder.excess:
            return
        self._message.close()
        self._raw.release_conn()


class _Tapped:
    """A body whose bytes are shown to somebody else, too."""

    def __init__(self, body: _Body, tap: Tap) -> None:
        self._body = body
        self._tap = tap

    def read(self) -> bytes | None:
        """Return what the body does."""
        try:
            chunk = self._body.read()
        except urllib3.exceptions.DecodeError:
            self._tap.body_ended("broken_compression")
            raise
        except (urllib3.exceptions.ReadTimeoutError, TimeoutError):
            self._tap.body_ended("no_end")
            raise
        except (urllib3.exceptions.HTTPError, OSError, ValueError):
            self._tap.body_ended("connection_lost")
            raise
        if chunk:
            self._tap.chunk(chunk)
        elif chunk is None:
            self._tap.body_ended("end_of_body")
        return chunk


def send(
    request: HTTPRequest,
    *,
    session: requests.Session | None,
    connect_s: float,
    read_s: float | None = None,
    interrupt_with: Callable[[Interrupt | None], None],
    before_read: Callable[[], object],
    tap: Tap | None = None,
) -> ByteStream:
    """Send a request and wait for the headers of its response.

    A pooled connection that the server had closed in the meantime is replaced once, silently. That
    it had shows at once; a connection that breaks later may have broken over the request, which is
    then not repeated here.

    Args:
        request: What to send.
        session: The caller's own session; `None` for the shared one.
        connect_s: How long the connection (and its TLS handshake) may take, in seconds.
        read_s: How long a session of the caller's own may wait for bytes, in seconds: it cannot be
            interrupted before its response is there.
        interrupt_with: Takes a function that ends what this thread waits for.
        before_read: Called before every read that may wait.
        tap: Who else is shown the response.

    Raises:
        ConnectError: No connection could be made.
        StreamTimeout: No connection was made in time.
        ConnectionLost: The connection broke before a response came.
        ConfigurationError: The URL or a header cannot be used, or the server redirects.
    """
    call = _Call()
    interrupt_with(call.interrupt)
    limits = (connect_s, read_s if session is not None else None)
    try:
        try:
            response = _post(request, session or shared_session(), limits, call)
        except ConnectionLost:
            if not call.was_stale():
                raise
            call.restart()
            response = _post(request, session or shared_session(), limits, call)
    finally:
        _current.set(None)
        call.forget_duplicate()
    stream = ByteStream(response, before_read, call)
    if tap is not None:
        stream.show(tap)
    if call.sock is None:  # a session of the caller's own
        interrupt_with(_shutdown_of(response))
    if 300 <= stream.status < 400:
        stream.close()
        target = redact_url(stream.headers.get("location", "nowhere"))
        raise ConfigurationError(
            f"the server redirects ({stream.status}) to {target}; keys do not follow redirects: "
            "set base_url to the final address"
        )
    return stream


def _post(
    request: HTTPRequest,
    session: requests.Session,
    limits: tuple[float, float | None],
    call: _Call,
) -> requests.Response:
    _current.set(call)
    credentials = request.credentials

    def authorize(prepared: requests.PreparedRequest) -> requests.PreparedRequest:
        """Set the key here and not in `headers=`, where ~/.netrc would replace it."""
        given = {name.lower() for name in request.headers}
        for name, value in credentials.items():
            if name.lower() not in given:
                prepared.headers[name] = value
        return prepared

    try:
        return session.request(
            request.method,
            request.url,
            data=request.body,
            headers={"Accept-Encoding": "identity", **request.headers},
            auth=authorize,
            stream=True,
            allow_redirects=False,
            timeout=limits,
        )
    except requests.exceptions.RequestException as error:
        connecting = call.sock is None and session is _shared.session
        raise _translated(error, limits[0], connecting=connecting, overdue=call.overdue) from error
    except (urllib3.exceptions.HTTPError, http.client.HTTPException) as error:
        raise ConnectionLost(
            f"the connection broke before an answer came: {_say(error)}"
        ) from error
    except OSError as error:  # requests' own: a certificate bundle that is not there
        raise ConfigurationError(f"the request cannot be sent: {error}") from error
    except Exception as error:  # a hook or an adapter of the caller's own session
        if session is _shared.session:  # which stumbles over nothing but its environment
            raise ConfigurationError(
                f"the request cannot be sent ({type(error).__name__}: {error}); is the proxy's "
                "address right (HTTP_PROXY, HTTPS_PROXY)?"
            ) from error
        raise TransportError(
            f"the session raised {type(error).__name__}: {error}", retryable=False
        ) from error


def _translated(
    error: requests.exceptions.RequestException,
    connect_s: float,
    *,
    connecting: bool,
    overdue: bool,
) -> StreamError:
    """Turn an error of requests into ours; its text may hold the URL, which holds no key."""
    known = requests.exceptions
    where = redact_url(error.request.url or "") if error.request is not None else "the server"
    reason = _innermost(error)
    said = _say(error)
    late = (TimeoutError, urllib3.exceptions.ReadTimeoutError)  # the latter is none of the former
    timed_out = isinstance(error, known.ConnectTimeout) or (
        connecting and (isinstance(error, known.Timeout) or isinstance(reason, late))
    )
    if timed_out or overdue:
        return StreamTimeout(
            f"no connection to {where} within {connect_s} s (timeouts.connect_s)",
            phase="connect",
            limit_s=connect_s,
        )
    if isinstance(error, known.SSLError):
        retryable = "EOF" in said
        hint = "" if retryable else f"; {_tls_hint(said)}"
        return ConnectError(f"no secure connection to {where}: {said}{hint}", retryable=retryable)
    if isinstance(error, known.ProxyError):
        return ConnectError(
            f"no connection to {where} through the proxy: {said}; HTTP_PROXY, HTTPS_PROXY and "
            "NO_PROXY say which",
            retryable=re.search(r"failed: (?!408|429)[34]\d\d", said) is None,
        )
    if isinstance(error, known.ConnectionError):
        if isinstance(reason, urllib3.exceptions.NewConnectionError):
            return ConnectError(
                f"no connection to {where}: {reason.__cause__ or said}; is the address right and "
                "the server up?"
            )
        no_http = isinstance(reason, http.client.HTTPException) and not isinstance(reason, OSError)
        if connecting and no_http:  # nobody else says anything before that
            return ConnectError(
                f"no connection to {where}: the proxy does not answer in HTTP: {said}",
                retryable=False,
            )
        if connecting:
            return ConnectError(f"no connection to {where}: {said}")
        if no_http:
            return ProtocolError(
                f"{where} does not answer in HTTP ({type(reason).__name__}: {said}); is base_url "
                "right?"
            )
        return ConnectionLost(f"{where} closed the connection before it answered: {said}")
    if isinstance(error, (known.Timeout, known.ChunkedEncodingError)):
        return ConnectionLost(f"no answer from {where}: {said}")
    if isinstance(error, (known.RetryError, known.HTTPError)):  # the caller's own session's
        return TransportError(f"the session gave {where} up: {said}")
    hint = ""
    if isinstance(error, known.InvalidURL):  # base_url was checked before
        hint = "; is the proxy's address right (HTTP_PROXY, HTTPS_PROXY)?"
    return ConfigurationError(f"the request to {where} cannot be sent: {said}{hint}")


def _tls_hint(said: str) -> str:
    """Return what to do about a failed handshake."""
    if "WRONG_VERSION_NUMBER" in said or "RECORD_LAYER" in said:
        return "is this an http:// server?"
    if "expired" in said or "not yet valid" in said:
        return "is the machine's clock right?"
    if "not valid for" in said or "doesn't match" in said:
        return "is base_url right?"
    return "a private certificate authority can be named in REQUESTS_CA_BUNDLE"


def _innermost(error: BaseException) -> BaseException:
    """Return the reason below what urllib3 and requests wrapped around it."""
    seen = {id(error)}
    while True:
        inner = next(
            (
                candidate
                for candidate in (
                    getattr(error, "reason", None),
                    getattr(error, "original_error", None),
                    *reversed(error.args),
                )
                if isinstance(candidate, BaseException) and id(candidate) not in seen
            ),
            None,
        )
        if inner is None:
            return error
        seen.add(id(inner))
        error = inner


def _say(error: BaseException) -> str:
    """Return the innermost reason, in words and in one line."""
    reason = _innermost(error)
    if isinstance(reason, (urllib3.exceptions.IncompleteRead, http.client.IncompleteRead)):
        return "the body ended before its announced end"
    return " ".join(str(reason).split()) or type(reason).__name__


def _headers(response: requests.Response) -> dict[str, str]:
    """Return the headers by their lower-case names.

    A server without a clock sends no `Date`; then the time of arrival takes its place, so that a
    `Retry-After` in the form of a date can be read.

    Source: RFC 9110 section 6.6.1.
    """
    headers = {name.lower(): value for name, value in response.headers.items()}
    if "retry-after" in headers:
        headers.setdefault("date", formatdate(usegmt=True))
    return headers


def _shutdown_of(response: requests.Response) -> Interrupt:
    """End a read on a connection of the caller's own session, which did not tell us its socket."""

    def shutdown() -> None:
        with suppress(Exception):
            response.raw.shutdown()

    return shutdown


# --- the session ---


class _Call:
    """One request on its way, and the socket that it has at the moment.

    Thread: the producer's, but for `interrupt`, which is everybody's. The lock is re-entrant
    because a garbage collection may interrupt its holder and close this very stream.
    """

    def __init__(self) -> None:
        self.sock: socket.socket | None = None
        self.reused = False
        self.sent_at = 0.0
        self.overdue = False
        self._lock = threading.RLock()
        self._watched: socket.socket | None = None
        self._duplicate: socket.socket | None = None
        self._interrupted = False
        self._limit: threading.Timer | None = None

    def dials(self, sock: socket.socket, address: Any) -> None:
        """Connect a socket, and watch it by a duplicate of its own.

        TLS takes the original over; to shut the duplicate down ends both. Only a connection that
        has been begun can be shut down, so that it is watched from then on.

        Raises:
            OSError: There is no connection.
        """
        self.forget_duplicate()
        limit_s = sock.gettimeout()
        sock.setblocking(False)
        code = sock.connect_ex(address)
        self._duplicate = socket.socket(fileno=os.dup(sock.fileno()))
        self._watch(self._duplicate)
        if code in (errno.EINPROGRESS, errno.EWOULDBLOCK):
            if not urllib3.util.wait_for_write(sock, limit_s):
                raise TimeoutError("timed out")
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code or self._interrupted:
            raise OSError(code, os.strerror(code)) if code else OSError("closed")
        sock.settimeout(limit_s)

    def must_be_ready_in(self, limit_s: float) -> None:
        """Break the connection off that is being made, if it is not ready by then.

        A socket's own limit is for each read, and a proxy may answer in as many as it likes.
        """
        self._limit = threading.Timer(limit_s, self._expire)
        self._limit.name = "llm-sse-connect-limit"
        self._limit.daemon = True
        self._limit.start()

    def uses(self, sock: socket.socket, *, reused: bool) -> None:
        """Watch the socket of a connection that is ready."""
        self._lift_limit()
        self.sock = sock
        self.reused = reused
        self.sent_at = time.monotonic()
        self._watch(getattr(sock, "socket", sock))  # TLS in a proxy's TLS is no socket itself
        self.forget_duplicate()

    def leaves(self) -> None:
        """Let go of the socket before its connection may become somebody else's."""
        self.sock = None
        self._watch(None)

    def was_stale(self) -> bool:
        """Whether a connection that has just broken had been closed before it was used again."""
        soon = time.monotonic() - self.sent_at <= _STALE_S
        return self.reused and soon and not self._interrupted

    def restart(self) -> None:
        """Begin again, with another connection."""
        self.leaves()
        self.reused = False

    def forget_duplicate(self) -> None:
        """Give the duplicate back, when nobody can be shutting it down."""
        self._lift_limit()
        with self._lock:
            duplicate, self._duplicate = self._duplicate, None
            if duplicate is not None:
                if self._watched is duplicate:
                    self._watched = None
                duplicate.close()

    def interrupt(self) -> None:
        """End whatever the socket is waiting for, now and from now on."""
        with self._lock:
            self._interrupted = True
            self._shut_down()

    def _shut_down(self) -> None:
        if self._watched is not None:
            with suppress(OSError):  # not connected any more
                # SSLSocket's own shutdown would let the reader see what is encrypted.
                socket.socket.shutdown(self._watched, socket.SHUT_RDWR)

    def _expire(self) -> None:
        with self._lock:
            if self._limit is threading.current_thread():
                self.overdue = True
                self._shut_down()

    def _lift_limit(self) -> None:
        with self._lock:
            limit, self._limit = self._limit, None
        if limit is not None:
            limit.cancel()
            limit.join()

    def _watch(self, sock: socket.socket | None) -> None:
        with self._lock:
            self._watched = sock
            if self._interrupted:
                self._shut_down()


#: The call that connects, for the connection classes: urllib3 has no other way to tell them. It is
#: no `threading.local`: greenlets would share it where gevent patches after this was imported.
_current: ContextVar[_Call | None] = ContextVar("llm_sse_call", default=None)


class _Connection(HTTPConnection):
    """A connection that tells its call which socket it uses, from before the connect on."""

    _is_new = False
    call: _Call | None = None

    def _new_conn(self) -> socket.socket:
        self._is_new = True
        call = _current.get()
        return super()._new_conn() if call is None else _dial(self, call)

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is None:
            self.connect()
        self.call = call = _current.get()
        if call is not None and self.sock is not None:
            call.uses(self.sock, reused=not self._is_new)
        self._is_new = False
        self.timeout = None  # connect_s ends here: a long prompt may take its time
        super().request(*args, **kwargs)


class _SecureConnection(_Connection, HTTPSConnection):
    """The same over TLS."""

    def connect(self) -> None:
        try:
            super().connect()
        except OSError as error:
            # Of a connection that has ended already, ssl leaves its new socket open and unnamed.
            for frame, _ in traceback.walk_tb(error.__traceback__):
                unnamed = frame.f_locals.get("self")
                if isinstance(unnamed, ssl.SSLSocket):
                    unnamed.close()
            raise


def _dial(connection: HTTPConnection, call: _Call) -> socket.socket:
    """Connect like urllib3, but show the socket to the call before the connect begins.

    The addresses of a name are tried one after the other and share the connection's time: an
    address that does not answer must not use up that of the next.
    """
    limit_s = connection.timeout if isinstance(connection.timeout, (int, float)) else None
    host = connection._dns_host.strip("[]")
    family = urllib3.util.connection.allowed_gai_family()
    failure: OSError = OSError(f"no address for {host}")
    try:
        addresses = socket.getaddrinfo(host, connection.port, family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise urllib3.exceptions.NewConnectionError(
            connection, f"the name {host!r} cannot be resolved ({error})"
        ) from OSError(f"the name {host!r} cannot be resolved ({error})")
    deadline = None if limit_s is None else time.monotonic() + limit_s
    for left, (kind_of_address, kind, protocol, _, address) in zip(
        range(len(addresses), 0, -1), addresses, strict=True
    ):
        sock: socket.socket | None = None
        try:
            sock = socket.socket(kind_of_address, kind, protocol)
            for option in connection.socket_options or ():
                sock.setsockopt(*option)
            if deadline is not None:
                sock.settimeout(max(0.001, (deadline - time.monotonic()) / left))
            if connection.source_address is not None:
                sock.bind(connection.source_address)
            call.dials(sock, address)
            if deadline is not None:  # what is left is for a proxy's answer, the TLS handshake
                left_s = max(0.001, deadline - time.monotonic())
                sock.settimeout(left_s)
                if connection.proxy is not None:
                    call.must_be_ready_in(left_s)
            return sock
        except OSError as error:
            failure = error
            if sock is not None:
                sock.close()
    if isinstance(failure, TimeoutError):
        raise urllib3.exceptions.ConnectTimeoutError(
            connection, f"no connection to {host} within {limit_s} s"
        ) from failure
    raise urllib3.exceptions.NewConnectionError(connection, str(failure)) from failure


def _leave(connection: Any) -> None:
    """Part a connection from its call, before another call can find it in the pool."""
    if connection is not None and connection.call is not None:
        connection.call.leaves()
        connection.call = None
        with suppress(AttributeError, OSError):  # it has been closed
            connection.sock.settimeout(None)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection

    def _put_conn(self, conn: Any) -> None:
        _leave(conn)
        super()._put_conn(conn)


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection

    def _put_conn(self, conn: Any) -> None:
        _leave(conn)
        super()._put_conn(conn)


_POOLS = {"http": _Pool, "https": _SecurePool}


class _Adapter(HTTPAdapter):
    """An adapter whose connections can be interrupted, keep themselves alive, and are many."""

    def __init__(self) -> None:
        super().__init__(pool_connections=32, pool_maxsize=_POOL_SIZE, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, socket_options=_socket_options(), **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        if not proxy.lower().startswith("socks"):
            kwargs["socket_options"] = _socket_options()
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = _POOLS
        return manager

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Verify whoever is spoken to over TLS: for an http URL that can be a proxy."""
        if isinstance(conn, HTTPSConnectionPool):
            url = "https:" + url.partition(":")[2]
        super().cert_verify(conn, url, verify, cert)  # type: ignore[no-untyped-call]


def _socket_options() -> list[tuple[int, int, int]]:
    """No delay for small writes; probes on an idle connection, so that a dead peer is noticed."""
    options = [
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    ]
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    return options


class _Session(requests.Session):
    """A session that knows no redirects: requests would read a body to its end to find the next."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return nothing: whoever asked is told where to."""
        return


class _Shared:
    """The process's one session; a child of `fork` gets one of its own.

    A child must neither write into its parent's connections nor wait for a lock that a thread of
    its parent holds. It keeps the parent's session, unused: to drop it would be to wait for the
    locks of its pools.
    """

    def __init__(self) -> None:
        self.session: requests.Session | None = None
        self._parents: list[requests.Session | None] = []
        self.forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        self.lock = threading.Lock()
        self._parents.append(self.session)
        self.session = None


_shared = _Shared()


def shared_session() -> requests.Session:
    """Return the process's session: made once, never changed, without cookies."""
    with _shared.lock:
        if _shared.session is None:
            session = _Session()
            session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
            session.headers.clear()
            session.headers["User-Agent"] = f"llm-sse/{__version__}"
            session.mount("https://", _Adapter())
            session.mount("http://", _Adapter())
            _shared.session = session
        return _shared.session
