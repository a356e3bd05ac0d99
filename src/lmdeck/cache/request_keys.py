"""Which requests a cache may answer, and the key of a request.

The cache is exact: two requests have the same key only if they send the same body to the same endpoint of the same server
with the same credentials. A request is repeatable if nothing is sampled at random: with temperature 0 or a seed,
or on an endpoint that does not sample. Others are cached only if they ask for it with `Cache-Control: max-age=…`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Self
from urllib.parse import urlsplit

import msgspec
from msgspec import Raw, Struct

from lmdeck._requests.chat import RANDOM_SEED, runs_tools_on_server
from lmdeck._secret import Secret
from lmdeck._transport import WireRequest
from lmdeck.errors import CacheMissError

SAMPLED = ("/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses", "/api/v1/chat")
DETERMINED = ("/v1/embeddings", "/v1/decisions", "/v1/systemone", "/v1/rerank")
STORED_BY_SERVER = ("/v1/responses", "/api/v1/chat")
WITHOUT_EFFECT = {"user", "ttl", "metadata"}
"""Fields of a body that do not change the answer.

The Responses API returns those of `RETURNED` in it.
"""
RETURNED = {"user", "metadata"}
WITHOUT_IDENTITY = {
    "accept", "accept-encoding", "accept-language", "cache-control", "connection", "content-length", "content-type", "host",
    "pragma", "traceparent", "tracestate", "user-agent", "x-request-id",
}  # fmt: skip
"""Headers that do not identify the sender.

All others are part of the key, since a proxy may distinguish users by them.
"""
_SECONDS = re.compile(r"[0-9]+")
_fields = msgspec.json.Decoder(dict[str, Raw])


class CacheControl(Struct, frozen=True, kw_only=True):
    """The `Cache-Control` of a request (RFC 9111, section 5.2.1); `max_age` is in seconds.

    `no_cache` requests a new answer, `no_store` prevents storing it, `only_if_cached` accepts stored answers only.
    """

    no_cache: bool = False
    no_store: bool = False
    only_if_cached: bool = False
    max_age: float | None = None

    @classmethod
    def parse(cls, header: str) -> Self:
        """Return the directives of a header; unknown directives are ignored.

        An invalid age counts as 0; of several ages, the smallest counts.
        """
        directives = [_directive(text) for text in header.lower().split(",")] if header else []
        names = dict(directives)
        ages = [float(age) if _SECONDS.fullmatch(age) else 0.0 for name, age in directives if name == "max-age"]
        max_age = min(ages, default=None)
        return cls(
            no_cache="no-cache" in names or max_age == 0,
            no_store="no-store" in names,
            only_if_cached="only-if-cached" in names,
            max_age=max_age,
        )

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Self:
        """Return the directives of a request."""
        found = [value for name, value in headers.items() if name.lower() == "cache-control"]
        return cls.parse(found[-1]) if found else cls()

    @property
    def asks_for_cache(self) -> bool:
        """Whether an answer from the cache is explicitly allowed."""
        return bool(self.max_age) or self.only_if_cached


def cache_miss() -> CacheMissError:
    """Return the error for a request that accepts only a stored answer, if there is none."""
    return CacheMissError("The cache has no answer, and the request forbids others (`only-if-cached`).", status=504)


def request_key(
    request: WireRequest, control: CacheControl, scope: str = "", *, asked_only: bool = False
) -> bytes | None:
    """Return the key of a request, or None if no cache may answer it.

    `scope` separates users who may not see each other's answers, as the token and the identifying headers do, too.
    With `asked_only`, only requests that ask for the cache have a key.
    """
    if request.method != "POST" or not request.body or (control.no_cache and control.no_store):
        return None
    path = urlsplit(request.url).path
    if not path.endswith((*SAMPLED, *DETERMINED)):
        return None
    try:
        fields = _fields.decode(request.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not (control.asks_for_cache or (not asked_only and _is_deterministic(path, fields))):
        return None
    if _has_state(path, fields) or _runs_tools(fields):
        return None
    return _digest(request.url, fields, request.api_token, request.headers, scope)


def _directive(text: str) -> tuple[str, str]:
    name, _, value = text.strip().partition("=")
    return name.strip(), value.strip().strip('"')


def _is_deterministic(path: str, fields: Mapping[str, Raw]) -> bool:
    """Whether the request returns the same answer each time."""
    seed = _value(fields, "seed")
    if path.endswith(DETERMINED) or (type(seed) is int and 0 <= seed != RANDOM_SEED):
        return True
    temperature = _value(fields, "temperature")
    return isinstance(temperature, (int, float)) and not isinstance(temperature, bool) and temperature == 0


def _has_state(path: str, fields: Mapping[str, Raw]) -> bool:
    """Whether the server stores the answer or continues a stored one: a copy would differ."""
    if not path.endswith(STORED_BY_SERVER):
        return False
    return _value(fields, "store") is not False or bool(_value(fields, "previous_response_id"))


def _runs_tools(fields: Mapping[str, Raw]) -> bool:
    """Whether the server runs tools for the answer, which may have effects and new results."""
    return runs_tools_on_server({name: _value(fields, name) for name in ("integrations", "mcp_servers", "tools")})


def _value(fields: Mapping[str, Raw], name: str) -> object:
    """Return a short value of a body."""
    raw = fields.get(name)
    return None if raw is None else msgspec.json.decode(raw)


def _digest(url: str, fields: Mapping[str, Raw], token: Secret | None, headers: Mapping[str, str], scope: str) -> bytes:
    """Return the hash of everything that an answer depends on.

    Only the order of the outer fields is normalized: the order inside of schemas and messages reaches the model's prompt.
    """
    ignored = WITHOUT_EFFECT - RETURNED if urlsplit(url).path.endswith("/v1/responses") else WITHOUT_EFFECT
    body = sorted((name, value) for name, value in fields.items() if name not in ignored)
    identity = sorted((name.lower(), value) for name, value in headers.items() if name.lower() not in WITHOUT_IDENTITY)
    whole = msgspec.json.encode([url, scope, None if token is None else token.reveal(), identity, body])
    return hashlib.blake2b(whole, digest_size=24).digest()
