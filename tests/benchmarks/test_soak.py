from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks import soak, soak_check, soak_plan, soak_run
from benchmarks.soak_check import Result, check, growth, leaks, text_fault
from benchmarks.soak_client import Listener, disorder
from benchmarks.soak_faults import FAULTS, Fault
from benchmarks.soak_plan import Case, draw, endings
from benchmarks.soak_server import Playwright
from benchmarks.soak_usage import usage_at_rest
from llm_sse import RetryPolicy, Timeouts
from llm_sse.events import Finish, Resumed, StreamStart, TextDelta
from llm_sse.testing import FakeServer, cut, finish, say, stall
from tests.helpers import until

WORDS = ("0000a", "0001b\u00e9", "0002c", "0003d")
RIGHT = " ".join(WORDS)
ROOT = Path(__file__).parents[2]


def a_case(**changes: Any) -> Case:
    """Make a stream of four words that meets no fault, and is read to its end."""
    fields: dict[str, Any] = {
        "seed": "x-1",
        "provider": "openai",
        "framing": "chunked",
        "words": WORDS,
        "reasoning": "",
        "calls_tool": False,
        "reason": "stop",
        "reader": "tokens",
        "waits_for_start": False,
        "buffer_size": 50,
        "retry": RetryPolicy(max_retries=0),
    }
    return msgspec.structs.replace(draw("calm-1"), **{**fields, **changes})


def a_fault(name: str) -> Fault:
    """Find a fault by its name."""
    return next(fault for fault in FAULTS if fault.name == name)


def a_result(text: str, ending: str = "finish", **changes: Any) -> Result:
    """Make the result of a stream that delivered a text."""
    fields = {"heard": [text], "text": text, "reason": "stop" if ending == "finish" else None}
    return Result(ending=ending, **{**fields, **changes})


def kinds(complaints: Sequence[str]) -> set[str]:
    """Return the complaints' kinds."""
    return {complaint.partition(":")[0] for complaint in complaints}


def listen(case: Case, server: FakeServer) -> list[str]:
    """Read a stream from a server, and judge it."""
    return check(case, Listener().listen(case, server.base_url(case.provider)))


class TestSoak:
    def test_three_seconds_end_without_a_violation_and_with_all_tables(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A short soak finds nothing wrong, says so in tables and in a file, and exits with 0."""
        file = tmp_path / "figures.json"
        arguments = ["--minutes", "0.05", "--streams", "8", "--seed", "4", "--json", str(file)]
        status = soak.main(arguments)
        said = capsys.readouterr().out
        assert status == 0, said
        assert said.startswith("Seed 4, 8 streams, 3 s")
        for heads in ("ending | streams", "fault | streams", "process | start", "streams | deltas"):
            assert f"\n| {heads} |" in said
        assert "| none | 0 |" in said
        assert json.loads(file.read_text())["violations"] == {}

    def test_a_violation_makes_the_status_1_and_stands_in_the_tables(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A soak that found something wrong exits with 1, counts it and shows the stream."""
        monkeypatch.setattr(soak_check, "check", lambda case, result: ["loss: a word"])
        monkeypatch.setattr(soak_plan, "CALM", 1.0)
        assert soak.main(["--minutes", "0.005", "--streams", "1", "--seed", "4"]) == 1
        said = capsys.readouterr().out
        assert "\n| loss | " in said
        assert "loss: a word\n  4-0-0 (" in said

    def test_the_same_seed_draws_the_same_streams(self) -> None:
        """What a stream meets is decided by its seed alone."""
        assert [draw(f"7-{n}") for n in range(50)] == [draw(f"7-{n}") for n in range(50)]
        assert draw("7-1") != draw("8-1")

    def test_a_good_half_of_the_streams_meets_no_fault(self) -> None:
        """More than half of the streams are answered as they should be; all faults are met."""
        cases = [draw(f"9-{n}") for n in range(3000)]
        assert 0.5 < sum(not case.faults for case in cases) / len(cases) < 0.7
        assert {fault.name for case in cases for fault in case.faults} == {f.name for f in FAULTS}

    def test_ctrl_c_ends_a_soak_with_its_tables(self) -> None:
        """An interrupted soak ends in order: with the tables so far, and status 0."""
        arguments = [sys.executable, "-m", "benchmarks.soak", "--minutes", "9", "--streams", "2"]
        with subprocess.Popen(
            arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("Seed ")
            process.send_signal(signal.SIGINT)
            said = process.stdout.read()
        assert process.returncode == 0, said
        assert "| process | start | peak | end |" in said
        assert "Traceback" not in said


class TestFaults:
    @pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
    def test_each_fault_ends_a_stream_as_it_may(self, fault: Fault) -> None:
        """A stream that meets a fault ends as the fault's row says, with what had arrived."""
        limits = {f"{fault.clock}_s": 0.2} if fault.clock else {}
        case = a_case(faults=(fault,), positions=(2,), calls_tool=True, timeouts=Timeouts(**limits))
        with FakeServer(script=Playwright(lambda _: case)) as server:
            result = Listener().listen(case, server.base_url(case.provider))
        assert check(case, result) == []
        assert result.ending in fault.endings

    def test_a_cut_answer_is_continued_from_what_had_arrived(self, provider: str) -> None:
        """The servers go on where the partial answer ends, or a few words back."""
        middle = a_fault("cut: close in the middle")
        retry = RetryPolicy(backoff_s=0.0, resume=True)
        for number in range(8):
            case = a_case(
                seed=f"x-{number}",
                provider=provider,
                faults=(middle, middle),
                positions=(2, 4),
                retry=retry,
            )
            with FakeServer(script=Playwright({case.seed: case}.__getitem__)) as server:
                result = Listener().listen(case, server.base_url(provider))
                assert len(server.requests) == 3
            assert check(case, result) == []
            assert result.text == RIGHT

    def test_retries_and_resumptions_decide_how_a_stream_may_end(self) -> None:
        """An ending is allowed where the policy leads to it, and nowhere else."""
        busy, broken = a_fault("refused: 503"), a_fault("cut: close in the middle")
        both = a_case(faults=(busy, broken), positions=(1, 2))

        def may_end(max_retries: int, *, resume: bool) -> set[str]:
            retry = RetryPolicy(max_retries=max_retries, resume=resume)
            return set(endings(msgspec.structs.replace(both, retry=retry)))

        assert may_end(0, resume=True) == {"ServerError"}
        assert may_end(1, resume=False) == {"ConnectionLost"}
        assert may_end(1, resume=True) == {"finish"}


class TestWhatTheCheckFinds:
    def test_a_right_answer(self) -> None:
        """The whole text at a `Finish`, and its beginning at an error, are right."""
        assert check(a_case(), a_result(RIGHT)) == []
        broken = a_case(faults=(a_fault("cut: close in the middle"),), positions=(2,))
        assert check(broken, a_result("0000a 0001b\u00e9", "ConnectionLost")) == []

    @pytest.mark.parametrize(
        ("kind", "text"),
        [
            ("loss", "0000a 0002c 0003d"),
            ("loss", "0000a 0001b\u00e9 0002c"),
            ("duplication", "0000a 0001b\u00e9 0001b\u00e9 0002c 0003d"),
            ("reordering", "0000a 0002c 0001b\u00e9 0003d"),
            ("corruption", "0000a 0001b? 0002c 0003d"),
        ],
    )
    def test_a_wrong_text(self, kind: str, text: str) -> None:
        """Loss, duplication, reordering and corruption are told apart."""
        assert kinds(check(a_case(), a_result(text))) == {kind}

    def test_a_hole_in_what_an_error_leaves(self) -> None:
        """A text that broke off must be a beginning; a hole in it is a loss."""
        assert text_fault(WORDS, "0000a 0001b\u00e9", finished=False) is None
        said = text_fault(WORDS, "0000a 0002c", finished=False)
        assert said is not None
        assert kinds([said]) == {"loss"}

    @pytest.mark.parametrize("ending", ["ConnectionLost", "KeyError", "closed"])
    def test_a_wrong_ending(self, ending: str) -> None:
        """An ending that the fault does not allow is a violation, whatever the text."""
        assert kinds(check(a_case(), a_result("", ending))) == {"wrong ending"}

    def test_a_finish_where_there_must_be_an_error(self) -> None:
        """An answer that was cut must not look complete."""
        broken = a_case(faults=(a_fault("cut: end in the middle"),), positions=(2,))
        wrong = check(broken, a_result("0000a 0001b\u00e9"))
        assert kinds(wrong) == {"wrong ending", "loss"}

    def test_a_completion_that_is_not_what_the_loop_got(self) -> None:
        """The completion's text must be what was delivered."""
        result = a_result(RIGHT, heard=["0000a"])
        assert kinds(check(a_case(), result)) == {"wrong completion"}

    def test_a_stream_that_lasts_too_long(self) -> None:
        """A stream that ends late, beyond its limits and the grace, has been hanging."""
        assert kinds(check(a_case(), a_result(RIGHT, took_s=1000.0))) == {"hang"}

    def test_events_in_a_wrong_order(self) -> None:
        """Text before the beginning, events after the end, a seam elsewhere are wrong."""
        start, text, end = StreamStart(), TextDelta("ab"), Finish("stop")
        assert disorder([start, text, Resumed(1, 2, ""), start, text, end]) is None
        assert disorder([text]) is not None
        assert disorder([start, end, text]) is not None
        assert disorder([start, start]) is not None
        assert disorder([start, text, Resumed(1, 3, "")]) is not None

    @pytest.mark.parametrize(
        ("kind", "text"),
        [
            ("loss", "0000a 0002c 0003d"),
            ("duplication", "0000a 0000a 0001b\u00e9 0002c 0003d"),
            ("reordering", "0001b\u00e9 0000a 0002c 0003d"),
        ],
    )
    def test_a_server_that_says_something_else(self, kind: str, text: str, provider: str) -> None:
        """What really came over the wire is judged: a wrong text is found."""
        with FakeServer(script=[say(text)]) as server:
            assert kinds(listen(a_case(provider=provider), server)) == {kind}

    def test_a_server_that_breaks_off_without_being_told_to(self) -> None:
        """An answer that breaks off where no fault was drawn is a wrong ending."""
        with FakeServer(script=[say("0000a"), cut()]) as server:
            assert kinds(listen(a_case(), server)) == {"wrong ending"}

    def test_a_server_that_ends_for_another_reason(self) -> None:
        """The finish reason is judged, too."""
        with FakeServer(script=[say(RIGHT), finish("length")]) as server:
            assert kinds(listen(a_case(), server)) == {"wrong finish reason"}


class TestWhatIsWatched:
    def test_a_stream_that_hangs_is_told_once_with_its_stacks_and_closed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The watchdog shows where both threads of an overdue stream are, and ends it."""
        monkeypatch.setattr(soak_run, "outlasts_s", lambda case: 0.1)
        monkeypatch.setattr(soak_check, "GRACE_S", 0.0)
        results: list[Result] = []
        told: list[str] = []
        listener, watch = Listener(), soak_run.Watch()
        with FakeServer(script=[say("0000a"), stall()]) as server:
            thread = threading.Thread(
                target=lambda: results.append(listener.listen(a_case(), server.base_url("openai")))
            )
            thread.start()
            until(lambda: server.requests and server.requests[0].deltas_sent)
            workers = [(thread, listener)]
            until(lambda: told or told.__iadd__(watch.overdue(workers)))
            thread.join()
        assert kinds(told) == {"hang"}
        assert "in get" in told[0]
        assert "in _read" in told[0]
        assert list(watch.overdue(workers)) == []
        assert results[0].ending == "closed"

    def test_a_thread_and_a_descriptor_that_are_left_are_leaks(self) -> None:
        """A thread and a socket more than at the start are found, and the thread is named."""
        start, stop = usage_at_rest(), threading.Event()
        assert leaks("client", start, usage_at_rest()) == []
        thread = threading.Thread(target=stop.wait, name="left-behind")
        thread.start()
        with socket.socket():
            found = leaks("client", start, usage_at_rest())
        stop.set()
        thread.join()
        assert len(found) == 2
        assert "left-behind" in found[0]

    def test_objects_that_are_left_are_leaks(self) -> None:
        """Thousands of objects more than at the start are found; some are the soak's own."""
        start = usage_at_rest()
        few, many = [[None] for _ in range(1000)], []
        assert leaks("client", start, usage_at_rest()) == []
        many += [[None] for _ in range(10_000)]
        assert "objects" in leaks("client", start, usage_at_rest())[0]
        assert (len(few), len(many)) == (1000, 10_000)

    def test_memory_may_grow_by_a_tenth_and_five_megabytes(self) -> None:
        """Growth beyond the bound is a leak, growth within it is not."""
        assert growth("client", 100.0, 114.9) == []
        assert kinds(growth("client", 100.0, 115.1)) == {"leak"}
