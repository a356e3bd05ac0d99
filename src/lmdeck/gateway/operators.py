"""Endpoints for operators: liveness, readiness, status, and the configuration."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator
from functools import partial
from typing import Any, Protocol

from lmdeck._incoming.trust import AllowedHosts, is_loopback
from lmdeck.errors import APIError, AuthenticationError
from lmdeck.gateway.admission import AdmissionRefused
from lmdeck.gateway.config import AdminConfig, Config, to_builtins
from lmdeck.gateway.hosts import Host
from lmdeck.gateway.http import Access, Endpoint, HTTPAnswer, HTTPRequest, json_answer

__all__ = ["OperatorGateway", "Operators", "operator_routes"]

_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")
_LOCAL_NAMES = AllowedHosts(any_local=True)
_ASK_FOR_TOKEN = {"www-authenticate": 'Basic realm="lmdeck gateway", charset="UTF-8"'}
_HINT = (
    "Send the operators' token (setting `admin.token_env`) as `Authorization: Bearer …`, or send the request from the "
    "gateway's own machine, to `localhost`."
)


class OperatorGateway(Protocol):
    """What the endpoints need of a gateway."""

    config: Config
    hosts: list[Host]
    is_draining: bool

    async def status(self) -> dict[str, Any]:
        """Return the state of hosts, models and queues."""
        ...

    async def reconfigure(self, config: Config) -> None:
        """Use another configuration."""
        ...


class Operators:
    """Who may operate the gateway: programs on this machine, and holders of the token."""

    def __init__(self, config: AdminConfig) -> None:
        self._token = config.token

    def check(self, incoming: HTTPRequest) -> None:
        """Check that an operator sent a request.

        Raises:
            AdmissionRefused: The token is wrong or missing; a browser then asks for it.
            APIError: It comes from elsewhere, or through a proxy, and there is no token for operators.
        """
        token = _token_of(incoming.headers.get("authorization", ""))
        if self._token is not None and token is not None:
            if not secrets.compare_digest(token.encode(), self._token.reveal().encode()):
                wrong = AuthenticationError("The operators' token is wrong.", status=401, hint=_HINT)
                raise AdmissionRefused(wrong, _ASK_FOR_TOKEN)
            return
        if not _is_from_this_machine(incoming):
            error = APIError(
                "This endpoint is for the gateway's operators only.", status=403, code="operators_only", hint=_HINT
            )
            if self._token is None:
                raise error
            error.status = 401
            raise AdmissionRefused(error, _ASK_FOR_TOKEN)


def _is_from_this_machine(incoming: HTTPRequest) -> bool:
    """Whether a program on this machine sent a request itself.

    A proxy adds headers, and a page that has pointed its own name to this machine (DNS rebinding) sends that name.
    """
    is_forwarded = any(name in incoming.headers for name in _FORWARDED)
    host = incoming.headers.get("host")
    return is_loopback(incoming.peer) and not is_forwarded and (host is None or _LOCAL_NAMES.allows(host))


def _token_of(authorization: str) -> str | None:
    """Return the token in a header: a bearer token, or the password entered in a browser."""
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def operator_routes(gateway: OperatorGateway) -> Iterator[tuple[str, str, Endpoint, Access]]:
    """Yield the operators' endpoints: method, path, endpoint and access."""
    yield "GET", "/ready", partial(_ready, gateway), "open"
    yield "GET", "/gateway/status", partial(_status, gateway), "operator"
    yield "GET", "/gateway/config", partial(_config, gateway), "operator"
    yield "PUT", "/gateway/config", partial(_configure, gateway), "operator"


async def _ready(gateway: OperatorGateway, _: HTTPRequest) -> HTTPAnswer:
    usable = sum(host.is_usable for host in gateway.hosts)
    is_ready = usable > 0 and not gateway.is_draining
    body = {
        "ready": is_ready,
        "hosts": len(gateway.hosts),
        "usable_hosts": usable,
        "draining": gateway.is_draining,
    }
    return json_answer(body, 200 if is_ready else 503)


async def _status(gateway: OperatorGateway, _: HTTPRequest) -> HTTPAnswer:
    return json_answer(await gateway.status())


async def _config(gateway: OperatorGateway, _: HTTPRequest) -> HTTPAnswer:
    return json_answer(to_builtins(gateway.config))


async def _configure(gateway: OperatorGateway, incoming: HTTPRequest) -> HTTPAnswer:
    """Use the configuration in the body, TOML or JSON, until the next start."""
    text = (await incoming.body()).decode("utf-8", "replace")
    await gateway.reconfigure(Config.replacement(text, "The request"))
    return json_answer(await gateway.status())
