"""The scripted answers of the fake: text, reasoning, tool calls or a refusal, maybe a fault."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from lmdeck._encoders.backend_events import (
    Finished,
    PromptProgress,
    Provider,
    ReasoningTextDelta,
    TextDelta,
    ToolArgumentsDelta,
    ToolCallOpened,
    ToolOutcome,
)
from lmdeck.server.backend import BackendError

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from lmdeck._encoders.backend_events import BackendEvent, StopReason

CHARACTERS_PER_DELTA = (1, 2, 3, 3, 4, 4, 5, 6)
"""Possible lengths of a delta, about those of a token."""


class PlannedCall(Struct, frozen=True, kw_only=True):
    """A tool call of a scripted answer.

    With `output`, the server has run it itself, as it does for plugins and MCP servers. Arguments that are a string are sent
    unchanged, valid JSON or not.
    """

    name: str
    arguments: Mapping[str, Any] | str = {}
    id: str | None = None
    output: str | None = None
    provider: str | None = None

    @property
    def text(self) -> str:
        """The JSON text of the arguments."""
        return self.arguments if isinstance(self.arguments, str) else msgspec.json.encode(self.arguments).decode()


class Answer(Struct, frozen=True, kw_only=True):
    """One answer of the fake.

    `dialect` writes calls and reasoning into the text, as a model of a dialect that LM Studio does not parse.
    `refusal` is raised instead of answering. Times are in seconds; None uses the setting of the fake. `decisions` answers the
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
        """Yield the events of the answer, in pieces of about a token; `rng` determines the pieces."""
        tokens = 0
        yield PromptProgress(1.0)
        for event in self._output(rng):
            tokens += isinstance(event, TextDelta | ReasoningTextDelta | ToolArgumentsDelta)
            yield event
        native = bool(self.calls) and self.dialect is None and all(call.output is None for call in self.calls)
        yield Finished(
            stop_reason=self.stop_reason or ("toolCalls" if native else "eosFound"),
            prompt_tokens=prompt_tokens if self.prompt_tokens is None else self.prompt_tokens,
            completion_tokens=max(tokens, 1) if self.completion_tokens is None else self.completion_tokens,
        )

    def _output(self, rng: random.Random) -> Iterator[BackendEvent]:
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
        from lmdeck._parsing.dialects import dialect_named  # most answers need no dialect
        from lmdeck._parsing.rendering import write_answer

        calls = [(call.name, call.arguments) for call in self.calls if isinstance(call.arguments, Mapping)]
        return write_answer(dialect_named(str(self.dialect)), self.content, calls, self.reasoning)


def refusal(status: int, message: str, *, body: object = None) -> BackendError:
    """Return the error of an answer that is a refusal."""
    return BackendError(message, status=status, body=body)


def _provider(name: str | None) -> Provider:
    if name is not None and name.startswith("mcp/"):
        return Provider(type="plugin", plugin_id=name)
    return Provider(type="ephemeral_mcp", server_label=name or "fake")


def _pieces(text: str, rng: random.Random) -> Iterator[str]:
    at = 0
    while at < len(text):
        size = rng.choice(CHARACTERS_PER_DELTA)
        yield text[at : at + size]
        at += size
