"""The agent loop as a plan: answer, tool calls, next answer, until there are no calls.

The plan is a generator of effects: tests drive it with plain values, and the sync and async clients share it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Mapping, Sequence
from typing import Any, TypeAlias

from msgspec import Struct, field
from msgspec.structs import replace

from lmdeck._agent.approvals import PAUSE, Decision, Pause, refusal_of
from lmdeck._agent.limits import AgentLimits
from lmdeck._agent.tool_calls import PreparedCall, not_run, prepare, refused, repeated, shared, was_run
from lmdeck.errors import EmptyReplyError, LMStudioError, MaxRoundsError, ToolCallMissingError
from lmdeck.events import RoundFinished, RunPaused, ToolCallInvalid, ToolExecutionFailed, ToolFinished
from lmdeck.messages import TOOL_CALL_ANNOUNCED, Message, Reply, Round, ToolCall, ToolResult
from lmdeck.stats import Usage
from lmdeck.tools.tool import Tool


class AskModel(Struct, frozen=True):
    """Effect: send the chat with these added messages to the model; the result is its `Reply`."""

    added: tuple[Message, ...]
    round: int


class AskApproval(Struct, frozen=True):
    """Effect: decide on these calls; the result is the list of decisions in the same order."""

    ready: tuple[PreparedCall, ...]


class RunTools(Struct, frozen=True):
    """Effect: run these calls concurrently; the result is the list of results in the same order."""

    ready: tuple[PreparedCall, ...]
    round: int


class EmitEvent(Struct, frozen=True):
    """Effect: publish an event."""

    event: RoundFinished | RunPaused | ToolCallInvalid | ToolFinished | ToolExecutionFailed


AgentEffect: TypeAlias = AskModel | AskApproval | RunTools | EmitEvent


class PendingRound(Struct, frozen=True, kw_only=True):
    """The state of a paused run, before any call of `reply` was run.

    `rounds` are the finished rounds before that reply. `waiting` has the ids of the calls that need a decision; `decided` has
    the decisions already made, by call id.
    """

    id: str
    rounds: list[Round]
    reply: Reply
    decided: dict[str, Decision]
    waiting: list[str]


def agent_plan(
    tools: Mapping[str, Tool[..., Any]],
    elsewhere: frozenset[str],
    limits: AgentLimits,
    *,
    one_at_a_time: bool = False,
    resumed: PendingRound | None = None,
) -> Generator[AgentEffect, Any, Reply | PendingRound]:
    """Plan a run.

    A call of a tool in `elsewhere`, which has no handler here, ends the run with that reply. Equal calls in one answer are run
    once. With `one_at_a_time`, only the first of several different calls is run. If the decision on a call is `PAUSE`, no call
    of that answer is run, and the run ends with a `PendingRound`; `resumed` is one whose calls have all been decided on.

    Raises:
        MaxRoundsError: The model has not finished within `max_rounds`, or only repeats its calls.
        ToolError: Too many consecutive calls failed; this is the last failure.
        ToolCallMissingError: A call was demanded, and there is none.
    """
    run = _RunState(tools, limits, one_at_a_time=one_at_a_time)
    if resumed is not None:
        run.restore(resumed.rounds)
    for number in range(run.round, limits.max_rounds + 1):
        reply = (yield from run.ask(number)) if resumed is None else resumed.reply
        if not reply.tool_calls or any(call.name in elsewhere for call in reply.tool_calls):
            run.close_round(reply, [])
            yield EmitEvent(RoundFinished(round=number, reply=reply))
            return run.reply(reply)
        groups = run.grouped(reply.tool_calls, number)
        decisions = yield from run.decide(groups, {} if resumed is None else resumed.decided)
        resumed = None
        if PAUSE in decisions.values():
            return (yield from run.pause(reply, number, decisions))
        results = yield from run.answer(reply.tool_calls, groups, number, decisions)
        run.close_round(reply, results)
        yield EmitEvent(RoundFinished(round=number, reply=reply))
        run.check_failures(results)
        run.check_repeats(results)
    raise MaxRoundsError(f"The model has not answered after {limits.max_rounds} rounds.", reply=run.reply())


class _Group(Struct, kw_only=True):
    """Equal calls in one answer, at `indexes`: one is run, the others share its result."""

    key: str
    item: PreparedCall | ToolResult
    indexes: list[int] = field(default_factory=list)


class _RunState:
    """The state of a run."""

    def __init__(self, tools: Mapping[str, Tool[..., Any]], limits: AgentLimits, *, one_at_a_time: bool) -> None:
        self._tools = tools
        self._limits = limits
        self._one_at_a_time = one_at_a_time
        self._rounds: list[Round] = []
        self._added: list[Message] = []
        self._earlier: dict[str, list[ToolResult]] = {}
        self._failures = 0

    def ask(self, number: int) -> Generator[AgentEffect, Any, Reply]:
        """Request an answer; after the first round, an empty answer is requested once more."""
        try:
            reply: Reply = yield AskModel(tuple(self._added), number)
        except EmptyReplyError as error:
            if error.partial is not None:
                _check_call(error.partial)
            if number == 1:
                raise
            reply = yield AskModel(tuple(self._added), number)
        _check_call(reply)
        return reply

    @property
    def round(self) -> int:
        """The number of the next round, counted from 1."""
        return len(self._rounds) + 1

    def restore(self, rounds: Sequence[Round]) -> None:
        """Continue from the finished rounds of a paused run."""
        for one in rounds:
            for group in self.grouped(one.reply.tool_calls, self.round):
                result = one.results[group.indexes[0]]
                if was_run(result):
                    self._earlier.setdefault(group.key, []).append(result)
            self.close_round(one.reply, one.results)
            self._count_failures(one.results)

    def grouped(self, calls: Sequence[ToolCall], number: int) -> list[_Group]:
        """Return groups of equal calls; every call of a repeatable tool is a separate group."""
        groups: dict[str, _Group] = {}
        for at, call in enumerate(calls):
            item = prepare(call, self._tools)
            is_repeatable = isinstance(item, PreparedCall) and item.tool.repeatable
            key = f"{number}.{at}" if is_repeatable else _key(item)
            groups.setdefault(key, _Group(key=key, item=item)).indexes.append(at)
        return list(groups.values())

    def decide(
        self, groups: Sequence[_Group], made: Mapping[str, Decision]
    ) -> Generator[AgentEffect, Any, dict[str, Decision | Pause]]:
        """Return the decisions on the calls to run, by call id; earlier decisions are reused."""
        to_run = self._to_run(groups, self._settled(groups))
        undecided = [item for item in to_run.values() if item.call.id not in made]
        answers: list[Decision | Pause] = (yield AskApproval(tuple(undecided))) if undecided else []
        return {**made, **{item.call.id: answer for item, answer in zip(undecided, answers, strict=True)}}

    def pause(
        self, reply: Reply, number: int, decisions: Mapping[str, Decision | Pause]
    ) -> Generator[AgentEffect, Any, PendingRound]:
        """End the run before the calls of an answer are run."""
        waiting = [call for call in reply.tool_calls if decisions.get(call.id) is PAUSE]
        pending = PendingRound(
            id=f"run_{os.urandom(16).hex()}",
            rounds=list(self._rounds),
            reply=reply,
            decided={name: made for name, made in decisions.items() if not isinstance(made, Pause)},
            waiting=[call.id for call in waiting],
        )
        yield EmitEvent(RunPaused(id=pending.id, calls=waiting, reply=reply, round=number))
        return pending

    def answer(
        self,
        calls: Sequence[ToolCall],
        groups: Sequence[_Group],
        number: int,
        decisions: Mapping[str, Decision | Pause],
    ) -> Generator[AgentEffect, Any, list[ToolResult]]:
        """Return the results of all calls.

        Equal calls are run once, invalid and refused calls not at all.
        """
        results = self._settled(groups)
        for group in groups:
            result = results.get(group.key)
            if result is group.item and result.error is not None:
                yield EmitEvent(ToolCallInvalid(call=result.call, error=result.error, round=number))
        to_run = self._to_run(groups, results)
        new = to_run.keys() | {group.key for group in groups if results.get(group.key) is group.item}
        for key, item in list(to_run.items()):
            reason = refusal_of(decisions[item.call.id])
            if reason is not None:
                results[key] = refused(to_run.pop(key), reason)
                yield EmitEvent(ToolExecutionFailed(result=results[key], round=number))
        if to_run:
            ran: list[ToolResult] = yield RunTools(tuple(to_run.values()), number)
            results.update(zip(to_run, ran, strict=True))
        answers: dict[int, ToolResult] = {}
        for group in groups:
            first, *others = group.indexes
            answers[first] = result = results[group.key]
            answers.update({at: shared(calls[at], result, len(group.indexes)) for at in others})
            if group.key in new:
                self._earlier.setdefault(group.key, []).append(result)
            for at in others if group.key in new else group.indexes:
                yield EmitEvent(_event(answers[at], number))
        return [answers[at] for at in range(len(calls))]

    @staticmethod
    def _to_run(groups: Sequence[_Group], settled: Mapping[str, ToolResult]) -> dict[str, PreparedCall]:
        return {
            group.key: group.item
            for group in groups
            if group.key not in settled and isinstance(group.item, PreparedCall)
        }

    def _settled(self, groups: Sequence[_Group]) -> dict[str, ToolResult]:
        """Return the results of the calls that need not be run, by group key."""
        settled: dict[str, ToolResult] = {}
        is_any_run = False
        for group in groups:
            earlier = self._earlier.get(group.key, [])
            if len(earlier) >= self._limits.max_repeats:
                settled[group.key] = repeated(group.item.call, earlier[-1])
            elif isinstance(group.item, ToolResult):
                settled[group.key] = group.item
            elif is_any_run and self._one_at_a_time:
                settled[group.key] = not_run(group.item.call)
            else:
                is_any_run = True
        return settled

    def close_round(self, reply: Reply, results: list[ToolResult]) -> None:
        """Record a round and the messages that it adds to the history."""
        closed = Round(reply=reply, results=results)
        self._rounds.append(closed)
        self._added += closed.messages

    def check_failures(self, results: list[ToolResult]) -> None:
        """Raise the failure that exceeds the limit of consecutive failed calls, if any."""
        error = self._count_failures(results)
        if error is not None:
            error.partial = self.reply()
            raise error

    def _count_failures(self, results: list[ToolResult]) -> LMStudioError | None:
        """Count the consecutive failures, and return the one that reaches the limit, or None."""
        for item in results:
            if item.repeated:
                continue
            self._failures = 0 if item.error is None else self._failures + 1
            if item.error is not None and self._failures >= self._limits.max_failures:
                return item.error
        return None

    def check_repeats(self, results: list[ToolResult]) -> None:
        """Raise `MaxRoundsError` if the model repeats its calls despite the notes about it."""
        before = self._rounds[-2].results if len(self._rounds) > 1 else []
        if results and all(item.repeated for item in (*results, *before)) and before:
            raise MaxRoundsError(
                f"The model repeatedly calls {results[0].call.name!r} with the same arguments.", reply=self.reply(),
                hint="Check the tool's result: it may not contain what the model needs.",
            )  # fmt: skip

    def reply(self, last: Reply | None = None) -> Reply:
        """Return the last reply with all rounds, their messages and problems, and the total usage."""
        base = last or (self._rounds[-1].reply if self._rounds else Reply())
        problems = [problem for one in self._rounds for problem in one.problems]
        return replace(
            base, rounds=list(self._rounds), messages=list(self._added), usage=self._usage(), problems=problems
        )

    def _usage(self) -> Usage | None:
        counted = [one.reply.usage for one in self._rounds if one.reply.usage is not None]
        return sum(counted[1:], counted[0]) if counted else None


def _check_call(reply: Reply) -> None:
    """Refuse a reply without a call that was demanded, or without both a call and a text.

    Some servers announce a call behind every text (LocalAI #6218), so a text is an answer; `problems` reports the call.

    Raises:
        ToolCallMissingError: `tool_choice` demanded a call, or the finish reason announced one to an empty answer.
    """
    for problem in reply.problems:
        is_answered = reply.content and problem.detail == TOOL_CALL_ANNOUNCED
        if problem.code == "tool_call_missing" and not is_answered:
            raise ToolCallMissingError(problem.detail, partial=reply)


def _key(item: PreparedCall | ToolResult) -> str:
    """Return a key that equal calls share: name and coerced arguments with defaults."""
    arguments = {**_defaults(item.tool), **item.plain} if isinstance(item, PreparedCall) else item.call.arguments
    return json.dumps([item.call.name, _plain(arguments)], sort_keys=True, default=repr)


def _defaults(tool: Tool[..., Any]) -> dict[str, object]:
    """Return the default values in a tool's schema."""
    properties = tool.parameters.get("properties", {}).items()
    return {name: schema["default"] for name, schema in properties if isinstance(schema, dict) and "default" in schema}


def _plain(value: object) -> object:
    """Return a value with floats such as 5.0 as integers, which JSON Schema considers equal."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case dict():
            return {name: _plain(item) for name, item in value.items()}
        case list():
            return [_plain(item) for item in value]
        case _:
            return value


def _event(result: ToolResult, number: int) -> ToolFinished | ToolExecutionFailed:
    """Return the event for a call that was answered without being run."""
    return (
        ToolFinished(result=result, round=number)
        if result.error is None
        else ToolExecutionFailed(result=result, round=number)
    )
