"""The steps shared by all generation requests: choose the model, build the request, send it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from lmdeck._compatibility import CompatibilityFixes
from lmdeck._pipeline.calls import Call, R, ResponseStream
from lmdeck._pipeline.effects import Plan, Read
from lmdeck._plans.session import Session
from lmdeck._transport import Timeouts
from lmdeck.errors import (
    EndpointNotFoundError,
    InvalidRequestError,
    MalformedStreamError,
    ModelNotFoundError,
    NoModelLoadedError,
    TransportError,
)


class GenerationRequest(Struct, Generic[R], frozen=True, kw_only=True):
    """A request for one model: path, body, compatibility fixes, and the reader of its answer.

    `on_finished` is called with the reader once the answer is complete.
    """

    path: str
    body: Mapping[str, Any]
    fixes: CompatibilityFixes
    make_reader: Callable[[int, Mapping[str, str]], R]
    headers: Mapping[str, str] = {}
    timeouts: Timeouts | None = None
    on_finished: Callable[[R], object] | None = None


Build: TypeAlias = Callable[[str | None], GenerationRequest[R]]


def generate(
    session: Session, named: str | None, build: Build[R], reasoning: str | None = None
) -> Plan[ResponseStream[R]]:
    """Return the plan of a request to the named model, the client's default, or a chosen one.

    With `reasoning`, the reasoning settings of the model are looked up first, unless they are known.
    """
    model = named or session.settings.model
    if not model:
        return _generate_with_any(session, build, reasoning)
    if reasoning is not None and not session.models.knows(model):
        return _generate_with_reasoning(session, model, build)
    return send_generation(session, build(model))


def _generate_with_any(session: Session, build: Build[R], reasoning: str | None) -> Plan[ResponseStream[R]]:
    """Send a request to the model that was chosen recently, or to a newly chosen one."""
    chosen = session.models.chosen
    if chosen is not None:
        try:
            return (yield from generate(session, chosen, build, reasoning))
        except (ModelNotFoundError, NoModelLoadedError):
            session.models.forget_choice()
    return (yield from send_generation(session, build((yield from choose(session)))))


def _generate_with_reasoning(session: Session, model: str, build: Build[R]) -> Plan[ResponseStream[R]]:
    yield from _learn_reasoning(session, model)
    return (yield from send_generation(session, build(model)))


def _learn_reasoning(session: Session, model: str) -> Plan[None]:
    """List the models, because the reasoning options of a model are not known."""
    from lmdeck._plans.model_lists import list_models  # imported late, as below: few requests need it

    with suppress(EndpointNotFoundError, MalformedStreamError):  # without a list, the level is sent unchanged
        yield from list_models(session)
    session.models.note_unlisted(model)


def choose(session: Session) -> Plan[str | None]:
    """Return a model from the list; None if the server has no list and therefore chooses itself."""
    from lmdeck._plans.model_lists import fitting_hints, list_models
    from lmdeck._responses.model_lists import choose_model

    try:
        models = yield from list_models(session)
    except EndpointNotFoundError:
        return None
    with fitting_hints(session):
        model = choose_model(models)
    session.models.choose(model)
    return model


def send_generation(session: Session, request: GenerationRequest[R]) -> Plan[ResponseStream[R]]:
    """Send a request; if the server cannot compile its tool schemas, send it with simpler ones.

    Schemas that could not be compiled are recorded, because the next round of a run offers the same tools.
    """
    model = str(request.body.get("model") or "")
    if model in session.settings.profiles:
        from lmdeck._plans.models import apply_profile

        yield from apply_profile(session, model)
    if session.uncompilable:
        request = _simplified(request, session.uncompilable) or request
    try:
        stream = yield from session.handler(_call(session, request))
    except InvalidRequestError as error:
        stream = yield from _send_simpler(session, request, error)
    if request.on_finished is not None:
        stream.when_finished(partial(request.on_finished, stream.reader))
    return stream


def _send_simpler(
    session: Session, request: GenerationRequest[R], error: InvalidRequestError
) -> Plan[ResponseStream[R]]:
    """Send a refused request with simplified tool schemas.

    Raises:
        InvalidRequestError: The server also refuses that, or the schemas were not the reason.
    """
    from lmdeck._plans.tool_schema_fallback import is_grammar_error, simplified_tool_keys

    simpler = _simplified(request) if is_grammar_error(error) else None
    if simpler is None:
        raise _explained(error, request) from None
    try:
        stream = yield from session.handler(_call(session, simpler))
    except InvalidRequestError as again:
        raise _explained(again, simpler) from None
    session.note_uncompilable(simplified_tool_keys(request.body, simpler.body))
    return stream


def read_whole(begin: Plan[ResponseStream[R]]) -> Plan[ResponseStream[R]]:
    """Return the response that a plan begins, read to its end."""
    stream = yield from begin
    if stream.is_finished:
        stream.close()
    else:
        yield from read_rest(stream)
    return stream


def read_rest(stream: ResponseStream[R]) -> Plan[None]:
    """Read a response to its end within a plan."""
    try:
        while stream.has_more():
            try:
                data = yield Read(stream.response)
            except TransportError as error:
                stream.feed_failure(error)
            else:
                stream.feed(data)
    finally:
        stream.close()


def _call(session: Session, request: GenerationRequest[R]) -> Call[R]:
    return session.call(
        "POST", request.path, request.make_reader, request.body, timeouts=request.timeouts, headers=request.headers
    )


def _simplified(request: GenerationRequest[R], tools: Collection[bytes] | None = None) -> GenerationRequest[R] | None:
    """Return the request with simplified tool schemas, or None if nothing would change."""
    from lmdeck._plans.tool_schema_fallback import with_simplified_schemas

    body = with_simplified_schemas(request.body, request.fixes, tools)
    return None if body is None else replace(request, body=body)


def _explained(error: InvalidRequestError, request: GenerationRequest[R]) -> InvalidRequestError:
    """Return the error with the tools or images that may have caused it."""
    from lmdeck._plans.tool_schema_fallback import name_refused_tools
    from lmdeck._responses.hints.media import suspect_images

    name_refused_tools(error, request.body.get("tools") or ())
    suspect_images(error, request.body)
    return error
