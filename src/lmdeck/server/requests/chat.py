"""`/v1/chat/completions` and `/v1/completions`.

The rules are LM Studio's observed ones, not OpenAI's: `content: null` is refused, `tool_choice` is one of three strings,
`json_object` does not exist, images are base64 data URIs, one invalid tool fails the request, unknown fields are ignored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lmdeck.server.errors import bad_structure, invalid
from lmdeck.server.jobs import CalledTool, ChatJob, ChatMessage, CompletionJob
from lmdeck.server.requests.body import ResponseMode, choose_model, delivery, image_uri
from lmdeck.server.requests.sampling import integer, sampling
from lmdeck.server.requests.tool_offers import chat_tools, tool_choice

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lmdeck.server.jobs import ModelDescription


def chat_job(body: Mapping[str, Any], models: Sequence[ModelDescription]) -> tuple[ChatJob, ResponseMode]:
    """Validate a chat completion request, in the order of LM Studio's checks.

    Raises:
        Refusal: The request is invalid.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise bad_structure()
    job = ChatJob(
        messages=tuple(_message(message) for message in messages),
        tool_choice=tool_choice(body.get("tool_choice")),
        tools=tuple(chat_tools(body.get("tools"))),
        json_schema=json_schema(body.get("response_format")),
        model=choose_model(body.get("model"), models),
        sampling=sampling(body),
        reasoning=_text("reasoning_effort", body.get("reasoning_effort")),
        ttl=integer("ttl", body.get("ttl")),
    )
    return job, delivery(body)


def completion_job(body: Mapping[str, Any], models: Sequence[ModelDescription]) -> tuple[CompletionJob, ResponseMode]:
    """Validate a text completion request.

    Raises:
        Refusal: The request is invalid.
    """
    prompt = body.get("prompt")
    if not isinstance(prompt, str):
        raise invalid("'prompt' field must be a string")
    job = CompletionJob(prompt=prompt, model=choose_model(body.get("model"), models), sampling=sampling(body))
    return job, delivery(body)


def _message(message: object) -> ChatMessage:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise bad_structure()
    calls = tuple(_calls(message.get("tool_calls")))
    call_id = message.get("tool_call_id")
    if message["role"] == "tool" and not (isinstance(call_id, str) and call_id):
        raise bad_structure()
    # a message that only calls tools may omit its content, but must not set it to null
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
            images.append(image_uri(part.get("image_url")))
        else:
            raise invalid(
                "Invalid 'content': 'content' objects must have a 'type' field that is either 'text' or 'image_url'."
            )
    return "\n".join(texts), tuple(images)


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


def json_schema(response_format: object) -> Mapping[str, Any] | bool | None:
    """Return the schema of the answer; None for free text.

    Raises:
        Refusal: The format is not one of LM Studio's.
    """
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


def _text(name: str, value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise invalid(f"'{name}' field must be a string")
