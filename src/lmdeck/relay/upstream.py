"""Connections to the server for relayed requests, with the retries of the client.

An upstream is one pool of connections that threads (sync) or tasks (async) may share. A forked process opens a new one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncGenerator, Generator, Mapping
from typing import Any, Generic, TypeVar, cast

import msgspec
from msgspec import Struct

from lmdeck._pipeline.calls import ResponseStream
from lmdeck._pipeline.run_plan import drive, drive_async
from lmdeck._plans.session import Session
from lmdeck._requests.base_url import BaseURL
from lmdeck._transport import AsyncResponse, AsyncTransport, SyncResponse, Timeouts, Transport
from lmdeck.config import ClientSettings, Settings
from lmdeck.errors import LMStudioError, RequestTimeoutError, TransportError
from lmdeck.relay import ErrorAnswer, RelayReader, Route, begin, error_answer, route_of

MAX_SERVERS = 64
ADDRESS = ("base_url", "host", "port")
THIS_MACHINE = "http://localhost"
T = TypeVar("T")


class ClientTimeouts(Struct, frozen=True, kw_only=True):
    """The time limits of the calling client, in seconds; they apply if shorter than lmdeck's."""

    connect: float | None = None
    read: float | None = None

    def over(self, own: Timeouts) -> Timeouts:
        """Return the shorter of each limit."""
        return msgspec.structs.replace(
            own,
            connect=_shorter(own.connect, self.connect),
            first_token=_shorter(own.first_token, self.read),
            idle=_shorter(own.idle, self.read),
        )

    def caused(self, error: LMStudioError, own: Timeouts) -> bool:
        """Whether the error is a timeout by one of these limits, not by one of lmdeck's."""
        if not isinstance(error, RequestTimeoutError):
            return False
        ours = {"connect": own.connect, "first_token": own.first_token, "idle": own.idle}.get(error.phase)
        theirs = self.connect if error.phase == "connect" else self.read
        return ours is not None and theirs is not None and theirs < ours


NO_LIMITS = ClientTimeouts()


def _shorter(own: float, limit: float | None) -> float:
    return own if limit is None else max(min(own, limit), 0.001)


class ClientTimeoutError(Exception):
    """A time limit of the calling client was exceeded; the client raises its own exception."""

    def __init__(self, error: LMStudioError) -> None:
        super().__init__(str(error))
        self.is_connect = isinstance(error, RequestTimeoutError) and error.phase == "connect"


class RelayedResponse(Struct, frozen=True, kw_only=True):
    """An open response: `chunks` are the pieces of its body, and `close` aborts it."""

    status: int
    headers: Mapping[str, str]
    chunks: Generator[bytes, None, None]
    answer: ResponseStream[Any] | None = None

    def close(self) -> None:
        """Release the connection; an unfinished body is aborted, which stops the server."""
        if self.answer is not None:
            self.answer.close()


class AsyncRelayedResponse(Struct, frozen=True, kw_only=True):
    """Async version of `RelayedResponse`."""

    status: int
    headers: Mapping[str, str]
    chunks: AsyncGenerator[bytes, None]
    answer: ResponseStream[Any] | None = None

    def close(self) -> None:
        """Release the connection; an unfinished body is aborted, which stops the server."""
        if self.answer is not None:
            self.answer.close()


class _UpstreamBase(Generic[T]):
    """The settings, one session per server, and one transport; a forked process creates its own.

    Requests go to the server of the settings if a keyword names one or `settings` are resolved settings, else to their own.
    """

    def __init__(self, settings: ClientSettings | Settings) -> None:
        is_named = isinstance(settings, Settings) or any(settings.get(name) is not None for name in ADDRESS)
        if isinstance(settings, Settings):
            self.settings = settings
        else:  # the program names each request's address, so that a project's file cannot set the route to it
            self.settings = Settings.resolve(settings if is_named else {**settings, "base_url": THIS_MACHINE})
        self._root = BaseURL.from_settings(self.settings).root if is_named else None
        self._timeouts = Timeouts.from_settings(self.settings)
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self._transport: T | None = None

    def _check_process(self) -> None:
        if self._process != os.getpid():
            self._reset()

    def _routed(self, method: str, url: str) -> tuple[Route, Session]:
        route = route_of(method, url)
        root = self._root or route.root
        with self._lock:
            session = self._sessions.get(root)
            if session is None:
                if len(self._sessions) >= MAX_SERVERS:
                    self._sessions.clear()
                session = self._sessions[root] = Session(msgspec.structs.replace(self.settings, base_url=root))
        return route, session

    def _failure(self, error: LMStudioError, route: Route, limits: ClientTimeouts) -> ErrorAnswer:
        """Return the response for a failure.

        Raises:
            ClientTimeoutError: A time limit of the calling client was exceeded.
        """
        if limits.caused(error, self._timeouts):
            raise ClientTimeoutError(error) from error
        return error_answer(route.kind, error)

    def _last_event(self, error: LMStudioError, reader: RelayReader, limits: ClientTimeouts) -> bytes:
        """Return the event that ends a stream with an error.

        Raises:
            ClientTimeoutError: A time limit of the calling client was exceeded.
            LMStudioError: The wire format has no error event.
        """
        if limits.caused(error, self._timeouts):
            raise ClientTimeoutError(error) from error
        written = reader.error_event(error)
        if not written:
            raise error
        return written


class Upstream(_UpstreamBase[Transport]):
    """The upstream of a sync client."""

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, limits: ClientTimeouts = NO_LIMITS
    ) -> RelayedResponse:
        """Send a request and return the response; a failure is returned as an error response.

        Raises:
            ClientTimeoutError: A time limit of the calling client was exceeded.
        """
        self._check_process()
        route, session = self._routed(method, url)
        try:
            plan = begin(session, method, route, headers, body, limits.over(self._timeouts))
            answer = drive(plan, self._open_transport())
        except LMStudioError as error:
            failed = self._failure(error, route, limits)
            return RelayedResponse(status=failed.status, headers=failed.headers, chunks=_once(failed.body))
        reader = cast("RelayReader", answer.reader)
        chunks = self._chunks(answer, reader, limits)
        return RelayedResponse(status=answer.response.status, headers=reader.head(), chunks=chunks, answer=answer)

    def close(self) -> None:
        """Close all connections."""
        self._check_process()
        with self._lock:
            transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def _open_transport(self) -> Transport:
        with self._lock:
            if self._transport is None:
                from lmdeck._transport.urllib3 import Urllib3Transport  # imported late: only needed for requests

                self._transport = Urllib3Transport(self.settings)
            return self._transport

    def _chunks(
        self, answer: ResponseStream[Any], reader: RelayReader, limits: ClientTimeouts
    ) -> Generator[bytes, None, None]:
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
            yield self._last_event(error, reader, limits)
        finally:
            answer.close()


class AsyncUpstream(_UpstreamBase[AsyncTransport]):
    """The upstream of an async client."""

    async def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        limits: ClientTimeouts = NO_LIMITS,
    ) -> AsyncRelayedResponse:
        """Send a request and return the response; a failure is returned as an error response.

        Raises:
            ClientTimeoutError: A time limit of the calling client was exceeded.
        """
        self._check_process()
        route, session = self._routed(method, url)
        try:
            plan = begin(session, method, route, headers, body, limits.over(self._timeouts))
            answer = await drive_async(plan, self._open_transport())
        except LMStudioError as error:
            failed = self._failure(error, route, limits)
            return AsyncRelayedResponse(status=failed.status, headers=failed.headers, chunks=_once_async(failed.body))
        reader = cast("RelayReader", answer.reader)
        chunks = self._chunks(answer, reader, limits)
        return AsyncRelayedResponse(status=answer.response.status, headers=reader.head(), chunks=chunks, answer=answer)

    def prepare(self) -> None:
        """Create the transport in advance: the first request need not wait for its import."""
        self._check_process()
        self._open_transport()

    async def aclose(self) -> None:
        """Close all connections."""
        self._check_process()
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.aclose()

    def _open_transport(self) -> AsyncTransport:
        if self._transport is None:
            from lmdeck._transport.aiohttp import AiohttpTransport  # imported late: only needed for requests

            self._transport = AiohttpTransport(self.settings)
        return self._transport

    async def _chunks(
        self, answer: ResponseStream[Any], reader: RelayReader, limits: ClientTimeouts
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
            yield self._last_event(error, reader, limits)
        finally:
            answer.close()


def _once(body: bytes) -> Generator[bytes, None, None]:
    yield body


async def _once_async(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body
