"""`manage.py lmdeck init`: write a first tool, and list the remaining steps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from django.apps import AppConfig, apps
from django.conf import settings
from django.core.management.base import CommandError

from lmdeck.contrib.django.page_urls import has_login_page, has_page
from lmdeck.contrib.django.tools import project_package

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
    """Write `lmdeck_tools.py`, unless it exists; yield what was done and what to do next.

    It is written into the named application, or the first one of the project, or beside its `urls.py` if it has none.

    Raises:
        CommandError: There is no such application, or the project's files are in no package.
    """
    file = _folder(label) / "lmdeck_tools.py"
    if file.exists():
        yield f"{file} already exists."
    else:
        file.write_text(TOOLS, encoding="utf-8")
        yield f"Wrote {file}: a tool that returns the current time."
    yield from _missing()


def _folder(label: str | None) -> Path:
    own = [one for one in apps.get_app_configs() if _is_own(one)]
    named = [one for one in apps.get_app_configs() if label in (one.label, one.name)]
    found = own[:1] if label is None else named
    if found:
        return Path(found[0].path)
    package = project_package() if label is None else None
    if package is None or package.__file__ is None:
        names = ", ".join(one.label for one in own) or "none; start with `manage.py startapp NAME`"
        raise CommandError(f"Pass the application that gets the tools. Applications of this project: {names}.")
    return Path(package.__file__).parent


def _is_own(application: AppConfig) -> bool:
    """Whether an application belongs to the project and is not an installed package."""
    parts = Path(application.path).parts
    return not {"site-packages", "dist-packages"} & set(parts) and not application.name.startswith("lmdeck.")


def _missing() -> Iterator[str]:
    yield ""
    yield "Next:"
    if not has_page():
        yield "  urls.py       from django.urls import include"
        yield '                urlpatterns += [path("chat/", include("lmdeck.contrib.django.urls"))]'
    if not has_login_page():
        yield '  settings.py   LOGIN_URL = "admin:login"  # or the name of the site\'s own login page'
    if not apps.is_installed("lmdeck.contrib.django.history"):
        yield '  settings.py   INSTALLED_APPS += ["lmdeck.contrib.django.history"]  # stores conversations'
    if not hasattr(settings, "LMDECK"):
        yield '  settings.py   LMDECK = {"BASE_URL": "http://localhost:1234"}'
    yield "  shell         python manage.py migrate"
    yield "  shell         python manage.py lmdeck doctor"
