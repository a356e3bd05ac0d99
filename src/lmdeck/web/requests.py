"""The request body of the page: a question and the messages before it."""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from lmdeck._client.paused_run import PausedRun
from lmdeck._incoming.trust import RefusedRequest
from lmdeck.errors import ConfigurationError
from lmdeck.messages import Message
from lmdeck.web.stored_messages import StoredCall, StoredMessage, title_of

MAX_CHARACTERS = 100_000
MAX_MESSAGES = 500
MAX_IMAGES = 4
MAX_BODY_BYTES = 4 << 20
"""An upper bound of any valid question.

One character can take twelve bytes, as two escapes. The page scales images down.
"""
TOO_LARGE = RefusedRequest(413, f"The question is larger than {MAX_BODY_BYTES} bytes.", "Make it shorter.")
_IMAGE = re.compile(r"data:image/(?:png|jpeg|webp|gif);base64,[A-Za-z0-9+/]+={0,2}")


class PageMessage(Struct, frozen=True):
    """A message that the page sends along because the server does not store the conversation."""

    role: str
    content: str
    ended: str = ""
    images: tuple[str, ...] = ()
    calls: tuple[StoredCall, ...] = ()

    def stored(self) -> StoredMessage:
        """Return the message.

        Every role but assistant becomes user, as a page sets no system message.
        """
        is_answer = self.role == "assistant"
        return StoredMessage(
            role="assistant" if is_answer else "user",
            content=self.content,
            calls=self.calls if is_answer else (),
            images=UNSET if is_answer else self.images or UNSET,
            ended="stopped" if self.ended else UNSET,
        )


class PageQuestion(Struct, frozen=True):
    """The new `text` with its `images` (data URIs), and the conversation that it continues.

    `conversation` is the id of a stored one; otherwise `messages` are those before the question. `replaces` is the index, among
    the questions of a stored conversation, of the one that this question replaces; it and all later messages are removed.
    """

    text: str
    conversation: str | None = None
    messages: list[PageMessage] = []
    images: tuple[str, ...] = ()
    replaces: Annotated[int, Meta(ge=0, le=1_000_000)] | UnsetType = UNSET
    is_stateless: bool = False
    """Whether the front end sends all messages with each question, so that nothing is stored."""

    def history(self) -> list[Message]:
        """Return the messages before the question."""
        return [message for sent in self.messages for message in sent.stored().history()]

    def all_messages(self) -> list[Message]:
        """Return the messages before the question, and the question."""
        return [*self.history(), *self.message().history()]

    def message(self) -> StoredMessage:
        """Return the question as a message."""
        return StoredMessage(role="user", content=self.text, images=self.images or UNSET)


class PageDecisions(Struct, frozen=True):
    """The decisions on the calls of a paused `run` of a stored `conversation`, by call id.

    See `lmdeck.PausedRun`.
    """

    conversation: str
    run: str
    decisions: dict[str, bool | str]


def paused_summary(paused: PausedRun | None) -> dict[str, Any] | None:
    """Return what the page needs of a paused run: its id, and the ids of the waiting calls."""
    return None if paused is None else {"run": paused.id, "calls": [call.id for call in paused.calls]}


def check_store(approve: object, store: object) -> None:
    """Check that paused runs can be stored.

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
    try:
        question = msgspec.json.decode(body, type=PageQuestion)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(
            f"The question cannot be decoded: {error}.", hint="Send JSON with a `text`."
        ) from error
    check_question(question)
    return question


def check_question(question: PageQuestion) -> None:
    """Check the limits of a question.

    Raises:
        ConfigurationError: The question is empty or too long, or an image is not a data URI.
    """
    sizes = [len(question.text), *(len(sent.content) for sent in question.messages)]
    images = [*question.images, *(image for sent in question.messages for image in sent.images)]
    if any("\x00" in text for text in (question.text, *(sent.content for sent in question.messages))):
        raise ConfigurationError("The question contains a NUL character.", hint="Remove it and ask again.")
    if not question.text.strip():
        raise ConfigurationError("The question is empty.", hint="Send JSON with a `text`.")
    if len(question.messages) > MAX_MESSAGES:
        raise ConfigurationError(
            f"The question has more than {MAX_MESSAGES} messages.", hint="Start a new conversation."
        )
    if sum(sizes) > MAX_CHARACTERS:
        raise ConfigurationError(f"The question has more than {MAX_CHARACTERS} characters.", hint="Make it shorter.")
    if len(question.images) > MAX_IMAGES:
        raise ConfigurationError(f"The question has more than {MAX_IMAGES} images.", hint="Remove some.")
    if not all(_IMAGE.fullmatch(image) for image in images):
        raise ConfigurationError(
            "An image is not a base64 data URI.", hint="Send PNG, JPEG, WebP or GIF as data:image/…;base64,…."
        )


class _NewTitle(Struct, frozen=True):
    title: str


def title_from(body: bytes) -> str:
    """Return the new title of a conversation, in one line and shortened.

    Raises:
        ConfigurationError: The body has no title.
    """
    try:
        title = title_of(msgspec.json.decode(body, type=_NewTitle).title)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The title cannot be decoded: {error}.", hint="Send JSON with a `title`.") from error
    if not title or "\x00" in title:
        raise ConfigurationError("The title is empty or contains a NUL character.", hint="Send another one.")
    return title
