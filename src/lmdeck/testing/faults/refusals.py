"""Proxies and servers refuse."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lmdeck.testing.faults.declaration import fault

if TYPE_CHECKING:
    from lmdeck.testing.connection import Parts, Wire


async def say(wire: Wire, status: int, error: object, headers: dict[str, str] | None = None) -> None:
    """Answer with a status and JSON."""
    extra = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    await wire.answer(status, json.dumps(error).encode(), [(b"content-type", b"application/json"), *extra])


@fault("error")
async def rate_limit(wire: Wire, answer: Parts, *, retry_after: int = 0) -> None:  # noqa: ARG001
    """429, and the seconds to wait."""
    await say(wire, 429, {"error": {"message": "Too many requests."}}, {"retry-after": str(retry_after)})


@fault("error")
async def server_error(wire: Wire, answer: Parts) -> None:  # noqa: ARG001
    """500."""
    await say(wire, 500, {"error": "Internal server error"})


@fault("error")
async def overloaded(wire: Wire, answer: Parts) -> None:  # noqa: ARG001
    """503."""
    await say(wire, 503, {"error": {"message": "The server is busy. Try again later."}})


@fault("error")
async def bad_gateway(wire: Wire, answer: Parts) -> None:  # noqa: ARG001
    """502 with a proxy's page: LM Studio is not up behind it."""
    page = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
    await wire.answer(502, page, [(b"content-type", b"text/html")])


@fault("error")
async def html(wire: Wire, answer: Parts) -> None:  # noqa: ARG001
    """Status 200 with a web page: a login page stands before the server."""
    page = b"<!DOCTYPE html><html><body>Please sign in.</body></html>"
    await wire.answer(200, page, [(b"content-type", b"text/html; charset=utf-8")])


@fault("error")
async def redirect(wire: Wire, answer: Parts) -> None:  # noqa: ARG001
    """A redirect to another server."""
    await wire.answer(307, b"", [(b"location", b"http://127.0.0.1:9/v1/chat/completions")])


@fault("error")
async def unexpected_endpoint(wire: Wire, answer: Parts) -> None:  # noqa: ARG001
    """Status 200 with an error, as LM Studio answers paths that it does not know."""
    await say(wire, 200, {"error": "Unexpected endpoint or method. (POST /chat/completions)"})


@fault("error")
async def unauthorized(wire: Wire, answer: Parts) -> None:  # noqa: ARG001
    """401: a token is needed."""
    message = "An LM Studio API token is required to make requests to this server, but none was provided."
    await say(wire, 401, {"error": {"type": "invalid_request", "code": "invalid_api_key", "message": message}})
