"""Recordings: requests and the exact bytes of their responses, with timing, as JSON lines.

Secrets are removed before anything is written (`redaction`), and the file is readable by its owner alone. A body that is not
UTF-8 is stored as base64.
"""

from __future__ import annotations

import base64
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct, field

from lmdeck._files import append_line, replace_file
from lmdeck.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_log = logging.getLogger("lmdeck.testing")
WHOLE = "whole"
LEFT = "the application went away"
BEGINNING = b'{"method":'
"""The beginning of each line."""


class RecordedPiece(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A piece of a response, received `at` seconds after the request was sent.

    It has `base64` if it is not UTF-8.
    """

    at: float
    text: str | None = None
    base64: str | None = None

    @classmethod
    def of(cls, data: bytes, at: float) -> RecordedPiece:
        """Return a piece with these bytes."""
        try:
            return cls(at=round(at, 4), text=data.decode())
        except UnicodeDecodeError:
            return cls(at=round(at, 4), base64=base64.b64encode(data).decode())

    @property
    def data(self) -> bytes:
        """The bytes."""
        return base64.b64decode(self.base64) if self.base64 is not None else (self.text or "").encode()


class RecordedExchange(Struct, kw_only=True, omit_defaults=True):
    """A recorded request and its response.

    `ended` is "whole", or the reason why the response was cut off.
    """

    method: str
    path: str
    request_headers: dict[str, str] = {}
    request: Any = None
    status: int = 0
    headers: dict[str, str] = {}
    pieces: list[RecordedPiece] = field(default_factory=list)
    ended: str = WHOLE

    @property
    def body(self) -> bytes:
        """The whole response body."""
        return b"".join(piece.data for piece in self.pieces)


def load(path: str | Path, skipped: Callable[[str], object] = _log.warning) -> list[RecordedExchange]:
    """Return the exchanges of a recording; `skipped` gets a message for each incomplete line.

    Raises:
        ConfigurationError: It cannot be read, or a line is not an exchange.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"The recording {path} cannot be read: {error.strerror}.", hint="Check the path."
        ) from error
    exchanges: list[RecordedExchange] = []
    for number, line in enumerate(content.splitlines(keepends=True), 1):
        if not line.strip():
            continue
        try:
            exchanges.append(msgspec.json.decode(line.rstrip(), type=RecordedExchange))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            if not _is_incomplete(line, error):
                raise ConfigurationError(
                    f"Line {number} of {path} is not a recorded exchange: {error}.",
                    hint="Record it again with `lmdeck record`.",
                ) from error
            skipped(f"Line {number} of {path} was skipped: it is incomplete, because its writer was stopped.")
    return exchanges


def save(exchanges: Iterable[RecordedExchange], path: str | Path) -> None:
    """Write a recording atomically.

    Raises:
        FileWriteError: It could not be written; an existing file is unchanged.
    """
    replace_file(path, b"".join(msgspec.json.encode(exchange) + b"\n" for exchange in exchanges))


def append(exchange: RecordedExchange, path: str | Path) -> None:
    """Append one exchange to a recording; other threads and processes may append as well.

    Raises:
        FileWriteError: It could not be written; the recording is as it was before.
    """
    append_line(path, msgspec.json.encode(exchange))


def _is_incomplete(line: bytes, error: Exception) -> bool:
    """Whether a line is one that its writer began; a later writer may have continued on it.

    After a power failure, a file may end with NULs.
    """
    is_json = isinstance(error, msgspec.ValidationError)
    return line.startswith(b"\0") or (BEGINNING.startswith(line.rstrip()[: len(BEGINNING)]) and not is_json)
