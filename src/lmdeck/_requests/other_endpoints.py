"""The request bodies of `/api/v1/chat`, `/v1/responses` and `/v1/messages` for LM Studio.

Sources: LM Studio docs `2_rest/chat.md`, `3_openai-compat/responses.md`, `4_anthropic-compat/messages.md`. LM Studio refuses an
empty `text` and empty tool parameters (lmstudio-bug-tracker).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from lmdeck._arguments import checked_list, checked_text, wrong_type
from lmdeck._compatibility import CompatibilityFixes
from lmdeck._requests.chat import without_nulls
from lmdeck._requests.images import checked_images, checked_url, image_part
from lmdeck._requests.message_order import items_order, turns_order
from lmdeck._requests.tool_images import anthropic_images_after_results, response_images_after_results
from lmdeck.errors import ConfigurationError
from lmdeck.images import ImageSource
from lmdeck.messages import Message

EMPTY_SCHEMA = {"type": "object", "properties": {}}


def native_input(text: str, images: Sequence[ImageSource], fixes: CompatibilityFixes) -> str | list[dict[str, Any]]:
    """Return a user message as `input` of `/api/v1/chat`; record converted images in `fixes`.

    Raises:
        ConfigurationError: `text` is not text, or an image cannot be read, is too large, or is of an unknown format.
        InvalidRequestError: An image is a URL, or LM Studio does not accept its format and Pillow is not installed.
    """
    checked_text(text, "A message of a conversation")
    if not images:
        return text
    urls = [_image_url(image, fixes) for image in checked_images(images)]
    parts = [{"type": "image", "data_url": url} for url in urls]
    return [{"type": "message", "content": text}, *parts]


def _image_url(image: ImageSource, fixes: CompatibilityFixes) -> str:
    unchanged = not fixes.is_enabled("images")
    url = str(image_part(image, unchanged=unchanged)["image_url"]["url"])
    return url if unchanged else checked_url(url, fixes)


def as_message(native_input: str | list[dict[str, Any]]) -> Message:
    """Return an `input` of `/api/v1/chat` as a user message in OpenAI's format."""
    if isinstance(native_input, str):
        return Message(role="user", content=native_input)
    parts = [
        {"type": "image_url", "image_url": {"url": item["data_url"]}}
        if item["type"] == "image"
        else {"type": "text", "text": item["content"]}
        for item in native_input
    ]
    return Message(role="user", content=parts)


def transcript(history: Iterable[Message], new: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a conversation and a new user message as one `input`.

    It cannot have assistant messages, so the conversation is a transcript.

    Earlier images follow the transcript, in which `[image 1]` and so on are their placeholders.
    """
    images: list[dict[str, Any]] = []
    lines = [f"{message.role.capitalize()}: {_transcribed(message.content, images)}" for message in history]
    text = "Transcript of the conversation so far:\n\n" + "\n\n".join(lines)
    if images:
        text += "\n\nThe images follow in this order."
    return [
        {"type": "message", "content": text},
        *images,
        *([{"type": "message", "content": new}] if isinstance(new, str) else new),
    ]


def _transcribed(content: str | Sequence[Mapping[str, Any]], images: list[dict[str, Any]]) -> str:
    """Return a message's text with image placeholders, and append the images to `images`."""
    if isinstance(content, str):
        return content
    words = []
    for part in content:
        if part.get("type") == "image_url":
            images.append({"type": "image", "data_url": part["image_url"]["url"]})
            words.append(f"[image {len(images)}]")
        else:
            words.append(str(part.get("text", "")))
    return " ".join(words)


def responses_body(options: Mapping[str, Any], fixes: CompatibilityFixes) -> dict[str, Any]:
    """Return the body of `/v1/responses`; tools may also be in the format of chat completions.

    Raises:
        ConfigurationError: The input is missing, or a tool is not a dict or a `Tool`.
    """
    body = {name: value for name, value in options.items() if value is not None}
    if not body.get("input"):
        raise ConfigurationError("The response has no input.", hint="Pass `input=`: a text or a list of items.")
    fixes.problems += items_order(body["input"], continues=bool(body.get("previous_response_id")))
    if isinstance(body["input"], (list, tuple)):
        body["input"] = list(response_images_after_results(body["input"], fixes))
    if body.get("text") == {} and fixes.apply("empty_text", "The empty `text`, which LM Studio refuses, was omitted."):
        del body["text"]
    if "tools" in body:
        body["tools"] = [_flat_tool(fields, fixes) for fields in _tool_fields(body["tools"])]
    choice = body.get("tool_choice")
    if isinstance(choice, Mapping) and isinstance(choice.get("function"), Mapping):
        body["tool_choice"] = {"type": "function", "name": choice["function"].get("name")}
    return body


def anthropic_body(options: Mapping[str, Any], fixes: CompatibilityFixes) -> dict[str, Any]:
    """Return the body of `/v1/messages`; messages and tools may also be in OpenAI's format.

    Raises:
        ConfigurationError: There is no message, or a tool has no name, or is not a dict or a `Tool`.
    """
    body = {name: value for name, value in options.items() if value is not None}
    messages = [each.to_dict() if isinstance(each, Message) else dict(each) for each in body.get("messages") or ()]
    system = [str(each["content"]) for each in messages if each.get("role") == "system"]
    if system and fixes.apply("system_messages", "System messages were sent as `system`."):
        messages = [each for each in messages if each.get("role") != "system"]
        body["system"] = "\n\n".join([*([body["system"]] if isinstance(body.get("system"), str) else []), *system])
    if not messages:
        raise ConfigurationError("The request has no message.", hint='Pass `messages=[{"role": "user", …}]`.')
    fixes.problems += turns_order(messages)
    body["messages"] = list(anthropic_images_after_results(messages, fixes))
    if "tools" in body:
        body["tools"] = [_anthropic_tool(fields) for fields in _tool_fields(body["tools"])]
    choice = body.get("tool_choice")
    if isinstance(choice, str):
        kinds = {"auto": "auto", "none": "none", "required": "any", "any": "any"}
        body["tool_choice"] = {"type": kinds[choice]} if choice in kinds else {"type": "tool", "name": choice}
    return body


def offered_tools(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the tools of a body that the caller runs, which are those with a name."""
    return [tool for tool in body.get("tools") or () if isinstance(tool, Mapping) and tool.get("name")]


def _tool_fields(tools: Iterable[Any]) -> Iterator[dict[str, Any]]:  # dicts and Tool objects
    for tool in checked_list(tools, "tools", "Pass a list: `tools=[tool]`."):
        fields = tool.to_dict() if hasattr(tool, "to_dict") else tool
        if not isinstance(fields, Mapping):
            raise wrong_type("A tool", "a dict or a Tool", tool, "Create a Tool of a function with `lmdeck.tool`.")
        yield without_nulls(fields)


def _flat_tool(flat: dict[str, Any], fixes: CompatibilityFixes) -> dict[str, Any]:
    if isinstance(flat.get("function"), Mapping):
        flat = {"type": "function", **without_nulls(flat["function"])}
    detail = f"The tool {flat.get('name')!r} got the object schema that LM Studio requires."
    if flat.get("type") == "function" and not flat.get("parameters") and fixes.apply("tool_parameters", detail):
        flat["parameters"] = EMPTY_SCHEMA
    return flat


def _anthropic_tool(fields: dict[str, Any]) -> dict[str, Any]:
    function = fields.get("function")
    if not isinstance(function, Mapping):
        return fields
    if not function.get("name"):
        raise ConfigurationError("A tool needs a name.", hint='Pass {"name": …, "input_schema": {…}}.')
    described = {"description": function["description"]} if function.get("description") else {}
    return {"name": function["name"], **described, "input_schema": function.get("parameters") or EMPTY_SCHEMA}
