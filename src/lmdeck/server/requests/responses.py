"""Requests of `/v1/responses`.

Sources: LM Studio's docs, `3_openai-compat/responses.md`; OpenAI's Responses API reference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from lmdeck._encoders.backend_events import Provider
from lmdeck.server.errors import Refusal, issue
from lmdeck.server.jobs import CalledTool, ChatJob, ChatMessage, Integration
from lmdeck.server.requests.body import choose_model, flag, image_uri
from lmdeck.server.requests.sampling import sampling
from lmdeck.server.requests.tool_offers import responses_tools, tools_and_choice

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lmdeck.server.jobs import ModelDescription

_TEXT_PARTS = ("input_text", "output_text")


class ResponseRequest(Struct, frozen=True, kw_only=True):
    """A request of a response: the job with only the new messages, and the answer's options."""

    job: ChatJob
    instructions: str | None
    previous: str | None
    stream: bool
    store: bool


def response_request(body: Mapping[str, Any], models: Sequence[ModelDescription]) -> ResponseRequest:
    """Validate a request of `/v1/responses`.

    Raises:
        Refusal: The request is invalid.
    """
    tools, choice = tools_and_choice(body.get("tool_choice"), responses_tools(body.get("tools")))
    reasoning = body.get("reasoning")
    effort = reasoning.get("effort") if isinstance(reasoning, dict) else None
    return ResponseRequest(
        job=ChatJob(
            model=choose_model(body.get("model"), models),
            messages=tuple(_messages(body.get("input"))),
            sampling=sampling(body),
            tools=tuple(tools),
            tool_choice=choice,
            json_schema=_schema(body.get("text")),
            reasoning=effort if isinstance(effort, str) else None,
            integrations=tuple(_servers(body.get("tools"))),
        ),
        instructions=_text(body, "instructions"),
        previous=_text(body, "previous_response_id"),
        stream=flag("stream", body.get("stream")),
        store=flag("store", body.get("store"), default=True),
    )


def _text(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is None or isinstance(value, str):
        return value
    raise issue("Expected string", name, "invalid_type")


def _messages(value: object) -> list[ChatMessage]:
    if isinstance(value, str):
        return [ChatMessage(role="user", text=value)]
    if not isinstance(value, list) or not value:
        raise _wrong_input()
    messages: list[ChatMessage] = []
    for item in value:
        if not isinstance(item, dict):
            raise _wrong_input()
        match item.get("type", "message"):
            case "message":
                messages.append(_message(item))
            case "function_call":
                _add_call(messages, item)
            case "function_call_output":
                messages.append(_result(item))
            case "reasoning":
                pass  # reasoning is not part of the next prompt
            case _:
                raise _wrong_input()
    return messages


def _message(item: dict[str, Any]) -> ChatMessage:
    role, content = item.get("role"), item.get("content")
    if not isinstance(role, str):
        raise _wrong_input()
    role = "system" if role == "developer" else role  # LM Studio: "Developer role detected - replacing it"
    if isinstance(content, str):
        return ChatMessage(role=role, text=content)
    if not isinstance(content, list):
        raise _wrong_input()
    texts: list[str] = []
    images: list[str] = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in _TEXT_PARTS and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "input_image":
            images.append(image_uri(part.get("image_url")))
        else:
            raise _wrong_input()
    return ChatMessage(role=role, text="\n".join(texts), images=tuple(images))


def _add_call(messages: list[ChatMessage], item: dict[str, Any]) -> None:
    match item:
        case {"call_id": str(call_id), "name": str(name), "arguments": str(arguments)}:
            call = CalledTool(id=call_id, name=name, arguments=arguments)
        case _:
            raise _wrong_input()
    if messages and messages[-1].role == "assistant":
        last = messages.pop()
        calls = (*last.tool_calls, call)
        messages.append(ChatMessage(role="assistant", text=last.text, images=last.images, tool_calls=calls))
    else:
        messages.append(ChatMessage(role="assistant", tool_calls=(call,)))


def _result(item: dict[str, Any]) -> ChatMessage:
    match item:
        case {"call_id": str(call_id), "output": str(output)} if call_id:
            return ChatMessage(role="tool", text=output, tool_call_id=call_id)
        case {"call_id": str(call_id), "output": list() as parts} if call_id:
            texts = [str(part.get("text") or "") for part in parts if isinstance(part, dict)]
            return ChatMessage(role="tool", text="\n".join(texts), tool_call_id=call_id)
        case _:
            raise _wrong_input()


def _schema(text: object) -> Mapping[str, Any] | bool | None:
    if text is None:
        return None
    form = text.get("format") if isinstance(text, dict) else None
    if form is None:
        raise issue("Required", "text.format", "missing_required_parameter")
    match form:
        case {"type": "text"}:
            return None
        case {"type": "json_schema", "schema": dict() | bool() as schema}:
            return schema
        case _:
            raise issue("Invalid input", "text.format", "invalid_union")


def _servers(tools: object) -> list[Integration]:
    found: list[Integration] = []
    for index, tool in enumerate(tools if isinstance(tools, list) else []):
        if tool.get("type") != "mcp":
            continue
        match tool:
            case {"server_label": str(label), "server_url": str(url)}:
                allowed, headers = tool.get("allowed_tools"), tool.get("headers")
                found.append(
                    Integration(
                        provider=Provider(type="ephemeral_mcp", server_label=label),
                        url=url,
                        allowed_tools=tuple(map(str, allowed)) if isinstance(allowed, list) else None,
                        headers={str(k): str(v) for k, v in headers.items()} if isinstance(headers, dict) else {},
                    )
                )
            case _:
                raise issue("Required", f"tools.{index}.server_url", "invalid_type")
    return found


def _wrong_input() -> Refusal:
    return issue("Invalid type for 'input'.", "input", "invalid_union")
