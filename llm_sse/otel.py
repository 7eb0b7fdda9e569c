"""OpenTelemetry: a span and the client metrics for each request, by the GenAI conventions.

It is the only module that needs `opentelemetry-api`, the extra `otel`; nothing imports it.

A span's parent is the context in which `stream_sync` was called. The span begins and ends in the
thread that reads the network, and is the current one only while a request is sent, so that what is
known of HTTP is its child: a loop that is left in the middle leaves nothing behind, and what the
loop does itself is no child of it. The ending is told when the reader has it: no exporter makes a
stream late. Nothing that was asked or answered is recorded, nor an error's message, which may
repeat it.

Source: https://github.com/open-telemetry/semantic-conventions-genai, docs/gen-ai/gen-ai-spans.md
and gen-ai-metrics.md (status "Development").
"""

from __future__ import annotations

import atexit
import contextvars
import operator
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

try:
    from opentelemetry import context, metrics, trace
    from opentelemetry.context import Context
    from opentelemetry.metrics import Histogram, Meter, MeterProvider
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, TracerProvider
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"llm_sse.otel needs opentelemetry-api: pip install 'llm-sse[otel]' ({error})",
        name=error.name,
    ) from None

from ._version import __version__
from .chat import ChatRequest
from .completion import Accumulator, Completion
from .events import Event, Finish, Resumed, Retrying, StreamStart, Usage
from .providers.base import Provider
from .sync.observer import Outcome, close_all, set_observer, wait_until_told

__all__ = ["instrument", "uninstrument"]

_SCOPE = "llm_sse"
_OPERATION = "chat"
_PORTS = {"http": 80, "https": 443}
#: How long to wait, in seconds, until all is told of the streams that are over.
_TOLD_S = 2.0

#: The conventions' advice for histograms.
_SECONDS = tuple(0.01 * 2**power for power in range(14))
_TOKENS = tuple(float(4**power) for power in range(14))

#: What the type of a setting is that no argument of ours asks for.
_SETTINGS: dict[str, type[int] | type[float]] = {"seed": int, "top_k": float, "choice.count": int}
_CHOICES = "gen_ai.request.choice.count"

#: The events that tell something of an answer beside its content.
_KEPT = (StreamStart, Usage, Finish, Retrying, Resumed)

Attributes = dict[str, Any]


def instrument(
    *, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
) -> None:
    """Tell OpenTelemetry of every stream that is opened from now on; once per process is enough.

    The global providers may be set later, before the first stream that they shall be told of.

    Args:
        tracer_provider: Whose tracer makes the spans; else the global one's.
        meter_provider: Whose meter makes the metrics; else the global one's.
    """
    tracer = trace.get_tracer(_SCOPE, __version__, tracer_provider)
    meter = metrics.get_meter(_SCOPE, __version__, meter_provider)
    global_ones: list[Callable[[], object]] = []
    if tracer_provider is None:
        global_ones.append(trace.get_tracer_provider)
    if meter_provider is None:
        global_ones.append(metrics.get_meter_provider)
    set_observer(_Observer(tracer, _Instruments(meter), global_ones))


def uninstrument() -> None:
    """Tell nobody of the streams that are opened from now on.

    Of those that are over, all has been told when this returns; unless that takes above 2 s.
    """
    set_observer(None)
    wait_until_told(_TOLD_S)


def _end_all() -> None:
    """Tell of all streams before the process ends; those that run are closed."""
    close_all(_TOLD_S)


class _Instruments:
    """The histograms of the conventions for clients."""

    def __init__(self, meter: Meter) -> None:
        def histogram(name: str, unit: str, description: str, bounds: Any) -> Histogram:
            return meter.create_histogram(
                f"gen_ai.client.{name}",
                unit,
                description,
                explicit_bucket_boundaries_advisory=bounds,
            )

        self.duration = histogram("operation.duration", "s", "GenAI operation duration.", _SECONDS)
        self.tokens = histogram(
            "token.usage", "{token}", "Number of input and output tokens used.", _TOKENS
        )
        self.first_chunk = histogram(
            "operation.time_to_first_chunk", "s", "Time to the first piece of content.", _SECONDS
        )
        self.per_chunk = histogram(
            "operation.time_per_output_chunk", "s", "Time between pieces of content.", _SECONDS
        )


class _Observer:
    """Make a span for each stream.

    Args:
        tracer: Makes the spans.
        instruments: The metrics.
        global_ones: Return the global providers that are told; others may be set at any time.

    Thread: called by any.
    """

    def __init__(
        self,
        tracer: Tracer,
        instruments: _Instruments,
        global_ones: Sequence[Callable[[], object]],
    ) -> None:
        self.tracer = tracer
        self.instruments = instruments
        self._global_ones = global_ones
        self._told: list[object] | None = None
        self._be_told_first()

    def _be_told_first(self) -> None:
        """See to it that at the process's end all is told before the providers end.

        Providers register their own ending when they are made, and what was registered last runs
        first. Only where one is new is there something to do: each time would leave an empty entry
        in the interpreter's list. Two threads at once register it twice, which does no harm.
        """
        providers = [provider() for provider in self._global_ones]
        known, self._told = self._told, providers
        if known is None or not all(map(operator.is_, known, providers)):
            atexit.unregister(_end_all)
            atexit.register(_end_all)

    def called(self, provider: Provider, chat: ChatRequest, base_url: str) -> _Observation:
        """Keep the caller's context; the span begins when the provider is asked."""
        self._be_told_first()
        return _Observation(self, provider, chat, base_url, context.get_current())


class _Observation:
    """The span of one stream.

    Thread: made by the caller's, used by the producer's.
    """

    def __init__(
        self,
        observer: _Observer,
        provider: Provider,
        chat: ChatRequest,
        base_url: str,
        parent: Context,
    ) -> None:
        self._observer = observer
        self._provider = provider
        self._chat = chat
        self._base_url = base_url
        self._parent = parent
        self._said = Accumulator(provider.name)
        self._common: Attributes = {}
        self._span: Span = trace.INVALID_SPAN

    def begins(self) -> None:
        """Begin the span."""
        chat = self._chat
        where = urlsplit(self._base_url)
        self._common = _present(
            {
                "gen_ai.operation.name": _OPERATION,
                "gen_ai.provider.name": self._provider.telemetry_name,
                "gen_ai.request.model": chat.model or None,
                "server.address": where.hostname,
                "server.port": where.port or _PORTS.get(where.scheme),
            }
        )
        asked = {
            "gen_ai.request.stream": chat.stream or None,
            "gen_ai.request.max_tokens": chat.max_tokens,
            "gen_ai.request.temperature": chat.temperature,
            "gen_ai.request.top_p": chat.top_p,
            "gen_ai.request.stop_sequences": chat.stop or None,
            "gen_ai.output.type": None if chat.response_format is None else "json",
        }
        self._span = self._observer.tracer.start_span(
            f"{_OPERATION} {chat.model}".strip(),
            context=self._parent,
            kind=SpanKind.CLIENT,
            attributes={**self._common, **_present(asked), **_settings(self._provider, chat)},
        )

    def sending(self) -> contextvars.Context:
        """Let the span be the current one while requests are sent."""
        current = contextvars.copy_context()
        current.run(context.attach, trace.set_span_in_context(self._span, self._parent))
        return current

    def event(self, event: Event) -> None:
        """Keep what is told of the answer beside its content."""
        if isinstance(event, _KEPT):
            self._said.add(event)

    def ended(self, outcome: Outcome) -> None:
        """End the span, and record the metrics."""
        said = self._said.completion()
        first_s = outcome.metrics.first_content_s
        if first_s is not None:
            first_s -= outcome.asked_s
        if self._span.is_recording():
            self._span.set_attributes(_answered(said, outcome))
            if self._chat.stream and first_s is not None:
                self._span.set_attribute("gen_ai.response.time_to_first_chunk", first_s)
            if outcome.error is not None:
                self._span.set_status(Status(StatusCode.ERROR))
        self._span.end(outcome.ended_ns)
        self._record(said, outcome, first_s)

    def _record(self, said: Completion, outcome: Outcome, first_s: float | None) -> None:
        instruments = self._observer.instruments
        within = trace.set_span_in_context(self._span, self._parent)  # whose figures they are
        labels = {**self._common, **_present({"gen_ai.response.model": said.model})}
        duration_s = outcome.metrics.total_s - outcome.asked_s
        error = _present({"error.type": outcome.error})
        instruments.duration.record(duration_s, {**labels, **error}, within)
        if self._chat.stream and first_s is not None:
            instruments.first_chunk.record(first_s, labels, within)
            for gap_s, count in outcome.metrics.gaps.counts:
                for _ in range(count if gap_s else 0):  # what came in one read is one chunk
                    instruments.per_chunk.record(gap_s, labels, within)
        if said.usage is not None and said.finish_reason is not None and outcome.error is None:
            counts = {"input": said.usage.input_tokens, "output": said.usage.output_tokens}
            for kind, count in _present(counts).items():
                counted = {**labels, "gen_ai.token.type": kind}
                instruments.tokens.record(count, counted, within)


def _settings(provider: Provider, chat: ChatRequest) -> Attributes:
    """Return the attributes of what was asked for under the provider's own names."""
    found: Attributes = {}
    for path, name in provider.telemetry_settings.items():
        value: Any = chat.extra_body
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        kind = _SETTINGS[name]
        if isinstance(value, (int, kind)) and not isinstance(value, bool):
            found[f"gen_ai.request.{name}"] = kind(value)
    if found.get(_CHOICES) == 1:
        del found[_CHOICES]  # to be told "if [...] != 1"
    return found


def _answered(said: Completion, outcome: Outcome) -> Attributes:
    """Return the attributes that are known at the end."""
    usage = said.usage
    finish = said.finish_reason
    return _present(
        {
            "error.type": outcome.error,
            "gen_ai.response.id": said.response_id,
            "gen_ai.response.model": said.model,
            "gen_ai.response.finish_reasons": None if finish is None else (finish,),
            "gen_ai.usage.input_tokens": usage and usage.input_tokens,
            "gen_ai.usage.output_tokens": usage and usage.output_tokens,
            "gen_ai.usage.cache_read.input_tokens": usage and usage.cached_input_tokens,
            "gen_ai.usage.cache_creation.input_tokens": usage and usage.cache_creation_tokens,
            "gen_ai.usage.reasoning.output_tokens": usage and usage.reasoning_tokens,
            "llm_sse.attempts": outcome.metrics.attempts,
            "llm_sse.producer_waited_s": outcome.metrics.producer_waited_s or None,
        }
    )


def _present(attributes: Attributes) -> Attributes:
    """Return the attributes that have a value."""
    return {name: value for name, value in attributes.items() if value is not None}
