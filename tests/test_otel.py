"""Spans and metrics, as OpenTelemetry's own SDK gets them."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from llm_sse import RetryPolicy, Timeouts, TokenStream, run_tools, stream_sync
from llm_sse.chat import ChatRequest, make_chat
from llm_sse.errors import RateLimitError, StreamTimeout
from llm_sse.events import Finish, StreamStart, Usage
from llm_sse.metrics import Gaps, StreamMetrics
from llm_sse.otel import instrument, uninstrument
from llm_sse.providers import find_provider
from llm_sse.sync.observer import Outcome, observer
from llm_sse.testing import FakeServer, call_tool, hang, pause, raw, say, status
from tests.helpers import until

ONCE = RetryPolicy(max_retries=0)


@dataclasses.dataclass
class Telemetry:
    """What was exported."""

    tracers: TracerProvider
    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader

    def spans(self, number: int = 1) -> list[ReadableSpan]:
        """Wait for so many spans, in the order in which they began."""
        until(lambda: len(self.exporter.get_finished_spans()) >= number)
        found = sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)
        assert len(found) == number
        return found

    def metrics(self) -> list[Any]:
        """Return the metrics, when all streams are told of."""
        uninstrument()
        data = self.reader.get_metrics_data()
        if data is None:
            return []
        return [
            metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]

    def points(self) -> dict[str, list[Any]]:
        """Return the data points of each metric by its name, when all streams are told of."""
        return {metric.name: list(metric.data.data_points) for metric in self.metrics()}


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """Instrument, with exporters that keep everything."""
    exporter = InMemorySpanExporter()
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    reader = InMemoryMetricReader()
    meters = MeterProvider([reader], shutdown_on_exit=False)
    instrument(tracer_provider=tracers, meter_provider=meters)
    yield Telemetry(tracers, exporter, reader)
    uninstrument()
    meters.shutdown()
    tracers.shutdown()


def ask(server: FakeServer, provider: str = "openai", **arguments: Any) -> TokenStream:
    """Ask the fake provider."""
    given = {"base_url": server.base_url(provider), "api_key": "any", **arguments}
    return stream_sync("What is the secret?", provider=provider, **given)


def asked(**more: Any) -> ChatRequest:
    """Return a question."""
    return make_chat(prompt="?", messages=None, system=None, model="some-model", **more)


def told(
    telemetry: Telemetry,
    provider: str = "openai",
    *,
    chat: ChatRequest | None = None,
    metrics: StreamMetrics | None = None,
    ended_ns: int | None = None,
) -> ReadableSpan:
    """Tell of a stream whose figures are known exactly; return its span."""
    watcher = observer()
    assert watcher is not None
    row = find_provider(provider)
    observation = watcher.called(row, chat or asked(), "https://example.com")
    observation.begins()
    for event in (StreamStart("some-model"), Usage(3, 70), Finish("stop")):
        observation.event(event)
    if metrics is None:
        gaps = Gaps(((0.0, 4), (0.5, 3), (2.0, 2)), 2.0)
        metrics = StreamMetrics(total_s=10.0, first_content_s=3.0, gaps=gaps)
    if ended_ns is None:
        ended_ns = time.time_ns()
    outcome = Outcome(metrics=metrics, asked_s=2.0, ended_ns=ended_ns, error=None, whole=True)
    observation.ended(outcome)
    return telemetry.exporter.get_finished_spans()[-1]


class TestSpans:
    def test_a_stream_is_a_span(
        self, server: FakeServer, telemetry: Telemetry, provider: str
    ) -> None:
        """In every format it says who was asked what for, and what came of it."""
        server.script(say("one two"))
        answer = ask(server, provider, model="some-model", max_tokens=9, temperature=0.5, top_p=0.9)
        answer.text()
        (span,) = telemetry.spans()
        assert (span.name, span.kind) == ("chat some-model", SpanKind.CLIENT)
        assert span.status.status_code is StatusCode.UNSET
        attributes = dict(span.attributes or {})
        first_s = attributes.pop("gen_ai.response.time_to_first_chunk")
        assert first_s == pytest.approx(answer.metrics.first_content_s, abs=0.05)
        usage = answer.completion.usage
        assert usage is not None
        expected = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": find_provider(provider).telemetry_name,
            "gen_ai.request.model": "some-model",
            "gen_ai.request.stream": True,
            "gen_ai.request.max_tokens": 9,
            "gen_ai.request.temperature": 0.5,
            "gen_ai.request.top_p": 0.9,
            "server.address": "127.0.0.1",
            "server.port": int(server.url.rpartition(":")[2]),
            "gen_ai.response.id": answer.completion.response_id,
            "gen_ai.response.model": "some-model",
            "gen_ai.response.finish_reasons": ("stop",),
            "gen_ai.usage.input_tokens": usage.input_tokens,
            "gen_ai.usage.output_tokens": usage.output_tokens,
            "gen_ai.usage.cache_read.input_tokens": usage.cached_input_tokens,
            "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
            "llm_sse.attempts": 1,
        }
        assert attributes == {key: value for key, value in expected.items() if value is not None}

    def test_the_parent_is_the_context_of_the_call(
        self, server: FakeServer, telemetry: Telemetry
    ) -> None:
        """It does not matter where the stream is read; in its loop nothing of it is current."""
        tracer = telemetry.tracers.get_tracer("test")
        with tracer.start_as_current_span("request"):
            answer = ask(server)
        with tracer.start_as_current_span("elsewhere") as elsewhere:
            for _ in answer:
                assert trace.get_current_span() is elsewhere
        assert trace.get_current_span() is trace.INVALID_SPAN
        spans = {span.name: span for span in telemetry.spans(3)}
        ours = next(span for name, span in spans.items() if name.startswith("chat"))
        parent = spans["request"].get_span_context()
        assert ours.parent is not None
        assert parent is not None
        assert ours.parent.span_id == parent.span_id

    def test_what_watches_http_is_a_child(self, server: FakeServer, telemetry: Telemetry) -> None:
        """The span is the current one while a request is sent: a trace is in one piece."""
        tracer = telemetry.tracers.get_tracer("http")

        class Watched(requests.Session):
            """What the instrumentation of requests does."""

            def send(self, *given: Any, **more: Any) -> requests.Response:
                with tracer.start_as_current_span("POST"):
                    return super().send(*given, **more)

        with Watched() as session, tracer.start_as_current_span("request"):
            ask(server, session=session).text()
        spans = {span.name.partition(" ")[0]: span for span in telemetry.spans(3)}
        chat, post = spans["chat"].get_span_context(), spans["POST"]
        assert chat is not None
        assert post.parent is not None
        assert post.parent.span_id == chat.span_id

    def test_content_is_not_recorded(self, server: FakeServer, telemetry: Telemetry) -> None:
        """Neither the question nor the answer nor what an error says is in a span."""
        server.enqueue(say("It is secret."))
        server.enqueue(status(429, "no secret for you"))
        ask(server, system="secret").text()
        with pytest.raises(RateLimitError):
            ask(server, retry=ONCE).text()
        assert not any("secret" in span.to_json() for span in telemetry.spans(2))

    def test_an_error_is_named(self, server: FakeServer, telemetry: Telemetry) -> None:
        """A refused request has an error's type and status; its attempts are one span."""
        server.script(status(429))
        with pytest.raises(RateLimitError):
            ask(server, retry=RetryPolicy(max_retries=2, backoff_s=0)).text()
        (span,) = telemetry.spans()
        assert span.status.status_code is StatusCode.ERROR
        assert span.attributes is not None
        assert span.attributes["error.type"] == "RateLimitError"
        assert span.attributes["llm_sse.attempts"] == 3

    def test_a_limit_that_ran_out_is_an_error(
        self, server: FakeServer, telemetry: Telemetry
    ) -> None:
        """What the reader gave up waiting for is a timeout in the span, too."""
        server.script(say("one"), pause(3600))
        with pytest.raises(StreamTimeout):
            ask(server, timeouts=Timeouts(idle_s=0.05)).text()
        (span,) = telemetry.spans()
        assert (span.attributes or {})["error.type"] == "StreamTimeout"

    @pytest.mark.parametrize("how", ["closed", "dropped", "left"])
    def test_a_stream_that_is_left_ends_its_span(
        self, server: FakeServer, telemetry: Telemetry, how: str
    ) -> None:
        """Whoever reads no further has made no error, leaves no open span, and counts no tokens."""
        server.script(say("one two three"), pause(3600))
        answer = ask(server, "anthropic")  # which tells some of the usage at the beginning
        if how == "left":
            for _ in answer:
                break
        else:
            next(answer)
        if how == "closed":
            answer.close()
        del answer
        (span,) = telemetry.spans()
        assert span.status.status_code is StatusCode.UNSET
        assert "error.type" not in (span.attributes or {})
        assert "gen_ai.response.finish_reasons" not in (span.attributes or {})
        assert "gen_ai.client.token.usage" not in telemetry.points()

    def test_each_provider_of_a_fallback_has_its_own(
        self, server: FakeServer, telemetry: Telemetry
    ) -> None:
        """One span failed, one answered, both under the caller's."""
        server.enqueue(status(429))
        second = {
            "provider": "gemini",
            "base_url": server.base_url("gemini"),
            "api_key": "any",
            "model": "g",
        }
        tracer = telemetry.tracers.get_tracer("test")
        with tracer.start_as_current_span("request"):
            answer = ask(server, fallback=[second], retry=ONCE)
        answer.text()
        ours = [span for span in telemetry.spans(3) if span.parent is not None]
        names = [(span.attributes or {})["gen_ai.provider.name"] for span in ours]
        assert names == ["openai", "gcp.gemini"]
        assert ours[0].end_time is not None
        assert ours[1].start_time is not None
        assert ours[0].end_time <= ours[1].start_time

    def test_each_round_of_a_tool_loop_has_its_own(
        self, server: FakeServer, telemetry: Telemetry
    ) -> None:
        """A question with one call of a tool is two requests, both where the question was asked."""

        def weather(city: str) -> str:
            """Tell the weather."""
            return "rain"

        server.enqueue(call_tool("weather", {"city": "Oslo"}))
        server.enqueue(say("Rain."))
        url = server.base_url("openai")
        tracer = telemetry.tracers.get_tracer("test")
        with tracer.start_as_current_span("request"):
            loop = run_tools("?", tools=[weather], base_url=url, api_key="any")
        with tracer.start_as_current_span("elsewhere"):
            assert loop.text() == "Rain."
        request, *others = telemetry.spans(4)
        rounds = [span for span in others if span.name != "elsewhere"]
        reasons = [(span.attributes or {})["gen_ai.response.finish_reasons"] for span in rounds]
        assert reasons == [("tool_calls",), ("stop",)]
        for span in rounds:
            assert span.parent is not None
            assert span.parent.span_id == request.context.span_id

    def test_what_was_asked_for(self, server: FakeServer, telemetry: Telemetry) -> None:
        """Stop texts and the form of the answer are in the span."""
        ask(server, stop=["x", "y"], response_format="json_object").text()
        (span,) = telemetry.spans()
        assert span.attributes is not None
        assert span.attributes["gen_ai.request.stop_sequences"] == ("x", "y")
        assert span.attributes["gen_ai.output.type"] == "json"

    @pytest.mark.parametrize(
        ("provider", "extra_body"),
        [
            ("openai", {"seed": 7, "top_k": 40, "n": 2}),
            ("gemini", {"generationConfig": {"seed": 7, "topK": 40, "candidateCount": 2}}),
            ("ollama", {"options": {"seed": 7, "top_k": 40}}),
            ("anthropic", {"top_k": 40}),
            ("openai-responses", {"seed": 7, "top_k": 40}),
            ("mistral", {"random_seed": 7}),
        ],
    )
    def test_settings_that_have_no_argument(
        self, telemetry: Telemetry, provider: str, extra_body: dict[str, Any]
    ) -> None:
        """Seed, top_k and the number of choices are found under the provider's own names."""
        attributes = told(telemetry, provider, chat=asked(extra_body=extra_body)).attributes or {}
        names = str(extra_body)
        assert attributes.get("gen_ai.request.seed") == (7 if "seed" in names else None)
        top_k = attributes.get("gen_ai.request.top_k")
        assert top_k == (40.0 if "top" in names else None)
        assert top_k is None or isinstance(top_k, float)
        choices = 2 if "n'" in names or "Count" in names else None
        assert attributes.get("gen_ai.request.choice.count") == choices

    def test_what_is_no_setting_is_not_recorded(self, telemetry: Telemetry) -> None:
        """One choice goes without saying; a value of another type could be anything."""
        body = {"n": 1, "seed": "secret", "top_k": True, "generationConfig": 5}
        for provider in ("openai", "gemini"):
            span = told(telemetry, provider, chat=asked(extra_body=body))
            assert not {
                f"gen_ai.request.{name}" for name in ("seed", "top_k", "choice.count")
            } & set(span.attributes or {})

    def test_the_length_is_that_of_the_reading_of_the_network(self, telemetry: Telemetry) -> None:
        """It ends when its stream did, not when it is told; how long you were late stands by it."""
        ended_ns = time.time_ns() + 10**12
        span = told(telemetry, metrics=StreamMetrics(producer_waited_s=1.5), ended_ns=ended_ns)
        assert span.end_time == ended_ns
        assert (span.attributes or {})["llm_sse.producer_waited_s"] == 1.5

    def test_what_was_written_to_the_cache(self, server: FakeServer, telemetry: Telemetry) -> None:
        """A prompt that the provider cached is told apart from one that it had cached."""
        counted = b'{"cache_read_input_tokens":2,"cache_creation_input_tokens":4}'
        told = b'data: {"type":"message_delta","delta":{},"usage":' + counted + b"}\n\n"
        server.script(say("one"), raw(told))
        ask(server, "anthropic").text()
        (span,) = telemetry.spans()
        assert span.attributes is not None
        assert span.attributes["gen_ai.usage.cache_read.input_tokens"] == 2
        assert span.attributes["gen_ai.usage.cache_creation.input_tokens"] == 4

    def test_nobody_is_told_after_uninstrument(
        self, server: FakeServer, telemetry: Telemetry
    ) -> None:
        """What is opened afterwards makes no span."""
        uninstrument()
        ask(server).text()
        assert telemetry.exporter.get_finished_spans() == ()


class TestMetrics:
    def test_the_clients_metrics(self, telemetry: Telemetry) -> None:
        """Duration, tokens, and the times of the pieces, with the conventions' buckets."""
        with FakeServer("a b c d", ttft_s=0.05, tokens_per_s=50) as server:
            answer = ask(server, model="some-model")
            answer.text()
        points = telemetry.points()
        assert sorted(points) == [
            "gen_ai.client.operation.duration",
            "gen_ai.client.operation.time_per_output_chunk",
            "gen_ai.client.operation.time_to_first_chunk",
            "gen_ai.client.token.usage",
        ]
        (duration,) = points["gen_ai.client.operation.duration"]
        assert duration.sum >= 0.1
        assert duration.explicit_bounds[:3] == (0.01, 0.02, 0.04)
        assert duration.explicit_bounds[-1] == 81.92
        assert dict(duration.attributes) == {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "some-model",
            "gen_ai.response.model": "some-model",
            "server.address": "127.0.0.1",
            "server.port": int(server.url.rpartition(":")[2]),
        }
        (first,) = points["gen_ai.client.operation.time_to_first_chunk"]
        assert first.count == 1
        assert first.sum >= 0.05
        (chunks,) = points["gen_ai.client.operation.time_per_output_chunk"]
        assert 1 <= chunks.count <= 3  # fewer where a busy machine read two at once
        usage = answer.completion.usage
        assert usage is not None
        assert {
            point.attributes["gen_ai.token.type"]: point.sum
            for point in points["gen_ai.client.token.usage"]
        } == {"input": usage.input_tokens, "output": usage.output_tokens}

    def test_a_failure_costs_no_tokens(self, server: FakeServer, telemetry: Telemetry) -> None:
        """Its duration is recorded with the error's type, and nothing else."""
        server.script(status(429))
        with pytest.raises(RateLimitError):
            ask(server, retry=ONCE).text()
        points = telemetry.points()
        assert list(points) == ["gen_ai.client.operation.duration"]
        (duration,) = points["gen_ai.client.operation.duration"]
        assert duration.attributes["error.type"] == "RateLimitError"

    def test_a_whole_answer_has_no_chunks(self, server: FakeServer, telemetry: Telemetry) -> None:
        """Without streaming there is no time to a first piece."""
        ask(server, stream=False).text()
        (span,) = telemetry.spans()
        assert "gen_ai.request.stream" not in (span.attributes or {})
        assert "gen_ai.response.time_to_first_chunk" not in (span.attributes or {})
        assert sorted(telemetry.points()) == [
            "gen_ai.client.operation.duration",
            "gen_ai.client.token.usage",
        ]

    def test_the_second_of_a_fallback_counts_from_its_own_request(
        self, server: FakeServer, telemetry: Telemetry
    ) -> None:
        """The wait for the provider before is no time of the one that answered."""
        server.enqueue(hang())
        second = {"provider": "anthropic", "base_url": server.base_url("anthropic"), "api_key": "k"}
        answer = ask(server, fallback=[second], timeouts=Timeouts(first_token_s=1), retry=ONCE)
        answer.text()
        assert (answer.metrics.first_token_s or 0) >= 1
        span = telemetry.spans(2)[1]
        attributes = span.attributes or {}
        assert attributes["gen_ai.provider.name"] == "anthropic"
        assert float(attributes["gen_ai.response.time_to_first_chunk"]) < 0.9  # type: ignore[arg-type]
        long = {
            point.attributes["gen_ai.provider.name"]: point.sum > 0.9
            for point in telemetry.points()["gen_ai.client.operation.duration"]
        }
        assert long == {"openai": True, "anthropic": False}

    def test_units_and_buckets(self, telemetry: Telemetry) -> None:
        """They are those of the conventions, figure by figure."""
        told(telemetry)
        seconds = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28)
        seconds = (*seconds, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
        tokens = (1, 4, 16, 64, 256, 1024, 4096, 16384)
        tokens = (*tokens, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
        expected = {
            "gen_ai.client.operation.duration": ("s", seconds),
            "gen_ai.client.operation.time_to_first_chunk": ("s", seconds),
            "gen_ai.client.operation.time_per_output_chunk": ("s", seconds),
            "gen_ai.client.token.usage": ("{token}", tokens),
        }
        assert {
            metric.name: (metric.unit, metric.data.data_points[0].explicit_bounds)
            for metric in telemetry.metrics()
        } == expected

    def test_each_figure_is_recorded_as_it_was(self, telemetry: Telemetry) -> None:
        """From the request on, without what was before it; each gap counts once."""
        told(telemetry)
        points = telemetry.points()
        (duration,) = points["gen_ai.client.operation.duration"]
        assert (duration.count, duration.sum) == (1, 8.0)
        (first,) = points["gen_ai.client.operation.time_to_first_chunk"]
        assert (first.count, first.sum) == (1, 1.0)
        (gaps,) = points["gen_ai.client.operation.time_per_output_chunk"]
        assert (gaps.count, gaps.sum) == (5, 3 * 0.5 + 2 * 2.0)
        assert {
            (point.attributes["gen_ai.token.type"], point.count, point.sum)
            for point in points["gen_ai.client.token.usage"]
        } == {("input", 1, 3), ("output", 1, 70)}

    def test_a_figure_leads_to_its_span(self, telemetry: Telemetry) -> None:
        """A collector that keeps examples of a metric finds the trace of each."""
        span = told(telemetry)
        context = span.get_span_context()
        assert context is not None
        for points in telemetry.points().values():
            for point in points:
                assert point.exemplars
                assert {example.span_id for example in point.exemplars} == {context.span_id}
                assert {example.trace_id for example in point.exemplars} == {context.trace_id}


#: A program whose exporters are slow and whose last act is to ask.
PROGRAM = """
import sys, time
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from llm_sse import stream_sync
from llm_sse.otel import instrument

url, order, how = sys.argv[1:]

class Slow(ConsoleSpanExporter):
    def export(self, spans):
        time.sleep(0.2)
        return super().export(spans)

def set_providers():
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(Slow()))
    trace.set_tracer_provider(tracers)
    reader = PeriodicExportingMetricReader(ConsoleMetricExporter())
    metrics.set_meter_provider(MeterProvider([reader]))

if order == "providers first":
    set_providers()
instrument()
if order == "instrument first":
    stream_sync("?", base_url=url, api_key="any").text()  # nobody is told of it
    set_providers()
stream = stream_sync("?", base_url=url, api_key="any")
if how == "whole":
    stream.text()
else:
    next(stream)
"""


class TestExit:
    @pytest.mark.parametrize("order", ["providers first", "instrument first"])
    @pytest.mark.parametrize("how", ["whole", "half"])
    def test_all_is_told_before_the_process_ends(
        self, server: FakeServer, order: str, how: str
    ) -> None:
        """A program that ends with its answer, or in its middle, loses neither span nor metric."""
        if order == "instrument first":
            server.enqueue(say("before"))
        server.enqueue(say("one two"), *([pause(3600)] if how == "half" else []))
        said = subprocess.run(
            [sys.executable, "-c", PROGRAM, server.base_url("openai"), order, how],
            capture_output=True,
            text=True,
            check=True,
        )
        assert said.stdout.count('"name": "chat') == 1
        assert said.stdout.count("gen_ai.client.operation.duration") == 1
        assert said.stdout.count("gen_ai.client.token.usage") == (how == "whole")
        assert said.stderr == ""


class TestImport:
    def test_without_the_extra_it_says_what_to_install(self) -> None:
        """The module that needs the library names it, and the package's root does not need it."""
        code = (
            "import sys; sys.modules['opentelemetry'] = None; import llm_sse\n"
            "try:\n    import llm_sse.otel\nexcept ModuleNotFoundError as error:\n    print(error)"
        )
        said = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert "pip install 'llm-sse[otel]'" in said.stdout
