"""Background runs with Django's tasks: `django.tasks` in Django 6, `django-tasks` for 5.2.

    from lmdeck.contrib.django.tasks import run_chat

    result = run_chat.enqueue([{"role": "user", "content": "Why is the sky blue?"}], tools=["get_weather"])

The Celery task is in `lmdeck.contrib.django.celery`; it is imported here because Celery searches modules named `tasks`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from lmdeck.contrib.django.background import answer


class _UnqueuedTask:
    """A stand-in for the task if no framework is installed: it can be called but not queued."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.call = function

    def __getattr__(self, name: str) -> Any:  # it never returns
        raise ImproperlyConfigured(f"run_chat.{name} needs Django 6, or on Django 5.2: pip install django-tasks.")


def _task(function: Callable[..., Any]) -> Any:  # a Task of whichever framework there is
    for framework in ("django.tasks", "django_tasks"):
        if find_spec(framework) is not None:
            return import_module(framework).task(function)
    return _UnqueuedTask(function)


@_task
def run_chat(*args: Any, **keywords: Any) -> dict[str, Any]:  # as `answer` has them
    """Run a chat.

    See `lmdeck.contrib.django.background.answer` for the arguments and the result.
    """
    return answer(*args, **keywords)


if find_spec("celery") is not None:
    from lmdeck.contrib.django import celery  # noqa: F401  # so that Celery workers find its task
