"""Typed questions for decision models, and their answers with probabilities.

Source: LM Studio's docs, `3_openai-compat/decisions.md`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from msgspec import Struct, field

from lmdeck.messages import Problem
from lmdeck.stats import Usage

__all__ = ["DecisionAnswer", "Decisions", "Question", "QuestionLike"]


class Question(Struct, frozen=True):
    """One question: the type of its answer, and what is asked.

    `type` is `bool`, an `Enum` class, a `Literal[…]` of texts, numbers or booleans, a `range` of whole numbers (an ordered
    scale), or a mapping of texts to their meanings. `descriptions` maps values to their meanings.
    """

    type: Any
    instructions: str
    descriptions: Mapping[Any, str] = {}


QuestionLike: TypeAlias = Question | tuple[Any, str]


class DecisionAnswer(Struct, frozen=True, kw_only=True):
    """The answer to one question.

    `value` is of the question's type, and None where the model declined to answer (`refused`). `probabilities` has every
    possible value; `probability` is that of `value`, so a `bool` that is False has the probability of being False. All are
    None or empty where they are not known, as with `emulate=True`. `score` is the expected value on an ordered scale, in the
    scale's own numbers; `confidence`, from 0 to 1, is the server's.
    """

    value: Any
    probability: float | None = None
    probabilities: dict[Any, float] = field(default_factory=dict)
    score: float | None = None
    confidence: float | None = None
    refused: bool = False


class Decisions(Struct, frozen=True, kw_only=True):
    """The answers to all questions of one `lm.decide`, by the questions' names.

    `raw` is the server's body.
    """

    answers: dict[str, DecisionAnswer]
    model: str = ""
    usage: Usage | None = None
    problems: list[Problem] = field(default_factory=list)
    raw: object = None

    def __getitem__(self, name: str) -> DecisionAnswer:
        return self.answers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.answers)

    def __len__(self) -> int:
        return len(self.answers)
