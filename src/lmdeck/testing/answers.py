"""What the fake is told to answer: words, reasoning and calls, or a refusal, and how it is to go wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from lmdeck._parsing.dialects import dialect_named
from lmdeck._parsing.rendering import write_answer
from lmdeck.server.backend import BackendError
from lmdeck.server.events import (
    Finished,
    PromptProgress,
    ReasoningTextDelta,
    TextDelta,
    ToolArgumentsDelta,
    ToolCallOpened,
    ToolOutcome,
)
from lmdeck.server.jobs import Provider

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from lmdeck.server.events import BackendEvent, StopReason

CHARACTERS_A_TOKEN = (1, 2, 3, 3, 4, 4, 5, 6)
"""How many characters a delta may have: about those of a token."""


class PlannedCall(Struct, frozen=True, kw_only=True):
    """A tool call to make. With `output` the server has run it itself, as it does for plugins and MCP servers."""

    name: str
    arguments: Mapping[str, Any] | str = {}
    id: str | None = None
    output: str | None = None
    provider: str | None = None

    @property
    def text(self) -> str:
        """The JSON text of the arguments; given as text, they are sent as they are, broken or not."""
        return self.arguments if isinstance(self.arguments, str) else msgspec.json.encode(self.arguments).decode()


class Answer(Struct, frozen=True, kw_only=True):
    """One answer of the fake.

    `dialect` writes calls and reasoning into the text as models of that dialect do where LM Studio does not know them.
    `refusal` is raised instead of answering. Times are in seconds; None takes the fake's own. `decisions` answers the
    questions of `/v1/decisions` by their names, see `FakeLMStudio.decides`.
    """

    content: str = ""
    reasoning: str = ""
    calls: tuple[PlannedCall, ...] = ()
    dialect: str | None = None
    stop_reason: StopReason | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    refusal: BackendError | None = None
    fault: str | None = None
    fault_options: Mapping[str, Any] = {}
    tokens_per_second: float | None = None
    time_to_first_token: float | None = None
    from_schema: bool = False
    decisions: Mapping[str, Any] | None = None

    def events(self, rng: random.Random, prompt_tokens: int) -> Iterator[BackendEvent]:
        """Give what happens, in pieces of about a token each, the same for the same random source."""
        made = 0
        yield PromptProgress(1.0)
        for event in self._said(rng):
            made += isinstance(event, TextDelta | ReasoningTextDelta | ToolArgumentsDelta)
            yield event
        native = bool(self.calls) and self.dialect is None and all(call.output is None for call in self.calls)
        yield Finished(
            stop_reason=self.stop_reason or ("toolCalls" if native else "eosFound"),
            prompt_tokens=prompt_tokens if self.prompt_tokens is None else self.prompt_tokens,
            completion_tokens=max(made, 1) if self.completion_tokens is None else self.completion_tokens,
        )

    def _said(self, rng: random.Random) -> Iterator[BackendEvent]:
        if self.dialect is not None:
            yield from map(TextDelta, _pieces(self._in_dialect(), rng))
            return
        yield from map(ReasoningTextDelta, _pieces(self.reasoning, rng))
        yield from map(TextDelta, _pieces(self.content, rng))
        for call in self.calls:
            provider = _provider(call.provider) if call.output is not None else None
            yield ToolCallOpened(call.id or str(rng.randrange(10**8, 10**9)), call.name, provider)
            yield from map(ToolArgumentsDelta, _pieces(call.text, rng))
            if call.output is not None:
                yield ToolOutcome(call.output)

    def _in_dialect(self) -> str:
        calls = [(call.name, call.arguments) for call in self.calls if isinstance(call.arguments, Mapping)]
        return write_answer(dialect_named(str(self.dialect)), self.content, calls, self.reasoning)


def refusal(status: int, message: str, *, body: object = None) -> BackendError:
    """Make the answer that says no."""
    return BackendError(message, status=status, body=body)


def _provider(name: str | None) -> Provider:
    if name is not None and name.startswith("mcp/"):
        return Provider(type="plugin", plugin_id=name)
    return Provider(type="ephemeral_mcp", server_label=name or "fake")


def _pieces(text: str, rng: random.Random) -> Iterator[str]:
    at = 0
    while at < len(text):
        size = rng.choice(CHARACTERS_A_TOKEN)
        yield text[at : at + size]
        at += size
