"""The state of the model that a chat would use, for the start of the page."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from lmdeck.errors import LMStudioError, NoModelLoadedError, RequestTimeoutError
from lmdeck.web.error_reports import report, sentence_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmdeck._client.chat import AsyncChat, Chat
    from lmdeck._client.clients import AsyncLMStudio
    from lmdeck.model_info import ModelInfo

LIST_SECONDS = 5.0
"""The longest wait for the list of models, in seconds: the page must not wait for a server that hangs."""
UNAVAILABLE = "The model is not available right now."


async def server_state(lm: AsyncLMStudio, chat: Chat | AsyncChat, *, with_details: bool) -> dict[str, Any]:
    """Return the `state` of the server, and the `model` that answers this chat.

    `state` is `ready`, `idle` (the model is loaded with the first question) or `unavailable`, then with `message`, `hint` and
    `request_id`. `images` says whether the model accepts images; it is None if the server does not report that.
    """
    wanted = chat.spec.model or chat.settings.model
    try:
        return _described(await asyncio.wait_for(lm.models.list(), LIST_SECONDS), wanted)
    except TimeoutError as error:
        silent = error if isinstance(error, LMStudioError) else _no_answer()
        return _unavailable(silent, with_details=with_details)
    except LMStudioError as error:
        return _unavailable(error, with_details=with_details)


def _described(models: Sequence[ModelInfo], wanted: str | None) -> dict[str, Any]:
    found = next((model for model in models if wanted and _has_name(model, wanted)), None)
    if wanted and found is None:
        return {"state": "ready", "model": wanted, "images": None}  # a server may accept names that it does not list
    model = found or next((model for model in models if model.loaded and model.is_chat_model), None)
    if model is None:
        raise NoModelLoadedError("No model is loaded.", status=404)
    images = model.type == "vlm" or "vision" in model.capabilities or (None if not model.capabilities else False)
    return {"state": "ready" if model.loaded else "idle", "model": wanted or model.key, "images": images}


def _has_name(model: ModelInfo, name: str) -> bool:
    return name == model.key or name in model.variants or any(name == instance.id for instance in model.instances)


def _no_answer() -> LMStudioError:
    return RequestTimeoutError(
        f"The server did not answer within {LIST_SECONDS:g} s.", phase="first_token", seconds=LIST_SECONDS
    )


def _unavailable(error: LMStudioError, *, with_details: bool) -> dict[str, Any]:
    shown = report(error, sentence_for(error, UNAVAILABLE), with_details=with_details)
    return {
        "state": "unavailable",
        "model": None,
        "images": None,
        "message": shown.message,
        "hint": shown.hint,
        "request_id": shown.request_id,
    }
