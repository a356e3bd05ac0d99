"""One relayed request: from its arrival to the end of its answer."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any, Protocol

from lmdeck._requests.token_estimates import TokenEstimator
from lmdeck.errors import LMStudioError
from lmdeck.gateway.admission import AdmissionRefused, AdmissionRequest, AdmittedRequest, RequestOutcome
from lmdeck.gateway.answer_sender import AnswerSender
from lmdeck.gateway.errors import internal_error, shutting_down
from lmdeck.gateway.http import HTTPRequest, error_response
from lmdeck.gateway.request_handlers import AnyGateway, GatewayAnswer, GatewayRequest, HostChunks
from lmdeck.relay import route_of

__all__ = ["RelayGateway", "RelayedRequest"]

MIN_SAMPLE = 200  # tokens of a prompt from which estimates are learned: a short one is mostly template
_log = logging.getLogger("lmdeck.gateway")


class RelayGateway(AnyGateway, Protocol):
    """The gateway, as seen by a relayed request."""

    estimator: TokenEstimator
    is_draining: bool


class RelayedRequest:
    """One relayed request."""

    def __init__(self, gateway: RelayGateway, incoming: HTTPRequest, delivery: AnswerSender) -> None:
        self.gateway = gateway
        self.incoming = incoming
        self.delivery = delivery
        self.route = route_of(incoming.method, incoming.url)
        self.admitted: AdmittedRequest | None = None
        self._body = b""
        self._started = gateway.clock()
        self._request: GatewayRequest | None = None
        self._response: GatewayAnswer | None = None
        self._is_settled = False
        self.outcome = RequestOutcome(
            request_id=f"req_{random.getrandbits(64):016x}",
            started_at=time.time(),
            endpoint=self.route.kind,
            method=incoming.method,
            path=self.route.path.partition("?")[0],
        )

    def status(self) -> dict[str, Any]:
        """Return the state of the request; `chunks` is how many chunks its client received."""
        outcome, now = self.outcome, self.gateway.clock()
        first = outcome.first_token_seconds
        answering = now - self._started - first if first is not None else 0.0
        chunks = self.delivery.chunks
        return {
            "request_id": outcome.request_id,
            "key": outcome.key,
            "model": outcome.model,
            "host": outcome.host,
            "endpoint": outcome.endpoint,
            "phase": self._phase(),
            "seconds": round(now - self._started, 3),
            "chunks": chunks,
            "chunks_per_second": round(chunks / answering, 1) if answering > 0 else None,
        }

    def _phase(self) -> str:
        if self.outcome.first_token_seconds is not None:
            return "answering"
        if self.outcome.attempts:
            return "prompt"
        return "arriving" if self.admitted is None else "queued"

    async def read(self) -> bool:
        """Authenticate the client and read the body; after a refusal, send it and return False."""
        try:
            if self.gateway.is_draining:
                raise shutting_down()
            self.incoming.principal = await self.gateway.admission.authenticate(self.incoming.headers)
            self.outcome.key = self.incoming.principal.name
            self._body = await self.incoming.body()
        except AdmissionRefused as refused:
            await self._fail(refused.error, refused.headers)
            return False
        except LMStudioError as error:
            await self._fail(error)
            return False
        return True

    async def run(self) -> None:
        """Answer the request; failures are sent in the format of its endpoint."""
        self.delivery.task = asyncio.current_task()
        try:
            await self._answer()
        except AdmissionRefused as refused:
            await self._fail(refused.error, refused.headers)
        except LMStudioError as error:
            await self._fail(error)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self.delivery.stopped_by is None or task is None:
                raise
            task.uncancel()
            await self._fail(self.delivery.stopped_by)
        except Exception as error:
            _log.exception("%s %s failed", self.outcome.method, self.outcome.path)
            await self._fail(internal_error(error))
        finally:
            await self.delivery.end_heartbeats()

    async def settle(self) -> None:
        """Record how the request ended, once."""
        if self._is_settled:
            return
        self._is_settled = True
        self.outcome.seconds = self.gateway.clock() - self._started
        if self.admitted is not None:
            await self.admitted.settle(self.outcome)

    async def _answer(self) -> None:
        request = self._request = await self._converted()
        outcome, gateway = self.outcome, self.gateway
        ask = AdmissionRequest(
            request_id=outcome.request_id, endpoint=request.kind, model=request.model, tokens=request.tokens
        )
        self.admitted = await gateway.admission.admit(request.principal, ask)
        if request.streams:
            self.delivery.start_heartbeats(gateway.config.queue.heartbeat, self._own_headers())
        answer = self._response = await gateway.answer(request)
        self._body = b""  # not needed while the answer is streamed, which may take minutes
        request.forget_input()
        self.incoming.forget_headers()
        outcome.first_token_seconds = gateway.clock() - self._started
        outcome.status = answer.status
        headers, answer.headers = {**answer.headers, **self._own_headers()}, {}
        async with aclosing(answer.chunks) as chunks:
            if request.streams or request.relay is None:
                await self.delivery.start(answer.status, headers)
                headers.clear()
                if request.streams and answer.status == 200 and isinstance(answer.chunks, HostChunks):
                    answer.chunks.write_now = self.delivery.write_now
                async for chunk in chunks:
                    await self.delivery.write(chunk)
                await self.delivery.end()
            else:
                body = b"".join([chunk async for chunk in chunks])
                await self.settle()
                await self.delivery.start(answer.status, {**headers, "content-length": str(len(body))})
                await self.delivery.end(body)
        if request.relay is not None and request.prompt_tokens >= MIN_SAMPLE and not outcome.error:
            gateway.estimator.learn_from(outcome.model, request.prompt_tokens, outcome.prompt_tokens)

    async def _converted(self) -> GatewayRequest:
        incoming = self.incoming
        request = await self.gateway.request_of(
            self.outcome, incoming.principal, self.route, self._body, incoming.method, incoming.headers
        )
        request.settle = self.settle
        return request

    def _own_headers(self) -> dict[str, str]:
        limits = {} if self.admitted is None else self.admitted.headers
        return {"x-request-id": self.outcome.request_id, **limits}

    async def _fail(self, error: LMStudioError, headers: Mapping[str, str] | None = None) -> None:
        """Send an error: as a response or, after the start of a stream, as its last event."""
        delivery, outcome = self.delivery, self.outcome
        outcome.error, outcome.failure = outcome.error or type(error).__name__, outcome.failure or error
        error.request_id = outcome.request_id
        if delivery.is_ended:
            return
        await delivery.end_heartbeats()
        if delivery.is_started:
            if event := self._error_event(error):
                await self.settle()
                await delivery.end(event)
            else:  # without an error event, only an aborted connection reports the failure
                delivery.abort()
            return
        answer = error_response(self.route.kind, error, {**(headers or {}), **self._own_headers()})
        outcome.status = answer.status
        await self.settle()
        assert isinstance(answer.body, bytes)
        await delivery.start(answer.status, {**answer.headers, "content-length": str(len(answer.body))})
        await delivery.end(answer.body)

    def _error_event(self, error: LMStudioError) -> bytes:
        """Return the event that ends a stream that has begun, if only with heartbeats."""
        if self._response is not None:
            return self._response.error_event(error)
        relay = None if self._request is None else self._request.relay
        return b"" if relay is None else relay.reader(200, {}).error_event(error)
