"""LM Studio's HTTP API as an ASGI application, in front of any `Backend`."""

from __future__ import annotations

import secrets
from functools import cache, partial
from importlib import import_module
from typing import TYPE_CHECKING

from lmdeck._incoming.disconnect import ClientGoneError
from lmdeck._incoming.headers import joined_headers
from lmdeck._incoming.messages import IncomingRequest, Response
from lmdeck._incoming.routes import Routes
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

    from starlette.types import ASGIApp, Receive, Scope, Send

    from lmdeck.server.backend import Backend
    from lmdeck.server.jobs import ModelDescription

    Endpoint: TypeAlias = Callable[[IncomingRequest], Awaitable[Response]]


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
    middleware: Callable[[ASGIApp], ASGIApp] | None = None,
    counts_tokens: bool = False,
) -> ASGIApp:
    """Return an application that answers LM Studio's API from `backend`.

    If `api_token` is set, requests must send it as `Authorization: Bearer …` or `x-api-key` (LM Studio's docs,
    `0_core/authentication`). `stored` holds the responses that can be continued. Requests from pages of other sites, and
    requests for a host that is not among `hosts`, are refused (`lmdeck._incoming.trust`). An unknown path or method gets LM
    Studio's answer: status 200 and an error in the body. `middleware` gets the requests that are not refused, and
    `counts_tokens` adds `/v1/messages/count_tokens`.
    """
    responses = StoredResponses() if stored is None else stored
    app = _App(api_token)

    def answer(path: str, name: str, *more: object, method: str = "POST") -> None:
        app.routes.add(method, path, partial(_answer, name, (backend, *more)))

    def show(path: str, write: Callable[[Any], dict[str, Any]]) -> None:
        async def endpoint(_: IncomingRequest) -> Response:
            return json_response(write(backend.models()))

        app.routes.add("GET", path, endpoint)

    def show_one(path: str, write: Callable[[ModelDescription], dict[str, Any]]) -> None:
        async def endpoint(request: IncomingRequest) -> Response:
            models = backend.models()
            key = request.params["key"]
            model = next((model for model in models if model.key == key), None)
            if model is None:
                raise model_not_found(key, [model.key for model in models])
            return json_response(write(model))

        app.routes.add("GET", path, endpoint)

    if counts_tokens:
        answer("/v1/messages/count_tokens", "token_counts.answer_token_count")
    answer("/v1/chat/completions", "chat.answer_chat")
    answer("/v1/completions", "completions.answer_completion")
    answer("/v1/embeddings", "embeddings.answer_embeddings")
    answer("/v1/decisions", "decisions.answer_decisions")
    answer("/v1/systemone", "decisions.answer_systemone")
    answer("/v1/responses", "responses.answer_response", responses)
    answer("/v1/messages", "messages.answer_message")
    show("/v1/models", openai_models)
    show_one("/v1/models/{key:path}", openai_model)
    answer("/api/v0/chat/completions", "chat.answer_chat")
    answer("/api/v0/completions", "completions.answer_completion")
    answer("/api/v0/embeddings", "embeddings.answer_embeddings")
    show("/api/v0/models", v0_models)
    show_one("/api/v0/models/{key:path}", v0_model)
    answer("/api/v1/chat", "native.answer_native_chat", responses)
    show("/api/v1/models", native_models)
    answer("/api/v1/models/load", "management.answer_load")
    answer("/api/v1/models/unload", "management.answer_unload")
    answer("/api/v1/models/download", "management.answer_download")
    answer("/api/v1/models/download/status/{job_id}", "management.answer_download_status", method="GET")
    return _Trusted(app if middleware is None else middleware(app), hosts)


class _Trusted:
    """Middleware that refuses requests from pages of other sites.

    The error has the format of the requested endpoint. Only requests of HTTP are passed on.
    """

    def __init__(self, app: ASGIApp, hosts: AllowedHosts) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, or refuse it."""
        if scope["type"] != "http":
            return
        refused = refuse_request(scope["method"], joined_headers(scope["headers"]), self._hosts)
        if refused is None:
            await self._app(scope, receive, send)
            return
        refusal = Refusal(refused.status, f"{refused.message} {refused.hint}", type="invalid_request", is_bare=True)
        await json_response(refusal.body(scope["path"]), refused.status)(scope, receive, send)


class _App:
    """The application behind the checks.

    It finds the endpoint of a request; an error has the format of that endpoint.
    """

    def __init__(self, api_token: str | None) -> None:
        self.routes: Routes[Endpoint] = Routes()
        self._api_token = api_token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            response = await self._respond(scope, receive)
        except ClientGoneError:
            return
        except Exception as error:
            failure = BackendError(internal_failure(error), status=500)
            await json_response(failure_body(scope["path"], failure), failure.status)(scope, receive, send)
            raise
        await response(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive) -> Response:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        found = self.routes.find(method, scope["path"])
        request = IncomingRequest(scope, receive, {} if found is None else found[1])
        if found is None:
            return _unknown_endpoint(request)
        try:
            _check_token(request, self._api_token)
            return await found[0](request)
        except Refusal as refusal:
            return json_response(refusal.body(request.path), refusal.status)
        except BackendError as error:
            return json_response(failure_body(request.path, error), error.status)


async def _answer(name: str, arguments: tuple[object, ...], request: IncomingRequest) -> Response:
    return await _endpoint(name)(request, *arguments)


@cache
def _endpoint(name: str) -> Callable[..., Awaitable[Response]]:
    """Return the function of an endpoint.

    Its module is imported by its first request: a test uses one or two of them.
    """
    module, _, function = name.partition(".")
    endpoint: Callable[..., Awaitable[Response]] = getattr(import_module(f"lmdeck.server.endpoints.{module}"), function)
    return endpoint


def _check_token(request: IncomingRequest, api_token: str | None) -> None:
    if api_token is None:
        return
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    received = token.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
    if not received:
        raise missing_token()
    if not secrets.compare_digest(received.encode(), api_token.encode()):
        raise invalid_token()


def _unknown_endpoint(request: IncomingRequest) -> Response:
    if request.headers.get("upgrade", "").lower() == "websocket":
        refused = json_response({"error": NO_WEBSOCKETS}, 426)
        refused.headers = {**refused.headers, "upgrade": "HTTP/1.1"}
        return refused
    refusal = unexpected_endpoint(request.method, request.path)
    return json_response({"error": refusal.message}, refusal.status)
