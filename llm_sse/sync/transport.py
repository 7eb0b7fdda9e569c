"""HTTP: what is sent and what comes back.

An `HTTPRequest` goes in, a `ByteStream` comes out, and every error of `requests` and `urllib3`
becomes one of ours (`transport_errors.py`). Whose connection it is, and how another thread ends it,
is in `connection.py`.

Bytes are read with `urllib3`'s `read1`, the only reader that returns what has arrived in every
framing: `iter_content` and `iter_lines` wait for a full buffer where the body is not chunked, or
where one chunk is dribbled.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from email.utils import formatdate
from io import BufferedReader
from typing import TYPE_CHECKING, Protocol

import requests
import urllib3

from ..chat import HTTPRequest, redact_url
from ..chunked import ChunkedDecoder
from ..errors import (
    ConfigurationError,
    ConnectionLost,
    ProtocolError,
    StreamError,
    TransportError,
)
from .connection import Call, Interrupt, shared_session, shutdown_of
from .transport_errors import say, translated

if TYPE_CHECKING:
    from ..recording import How

__all__ = ["ByteStream", "Tap", "send"]

_READ_BYTES = 65536
#: What one read of a chunked body asks for until it is not enough.
_FEW_BYTES = 8192


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
        call: Call,
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
                f"the connection broke while the answer arrived: {say(error)}"
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
    call = Call()
    interrupt_with(call.interrupt)
    limits = (connect_s, read_s if session is not None else None)
    with call:
        try:
            response = _post(request, session, limits, call)
        except ConnectionLost:
            if not call.was_stale():
                raise
            call.restart()
            response = _post(request, session, limits, call)
    stream = ByteStream(response, before_read, call)
    if tap is not None:
        stream.show(tap)
    if call.sock is None:  # a session of the caller's own
        interrupt_with(shutdown_of(response))
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
    session: requests.Session | None,
    limits: tuple[float, float | None],
    call: Call,
) -> requests.Response:
    used = shared_session() if session is None else session
    credentials = request.credentials

    def authorize(prepared: requests.PreparedRequest) -> requests.PreparedRequest:
        """Set the key here and not in `headers=`, where ~/.netrc would replace it."""
        given = {name.lower() for name in request.headers}
        for name, value in credentials.items():
            if name.lower() not in given:
                prepared.headers[name] = value
        return prepared

    try:
        return used.request(
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
        connecting = call.sock is None and session is None
        raise translated(error, limits[0], connecting=connecting, overdue=call.overdue) from error
    except (urllib3.exceptions.HTTPError, http.client.HTTPException) as error:
        raise ConnectionLost(f"the connection broke before an answer came: {say(error)}") from error
    except OSError as error:  # requests' own: a certificate bundle that is not there
        raise ConfigurationError(f"the request cannot be sent: {error}") from error
    except Exception as error:  # a hook or an adapter of the caller's own session
        if session is None:  # the shared one, which stumbles over nothing but its environment
            raise ConfigurationError(
                f"the request cannot be sent ({type(error).__name__}: {error}); is the proxy's "
                "address right (HTTP_PROXY, HTTPS_PROXY)?"
            ) from error
        raise TransportError(
            f"the session raised {type(error).__name__}: {error}", retryable=False
        ) from error


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
