"""The reference application on waitress, until a signal ends it.

A signal ends the streams first, each with an error that its reader sees; then the server. A second
signal does not wait.
"""

from __future__ import annotations

import _thread
import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from waitress.server import create_server

from ..errors import ConfigurationError
from .app import Limits, Site

if sys.platform != "win32":
    import resource

__all__ = ["listen", "serve"]

_BACKLOG = 1024
#: Threads beside those that stream: for the page, and for refusals.
_SPARE_THREADS = 4
#: Descriptors beside those of connections: the interpreter's, logs, pools.
_SPARE_DESCRIPTORS = 64
#: Connections of one address beside those of its streams.
_SPARE_CONNECTIONS = 32
#: How long a connection may say nothing while it is not answered, in seconds.
_IDLE_S = 10
#: How long the streams and their last bytes may take to end, in seconds.
_STREAMS_WAIT_S = 3.0
_FLUSH_WAIT_S = 1.0
#: How often a thread that waits for the interpreter asks for it, in seconds. No thread here
#: computes for long, and hundreds that ask every 5 ms, as they do by default, keep others from it.
_SWITCH_INTERVAL_S = 0.1


def listen(host: str, port: int) -> socket.socket:
    """Listen on an address; port 0 takes a free one.

    Raises:
        ConfigurationError: It cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {host}:{port}: {error}") from error


def serve(
    site: Site, listener: socket.socket, on_ready: Callable[[], object] = lambda: None
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        site: What is served.
        listener: Where.
        on_ready: Called when signals are heard and requests are answered.

    Raises:
        ConfigurationError: The system does not allow so many streams.

    Thread: the main one, because signals come there.
    """
    limits = site.limits
    most = 2 * limits.max_streams + 100
    # Each stream has a connection to its provider, and one more where the fake answers here.
    _allow_descriptors(most + 2 * limits.max_streams + _SPARE_DESCRIPTORS, limits)
    # It says how long its queue is, which is no trouble: there are as many threads as streams.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    server: Any = create_server(
        site.app,
        sockets=[listener],
        threads=limits.max_streams + _SPARE_THREADS,
        connection_limit=most,
        asyncore_use_poll=True,  # select() ends the server at descriptor 1024
        channel_timeout=_IDLE_S,
        cleanup_interval=_IDLE_S // 2,
        channel_request_lookahead=1,  # else it does not say that a client has left
        max_request_body_size=2 * limits.max_request_bytes,
        ident=None,
    )
    _limit_connections(server, 2 * limits.max_streams_per_client + _SPARE_CONNECTIONS)
    ending = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        if ending.is_set():
            raise KeyboardInterrupt
        ending.set()
        threading.Thread(target=_end, args=(site, server), name="llm-sse-end", daemon=True).start()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    try:
        on_ready()
        server.run()
    except KeyboardInterrupt:  # it came outside the server's loop
        server.task_dispatcher.shutdown()
    finally:
        for channel in list(server.active_channels.values()):
            channel.handle_close()
        server.close()
        sys.setswitchinterval(interval_s)
        for number, handler in before.items():
            signal.signal(number, handler)


def _limit_connections(server: Any, most: int) -> None:
    """Let one address have so many connections, so that it cannot take all that there are.

    Those beyond are closed at once: a connection costs nothing but its descriptor.
    """
    accept = server.accept

    def accept_some() -> Any:
        accepted = accept()
        if accepted is not None:
            connection, address = accepted
            channels = server.active_channels.values()
            if sum(channel.addr[0] == address[0] for channel in channels) >= most:
                connection.close()
                return None
        return accepted

    server.accept = accept_some


def _allow_descriptors(needed: int, limits: Limits) -> None:
    """Raise the process's soft limit of open files, where it is lower.

    Raises:
        ConfigurationError: The hard limit is lower, too.
    """
    if sys.platform == "win32":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ConfigurationError(
            f"max_streams={limits.max_streams} needs {needed} file descriptors, but this process "
            f"may have {hard}: ask for fewer streams, or raise the hard limit (ulimit -Hn)"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _end(site: Site, server: Any) -> None:
    """End the streams, let their last bytes out, and end the server's loop."""
    site.slots.close(_STREAMS_WAIT_S)
    deadline = time.monotonic() + _FLUSH_WAIT_S
    while time.monotonic() < deadline and any(
        channel.requests or channel.total_outbufs_len
        for channel in list(server.active_channels.values())
    ):
        time.sleep(0.01)
    _thread.interrupt_main(signal.SIGINT)
    server.pull_trigger()
