"""An answer that is one JSON body: its bytes up to a limit, decoded once, and what it means when it cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn, Protocol

import msgspec

from lmdeck._limits import DEFAULT_LIMITS, Limits
from lmdeck._responses.api_errors import api_error, is_error_body
from lmdeck.errors import (
    IncompleteStreamError,
    LMStudioError,
    MalformedStreamError,
    TransportError,
    describe,
)
from lmdeck.events import Chunk
from lmdeck.messages import Reply

DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Reader(Protocol):
    """What reads an answer: bytes in, chunks out."""

    @property
    def failure(self) -> LMStudioError | None:
        """What went wrong behind the chunks that were read last."""
        ...

    def feed(self, data: bytes) -> list[Chunk]:
        """Read some bytes."""
        ...

    def finish(self) -> list[Chunk]:
        """Read the end of the bytes."""
        ...

    @property
    def is_in_call(self) -> bool:
        """Whether a tool call is being written or run, in which servers are silent for long."""
        ...

    def partial(self) -> Reply | None:
        """Give the reply as far as it has come; None where the answer is no reply."""
        ...

    @property
    def is_done(self) -> bool:
        """Tell whether the answer's own end mark was read, so that nothing more can come."""
        ...

    def is_whole_without_end(self, error: TransportError) -> bool:
        """Tell, after `error` broke the connection, whether the answer is whole all the same, and note that it did."""
        ...


class JSONReader:
    """Read a JSON body that is no chat: `value` is what it holds."""

    def __init__(self, status: int, headers: Mapping[str, str], limits: Limits = DEFAULT_LIMITS) -> None:
        self._status = status
        self._headers = headers
        self._body = Body(limits.answer_bytes)
        self.value: object = None
        self.failure: LMStudioError | None = None

    def feed(self, data: bytes) -> list[Chunk]:
        """Keep the bytes.

        Raises:
            MalformedStreamError: The body is over its limit.
        """
        self._body.add(data)
        return []

    def finish(self) -> list[Chunk]:
        """Decode the body.

        Raises:
            MalformedStreamError: The body is not JSON.
            APIError: The body is a refusal, whatever its status.
        """
        body = self._body.whole()
        try:
            self.value = msgspec.json.decode(body)
        except DECODE_ERRORS as error:
            refuse_body(body, error, None)
        if is_error_body(self.value):
            raise api_error(self._status, self.value, self._headers)
        return []

    @property
    def is_in_call(self) -> bool:
        """A body has no calls."""
        return False

    def partial(self) -> None:
        """Give nothing: half a JSON body means nothing."""
        return

    @property
    def is_done(self) -> bool:
        """A body has no end mark of its own."""
        return False

    def is_whole_without_end(self, error: TransportError) -> bool:  # noqa: ARG002  # no body is whole before its end
        """Half a body is never whole."""
        return False


class Body:
    """Bytes that are kept in pieces and joined once, up to a limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0

    def add(self, data: bytes) -> None:
        """Keep some bytes."""
        self._size += len(data)
        if self._size > self._limit:
            raise MalformedStreamError(f"The answer is larger than {self._limit} bytes.")
        self._pieces.append(data)

    def whole(self) -> bytes:
        """Give all of them, joined."""
        if len(self._pieces) != 1:
            self._pieces = [b"".join(self._pieces)]
        return self._pieces[0]


def refuse_body(body: bytes, error: Exception, reported: LMStudioError | None) -> NoReturn:
    """Raise what a body that cannot be decoded means."""
    if reported is not None:
        raise reported from error
    shown = describe(body[:400].decode("utf-8", "replace"))
    if not body.strip():
        raise IncompleteStreamError("The server's answer has no body.") from error
    if body.lstrip()[:1] in {b"{", b"["} and "truncated" in str(error):
        raise IncompleteStreamError(f"The answer was cut in the middle of its JSON: …{shown[-80:]}") from error
    raise MalformedStreamError(f"The server's answer is not JSON of this API ({error}): {shown}") from error
