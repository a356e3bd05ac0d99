"""Parsing shared by all endpoints: the JSON object, the model, flags and images."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from lmdeck._incoming import disconnect
from lmdeck.server.errors import body_refused, invalid, model_not_found, no_models_loaded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lmdeck._incoming.messages import IncomingRequest
    from lmdeck.server.jobs import ModelDescription

MAX_BODY_BYTES = 64 << 20
IMAGE_URI = re.compile(r"data:image/(png|jpe?g);base64,[A-Za-z0-9+/]+={0,2}", re.IGNORECASE)


class ResponseMode(Struct, frozen=True):
    """The form of the answer: one body or a stream, with or without a usage chunk."""

    stream: bool = False
    include_usage: bool = False


async def read_body(request: IncomingRequest) -> dict[str, Any]:
    """Return the JSON object of a request.

    Raises:
        Refusal: The body is too large, does not arrive, or is not a JSON object.
    """
    try:
        data = await disconnect.read_body(request.scope, request.receive, MAX_BODY_BYTES)
    except disconnect.BodyRefusedError as error:
        raise body_refused(error) from None
    try:
        body = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise invalid("Invalid JSON in request body") from None
    if not isinstance(body, dict):
        raise invalid("Invalid JSON in request body")
    return body


def choose_model(name: object, models: Sequence[ModelDescription]) -> str:
    """Return the key of a model named by its key or an instance id.

    If `name` is empty, it is the first model's.

    Raises:
        Refusal: There is no such model, or there are no models.
    """
    if name is not None and not isinstance(name, str):
        raise invalid("'model' field must be a string")
    if not models:
        raise no_models_loaded()
    if not name:
        return models[0].key
    for model in models:
        if name == model.key or any(name == instance.id for instance in model.instances):
            return model.key
    raise model_not_found(name, [model.key for model in models])


def delivery(body: Mapping[str, Any]) -> ResponseMode:
    """Return how the client wants its answer.

    Raises:
        Refusal: A flag is not a boolean.
    """
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise invalid("'stream_options' field must be an object")
    return ResponseMode(
        stream=flag("stream", body.get("stream")),
        include_usage=flag("stream_options.include_usage", (options or {}).get("include_usage")),
    )


def flag(name: str, value: object, default: bool = False) -> bool:
    """Return a flag.

    Raises:
        Refusal: It is not a boolean.
    """
    if value is not None and not isinstance(value, bool):
        raise invalid(f"'{name}' field must be a boolean")
    return default if value is None else value


def image_uri(image: object) -> str:
    """Return the data URI of an image.

    Raises:
        Refusal: It is not a data URI.
    """
    url = image.get("url") if isinstance(image, dict) else image
    if not isinstance(url, str) or not IMAGE_URI.fullmatch(url):
        raise invalid("'url' field must be a base64 encoded image.")
    return url


def js_type(value: object) -> str:
    """Return the name that JavaScript's `typeof` returns: LM Studio's messages contain it."""
    if value is None:
        return "undefined"
    return {bool: "boolean", int: "number", float: "number", str: "string"}.get(type(value), "object")
