"""Keys: how they are created and how a request is authenticated.

A key has 32 random bytes, so SHA-256 suffices to store it: a slow hash is for passwords, which can be guessed.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import math
import re
import secrets
import time
from collections.abc import Callable, Mapping

from lmdeck._usage_store import GatewayStore, Key, KeyLimits, StoreError
from lmdeck.errors import AuthenticationError, ConfigurationError

__all__ = ["KeyRing", "key_in", "new_key"]

_log = logging.getLogger("lmdeck.gateway")
PREFIX = "lmk_"
RANDOM_BYTES = 32
SHOWN_CHARS = 8
_SECRET = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}", re.ASCII)
_NAME = re.compile(r"[^\W_][\w.@ -]{0,62}\w|[^\W_]")
_BEARER = re.compile(r"bearer +(\S+) *", re.IGNORECASE)

REFRESH_SECONDS = 2.0
LOOK_UP_SECONDS = 0.25
"""The shortest time between two look-ups of unknown keys, in seconds.

An unknown key leads to another reading of the keys: a new key works at once, and guesses cost little.
"""


def new_key(
    name: str,
    *,
    models: tuple[str, ...] = (),
    limits: KeyLimits | None = None,
    expires_in: float | None = None,
    now: float | None = None,
) -> tuple[str, Key]:
    """Create a key; return its secret and its record.

    The secret is not stored and cannot be shown again.

    Raises:
        ConfigurationError: The name is empty, too long, or has characters that names cannot have.
    """
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name[:80]!r} is not a valid name of a key.",
            hint="Use up to 64 letters, digits, spaces and . _ - @, with a letter or digit first.",
        )
    secret = PREFIX + base64.urlsafe_b64encode(secrets.token_bytes(RANDOM_BYTES)).decode().rstrip("=")
    created_at = time.time() if now is None else now
    return secret, Key(
        name=name,
        digest=_digest(secret),
        start=secret[:SHOWN_CHARS],
        models=models,
        limits=limits or KeyLimits(),
        created_at=created_at,
        expires_at=None if expires_in is None else created_at + expires_in,
    )


def key_in(headers: Mapping[str, str]) -> str:
    """Return the secret that a request sends, or `""`.

    It is in `Authorization: Bearer …`, as OpenAI's clients send it, or in `x-api-key`, as Anthropic's do.

    If both headers are there, the one with the form of a key counts. Header names are in lower case.
    """
    bearer = _BEARER.fullmatch(headers.get("authorization", ""))
    sent = [bearer[1] if bearer else "", headers.get("x-api-key", "").strip()]
    return next((each for each in sent if each.startswith(PREFIX)), sent[0] or sent[1])


class KeyRing:
    """The keys of a store, in memory.

    It reads them again every two seconds, so that a revoked key soon stops working.
    """

    def __init__(self, store: GatewayStore, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._keys: dict[str, Key] = {}
        self._read_at = -math.inf  # when the last reading began
        self._reading = asyncio.Lock()

    @property
    def keys(self) -> list[Key]:
        """The keys that were valid when they were last read."""
        return list(self._keys.values())

    @staticmethod
    def is_secret(text: str) -> bool:
        """Whether a text begins like a gateway key, unlike the placeholder that many clients send."""
        return text.startswith(PREFIX)

    async def refresh(self) -> None:
        """Read the keys.

        Raises:
            StoreError: The store does not answer.
        """
        self._read_at = time.monotonic()
        found = await asyncio.to_thread(self._store.list_keys)
        self._keys = {key.digest: key for key in found if key.revoked_at is None}

    async def keep_fresh(self) -> None:
        """Read the keys every two seconds.

        While the store does not answer, the known keys remain valid.
        """
        has_failed = False
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                await self.refresh()
                has_failed = False
            except StoreError as error:
                if not has_failed:
                    _log.warning("The keys could not be read again; the known ones stay valid: %s", error)
                has_failed = True

    async def find(self, secret: str) -> Key:
        """Return the key with that secret.

        Raises:
            AuthenticationError: It is not a key, or an unknown, revoked or expired one.
        """
        if not _SECRET.fullmatch(secret):
            raise _refused("The API key is not a key of this gateway." if secret else "No API key was sent.")
        digest = _digest(secret)
        key = self._keys.get(digest) or await self._find_new(digest)
        if key is None or not secrets.compare_digest(key.digest, digest):
            raise _refused(f"The API key {secret[:SHOWN_CHARS]}… is unknown or revoked.")
        if not key.is_valid(self._clock()):
            raise _refused(f"The API key {key.name!r} has expired.")
        return key

    def find_named(self, name: str) -> Key:
        """Return the key with that name, for work that continues after its client has left.

        Raises:
            AuthenticationError: It was revoked, or has expired.
        """
        now = self._clock()
        key = next((each for each in self._keys.values() if each.name == name and each.is_valid(now)), None)
        if key is None:
            raise _refused(f"The API key {name!r} was revoked, or has expired.")
        return key

    async def _find_new(self, digest: str) -> Key | None:
        """Look for a key created after the last reading; one reading serves all that wait for it."""
        arrived = time.monotonic()
        async with self._reading:
            if self._read_at < arrived:
                await asyncio.sleep(self._read_at + LOOK_UP_SECONDS - time.monotonic())
                try:
                    await self.refresh()
                except StoreError as error:
                    _log.warning("An unknown key could not be looked up: %s", error)
        return self._keys.get(digest)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _refused(message: str) -> AuthenticationError:
    return AuthenticationError(
        message,
        status=401,
        type="authentication_error",
        code="invalid_api_key",
        hint="Create a key with `lmdeck gateway keys create`; send it as `Authorization: Bearer …` or `x-api-key`.",
    )
