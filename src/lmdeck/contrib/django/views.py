"""The chat page, and what its script asks for."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from django.apps import apps
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import render
from msgspec import Struct

from lmdeck.client.chat import Chat
from lmdeck.contrib.django.clients import lm
from lmdeck.contrib.django.conf import configuration
from lmdeck.contrib.django.guards import GuardedView, is_known, refusal
from lmdeck.contrib.django.streaming import stream_response
from lmdeck.contrib.django.tools import registry
from lmdeck.messages import Message

__all__ = ["AskView", "ConversationView", "ConversationsView", "PageView"]

TEXT_LENGTH = 100_000
MESSAGES = 500
LISTED = 50


class Said(Struct, frozen=True):
    """A message that the page remembers itself, where nothing is kept."""

    role: str
    content: str


class Question(Struct, frozen=True):
    """What the page sends: the new `text`, and either the `conversation` that is kept or the `messages` before it."""

    text: str
    conversation: UUID | None = None
    messages: list[Said] = []


class PageView(GuardedView):
    """The page."""

    is_page = True
    template_name = "lmdeck/page.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        """Show it."""
        return render(request, self.template_name)


class AskView(GuardedView):
    """Answer a question while the model writes. Subclasses change `get_chat`; `as_view` takes another `system` or `tools`."""

    is_counted = True
    system: str | None = None
    tools: tuple[str, ...] | None = None

    def get_chat(self, request: HttpRequest) -> Chat:  # noqa: ARG002  # subclasses look at it
        """Give the chat that a conversation begins with: model, system message, tools, options."""
        configured = configuration()
        system = self.system or configured.system
        names = self.tools if self.tools is not None else configured.tools
        chat = lm.chat().with_tools([tool.name for tool in registry] if names is None else names)
        return chat.with_system(system) if system else chat

    def post(self, request: HttpRequest) -> HttpResponseBase:
        """Answer with server-sent events; `X-Conversation` names the conversation, where it is kept."""
        try:
            question = _read(request)
        except (msgspec.DecodeError, ValueError) as error:
            return refusal(400, f"The question cannot be read: {error}.", "Send JSON with a `text`.")
        chat = self.get_chat(request)
        if not _is_kept(request):
            before = [
                Message(role="assistant" if one.role == "assistant" else "user", content=one.content)
                for one in question.messages
            ]
            return stream_response(chat.with_messages(before).user(question.text))
        conversation = _begun(request, question.conversation)
        conversation.add_user(question.text)
        response = stream_response(chat.with_messages(conversation.history()), on_end=conversation.add)
        response.headers["X-Conversation"] = str(conversation.pk)
        return response


class ConversationsView(GuardedView):
    """The user's conversations."""

    def get(self, request: HttpRequest) -> JsonResponse:
        """List the newest."""
        listed = _conversations(request)[:LISTED] if _is_kept(request) else []
        rows = [{"id": str(one.pk), "title": str(one), "updated": one.updated.isoformat()} for one in listed]
        return JsonResponse({"conversations": rows})


class ConversationView(GuardedView):
    """One conversation of the user."""

    def get(self, request: HttpRequest, key: UUID) -> JsonResponse:
        """Give its messages."""
        conversation = _found(request, key)
        messages = conversation.messages.exclude(role="system").prefetch_related("tool_calls").order_by("position")
        return JsonResponse({"id": str(key), "title": str(conversation), "messages": [_shown(one) for one in messages]})

    def delete(self, request: HttpRequest, key: UUID) -> HttpResponse:
        """Remove it."""
        _found(request, key).delete()
        return HttpResponse(status=204)


def _read(request: HttpRequest) -> Question:
    question = msgspec.json.decode(request.body, type=Question)
    if not question.text.strip():
        raise ValueError("it is empty")
    if len(question.messages) > MESSAGES:
        raise ValueError(f"it has more than {MESSAGES} messages")
    if len(question.text) + sum(len(one.content) for one in question.messages) > TEXT_LENGTH:
        raise ValueError(f"it has more than {TEXT_LENGTH} characters")
    return question


def _is_kept(request: HttpRequest) -> bool:
    """Tell whether the conversation goes to the database: where the history is installed, and the user is known."""
    return apps.is_installed("lmdeck.contrib.django.history") and is_known(request)


def _conversations(request: HttpRequest) -> Any:  # noqa: ANN401  # its model is there only where its application is
    return apps.get_model("lmdeck_history", "Conversation").objects.all().of(request.user)


def _found(request: HttpRequest, key: UUID) -> Any:  # noqa: ANN401  # as above
    conversation = _conversations(request).filter(pk=key).first() if _is_kept(request) else None
    if conversation is None:
        raise Http404
    return conversation


def _begun(request: HttpRequest, key: UUID | None) -> Any:  # noqa: ANN401  # as above
    if key is not None:
        return _found(request, key)
    return apps.get_model("lmdeck_history", "Conversation").objects.create(user_id=request.user.pk)


def _shown(message: Any) -> dict[str, Any]:  # noqa: ANN401  # as above
    calls = [
        {
            "id": call.call_id,
            "name": call.name,
            "arguments": call.arguments,
            "content": call.result,
            "failed": call.failed,
        }
        for call in message.tool_calls.all()
    ]
    return {"role": message.role, "content": message.content, "reasoning": message.reasoning, "calls": calls}
