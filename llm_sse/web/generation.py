"""What reads a stream into a store, once, whoever retells it: see `retelling`."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from ..errors import ConnectionLost, StreamClosed
from ..events import Event, Finish, StreamStart
from ..sync.channel import Channel, ChannelTimeout
from ..sync.stream import TokenStream
from .formats import Format
from .log import log_error
from .problem import problem_of
from .pump import EventStream, release, start_pump
from .replay import Fenced, ReplayUnavailable, ReplayWriter, Stopped

__all__ = ["Generation", "broken_off", "refusal_of"]

_BUFFER_SIZE = 32
#: The longest wait for the stream's beginning before one looks whether it was closed, in seconds.
_LOOK_AGAIN_S = 1.0

_log = logging.getLogger("llm_sse.web.body")


class Generation:
    """What reads a stream into a store, in threads of its own, until it has ended or must.

    Args:
        stream: What is read.
        format: How its events are written.
        writer: Where to.
        keep_running: Whether it goes on when nobody reads.
        grace_s: For how long it goes on without readers else, in seconds.
        status_wait_s: How long the provider's status is of use, in seconds.
        on_thread_end: Called in each of the threads at its end.
    """

    def __init__(
        self,
        stream: EventStream,
        format: Format,
        writer: ReplayWriter,
        *,
        keep_running: bool,
        grace_s: float,
        status_wait_s: float,
        on_thread_end: Callable[[], object],
    ) -> None:
        self._stream = stream
        self._format = format
        self._writer = writer
        self._keep_running = keep_running
        self._grace_s = grace_s
        self._every_s = min(writer.keep_every_s, grace_s / 4)
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._finished = False
        self._channel: Channel[Event] = Channel(_BUFFER_SIZE)
        try:
            start_pump(stream, self._channel, on_thread_end, status_wait_s)
            threading.Thread(target=self._run, name="llm-sse-web-replay", daemon=True).start()
        except BaseException:  # the system has no thread for it
            release(stream, self._channel)
            raise

    def wait_started(self, is_closed: Callable[[], bool]) -> None:
        """Wait until the provider's answer is known; raise what there is instead of it."""
        while not self._started.wait(_LOOK_AGAIN_S) and not is_closed():
            pass
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            try:
                self._write()
            except Stopped:
                stopped = ConnectionLost("the site has stopped the stream", retryable=False)
                self._end_with(stopped, logging.INFO)
        except Fenced:
            _log.warning("a stream was given up by its readers: its writer was silent too long")
        except ReplayUnavailable as error:
            _log.warning("a stream ends because the replay store cannot be reached: %s", error)
        except Exception:
            _log.exception("a stream could not be kept for replay")
        finally:
            try:
                release(self._stream, self._channel)
                self._writer.close()
            finally:
                self._started.set()

    def _write(self) -> None:
        read_at = kept_at = time.monotonic()
        while True:
            now = time.monotonic()
            if now - kept_at >= self._every_s:
                kept_at = now
                read_at = now if self._writer.keep() else read_at
                if now - read_at > self._grace_s and not self._keep_running:
                    self._end_with(
                        ConnectionLost("nobody reads the stream any longer"), logging.INFO
                    )
                    return
            try:
                batch = self._channel.get(self._every_s)
            except ChannelTimeout:
                continue
            except BaseException as error:
                if isinstance(error, StreamClosed):
                    self._writer.keep()  # was it stopped?
                self._end_with(error)
                return
            if batch is None:
                if self._finished:
                    self._append(self._format.end(), last=True)
                else:  # a stream of ours ends so only where the site has closed it
                    self._writer.keep()  # or has stopped it
                    closed = isinstance(self._stream, TokenStream)
                    self._end_with(broken_off(), logging.INFO if closed else logging.WARNING)
                return
            self._started.set()
            written = bytearray()
            try:
                for event in batch:
                    written += self._encode(event)
            except Exception as error:  # what the format cannot write ends it for everybody
                self._append(bytes(written))
                self._end_with(error)
                return
            self._append(bytes(written))

    def _encode(self, event: Event) -> bytes:
        if isinstance(event, Finish):
            self._finished = True
        elif isinstance(event, StreamStart):
            self._finished = False
        return self._format.encode(event)

    def _append(self, written: bytes, *, last: bool = False) -> None:
        events = [one + b"\n\n" for one in written.split(b"\n\n")[:-1]]
        if events:
            self._writer.append(events, last=last)

    def _end_with(self, error: BaseException, level: int = logging.WARNING) -> None:
        """End it with an error; where nothing was told, as if it had never begun.

        Args:
            error: What it ends with.
            level: How loudly the site's log is told, where it is an error of ours.
        """
        if not self._started.is_set():
            self._failure = error
            self._writer.refuse(refusal_of(error))
            return
        log_error(_log, error, level)
        self._append(self._format.error(problem_of(error)) or b"", last=True)


def broken_off() -> ConnectionLost:
    """Return the error of a stream that had no ending."""
    return ConnectionLost("the stream was closed before its end, or had no Finish")


def refusal_of(error: BaseException) -> bytes:
    """Return what those are told who have joined a stream that is refused: a problem document."""
    return problem_of(error).body
