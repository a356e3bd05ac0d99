"""Requests of `/v1/decisions` and `/v1/systemone`: typed questions.

Their formats are OpenAI's and TypeSafe's.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from lmdeck.server.errors import Refusal, invalid, no_models_loaded
from lmdeck.server.jobs import DecisionJob, DecisionOption, DecisionQuestion
from lmdeck.server.requests.body import choose_model, image_uri

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lmdeck.server.jobs import ModelDescription

MAX_QUESTIONS = 400
MAX_OPTIONS = 255
PREDICATE = (DecisionOption(True), DecisionOption(False))
KINDS = "'predicate', 'choice' or 'score'"


def decision_job(body: Mapping[str, Any], models: Sequence[ModelDescription]) -> DecisionJob:
    """Validate a request of `/v1/decisions` (OpenAI's `decision_create_params`).

    Raises:
        Refusal: The request is invalid.
    """
    questions = body.get("questions")
    if not isinstance(questions, list) or not 1 <= len(questions) <= MAX_QUESTIONS:
        raise invalid(f"'questions' field must be an array of 1 to {MAX_QUESTIONS} questions", param="questions")
    value = body.get("input")
    images: list[str] = []
    if isinstance(value, str):
        text = value
    elif isinstance(value, list):
        text = "\n".join(line for item in value for line in _lines(item, images))
    else:
        raise invalid("'input' field must be a string or an array of messages", param="input")
    return DecisionJob(
        model=_decision_model(body.get("model"), models),
        text=text,
        images=tuple(images),
        questions=tuple(_question(question) for question in questions),
    )


def systemone_job(body: Mapping[str, Any], models: Sequence[ModelDescription]) -> DecisionJob:
    """Validate a request of `/v1/systemone`.

    Source: LM Studio's docs, `5_typesafe-compat/systemone.md`.

    Raises:
        Refusal: The request is invalid.
    """
    questions = body.get("questions")
    if not isinstance(questions, dict) or not 1 <= len(questions) <= MAX_QUESTIONS:
        raise invalid(f"'questions' field must be an object of 1 to {MAX_QUESTIONS} questions", param="questions")
    if body.get("state") in (None, ""):
        raise invalid("'state' field is required", param="state")
    images: list[str] = []
    state = _without_images(body["state"], images)
    return DecisionJob(
        model=_decision_model(body.get("model"), models),
        text=state if isinstance(state, str) else json.dumps(state, ensure_ascii=False),
        images=tuple(images),
        questions=tuple(_systemone_question(name, question) for name, question in questions.items()),
    )


def _decision_model(name: object, models: Sequence[ModelDescription]) -> str:
    deciding = [model for model in models if model.decides]
    if not name:
        if not deciding:
            raise no_models_loaded()
        return deciding[0].key
    key = choose_model(name, models)
    if all(model.key != key for model in deciding):
        message = f'Model "{key}" is not a decision model. Please load a decision model and use its identifier.'
        raise Refusal(400, message, param="model", code="invalid_model")
    return key


def _question(value: object) -> DecisionQuestion:
    question = value if isinstance(value, dict) else {}
    name = question.get("name")
    if name is not None and not isinstance(name, str):
        raise invalid("'questions.name' field must be a string", param="questions")
    kind = question.get("type")
    if kind == "predicate":
        options: tuple[DecisionOption, ...] = PREDICATE
    elif kind == "choice":
        options = _options(question.get("choices"), "choices", "value", (str, bool))
    elif kind == "score":
        options = _options(question.get("levels"), "levels", "label", (str,))
    else:
        raise invalid(f"'questions.type' field must be {KINDS}", param="questions")
    words = _instructions(question.get("instructions"))
    return DecisionQuestion(name=name, kind=kind, instructions=words, options=options)


def _instructions(value: object) -> str:
    if isinstance(value, list):
        value = "\n".join(str(part["text"]) for part in value if isinstance(part, dict) and "text" in part)
    if not isinstance(value, str) or not value:
        raise invalid("'questions.instructions' field must be a string", param="questions")
    return value


def _options(value: object, name: str, field: str, kinds: tuple[type, ...]) -> tuple[DecisionOption, ...]:
    entries = value if isinstance(value, list) else []
    if not all(isinstance(entry, dict) and isinstance(entry.get(field), kinds) for entry in entries):
        raise invalid(f"'questions.{name}' field must be an array of objects with a '{field}'", param="questions")
    options = tuple(DecisionOption(entry[field], str(entry.get("description") or "")) for entry in entries)
    return _checked(options, name)


def _checked(options: tuple[DecisionOption, ...], name: str) -> tuple[DecisionOption, ...]:
    values = {(type(option.value), option.value) for option in options}
    if not 2 <= len(options) <= MAX_OPTIONS or len(values) < len(options):
        raise invalid(f"'questions.{name}' must have 2 to {MAX_OPTIONS} different entries", param="questions")
    return options


def _systemone_question(name: str, value: object) -> DecisionQuestion:
    question = value if isinstance(value, dict) else {}
    criteria = question.get("criteria")
    kind: Literal["predicate", "choice", "score"]
    options: tuple[DecisionOption, ...]
    match question.get("type"), criteria:
        case "noul", _:
            kind, options = "predicate", PREDICATE
        case "choice", dict():
            named = tuple(DecisionOption(label, str(about or "")) for label, about in criteria.items())
            kind, options = "choice", _checked(named, "criteria")
        case "score", list():
            kind, options = "score", _checked(tuple(DecisionOption(str(level)) for level in criteria), "criteria")
        case _:
            raise invalid(
                f"Question '{name}' must be a 'noul', a 'choice' with an object of 'criteria' or a 'score' with an array"
            )
    words = _instructions(question.get("instructions"))
    return DecisionQuestion(name=name, kind=kind, instructions=words, options=options)


def _lines(item: object, images: list[str]) -> Iterator[str]:
    """Yield the text of an item of `input`.

    Images of a message are collected; other items are written as JSON.
    """
    if not isinstance(item, dict):
        raise invalid("'input' field must be a string or an array of messages", param="input")
    if item.get("type", "message") != "message":
        yield json.dumps(item, ensure_ascii=False)
        return
    content = item.get("content")
    if isinstance(content, str):
        yield content
        return
    for part in content if isinstance(content, list) else ():
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "input_image":
            images.append(image_uri(part.get("image_url")))
        elif kind in {"input_text", "output_text"}:
            yield str(part.get("text", ""))
        else:
            yield json.dumps(part, ensure_ascii=False)


def _without_images(state: Any, images: list[str]) -> Any:  # JSON at any depth
    """Return a state with its image data URLs replaced by references.

    The URLs are collected in `images`.
    """
    if isinstance(state, str) and state.startswith("data:"):
        images.append(image_uri(state))
        return f"[image {len(images)}]"
    if isinstance(state, list):
        return [_without_images(each, images) for each in state]
    if isinstance(state, dict):
        return {name: _without_images(each, images) for name, each in state.items()}
    return state
