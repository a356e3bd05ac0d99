"""The questions of `lm.decide` as request bodies.

The bodies are those of `/v1/decisions`, of `/v1/systemone`, and of a chat that emulates both.

Sources: LM Studio docs `3_openai-compat/decisions.md` and `5_typesafe-compat/systemone.md`; the types of a question and its
limits are those of OpenAI's `decision_create_params` and of TypeSafe's System One (`noul`, `choice`, `score`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Literal, get_args, get_origin

import msgspec
from msgspec import Struct

from lmdeck._compatibility import CompatibilityFixes
from lmdeck._requests.images import checked_url, image_part
from lmdeck.decisions import Question
from lmdeck.errors import ConfigurationError, describe
from lmdeck.images import ImageSource

MAX_QUESTIONS = 400
MAX_OPTIONS = 255
FORMS = "bool, an Enum class, a Literal, a range of whole numbers, or a dict of texts to descriptions"
Kind = Literal["predicate", "choice", "score"]


class Option(Struct, frozen=True):
    """One possible answer: the caller's value, its label in the request, and its meaning."""

    value: Any
    label: str
    description: str = ""


class CheckedQuestion(Struct, frozen=True, kw_only=True):
    """A checked question.

    A predicate's options are True and False, a score's are in ascending order.
    """

    name: str
    kind: Kind
    instructions: str
    options: tuple[Option, ...]


def checked_questions(questions: object) -> list[CheckedQuestion]:
    """Return the questions in one form.

    Raises:
        ConfigurationError: There are none or too many, or one has no instructions or an unsupported type.
    """
    if not isinstance(questions, Mapping) or not 1 <= len(questions) <= MAX_QUESTIONS:
        raise ConfigurationError(
            f"A decision needs between 1 and {MAX_QUESTIONS} questions.",
            hint='Pass a dict: `{"angry": (bool, "Is the customer angry?")}`.',
        )
    return [_checked(name, question) for name, question in questions.items()]


def _checked(name: object, question: object) -> CheckedQuestion:
    if isinstance(question, tuple) and len(question) == 2:
        question = Question(*question)
    if not isinstance(name, str) or not name or not isinstance(question, Question):
        raise ConfigurationError(
            f"The question {describe(repr(name), 80)} is not a pair of a type and instructions.",
            hint='Write it as `"angry": (bool, "Is the customer angry?")`, or use `lmdeck.Question`.',
        )
    if not str(question.instructions).strip():
        raise ConfigurationError(f"The question {name!r} has no instructions.", hint="State the question as text.")
    kind, values = _values(name, question.type)
    described = {**(question.type if isinstance(question.type, Mapping) else {}), **question.descriptions}
    options = tuple(Option(value, _label(value), str(described.get(value) or "")) for value in values)
    labels = {option.label for option in options}
    if not 2 <= len(options) <= MAX_OPTIONS or len(labels) < len(options):
        raise ConfigurationError(
            f"The question {name!r} needs between 2 and {MAX_OPTIONS} different answers.",
            hint="Name each possible answer once.",
        )
    return CheckedQuestion(name=name, kind=kind, instructions=question.instructions, options=options)


def _values(name: str, kind: Any) -> tuple[Kind, list[Any]]:  # a type, or a value that represents one
    if kind is bool:
        return "predicate", [True, False]
    if isinstance(kind, range):
        return "score", sorted(kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "choice", list(kind)
    if get_origin(kind) is Literal:
        return "choice", list(get_args(kind))
    if isinstance(kind, Mapping) and all(isinstance(key, str) for key in kind):
        return "choice", list(kind)
    raise ConfigurationError(
        f"The type of the question {name!r}, {describe(repr(kind), 80)}, has no list of possible answers.",
        hint=f"Use {FORMS}.",
    )


def _label(value: object) -> str:
    if isinstance(value, Enum):
        return value.value if isinstance(value.value, str) else value.name
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


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
    urls = [str(image_part(image, unchanged=unchanged)["image_url"]["url"]) for image in images]
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
