"""Native calls and calls in the text of one answer, each counted once.

Some servers hand on a call both ways: as a native one, and in the text from which they made it. Of two calls of one tool the
second to begin is not announced before both are known, so that a stream announces no call that never comes.
"""

from __future__ import annotations

import json
from typing import Any

from msgspec.structs import replace

from lmdeck._parsing.offered_tools import Toolbox
from lmdeck.events import Chunk, ToolCallDelta
from lmdeck.messages import Problem, ToolCall

__all__ = ["MixedCalls"]


class MixedCalls:
    """Announces the calls of both kinds, counted together, and says which are the same."""

    def __init__(self, toolbox: Toolbox) -> None:
        self.problems: list[Problem] = []
        self._toolbox = toolbox
        self._places: dict[str, int] = {}
        self._names: tuple[set[str], set[str]] = (set(), set())  # announced: native, embedded
        self._written: set[str] = set()
        self._held: dict[str, list[ToolCallDelta]] = {}
        self._waiting: list[ToolCall] = []
        self._native: list[ToolCall] = []
        self._embedded: list[ToolCall] = []

    @property
    def made(self) -> list[ToolCall]:
        """The calls that are whole: native ones first, for a body that was not streamed says no other order."""
        return [*self._native, *self._embedded]

    def announce(self, delta: ToolCallDelta, chunks: list[Chunk], *, embedded: bool) -> None:
        """Hand on what is new in a call, unless the same call may have been announced in the other way."""
        held = self._held.get(delta.id)
        if held is None and delta.id not in self._places and delta.name in self._names[not embedded]:
            held = self._held[delta.id] = []
        if held is not None:
            held.append(delta)
            return
        if delta.name:
            self._names[embedded].add(delta.name)
        if delta.arguments:
            self._written.add(delta.id)
        chunks.append(Chunk("", "", None, self._placed(delta)))

    def take_embedded(self, call: ToolCall, chunks: list[Chunk]) -> None:
        """Take a call of the text that became whole."""
        if call.id in self._held:
            self._waiting.append(call)
            return
        self._embedded.append(call)
        chunks.append(Chunk("", "", call))

    def take_native(self, calls: list[ToolCall], chunks: list[Chunk]) -> None:
        """Take all native calls at the end of the answer: those that the text holds too were counted there, or count here."""
        counted, kept = list(self._embedded), list[ToolCall]()
        for call in calls:
            if self._twin(call, counted) is not None:
                self._held.pop(call.id, None)
                continue
            twin = self._twin(call, self._waiting)
            if twin is not None:
                del self._held[twin.id]
            kept.append(call if twin is None or call.arguments else self._filled(call, twin, chunks))
        self._native += kept
        self._embedded += self._waiting
        for call in (*kept, *self._waiting):
            chunks += [Chunk("", "", None, self._placed(delta)) for delta in self._held.pop(call.id, ())]
            chunks.append(Chunk("", "", call))
        self._waiting.clear()

    def _placed(self, delta: ToolCallDelta) -> ToolCallDelta:
        place = self._places.setdefault(delta.id, len(self._places))
        return delta if place == delta.index else replace(delta, index=place)

    def _filled(self, call: ToolCall, twin: ToolCall, chunks: list[Chunk]) -> ToolCall:
        """Return a native call that came without arguments with those that the text has."""
        self.problems.append(
            Problem("repaired", f"The native call of {call.name!r} had no arguments; those in the text were taken.")
        )
        if call.id in self._places and call.id not in self._written:
            delta = ToolCallDelta(self._places[call.id], call.id, "", twin.raw_arguments)
            chunks.append(Chunk("", "", None, delta))
        return replace(call, arguments=twin.arguments, raw_arguments=twin.raw_arguments)

    def _twin(self, call: ToolCall, others: list[ToolCall]) -> ToolCall | None:
        """Take the same call out of some others; native calls may lack arguments that the text has."""
        wanted = self._meaning(call)
        for at, other in enumerate(others):
            if other.name == call.name and (not call.arguments or self._meaning(other) == wanted):
                return others.pop(at)
        return None

    def _meaning(self, call: ToolCall) -> str:
        """Return arguments as text that is the same where they mean the same: fitted to the schema, without nulls."""
        fitted = self._toolbox.fitted(call.name, call.arguments)
        return json.dumps(_plain({key: value for key, value in fitted.items() if value is not None}), sort_keys=True)


def _plain(value: Any) -> Any:  # noqa: ANN401 - JSON is anything
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
