"""The owner of a conversation, derived from what the application's `auth` returns."""

from __future__ import annotations

from uuid import UUID

from lmdeck._text import storable_text
from lmdeck.errors import ConfigurationError

_NOTHING = object()


def owner_of(user: object) -> str | None:
    """Return the owner's id as text.

    `user` is a text, an integer, a UUID, or an object with such an `id`.

    None for an unknown user: None, an empty text, an object whose `id` is None, or a text that no database can store (NUL, a
    lone surrogate), which is not replaced, since two users would become one.

    Raises:
        ConfigurationError: `user` is of another type: credentials, for example, which must not be stored.
    """
    identity = user if user is None or isinstance(user, str | int | UUID) else getattr(user, "id", _NOTHING)
    if identity is None:
        return None
    if isinstance(identity, bool) or not isinstance(identity, str | int | UUID):
        raise ConfigurationError(
            f"`auth` returned a {type(user).__name__}, which does not identify the user.",
            hint="Return the user's id: a text, an integer, a UUID, or an object with such an `id`.",
        )
    owner = str(identity)
    return owner if owner and owner == storable_text(owner) else None
