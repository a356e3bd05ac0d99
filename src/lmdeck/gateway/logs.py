"""JSON logs: one object per line on standard error.

They contain request ids, but no bodies, keys or tokens.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import msgspec

from lmdeck.gateway.admission import RequestOutcome

__all__ = ["JSONFormatter", "log_as_json", "log_outcome"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_requests = logging.getLogger("lmdeck.gateway.requests")


class JSONFormatter(logging.Formatter):
    """Formats a record as a JSON object: time, level, logger, message and the `extra` values."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{name: value for name, value in vars(record).items() if name not in _STANDARD},
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


def log_as_json(level: int = logging.INFO) -> None:
    """Send the logs of lmdeck and uvicorn to standard error as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONFormatter())
    for name, least in (("lmdeck.gateway", level), ("lmdeck", logging.WARNING), ("uvicorn.error", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.setLevel(least)
        if name != "lmdeck.gateway":  # its records reach the handler of `lmdeck`
            logger.handlers = [handler]
            logger.propagate = False


def log_outcome(outcome: RequestOutcome) -> None:
    """Log a request that has ended."""
    if not _requests.isEnabledFor(logging.INFO):
        return
    fields = {name: value for name, value in msgspec.structs.asdict(outcome).items() if value not in ("", None)}
    fields.pop("failure", None)
    for name in ("queue_seconds", "first_token_seconds", "seconds"):
        if name in fields:
            fields[name] = round(fields[name], 4)
    path = fields.pop("path", "")
    _requests.info("%s %s → %d", fields.pop("method", ""), path, outcome.status, extra={"path": path, **fields})
