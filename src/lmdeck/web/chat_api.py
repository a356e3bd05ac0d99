"""The endpoints of the page, without HTTP: one implementation for FastAPI and Flask.

Each method returns the JSON to send, or the refusal; the routes of a framework add the status code and the user.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, cast
from urllib.parse import quote

from msgspec import Struct, to_builtins

from lmdeck._client.approve_callback import AnyApprove
from lmdeck._client.chat import AsyncChat, Chat
from lmdeck._incoming.trust import RefusedRequest
from lmdeck.errors import ConfigurationError
from lmdeck.web.answer import OnEnd, ResumedRun
from lmdeck.web.chat_page import PageUrls, page
from lmdeck.web.conversations import Conversations
from lmdeck.web.encodings import Encoding, find_encoding
from lmdeck.web.error_reports import prefers_html
from lmdeck.web.requests import (
    MAX_BODY_BYTES,
    NO_LONGER_WAITING,
    NOT_FOUND,
    TOO_LARGE,
    PageQuestion,
    check_store,
    paused_summary,
    title_from,
)

C = TypeVar("C", Chat, AsyncChat)
NOT_LOGGED_IN = RefusedRequest(401, "You are not logged in.", "Log in and ask again.")


class RequestedChat(Struct, Generic[C], frozen=True, kw_only=True):
    """A chat to run and stream.

    `conversation` is the id of the stored conversation, to which `on_end` appends the reply.
    """

    chat: C
    encoding: Encoding
    conversation: str | None = None
    on_end: OnEnd | None = None
    resumed: ResumedRun | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The headers that name the conversation."""
        return {} if self.conversation is None else {"X-Conversation": self.conversation}


class ChatApi(Struct, frozen=True, kw_only=True):
    """The chat of one router or blueprint."""

    store: Conversations | None
    encoding: Encoding
    title: str = "Chat"
    examples: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        conversations: Conversations | str | Path | None,
        *,
        encoding: str,
        title: str,
        examples: Sequence[str],
        approve: AnyApprove,
    ) -> ChatApi:
        """Return the chat with the options of a router.

        Raises:
            ConfigurationError: The encoding is unknown, or runs pause and nothing stores them.
        """
        chosen = find_encoding(encoding)
        check_store(approve, conversations)
        store = Conversations(conversations) if isinstance(conversations, str | Path) else conversations
        return cls(store=store, encoding=chosen, title=title, examples=tuple(examples))

    def ask(self, body: bytes, chat: C, owner: str) -> RequestedChat[C] | RefusedRequest:
        """Return the chat that answers a question, after storing the question in its conversation."""
        if len(body) > MAX_BODY_BYTES:
            return TOO_LARGE
        try:
            request, encoding = self.encoding.read(body, self.encoding)
            if isinstance(request, PageQuestion) and (self.store is None or request.is_stateless):
                return RequestedChat(chat=chat.with_messages(request.all_messages()), encoding=encoding)
            turn = NO_LONGER_WAITING if self.store is None else self.store.begin(request, owner)
        except ConfigurationError as error:
            return RefusedRequest(400, error.message, error.hint)
        if isinstance(turn, RefusedRequest):
            return turn
        add = cast("Conversations", self.store).add_reply
        return RequestedChat(
            chat=chat.with_messages(turn.messages),
            encoding=encoding,
            conversation=turn.key,
            resumed=turn.resumed,
            on_end=lambda outcome: add(turn.key, outcome, question=turn.question, resumed=turn.paused),
        )

    def newest(self, owner: str) -> dict[str, Any]:
        """Return the newest conversations."""
        return {"conversations": [] if self.store is None else self.store.newest(owner)}

    def conversation(self, key: str, owner: str) -> dict[str, Any] | RefusedRequest:
        """Return the messages of a conversation."""
        messages = None if self.store is None else self.store.messages(key, owner)
        if self.store is None or messages is None:
            return NOT_FOUND
        paused = paused_summary(self.store.paused(key, owner))
        return {"id": key, "messages": to_builtins(messages), "paused": paused}

    def rename(self, key: str, owner: str, body: bytes) -> dict[str, Any] | RefusedRequest:
        """Set the title of a conversation."""
        try:
            title = title_from(body)
        except ConfigurationError as error:
            return RefusedRequest(400, error.message, error.hint)
        if self.store is None or not self.store.rename(key, owner, title):
            return NOT_FOUND
        return {"id": key, "title": title}

    def remove(self, key: str, owner: str) -> RefusedRequest | None:
        """Remove a conversation."""
        return None if self.store is not None and self.store.remove(key, owner) else NOT_FOUND

    def document(self, *, ask: str, conversations: str, state: str, static: str) -> str:
        """Return the page, with the URLs of its routes."""
        urls = PageUrls(ask=ask, conversations=conversations, state=state)
        return page(urls, static=static, title=self.title, examples=self.examples)


def login_redirect(login_url: str | None, method: str, accept: str, path: str) -> str | None:
    """Return where to send a browser that opens the page without being logged in.

    None for all other requests.
    """
    if login_url is None or method != "GET" or not prefers_html(accept):
        return None
    return f"{login_url}{'&' if '?' in login_url else '?'}next={quote(path)}"


def refusal_json(refusal: RefusedRequest) -> dict[str, Any]:
    """Return the body of a refusal, as the page's script reads it."""
    return {"error": {"message": refusal.message, "hint": refusal.hint}}
