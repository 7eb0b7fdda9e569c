"""`llm-sse bench`."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from click.testing import Result

from llm_sse.spread import Benchmark
from llm_sse.sync.benchmark import BenchmarkRun
from llm_sse.testing import FakeServer, finish, say, status
from tests.cli.command import KEY, invoke

_TWO = ("openai", "anthropic")


class TestBench:
    """`llm-sse bench`."""

    @pytest.fixture
    def two(self, server: FakeServer) -> Callable[..., Result]:
        """Measure two formats of the fake server, in this process."""

        def measure(*args: str) -> Result:
            env = {"OPENAI_API_KEY": KEY, "ANTHROPIC_API_KEY": KEY}
            env |= {f"{name.upper()}_BASE_URL": server.base_url(name) for name in _TWO}
            return invoke("bench", *args, **env)

        return measure

    def test_a_table_of_those_whose_keys_are_set(
        self, server: FakeServer, two: Callable[..., Result]
    ) -> None:
        """Each is asked five times, in turn, with the question and its limit."""
        result = two("What is SSE?", "--max-tokens", "7")
        assert (result.exit_code, result.stderr) == (0, "")
        assert [line.split()[:2] for line in result.stdout.splitlines() if "5/5" in line] == [
            ["openai", "5/5"],
            ["anthropic", "5/5"],
        ]
        assert len(server.requests) == 10
        assert "What is SSE?" in str(server.requests[0].body)
        assert 7 in server.requests[0].json.values()

    def test_json_keeps_everything(self, server: FakeServer, two: Callable[..., Result]) -> None:
        """`--json` prints each run and the spreads; a model follows the provider's name."""
        result = two("--json", "-p", "openai:a:b", "-p", "anthropic", "-n", "6")
        found = msgspec.json.decode(result.stdout, type=Benchmark)
        assert found.iterations == 6
        first = found.providers[0]
        assert (first.label, first.model) == ("openai:a:b", "a:b")
        assert [len(each.runs) for each in found.providers] == [6, 6]

    def test_csv_has_a_line_for_each_run(
        self, server: FakeServer, two: Callable[..., Result]
    ) -> None:
        """`--csv` prints what a spreadsheet reads; an error is told beside it."""
        server.enqueue(status(429, f"not with {KEY}"))
        result = two("--csv", "-p", "openai")
        assert result.exit_code == 0
        assert result.stdout.count("\n") == 6
        assert result.stdout.splitlines()[1].startswith("openai,openai,")
        assert ",1,RateLimitError," in result.stdout
        assert result.stderr.startswith("llm-sse: openai, run 1: openai answered 429")
        assert KEY not in result.output

    @pytest.mark.parametrize("form", ["table", "--json", "--csv"])
    def test_an_answer_that_ended_early_is_told(
        self, server: FakeServer, two: Callable[..., Result], form: str
    ) -> None:
        """What a filter has cut counts as a run, and is named beside the figures and in them."""
        server.enqueue(say("one"), finish("content_filter"))
        result = two("-p", "openai", *(() if form == "table" else (form,)))
        assert result.exit_code == 0
        assert result.stderr == (
            "llm-sse: openai, run 1: ended by content_filter, with 1 text delta\n"
        )
        if form == "--json":
            (found,) = msgspec.json.decode(result.stdout, type=Benchmark).providers
            assert found.finish_reasons == ("content_filter", *["stop"] * 4)
            assert [end.iteration for end in found.early] == [1]
        elif form == "--csv":
            lines = list(csv.DictReader(result.stdout.splitlines()))
            assert [line["finish_reason"] for line in lines] == ["content_filter", *["stop"] * 4]
            assert lines[0]["deltas"] == "1"
        else:
            assert "5/5" in result.stdout

    def test_a_plot(self, two: Callable[..., Result], tmp_path: Path) -> None:
        """`--plot` draws beside the table."""
        path = tmp_path / "out.png"
        result = two("--plot", str(path))
        assert "5/5" in result.stdout
        assert path.read_bytes().startswith(b"\x89PNG")

    @pytest.mark.parametrize("form", ["table", "--json", "--csv"])
    def test_ctrl_c_shows_what_there_is(
        self, two: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, form: str
    ) -> None:
        """Runs that were paid for are printed, with a mark, and the exit code is 130."""

        @contextmanager
        def progress(total: int) -> Iterator[Callable[[BenchmarkRun], None]]:
            made: list[BenchmarkRun] = []

            def ended(run: BenchmarkRun) -> None:
                made.append(run)
                if len(made) == 3:
                    raise KeyboardInterrupt

            yield ended

        monkeypatch.setattr("llm_sse.cli.bench.progress", progress)
        result = two(*(() if form == "table" else (form,)))
        assert result.exit_code == 130
        assert "interrupted" in result.stderr
        if form == "--json":
            found = msgspec.json.decode(result.stdout, type=Benchmark)
            assert found.interrupted
            assert [len(each.runs) for each in found.providers] == [1, 2]
        elif form == "--csv":
            assert result.stdout.count("\n") == 4
        else:
            assert "2/5 *" in result.stdout
            assert "interrupted" in result.stdout

    def test_without_a_key_the_fake_is_measured(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without any key it shows what it would show, and says so."""
        monkeypatch.setattr(
            "llm_sse.testing.server.FakeServer", lambda **given: FakeServer("Hi.", **given)
        )
        result = invoke("bench", "Hi")
        assert result.exit_code == 0
        assert "the figures come from the built-in fake provider" in result.stderr
        assert "fake      5/5" in result.stdout
        (found,) = msgspec.json.decode(invoke("bench", "--json").stdout, type=Benchmark).providers
        assert (found.label, found.provider, found.model) == ("fake", "fake", "fake")
        (line, *_) = csv.DictReader(invoke("bench", "--csv").stdout.splitlines())
        assert (line["label"], line["provider"], line["model"]) == ("fake", "fake", "fake")

    @pytest.mark.parametrize(
        ("args", "complaint"),
        [
            (["-n", "4"], "4 is not in the range x>=5"),
            (["--json", "--csv"], "do not go together"),
            (["--plot", "nowhere/out.png"], "no directory"),
            (["-p", "opnai"], "opnai"),
            (["-p", "openai", "-p", "openai"], "there twice"),
            (["-p", "gemini"], "GEMINI_API_KEY"),
        ],
    )
    def test_a_mistake_sends_nothing(
        self, server: FakeServer, two: Callable[..., Result], args: list[str], complaint: str
    ) -> None:
        """Wrong usage and missing keys are found before the first request."""
        result = two(*args)
        assert (result.exit_code, result.stdout) == (2, "")
        assert complaint in result.stderr
        assert server.requests == []

    def test_nothing_but_errors(self, server: FakeServer, two: Callable[..., Result]) -> None:
        """Where no run succeeds the table says so, and so does the exit code."""
        server.script(status(500))
        result = two("-p", "openai")
        assert result.exit_code == 1
        assert "0/5 *" in result.stdout
        assert result.stderr.count("\n") == 5
