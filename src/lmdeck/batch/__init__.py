"""Batches: many requests over one or many hosts, each answered once, even after a kill.

`LMStudio.batch` returns a `BatchJob`; `lmdeck batch` is the same on the command line.
"""

from __future__ import annotations

from lmdeck.batch.input_requests import BatchOptions
from lmdeck.batch.job import AsyncBatchJob, BatchJob, BatchRow
from lmdeck.batch.ledger import RowError
from lmdeck.batch.progress import BatchProgress, BatchSummary, HostProgress
from lmdeck.batch.worker import WorkerLimits

__all__ = [
    "AsyncBatchJob",
    "BatchJob",
    "BatchOptions",
    "BatchProgress",
    "BatchRow",
    "BatchSummary",
    "HostProgress",
    "RowError",
    "WorkerLimits",
]
