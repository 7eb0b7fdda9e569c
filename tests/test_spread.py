"""Medians and spreads of figures that are known."""

from __future__ import annotations

import subprocess
import sys

import msgspec

from llm_sse.metrics import Gaps, StreamMetrics
from llm_sse.spread import Benchmark, ProviderRuns, RunError, Spread


class TestSpread:
    def test_of_known_figures(self) -> None:
        """The median is the middle one, the quartiles lie halfway to the ends."""
        spread = Spread.of([5.0, 1.0, 3.0, 2.0, 4.0])
        assert spread == Spread(median=3.0, q1=2.0, q3=4.0, lowest=1.0, highest=5.0, runs=5)
        assert spread.iqr == 2.0
        assert spread.enough

    def test_a_figure_that_some_runs_lack(self) -> None:
        """What was not measured is no zero; it lowers the count, and that marks the spread."""
        spread = Spread.of([None, 1.0, None, 2.0])
        assert spread is not None
        assert (spread.median, spread.runs, spread.enough) == (1.5, 2, False)

    def test_one_figure(self) -> None:
        """A single one is its own median, without a spread, and marked."""
        spread = Spread.of([2.0])
        assert spread is not None
        assert (spread.median, spread.iqr, spread.enough) == (2.0, 0.0, False)

    def test_no_figure(self) -> None:
        """What no run had has no spread."""
        assert Spread.of([None, None]) is None
        assert Spread.of([]) is None


class TestProviderRuns:
    def test_each_figure_is_over_the_runs(self) -> None:
        """Every spread is that of the figure of its name; the gaps are put together."""
        runs = [
            StreamMetrics(
                first_token_s=float(number),
                total_s=10.0 * number,
                gap_p50_s=0.1 * number,
                gaps=Gaps(((0.1, number),), 0.1),
            )
            for number in (1, 2, 3, 4, 5)
        ]
        error = RunError(iteration=6, error="RateLimitError", message="slow down")
        result = ProviderRuns.of("a:m", "a", "m", runs, [error])
        assert result.first_token_s is not None
        assert result.total_s is not None
        assert (result.first_token_s.median, result.total_s.median) == (3.0, 30.0)
        assert result.headers_s is None
        assert result.gaps == Gaps(((0.1, 15),), 0.1)
        assert (result.enough, result.errors) == (True, (error,))

    def test_it_survives_json(self) -> None:
        """A result that was written as JSON can be read again."""
        runs = [StreamMetrics(first_token_s=1.0, gaps=Gaps(((0.1, 2),), 0.1))]
        result = Benchmark(
            prompt="Hi", iterations=5, providers=(ProviderRuns.of("a", "a", None, runs, []),)
        )
        assert msgspec.json.decode(msgspec.json.encode(result), type=Benchmark) == result


class TestImport:
    def test_statistics_is_not_imported_with_the_package(self) -> None:
        """Whoever measures nothing does not wait for what computes medians."""
        code = "import sys, llm_sse; print({'statistics', 'rich'} & set(sys.modules))"
        said = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert said.stdout == "set()\n"
