"""Replies in Django's cache, for repeated questions."""

from __future__ import annotations

import hashlib
from typing import TypeVar, cast

import msgspec
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from msgspec.structs import replace

from lmdeck._client.chat import AsyncChat, Chat
from lmdeck._version import __version__
from lmdeck.contrib.django.conf import configuration
from lmdeck.messages import Reply

HOUR = 3600
C = TypeVar("C", Chat, AsyncChat)


def cached_reply(chat: Chat, *, seconds: float | None = HOUR) -> Reply:
    """Return the cached reply to this chat, or `send` it and cache the reply for `seconds` (None: forever).

    The key consists of server, token, model, messages, tools and options; without a model name, the reply of any model is
    used. Only complete replies are cached, without `raw`. `LMDECK["CACHE"]` names the cache.

    Raises:
        LMStudioError: The reply was not cached, and the request failed.
    """
    cache, key = _cache(), _key(chat)
    cached = cast("Reply | None", cache.get(key))
    if cached is not None:
        return cached
    reply = chat.send()
    cache.set(key, replace(reply, raw=b""), seconds)
    return reply


async def acached_reply(chat: AsyncChat, *, seconds: float | None = HOUR) -> Reply:
    """Async version of `cached_reply`.

    Raises:
        LMStudioError: The reply was not cached, and the request failed.
    """
    cache, key = _cache(), _key(chat)
    cached = cast("Reply | None", await cache.aget(key))
    if cached is not None:
        return cached
    reply = await chat.send()
    await cache.aset(key, replace(reply, raw=b""), seconds)
    return reply


def _cache() -> BaseCache:
    return caches[configuration().cache]


def _key(chat: Chat | AsyncChat) -> str:
    spec, settings = chat.spec, chat.settings
    parts = [
        __version__,
        [settings.base_url, settings.host, settings.port, spec.model or settings.model],
        settings.api_token.reveal() if settings.api_token else None,  # tokens can have different permissions
        chat.messages,
        [list(spec.tools), spec.tool_choice, dict(spec.options), spec.strict, spec.without_rules],
    ]
    return f"lmdeck:reply:{hashlib.sha256(msgspec.json.encode(parts, order='deterministic')).hexdigest()}"
