"""What must not be shown: tokens, and the credentials inside a URL."""

from __future__ import annotations

import re
from typing import Any, NoReturn

__all__ = ["Secret", "redact_url"]

# User and password; the latter may hold an unescaped slash, question mark or hash, after which a URL's host seems to end.
_CREDENTIALS = re.compile(r"([^/?#:]*:.*|[^/?#]*)@", re.DOTALL)


SHORTEST_PART = 8  # LM Studio's tokens are `sk-lm-…:…`, and either half may be quoted
DEEPEST = 50


class Secret:
    """A value that is never shown, encoded or pickled: `reveal()` is the only way to it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Give the secret itself."""
        return self._value

    def hidden_in(self, value: Any, depth: int = 0) -> Any:  # noqa: ANN401  # whatever JSON holds
        """Return text or bytes, or those in lists and objects, with `***` in place of the secret or of a long part of it."""
        if isinstance(value, str):
            for part in (self._value, *self._value.split(":")):
                if len(part) >= SHORTEST_PART or part == self._value:
                    value = value.replace(part, "***")
            return value
        if isinstance(value, bytes):
            return str(self.hidden_in(value.decode("utf-8", "surrogateescape"))).encode("utf-8", "surrogateescape")
        if depth > DEEPEST:
            return "…"
        if isinstance(value, list):
            return [self.hidden_in(item, depth + 1) for item in value]
        if isinstance(value, dict):
            return {self.hidden_in(name): self.hidden_in(item, depth + 1) for name, item in value.items()}
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
        raise TypeError("a secret is not pickled: pass the token to the other process by its environment")


def redact_url(url: str) -> str:
    """Take user name, password, query and fragment out of a URL, so that it can be shown."""
    scheme, mark, rest = url.partition("://")
    scheme, rest = (scheme + mark, rest) if mark else ("", url)
    credentials = _CREDENTIALS.match(rest)
    address = rest[credentials.end() :] if credentials else rest
    return scheme + re.split("[?#]", address, maxsplit=1)[0]
