"""Error responses of proxies and servers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lmdeck.testing.faults.declaration import fault

if TYPE_CHECKING:
    from lmdeck.testing.fake_connection import PlannedResponse, Wire


async def respond_json(wire: Wire, status: int, error: object, headers: dict[str, str] | None = None) -> None:
    """Send a response with a JSON body."""
    extra = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    await wire.respond(status, json.dumps(error).encode(), [(b"content-type", b"application/json"), *extra])


@fault("error")
async def rate_limit(wire: Wire, _: PlannedResponse, *, retry_after: int = 0) -> None:
    """429, with a `Retry-After` header in seconds."""
    await respond_json(wire, 429, {"error": {"message": "Too many requests."}}, {"retry-after": str(retry_after)})


@fault("error")
async def server_error(wire: Wire, _: PlannedResponse) -> None:
    """500, an internal error of the server."""
    await respond_json(wire, 500, {"error": "Internal server error"})


@fault("error")
async def overloaded(wire: Wire, _: PlannedResponse) -> None:
    """503, the server is busy."""
    await respond_json(wire, 503, {"error": {"message": "The server is busy. Try again later."}})


@fault("error")
async def bad_gateway(wire: Wire, _: PlannedResponse) -> None:
    """502 with a proxy's page: LM Studio is not running."""
    page = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
    await wire.respond(502, page, [(b"content-type", b"text/html")])


@fault("error")
async def html(wire: Wire, _: PlannedResponse) -> None:
    """Status 200 with a web page, such as a login page in front of the server."""
    page = b"<!DOCTYPE html><html><body>Please sign in.</body></html>"
    await wire.respond(200, page, [(b"content-type", b"text/html; charset=utf-8")])


@fault("error")
async def redirect(wire: Wire, _: PlannedResponse) -> None:
    """A redirect to another server."""
    await wire.respond(307, b"", [(b"location", b"http://127.0.0.1:9/v1/chat/completions")])


@fault("error")
async def unexpected_endpoint(wire: Wire, _: PlannedResponse) -> None:
    """Status 200 with an error, as LM Studio answers unknown paths."""
    await respond_json(wire, 200, {"error": "Unexpected endpoint or method. (POST /chat/completions)"})


@fault("error")
async def unauthorized(wire: Wire, _: PlannedResponse) -> None:
    """401: an API token is required."""
    message = "An LM Studio API token is required to make requests to this server, but none was provided."
    await respond_json(wire, 401, {"error": {"type": "invalid_request", "code": "invalid_api_key", "message": message}})
