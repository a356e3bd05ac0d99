"""Conversion of requests of `/v1/chat/completions`, `/v1/completions` and `/v1/embeddings`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lmdeck._compatibility import CompatibilityFixes
from lmdeck._requests.chat import ChatSpec, build_chat
from lmdeck.errors import ConfigurationError
from lmdeck.relay.tool_conversion import ForeignTools, custom_arguments, read_tools

__all__ = ["chat_body", "completion_body", "embedding_body"]

_CHAT_FIELDS = ("model", "messages", "tools", "tool_choice", "stream")


def chat_body(sent: Mapping[str, Any], fixes: CompatibilityFixes) -> tuple[dict[str, Any], set[str]]:
    """Return the body and the names of custom tools; unknown fields are unchanged.

    Raises:
        ConfigurationError: A message or a tool cannot be sent.
        UnknownToolError: `tool_choice` names a tool that is not offered.
    """
    tools = read_tools(sent.get("tools"), fixes)
    choice, tools = _choice(sent.get("tool_choice"), tools, fixes)
    messages = sent.get("messages")
    spec = ChatSpec(
        messages=tuple(_message(each, fixes) for each in messages) if isinstance(messages, list) else (),
        tools=tuple({"type": "function", "function": _named(tool)} for tool in tools.functions),
        tool_choice=choice,
        options={name: value for name, value in sent.items() if name not in _CHAT_FIELDS},
    )
    return build_chat(spec, sent.get("model"), fixes, stream=sent.get("stream") is True), tools.custom


def _named(tool: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(tool.get("name"), str) or not tool["name"]:
        raise ConfigurationError(
            f"A tool has no name: {str(tool)[:120]!r}.",
            hint='Pass {"type": "function", "function": {"name": …, "description": …, "parameters": {…}}}.',
        )
    return dict(tool)


def _choice(choice: object, tools: ForeignTools, fixes: CompatibilityFixes) -> tuple[Any, ForeignTools]:
    """Convert forms of `tool_choice` that `build_chat` does not know.

    Those are Mistral's `any`, a custom tool, and a list of allowed tools.
    """
    if choice == "any":
        return "required", tools
    if not isinstance(choice, Mapping):
        return choice if tools.functions else None, tools
    kind = choice.get("type")
    inner = choice.get(kind) if isinstance(kind, str) and isinstance(choice.get(kind), Mapping) else choice
    details: Mapping[str, Any] = inner if isinstance(inner, Mapping) else {}
    if kind == "allowed_tools":
        allowed = [entry.get("function", entry.get("custom", entry)) for entry in details.get("tools") or ()]
        names = [entry.get("name") for entry in allowed if isinstance(entry, Mapping)]
        fixes.apply("tool_choice", "tool_choice allowed_tools was sent as those tools alone.")
        return details.get("mode", "auto"), tools.only(names)
    if kind in {"auto", "none", "required", "any"}:
        return "required" if kind == "any" else kind, tools
    return details.get("name") or choice, tools


def _message(sent: object, fixes: CompatibilityFixes) -> Mapping[str, Any]:
    if not isinstance(sent, Mapping):
        raise ConfigurationError(
            f"A message must be an object, not {type(sent).__name__}.", hint='Pass {"role": "user", "content": …}.'
        )
    message = {name: value for name, value in sent.items() if value is not None or name == "content"}
    if message.get("role") == "developer" and fixes.apply("developer_role", "The role developer was sent as system."):
        message["role"] = "system"
    if isinstance(message.get("content"), list):
        message["content"] = [_part(part) for part in message["content"]]
    if isinstance(message.get("tool_calls"), list):
        message["tool_calls"] = [_call(call) for call in message["tool_calls"]]
    return message


def _part(part: object) -> object:
    """Return a refusal as text, and text in a bare string as a part."""
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if isinstance(part, Mapping) and part.get("type") == "refusal":
        return {"type": "text", "text": str(part.get("refusal") or "")}
    return part


def _call(call: object) -> object:
    custom = call.get("custom") if isinstance(call, Mapping) else None
    if not isinstance(call, Mapping) or not isinstance(custom, Mapping):
        return call
    function = {"name": custom.get("name"), "arguments": custom_arguments(custom.get("input"))}
    return {"id": call.get("id"), "type": "function", "function": function}


def completion_body(sent: Mapping[str, Any], fixes: CompatibilityFixes) -> dict[str, Any]:
    """Return the body of `/v1/completions`.

    A list of one prompt becomes that prompt, and a stream reports its usage.

    Raises:
        ConfigurationError: There is more than one prompt, or one that is not text.
    """
    body = {name: value for name, value in sent.items() if value is not None}
    prompt = body.get("prompt", "")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str):
        fixes.apply("single_input", "A list with one prompt was sent as that prompt.")
        body["prompt"] = prompt[0]
    elif not isinstance(prompt, str):
        raise ConfigurationError(
            "LM Studio accepts one prompt as text, not a list or token ids.",
            hint="Send one request for each prompt, as text.",
        )
    if body.get("stream") is True and fixes.is_enabled("include_usage"):
        body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    return body


def embedding_body(sent: Mapping[str, Any], fixes: CompatibilityFixes) -> dict[str, Any]:
    """Return the body of `/v1/embeddings`.

    It requests numbers; the relay encodes them if base64 was requested.

    Raises:
        ConfigurationError: The input is not text.
    """
    body = {name: value for name, value in sent.items() if value is not None}
    if body.get("encoding_format") == "base64" and fixes.apply(
        "base64_embeddings",
        "Embeddings in base64, which LM Studio does not support, were requested as numbers and encoded by lmdeck.",
    ):
        body["encoding_format"] = "float"
    if not _is_text(body.get("input")):
        raise ConfigurationError(
            "LM Studio embeds texts, not token ids.",
            hint="Send texts; with langchain: `OpenAIEmbeddings(check_embedding_ctx_length=False)`.",
        )
    return body


def _is_text(value: object) -> bool:
    items: Iterable[object] = value if isinstance(value, list) and value else [value]
    return all(isinstance(item, str) for item in items)
