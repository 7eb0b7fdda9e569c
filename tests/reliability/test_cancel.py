from __future__ import annotations

import gc
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from llm_sse import RetryPolicy, Timeouts, TokenStream
from llm_sse.events import Event, Finish, Resumed, Retrying, TextDelta
from llm_sse.testing import (
    Action,
    FakeServer,
    RecordedRequest,
    cut,
    drip_head,
    finish,
    hang,
    pause,
    say,
    stall,
    status,
)
from tests.helpers import until
from tests.reliability.conftest import (
    FAR_S,
    SYN_SENT,
    Identity,
    ask,
    connections,
    machine_late_s,
    port_of,
    retries,
    seconds_until_gone,
)

#: How long a closed stream's thread and connection may take to go, in seconds.
_GONE_S = 0.25

#: No limit runs out while a phase lasts.
_PATIENT = Timeouts(connect_s=FAR_S, first_token_s=FAR_S, idle_s=FAR_S)


@dataclass(frozen=True)
class Phase:
    """A moment in a stream's life, made to last.

    Attributes:
        name: Its name.
        server: The arguments of the server that makes it last.
        stream: The arguments of the stream.
        after: The event that the reader gets last before it waits; `None` where none comes.
        unread: Whether the server's record shows that the phase has come, nobody having read.
        waits: Whether the reader waits in it.
        outcome: What the server's record says when the stream is gone; `None` where it has none.
        gone_s: How long leaving the loop may take.
        only: The one scheme that has this phase.
    """

    name: str
    server: dict[str, Any]
    stream: dict[str, Any] = field(default_factory=dict)
    after: type[Event] | None = None
    unread: Callable[[FakeServer], object] = lambda server: server.requests
    waits: bool = True
    outcome: str | None = "disconnected"
    gone_s: float = _GONE_S
    only: str | None = None

    def __str__(self) -> str:
        return self.name


def _sent(server: FakeServer) -> bool:
    return bool(server.requests) and server.requests[0].deltas_sent > 0


def _ended(server: FakeServer) -> bool:
    return bool(server.requests) and server.requests[0].ended.is_set()


def _connected(server: FakeServer) -> bool:
    return bool(connections(port_of(server)))


_WAITING = [
    Phase(
        "connecting",
        {"on_connect": "black_hole"},
        unread=lambda server: connections(port_of(server), SYN_SENT, to=True),
        outcome=None,
        only="http",
    ),
    Phase("handshake", {"on_connect": "ignore"}, unread=_connected, outcome=None, only="https"),
    Phase(
        "request not read", {"on_connect": "ignore"}, unread=_connected, outcome=None, only="http"
    ),
    Phase("no headers", {"script": [hang()]}),
    Phase("headers byte by byte", {"script": [drip_head(0.02), say("late")]}),
    Phase("no token", {"script": [stall()]}),
    Phase("silent", {"script": [say("one"), stall()]}, after=TextDelta, unread=_sent),
    Phase("busy", {"text": "word " * 20_000, "tokens_per_s": 1000}, after=TextDelta, unread=_sent),
    Phase(
        "back-off",
        {"script": [status(503, headers={"Retry-After": "30"})]},
        {"retry": retries()},
        after=Retrying,
        unread=_ended,
        outcome="refused",
    ),
    Phase(
        "back-off before a continuation",
        {"script": [say("one"), cut()]},
        {"retry": RetryPolicy(resume=True, backoff_s=1e9, max_backoff_s=1e9)},
        after=Resumed,
        unread=_ended,
        outcome="cut",
    ),
]
_FULL = Phase(
    "full buffer",
    {"text": "word " * 20_000},
    {"buffer_size": 4},
    after=TextDelta,
    unread=_sent,
    waits=False,
)
_FINISHED = Phase(
    "after Finish",
    {"script": [say("one"), finish(), stall()]},
    after=Finish,
    unread=_ended,
    outcome="complete",
    gone_s=0.25 + _GONE_S,  # a loop that is left at Finish gives the connection its chance
)
_READ = [phase for phase in [*_WAITING, _FULL, _FINISHED] if phase.after is not None]


def in_both_schemes(phases: list[Phase]) -> pytest.MarkDecorator:
    """Give a test each phase in each scheme that has it."""
    cases = [
        pytest.param(phase, scheme, id=f"{phase}-{scheme}")
        for phase in phases
        for scheme in ("http", "https")
        if phase.only in (None, scheme)
    ]
    return pytest.mark.parametrize(("phase", "scheme"), cases)


class Live:
    """A stream in a phase of its life, and the server at its other end.

    Attributes:
        phase: Which phase.
        server: The server.
        before: The connections that were on their way to it before the stream's.
    """

    def __init__(self, phase: Phase, server: FakeServer) -> None:
        self.phase = phase
        self.server = server
        self.before = connections(port_of(server), SYN_SENT, to=True)
        self._streams = [ask(server, timeouts=_PATIENT, **phase.stream)]

    def take(self) -> TokenStream:
        """Hand the stream over: nobody else holds it then."""
        return self._streams.pop()

    def comes(self) -> None:
        """Wait until the phase has come, as far as the other end can tell."""
        if self.phase.name == "connecting":
            until(lambda: connections(port_of(self.server), SYN_SENT, to=True) - self.before)
        else:
            until(lambda: self.phase.unread(self.server))

    def is_last(self, event: Event) -> bool:
        """Whether an event is the one after which the phase begins."""
        return type(event) is self.phase.after

    def is_gone(self, since: float, within_s: float = _GONE_S) -> None:
        """See that the thread ends in time, and that the server sees the connection close."""
        took_s = seconds_until_gone(since)
        assert took_s < within_s
        port = port_of(self.server)
        if self.phase.name == "connecting":
            assert connections(port, SYN_SENT, to=True) <= self.before
        elif self.phase.name != "back-off":  # its connection was given back to the pool
            until(lambda: not connections(port))
        if self.phase.outcome is not None:
            recorded = self.server.requests[0]
            assert recorded.ended.wait(1)
            assert recorded.outcome == self.phase.outcome
            assert len(self.server.requests) == 1


Begin = Callable[[Phase, str], Any]


@pytest.fixture
def live(identity: Identity, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Live]]:
    """Open a stream that comes into a phase and stays there."""
    servers: list[FakeServer] = []

    def begin(phase: Phase, scheme: str) -> Live:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(identity.bundle))
        context: ssl.SSLContext | None = identity.context if scheme == "https" else None
        servers.append(FakeServer(**phase.server, ssl_context=context))
        return Live(phase, servers[-1])

    yield begin
    for server in servers:
        server.close()


def waits_for_room(answer: TokenStream) -> bool:
    """Whether the producer waits for its consumer: nothing outside of the channel shows that."""
    return bool(answer._reader.channel._queue.not_full._waiters)  # type: ignore[attr-defined]


def waits_for_event(answer: TokenStream) -> bool:
    """Whether the reader waits for its producer."""
    return bool(answer._reader.channel._awaited)  # type: ignore[attr-defined]


@contextmanager
def bell(ring: Callable[[], None]) -> Iterator[None]:
    """Let SIGUSR1 do something in the main thread."""

    def handler(number: int, frame: FrameType | None) -> None:
        ring()

    previous = signal.signal(signal.SIGUSR1, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, previous)


def press_until(rung: list[float]) -> None:
    """Send SIGUSR1 until its handler has run.

    A signal that comes in the instant before the main thread's wait begins is seen by Python only
    when that wait ends: whoever presses Ctrl-C then presses it again.
    """
    tick = threading.Event()
    while not rung:
        os.kill(os.getpid(), signal.SIGUSR1)
        tick.wait(0.02)


class Interrupted(BaseException):
    """What KeyboardInterrupt is, under a name that nobody else raises."""


class TestUnread:
    @in_both_schemes([*_WAITING, _FULL, _FINISHED])
    def test_close(self, phase: Phase, scheme: str, live: Begin) -> None:
        """A stream that is closed before it was read is gone at once, and stays closed."""
        it = live(phase, scheme)
        answer = it.take()
        it.comes()
        since = time.monotonic()
        answer.close()
        assert time.monotonic() - since < 0.1 + machine_late_s(
            since
        )  # close() itself waits for nothing
        it.is_gone(since)
        answer.close()
        assert answer.completion.text == ""

    @in_both_schemes([*_WAITING, _FULL, _FINISHED])
    def test_the_end_of_a_with_block(self, phase: Phase, scheme: str, live: Begin) -> None:
        """The end of a with block closes a stream in every phase of its life."""
        it = live(phase, scheme)
        with it.take():
            it.comes()
            since = time.monotonic()
        it.is_gone(since)

    @in_both_schemes([*_WAITING, _FULL, _FINISHED])
    def test_the_last_reference(self, phase: Phase, scheme: str, live: Begin) -> None:
        """A stream that nobody holds any more is gone at once, without the cycle collector."""
        gc.collect()
        gc.disable()
        try:
            it = live(phase, scheme)
            answer = it.take()
            it.comes()
            since = time.monotonic()
            del answer
            it.is_gone(since)
        finally:
            gc.enable()


class TestReading:
    @in_both_schemes([*_WAITING, _FINISHED])
    def test_close_from_another_thread(self, phase: Phase, scheme: str, live: Begin) -> None:
        """A reader that waits just stops when another thread closes its stream."""
        it = live(phase, scheme)
        answer = it.take()
        there = threading.Event()
        raised: list[BaseException] = []

        def read() -> None:
            try:
                for event in answer.events():
                    if it.is_last(event):
                        there.set()
            except BaseException as error:
                raised.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        it.comes()
        if phase.after is not None:
            assert there.wait(10)
        since = time.monotonic()
        answer.close()
        reader.join(5)
        assert not reader.is_alive()
        assert time.monotonic() - since < _GONE_S + machine_late_s(since)
        it.is_gone(since)
        assert raised == []
        assert answer.completion.finish_reason == ("stop" if phase is _FINISHED else None)

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_close_while_the_reader_is_away(self, scheme: str, live: Begin) -> None:
        """A producer that waits for room goes at once; the reader, when it comes back, stops."""
        it = live(_FULL, scheme)
        answer = it.take()
        tokens = iter(answer)
        assert next(tokens) == "word"
        until(lambda: waits_for_room(answer))
        since = time.monotonic()
        closer = threading.Thread(target=answer.close)
        closer.start()
        closer.join()
        it.is_gone(since)
        assert list(tokens) == []

    @in_both_schemes(_READ)
    @pytest.mark.parametrize("how", ["break", "exception", "generator", "next", "dropped"])
    def test_leaving(self, how: str, phase: Phase, scheme: str, live: Begin) -> None:
        """Whoever leaves the loop, in whatever way, leaves no thread and no connection."""
        it = live(phase, scheme)
        answer = it.take()
        since = 0.0
        if how == "break":
            for event in answer.events():
                if it.is_last(event):
                    since = time.monotonic()
                    break
        elif how == "exception":
            with pytest.raises(KeyError):
                for event in answer.events():
                    if it.is_last(event):
                        since = time.monotonic()
                        raise KeyError
        else:
            events: Any = answer.events()
            while not it.is_last(next(events)):
                pass
            if phase is _FULL:
                until(lambda: waits_for_room(answer))
            since = time.monotonic()
            if how == "generator":
                events.close()
            elif how == "next":
                answer.close()
                assert list(events) == []
            else:
                del answer, events
        it.is_gone(since, phase.gone_s)

    @in_both_schemes(_WAITING)
    @pytest.mark.parametrize("whole", [False, True], ids=["events", "text"])
    def test_a_signals_exception(self, whole: bool, phase: Phase, scheme: str, live: Begin) -> None:
        """Ctrl-C and its like end the wait of the main thread, and the stream with it."""
        it = live(phase, scheme)
        answer = it.take()
        there = threading.Event()
        rung: list[float] = []

        def ring() -> None:
            if not rung:
                rung.append(time.monotonic())
                raise Interrupted

        def press() -> None:
            it.comes()
            assert whole or phase.after is None or there.wait(10)
            until(lambda: waits_for_event(answer))
            press_until(rung)

        presser = threading.Thread(target=press)
        with bell(ring), pytest.raises(Interrupted):
            presser.start()
            if whole:
                answer.text()
            for event in answer.events():
                if it.is_last(event):
                    there.set()
        presser.join()
        it.is_gone(rung[0])

    @in_both_schemes(_WAITING)
    def test_close_in_a_signal_handler(self, phase: Phase, scheme: str, live: Begin) -> None:
        """A handler that interrupts the waiting reader may close the stream; the loop just ends."""
        it = live(phase, scheme)
        answer = it.take()
        there = threading.Event()
        rung: list[float] = []

        def ring() -> None:
            rung.append(time.monotonic())
            answer.close()

        def press() -> None:
            it.comes()
            assert phase.after is None or there.wait(10)
            until(lambda: waits_for_event(answer))
            press_until(rung)

        presser = threading.Thread(target=press)
        with bell(ring):
            presser.start()
            for event in answer.events():
                if it.is_last(event):
                    there.set()
        presser.join()
        it.is_gone(rung[0])


class TestAnyMoment:
    """What a signal may do at any moment, done at each of them in turn."""

    @pytest.mark.parametrize("what", ["close", "raise"])
    @pytest.mark.parametrize(
        "script",
        [[hang()], [say("one two"), stall()], [say("one two")]],
        ids=["no headers", "silent", "complete"],
    )
    def test_in_the_reader(self, what: str, script: list[Action]) -> None:
        """Wherever a signal comes, its close() ends the loop, and its exception the stream."""
        with FakeServer(script=script) as server:
            moment = 0
            while self._happens(moment, what, server):
                moment += 1
            assert moment > 5

    def _happens(self, moment: int, what: str, server: FakeServer) -> bool:
        """Read a stream, and do it at the given moment; return whether there was that moment."""
        reading = _Reading(ask(server, timeouts=_PATIENT), moment, what)
        reader = threading.Thread(target=reading.read, daemon=True)
        reader.start()
        until(lambda: reading.since or not reader.is_alive() or reading.waits())
        if reading.since is None and reading.answer is not None:
            reading.answer.close()
        reader.join(5)
        assert not reader.is_alive(), f"the reader hangs, interrupted at {reading.where}"
        reading.answer = None  # an exception before the loop's first line leaves it to its owner
        if reading.since is not None:
            assert seconds_until_gone(reading.since) < _GONE_S, reading.where
            assert reading.raised == ([Interrupted] if what == "raise" else []), reading.where
        return reading.since is not None


class _Reading:
    """Read a stream in a thread whose steps are counted.

    A close() may come between any two lines. An exception is raised by the interpreter itself where
    a function begins, but never between the end of a `with` block and its exit.
    """

    def __init__(self, answer: TokenStream, moment: int, what: str) -> None:
        self.answer: TokenStream | None = answer
        self.since: float | None = None
        self.where = ""
        self.raised: list[type[BaseException]] = []
        self._left = moment
        self._what = what
        self._event = "line" if what == "close" else "call"

    def waits(self) -> bool:
        """Whether the reader waits."""
        return self.answer is not None and waits_for_event(self.answer)

    def read(self) -> None:
        """Read to the end, or to the moment at which it happens."""
        assert self.answer is not None
        sys.settrace(self._on_step)
        try:
            for _ in self.answer.events():
                pass
        except BaseException as error:
            self.raised.append(type(error))
        finally:
            sys.settrace(None)

    def _on_step(self, frame: FrameType, event: str, _: Any) -> Any:
        code, answer = frame.f_code, self.answer
        if self.since is not None or answer is None or "llm_sse" not in code.co_filename:
            return None
        if event == self._event and (answer._reader.claimed or self._what == "raise"):
            self._left -= 1
            if self._left < 0:
                self.since = time.monotonic()
                self.where = f"{code.co_name}:{frame.f_lineno}"
                if self._what == "raise":
                    raise Interrupted
                answer.close()
        return self._on_step


class TestManyAtOnce:
    def test_closing_in_twenty_threads(self, tls: ssl.SSLContext | None) -> None:
        """A stream that many threads close at the same time is closed once, and nobody waits."""
        with FakeServer(script=[say("one"), stall()], ssl_context=tls) as server:
            for _ in range(5):
                answer = ask(server, timeouts=_PATIENT)
                assert next(answer) == "one"
                barrier = threading.Barrier(21)
                raised: list[BaseException] = []

                def close(
                    answer: TokenStream = answer,
                    barrier: threading.Barrier = barrier,
                    raised: list[BaseException] = raised,
                ) -> None:
                    barrier.wait()
                    try:
                        answer.close()
                    except BaseException as error:
                        raised.append(error)

                closers = [threading.Thread(target=close) for _ in range(20)]
                for closer in closers:
                    closer.start()
                since = time.monotonic()
                barrier.wait()
                for closer in closers:
                    closer.join(5)
                assert seconds_until_gone(since) < _GONE_S
                assert raised == []
                assert list(answer) == []
            assert all(recorded.ended.wait(1) for recorded in server.requests)
            assert {recorded.outcome for recorded in server.requests} == {"disconnected"}

    def test_two_hundred_streams(self) -> None:
        """Two hundred waiting streams are closed within a second, their threads included."""
        with FakeServer(script=[say("one"), stall()]) as server:
            answers = [ask(server, timeouts=_PATIENT) for _ in range(200)]
            assert [next(answer) for answer in answers] == ["one"] * 200
            since = time.monotonic()
            for answer in answers:
                answer.close()
            assert seconds_until_gone(since) < 1.0
            until(lambda: all(recorded.ended.is_set() for recorded in server.requests))
            assert {recorded.outcome for recorded in server.requests} == {"disconnected"}
            assert time.monotonic() - since < 2.0 + machine_late_s(since)


class _Owner:
    """Whoever closes what it owns when it goes."""

    def __init__(self, answer: TokenStream) -> None:
        self.answer = answer
        self.me = self  # only the cycle collector finds it

    def __del__(self) -> None:
        self.answer.close()


class TestFinalizers:
    @in_both_schemes(_WAITING)
    def test_a_cycle_is_collected(self, phase: Phase, scheme: str, live: Begin) -> None:
        """A __del__ that the cycle collector calls may close its stream, in every phase."""
        it = live(phase, scheme)
        owner = _Owner(it.take())
        it.comes()
        since = time.monotonic()
        del owner
        gc.collect()
        it.is_gone(since)

    def test_a_weak_references_callback(self, tls: ssl.SSLContext | None) -> None:
        """A callback of a weak reference may close a stream that another object was read for."""

        class Request:
            pass

        with FakeServer(script=[say("one"), stall()], ssl_context=tls) as server:
            answer = ask(server, timeouts=_PATIENT)
            request = Request()
            watched = weakref.ref(request, lambda _: answer.close())
            assert next(answer) == "one"
            since = time.monotonic()
            del request
            assert watched() is None
            assert seconds_until_gone(since) < _GONE_S
            assert list(answer) == []


_BEGIN = """
import json, os, sys, threading
from llm_sse import RetryPolicy, Timeouts, stream_sync
urls = json.loads(sys.argv[1])
far = Timeouts(connect_s=60, first_token_s=60, idle_s=60)
def ask(name, **more):
    return stream_sync("Hi", api_key="any", base_url=urls[name], **{"timeouts": far, **more})
"""

_ALL_PHASES = """
more = {"back-off": {"retry": RetryPolicy(max_retries=9)}, "full buffer": {"buffer_size": 2},
        "back-off before a continuation": {"retry": RetryPolicy(resume=True, backoff_s=30)}}
streams = {name: ask(name, **more.get(name, {})) for name in urls}
kinds = json.loads(sys.argv[2])
def read(name, there):
    for event in streams[name].events():
        if type(event).__name__ == kinds[name]:
            there.set()
for name in urls:
    if kinds[name] is None:
        continue
    if name in ("full buffer", "after Finish"):
        streams[name, "loop"] = events = streams[name].events()
        while type(next(events)).__name__ != kinds[name]:
            pass
        continue
    there = threading.Event()
    threading.Thread(target=read, args=(name, there), daemon=True).start()
    assert there.wait(10), name
for name in ("no headers", "no token"):
    threading.Thread(target=read, args=(name, None), daemon=True).start()
print("leaving", flush=True)
"""


class _Servers:
    """One server per phase, for a process of its own to stream from."""

    def __init__(self, phases: list[Phase], context: ssl.SSLContext) -> None:
        self.phases = phases
        self.servers = {
            phase.name: FakeServer(
                **phase.server, ssl_context=context if phase.only != "http" else None
            )
            for phase in phases
        }

    def __enter__(self) -> _Servers:
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers.values():
            server.close()

    def arguments(self) -> list[str]:
        """What the process is told: where the servers are, and which event comes last."""
        urls = {name: server.base_url("openai") for name, server in self.servers.items()}
        kinds = {phase.name: phase.after and phase.after.__name__ for phase in self.phases}
        return [json.dumps(urls), json.dumps(kinds)]


def run(script: str, arguments: list[str], bundle: Path, *options: str) -> tuple[Any, float]:
    """Run a script that says when it is about to leave; return it, and how long leaving took."""
    with subprocess.Popen(
        [sys.executable, "-X", "dev", *options, "-c", _BEGIN + script, *arguments],
        env={**os.environ, "REQUESTS_CA_BUNDLE": str(bundle)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        since = time.monotonic()
        try:
            out, errors = process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        took_s = time.monotonic() - since - machine_late_s(since)
    return subprocess.CompletedProcess([], process.returncode, said + out, errors), took_s


class TestInterpreterExit:
    @pytest.mark.parametrize(
        ("ending", "code", "complaint"),
        [
            ("", 0, ""),
            ("sys.exit(3)", 3, ""),
            ("for _ in ask('busy'):\n    sys.exit(4)", 4, ""),
            ("raise ValueError('mine')", 1, "ValueError: mine"),
        ],
        ids=["return", "sys.exit", "sys.exit in a loop", "exception"],
    )
    def test_streams_in_every_phase(
        self, ending: str, code: int, complaint: str, identity: Identity
    ) -> None:
        """However a script ends, streams in every phase neither hold it up nor say anything."""
        with _Servers([*_WAITING, _FULL, _FINISHED], identity.context) as servers:
            arguments = servers.arguments()
            done, took_s = run(_ALL_PHASES + ending, arguments, identity.bundle)
        assert done.stdout == "leaving\n", done.stderr
        assert done.returncode == code
        assert took_s < 2.0
        if complaint:
            assert done.stderr.count("Traceback") == 1
            assert done.stderr.rstrip().endswith(complaint)
            assert "Warning" not in done.stderr
        else:
            assert done.stderr == ""


_PARENT = """
import gc, time
def all_of(stream, first):
    return "".join([*first, *stream])
streams = {name: ask(name, buffer_size=2, retry=RetryPolicy(max_retries=9)) for name in urls
           if name != "child"}
first = {name: [] for name in streams}
for name in ("silent", "full"):
    first[name].append(next(streams[name]))
for event in (events := streams["back-off"].events()):
    break
assert type(event).__name__ == "Retrying"
waiting = []
reader = threading.Thread(target=lambda: waiting.append(streams["read"].text()))
reader.start()
def child():
    assert len(ask("child").text()) > 20
    for name in ("silent", "no headers"):
        streams.pop(name).close()
    streams.clear()
    gc.collect()
    assert len(ask("child").text()) > 20
"""

_FORK = """
pid = os.fork()
if pid == 0:
    child()
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
"""

_MULTIPROCESSING = """
import multiprocessing
process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join()
assert process.exitcode == 0, process.exitcode
"""

_GO_ON = """
reader.join()
assert waiting == ["one two"], waiting
assert all_of(streams["silent"], first["silent"]) == "one two"
assert all_of(streams["no headers"], []) == "one two"
assert all_of(streams["full"], first["full"]) == "word " * 5000 + "end"
assert [e.text for e in events if type(e).__name__ == "TextDelta"] == ["one", " two"]
print("complete", flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
class TestFork:
    @pytest.mark.parametrize("how", [_FORK, _MULTIPROCESSING], ids=["os.fork", "multiprocessing"])
    def test_the_parents_streams_go_on(
        self, how: str, tls: ssl.SSLContext | None, identity: Identity
    ) -> None:
        """A child that streams, closes what it inherited and exits does not touch its parent's."""
        may_go_on = threading.Event()

        def late(_: RecordedRequest) -> list[Action]:
            may_go_on.wait(10)
            return [say("one two")]

        def child(_: RecordedRequest) -> list[Action]:
            if len(servers["child"].requests) > 1:  # it has closed what it had inherited
                may_go_on.set()
            return [say("a whole answer for the child, and some more words")]

        slowly: list[Action] = [say("one"), pause(0.8), say(" two")]
        scripts: dict[str, Any] = {
            "silent": slowly,
            "read": slowly,
            "no headers": late,
            "full": [say("word " * 5000 + "end")],
            "back-off": [say("one two")],
            "child": child,
        }
        servers = {
            name: FakeServer(script=script, ssl_context=tls) for name, script in scripts.items()
        }
        servers["back-off"].enqueue(status(503, headers={"Retry-After": "1"}))
        try:
            urls = {name: server.base_url("openai") for name, server in servers.items()}
            options = ["-W", "ignore::DeprecationWarning"]  # from 3.12 on, of a fork with threads
            script = _PARENT + how + _GO_ON
            done, _ = run(script, [json.dumps(urls)], identity.bundle, *options)
        finally:
            for server in servers.values():
                server.close()
        assert (done.returncode, done.stdout, done.stderr) == (0, "complete\n", "")
        assert {recorded.outcome for recorded in servers["silent"].requests} == {"complete"}
        assert len(servers["silent"].requests) == len(servers["no headers"].requests) == 1
