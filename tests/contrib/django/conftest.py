"""One Django for all of these tests, with a database in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator

import django
import pytest

os.environ["DJANGO_SETTINGS_MODULE"] = "django_settings"
django.setup()

from django.test.runner import DiscoverRunner  # noqa: E402  # Django must be set up


@pytest.fixture(scope="session", autouse=True)
def django_environment() -> Iterator[None]:
    runner = DiscoverRunner(verbosity=0, interactive=False)
    runner.setup_test_environment()
    databases = runner.setup_databases()
    yield
    runner.teardown_databases(databases)
    runner.teardown_test_environment()
