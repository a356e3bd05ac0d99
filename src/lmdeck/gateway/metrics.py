"""The gateway's metrics for Prometheus.

They are counted in the hub, so that they cover all processes. All labels are bounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from lmdeck.gateway.admission import RequestOutcome
from lmdeck.gateway.http import HTTPAnswer
from lmdeck.observe.listening import BoundedLabels
from lmdeck.observe.prometheus_metrics import CHUNK_TIMES, DURATIONS

__all__ = ["GatewayMetrics"]


class GatewayMetrics:
    """Counts the outcomes of requests, and shows the state of hosts and queues."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        histogram = partial(Histogram, registry=registry, buckets=DURATIONS)
        self._model, self._key, self._error = BoundedLabels(), BoundedLabels(), BoundedLabels()
        self._requests = counter(
            "lmdeck_gateway_requests", "Requests that ended.", ["endpoint", "model", "host", "status"]
        )
        self._errors = counter("lmdeck_gateway_errors", "Failed requests, by class of error.", ["error"])
        self._duration = histogram(
            "gen_ai_server_request_duration_seconds",
            "Time from the arrival of a request to the end of its answer.",
            ["model"],
        )
        self._first = histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "Time from the arrival of a request to its answer's first bytes.",
            ["model"],
        )
        self._per_token = histogram(
            "gen_ai_server_time_per_output_token_seconds",
            "Mean time per token after the first.",
            ["model"],
            buckets=CHUNK_TIMES,
        )
        self._queue = histogram("lmdeck_gateway_queue_wait_seconds", "Time in the queue.", ["model"])
        self._tokens = counter("lmdeck_gateway_tokens", "Input and output tokens.", ["key", "model", "type"])
        self._problems = counter(
            "lmdeck_gateway_problems",
            "Repairs and other problems of answers, by code and dialect of the call; see the page on problems.",
            ["model", "code", "dialect"],
        )
        self._broken = counter(
            "lmdeck_gateway_broken_answers",
            "Answers that broke off after their beginning, by class of error.",
            ["error", "host"],
        )
        self._repeated = counter(
            "lmdeck_gateway_repeated_attempts", "Attempts after the first attempt of a request.", ["host"]
        )
        self._cache = counter("lmdeck_gateway_cache", "Requests by what the cache did.", ["result"])
        self._open = gauge("lmdeck_gateway_requests_in_progress", "Requests that are open.")
        self._waiting = gauge("lmdeck_gateway_requests_waiting", "Requests in the queue.", ["model"])
        self._running = gauge("lmdeck_gateway_host_requests", "Requests that a host answers.", ["host"])
        self._up = gauge("lmdeck_gateway_host_up", "Whether a host answers and gets requests.", ["host"])

    def note(self, outcome: RequestOutcome) -> None:
        """Count a request that has ended."""
        model = self._model(outcome.model) if outcome.names_model else self._model.known(outcome.model)
        host = outcome.host
        self._requests.labels(outcome.endpoint, model, host, str(outcome.status)).inc()
        self._duration.labels(model).observe(outcome.seconds)
        if outcome.error:
            self._errors.labels(self._error(outcome.error)).inc()
        if outcome.cache:
            self._cache.labels(outcome.cache).inc()
        for (code, dialect), count in outcome.problems.items():
            self._problems.labels(model, code, dialect).inc(count)
        if outcome.is_broken:
            self._broken.labels(self._error(outcome.error), host).inc()
        if outcome.attempts > 1:
            self._repeated.labels(host).inc(outcome.attempts - 1)
        if outcome.attempts:
            self._queue.labels(model).observe(outcome.queue_seconds)
            self._count_answer(outcome, model)

    def page(self, status: Mapping[str, Any]) -> HTTPAnswer:
        """Return the metrics, with the state of hosts and queues that `/gateway/status` shows."""
        self._open.set(status["requests"])
        for host in status["hosts"]:
            is_usable = host["up"] and host["breaker"] != "open" and not host["draining"]
            self._up.labels(host["name"]).set(is_usable)
            self._running.labels(host["name"]).set(host["running"])
        for model, queue in status["queues"].items():
            self._waiting.labels(self._model(model)).set(queue["waiting"])
        return HTTPAnswer(headers={"content-type": CONTENT_TYPE_LATEST}, body=generate_latest(self._registry))

    def _count_answer(self, outcome: RequestOutcome, model: str) -> None:
        key = self._key(outcome.key)
        self._tokens.labels(key, model, "input").inc(outcome.prompt_tokens)
        self._tokens.labels(key, model, "output").inc(outcome.completion_tokens)
        first = outcome.first_token_seconds
        if first is not None:
            self._first.labels(model).observe(first)
            if outcome.completion_tokens > 1:
                self._per_token.labels(model).observe((outcome.seconds - first) / (outcome.completion_tokens - 1))
