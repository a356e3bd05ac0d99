"""The request body of the page: a question and the messages before it."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from lmdeck._client.paused_run import PausedRun
from lmdeck.errors import ConfigurationError
from lmdeck.messages import Message
from lmdeck.web.stored_messages import StoredMessage
from lmdeck.web.trust import RefusedRequest

MAX_CHARACTERS = 100_000
MAX_MESSAGES = 500
MAX_BODY_BYTES = 4 << 20
"""An upper bound of any valid question: one character can take twelve bytes, as two escapes."""
TOO_LARGE = RefusedRequest(413, f"The question is larger than {MAX_BODY_BYTES} bytes.", "Make it shorter.")


class PageMessage(Struct, frozen=True):
    """A message that the page sends along, because the server does not store the conversation."""

    role: str
    content: str
    ended: str = ""


class PageQuestion(Struct, frozen=True):
    """The new `text`, and either the id of a stored `conversation` or the `messages` before it."""

    text: str
    conversation: str | None = None
    messages: list[PageMessage] = []

    def history(self) -> list[Message]:
        """Return the page's messages; a page may not set a system message, so every role but assistant is user."""
        return [
            message
            for sent in self.messages
            for message in StoredMessage(
                role="assistant" if sent.role == "assistant" else "user",
                content=sent.content,
                ended="stopped" if sent.ended else UNSET,
            ).history()
        ]


class PageDecisions(Struct, frozen=True):
    """The decisions on the calls of a paused `run` of a stored `conversation`, by call id; see `lmdeck.PausedRun`."""

    conversation: str
    run: str
    decisions: dict[str, bool | str]


def shown_paused(paused: PausedRun | None) -> dict[str, Any] | None:
    """Return what the page needs of a paused run: its id, and the ids of the calls that wait for a decision."""
    return None if paused is None else {"run": paused.id, "calls": [call.id for call in paused.calls]}


def check_store(approve: object, store: object) -> None:
    """Refuse to pause runs that nobody stores.

    Raises:
        ConfigurationError: `approve` pauses runs, and there is no store.
    """
    if approve == "pause" and store is None:
        raise ConfigurationError(
            "Runs can be paused only where conversations are stored.",
            hint="Pass `conversations`, or an `approve` function.",
        )


NOT_FOUND = RefusedRequest(404, "There is no such conversation.", "Start a new one.")
NO_LONGER_WAITING = RefusedRequest(
    409, "These tool calls no longer wait for a decision.", "Load the conversation again to see what became of them."
)


class _Kind(Struct):
    run: str | UnsetType = UNSET


def read_request(body: bytes) -> PageQuestion | PageDecisions:
    """Decode and check a question, or decisions.

    Raises:
        ConfigurationError: The body is neither.
    """
    try:
        is_question = msgspec.json.decode(body, type=_Kind).run is UNSET
        if not is_question:
            return msgspec.json.decode(body, type=PageDecisions)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(
            f"The request cannot be decoded: {error}.", hint="Send JSON with a `text`, or a `run` and `decisions`."
        ) from error
    return read_question(body)


def read_question(body: bytes) -> PageQuestion:
    """Decode and check a question.

    Raises:
        ConfigurationError: The body is not a question, or the question is empty or too long.
    """
    hint = "Send JSON with a `text`."
    try:
        question = msgspec.json.decode(body, type=PageQuestion)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(f"The question cannot be decoded: {error}.", hint=hint) from error
    if any("\x00" in text for text in (question.text, *(sent.content for sent in question.messages))):
        raise ConfigurationError("The question contains a NUL character.", hint="Remove it and ask again.")
    if not question.text.strip():
        raise ConfigurationError("The question is empty.", hint=hint)
    if len(question.messages) > MAX_MESSAGES:
        raise ConfigurationError(
            f"The question has more than {MAX_MESSAGES} messages.", hint="Start a new conversation."
        )
    if len(question.text) + sum(len(sent.content) for sent in question.messages) > MAX_CHARACTERS:
        raise ConfigurationError(f"The question has more than {MAX_CHARACTERS} characters.", hint="Make it shorter.")
    return question
