from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import guard, report, run, wire
from benchmarks.child import drain, event, idle, paced, quantile
from benchmarks.clients import ALL, Client, find, floor, ours
from benchmarks.figures import Results, Sample
from benchmarks.plan import GROUPS, Measurement, in_order, plan
from benchmarks.server import order
from benchmarks.targets import TARGETS, judge

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
        samples = json.loads(file.read_text("utf-8"))["samples"]
        assert len(samples) == 9
        assert all(s["figures"]["right"] and not s["figures"]["lost"] for s in samples)

    def test_an_unknown_contestant_is_named(self, capsys: pytest.CaptureFixture[str]) -> None:
        """What cannot be measured is refused before anything starts, with what can."""
        with pytest.raises(SystemExit):
            command.main(["--clients", "floor,curl"])
        assert "curl is none of floor, llm-sse," in capsys.readouterr().err

    def test_the_page_is_not_written_from_less_than_everything(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The documentation's figures come from a full run of five rounds or more."""
        with pytest.raises(SystemExit):
            command.main(["--docs", "--quick"])
        assert "at least 5 rounds" in capsys.readouterr().err

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

    def test_an_idle_stream_is_open_and_silent(self) -> None:
        """Idle streams have sent their greeting, and wait."""
        with run.Server() as server:
            assert idle(floor.connect(server.url), streams=2)["right"]


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
        monkeypatch.setattr(run, "_figures", lambda command: (dict(figures), None))
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


class TestTargets:
    def test_each_is_met_not_met_or_not_measured(self) -> None:
        """A target is judged by its bound, and not at all where a figure is missing."""
        found = results(llm_sse=[4.0], tutorial=[4.0], floor=[0.5])
        met = {verdict.target.words: verdict.met for verdict in judge(found)}
        assert met["drain: CPU, to the tutorial's loop"] is True
        assert met["drain: CPU, to the floor"] is False
        assert met["drain: CPU, to `openai`"] is None
        said = report.targets(found)
        assert "| drain: CPU, to the floor | 4.00 | 8.00 | **not met** |" in said

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
        found.add(Sample("idle", "llm-sse", 0, {"kb_per_stream": 60.0}))
        said = report.costs(found)
        assert "| llm-sse | 2.0 | 60 |" in said
        assert "| floor | 0.5 |  |" in said


class TestPlan:
    def test_rounds_are_interleaved(self) -> None:
        """Everything is made once before anything is made again, and some things not so often."""
        rare = Measurement("scale", find("floor"), "paced", {}, most_rounds=1)
        often = Measurement("drain", find("floor"), "drain", {})
        order_ = [(number, made.key) for number, made in in_order([often, rare], 2)]
        assert order_ == [(0, "drain"), (0, "scale"), (1, "drain")]

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
        ("ratios", "passes", "trials"),
        [
            ([0.8], True, 1),
            ([1.2], True, 1),
            ([1.5, 1.1], True, 2),
            ([1.3, 1.21, 1.19], True, 3),
            ([1.21, 1.3, 1.21], False, 3),
        ],
    )
    def test_fails_after_the_third_trial_above_the_bound(
        self, ratios: list[float], passes: bool, trials: int
    ) -> None:
        """The first trial within the bound passes; three above it fail."""
        said: list[str] = []
        assert guard.verdict(iter(ratios).__next__, said.append) is passes
        assert len(said) == trials

    def test_measures_both_loops_and_tells_the_ratio(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A trial is made of real runs; the command's status is its verdict."""
        monkeypatch.setattr(guard, "BOUND", 1e9)
        assert guard.guard(pairs=1, deltas=100) is True
        assert capsys.readouterr().out.startswith("trial 1 of 3: drain costs ")
        monkeypatch.setattr(command, "guard", lambda: False)
        assert command.main(["--guard"]) == 1
