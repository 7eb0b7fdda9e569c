"""Medians and spreads of figures that are known."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from llm_sse.events import FinishReason
from llm_sse.metrics import Gaps, StreamMetrics
from llm_sse.spread import Benchmark, ProviderRuns, RunError, Spread


class TestSpread:
    def test_of_known_figures(self) -> None:
        """The median is the middle one, the quartiles lie halfway to the ends."""
        spread = Spread.of([5.0, 1.0, 3.0, 2.0, 4.0])
        assert spread == Spread(
            median=3.0, q1=2.0, q3=4.0, lowest=1.0, highest=5.0, runs=5, enough=True
        )
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
        result = ProviderRuns.of("a:m", "a", "m", [(run, "stop") for run in runs], [error])
        assert result.first_token_s is not None
        assert result.total_s is not None
        assert (result.first_token_s.median, result.total_s.median) == (3.0, 30.0)
        assert result.headers_s is None
        assert result.gaps == Gaps(((0.1, 15),), 0.1)
        assert (result.enough, result.errors) == (True, (error,))

    def test_it_survives_json(self) -> None:
        """A result that was written as JSON can be read again."""
        runs = [(StreamMetrics(first_token_s=1.0, gaps=Gaps(((0.1, 2),), 0.1)), None)]
        result = Benchmark(
            prompt="Hi", iterations=5, providers=(ProviderRuns.of("a", "a", None, runs, []),)
        )
        written = msgspec.json.encode(result)
        assert msgspec.json.decode(written, type=Benchmark) == result
        assert result.providers[0].early

    def test_a_median_of_too_few_is_marked_in_json(self) -> None:
        """Whoever reads the file alone sees of each figure whether it is one to compare by."""
        runs = [
            (StreamMetrics(first_token_s=second, total_s=1.0), "stop") for second in (1.0, None)
        ]
        written = msgspec.to_builtins(ProviderRuns.of("a", "a", "m", [*runs] * 3, []))
        assert (written["first_token_s"]["runs"], written["first_token_s"]["enough"]) == (3, False)
        assert (written["total_s"]["runs"], written["total_s"]["enough"]) == (6, True)

    @pytest.mark.parametrize(
        ("reason", "deltas", "said"),
        [
            ("stop", 3, None),
            ("length", 3, None),
            ("tool_calls", 0, None),
            ("content_filter", 1, "ended by content_filter, with 1 text delta"),
            ("pause", 3, "ended by pause, with 3 text deltas"),
            ("stop", 0, "ended by stop, with no text deltas"),
            (None, 2, "ended by no reason that was told, with 2 text deltas"),
        ],
    )
    def test_an_answer_that_ended_early_is_named(
        self, reason: FinishReason | None, deltas: int, said: str | None
    ) -> None:
        """A cut or an empty answer looks fast: its run is told, with its number and its reason."""
        whole, other = StreamMetrics(deltas=3), StreamMetrics(deltas=deltas)
        error = RunError(iteration=1, error="RateLimitError", message="slow down")
        result = ProviderRuns.of("a", "a", "m", [(whole, "stop"), (other, reason)], [error])
        assert result.finish_reasons == ("stop", reason)
        assert result.iterations == [2, 3]
        assert [(end.iteration, str(end)) for end in result.early] == ([(3, said)] if said else [])


class TestImport:
    def test_statistics_is_not_imported_with_the_package(self) -> None:
        """Whoever measures nothing does not wait for what computes medians."""
        code = "import sys, llm_sse; print({'statistics', 'rich'} & set(sys.modules))"
        said = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert said.stdout == "set()\n"
