"""Endpoints for operators that act on the running gateway.

They cancel a request, drain a host, or return it to rotation.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Protocol

import msgspec
from msgspec import Struct

from lmdeck.errors import InvalidRequestError
from lmdeck.gateway.config import Config
from lmdeck.gateway.http import Access, Endpoint, HTTPAnswer, HTTPRequest, json_answer

__all__ = ["ControlGateway", "control_routes"]


class ControlGateway(Protocol):
    """What the endpoints need of a gateway."""

    config: Config

    async def cancel(self, request_id: str) -> bool:
        """End an open request; return whether one with this id was found."""
        ...

    async def reconfigure(self, config: Config) -> None:
        """Use another configuration."""
        ...


class _Drain(Struct):
    """Whether a host is to get no new requests."""

    drain: bool


def control_routes(gateway: ControlGateway) -> Iterator[tuple[str, str, Endpoint, Access]]:
    """Yield the endpoints: method, path, endpoint and access."""
    yield "POST", "/gateway/requests/{id}/cancel", partial(_cancel, gateway), "operator"
    yield "POST", "/gateway/hosts/{name}/drain", partial(_drain, gateway), "operator"


async def _cancel(gateway: ControlGateway, incoming: HTTPRequest) -> HTTPAnswer:
    """End an open request with an error in its format."""
    request_id = incoming.params["id"]
    if not await gateway.cancel(request_id):
        raise _not_found(
            f"No request {request_id!r} is open; it may have ended.", "Look at /gateway/status for the open ones."
        )
    return json_answer({"cancelled": request_id})


async def _drain(gateway: ControlGateway, incoming: HTTPRequest) -> HTTPAnswer:
    """Drain a host, or return it to rotation, until the next start."""
    name = incoming.params["name"]
    config = gateway.config
    if all(host.name != name for host in config.hosts):
        raise _not_found(f"There is no host {name!r}.", "Look at /gateway/status for the names.")
    try:
        wanted = msgspec.json.decode(await incoming.body(), type=_Drain)
    except msgspec.DecodeError as error:
        raise InvalidRequestError(
            f"The body does not say whether to drain: {error}.", hint='Send {"drain": true}.', status=400
        ) from None
    hosts = tuple(
        msgspec.structs.replace(host, drain=wanted.drain) if host.name == name else host for host in config.hosts
    )
    await gateway.reconfigure(msgspec.structs.replace(config, hosts=hosts))
    return json_answer({"host": name, "draining": wanted.drain})


def _not_found(message: str, hint: str) -> InvalidRequestError:
    return InvalidRequestError(message, hint=hint, status=404)
