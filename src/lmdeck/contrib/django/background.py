"""A run in the background: what a task queue is given and gives back is plain JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured

from lmdeck._client.chat import Chat
from lmdeck.contrib.django.clients import lm
from lmdeck.contrib.django.conf import configuration
from lmdeck.messages import Reply

__all__ = ["answer"]


def answer(
    messages: Sequence[Mapping[str, Any]] = (),
    *,
    conversation: str | None = None,
    model: str | None = None,
    tools: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    max_rounds: int | None = None,
) -> dict[str, Any]:
    """Ask, run the tools that are named, and give `reply.to_dict()` with `messages`, what the run adds to the history.

    With `conversation`, the id of one of the history's, its messages come first, and the answer is appended to it.

    Raises:
        LMStudioError: There is no whole answer; nothing was appended.
        ObjectDoesNotExist: There is no such conversation.
    """
    kept = None if conversation is None else _conversation(conversation)
    chat: Chat = lm.chat(model)
    if kept is not None:
        chat = chat.with_messages(kept.history())
    chat = chat.with_messages(messages).with_tools(tools).with_options(**(options or {}))
    reply = chat.run(max_rounds or configuration().max_rounds)
    if kept is not None:
        kept.add(reply)
    return {**reply.to_dict(), "messages": [message.to_dict() for message in _added(reply)]}


def _added(reply: Reply) -> Sequence[Any]:
    return reply.messages or [reply.message]


def _conversation(key: str) -> Any:  # noqa: ANN401  # its model is there only where its application is
    if not apps.is_installed("lmdeck.contrib.django.history"):
        raise ImproperlyConfigured('Conversations need "lmdeck.contrib.django.history" in INSTALLED_APPS.')
    return apps.get_model("lmdeck_history", "Conversation").objects.get(pk=key)
