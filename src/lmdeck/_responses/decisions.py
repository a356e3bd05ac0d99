"""The answers of `/v1/decisions` and `/v1/systemone`, as values of the questions' types.

The shapes are OpenAI's (`openai.types.Decision`) and those of TypeSafe's System One, which LM Studio documents as compatible.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from lmdeck._questions import CheckedQuestion
from lmdeck._responses.embeddings import read_usage
from lmdeck._responses.figures import with_openai_names
from lmdeck.decisions import DecisionAnswer, Decisions
from lmdeck.errors import MalformedStreamError, describe

T = TypeVar("T")
REFUSED = DecisionAnswer(value=None, refused=True)


def read_decisions(body: object, questions: Sequence[CheckedQuestion], model: str) -> Decisions:
    """Read the answer of `/v1/decisions`.

    It is a list in the order of the questions, or with their names.

    Raises:
        MalformedStreamError: An answer is missing, or has another type than its question.
    """
    answers = _member(body, "answers", list)
    if len(answers) != len(questions):
        raise MalformedStreamError(
            f"The server answered {len(answers)} of {len(questions)} questions: {describe(str(body))}"
        )
    named = {each.get("name"): each for each in answers if isinstance(each, Mapping)}
    in_order = dict(zip((question.name for question in questions), answers, strict=True))
    is_named = named.keys() == in_order.keys()
    return _decisions(body, questions, named if is_named else in_order, model)


def read_systemone(body: object, questions: Sequence[CheckedQuestion], model: str) -> Decisions:
    """Read the answer of `/v1/systemone`; a question without an answer was declined.

    Raises:
        MalformedStreamError: There are no answers, or one has another type than its question.
    """
    answers = _member(body, "answers", dict)
    return _decisions(body, questions, answers, model)


def _decisions(
    body: object, questions: Sequence[CheckedQuestion], answers: Mapping[Any, object], model: str
) -> Decisions:
    fields = body if isinstance(body, Mapping) else {}
    usage = fields.get("usage")
    return Decisions(
        answers={question.name: _answer(question, answers.get(question.name)) for question in questions},
        model=str(fields.get("model") or model),
        usage=read_usage({"usage": with_openai_names(usage)}) if isinstance(usage, Mapping) else None,
        raw=body,
    )


def _answer(question: CheckedQuestion, entry: object) -> DecisionAnswer:
    if entry is None or (isinstance(entry, Mapping) and entry.get("type") == "refusal"):
        return REFUSED
    if not isinstance(entry, Mapping):
        raise _mismatch(question, entry)
    confidence = entry.get("confidence")
    known = _probability(question, confidence) if confidence is not None else None
    if question.kind == "predicate":
        return _predicate(question, entry)
    probabilities = _probabilities(question, entry.get("probabilities"))
    if question.kind == "score":
        return _score(question, entry, probabilities, known)
    value = _chosen(question, entry.get("choice"))
    return DecisionAnswer(
        value=value, probability=probabilities.get(value), probabilities=probabilities, confidence=known
    )


def _predicate(question: CheckedQuestion, entry: Mapping[str, Any]) -> DecisionAnswer:
    true = _probability(question, entry.get("probability", entry.get("noul")))
    value = true >= 0.5
    return DecisionAnswer(
        value=value, probability=true if value else 1 - true, probabilities={True: true, False: 1 - true}
    )


def _score(
    question: CheckedQuestion, entry: Mapping[str, Any], probabilities: dict[Any, float], confidence: float | None
) -> DecisionAnswer:
    """Read a position on the scale of levels, counted from 0; the value is the nearest level."""
    position = entry.get("score")
    last = len(question.options) - 1
    if not isinstance(position, (int, float)) or isinstance(position, bool) or not 0 <= position <= last:
        raise _mismatch(question, entry)
    values = [option.value for option in question.options]
    below = min(int(position), last - 1)
    value = values[math.floor(position + 0.5)]
    return DecisionAnswer(
        value=value,
        probability=probabilities.get(value),
        probabilities=probabilities,
        score=values[below] + (position - below) * (values[below + 1] - values[below]),
        confidence=confidence,
    )


def _probabilities(question: CheckedQuestion, value: object) -> dict[Any, float]:
    """Read the probability of each value.

    OpenAI sends a list of objects, System One an object of labels or level numbers.
    """
    pairs: list[tuple[object, object]]
    if isinstance(value, Mapping):
        pairs = list(value.items())
    elif isinstance(value, list):
        entries = [each for each in value if isinstance(each, Mapping)]
        pairs = [(each.get("value"), each.get("probability")) for each in entries]
    else:
        return {}
    return {_chosen(question, key): _probability(question, number) for key, number in pairs}


def _chosen(question: CheckedQuestion, label: object) -> Any:  # a value of the question's type
    if question.kind == "score":
        number = int(label) if isinstance(label, str) and label.isdecimal() else label
        if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < len(question.options):
            return question.options[number].value
        raise _mismatch(question, label)
    for option in question.options:
        if label == option.label or (isinstance(label, bool) and label is option.value):
            return option.value
    raise _mismatch(question, label)


def _probability(question: CheckedQuestion, value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not -1e-6 <= value <= 1 + 1e-6:
        raise _mismatch(question, value)
    return min(max(float(value), 0.0), 1.0)


def _mismatch(question: CheckedQuestion, value: object) -> MalformedStreamError:
    return MalformedStreamError(
        f"The answer to the question {question.name!r} is not a valid {question.kind}: {describe(str(value))}"
    )


def _member(body: object, name: str, kind: type[T]) -> T:
    found = body.get(name) if isinstance(body, Mapping) else None
    if not isinstance(found, kind):
        raise MalformedStreamError(f"The server's decision has no {name}: {describe(str(body))}")
    return found
