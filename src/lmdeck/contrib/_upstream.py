"""The way to the server for clients of other libraries: lmdeck's own transports, retries and queue, around `lmdeck.relay`.

One upstream is one pool of connections, safe to share between threads (sync) or tasks (async). A forked process makes its own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncGenerator, Generator, Mapping
from typing import Any, Generic, TypeVar, cast

import msgspec
from msgspec import Struct

from lmdeck._client.session import Session
from lmdeck._pipeline.exchange import ResponseStream
from lmdeck._pipeline.run_plan import drive, drive_async
from lmdeck._requests.base_url import BaseURL
from lmdeck._transport import AsyncResponse, AsyncTransport, SyncResponse, Timeouts, Transport
from lmdeck.config import ClientSettings, Settings
from lmdeck.errors import LMStudioError, RequestTimeoutError, TransportError
from lmdeck.relay import RelayReader, Route, begin, error_answer, route_of

__all__ = ["AsyncSent", "AsyncUpstream", "Limits", "OuterTimeoutError", "Sent", "Upstream"]

MOST_SERVERS = 64
T = TypeVar("T")


class Limits(Struct, frozen=True, kw_only=True):
    """The time limits of the client outside, in seconds: they hold where they are shorter than lmdeck's."""

    connect: float | None = None
    read: float | None = None

    @classmethod
    def of(cls, extensions: Mapping[str, Any]) -> Limits:
        """Read them from the extensions of an httpx request."""
        given = extensions.get("timeout") or {}
        return cls(connect=given.get("connect"), read=given.get("read"))

    def over(self, own: Timeouts) -> Timeouts:
        """Return the limits that hold."""
        return msgspec.structs.replace(
            own,
            connect=_shorter(own.connect, self.connect),
            first_token=_shorter(own.first_token, self.read),
            idle=_shorter(own.idle, self.read),
        )

    def ran_out(self, error: LMStudioError, own: Timeouts) -> bool:
        """Whether it was one of these limits that ran out, and not one of lmdeck's."""
        if not isinstance(error, RequestTimeoutError):
            return False
        mine = {"connect": own.connect, "first_token": own.first_token, "idle": own.idle}.get(error.phase)
        theirs = self.connect if error.phase == "connect" else self.read
        return mine is not None and theirs is not None and theirs < mine


def _shorter(own: float, given: float | None) -> float:
    return own if given is None else max(min(own, given), 0.001)


class OuterTimeoutError(Exception):
    """A time limit of the client outside ran out: it raises its own exception for it."""

    def __init__(self, error: LMStudioError) -> None:
        super().__init__(str(error))
        self.is_connect = isinstance(error, RequestTimeoutError) and error.phase == "connect"


class Sent(Struct, frozen=True, kw_only=True):
    """An answer on its way: `chunks` are the bytes of its body, and `close` cuts it off."""

    status: int
    headers: Mapping[str, str]
    chunks: Generator[bytes, None, None]
    answer: ResponseStream[Any] | None = None

    def close(self) -> None:
        """Let go of the connection; a body that was not read to its end is cut off, so that the server stops."""
        if self.answer is not None:
            self.answer.close()


class AsyncSent(Struct, frozen=True, kw_only=True):
    """The same, awaited."""

    status: int
    headers: Mapping[str, str]
    chunks: AsyncGenerator[bytes, None]
    answer: ResponseStream[Any] | None = None

    def close(self) -> None:
        """Let go of the connection; a body that was not read to its end is cut off, so that the server stops."""
        if self.answer is not None:
            self.answer.close()


class _Servers(Generic[T]):
    """The settings, a session for each server, and one transport for all, made anew in a forked process."""

    def __init__(self, given: ClientSettings) -> None:
        self.settings = Settings.resolve(given)
        is_named = any(given.get(name) is not None for name in ("base_url", "host", "port"))
        self._root = BaseURL.from_settings(self.settings).root if is_named else None
        self._timeouts = Timeouts.from_settings(self.settings)
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self._transport: T | None = None

    def _ready(self) -> None:
        if self._process != os.getpid():
            self._begin_anew()

    def _routed(self, method: str, url: str) -> tuple[Route, Session]:
        route = route_of(method, url)
        root = self._root or route.root
        with self._lock:
            session = self._sessions.get(root)
            if session is None:
                if len(self._sessions) >= MOST_SERVERS:
                    self._sessions.clear()
                session = self._sessions[root] = Session(msgspec.structs.replace(self.settings, base_url=root))
        return route, session


class Upstream(_Servers[Transport]):
    """Relay the requests of a sync client."""

    def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes, limits: Limits = Limits()) -> Sent:  # noqa: B008  # frozen
        """Send a request and return its answer, which is an error's where there is none.

        Raises:
            OuterTimeoutError: A limit of the client outside ran out.
        """
        self._ready()
        route, session = self._routed(method, url)
        try:
            plan = begin(session, method, route, headers, body, limits.over(self._timeouts))
            answer = drive(plan, self._opened())
        except LMStudioError as error:
            if limits.ran_out(error, self._timeouts):
                raise OuterTimeoutError(error) from error
            failed = error_answer(route.kind, error)
            return Sent(status=failed.status, headers=failed.headers, chunks=_once(failed.body))
        reader = cast("RelayReader", answer.reader)
        chunks = self._chunks(answer, reader, limits)
        return Sent(status=answer.response.status, headers=reader.head(), chunks=chunks, answer=answer)

    def close(self) -> None:
        """Close every connection."""
        self._ready()
        with self._lock:
            transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def _opened(self) -> Transport:
        with self._lock:
            if self._transport is None:
                from lmdeck._transport.urllib3 import Urllib3Transport  # with the first request only

                self._transport = Urllib3Transport(self.settings)
            return self._transport

    def _chunks(self, answer: ResponseStream[Any], reader: RelayReader, limits: Limits) -> Generator[bytes, None, None]:
        response = cast("SyncResponse", answer.response)
        try:
            if out := reader.take():
                yield out
            while answer.has_more():
                try:
                    data = response.read()
                except TransportError as error:
                    answer.feed_failure(error)
                else:
                    answer.feed(data)
                if out := reader.take():
                    yield out
            if answer.is_live:
                response.drain()
        except LMStudioError as error:
            yield _ending(error, reader, limits, self._timeouts)
        finally:
            answer.close()


class AsyncUpstream(_Servers[AsyncTransport]):
    """Relay the requests of an async client."""

    async def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        limits: Limits = Limits(),  # noqa: B008  # frozen
    ) -> AsyncSent:
        """Send a request and return its answer, which is an error's where there is none.

        Raises:
            OuterTimeoutError: A limit of the client outside ran out.
        """
        self._ready()
        route, session = self._routed(method, url)
        try:
            plan = begin(session, method, route, headers, body, limits.over(self._timeouts))
            answer = await drive_async(plan, self._opened())
        except LMStudioError as error:
            if limits.ran_out(error, self._timeouts):
                raise OuterTimeoutError(error) from error
            failed = error_answer(route.kind, error)
            return AsyncSent(status=failed.status, headers=failed.headers, chunks=_once_async(failed.body))
        reader = cast("RelayReader", answer.reader)
        chunks = self._chunks(answer, reader, limits)
        return AsyncSent(status=answer.response.status, headers=reader.head(), chunks=chunks, answer=answer)

    def prepare(self) -> None:
        """Load what the first request needs, so that it does not wait for it."""
        self._ready()
        self._opened()

    async def aclose(self) -> None:
        """Close every connection."""
        self._ready()
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.aclose()

    def _opened(self) -> AsyncTransport:
        if self._transport is None:
            from lmdeck._transport.aiohttp import AiohttpTransport  # with the first request only

            self._transport = AiohttpTransport(self.settings)
        return self._transport

    async def _chunks(
        self, answer: ResponseStream[Any], reader: RelayReader, limits: Limits
    ) -> AsyncGenerator[bytes, None]:
        response = cast("AsyncResponse", answer.response)
        try:
            if out := reader.take():
                yield out
            while answer.has_more():
                try:
                    data = await response.read()
                except TransportError as error:
                    answer.feed_failure(error)
                else:
                    answer.feed(data)
                if out := reader.take():
                    yield out
            if answer.is_live:
                await response.drain()
        except LMStudioError as error:
            yield _ending(error, reader, limits, self._timeouts)
        finally:
            answer.close()


def _ending(error: LMStudioError, reader: RelayReader, limits: Limits, own: Timeouts) -> bytes:
    """Return the event that ends a stream with an error.

    Raises:
        OuterTimeoutError: A limit of the client outside ran out.
        LMStudioError: The format is not known, so that there is no event for it.
    """
    if limits.ran_out(error, own):
        raise OuterTimeoutError(error) from error
    written = reader.error_event(error)
    if not written:
        raise error
    return written


def _once(body: bytes) -> Generator[bytes, None, None]:
    yield body


async def _once_async(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body
