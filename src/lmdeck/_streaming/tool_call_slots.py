"""Assemble native tool calls from their deltas.

A call is an identity, not a list position. LM Studio and its engines send calls with indices that are missing, repeated,
reused or late, with ids that are empty or repeated, with `name: ""` on every continuation (lmstudio-bug-tracker #649), whole in
one delta, or with arguments as an object. The slot of a delta is chosen by id, then by index; else a name opens a new call, and
a fragment continues the last one. Calls have the order of their first deltas.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from lmdeck._chunks import ToolCallDelta
from lmdeck._limits import Limits
from lmdeck._parsing.argument_values import decode_arguments, repeated_keys
from lmdeck._parsing.offered_tools import OfferedTools
from lmdeck._streaming.wire_chunks import ToolDelta
from lmdeck.errors import MalformedStreamError
from lmdeck.messages import Problem, ToolCall

CONTROL = "<|"
"""The start of a special token, which gpt-oss's servers leave in names (vLLM #35906)."""
NATIVE = "native"
"""The dialect of calls that the server sent as calls, in problems."""


class _Slot:
    """A call that is being assembled."""

    __slots__ = ("fragments", "id", "index", "name", "size", "wire_id", "wire_index")

    def __init__(self, index: int, wire_index: int | None, wire_id: str, id_: str) -> None:
        self.index = index
        self.wire_index = wire_index
        self.wire_id = wire_id
        self.id = id_
        self.name = ""
        self.fragments: list[str] = []
        self.size = 0

    @property
    def raw(self) -> str:
        return "".join(self.fragments)

    def is_whole(self) -> bool:
        """Whether the arguments are a complete object.

        The end of the last fragment is checked first, because that is cheap.
        """
        return bool(self.fragments) and self.fragments[-1].rstrip()[-1:] == "}" and _decode(self.raw)[0] is not None


class ToolCallSlots:
    """The native calls of one answer, from the first delta to the complete `ToolCall`."""

    def __init__(self, limits: Limits, new_id: Callable[[], str], tools: OfferedTools | None = None) -> None:
        self.slots: list[_Slot] = []
        self._tools = OfferedTools(()) if tools is None else tools
        self._limits = limits
        self._new_id = new_id
        self._by_id: dict[str, _Slot] = {}
        self._by_index: dict[int, _Slot] = {}
        self._used_ids: set[str] = set()
        self._returned = 0
        self._late: list[Problem] = []

    def feed(self, delta: ToolDelta) -> ToolCallDelta | None:
        """Add a delta to its call and return what is new in it, or None.

        Raises:
            MalformedStreamError: There are more calls, or longer arguments, than the limits allow.
        """
        function = delta.function
        name, value = ("", None) if function is None else (function.name or "", function.arguments)
        arguments = value if isinstance(value, str) else _as_text(value)
        if CONTROL in name:
            detail = f"The name of a call was {name[:200]!r}"
            self._late.append(Problem("repaired", detail, dialect=NATIVE))
            name = name.partition(CONTROL)[0].strip()
        slot = self._slot_for(delta, name, arguments)
        new_name = "" if name == slot.name or (slot.name and slot.fragments) else name
        if not (new_name or arguments):
            return None
        if slot.index < self._returned:
            detail = f"The call of {slot.name!r} continued after its end: {arguments[:2000]}"
            self._late.append(Problem("tool_call_late", detail, dialect=NATIVE))
            return None
        slot.name += new_name
        slot.size += len(arguments)
        if slot.size > self._limits.tool_arguments_chars:
            limit = self._limits.tool_arguments_chars
            raise MalformedStreamError(
                f"The arguments of the tool call {slot.name!r} are longer than {limit} characters."
            )
        if arguments:
            slot.fragments.append(arguments)
        return ToolCallDelta(slot.index, slot.id, new_name, arguments)

    def finish(self, *, truncated: bool = False) -> tuple[list[ToolCall], list[Problem]]:
        """Return the calls that were not returned before, and a problem for each unreadable call."""
        read = self.read(truncated=truncated)
        self._returned = len(self.slots)
        self._late.clear()
        return read

    def read(self, *, truncated: bool = False) -> tuple[list[ToolCall], list[Problem]]:
        """Return the same as `finish`, but allow more deltas: the same calls can be read again."""
        calls: list[ToolCall] = []
        problems = list(self._late)
        for slot in self.slots[self._returned :]:
            if slot.index and _is_echo(slot, self.slots[slot.index - 1]):
                continue
            call, problem = _read(slot, self._tools, truncated=truncated)
            if call is not None:
                calls.append(call)
            if problem is not None:
                problems.append(problem)
        return calls, problems

    def _slot_for(self, delta: ToolDelta, name: str, arguments: str) -> _Slot:
        wire_id = "" if delta.id is None else str(delta.id)
        slot = None if delta.index is None else self._by_index.get(delta.index)
        if slot is not None and not (name or wire_id):
            return slot
        if wire_id and (slot is None or slot.wire_id != wire_id):
            slot = self._by_id.get(wire_id, slot)
        if slot is None and delta.index is None:
            slot = self._continued(wire_id, name)
        elif slot is None and arguments and not (name or wire_id):
            slot = self._unfinished()
        if slot is None or self._begins_another(slot, delta.index, wire_id, name, arguments):
            slot = self._open(delta.index, wire_id)
        if delta.index is not None:
            self._by_index[delta.index] = slot
        if wire_id:
            slot.wire_id = slot.wire_id or wire_id
            self._by_id[wire_id] = slot
        return slot

    def _continued(self, wire_id: str, name: str) -> _Slot | None:
        """Return the last call if a delta without an index can only continue it."""
        last = self.slots[-1] if self.slots else None
        if last is None or (wire_id and last.wire_id):
            return None
        is_in_the_middle = name == last.name and bool(last.fragments) and not last.is_whole()
        return last if is_in_the_middle or not (name and last.name) else None

    def _unfinished(self) -> _Slot | None:
        """Return the last call if its arguments are incomplete: some servers number its fragments."""
        last = self.slots[-1] if self.slots else None
        return last if last is not None and last.name and not last.is_whole() else None

    def _begins_another(self, slot: _Slot, index: int | None, wire_id: str, name: str, arguments: str) -> bool:
        """Whether a delta that refers to a known call nevertheless begins another one.

        Only a delta with a name can.
        """
        if not (name and slot.name):
            return False
        if wire_id and slot.wire_id and wire_id != slot.wire_id:
            return True
        if index is not None and slot.wire_index is not None and index != slot.wire_index:
            return True  # one id for several calls (lmstudio-bug-tracker #830)
        has_arguments = bool(arguments) and not arguments.isspace()
        if not slot.fragments:
            is_rest = not self._is_offered(slot.name) and self._is_offered(slot.name + name)
            return name != slot.name and has_arguments and not is_rest  # without arguments it continues the name
        # Some servers repeat the name on every delta, including a last, empty one.
        return name != slot.name or (slot.is_whole() and (has_arguments or not wire_id))

    def _is_offered(self, name: str) -> bool:
        return self._tools.resolve(name) is not None

    def _open(self, index: int | None, wire_id: str) -> _Slot:
        if len(self.slots) >= self._limits.tool_calls:
            raise MalformedStreamError(f"The answer has more than {self._limits.tool_calls} tool calls.")
        id_ = wire_id if wire_id and wire_id not in self._used_ids else self._fresh_id()
        slot = _Slot(len(self.slots), index, wire_id, id_)
        self._used_ids.add(id_)
        self.slots.append(slot)
        return slot

    def _fresh_id(self) -> str:
        while (id_ := self._new_id()) in self._used_ids:
            continue
        return id_


def _is_echo(slot: _Slot, before: _Slot) -> bool:
    """Whether a slot has only the name of the previous call, repeated by the server."""
    has_content = bool(slot.fragments or slot.wire_id)
    return (
        not has_content and bool(before.fragments) and (slot.name, slot.wire_index) == (before.name, before.wire_index)
    )


def _read(slot: _Slot, tools: OfferedTools, *, truncated: bool) -> tuple[ToolCall | None, Problem | None]:
    raw, notes = slot.raw, list[str]()
    if not slot.name:
        detail = f"A tool call without a name was dropped; its arguments: {raw[:2000]}"
        return None, Problem("tool_call_unnamed", detail, raw, dialect=NATIVE)
    name = tools.resolve(slot.name) or slot.name
    arguments, text = (None, "") if truncated and not raw.strip() else _decode(raw)
    if arguments is None and not truncated:
        arguments, text, notes = _repaired(name, raw, tools)
    if arguments is None:
        code = "tool_call_incomplete" if truncated else "tool_call_unparsed"
        detail = f"The arguments of the call of {name!r} are not a JSON object: {raw[:2000]}"
        return None, Problem(code, detail, raw, dialect=NATIVE)
    notes += repeated_keys(text)
    if name != slot.name:
        notes.append(f"the name was written as {slot.name!r}")
    detail = f"In the call of {name!r}: {', '.join(notes)}."
    problem = Problem("repaired", detail, dialect=NATIVE) if notes else None
    return ToolCall(id=slot.id, name=name, arguments=arguments, raw_arguments=raw or "{}"), problem


def _repaired(name: str, raw: str, tools: OfferedTools) -> tuple[dict[str, Any] | None, str, list[str]]:
    """Repair arguments that are not JSON; return them or None, their JSON text, and the repairs."""
    from lmdeck._parsing.repair import repaired_arguments  # imported late: it imports every dialect

    found = repaired_arguments(raw, name, tools)
    if found is None:
        return None, "", []
    written, notes = found
    return decode_arguments(written), written, notes or ["a lone surrogate"]


def _as_text(arguments: dict[str, Any] | list[Any] | None) -> str:
    return "" if arguments is None else msgspec.json.encode(arguments).decode()


def _decode(raw: str) -> tuple[dict[str, Any] | None, str]:
    """Return arguments as an object, and its JSON text.

    They may be an object, an object inside a string, or missing; for anything else the object is None.
    """
    if not raw.strip():
        return {}, ""
    try:
        value = msgspec.json.decode(raw)
        if isinstance(value, str):
            raw = value
            value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None, ""
    if value is None:
        return {}, ""
    return (value, raw) if isinstance(value, dict) else (None, "")
