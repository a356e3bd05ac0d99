"""Replies in Django's cache, for repeated questions: `lmdeck.cache` over a cache of Django."""

from __future__ import annotations

from functools import lru_cache
from math import ceil
from typing import TypeVar

import msgspec
from django.core.cache import caches

from lmdeck._client.chat import AsyncChat, Chat
from lmdeck.cache import Cache, Entry
from lmdeck.contrib.django.conf import configuration
from lmdeck.messages import Reply

HOUR = 3600
FOREVER = 10**9
C = TypeVar("C", Chat, AsyncChat)


def cached_reply(chat: Chat, *, seconds: float | None = HOUR) -> Reply:
    """Return the cached reply to this chat, or `send` it and cache the reply.

    It is cached for `seconds` (None: forever).

    The key consists of server, token, model, messages, tools and options, like that of `LMStudio(cache=…)`. Replies
    that ended at `max_tokens` or have problems are not cached. `LMDECK["CACHE"]` names the cache.

    Raises:
        LMStudioError: The reply was not cached, and the request failed.
    """
    return _cached(chat, seconds).send()


async def acached_reply(chat: AsyncChat, *, seconds: float | None = HOUR) -> Reply:
    """Async version of `cached_reply`.

    Raises:
        LMStudioError: The reply was not cached, and the request failed.
    """
    return await _cached(chat, seconds).send()


def _cached(chat: C, seconds: float | None) -> C:
    if seconds is not None and seconds <= 0:
        return chat.cached(False)
    ttl = FOREVER if seconds is None else ceil(seconds)
    return chat.with_cache(_cache(configuration().cache, None if seconds is None else ttl)).cached(ttl)


@lru_cache(maxsize=64)
def _cache(alias: str, seconds: int | None) -> Cache:
    return Cache(DjangoStore(alias, seconds), asked_only=True)


class DjangoStore:
    """The entries of `lmdeck.cache` in one of Django's caches, for `seconds` (None: forever)."""

    is_remote = True
    max_entry = 64 << 20

    def __init__(self, alias: str, seconds: int | None) -> None:
        self._alias = alias
        self._seconds = seconds

    def get(self, key: bytes) -> Entry | None:
        """Return an entry, or None."""
        data = caches[self._alias].get(_name(key))
        return None if data is None else _decode(data)

    def put(self, key: bytes, entry: Entry) -> None:
        """Store an entry."""
        caches[self._alias].set(_name(key), _encode(entry), self._seconds)

    def clear(self) -> None:
        """Remove everything from this cache of Django."""
        caches[self._alias].clear()

    def close(self) -> None:
        """Do nothing: Django closes its caches."""


def _name(key: bytes) -> str:
    return f"lmdeck:answer:{key.hex()}"


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode
