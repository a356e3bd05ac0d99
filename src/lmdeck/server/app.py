"""LM Studio's HTTP API as a Starlette application, in front of any `Backend`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route

from lmdeck.server.backend import BackendError
from lmdeck.server.chat import answer_chat
from lmdeck.server.completions import answer_completion
from lmdeck.server.delivery import ClientGoneError, internal_failure, json_response
from lmdeck.server.listings import native_models, openai_model, openai_models, v0_model, v0_models
from lmdeck.server.refusals import Refusal, model_not_found, unexpected_endpoint

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any, TypeAlias

    from starlette.requests import Request

    from lmdeck.server.backend import Backend, ModelDescription

    Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]

__all__ = ["create_app"]


def create_app(backend: Backend) -> Starlette:
    """Make the application that answers LM Studio's API from `backend`.

    Paths and methods it does not know get LM Studio's answer: status 200 and an error in the body.
    """

    async def chat(request: Request) -> Response:
        return await answer_chat(request, backend)

    async def completion(request: Request) -> Response:
        return await answer_completion(request, backend)

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

    app = Starlette(
        routes=[
            Route("/v1/chat/completions", chat, methods=["POST"]),
            Route("/api/v0/chat/completions", chat, methods=["POST"]),
            Route("/v1/completions", completion, methods=["POST"]),
            Route("/api/v0/completions", completion, methods=["POST"]),
            Route("/v1/models", listing(openai_models), methods=["GET"]),
            Route("/v1/models/{key:path}", entry(openai_model), methods=["GET"]),
            Route("/api/v0/models", listing(v0_models), methods=["GET"]),
            Route("/api/v0/models/{key:path}", entry(v0_model), methods=["GET"]),
            Route("/api/v1/models", listing(native_models), methods=["GET"]),
        ],
        exception_handlers={
            Refusal: _refuse,
            BackendError: _fail,
            ClientGoneError: _nobody_listens,
            ClientDisconnect: _nobody_listens,
            HTTPException: _unexpected,
            Exception: _broken,
        },
    )
    app.router.redirect_slashes = False
    return app


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)  # noqa: S101  # registered for this class alone
    return json_response(error.body, error.status)


async def _fail(_: Request, error: Exception) -> Response:
    assert isinstance(error, BackendError)  # noqa: S101  # registered for this class alone
    return json_response(error.body, error.status)


async def _nobody_listens(_: Request, __: Exception) -> Response:
    return Response(status_code=499)


async def _unexpected(request: Request, _: Exception) -> Response:
    refusal = unexpected_endpoint(request.method, request.url.path)
    return json_response(refusal.body, refusal.status)


async def _broken(_: Request, error: Exception) -> Response:
    return json_response({"error": internal_failure(error)}, 500)
