"""A blueprint with the chat page and what its script asks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from flask import Blueprint, Response, jsonify, request, send_from_directory, url_for
from flask.typing import ResponseReturnValue
from msgspec import to_builtins

from lmdeck.contrib.flask.extension import extension
from lmdeck.contrib.flask.streaming import stream_response
from lmdeck.errors import ConfigurationError
from lmdeck.web.conversations import Conversations
from lmdeck.web.encodings.base import find_encoding
from lmdeck.web.page import STATIC, page
from lmdeck.web.requests import read_question

if TYPE_CHECKING:
    from lmdeck._client.chat import Chat
    from lmdeck._client.clients import LMStudio

__all__ = ["blueprint"]

MakeChat = Callable[["LMStudio"], "Chat"]


def blueprint(
    *,
    auth: Callable[[], str | None] | None,
    make_chat: MakeChat | None = None,
    conversations: Conversations | str | Path | None = None,
    encoding: str = "lmdeck",
    max_rounds: int = 8,
    title: str = "Chat",
    name: str = "lmdeck",
) -> Blueprint:
    """Make a blueprint with a chat: `POST ask`, `GET conversations/`, and the page at its root.

    `auth` gives the user's id for the current request, or None for a stranger, who is answered 401; None instead of it opens
    the chat to all, and has to be said. `make_chat` gives the chat that a conversation begins with: model, system, tools.
    `conversations` keeps them in an SQLite file; without it the page remembers what was said.

    Raises:
        ConfigurationError: There is no such encoding.
    """
    find_encoding(encoding)
    store = Conversations(conversations) if isinstance(conversations, str | Path) else conversations
    routes = Blueprint(name, __name__)

    def owner() -> str:
        return "" if auth is None else str(auth() or "")

    @routes.before_request
    def let_in() -> ResponseReturnValue | None:
        if auth is None or auth() is not None:
            return None
        return _refusal(401, "You are not logged in.", "Log in and ask again.")

    @routes.post("/ask")
    def ask() -> ResponseReturnValue:
        try:
            question = read_question(request.get_data(cache=False))
        except ConfigurationError as error:
            return _refusal(400, error.message, error.hint)
        lm = extension().client
        chat = lm.chat() if make_chat is None else make_chat(lm)
        if store is None:
            asked = chat.with_messages(question.before()).user(question.text)
            return stream_response(asked, encoding=encoding, max_rounds=max_rounds)
        begun = store.ask(question, owner())
        if begun is None:
            return _not_found()
        key, said = begun
        response = stream_response(
            chat.with_messages(said),
            encoding=encoding,
            max_rounds=max_rounds,
            on_end=lambda reply: store.add_reply(key, reply),
        )
        response.headers["X-Conversation"] = key
        return response

    _add_conversations(routes, owner, store)
    _add_page(routes, title)
    return routes


def _add_conversations(routes: Blueprint, owner: Callable[[], str], store: Conversations | None) -> None:
    @routes.get("/conversations/")
    def newest() -> ResponseReturnValue:
        return jsonify(conversations=[] if store is None else store.newest(owner()))

    @routes.get("/conversations/<key>/")
    def conversation(key: str) -> ResponseReturnValue:
        messages = None if store is None else store.messages(key, owner())
        return _not_found() if messages is None else jsonify(id=key, messages=to_builtins(messages))

    @routes.delete("/conversations/<key>/")
    def remove(key: str) -> ResponseReturnValue:
        return ("", 204) if store is not None and store.remove(key, owner()) else _not_found()


def _add_page(routes: Blueprint, title: str) -> None:
    @routes.get("/")
    def show() -> str:
        return page(
            ask=url_for(f"{routes.name}.ask"),
            conversations=url_for(f"{routes.name}.newest"),
            static=url_for(f"{routes.name}.static_file", file="x").removesuffix("/x"),
            title=title,
        )

    @routes.get("/static/<file>")
    def static_file(file: str) -> Response:
        return send_from_directory(STATIC, file)


def _refusal(status: int, message: str, hint: str) -> ResponseReturnValue:
    return jsonify(error={"message": message, "hint": hint}), status


def _not_found() -> ResponseReturnValue:
    return _refusal(404, "There is no such conversation.", "Begin a new one.")
