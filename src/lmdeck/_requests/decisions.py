"""The questions of `lm.decide` as request bodies.

The bodies are those of `/v1/decisions`, of `/v1/systemone`, and of a chat that emulates both.

Sources: LM Studio docs `3_openai-compat/decisions.md` and `5_typesafe-compat/systemone.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from lmdeck._compatibility import CompatibilityFixes
from lmdeck._questions import CheckedQuestion, Option
from lmdeck._requests.images import checked_images, checked_url, image_part
from lmdeck.errors import ConfigurationError
from lmdeck.images import ImageSource


def state_text(state: object) -> str:
    """Return the input of a decision as text; anything but text becomes JSON.

    Raises:
        ConfigurationError: It is empty, or cannot be written as JSON.
    """
    if isinstance(state, str):
        text = state
    else:
        try:
            text = msgspec.json.encode(state).decode()
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise ConfigurationError(
                f"The input of a decision cannot be written as JSON: {error}.", hint="Pass text or plain data."
            ) from error
    if not text.strip():
        raise ConfigurationError("The input of the decision is empty.", hint="Pass a text, or data, as `input`.")
    return text


def image_urls(images: Sequence[ImageSource], fixes: CompatibilityFixes) -> list[str]:
    """Return images as data URLs: LM Studio's decision models accept only inline base64.

    Raises:
        ConfigurationError: An image cannot be read, is too large, or is not of a known format.
        InvalidRequestError: An image is a URL, or LM Studio does not accept its format and Pillow is not installed.
    """
    unchanged = not fixes.is_enabled("images")
    urls = [str(image_part(image, unchanged=unchanged)["image_url"]["url"]) for image in checked_images(images)]
    return urls if unchanged else [checked_url(url, fixes) for url in urls]


def decisions_body(
    model: str, text: str, images: Sequence[str], questions: Sequence[CheckedQuestion]
) -> dict[str, Any]:
    """Build the body of `POST /v1/decisions`."""
    input_: str | list[dict[str, Any]] = text
    if images:
        parts = [{"type": "input_image", "image_url": url} for url in images]
        input_ = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}, *parts]}]
    return {"model": model, "input": input_, "questions": [_openai_question(question) for question in questions]}


def _openai_question(question: CheckedQuestion) -> dict[str, Any]:
    body: dict[str, Any] = {"type": question.kind, "name": question.name, "instructions": _instructions(question)}
    if question.kind == "choice":
        body["choices"] = [_described("value", _openai_value(option), option) for option in question.options]
    elif question.kind == "score":
        body["levels"] = [_described("label", option.label, option) for option in question.options]
    return body


def _openai_value(option: Option) -> str | bool:
    return option.value if isinstance(option.value, bool) else option.label


def _described(name: str, value: object, option: Option) -> dict[str, Any]:
    return {name: value, **({"description": option.description} if option.description else {})}


def _instructions(question: CheckedQuestion) -> str:
    """Return the instructions; for a predicate, with the meanings of True and False."""
    if question.kind != "predicate":
        return question.instructions
    meanings = [f"{option.label}: {option.description}" for option in question.options if option.description]
    return "\n".join([question.instructions, *meanings])


def systemone_body(
    model: str, text: str, images: Sequence[str], questions: Sequence[CheckedQuestion]
) -> dict[str, Any]:
    """Build the body of `POST /v1/systemone`, whose images are data URLs within the state."""
    state: str | dict[str, Any] = {"text": text, "images": list(images)} if images else text
    return {"model": model, "state": state, "questions": {each.name: _systemone_question(each) for each in questions}}


def _systemone_question(question: CheckedQuestion) -> dict[str, Any]:
    if question.kind == "predicate":
        return {"type": "noul", "instructions": _instructions(question)}
    criteria: object = {option.label: option.description or None for option in question.options}
    if question.kind == "score":
        criteria = [
            f"{each.label}: {each.description}" if each.description else each.label for each in question.options
        ]
    return {"type": question.kind, "instructions": question.instructions, "criteria": criteria}
