"""Spans and metrics by OpenTelemetry's conventions for generative AI.

They need the extra `otel`; the SDK is the application's.

The names are those of github.com/open-telemetry/semantic-conventions-genai, `docs/gen-ai` (status: development, so they
are written out here). Questions, answers and arguments are recorded only on request.
"""

from __future__ import annotations

import os
import time
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct, field

from lmdeck._version import __version__
from lmdeck.errors import ConfigurationError, LMStudioError, summary
from lmdeck.events import (
    RequestAbandoned,
    RequestFailed,
    RequestFinished,
    RequestRetried,
    RequestStarted,
    RunEnded,
    RunStarted,
    ToolExecutionFailed,
    ToolFinished,
    ToolStarted,
)
from lmdeck.observe.listening import BoundedLabels, Client, Observation, operation_of
from lmdeck.observe.message_content import input_messages, output_messages

try:
    from opentelemetry import context, metrics, trace
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode

    from lmdeck.observe.measurements import measurements
except ImportError:
    raise ConfigurationError(
        "Traces for OpenTelemetry need the package opentelemetry-api, which is not installed.",
        hint='Install it with `pip install "lmdeck[otel]"`.',
    ) from None

PROVIDER = "lmstudio"
CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
CAPTURING = {"1", "true", "span", "span_only", "span_and_event"}
LARGEST_BODY = 1 << 20
"""Bytes of a request up to which its parameters are read: a larger one holds images."""
DURATIONS = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
TOKENS = [1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864]
FIRST_CHUNKS = [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 60.0, 300.0]
CHUNKS = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5]
NUMBERS = (
    ("temperature", "gen_ai.request.temperature"),
    ("top_p", "gen_ai.request.top_p"),
    ("top_k", "gen_ai.request.top_k"),
    ("max_tokens", "gen_ai.request.max_tokens"),
    ("max_output_tokens", "gen_ai.request.max_tokens"),
    ("seed", "gen_ai.request.seed"),
    ("frequency_penalty", "gen_ai.request.frequency_penalty"),
    ("presence_penalty", "gen_ai.request.presence_penalty"),
)
Attributes: TypeAlias = dict[str, Any]


def otel(
    client: Client,
    *,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
    capture_content: bool | None = None,
) -> Observation:
    """Record a client's requests, tools and runs as spans and metrics.

    The default providers are the global ones.

    `capture_content` also records questions, answers, arguments and results; None leaves that to the variable
    `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT`.
    """
    if capture_content is None:
        capture_content = os.environ.get(CAPTURE, "").strip().lower() in CAPTURING
    tracer = trace.get_tracer("lmdeck", __version__, tracer_provider)
    meter = metrics.get_meter("lmdeck", __version__, meter_provider)
    return OpenTelemetryObservation(client, tracer, _Instruments(meter), captures=capture_content)


class _Request(Struct):
    """A running request."""

    span: Span
    operation: str
    model: str
    started: float


class _RunSpan(Struct):
    """A run in progress; `tools` are the spans of its calls, by id."""

    span: Span
    model: str
    tools: dict[str, Span] = field(default_factory=dict)


class _Parameters(Struct):
    """The parameters of a request that its span has."""

    temperature: Any = None
    top_p: Any = None
    top_k: Any = None
    max_tokens: Any = None
    max_output_tokens: Any = None
    seed: Any = None
    stop: Any = None
    frequency_penalty: Any = None
    presence_penalty: Any = None
    stream: Any = None
    response_format: Any = None

    def attributes(self) -> Attributes:
        """Return them as attributes."""
        found: Attributes = {}
        for parameter, name in NUMBERS:
            value = getattr(self, parameter)
            if isinstance(value, (int, float)):
                found.setdefault(name, value)
        stop = [self.stop] if isinstance(self.stop, str) else self.stop
        if isinstance(stop, list) and all(isinstance(text, str) for text in stop):
            found["gen_ai.request.stop_sequences"] = stop
        if self.stream is True:
            found["gen_ai.request.stream"] = True
        if isinstance(self.response_format, dict):
            found["gen_ai.output.type"] = "text" if self.response_format.get("type") == "text" else "json"
        return found


class _Instruments:
    """The metrics, in the units of the conventions."""

    def __init__(self, meter: metrics.Meter) -> None:
        def histogram(name: str, unit: str, description: str, buckets: list[float]) -> metrics.Histogram:
            return meter.create_histogram(name, unit, description, explicit_bucket_boundaries_advisory=buckets)

        self.duration = histogram("gen_ai.client.operation.duration", "s", "GenAI operation duration.", DURATIONS)
        self.tokens = histogram(
            "gen_ai.client.token.usage",
            "{token}",
            "Number of input and output tokens used.",
            [float(n) for n in TOKENS],
        )
        self.first = histogram(
            "gen_ai.client.operation.time_to_first_chunk", "s", "Time to receive the first chunk.", FIRST_CHUNKS
        )
        self.per_chunk = histogram(
            "gen_ai.client.operation.time_per_output_chunk", "s", "Mean time per chunk after the first.", CHUNKS
        )
        self.tool = histogram("gen_ai.execute_tool.duration", "s", "Duration of a tool call.", DURATIONS)
        self.agent = histogram("gen_ai.invoke_agent.duration", "s", "Duration of a run.", DURATIONS)
        self.queue = histogram("lmdeck.queue.wait", "s", "Time in the client's own queue.", DURATIONS)
        self.load = histogram("lmdeck.model_load.duration", "s", "Time to load a model for a request.", DURATIONS)
        self.problems = meter.create_counter(
            "lmdeck.problems", "{problem}", "Problems of answers, by code and dialect."
        )
        self.broken = meter.create_counter(
            "lmdeck.stream.broken", "{stream}", "Answers that broke off midway, by kind."
        )
        self.cache = meter.create_counter("lmdeck.cache", "{request}", "Requests that asked the cache, by result.")
        self.retries = meter.create_counter("lmdeck.retries", "{attempt}", "Failed attempts that were repeated.")
        measurements.record_at_collection(meter)


class OpenTelemetryObservation(Observation):
    """Records the events of one client."""

    def __init__(self, client: Client, tracer: trace.Tracer, instruments: _Instruments, *, captures: bool) -> None:
        self._tracer = tracer
        self._instruments = instruments
        self._captures = captures
        self._requests: dict[str, _Request] = {}
        self._run: ContextVar[_RunSpan | None] = ContextVar("lmdeck_otel_run", default=None)
        self._model = BoundedLabels()
        self._tool = BoundedLabels()
        self._word = BoundedLabels()
        super().__init__(
            client,
            {
                RequestStarted: self._on_started,
                RequestRetried: self._on_retried,
                RequestFinished: self._on_finished,
                RequestFailed: self._on_failed,
                RequestAbandoned: self._on_abandoned,
                RunStarted: self._on_run,
                RunEnded: self._on_run_end,
                ToolStarted: self._on_tool,
                ToolFinished: self._on_tool_end,
                ToolExecutionFailed: self._on_tool_end,
            },
        )

    def close(self) -> None:
        """Stop observing, record the waiting measurements, and end all open spans."""
        super().close()
        measurements.record()
        while self._requests:
            self._requests.popitem()[1].span.end()

    def _on_started(self, event: RequestStarted) -> None:
        operation = operation_of(event.endpoint)
        if not operation:
            return
        name, described = _described(operation, event.model, event.url)
        attributes = {**described, "lmdeck.request.id": event.request_id}
        body = event.body or b""
        if len(body) <= LARGEST_BODY:
            attributes.update(_parameters(body))
        span = self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes)
        if self._captures and span.is_recording() and len(body) <= LARGEST_BODY:
            span.set_attributes(input_messages(body))
        self._requests[event.request_id] = _Request(span, operation, self._model(event.model), time.perf_counter())

    def _on_retried(self, event: RequestRetried) -> None:
        request = self._requests.get(event.request_id)
        if request is not None:
            kind = type(event.error).__name__
            request.span.add_event("lmdeck.retry", {"error.type": kind, "lmdeck.retry.wait": event.wait})
            measurements.add(
                self._instruments.retries.add, 1, {**_labels(request.operation, request.model), "error.type": kind}
            )

    def _on_finished(self, event: RequestFinished) -> None:
        request = self._requests.pop(event.request_id, None)
        if request is None:
            return
        self._measure(event, request)
        span = request.span
        if span.is_recording():
            span.set_attributes(_outcome(event))
            if self._captures and event.reply is not None:
                span.set_attributes(output_messages(event.reply))
        span.end()

    def _measure(self, event: RequestFinished, request: _Request) -> None:
        """Record the metrics of a complete answer; a cached one cost no tokens."""
        instruments = self._instruments
        of_answer = (request.operation, request.model, self._model(event.model) if event.model else "")
        labels = _labels(*of_answer)
        measurements.add(instruments.duration.record, time.perf_counter() - request.started, labels)
        if event.cache is not None:
            measurements.add(instruments.cache.add, 1, {**labels, "lmdeck.cache.result": event.cache})
        if event.cache in {"hit", "shared"}:
            return
        if event.usage is not None:
            measurements.add(instruments.tokens.record, event.usage.prompt_tokens, _labels(*of_answer, "input"))
            if request.operation != "embeddings":
                measurements.add(
                    instruments.tokens.record, event.usage.completion_tokens, _labels(*of_answer, "output")
                )
        if event.is_streamed and event.time_to_first_token is not None:
            measurements.add(instruments.first.record, event.time_to_first_token, labels)
            per_chunk = (event.seconds - event.time_to_first_token) / max(1, event.chunks - 1)
            measurements.add(instruments.per_chunk.record, per_chunk, labels)
        if event.queue_time:
            measurements.add(instruments.queue.record, event.queue_time, labels)
        if event.reply is not None and event.reply.stats.model_load_time is not None:
            measurements.add(instruments.load.record, event.reply.stats.model_load_time, labels)
        for problem in event.problems:
            kind = {"lmdeck.problem.code": self._word(problem.code), "lmdeck.dialect": self._word(problem.dialect)}
            measurements.add(instruments.problems.add, 1, {**labels, **kind})

    def _on_failed(self, event: RequestFailed) -> None:
        request = self._requests.pop(event.request_id, None)
        if request is None:
            return
        kind = type(event.error).__name__
        labels = self._measure_end(request, kind)
        if event.error.partial is not None:
            measurements.add(self._instruments.broken.add, 1, labels)
        _fail(request.span, kind, self._message(event.error))

    def _on_abandoned(self, event: RequestAbandoned) -> None:
        request = self._requests.pop(event.request_id, None)
        if request is not None:
            self._measure_end(request, "abandoned")
            _fail(request.span, "abandoned", "The caller abandoned the answer before its end.")

    def _measure_end(self, request: _Request, kind: str) -> Attributes:
        """Record the duration of a request without a complete answer, and return its labels."""
        labels = {**_labels(request.operation, request.model), "error.type": kind}
        measurements.add(self._instruments.duration.record, time.perf_counter() - request.started, labels)
        return labels

    def _message(self, error: BaseException) -> str:
        """Return the message of an error; without capture of content, it quotes none."""
        if not isinstance(error, LMStudioError):
            return str(error) if self._captures else type(error).__name__
        return error.message if self._captures else summary(error)

    def _on_run(self, event: RunStarted) -> None:
        """Begin the span of a run in the context of the run, where it remains current."""
        attributes: Attributes = {"gen_ai.operation.name": "invoke_agent", "gen_ai.provider.name": PROVIDER}
        if event.model:
            attributes["gen_ai.request.model"] = event.model
        span = self._tracer.start_span("invoke_agent", kind=SpanKind.INTERNAL, attributes=attributes)
        context.attach(trace.set_span_in_context(span))
        self._run.set(_RunSpan(span, event.model))

    def _on_run_end(self, event: RunEnded) -> None:
        run = self._run.get()
        if run is None:
            return
        for tool in run.tools.values():
            _fail(tool, "abandoned", "The run ended before the tool.")
        labels: Attributes = {"gen_ai.operation.name": "invoke_agent", "gen_ai.provider.name": PROVIDER}
        if run.model:
            labels["gen_ai.request.model"] = self._model(run.model)
        kind = "" if event.reply is not None else type(event.error).__name__ if event.error is not None else "abandoned"
        if kind:
            labels["error.type"] = kind
        measurements.add(self._instruments.agent.record, event.seconds, labels)
        if event.reply is None:
            message = (
                "The caller abandoned the run before its end." if event.error is None else self._message(event.error)
            )
            _fail(run.span, kind, message)
            return
        run.span.set_attributes(_usage(event.reply.usage) | {"lmdeck.run.rounds": len(event.reply.rounds)})
        run.span.end()

    def _on_tool(self, event: ToolStarted) -> None:
        """Begin the span of a tool in the context of its handler, where it remains current."""
        run = self._run.get()
        if run is None:
            return
        name = event.call.name
        attributes: Attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": name,
            "gen_ai.tool.call.id": event.call.id,
            "gen_ai.tool.type": "function",
        }
        if self._captures:
            attributes["gen_ai.tool.call.arguments"] = event.call.raw_arguments
        span = self._tracer.start_span(f"execute_tool {name}", kind=SpanKind.INTERNAL, attributes=attributes)
        context.attach(trace.set_span_in_context(span))
        run.tools[event.call.id] = span

    def _on_tool_end(self, event: ToolFinished | ToolExecutionFailed) -> None:
        run, result = self._run.get(), event.result
        span = None if run is None else run.tools.pop(result.call.id, None)
        if span is None:  # a repeated call, which shares the result of the first one
            return
        labels: Attributes = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": self._tool(result.call.name)}
        if self._captures:
            span.set_attribute("gen_ai.tool.call.result", result.content)
        if result.error is None:
            span.end()
        else:
            labels["error.type"] = type(result.error).__name__
            _fail(span, labels["error.type"], self._message(result.error))
        measurements.add(self._instruments.tool.record, result.seconds, labels)


_decode_parameters = msgspec.json.Decoder(_Parameters).decode


def _parameters(body: bytes) -> Attributes:
    try:
        return _decode_parameters(body).attributes()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


@lru_cache(maxsize=256)
def _described(operation: str, model: str, url: str) -> tuple[str, Attributes]:
    """Return the name of a request's span and the attributes it shares with others."""
    parts = urlsplit(url)
    found: Attributes = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": PROVIDER,
        "server.address": parts.hostname or "",
        "server.port": parts.port or (443 if parts.scheme == "https" else 80),
    }
    if model:
        found["gen_ai.request.model"] = model
    return f"{operation} {model}".strip(), found


@lru_cache(maxsize=1024)
def _labels(operation: str, model: str, answered: str = "", token_type: str = "") -> Attributes:
    """Return the labels of a request's metrics; `answered` is the model of the answer."""
    found: Attributes = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": model,
    }
    if answered:
        found["gen_ai.response.model"] = answered
    if token_type:
        found["gen_ai.token.type"] = token_type
    return found


def _outcome(event: RequestFinished) -> Attributes:
    """Return the attributes of a complete answer."""
    found: Attributes = {"lmdeck.attempts": event.attempts, **_usage(event.usage)}
    if event.model:
        found["gen_ai.response.model"] = event.model
    if event.is_streamed and event.time_to_first_token is not None:
        found["gen_ai.response.time_to_first_chunk"] = event.time_to_first_token
    if event.queue_time:
        found["lmdeck.queue.wait"] = event.queue_time
    if event.cache is not None:
        found["lmdeck.cache.result"] = event.cache
    if event.reply is not None:
        found["gen_ai.response.finish_reasons"] = [event.reply.finish_reason]
        if event.reply.id:
            found["gen_ai.response.id"] = event.reply.id
        if event.reply.problems:
            found["lmdeck.problems"] = [problem.code for problem in event.reply.problems]
    return found


def _usage(usage: Any) -> Attributes:
    """Return the attributes of token counts."""
    if usage is None:
        return {}
    found: Attributes = {
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.output_tokens": usage.completion_tokens,
    }
    if usage.cached_tokens is not None:
        found["gen_ai.usage.cache_read.input_tokens"] = usage.cached_tokens
    if usage.reasoning_tokens is not None:
        found["gen_ai.usage.reasoning.output_tokens"] = usage.reasoning_tokens
    return found


def _fail(span: Span, kind: str, message: str) -> None:
    """End a span with an error."""
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR, message))
    span.end()
