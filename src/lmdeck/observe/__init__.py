"""Observers of a client's requests.

Each function takes a client and returns an object with `close()`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmdeck.observe.failure_recordings import RecordFailures
    from lmdeck.observe.open_telemetry import otel
    from lmdeck.observe.prometheus_metrics import prometheus
    from lmdeck.observe.usage_records import usage

__all__ = ["RecordFailures", "otel", "prometheus", "usage"]

_MODULES = {
    "RecordFailures": "failure_recordings",
    "otel": "open_telemetry",
    "prometheus": "prometheus_metrics",
    "usage": "usage_records",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
