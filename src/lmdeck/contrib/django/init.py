"""`manage.py lmdeck init`: a first tool, and what is still to be written by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from django.apps import AppConfig, apps
from django.conf import settings
from django.core.management.base import CommandError

__all__ = ["begin"]

TOOLS = '''\
"""The tools that models may call; lmdeck finds this file by its name."""

import lmdeck
from django.utils import timezone


@lmdeck.tool
def current_time() -> str:
    """Tell the current date and time at this site."""
    return timezone.localtime().isoformat(timespec="seconds")
'''


def begin(label: str | None) -> Iterator[str]:
    """Write `lmdeck_tools.py` into an application, unless it is there, and say line by line what was done and what is left.

    Raises:
        CommandError: There is no such application, or none to choose.
    """
    application = _application(label)
    file = Path(application.path) / "lmdeck_tools.py"
    if file.exists():
        yield f"{file} is there already."
    else:
        file.write_text(TOOLS, encoding="utf-8")
        yield f"Wrote {file}: a tool that tells the time."
    yield from _missing()


def _application(label: str | None) -> AppConfig:
    own = [one for one in apps.get_app_configs() if _is_own(one)]
    named = [one for one in apps.get_app_configs() if label in (one.label, one.name)]
    found = own[:1] if label is None else named
    if not found:
        names = ", ".join(one.label for one in own) or "none: begin with `manage.py startapp NAME`"
        raise CommandError(f"Name the application that gets the tools. Applications of this project: {names}.")
    return found[0]


def _is_own(application: AppConfig) -> bool:
    """Tell whether an application is the project's, and no installed package."""
    parts = Path(application.path).parts
    return not {"site-packages", "dist-packages"} & set(parts) and not application.name.startswith("lmdeck.")


def _missing() -> Iterator[str]:
    yield ""
    yield "Next:"
    if not hasattr(settings, "LMDECK"):
        yield '  settings.py   LMDECK = {"BASE_URL": "http://localhost:1234"}'
    yield '  urls.py       path("chat/", include("lmdeck.contrib.django.urls"))'
    yield '  settings.py   INSTALLED_APPS += ["lmdeck.contrib.django.history"], then manage.py migrate: to keep conversations'
    yield "  shell         python manage.py lmdeck doctor"
