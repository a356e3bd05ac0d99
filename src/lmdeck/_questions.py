"""The checked questions of `lm.decide`, for its request and for reading its answer.

The types of a question and its limits are those of OpenAI's `decision_create_params` and of TypeSafe's System One (`noul`,
`choice`, `score`).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Literal, get_args, get_origin

import msgspec
from msgspec import Struct

from lmdeck.decisions import Question
from lmdeck.errors import ConfigurationError, describe

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
