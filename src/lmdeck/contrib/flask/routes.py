"""A blueprint with the chat page and the routes that its script calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from flask import Blueprint, Response, g, jsonify, request, send_from_directory, url_for
from flask.typing import ResponseReturnValue
from msgspec import to_builtins
from werkzeug.exceptions import RequestEntityTooLarge

from lmdeck.contrib.flask.extension import extension
from lmdeck.contrib.flask.streaming import stream_response
from lmdeck.errors import ConfigurationError
from lmdeck.web.conversations import Conversations
from lmdeck.web.encodings import find_encoding
from lmdeck.web.owners import owner_of
from lmdeck.web.page import STATIC, page
from lmdeck.web.requests import (
    MAX_BODY_BYTES,
    NOT_FOUND,
    TOO_LARGE,
    check_store,
    read_question,
    read_request,
    shown_paused,
)
from lmdeck.web.trust import PAGE_HEADERS, AllowedHosts, RefusedRequest, content_security_policy, refuse_request

if TYPE_CHECKING:
    from werkzeug.datastructures import Headers

    from lmdeck._client.approvals import AnyApprove
    from lmdeck._client.chat import Chat
    from lmdeck._client.clients import LMStudio

MakeChat = Callable[["LMStudio"], "Chat"]


def blueprint(
    *,
    auth: Callable[[], object] | None,
    make_chat: MakeChat | None = None,
    conversations: Conversations | str | Path | None = None,
    encoding: str = "lmdeck",
    max_rounds: int = 8,
    title: str = "Chat",
    name: str = "lmdeck",
    allowed_hosts: Iterable[str] = (),
    approve: AnyApprove = None,
) -> Blueprint:
    """Return a blueprint with a chat: `POST ask`, `GET conversations/`, and the page at its root.

    `auth` returns the id of the current user (a text, an integer, a UUID, or an object with such an `id`), or None for an
    unknown user, who gets status 401; `auth=None` opens the chat to everybody. `make_chat` returns the chat with which
    conversations start: model, system message, tools. `conversations` stores them in an SQLite file; without it the page holds
    the messages. The routes answer to loopback names and to `allowed_hosts`, the host names of the site (a name that starts
    with a dot includes its subdomains, `*` allows any), and refuse requests from pages of other sites. `approve` is called
    before each tool call; with `"pause"` every call waits for the user's decision on the page.

    Raises:
        ConfigurationError: The encoding is unknown, or runs pause and nothing stores them.
    """
    find_encoding(encoding)
    check_store(approve, conversations)
    store = Conversations(conversations) if isinstance(conversations, str | Path) else conversations
    routes = Blueprint(name, __name__)
    _add_guard(routes, auth, AllowedHosts.of(allowed_hosts))

    @routes.post("/ask")
    def ask() -> ResponseReturnValue:
        body = _body()
        if body is None:
            return _error_response(TOO_LARGE)
        lm = extension().client
        chat = lm.chat() if make_chat is None else make_chat(lm)
        answer = partial(stream_response, encoding=encoding, max_rounds=max_rounds, approve=approve)
        try:
            if store is None:
                question = read_question(body)
                return answer(chat.with_messages(question.history()).user(question.text))
            turn = store.begin(read_request(body), _owner())
        except ConfigurationError as error:
            return _error_response(RefusedRequest(400, error.message, error.hint))
        if isinstance(turn, RefusedRequest):
            return _error_response(turn)
        response = answer(
            chat.with_messages(turn.messages),
            resumed=turn.resumed,
            on_end=lambda outcome: store.add_reply(turn.key, outcome, resumed=turn.paused),
        )
        response.headers["X-Conversation"] = turn.key
        return response

    _add_conversations(routes, store)
    _add_page(routes, title)
    return routes


def _add_guard(routes: Blueprint, auth: Callable[[], object] | None, hosts: AllowedHosts) -> None:
    @routes.before_request
    def check_request() -> ResponseReturnValue | None:
        refusal = refuse_request(request.method, _lower_case(request.headers), hosts)
        if refusal is not None:
            return _error_response(refusal)
        g.lmdeck_owner = "" if auth is None else owner_of(auth())
        if g.lmdeck_owner is None:
            return _error_response(RefusedRequest(401, "You are not logged in.", "Log in and ask again."))
        return None

    @routes.after_request
    def add_headers(response: Response) -> Response:
        for header, value in PAGE_HEADERS.items():
            response.headers.setdefault(header, value)
        return response


def _owner() -> str:
    """Return the owner that the guard has determined for this request."""
    return str(g.lmdeck_owner)


def _body() -> bytes | None:
    """Read the body; None if it is larger than `MAX_BODY_BYTES`."""
    request.max_content_length = MAX_BODY_BYTES + 1  # werkzeug silently cuts a body without a length at this limit
    try:
        body = request.get_data(cache=False)
    except RequestEntityTooLarge:
        return None
    return None if len(body) > MAX_BODY_BYTES else body


def _add_conversations(routes: Blueprint, store: Conversations | None) -> None:
    @routes.get("/conversations/")
    def newest() -> ResponseReturnValue:
        return jsonify(conversations=[] if store is None else store.newest(_owner()))

    @routes.get("/conversations/<key>/")
    def conversation(key: str) -> ResponseReturnValue:
        messages = None if store is None else store.messages(key, _owner())
        if store is None or messages is None:
            return _error_response(NOT_FOUND)
        return jsonify(id=key, messages=to_builtins(messages), paused=shown_paused(store.paused(key, _owner())))

    @routes.delete("/conversations/<key>/")
    def remove(key: str) -> ResponseReturnValue:
        return ("", 204) if store is not None and store.remove(key, _owner()) else _error_response(NOT_FOUND)


def _add_page(routes: Blueprint, title: str) -> None:
    @routes.get("/")
    def show() -> ResponseReturnValue:
        document = page(
            ask=url_for(f"{routes.name}.ask"),
            conversations=url_for(f"{routes.name}.newest"),
            static=url_for(f"{routes.name}.static_file", file="x").removesuffix("/x"),
            title=title,
        )
        return document, {"Content-Security-Policy": content_security_policy()}

    @routes.get("/static/<file>")
    def static_file(file: str) -> Response:
        return send_from_directory(STATIC, file)


def _lower_case(headers: Headers) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _error_response(refusal: RefusedRequest) -> ResponseReturnValue:
    return jsonify(error={"message": refusal.message, "hint": refusal.hint}), refusal.status
