"""Metrics for Prometheus (extra `prometheus`), with bounded labels.

Chunks cost nothing extra, since the client counts them.
"""

from __future__ import annotations

from functools import partial
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from lmdeck.errors import ConfigurationError
from lmdeck.events import (
    RequestAbandoned,
    RequestFailed,
    RequestFinished,
    RequestRetried,
    RequestStarted,
    ToolExecutionFailed,
    ToolFinished,
)
from lmdeck.observe.listening import BoundedLabels, Client, Observation, operation_of

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
except ImportError:
    raise ConfigurationError(
        "Metrics for Prometheus need the package prometheus-client, which is not installed.",
        hint='Install it with `pip install "lmdeck[prometheus]"`.',
    ) from None

Registry: TypeAlias = CollectorRegistry
DURATIONS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)
CHUNK_TIMES = (0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.5, 1, 2.5)
_metrics: WeakKeyDictionary[CollectorRegistry, ClientMetrics] = WeakKeyDictionary()


def prometheus(client: Client, registry: Registry | None = None) -> Observation:
    """Count a client's requests, tokens, times, failures and tool calls.

    The default registry is Prometheus's own.

    Several clients may share a registry. The application serves the page, for example by
    `prometheus_client.start_http_server(9100)`.
    """
    into = REGISTRY if registry is None else registry
    if into not in _metrics:
        _metrics[into] = ClientMetrics(into)
    return PrometheusObservation(client, _metrics[into])


class ClientMetrics:
    """The metrics in one registry."""

    def __init__(self, registry: Registry) -> None:
        counter, histogram = partial(Counter, registry=registry), partial(Histogram, registry=registry)
        self.model = BoundedLabels()
        self.tool = BoundedLabels()
        self.word = BoundedLabels()
        self.running = Gauge(
            "lmdeck_requests_in_progress",
            "Requests that a model answers now.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.requests = counter(
            "lmdeck_requests", "Requests that ended, by outcome: ok, abandoned, or the class of the error.",
            ["operation", "model", "outcome"],
        )  # fmt: skip
        self.duration = histogram(
            "lmdeck_request_duration_seconds", "Time from the request to the end of its answer, with queue and retries.",
            ["operation", "model"], buckets=DURATIONS,
        )  # fmt: skip
        self.first = histogram(
            "lmdeck_time_to_first_token_seconds", "Time from sending to the first content, reasoning or tool call.",
            ["model"], buckets=DURATIONS,
        )  # fmt: skip
        self.chunk_time = histogram(
            "lmdeck_time_per_chunk_seconds",
            "Mean time between the chunks of one answer.",
            ["model"],
            buckets=CHUNK_TIMES,
        )
        self.queue = histogram(
            "lmdeck_queue_wait_seconds", "Time in the client's own queue.", ["model"], buckets=DURATIONS
        )
        self.load = histogram(
            "lmdeck_model_load_seconds", "Time that loading a model for a request took.", ["model"], buckets=DURATIONS
        )
        self.tokens = counter("lmdeck_tokens", "Input and output tokens.", ["model", "type"])
        self.chunks = counter("lmdeck_chunks", "Chunks of answers.", ["model"])
        self.problems = counter(
            "lmdeck_problems",
            "Repairs and other problems of answers, by code and dialect of the call; see the page on problems.",
            ["code", "dialect"],
        )
        self.broken = counter(
            "lmdeck_broken_streams", "Answers that broke off after their beginning, by class of error.", ["kind"]
        )
        self.retries = counter("lmdeck_retries", "Attempts that failed and were repeated, by class of error.", ["kind"])
        self.cache = counter("lmdeck_cache", "Requests that asked the cache, by result: hit, shared, miss.", ["result"])
        self.tool_calls = counter("lmdeck_tool_calls", "Tool calls that were run.", ["tool", "outcome"])
        self.tool_duration = histogram(
            "lmdeck_tool_duration_seconds", "Run time of a tool's handler.", ["tool"], buckets=DURATIONS
        )


class PrometheusObservation(Observation):
    """Counts the events of one client."""

    def __init__(self, client: Client, metrics: ClientMetrics) -> None:
        self._metrics = metrics
        self._running: set[str] = set()
        self._series: dict[tuple[str, str], _Series] = {}
        super().__init__(
            client,
            {
                RequestStarted: self._on_started,
                RequestFinished: self._on_finished,
                RequestFailed: self._on_failed,
                RequestAbandoned: self._on_abandoned,
                RequestRetried: self._on_retried,
                ToolFinished: self._on_tool,
                ToolExecutionFailed: self._on_tool,
            },
        )

    def close(self) -> None:
        """Stop observing; the metrics stay in their registry."""
        super().close()
        while self._running:
            self._running.pop()
            self._metrics.running.dec()

    def _on_started(self, event: RequestStarted) -> None:
        if operation_of(event.endpoint):
            self._running.add(event.request_id)
            self._metrics.running.inc()

    def _on_finished(self, event: RequestFinished) -> None:
        if not self._end(event.request_id):
            return
        metrics, series = self._metrics, self._series_of(event.endpoint, event.model)
        series.ok.inc()
        series.duration.observe(event.seconds + event.queue_time)
        if event.cache is not None:
            metrics.cache.labels(event.cache).inc()
        if event.cache in {"hit", "shared"}:
            return
        series.chunks.inc(event.chunks)
        if event.queue_time:
            series.queue.observe(event.queue_time)
        if event.usage is not None:
            series.input.inc(event.usage.prompt_tokens)
            series.output.inc(event.usage.completion_tokens)
        if event.is_streamed and event.time_to_first_token is not None:
            series.first.observe(event.time_to_first_token)
            series.chunk_time.observe((event.seconds - event.time_to_first_token) / max(1, event.chunks - 1))
        if event.reply is not None:
            self._count_reply(event, series)

    def _count_reply(self, event: RequestFinished, series: _Series) -> None:
        word = self._metrics.word
        for problem in event.problems:
            self._metrics.problems.labels(word(problem.code), word(problem.dialect)).inc()
        load = None if event.reply is None else event.reply.stats.model_load_time
        if load is not None:
            series.load.observe(load)

    def _on_failed(self, event: RequestFailed) -> None:
        if self._end(event.request_id):
            kind = type(event.error).__name__
            self._count_end(event, kind)
            if event.error.partial is not None:
                self._metrics.broken.labels(kind).inc()

    def _on_abandoned(self, event: RequestAbandoned) -> None:
        if self._end(event.request_id):
            self._count_end(event, "abandoned")

    def _count_end(self, event: RequestFailed | RequestAbandoned, outcome: str) -> None:
        operation, model = operation_of(event.endpoint), self._metrics.model(event.model)
        self._metrics.requests.labels(operation, model, outcome).inc()
        self._series_of(event.endpoint, event.model).duration.observe(event.seconds)

    def _on_retried(self, event: RequestRetried) -> None:
        self._metrics.retries.labels(type(event.error).__name__).inc()

    def _on_tool(self, event: ToolFinished | ToolExecutionFailed) -> None:
        result = event.result
        if not result.repeated:
            tool = self._metrics.tool(result.call.name)
            self._metrics.tool_calls.labels(tool, "ok" if result.error is None else type(result.error).__name__).inc()
            self._metrics.tool_duration.labels(tool).observe(result.seconds)

    def _end(self, request_id: str) -> bool:
        """Count a request as ended, and return whether a model was asked."""
        if request_id not in self._running:
            return False
        self._running.discard(request_id)
        self._metrics.running.dec()
        return True

    def _series_of(self, endpoint: str, model: str) -> _Series:
        """Return the time series of an operation and a model; they are cached."""
        labels = (operation_of(endpoint), self._metrics.model(model))
        series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = _Series(self._metrics, *labels)
        return series


class _Series:
    """The time series of one operation and model."""

    def __init__(self, metrics: ClientMetrics, operation: str, model: str) -> None:
        self.ok: Any = metrics.requests.labels(operation, model, "ok")
        self.duration: Any = metrics.duration.labels(operation, model)
        self.first: Any = metrics.first.labels(model)
        self.chunk_time: Any = metrics.chunk_time.labels(model)
        self.queue: Any = metrics.queue.labels(model)
        self.load: Any = metrics.load.labels(model)
        self.input: Any = metrics.tokens.labels(model, "input")
        self.output: Any = metrics.tokens.labels(model, "output")
        self.chunks: Any = metrics.chunks.labels(model)
