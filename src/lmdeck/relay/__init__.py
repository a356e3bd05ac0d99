"""Repaired answers for other clients.

A request of another client is converted to one that LM Studio accepts, and LM Studio's answer to repaired bytes of the same
wire format: calls in text or reasoning are found, arguments are repaired, ids are unique, and cut or empty answers are errors.

Answers are read as by `LMStudio.chat()` and written as by `lmdeck.server`. The names below do no I/O. The transports of
`lmdeck.contrib` and the proxy of `lmdeck run` and `lmdeck proxy` add connections to them.
"""

from __future__ import annotations

from lmdeck.relay.endpoint_urls import Kind, Route, route_of
from lmdeck.relay.plans import ErrorAnswer, begin, begin_request, error_answer, pass_on
from lmdeck.relay.repaired_answers import RelayReader
from lmdeck.relay.requests import RelayRequest, error_body

__all__ = [
    "ErrorAnswer",
    "Kind",
    "RelayReader",
    "RelayRequest",
    "Route",
    "begin",
    "begin_request",
    "error_answer",
    "error_body",
    "pass_on",
    "route_of",
]
