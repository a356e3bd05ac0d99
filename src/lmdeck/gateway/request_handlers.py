"""A request and its answer between admission and routing, and the handlers in that place.

A cache is such a handler.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeAlias

from msgspec import Struct

from lmdeck._incoming.trust import SAFE_METHODS
from lmdeck._requests.chat import runs_tools_on_server
from lmdeck.errors import LMStudioError
from lmdeck.gateway.admission import Admission, Principal, RequestOutcome
from lmdeck.gateway.config import Config
from lmdeck.relay import Kind, RelayRequest, Route

__all__ = ["AnyGateway", "Chunks", "GatewayAnswer", "GatewayRequest", "Handler", "HandlerFactory", "HostChunks"]


class GatewayRequest(Struct, kw_only=True):
    """An admitted request for a model.

    `fields` is the parsed body, if it is a JSON object. `relay` is None for endpoints whose body is passed on unchanged.
    `prompt_tokens` is an estimate, and `tokens` that of the prompt and the longest answer together.
    `settle` records the finished request; it is awaited before the end of the answer is yielded. `is_background` requests,
    those of batches, wait for all others.
    """

    outcome: RequestOutcome
    method: str
    route: Route
    headers: Mapping[str, str]
    body: bytes
    fields: Mapping[str, Any]
    model: str
    prompt_tokens: int = 0
    tokens: int = 0
    principal: Principal = Principal()
    relay: RelayRequest | None = None
    settle: Callable[[], Awaitable[None]] | None = None
    is_background: bool = False

    def forget_input(self) -> None:
        """Release body and headers, which are no longer needed once the answer has begun."""
        self.body, self.fields, self.headers = b"", {}, {}
        if self.relay is not None:
            self.relay.body = self.relay.sent = {}

    @property
    def kind(self) -> Kind:
        """The wire format."""
        return self.route.kind

    @property
    def has_effects(self) -> bool:
        """Whether sending the request twice would do something twice.

        Requests that are passed on unchanged may, and those for which the host runs tools.
        """
        if self.relay is None:
            return self.method not in SAFE_METHODS
        return runs_tools_on_server(self.relay.body)

    @property
    def streams(self) -> bool:
        """Whether the client asked for a stream."""
        return self.relay.streams if self.relay is not None else self.fields.get("stream") is True


def _no_event(_: LMStudioError) -> bytes:
    return b""


class Chunks(Protocol):
    """The parts of an answer's body; `aclose` ends it."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Return the parts as they come."""
        ...

    def aclose(self) -> Awaitable[object]:
        """Stop the model."""
        ...


class HostChunks:
    """The parts of an answer as a host sends it.

    If `write_now` is set, parts that need no further handling are written with it directly instead of being yielded; it returns
    whether the client keeps up. A handler that yields its own parts has another class of chunks, and so is never bypassed.
    """

    def __init__(self, begin: Callable[[HostChunks], AsyncGenerator[bytes, None]]) -> None:
        self.write_now: Callable[[bytes], bool] | None = None
        self._parts = begin(self)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._parts

    async def aclose(self) -> None:
        """Stop the model."""
        await self._parts.aclose()


class GatewayAnswer(Struct, kw_only=True):
    """An answer whose first bytes are known; closing `chunks` stops the model.

    `error_event` returns the event that ends a started answer with an error; `b""` if its format has none.
    """

    status: int
    headers: dict[str, str]
    chunks: Chunks
    error_event: Callable[[LMStudioError], bytes] = _no_event


Handler: TypeAlias = Callable[[GatewayRequest], Awaitable[GatewayAnswer]]
"""Answers a request, or raises an `LMStudioError` or an `AdmissionRefused`."""

HandlerFactory: TypeAlias = Callable[[Handler], Handler]


class AnyGateway(Protocol):
    """The gateway, as seen by the modules that answer requests with it."""

    config: Config
    admission: Admission
    answer: Handler

    def clock(self) -> float:
        """Return the time in seconds."""
        ...

    async def request_of(
        self,
        outcome: RequestOutcome,
        principal: Principal,
        route: Route,
        body: bytes,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
    ) -> GatewayRequest:
        """Return a request in a form that hosts accept."""
        ...
