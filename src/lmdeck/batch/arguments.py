"""Construction of a batch from the arguments of `LMStudio.batch` and the client's settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypedDict

from msgspec.structs import replace

from lmdeck._plans.session import Session
from lmdeck._requests.base_url import BaseURL
from lmdeck._transport.aiohttp import AiohttpTransport
from lmdeck.batch.batch_hosts import BatchHost, ServerHost
from lmdeck.batch.failure_policy import MAX_ATTEMPTS
from lmdeck.batch.input_requests import CHAT, BatchOptions
from lmdeck.batch.job import AsyncBatchJob, BatchJob, PathLikeText
from lmdeck.batch.worker import PATIENCE, WorkerLimits
from lmdeck.errors import ConfigurationError


class BatchArguments(TypedDict, total=False):
    """The keywords of `LMStudio.batch`; `BatchOptions` and `WorkerLimits` describe them."""

    ledger: PathLikeText | None
    hosts: Sequence[str | BatchHost]
    model: str | None
    endpoint: str
    template: str | None
    system: str | None
    schema: Mapping[str, Any] | None
    dedupe: bool
    options: Mapping[str, Any]
    max_concurrency: int | None
    attempts: int
    patience: float


def make_job(session: Session, source: PathLikeText, out: PathLikeText, arguments: BatchArguments) -> BatchJob:
    """Return a batch of the sync client.

    Raises:
        ConfigurationError: An argument is wrong.
    """
    return BatchJob(source, out, **_parts(session, arguments))


def make_async_job(
    session: Session, source: PathLikeText, out: PathLikeText, arguments: BatchArguments
) -> AsyncBatchJob:
    """Return a batch of the async client.

    Raises:
        ConfigurationError: An argument is wrong.
    """
    return AsyncBatchJob(source, out, **_parts(session, arguments))


def _parts(session: Session, arguments: BatchArguments) -> dict[str, Any]:
    attempts = arguments.get("attempts", MAX_ATTEMPTS)
    max_concurrency = arguments.get("max_concurrency") or session.settings.max_concurrency
    for name, value in (("attempts", attempts), ("max_concurrency", max_concurrency)):
        if value is not None and value < 1:
            raise ConfigurationError(f"`{name}` is {value}; it must be at least 1.", hint="Omit it for the default.")
    options = BatchOptions(
        endpoint=arguments.get("endpoint", CHAT),
        model=arguments.get("model") or session.settings.model,
        template=arguments.get("template"),
        system=arguments.get("system"),
        options=dict(arguments.get("options") or {}),
        schema=arguments.get("schema"),
        dedupe=arguments.get("dedupe", True),
    )
    limits = WorkerLimits(
        max_concurrency=max_concurrency,
        attempts=attempts,
        first_delay=10 * session.settings.retry_delay,
        patience=arguments.get("patience", PATIENCE),
    )
    return {
        "make_hosts": partial(_hosts, session, tuple(arguments.get("hosts") or ()), max_concurrency),
        "ledger": arguments.get("ledger"),
        "options": options,
        "limits": limits,
    }


def _hosts(session: Session, hosts: Sequence[str | BatchHost], max_concurrency: int | None) -> list[BatchHost]:
    """Return the hosts of a batch: `hosts`, which may be addresses, or the client's own server."""
    ready = [host for host in hosts if not isinstance(host, str)]
    addresses = [host for host in hosts if isinstance(host, str)]
    servers = server_hosts(session, addresses, max_concurrency) if addresses or not ready else []
    return [*ready, *servers]


def server_hosts(session: Session, addresses: Sequence[str], max_concurrency: int | None) -> list[ServerHost]:
    """Return the hosts at these addresses, or the client's own server.

    Each has its own connections and queue.

    Raises:
        ConfigurationError: An address is not valid.
    """
    roots = dict.fromkeys(_root(address) for address in addresses) or {session.address.root: None}
    made = []
    for root in roots:
        settings = replace(session.settings, base_url=root, max_concurrency=max_concurrency)
        made.append(ServerHost(session.for_settings(settings), AiohttpTransport(settings)))
    return made


def _root(address: str) -> str:
    """Return the root URL of `gpu1`, `gpu1:1234` or a URL; the default port is LM Studio's."""
    root = BaseURL.from_url(address).root
    has_port = "://" in address or ":" in address.rsplit("]", 1)[-1]
    return root if has_port else f"{root}:1234"
