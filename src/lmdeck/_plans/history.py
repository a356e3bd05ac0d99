"""A conversation as an immutable value, which can be extended, trimmed, saved and loaded."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from msgspec import Struct

from lmdeck._arguments import checked_text, wrong_type
from lmdeck._files import replace_file
from lmdeck._requests.tool_images import tool_message
from lmdeck._text import replace_lone_surrogates
from lmdeck.errors import ConfigurationError
from lmdeck.messages import Message, Reply, ToolCall

CHARACTERS_PER_TOKEN = 3.5
TOKENS_PER_MESSAGE = 4
FORMAT = "lmdeck history 1"
SAVED = "Pass the path of a file, as to `save`."


class SummaryChat(Protocol):
    """A chat of the sync client."""

    def with_messages(self, messages: Iterable[Message | Mapping[str, Any]]) -> Self:
        """Add messages."""
        ...

    def send(self) -> Reply:
        """Send the chat, and return the reply."""
        ...


class AsyncSummaryChat(Protocol):
    """A chat of the async client."""

    def with_messages(self, messages: Iterable[Message | Mapping[str, Any]]) -> Self:
        """Add messages."""
        ...

    async def send(self) -> Reply:
        """Send the chat, and return the reply."""
        ...


class History(Struct, frozen=True):
    """The messages of a conversation; every method returns a new history.

    It can be passed to a chat: `chat.with_messages(history)`.
    """

    messages: tuple[Message, ...] = ()

    def system(self, text: str) -> Self:
        """Set the system message, in place of an earlier one.

        Raises:
            ConfigurationError: `text` is not text.
        """
        message = Message(role="system", content=checked_text(text, "A system message"))
        rest = self.messages[1:] if self.messages and self.messages[0].role == "system" else self.messages
        return type(self)((message, *rest))

    def user(self, text: str) -> Self:
        """Add a user message.

        Raises:
            ConfigurationError: `text` is not text.
        """
        return self._with(Message(role="user", content=checked_text(text, "A user message")))

    def add(self, *items: Reply | Message | Mapping[str, Any]) -> Self:
        """Add replies and messages.

        For the reply of a run, all messages of the run are added: calls, results and the answer.

        Raises:
            ConfigurationError: An item is neither a reply nor a message.
        """
        added: list[Message] = []
        for item in items:
            if isinstance(item, Reply):
                added += item.messages or [item.message]
            else:
                added.append(item if isinstance(item, Message) else Message.from_dict(item))
        return self._with(*added)

    def tool_result(self, call: ToolCall, result: object) -> Self:
        """Add the result of a call: text unchanged, images as images, everything else as JSON.

        Raises:
            ConfigurationError: It is not a call, not in the history, or already has a result.
            InvalidRequestError: LM Studio does not accept an image in it.
            TypeError: JSON cannot represent the result.
        """
        if not isinstance(call, ToolCall):
            raise wrong_type("call", "a ToolCall", call, "Pass a call of `reply.tool_calls`.")
        waiting = {one.id for message in self.messages for one in message.tool_calls}
        waiting -= {message.tool_call_id for message in self.messages if message.role == "tool"}
        if call.id not in waiting:
            raise ConfigurationError(
                f"This history has no call {call.id!r} of {call.name!r} without a result.",
                hint="Add the reply with the call first, and each result once.",
            )
        return self._with(tool_message(call.id, result))

    def trimmed(self, max_tokens: int, count: Callable[[Message], int] | None = None) -> Self:
        """Return the history without its oldest messages, so that the rest fits in `max_tokens`.

        The system message and the last exchange always remain. Calls and their results are dropped together, and the rest
        starts with a user message. `count` returns the tokens of a message; by default, they are estimated from its length
        (3.5 characters per token, 4 tokens per message), which is too many for English.
        """
        measure = count or _estimate
        is_led = bool(self.messages) and self.messages[0].role == "system"
        system, rest = self.messages[:is_led], self.messages[is_led:]
        exchanges = exchanges_of(rest)
        sizes = [sum(map(measure, exchange)) for exchange in exchanges]
        remaining = max_tokens - sum(map(measure, system)) - sum(sizes[-1:])
        first = len(exchanges) - 1
        while first > 0 and sizes[first - 1] <= remaining:
            first -= 1
            remaining -= sizes[first]
        recent = [message for exchange in exchanges[max(first, 0) :] for message in exchange]
        return type(self)((*system, *recent))

    def summarised(self, chat: SummaryChat, max_tokens: int, count: Callable[[Message], int] | None = None) -> Self:
        """Return the history with a summary of its oldest messages, in about `max_tokens`.

        `chat` requests the summary: a chat of the sync client without messages, such as `lm.chat()`. The messages that
        `trimmed` would drop are summarised, and the summary is added to the system message; a history that fits is unchanged.

        Raises:
            LMStudioError: The model did not answer.
        """
        dropped, rest = self._split(max_tokens, count)
        if not dropped:
            return self
        return self._summarised(chat.with_messages([summary_request("", dropped)]).send().content, rest)

    async def summarised_async(
        self, chat: AsyncSummaryChat, max_tokens: int, count: Callable[[Message], int] | None = None
    ) -> Self:
        """Async version of `summarised`, for a chat of the async client."""
        dropped, rest = self._split(max_tokens, count)
        if not dropped:
            return self
        reply = await chat.with_messages([summary_request("", dropped)]).send()
        return self._summarised(reply.content, rest)

    def _split(self, max_tokens: int, count: Callable[[Message], int] | None) -> tuple[Sequence[Message], Self]:
        """Return the messages that `trimmed` drops, and the remaining history."""
        remaining = self.trimmed(max_tokens, count)
        is_led = bool(self.messages) and self.messages[0].role == "system"
        return self.messages[is_led : is_led + len(self) - len(remaining)], remaining

    def _summarised(self, summary: str, rest: Self) -> Self:
        is_led = bool(rest.messages) and rest.messages[0].role == "system"
        return type(self)(tuple(with_summary(rest.messages[:is_led], summary, rest.messages[is_led:])))

    def to_json(self) -> str:
        """Return the history as JSON text."""
        body = {"format": FORMAT, "messages": [message.to_dict() for message in self.messages]}
        return json.dumps(body, ensure_ascii=False, indent=1)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read a history from `to_json`'s output or a list of OpenAI-style messages.

        Raises:
            ConfigurationError: The text is not a history.
        """
        if not isinstance(text, (str, bytes, bytearray)):
            raise wrong_type("The history", "text or bytes", text, "Pass the output of `to_json`.")
        try:
            body = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigurationError(
                f"The history is not JSON: {error}.", hint="Pass the output of `to_json`."
            ) from error
        messages = body.get("messages") if isinstance(body, dict) else body
        if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
            raise ConfigurationError(
                "The JSON is not a history: it has no list of messages.", hint="Pass the output of `to_json`."
            )
        return cls(tuple(Message.from_dict(message) for message in messages))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the history to a file atomically; several threads and processes may do so at once.

        Raises:
            ConfigurationError: The path is neither text nor a `Path`.
            FileWriteError: The file could not be written; it is unchanged.
        """
        replace_file(_checked_path(path), replace_lone_surrogates(self.to_json()).encode())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a history from a file.

        Raises:
            ConfigurationError: The file does not contain a history, or the path is not one.
            OSError: It cannot be read.
        """
        file = Path(_checked_path(path))
        try:
            return cls.from_json(file.read_bytes())
        except ConfigurationError as error:
            raise ConfigurationError(f"{file}: {error.message}", hint=error.hint) from error
        except ValueError as error:  # a NUL in the path
            raise ConfigurationError(f"{str(file)!r} is not a path: {error}.", hint=SAVED) from error

    def __iter__(self) -> Iterator[Message]:
        return iter(self.messages)

    def __len__(self) -> int:
        return len(self.messages)

    def _with(self, *added: Message) -> Self:
        return type(self)((*self.messages, *added))


def _checked_path(path: str | os.PathLike[str]) -> str | os.PathLike[str]:
    if not isinstance(path, (str, os.PathLike)):
        raise wrong_type("The path of a history", "text or a Path", path, SAVED)
    return path


def exchanges_of(messages: Iterable[Message]) -> list[list[Message]]:
    """Return the messages grouped into exchanges, each from a user message up to the next."""
    exchanges: list[list[Message]] = []
    for message in messages:
        if message.role == "user" or not exchanges:
            exchanges.append([])
        exchanges[-1].append(message)
    return exchanges


SUMMARISE = (
    "Summarise the conversation below for an assistant that must continue it. Keep names, numbers, facts, decisions, "
    "tool results and open questions; omit greetings. Write only the summary, in the language of the conversation."
)
SUMMARY = "Summary of the conversation so far:"
CUT = " […] "


def summary_request(summary: str, messages: Iterable[Message], excess: float = 0.0) -> Message:
    """Return the message that requests a summary of messages and of an earlier summary.

    `excess` is the fraction of the text, from 0 to 1, that does not fit; it is cut out of the middle of each message.
    """
    lines = [f"{SUMMARY} {summary}"] if summary else []
    lines += [line for message in messages for line in _transcript(message, excess)]
    return Message(role="user", content="\n\n".join([SUMMARISE, *lines]))


def with_summary(system: Sequence[Message], summary: str, rest: Iterable[Message]) -> list[Message]:
    """Return messages that begin with a system message with the summary."""
    before = str(system[0].content) if system else ""
    text = f"{before}\n\n{SUMMARY}\n{summary}".strip()
    return [Message(role="system", content=text), *rest]


def _transcript(message: Message, excess: float) -> Iterator[str]:
    names = {"user": "User", "assistant": "Assistant", "tool": "Tool result"}
    text = message.content if isinstance(message.content, str) else _text_of(message.content)
    if excess:
        half = int(len(text) * (1 - excess) / 2)
        text = f"{text[:half]}{CUT}{text[len(text) - half :]}"
    if text:
        yield f"{names.get(message.role, message.role.title())}: {text}"
    for call in message.tool_calls:
        yield f"Assistant calls {call.name}: {call.raw_arguments}"


def _text_of(parts: Iterable[Mapping[str, Any]]) -> str:
    return "\n".join(str(part["text"]) if "text" in part else f"[{part.get('type', 'part')}]" for part in parts)


def _estimate(message: Message) -> int:
    length = len(json.dumps(message.to_dict()["content"], ensure_ascii=False))
    length += sum(len(call.name) + len(call.raw_arguments) for call in message.tool_calls)
    return TOKENS_PER_MESSAGE + int(length / CHARACTERS_PER_TOKEN) + 1
