from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks import child, guard, report, run, wire
from benchmarks.child import drain, event, idle, paced, quantile
from benchmarks.clients import ALL, Client, find, floor, ours
from benchmarks.figures import Results, Sample
from benchmarks.plan import GROUPS, Measurement, in_order, plan
from benchmarks.server import order
from benchmarks.stage_names import STAGES
from benchmarks.targets import REASONS, TARGETS, judge
from llm_sse import __version__

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "performance.md"
ASK = {
    "openai": ours.connect_openai,
    "anthropic": ours.connect_anthropic,
    "gemini": ours.connect_gemini,
}


def results(**figures: list[float]) -> Results:
    """Make results of `drain` with the CPU times of each contestant's rounds."""
    return Results(
        Sample("drain", name.replace("_", "-"), number, {"cpu_us": value})
        for name, values in figures.items()
        for number, value in enumerate(values)
    )


def _one_then_none() -> Callable[[Sequence[str]], tuple[dict[str, Any], str | None]]:
    """Return what stands for the processes: the floor finishes once, and then never again."""
    floors = iter([True])

    def figures(arguments: Sequence[str], more: object) -> tuple[dict[str, Any], str | None]:
        if "floor" in arguments[-1] and not next(floors, False):
            return {}, "did not finish"
        return {"cpu_us": 4.0, "right": True, "lost": 0}, None

    return figures


class TestCommand:
    def test_a_small_run_ends_with_all_tables(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A quick run of three contestants prints ratios, targets and figures."""
        file = tmp_path / "figures.json"
        arguments = ["--quick", "--only", "drain,paced", "--clients", "floor,llm-sse,tutorial"]
        status = command.main([*arguments, "--json", str(file)])
        said = capsys.readouterr().out
        assert status == 0, said
        assert said.startswith("Fewer than 5 rounds")
        assert "| drain: CPU, to the tutorial's loop | 1.00 |" in said
        assert "| x what llm-sse takes | drain, CPU | drain, wall |" in said
        assert "### Paced: at once 5, at 25 deltas/s each (median of 1" in said
        kept = json.loads(file.read_text("utf-8"))
        samples = kept["samples"]
        assert kept["whole"]
        assert len(samples) == 9
        assert all(s["figures"]["right"] and not s["figures"]["lost"] for s in samples)

    def test_what_was_interrupted_is_marked_and_writes_no_page(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """After Ctrl-C there are the figures so far, a mark, status 130, and the page as it was."""
        page, file = tmp_path / "performance.md", tmp_path / "figures.json"
        page.write_text(PAGE.read_text("utf-8"), "utf-8")
        monkeypatch.setattr(command, "_PAGE", page)
        monkeypatch.setattr(command, "check_installed", lambda clients: {})
        few = [Measurement("drain", find("floor"), "drain", {})] * 2
        monkeypatch.setattr(command, "plan", lambda *args, **options: few)
        made = iter([Sample("start", "floor", 0, {}), Sample("drain", "floor", 0, {"cpu_us": 1.0})])

        def measure(*args: object) -> Sample:
            for sample in made:
                return sample
            raise KeyboardInterrupt

        monkeypatch.setattr(command, "measure", measure)
        assert command.main(["--docs", "--json", str(file)]) == 130
        said = capsys.readouterr().out
        assert said.startswith("**Interrupted** after 1 measurements: no figures to quote.")
        assert page.read_text("utf-8") == PAGE.read_text("utf-8")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["figures.json", page.name]
        assert json.loads(file.read_text("utf-8"))["whole"] is False

    def test_a_file_that_cannot_be_written_is_said_beforehand(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Nothing is measured whose figures would have no place."""
        monkeypatch.setattr(command, "_run", None)
        file = tmp_path / "absent" / "figures.json"
        assert command.main(["--clients", "floor", "--json", str(file)]) == 2
        assert str(file) in capsys.readouterr().err

    @pytest.mark.parametrize("more", [["--docs"], ["--quick"], ["--rounds", "5"]])
    def test_the_guard_goes_with_no_other_option(
        self, more: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """What the guard would not heed is refused."""
        with pytest.raises(SystemExit):
            command.main(["--guard", *more])
        assert "--guard goes with no other option" in capsys.readouterr().err

    def test_an_unknown_contestant_is_named(self, capsys: pytest.CaptureFixture[str]) -> None:
        """What cannot be measured is refused before anything starts, with what can."""
        with pytest.raises(SystemExit):
            command.main(["--clients", "floor,curl"])
        assert "curl is none of floor, floor-2-threads, llm-sse," in capsys.readouterr().err

    def test_the_page_is_not_written_from_less_than_everything(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The documentation's figures come from a full run of five rounds or more."""
        with pytest.raises(SystemExit):
            command.main(["--docs", "--quick"])
        assert "at least 5 rounds" in capsys.readouterr().err

    def test_who_does_not_finish_has_one_try_and_no_page_hides_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A contestant that gave nothing is not asked again, and counts with the rounds it has."""
        monkeypatch.setattr(run, "_figures", _one_then_none())
        both = [
            Measurement("drain", find("floor"), "drain", {}),
            Measurement("drain", find("tutorial"), "drain", {}),
        ]
        made = Results()
        command._run(both, 5, made)
        assert (made.rounds("drain"), len(made.by_round("drain", "floor", "cpu_us"))) == (5, 1)
        assert "| floor (1 of 5 rounds) | 4.0 |" in dict(report.described(made)).popitem()[1]

    def test_a_package_that_is_missing_is_named(self) -> None:
        """Where a contestant is not installed, the extra is named that has it."""
        absent = Client("absent", "floor", "connect", "absent", "no-such-package", "openai")
        with pytest.raises(run.Missing, match=r"no-such-package\..*\[bench\]"):
            run.check_installed([find("tutorial"), absent])


class TestServer:
    @pytest.mark.parametrize("format_", wire.FORMATS)
    def test_every_format_is_read_to_its_end(self, format_: str) -> None:
        """An answer of more than one block arrives whole, in each wire format."""
        with run.Server() as server:
            ask = ASK[format_](server.url)
            figures = drain(ask, deltas=wire.BLOCK + 7)
            assert (figures["lost"], figures["right"]) == (0, True)
            assert event(ask, bytes_=200_000)["right"]
            assert server.cpu_s() > 0

    def test_paced_deltas_carry_the_time_at_which_they_were_sent(self) -> None:
        """Many streams start together, keep their order, and are as late as they are."""
        with run.Server() as server:
            ask = floor.connect(server.url)
            figures = paced(ask, url=server.url, streams=3, per_s=100.0, deltas=6)
        assert (figures["lost"], figures["right"]) == (0, True)
        assert 0 < figures["latency_p50_us"] <= figures["latency_p99_us"]

    def test_who_is_late_pays_for_all_that_is_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A delta's processor time is that of the whole run over all deltas, early or late."""
        clock_ns = [0]
        monkeypatch.setattr(time, "process_time_ns", lambda: clock_ns[0])
        with run.Server() as server:
            alone = floor.connect(server.url)

            def late(prompt: str) -> Iterator[str]:
                texts = alone(prompt)
                yield next(texts)  # the greeting, with which it is open
                for text in list(texts):  # nothing is heard before everything was sent
                    clock_ns[0] += 7_000
                    yield text
                clock_ns[0] += 1_000_000  # to end a stream is nobody's delta

            figures = paced(late, url=server.url, streams=1, per_s=200.0, deltas=5)
        assert figures["cpu_us"] == 7.0
        assert figures["latency_p50_us"] > 0

    def test_streams_that_do_not_open_are_said_so_in_time(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A client that does not get all its streams open says how many are, and is not killed."""
        assert run.LIMIT_S > child._OPEN_S
        monkeypatch.setattr(child, "_OPEN_S", 0.0)
        over = threading.Event()

        def never(prompt: str) -> Iterator[str]:
            over.wait()
            return iter(())

        with pytest.raises(SystemExit, match="only 0 of 2 streams were open"):
            paced(never, url="", streams=2, per_s=1.0, deltas=1)
        over.set()

    def test_a_second_thread_changes_nothing_of_the_answer(self) -> None:
        """The floor in a thread of its own says what the floor says."""
        with run.Server() as server:
            assert drain(floor.connect_in_thread(server.url), deltas=30)["right"]

    def test_an_idle_stream_is_open_and_silent(self) -> None:
        """Idle streams have sent their greeting, and wait."""
        with run.Server() as server:
            assert idle(floor.connect(server.url), streams=2)["right"]

    def test_a_stream_over_tls_is_trusted_beside_the_usual_authorities(self) -> None:
        """Over TLS a contestant reads the bundle that it would read anyway, and verifies."""
        with run.Server(tls=True) as server:
            task = Measurement("idle, TLS", find("llm-sse"), "idle", {"streams": 2}, tls=True)
            sample = run.measure(server, task, 0)
            assert sample.fault is None
            assert sample.figures["open_cpu_ms"] > 0
            server.trusting.clear()
            assert "CERTIFICATE_VERIFY_FAILED" in (run.measure(server, task, 0).fault or "")


class TestChecks:
    def test_a_lost_delta_is_counted(self) -> None:
        """A client that leaves a delta out is found out."""

        def forgetful(prompt: str) -> Iterator[str]:
            return iter([" w000", " w002"])

        figures = drain(forgetful, deltas=3)
        assert (figures["lost"], figures["right"]) == (1, False)

    @pytest.mark.parametrize(
        ("figures", "fault"),
        [
            ({"right": False, "lost": 3}, "3 deltas were lost"),
            ({"right": False, "lost": 0}, "the text is not the one that was sent"),
            ({"right": True, "lost": 0}, None),
        ],
    )
    def test_a_wrong_answer_is_reported(
        self, monkeypatch: pytest.MonkeyPatch, figures: dict[str, object], fault: str | None
    ) -> None:
        """What a process says of its answer becomes a fault in the report."""
        monkeypatch.setattr(run, "_figures", lambda command, more: (dict(figures), None))
        with run.Server() as server:
            sample = run.measure(server, Measurement("drain", find("floor"), "drain", {}), 0)
        assert sample.fault == fault
        said = report.tables(Results([sample]), {}, 1.0)["details"]
        assert (f"* drain, floor, round 1: {fault}" in said) == (fault is not None)

    def test_a_process_that_fails_is_a_fault_and_no_figure(self) -> None:
        """A contestant that raises is reported with its last line, and has no figures."""
        with run.Server() as server:
            made = Measurement("drain", find("floor"), "drain", {"bananas": 3})
            sample = run.measure(server, made, 0)
        assert sample.figures == {}
        assert sample.fault is not None
        assert "bananas" in sample.fault


class TestFigures:
    def test_a_ratio_is_the_median_of_the_rounds_ratios(self) -> None:
        """A round in which all was slow does not move it, nor does one that has no partner."""
        found = results(llm_sse=[2.0, 20.0, 2.0, 9.0], tutorial=[4.0, 40.0, 1.0])
        assert found.ratio("drain", "cpu_us", "llm-sse", "tutorial") == 0.5
        assert found.ratio("drain", "cpu_us", "llm-sse", "openai") is None

    def test_a_figure_is_a_median_with_its_spread(self) -> None:
        """The middle of the rounds is told, with the least and the greatest."""
        found = results(floor=[3.0, 1.0, 8.0])
        assert found.median("drain", "floor", "cpu_us") == 3.0
        assert found.spread("drain", "floor", "cpu_us") == (1.0, 8.0)
        assert found.median("drain", "floor", "wall_us") is None

    def test_a_quantile_is_one_of_the_values(self) -> None:
        """Quantiles do not interpolate, and of nothing they are 0."""
        assert quantile(range(100), 0.99) == 99
        assert quantile([7.0], 0.5) == 7.0
        assert quantile([], 0.5) == 0.0

    def test_rounds_that_are_far_apart_have_no_middle(self) -> None:
        """Above ten times from the least to the greatest each round is told, and no ratio."""
        found = results(llm_sse=[1.0, 11.0, 2.0], tutorial=[1.0, 10.0, 2.0])
        assert not found.settled("drain", "llm-sse", "cpu_us")
        assert found.settled("drain", "tutorial", "cpu_us")
        (_, body), *_ = report.described(found)
        assert "| llm-sse | not settled: 1.0, 11.0, 2.0 |" in body
        assert "| tutorial | 2.0 (1.0 to 10.0) |" in body
        assert "| tutorial | not settled |" in report.ratios(found)
        assert "| llm-sse | not settled |" in report.costs(found)
        assert "| drain: CPU, to the tutorial's loop | 1.00 |  | not settled |" in report.targets(
            found
        )


class TestMachine:
    @pytest.mark.parametrize(
        ("load", "said"),
        [(0.4, "quiet: its load was 0.4"), (3.0, "**busy with other work**: its load was 3.0")],
    )
    def test_how_busy_it_was_is_said(self, load: float, said: str) -> None:
        """The load before the run is others', and the page has it in words."""
        loads = [1.5, 5.0, 4.0]
        found = Results(Sample("drain", "floor", n, {}, None, it) for n, it in enumerate(loads))
        made = report.tables(found, {}, 60.0, load)["machine"]
        assert said in made
        assert "4.0 in the median before a measurement and 5.0 at most" in made

    def test_every_sample_has_the_load_before_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A sample that a busy machine spoiled can be told from the others."""
        monkeypatch.setattr(run, "load", lambda: 2.5)
        monkeypatch.setattr(run, "_figures", lambda command, more: ({"right": True}, None))
        with run.Server() as server:
            sample = run.measure(server, Measurement("idle", find("floor"), "idle", {}), 0)
        assert sample.load == 2.5

    def test_says_which_llm_sse_it_was(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The version is there, and the commit where there is one."""

        def git(*args: object, **options: object) -> subprocess.CompletedProcess[str]:
            return subprocess.CompletedProcess([], 0, "0123456789ab+\n")

        def no_git(*args: object, **options: object) -> None:
            raise FileNotFoundError("git")

        assert run.check_installed([find("llm-sse")]) == {"llm-sse": run.own_version()}
        monkeypatch.setattr(subprocess, "run", git)
        assert run.own_version() == f"{__version__} (0123456789ab+)"
        monkeypatch.setattr(subprocess, "run", no_git)
        assert run.own_version() == __version__

    def test_what_the_server_uses_is_told_for_a_delta(self) -> None:
        """The other process on the machine is in the table, in the same unit."""
        made = Measurement("paced 2", find("floor"), "paced", {"streams": 2, "deltas": 3})
        arguments = {**made.arguments, "per_s": 100.0}
        with run.Server() as server:
            sample = run.measure(server, made._replace(arguments=arguments), 0)
        assert sample.fault is None
        assert sample.figures["server_us"] > 0
        (_, body), *_ = report.described(Results([sample]))
        assert "server's CPU per delta, us" in body


#: The promises, once more: key, figure, whose, against whose, the most that it may be.
PROMISED = {
    ("drain", "cpu_us", "llm-sse", "tutorial", 1.0),
    ("drain", "cpu_us", "llm-sse", "openai", 0.05),
    ("drain", "cpu_us", "llm-sse-anthropic", "anthropic", 0.1),
    ("drain", "cpu_us", "llm-sse-gemini", "google-genai", 1 / 30),
    ("drain", "cpu_us", "llm-sse", "sseclient-py", 0.5),
    ("drain", "cpu_us", "llm-sse", "floor", 4.0),
    ("paced 50", "cpu_us", "llm-sse", "tutorial", 1.5),
    ("paced 50", "cpu_us", "llm-sse", "openai", 0.25),
    ("paced 50", "latency_p50_us", "llm-sse", "openai", 1 / 3),
    ("import", "cpu_ms", "llm-sse", "tutorial", 1.3),
    ("import", "cpu_ms", "llm-sse", "openai", 0.25),
    ("sleeper", "grown_mb", "llm-sse", None, 1.0),
    ("idle", "kb_per_stream", "llm-sse", None, 100.0),
    ("idle, TLS", "kb_per_stream", "llm-sse", None, 100.0),
}


class TestTargets:
    def test_no_promise_is_loosened(self) -> None:
        """A bound that is missed is told as missed: it is not moved until it is met."""
        assert {
            (made.key, made.figure, made.of, made.to, made.most) for made in TARGETS
        } == PROMISED

    @pytest.mark.parametrize(("figure", "met"), [(100.0, True), (100.001, False)])
    def test_a_bound_is_the_most_that_it_may_be(self, figure: float, met: bool) -> None:
        """Exactly that much keeps the promise, and anything above it does not."""
        samples = [Sample("idle", "llm-sse", at, {"kb_per_stream": figure}) for at in range(5)]
        verdicts = {verdict.target.key: verdict.met for verdict in judge(Results(samples))}
        assert verdicts["idle"] is met

    def test_each_is_met_not_met_or_not_measured(self) -> None:
        """A target is judged by its bound, and not at all where a figure is missing."""
        found = results(llm_sse=[4.0] * 5, tutorial=[4.0] * 5, floor=[0.5] * 5)
        met = {verdict.target.words: verdict.met for verdict in judge(found)}
        assert met["drain: CPU, to the tutorial's loop"] is True
        assert met["drain: CPU, to the floor"] is False
        assert met["drain: CPU, to `openai`"] is None
        said = report.targets(found)
        assert "| drain: CPU, to the floor | 4.00 | 8.00 | **not met** |" in said

    def test_fewer_rounds_than_five_judge_nothing(self) -> None:
        """A contestant that finished once has a ratio, and no verdict."""
        found = results(llm_sse=[4.0], tutorial=[4.0] * 5)
        found.add(Sample("drain", "llm-sse", 1, {}, "did not finish in 60 s"))
        said = report.targets(found)
        assert "| drain: CPU, to the tutorial's loop | 1.00 | 1.00 | only 1 of 5 rounds |" in said

    def test_what_is_missed_has_its_reason_and_what_is_met_has_none(self) -> None:
        """The page says why for each promise that this very run did not keep."""
        kept = results(llm_sse=[1.0] * 5, floor=[1.0] * 5)
        assert "why" not in report.targets(kept)
        missed = results(llm_sse=[9.0] * 5, floor=[1.0] * 5, tutorial=[2.0] * 5)
        said = report.targets(missed)
        words = "**drain: CPU, to the tutorial's loop; drain: CPU, to the floor.**"
        assert f"What is not met, and why:\n\n* {words} Tried, and kept: " in said
        assert {target.key for target in TARGETS} == set(REASONS)

    def test_a_full_run_measures_all_of_them(self) -> None:
        """No target waits for a figure that nobody makes."""
        made = {(measurement.key, measurement.client.name) for measurement in plan()}
        for target in TARGETS:
            assert (target.key, target.of) in made
            assert target.to is None or (target.key, target.to) in made

    def test_a_peer_is_compared_to_the_same_format(self) -> None:
        """The table of ratios holds a vendor's package against ours in the vendor's own format."""
        found = results(llm_sse=[1.0], llm_sse_gemini=[2.0], google_genai=[8.0], openai=[30.0])
        said = report.ratios(found)
        assert "| google-genai | 4.00 |" in said
        assert "| openai | 30 |" in said


class TestCosts:
    def test_are_those_of_a_thousand_answers(self) -> None:
        """A microsecond for each of 500 deltas of 1,000 answers is half a second of CPU."""
        found = results(llm_sse=[4.0], floor=[1.0])
        open_ = {"kb_per_stream": 60.0, "open_cpu_ms": 2.5}
        found.add(Sample("idle, TLS", "llm-sse", 0, open_))
        said = report.costs(found)
        assert "| llm-sse | 2.0 | 2.5 | 60 |" in said
        assert "| floor | 0.5 |  |  |" in said


class TestStages:
    def test_are_measured_and_told_next_to_the_whole(self) -> None:
        """Every stage of a drained delta, and every size of the buffer, has its figure."""
        with run.Server() as server:
            made = [run.measure(server, made, 0) for made in plan(["stages"], quick=True)]
        assert [sample.fault for sample in made] == [None] * 4
        found = made[0].figures
        parts = sum(found[name] for name in STAGES if name != "whole_us")
        assert parts == pytest.approx(found["whole_us"])
        said = report.stage_tables(Results(made))
        assert all(f"| {words} | " in said for words, _ in STAGES.values())
        assert all(f"| {size} | " in said for size in (50, 256, 500))
        assert list(report.described(Results(made))) == []


class TestPlan:
    def test_rounds_are_interleaved(self) -> None:
        """Everything is made once before anything is made again, and some things not so often."""
        rare = Measurement("scale", find("floor"), "paced", {}, most_rounds=1)
        often = Measurement("drain", find("floor"), "drain", {})
        order_ = [(number, made.key) for number, made in in_order([often, rare], 2)]
        assert order_ == [(0, "drain"), (0, "scale"), (1, "drain")]

    def test_nobody_is_always_first(self) -> None:
        """Each round begins with another contestant."""
        names = ("floor", "llm-sse", "tutorial")
        made = [Measurement("drain", find(name), "drain", {}) for name in names]
        order_ = [measurement.client.name for _, measurement in in_order(made, 3)]
        assert order_[::3] == list(names)
        assert order_[3:6] == ["llm-sse", "tutorial", "floor"]

    def test_a_part_can_be_chosen(self) -> None:
        """Groups and contestants narrow it down; all contestants are measured somewhere."""
        chosen = plan(["start"], ["openai"])
        assert [made.key for made in chosen] == ["import", "first token"]
        assert {made.client for made in plan(GROUPS)} == set(ALL)

    def test_the_prompt_is_what_the_server_looks_for(self) -> None:
        """An order stands in words that JSON leaves as they are."""
        assert json.loads(json.dumps(order("drain", 5))) == "bench drain 5 0 0 end"


class TestPage:
    def test_has_a_place_for_every_table(self) -> None:
        """Every part is written between its marks, and once more in the same place."""
        page = PAGE.read_text("utf-8")
        parts = {name: f"the {name}" for name in report.PARTS}
        once = report.written(page, parts)
        assert all(f"\n\nthe {name}\n\n<!-- {name}: end -->" in once for name in parts)
        assert report.written(once, parts) == once

    def test_a_page_without_marks_is_refused(self) -> None:
        """A mark that is missing is named."""
        with pytest.raises(ValueError, match="marks of 'ratios'"):
            report.written("# Nothing", {"ratios": ""})

    def test_the_plots_show_every_contestant(self, tmp_path: Path) -> None:
        """Both plots are small, hold the names as text, and are the same each time."""
        from benchmarks.plots import draw  # noqa: PLC0415  # matplotlib takes long to import

        found = results(llm_sse=[4.0], tutorial=[6.0])
        figures = {"latency_p50_us": 100.0, "latency_p99_us": 300.0}
        for key in ("paced 1", "paced 50"):
            found.add(Sample(key, "llm-sse", 0, figures))
        first = [path.read_text("utf-8") for path in draw(found, tmp_path)]
        assert ["tutorial" in svg for svg in first] == [True, False]
        assert all(len(svg) < 60_000 and ">llm-sse<" in svg for svg in first)
        assert first == [path.read_text("utf-8") for path in draw(found, tmp_path)]


class TestGuard:
    @pytest.mark.parametrize(
        ("trials", "passes", "made"),
        [
            ([[0.8, 0.8, 0.9]], True, 1),
            ([[1.2, 1.2, 1.9]], True, 1),  # one stray pair
            ([[1.1, 1.1, 1.4, 1.4, 1.1], [0.9, 0.9, 0.9]], True, 2),  # unclear, and then agreed
            ([[1.3, 1.3, 1.3], [0.9, 0.9, 0.9], [1.1, 1.1, 1.4]], True, 3),  # an unlucky one
            ([[1.1] * 4 + [1.3] * 3, [1.3] * 7, [1.3] * 7], False, 3),  # a lucky one
            ([[1.21, 1.3, 1.3], [1.3, 1.21, 1.1]], False, 2),
        ],
    )
    def test_one_clear_trial_passes_and_else_two_must_agree(
        self, trials: list[list[float]], passes: bool, made: int
    ) -> None:
        """The first trial settles it where its pairs agree, else two medians on the same side."""
        said: list[str] = []
        assert guard.verdict(iter(trials).__next__, said.append) is passes
        assert len(said) == made

    def test_measures_both_loops_and_tells_the_ratio(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A trial is made of real runs; the command's status is its verdict."""
        monkeypatch.setattr(guard, "BOUND", 1e9)
        assert guard.guard(pairs=1, deltas=100) is True
        assert capsys.readouterr().out.startswith("trial 1 of 3: drain costs ")
        monkeypatch.setattr(command, "guard", lambda: False)
        assert command.main(["--guard"]) == 1
