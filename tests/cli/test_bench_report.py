"""What is printed of a benchmark, from figures that are known."""

from __future__ import annotations

import csv

import msgspec
import pytest

from llm_sse.cli.bench_report import as_csv, print_result, progress
from llm_sse.metrics import StreamMetrics
from llm_sse.spread import Benchmark, ProviderRuns
from llm_sse.sync.benchmark import BenchmarkRun
from tests.cli.benchmarks import FAILED, answers, run


class TestPrintResult:
    def test_a_table_for_people(
        self, result: Benchmark, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Medians with quartiles below, in 80 columns, and a mark where there are too few runs."""
        print_result(result, str.upper)
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 80
        rows = [line.split() for line in lines]
        assert ["A", "5/5", "210", "20.0", "25.5", "41.2", "2.50"] in rows
        assert ["204-216", "20.0-20.0", "25.5-25.5", "41.2-41.2", "2.50-2.50"] in rows
        assert ["B:$X$", "4/5", "*", "207*", "20.0*", "25.5*", "41.2*", "2.50*"] in rows
        assert ["C", "0/5", "*", "-", "-", "-", "-", "-"] in rows
        assert lines[-1].startswith("* fewer than 5 runs")
        print_result(msgspec.structs.replace(result, interrupted=True), str)
        assert capsys.readouterr().out.splitlines()[-1].startswith("interrupted")

    def test_a_figure_that_few_runs_have_is_marked(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Five runs succeeded, of which one has text: what that one alone tells has the mark."""
        only_calls = StreamMetrics(total_s=2.5)
        runs = [*answers(1.15), *[(only_calls, "tool_calls")] * 4]
        part = ProviderRuns.of("a", "a", "m", runs, [])
        print_result(Benchmark(prompt="Hi", iterations=5, providers=(part,)), str)
        lines = capsys.readouterr().out.splitlines()
        assert ["a", "5/5", "1150*", "20.0*", "25.5*", "41.2*", "2.50"] in map(str.split, lines)
        assert lines[-1].startswith("* fewer than 5 runs")
        whole = ProviderRuns.of("b", "b", "m", answers(0.1, 0.1, 0.1, 0.1, 0.1), [])
        print_result(Benchmark(prompt="Hi", iterations=5, providers=(whole,)), str)
        assert "*" not in capsys.readouterr().out


class TestAsCSV:
    def test_a_line_for_each_run(self, result: Benchmark) -> None:
        """Runs that failed are in their place; what was not measured is empty."""
        lines = list(csv.DictReader(as_csv(result).splitlines()))
        assert len(lines) == 15
        assert [line["iteration"] for line in lines[5:10]] == ["1", "2", "3", "4", "5"]
        assert [line["first_token_s"] for line in lines[5:10]] == [
            "0.204",
            "",
            "0.21",
            "0.216",
            "0.1",
        ]
        assert [line["error"] for line in lines[5:7]] == ["", "RateLimitError"]
        assert [line["message"] for line in lines[5:7]] == ["", "slow down"]
        assert (lines[5]["label"], lines[5]["provider"], lines[5]["model"]) == ("b:$x$", "b", "$x$")
        assert (lines[0]["headers_s"], lines[0]["deltas"], lines[0]["runs"]) == ("", "11", "1")
        assert "gaps" not in lines[0]
        assert [line["finish_reason"] for line in lines[5:7]] == ["stop", ""]

    def test_an_interrupted_benchmark_has_the_lines_that_there_are(self) -> None:
        """Runs that were not made have no line."""
        part = ProviderRuns.of("a", "a", "m", answers(0.1, 0.2), [FAILED])
        result = Benchmark(prompt="Hi", iterations=5, providers=(part,), interrupted=True)
        lines = list(csv.DictReader(as_csv(result).splitlines()))
        assert [(line["iteration"], line["error"]) for line in lines] == [
            ("1", ""),
            ("2", "RateLimitError"),
            ("3", ""),
        ]


class TestProgress:
    def test_a_bar_that_says_what_has_just_ended(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """On a terminal each run moves the bar, with its time or its error; all on stderr."""
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("NO_COLOR", raising=False)
        with progress(3) as ended:
            ended(BenchmarkRun(label="a", iteration=1, metrics=run(0.2)))
            ended(BenchmarkRun(label="b", iteration=1, metrics=StreamMetrics()))
            ended(BenchmarkRun(label="c", iteration=1, error=FAILED))
        said = capsys.readouterr()
        assert said.out == ""
        assert "c: RateLimitError" in said.err
        assert "3/3" in said.err

    def test_nothing_where_nobody_looks(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Without a terminal there is no bar."""
        with progress(1) as ended:
            ended(BenchmarkRun(label="a", iteration=1, metrics=run(0.2)))
        assert capsys.readouterr() == ("", "")
