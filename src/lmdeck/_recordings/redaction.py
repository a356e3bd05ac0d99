"""Removal of secrets from recordings.

In the bytes of an answer each byte of a secret is overwritten, so that lengths, frames and JSON stay correct.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import msgspec

from lmdeck._recordings.cassette import RecordedExchange, RecordedPiece
from lmdeck._redaction.exchange import Redaction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmdeck._redaction.exchange import RedactedPart


def redact(exchange: RecordedExchange, body: bytes) -> None:
    """Remove the secrets from an exchange, and set its request to `body` without them."""
    redaction = Redaction()
    sent = redaction.headers(exchange.request_headers)
    request = redaction.text(body.decode("utf-8", "replace"))
    path, ended = redaction.text(exchange.path), redaction.text(exchange.ended)
    received = redaction.headers(exchange.headers)
    answer = redaction.text(exchange.body.decode("utf-8", "surrogateescape"))
    exchange.request_headers = {name: part.removed() for name, part in sent.items()}
    exchange.request = _decoded(request) if body else None
    exchange.path, exchange.ended = path.removed(), ended.removed()
    exchange.headers = {name: part.removed() for name, part in received.items()}
    exchange.pieces = _divided(answer.overwritten().encode("utf-8", "surrogateescape"), exchange.pieces)


def _decoded(request: RedactedPart) -> object:
    """Return a request without its secrets, as JSON if it is JSON."""
    text = request.removed()
    try:
        return msgspec.json.decode(text.encode("utf-8", "replace"))
    except (msgspec.DecodeError, RecursionError):
        return text


def _divided(answer: bytes, pieces: Sequence[RecordedPiece]) -> list[RecordedPiece]:
    """Return an answer in pieces of the same lengths and times as others."""
    cuts = pairwise(accumulate((len(piece.data) for piece in pieces), initial=0))
    return [RecordedPiece.of(answer[begin:end], piece.at) for piece, (begin, end) in zip(pieces, cuts, strict=True)]
