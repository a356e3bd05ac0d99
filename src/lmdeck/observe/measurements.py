"""Measurements that are buffered until metrics are collected, or until there are many.

OpenTelemetry's SDK checks, copies and hashes the attributes of each measurement. Between two requests that takes twice as
long as for many in one go, when its code is in the processor's caches. Nothing is lost at a flush or at the end of the program:
the SDK collects by calling the callbacks of observable instruments first (`SynchronousMeasurementConsumer.collect`), and the
callback of one such instrument records the waiting measurements. Any other provider gets the measurements when there are many.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from opentelemetry import context, metrics

from lmdeck._forking import on_fork

__all__ = ["MAX_WAITING", "measurements"]

Record: TypeAlias = Callable[[float, Mapping[str, Any], context.Context], None]
MAX_WAITING = 96


class WaitingMeasurements:
    """The measurements of all clients of the process."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Record, float, Mapping[str, Any], context.Context]] = deque()
        on_fork(self, WaitingMeasurements._after_fork)

    def add(self, record: Record, value: float, labels: Mapping[str, Any]) -> None:
        """Add a call of an instrument's `add` or `record`, in the current context.

        `labels` must not change any more.
        """
        self._waiting.append((record, value, labels, context.get_current()))
        if len(self._waiting) >= MAX_WAITING:
            self.record()

    def record(self) -> None:
        """Record the waiting measurements."""
        while self._waiting:
            try:
                record, value, labels, measured_in = self._waiting.popleft()
            except IndexError:  # another thread has taken the last one
                return
            record(value, labels, measured_in)

    def record_at_collection(self, meter: metrics.Meter) -> None:
        """Record the waiting measurements whenever the meter's provider collects metrics.

        An SDK ignores the callback of a second instrument with the same name, so there is one callback for all clients.
        """
        meter.create_observable_gauge("lmdeck.waiting_measurements", [_record_at_collection])

    def _after_fork(self) -> None:
        self._waiting.clear()  # the parent records them


def _record_at_collection(_: metrics.CallbackOptions) -> Iterable[metrics.Observation]:
    """Record the waiting measurements; nothing is observed."""
    measurements.record()
    return ()


measurements = WaitingMeasurements()
