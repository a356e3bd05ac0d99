"""The gateway as an ASGI application: a request from its arrival to the end of its answer."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lmdeck._requests.token_estimates import TokenEstimator
from lmdeck._responses.model_lists import choose_model
from lmdeck.errors import APIError, InvalidRequestError, LMStudioError, ServerError
from lmdeck.gateway.admission import CLIENT_GONE, Admission, Ask, Lease, OpenAdmission, Outcome, Principal, Refusal
from lmdeck.gateway.batch.endpoints import batch_routes
from lmdeck.gateway.batch.runner import BatchRunner
from lmdeck.gateway.caching import CachedAnswers, open_cache
from lmdeck.gateway.config import Config
from lmdeck.gateway.control import control_routes
from lmdeck.gateway.dashboard.routes import dashboard_routes
from lmdeck.gateway.delivery import ON_LOST, Delivery
from lmdeck.gateway.estimates import cost_of, count_tokens
from lmdeck.gateway.handlers import GatewayAnswer, GatewayRequest, Handler, HandlerFactory
from lmdeck.gateway.history import LONGEST, History
from lmdeck.gateway.http import Access, Arrived, Endpoint, HTTPAnswer, Routes, json_answer, send_answer
from lmdeck.gateway.listings import LISTS, find_model, list_models
from lmdeck.gateway.logs import log_outcome
from lmdeck.gateway.management import management_routes
from lmdeck.gateway.metrics import GatewayMetrics
from lmdeck.gateway.operators import Operators, operator_routes
from lmdeck.gateway.pool import Pool
from lmdeck.relay import Kind, RelayRequest, Route, error_answer, route_of
from lmdeck.web.disconnect import ClientGoneError, run_until_disconnect
from lmdeck.web.trust import AllowedHosts, refuse_request

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

__all__ = ["Gateway", "admission_from"]

LEAST_SAMPLE = 200  # tokens of a prompt from which estimates are learned: a short one is mostly template
SHOWN_LIVE = 200
MOST_LOADED = 100_000
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
    outcome of every request that asked for an answer. `locks` is a folder that several processes share, so that only one of
    them loads a model on a host.
    """

    def __init__(
        self,
        config: Config,
        *,
        admission: Admission | None = None,
        around: Iterable[HandlerFactory] = (),
        clock: Callable[[], float] = time.monotonic,
        locks: Path | None = None,
    ) -> None:
        self.config = config
        self.admission = admission_from(config) if admission is None else admission
        self.metrics = GatewayMetrics(self.status)
        self.history = History()
        self.observers: list[Callable[[Outcome], object]] = [log_outcome, self.metrics.note, self.history.note]
        self.estimator = TokenEstimator()
        self.pool = Pool(config, clock, locks)
        self.operators = Operators(config.admin)
        self.deliveries: set[Delivery] = set()
        self.works: dict[str, _Work] = {}
        self.is_draining = False
        self.clock = clock
        self._reconfiguring = asyncio.Lock()
        self._routes = Routes()
        self._trusted = _trusted_hosts(config)
        self.answer: Handler = self.pool.dispatcher.answer
        self.cache = open_cache(config.cache)
        if self.cache is not None:
            self.answer = CachedAnswers(self.cache, self.answer, self.pool.variants, is_shared=config.cache.shared)
        for factory in reversed(list(around)):
            self.answer = factory(self.answer)
        self._tasks: list[asyncio.Task[None]] = []
        self.add_route("POST", COUNT_TOKENS, self._count_tokens, "key")
        for path, api in LISTS.items():
            self.add_route("GET", path, partial(self._list_models, api), "key")
            if api != "v1":  # LM Studio's own API has no such endpoint
                self.add_route("GET", f"{path}/{{model:path}}", partial(self._find_model, api), "key")
        self.batches = BatchRunner(self)
        managing = management_routes(self.pool, for_operators=bool(config.auth.required))
        self.add_route("GET", "/metrics", self.metrics.page, "operator")
        operating = (*operator_routes(self), *control_routes(self), *dashboard_routes(self))
        for method, path, endpoint, access in (*managing, *operating, *batch_routes(self)):
            self.add_route(method, path, endpoint, access)

    def add_route(self, method: str, path: str, endpoint: Endpoint, access: Access = "key") -> None:
        """Add an endpoint of the gateway itself.
        It is for everybody (`open`), for holders of a key, or for operators.
        """
        self._routes.add(method, path, endpoint, access)

    def status(self) -> dict[str, Any]:
        """Return the state of hosts, models and queues, as in `/gateway/status`."""
        return {
            "draining": self.is_draining,
            "requests": len(self.deliveries),
            "hosts": [host.status() for host in self.pool.hosts],
            "queues": self.pool.scheduler.status(),
            "live": [work.status() for work in islice(self.works.values(), SHOWN_LIVE)],
            **self.history.status(),
        }

    def cancel(self, request_id: str) -> bool:
        """End an open request with an error; return whether one with this id was found."""
        work = self.works.get(request_id)
        if work is not None:
            hint = "Ask the operator of the gateway why."
            work.delivery.stop(ServerError("An operator stopped the request.", status=503, code="cancelled", hint=hint))
        return work is not None

    async def reconfigure(self, config: Config) -> None:
        """Use another configuration: hosts are added and removed without losing a request.
        Server and store stay as they are.
        """
        async with self._reconfiguring:
            await self.pool.reconfigure(config)
            self.config = config
            self.operators = Operators(config.admin)
            self._trusted = _trusted_hosts(config)
        _log.info("configuration loaded: hosts %s", ", ".join(host.name for host in self.pool.hosts))

    # --- start and stop ---

    async def start(self) -> None:
        """Open the store, and fetch the model lists of all hosts once."""
        await self.admission.start()
        await self._load_history()
        await self.pool.start()
        self._tasks.append(asyncio.create_task(self._watch_readers()))
        self._tasks.append(asyncio.create_task(self.metrics.keep_fresh()))
        await self.batches.start()

    async def _load_history(self) -> None:
        """Load the requests that the store recorded before the start, for the dashboard."""
        store = getattr(self.admission, "store", None)
        if store is not None:
            since = time.time() - LONGEST
            self.history.load(reversed(await asyncio.to_thread(store.requests, since=since, limit=MOST_LOADED)))

    async def aclose(self) -> None:
        """Stop watching the hosts and working on batches, and close connections and store."""
        await self.batches.aclose()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await self.pool.aclose()
        await self.admission.aclose()
        if self.cache is not None:
            self.cache.close()

    def end_requests(self) -> int:
        """End the open requests at shutdown, each with an error in its format; return their number."""
        error = ServerError(
            "The gateway is shutting down.",
            status=503,
            code="shutting_down",
            hint="Send the request again.",
            retry_after=1.0,
        )
        for delivery in list(self.deliveries):
            delivery.stop(error)
        return len(self.deliveries)

    async def _watch_readers(self) -> None:
        """Cut the connections of clients that have not read for `limits.write_seconds`."""
        while True:
            await asyncio.sleep(min(1.0, self.config.limits.write_seconds / 4))
            limit = self.clock() - self.config.limits.write_seconds
            for delivery in list(self.deliveries):
                if delivery.waits_since is not None and delivery.waits_since < limit:
                    _log.warning("a client did not read its answer for limits.write_seconds: its request was stopped")
                    delivery.abort()

    # --- requests ---

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._run_lifespan(receive, send)
        if scope["type"] != "http":
            return
        arrived = Arrived(scope, receive, self.config.limits)
        own = self._routes.find(arrived.method, arrived.path)
        # Pages of other sites cannot send PUT, and are refused by their origin; an upload is not JSON.
        is_upload = own is not None and arrived.headers.get("content-type", "").startswith("multipart/form-data")
        needs_json = not (is_upload or arrived.method == "PUT")
        refusal = refuse_request(arrived.method, arrived.headers, self._trusted, needs_json=needs_json)
        if refusal is not None:
            error = InvalidRequestError(refusal.message, hint=refusal.hint, status=refusal.status)
            await send_answer(send, _error(route_of(arrived.method, arrived.url).kind, error))
        elif own is not None:
            endpoint, access, arrived.params = own
            answer = await self._own_answer(arrived, endpoint, access)
            with suppress(ClientGoneError):
                await (
                    send_answer(send, answer)
                    if isinstance(answer.body, bytes)
                    else run_until_disconnect(receive, send_answer(send, answer))
                )
        elif arrived.headers.get("upgrade", "").lower() == "websocket":
            await send_answer(send, json_answer({"error": {"message": _NO_WEBSOCKETS}}, 426, {"upgrade": "HTTP/1.1"}))
        else:
            await self._relay(arrived, receive, send)

    async def _own_answer(self, arrived: Arrived, endpoint: Endpoint, access: Access) -> HTTPAnswer:
        """Return the answer of one of the gateway's own endpoints, after checking who asks."""
        kind: Kind = "messages" if arrived.path == COUNT_TOKENS else "other"
        try:
            if access == "operator":
                self.operators.check(arrived)
            elif access == "key":
                arrived.principal = await self.admission.authenticate(arrived.headers)
            return await endpoint(arrived)
        except Refusal as refused:
            return _error(kind, refused.error, refused.headers)
        except LMStudioError as error:
            return _error(kind, error)
        except ClientGoneError:
            return HTTPAnswer(status=CLIENT_GONE)
        except Exception as error:
            _log.exception("%s %s failed", arrived.method, arrived.path)
            return _error(kind, _internal(error))

    async def _relay(self, arrived: Arrived, receive: Receive, send: Send) -> None:
        """Relay a request to a host, and stop it when the client leaves."""
        work = _Work(self, arrived, Delivery(arrived.scope, send, self.clock))
        self.deliveries.add(work.delivery)
        self.works[work.outcome.request_id] = work
        try:
            if await work.read():
                await self._run_while_connected(arrived.scope, receive, work)
        except ClientGoneError:
            work.outcome.status, work.outcome.error = CLIENT_GONE, work.outcome.error or "ClientGoneError"
        finally:
            self.deliveries.discard(work.delivery)
            del self.works[work.outcome.request_id]
            await work.settle()
            for observer in self.observers:
                observer(work.outcome)

    @staticmethod
    async def _run_while_connected(scope: Scope, receive: Receive, work: _Work) -> None:
        """Run a request until the client leaves.
        The gateway's own server reports that without a task that waits for it.

        Raises:
            ClientGoneError: The client has left.
        """
        on_lost: list[Callable[[], object]] | None = scope.get(ON_LOST)
        task = asyncio.current_task()
        if on_lost is None or task is None:
            await run_until_disconnect(receive, work.run())
            return
        is_gone = False

        def leave() -> None:
            nonlocal is_gone
            is_gone = True
            task.cancel()

        on_lost.append(leave)
        try:
            await work.run()
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

    def request_of(
        self,
        outcome: Outcome,
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
        given = relay.given if relay is not None else _object_or_empty(body)
        model = str(given.get("model") or "") or (self._default_model(principal) if relay is not None else "")
        prompt, longest = cost_of(given, len(body))
        outcome.model = model
        return GatewayRequest(
            outcome=outcome,
            method=method,
            route=route,
            headers=headers or {},
            body=body,
            given=given,
            model=model,
            prompt_tokens=prompt,
            tokens=prompt + longest,
            principal=principal,
            relay=relay,
        )

    def _default_model(self, principal: Principal) -> str:
        """Return the model of a request that names none: a loaded one, else the smallest."""
        usable = [host for host in self.pool.hosts if host.is_usable]
        return choose_model(info for host in usable for info in host.models.values() if principal.may_use(info.key))

    # --- own endpoints ---

    async def _list_models(self, api: str, arrived: Arrived) -> HTTPAnswer:
        return json_answer(list_models(api, self.pool.hosts, self.config, arrived.principal))

    async def _find_model(self, api: str, arrived: Arrived) -> HTTPAnswer:
        name = arrived.params["model"]
        return json_answer(find_model(api, name, self.pool.hosts, self.config, arrived.principal))

    async def _count_tokens(self, arrived: Arrived) -> HTTPAnswer:
        """Answer Anthropic's `count_tokens` by an estimate, calibrated by the model's answers."""
        body = await arrived.body()
        return json_answer({"input_tokens": count_tokens(self.estimator, _object(body), len(body))})


class _Work:
    """One relayed request."""

    def __init__(self, gateway: Gateway, arrived: Arrived, delivery: Delivery) -> None:
        self.gateway = gateway
        self.arrived = arrived
        self.delivery = delivery
        self.route = route_of(arrived.method, arrived.url)
        self.lease: Lease | None = None
        self._body = b""
        self._started = gateway.clock()
        self._request: GatewayRequest | None = None
        self._sent: GatewayAnswer | None = None
        self._is_settled = False
        self.outcome = Outcome(
            request_id=f"req_{random.getrandbits(64):016x}",
            started_at=time.time(),
            endpoint=self.route.kind,
            method=arrived.method,
            path=self.route.path.partition("?")[0],
        )

    def status(self) -> dict[str, Any]:
        """Return the state of the request; `chunks` is how many chunks its client received."""
        outcome, now = self.outcome, self.gateway.clock()
        first = outcome.first_token_seconds
        answering = now - self._started - first if first is not None else 0.0
        chunks = self.delivery.chunks
        return {
            "request_id": outcome.request_id,
            "key": outcome.key,
            "model": outcome.model,
            "host": outcome.host,
            "endpoint": outcome.endpoint,
            "phase": self._phase(),
            "seconds": round(now - self._started, 3),
            "chunks": chunks,
            "chunks_per_second": round(chunks / answering, 1) if answering > 0 else None,
        }

    def _phase(self) -> str:
        if self.outcome.first_token_seconds is not None:
            return "answering"
        if self.outcome.attempts:
            return "prompt"
        return "arriving" if self.lease is None else "queued"

    async def read(self) -> bool:
        """Authenticate the client and read the body; after a refusal, send it and return False."""
        try:
            if self.gateway.is_draining:
                raise ServerError("The gateway is shutting down.", status=503, code="shutting_down", retry_after=1.0)
            self.arrived.principal = await self.gateway.admission.authenticate(self.arrived.headers)
            self.outcome.key = self.arrived.principal.name
            self._body = await self.arrived.body()
        except Refusal as refused:
            await self._fail(refused.error, refused.headers)
            return False
        except LMStudioError as error:
            await self._fail(error)
            return False
        return True

    async def run(self) -> None:
        """Answer the request; failures are sent in the format of its endpoint."""
        self.delivery.task = asyncio.current_task()
        try:
            await self._answer()
        except Refusal as refused:
            await self._fail(refused.error, refused.headers)
        except LMStudioError as error:
            await self._fail(error)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self.delivery.stopped_by is None or task is None:
                raise
            task.uncancel()
            await self._fail(self.delivery.stopped_by)
        except Exception as error:
            _log.exception("%s %s failed", self.outcome.method, self.outcome.path)
            await self._fail(_internal(error))
        finally:
            await self.delivery.end_heartbeats()

    async def settle(self) -> None:
        """Record how the request ended, once."""
        if self._is_settled:
            return
        self._is_settled = True
        self.outcome.seconds = self.gateway.clock() - self._started
        if self.lease is not None:
            await self.lease.settle(self.outcome)

    async def _answer(self) -> None:
        request = self._request = self._checked()
        outcome, gateway = self.outcome, self.gateway
        ask = Ask(request_id=outcome.request_id, endpoint=request.kind, model=request.model, tokens=request.tokens)
        self.lease = await gateway.admission.admit(request.principal, ask)
        if request.streams:
            self.delivery.beat_every(gateway.config.queue.heartbeat, self._own_headers())
        answer = self._sent = await gateway.answer(request)
        self._body = b""  # what is no longer needed while the answer is streamed, perhaps for minutes
        request.forget_body()
        outcome.first_token_seconds = gateway.clock() - self._started
        outcome.status = answer.status
        headers = {**answer.headers, **self._own_headers()}
        async with aclosing(answer.chunks) as chunks:
            if request.streams or request.relay is None:
                await self.delivery.start(answer.status, headers)
                async for chunk in chunks:
                    await self.delivery.write(chunk)
                await self.delivery.end()
            else:
                body = b"".join([chunk async for chunk in chunks])
                await self.settle()
                await self.delivery.start(answer.status, {**headers, "content-length": str(len(body))})
                await self.delivery.end(body)
        if request.relay is not None and request.prompt_tokens >= LEAST_SAMPLE and not outcome.error:
            gateway.estimator.learn_from(outcome.model, request.prompt_tokens, outcome.prompt_tokens)

    def _checked(self) -> GatewayRequest:
        arrived = self.arrived
        request = self.gateway.request_of(
            self.outcome, arrived.principal, self.route, self._body, arrived.method, arrived.headers
        )
        request.settle = self.settle
        return request

    def _own_headers(self) -> dict[str, str]:
        limits = {} if self.lease is None else self.lease.headers
        return {"x-request-id": self.outcome.request_id, **limits}

    async def _fail(self, error: LMStudioError, headers: Mapping[str, str] | None = None) -> None:
        """Send an error: as a response or, after the start of a stream, as its last event."""
        delivery, outcome = self.delivery, self.outcome
        outcome.error, outcome.failure = outcome.error or type(error).__name__, outcome.failure or error
        error.request_id = outcome.request_id
        if delivery.is_ended:
            return
        await delivery.end_heartbeats()
        if delivery.is_started:
            if event := self._error_event(error):
                await self.settle()
                await delivery.end(event)
            else:  # a format without error events: a cut connection is the only sign
                delivery.abort()
            return
        answer = _error(self.route.kind, error, {**(headers or {}), **self._own_headers()})
        outcome.status = answer.status
        await self.settle()
        await delivery.start(answer.status, {**answer.headers, "content-length": str(len(answer.body))})  # type: ignore[arg-type]  # bytes
        await delivery.end(answer.body)  # type: ignore[arg-type]  # bytes

    def _error_event(self, error: LMStudioError) -> bytes:
        """Return the event that ends a stream that has begun, if only with heartbeats."""
        if self._sent is not None:
            return self._sent.error_event(error)
        relay = None if self._request is None else self._request.relay
        return b"" if relay is None else relay.reader(200, {}).error_event(error)


def _trusted_hosts(config: Config) -> AllowedHosts:
    """Return the host names that the gateway answers to.
    All are allowed if clients need a key, which no foreign web page has.
    """
    if config.auth.required:
        return AllowedHosts(names=frozenset({""}))
    return AllowedHosts.of(config.server.allowed_hosts, config.server.host)


def _error(kind: Kind, error: LMStudioError, headers: Mapping[str, str] | None = None) -> HTTPAnswer:
    """Return an error as a response; with `retry_after`, it asks the client to retry."""
    answer = error_answer(kind, error)
    repeat = {"x-should-retry": "true"} if isinstance(error, APIError) and error.retry_after is not None else {}
    return HTTPAnswer(status=answer.status, headers={**answer.headers, **repeat, **(headers or {})}, body=answer.body)


def _internal(error: Exception) -> ServerError:
    """Return a safe error for an unexpected exception: its type, without its text."""
    return ServerError(
        f"The gateway failed while answering ({type(error).__name__}).", status=500, hint="See the gateway's log."
    )


def _object_or_empty(body: bytes) -> dict[str, Any]:
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        given = msgspec.json.decode(body) if body[:1] == b"{" else None
        if isinstance(given, dict):
            return given
    return {}


def _object(body: bytes) -> dict[str, Any]:
    """Decode a JSON object.

    Raises:
        InvalidRequestError: The body is something else.
    """
    given = _object_or_empty(body.strip())
    if not given:
        raise InvalidRequestError("The request's body is not a JSON object.", status=400)
    return given
