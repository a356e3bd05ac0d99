"""The gateway's cache: repeated requests are answered from it, equal ones share one answer.

Answers are stored as clients receive them, in their wire format and repaired. A key sees the answers to its own
requests only, unless the cache is shared.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from weakref import WeakKeyDictionary

from lmdeck._transport import WireRequest
from lmdeck.cache import Cache, CacheControl, Entry, request_key
from lmdeck.cache.flights import Flight, unshared_flight
from lmdeck.cache.request_keys import cache_miss
from lmdeck.errors import ConnectionLostError, LMStudioError
from lmdeck.gateway.config import CacheConfig
from lmdeck.gateway.request_handlers import GatewayAnswer, GatewayRequest, Handler

__all__ = ["CachedAnswers", "open_cache"]

DEFAULT_URL = "sqlite:///gateway-cache.db"
MAX_FAILED_FLIGHTS = 2
_VARYING = ("anthropic-version", "anthropic-beta", "openai-beta")


def open_cache(config: CacheConfig) -> Cache | None:
    """Return the cache of a configuration; None if it is not enabled.

    Raises:
        ConfigurationError: The scheme of its URL is unknown.
    """
    if not config.enabled:
        return None
    return Cache.open(config.url or DEFAULT_URL, max_bytes=config.max_bytes, ttl=config.ttl)


class CachedAnswers:
    """Answers requests from the cache or from an equal request that is already running.

    Otherwise it runs the next handler and stores its answer.
    """

    def __init__(
        self, cache: Cache, inner: Handler, variants: Callable[[str], Awaitable[set[str] | None]], *, is_shared: bool
    ) -> None:
        self._cache = cache
        self._inner = inner
        self._variants = variants
        self._is_shared = is_shared
        self._feeds: WeakKeyDictionary[Flight, _SharedAnswer] = WeakKeyDictionary()

    async def __call__(self, request: GatewayRequest) -> GatewayAnswer:
        """Return the answer, with the header `x-lmdeck-cache`.

        Raises:
            CacheMissError: The request wants an answer from the cache only, and there is none.
            LMStudioError: What the next handler raises.
        """
        control = CacheControl.of(request.headers)
        key = self._key(request, control)
        entry = None if key is None or control.no_cache else await self._find(key, control, request.model)
        if entry is not None:
            return _replay(request, entry)
        if control.only_if_cached:
            raise cache_miss()
        if key is None or control.no_store:
            return _marked(request, await self._inner(request), "bypass")
        if control.no_cache:
            return await self._send(request, key, unshared_flight())
        return await self._send_or_join(request, key)

    def _key(self, request: GatewayRequest, control: CacheControl) -> bytes | None:
        headers = {name: request.headers[name] for name in _VARYING if name in request.headers}
        wire_request = WireRequest(method=request.method, url=request.route.path, body=request.body, headers=headers)
        return request_key(wire_request, control, "" if self._is_shared else request.principal.scope)

    async def _find(self, key: bytes, control: CacheControl, model: str) -> Entry | None:
        """Return the stored answer, unless it is by a variant of the model that no host has now."""
        if self._cache.store.is_remote:
            entry = await asyncio.to_thread(self._cache.find, key, control)
        else:
            entry = self._cache.find(key, control)
        if entry is None:
            return None
        variants = await self._variants(model)
        return entry if variants is None or entry.variant in variants else None

    async def _send_or_join(self, request: GatewayRequest, key: bytes) -> GatewayAnswer:
        failures = 0
        while failures < MAX_FAILED_FLIGHTS:
            flight, is_first = self._cache.flights.join(key)
            if is_first:
                return await self._send(request, key, flight)
            await _wait_for_start(flight)
            feed = self._feeds.get(flight)
            if feed is not None and feed.can_be_joined:
                return _marked(request, feed.answer_for(request), "shared")
            failures += flight.has_failed
        return await self._send(request, key, unshared_flight())

    async def _send(self, request: GatewayRequest, key: bytes, flight: Flight) -> GatewayAnswer:
        """Run the next handler, and let equal requests join its answer."""
        try:
            answer = await self._inner(request)
        except BaseException as error:
            flight.fail(by_error=isinstance(error, LMStudioError))
            raise
        feed = self._feeds[flight] = _SharedAnswer(answer)
        feed.task = asyncio.create_task(self._pump(request, key, flight, feed))
        flight.open()
        return _marked(request, feed.answer_for(request), "miss")

    async def _pump(self, request: GatewayRequest, key: bytes, flight: Flight, feed: _SharedAnswer) -> None:
        """Read an answer for all clients that wait for it, and store it if it is sound."""
        try:
            await feed.read()
            if feed.failure is None and _is_sound(request, feed.answer):
                await self._save(request, key, feed)
        finally:
            flight.end()

    async def _save(self, request: GatewayRequest, key: bytes, feed: _SharedAnswer) -> None:
        entry = Entry(
            created=time.time(),
            status=feed.answer.status,
            content_type=feed.answer.headers.get("content-type", ""),
            variant=request.outcome.variant,
            body=b"".join(feed.pieces),
        )
        if len(entry.body) > self._cache.store.max_entry:
            return
        if self._cache.store.is_remote:
            await asyncio.to_thread(self._cache.save, key, entry)
        else:
            self._cache.save(key, entry)


class _SharedAnswer:
    """An answer that several clients read while it arrives; it stops when the last one has left."""

    def __init__(self, answer: GatewayAnswer) -> None:
        self.answer = answer
        self.pieces: list[bytes] = []
        self.failure: LMStudioError | None = None
        self.task: asyncio.Task[None] | None = None
        self._is_over = False
        self._is_abandoned = False
        self._readers = 0
        self._changed = asyncio.Event()

    @property
    def can_be_joined(self) -> bool:
        """Whether the answer is complete or still arriving."""
        return self.failure is None and not self._is_abandoned

    async def read(self) -> None:
        """Read the answer to its end."""
        try:
            async for piece in self.answer.chunks:
                self.pieces.append(piece)
                self._note_change()
        except LMStudioError as error:
            self.failure = error
        except BaseException as error:  # no client may take the part that has arrived for the whole
            self.failure = ConnectionLostError(f"Reading the answer was interrupted by {type(error).__name__}.")
            raise
        finally:
            self._is_over = True
            self._note_change()
            await self.answer.chunks.aclose()

    def answer_for(self, request: GatewayRequest) -> GatewayAnswer:
        """Return the answer for one more client."""
        self._readers += 1
        return GatewayAnswer(
            status=self.answer.status,
            headers=dict(self.answer.headers),
            chunks=self._chunks(),
            error_event=self.answer.error_event,
        )

    async def _chunks(self) -> AsyncGenerator[bytes, None]:
        position = 0
        try:
            while True:
                while position < len(self.pieces):
                    position += 1
                    yield self.pieces[position - 1]
                if self._is_over:
                    break
                await self._changed.wait()
            if self.failure is not None:
                raise copy.copy(self.failure)
        finally:
            self._readers -= 1
            if not (self._readers or self._is_over) and self.task is not None:
                self._is_abandoned = True
                self.task.cancel()
                await asyncio.gather(self.task, return_exceptions=True)

    def _note_change(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


async def _wait_for_start(flight: Flight) -> None:
    """Wait until the answer of another request begins or fails to begin."""
    loop = asyncio.get_running_loop()
    is_open = asyncio.Event()
    slot = flight.enqueue(lambda: loop.call_soon_threadsafe(is_open.set))
    try:
        if not slot.is_granted:
            await is_open.wait()
    finally:
        flight.release(slot)


def _replay(request: GatewayRequest, entry: Entry) -> GatewayAnswer:
    """Return a stored answer."""
    headers = {"content-type": entry.content_type, "age": str(max(0, int(time.time() - entry.created)))}
    answer = GatewayAnswer(status=entry.status, headers=headers, chunks=_stored(request, entry))
    return _marked(request, answer, "hit")


async def _stored(request: GatewayRequest, entry: Entry) -> AsyncGenerator[bytes, None]:
    if request.settle is not None:
        await request.settle()
    yield entry.body


def _marked(request: GatewayRequest, answer: GatewayAnswer, result: str) -> GatewayAnswer:
    """Report what the cache did."""
    request.outcome.cache = result
    answer.headers["x-lmdeck-cache"] = result
    return answer


def _is_sound(request: GatewayRequest, answer: GatewayAnswer) -> bool:
    """Whether an answer is complete, ended by the model itself, and without problems."""
    outcome = request.outcome
    is_whole = outcome.finish_reason != "length" and (
        bool(outcome.finish_reason) or request.kind in {"embeddings", "other"}
    )
    return answer.status == 200 and is_whole and not outcome.error and not outcome.has_flaws
