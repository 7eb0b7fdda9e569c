from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import flask
import pytest
from redis import BlockingConnectionPool, ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, ReadOnlyError, ResponseError
from redis.retry import Retry

from llm_sse.errors import ConfigurationError
from llm_sse.events import Event, Finish, TextDelta
from llm_sse.sse import SSEDecoder
from llm_sse.web.flask import sse_response
from llm_sse.web.redis import RedisReplay
from llm_sse.web.replay import Entry, Fenced, Gone, ReplayReader, ReplayUnavailable
from llm_sse.web.retelling import Asked, _Shelf
from tests.helpers import until
from tests.web.redis_server import RedisServer
from tests.web.test_replay import Site, Tab, said, visit

_WORKER = """
import os, sys
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from llm_sse.web.redis import RedisReplay
writer = RedisReplay(Redis(port=int(sys.argv[1]), socket_timeout=5), lease_s=0.4).begin("a")
writer.append([b"one"])
os._exit(0)
"""


def _broken(position: int) -> bytes:
    return b"broken %d" % position


def _read(reader: ReplayReader) -> list[Entry]:
    """Read to the end."""
    entries: list[Entry] = []
    while not entries or not entries[-1].last:
        try:
            entries += reader.read(0.2)
        except ReplayUnavailable:
            continue
    reader.close()
    return entries


@contextmanager
def _disconnecting(pool: ConnectionPool) -> Iterator[ConnectionPool]:
    yield pool
    until(lambda: not any(one.name.startswith("llm-sse-web") for one in threading.enumerate()))
    pool.disconnect()


def _begun(store: RedisReplay, stream: str = "a") -> Any:
    writer = store.begin(stream)
    assert writer is not None
    return writer


class TestRedisReplay:
    def test_one_worker_writes(self, redis: Redis, redis_server: RedisServer) -> None:
        """Of many who begin the same stream at once exactly one does."""
        stores = [RedisReplay(redis) for _ in range(8)]
        with ThreadPoolExecutor(8) as pool:
            for number in range(20):
                writers = list(pool.map(lambda store, n=number: store.begin(f"{n}"), stores))
                assert sum(writer is not None for writer in writers) == 1

    def test_a_dead_workers_stream_ends(self, redis: Redis, redis_server: RedisServer) -> None:
        """Its readers, wherever they are, get what it has said and then one error."""
        command = [sys.executable, "-c", _WORKER, str(redis_server.port)]
        root = Path(__file__).parent.parent.parent
        subprocess.run(command, check=True, cwd=root, timeout=30)
        readers = [RedisReplay(redis, lease_s=0.4).reader("a", 0, _broken) for _ in range(3)]
        with ThreadPoolExecutor(3) as pool:
            for entries in pool.map(_read, readers):
                assert entries == [Entry(1, b"one", False), Entry(2, b"broken 2", True)]
        assert RedisReplay(redis).state("a") == (1, 2, True)

    def test_a_name_that_a_dead_worker_has_taken_is_asked_again(self, redis: Redis) -> None:
        """Also one that died, or lost Redis, before it had said anything, or signed."""
        store = RedisReplay(redis, lease_s=0.3)
        name = _Shelf(store, "ann", Asked(store, "ann", "question"), 5.0)
        dead = "d" * 32
        redis.set(f"{store._name(str(name._name))}:name", dead)
        redis.set(f"{store._name(name._place(dead))}:writer", b"dead", px=60_000)
        answer = [TextDelta("one"), Finish("stop")]

        def ask() -> bytes:
            how = {"replay": store, "key": "ann", "name": "question"}
            return sse_response(lambda: answer, **how).data  # type: ignore[arg-type]

        assert b'"code":"incomplete"' in ask()
        assert b'"one"' in ask()
        assert b'"one"' in ask()

    def test_a_worker_that_comes_back_too_late_stops(self, redis: Redis) -> None:
        """What its readers were told stays so."""
        store = RedisReplay(redis, lease_s=0.1)
        writer = _begun(store)
        writer.append([b"one"])
        assert [entry.last for entry in _read(store.reader("a", 0, _broken))] == [False, True]
        for act in (lambda: writer.append([b"two"]), writer.keep):
            with pytest.raises(Fenced):
                act()
        assert store.state("a") == (1, 2, True)

    def test_a_worker_that_signs_lives(self, redis: Redis) -> None:
        """As long as it signs, a worker may be silent."""
        store = RedisReplay(redis, lease_s=1.0)
        writer = _begun(store)
        reader = store.reader("a", 0, _broken)
        for _ in range(8):
            assert reader.read(0.2) == []
            writer.keep()
        writer.append([b"one"], last=True)
        assert reader.read(1) == [Entry(1, b"one", True)]
        reader.close()

    def test_the_writer_knows_whether_anybody_reads(self, redis: Redis) -> None:
        """A reader in any process counts, and none does when he has gone."""
        writer = _begun(RedisReplay(redis))
        assert not writer.keep()
        reader = RedisReplay(redis, lease_s=0.1).reader("a", 0, _broken)
        until(writer.keep)
        reader.close()
        until(lambda: not writer.keep())

    def test_an_append_whose_reply_was_lost_is_made_once(self, redis: Redis) -> None:
        """What is there already is not added again."""
        store = RedisReplay(redis)
        writer = _begun(store)
        writer.append([b"one", b"two"])
        writer._confirmed = 0  # as if nobody had said so
        writer.append([b"three"], last=True)
        entries = _read(store.reader("a", 0, _broken))
        assert [entry.data for entry in entries] == [b"one", b"two", b"three"]

    def test_what_redis_has_lost_is_put_back(self, redis: Redis) -> None:
        """A Redis that comes back with less than it had gets the rest again."""
        store = RedisReplay(redis)
        writer = _begun(store)
        writer.append([b"one", b"two", b"three"])
        redis.xdel(store._name("a"), "3-1")
        redis.execute_command("XSETID", store._name("a"), "2-1")
        writer.append([b"four"])
        redis.flushall()
        writer.append([b"five"], last=True)
        entries = _read(store.reader("a", 0, _broken))
        assert [entry.data for entry in entries] == [b"one", b"two", b"three", b"four", b"five"]

    def test_what_redis_has_lost_is_put_back_while_the_model_thinks(self, redis: Redis) -> None:
        """A worker that has nothing to say signs, and with that puts everything back."""
        store = RedisReplay(redis)
        writer = _begun(store)
        writer.append([b"one", b"two"])
        assert writer.take_name("question", "a", None) == "a"
        redis.flushall()
        assert (store.state("a"), store.named("question")) == (None, None)
        writer.keep()
        assert (store.state("a"), store.named("question")) == ((1, 2, False), "a")
        assert store.begin("a") is None
        reader = store.reader("a", 0, _broken)
        assert [entry.data for entry in reader.read(1)] == [b"one", b"two"]
        reader.close()

    def test_a_writer_takes_nothing_from_another_one(self, redis: Redis) -> None:
        """Who finds another one's token stops; another one's name is left to him."""
        store = RedisReplay(redis)
        first = _begun(store)
        first.take_name("question", "a", None)
        first.append([b"one"])
        redis.flushall()
        second = _begun(store)
        assert second.take_name("question", "b", None) == "b"
        for act in (first.keep, lambda: first.append([b"two"])):
            with pytest.raises(Fenced):
                act()
        assert store.state("a") == (1, 0, False)
        third = _begun(store, "c")
        assert third.take_name("question", "c", None) == "b"
        assert third.take_name("question", "c", "b") == "c"
        second.keep()
        assert store.named("question") == "c"

    def test_a_position_that_was_never_told_is_gone(self, redis: Redis) -> None:
        """Who follows a stream from further than it is reads nothing, and not for long."""
        store = RedisReplay(redis, lease_s=0.3)
        writer = _begun(store)
        writer.append([b"one"])
        reader = store.reader("a", 999_999, _broken)

        def read() -> bool:
            writer.keep()
            return reader.read(0.05) != []

        with pytest.raises(Gone):
            until(read)
        reader.close()

    def test_a_client_that_is_not_let_in_does_not_wait(self, mortal: RedisServer) -> None:
        """A wrong password is the site's mistake, which no waiting mends."""
        with mortal.client() as admin:
            admin.config_set("requirepass", "right")
        with mortal.client(password="wrong") as client:
            with pytest.raises(ConfigurationError, match="Redis refuses this client"):
                RedisReplay(client).begin("a")
            client.connection_pool.disconnect()
        admin.connection_pool.disconnect()

    def test_a_client_that_may_not_ask_about_a_restart_waits(self, mortal: RedisServer) -> None:
        """Without the right to INFO every unknown stream may yet be put back."""
        with mortal.client() as admin:
            rights = ("on", ">secret", "~*", "+@all", "-info")
            admin.execute_command("ACL", "SETUSER", "limited", *rights)
        with mortal.client(username="limited", password="secret") as client:
            assert RedisReplay(client).is_recovering()
        admin.connection_pool.disconnect()
        client.connection_pool.disconnect()

    def test_a_redis_that_is_full_is_waited_for(self, mortal: RedisServer) -> None:
        """Who asks is told 503; who writes goes on when there is room again."""
        client = mortal.client()
        store = RedisReplay(client)
        writer = _begun(store)
        writer.append([b"one"])
        client.config_set("maxmemory", 1)
        response = sse_response(list, replay=store, key="ann")
        assert response.status_code == 503
        with ThreadPoolExecutor(1) as pool:
            written = pool.submit(writer.append, [b"two"], last=True)
            with pytest.raises(FutureTimeoutError):
                written.result(0.3)
            client.config_set("maxmemory", 0)
            written.result(20)
        reader = store.reader("a", 0, _broken)
        assert [entry.data for entry in _read(reader)] == [b"one", b"two"]
        until(lambda: not store._watch._runs)
        client.connection_pool.disconnect()

    @pytest.mark.parametrize(
        ("error", "passes"),
        [
            (ResponseError("MISCONF Redis is configured to save RDB snapshots"), True),
            (ResponseError("NOREPLICAS Not enough good replicas to write."), True),
            (ResponseError("Error running script: @user_script: 9: -OOM command not"), True),
            (ReadOnlyError("You can't write against a read only replica."), True),
            (NoScriptError("No matching script. Please use EVAL."), True),
            (ResponseError("WRONGTYPE Operation against a key"), False),
        ],
    )
    def test_what_passes_is_waited_for(
        self, redis: Redis, error: ResponseError, passes: bool
    ) -> None:
        """A failover or a full disk is an outage; what will never work is an error."""

        def fail(_: object) -> None:
            raise error

        with pytest.raises(ReplayUnavailable if passes else ResponseError):
            RedisReplay(redis)._ask(fail)

    def test_a_stream_is_bounded(self, redis: Redis) -> None:
        """The oldest events go; who needs them is told, and nobody gets a text with a hole."""
        store = RedisReplay(redis, max_events=3)
        writer = _begun(store)
        writer.append([b"%d" % number for number in range(1, 6)], last=True)
        assert store.state("a") == (3, 5, True)
        late, early = store.reader("a", 2, _broken), store.reader("a", 1, _broken)
        assert [entry.position for entry in late.read(1)] == [3, 4, 5]
        with pytest.raises(Gone):
            early.read(1)
        late.close()
        early.close()

    def test_everything_expires(self, redis: Redis) -> None:
        """No key is left without an end of its life, whatever a stream has come to."""
        store = RedisReplay(redis, ttl_s=100)
        writer = _begun(store)
        reader = store.reader("a", 0, _broken)
        writer.append([b"one"])
        until(writer.keep)
        writer.append([b"two"], last=True)
        reader.close()
        keys = list(redis.scan_iter())
        assert len(keys) == 4
        assert all(0 < redis.pttl(key) <= 100_000 for key in keys)

    def test_what_never_was_is_forgotten(self, redis: Redis) -> None:
        """A stream that is discarded can be begun again."""
        store = RedisReplay(redis)
        _begun(store).discard()
        assert store.state("a") is None
        assert store.begin("a") is not None

    def test_a_redis_out_of_reach_is_503(self) -> None:
        """The visitor is told to try again, and nothing is opened."""
        store = RedisReplay(Redis(port=1, socket_timeout=5, retry=Retry(NoBackoff(), 0)))
        response = sse_response(list, replay=store, key="ann")
        assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
        assert response.json["retryable"] is True  # type: ignore[index]

    @pytest.mark.parametrize("blocking", [False, True], ids=["pool", "blocking pool"])
    def test_readers_leave_connections_to_the_writers(
        self, redis_server: RedisServer, redis: Redis, blocking: bool
    ) -> None:
        """One reader too many gets 503 at once, nobody is asked for it, and all others go on."""
        kind = BlockingConnectionPool if blocking else ConnectionPool
        with _disconnecting(
            kind(port=redis_server.port, socket_timeout=5, max_connections=8)
        ) as pool:
            site = Site(RedisReplay(Redis(connection_pool=pool)))
            tabs = [visit(site) for _ in range(6)]
            refused = visit(site)
            assert (refused.status, refused.response.headers["Retry-After"]) == (503, "5")
            assert site.started == 6
            site.allow(30)
            seen = tabs[0].read(1) and next(one.id for one in tabs[0].events if "w" in one.data)
            assert visit(site, seen).status == 503
            tabs.pop().leave()
            assert visit(site, seen).rest()[-1] == "[DONE]"
            for tab in tabs:
                assert tab.rest() == said(0, 1, 2, 3, 4, done=True)

    @pytest.mark.parametrize(
        ("how", "message"),
        [
            ({"redis": Redis(socket_timeout=None)}, "with a socket_timeout"),
            ({"redis": Redis(max_connections=3, socket_timeout=5)}, "at least 4 connections"),
            (
                {"redis": Redis(max_connections=8, socket_timeout=5), "max_readers": 7},
                r"\(8\), that is 6, not 7",
            ),
            ({"max_readers": 0}, "max_readers"),
            ({"redis": "redis://127.0.0.1"}, "must be a redis.Redis"),
            ({"redis": Redis(decode_responses=True)}, "decode_responses"),
            ({"ttl_s": 0}, "ttl_s"),
            ({"ttl_s": 5, "lease_s": 10}, "ttl_s must be at least lease_s"),
            ({"lease_s": "x"}, "lease_s"),
            ({"outage_s": None}, "outage_s"),
            ({"max_events": 0}, "max_events"),
        ],
    )
    def test_what_cannot_be_is_refused(self, how: dict[str, Any], message: str) -> None:
        """The error says what was wrong."""
        with pytest.raises(ConfigurationError, match=message):
            RedisReplay(**{"redis": Redis(socket_timeout=5), **how})


class TestSeveralWorkers:
    def test_a_browser_may_come_back_to_another_one(
        self, redis: Redis, redis_server: RedisServer
    ) -> None:
        """It gets the rest there, live, and the first worker goes on alone."""
        with redis_server.client() as other:
            one, two = Site(RedisReplay(redis)), Site(RedisReplay(other))
            one.allow(2)
            first = visit(one)
            first.read(2)
            seen = next(sse.id for sse in first.events if "w0" in sse.data)
            first.leave()
            second = visit(two, seen)
            second.read(1)
            one.allow(3)
            assert second.rest() == said(1, 2, 3, 4, done=True)
            assert visit(two, second.last_event_id).status == 204
            until(lambda: not any(t.name == "llm-sse-web-watch" for t in threading.enumerate()))
            other.connection_pool.disconnect()
        assert (one.started, two.started) == (1, 0)


@pytest.fixture
def mortal(redis_server: RedisServer, tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of the test's own, to be killed."""
    server = RedisServer(tmp_path)
    yield server
    server.kill()


def _numbers(count: int, half: threading.Event, go_on: threading.Event) -> Iterator[Event]:
    for number in range(count):
        if number == count // 2:
            half.set()
            go_on.wait(20)
        yield TextDelta(f"{number} ")
    yield Finish("stop")


class _Silent(Site):
    """Its streams say nothing at all until they are allowed to."""

    def _events(self) -> Iterator[Event]:
        for number in range(5):
            assert self._words.acquire(timeout=20)
            yield TextDelta(f"w{number} ")
        yield Finish("stop")


@contextmanager
def _mortal_site(
    server: RedisServer, *, status_wait_s: float = 10.0, socket_timeout: float = 5.0, **how: Any
) -> Iterator[Site]:
    """A site whose Redis may be killed, and whose threads have ended when the test has."""
    client = server.client(retry=Retry(NoBackoff(), 0), socket_timeout=socket_timeout)
    store = RedisReplay(client, **how)
    yield _Silent(store, status_wait_s=status_wait_s, grace_s=60.0)
    until(lambda: not any(one.name.startswith("llm-sse-web") for one in threading.enumerate()))
    client.connection_pool.disconnect()


class TestOutage:
    def test_a_redis_that_is_killed_loses_and_doubles_nothing(self, mortal: RedisServer) -> None:
        """Streams and their readers go on where they were, on both sides of two restarts."""
        server = mortal
        client = server.client(max_connections=100)
        store = RedisReplay(client, lease_s=2.0)
        app = flask.Flask(__name__)
        halves = [threading.Event() for _ in range(6)]
        gate = threading.Event()
        waiting = list(halves)

        @app.get("/stream")
        def view() -> flask.Response:
            return sse_response(lambda: _numbers(600, waiting.pop(), gate), replay=store, key="ann")

        def browse(_: int) -> str:
            """Read as `EventSource` does: what ends is asked for again, until a status ends it."""
            text, headers = "", {}
            while True:
                answer = app.test_client().get("/stream", headers=headers)
                if answer.status_code != 200:
                    assert answer.status_code == 204
                    return text
                decoder = SSEDecoder()
                for sse in decoder.feed(answer.data):
                    assert sse.event == "message", sse
                    if sse.data.startswith('{"token"'):
                        text += sse.data[10:-2]
                headers = {"Last-Event-ID": decoder.last_event_id}

        with ThreadPoolExecutor(6) as pool:
            texts = [pool.submit(browse, number) for number in range(6)]
            until(lambda: not waiting)
            server.kill()
            server.start()
            assert all(half.wait(20) for half in halves)
            gate.set()
            server.kill()
            server.start()
            for text in texts:
                assert text.result(30) == "".join(f"{number} " for number in range(600))
        client.close()
        client.connection_pool.disconnect()

    @pytest.mark.parametrize("loses", [False, True], ids=["keeps", "loses"])
    @pytest.mark.parametrize("while_down", [True, False], ids=["down", "just up"])
    def test_a_browser_that_comes_back_is_kept_waiting(
        self, mortal: RedisServer, loses: bool, while_down: bool
    ) -> None:
        """It gets its 200 at once, for any other status would end it, and then what follows."""
        with _mortal_site(mortal, lease_s=3.0) as site:
            site.allow(2)
            first = visit(site, name="question")
            first.read(2)
            seen = next(one.id for one in first.events if one.data in said(1))
            first.leave()
            mortal.kill()
            if loses:
                mortal.lose()
            if not while_down:
                mortal.start()
            second = visit(site, seen)
            assert second.status == 200
            second._feed(next(second._chunks))
            assert second.last_event_id == seen
            if while_down:
                mortal.start()
            site.allow(3)
            assert second.rest() == said(2, 3, 4, done=True)
            assert visit(site, second.last_event_id).status == 204
            assert visit(site, name="question").rest() == said(0, 1, 2, 3, 4, done=True)
            assert site.started == 1

    def test_a_browser_that_has_everything_learns_it_when_redis_is_back(
        self, mortal: RedisServer
    ) -> None:
        """Its 200 ends without a word, and the next time it is told 204."""
        with _mortal_site(mortal, lease_s=3.0) as site:
            site.allow(5)
            first = visit(site)
            first.rest()
            mortal.kill()
            second = visit(site, first.last_event_id)
            mortal.start()
            assert (second.status, second.rest()) == (200, [])
            assert visit(site, first.last_event_id).status == 204

    def test_a_redis_that_stays_away_is_an_ending(self, mortal: RedisServer) -> None:
        """After `outage_s` a browser that came back gets the error event."""
        with _mortal_site(mortal, outage_s=0.3) as site:
            site.allow(1)
            first = visit(site)
            first.read(1)
            mortal.kill()
            second = visit(site, first.last_event_id)
            second.rest()
            assert (second.status, second.events[-1].event) == (200, "error")
            first.leave()
            site.allow(4)

    def test_a_stream_that_redis_has_lost_for_good_is_an_ending(self, mortal: RedisServer) -> None:
        """Where nobody puts it back within `lease_s`, who waited for it is told."""
        with _mortal_site(mortal, lease_s=2.0) as site:
            site.allow(5)
            first = visit(site)
            first.rest()
            mortal.kill()
            mortal.lose()
            mortal.start()
            second = visit(site, f"{first.last_event_id[:33]}2")
            second.rest()
            assert (second.status, second.events[-1].event) == (200, "error")
            until(lambda: not site._store.is_recovering())
            assert visit(site, first.last_event_id).status == 410
            assert site.started == 1

    def test_two_answers_to_a_name_are_two_streams(self, mortal: RedisServer) -> None:
        """Where Redis has lost a name and somebody asks it again, both answers are whole."""
        with _mortal_site(mortal, status_wait_s=0.1, lease_s=30.0) as site:
            site.allow(2)
            first = visit(site, name="question")
            first.read(2)
            with mortal.client() as admin:
                admin.flushall()
            admin.connection_pool.disconnect()
            second = visit(site, name="question")
            assert site.started == 2
            other = visit(site, first.last_event_id)
            site.allow(8)
            told = [tab.rest() for tab in (first, second, other)]
            assert told[0] == told[1] == said(0, 1, 2, 3, 4, done=True)
            assert told[2][-2:] == said(4, done=True)
            ids = [{one.id[:32] for one in tab.events} for tab in (first, second, other)]
            assert ids[0] == ids[2] != ids[1]
            assert [len(one) for one in ids] == [1, 1, 1]
            assert visit(site, name="question").rest() == told[1]
            assert site.started == 2

    def test_a_redis_that_hangs_is_not_waited_for(self, mortal: RedisServer) -> None:
        """A new question is refused after `status_wait_s`, and nobody is asked."""
        with _mortal_site(mortal, status_wait_s=0.1, socket_timeout=60) as site:
            with mortal.hanging():
                began = time.monotonic()
                refused = visit(site, name="question")
                assert time.monotonic() - began < 30
            assert (refused.status, refused.response.headers["Retry-After"]) == (503, "5")
            assert site.started == 0
            site.allow(5)
            tabs: list[Tab] = []

            def ask() -> bool:
                tabs.append(visit(site, name="question"))
                return tabs[-1].status == 200

            until(ask)
            assert tabs[-1].rest() == said(0, 1, 2, 3, 4, done=True)
            assert site.started == 1

    def test_a_worker_is_not_dead_because_redis_hung(self, mortal: RedisServer) -> None:
        """Who waited for an answer all the time gives the worker time to sign again."""
        client = mortal.client()
        store = RedisReplay(client, lease_s=0.5)
        writer = _begun(store)
        writer.append([b"one"])
        reader = store.reader("a", 1, _broken)
        with ThreadPoolExecutor(1) as pool, mortal.hanging():
            waiting = pool.submit(reader.read, 1.0)
            with pytest.raises(FutureTimeoutError):
                waiting.result(1.8)  # no lease is left
        assert waiting.result(10) == []
        writer.keep()
        writer.append([b"two"], last=True)
        assert reader.read(1) == [Entry(2, b"two", True)]
        reader.close()
        until(lambda: not store._watch._runs)
        client.connection_pool.disconnect()

    def test_a_worker_is_not_dead_because_redis_was(self, mortal: RedisServer) -> None:
        """A lease that runs out while Redis is down is no death: the worker can sign again."""
        server = mortal
        client = server.client(retry=Retry(NoBackoff(), 0))
        store = RedisReplay(client)
        writer = _begun(store)
        writer.append([b"one"])
        reader = store.reader("a", 1, _broken)
        reader._reached_at -= 1000  # type: ignore[attr-defined]  # it has been reading for long
        server.kill()
        with pytest.raises(ReplayUnavailable):
            reader.read(0.1)
        server.start()
        client.delete(store._name("a") + ":lease")
        assert reader.read(0.05) == []
        writer.append([b"two"], last=True)
        assert reader.read(1) == [Entry(2, b"two", True)]
        reader.close()
        until(lambda: not store._watch._runs)
        client.connection_pool.disconnect()
