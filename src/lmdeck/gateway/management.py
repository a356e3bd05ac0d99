"""LM Studio's endpoints that manage models, sent to the host of the model or instance."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import cast

from lmdeck._pipeline.run_plan import drive_async
from lmdeck._transport import AsyncResponse
from lmdeck.errors import InvalidRequestError, ModelNotFoundError
from lmdeck.gateway.dispatcher import read_on
from lmdeck.gateway.errors import no_host_available
from lmdeck.gateway.host_pool import HostPool
from lmdeck.gateway.hosts import Host
from lmdeck.gateway.http import Access, Endpoint, HTTPAnswer, HTTPRequest, json_object, object_or_empty
from lmdeck.relay import RelayReader, Route, pass_on, route_of

__all__ = ["management_routes"]

CHOSEN = "x-lmdeck-host"
"""The header with which a client chooses a host."""
MAX_JOBS = 1000
DOWNLOAD = "/api/v1/models/download"


def management_routes(pool: HostPool, *, for_operators: bool) -> Iterator[tuple[str, str, Endpoint, Access]]:
    """Yield the endpoints: method, path, endpoint and access.

    Where keys are required, they are for operators.
    """
    access: Access = "operator" if for_operators else "open"
    jobs: dict[str, Host] = {}
    yield "POST", "/api/v1/models/load", partial(_load, pool), access
    yield "POST", "/api/v1/models/unload", partial(_unload, pool), access
    yield "POST", DOWNLOAD, partial(_download, pool, jobs), access
    yield "GET", f"{DOWNLOAD}/status/{{job}}", partial(_download_status, pool, jobs), access


async def _load(pool: HostPool, incoming: HTTPRequest) -> HTTPAnswer:
    """Load a model on the host that the client names, or on the least busy one that has it."""
    body = await incoming.body()
    model = _required(body, "model")
    host = _host(pool, incoming, lambda host: host.has(model), f"the model {model!r}")
    return await _passed(pool, host, incoming, body)


async def _unload(pool: HostPool, incoming: HTTPRequest) -> HTTPAnswer:
    """Unload an instance on the host that the client names, or on the first one that has it."""
    body = await incoming.body()
    instance = _required(body, "instance_id")
    has_instance = partial(_has_instance, instance)
    host = _host(pool, incoming, has_instance, f"a loaded instance {instance!r}")
    return await _passed(pool, host, incoming, body)


async def _download(pool: HostPool, jobs: dict[str, Host], incoming: HTTPRequest) -> HTTPAnswer:
    """Download a model on the host that the client names, or on the least busy one."""
    body = await incoming.body()
    host = _host(pool, incoming, lambda _: True, "")
    answer = await _passed(pool, host, incoming, body)
    job = object_or_empty(answer.body if isinstance(answer.body, bytes) else b"").get("job_id")
    if isinstance(job, str):
        if len(jobs) >= MAX_JOBS:
            del jobs[next(iter(jobs))]
        jobs[job] = host
    return answer


async def _download_status(pool: HostPool, jobs: dict[str, Host], incoming: HTTPRequest) -> HTTPAnswer:
    host = jobs.get(incoming.params["job"])
    host = _host(pool, incoming, lambda _: True, "") if host is None or CHOSEN in incoming.headers else host
    return await _passed(pool, host, incoming, b"")


def _host(pool: HostPool, incoming: HTTPRequest, fits: Callable[[Host], bool], what: str) -> Host:
    """Return the host for a request.

    Raises:
        InvalidRequestError: No host has the name that the client sent.
        ModelNotFoundError: No host has the model or the instance.
    """
    name = incoming.headers.get(CHOSEN)
    if name is not None:
        chosen = next((host for host in pool.hosts if host.name == name), None)
        if chosen is None:
            names = ", ".join(host.name for host in pool.hosts)
            raise InvalidRequestError(
                f"There is no host {name!r}.", status=404, hint=f"Name one of {names} in the header `{CHOSEN}`."
            )
        return chosen
    up = [host for host in pool.hosts if host.is_up]
    fitting = [host for host in up if fits(host)]
    if not fitting:
        if not up:
            raise no_host_available("No host can be reached.")
        raise ModelNotFoundError(f"No host has {what}.", status=404, code="model_not_found")
    return min(fitting, key=lambda host: (host.config.drain, sum(host.running.values()) / host.config.weight))


async def _passed(pool: HostPool, host: Host, incoming: HTTPRequest, body: bytes) -> HTTPAnswer:
    """Pass a request on to a host, and return the answer; fetch its model list after a change."""
    route = route_of(incoming.method, incoming.url)
    answer = await _whole_answer(host, incoming.method, route, body)
    if incoming.method != "GET":
        host.changes += 1
        await host.poll()
        pool.scheduler.wake()
    return answer


async def _whole_answer(host: Host, method: str, route: Route, body: bytes) -> HTTPAnswer:
    """Send a request to a host unchanged, and return its whole answer.

    Raises:
        LMStudioError: The host has refused it, or cannot be reached.
    """
    plan = pass_on(host.session, method, route, {"Content-Type": "application/json"} if body else {}, body or None)
    stream = await drive_async(plan, host.transport)
    reader = cast("RelayReader", stream.reader)
    try:
        parts = [reader.take()]
        while stream.has_more():
            await read_on(stream, cast("AsyncResponse", stream.response))
            parts.append(reader.take())
    finally:
        stream.close()
    headers = {**reader.head(), "x-lmdeck-host": host.name}
    return HTTPAnswer(status=stream.response.status, headers=headers, body=b"".join(parts))


def _has_instance(instance: str, host: Host) -> bool:
    return any(each.id == instance for info in host.models.values() for each in info.instances)


def _required(body: bytes, name: str) -> str:
    """Return a field of a request's body.

    Raises:
        InvalidRequestError: It is missing.
    """
    value = json_object(body).get(name)
    if not isinstance(value, str) or not value:
        raise InvalidRequestError(f"The body has no field `{name}`.", status=400, param=name)
    return value
