"""The dispatcher: sends a request to the host that the scheduler chooses.
If that fails, it sends the request to another host.

A request is sent again only while no part of its answer has been passed on; afterwards a failure is an error in the
client's format.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from typing import Any, cast

import msgspec

from lmdeck._client.plans.models import load, unload
from lmdeck._pipeline.exchange import ResponseStream
from lmdeck._pipeline.retry import may_have_begun
from lmdeck._pipeline.run_plan import drive_async
from lmdeck._transport import AsyncResponse
from lmdeck.cache import has_flaws
from lmdeck.errors import (
    APIError,
    AuthenticationError,
    EndpointNotFoundError,
    IncompleteStreamError,
    LMStudioError,
    ModelLoadError,
    ModelNotFoundError,
    NoModelLoadedError,
    ServerError,
    ServerUnreachableError,
    TransportError,
)
from lmdeck.gateway.config import Config
from lmdeck.gateway.handlers import GatewayAnswer, GatewayRequest
from lmdeck.gateway.hosts import Host
from lmdeck.gateway.http import HTTPAnswer
from lmdeck.gateway.load_guard import LoadGuard
from lmdeck.gateway.scheduler import Scheduler, Slot, Ticket
from lmdeck.gateway.sticky import StickyHosts
from lmdeck.relay import RelayReader, Route, begin_request, pass_on
from lmdeck.stats import Usage
from lmdeck.web.trust import SAFE_METHODS

__all__ = ["Dispatcher"]

_FORWARDED = frozenset(
    {"accept", "content-type", "anthropic-version", "anthropic-beta", "openai-beta", "traceparent", "tracestate"}
)
_NOT_LOADED = (ModelNotFoundError, NoModelLoadedError)
_ELSEWHERE = (*_NOT_LOADED, ModelLoadError, EndpointNotFoundError, IncompleteStreamError)
_RESPONSE_ID = re.compile(rb'"(?:response_)?id": ?"(resp_[A-Za-z0-9_-]{1,100})"')
NATIVE_CHAT = "/api/v1/chat"
_PAUSE = 0.2  # seconds before the same host is tried again, if there is no other
_log = logging.getLogger("lmdeck.gateway")


class Dispatcher:
    """Answers requests from the hosts."""

    def __init__(self, config: Config, scheduler: Scheduler, sticky: StickyHosts, guard: LoadGuard) -> None:
        self.config = config
        self.guard = guard
        self._scheduler = scheduler
        self._sticky = sticky

    async def answer(self, request: GatewayRequest) -> GatewayAnswer:
        """Send a request to a host and return its answer, once its first bytes are known.

        Raises:
            LMStudioError: Every attempt failed, or the request is invalid.
        """
        if not request.model:
            return await self._from_any_host(request)
        outcome, clock = request.outcome, self._scheduler.clock
        models = self.config.models_of(request.model)
        bound = self._sticky.key_of(request.headers, request.principal.name, request.model, request.given)
        unfit = self._hosts_without(request.given.get("previous_response_id"))
        excluded = unfit
        failure: LMStudioError | None = None
        for attempt in range(1, self.config.routing.attempts + 1):
            model = self._scheduler.usable_model(models, excluded)
            sticky = self._sticky.host_of(bound)
            ticket = Ticket(
                outcome.request_id,
                request.principal.name,
                request.tokens,
                sticky,
                frozenset(excluded),
                is_background=request.is_background,
            )
            queued_at = clock()
            try:
                slot = await self._scheduler.acquire(model, ticket)
            except LMStudioError as error:
                raise failure or error from None
            finally:
                outcome.queue_seconds += clock() - queued_at
            outcome.attempts, outcome.host, outcome.model = attempt, slot.host.name, model
            try:
                stream = await self._begin(slot, request, model)
            except LMStudioError as error:
                failure = self._judged(slot.host, model, error)
                if not _may_be_repeated(request, failure):
                    raise failure from error
                _log.warning(
                    "attempt %d on host %s failed: %s", attempt, slot.host.name, failure.message,
                    extra={"request_id": outcome.request_id, "host": slot.host.name},
                )  # fmt: skip
                excluded = await self._after_failure(slot.host, models, excluded) or unfit
                continue
            self._sticky.bind(bound, slot.host.name)
            return self._answer_of(stream, slot, request)
        raise failure or ServerError("No attempt was made.", status=503)

    async def _from_any_host(self, request: GatewayRequest) -> GatewayAnswer:
        """Pass a request that names no model to the least busy host."""
        usable = [host for host in self._scheduler.hosts if host.is_usable]
        if not usable:
            raise ServerError("No host can answer now.", status=503, code="no_host_available", retry_after=2.0)
        host = min(usable, key=lambda host: sum(host.running.values()) / host.config.weight)
        request.outcome.attempts, request.outcome.host = 1, host.name
        slot = Slot(self._scheduler, host, "", is_first=False)
        try:
            stream = await self._begin(slot, request, "")
        except LMStudioError as error:
            raise self._judged(host, "", error) from None
        return self._answer_of(stream, slot, request)

    async def pass_to(self, host: Host, method: str, route: Route, body: bytes) -> HTTPAnswer:
        """Send a request to a host unchanged, and return its whole answer.

        Raises:
            LMStudioError: The host has refused it, or cannot be reached.
        """
        plan = pass_on(host.session, method, route, {"Content-Type": "application/json"} if body else {}, body or None)
        stream = await drive_async(plan, host.transport)
        reader = cast("RelayReader", stream.reader)
        try:
            parts = [reader.take()]
            while stream.has_more():
                await _read_on(stream, cast("AsyncResponse", stream.response))
                parts.append(reader.take())
        finally:
            stream.close()
        headers = {**reader.head(), "x-lmdeck-host": host.name}
        return HTTPAnswer(status=stream.response.status, headers=headers, body=b"".join(parts))

    def _hosts_without(self, response_id: object) -> set[str]:
        """Return the hosts that cannot continue a stored response because another one made it."""
        owner = self._sticky.host_of(self._sticky.response_key(response_id)) if isinstance(response_id, str) else None
        names = {host.name for host in self._scheduler.hosts}
        return names - {owner} if owner in names else set()

    async def _after_failure(self, host: Host, models: list[str], excluded: set[str]) -> set[str]:
        """Return the hosts that the next attempt avoids.
        Those are the ones that failed, or none if no other is left.
        """
        avoided = excluded | {host.name}
        if any(
            other.is_usable and other.name not in avoided and any(map(other.has, models))
            for other in self._scheduler.hosts
        ):
            return avoided
        await asyncio.sleep(_PAUSE)
        return set()

    async def _begin(self, slot: Slot, request: GatewayRequest, model: str) -> ResponseStream[Any]:
        """Send a request and return its answer, once its first bytes are known.
        On failure the slot is released.
        """
        try:
            return await self._send(slot, request, model)
        except BaseException:
            slot.release()
            raise

    async def _send(self, slot: Slot, request: GatewayRequest, model: str) -> ResponseStream[Any]:
        host = slot.host
        headers = {_title(name): value for name, value in request.headers.items() if name in _FORWARDED}
        headers["X-Request-Id"] = request.outcome.request_id
        if request.relay is not None:
            request.relay.use_model(model)
            plan = begin_request(host.session, request.route, request.relay, headers)
        else:
            body = request.body
            if request.given and request.given.get("model") != model and model:
                body = msgspec.json.encode({**request.given, "model": model})
            plan = pass_on(host.session, request.method, request.route, headers, body or None)
        if slot.is_first:
            async with self.guard.hold(host):
                stream = await drive_async(plan, host.transport)
        else:
            stream = await drive_async(plan, host.transport)
        slot.note_first_byte()
        sent = stream.call.request
        stream.call = msgspec.structs.replace(stream.call, request=msgspec.structs.replace(sent, body=None))
        return stream

    def _judged(self, host: Host, model: str, error: LMStudioError) -> LMStudioError:
        """Record what a failure reveals about a host, and return the error for the client."""
        if isinstance(error, ServerUnreachableError):
            host.note_unreachable(error)
            self._scheduler.wake()
        elif isinstance(error, TransportError) or (isinstance(error, APIError) and error.status >= 500):
            host.breaker.note_fault()
        elif isinstance(error, AuthenticationError):
            host.breaker.note_fault()
            return ServerError(
                f"The host {host.name} refused the gateway's token.",
                status=502,
                hint="Set the variable that `token_env` of this host names to a valid API token.",
            )
        elif isinstance(error, _NOT_LOADED):
            host.note_unloaded(model)
            host.loads_explicitly = host.api == "v1"
        return error

    def _answer_of(self, stream: ResponseStream[Any], slot: Slot, request: GatewayRequest) -> GatewayAnswer:
        reader = cast("RelayReader", stream.reader)
        outcome = request.outcome
        outcome.variant = slot.host.variant_of(slot.model)
        headers = {
            **reader.head(),
            "x-lmdeck-host": slot.host.name,
            "x-lmdeck-attempts": str(outcome.attempts),
            "x-lmdeck-queue-ms": str(round(outcome.queue_seconds * 1000)),
        }
        status = stream.response.status
        chunks = self._chunks(stream, reader, slot, request)
        return GatewayAnswer(status=status, headers=headers, chunks=chunks, error_event=reader.error_event)

    async def _chunks(
        self, stream: ResponseStream[Any], reader: RelayReader, slot: Slot, request: GatewayRequest
    ) -> AsyncGenerator[bytes, None]:
        response = cast("AsyncResponse", stream.response)
        try:
            is_going_on = True
            while is_going_on:
                if stream.is_finished:
                    await _settle(request, stream)
                if out := reader.take():
                    self._note_response_id(request, slot.host, out)
                    yield out
                is_going_on = stream.has_more()
                if is_going_on:
                    await _read_on(stream, response)
            if stream.is_live:
                await response.drain()
        except LMStudioError as error:
            request.outcome.error, request.outcome.failure = type(error).__name__, error
            self._judged(slot.host, slot.model, error)
            written = reader.error_event(error)
            if not written:
                raise
            await _settle(request, stream)
            yield written
        finally:
            stream.close()
            slot.release()
            _note_usage(request, stream)

    def _note_response_id(self, request: GatewayRequest, host: Host, out: bytes) -> None:
        """Bind a stored response to the host that stored it, since only this host can continue it."""
        if request.kind != "responses" and request.route.path != NATIVE_CHAT:
            return
        if found := _RESPONSE_ID.search(out):
            self._sticky.bind(self._sticky.response_key(found[1].decode()), host.name)

    async def load(self, host: Host, model: str, victim: str | None) -> None:
        """Load a model on a host by its profile, after unloading `victim`.
        The scheduler receives the result.
        """
        key = host.key_of(model)
        error: LMStudioError | None = None
        try:
            if victim is not None:
                await host.poll()  # which instances there are now
                for instance in host.models[victim].instances if host.has(victim) else ():
                    _log.info("host %s unloads %s for %s", host.name, victim, key)
                    await drive_async(unload(host.session, instance.id), host.transport)
                host.note_unloaded(victim)
            options = self.config.profile_of(key) or {}
            async with self.guard.hold(host):
                _log.info("host %s loads %s", host.name, key)
                await drive_async(load(host.session, key, options, force=False), host.transport)
            host.changes += 1
            await host.poll()
        except LMStudioError as raised:
            _log.warning("host %s could not load %s: %s", host.name, key, raised.message)
            error = raised
        finally:
            self._scheduler.note_load_ended(host, model, error)


def _may_be_repeated(request: GatewayRequest, error: LMStudioError) -> bool:
    """Whether another attempt may succeed, and repeating the request does no harm."""
    has_effects = request.relay is None and request.method not in SAFE_METHODS
    return (error.retryable or isinstance(error, _ELSEWHERE)) and not (has_effects and may_have_begun(error))


def _title(name: str) -> str:
    return "-".join(part.capitalize() for part in name.split("-"))


async def _read_on(stream: ResponseStream[Any], response: AsyncResponse) -> None:
    try:
        data = await response.read()
    except TransportError as error:
        stream.feed_failure(error)
    else:
        stream.feed(data)


async def _settle(request: GatewayRequest, stream: ResponseStream[Any]) -> None:
    """Record an answer before its end, or its error, is passed on.
    What a client has received is therefore always recorded.
    """
    _note_usage(request, stream)
    if request.settle is not None:
        await request.settle()


def _note_usage(request: GatewayRequest, stream: ResponseStream[Any]) -> None:
    """Record the tokens of an answer.
    They are the host's count, or the number of chunks received if the answer was not finished.
    """
    outcome = request.outcome
    reply = getattr(stream.reader, "reply", None)
    if reply is not None:
        outcome.finish_reason = reply.finish_reason
        outcome.problems = Counter((problem.code, problem.dialect) for problem in reply.problems)
        outcome.has_flaws = has_flaws(reply)
    usage = reply.usage if reply is not None else _usage_of(getattr(stream.reader, "value", None))
    if usage is None:
        outcome.completion_tokens = stream.chunk_count
        outcome.prompt_tokens = outcome.prompt_tokens or request.prompt_tokens
        return
    outcome.prompt_tokens = usage.prompt_tokens
    outcome.completion_tokens = usage.completion_tokens
    outcome.reasoning_tokens = usage.reasoning_tokens or 0
    outcome.cached_tokens = usage.cached_tokens or 0


def _usage_of(body: object) -> Usage | None:
    """Return the usage in a whole body, such as that of embeddings."""
    given = body.get("usage") if isinstance(body, Mapping) else None
    tokens = given.get("prompt_tokens") if isinstance(given, Mapping) else None
    return Usage(prompt_tokens=tokens) if isinstance(tokens, int) else None
