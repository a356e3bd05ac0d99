"""Requests of front ends that send the whole conversation with each question."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from lmdeck.errors import ConfigurationError
from lmdeck.web.requests import PageDecisions, PageMessage, PageQuestion, check_question, read_request
from lmdeck.web.stored_messages import StoredCall


def read_conversation(body: bytes, question: Callable[[dict[str, Any]], PageQuestion]) -> PageQuestion | PageDecisions:
    """Decode and check a request; the page's own question or decisions are accepted, too.

    Raises:
        ConfigurationError: The body is not a request of this front end, or the question is empty or too long.
    """
    try:
        sent = msgspec.json.decode(body)
        if isinstance(sent, dict) and ("text" in sent or "decisions" in sent):
            return read_request(body)
        page_question = question(sent)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(f"The request cannot be decoded: {error}.", hint="Send JSON.") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigurationError(
            f"The request is not a conversation: {type(error).__name__} {error}.",
            hint="Send it as the front end's own client does, with its `messages`.",
        ) from error
    check_question(page_question)
    return page_question


def question_of(messages: Iterable[PageMessage]) -> PageQuestion:
    """Return the last message as a question, which follows the others.

    Raises:
        ConfigurationError: The last message is not the user's.
    """
    *before, last = messages
    if last.role != "user":
        raise ConfigurationError("The last message is not a user message.", hint="Send the question as the last one.")
    return PageQuestion(text=last.content, messages=before, images=last.images, is_stateless=True)


def call_of(call_id: str, name: str, arguments: Any, output: Any) -> StoredCall:
    """Return a call with its output, each as text or as a value."""
    decoded = msgspec.json.decode(arguments) if isinstance(arguments, str) else arguments
    content = output if isinstance(output, str) else msgspec.json.encode(output).decode()
    return StoredCall(id=call_id, name=name, arguments=msgspec.convert(decoded, dict[str, Any]), content=content)
