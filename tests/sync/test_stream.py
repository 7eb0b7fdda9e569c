from __future__ import annotations

import gc
import os
import signal
import threading
import weakref

import pytest

from llm_sse import RetryPolicy, TokenStream
from llm_sse.errors import ConnectionLost, StreamClosed
from llm_sse.events import Finish, StreamStart, TextDelta, ToolCall, Usage
from llm_sse.testing import FakeServer, call_tool, cut, finish, pause, say, status, think
from tests.helpers import until
from tests.sync.bodies import END, ONE, producers
from tests.sync.conftest import Ask
from tests.wire import Connection, WireServer, stream


class TestTokenStream:
    def test_yields_the_deltas_as_the_provider_cut_them(self, server: FakeServer, ask: Ask) -> None:
        """A loop over the stream gets one string per text delta, and nothing else."""
        server.script(think("Hm."), say("one two three"), call_tool("f"))
        assert list(ask()) == ["one", " two", " three"]

    def test_events_tell_everything_in_order(self, server: FakeServer, ask: Ask) -> None:
        """The typed events begin with StreamStart and end with Usage and one Finish."""
        server.script(say("Hello."), call_tool("f", {"a": 1}, id="c1"))
        events = list(ask("two words", model="some-model").events())
        assert isinstance(events[0], StreamStart)
        assert events[0].model == "some-model"
        assert TextDelta("Hello.") in events
        assert ToolCall("c1", "f", {"a": 1}, '{"a":1}') in events
        assert isinstance(events[-2], Usage)
        assert events[-2].input_tokens == 2
        assert isinstance(events[-1], Finish)
        assert events[-1].reason == "tool_calls"

    def test_completion_waits_for_the_whole_answer(self, server: FakeServer, ask: Ask) -> None:
        """Without a loop, text() and completion read to the end."""
        server.script(think("Hm, well."), say("Hello there."), finish("length"))
        answer = ask()
        assert answer.text() == "Hello there."
        assert answer.completion.reasoning == "Hm, well."
        assert answer.completion.finish_reason == "length"
        assert answer.completion.provider == answer.provider

    def test_completion_inside_the_loop_is_what_has_arrived(self, openai: Ask) -> None:
        """Asked in mid-loop, the completion is partial and takes nothing away from the loop."""
        answer = openai()
        seen = ""
        for token in answer:
            seen += token
            assert answer.completion.text == seen
            assert answer.completion.finish_reason is None
        assert answer.completion.finish_reason == "stop"

    def test_leaving_the_loop_closes_the_connection(self, server: FakeServer, ask: Ask) -> None:
        """After a break the provider sees the connection close, though the stream is still held."""
        server.script(say("one two"), pause(3600))
        answer = ask()
        for _ in answer:
            break
        assert server.requests[0].ended.wait(5)
        assert server.requests[0].outcome == "disconnected"
        assert answer.completion.text == "one"
        assert answer.completion.finish_reason is None

    def test_an_exception_in_the_loop_closes_the_connection(
        self, server: FakeServer, openai: Ask
    ) -> None:
        """What goes wrong in the caller's own code frees the connection, too."""
        server.script(say("one two"), pause(3600))
        answer = openai()
        with pytest.raises(KeyError):
            for _ in answer:
                raise KeyError
        assert server.requests[0].ended.wait(5)

    def test_the_end_of_a_with_block_closes_the_connection(
        self, server: FakeServer, openai: Ask
    ) -> None:
        """A with block ends the stream however it is left."""
        server.script(say("one"), pause(3600))
        with openai() as answer:
            assert next(answer) == "one"
        assert server.requests[0].ended.wait(5)

    def test_dropping_the_stream_closes_the_connection(
        self, server: FakeServer, openai: Ask
    ) -> None:
        """A stream that nobody holds any more is gone, read or not."""
        server.script(say("one"), pause(3600))
        answer = openai()
        assert answer.wait_started(5)
        dropped = weakref.ref(answer)
        del answer
        gc.collect()
        assert dropped() is None
        assert server.requests[0].ended.wait(5)

    def test_next_does_not_close_the_stream(self, server: FakeServer, openai: Ask) -> None:
        """Single tokens can be taken by next(), and the loop goes on behind them."""
        server.script(say("one two three"))
        answer = openai()
        assert next(answer) == "one"
        assert next(answer) == " two"
        assert list(answer) == [" three"]

    def test_close_from_another_thread_just_ends_the_loop(
        self, server: FakeServer, ask: Ask
    ) -> None:
        """After close() the iteration stops, without an exception."""
        server.script(say("one"), pause(3600))
        answer = ask()
        got: list[str] = []
        closer = threading.Thread(target=lambda: (until(lambda: got), answer.close()))
        closer.start()
        for token in answer:
            got.append(token)  # noqa: PERF402
        closer.join()
        assert got == ["one"]
        assert answer.completion.finish_reason is None

    def test_close_before_the_headers_frees_the_thread(self, ask: Ask) -> None:
        """A provider that never answers cannot hold the thread of a stream that was closed."""
        with WireServer(Connection.wait_closed) as silent:
            answer = ask(base_url=silent.url)
            until(lambda: silent.requests)
            answer.close()
            until(lambda: not producers())

    def test_a_closed_stream_cannot_be_read(self, openai: Ask) -> None:
        """To begin reading after close() is a mistake, and says so."""
        answer = openai()
        answer.close()
        with pytest.raises(StreamClosed, match="closed"):
            list(answer)

    def test_a_stream_is_read_once(self, openai: Ask) -> None:
        """A second loop would be silently empty; it is refused instead."""
        answer = openai()
        list(answer)
        with pytest.raises(StreamClosed, match="read to its end"):
            list(answer)

    def test_a_stream_has_one_reader(self, openai: Ask) -> None:
        """A loop inside the loop over the same stream is refused."""
        answer = openai()
        with pytest.raises(StreamClosed, match="one reader"):
            for _ in answer:
                next(answer.events())

    def test_a_failed_stream_fails_again(self, server: FakeServer, openai: Ask) -> None:
        """Whoever reads a failed stream again gets its error again, never a partial answer."""
        server.script(say("one"), cut())
        answer = openai()
        with pytest.raises(ConnectionLost):
            answer.text()
        with pytest.raises(ConnectionLost):
            answer.text()
        with pytest.raises(ConnectionLost):
            list(answer)
        assert answer.completion.text == "one"

    def test_a_failed_stream_fails_again_after_next(self, server: FakeServer, openai: Ask) -> None:
        """A stream that broke under next() never looks like a finished one."""
        server.script(say("one"), cut())
        answer = openai()
        assert next(answer) == "one"
        for _ in range(2):
            with pytest.raises(ConnectionLost):
                next(answer)
        with pytest.raises(ConnectionLost):
            list(answer)
        with pytest.raises(ConnectionLost):
            answer.text()

    def test_a_garbage_collected_loop_needs_no_cycle_collector(
        self, server: FakeServer, openai: Ask
    ) -> None:
        """A stream whose tokens were taken by next() is freed by its last reference, too."""
        server.script(say("one two"), pause(3600))
        gc.collect()
        gc.disable()
        try:
            answer = openai()
            assert next(answer) == "one"
            del answer
            assert server.requests[0].ended.wait(5)
        finally:
            gc.enable()

    def test_a_failed_stream_is_collected(self, server: FakeServer, openai: Ask) -> None:
        """Nothing keeps a stream that has failed, once its error is gone."""
        server.script(say("one"), cut())
        failed: list[weakref.ref[object]] = []
        for _ in range(3):
            answer = openai()
            failed.append(weakref.ref(answer._reader))
            with pytest.raises(ConnectionLost):
                answer.text()
            del answer
        gc.collect()
        assert [reader() for reader in failed] == [None, None, None]

    def test_text_is_the_whole_answer_after_next(self, server: FakeServer, openai: Ask) -> None:
        """Deltas that next() took are part of text(), and so is what comes behind them."""
        server.script(say("one two three"))
        answer = openai()
        assert next(answer) == "one"
        assert answer.text() == "one two three"

    def test_text_is_never_a_part_of_the_answer(self, server: FakeServer, openai: Ask) -> None:
        """A stream that was closed, left, or is being read has no text(), only a completion."""
        closed = openai()
        closed.close()
        with pytest.raises(StreamClosed, match="closed before its end"):
            closed.text()
        left = openai()
        for _ in left:
            with pytest.raises(StreamClosed, match="being read"):
                left.text()
            break
        with pytest.raises(StreamClosed, match="closed before its end"):
            left.text()
        assert left.completion.text == "Server-sent"

    def test_a_loop_behind_next_closes_the_stream_too(
        self, server: FakeServer, openai: Ask
    ) -> None:
        """A break closes the stream, whatever took the first deltas."""
        server.script(say("one two"), pause(3600))
        answer = openai()
        assert next(answer) == "one"
        for _ in answer:
            break
        assert server.requests[0].ended.wait(5)

    def test_next_in_two_threads_is_refused(self, openai: Ask) -> None:
        """Two threads that take single deltas would each get some; one is told so."""
        with WireServer(Connection.wait_closed) as silent:
            answer = openai(base_url=silent.url)
            first = threading.Thread(target=lambda: next(answer, None))
            first.start()
            until(lambda: answer._reader.claimed)
            for read in (next, list, TokenStream.text):
                with pytest.raises(StreamClosed, match="two threads"):
                    read(answer)  # type: ignore[operator]
            answer.close()
            first.join()

    def test_a_signals_exception_is_not_the_streams(self, server: FakeServer, openai: Ask) -> None:
        """What a signal handler raises in the loop passes; it is not the stream's error."""
        server.script(pause(3600))
        answer = openai()
        assert answer.wait_started(5)

        def ring(*_: object) -> None:
            raise RuntimeError("the bell")

        previous = signal.signal(signal.SIGALRM, ring)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            with pytest.raises(RuntimeError, match="the bell"):
                next(answer)
        finally:
            signal.signal(signal.SIGALRM, previous)
        assert answer._reader.error is None
        assert server.requests[0].ended.wait(5)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
    def test_a_child_cannot_end_its_parents_stream(self, server: FakeServer, openai: Ask) -> None:
        """A fork that closes, drops and reads the parent's stream leaves the parent's alone."""
        server.script(say("one"), pause(0.3), say(" two"))
        answer = openai()
        assert next(answer) == "one"
        child = os.fork()
        if child == 0:
            code = 1
            try:
                next(answer)
            except StreamClosed:
                code = 0
            finally:
                answer.close()
                del answer
                gc.collect()
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        assert list(answer) == [" two"]

    def test_the_repr_shows_the_state_and_no_key(self, openai: Ask) -> None:
        """A stream's repr says what it is, and nothing secret."""
        answer = openai(api_key="sk-secret")
        assert repr(answer) == "<TokenStream provider='openai' open>"
        next(answer)
        assert "reading" in repr(answer)
        answer.close()
        assert "ended" in repr(answer)

    def test_metrics_are_there_at_any_time(self, server: FakeServer, openai: Ask) -> None:
        """The figures grow with the stream and stand still after its end."""
        server.script(say("one two"))
        answer = openai()
        assert answer.metrics.ttft_ms is None
        list(answer)
        assert answer.metrics.deltas == 2
        assert answer.metrics == answer.metrics

    def test_the_request_id_is_the_providers(self, openai: Ask) -> None:
        """The identifier for the provider's support is known once it has answered."""
        answer = openai()
        assert answer.wait_started(5)
        assert (answer.request_id or "").startswith("req_fake_")
        answer.close()

    def test_the_request_id_is_unknown_before_the_answer(self, openai: Ask) -> None:
        """Before the provider has answered there is no identifier."""
        with WireServer(Connection.wait_closed) as silent:
            answer = openai(base_url=silent.url)
            assert answer.request_id is None
            answer.close()


class TestMetrics:
    def test_times_come_in_their_order(self, server: FakeServer, ask: Ask) -> None:
        """In every format thinking comes before the first visible text, and all is counted."""
        server.script(pause(0.2), think("hm hm"), pause(0.2), say("one two"))
        answer = ask()
        list(answer)
        metrics = answer.metrics
        times = (
            metrics.headers_s,
            metrics.first_event_s,
            metrics.first_content_s,
            metrics.first_token_s,
            metrics.last_content_s,
            metrics.total_s,
        )
        assert None not in times
        assert list(times) == sorted(times)  # type: ignore[type-var]
        assert metrics.first_token_s is not None
        assert metrics.first_content_s is not None
        if answer.completion.reasoning:
            assert metrics.first_token_s - metrics.first_content_s >= 0.05
        assert (metrics.deltas, metrics.attempts, metrics.runs) == (2, 1, 1)
        assert metrics.gaps.total >= 1
        assert metrics.output_tokens is not None
        assert metrics.output_tokens_per_s is not None
        assert metrics.consumer_waited_s >= 0.1

    def test_a_wait_under_way_counts(self, server: FakeServer, openai: Ask) -> None:
        """Another thread sees how long the reader has been waiting, while it waits."""
        server.script(say("one"), pause(3600))
        answer = openai()
        reading = threading.Thread(target=list, args=(answer,))
        reading.start()
        until(lambda: answer.metrics.deltas == 1)
        before = answer.metrics.consumer_waited_s
        until(lambda: answer.metrics.consumer_waited_s > before + 0.05)
        answer.close()
        reading.join()

    def test_what_is_there_is_not_waited_for(self, server: FakeServer, openai: Ask) -> None:
        """An answer that had come before it was read costs its reader no waiting."""
        server.script(say("one two three"))
        answer = openai()
        assert answer._reader.thread is not None
        answer._reader.thread.join(10)
        assert answer.text() == "one two three"
        assert answer.metrics.consumer_waited_s == 0.0

    def test_a_slow_reader_is_told_apart_from_a_slow_provider(
        self, server: FakeServer, openai: Ask
    ) -> None:
        """What the provider waits for you is a figure of its own, and no gap."""
        server.script(say("word " * 199 + "word"))
        answer = openai(buffer_size=4)
        next(answer)
        assert server.requests[0].ended.wait(10)
        until(lambda: answer.metrics.producer_waited_s > 1)
        list(answer)
        metrics = answer.metrics
        assert metrics.deltas == 200
        assert metrics.longest_gap_s is not None
        assert metrics.longest_gap_s < metrics.producer_waited_s / 2
        assert metrics.total_s > metrics.producer_waited_s
        assert metrics.last_content_s is not None
        assert metrics.producer_waited_s / 2 < metrics.last_content_s <= metrics.total_s
        assert metrics.deltas_per_s is not None
        assert metrics.deltas_per_s <= 2 * 200 / metrics.producer_waited_s
        assert metrics.buffer_high_water == 4

    def test_a_stall_is_the_longest_gap(self, server: FakeServer, openai: Ask) -> None:
        """The provider's silence is seen, also by a reader who was busy at that time."""
        server.script(say("one"), pause(0.3), say("two"))
        answer = openai()
        assert answer.wait_started(10)
        until(lambda: (answer.metrics.last_content_s or 0) > (answer.metrics.first_token_s or 9))
        list(answer)
        assert answer.metrics.longest_gap_s is not None
        assert answer.metrics.longest_gap_s >= 0.1
        assert answer.metrics.gap_p99_s == answer.metrics.gaps.quantile_s(0.99)

    def test_attempts_are_counted(self, server: FakeServer, ask: Ask) -> None:
        """A refused request counts, too."""
        server.enqueue(status(503))
        answer = ask(retry=RetryPolicy(backoff_s=0))
        list(answer)
        assert answer.metrics.attempts == 2
        assert answer.metrics.headers_s is not None

    def test_bytes_are_those_of_the_body(self, openai: Ask) -> None:
        """The bytes of the body are counted without those that frame it."""
        body = ONE * 3 + END
        pieces = [body[begin : begin + 7] for begin in range(0, len(body), 7)]
        with WireServer(stream(pieces)) as wire:
            answer = openai(base_url=wire.url)
            assert answer.text() == "oneoneone"
        assert answer.metrics.body_bytes == len(body)

    def test_a_whole_answer_has_no_gaps(self, server: FakeServer, ask: Ask) -> None:
        """Without streaming the first token is the last."""
        server.script(say("one two"))
        answer = ask(stream=False)
        assert answer.text() == "one two"
        metrics = answer.metrics
        assert metrics.first_token_s == metrics.last_content_s
        assert metrics.deltas == 1
        assert metrics.longest_gap_s in (None, 0)

    def test_what_a_closed_stream_had(self, server: FakeServer, openai: Ask) -> None:
        """After close() the figures stand still."""
        server.script(say("one"), pause(3600))
        answer = openai()
        next(answer)
        answer.close()
        assert answer.metrics.total_s == answer.metrics.total_s
        assert answer.metrics.deltas == 1


class TestBackPressure:
    @pytest.mark.parametrize("buffer_size", [1, 4])
    def test_a_consumer_that_sleeps_stops_the_sender(self, openai: Ask, buffer_size: int) -> None:
        """The server gets rid of what fits in the buffer and the kernel's, and no more."""
        piece = "x" * 1_000_000 + " "
        with FakeServer(piece * 60) as server:
            answer = openai(base_url=server.base_url("openai"), buffer_size=buffer_size)
            first = next(answer)
            recorded = server.requests[0]
            still = 0
            seen = -1
            while still < 25:  # the sender has not moved for a while
                still = still + 1 if recorded.deltas_sent == seen else 0
                seen = recorded.deltas_sent
                assert not recorded.ended.wait(0.01), "the whole answer was sent to a sleeper"
            assert recorded.deltas_sent < 40
            rest = list(answer)
        assert len(rest) == 60
        assert len(first) + sum(map(len, rest)) == 60 * 1_000_001
