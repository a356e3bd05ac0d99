"""Runs in the background, through Celery.

    from lmdeck.contrib.django.celery import run_chat

    result = run_chat.delay([{"role": "user", "content": "Why is the sky blue?"}], tools=["get_weather"])

Where LM Studio is not running or a model crashed, the task is tried again later, after 5, 10, 20, … seconds.
"""

from __future__ import annotations

from typing import Any

from celery import shared_task  # type: ignore[import-untyped]  # celery has no types of its own

from lmdeck.contrib.django.background import answer
from lmdeck.errors import ModelCrashedError, ServerUnreachableError

__all__ = ["run_chat"]


@shared_task(  # type: ignore[untyped-decorator]  # as above
    name="lmdeck.run_chat",
    autoretry_for=(ServerUnreachableError, ModelCrashedError),
    retry_backoff=5,
    max_retries=5,
)
def run_chat(*args: Any, **keywords: Any) -> dict[str, Any]:  # noqa: ANN401  # as `answer` has them
    """Ask in the background; see `lmdeck.contrib.django.background.answer` for the arguments and what comes back."""
    return answer(*args, **keywords)
