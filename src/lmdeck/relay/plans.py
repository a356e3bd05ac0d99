"""The plan of a relayed request, with the retries, queue and time limits of the client."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from lmdeck._incoming.headers import HOP_BY_HOP
from lmdeck._pipeline.calls import ResponseStream
from lmdeck._pipeline.effects import Plan
from lmdeck._plans.generation import GenerationRequest, read_rest, send_generation
from lmdeck._plans.session import Session
from lmdeck._transport import Timeouts
from lmdeck.errors import LMStudioError
from lmdeck.relay.endpoint_urls import Kind, Route
from lmdeck.relay.errors import error_headers, status_of
from lmdeck.relay.repaired_answers import PassingRelay
from lmdeck.relay.requests import RelayRequest, error_body

__all__ = ["ErrorAnswer", "begin", "begin_request", "error_answer", "pass_on"]

NOT_FORWARDED = HOP_BY_HOP | {"accept-encoding", "content-encoding", "content-length", "host"}


class ErrorAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An error as an HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def error_answer(kind: Kind, error: LMStudioError) -> ErrorAnswer:
    """Return an error as a response in the wire format of an endpoint."""
    body = msgspec.json.encode(error_body(kind, error))
    return ErrorAnswer(status=status_of(error), headers=error_headers(error), body=body)


def begin(
    session: Session,
    method: str,
    route: Route,
    headers: Mapping[str, str],
    body: bytes,
    timeouts: Timeouts | None = None,
) -> Plan[ResponseStream[Any]]:
    """Send a request and read its answer up to the first output.

    An answer that is not streamed is read to its end.

    The answer's `reader` is a `RelayReader`.

    Raises:
        LMStudioError: The request is invalid or has failed.
    """
    forwarded = {title: value for name, value in headers.items() if (title := _forwarded_name(name))}
    if route.kind == "other":
        return (yield from pass_on(session, method, route, forwarded, body or None, timeouts))
    request = RelayRequest(route.kind, body, model=session.settings.model, without_rules=session.settings.without_rules)
    return (yield from begin_request(session, route, request, forwarded, timeouts))


def begin_request(
    session: Session,
    route: Route,
    request: RelayRequest,
    headers: Mapping[str, str],
    timeouts: Timeouts | None = None,
) -> Plan[ResponseStream[Any]]:
    """Send a converted request with exactly these headers, and read its answer like `begin`.

    Raises:
        LMStudioError: The request has failed.
    """

    def make_reader(status: int, headers: Mapping[str, str]) -> Any:  # a RelayReader
        return request.reader(status, headers, architecture=session.models.facts(request.model).architecture)

    sent = GenerationRequest(
        path=route.path,
        body=request.body,
        fixes=request.fixes,
        make_reader=make_reader,
        headers=headers,
        timeouts=timeouts,
    )
    answer = yield from send_generation(session, sent)
    if not request.streams:
        yield from read_rest(answer)
    return answer


@lru_cache(maxsize=512)
def _forwarded_name(name: str) -> str:
    """Return a header's name in the spelling of lmdeck's client; `""` if it is not forwarded.

    The same spelling prevents duplicates.

    Hop-by-hop headers are not forwarded, nor those in which the clients of OpenAI and Anthropic describe the machine.
    """
    if name.lower() in NOT_FORWARDED or name.lower().startswith("x-stainless-"):
        return ""
    return "-".join(part.capitalize() for part in name.split("-"))


def pass_on(
    session: Session,
    method: str,
    route: Route,
    headers: Mapping[str, str],
    body: bytes | None,
    timeouts: Timeouts | None = None,
) -> Plan[ResponseStream[Any]]:
    """Send a request to an unknown endpoint with exactly these headers.

    Only safe methods are retried.
    """
    call = session.call(method, route.path, PassingRelay, None, timeouts, headers)
    call = msgspec.structs.replace(call, request=msgspec.structs.replace(call.request, body=body))
    handler = session.unlimited if method in {"GET", "HEAD"} else session.once
    return (yield from handler(call))
