"""A router with the chat page and the routes that its script calls."""

# No postponed annotations: FastAPI evaluates them, and some refer to local names.
import inspect
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBasicCredentials, OAuth2PasswordRequestForm
from fastapi.security.base import SecurityBase
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from lmdeck._client.approve_callback import AnyApprove
from lmdeck._client.chat import AsyncChat
from lmdeck._client.clients import AsyncLMStudio
from lmdeck._incoming.disconnect import BodyRefusedError, ClientGoneError, read_body
from lmdeck._incoming.headers import joined_headers
from lmdeck._incoming.trust import (
    AllowedHosts,
    RefusedRequest,
    refuse_request,
)
from lmdeck.contrib.fastapi.clients import LM
from lmdeck.contrib.fastapi.errors import error_handler
from lmdeck.contrib.fastapi.streaming import HEARTBEAT, stream_response
from lmdeck.errors import ConfigurationError
from lmdeck.web.chat_api import NOT_LOGGED_IN, ChatApi, login_redirect, refusal_json
from lmdeck.web.chat_page import EXAMPLES, MEDIA_TYPES, STATIC, TITLE
from lmdeck.web.conversations import Conversations
from lmdeck.web.owners import owner_of
from lmdeck.web.page_headers import PAGE_HEADERS, content_security_policy
from lmdeck.web.requests import MAX_BODY_BYTES
from lmdeck.web.server_state import server_state
from lmdeck.web.store_errors import ConversationsError

CREDENTIALS = (HTTPAuthorizationCredentials, HTTPBasicCredentials, OAuth2PasswordRequestForm)
"""The types that FastAPI's security classes return."""
CLIENT_GONE = 499
"""nginx's status for the log; nobody receives the response."""

NO_FILE = RefusedRequest(404, "There is no such file.", "Reload the page.")
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
    title: str = TITLE,
    examples: Sequence[str] = EXAMPLES,
    allowed_hosts: Iterable[str] = (),
    approve: AnyApprove = None,
    login_url: str | None = None,
) -> APIRouter:
    """Return a router with a chat.

    Its routes are `POST ask`, `GET state`, `GET conversations/`, and the page at its root.

    `auth` is a dependency that returns the user's id (a text, an integer, a UUID, or an object with such an `id`), or None for
    an unknown user, who gets status 401; `auth=None` opens the chat to everybody. `make_chat` returns the chat with which
    conversations start: model, system message, tools. `conversations` stores them in an SQLite file; without it the page holds
    the messages. `examples` are the questions that the start of the page offers. The routes answer to loopback names and to
    `allowed_hosts`, the host names of the site (a name that starts with a dot includes its subdomains, `*` allows any), and
    refuse requests from pages of other sites. `approve` is called before each tool call; with `"pause"` each waits for the
    user's decision on the page. A browser that opens the page without being logged in is sent to `login_url`, with `next`.

    Raises:
        ConfigurationError: The encoding is unknown, `auth` returns credentials, or runs pause and nothing stores them.
        ConversationsError: The file of conversations is not usable.
    """
    api = ChatApi.of(conversations, encoding=encoding, title=title, examples=examples, approve=approve)
    _refuse_credentials(auth)
    routes = APIRouter(tags=["chat"], route_class=_guarded(AllowedHosts.of(allowed_hosts), login_url))
    Owner = Annotated[str, Depends(_owner_by(auth))]  # noqa: N806  # a type

    def new_chat(lm: AsyncLMStudio) -> AsyncChat:
        return lm.chat() if make_chat is None else make_chat(lm)

    @routes.post("/ask")
    async def ask(request: Request, lm: LM, owner: Owner) -> Response:
        requested = await run_in_threadpool(api.ask, await _body(request), new_chat(lm), owner)
        if isinstance(requested, RefusedRequest):
            return _error_response(requested)
        response = stream_response(
            requested.chat,
            encoding=requested.encoding,
            max_rounds=max_rounds,
            heartbeat=heartbeat,
            approve=approve,
            resumed=requested.resumed,
            on_end=requested.on_end,
        )
        response.headers.update(requested.headers)
        return response

    @routes.get("/state")
    async def state(request: Request, lm: LM, _: Owner) -> dict[str, Any]:
        return await server_state(lm, new_chat(lm), with_details=bool(request.app.debug))

    if with_page:
        _add_page(routes, Owner, api)
    _add_conversations(routes, Owner, api)
    return routes


def _add_conversations(routes: APIRouter, owner_type: Any, api: ChatApi) -> None:  # an annotation
    @routes.get("/conversations/")
    def newest(owner: owner_type) -> dict[str, Any]:
        return api.newest(owner)

    @routes.get("/conversations/{key}/", response_model=None)
    def conversation(key: str, owner: owner_type) -> Response | dict[str, Any]:
        return _response(api.conversation(key, owner))

    @routes.patch("/conversations/{key}/", response_model=None)
    async def rename(key: str, request: Request, owner: owner_type) -> Response | dict[str, Any]:
        return _response(await run_in_threadpool(api.rename, key, owner, await _body(request)))

    @routes.delete("/conversations/{key}/", response_model=None)
    def remove(key: str, owner: owner_type) -> Response | dict[str, Any]:
        return _response(api.remove(key, owner))


def _add_page(routes: APIRouter, owner_type: Any, api: ChatApi) -> None:  # an annotation
    @routes.get("/", response_class=HTMLResponse)
    def show(request: Request, _: owner_type) -> Response:
        root = request.url.path.rstrip("/")
        document = api.document(
            ask=f"{root}/ask", conversations=f"{root}/conversations/", state=f"{root}/state", static=f"{root}/static"
        )
        return HTMLResponse(document, headers={"Content-Security-Policy": content_security_policy()})

    @routes.get("/static/{name:path}", include_in_schema=False)
    def static(name: str) -> Response:
        known = {path.relative_to(STATIC).as_posix(): path for path in STATIC.rglob("*") if path.is_file()}
        path = known.get(name)
        return _error_response(NO_FILE) if path is None else FileResponse(path, media_type=MEDIA_TYPES[path.suffix])


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
    """Refuse a dependency that returns credentials: they would be stored as the owner."""
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


def _guarded(hosts: AllowedHosts, login_url: str | None) -> type[APIRoute]:
    """Return a route class that refuses requests from pages of other sites.

    It also adds the page's headers.
    """

    class GuardedRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            answer = super().get_route_handler()

            async def guarded(request: Request) -> Response:
                refusal = refuse_request(request.method, joined_headers(request.headers.raw), hosts)
                try:
                    response = await answer(request) if refusal is None else _error_response(refusal)
                except _UnknownUserError:
                    accept = request.headers.get("accept", "")
                    target = login_redirect(login_url, request.method, accept, request.url.path)
                    response = _error_response(NOT_LOGGED_IN) if target is None else RedirectResponse(target, 303)
                except ConversationsError as error:
                    response = await error_handler(request, error)
                except BodyRefusedError as refused:
                    response = _error_response(RefusedRequest(refused.status, str(refused), refused.hint))
                except ClientGoneError:
                    response = Response(status_code=CLIENT_GONE)
                for name, value in PAGE_HEADERS.items():
                    response.headers.setdefault(name, value)
                return response

            return guarded

    return GuardedRoute


async def _body(request: Request) -> bytes:
    return await read_body(request.scope, request.receive, MAX_BODY_BYTES)


def _response(answer: dict[str, Any] | RefusedRequest | None) -> Response | dict[str, Any]:
    if answer is None:
        return Response(status_code=204)
    return _error_response(answer) if isinstance(answer, RefusedRequest) else answer


def _error_response(refusal: RefusedRequest) -> Response:
    return JSONResponse(refusal_json(refusal), refusal.status)
