"""Recordings of failed requests, one file each, for `lmdeck replay` and for bug reports."""

from __future__ import annotations

import logging
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from lmdeck._files import create_private_file
from lmdeck._recordings.cassette import RecordedExchange, RecordedPiece
from lmdeck._recordings.redaction import redact
from lmdeck.errors import APIError, FileWriteError, LMStudioError
from lmdeck.handlers import Call, Handler, Plan, R, ResponseStream, StreamObserver

__all__ = ["RecordFailures"]

_log = logging.getLogger("lmdeck.observe")
MAX_FILES = 1000
MAX_BYTES = 4 << 20
FILES_BETWEEN_TRIMS = 50
_NOT_IN_NAMES = re.compile(r"[^\w.-]", re.ASCII)


class RecordFailures:
    """A handler factory that records failed requests with the bytes that preceded the failure.

        recorder = lmdeck.observe.RecordFailures("failures")
        lm = lmdeck.LMStudio(handlers=[recorder])

    Recordings contain prompts and answers, without tokens and other secrets; only the owner can read them. The last `keep`
    files are kept, and of each answer its first 4 MiB. Requests without a body, such as lists of models, are not recorded.
    """

    def __init__(self, folder: str | Path, *, keep: int = MAX_FILES) -> None:
        self._folder = Path(folder)
        self._keep = keep
        self._written = 0

    def __call__(self, inner: Handler) -> Handler:
        """Return a handler around the next one."""
        return _Recorder(inner, self)

    def path_of(self, request_id: str) -> str:
        """Return the path of a request's recording, whether or not it exists."""
        return str(self._folder / f"{_NOT_IN_NAMES.sub('_', request_id)[:100]}.jsonl")

    def write(self, request_id: str, exchange: RecordedExchange) -> None:
        """Write a recording, and remove the oldest ones beyond the limit.

        An error, such as a full disk, is logged and does not affect the request.
        """
        path = Path(self.path_of(request_id))
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            create_private_file(path)
            path.write_bytes(msgspec.json.encode(exchange) + b"\n")
            self._written += 1
            if self._written % FILES_BETWEEN_TRIMS == 1:
                self._trim()
        except (OSError, FileWriteError) as error:
            _log.warning("A failed request could not be recorded: %s", error)

    def _trim(self) -> None:
        files = sorted(self._folder.glob("*.jsonl"), key=lambda path: path.stat().st_mtime)
        for path in files[: -self._keep]:
            path.unlink(missing_ok=True)


class _Recorder:
    """The handler of one client."""

    def __init__(self, inner: Handler, recordings: RecordFailures) -> None:
        self._inner = inner
        self._recordings = recordings

    def __call__(self, call: Call[R]) -> Plan[ResponseStream[R]]:
        """Return a plan of the call.

        Raises:
            LMStudioError: What the next handler raises.
        """
        return self._inner(call) if call.request.body is None else self._recorded(call)

    def _recorded(self, call: Call[R]) -> Plan[ResponseStream[R]]:
        recording = _Recording(call, self._recordings)
        try:
            stream = yield from self._inner(call)
        except LMStudioError as error:
            recording.on_failed(error)
            raise
        recording.follow(stream)
        return stream


class _Recording(StreamObserver):
    """The recording of one request, which is written if the request fails."""

    def __init__(self, call: Call[Any], recordings: RecordFailures) -> None:
        self._request = call.request
        self._id = call.request.headers.get("X-Request-Id") or call.request_id
        self._recordings = recordings
        self._started = time.monotonic()
        self._received: list[tuple[bytes, float]] = []
        self._remaining = MAX_BYTES
        self._status = 0
        self._headers: dict[str, str] = {}

    def follow(self, stream: ResponseStream[Any]) -> None:
        """Collect the bytes of an answer that has begun."""
        self._status, self._headers = stream.response.status, dict(stream.response.headers)
        stream.observe(self)

    def on_data(self, data: bytes) -> None:
        """Record bytes of the answer, up to a limit."""
        if data and self._remaining > 0:
            self._remaining -= len(data)
            self._received.append((data, time.monotonic() - self._started))

    def on_finished(self) -> None:
        """Discard a complete answer."""
        self._received.clear()

    def on_failed(self, error: LMStudioError) -> None:
        """Write the recording."""
        if not self._status:
            self._read_error(error)
        exchange = RecordedExchange(
            method=self._request.method,
            path=urlsplit(self._request.url).path,
            request_headers=dict(self._request.headers),
            status=self._status,
            headers=self._headers,
            pieces=[RecordedPiece.of(data, at) for data, at in self._received],
            ended=f"{type(error).__name__}: {error.message}",
        )
        redact(exchange, self._request.body or b"")
        self._recordings.write(self._id, exchange)

    def _read_error(self, error: LMStudioError) -> None:
        """Record, from the error, an answer that failed before its first chunk."""
        if isinstance(error, APIError) and error.body is not None:
            self._status = error.status
            self.on_data(error.body.encode() if isinstance(error.body, str) else msgspec.json.encode(error.body))
        elif error.partial is not None and error.partial.raw:
            raw = error.partial.raw
            self._status = 200
            self.on_data(raw if isinstance(raw, bytes) else b"".join(b"data: %b\n\n" % event for event in raw))
