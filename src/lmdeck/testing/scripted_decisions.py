"""Scripted answers to typed questions, as a probability for each option."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lmdeck.server.backend import BackendError

if TYPE_CHECKING:
    from lmdeck.server.jobs import DecisionQuestion


def distribution(question: DecisionQuestion, scripted: Mapping[str, Any]) -> tuple[float, ...] | None:
    """Return the probability of each option; None if the script declines to answer.

    Raises:
        BackendError: The script names an option that the question does not have.
    """
    values = [option.value for option in question.options]
    if question.name is None or question.name not in scripted:
        return tuple(1 / len(values) for _ in values)
    scripted_answer = scripted[question.name]
    if scripted_answer is None:
        return None
    if question.kind == "predicate" and isinstance(scripted_answer, (int, float)):
        return (float(scripted_answer), 1 - float(scripted_answer))
    chosen = scripted_answer if isinstance(scripted_answer, Mapping) else {scripted_answer: 1.0}
    unknown = [label for label in chosen if label not in values]
    if unknown:
        message = f"The question {question.name!r} has no option {unknown[0]!r}; it has {values}."
        raise BackendError(message, status=501)
    return tuple(float(chosen.get(value, 0.0)) for value in values)
