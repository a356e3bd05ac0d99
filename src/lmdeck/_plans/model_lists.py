"""Plans that fetch one JSON body, above all the model lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from msgspec import Struct

from lmdeck._pipeline.calls import Handler
from lmdeck._pipeline.effects import Plan
from lmdeck._plans.session import Session
from lmdeck._responses.json_reader import JSONReader
from lmdeck._responses.model_lists import MODEL_LIST_PATHS, read_model_list
from lmdeck._responses.product_hints import adapt_hint
from lmdeck._responses.server_detection import recognize
from lmdeck._transport import Timeouts
from lmdeck.errors import APIError, EndpointNotFoundError, LMStudioError, MalformedStreamError, ModelNotFoundError
from lmdeck.model_info import ApiLevel, ModelInfo


class Listing(Struct, frozen=True, kw_only=True):
    """A model list, parsed and as sent, and the errors of newer APIs that were refused."""

    api: ApiLevel
    models: list[ModelInfo]
    body: object
    headers: Mapping[str, str]
    refusals: Sequence[str]


def ask_json(
    session: Session,
    method: str,
    path: str,
    body: Mapping[str, Any] | None = None,
    *,
    timeouts: Timeouts | None = None,
    generates: bool = False,
    has_effects: bool = False,
) -> Plan[object]:
    """Return the JSON body of an endpoint; `generates` marks requests that a model processes."""
    call = session.call(method, path, JSONReader, body, timeouts=timeouts, has_effects=has_effects)
    return (yield from (session.handler if generates else session.unlimited)(call)).reader.value


def list_models(session: Session) -> Plan[list[ModelInfo]]:
    """List the models over the newest API that the server supports."""
    return (yield from ask_listing(session)).models


def find_model(session: Session, key: str) -> Plan[ModelInfo]:
    """Return one model by its key or by the id of an instance."""
    models = yield from list_models(session)
    for model in models:
        if model.key == key or any(instance.id == key for instance in model.instances):
            return model
    with fitting_hints(session):
        raise ModelNotFoundError(f"The server has no model {key!r}.", available=[model.key for model in models])


def ask_listing(session: Session, handler: Handler | None = None) -> Plan[Listing]:
    """Return the list of the newest of three APIs that the server supports."""
    refusals: list[str] = []
    for api, path in MODEL_LIST_PATHS:
        call = session.call("GET", path, JSONReader, timeouts=session.look_up_timeouts)
        is_last = path == MODEL_LIST_PATHS[-1][1]
        try:
            stream = yield from (handler or session.unlimited)(call)
            body = stream.reader.value
            models = read_model_list(api, body)
        except (EndpointNotFoundError, MalformedStreamError) as error:
            if is_last:
                raise
            refusals.append(error.message)
            continue
        session.learn(models)
        headers = stream.response.headers
        session.peer.product = recognize(api, body, headers, refusals).name or session.peer.product
        return Listing(api=api, models=models, body=body, headers=headers, refusals=refusals)
    raise APIError("The server does not list any models.")


@contextmanager
def fitting_hints(session: Session) -> Iterator[None]:
    """Adapt the hints of errors raised inside to the product that answers."""
    try:
        yield
    except LMStudioError as error:
        adapt_hint(error, session.peer.product)
        raise
