"""Keys that this package's own servers add to the scope of a request; other servers do not."""

from __future__ import annotations

__all__ = ["ABORT", "ON_LOST", "WRITE"]

ABORT = "lmdeck.abort"
"""The key of a function that aborts the connection."""

ON_LOST = "lmdeck.on_lost"
"""The key of a list of functions to call when the connection is lost."""

WRITE = "lmdeck.write"
"""The key of a function that writes a part of a chunked body and returns whether the client keeps up."""
