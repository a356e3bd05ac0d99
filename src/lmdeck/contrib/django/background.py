"""A background run with JSON arguments and a JSON result, for task queues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured

from lmdeck._client.chat import Chat
from lmdeck.contrib.django.clients import lm
from lmdeck.contrib.django.conf import configuration
from lmdeck.messages import Reply


def answer(
    messages: Sequence[Mapping[str, Any]] = (),
    *,
    conversation: str | None = None,
    model: str | None = None,
    tools: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    max_rounds: int | None = None,
) -> dict[str, Any]:
    """Run a chat with the named tools.

    Return `reply.to_dict()` and, as `messages`, those that the run has added.

    With `conversation`, the id of a stored conversation, its messages come first, and the answer is appended to it.

    Raises:
        LMStudioError: The run failed; nothing was appended.
        ObjectDoesNotExist: There is no such conversation.
    """
    stored = None if conversation is None else _conversation(conversation)
    chat: Chat = lm.chat(model)
    if stored is not None:
        chat = chat.with_messages(stored.history())
    chat = chat.with_messages(messages).with_tools(tools).with_options(**(options or {}))
    reply = chat.run(max_rounds or configuration().max_rounds)
    if stored is not None:
        stored.add(reply)
    return {**reply.to_dict(), "messages": [message.to_dict() for message in _added(reply)]}


def _added(reply: Reply) -> Sequence[Any]:
    return reply.messages or [reply.message]


def _conversation(key: str) -> Any:  # the model exists only if its application is installed
    if not apps.is_installed("lmdeck.contrib.django.history"):
        raise ImproperlyConfigured('Conversations need "lmdeck.contrib.django.history" in INSTALLED_APPS.')
    return apps.get_model("lmdeck_history", "Conversation").objects.get(pk=key)
