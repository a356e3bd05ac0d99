"""A router with the chat page and what its script asks for."""

# no postponed annotations here: FastAPI looks at them, and some are made within a function
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from msgspec import to_builtins
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from lmdeck._client.chat import AsyncChat
from lmdeck._client.clients import AsyncLMStudio
from lmdeck.contrib.fastapi.clients import LM
from lmdeck.contrib.fastapi.streaming import HEARTBEAT, stream_response
from lmdeck.errors import ConfigurationError
from lmdeck.server.requests.body import MAX_BODY_BYTES
from lmdeck.web.conversations import Conversations
from lmdeck.web.encodings.base import find_encoding
from lmdeck.web.page import STATIC, page
from lmdeck.web.requests import read_question

__all__ = ["router"]

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
) -> APIRouter:
    """Make a router with a chat: `POST ask`, `GET conversations/`, and the page at its root.

    `auth` is the dependency that lets users in (its text or `id` tells whose conversations are whose); None opens it to all,
    and has to be said. `make_chat` gives the chat that a conversation begins with: model, system message, tools.
    `conversations` keeps them in an SQLite file; without it the page remembers what was said.

    Raises:
        ConfigurationError: There is no such encoding.
    """
    find_encoding(encoding)
    store = Conversations(conversations) if isinstance(conversations, str | Path) else conversations
    routes = APIRouter(tags=["chat"])
    Owner = Annotated[str, Depends(_owner_by(auth))]  # noqa: N806  # a type

    @routes.post("/ask")
    async def ask(request: Request, lm: LM, owner: Owner) -> Response:
        try:
            question = read_question(await _body(request))
        except ConfigurationError as error:
            return _refusal(400, error)
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
    def show(request: Request, _: owner_type) -> str:
        root = request.url.path.rstrip("/")
        return page(ask=f"{root}/ask", conversations=f"{root}/conversations/", static=f"{root}/static", title=title)

    @routes.get("/static/{name}", include_in_schema=False)
    def static(name: str) -> Response:
        known = {path.name: path for path in STATIC.iterdir()}
        return FileResponse(known[name]) if name in known else _not_found()


def _owner_by(auth: Callable[..., Any] | None) -> Callable[..., str]:
    if auth is None:
        return lambda: ""

    def owner(user: Annotated[object, Depends(auth)]) -> str:
        return str(getattr(user, "id", "" if user is None else user))

    return owner


async def _body(request: Request) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise ConfigurationError("The question is too large.", hint="Make it shorter.")
        parts.append(part)
    return b"".join(parts)


def _refusal(status: int, error: ConfigurationError) -> Response:
    return JSONResponse({"error": {"message": error.message, "hint": error.hint}}, status)


def _not_found() -> Response:
    return JSONResponse({"error": {"message": "There is no such conversation.", "hint": "Begin a new one."}}, 404)
