"""Images in tool results, moved into user messages.

LM Studio accepts images only there; in tool results it reports “Invalid 'messages' in payload” (QwenLM/qwen-code#3616,
OpenHands/OpenHands#7700).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lmdeck._compatibility import CompatibilityFixes
from lmdeck._requests.images import checked_url, image_part
from lmdeck.messages import Message
from lmdeck.tools.result import read_result

Parts = list[dict[str, Any]]
IN_THE_NEXT_MESSAGE = "[image: it is in the next user message]"


def tool_message(call_id: str, result: object) -> Message:
    """Return the message of a tool's result: its text, and its images as content parts.

    Raises:
        ConfigurationError: An image in the result cannot be read.
        InvalidRequestError: LM Studio does not accept an image in the result.
        TypeError: JSON cannot represent the result.
    """
    text, images = read_result(result)
    parts = [{"type": "text", "text": text}, *map(image_part, images)] if images else text
    return Message(role="tool", content=parts, tool_call_id=call_id)


def with_images_after_results(
    messages: Iterable[dict[str, Any]], fixes: CompatibilityFixes
) -> Iterator[dict[str, Any]]:
    """Yield the messages, with the images of tool results in a user message after them.

    The results of one answer stay together. If a user message follows, the images are added to it.
    """
    names: dict[str, str] = {}
    moved: Parts = []
    for message in messages:
        names |= {call["id"]: call["function"]["name"] for call in message.get("tool_calls", ())}
        if message["role"] == "tool":
            yield _without_images(message, names, moved, fixes)
            continue
        if moved and message["role"] == "user":
            message = {**message, "content": [*moved, *_parts(message["content"])]}
        elif moved:
            yield {"role": "user", "content": moved}
        moved = []
        yield message
    if moved:
        yield {"role": "user", "content": moved}


def _without_images(
    message: dict[str, Any], names: Mapping[str, str], moved: Parts, fixes: CompatibilityFixes
) -> dict[str, Any]:
    """Return a tool's result without its images, which are appended to `moved`."""
    parts = message["content"]
    images = _images(parts, "image_url")
    name = names.get(message["tool_call_id"], "a tool")
    if not images or not fixes.apply("tool_images", _detail(name, images)):
        return message
    moved += [{"type": "text", "text": f"Images returned by {name}:"}, *images]
    return {**message, "content": _text_without(parts, "image_url")}


def _detail(name: str, images: Parts) -> str:
    return f"Images in the result of {name} were sent in a user message after it: {len(images)}."


def anthropic_images_after_results(
    messages: Iterable[dict[str, Any]], fixes: CompatibilityFixes
) -> Iterator[dict[str, Any]]:
    """Yield Anthropic's messages, with the images of tool results in a user message after them.

    LM Studio refuses a `tool_result` with an image block (lmstudio-bug-tracker #1590).
    """
    names: dict[str, str] = {}
    for message in messages:
        content = message.get("content")
        moved: Parts = []
        if isinstance(content, list):
            blocks = [block for block in content if isinstance(block, Mapping)]
            names |= {
                str(block.get("id")): str(block.get("name")) for block in blocks if block.get("type") == "tool_use"
            }
            content = [_block_without_images(block, names, moved, fixes) for block in content]
        yield {**message, "content": content}
        if moved:
            yield {"role": "user", "content": moved}


def response_images_after_results(
    items: Iterable[Any], fixes: CompatibilityFixes
) -> Iterator[Any]:  # items of any kind
    """Yield the items of an input, with the images of tool results in a user message after them.

    LM Studio and llama.cpp refuse them in a `function_call_output` (lmstudio-bug-tracker #2200, ggml-org/llama.cpp#23380).
    """
    names: dict[str, str] = {}
    moved: Parts = []
    for item in items:
        kind = item.get("type") if isinstance(item, Mapping) else None
        if kind == "function_call_output":
            yield _output_without_images(item, names, moved, fixes)
            continue
        if kind == "function_call":
            names[str(item.get("call_id"))] = str(item.get("name"))
        if moved:
            yield {"type": "message", "role": "user", "content": moved}
            moved = []
        yield item
    if moved:
        yield {"type": "message", "role": "user", "content": moved}


def _output_without_images(
    item: Mapping[str, Any], names: Mapping[str, str], moved: Parts, fixes: CompatibilityFixes
) -> Mapping[str, Any]:
    """Return the result of a call as one text; its images are appended to `moved`."""
    parts: Any = item.get("output")
    images = _images(parts, "input_image")
    name = names.get(str(item.get("call_id")), "a tool")
    if images and fixes.apply("tool_images", _detail(name, images)):
        checked = [{**image, "image_url": _checked(image.get("image_url"), fixes)} for image in images]
        moved += [{"type": "input_text", "text": f"Images returned by {name}:"}, *checked]
        return {**item, "output": _text_without(parts, "input_image")}
    return item


def _checked(url: object, fixes: CompatibilityFixes) -> object:
    return checked_url(url, fixes) if isinstance(url, str) and fixes.is_enabled("images") else url


def _block_without_images(
    block: Any, names: Mapping[str, str], moved: Parts, fixes: CompatibilityFixes
) -> Any:  # blocks of any kind
    is_result = isinstance(block, Mapping) and block.get("type") == "tool_result"
    parts: Any = block.get("content") if is_result else None
    images = _images(parts, "image")
    name = names.get(str(block.get("tool_use_id")), "a tool")
    if not images or not fixes.apply("tool_images", _detail(name, images)):
        return block
    moved += [{"type": "text", "text": f"Images returned by {name}:"}, *images]
    return {**block, "content": _text_without(parts, "image")}


def _images(parts: object, kind: str) -> Parts:
    return (
        [part for part in parts if isinstance(part, dict) and part.get("type") == kind]
        if isinstance(parts, list)
        else []
    )


def _text_without(parts: Iterable[Any], moved: str) -> str:
    """Return the text of a result without the parts of one type; parts of other types are named."""
    others = [part for part in parts if isinstance(part, Mapping) and part.get("type") != moved]
    texts = [str(part.get("text", f"[{part.get('type')}]")) for part in others]
    return "\n".join(texts) or IN_THE_NEXT_MESSAGE


def _parts(content: object) -> Parts:
    return list(content) if isinstance(content, list) else [{"type": "text", "text": str(content)}]
