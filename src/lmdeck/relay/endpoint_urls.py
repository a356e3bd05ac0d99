"""The endpoint of a URL, for all common forms of a base URL."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from msgspec import Struct

__all__ = ["Kind", "Route", "route_of"]

Kind: TypeAlias = Literal["chat", "responses", "messages", "completions", "embeddings", "other"]
_KINDS: dict[str, Kind] = {
    "chat/completions": "chat",
    "responses": "responses",
    "messages": "messages",
    "completions": "completions",
    "embeddings": "embeddings",
}
_ENDPOINT = re.compile(
    r"(?P<root>.*?)/*(?P<api>/api/v0|/api/v1|/v1|)/+(?P<endpoint>chat/completions|completions|embeddings|responses|messages|models)"
)


class Route(Struct, frozen=True, kw_only=True):
    """The target of a request: the server's root, the path and query below it, the wire format."""

    root: str
    path: str
    kind: Kind = "other"


def route_of(method: str, url: str) -> Route:
    """Return the route of a request.

    A doubled slash, a missing `/v1` and `/api/v1` before an endpoint of OpenAI or Anthropic are corrected: LM Studio answers
    them with status 200 and an error. `/api/v0` has separate chats, completions and embeddings.
    """
    parts = urlsplit(url)
    server = f"{parts.scheme}://{parts.netloc}"
    query = f"?{parts.query}" if parts.query else ""
    found = _ENDPOINT.fullmatch(parts.path)
    if found is None:
        return Route(root=server, path=f"{parts.path or '/'}{query}")
    endpoint, api = found["endpoint"], found["api"]
    is_known = endpoint == "models" or (api == "/api/v0" and endpoint not in {"responses", "messages"})
    prefix = api if api and is_known else "/v1"
    kind = _KINDS.get(endpoint, "other") if method == "POST" else "other"
    return Route(root=server + found["root"], path=f"{prefix}/{endpoint}{query}", kind=kind)
