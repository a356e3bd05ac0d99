"""Files and batches as stored, and as OpenAI's API shows them.

Source: platform.openai.com/docs/api-reference/batch/object.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

__all__ = ["OVER", "Batch", "BatchError", "BatchStatus", "StoredFile"]

BatchStatus: TypeAlias = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]
OVER: frozenset[BatchStatus] = frozenset({"failed", "completed", "expired", "cancelled"})


class StoredFile(Struct, frozen=True, kw_only=True):
    """A file of a key's holder; `bytes` is its size, times are Unix time."""

    id: str
    owner: str
    filename: str
    purpose: str
    bytes: int
    created_at: int
    expires_at: int | None = None

    def to_openai(self) -> dict[str, Any]:
        """Return the file as OpenAI's API does."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
        }


class BatchError(Struct, frozen=True, kw_only=True):
    """Why the input of a batch was refused."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


class Batch(Struct, frozen=True, kw_only=True):
    """A batch of a key's holder; times are Unix time.

    `completion_window` is a duration such as `24h`; `output_seconds` is how long its output files are kept.
    """

    id: str
    owner: str
    endpoint: str
    input_file_id: str
    completion_window: str
    created_at: int
    expires_at: int
    status: BatchStatus = "validating"
    output_file_id: str | None = None
    error_file_id: str | None = None
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    errors: list[BatchError] = []
    total: int = 0
    completed: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    metadata: dict[str, str] | None = None
    output_seconds: int | None = None

    @property
    def is_over(self) -> bool:
        """Whether the batch has reached a final state."""
        return self.status in OVER

    def to_openai(self) -> dict[str, Any]:
        """Return the batch as OpenAI's API does."""
        shown = msgspec.to_builtins(self)
        for name in ("owner", "total", "completed", "failed", "prompt_tokens", "completion_tokens", "output_seconds"):
            del shown[name]
        return {
            **shown,
            "object": "batch",
            "errors": {"object": "list", "data": shown["errors"]} if self.errors else None,
            "request_counts": {"total": self.total, "completed": self.completed, "failed": self.failed},
            "usage": {
                "input_tokens": self.prompt_tokens,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": self.completion_tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": self.prompt_tokens + self.completion_tokens,
            },
        }
