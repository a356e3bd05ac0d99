"""Messages in the form of OpenTelemetry's conventions: with parts, as JSON text.

Of images, only the kind is recorded. See github.com/open-telemetry/semantic-conventions-genai,
`gen-ai-input-messages.json`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from lmdeck.messages import Reply


def input_messages(body: bytes) -> dict[str, str]:
    """Return the attributes of a request's messages, in any wire format."""
    try:
        request = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    if not isinstance(request, Mapping):
        return {}
    found: dict[str, Any] = {}
    prompt = request.get("messages", request.get("input", request.get("prompt")))
    messages = [_message(one) for one in (prompt if isinstance(prompt, list) else [prompt]) if one is not None]
    if messages:
        found["gen_ai.input.messages"] = messages
    instructions = next(
        (request[name] for name in ("system", "instructions", "system_prompt") if request.get(name)), None
    )
    if instructions is not None:
        found["gen_ai.system_instructions"] = list(_parts(instructions))
    if request.get("tools"):
        found["gen_ai.tool.definitions"] = request["tools"]
    return {name: msgspec.json.encode(value).decode() for name, value in found.items()}


def output_messages(reply: Reply) -> dict[str, str]:
    """Return the attribute of an answer."""
    parts: list[dict[str, Any]] = []
    if reply.reasoning:
        parts.append({"type": "reasoning", "content": reply.reasoning})
    if reply.content:
        parts.append({"type": "text", "content": reply.content})
    parts += [
        {"type": "tool_call", "id": call.id, "name": call.name, "arguments": call.arguments}
        for call in reply.tool_calls
    ]
    message = {"role": "assistant", "parts": parts, "finish_reason": reply.finish_reason}
    return {"gen_ai.output.messages": msgspec.json.encode([message]).decode()}


def _message(message: object) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        return {"role": "user", "parts": list(_parts(message))}
    role = str(message.get("role") or "user")
    if role == "tool":
        answer = {"type": "tool_call_response", "id": message.get("tool_call_id"), "response": message.get("content")}
        return {"role": role, "parts": [answer]}
    return {"role": role, "parts": [*_parts(message.get("content")), *_calls(message.get("tool_calls"))]}


def _parts(content: object) -> Iterator[dict[str, Any]]:
    if isinstance(content, str):
        if content:
            yield {"type": "text", "content": content}
        return
    for part in content if isinstance(content, list) else ():
        if isinstance(part, str):
            yield {"type": "text", "content": part}
        elif isinstance(part, Mapping):
            text = part.get("text")
            yield {"type": "text", "content": text} if isinstance(text, str) else {"type": str(part.get("type") or "")}


def _calls(calls: object) -> Iterator[dict[str, Any]]:
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, Mapping) else None
        if isinstance(function, Mapping):
            name, arguments = function.get("name"), function.get("arguments")
            yield {"type": "tool_call", "id": call.get("id"), "name": name, "arguments": arguments}
