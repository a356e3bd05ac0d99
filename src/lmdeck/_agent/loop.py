"""The loop as a plan: it asks for an answer of the model, then for the results of its calls, until there are no calls.

A generator of effects, so that a test drives it with plain values, and the sync and the async client run the same one.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from lmdeck._agent.limits import AgentLimits
from lmdeck._agent.tool_calls import Ready, prepare
from lmdeck.errors import EmptyReplyError, MaxRoundsError
from lmdeck.events import RoundFinished, ToolCallInvalid
from lmdeck.messages import Message, Reply, Round, ToolCall, ToolResult
from lmdeck.stats import Usage
from lmdeck.tools.tool import Tool

__all__ = ["AgentEffect", "AskModel", "RunTools", "Tell", "agent_plan"]


class AskModel(Struct, frozen=True):
    """Effect: ask the model with these messages after the chat's own, and be sent its `Reply`."""

    added: tuple[Message, ...]
    round: int


class RunTools(Struct, frozen=True):
    """Effect: run these calls at once, and be sent their results in the same order."""

    ready: tuple[Ready, ...]
    round: int


class Tell(Struct, frozen=True):
    """Effect: tell whoever listens."""

    event: RoundFinished | ToolCallInvalid


AgentEffect: TypeAlias = AskModel | RunTools | Tell


def agent_plan(
    tools: Mapping[str, Tool[..., Any]], elsewhere: frozenset[str], limits: AgentLimits
) -> Generator[AgentEffect, Any, Reply]:
    """Plan a run. Calls of tools that are answered `elsewhere`, having no handler here, end it with their reply.

    Raises:
        MaxRoundsError: The model has not answered within its rounds, or only repeats itself.
        ToolError: Too many calls in a row failed; it is the last failure.
    """
    run = _Run(tools, limits)
    for number in range(1, limits.max_rounds + 1):
        reply = yield from run.ask(number)
        if not reply.tool_calls or any(call.name in elsewhere for call in reply.tool_calls):
            run.close_round(reply, [])
            yield Tell(RoundFinished(round=number, reply=reply))
            return run.reply(reply)
        results = yield from run.answer(reply.tool_calls, number)
        run.close_round(reply, results)
        yield Tell(RoundFinished(round=number, reply=reply))
        run.check_failures(results)
        run.check_repeats(results)
    raise MaxRoundsError(f"The model has not answered after {limits.max_rounds} rounds.", reply=run.reply())


class _Run:
    """What a run has done so far."""

    def __init__(self, tools: Mapping[str, Tool[..., Any]], limits: AgentLimits) -> None:
        self._tools = tools
        self._limits = limits
        self._rounds: list[Round] = []
        self._added: list[Message] = []
        self._seen: dict[tuple[str, bytes], int] = {}
        self._failures = 0

    def ask(self, number: int) -> Generator[AgentEffect, Any, Reply]:
        """Ask the model; one empty answer between rounds is asked again."""
        try:
            reply: Reply = yield AskModel(tuple(self._added), number)
        except EmptyReplyError:
            if number == 1:
                raise
            reply = yield AskModel(tuple(self._added), number)
        return reply

    def answer(self, calls: Sequence[ToolCall], number: int) -> Generator[AgentEffect, Any, list[ToolResult]]:
        """Have the calls run that can be; say to the model what is wrong with the others."""
        prepared = [self._prepared(call) for call in calls]
        for item in prepared:
            if isinstance(item, ToolResult) and item.error is not None:
                yield Tell(ToolCallInvalid(call=item.call, error=item.error, round=number))
        ready = tuple(item for item in prepared if isinstance(item, Ready))
        ran: list[ToolResult] = (yield RunTools(ready, number)) if ready else []
        results = iter(ran)
        return [item if isinstance(item, ToolResult) else next(results) for item in prepared]

    def _prepared(self, call: ToolCall) -> Ready | ToolResult:
        key = (call.name, msgspec.json.encode(call.arguments, order="sorted"))
        self._seen[key] = self._seen.get(key, 0) + 1
        if self._seen[key] > self._limits.max_repeats:
            text = "You made this very call before; its result is above. Use it, or answer without the tool."
            return ToolResult(call=call, content=text, repeated=True)
        return prepare(call, self._tools)

    def close_round(self, reply: Reply, results: list[ToolResult]) -> None:
        """Keep a round, and what it adds to the history."""
        closed = Round(reply=reply, results=results)
        self._rounds.append(closed)
        self._added += closed.messages

    def check_failures(self, results: list[ToolResult]) -> None:
        """Raise the last failure where too many came in a row."""
        for item in results:
            self._failures = (
                0 if item.error is None and not item.repeated else self._failures + (item.error is not None)
            )
            if item.error is not None and self._failures >= self._limits.max_failures:
                error = item.error
                error.partial = self.reply()
                raise error

    def check_repeats(self, results: list[ToolResult]) -> None:
        """Stop a model that was told it repeats itself, and does so again."""
        before = self._rounds[-2].results if len(self._rounds) > 1 else []
        if results and all(item.repeated for item in (*results, *before)) and before:
            raise MaxRoundsError(
                f"The model calls {results[0].call.name!r} with the same arguments again and again.", reply=self.reply(),
                hint="Look at the tool's result: it may not tell the model what it asked for.",
            )  # fmt: skip

    def reply(self, last: Reply | None = None) -> Reply:
        """Give the last reply with all rounds, what they add to the history, and what they cost together."""
        given = last or (self._rounds[-1].reply if self._rounds else Reply())
        problems = [problem for one in self._rounds for problem in one.problems]
        return replace(
            given, rounds=list(self._rounds), messages=list(self._added), usage=self._usage(), problems=problems
        )

    def _usage(self) -> Usage | None:
        counted = [one.reply.usage for one in self._rounds if one.reply.usage is not None]
        if not counted:
            return None
        return Usage(
            prompt_tokens=sum(usage.prompt_tokens for usage in counted),
            completion_tokens=sum(usage.completion_tokens for usage in counted),
            total_tokens=sum(usage.total_tokens for usage in counted),
        )
