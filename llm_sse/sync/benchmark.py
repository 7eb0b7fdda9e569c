"""`benchmark()`: several providers, asked the same in turn, often enough to compare them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from ..errors import ConfigurationError, StreamError
from ..events import FinishReason
from ..metrics import StreamMetrics
from ..providers import Provider
from ..retry import RetryPolicy
from ..spread import MIN_RUNS, Benchmark, ProviderRuns, RunError
from .ask import check_question, stream_sync
from .fallback import OWN

__all__ = ["BenchmarkRun", "Measurement", "benchmark"]

#: What would make one provider's figures another's, or cannot be done several times.
_REFUSED = {
    "fallback": "each provider is measured by itself",
    "record": "a file takes one stream",
}


class BenchmarkRun(Struct, frozen=True, kw_only=True):
    """One run that has just ended.

    Attributes:
        label: Whose it was.
        iteration: Which one of that provider's, from 1 on.
        metrics: Its figures, if it succeeded.
        finish_reason: Why the answer ended then, where the provider said so.
        error: What it failed with, if it did.
    """

    label: str
    iteration: int
    metrics: StreamMetrics | None = None
    finish_reason: FinishReason | None = None
    error: RunError | None = None


class _Entry:
    """One provider while it is measured."""

    def __init__(self, own: dict[str, Any], arguments: Mapping[str, Any]) -> None:
        provider = own["provider"]
        label = own.pop("label", None)
        self.provider: str = provider.name if isinstance(provider, Provider) else provider
        self.asked_model: str | None = own.get("model")
        named = (self.provider, self.asked_model)
        self.label: str = label or ":".join(str(part) for part in named if part)
        self.arguments = {**arguments, **own}
        self.model = self.asked_model
        self.answers: list[tuple[StreamMetrics, FinishReason | None]] = []
        self.errors: list[RunError] = []

    def run(self, prompt: str | None, iteration: int) -> BenchmarkRun:
        """Ask once, and keep the figures or the error."""
        try:
            with stream_sync(prompt, **self.arguments) as stream:
                for _ in stream:
                    pass
                said = stream.completion
                metrics = stream.metrics
        except StreamError as failure:
            error = RunError(
                iteration=iteration, error=type(failure).__name__, message=str(failure)
            )
            self.errors.append(error)
            return BenchmarkRun(label=self.label, iteration=iteration, error=error)
        self.model = said.model or self.model
        self.answers.append((metrics, said.finish_reason))
        return BenchmarkRun(
            label=self.label,
            iteration=iteration,
            metrics=metrics,
            finish_reason=said.finish_reason,
        )

    def result(self) -> ProviderRuns:
        """Return what the runs have in common."""
        return ProviderRuns.of(self.label, self.provider, self.model, self.answers, self.errors)


class Measurement:
    """A benchmark that may end before its end: what was measured until then is kept.

    Args:
        providers: Whom to ask; see `benchmark`.
        prompt: The question.
        iterations: How often to ask each.
        arguments: Those of `stream_sync`.

    Raises:
        ConfigurationError: Something is missing or wrong; nothing was sent.
    """

    def __init__(
        self,
        providers: Sequence[str | Mapping[str, Any]],
        prompt: str | None,
        iterations: int,
        arguments: Mapping[str, Any],
    ) -> None:
        if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < MIN_RUNS:
            raise ConfigurationError(
                f"iterations must be at least {MIN_RUNS}, not {iterations!r}: fewer runs say "
                "nothing about a provider; for a single one there is measure_stream"
            )
        for name, reason in _REFUSED.items():
            if arguments.get(name) is not None:
                raise ConfigurationError(f"benchmark takes no {name}: {reason}")
        given = dict(arguments)
        if given.get("retry") is None:
            given["retry"] = RetryPolicy(max_retries=0)
        self._prompt = prompt
        self._iterations = iterations
        self._entries = [_Entry(own, given) for own in _read_entries(providers)]
        labels = [entry.label for entry in self._entries]
        for entry in self._entries:
            if labels.count(entry.label) > 1:
                raise ConfigurationError(
                    f'benchmark: {entry.label} is there twice; give each a "model" or a "label" '
                    "of its own"
                )
            check_question(prompt, **entry.arguments)

    def run(self, on_run: Callable[[BenchmarkRun], object] | None = None) -> None:
        """Ask all of them, in turn.

        Args:
            on_run: Called after each run.
        """
        entries = self._entries
        for turn in range(self._iterations):
            first = turn % len(entries)
            for entry in entries[first:] + entries[:first]:
                ended = entry.run(self._prompt, turn + 1)
                if on_run is not None:
                    on_run(ended)

    def result(self) -> Benchmark:
        """Return what was found so far."""
        providers = tuple(entry.result() for entry in self._entries)
        made = sum(len(each.runs) + len(each.errors) for each in providers)
        return Benchmark(
            prompt=self._prompt,
            iterations=self._iterations,
            providers=providers,
            interrupted=made < self._iterations * len(providers),
        )


def benchmark(
    providers: Sequence[str | Mapping[str, Any]],
    prompt: str | None = None,
    *,
    iterations: int = MIN_RUNS,
    on_run: Callable[[BenchmarkRun], object] | None = None,
    **arguments: Any,
) -> Benchmark:
    """Ask several providers the same, in turn, and return the medians and the spread.

    One stream runs at a time. The providers take turns, and each turn begins with another one, so
    that what changes meanwhile, here or on the way, meets them all. A run that fails is counted and
    told, and its time is in no figure; nothing is retried unless `retry` says so.

    Args:
        providers: Whom to ask: names, or dictionaries of `provider` and what of `model`, `api_key`,
            `base_url`, `headers`, `extra_body` and `session` shall be its own. A provider may come
            several times, with different models, or with a `label` for each, which is what it is
            called in the result.
        prompt: The question.
        iterations: How often to ask each; at least 5, for fewer say nothing about a provider.
        on_run: Called after each run.
        arguments: Those of `stream_sync`, the same for all; `max_tokens` keeps the answers alike.

    Raises:
        ConfigurationError: Something is missing or wrong; nothing was sent.
    """
    measurement = Measurement(providers, prompt, iterations, arguments)
    measurement.run(on_run)
    return measurement.result()


def _read_entries(providers: Any) -> list[dict[str, Any]]:
    listed = [providers] if isinstance(providers, (str, Mapping)) else providers
    if not isinstance(listed, Sequence) or isinstance(listed, bytes) or not listed:
        raise ConfigurationError("benchmark needs a list of providers: names, or dictionaries")
    entries: list[dict[str, Any]] = []
    for entry in listed:
        if not isinstance(entry, Mapping):
            entry = {"provider": entry}  # noqa: PLW2901 - the same, written out
        if "provider" not in entry:
            raise ConfigurationError('a provider to measure is {"provider": ..., "model": ...}')
        for name in entry:
            if name not in (*OWN, "label"):
                raise ConfigurationError(
                    f"benchmark: a provider cannot have {name!r} of its own; it can have "
                    f"{', '.join(OWN)}, label"
                )
        label = entry.get("label")
        if label is not None and not (isinstance(label, str) and label.strip()):
            raise ConfigurationError(f"benchmark: a label is a text, not {label!r}")
        entries.append(dict(entry))
    return entries
