"""The system checks of lmdeck for `manage.py check`."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004  # Django's own name

from lmdeck.config import Settings
from lmdeck.contrib.django.conf import configuration, setting_errors
from lmdeck.contrib.django.page_urls import has_login_page, has_page
from lmdeck.contrib.django.tools import registry
from lmdeck.errors import ConfigurationError

PER_PROCESS = ("locmem.LocMemCache", "dummy.DummyCache")


@register("lmdeck")
def check_settings(**_: Any) -> list[CheckMessage]:  # Django's form
    """Check `LMDECK`, the environment, and the cache and tools that the setting names."""
    found: list[CheckMessage] = [
        Error(error.message, hint=error.hint, id=f"lmdeck.{error.code}")
        for error in setting_errors(getattr(settings, "LMDECK", {}))
    ]
    if found:
        return found
    try:
        Settings.resolve(configuration().client)
    except ConfigurationError as error:
        return [Error(error.message, hint=error.hint, id="lmdeck.E004")]
    return [*_check_cache(), *_check_tools(), *_check_databases(), *_check_login(), *_check_static_files()]


def _check_cache() -> list[CheckMessage]:
    alias = configuration().cache
    if alias not in settings.CACHES:
        hint = f"Choose one of {', '.join(settings.CACHES)}."
        return [Error(f'settings.LMDECK["CACHE"] is not a cache alias: {alias!r}.', hint=hint, id="lmdeck.E005")]
    backend = settings.CACHES[alias].get("BACKEND", "")
    if configuration().rate_limit is None or not backend.endswith(PER_PROCESS):
        return []
    return [
        Warning(
            f'settings.LMDECK["RATE_LIMIT"] counts in the cache {alias!r}, which is separate for each process.',
            hint="Use a cache that all processes share: Redis, Memcached or the database.",
            id="lmdeck.W001",
        )
    ]


def _check_tools() -> list[CheckMessage]:
    unknown = [name for name in configuration().tools or () if name not in registry]
    return [
        Error(
            f'settings.LMDECK["TOOLS"] names an unknown tool: {name!r}.',
            hint=f"Define it in an application's lmdeck_tools.py. Found: {', '.join(tool.name for tool in registry)}.",
            id="lmdeck.E006",
        )
        for name in unknown
    ]


def _check_login() -> list[CheckMessage]:
    """Warn if visitors of the page are sent to a login page that does not exist."""
    if not configuration().login_required or not has_page() or has_login_page():
        return []
    return [
        Warning(
            f"LOGIN_URL is {settings.LOGIN_URL!r}, which matches no URL, but lmdeck's page requires a login.",
            hint='Set LOGIN_URL = "admin:login", or the name of your own login page, '
            'or open the page with LMDECK = {"LOGIN_REQUIRED": False}.',
            id="lmdeck.W003",
        )
    ]


def _check_static_files() -> list[CheckMessage]:
    """Warn if the files of the page are not found by `staticfiles`."""
    if not has_page() or (apps.is_installed("django.contrib.staticfiles") and _finds_page_files()):
        return []
    return [
        Warning(
            "The files of lmdeck's page are not among the static files.",
            hint='Add "django.contrib.staticfiles" to INSTALLED_APPS and keep its FileSystemFinder in STATICFILES_FINDERS.',
            id="lmdeck.W004",
        )
    ]


def _finds_page_files() -> bool:
    from django.contrib.staticfiles.finders import find  # imported late: not every project has it

    return find("lmdeck/chat.js") is not None


def _check_databases() -> list[CheckMessage]:
    """Warn of SQLite with `ATOMIC_REQUESTS`.

    A transaction that has read fails if it writes at the same time as another one.
    """
    if not apps.is_installed("lmdeck.contrib.django.history"):
        return []
    databases: dict[str, dict[str, Any]] = settings.DATABASES
    return [
        Warning(
            f"The database {alias!r} is SQLite with ATOMIC_REQUESTS: of two concurrent requests, one cannot store its message.",
            hint='Set "OPTIONS": {"transaction_mode": "IMMEDIATE"} for it, or use PostgreSQL.',
            id="lmdeck.W002",
        )
        for alias, database in databases.items()
        if database.get("ENGINE", "").endswith("sqlite3")
        and database.get("ATOMIC_REQUESTS")
        and database.get("OPTIONS", {}).get("transaction_mode") != "IMMEDIATE"
    ]
