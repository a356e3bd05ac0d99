"""What `manage.py check` says about lmdeck, before a user finds out."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004  # Django's own name

from lmdeck.config import Settings
from lmdeck.contrib.django.conf import configuration, faults
from lmdeck.contrib.django.tools import registry
from lmdeck.errors import ConfigurationError

__all__ = ["check_settings"]

PER_PROCESS = ("locmem.LocMemCache", "dummy.DummyCache")


@register("lmdeck")
def check_settings(**_: Any) -> list[CheckMessage]:  # noqa: ANN401  # Django's form
    """Check `LMDECK`, the environment that lies behind it, the cache and the tools that it names."""
    found: list[CheckMessage] = [
        Error(fault.message, hint=fault.hint, id=f"lmdeck.{fault.code}")
        for fault in faults(getattr(settings, "LMDECK", {}))
    ]
    if found:
        return found
    try:
        Settings.resolve(configuration().client)
    except ConfigurationError as error:
        return [Error(error.message, hint=error.hint, id="lmdeck.E004")]
    return [*_check_cache(), *_check_tools(), *_check_databases()]


def _check_cache() -> list[CheckMessage]:
    alias = configuration().cache
    if alias not in settings.CACHES:
        hint = f"Choose one of {', '.join(settings.CACHES)}."
        return [Error(f'settings.LMDECK["CACHE"] names no cache: {alias!r}.', hint=hint, id="lmdeck.E005")]
    backend = settings.CACHES[alias].get("BACKEND", "")
    if configuration().rate_limit is None or not backend.endswith(PER_PROCESS):
        return []
    return [
        Warning(
            f'settings.LMDECK["RATE_LIMIT"] counts in the cache {alias!r}, which other processes do not see.',
            hint="Use a cache that all processes share: Redis, Memcached or the database.",
            id="lmdeck.W001",
        )
    ]


def _check_tools() -> list[CheckMessage]:
    unknown = [name for name in configuration().tools or () if name not in registry]
    return [
        Error(
            f'settings.LMDECK["TOOLS"] names a tool that no application has: {name!r}.',
            hint=f"Write it into an application's lmdeck_tools.py. Found: {', '.join(tool.name for tool in registry)}.",
            id="lmdeck.E006",
        )
        for name in unknown
    ]


def _check_databases() -> list[CheckMessage]:
    """Warn of SQLite in requests that are transactions: a transaction that has read is refused when it writes beside others."""
    if not apps.is_installed("lmdeck.contrib.django.history"):
        return []
    databases: dict[str, dict[str, Any]] = settings.DATABASES
    return [
        Warning(
            f"The database {alias!r} is SQLite with ATOMIC_REQUESTS: of two requests at once, one fails to store its message.",
            hint='Set "OPTIONS": {"transaction_mode": "IMMEDIATE"} for it, or use PostgreSQL.',
            id="lmdeck.W002",
        )
        for alias, database in databases.items()
        if database.get("ENGINE", "").endswith("sqlite3")
        and database.get("ATOMIC_REQUESTS")
        and database.get("OPTIONS", {}).get("transaction_mode") != "IMMEDIATE"
    ]
