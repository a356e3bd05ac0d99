"""Replies kept in Django's cache, for questions that are asked again and again."""

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

__all__ = ["acached_reply", "cached_reply"]

HOUR = 3600
C = TypeVar("C", Chat, AsyncChat)


def cached_reply(chat: Chat, *, seconds: float | None = HOUR) -> Reply:
    """Give the reply to this very chat from the cache, or `send` it and keep the reply for `seconds` (None: for ever).

    Chats are the same when server, token, model, messages, tools and options are; with no model named, whichever answered is
    kept. Only whole replies are kept, without `raw`. The cache is the one that `LMDECK["CACHE"]` names.

    Raises:
        LMStudioError: It was not in the cache, and there is no whole answer.
    """
    cache, key = _cache(), _key(chat)
    kept = cast("Reply | None", cache.get(key))
    if kept is not None:
        return kept
    reply = chat.send()
    cache.set(key, replace(reply, raw=b""), seconds)
    return reply


async def acached_reply(chat: AsyncChat, *, seconds: float | None = HOUR) -> Reply:
    """Do as `cached_reply`, awaited.

    Raises:
        LMStudioError: It was not in the cache, and there is no whole answer.
    """
    cache, key = _cache(), _key(chat)
    kept = cast("Reply | None", await cache.aget(key))
    if kept is not None:
        return kept
    reply = await chat.send()
    await cache.aset(key, replace(reply, raw=b""), seconds)
    return reply


def _cache() -> BaseCache:
    return caches[configuration().cache]


def _key(chat: Chat | AsyncChat) -> str:
    spec, settings = chat.spec, chat.settings
    asked = [
        __version__,
        [settings.base_url, settings.host, settings.port, spec.model or settings.model],
        settings.api_token.reveal() if settings.api_token else None,  # what one token may see, another may not
        chat.messages,
        [list(spec.tools), spec.tool_choice, dict(spec.options), spec.strict, spec.without_rules],
    ]
    return f"lmdeck:reply:{hashlib.sha256(msgspec.json.encode(asked, order='deterministic')).hexdigest()}"
