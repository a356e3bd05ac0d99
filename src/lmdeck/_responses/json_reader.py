"""Responses with one JSON body: buffered up to a limit, decoded, and checked for errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn, Protocol

import msgspec

from lmdeck._chunks import Chunk
from lmdeck._limits import DEFAULT_LIMITS, Limits
from lmdeck._responses.json_bodies import DECODE_ERRORS, describe_body, is_error_body
from lmdeck.errors import (
    IncompleteStreamError,
    LMStudioError,
    MalformedStreamError,
    TransportError,
)
from lmdeck.messages import Reply


class Reader(Protocol):
    """A reader of one response: bytes in, chunks out."""

    @property
    def failure(self) -> LMStudioError | None:
        """The error that occurred after the last chunks, or None."""
        ...

    def feed(self, data: bytes) -> list[Chunk]:
        """Read bytes, and return the new chunks."""
        ...

    def finish(self) -> list[Chunk]:
        """Read the end of the response, and return the last chunks."""
        ...

    @property
    def is_in_call(self) -> bool:
        """Whether a tool call is being generated or run: servers may then be silent for a long time."""
        ...

    def partial(self) -> Reply | None:
        """Return the reply so far; None if the response is not a chat."""
        ...

    def cut_off(self) -> Reply | None:
        """Read the end of a response that failed, and return the reply so far, like `partial`."""
        ...

    @property
    def is_done(self) -> bool:
        """Whether the end marker of the response was read."""
        ...

    def is_whole_without_end(self, error: TransportError) -> bool:
        """Whether the response is complete although `error` broke the connection; then record it."""
        ...


class JSONReader:
    """A reader of a JSON body that is not a chat; `value` is the decoded body."""

    def __init__(self, status: int, headers: Mapping[str, str], limits: Limits = DEFAULT_LIMITS) -> None:
        self._status = status
        self._headers = headers
        self._body = Body(limits.answer_bytes)
        self.value: object = None
        self.failure: LMStudioError | None = None

    def feed(self, data: bytes) -> list[Chunk]:
        """Buffer the bytes.

        Raises:
            MalformedStreamError: The body exceeds the limit.
        """
        self._body.add(data)
        return []

    def finish(self) -> list[Chunk]:
        """Decode the body.

        Raises:
            MalformedStreamError: The body is not JSON.
            APIError: The body is an error, whatever its status.
        """
        body = self._body.whole()
        try:
            self.value = msgspec.json.decode(body)
        except DECODE_ERRORS as error:
            refuse_body(body, error, None)
        if is_error_body(self.value):
            from lmdeck._responses.api_errors import api_error  # imported late: few answers are errors

            raise api_error(self._status, self.value, self._headers)
        return []

    @property
    def is_in_call(self) -> bool:
        """Whether a tool call is being generated: never."""
        return False

    def partial(self) -> None:
        """Return None: a JSON body has no partial reply."""
        return

    cut_off = partial

    @property
    def is_done(self) -> bool:
        """Whether the end marker was read: a JSON body has none."""
        return False

    def is_whole_without_end(self, error: TransportError) -> bool:
        """Whether the response is complete although the connection broke: never."""
        return False


class Body:
    """A byte buffer with a limit; the pieces are joined once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0

    def add(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            MalformedStreamError: The limit is exceeded.
        """
        self._size += len(data)
        if self._size > self._limit:
            raise MalformedStreamError(f"The answer is larger than {self._limit} bytes.")
        self._pieces.append(data)

    def whole(self) -> bytes:
        """Return all bytes."""
        if len(self._pieces) != 1:
            self._pieces = [b"".join(self._pieces)]
        return self._pieces[0]


def refuse_body(body: bytes, error: Exception, reported: LMStudioError | None) -> NoReturn:
    """Raise the error for a body that cannot be decoded: `reported`, if the server reported one."""
    if reported is not None:
        raise reported from error
    shown = describe_body(body)
    if not body.strip():
        raise IncompleteStreamError("The server's answer has no body.") from error
    if body.lstrip()[:1] in {b"{", b"["} and "truncated" in str(error):
        raise IncompleteStreamError(f"The answer was cut off in the middle of its JSON: …{shown[-80:]}") from error
    raise MalformedStreamError(f"The server's answer is not JSON of this API ({error}): {shown}") from error
