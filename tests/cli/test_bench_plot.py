"""What is drawn of a benchmark, from figures that are known."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from llm_sse.cli.bench_plot import check_plot, draw, figure_of
from llm_sse.errors import ConfigurationError
from llm_sse.metrics import Gaps, StreamMetrics
from llm_sse.spread import Benchmark, ProviderRuns
from tests.cli.benchmarks import FAILED, answers


class TestFigureOf:
    def test_no_run_is_cut_by_the_frame(self, result: Benchmark) -> None:
        """The highest time to the first token has room above it; the axis begins at 0."""
        left, _ = figure_of(result).axes
        low, high = left.get_ylim()
        assert low == 0
        assert high > 1.05 * 900

    def test_a_line_begins_with_the_gaps_that_are_0(self, result: Benchmark) -> None:
        """Half of the gaps are 0: the line starts at 50 %, and ends at 100 %."""
        _, right = figure_of(result).axes
        line = right.get_lines()[0]
        shares = [float(share) for share in line.get_ydata()]
        assert shares == [50.0, 90.0, 100.0, 100.0]
        assert list(line.get_xdata())[1:3] == [20.0, 25.5]

    def test_gaps_are_labelled_by_plain_numbers(self, result: Benchmark) -> None:
        """Also where all gaps are of one power of ten, and no label is a power."""
        figure = figure_of(result)
        figure.draw_without_rendering()
        low, high = figure.axes[1].get_xlim()
        ticks = figure.axes[1].get_xticklabels()
        shown = [tick.get_text() for tick in ticks if low <= tick.get_position()[0] <= high]
        assert shown == ["15", "20", "30"]

    def test_nothing_but_gaps_of_0(self) -> None:
        """Where all came at once the line is at 100 % from the beginning on."""
        at_once = StreamMetrics(first_token_s=0.1, gaps=Gaps(((0.0, 5),), 0.0))
        part = ProviderRuns.of("a", "a", "m", [(at_once, "stop")] * 5, [])
        figure = figure_of(Benchmark(prompt="Hi", iterations=5, providers=(part,)))
        assert list(figure.axes[1].get_lines()[0].get_ydata()) == [100.0, 100.0]

    def test_what_is_of_too_few_runs_says_so(self) -> None:
        """Each figure says of how many runs it is: five answers, of which one has text and gaps."""
        only_calls = StreamMetrics(total_s=1.0)
        runs = [*answers(0.2), *[(only_calls, "tool_calls")] * 4]
        part = ProviderRuns.of("a", "a", "m", runs, [])
        well = ProviderRuns.of("b", "b", "m", answers(0.1, 0.1, 0.1, 0.1, 0.1), [])
        figure = figure_of(Benchmark(prompt="Hi", iterations=5, providers=(part, well)))
        left, right = figure.axes
        assert [tick.get_text() for tick in left.get_xticklabels()] == ["a\n1 run *", "b\n5 runs"]
        assert right.get_legend_handles_labels()[1] == ["a, 1 run *", "b, 5 runs"]
        assert "fewer than 5 runs" in figure.get_supxlabel()
        whole = figure_of(Benchmark(prompt="Hi", iterations=5, providers=(well,)))
        assert whole.get_supxlabel() == ""

    def test_an_interrupted_benchmark_is_marked(self, result: Benchmark) -> None:
        """Whoever sees the plot alone sees that it is not whole."""
        figure = figure_of(msgspec.structs.replace(result, interrupted=True))
        assert "interrupted" in figure.get_supxlabel()


class TestDraw:
    @pytest.mark.parametrize(("name", "magic"), [("out.png", b"\x89PNG"), ("out.SVG", b"<?xml")])
    def test_a_file_in_the_format_of_its_name(
        self, result: Benchmark, tmp_path: Path, name: str, magic: bytes
    ) -> None:
        """Providers without a figure are left out, and no label is taken for a formula."""
        path = tmp_path / name
        check_plot(str(path))
        draw(result, str(path))
        assert path.read_bytes().startswith(magic)

    def test_nothing_to_draw(self, tmp_path: Path) -> None:
        """Where every run failed the axes are empty, and nothing breaks."""
        none = ProviderRuns.of("c", "c", None, [], [FAILED])
        path = tmp_path / "out.png"
        draw(Benchmark(prompt="Hi", iterations=5, providers=(none,)), str(path))
        assert path.stat().st_size > 0


class TestCheckPlot:
    def test_what_cannot_be_written_is_found_first(self, tmp_path: Path) -> None:
        """A format that nobody knows and a directory that is not there are mistakes."""
        with pytest.raises(ConfigurationError, match=r"should end in \.png"):
            check_plot(str(tmp_path / "out.doc"))
        with pytest.raises(ConfigurationError, match=r"should end in \.png"):
            check_plot(str(tmp_path / "out"))
        with pytest.raises(ConfigurationError, match="no directory"):
            check_plot(str(tmp_path / "nowhere" / "out.png"))
        (tmp_path / "directory.png").mkdir()
        with pytest.raises(ConfigurationError, match="directory"):
            check_plot(str(tmp_path / "directory.png"))

    def test_checking_leaves_nothing_behind(self, tmp_path: Path) -> None:
        """A file that is there stays as it is, and none is made."""
        there = tmp_path / "there.png"
        there.write_bytes(b"an older plot")
        check_plot(str(there))
        check_plot(str(tmp_path / "new.png"))
        assert there.read_bytes() == b"an older plot"
        assert list(tmp_path.iterdir()) == [there]

    def test_without_the_library_it_says_what_to_install(self) -> None:
        """The plot is the only thing that needs matplotlib, and names its extra."""
        code = (
            "import sys; sys.modules['matplotlib'] = None\n"
            "from llm_sse.cli.bench_plot import check_plot\n"
            "try:\n    check_plot('x.png')\nexcept ValueError as error:\n    print(error)"
        )
        said = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert 'pip install "llm-sse[cli,plot]"' in said.stdout
