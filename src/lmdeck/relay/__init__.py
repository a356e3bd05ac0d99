"""The repaired answer for every client, without I/O.

A request of a foreign client becomes one that LM Studio accepts, and LM Studio's bytes become repaired bytes of the same wire
format: calls found in text or reasoning, arguments mended, ids unique, a cut or empty answer as that format's error.

The reading is the one that `LMStudio.chat()` uses, the writing that of `lmdeck.server`. The transports of `lmdeck.contrib`,
`lmdeck run` and `lmdeck proxy` use it.
"""

from __future__ import annotations

from lmdeck.relay.answers import RelayReader
from lmdeck.relay.plans import ErrorAnswer, begin, error_answer
from lmdeck.relay.requests import RelayRequest, error_body
from lmdeck.relay.routes import Kind, Route, route_of

__all__ = [
    "ErrorAnswer",
    "Kind",
    "RelayReader",
    "RelayRequest",
    "Route",
    "begin",
    "error_answer",
    "error_body",
    "route_of",
]
