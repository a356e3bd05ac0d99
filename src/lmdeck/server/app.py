"""LM Studio's HTTP API as a Starlette application, in front of any `Backend`."""

from __future__ import annotations

import secrets
from functools import cache, partial
from importlib import import_module
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route

from lmdeck._incoming.disconnect import ClientGoneError
from lmdeck._incoming.headers import joined_headers
from lmdeck._incoming.trust import LOOPBACK, AllowedHosts, refuse_request
from lmdeck.server.backend import BackendError
from lmdeck.server.endpoints.listings import native_models, openai_model, openai_models, v0_model, v0_models
from lmdeck.server.errors import (
    Refusal,
    failure_body,
    invalid_token,
    missing_token,
    model_not_found,
    unexpected_endpoint,
)
from lmdeck.server.http_responses import internal_failure, json_response
from lmdeck.server.stored import StoredResponses

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any, TypeAlias

    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from lmdeck.server.backend import Backend
    from lmdeck.server.jobs import ModelDescription

    Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]


NO_WEBSOCKETS = (
    "This server speaks LM Studio's HTTP API only. LM Studio's own SDKs (lmstudio-python, lmstudio-js) need its WebSocket API: "
    "use lmdeck, an OpenAI or an Anthropic client here."
)


def create_app(
    backend: Backend,
    *,
    api_token: str | None = None,
    stored: StoredResponses | None = None,
    hosts: AllowedHosts = LOOPBACK,
    tolerant: bool = False,
    counts_tokens: bool = False,
) -> Starlette:
    """Return an application that answers LM Studio's API from `backend`.

    If `api_token` is set, requests must send it as `Authorization: Bearer …` or `x-api-key` (LM Studio's docs,
    `0_core/authentication`). `stored` holds the responses that can be continued. Requests from pages of other sites, and
    requests for a host that is not among `hosts`, are refused (`lmdeck._incoming.trust`). An unknown path or method gets LM
    Studio's answer: status 200 and an error in the body. `tolerant` accepts requests of other clients that LM Studio refuses,
    and `counts_tokens` adds `/v1/messages/count_tokens`.
    """
    responses = StoredResponses() if stored is None else stored

    def listing(write: Callable[[Any], dict[str, Any]]) -> Endpoint:
        async def endpoint(_: Request) -> Response:
            return json_response(write(backend.models()))

        return endpoint

    def details(write: Callable[[ModelDescription], dict[str, Any]]) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            models = backend.models()
            key = request.path_params["key"]
            if not key:
                raise HTTPException(404)
            model = next((model for model in models if model.key == key), None)
            if model is None:
                raise model_not_found(key, [model.key for model in models])
            return json_response(write(model))

        return endpoint

    def route(path: str, endpoint: Endpoint, method: str = "POST") -> Route:
        async def authenticated(request: Request) -> Response:
            _check_token(request, api_token)
            return await endpoint(request)

        return Route(path, authenticated, methods=[method])

    def answering(name: str, *more: object) -> Endpoint:
        return partial(_answer, name, (backend, *more))

    more = [route("/v1/messages/count_tokens", answering("token_counts.answer_token_count"))] if counts_tokens else []
    converting = _converting() if tolerant else []
    app = Starlette(
        routes=[
            *more,
            route("/v1/chat/completions", answering("chat.answer_chat")),
            route("/v1/completions", answering("completions.answer_completion")),
            route("/v1/embeddings", answering("embeddings.answer_embeddings")),
            route("/v1/decisions", answering("decisions.answer_decisions")),
            route("/v1/systemone", answering("decisions.answer_systemone")),
            route("/v1/responses", answering("responses.answer_response", responses)),
            route("/v1/messages", answering("messages.answer_message")),
            route("/v1/models", listing(openai_models), "GET"),
            route("/v1/models/{key:path}", details(openai_model), "GET"),
            route("/api/v0/chat/completions", answering("chat.answer_chat")),
            route("/api/v0/completions", answering("completions.answer_completion")),
            route("/api/v0/embeddings", answering("embeddings.answer_embeddings")),
            route("/api/v0/models", listing(v0_models), "GET"),
            route("/api/v0/models/{key:path}", details(v0_model), "GET"),
            route("/api/v1/chat", answering("native.answer_native_chat", responses)),
            route("/api/v1/models", listing(native_models), "GET"),
            route("/api/v1/models/load", answering("management.answer_load")),
            route("/api/v1/models/unload", answering("management.answer_unload")),
            route("/api/v1/models/download", answering("management.answer_download")),
            route("/api/v1/models/download/status/{job_id}", answering("management.answer_download_status"), "GET"),
        ],
        exception_handlers={
            Refusal: _refusal,
            BackendError: _backend_error,
            ClientGoneError: _client_gone,
            ClientDisconnect: _client_gone,
            HTTPException: _unknown_endpoint,
            Exception: _internal_error,
        },
        middleware=[Middleware(_TrustMiddleware, hosts=hosts), *converting],
    )
    app.router.redirect_slashes = False
    return app


def _converting() -> list[Middleware]:
    """Return the middleware of tolerant servers.

    It is imported late: the conversion of requests needs most of the client.
    """
    from lmdeck.server.tolerance import ToleranceMiddleware

    return [Middleware(ToleranceMiddleware)]


class _TrustMiddleware:
    """Middleware that refuses requests from pages of other sites.

    The error has the format of the requested endpoint.
    """

    def __init__(self, app: ASGIApp, hosts: AllowedHosts) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, or refuse it."""
        refused = (
            refuse_request(scope["method"], joined_headers(scope["headers"]), self._hosts)
            if scope["type"] == "http"
            else None
        )
        if refused is None:
            await self._app(scope, receive, send)
            return
        refusal = Refusal(refused.status, f"{refused.message} {refused.hint}", type="invalid_request", is_bare=True)
        await json_response(refusal.body(scope["path"]), refused.status)(scope, receive, send)


async def _answer(name: str, arguments: tuple[object, ...], request: Request) -> Response:
    return await _endpoint(name)(request, *arguments)


@cache
def _endpoint(name: str) -> Callable[..., Awaitable[Response]]:
    """Return the function of an endpoint.

    Its module is imported by its first request: a test uses one or two of them.
    """
    module, _, function = name.partition(".")
    endpoint: Callable[..., Awaitable[Response]] = getattr(import_module(f"lmdeck.server.endpoints.{module}"), function)
    return endpoint


def _check_token(request: Request, api_token: str | None) -> None:
    if api_token is None:
        return
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    received = token.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
    if not received:
        raise missing_token()
    if not secrets.compare_digest(received.encode(), api_token.encode()):
        raise invalid_token()


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)  # registered for this class alone
    return json_response(error.body(request.url.path), error.status)


async def _backend_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, BackendError)  # registered for this class alone
    return json_response(failure_body(request.url.path, error), error.status)


async def _client_gone(_: Request, __: Exception) -> Response:
    return Response(status_code=499)


async def _unknown_endpoint(request: Request, _: Exception) -> Response:
    if request.headers.get("upgrade", "").lower() == "websocket":
        answer = json_response({"error": NO_WEBSOCKETS}, 426)
        answer.headers["Upgrade"] = "HTTP/1.1"
        return answer
    refusal = unexpected_endpoint(request.method, request.url.path)
    return json_response({"error": refusal.message}, refusal.status)


async def _internal_error(request: Request, error: Exception) -> Response:
    failure = BackendError(internal_failure(error), status=500)
    return json_response(failure_body(request.url.path, failure), failure.status)
