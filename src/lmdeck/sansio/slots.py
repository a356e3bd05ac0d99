"""Native tool calls, put together from their deltas.

A call is an identity, not a list position. LM Studio and its engines send calls with indices that are missing, repeated,
reused or late, with ids that are empty or come twice, with `name: ""` on every continuation (lmstudio-bug-tracker #649),
whole in one delta, or with arguments as an object. The slot of a delta is chosen by id, then by index, then by "a name opens
a new call, a fragment continues the last". Calls keep the order in which they were first seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from lmdeck.errors import MalformedStreamError
from lmdeck.events import ToolCallDelta
from lmdeck.messages import Problem, ToolCall
from lmdeck.sansio.limits import Limits
from lmdeck.sansio.wire import ToolDelta

__all__ = ["ToolSlots"]


class _Slot:
    """A call that is being put together."""

    __slots__ = ("fragments", "given_id", "id", "index", "name", "size")

    def __init__(self, index: int, given_id: str, id_: str) -> None:
        self.index = index
        self.given_id = given_id
        self.id = id_
        self.name = ""
        self.fragments: list[str] = []
        self.size = 0

    @property
    def raw(self) -> str:
        return "".join(self.fragments)


class ToolSlots:
    """The calls of one answer, from first delta to finished `ToolCall`."""

    def __init__(self, limits: Limits, new_id: Callable[[], str]) -> None:
        self._limits = limits
        self._new_id = new_id
        self._slots: list[_Slot] = []
        self._by_id: dict[str, _Slot] = {}
        self._by_index: dict[int, _Slot] = {}
        self._used_ids: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._slots)

    def feed(self, delta: ToolDelta) -> ToolCallDelta | None:
        """Add a delta to its call and give what is new, or None where nothing is."""
        function = delta.function
        name = (function.name or "") if function else ""
        arguments = _as_text(function.arguments) if function else ""
        given_id = "" if delta.id is None else str(delta.id)
        slot = self._slot_for(delta.index, given_id, name)
        opened = name if not slot.name else ""
        slot.name = slot.name or name
        if not (opened or arguments):
            return None
        slot.size += len(arguments)
        if slot.size > self._limits.tool_arguments_chars:
            limit = self._limits.tool_arguments_chars
            raise MalformedStreamError(
                f"The arguments of the tool call {slot.name!r} are longer than {limit} characters."
            )
        if arguments:
            slot.fragments.append(arguments)
        return ToolCallDelta(slot.index, slot.id, opened, arguments)

    def finish(self, *, truncated: bool = False) -> tuple[list[ToolCall], list[Problem]]:
        """Give the finished calls, and a problem for each one that cannot be read."""
        calls: list[ToolCall] = []
        problems: list[Problem] = []
        for slot in self._slots:
            read = self._read(slot, truncated=truncated)
            if isinstance(read, ToolCall):
                calls.append(read)
            else:
                problems.append(read)
        return calls, problems

    def _slot_for(self, index: int | None, given_id: str, name: str) -> _Slot:
        slot = self._by_id.get(given_id) if given_id else None
        if slot is not None and name and slot.name and slot.raw and self._is_another(slot, index):
            slot = None  # the same id again, but a new call: LM Studio repeated ids (bug-tracker #830)
        if slot is None and index is not None:
            slot = self._by_index.get(index)
            if slot is not None and self._reuses(slot, given_id, name):
                slot = None
        elif slot is None and not (given_id or name) and self._slots:
            slot = self._slots[-1]
        elif slot is None and given_id and not name and self._slots and not self._slots[-1].given_id:
            slot = self._slots[-1]
        if slot is None:
            slot = self._open(given_id)
        if index is not None:
            self._by_index[index] = slot
        if given_id and not slot.given_id:
            self._name_late(slot, given_id)
        return slot

    def _is_another(self, slot: _Slot, index: int | None) -> bool:
        return index is not None and self._by_index.get(index) is not slot

    @staticmethod
    def _reuses(slot: _Slot, given_id: str, name: str) -> bool:
        """Tell whether a delta at a known index begins another call: another id, or a name after a finished call."""
        if given_id and slot.given_id:
            return given_id != slot.given_id
        return bool(name and slot.name and slot.fragments and (name != slot.name or _is_whole(slot.raw)))

    def _open(self, given_id: str) -> _Slot:
        if len(self._slots) >= self._limits.tool_calls:
            raise MalformedStreamError(f"The answer has more than {self._limits.tool_calls} tool calls.")
        id_ = given_id if given_id and given_id not in self._used_ids else self._fresh_id()
        slot = _Slot(len(self._slots), given_id, id_)
        self._used_ids.add(id_)
        self._slots.append(slot)
        if given_id:
            self._by_id[given_id] = slot
        return slot

    def _name_late(self, slot: _Slot, given_id: str) -> None:
        """Note an id that came after the first delta: later deltas are found by it, the id already shown stays."""
        slot.given_id = given_id
        self._by_id.setdefault(given_id, slot)

    def _fresh_id(self) -> str:
        while (id_ := self._new_id()) in self._used_ids:
            continue
        return id_

    def _read(self, slot: _Slot, *, truncated: bool) -> ToolCall | Problem:
        raw = slot.raw
        if not slot.name:
            return Problem("tool_call_unnamed", f"A tool call without a name was dropped; its arguments: {raw[:200]}")
        arguments = _decode(raw)
        if arguments is None:
            code = "tool_call_incomplete" if truncated else "tool_call_unparsed"
            return Problem(code, f"The arguments of the call of {slot.name!r} are no JSON object: {raw[:2000]}")
        return ToolCall(id=slot.id, name=slot.name, arguments=arguments, raw_arguments=raw or "{}")


def _as_text(arguments: str | dict[str, Any] | list[Any] | None) -> str:
    if arguments is None or isinstance(arguments, str):
        return arguments or ""
    return msgspec.json.encode(arguments).decode()


def _decode(raw: str) -> dict[str, Any] | None:
    """Read arguments: an object, an object inside a string, or nothing at all for a call without arguments."""
    if not raw.strip():
        return {}
    try:
        value = msgspec.json.decode(raw)
        if isinstance(value, str):
            value = msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return None
    if value is None:
        return {}
    return value if isinstance(value, dict) else None


def _is_whole(raw: str) -> bool:
    return _decode(raw) is not None
