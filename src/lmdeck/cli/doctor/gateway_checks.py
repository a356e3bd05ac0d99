"""The doctor's checks of a gateway's configuration.

It checks the file, each host, the models that it names, the keys and the address.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from lmdeck._client.clients import LMStudio
from lmdeck._incoming.trust import is_loopback
from lmdeck.cli.doctor.context import CheckResult
from lmdeck.errors import ConfigurationError, LMStudioError

if TYPE_CHECKING:
    from lmdeck.gateway.config import Config, HostConfig

__all__ = ["run_gateway_checks"]


def run_gateway_checks(path: Path) -> Iterator[CheckResult]:
    """Check a configuration file, and everything that it names."""
    from lmdeck.gateway.config import Config

    try:
        config = Config.load(path)
    except ConfigurationError as error:
        yield CheckResult(check="config", outcome="failed", detail=error.message, fix=error.hint)
        return
    yield CheckResult(
        check="config", outcome="ok", detail=f"{path}, hosts: {len(config.hosts)}, aliases: {len(config.aliases)}"
    )
    models: set[str] = set()
    for host in config.hosts:
        result, found = _check_host(host)
        models |= found
        yield result
    yield _check_names(config, models)
    yield _check_keys(config)
    yield _check_address(config)


def _check_host(host: HostConfig) -> tuple[CheckResult, set[str]]:
    """Return the result for a host, and the models that it lists."""
    name = f"host {host.name}"
    token = None if host.token is None else host.token.reveal()
    with LMStudio(base_url=host.url, api_token=token, retry_attempts=1) as lm:
        health = lm.health()
        if health.error is not None:
            fix = (
                "Set `token_env` to an environment variable with a valid token."
                if health.reachable
                else health.error.hint
            )
            return CheckResult(check=name, outcome="failed", detail=health.error.message, fix=fix), set()
        listed = lm.models.list()
    names = {name for model in listed for name in (model.key, *(one.id for one in model.instances))}
    loaded = ", ".join(health.models_loaded) or "none"
    detail = f"{health.product or 'a server'} at {host.url}, models: {len(listed)}, loaded: {loaded}"
    if host.drain:
        return CheckResult(
            check=name, outcome="warning", detail=f"{detail}; it is draining", fix="Remove `drain` to use it."
        ), names
    return CheckResult(check=name, outcome="ok", detail=detail), names


def _check_names(config: Config, models: set[str]) -> CheckResult:
    """Check that a host has each model that the aliases name."""
    named = {model for alias in config.aliases for model in config.models_of(alias)}
    missing = sorted(named - models)
    if missing:
        return CheckResult(
            check="models",
            outcome="warning",
            detail=f"no host has {', '.join(missing)}, which an alias names",
            fix="Download it on a host with `lms get`, or correct the alias.",
        )
    return CheckResult(
        check="models",
        outcome="ok",
        detail=f"names on all hosts: {len(models)}; a host has each model that an alias names",
    )


def _check_keys(config: Config) -> CheckResult:
    """Check that the store opens and has a key, if keys are required."""
    if not config.auth.required:
        return CheckResult(check="keys", outcome="skipped", detail="no keys are required")
    from lmdeck._usage_store import open_store

    try:
        with closing(open_store(config.store_url or "sqlite:///gateway.db")) as store:
            keys = store.list_keys()
    except LMStudioError as error:
        return CheckResult(check="keys", outcome="failed", detail=error.message, fix=error.hint)
    if not keys:
        fix = "Create one with `lmdeck gateway keys create NAME`."
        return CheckResult(check="keys", outcome="warning", detail="keys are required, but there are none", fix=fix)
    return CheckResult(check="keys", outcome="ok", detail=f"keys: {len(keys)}")


def _check_address(config: Config) -> CheckResult:
    """Check that the address is free, and not open to other machines by accident."""
    from lmdeck.gateway.start import check_exposure
    from lmdeck.server.sockets import listen

    server = config.server
    place = f"{server.host}:{server.port}"
    try:
        check_exposure(config)
    except ConfigurationError as error:
        return CheckResult(check="address", outcome="failed", detail=error.message, fix=error.hint)
    try:
        listen(server.host, server.port).close()
    except ConfigurationError as error:
        fix = "If the running gateway uses the port, this is fine; `GET /ready` shows whether it can answer."
        return CheckResult(check="address", outcome="warning", detail=error.message, fix=fix)
    if not is_loopback(server.host) and not config.auth.required:
        fix = "Set `required = true` in [auth], unless this is intended."
        return CheckResult(
            check="address",
            outcome="warning",
            detail=f"{place} is open to all machines of the network, without keys",
            fix=fix,
        )
    return CheckResult(check="address", outcome="ok", detail=f"{place} is free")
