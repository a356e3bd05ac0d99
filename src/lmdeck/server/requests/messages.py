"""Requests of `/v1/messages`.

Sources: LM Studio's docs, `4_anthropic-compat/messages.md`; Anthropic's Messages API reference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from lmdeck.server.errors import Refusal
from lmdeck.server.jobs import CalledTool, ChatJob, ChatMessage
from lmdeck.server.requests.body import IMAGE_URI, choose_model, flag
from lmdeck.server.requests.sampling import sampling
from lmdeck.server.requests.tool_offers import anthropic_tools, tools_and_choice

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lmdeck.server.jobs import ModelDescription


def messages_request(body: Mapping[str, Any], models: Sequence[ModelDescription]) -> tuple[ChatJob, bool]:
    """Return the job of a request, and whether its answer is to be streamed.

    Raises:
        Refusal: The request is invalid.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise _issue("request.messages: Required")
    if not isinstance(body.get("max_tokens"), int):
        raise _issue("request.max_tokens: Required")
    history = [*_system(body.get("system"))]
    for index, message in enumerate(messages):
        history += _turn(message, f"request.messages.{index}")
    tools, choice = tools_and_choice(body.get("tool_choice"), anthropic_tools(body.get("tools")))
    thinking = body.get("thinking")
    job = ChatJob(
        model=choose_model(body.get("model"), models),
        messages=tuple(history),
        sampling=sampling(body),
        tools=tuple(tools),
        tool_choice=choice,
        reasoning=_EFFORT.get(str(thinking.get("type"))) if isinstance(thinking, dict) else None,
    )
    return job, flag("stream", body.get("stream"))


_EFFORT = {"enabled": "on", "adaptive": "on", "disabled": "off"}


def _system(system: object) -> Iterator[ChatMessage]:
    if system is None:
        return
    if isinstance(system, str):
        yield ChatMessage(role="system", text=system)
        return
    yield ChatMessage(role="system", text="\n\n".join(_texts(system, "request.system")))


def _turn(message: object, param: str) -> list[ChatMessage]:
    if not isinstance(message, dict):
        raise _issue(f"{param}: Invalid input")
    role, content = message.get("role"), message.get("content")
    if role not in {"user", "assistant"}:
        raise _issue(f"{param}.role: Invalid discriminator value. Expected 'user' | 'assistant'")
    if isinstance(content, str):
        return [ChatMessage(role=role, text=content)]
    if not isinstance(content, list):
        raise _issue(f"{param}.content: Invalid input")
    return _blocks(role, content, f"{param}.content")


def _blocks(role: str, content: list[Any], param: str) -> list[ChatMessage]:
    texts: list[str] = []
    images: list[str] = []
    calls: list[CalledTool] = []
    results: list[ChatMessage] = []
    for index, block in enumerate(content):
        match block:
            case {"type": "text", "text": str(text)}:
                texts.append(text)
            case {"type": "image", "source": {"type": "base64", "media_type": str(kind), "data": str(data)}}:
                images.append(_image(f"data:{kind};base64,{data}", f"{param}.{index}"))
            case {"type": "tool_use", "id": str(call_id), "name": str(name), "input": dict() as arguments}:
                calls.append(CalledTool(id=call_id, name=name, arguments=msgspec.json.encode(arguments).decode()))
            case {"type": "tool_result", "tool_use_id": str(call_id)}:
                text = "\n".join(_texts(block.get("content") or "", f"{param}.{index}.content"))
                results.append(ChatMessage(role="tool", text=text, tool_call_id=call_id))
            case {"type": "thinking" | "redacted_thinking"}:
                pass  # reasoning is not part of the next prompt
            case _:
                raise _issue(f"{param}.{index}: Invalid input")
    message = ChatMessage(role=role, text="\n".join(texts), images=tuple(images), tool_calls=tuple(calls))
    return [*results, message] if texts or images or calls or not results else results


def _texts(content: object, param: str) -> list[str]:
    if isinstance(content, str):
        return [content]
    if isinstance(content, list) and all(
        isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str) for part in content
    ):
        return [part["text"] for part in content]
    raise _issue(f"{param}: Invalid input")  # also an image in a tool's result: lmstudio-bug-tracker


def _image(uri: str, param: str) -> str:
    if not IMAGE_URI.fullmatch(uri):
        raise _issue(f"{param}.source: Invalid input")
    return uri


def _issue(message: str) -> Refusal:
    return Refusal(400, message)
