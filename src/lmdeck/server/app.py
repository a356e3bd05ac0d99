"""LM Studio's HTTP API as a Starlette application, in front of any `Backend`."""

from __future__ import annotations

import secrets
from functools import partial
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route

from lmdeck.server.backend import BackendError
from lmdeck.server.delivery import ClientGoneError, internal_failure, json_response
from lmdeck.server.endpoints.chat import answer_chat
from lmdeck.server.endpoints.completions import answer_completion
from lmdeck.server.endpoints.decisions import answer_decisions, answer_systemone
from lmdeck.server.endpoints.embeddings import answer_embeddings
from lmdeck.server.endpoints.listings import native_models, openai_model, openai_models, v0_model, v0_models
from lmdeck.server.endpoints.management import answer_download, answer_download_status, answer_load, answer_unload
from lmdeck.server.endpoints.messages import answer_message
from lmdeck.server.endpoints.native import answer_native_chat
from lmdeck.server.endpoints.responses import answer_response
from lmdeck.server.errors import (
    Refusal,
    failure_body,
    invalid_token,
    missing_token,
    model_not_found,
    unexpected_endpoint,
)
from lmdeck.server.stored import StoredAnswers
from lmdeck.web.trust import LOOPBACK, AllowedHosts, refuse_request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any, TypeAlias

    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from lmdeck.server.backend import Backend
    from lmdeck.server.jobs import ModelDescription

    Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]

__all__ = ["create_app"]


def create_app(
    backend: Backend,
    *,
    api_token: str | None = None,
    stored: StoredAnswers | None = None,
    hosts: AllowedHosts = LOOPBACK,
) -> Starlette:
    """Make the application that answers LM Studio's API from `backend`.

    With `api_token`, requests need it as `Authorization: Bearer …` or `x-api-key` (LM Studio's docs, `0_core/authentication`).
    `stored` keeps the answers that can be continued. Requests that a page of another site sends, and those for a name not among
    `hosts`, are refused (`lmdeck.web.trust`). Paths and methods that are not known get LM Studio's answer: status 200 and an
    error in the body.
    """
    kept = StoredAnswers() if stored is None else stored

    def listing(write: Callable[[Any], dict[str, Any]]) -> Endpoint:
        async def endpoint(_: Request) -> Response:
            return json_response(write(backend.models()))

        return endpoint

    def entry(write: Callable[[ModelDescription], dict[str, Any]]) -> Endpoint:
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

    def guarded(path: str, endpoint: Endpoint, method: str = "POST") -> Route:
        async def allowed(request: Request) -> Response:
            _check_token(request, api_token)
            return await endpoint(request)

        return Route(path, allowed, methods=[method])

    def answering(answer: Callable[..., Awaitable[Response]], *more: object) -> Endpoint:
        return partial(_answer, answer, (backend, *more))

    app = Starlette(
        routes=[
            guarded("/v1/chat/completions", answering(answer_chat)),
            guarded("/v1/completions", answering(answer_completion)),
            guarded("/v1/embeddings", answering(answer_embeddings)),
            guarded("/v1/decisions", answering(answer_decisions)),
            guarded("/v1/systemone", answering(answer_systemone)),
            guarded("/v1/responses", answering(answer_response, kept)),
            guarded("/v1/messages", answering(answer_message)),
            guarded("/v1/models", listing(openai_models), "GET"),
            guarded("/v1/models/{key:path}", entry(openai_model), "GET"),
            guarded("/api/v0/chat/completions", answering(answer_chat)),
            guarded("/api/v0/completions", answering(answer_completion)),
            guarded("/api/v0/embeddings", answering(answer_embeddings)),
            guarded("/api/v0/models", listing(v0_models), "GET"),
            guarded("/api/v0/models/{key:path}", entry(v0_model), "GET"),
            guarded("/api/v1/chat", answering(answer_native_chat, kept)),
            guarded("/api/v1/models", listing(native_models), "GET"),
            guarded("/api/v1/models/load", answering(answer_load)),
            guarded("/api/v1/models/unload", answering(answer_unload)),
            guarded("/api/v1/models/download", answering(answer_download)),
            guarded("/api/v1/models/download/status/{job_id}", answering(answer_download_status), "GET"),
        ],
        exception_handlers={
            Refusal: _refuse,
            BackendError: _fail,
            ClientGoneError: _nobody_listens,
            ClientDisconnect: _nobody_listens,
            HTTPException: _unexpected,
            Exception: _broken,
        },
        middleware=[Middleware(_Trust, hosts=hosts)],
    )
    app.router.redirect_slashes = False
    return app


class _Trust:
    """Refuses what pages of other sites send, in the form of the endpoint that was asked."""

    def __init__(self, app: ASGIApp, hosts: AllowedHosts) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        refused = (
            refuse_request(scope["method"], Headers(scope=scope), self._hosts) if scope["type"] == "http" else None
        )
        if refused is None:
            await self._app(scope, receive, send)
            return
        refusal = Refusal(refused.status, f"{refused.message} {refused.hint}", type="invalid_request", is_bare=True)
        await json_response(refusal.body(scope["path"]), refused.status)(scope, receive, send)


async def _answer(answer: Callable[..., Awaitable[Response]], given: tuple[object, ...], request: Request) -> Response:
    return await answer(request, *given)


def _check_token(request: Request, api_token: str | None) -> None:
    if api_token is None:
        return
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    given = token.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
    if not given:
        raise missing_token()
    if not secrets.compare_digest(given.encode(), api_token.encode()):
        raise invalid_token()


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)  # noqa: S101  # registered for this class alone
    return json_response(error.body(request.url.path), error.status)


async def _fail(request: Request, error: Exception) -> Response:
    assert isinstance(error, BackendError)  # noqa: S101  # registered for this class alone
    return json_response(failure_body(request.url.path, error), error.status)


async def _nobody_listens(_: Request, __: Exception) -> Response:
    return Response(status_code=499)


async def _unexpected(request: Request, _: Exception) -> Response:
    refusal = unexpected_endpoint(request.method, request.url.path)
    return json_response({"error": refusal.message}, refusal.status)


async def _broken(request: Request, error: Exception) -> Response:
    failure = BackendError(internal_failure(error), status=500)
    return json_response(failure_body(request.url.path, failure), failure.status)
