"""A router with the chat page and the routes that its script calls."""

# No postponed annotations: FastAPI evaluates them, and some refer to local names.
import inspect
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBasicCredentials, OAuth2PasswordRequestForm
from fastapi.security.base import SecurityBase
from msgspec import to_builtins
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from lmdeck._client.approvals import AnyApprove
from lmdeck._client.chat import AsyncChat
from lmdeck._client.clients import AsyncLMStudio
from lmdeck.contrib.fastapi.clients import LM
from lmdeck.contrib.fastapi.streaming import HEARTBEAT, stream_response
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

CREDENTIALS = (HTTPAuthorizationCredentials, HTTPBasicCredentials, OAuth2PasswordRequestForm)
"""The types that FastAPI's security classes return."""
MakeChat = Callable[[AsyncLMStudio], AsyncChat]


def router(
    *,
    auth: Callable[..., Any] | None,
    make_chat: MakeChat | None = None,
    conversations: Conversations | str | Path | None = None,
    encoding: str = "lmdeck",
    with_page: bool = True,
    max_rounds: int = 8,
    heartbeat: float = HEARTBEAT,
    title: str = "Chat",
    allowed_hosts: Iterable[str] = (),
    approve: AnyApprove = None,
) -> APIRouter:
    """Return a router with a chat: `POST ask`, `GET conversations/`, and the page at its root.

    `auth` is a dependency that returns the user's id (a text, an integer, a UUID, or an object with such an `id`), or None for
    an unknown user, who gets status 401; `auth=None` opens the chat to everybody. `make_chat` returns the chat with which
    conversations start: model, system message, tools. `conversations` stores them in an SQLite file; without it the page holds
    the messages. The routes answer to loopback names and to `allowed_hosts`, the host names of the site (a name that starts
    with a dot includes its subdomains, `*` allows any), and refuse requests from pages of other sites. `approve` is called
    before each tool call; with `"pause"` every call waits for the user's decision on the page.

    Raises:
        ConfigurationError: The encoding is unknown, `auth` returns credentials, or runs pause and nothing stores them.
    """
    find_encoding(encoding)
    check_store(approve, conversations)
    store = Conversations(conversations) if isinstance(conversations, str | Path) else conversations
    _refuse_credentials(auth)
    routes = APIRouter(tags=["chat"], route_class=_guarded(AllowedHosts.of(allowed_hosts)))
    Owner = Annotated[str, Depends(_owner_by(auth))]  # noqa: N806  # a type

    @routes.post("/ask")
    async def ask(request: Request, lm: LM, owner: Owner) -> Response:
        body = await _body(request)
        if body is None:
            return _error_response(TOO_LARGE)
        chat = lm.chat() if make_chat is None else make_chat(lm)
        answer = partial(
            stream_response, encoding=encoding, max_rounds=max_rounds, heartbeat=heartbeat, approve=approve
        )
        try:
            if store is None:
                question = read_question(body)
                return answer(chat.with_messages(question.history()).user(question.text))
            turn = await run_in_threadpool(store.begin, read_request(body), owner)
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

    if with_page:
        _add_page(routes, Owner, title)
    _add_conversations(routes, Owner, store)
    return routes


def _add_conversations(routes: APIRouter, owner_type: Any, store: Conversations | None) -> None:  # an annotation
    @routes.get("/conversations/")
    def newest(owner: owner_type) -> dict[str, Any]:
        return {"conversations": [] if store is None else store.newest(owner)}

    @routes.get("/conversations/{key}/", response_model=None)
    def conversation(key: str, owner: owner_type) -> Response | dict[str, Any]:
        messages = None if store is None else store.messages(key, owner)
        if store is None or messages is None:
            return _error_response(NOT_FOUND)
        return {"id": key, "messages": to_builtins(messages), "paused": shown_paused(store.paused(key, owner))}

    @routes.delete("/conversations/{key}/")
    def remove(key: str, owner: owner_type) -> Response:
        return (
            Response(status_code=204) if store is not None and store.remove(key, owner) else _error_response(NOT_FOUND)
        )


def _add_page(routes: APIRouter, owner_type: Any, title: str) -> None:  # an annotation
    @routes.get("/", response_class=HTMLResponse)
    def show(request: Request, _: owner_type) -> Response:
        root = request.url.path.rstrip("/")
        document = page(ask=f"{root}/ask", conversations=f"{root}/conversations/", static=f"{root}/static", title=title)
        return HTMLResponse(document, headers={"Content-Security-Policy": content_security_policy()})

    @routes.get("/static/{name}", include_in_schema=False)
    def static(name: str) -> Response:
        known = {path.name: path for path in STATIC.iterdir()}
        return FileResponse(known[name]) if name in known else _error_response(NOT_FOUND)


def _owner_by(auth: Callable[..., Any] | None) -> Callable[..., str]:
    if auth is None:
        return lambda: ""

    def owner(user: Annotated[object, Depends(auth)]) -> str:
        found = owner_of(user)
        if found is None:
            raise _UnknownUserError
        return found

    return owner


def _refuse_credentials(auth: object) -> None:
    """Refuse a dependency that returns credentials, which would be stored as the owner of conversations."""
    hints = getattr(auth, "__annotations__", {}) if inspect.isroutine(auth) else {}
    returned = hints.get("return")
    is_credentials = isinstance(auth, SecurityBase) or (inspect.isclass(auth) and issubclass(auth, SecurityBase))
    if is_credentials or returned in CREDENTIALS or returned in {kind.__name__ for kind in CREDENTIALS}:
        raise ConfigurationError(
            "`auth` returns credentials: a password or token would be stored as the owner of conversations.",
            hint="Pass a dependency that checks them and returns the user's id.",
        )


class _UnknownUserError(Exception):
    """The user is unknown."""


def _guarded(hosts: AllowedHosts) -> type[APIRoute]:
    """Return a route class that refuses requests from pages of other sites and adds the page's headers."""

    class GuardedRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            answer = super().get_route_handler()

            async def guarded(request: Request) -> Response:
                refusal = refuse_request(request.method, request.headers, hosts)
                try:
                    response = await answer(request) if refusal is None else _error_response(refusal)
                except _UnknownUserError:
                    response = _error_response(RefusedRequest(401, "You are not logged in.", "Log in and ask again."))
                for name, value in PAGE_HEADERS.items():
                    response.headers.setdefault(name, value)
                return response

            return guarded

    return GuardedRoute


async def _body(request: Request) -> bytes | None:
    """Read a body; None if it is larger than `MAX_BODY_BYTES`."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY_BYTES:
            return None
        parts.append(part)
    return b"".join(parts)


def _error_response(refusal: RefusedRequest) -> Response:
    return JSONResponse({"error": {"message": refusal.message, "hint": refusal.hint}}, refusal.status)
