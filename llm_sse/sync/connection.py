"""Connections: how they are made, watched, ended, kept, and whose they are.

`shared_session()` is the `requests` session that everything uses that brings none of its own. The
transport makes a `Call` for each request; the connection classes below, which the session's pools
are made of, tell it about their socket, so that another thread can end whatever it waits for.

A wait is ended by shutting the socket down: to close a response that another thread is reading
blocks until the next byte. Before the headers there is no response yet, and before the TLS
handshake is over urllib3 shows its socket to nobody: therefore classes of our own.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.ssl_ import ALPN_PROTOCOLS, create_urllib3_context, resolve_cert_reqs

from .._version import __version__

__all__ = ["Call", "Interrupt", "close_unnamed", "shared_session", "shutdown_of"]

_POOL_SIZE = 1024

#: How soon it shows that a pooled connection had been closed, in seconds: after one round trip,
#: and what a busy machine adds to that.
_STALE_S = 1.0

Interrupt = Callable[[], object]


class Call:
    """One request on its way, and the socket that it has at the moment.

    Between `with call:` and the end of that block, the connections that this thread uses are its.

    Attributes:
        sock: The socket of its connection; `None` before there is one, when it is in the pool
            again, and always where the connections are not those below: in a session of the
            caller's own, through a SOCKS proxy.
        overdue: Whether the connection was broken off because it was not ready in time.

    Thread: the producer's, but for `interrupt`, which is everybody's. The lock is re-entrant
    because a garbage collection may interrupt its holder and close this very stream.
    """

    def __init__(self) -> None:
        self.sock: socket.socket | None = None
        self.overdue = False
        self._reused = False
        self._sent_at = 0.0
        self._lock = threading.RLock()
        self._watched: socket.socket | None = None
        self._duplicate: socket.socket | None = None
        self._interrupted = False
        self._limit: threading.Timer | None = None

    def __enter__(self) -> None:
        _current.set(self)

    def __exit__(self, *_: object) -> None:
        _current.set(None)
        self.forget_duplicate()

    def dials(self, sock: socket.socket, address: Any) -> None:
        """Connect a socket within its own time limit, and watch it by a duplicate of its own.

        TLS takes the original over; to shut the duplicate down ends both. Only a connection that
        has been begun can be shut down, so that it is watched from then on.

        Raises:
            OSError: There is no connection.
        """
        self.forget_duplicate()
        limit_s = sock.gettimeout()
        sock.setblocking(False)
        code = sock.connect_ex(address)
        self._duplicate = sock.dup()
        self._watch(self._duplicate)
        if code in (errno.EINPROGRESS, errno.EWOULDBLOCK):
            if not urllib3.util.wait_for_write(sock, limit_s):
                raise TimeoutError("timed out")
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code or self._interrupted:
            raise OSError(code, os.strerror(code)) if code else OSError("closed")
        sock.settimeout(limit_s)

    def must_be_ready_in(self, limit_s: float) -> None:
        """Break the connection off that is being made, if it is not ready in `limit_s` seconds.

        A socket's own limit is for each read, and a proxy may answer in as many as it likes.
        """
        self._limit = threading.Timer(limit_s, self._expire)
        self._limit.name = "llm-sse-connect-limit"
        self._limit.daemon = True
        self._limit.start()

    def uses(self, sock: socket.socket, *, reused: bool) -> None:
        """Watch the socket of a connection that is ready, from just before the request is sent.

        Args:
            sock: The socket.
            reused: Whether the connection has carried a request before.
        """
        self._lift_limit()
        self.sock = sock
        self._reused = reused
        self._sent_at = time.monotonic()
        self._watch(getattr(sock, "socket", sock))  # TLS in a proxy's TLS is no socket itself
        self.forget_duplicate()

    def leaves(self) -> None:
        """Let go of the socket before its connection may become somebody else's."""
        self.sock = None
        self._watch(None)

    def was_stale(self) -> bool:
        """Whether a connection that has just broken had been closed before it was used again."""
        soon = time.monotonic() - self._sent_at <= _STALE_S
        return self._reused and soon and not self._interrupted

    def restart(self) -> None:
        """Begin again, with another connection."""
        self.leaves()
        self._reused = False

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


def shutdown_of(response: requests.Response) -> Interrupt:
    """End a read on a connection of the caller's own session, which did not tell us its socket."""

    def shutdown() -> None:
        with suppress(Exception):
            response.raw.shutdown()

    return shutdown


#: The call that connects, for the connection classes: urllib3 has no other way to tell them. It is
#: no `threading.local`: greenlets would share it where gevent patches after this was imported.
_current: ContextVar[Call | None] = ContextVar("llm_sse_call", default=None)


class _Connection(HTTPConnection):
    """A connection that tells its call which socket it uses, from before the connect on."""

    _is_new = False
    #: Whose it is, from the request on until it is in the pool again.
    call: Call | None = None

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


def close_unnamed(error: OSError) -> None:
    """Close what ssl leaves open, and unnamed, of a connection that had ended already."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        unnamed = frame.f_locals.get("self")
        if isinstance(unnamed, ssl.SSLSocket):
            unnamed.close()


class _SecureConnection(_Connection, HTTPSConnection):
    """The same over TLS."""

    def connect(self) -> None:
        self._share_context()
        try:
            super().connect()
        except OSError as error:
            close_unnamed(error)
            raise

    def _share_context(self) -> None:
        """Take the context of everybody who trusts the same authorities.

        Not where there is more to it: a certificate of the caller's own would be everybody's, and a
        proxy that is itself spoken to over TLS takes its authorities from here.
        """
        verifies = resolve_cert_reqs(self.cert_reqs) == ssl.CERT_REQUIRED
        proxy_over_tls = self.proxy is not None and self.proxy.scheme == "https"
        if self.ssl_context or not verifies or self.cert_file or proxy_over_tls:
            return
        self.ssl_context = _shared.contexts.of(self.ca_certs, self.ca_cert_dir)
        self.ca_certs = self.ca_cert_dir = None  # they are not to be read again


class _Contexts:
    """TLS contexts, one for each bundle of certificate authorities, for all threads.

    urllib3 would make one for each connection: to read the usual bundle takes 20 ms, and what was
    read 0.8 MB.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[object, tuple[object, ssl.SSLContext]] = {}

    def of(self, ca_certs: str | None, ca_cert_dir: str | None) -> ssl.SSLContext:
        """Return the context for a bundle; a new one when the bundle is no longer what it was.

        Raises:
            urllib3.exceptions.SSLError: The bundle cannot be read.
        """
        where = ca_certs, ca_cert_dir
        try:
            with self._lock:
                version = [_version(path) for path in where if path is not None]
                made = self._made.get(where)
                if made is None or made[0] != version:
                    made = self._made[where] = version, _context(ca_certs, ca_cert_dir)
                return made[1]
        except OSError as error:
            raise urllib3.exceptions.SSLError(error) from error


def _version(path: str) -> tuple[int, int, int]:
    """Return what changes when somebody writes or replaces a file."""
    found = os.stat(path)
    return found.st_ino, found.st_size, found.st_mtime_ns


def _context(ca_certs: str | None, ca_cert_dir: str | None) -> ssl.SSLContext:
    """Make a context as urllib3 does, which nobody changes from then on.

    urllib3 sets the protocols again for every connection, while others may be made of the context:
    OpenSSL allows only the latter.
    """
    context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED)
    context.load_verify_locations(ca_certs, ca_cert_dir)
    context.set_alpn_protocols(ALPN_PROTOCOLS)
    context.set_alpn_protocols = lambda alpn_protocols: None  # type: ignore[method-assign]
    return context


def _dial(connection: HTTPConnection, call: Call) -> socket.socket:
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
        said = f"the name {host!r} cannot be resolved ({error})"
        raise urllib3.exceptions.NewConnectionError(connection, said) from OSError(said)
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


class _Pool(HTTPConnectionPool):
    """A pool of these; in it they belong to nobody."""

    ConnectionCls = _Connection

    def _put_conn(self, conn: Any) -> None:
        """Part a connection from its call before another call can find it."""
        if conn is not None and conn.call is not None:
            conn.call.leaves()
            conn.call = None
            with suppress(AttributeError, OSError):  # it has been closed
                conn.sock.settimeout(None)
        super()._put_conn(conn)


class _SecurePool(_Pool, HTTPSConnectionPool):
    """The same over TLS."""

    ConnectionCls = _SecureConnection


_POOLS = {"http": _Pool, "https": _SecurePool}


class _Adapter(HTTPAdapter):
    """An adapter whose connections can be interrupted, keep themselves alive, and are many."""

    def __init__(self) -> None:
        super().__init__(pool_connections=32, pool_maxsize=_POOL_SIZE, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, socket_options=_socket_options(), **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        if proxy.lower().startswith("socks"):  # has connections of its own, and no such option
            return super().proxy_manager_for(proxy, **kwargs)
        kwargs["socket_options"] = _socket_options()
        manager = super().proxy_manager_for(proxy, **kwargs)
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
    """The process's one session, and its TLS contexts; a child of `fork` gets its own.

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
        self.contexts = _Contexts()


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
