"""The hosts of a batch, each with separate connections and retries.

A host is an LM Studio server or a gateway. A request is handled as by `lmdeck.relay`: it is adapted to LM Studio, and the
answer is repaired in its own wire format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

import msgspec
from msgspec import Struct

from lmdeck._pipeline.concurrency import DEFAULT_LIMIT
from lmdeck._pipeline.run_plan import drive_async
from lmdeck._plans.generation import choose
from lmdeck._plans.model_lists import ask_listing
from lmdeck._plans.session import Session
from lmdeck._plans.text import choose_embedder
from lmdeck._transport import AsyncTransport
from lmdeck.batch.input_requests import endpoint_of
from lmdeck.batch.ledger import Lease
from lmdeck.errors import EndpointNotFoundError, MalformedStreamError
from lmdeck.relay import RelayReader, Route, begin

FOREIGN_LIMIT = 16
"""Simultaneous requests to a server that does not report its parallel limit; it has its own queue."""


class HostAnswer(Struct, frozen=True, kw_only=True):
    """An answer in its wire format."""

    body: bytes
    status: int = 200
    request_id: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0


class HostState(Struct, frozen=True, kw_only=True):
    """What a host reports: its models, and the parallel limits of the loaded ones.

    `models` is None if the host has no list.
    """

    models: frozenset[str] | None = None
    parallel: Mapping[str, int] = {}
    default_parallel: int = DEFAULT_LIMIT


class BatchHost(Protocol):
    """A server, or several as one, that answers the requests of a batch."""

    @property
    def name(self) -> str:
        """The name in progress and summaries."""
        ...

    async def ask(self, lease: Lease) -> HostAnswer:
        """Return the answer to a request.

        Raises:
            LMStudioError: There is none.
        """
        ...

    async def look_up(self) -> HostState:
        """Return the state of the host.

        Raises:
            LMStudioError: It does not answer.
        """
        ...

    async def aclose(self) -> None:
        """Close its connections."""
        ...


class ServerHost:
    """A server at one address."""

    def __init__(self, session: Session, transport: AsyncTransport) -> None:
        self._session = session
        self._transport = transport

    @property
    def name(self) -> str:
        """The server's root URL."""
        return self._session.address.root

    async def ask(self, lease: Lease) -> HostAnswer:
        """Return the server's answer, repaired.

        Raises:
            LMStudioError: There is none.
        """
        path, kind = endpoint_of(lease.endpoint)
        body = lease.body if lease.model else await self._with_model(lease.body, embeds=kind == "embeddings")
        plan = begin(self._session, "POST", Route(root=self.name, path=path, kind=kind), {}, body)
        stream = await drive_async(plan, self._transport)
        answer = cast("RelayReader", stream.reader).take()
        return HostAnswer(
            body=answer, status=stream.response.status, request_id=stream.call.request_id, **tokens_of(answer)
        )

    async def look_up(self) -> HostState:
        """Return the server's models.

        Raises:
            LMStudioError: It does not answer.
        """
        try:
            listing = await drive_async(ask_listing(self._session, self._session.once), self._transport)
        except (EndpointNotFoundError, MalformedStreamError):
            return HostState(default_parallel=FOREIGN_LIMIT)
        names = {name for model in listing.models for name in (model.key, *(one.id for one in model.instances))}
        parallel = {
            name: one.parallel
            for model in listing.models
            for one in model.instances
            if one.parallel
            for name in (model.key, one.id)
        }
        is_foreign = listing.api == "openai"
        return HostState(
            models=frozenset(names), parallel=parallel, default_parallel=FOREIGN_LIMIT if is_foreign else DEFAULT_LIMIT
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._transport.aclose()

    async def _with_model(self, body: bytes, *, embeds: bool) -> bytes:
        """Return a body with a model: its own, else the client's, a loaded one, or the smallest."""
        plan = choose_embedder(self._session) if embeds else choose(self._session)
        chosen = self._session.settings.model or (None if embeds else self._session.models.chosen)
        chosen = chosen or await drive_async(plan, self._transport)
        return body if chosen is None else msgspec.json.encode({**msgspec.json.decode(body), "model": chosen})


class _Usage(Struct):
    prompt_tokens: Any = None
    input_tokens: Any = None
    completion_tokens: Any = None
    output_tokens: Any = None


class _Used(Struct):
    usage: _Usage | None = None


_decode_usage = msgspec.json.Decoder(_Used).decode


def tokens_of(body: bytes) -> dict[str, int]:
    """Return the prompt and completion tokens of an answer in any wire format; 0 if unknown."""
    try:
        usage = _decode_usage(body).usage
    except msgspec.MsgspecError:
        usage = None
    if usage is None:
        return {"prompt_tokens": 0, "completion_tokens": 0}
    return {
        "prompt_tokens": _count((usage.prompt_tokens, usage.input_tokens)),
        "completion_tokens": _count((usage.completion_tokens, usage.output_tokens)),
    }


def _count(values: Sequence[Any]) -> int:
    return next((value for value in values if isinstance(value, int) and value > 0), 0)
