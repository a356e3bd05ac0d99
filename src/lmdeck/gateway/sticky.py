"""Sticky routing: a conversation stays on the host whose memory holds its prefix (KV cache)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any

import msgspec

from lmdeck.gateway.config import StickyConfig

__all__ = ["StickyHosts", "conversation_key", "response_key"]

MAX_BINDINGS = 100_000
PREFIX_BYTES = 4096


def conversation_key(
    config: StickyConfig, headers: Mapping[str, str], owner: str, model: str, fields: Mapping[str, Any]
) -> bytes | None:
    """Return a hash that identifies a conversation, or None.

    `owner` separates the conversations of different keys.
    """
    for each in config.by:
        name = each.lower().removeprefix("header:")
        if name != "prefix" and (value := headers.get(name)):
            return _hashed(b"header", name.encode(), owner.encode(), value.encode())
    start = _start_of(fields) if "prefix" in config.by else None
    return None if start is None else _hashed(b"prefix", owner.encode(), model.encode(), start)


def response_key(response_id: object) -> bytes | None:
    """Return a hash that identifies a stored response, which only its host can continue."""
    return _hashed(b"response", response_id.encode()) if isinstance(response_id, str) else None


class StickyHosts:
    """The hosts that conversations and stored responses are bound to.

    The binding lasts some time after their last request.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._hosts: OrderedDict[bytes, tuple[str, float]] = OrderedDict()

    def host_of(self, key: bytes | None) -> str | None:
        """Return the name of the host that a conversation is bound to, or None."""
        if key is None:
            return None
        name, until = self._hosts.get(key, (None, 0.0))
        return name if self._clock() < until else None

    def bind(self, key: bytes | None, host: str, seconds: float) -> None:
        """Bind a conversation to the host that answered it."""
        if key is None:
            return
        now = self._clock()
        self._hosts[key] = (host, now + seconds)
        self._hosts.move_to_end(key)
        while len(self._hosts) > MAX_BINDINGS or next(iter(self._hosts.values()))[1] < now:
            self._hosts.popitem(last=False)


def _hashed(*parts: bytes) -> bytes:
    return blake2b(b"\0".join(parts), digest_size=16).digest()


def _start_of(fields: Mapping[str, Any]) -> bytes | None:
    """Return the part of a conversation that all its requests share.

    That is the system text and the first user message.
    """
    messages = fields.get("messages", fields.get("input"))
    if not isinstance(messages, list) or not messages:
        return None
    first = next(
        (n for n, each in enumerate(messages) if isinstance(each, Mapping) and each.get("role") == "user"),
        len(messages) - 1,
    )
    start = [fields.get("system"), fields.get("instructions"), *messages[: first + 1][:8]]
    return msgspec.json.encode(start)[:PREFIX_BYTES]
