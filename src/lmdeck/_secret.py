"""Values that must not be shown: tokens, and credentials in URLs."""

from __future__ import annotations

import re
from typing import Any, NoReturn

from lmdeck._late_patterns import late_pattern

# User and password; the password may contain an unescaped slash, question mark or hash.
_CREDENTIALS = late_pattern(r"([^/?#:]*:.*|[^/?#]*)@", re.DOTALL)
MIN_PART_CHARS = 8  # LM Studio's tokens are `sk-lm-…:…`; a server may quote either half
MAX_DEPTH = 50


class Secret:
    """A value that is never shown, encoded or pickled; only `reveal()` returns it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the secret itself."""
        return self._value

    def redact(self, value: Any, depth: int = 0) -> Any:  # whatever JSON holds
        """Return a value with the secret, and each long part of it, replaced by `***`.

        The value is JSON data or bytes.
        """
        if isinstance(value, str):
            for part in (self._value, *self._value.split(":")):
                if len(part) >= MIN_PART_CHARS or part == self._value:
                    value = value.replace(part, "***")
            return value
        if isinstance(value, bytes):
            return str(self.redact(value.decode("utf-8", "surrogateescape"))).encode("utf-8", "surrogateescape")
        if depth > MAX_DEPTH:
            return "…"
        if isinstance(value, list):
            return [self.redact(item, depth + 1) for item in value]
        if isinstance(value, dict):
            return {self.redact(name): self.redact(item, depth + 1) for name, item in value.items()}
        return value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Secret('***')"

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled: pass the token to the other process in its environment")


def redact_url(url: str) -> str:
    """Return a URL without user name, password, query and fragment, so that it can be shown."""
    scheme, mark, rest = url.partition("://")
    scheme, rest = (scheme + mark, rest) if mark else ("", url)
    credentials = _CREDENTIALS.match(rest) if "@" in rest else None
    address = rest[credentials.end() :] if credentials else rest
    return scheme + address.partition("?")[0].partition("#")[0]
