"""`manage.py lmdeck init`: write a first tool, and list the remaining steps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from django.apps import AppConfig, apps
from django.conf import settings
from django.core.management.base import CommandError

TOOLS = '''\
"""The tools that models may call; lmdeck finds this file by its name."""

import lmdeck
from django.utils import timezone


@lmdeck.tool
def current_time() -> str:
    """Get the current date and time of this site."""
    return timezone.localtime().isoformat(timespec="seconds")
'''


def init_project(label: str | None) -> Iterator[str]:
    """Write `lmdeck_tools.py` into an application, unless it exists; yield lines with what was done and what to do next.

    Raises:
        CommandError: There is no such application, or the project has none.
    """
    application = _application(label)
    file = Path(application.path) / "lmdeck_tools.py"
    if file.exists():
        yield f"{file} already exists."
    else:
        file.write_text(TOOLS, encoding="utf-8")
        yield f"Wrote {file}: a tool that returns the current time."
    yield from _missing()


def _application(label: str | None) -> AppConfig:
    own = [one for one in apps.get_app_configs() if _is_own(one)]
    named = [one for one in apps.get_app_configs() if label in (one.label, one.name)]
    found = own[:1] if label is None else named
    if not found:
        names = ", ".join(one.label for one in own) or "none; start with `manage.py startapp NAME`"
        raise CommandError(f"Pass the application that gets the tools. Applications of this project: {names}.")
    return found[0]


def _is_own(application: AppConfig) -> bool:
    """Whether an application belongs to the project and is not an installed package."""
    parts = Path(application.path).parts
    return not {"site-packages", "dist-packages"} & set(parts) and not application.name.startswith("lmdeck.")


def _missing() -> Iterator[str]:
    yield ""
    yield "Next:"
    if not hasattr(settings, "LMDECK"):
        yield '  settings.py   LMDECK = {"BASE_URL": "http://localhost:1234"}'
    yield '  urls.py       path("chat/", include("lmdeck.contrib.django.urls"))'
    yield '  settings.py   INSTALLED_APPS += ["lmdeck.contrib.django.history"], then manage.py migrate: to store conversations'
    yield "  shell         python manage.py lmdeck doctor"
