"""The dashboard's HTML, from the gateway's status.

All values are escaped.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from lmdeck.gateway.dashboard.charts import bar_chart
from lmdeck.gateway.request_history import RANGES, Bucket

Row = Mapping[str, Any]
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>lmdeck gateway</title>
<link rel="stylesheet" href="/dashboard/style.css">
<script src="/dashboard/live.js" defer></script>
</head>
<body data-range="{range}">
<svg width="0" height="0" aria-hidden="true"><defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse"
 patternTransform="rotate(45)"><rect width="6" height="6" class="hatch-ground"/><rect width="3" height="6" class="hatch-line"/>
</pattern></defs></svg>
<header><h1>lmdeck gateway</h1><p id="connection" role="status">connecting …</p></header>
<main>{main}</main>
</body>
</html>
"""


def page(main: str, range_name: str) -> str:
    """Return the whole page."""
    return PAGE.format(main=main, range=escape(range_name))


def main_part(status: Row, series: Sequence[Bucket], range_name: str, usage: Sequence[Row] | None) -> str:
    """Return the part that is updated while the page is open."""
    return "".join(
        (
            _tiles(status),
            _section("Hosts", _hosts(status["hosts"])),
            _section("Models", _models(status)),
            _section("Open requests", _live(status["live"])),
            _section("Activity", _ranges(range_name) + _charts(series, range_name)),
            _section("Answer problems", _problems(status)),
            _section("Recent failures", _errors(status["errors"])),
            _section("Usage in the last 30 days", _usage(usage)),
        )
    )


def _tiles(status: Row) -> str:
    totals = status["totals"]
    usable = sum(host["up"] and not host["draining"] for host in status["hosts"])
    waiting = sum(queue["waiting"] for queue in status["queues"].values())
    tiles = (
        ("hosts in use", f"{usable} of {len(status['hosts'])}", usable < len(status["hosts"])),
        ("open requests", status["requests"], False),
        ("waiting", waiting, waiting > 0),
        ("requests", totals["requests"], False),
        ("failed", totals["errors"], totals["errors"] > 0),
        ("from the cache", totals["hits"], False),
        ("repairs", totals["problems"], False),
    )
    items = (
        f"<li{' class=warn' if is_warning else ''}><b>{escape(str(value))}</b> {escape(name)}</li>"
        for name, value, is_warning in tiles
    )
    return f'<ul class="tiles">{"".join(items)}</ul>'


def _hosts(hosts: Iterable[Row]) -> str:
    rows = (
        (
            escape(host["name"]),
            _state(host),
            escape(str(host["running"])),
            escape(_loaded(host)),
            escape(host["error"] or ""),
            _button(
                f"drain-{host['name']}",
                "Resume" if host["draining"] else "Drain",
                f"/gateway/hosts/{host['name']}/drain",
                '{"drain": %s}' % ("false" if host["draining"] else "true"),
            ),
        )
        for host in hosts
    )
    return _table(("host", "state", "running", "loaded models", "error", ""), rows)


def _loaded(host: Row) -> str:
    if not host["up"]:
        return ""
    return ", ".join(name for name, model in host["models"].items() if model["loaded"]) or "none"


def host_state(host: Row) -> tuple[str, str]:
    """Return the state of a host as a mark and a word."""
    if not host["up"]:
        return "✗", "down"
    if host["draining"]:
        return "‖", "draining"
    if host["breaker"] == "open":
        return "!", "failing"
    return ("◔", f"loading {host['loading']}") if host["loading"] else ("✓", "up")


def _state(host: Row) -> str:
    mark, word = host_state(host)
    kind = {"✓": "good", "✗": "bad"}.get(mark, "warn")
    return f'<span class="{kind}">{mark} {escape(word)}</span>'


def _models(status: Row) -> str:
    rows = (
        (
            escape(model),
            str(queue["running"]),
            str(queue["waiting"]),
            _seconds(queue["oldest_wait"]),
            _seconds(queue["service_seconds"]),
            escape(
                ", ".join(f"{one['key'] or 'anonymous'} {_seconds(one['waited'])}" for one in queue["requests"][:3])
            ),
        )
        for model, queue in status["queues"].items()
    )
    return _table(("model", "running", "waiting", "longest wait", "average answer", "first in the queue"), rows)


def _live(live: Iterable[Row]) -> str:
    rows = (
        (
            escape(one["model"]),
            escape(one["key"]),
            escape(one["host"]),
            escape(one["phase"]),
            _seconds(one["seconds"]),
            "" if one["chunks_per_second"] is None else f"{one['chunks_per_second']:.0f}/s",
            _button(f"cancel-{one['request_id']}", "Stop", f"/gateway/requests/{one['request_id']}/cancel", "{}"),
        )
        for one in live
    )
    return _table(("model", "key", "host", "phase", "duration", "chunks", ""), rows)


def _ranges(chosen: str) -> str:
    links = (
        f'<a href="/dashboard?range={name}"{" aria-current=page" if name == chosen else ""}>{name}</a>'
        for name in RANGES
    )
    return f'<nav aria-label="Range">{"".join(links)}</nav>'


def _charts(series: Sequence[Bucket], range_name: str) -> str:
    charts = (
        bar_chart("Requests", series, "requests", range_name, part="errors")
        + bar_chart("Tokens written", series, "tokens", range_name)
        + bar_chart("Longest wait in the queue, seconds", series, "longest_queue", range_name, total=max)
    )
    return f'<div class="charts">{charts}</div>'


def _problems(status: Row) -> str:
    """Return the repairs of answers and the answers that broke off, counted since the start."""
    rows = [(escape(one["code"]), escape(one["dialect"]), f"{one['count']:,}") for one in status["problems"]]
    rows += [(f"broken off: {escape(error)}", "", f"{count:,}") for error, count in status["broken"].items()]
    return _table(("problem", "dialect", "answers"), rows)


def _errors(errors: Iterable[Row]) -> str:
    rows = (
        (
            time.strftime("%H:%M:%S", time.localtime(one["at"])),
            escape(one["error"]),
            escape(one["model"]),
            escape(one["host"]),
            escape(one["key"]),
            escape(f"{one['message']} {one['hint']}".strip()),
        )
        for one in list(errors)[:20]
    )
    return _table(("time", "error", "model", "host", "key", "message"), rows)


def _usage(usage: Sequence[Row] | None) -> str:
    if usage is None:
        return "<p>Usage is not stored. Require keys, or set `url` in [store], to store it.</p>"
    rows = (
        (escape(row["key"] or "anonymous"), escape(row["model"]), *(f"{row[name]:,}" for name in USAGE_FIGURES))
        for row in usage
    )
    table = _table(("key", "model", *USAGE_FIGURES.values()), rows)
    return f'{table}<p><a href="/dashboard/usage.csv">Usage by day, key and model as CSV</a></p>'


USAGE_FIGURES = {
    "requests": "requests", "failures": "failed", "prompt_tokens": "tokens read", "completion_tokens": "tokens written",
}  # fmt: skip


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of HTML cells; on a narrow screen each is labelled with its column."""
    body = "".join(
        "<tr>"
        + "".join(f'<td data-label="{escape(name)}">{cell}</td>' for name, cell in zip(head, row, strict=True))
        + "</tr>"
        for row in rows
    )
    if not body:
        return '<p class="none">none</p>'
    titles = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"


def _button(id_: str, label: str, path: str, body: str) -> str:
    return f'<button id="{escape(id_)}" data-post="{escape(path)}" data-body="{escape(body)}">{escape(label)}</button>'


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s"
