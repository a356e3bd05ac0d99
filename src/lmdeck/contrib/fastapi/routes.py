"""A router with the chat page and what its script asks for."""

# no postponed annotations here: FastAPI looks at them, and some are made within a function
import inspect
from collections.abc import Callable, Coroutine, Iterable
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

from lmdeck._client.chat import AsyncChat
from lmdeck._client.clients import AsyncLMStudio
from lmdeck.contrib.fastapi.clients import LM
from lmdeck.contrib.fastapi.streaming import HEARTBEAT, stream_response
from lmdeck.errors import ConfigurationError
from lmdeck.web.conversations import Conversations
from lmdeck.web.encodings import find_encoding
from lmdeck.web.owners import owner_of
from lmdeck.web.page import STATIC, page
from lmdeck.web.requests import MAX_BODY_BYTES, TOO_LARGE, read_question
from lmdeck.web.trust import PAGE_HEADERS, AllowedHosts, Refused, content_security_policy, refuse_request

__all__ = ["router"]

CREDENTIALS = (HTTPAuthorizationCredentials, HTTPBasicCredentials, OAuth2PasswordRequestForm)
"""What FastAPI's own security classes return."""
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
) -> APIRouter:
    """Make a router with a chat: `POST ask`, `GET conversations/`, and the page at its root.

    `auth` is the dependency that lets users in: it returns the user's id, a text, an integer or a UUID, or an object with such
    an `id`, and None for a stranger, who is answered 401; None instead of it opens the chat to all, and has to be said.
    `make_chat` makes the chat that a conversation begins with: model, system message, tools. `conversations` stores them in an
    SQLite file; without it the page remembers what was said. It answers to loopback names and to `allowed_hosts`, the names
    under which the site is served (one that begins with a dot stands for all below it, `*` for any), and refuses what pages of
    other sites send.

    Raises:
        ConfigurationError: There is no such encoding, or `auth` returns credentials.
    """
    find_encoding(encoding)
    store = Conversations(conversations) if isinstance(conversations, str | Path) else conversations
    _refuse_credentials(auth)
    routes = APIRouter(tags=["chat"], route_class=_guarded(AllowedHosts.of(allowed_hosts)))
    Owner = Annotated[str, Depends(_owner_by(auth))]  # noqa: N806  # a type

    @routes.post("/ask")
    async def ask(request: Request, lm: LM, owner: Owner) -> Response:
        body = await _body(request)
        if body is None:
            return _refusal(TOO_LARGE)
        try:
            question = read_question(body)
        except ConfigurationError as error:
            return _refusal(Refused(400, error.message, error.hint))
        chat = lm.chat() if make_chat is None else make_chat(lm)
        if store is None:
            asked = chat.with_messages(question.before()).user(question.text)
            return stream_response(asked, encoding=encoding, max_rounds=max_rounds, heartbeat=heartbeat)
        begun = await run_in_threadpool(store.ask, question, owner)
        if begun is None:
            return _not_found()
        key, said = begun
        response = stream_response(
            chat.with_messages(said),
            encoding=encoding,
            max_rounds=max_rounds,
            heartbeat=heartbeat,
            on_end=lambda reply: store.add_reply(key, reply),
        )
        response.headers["X-Conversation"] = key
        return response

    if with_page:
        _add_page(routes, Owner, title)
    _add_conversations(routes, Owner, store)
    return routes


def _add_conversations(routes: APIRouter, owner_type: Any, store: Conversations | None) -> None:  # noqa: ANN401  # an annotation
    @routes.get("/conversations/")
    def newest(owner: owner_type) -> dict[str, Any]:
        return {"conversations": [] if store is None else store.newest(owner)}

    @routes.get("/conversations/{key}/", response_model=None)
    def conversation(key: str, owner: owner_type) -> Response | dict[str, Any]:
        messages = None if store is None else store.messages(key, owner)
        return _not_found() if messages is None else {"id": key, "messages": to_builtins(messages)}

    @routes.delete("/conversations/{key}/")
    def remove(key: str, owner: owner_type) -> Response:
        return Response(status_code=204) if store is not None and store.remove(key, owner) else _not_found()


def _add_page(routes: APIRouter, owner_type: Any, title: str) -> None:  # noqa: ANN401  # an annotation
    @routes.get("/", response_class=HTMLResponse)
    def show(request: Request, _: owner_type) -> Response:
        root = request.url.path.rstrip("/")
        document = page(ask=f"{root}/ask", conversations=f"{root}/conversations/", static=f"{root}/static", title=title)
        return HTMLResponse(document, headers={"Content-Security-Policy": content_security_policy()})

    @routes.get("/static/{name}", include_in_schema=False)
    def static(name: str) -> Response:
        known = {path.name: path for path in STATIC.iterdir()}
        return FileResponse(known[name]) if name in known else _not_found()


def _owner_by(auth: Callable[..., Any] | None) -> Callable[..., str]:
    if auth is None:
        return lambda: ""

    def owner(user: Annotated[object, Depends(auth)]) -> str:
        found = owner_of(user)
        if found is None:
            raise _StrangerError
        return found

    return owner


def _refuse_credentials(auth: object) -> None:
    """Refuse a dependency that returns what a user typed, which would be stored as the owner's name."""
    hints = getattr(auth, "__annotations__", {}) if inspect.isroutine(auth) else {}
    returned = hints.get("return")
    is_credentials = isinstance(auth, SecurityBase) or (inspect.isclass(auth) and issubclass(auth, SecurityBase))
    if is_credentials or returned in CREDENTIALS or returned in {kind.__name__ for kind in CREDENTIALS}:
        raise ConfigurationError(
            "`auth` returns credentials: a password or token would be the name under which conversations are stored.",
            hint="Pass a dependency that checks them and returns the user's id.",
        )


class _StrangerError(Exception):
    """The user is not known."""


def _guarded(hosts: AllowedHosts) -> type[APIRoute]:
    """Make the routes that refuse what pages of other sites send, and answer with the headers of a page."""

    class GuardedRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            answer = super().get_route_handler()

            async def guarded(request: Request) -> Response:
                refused = refuse_request(request.method, request.headers, hosts)
                try:
                    response = await answer(request) if refused is None else _refusal(refused)
                except _StrangerError:
                    response = _refusal(Refused(401, "You are not logged in.", "Log in and ask again."))
                for name, value in PAGE_HEADERS.items():
                    response.headers.setdefault(name, value)
                return response

            return guarded

    return GuardedRoute


async def _body(request: Request) -> bytes | None:
    """Read a body; None where it is larger than a question can be."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY_BYTES:
            return None
        parts.append(part)
    return b"".join(parts)


def _refusal(refused: Refused) -> Response:
    return JSONResponse({"error": {"message": refused.message, "hint": refused.hint}}, refused.status)


def _not_found() -> Response:
    return _refusal(Refused(404, "There is no such conversation.", "Begin a new one."))
