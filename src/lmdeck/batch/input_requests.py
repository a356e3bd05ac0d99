"""Conversion of input records to requests: endpoint, body, and a hash of both.

A record is a line of OpenAI's Batch API (`custom_id`, `method`, `url`, `body`), or has a `prompt`, `input` or `messages`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import msgspec
from msgspec import Struct

from lmdeck.errors import ConfigurationError
from lmdeck.relay.endpoint_urls import Kind, route_of

CHAT = "/v1/chat/completions"
DEFAULT_MAX_TOKENS = 4096  # of `/v1/messages`, which requires a limit
KEY_BYTES = 16
_FIELD = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")
_LIMITS: dict[Kind, str] = {"responses": "max_output_tokens"}
_encode_sorted = msgspec.json.Encoder(order="sorted").encode


class InvalidRowError(ValueError):
    """A row of the input is not a valid request; the message names the reason."""


class BatchOptions(Struct, frozen=True, kw_only=True):
    """How records become requests.

    `endpoint` and `model` apply to records that name none. `template` is the prompt, with a record's columns
    in braces: `"Summarise: {text}"`. `system` is a system message. `options` such as `temperature` or `max_tokens` are added to
    each body that lacks them. `schema` is the JSON Schema that answers must match. `dedupe=False` sends each of several
    equal requests.
    """

    endpoint: str = CHAT
    model: str | None = None
    template: str | None = None
    system: str | None = None
    options: Mapping[str, Any] = {}
    schema: Mapping[str, Any] | None = None
    dedupe: bool = True

    def checked(self) -> BatchOptions:
        """Return the options with the endpoint's full path.

        Raises:
            ConfigurationError: The endpoint is unknown, or has no structured output.
        """
        try:
            path, kind = endpoint_of(self.endpoint)
        except InvalidRowError as error:
            raise ConfigurationError(f"{error}", hint=f"Use an endpoint such as {CHAT}.") from None
        if self.schema is not None and kind not in {"chat", "responses"}:
            raise ConfigurationError(
                f"{path} does not support structured output.", hint=f"Use {CHAT} or /v1/responses, or omit the schema."
            )
        return msgspec.structs.replace(self, endpoint=path)


class BatchRequest(Struct, frozen=True, kw_only=True):
    """One request; `key` is None if it must not share its answer with equal requests."""

    endpoint: str
    model: str
    body: bytes
    key: bytes | None

    @property
    def kind(self) -> Kind:
        """The wire format."""
        return endpoint_of(self.endpoint)[1]


def request_of(record: Mapping[str, Any], options: BatchOptions) -> BatchRequest:
    """Return the request of a record.

    Raises:
        InvalidRowError: The record is not a request.
    """
    if "body" in record:
        path, kind, body = _from_line(record, options)
    else:
        path, kind = endpoint_of(options.endpoint)
        body = _from_columns(record, kind, options)
    body = {**_defaults(kind, options), **body}
    body.pop("stream", None)
    body.pop("stream_options", None)
    model = body.get("model") or record.get("model") or options.model
    if model is not None and not isinstance(model, str):
        raise InvalidRowError("`model` is not a string.")
    if model:
        body["model"] = model
    shares = options.dedupe and not _is_sampled(body)
    encoded, normalized = _encoded(body)
    return BatchRequest(
        endpoint=path,
        model=model or "",
        body=encoded,
        key=blake2b(path.encode() + b"\0" + normalized, digest_size=KEY_BYTES).digest() if shares else None,
    )


def custom_id_of(record: Mapping[str, Any], number: int) -> str:
    """Return the custom id of a record: its `custom_id` or `id`, else one from the row's number."""
    id_ = record.get("custom_id")
    if id_ is None:
        id_ = record.get("id")
    if id_ is None or isinstance(id_, Mapping | list):
        return f"row-{number}"
    return id_.decode("utf-8", "replace") if isinstance(id_, bytes) else str(id_)


@lru_cache(maxsize=64)
def endpoint_of(url: str) -> tuple[str, Kind]:
    """Return the full path and wire format of an endpoint.

    It may be named as `/v1/chat/completions`, `chat/completions` or by a URL.

    Raises:
        InvalidRowError: lmdeck has no such endpoint.
    """
    route = route_of("POST", url if "://" in url else f"http://host/{url.lstrip('/')}")
    path = route.path.partition("?")[0]
    if route.kind == "other" or not path.startswith("/v1/"):
        raise InvalidRowError(f"{url!r} is not an endpoint for batches.")
    return path, route.kind


def _from_line(record: Mapping[str, Any], options: BatchOptions) -> tuple[str, Kind, dict[str, Any]]:
    method, url, body = record.get("method", "POST"), record.get("url", options.endpoint), record["body"]
    if not isinstance(method, str) or method.upper() != "POST":
        raise InvalidRowError(f"`method` is {method!r}, not 'POST'.")
    if not isinstance(url, str):
        raise InvalidRowError("`url` is not a string.")
    if not isinstance(body, dict):
        raise InvalidRowError("`body` is not a JSON object.")
    return *endpoint_of(url), body


def _from_columns(record: Mapping[str, Any], kind: Kind, options: BatchOptions) -> dict[str, Any]:
    if options.template is not None:
        return _prompt_body(kind, fill_template(options.template, record), options.system)
    messages = record.get("messages")
    if messages is not None and kind not in {"completions", "embeddings"}:
        return _with_messages(kind, _as_messages(messages), options.system)
    prompt = record.get("prompt")
    prompt = record.get("input") if prompt is None else prompt
    if prompt is None:
        raise InvalidRowError("The row has no `body`, `messages`, `prompt` or `input`.")
    if not isinstance(prompt, str) and not (kind == "embeddings" and isinstance(prompt, list)):
        raise InvalidRowError("`prompt` is not a string.")
    return _prompt_body(kind, prompt, options.system)


def _prompt_body(kind: Kind, prompt: str | list[Any], system: str | None) -> dict[str, Any]:
    """Return a body that contains a prompt."""
    if kind == "completions":
        return {"prompt": prompt}
    if kind == "embeddings":
        return {"input": prompt}
    if kind == "responses":
        return {"input": prompt, **({"instructions": system} if system else {})}
    return _with_messages(kind, [{"role": "user", "content": prompt}], system)


def _with_messages(kind: Kind, messages: list[Any], system: str | None) -> dict[str, Any]:
    if kind == "responses":
        return {"input": messages, **({"instructions": system} if system else {})}
    if kind == "messages":
        return {"messages": messages, **({"system": system} if system else {})}
    return {"messages": [{"role": "system", "content": system}, *messages] if system else messages}


def _as_messages(value: Any) -> list[Any]:
    """Return messages from a list of objects, or from its JSON text, as in a CSV file.

    Values of None count as missing.
    """
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError):
            raise InvalidRowError("`messages` is not JSON.") from None
    if not isinstance(value, list) or not value or not all(isinstance(message, Mapping) for message in value):
        raise InvalidRowError("`messages` is not a list of message objects.")
    return [{name: value for name, value in message.items() if value is not None} for message in value]


def fill_template(template: str, record: Mapping[str, Any]) -> str:
    """Return a template with its `{column}` fields replaced; `{{` and `}}` are literal braces.

    Raises:
        InvalidRowError: The record has no such column, or no value in it.
    """

    def value(found: re.Match[str]) -> str:
        name = found[1]
        if name is None:
            return found[0][0]
        if record.get(name) is None:
            raise InvalidRowError(f"The row has no column {name!r}, which the template uses.")
        return _as_text(name, record[name])

    return _FIELD.sub(value, template)


def _as_text(name: str, value: Any) -> str:
    """Return a value of a column as text.

    Lists, objects and numbers are written as JSON, dates and decimals as Python writes them.
    """
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise InvalidRowError(f"The column {name!r} is not UTF-8 text.") from None
    if isinstance(value, dict | list | bool | int | float):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _encoded(body: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """Return a body as JSON, and as JSON with sorted keys.

    Raises:
        InvalidRowError: A value in it cannot be written as JSON.
    """
    try:
        return msgspec.json.encode(body), _encode_sorted(body)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRowError(f"The row cannot be written as JSON: {error}.") from None


def _defaults(kind: Kind, options: BatchOptions) -> dict[str, Any]:
    """Return the default fields of a body, which its record may override."""
    limit = _LIMITS.get(kind, "max_tokens")
    fields = {limit if name == "max_tokens" else name: value for name, value in options.options.items()}
    if kind == "messages":
        fields.setdefault("max_tokens", DEFAULT_MAX_TOKENS)
    if options.schema is not None:
        named = {"name": "answer", "strict": True, "schema": dict(options.schema)}
        fields |= (
            {"response_format": {"type": "json_schema", "json_schema": named}}
            if kind == "chat"
            else {"text": {"format": {"type": "json_schema", **named}}}
        )
    return fields


def _is_sampled(body: Mapping[str, Any]) -> bool:
    """Whether answers to the same body are meant to vary: it has a temperature, but no seed."""
    temperature = body.get("temperature")
    return isinstance(temperature, int | float) and temperature > 0 and body.get("seed") is None
