"""The usage and failures of one program's client, in the same store as the gateway's."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit
from weakref import finalize

from lmdeck._usage_store import FailureRecord, GatewayStore, UsageRecord, open_store
from lmdeck.events import RequestAbandoned, RequestFailed, RequestFinished
from lmdeck.messages import Problem
from lmdeck.observe.failure_recordings import RecordFailures
from lmdeck.observe.listening import Client
from lmdeck.stats import Usage

__all__ = ["UsageRecords", "usage"]

_GENERATES = ("completions", "responses", "messages", "chat", "embeddings", "decisions", "systemone")
ABANDONED = "abandoned"
PAUSE_SECONDS = 0.1


class UsageRecords:
    """Records each answer and failure of a client until it is closed; also a context manager."""

    def __init__(self, client: Client, store: GatewayStore, key: str, recorder: RecordFailures | None) -> None:
        self.store = store
        self._close_store = finalize(self, store.close)  # also at the end of the program
        self._host = urlsplit(client.base_url).netloc
        self._key = key
        self._recorder = recorder
        self._subscriptions = [
            client.on(RequestFinished, self._record_answer),
            client.on(RequestFailed, self._record_failure),
            client.on(RequestAbandoned, self._record_abandoned),
        ]

    def close(self) -> None:
        """Stop recording, and write what is queued."""
        for subscription in self._subscriptions:
            subscription.remove()
        self._close_store()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _record_answer(self, event: RequestFinished) -> None:
        if event.usage is None and event.reply is None:  # a list of models, or the like
            return
        self._record(
            event,
            status=event.status,
            usage=event.usage or Usage(),
            queued=event.queue_time,
            first_token=event.time_to_first_token,
            finish_reason=event.finish_reason,
            problems=len(event.problems),
            problem_kinds=_count_kinds(event.problems) if event.problems else {},
            cache=event.cache or "",
        )

    def _record_abandoned(self, event: RequestAbandoned) -> None:
        """Record an abandoned answer: each chunk counts as a token, since the server sent no count."""
        if event.endpoint.endswith(_GENERATES):
            tokens = Usage(completion_tokens=event.chunks, total_tokens=event.chunks)
            self._record(event, usage=tokens, finish_reason=ABANDONED)

    def _record_failure(self, event: RequestFailed) -> None:
        failure = FailureRecord.of(
            event.error,
            id=event.request_id,
            key=self._key,
            model=event.model,
            host=self._host,
            endpoint=event.endpoint,
            seconds=event.seconds,
            cassette=self._recorder.path_of(event.request_id) if self._recorder is not None else "",
        )
        self.store.record_failure(failure)
        if event.endpoint.endswith(_GENERATES):
            partial = event.error.partial
            used = Usage() if partial is None or partial.usage is None else partial.usage
            self._record(event, status=failure.status, usage=used, error=failure.kind)

    def _record(self, event: RequestFinished | RequestFailed | RequestAbandoned, **details: Any) -> None:
        record = UsageRecord(
            id=event.request_id,
            at=time.time(),
            key=self._key,
            model=event.model,
            host=self._host,
            endpoint=event.endpoint,
            seconds=event.seconds,
            **details,
        )
        self.store.post(record)


def _count_kinds(problems: Sequence[Problem]) -> Counter[tuple[str, str]]:
    return Counter((problem.code, problem.dialect) for problem in problems)


def usage(
    client: Client,
    store: str | Path = "usage.db",
    *,
    key: str = "",
    recorder: RecordFailures | None = None,
) -> UsageRecords:
    """Record the usage and failures of a client in a store: a file, or `postgresql://…`.

    Programs may share a store; `key` then distinguishes them. `lmdeck usage --store usage.db` and `lmdeck errors` show
    it. A separate thread writes the records within a tenth of a second; `close` and the end of the program wait for the
    last one. If `recorder` is one of the client's handlers, failures name their recordings.

    Raises:
        ConfigurationError: The store cannot be used.
        StoreError: The store does not answer.
    """
    return UsageRecords(client, open_store(store, pause=PAUSE_SECONDS), key, recorder)
