"""The gateway's hosts together, as one host of a batch.

A row is admitted, routed and recorded like a client's request.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Protocol

from lmdeck._pipeline.concurrency import DEFAULT_LIMIT
from lmdeck.batch.batch_hosts import HostAnswer, HostState
from lmdeck.batch.input_requests import endpoint_of
from lmdeck.batch.ledger import Lease
from lmdeck.errors import LMStudioError
from lmdeck.gateway.admission import AdmissionRefused, AdmissionRequest, AdmittedRequest, RequestOutcome
from lmdeck.gateway.hub import AnyHub
from lmdeck.gateway.request_handlers import AnyGateway, GatewayRequest
from lmdeck.relay import Route

__all__ = ["BatchGateway", "GatewayHost"]


class BatchGateway(AnyGateway, Protocol):
    """What batches need of a gateway."""

    hub: AnyHub
    observers: list[Callable[[RequestOutcome], object]]


class GatewayHost:
    """All hosts of a gateway, for the batches of one key."""

    name = "gateway"

    def __init__(self, gateway: BatchGateway, owner: str) -> None:
        self._gateway = gateway
        self._owner = owner

    async def ask(self, lease: Lease) -> HostAnswer:
        """Return the answer to a request; it waits for all requests that are not in the background.

        Raises:
            LMStudioError: It is not admitted, or not answered.
        """
        gateway = self._gateway
        path, kind = endpoint_of(lease.endpoint)
        outcome = RequestOutcome(
            request_id=f"req_{random.getrandbits(64):016x}",
            started_at=time.time(),
            key=self._owner,
            endpoint=kind,
            method="POST",
            path=path,
        )
        started = gateway.clock()
        admitted: AdmittedRequest | None = None
        try:
            principal = await gateway.admission.principal_of(self._owner)
            request = await gateway.request_of(
                outcome, principal, Route(root="http://gateway", path=path, kind=kind), lease.body
            )
            request.is_background = True
            ask = AdmissionRequest(
                request_id=outcome.request_id, endpoint=kind, model=request.model, tokens=request.tokens
            )
            admitted = await gateway.admission.admit(principal, ask)
            answer = await self._answered(request)
        except AdmissionRefused as refused:
            outcome.error, outcome.failure = type(refused.error).__name__, refused.error
            raise refused.error from refused
        except LMStudioError as error:
            outcome.error, outcome.failure = type(error).__name__, error
            raise
        finally:
            outcome.seconds = gateway.clock() - started
            if admitted is not None:
                await admitted.settle(outcome)
            for observer in gateway.observers:
                observer(outcome)
        return answer

    async def _answered(self, request: GatewayRequest) -> HostAnswer:
        outcome = request.outcome
        answer = await self._gateway.answer(request)
        async with aclosing(answer.chunks) as chunks:
            body = b"".join([chunk async for chunk in chunks])
        if outcome.failure is not None:  # it occurred after the first bytes
            raise outcome.failure
        outcome.status = answer.status
        return HostAnswer(
            body=body,
            status=answer.status,
            request_id=outcome.request_id,
            prompt_tokens=outcome.prompt_tokens,
            completion_tokens=outcome.completion_tokens,
        )

    async def look_up(self) -> HostState:
        """Return the number of parallel requests of each model over all hosts.

        One slot of each host is left free for other requests.
        """
        capacity = await self._gateway.hub.capacity()
        parallel = dict(capacity.parallel)
        for alias in self._gateway.config.aliases:
            parallel[alias] = sum(parallel.get(name, 0) for name in self._gateway.config.models_of(alias))
        known = {name: count for name, count in parallel.items() if count}
        return HostState(parallel=known, default_parallel=DEFAULT_LIMIT * capacity.hosts)

    async def aclose(self) -> None:
        """Do nothing: the connections are the gateway's."""
