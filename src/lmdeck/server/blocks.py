"""An answer as blocks, each with a beginning and an end, which is how the three APIs after chat completions tell it."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec
from msgspec import Struct, field

from lmdeck.server.events import LoadProgress, PromptProgress, ReasoningDelta, TextDelta, ToolCallStart, ToolOutcome

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from lmdeck.server.events import Event
    from lmdeck.server.jobs import Provider

__all__ = ["Begin", "Block", "Blocks", "End", "More", "Told"]


class Block(Struct, kw_only=True, eq=False):
    """A stretch of reasoning, of text, or one tool call with the JSON text of its arguments."""

    kind: Literal["reasoning", "text", "call"]
    index: int
    id: str = ""
    name: str = ""
    provider: Provider | None = None
    outcome: ToolOutcome | None = None
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """What has been said so far."""
        return "".join(self.pieces)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of a call; empty where the model was cut off within them."""
        try:
            given = msgspec.json.decode(self.text)
        except msgspec.DecodeError:
            return {}
        return given if isinstance(given, dict) else {}


class Begin(Struct, frozen=True):
    """A block begins."""

    block: Block


class More(Struct, frozen=True):
    """A block goes on."""

    block: Block
    text: str


class End(Struct, frozen=True):
    """A block is complete."""

    block: Block


Told: TypeAlias = Begin | More | End | LoadProgress | PromptProgress | ToolOutcome


class Blocks:
    """Reads a back end's events as blocks, and keeps the blocks."""

    def __init__(self) -> None:
        self.all: list[Block] = []
        self._open: Block | None = None
        self._skipped = 0

    def feed(self, event: Event) -> list[Told]:
        """Read one event and return what happened, in order."""
        match event:
            case TextDelta(text=text):
                return self._more("text", text)
            case ReasoningDelta(text=text):
                return self._more("reasoning", text)
            case ToolCallStart():
                return [*self.finish(), self._begin("call", event)]
            case ToolOutcome():
                return [*self.finish(), self._settle(event)]
            case LoadProgress() | PromptProgress():
                return [event]
            case _:
                return self._argue(getattr(event, "text", ""))

    def finish(self) -> list[Told]:
        """End the block that is open, if one is."""
        block, self._open = self._open, None
        return [] if block is None else [End(block)]

    def skip(self) -> int:
        """Leave a place in the order to something that is not a block, and return its index."""
        self._skipped += 1
        return len(self.all) + self._skipped - 1

    async def read(self, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Told, None]:
        """Return what happens, in order."""
        async with aclosing(events):
            async for event in events:
                for each in self.feed(event):
                    yield each
        for each in self.finish():
            yield each

    async def drain(self, events: AsyncGenerator[Event, None]) -> list[Block]:
        """Read all of it, and give the blocks."""
        async for _ in self.read(events):
            """`all` keeps them."""
        return self.all

    def _begin(self, kind: Literal["reasoning", "text", "call"], call: ToolCallStart | None = None) -> Begin:
        block = Block(kind=kind, index=len(self.all) + self._skipped)
        if call is not None:
            block.id, block.name, block.provider = call.id, call.name, call.provider
        self.all.append(block)
        self._open = block
        return Begin(block)

    def _more(self, kind: Literal["reasoning", "text"], text: str) -> list[Told]:
        told: list[Told] = []
        if self._open is None or self._open.kind != kind:
            told = [*self.finish(), self._begin(kind)]
        return [*told, *self._argue(text)]

    def _argue(self, text: str) -> list[Told]:
        if self._open is None or not text:
            return []
        self._open.pieces.append(text)
        return [More(self._open, text)]

    def _settle(self, outcome: ToolOutcome) -> ToolOutcome:
        call = next((block for block in reversed(self.all) if block.kind == "call" and block.outcome is None), None)
        if call is not None:
            call.outcome = outcome
        return outcome
