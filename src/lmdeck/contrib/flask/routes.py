"""A blueprint with the chat page and the routes that its script calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, current_app, g, jsonify, redirect, request, send_from_directory, url_for
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import RequestEntityTooLarge

from lmdeck._incoming.trust import AllowedHosts, RefusedRequest, refuse_request
from lmdeck.contrib.flask.errors import error_handler
from lmdeck.contrib.flask.extension import extension
from lmdeck.contrib.flask.streaming import stream_response
from lmdeck.web.background_loop import wait
from lmdeck.web.chat_api import NOT_LOGGED_IN, ChatApi, login_redirect, refusal_json
from lmdeck.web.chat_page import EXAMPLES, MEDIA_TYPES, STATIC, TITLE
from lmdeck.web.conversations import Conversations
from lmdeck.web.owners import owner_of
from lmdeck.web.page_headers import PAGE_HEADERS, content_security_policy
from lmdeck.web.requests import MAX_BODY_BYTES, TOO_LARGE
from lmdeck.web.server_state import server_state
from lmdeck.web.store_errors import ConversationsError

if TYPE_CHECKING:
    from werkzeug.datastructures import Headers

    from lmdeck._client.approve_callback import AnyApprove
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
    title: str = TITLE,
    examples: Sequence[str] = EXAMPLES,
    name: str = "lmdeck",
    allowed_hosts: Iterable[str] = (),
    approve: AnyApprove = None,
    login_url: str | None = None,
) -> Blueprint:
    """Return a blueprint with a chat.

    Its routes are `POST ask`, `GET state`, `GET conversations/`, and the page at its root.

    `auth` returns the id of the current user (a text, an integer, a UUID, or an object with such an `id`), or None for an
    unknown user, who gets status 401; `auth=None` opens the chat to everybody. `make_chat` returns the chat with which
    conversations start: model, system message, tools. `conversations` stores them in an SQLite file; without it the page holds
    the messages. `examples` are the questions that the start of the page offers. The routes answer to loopback names and to
    `allowed_hosts`, the host names of the site (a name that starts with a dot includes its subdomains, `*` allows any), and
    refuse requests from pages of other sites. `approve` is called before each tool call; with `"pause"` each waits for the
    user's decision on the page. A browser that opens the page without being logged in is sent to `login_url`, with `next`.

    Raises:
        ConfigurationError: The encoding is unknown, or runs pause and nothing stores them.
        ConversationsError: The file of conversations is not usable.
    """
    api = ChatApi.of(conversations, encoding=encoding, title=title, examples=examples, approve=approve)
    routes = Blueprint(name, __name__)
    _add_guard(routes, auth, AllowedHosts.of(allowed_hosts), login_url)

    def new_chat(lm: LMStudio) -> Chat:
        return lm.chat() if make_chat is None else make_chat(lm)

    @routes.post("/ask")
    def ask() -> ResponseReturnValue:
        body = _body()
        requested = TOO_LARGE if body is None else api.ask(body, new_chat(extension().client), _owner())
        if isinstance(requested, RefusedRequest):
            return _error_response(requested)
        response = stream_response(
            requested.chat,
            encoding=requested.encoding,
            max_rounds=max_rounds,
            approve=approve,
            resumed=requested.resumed,
            on_end=requested.on_end,
        )
        response.headers.update(requested.headers)
        return response

    @routes.get("/state")
    def state() -> ResponseReturnValue:
        found = extension()
        chat = new_chat(found.client)
        return jsonify(wait(server_state(found.streaming_client, chat, with_details=current_app.debug)))

    _add_conversations(routes, api)
    _add_page(routes, api)
    return routes


def _add_guard(
    routes: Blueprint, auth: Callable[[], object] | None, hosts: AllowedHosts, login_url: str | None
) -> None:
    @routes.before_request
    def check_request() -> ResponseReturnValue | None:
        refusal = refuse_request(request.method, _lower_case(request.headers), hosts)
        if refusal is not None:
            return _error_response(refusal)
        g.lmdeck_owner = "" if auth is None else owner_of(auth())
        if g.lmdeck_owner is None:
            target = login_redirect(login_url, request.method, request.headers.get("Accept", ""), request.path)
            return _error_response(NOT_LOGGED_IN) if target is None else redirect(target, 303)
        return None

    routes.register_error_handler(ConversationsError, error_handler)

    @routes.after_request
    def add_headers(response: Response) -> Response:
        for header, value in PAGE_HEADERS.items():
            response.headers.setdefault(header, value)
        return response


def _owner() -> str:
    """Return the owner that the guard has determined for this request."""
    return str(g.lmdeck_owner)


def _body() -> bytes | None:
    """Return the request body; None if it is too large."""
    request.max_content_length = MAX_BODY_BYTES + 1  # werkzeug silently cuts a body without a length at this limit
    try:
        return request.get_data(cache=False)
    except RequestEntityTooLarge:
        return None


def _add_conversations(routes: Blueprint, api: ChatApi) -> None:
    @routes.get("/conversations/")
    def newest() -> ResponseReturnValue:
        return _response(api.newest(_owner()))

    @routes.get("/conversations/<key>/")
    def conversation(key: str) -> ResponseReturnValue:
        return _response(api.conversation(key, _owner()))

    @routes.patch("/conversations/<key>/")
    def rename(key: str) -> ResponseReturnValue:
        body = _body()
        return _response(TOO_LARGE if body is None else api.rename(key, _owner(), body))

    @routes.delete("/conversations/<key>/")
    def remove(key: str) -> ResponseReturnValue:
        return _response(api.remove(key, _owner()))


def _add_page(routes: Blueprint, api: ChatApi) -> None:
    @routes.get("/")
    def show() -> ResponseReturnValue:
        document = api.document(
            ask=url_for(f"{routes.name}.ask"),
            conversations=url_for(f"{routes.name}.newest"),
            state=url_for(f"{routes.name}.state"),
            static=url_for(f"{routes.name}.static_file", file="x").removesuffix("/x"),
        )
        return document, {"Content-Security-Policy": content_security_policy()}

    @routes.get("/static/<file>")  # no path of any depth: Flask's own route for static files would win
    def static_file(file: str) -> Response:
        return send_from_directory(STATIC, file, mimetype=MEDIA_TYPES.get(Path(file).suffix))

    @routes.get("/static/vendor/<file>")
    def library(file: str) -> Response:
        return static_file(f"vendor/{file}")


def _lower_case(headers: Headers) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _response(answer: dict[str, Any] | RefusedRequest | None) -> ResponseReturnValue:
    if answer is None:
        return "", 204
    return _error_response(answer) if isinstance(answer, RefusedRequest) else jsonify(answer)


def _error_response(refusal: RefusedRequest) -> ResponseReturnValue:
    return jsonify(refusal_json(refusal)), refusal.status
