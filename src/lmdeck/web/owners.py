"""Whose conversations are whose: what an application says of its user, as the text under which they are stored."""

from __future__ import annotations

from uuid import UUID

from lmdeck.errors import ConfigurationError

__all__ = ["owner_of"]

_NOTHING = object()


def owner_of(user: object) -> str | None:
    """Return the owner that a user stands for: a text, an integer or a UUID, or the `id` of an object; None for a stranger.

    None, an empty text, and an object whose `id` is None are strangers.

    Raises:
        ConfigurationError: It is something else: credentials, for example, which must not be stored.
    """
    identity = user if user is None or isinstance(user, str | int | UUID) else getattr(user, "id", _NOTHING)
    if identity is None:
        return None
    if isinstance(identity, bool) or not isinstance(identity, str | int | UUID):
        raise ConfigurationError(
            f"`auth` returned a {type(user).__name__}, which does not say who the user is.",
            hint="Return the user's id: a text, an integer, a UUID, or an object with such an `id`.",
        )
    return str(identity) or None
