"""An answer as a sequence of blocks with a start and an end.

The native API, the responses API and the messages API report answers in this form.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec
from msgspec import Struct, field

from lmdeck._encoders.backend_events import (
    LoadProgress,
    PromptProgress,
    ReasoningTextDelta,
    TextDelta,
    ToolCallOpened,
    ToolOutcome,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from lmdeck._encoders.backend_events import BackendEvent, Provider


class OutputBlock(Struct, kw_only=True, eq=False):
    """A run of reasoning, a run of text, or a tool call with the JSON text of its arguments."""

    kind: Literal["reasoning", "text", "call"]
    index: int
    id: str = ""
    name: str = ""
    provider: Provider | None = None
    outcome: ToolOutcome | None = None
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The text received so far."""
        return "".join(self.pieces)

    @property
    def arguments(self) -> dict[str, Any]:
        """The decoded arguments of a call; empty if the model was cut off before they were complete."""
        try:
            decoded = msgspec.json.decode(self.text)
        except msgspec.DecodeError:
            return {}
        return decoded if isinstance(decoded, dict) else {}


class BlockStart(Struct, frozen=True):
    """A block starts."""

    block: OutputBlock


class BlockDelta(Struct, frozen=True):
    """Text is added to a block."""

    block: OutputBlock
    text: str


class BlockEnd(Struct, frozen=True):
    """A block is complete."""

    block: OutputBlock


BlockEvent: TypeAlias = BlockStart | BlockDelta | BlockEnd | LoadProgress | PromptProgress | ToolOutcome


class Blocks:
    """A reader that turns the events of a back end into block events.

    It collects the blocks in `all`.
    """

    def __init__(self) -> None:
        self.all: list[OutputBlock] = []
        self._open: OutputBlock | None = None
        self._skipped = 0

    def feed(self, event: BackendEvent) -> list[BlockEvent]:
        """Read one event of the back end and return the block events that it causes, in order."""
        match event:
            case TextDelta(text=text):
                return self._add_text("text", text)
            case ReasoningTextDelta(text=text):
                return self._add_text("reasoning", text)
            case ToolCallOpened():
                return [*self.finish(), self._start("call", event)]
            case ToolOutcome():
                return [*self.finish(), self._attach_outcome(event)]
            case LoadProgress() | PromptProgress():
                return [event]
            case _:
                return self._append(getattr(event, "text", ""))

    def finish(self) -> list[BlockEvent]:
        """End the open block, if there is one."""
        block, self._open = self._open, None
        return [] if block is None else [BlockEnd(block)]

    def skip(self) -> int:
        """Reserve an index for an item that is not a block, and return the index."""
        self._skipped += 1
        return len(self.all) + self._skipped - 1

    async def read(self, events: AsyncGenerator[BackendEvent, None]) -> AsyncGenerator[BlockEvent, None]:
        """Yield the block events, in order."""
        async with aclosing(events):
            async for event in events:
                for each in self.feed(event):
                    yield each
        for each in self.finish():
            yield each

    async def drain(self, events: AsyncGenerator[BackendEvent, None]) -> list[OutputBlock]:
        """Read all events and return the blocks."""
        async for _ in self.read(events):
            continue
        return self.all

    def _start(self, kind: Literal["reasoning", "text", "call"], call: ToolCallOpened | None = None) -> BlockStart:
        block = OutputBlock(kind=kind, index=len(self.all) + self._skipped)
        if call is not None:
            block.id, block.name, block.provider = call.id, call.name, call.provider
        self.all.append(block)
        self._open = block
        return BlockStart(block)

    def _add_text(self, kind: Literal["reasoning", "text"], text: str) -> list[BlockEvent]:
        events: list[BlockEvent] = []
        if self._open is None or self._open.kind != kind:
            events = [*self.finish(), self._start(kind)]
        return [*events, *self._append(text)]

    def _append(self, text: str) -> list[BlockEvent]:
        if self._open is None or not text:
            return []
        self._open.pieces.append(text)
        return [BlockDelta(self._open, text)]

    def _attach_outcome(self, outcome: ToolOutcome) -> ToolOutcome:
        call = next((block for block in reversed(self.all) if block.kind == "call" and block.outcome is None), None)
        if call is not None:
            call.outcome = outcome
        return outcome
