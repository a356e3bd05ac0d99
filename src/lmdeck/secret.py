"""What must not be shown: tokens, and the credentials inside a URL."""

from __future__ import annotations

__all__ = ["Secret", "redact_url"]


class Secret:
    """A value that is never shown or encoded: `reveal()` is the only way to it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Give the secret itself."""
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Secret('***')"


def redact_url(url: str) -> str:
    """Take user name, password, query and fragment out of a URL, so that it can be shown."""
    scheme, mark, rest = url.partition("://")
    rest = rest if mark else scheme
    address = rest.split("?", 1)[0].split("#", 1)[0]
    authority, slash, path = address.partition("/")
    return (
        f"{scheme}{mark}{authority.rpartition('@')[2]}{slash}{path}"
        if mark
        else authority.rpartition("@")[2] + slash + path
    )
