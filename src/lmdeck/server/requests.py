"""From the bytes of a request to a typed job, refusing what LM Studio refuses.

The rules are LM Studio's observed ones, not OpenAI's: `content: null` is refused, `tool_choice` is one of three strings,
`json_object` does not exist, images are base64 data URIs, one bad tool fails the request, unknown fields pass unseen.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

import msgspec
from msgspec import Struct

from lmdeck.server.backend import (
    CalledTool,
    ChatJob,
    ChatMessage,
    ChatTool,
    CompletionJob,
    ToolChoice,
)
from lmdeck.server.refusals import bad_structure, invalid, model_not_found, no_models_loaded, too_large, tool_issues
from lmdeck.server.sampling import sampling

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from starlette.requests import Request

    from lmdeck.server.backend import ModelDescription

__all__ = ["MAX_BODY_BYTES", "Delivery", "chat_job", "completion_job", "read_body"]

MAX_BODY_BYTES = 64 << 20
TOOL_CHOICES = ("none", "auto", "required")
IMAGE_URI = re.compile(r"data:image/(png|jpe?g);base64,[A-Za-z0-9+/]+={0,2}", re.IGNORECASE)


class Delivery(Struct, frozen=True):
    """How the client wants its answer: in one piece or as a stream, the latter with a usage chunk or without."""

    stream: bool = False
    include_usage: bool = False


async def read_body(request: Request) -> dict[str, Any]:
    """Read the JSON object of a request.

    Raises:
        Refusal: The body is too large, or no JSON object.
    """
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise too_large(MAX_BODY_BYTES)
        parts.append(part)
    try:
        body = msgspec.json.decode(b"".join(parts))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise invalid("Invalid JSON in request body") from None
    if not isinstance(body, dict):
        raise invalid("Invalid JSON in request body")
    return body


def chat_job(body: Mapping[str, Any], models: Sequence[ModelDescription]) -> tuple[ChatJob, Delivery]:
    """Validate a chat completion request, in the order in which LM Studio complains.

    Raises:
        Refusal: A rule is broken.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise bad_structure()
    job = ChatJob(
        messages=tuple(_message(message) for message in messages),
        tool_choice=_tool_choice(body.get("tool_choice")),
        tools=tuple(_tools(body.get("tools"))),
        json_schema=_json_schema(body.get("response_format")),
        model=_model(body.get("model"), models),
        sampling=sampling(body),
    )
    return job, _delivery(body)


def completion_job(body: Mapping[str, Any], models: Sequence[ModelDescription]) -> tuple[CompletionJob, Delivery]:
    """Validate a text completion request.

    Raises:
        Refusal: A rule is broken.
    """
    prompt = body.get("prompt")
    if not isinstance(prompt, str):
        raise invalid("'prompt' field must be a string")
    job = CompletionJob(prompt=prompt, model=_model(body.get("model"), models), sampling=sampling(body))
    return job, _delivery(body)


def _model(name: object, models: Sequence[ModelDescription]) -> str:
    if name is not None and not isinstance(name, str):
        raise invalid("'model' field must be a string")
    if not models:
        raise no_models_loaded()
    keys = [model.key for model in models]
    if not name:
        return keys[0]
    if name not in keys:
        raise model_not_found(name, keys)
    return name


def _delivery(body: Mapping[str, Any]) -> Delivery:
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise invalid("'stream_options' field must be an object")
    return Delivery(
        stream=_flag("stream", body.get("stream")),
        include_usage=_flag("stream_options.include_usage", (options or {}).get("include_usage")),
    )


def _flag(name: str, value: object) -> bool:
    if value is not None and not isinstance(value, bool):
        raise invalid(f"'{name}' field must be a boolean")
    return bool(value)


# --- messages ---


def _message(message: object) -> ChatMessage:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise bad_structure()
    calls = tuple(_calls(message.get("tool_calls")))
    call_id = message.get("tool_call_id")
    if message["role"] == "tool" and not (isinstance(call_id, str) and call_id):
        raise bad_structure()
    # a turn that only calls tools may leave content out, but not null it
    text, images = _content(message.get("content")) if "content" in message or not calls else ("", ())
    return ChatMessage(role=message["role"], text=text, images=images, tool_calls=calls, tool_call_id=call_id)


def _content(content: object) -> tuple[str, tuple[str, ...]]:
    if isinstance(content, str):
        return content, ()
    if not isinstance(content, list):
        raise invalid("Invalid 'content': 'content' field must be a string or an array of objects.")
    texts: list[str] = []
    images: list[str] = []
    for part in content:
        if not isinstance(part, dict):
            raise invalid("Invalid 'content': 'content' field must be a string or an array of objects.")
        if part.get("type") == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif part.get("type") == "image_url":
            images.append(_image(part.get("image_url")))
        else:
            raise invalid(
                "Invalid 'content': 'content' objects must have a 'type' field that is either 'text' or 'image_url'."
            )
    return "\n".join(texts), tuple(images)


def _image(image: object) -> str:
    url = image.get("url") if isinstance(image, dict) else image
    if not isinstance(url, str) or not IMAGE_URI.fullmatch(url):
        raise invalid("'url' field must be a base64 encoded image.")
    return url


def _calls(calls: object) -> Iterator[CalledTool]:
    if calls is None:
        return
    if not isinstance(calls, list):
        raise bad_structure()
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise bad_structure()
        match call.get("id"), function.get("name"), function.get("arguments"):
            case str(call_id), str(name), str(arguments) if call_id and name:
                yield CalledTool(id=call_id, name=name, arguments=arguments)
            case _:
                raise bad_structure()


# --- tools and structured output ---


def _tool_choice(choice: object) -> ToolChoice:
    supported = "Supported string values: none, auto, required"
    if choice is None:
        return "auto"
    if not isinstance(choice, str):
        raise invalid(f"Invalid tool_choice type: '{_js_type(choice)}'. {supported}")
    if choice not in TOOL_CHOICES:
        raise invalid(f"Invalid tool_choice value: '{choice}'. {supported}")
    return cast("ToolChoice", choice)


def _tools(tools: object) -> list[ChatTool]:
    if tools is None:
        return []
    if not isinstance(tools, list):
        raise tool_issues([_wrong_type("array", tools, [])])
    issues = [issue for index, tool in enumerate(tools) for issue in _tool_issues(index, tool)]
    if issues:
        raise tool_issues(issues)
    functions = [tool["function"] for tool in tools]
    return [
        ChatTool(name=f["name"], parameters=f["parameters"], description=f.get("description") or "") for f in functions
    ]


def _tool_issues(index: int, tool: object) -> Iterator[dict[str, Any]]:
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict):
        yield _wrong_type("object", function, [index, "function"])
        return
    if not isinstance(function.get("name"), str) or not function["name"]:
        yield _wrong_type("string", function.get("name"), [index, "function", "name"])
    if not isinstance(function.get("description"), str | None):
        yield _wrong_type("string", function.get("description"), [index, "function", "description"])
    parameters = function.get("parameters")
    path: list[int | str] = [index, "function", "parameters"]
    if not isinstance(parameters, dict) or parameters.get("type") != "object":
        yield {
            "code": "invalid_union_discriminator",
            "options": ["object"],
            "path": [*path, "type"],
            "message": "Invalid discriminator value. Expected 'object'",
        }
    elif not isinstance(parameters.get("properties"), dict):
        yield _wrong_type("object", parameters.get("properties"), [*path, "properties"])


def _wrong_type(expected: str, value: object, path: list[int | str]) -> dict[str, Any]:
    received = "array" if isinstance(value, list) else _js_type(value)
    message = "Required" if received == "undefined" else f"Expected {expected}, received {received}"
    return {"code": "invalid_type", "expected": expected, "received": received, "path": path, "message": message}


def _json_schema(response_format: object) -> Mapping[str, Any] | bool | None:
    if response_format is None:
        return None
    kind = response_format.get("type") if isinstance(response_format, dict) else None
    if not isinstance(response_format, dict) or kind not in {"json_schema", "text"}:
        raise invalid("'response_format.type' must be 'json_schema' or 'text'")
    if kind == "text":
        return None
    wrapper = response_format.get("json_schema")
    schema = wrapper.get("schema") if isinstance(wrapper, dict) else None
    if not isinstance(schema, dict | bool):
        raise invalid("'response_format.json_schema.schema' must be an object")
    return schema


def _js_type(value: object) -> str:
    """Name a type as JavaScript's `typeof` does, for LM Studio is written in it."""
    if value is None:
        return "undefined"
    return {bool: "boolean", int: "number", float: "number", str: "string"}.get(type(value), "object")
