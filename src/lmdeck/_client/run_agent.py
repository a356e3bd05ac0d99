"""Run an agent: perform the effects of its plan, blocking or awaited, and yield events.

Leaving a run early closes the model's stream and cancels the running tools.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing
from typing import Any

from msgspec import Struct

from lmdeck._agent.approvals import PausingApprove
from lmdeck._agent.limits import AgentLimits
from lmdeck._agent.loop import AskApproval, AskModel, EmitEvent, PendingRound, RunTools
from lmdeck._client.approve_callback import decide, decide_async
from lmdeck._client.stream import AsyncChatStream, ChatStream
from lmdeck._client.tool_runs import run_in_tasks, run_in_threads
from lmdeck._transport.interruption import Interruption
from lmdeck.errors import LMStudioError
from lmdeck.events import AgentEvent
from lmdeck.messages import Reply, ToolResult

AgentPlan = Generator[Any, Any, Reply | PendingRound]


def run_agent(
    plan: AgentPlan,
    ask: Callable[[AskModel], ChatStream],
    limits: AgentLimits,
    approve: PausingApprove,
    interruption: Interruption,
    *,
    streamed: bool,
) -> Generator[AgentEvent, None, Reply | PendingRound]:
    """Run an agent with blocking calls, yield its events, and return the reply.

    An interruption from another thread ends the wait for the model or for tools with an `IncompleteStreamError`.
    """
    try:
        effect = next(plan)
        while True:
            result: object = None
            try:
                match effect:
                    case AskModel():
                        stream = ask(effect)
                        interruption.watch(stream.close)
                        with stream:
                            if streamed:
                                yield from stream
                            result = stream.until_done()
                    case AskApproval(ready):
                        result = decide(ready, approve)
                    case RunTools(ready, number):
                        result = yield from run_in_threads(ready, number, limits, interruption)
                    case EmitEvent(event):
                        yield event
            except LMStudioError as error:
                effect = plan.throw(error)
            else:
                effect = plan.send(result)
    except StopIteration as done:
        outcome: Reply | PendingRound = done.value
        return outcome
    finally:
        plan.close()


async def run_agent_async(
    plan: AgentPlan, ask: Callable[[AskModel], AsyncChatStream], limits: AgentLimits, approve: PausingApprove, *,
    streamed: bool,
) -> AsyncGenerator[AgentEvent | Reply | PendingRound, None]:  # fmt: skip
    """Async version of `run_agent`; the reply, or the pending round, is yielded last."""
    try:
        effect = next(plan)
        while True:
            result: object = None
            try:
                async with aclosing(_perform(effect, ask, limits, approve, streamed=streamed)) as steps:
                    async for step in steps:
                        if isinstance(step, _Result):
                            result = step.value
                        else:
                            yield step
            except LMStudioError as error:
                effect = plan.throw(error)
            else:
                effect = plan.send(result)
    except StopIteration as done:
        outcome: Reply | PendingRound = done.value
    finally:
        plan.close()
    yield outcome


class _Result(Struct, frozen=True):
    """The result of an effect, as the last of its steps."""

    value: object


async def _perform(
    effect: object,
    ask: Callable[[AskModel], AsyncChatStream],
    limits: AgentLimits,
    approve: PausingApprove,
    *,
    streamed: bool,
) -> AsyncGenerator[AgentEvent | _Result, None]:
    match effect:
        case AskModel():
            async with ask(effect) as stream:
                if streamed:
                    async for chunk in stream:
                        yield chunk
                yield _Result(await stream.until_done())
        case AskApproval(ready):
            yield _Result(await decide_async(ready, approve))
        case RunTools(ready, number):
            results: dict[int, ToolResult] = {}
            async with aclosing(run_in_tasks(ready, number, limits, results)) as events:
                async for event in events:
                    yield event
            yield _Result([results[at] for at in range(len(ready))])
        case EmitEvent(event):
            yield event
