"""Prompts that let any model answer a typed question with one letter."""

from __future__ import annotations

from string import ascii_uppercase
from typing import TYPE_CHECKING

from lmdeck.server.backend import BackendError
from lmdeck.server.text_model import LetterChoice

if TYPE_CHECKING:
    from lmdeck.server.jobs import DecisionOption, DecisionQuestion


def decision_prompt(text: str, question: DecisionQuestion) -> LetterChoice:
    """Return the prompt for one question, and the letters of its options.

    Raises:
        BackendError: The question has more options than there are letters.
    """
    if len(question.options) > len(ascii_uppercase):
        raise BackendError(
            f"This server decides between at most {len(ascii_uppercase)} options. Ask with fewer options.",
            code="too_many_options",
        )
    letters = ascii_uppercase[: len(question.options)]
    listed = [f"{letter}) {_option_text(option)}" for letter, option in zip(letters, question.options, strict=True)]
    lines = [text, "", f"Question: {question.instructions}", *listed, "Answer with the letter alone."]
    return LetterChoice("\n".join(lines), letters)


def _option_text(option: DecisionOption) -> str:
    value = str(option.value).lower() if isinstance(option.value, bool) else option.value
    return f"{value}: {option.description}" if option.description else value
