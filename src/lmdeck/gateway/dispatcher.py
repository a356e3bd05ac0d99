"""The dispatcher: sends a request to the chosen host, and to another if that fails.

A request is sent again only while no part of its answer has been passed on; afterwards a failure is an error in the
client's format.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from functools import partial
from typing import Any, cast

import msgspec
from msgspec.structs import replace

from lmdeck._pipeline.calls import ResponseStream
from lmdeck._pipeline.retry import may_have_started
from lmdeck._pipeline.run_plan import drive_async
from lmdeck._transport import AsyncResponse
from lmdeck.cache import has_flaws
from lmdeck.errors import (
    AuthenticationError,
    EndpointNotFoundError,
    IncompleteStreamError,
    LMStudioError,
    ModelLoadError,
    ModelNotFoundError,
    NoModelLoadedError,
    ServerError,
    TransportError,
    summary,
)
from lmdeck.gateway.config import Config
from lmdeck.gateway.request_handlers import GatewayAnswer, GatewayRequest, HostChunks
from lmdeck.gateway.routing import HostSlot, Router, SlotRequest
from lmdeck.gateway.sticky import conversation_key, response_key
from lmdeck.relay import RelayReader, begin_request, pass_on
from lmdeck.stats import Usage

__all__ = ["Dispatcher", "read_on"]

_FORWARDED = frozenset(
    {"accept", "content-type", "anthropic-version", "anthropic-beta", "openai-beta", "traceparent", "tracestate"}
)
_ELSEWHERE = (ModelNotFoundError, NoModelLoadedError, ModelLoadError, EndpointNotFoundError, IncompleteStreamError)
_RESPONSE_ID = re.compile(rb'"(?:response_)?id": ?"(resp_[A-Za-z0-9_-]{1,100})"')
NATIVE_CHAT = "/api/v1/chat"
_PAUSE = 0.2  # seconds before the same host is tried again, if there is no other
_log = logging.getLogger("lmdeck.gateway")


class Dispatcher:
    """Answers requests from the hosts."""

    def __init__(self, config: Config, router: Router) -> None:
        self.config = config
        self._router = router

    async def answer(self, request: GatewayRequest) -> GatewayAnswer:
        """Send a request to a host and return its answer, once its first bytes are known.

        Raises:
            LMStudioError: Every attempt failed, or the request is invalid.
        """
        outcome = request.outcome
        wanted = self._wanted(request)
        failure: LMStudioError | None = None
        for attempt in range(1, self.config.routing.attempts + 1):
            place = await self._acquire(wanted, request, failure)
            outcome.attempts, outcome.host = attempt, place.host.name
            outcome.model, outcome.variant = place.model or outcome.model, place.variant
            try:
                stream = await self._begin(place, request)
            except LMStudioError as error:
                failure = _error_for_client(place.host.name, error)
                if not (wanted.models and _may_be_repeated(request, failure)):
                    raise failure from error
                _log.warning(
                    "attempt %d on host %s failed: %s", attempt, place.host.name, summary(failure),
                    extra={"request_id": outcome.request_id, "host": place.host.name},
                )  # fmt: skip
                wanted = await self._after_failure(wanted, place.host.name)
                continue
            return self._answer_of(stream, place, request)
        raise failure or ServerError("No attempt was made.", status=503)

    def _wanted(self, request: GatewayRequest) -> SlotRequest:
        if not request.model:
            return SlotRequest(
                request_id=request.outcome.request_id, key=request.principal.name, cost=request.tokens, models=()
            )
        key = request.principal.name
        return SlotRequest(
            request_id=request.outcome.request_id,
            key=key,
            cost=request.tokens,
            models=tuple(self.config.models_of(request.model)),
            conversation=conversation_key(self.config.sticky, request.headers, key, request.model, request.fields),
            response=response_key(request.fields.get("previous_response_id")),
            is_background=request.is_background,
        )

    async def _acquire(self, wanted: SlotRequest, request: GatewayRequest, failure: LMStudioError | None) -> HostSlot:
        queued_at = time.monotonic()
        try:
            return await self._router.acquire(wanted)
        except LMStudioError as error:
            raise failure or error from None
        finally:
            request.outcome.queue_seconds += time.monotonic() - queued_at

    async def _after_failure(self, wanted: SlotRequest, host: str) -> SlotRequest:
        """Return what the next attempt wants.

        It wants no host that failed or, if no other is left, any of them a moment later.
        """
        other = replace(wanted, avoided=wanted.avoided | {host})
        if await self._router.has_other(other):
            return other
        await asyncio.sleep(_PAUSE)
        return replace(wanted, avoided=frozenset())

    async def _begin(self, place: HostSlot, request: GatewayRequest) -> ResponseStream[Any]:
        """Send a request and return its answer, once its first bytes are known.

        On failure, its place is released.
        """
        try:
            return await _send(place, request)
        except BaseException as error:
            if isinstance(error, LMStudioError):
                place.note_failure(error)
            place.release()
            raise

    def _answer_of(self, stream: ResponseStream[Any], place: HostSlot, request: GatewayRequest) -> GatewayAnswer:
        reader = cast("RelayReader", stream.reader)
        outcome = request.outcome
        headers = {
            **reader.head(),
            "x-lmdeck-host": place.host.name,
            "x-lmdeck-attempts": str(outcome.attempts),
            "x-lmdeck-queue-ms": str(round(outcome.queue_seconds * 1000)),
        }
        status = stream.response.status
        chunks = HostChunks(partial(self._chunks, stream, reader, place, request))
        return GatewayAnswer(status=status, headers=headers, chunks=chunks, error_event=reader.error_event)

    async def _chunks(
        self,
        stream: ResponseStream[Any],
        reader: RelayReader,
        place: HostSlot,
        request: GatewayRequest,
        chunks: HostChunks,
    ) -> AsyncGenerator[bytes, None]:
        answer = _AnswerInProgress(stream, reader, chunks, partial(self._note_response_id, request, place.host.name))
        try:
            is_going_on = True
            while is_going_on:
                if stream.is_finished:
                    await _settle(request, stream)
                if (out := answer.take()) is not None:
                    yield out
                is_going_on = stream.has_more()
                if is_going_on:
                    await answer.read_on()
            if stream.is_live:
                await cast("AsyncResponse", stream.response).drain()
        except LMStudioError as error:
            request.outcome.error, request.outcome.failure = type(error).__name__, error
            place.note_failure(error)
            written = reader.error_event(error)
            if not written:
                raise
            await _settle(request, stream)
            yield written
        finally:
            stream.close()
            place.release()
            _note_usage(request, stream)

    def _note_response_id(self, request: GatewayRequest, host: str, out: bytes) -> None:
        """Bind a stored response to the host that stored it, since only this host can continue it."""
        if request.kind != "responses" and request.route.path != NATIVE_CHAT:
            return
        if (found := _RESPONSE_ID.search(out)) and (response := response_key(found[1].decode())):
            self._router.bind_response(response, host)


class _AnswerInProgress:
    """An answer of a host while it is read."""

    __slots__ = ("_chunks", "_note", "_reader", "_stream", "_waits_for_client", "_write_now")

    def __init__(
        self, stream: ResponseStream[Any], reader: RelayReader, chunks: HostChunks, note: Callable[[bytes], None]
    ) -> None:
        """`note` is called with each part of the body, unless it only continues the text."""
        self._stream = stream
        self._reader = reader
        self._chunks = chunks
        self._note = note
        self._waits_for_client = False

    def take(self) -> bytes | None:
        """Return what was written since the last call; None if nothing was.

        It is `b""` if only the client has to read.
        """
        out = self._reader.take()
        if not out and not self._waits_for_client:
            return None
        self._waits_for_client = False
        self._note(out)
        return out

    async def read_on(self) -> None:
        """Read what comes next; with `write_now`, write as long as nothing else is to be done."""
        stream, response = self._stream, cast("AsyncResponse", self._stream.response)
        if self._chunks.write_now is not None:
            self._write_now = self._chunks.write_now
            await response.follow(self._write)
            if stream.is_finished or stream.failure is not None or self._waits_for_client:
                return
        await read_on(stream, response)

    def _write(self, data: bytes) -> bool:
        """Read bytes and write what they become; return whether nothing else is to be done."""
        out = self._reader.continue_text(data)
        if out is not None:
            self._stream.chunk_count += 1
        else:
            self._stream.feed(data)
            if self._stream.is_finished or self._stream.failure is not None:
                return False
            out = self._reader.take()
            self._note(out)
        if out:
            self._waits_for_client = not self._write_now(out)
        return not self._waits_for_client


async def _send(place: HostSlot, request: GatewayRequest) -> ResponseStream[Any]:
    host, model = place.host, place.model
    headers = {_title(name): value for name, value in request.headers.items() if name in _FORWARDED}
    headers["X-Request-Id"] = request.outcome.request_id
    if request.relay is not None:
        request.relay.use_model(model)
        plan = begin_request(host.session, request.route, request.relay, headers)
    else:
        body = request.body
        if request.fields and request.fields.get("model") != model and model:
            body = msgspec.json.encode({**request.fields, "model": model})
        plan = pass_on(host.session, request.method, request.route, headers, body or None)
    stream = await drive_async(plan, host.transport)
    place.note_first_byte()
    stream.take_first_chunks()
    return stream


def _error_for_client(host: str, error: LMStudioError) -> LMStudioError:
    """Return the error for the client.

    If a host refuses the gateway's token, the client's own key is still right.
    """
    if not isinstance(error, AuthenticationError):
        return error
    return ServerError(
        f"The host {host} refused the gateway's token.",
        status=502,
        hint="Set the variable that `token_env` of this host names to a valid API token.",
    )


def _may_be_repeated(request: GatewayRequest, error: LMStudioError) -> bool:
    """Whether another attempt may succeed, and repeating the request does no harm."""
    return (error.retryable or isinstance(error, _ELSEWHERE)) and not (request.has_effects and may_have_started(error))


def _title(name: str) -> str:
    return "-".join(part.capitalize() for part in name.split("-"))


async def read_on(stream: ResponseStream[Any], response: AsyncResponse) -> None:
    """Read the next bytes of an answer, or note that they cannot be read."""
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
    usage = body.get("usage") if isinstance(body, Mapping) else None
    tokens = usage.get("prompt_tokens") if isinstance(usage, Mapping) else None
    return Usage(prompt_tokens=tokens) if isinstance(tokens, int) else None
