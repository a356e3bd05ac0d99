"""The chat page, and the views that its script calls."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal
from urllib.parse import urlsplit
from uuid import UUID

from django.apps import apps
from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import render
from django.templatetags.static import static
from msgspec import to_builtins

from lmdeck._client.approve_callback import AnyApprove
from lmdeck._client.chat import Chat
from lmdeck.contrib.django.clients import alm, lm
from lmdeck.contrib.django.conf import configuration
from lmdeck.contrib.django.guards import GuardedView, body_of, error_response, is_known, refusal_response
from lmdeck.contrib.django.streaming import ChatResponse, stream_response
from lmdeck.contrib.django.tools import registry
from lmdeck.errors import ConfigurationError
from lmdeck.web.answer import ResumedRun
from lmdeck.web.background_loop import wait
from lmdeck.web.encodings import find_encoding
from lmdeck.web.page_headers import content_security_policy
from lmdeck.web.requests import NO_LONGER_WAITING, TOO_LARGE, PageDecisions, paused_summary, title_from
from lmdeck.web.server_state import server_state
from lmdeck.web.stored_messages import LISTED


class PageView(GuardedView):
    """The page.

    Its content security policy allows the chat's own files; a custom template may need more.
    """

    is_page = True
    template_name = "lmdeck/page.html"
    content_security_policy: str | None = None

    def get(self, request: HttpRequest) -> HttpResponse:
        """Render the page."""
        return render(request, self.template_name)

    def get_headers(self) -> dict[str, str]:
        """Return the default headers and the content security policy."""
        policy = self.content_security_policy
        if policy is None:
            origin = urlsplit(static("lmdeck/chat.js"))
            own = f"{origin.scheme}://{origin.netloc}" if origin.scheme else origin.netloc
            policy = content_security_policy(own, framed=settings.X_FRAME_OPTIONS == "SAMEORIGIN")
        return {**super().get_headers(), "Content-Security-Policy": policy}


class AskView(GuardedView):
    """The view that answers questions with a stream.

    Subclasses override `get_chat` and `get_approve`; `as_view` accepts `system`, `tools`, `encoding` and `approve`. With
    `approve="pause"` every tool call waits for the user's decision on the page; the history application must be installed,
    and the user logged in.
    """

    is_counted = True
    system: str | None = None
    tools: tuple[str, ...] | None = None
    encoding = "lmdeck"
    approve: Literal["pause"] | None = None

    def get_approve(self, request: HttpRequest) -> AnyApprove:  # used by subclasses
        """Return who approves tool calls: a function, `"pause"`, or None to allow all."""
        return self.approve

    def get_chat(self, request: HttpRequest) -> Chat:  # used by subclasses
        """Return the chat with which conversations start: model, system message, tools, options."""
        configured = configuration()
        system = self.system or configured.system
        names = self.tools if self.tools is not None else configured.tools
        chat = lm.chat().with_tools([tool.name for tool in registry] if names is None else names)
        return chat.with_system(system) if system else chat

    def post(self, request: HttpRequest) -> HttpResponseBase:
        """Stream the answer as server-sent events.

        The header `X-Conversation` has the id of a stored conversation.
        """
        if request.content_type != "application/json":
            return error_response(
                415, "The question is not JSON.", "Send it with the header `Content-Type: application/json`."
            )
        body = body_of(request)
        if body is None:
            return refusal_response(TOO_LARGE)
        chosen = find_encoding(self.encoding)
        try:
            received, encoding = chosen.read(body, chosen)
            key = _conversation_id(received.conversation)
        except ConfigurationError as error:
            return error_response(400, error.message, error.hint)
        stream = partial(stream_response, encoding=encoding, approve=self.get_approve(request))
        if isinstance(received, PageDecisions):
            return self._resume(_get_or_404(request, key), received, stream)
        chat = self.get_chat(request)
        if received.is_stateless or not _history_enabled(request):
            if self.get_approve(request) == "pause":
                return error_response(
                    401, "Tool calls need your approval, so you must be logged in.", "Log in and ask again."
                )
            return stream(chat.with_messages(received.all_messages()))
        conversation = _get_or_create(request, key)
        on_end = partial(conversation.add, question=conversation.ask(received))
        response = stream(chat.with_messages(conversation.history()), on_end=on_end)
        response.headers["X-Conversation"] = str(conversation.pk)
        return response

    def _resume(
        self, conversation: Any, received: PageDecisions, stream: Callable[..., ChatResponse]
    ) -> HttpResponseBase:  # the model exists only if its application is installed
        """Resume the paused run of a conversation, and remove it from there."""
        waiting = conversation.paused
        try:
            if waiting is not None and waiting.id == received.run:
                waiting.decide(received.decisions)
        except ConfigurationError as error:
            return error_response(400, error.message, error.hint)
        paused = conversation.take_paused(received.run)
        if paused is None:
            return refusal_response(NO_LONGER_WAITING)
        on_end = partial(conversation.add, resumed=paused)
        response = stream(self.get_chat(self.request), resumed=ResumedRun(paused, received.decisions), on_end=on_end)
        response.headers["X-Conversation"] = str(conversation.pk)
        return response


class StateView(GuardedView):
    """The state of the server, and the model that answers the chat of `ask_view`."""

    ask_view: type[AskView] = AskView

    def get(self, request: HttpRequest) -> JsonResponse:
        """Return the state."""
        chat = self.ask_view().get_chat(request)
        return JsonResponse(wait(_state(chat)))


async def _state(chat: Chat) -> dict[str, Any]:
    return await server_state(alm, chat, with_details=settings.DEBUG)


class ConversationsView(GuardedView):
    """The list of the user's conversations."""

    def get(self, request: HttpRequest) -> JsonResponse:
        """Return the newest conversations."""
        listed = _conversations(request)[:LISTED] if _history_enabled(request) else []
        rows = [{"id": str(one.pk), "title": str(one), "updated": one.updated.isoformat()} for one in listed]
        return JsonResponse({"conversations": rows})


class ConversationView(GuardedView):
    """One conversation of the user."""

    def get(self, request: HttpRequest, key: UUID) -> JsonResponse:
        """Return its messages."""
        conversation = _get_or_404(request, key)
        messages = conversation.messages.exclude(role="system").prefetch_related("tool_calls").order_by("position")
        shown = to_builtins([message.stored() for message in messages])
        paused = paused_summary(conversation.paused)
        return JsonResponse({"id": str(key), "title": str(conversation), "messages": shown, "paused": paused})

    def patch(self, request: HttpRequest, key: UUID) -> JsonResponse:
        """Set its title."""
        conversation = _get_or_404(request, key)
        body = body_of(request)
        if body is None:
            return refusal_response(TOO_LARGE)
        try:
            conversation.title = title_from(body)
        except ConfigurationError as error:
            return error_response(400, error.message, error.hint)
        conversation.save(update_fields=["title"])
        return JsonResponse({"id": str(key), "title": conversation.title})

    def delete(self, request: HttpRequest, key: UUID) -> HttpResponse:
        """Remove it."""
        _get_or_404(request, key).delete()
        return HttpResponse(status=204)


def _conversation_id(conversation: str | None) -> UUID | None:
    """Return the id of the conversation that a request continues; None for a new one."""
    try:
        return UUID(conversation) if conversation else None
    except ValueError as error:
        raise ConfigurationError("The conversation's id is not a UUID.", hint="Start a new conversation.") from error


def _history_enabled(request: HttpRequest) -> bool:
    """Whether the conversation is stored: the history is installed and the user logged in."""
    return apps.is_installed("lmdeck.contrib.django.history") and is_known(request)


def _conversations(request: HttpRequest) -> Any:  # the model exists only if its application is installed
    return apps.get_model("lmdeck_history", "Conversation").objects.all().of(request.user)


def _get_or_404(request: HttpRequest, key: UUID | None) -> Any:  # as above
    conversation = _conversations(request).filter(pk=key).first() if _history_enabled(request) else None
    if conversation is None:
        raise Http404
    return conversation


def _get_or_create(request: HttpRequest, key: UUID | None) -> Any:  # as above
    if key is not None:
        return _get_or_404(request, key)
    return apps.get_model("lmdeck_history", "Conversation").objects.create(user_id=request.user.pk)
