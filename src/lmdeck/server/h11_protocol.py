"""HTTP/1.1 on h11, for platforms that httptools has no wheels for."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

from lmdeck.server.joined_writes import JoinedWrites

__all__ = ["JoinedH11Protocol"]


class JoinedH11Protocol(H11Protocol):
    """uvicorn's protocol on h11, which limits a head itself, over joined writes."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Begin a connection."""
        super().connection_made(JoinedWrites(transport))
