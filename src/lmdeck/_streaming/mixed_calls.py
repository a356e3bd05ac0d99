"""Merge native calls and calls in the text of one answer, so that each is counted once.

Some servers send a call twice: as a native call, and in the text from which they parsed it. If both kinds call the same tool,
the second to begin is announced only when both are complete, so that a stream never announces a call that is then dropped.
"""

from __future__ import annotations

import json
from typing import Any

from msgspec.structs import replace

from lmdeck._chunks import Chunk, ToolCallDelta
from lmdeck._parsing.offered_tools import OfferedTools
from lmdeck._streaming.tool_call_slots import NATIVE
from lmdeck.messages import Problem, ToolCall


class MixedCalls:
    """The native and embedded calls of one answer, numbered together, without duplicates."""

    def __init__(self, tools: OfferedTools) -> None:
        self.problems: list[Problem] = []
        self._tools = tools
        self._indices: dict[str, int] = {}
        self._names: tuple[set[str], set[str]] = (set(), set())  # announced: native, embedded
        self._written: set[str] = set()
        self._held: dict[str, list[ToolCallDelta]] = {}
        self._waiting: list[ToolCall] = []
        self._native: list[ToolCall] = []
        self._embedded: list[ToolCall] = []

    @property
    def complete(self) -> list[ToolCall]:
        """The complete calls, native ones first: a body that was not streamed has no other order."""
        return [*self._native, *self._embedded]

    def announce(self, delta: ToolCallDelta, chunks: list[Chunk], *, embedded: bool) -> None:
        """Append a delta of a call to `chunks`, or hold it back while the call may be a duplicate."""
        index = self._indices.get(delta.id)
        if index is None:
            if self._is_held(delta, embedded=embedded):
                return
            index = self._number(delta.id)
        if delta.name:
            self._names[embedded].add(delta.name)
        if delta.arguments:
            self._written.add(delta.id)
        chunks.append(Chunk("", "", None, delta if index == delta.index else replace(delta, index=index)))

    def _is_held(self, delta: ToolCallDelta, *, embedded: bool) -> bool:
        """Hold back a delta of a call that may be a duplicate; return whether it is held back."""
        held = self._held.get(delta.id)
        if held is None and delta.name in self._names[not embedded]:
            held = self._held[delta.id] = []
        if held is not None:
            held.append(delta)
        return held is not None

    def add_embedded(self, call: ToolCall, chunks: list[Chunk]) -> None:
        """Add a complete call of the text."""
        if call.id in self._held:
            self._waiting.append(call)
            return
        self._embedded.append(call)
        chunks.append(Chunk("", "", call))

    def add_native(self, calls: list[ToolCall], chunks: list[Chunk]) -> None:
        """Add the native calls at the end of the answer, except those that are also in the text."""
        embedded, new = list(self._embedded), list[ToolCall]()
        for call in calls:
            if self._pop_twin(call, embedded) is not None:
                self._held.pop(call.id, None)
                continue
            twin = self._pop_twin(call, self._waiting)
            if twin is not None:
                del self._held[twin.id]
            new.append(call if twin is None or call.arguments else self._with_arguments(call, twin, chunks))
        self._native += new
        self._embedded += self._waiting
        for call in (*new, *self._waiting):
            chunks += [
                Chunk("", "", None, replace(delta, index=self._number(delta.id)))
                for delta in self._held.pop(call.id, ())
            ]
            chunks.append(Chunk("", "", call))
        self._waiting.clear()

    def _number(self, call_id: str) -> int:
        """Return the position of a call among those announced."""
        return self._indices.setdefault(call_id, len(self._indices))

    def _with_arguments(self, call: ToolCall, twin: ToolCall, chunks: list[Chunk]) -> ToolCall:
        """Return a native call without arguments with the arguments of the same call in the text."""
        detail = f"The native call of {call.name!r} had no arguments; those in the text are used."
        self.problems.append(Problem("repaired", detail, dialect=NATIVE))
        if call.id in self._indices and call.id not in self._written:
            delta = ToolCallDelta(self._indices[call.id], call.id, "", twin.raw_arguments)
            chunks.append(Chunk("", "", None, delta))
        return replace(call, arguments=twin.arguments, raw_arguments=twin.raw_arguments)

    def _pop_twin(self, call: ToolCall, others: list[ToolCall]) -> ToolCall | None:
        """Remove the same call from `others` and return it.

        A native call may lack arguments that the call in the text has.
        """
        wanted = self._canonical_arguments(call)
        for index, other in enumerate(others):
            if other.name == call.name and (not call.arguments or self._canonical_arguments(other) == wanted):
                return others.pop(index)
        return None

    def _canonical_arguments(self, call: ToolCall) -> str:
        """Return arguments as canonical JSON: coerced to the schema, sorted, and without nulls."""
        coerced = self._tools.coerce(call.name, call.arguments)
        return json.dumps(_plain({key: value for key, value in coerced.items() if value is not None}), sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
