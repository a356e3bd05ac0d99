"""Recordings: what an application asked and the true bytes of what it got, with their timing, one exchange a line of JSON.

Secrets are taken out before anything is written: token headers, cookies, and tokens in URLs. A body that is no UTF-8 is kept as
base64.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct, field

from lmdeck.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["LEFT", "WHOLE", "Exchange", "Piece", "load", "save", "without_secrets"]

SECRET_HEADERS = frozenset({
    "authorization", "proxy-authorization", "x-api-key", "api-key", "cookie", "set-cookie", "x-auth-token",
})  # fmt: skip
REMOVED = "(removed)"
WHOLE = "whole"
LEFT = "the application went away"


class Piece(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Some bytes of an answer, `at` so many seconds after the request was sent; `base64` where they are no text."""

    at: float
    text: str | None = None
    base64: str | None = None

    @classmethod
    def of(cls, data: bytes, at: float) -> Piece:
        """Keep bytes."""
        try:
            return cls(at=round(at, 4), text=data.decode())
        except UnicodeDecodeError:
            return cls(at=round(at, 4), base64=base64.b64encode(data).decode())

    @property
    def data(self) -> bytes:
        """The bytes."""
        return base64.b64decode(self.base64) if self.base64 is not None else (self.text or "").encode()


class Exchange(Struct, kw_only=True, omit_defaults=True):
    """One request and its answer. `ended` says how: "whole", or what broke it off."""

    method: str
    path: str
    request_headers: dict[str, str] = {}
    request: Any = None
    status: int = 0
    headers: dict[str, str] = {}
    pieces: list[Piece] = field(default_factory=list)
    ended: str = WHOLE

    @property
    def body(self) -> bytes:
        """The whole answer."""
        return b"".join(piece.data for piece in self.pieces)


def without_secrets(headers: Mapping[str, str]) -> dict[str, str]:
    """Give headers by their lower-case names, tokens and cookies replaced."""
    return {name.lower(): REMOVED if name.lower() in SECRET_HEADERS else value for name, value in headers.items()}


def load(path: str | Path) -> list[Exchange]:
    """Read a recording.

    Raises:
        ConfigurationError: It cannot be read, or a line is no exchange.
    """
    try:
        lines = Path(path).read_bytes().splitlines()
    except OSError as error:
        raise ConfigurationError(
            f"The recording {path} cannot be read: {error.strerror}.", hint="Check the path."
        ) from error
    exchanges: list[Exchange] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            exchanges.append(msgspec.json.decode(line, type=Exchange))
        except msgspec.DecodeError as error:
            raise ConfigurationError(
                f"Line {number} of {path} is no recorded exchange: {error}.",
                hint="Record it anew with `lmdeck record`.",
            ) from error
    return exchanges


def save(exchanges: Iterable[Exchange], path: str | Path) -> None:
    """Write a recording."""
    Path(path).write_bytes(b"".join(msgspec.json.encode(exchange) + b"\n" for exchange in exchanges))
