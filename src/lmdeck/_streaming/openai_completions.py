"""`/v1/completions`: OpenAI's text chunks and body, as LM Studio sends them.

Source: LM Studio docs, `3_openai-compat/completions.mdx`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Raw

from lmdeck._streaming.translator import Json, entries, untyped
from lmdeck._streaming.wire_chunks import Choice, Delta, WireCompletion
from lmdeck.messages import ServerCall
from lmdeck.native_events import StreamEvent


class CompletionTranslator:
    """A translator for `/v1/completions`."""

    def __init__(self) -> None:
        self.is_done = False
        self.is_in_call = False
        self.server_calls: list[ServerCall] = []

    def typed(self, data: dict[str, Any]) -> StreamEvent:
        """Return the event itself."""
        return untyped(data)

    def failure(self, data: Json) -> object:
        """Return an event that reports an error; otherwise None."""
        return data if data.get("error") else None

    def event(self, data: Json) -> Iterator[WireCompletion]:
        """Yield the chunk that an event means."""
        yield _completion(data, "delta")

    def body(self, body: Json) -> WireCompletion | None:
        """Return the chunk that a whole body means; None if it is not a body of this endpoint."""
        choices = entries(body.get("choices"))
        return _completion(body, "message") if choices and isinstance(choices[0].get("text"), str) else None


def _completion(data: Json, part: str) -> WireCompletion:
    usage = data.get("usage")
    return WireCompletion(
        choices=[_choice(choice, part) for choice in entries(data.get("choices"))],
        id=str(data.get("id") or ""),
        model=str(data.get("model") or ""),
        usage=Raw(msgspec.json.encode(usage)) if isinstance(usage, Mapping) else Raw(),
    )


def _choice(choice: Json, part: str) -> Choice:
    text, reason, index = choice.get("text"), choice.get("finish_reason"), choice.get("index")
    delta = Delta(content=text) if isinstance(text, str) and text else Delta()
    return Choice(
        **{part: delta},
        index=index if isinstance(index, int) else 0,
        finish_reason=reason if isinstance(reason, str) else None,
    )
