"""Background runs with Celery.

    from lmdeck.contrib.django.celery import run_chat

    result = run_chat.delay([{"role": "user", "content": "Why is the sky blue?"}], tools=["get_weather"])

If LM Studio is not running or the model has crashed, the task is retried after 5, 10, 20, … seconds.
"""

from __future__ import annotations

from typing import Any

from celery import shared_task

from lmdeck.contrib.django.background import answer
from lmdeck.errors import ModelCrashedError, ServerUnreachableError


@shared_task(
    name="lmdeck.run_chat",
    autoretry_for=(ServerUnreachableError, ModelCrashedError),
    retry_backoff=5,
    max_retries=5,
)
def run_chat(*args: Any, **keywords: Any) -> dict[str, Any]:  # as `answer` has them
    """Run a chat.

    See `lmdeck.contrib.django.background.answer` for the arguments and the result.
    """
    return answer(*args, **keywords)
