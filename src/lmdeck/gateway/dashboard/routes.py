"""The dashboard's endpoints: page, files, updates as server-sent events, and usage as CSV.

They are for operators. A browser asks for the operators' token as a password (any user name).
"""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from importlib.resources import files
from typing import Any, Protocol

import msgspec

from lmdeck.gateway.dashboard.view import main_part, page
from lmdeck.gateway.http import Access, Endpoint, HTTPAnswer, HTTPRequest
from lmdeck.gateway.request_history import RANGES, Bucket

__all__ = ["DashboardGateway", "dashboard_routes"]

PERIOD = 1.0
USAGE_DAYS = 30
USAGE_PERIOD = 30.0
_POLICY = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; frame-ancestors 'none'"
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
_FILES = {"style.css": "text/css; charset=utf-8", "live.js": "text/javascript; charset=utf-8"}
_COLUMNS = ("day", "key", "model", "requests", "failures", "prompt_tokens", "completion_tokens", "seconds")


class DashboardGateway(Protocol):
    """What the dashboard needs of a gateway."""

    admission: Any
    is_draining: bool

    async def overview(self, range_name: str) -> tuple[dict[str, Any], list[Bucket]]:
        """Return the state of hosts, models, queues and requests, and the history of a range."""
        ...


def dashboard_routes(gateway: DashboardGateway) -> Iterator[tuple[str, str, Endpoint, Access]]:
    """Yield the endpoints: method, path, endpoint and access."""
    yield "GET", "/dashboard", partial(_page, gateway), "operator"
    yield "GET", "/dashboard/events", partial(_events, gateway), "operator"
    yield "GET", "/dashboard/usage.csv", partial(_usage_csv, gateway), "operator"
    for name in _FILES:
        yield "GET", f"/dashboard/{name}", partial(_file, name), "operator"


async def _page(gateway: DashboardGateway, incoming: HTTPRequest) -> HTTPAnswer:
    name = _range_of(incoming)
    text = page(await _main(gateway, name, await _usage(gateway, ("key", "model"))), name)
    return HTTPAnswer(headers={**_HEADERS, "content-type": "text/html; charset=utf-8"}, body=text.encode())


async def _events(gateway: DashboardGateway, incoming: HTTPRequest) -> HTTPAnswer:
    headers = {**_HEADERS, "content-type": "text/event-stream", "x-accel-buffering": "no"}
    return HTTPAnswer(headers=headers, body=_updates(gateway, _range_of(incoming)))


async def _updates(gateway: DashboardGateway, name: str) -> AsyncIterator[bytes]:
    """Yield the changing part of the page as events, whenever it has changed."""
    loop = asyncio.get_running_loop()
    usage, usage_until, sent = None, 0.0, b""
    while not gateway.is_draining:
        if loop.time() >= usage_until:
            usage, usage_until = await _usage(gateway, ("key", "model")), loop.time() + USAGE_PERIOD
        event = b"data: %b\n\n" % msgspec.json.encode(await _main(gateway, name, usage))
        yield event if event != sent else b": no change\n\n"
        sent = event
        await asyncio.sleep(PERIOD)


async def _main(gateway: DashboardGateway, name: str, usage: list[Mapping[str, Any]] | None) -> str:
    status, series = await gateway.overview(name)
    return main_part(status, series, name, usage)


async def _usage(gateway: DashboardGateway, by: tuple[str, ...]) -> list[Mapping[str, Any]] | None:
    """Return the usage of the last 30 days; None if it is not stored."""
    store = getattr(gateway.admission, "store", None)
    if store is None:
        return None
    since = (datetime.now(UTC) - timedelta(days=USAGE_DAYS)).date().isoformat()
    rows = await asyncio.to_thread(store.usage, by, since=since)
    return [{**msgspec.structs.asdict(row), **row.group} for row in rows]


async def _usage_csv(gateway: DashboardGateway, _: HTTPRequest) -> HTTPAnswer:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(_COLUMNS)
    for row in await _usage(gateway, ("day", "key", "model")) or ():
        writer.writerow([_cell(row[name]) for name in _COLUMNS])
    headers = {
        **_HEADERS,
        "content-type": "text/csv; charset=utf-8",
        "content-disposition": 'attachment; filename="usage.csv"',
    }
    return HTTPAnswer(headers=headers, body=out.getvalue().encode())


def _cell(value: object) -> object:
    """Return a value so that a spreadsheet does not read it as a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in {"=", "+", "-", "@", "\t", "\r"} else value


async def _file(name: str, _: HTTPRequest) -> HTTPAnswer:
    return HTTPAnswer(headers={**_HEADERS, "content-type": _FILES[name]}, body=_content(name))


@cache
def _content(name: str) -> bytes:
    return (files("lmdeck.gateway.dashboard") / name).read_bytes()


def _range_of(incoming: HTTPRequest) -> str:
    name = incoming.query.get("range", "hour")
    return name if name in RANGES else "hour"
