"""The gateway as an ASGI application: a request from its arrival to the end of its answer."""

from __future__ import annotations

import asyncio
import logging
import posixpath
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from lmdeck._incoming.disconnect import ClientGoneError, run_until_disconnect
from lmdeck._incoming.routes import Routes
from lmdeck._incoming.trust import AllowedHosts, refuse_request
from lmdeck._requests.token_estimates import TokenEstimator
from lmdeck.errors import InvalidRequestError, LMStudioError, ServerError
from lmdeck.gateway.admission import CLIENT_GONE, Admission, AdmissionRefused, OpenAdmission, Principal, RequestOutcome
from lmdeck.gateway.answer_cache import CachedAnswers, open_cache
from lmdeck.gateway.answer_sender import AnswerSender
from lmdeck.gateway.batch.endpoints import batch_routes
from lmdeck.gateway.batch.runner import BatchRunner
from lmdeck.gateway.config import Config
from lmdeck.gateway.dashboard.routes import dashboard_routes
from lmdeck.gateway.dispatcher import Dispatcher
from lmdeck.gateway.errors import internal_error, shutting_down
from lmdeck.gateway.estimates import cost_of, count_tokens
from lmdeck.gateway.http import (
    Access,
    Endpoint,
    HTTPAnswer,
    HTTPRequest,
    error_response,
    json_answer,
    json_object,
    object_or_empty,
    send_answer,
)
from lmdeck.gateway.hub import AnyHub, Hub, ServerState
from lmdeck.gateway.logs import log_outcome
from lmdeck.gateway.operators import Operators
from lmdeck.gateway.relayed_request import RelayedRequest
from lmdeck.gateway.request_handlers import GatewayRequest, Handler, HandlerFactory
from lmdeck.gateway.request_history import Bucket
from lmdeck.relay import Kind, RelayRequest, Route, route_of
from lmdeck.server.scope_keys import ON_LOST

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

__all__ = ["Gateway", "admission_from"]

SHOWN_LIVE = 200
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_ALLOW = {"allow": ", ".join(_METHODS)}
COUNT_TOKENS = "/v1/messages/count_tokens"
_NO_WEBSOCKETS = (
    "The gateway speaks HTTP only. LM Studio's own SDKs (lmstudio-python, lmstudio-js) need LM Studio's WebSocket API: use "
    "lmdeck, an OpenAI or an Anthropic client here."
)
_log = logging.getLogger("lmdeck.gateway")


def admission_from(config: Config) -> Admission:
    """Return the keys and limits of a configuration.

    Without `[store]` and required keys, nothing is stored.
    """
    if not (config.auth.required or config.store.url):
        return OpenAdmission()
    from lmdeck.gateway.key_admission import KeyAdmission  # imported late: few gateways count limits in Redis

    return KeyAdmission(
        config.store_url,
        limits_url=config.limits_url,
        required=bool(config.auth.required),
        workers=config.server.workers,
        keep_days=config.store.keep_days,
        recordings=config.store.recordings,
    )


class Gateway:
    """The gateway.

    `around` are factories of handlers between admission and routing, the first one outermost. `observers` are called with the
    outcome of every request that asked for an answer. `hub` manages the hosts; by default it is in this process.
    """

    def __init__(
        self,
        config: Config,
        *,
        admission: Admission | None = None,
        around: Iterable[HandlerFactory] = (),
        clock: Callable[[], float] = time.monotonic,
        hub: AnyHub | None = None,
    ) -> None:
        self.config = config
        self.admission = admission_from(config) if admission is None else admission
        self.hub: AnyHub = Hub(config, clock) if hub is None else hub
        self.hub.servers.append(self)
        self.observers: list[Callable[[RequestOutcome], object]] = [log_outcome, self.hub.note]
        self.estimator = TokenEstimator()
        self.operators = Operators(config.admin)
        self.deliveries: set[AnswerSender] = set()
        self.relayed: dict[str, RelayedRequest] = {}
        self.is_draining = False
        self.clock = clock
        self._routes: Routes[tuple[Endpoint, Access]] = Routes()
        self._trusted = _trusted_hosts(config)
        self._dispatcher = Dispatcher(config, self.hub)
        self.answer: Handler = self._dispatcher.answer
        self.cache = open_cache(config.cache)
        if self.cache is not None:
            self.answer = CachedAnswers(self.cache, self.answer, self.hub.variants, is_shared=config.cache.shared)
        for factory in reversed(list(around)):
            self.answer = factory(self.answer)
        self._tasks: list[asyncio.Task[None]] = []
        self.batches = BatchRunner(self)
        self.add_route("GET", "/health", _health, "open")
        self.add_route("POST", COUNT_TOKENS, self._count_tokens, "key")
        for method, path, endpoint, access in (*dashboard_routes(self), *batch_routes(self)):
            self.add_route(method, path, endpoint, access)

    def add_route(self, method: str, path: str, endpoint: Endpoint, access: Access = "key") -> None:
        """Add an endpoint of the gateway itself.

        It is for everybody (`open`), for holders of a key, or for operators.
        """
        self._routes.add(method, path, (endpoint, access))

    async def overview(self, range_name: str) -> tuple[dict[str, Any], list[Bucket]]:
        """Return the status of the whole gateway, and the history of a range."""
        return await self.hub.overview(range_name)

    # --- for the hub ---

    async def state(self) -> ServerState:
        """Return the open requests of this process."""
        live = [relayed.status() for relayed in islice(self.relayed.values(), SHOWN_LIVE)]
        return ServerState(requests=len(self.deliveries), live=live)

    async def cancel(self, request_id: str) -> bool:
        """End an open request with an error; return whether this process has one of this id."""
        relayed = self.relayed.get(request_id)
        if relayed is not None:
            hint = "Ask the operator of the gateway why."
            relayed.delivery.stop(
                ServerError("An operator stopped the request.", status=503, code="cancelled", hint=hint)
            )
        return relayed is not None

    async def use(self, config: Config) -> None:
        """Use another configuration; server and store stay as they are."""
        self.config = self._dispatcher.config = config
        self.operators = Operators(config.admin)
        self._trusted = _trusted_hosts(config)

    # --- start and stop ---

    async def start(self) -> None:
        """Open the store, and fetch the model lists of all hosts once."""
        await self.admission.start()
        store = getattr(self.admission, "store", None)
        if store is not None and isinstance(self.hub, Hub):
            await self.hub.load_history(store)
        await self.hub.start()
        for method, path, access in await self.hub.routes():
            self.add_route(method, path, self.hub.answer, access)
        self._tasks.append(asyncio.create_task(self._watch_readers()))
        await self.batches.start()

    async def aclose(self) -> None:
        """Stop watching the hosts and working on batches, and close connections and store."""
        await self.batches.aclose()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await self.hub.aclose()
        await self.admission.aclose()
        if self.cache is not None:
            self.cache.close()

    def drain(self) -> None:
        """Refuse new requests from now on."""
        self.is_draining = self.hub.is_draining = True

    def end_requests(self) -> int:
        """End the open requests at shutdown, each with an error in its format; return their number."""
        error = shutting_down()
        for delivery in list(self.deliveries):
            delivery.stop(error)
        return len(self.deliveries)

    async def _watch_readers(self) -> None:
        """Cut the connections of clients that have not read for `limits.write_seconds`."""
        while True:
            await asyncio.sleep(min(1.0, self.config.limits.write_seconds / 4))
            limit = self.clock() - self.config.limits.write_seconds
            for delivery in list(self.deliveries):
                if delivery.blocked_since is not None and delivery.blocked_since < limit:
                    _log.warning("a client has not read its answer for limits.write_seconds: its connection was closed")
                    delivery.abort()

    # --- requests ---

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._run_lifespan(receive, send)
        if scope["type"] != "http":
            return
        scope = self._canonical(scope)
        incoming = HTTPRequest(scope, receive, self.config.limits)
        own = self._routes.find(incoming.method, incoming.path)
        # Pages of other sites cannot send PUT, and are refused by their origin; an upload is not JSON.
        is_upload = own is not None and incoming.headers.get("content-type", "").startswith("multipart/form-data")
        needs_json = not (is_upload or incoming.method == "PUT")
        refusal = refuse_request(incoming.method, incoming.headers, self._trusted, needs_json=needs_json)
        if refusal is not None:
            error = InvalidRequestError(refusal.message, hint=refusal.hint, status=refusal.status)
            await send_answer(send, error_response(route_of(incoming.method, incoming.url).kind, error))
        elif own is not None:
            (endpoint, access), incoming.params = own
            answer = await self._own_answer(incoming, endpoint, access)
            with suppress(ClientGoneError):
                await (
                    send_answer(send, answer)
                    if isinstance(answer.body, bytes)
                    else run_until_disconnect(receive, send_answer(send, answer))
                )
        elif incoming.method not in _METHODS:  # `TRACE` would show the client the host's own token
            message = f"The gateway does not accept the method {incoming.method}. Send one of {_ALLOW['allow']}."
            await send_answer(send, json_answer({"error": {"message": message}}, 405, _ALLOW))
        elif incoming.method == "OPTIONS":  # asked by browsers for pages of other origins, which are not served
            await send_answer(send, HTTPAnswer(headers=_ALLOW))
        elif incoming.headers.get("upgrade", "").lower() == "websocket":
            headers = {"upgrade": "HTTP/1.1", "connection": "close"}
            await send_answer(send, json_answer({"error": {"message": _NO_WEBSOCKETS}}, 426, headers))
        else:
            await self._relay(incoming, receive, send)

    def _canonical(self, scope: Scope) -> Scope:
        """Return a request for a known endpoint with its canonical path, and `HEAD` as `GET`.

        The server omits the body of an answer to `HEAD`. Hosts accept other spellings of a path: without this,
        `/API/V1//models/load/` would reach a host without the checks of `/api/v1/models/load`.
        """
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        canonical = posixpath.normpath(f"/{scope['path'].lstrip('/')}").lower()
        if self._routes.find(method, scope["path"]):
            return scope if method == scope["method"] else {**scope, "method": method}
        is_known = (
            self._routes.find(method, canonical) or route_of(method, f"http://gateway{canonical}").kind != "other"
        )
        is_canonical = canonical == scope["path"] and b"%" not in scope["raw_path"].partition(b"?")[0]
        if is_canonical or not is_known:
            return scope
        return {**scope, "method": method, "path": canonical, "raw_path": quote(canonical).encode()}

    async def _own_answer(self, incoming: HTTPRequest, endpoint: Endpoint, access: Access) -> HTTPAnswer:
        """Return the answer of one of the gateway's own endpoints, if the client may use it."""
        kind: Kind = "messages" if incoming.path == COUNT_TOKENS else "other"
        try:
            if access == "operator":
                self.operators.check(incoming)
            elif access == "key":
                incoming.principal = await self.admission.authenticate(incoming.headers)
            return await endpoint(incoming)
        except AdmissionRefused as refused:
            return error_response(kind, refused.error, refused.headers)
        except LMStudioError as error:
            return error_response(kind, error)
        except ClientGoneError:
            return HTTPAnswer(status=CLIENT_GONE)
        except Exception as error:
            _log.exception("%s %s failed", incoming.method, incoming.path)
            return error_response(kind, internal_error(error))

    async def _relay(self, incoming: HTTPRequest, receive: Receive, send: Send) -> None:
        """Relay a request to a host, and stop it when the client leaves."""
        relayed = RelayedRequest(self, incoming, AnswerSender(incoming.scope, send, self.clock))
        self.deliveries.add(relayed.delivery)
        self.relayed[relayed.outcome.request_id] = relayed
        try:
            if await relayed.read():
                await self._run_while_connected(incoming.scope, receive, relayed)
        except ClientGoneError:
            relayed.outcome.status, relayed.outcome.error = CLIENT_GONE, relayed.outcome.error or "ClientGoneError"
        finally:
            self.deliveries.discard(relayed.delivery)
            del self.relayed[relayed.outcome.request_id]
            await relayed.settle()
            for observer in self.observers:
                observer(relayed.outcome)

    @staticmethod
    async def _run_while_connected(scope: Scope, receive: Receive, relayed: RelayedRequest) -> None:
        """Run a request until the client leaves.

        The gateway's own server reports that without a task that waits for it.

        Raises:
            ClientGoneError: The client has left.
        """
        on_lost: list[Callable[[], object]] | None = scope.get(ON_LOST)
        task = asyncio.current_task()
        if on_lost is None or task is None:
            await run_until_disconnect(receive, relayed.run())
            return
        is_gone = False

        def leave() -> None:
            nonlocal is_gone
            is_gone = True
            task.cancel()

        on_lost.append(leave)
        try:
            await relayed.run()
        except asyncio.CancelledError:
            if not is_gone or task.uncancel():
                raise
            raise ClientGoneError from None
        finally:
            with suppress(ValueError):  # it was called
                on_lost.remove(leave)

    async def _run_lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            is_end = message["type"] == "lifespan.shutdown"
            try:
                await (self.aclose() if is_end else self.start())
            except LMStudioError as error:
                await send({"type": f"{message['type']}.failed", "message": str(error)})
                return
            await send({"type": f"{message['type']}.complete"})
            if is_end:
                return

    async def request_of(
        self,
        outcome: RequestOutcome,
        principal: Principal,
        route: Route,
        body: bytes,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
    ) -> GatewayRequest:
        """Return a request in a form that hosts accept; note its model in `outcome`.

        Raises:
            LMStudioError: It is invalid, or no host has a model for it.
        """
        relay = RelayRequest(route.kind, body) if route.kind != "other" else None
        fields = relay.sent if relay is not None else object_or_empty(body)
        model = fields.get("model") or ""
        if not isinstance(model, str):
            raise InvalidRequestError(
                "The field `model` is not a string.", status=400, hint="Send the name of one model."
            )
        if not model and relay is not None:
            model = await self.hub.default_model(principal)
        prompt, longest = cost_of(fields, len(body))
        outcome.model = model
        return GatewayRequest(
            outcome=outcome,
            method=method,
            route=route,
            headers=headers or {},
            body=body,
            fields=fields,
            model=model,
            prompt_tokens=prompt,
            tokens=prompt + longest,
            principal=principal,
            relay=relay,
        )

    # --- own endpoints ---

    async def _count_tokens(self, incoming: HTTPRequest) -> HTTPAnswer:
        """Answer Anthropic's `count_tokens` by an estimate, calibrated by the model's answers."""
        body = await incoming.body()
        return json_answer({"input_tokens": count_tokens(self.estimator, json_object(body), len(body))})


async def _health(_: HTTPRequest) -> HTTPAnswer:
    return json_answer({"status": "ok"})


def _trusted_hosts(config: Config) -> AllowedHosts:
    """Return the host names that the gateway answers to.

    All are allowed if clients need a key, which no foreign web page has.
    """
    if config.auth.required:
        return AllowedHosts(names=frozenset({""}))
    return AllowedHosts.of(config.server.allowed_hosts, config.server.host)
