"""Write examples/grafana-dashboard.json: `python scripts/grafana_dashboard.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "examples" / "grafana-dashboard.json"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
RATE = "[$__rate_interval]"


def quantile(share: float, metric: str, by: str = "model") -> str:
    return f"histogram_quantile({share}, sum by (le, {by}) (rate({metric}_bucket{RATE})))"


PANELS: list[tuple[str, str, list[tuple[str, str]]]] = [
    ("Requests in progress", "short", [("sum(lmdeck_requests_in_progress)", "in progress")]),
    ("Requests by outcome", "reqps", [(f"sum by (outcome) (rate(lmdeck_requests_total{RATE}))", "{{outcome}}")]),
    ("Tokens per second", "short", [(f"sum by (model, type) (rate(lmdeck_tokens_total{RATE}))", "{{model}} {{type}}")]),
    ("Time to first token, p95", "s", [(quantile(0.95, "lmdeck_time_to_first_token_seconds"), "{{model}}")]),
    ("Duration of requests, p95", "s", [(quantile(0.95, "lmdeck_request_duration_seconds"), "{{model}}")]),
    ("Wait in the queue, p95", "s", [(quantile(0.95, "lmdeck_queue_wait_seconds"), "{{model}}")]),
    ("Time per chunk, median", "s", [(quantile(0.5, "lmdeck_time_per_chunk_seconds"), "{{model}}")]),
    ("Cache", "reqps", [(f"sum by (result) (rate(lmdeck_cache_total{RATE}))", "{{result}}")]),
    ("Repairs and other problems", "short", [(f"sum by (code) (rate(lmdeck_problems_total{RATE}))", "{{code}}")]),
    ("Repaired tool calls by dialect", "short", [
        (f'sum by (dialect) (rate(lmdeck_problems_total{{code="repaired"}}{RATE}))', "{{dialect}}"),
    ]),
    ("Broken streams and retries", "short", [
        (f"sum by (kind) (rate(lmdeck_broken_streams_total{RATE}))", "broken: {{kind}}"),
        (f"sum by (kind) (rate(lmdeck_retries_total{RATE}))", "retried: {{kind}}"),
    ]),
    ("Tool calls", "short", [(f"sum by (tool, outcome) (rate(lmdeck_tool_calls_total{RATE}))", "{{tool}} {{outcome}}")]),
    ("Duration of tools, p95", "s", [(quantile(0.95, "lmdeck_tool_duration_seconds", "tool"), "{{tool}}")]),
    ("Gateway: requests by status", "reqps", [
        (f"sum by (status) (rate(lmdeck_gateway_requests_total{RATE}))", "{{status}}"),
    ]),
    ("Gateway: requests waiting and running", "short", [
        ("sum by (model) (lmdeck_gateway_requests_waiting)", "waiting: {{model}}"),
        ("sum by (host) (lmdeck_gateway_host_requests)", "running: {{host}}"),
    ]),
    ("Gateway: repaired tool calls by dialect", "short", [
        (f'sum by (dialect) (rate(lmdeck_gateway_problems_total{{code="repaired"}}{RATE}))', "{{dialect}}"),
    ]),
    ("Gateway: broken answers by kind", "short", [
        (f"sum by (error, host) (rate(lmdeck_gateway_broken_answers_total{RATE}))", "{{error}} {{host}}"),
    ]),
]  # fmt: skip


def panel(at: int, title: str, unit: str, queries: list[tuple[str, str]]) -> dict[str, Any]:
    return {
        "id": at + 1,
        "type": "timeseries",
        "title": title,
        "datasource": SOURCE,
        "gridPos": {"h": 8, "w": 12, "x": 12 * (at % 2), "y": 8 * (at // 2)},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": {"showPoints": "never"}}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": SOURCE, "expr": query, "legendFormat": legend}
            for number, (query, legend) in enumerate(queries)
        ],
    }


def dashboard() -> dict[str, Any]:
    return {
        "title": "lmdeck",
        "uid": "lmdeck",
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [{"name": "datasource", "type": "datasource", "query": "prometheus"}]},
        "panels": [panel(at, *content) for at, content in enumerate(PANELS)],
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(dashboard(), indent=2) + "\n", encoding="utf-8")
