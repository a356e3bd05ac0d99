"""The two drivers of a run: a plan's effects carried out with blocking calls, or with awaited ones.

Leaving a run early closes the model's stream and cancels the tools that run.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from lmdeck._agent.limits import AgentLimits
from lmdeck._agent.loop import AskModel, RunTools, Tell
from lmdeck._client.tool_runs import Approve, run_in_tasks, run_in_threads
from lmdeck._event_bus import EventBus
from lmdeck.errors import LMStudioError
from lmdeck.events import AgentEvent
from lmdeck.messages import Reply, ToolResult

if TYPE_CHECKING:
    from lmdeck._client.chat import AsyncChat, Chat

__all__ = ["play", "play_async", "told", "told_async"]

AgentPlan = Generator[Any, Any, Reply]


def play(
    plan: AgentPlan, asks: Callable[[AskModel], Chat], limits: AgentLimits, approve: Approve | None, *, streamed: bool
) -> Generator[AgentEvent, None, Reply]:
    """Carry a run out with blocking calls, and give what happens in it."""
    try:
        effect = next(plan)
        while True:
            result: object = None
            try:
                match effect:
                    case AskModel() if streamed:
                        with asks(effect).stream() as stream:
                            yield from stream
                        result = stream.reply
                    case AskModel():
                        result = asks(effect).send()
                    case RunTools(ready, number):
                        result = yield from run_in_threads(ready, number, limits, approve)
                    case Tell(event):
                        yield event
            except LMStudioError as error:
                effect = plan.throw(error)
            else:
                effect = plan.send(result)
    except StopIteration as done:
        reply: Reply = done.value
        return reply
    finally:
        plan.close()


async def play_async(
    plan: AgentPlan, asks: Callable[[AskModel], AsyncChat], limits: AgentLimits, approve: Approve | None, *,
    streamed: bool,
) -> AsyncGenerator[AgentEvent | Reply, None]:  # fmt: skip
    """Carry a run out with awaited calls; give what happens in it, and its reply at the end."""
    try:
        effect = next(plan)
        while True:
            result: object = None
            try:
                async with aclosing(_carry_out(effect, asks, limits, approve, streamed=streamed)) as steps:
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
        reply: Reply = done.value
    finally:
        plan.close()
    yield reply


def told(steps: Generator[AgentEvent, None, Reply], bus: EventBus) -> Generator[AgentEvent, None, Reply]:
    """Tell the client's listeners what happens in a run, as it happens."""
    try:
        while True:
            event = next(steps)
            bus.tell(event)
            yield event
    except StopIteration as done:
        reply: Reply = done.value
        return reply
    finally:
        steps.close()


async def told_async(
    steps: AsyncGenerator[AgentEvent | Reply, None], bus: EventBus
) -> AsyncGenerator[AgentEvent | Reply, None]:
    """Do as `told`, awaited."""
    async with aclosing(steps) as given:
        async for step in given:
            bus.tell(step)
            yield step


class _Result(Struct, frozen=True):
    """What an effect gave, as the last of its steps."""

    value: object


async def _carry_out(
    effect: object,
    asks: Callable[[AskModel], AsyncChat],
    limits: AgentLimits,
    approve: Approve | None,
    *,
    streamed: bool,
) -> AsyncGenerator[AgentEvent | _Result, None]:
    match effect:
        case AskModel() if streamed:
            async with asks(effect).stream() as stream:
                async for chunk in stream:
                    yield chunk
            yield _Result(stream.reply)
        case AskModel():
            yield _Result(await asks(effect).send())
        case RunTools(ready, number):
            results: dict[int, ToolResult] = {}
            async with aclosing(run_in_tasks(ready, number, limits, approve, results)) as events:
                async for event in events:
                    yield event
            yield _Result([results[at] for at in range(len(ready))])
        case Tell(event):
            yield event
