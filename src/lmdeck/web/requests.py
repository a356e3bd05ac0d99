"""What the page asks for: a question, and what was said before it."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, Struct

from lmdeck.errors import ConfigurationError
from lmdeck.messages import Message
from lmdeck.web.stored_messages import KeptMessage
from lmdeck.web.trust import Refused

__all__ = ["MAX_BODY_BYTES", "MAX_CHARACTERS", "MAX_MESSAGES", "TOO_LARGE", "Question", "read_question"]

MAX_CHARACTERS = 100_000
MAX_MESSAGES = 500
MAX_BODY_BYTES = 4 << 20
"""Larger than any question: a character may take twelve bytes, as two escapes."""
TOO_LARGE = Refused(413, f"The question is larger than {MAX_BODY_BYTES} bytes.", "Make it shorter.")


class Said(Struct, frozen=True):
    """A message that the page remembers itself, where nothing is kept."""

    role: str
    content: str
    ended: str = ""


class Question(Struct, frozen=True):
    """The new `text`, and either the `conversation` that is kept or the `messages` before it."""

    text: str
    conversation: str | None = None
    messages: list[Said] = []

    def before(self) -> list[Message]:
        """Give what the page says was said: of user and assistant alone, for a page writes no system messages."""
        return [
            message
            for said in self.messages
            for message in KeptMessage(
                role="assistant" if said.role == "assistant" else "user",
                content=said.content,
                ended="stopped" if said.ended else UNSET,
            ).history()
        ]


def read_question(body: bytes) -> Question:
    """Read a question.

    Raises:
        ConfigurationError: It is no question, empty, or too long.
    """
    hint = "Send JSON with a `text`."
    try:
        question = msgspec.json.decode(body, type=Question)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(f"The question cannot be read: {error}.", hint=hint) from error
    if any("\x00" in text for text in (question.text, *(said.content for said in question.messages))):
        raise ConfigurationError("The question has a NUL character.", hint="Remove it and ask again.")
    if not question.text.strip():
        raise ConfigurationError("The question is empty.", hint=hint)
    if len(question.messages) > MAX_MESSAGES:
        raise ConfigurationError(
            f"The question has more than {MAX_MESSAGES} messages.", hint="Begin a new conversation."
        )
    if len(question.text) + sum(len(said.content) for said in question.messages) > MAX_CHARACTERS:
        raise ConfigurationError(f"The question has more than {MAX_CHARACTERS} characters.", hint="Make it shorter.")
    return question
