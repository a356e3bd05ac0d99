"""The caching handler: repeated requests get stored answers, and equal ones share an answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Self

from msgspec import Struct

from lmdeck._pipeline.calls import Call, Handler, R, ResponseStream
from lmdeck._pipeline.effects import Acquire, Plan, Read, RunBlocking
from lmdeck._responses.json_reader import JSONReader
from lmdeck.cache.flights import Flight, Flights, running_loop, unshared_flight
from lmdeck.cache.request_keys import CacheControl, cache_miss, request_key
from lmdeck.cache.sharing import SharedBody
from lmdeck.cache.stores import Entry, Store, open_store
from lmdeck.errors import LMStudioError
from lmdeck.messages import Reply

HARMLESS = {"adjusted", "context_trimmed", "raw_shortened", "usage_missing"}
"""Codes of problems that belong to the request, or do not affect the answer."""
MAX_FAILED_FLIGHTS = 2
"""After this many failures of other senders, a request is sent separately, so that it does not wait for more."""
CLOCK_SKEW = 60.0
"""How far in the future an answer's time may be, in seconds: another machine's clock may be ahead."""
_log = logging.getLogger("lmdeck.cache")


class Cache:
    """A cache of answers; pass it to `LMStudio(cache=…)`, and to several clients to share it.

    Only complete answers without problems are stored, and by default only those of repeatable requests: with
    temperature 0 or a seed, and embeddings. `ttl` is the longest age in seconds of an answer that is used, None for no
    limit. With `asked_only`, only requests that ask for it are answered: `chat.cached(ttl)`, or `Cache-Control:
    max-age=…`.
    """

    def __init__(self, store: Store, *, ttl: float | None = None, asked_only: bool = False) -> None:
        self.store = store
        self.ttl = ttl
        self.asked_only = asked_only
        self.flights = Flights()

    @classmethod
    def open(
        cls, url: str, *, max_bytes: int | None = None, ttl: float | None = None, asked_only: bool = False
    ) -> Self:
        """Return a cache in `memory:`, `sqlite:///answers.db` or `redis://localhost:6379/0`.

        `max_bytes` is the size at which the least recently used answers are dropped: 1 GB by default, in memory 100 MB.

        Raises:
            ConfigurationError: The scheme of the URL is unknown, or its package is missing.
        """
        return cls(open_store(url, max_bytes=max_bytes, ttl=ttl), ttl=ttl, asked_only=asked_only)

    def handler(
        self,
        inner: Handler,
        *,
        clock: Callable[[], float] = time.monotonic,
        variant: Callable[[str], Plan[str]] | None = None,
        scope: str = "",
    ) -> CachingHandler:
        """Return a handler that asks the cache before the next one.

        `variant` is a plan that returns a description of the model behind a name, such as its quantization: an answer
        of another variant is not used. Answers are shared only by requests with the same token, identifying headers and
        `scope`.
        """
        return CachingHandler(self, inner, clock, variant or _unknown_variant, scope)

    def clear(self) -> None:
        """Remove all answers."""
        self.store.clear()

    def close(self) -> None:
        """Close the store; it opens again on its next use."""
        self.store.close()

    def find(self, key: bytes, control: CacheControl) -> Entry | None:
        """Return a stored answer that is young enough; an error of the store is logged."""
        try:
            entry = self.store.get(key)
        except Exception as error:
            _log.warning("The cache cannot be read, so the model is asked: %s", error)
            return None
        if entry is None:
            return None
        ages = [age for age in (self.ttl, control.max_age) if age is not None]
        if not ages:
            return entry
        return entry if -CLOCK_SKEW <= time.time() - entry.created <= min(ages) else None

    def save(self, key: bytes, entry: Entry) -> None:
        """Store an answer; an error of the store is logged."""
        try:
            self.store.put(key, entry)
        except Exception as error:
            _log.warning("The cache cannot be written, so an answer is not stored: %s", error)


class _Lookup(Struct, frozen=True):
    """A request that the cache may answer; `variant` describes the model, if it was looked up."""

    key: bytes
    control: CacheControl
    variant: str = ""


class CachingHandler:
    """Answers a call from the cache or from an equal call that is already running.

    Otherwise it runs the next handler and stores its answer.
    """

    def __init__(
        self,
        cache: Cache,
        inner: Handler,
        clock: Callable[[], float],
        variant: Callable[[str], Plan[str]],
        scope: str,
    ) -> None:
        self._cache = cache
        self._inner = inner
        self._clock = clock
        self._variant = variant
        self._scope = scope

    def __call__(self, call: Call[R]) -> Plan[ResponseStream[R]]:
        """Return a plan of the call.

        Raises:
            CacheMissError: The request wants an answer from the cache only, and there is none.
            LMStudioError: What the next handler raises.
        """
        control = CacheControl.of(call.request.headers)
        key = None
        if not call.has_effects:
            key = request_key(call.request, control, self._scope, asked_only=self._cache.asked_only)
        if key is None:
            return self._inner(call) if not control.only_if_cached else _refuse()
        return self._answer(call, _Lookup(key, control))

    def _answer(self, call: Call[R], lookup: _Lookup) -> Plan[ResponseStream[R]]:
        control = lookup.control
        if not control.no_cache:
            entry = yield from self._find(call, lookup)
            stored = None if entry is None else _replay(call, entry)
            if stored is not None:
                return stored
        if control.only_if_cached:
            return (yield from _refuse())
        if control.no_store:
            return (yield from self._inner(call))
        if control.no_cache:
            return (yield from self._send(call, lookup, unshared_flight()))
        return (yield from self._send_or_join(call, lookup))

    def _find(self, call: Call[R], lookup: _Lookup) -> Plan[Entry | None]:
        """Return the stored answer, unless it is by another variant of the model."""
        find = partial(self._cache.find, lookup.key, lookup.control)
        entry: Entry | None = (yield RunBlocking(find)) if self._cache.store.is_remote else find()
        if entry is None or not entry.variant:
            return entry
        variant = yield from self._variant(call.model)
        return entry if variant in {"", entry.variant} else None

    def _send_or_join(self, call: Call[R], lookup: _Lookup) -> Plan[ResponseStream[R]]:
        failures = 0
        while failures < MAX_FAILED_FLIGHTS:
            flight, is_first = self._cache.flights.join(lookup.key)
            if is_first:
                return (yield from self._send(call, lookup, flight))
            yield Acquire(flight)
            response = None if flight.body is None else flight.body.join()
            if response is not None and flight.body is not None:
                return (yield from self._follow(call, lookup, flight, response))
            failures += flight.has_failed
        return (yield from self._send(call, lookup, unshared_flight()))

    def _send(self, call: Call[R], lookup: _Lookup, flight: Flight) -> Plan[ResponseStream[R]]:
        """Run the next handler, and let equal calls join its response."""
        try:
            variant = yield from self._variant(call.model)
            stream = yield from self._inner(call)
        except BaseException as error:
            flight.fail(by_error=isinstance(error, LMStudioError))
            raise
        stream.cache = "miss"
        is_over = stream.is_finished or stream.failure is not None
        body = SharedBody.of(stream.response, stream.first_data, is_over=is_over, on_left=flight.end)
        response = body.join(len(body.pieces))
        if response is not None:
            stream.response = response
        keep = _Keeper(self._cache, lookup.key, variant, flight, body)
        flight.share(body, keep)
        stream.when_closed(partial(_end_failed, flight, stream))
        if stream.is_finished and self._cache.store.is_remote:
            yield RunBlocking(partial(keep, stream))
        else:
            stream.when_finished(partial(keep, stream))
        return stream

    def _follow(self, call: Call[R], lookup: _Lookup, flight: Flight, response: Any) -> Plan[ResponseStream[R]]:
        """Read the response to an equal request."""
        try:
            reader = call.make_reader(response.status, response.headers)
            stream = ResponseStream(call, response, reader, self._clock, self._clock())
            while not stream.feed_first((yield Read(response))):
                continue
        except BaseException:
            response.close()
            raise
        stream.cache = "shared"
        stream.when_finished(partial(flight.keep, stream))
        return stream


class _Keeper:
    """Stores the answer of a flight when the first of its streams is finished."""

    def __init__(self, cache: Cache, key: bytes, variant: str, flight: Flight, body: SharedBody) -> None:
        self._cache = cache
        self._key = key
        self._variant = variant
        self._flight = flight
        self._body = body
        self._is_called = False

    def __call__(self, stream: ResponseStream[Any]) -> None:
        """Store the answer if it is sound; until it is stored, others join the flight."""
        if self._is_called:
            return
        self._is_called = self._body.is_over = True
        if not _is_sound(stream):
            self._flight.end()
            return
        entry = Entry(
            created=time.time(),
            status=stream.response.status,
            content_type=stream.response.headers.get("content-type", ""),
            variant=self._variant,
            body=b"".join(self._body.pieces),
        )
        loop = running_loop()
        if loop is None or not self._cache.store.is_remote:
            self._save(entry)
        else:
            loop.run_in_executor(None, self._save, entry)

    def _save(self, entry: Entry) -> None:
        if len(entry.body) <= self._cache.store.max_entry:
            self._cache.save(self._key, entry)
        self._flight.end()


def _replay(call: Call[R], entry: Entry) -> ResponseStream[R] | None:
    """Return a stored answer as a stream; None if it cannot be read, which is logged."""
    headers = {"content-type": entry.content_type, "age": str(max(0, int(time.time() - entry.created)))}
    try:
        stream = ResponseStream.replay(call, entry.status, headers, entry.body)
    except LMStudioError as error:
        _log.warning("A stored answer cannot be read, so the model is asked: %s", error.message)
        return None
    stream.cache = "hit"
    return stream


def _refuse() -> Plan[ResponseStream[R]]:
    """Raise the error for a missing stored answer.

    Raises:
        CacheMissError: Always.
    """
    yield from ()
    raise cache_miss()


def _end_failed(flight: Flight, stream: ResponseStream[Any]) -> None:
    """End the flight of a failed answer, so that no other request joins it."""
    if stream.failure is not None:
        flight.end()


def _is_sound(stream: ResponseStream[Any]) -> bool:
    """Whether a finished answer is sound: not cut by a limit, and without problems."""
    reader = stream.reader
    if isinstance(reader, JSONReader):
        return not any(reason == "length" for reason in _finish_reasons(reader.value))
    reply = reader.partial()
    if reply is None:
        return False
    return reply.finish_reason not in {"", "length"} and not has_flaws(reply)


def has_flaws(reply: Reply) -> bool:
    """Whether a reply has problems that prevent its storing."""
    return any(problem.code not in HARMLESS for problem in reply.problems)


def _finish_reasons(body: object) -> list[object]:
    choices = body.get("choices") if isinstance(body, Mapping) else None
    return [choice.get("finish_reason") for choice in choices or () if isinstance(choice, Mapping)]


def _unknown_variant(_: str) -> Plan[str]:
    """Return `""`: the model is unknown."""
    yield from ()
    return ""
