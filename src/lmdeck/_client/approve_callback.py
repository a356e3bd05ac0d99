"""Ask `approve` about the calls of an answer, in the sync and the async client."""

from __future__ import annotations

from collections.abc import Awaitable
from contextvars import copy_context
from inspect import isawaitable
from typing import Any, Literal

from lmdeck._agent.approvals import PAUSE, Approve, Decision, Pause, PausingApprove
from lmdeck._agent.tool_calls import PreparedCall
from lmdeck._client.tool_runs import awaited
from lmdeck.errors import ConfigurationError
from lmdeck.messages import ToolCall

AnyApprove = Approve | PausingApprove | Literal["pause"] | None


def approver(approve: AnyApprove) -> PausingApprove:
    """Return the function that decides: None allows every call, `"pause"` pauses at every call.

    Raises:
        ConfigurationError: `approve` is something else.
    """
    if approve is None:
        return _allow
    if approve == "pause":
        return _pause
    if not callable(approve):
        raise ConfigurationError(
            f"`approve` must be a function or 'pause', not {approve!r}.",
            hint="The function takes a call and returns True, False, a reason, or lmdeck.PAUSE.",
        )
    return approve


def decide(ready: tuple[PreparedCall, ...], approve: PausingApprove) -> list[Decision | Pause]:
    """Return the decision of `approve` on each call.

    An async `approve` runs in another thread, since this one may have a running event loop.
    """
    return [
        _await_in_thread(answer) if isawaitable(answer) else answer for answer in (approve(item.call) for item in ready)
    ]


async def decide_async(ready: tuple[PreparedCall, ...], approve: PausingApprove) -> list[Decision | Pause]:
    """Async version of `decide`."""
    answers: list[Decision | Pause] = []
    for item in ready:
        answer = approve(item.call)
        answers.append(await answer if isawaitable(answer) else answer)
    return answers


def _allow(_: ToolCall) -> bool:
    return True


def _pause(_: ToolCall) -> Pause:
    return PAUSE


def _await_in_thread(value: Awaitable[Any]) -> Any:  # the return value of `approve`
    from concurrent.futures import ThreadPoolExecutor  # imported lazily, as asyncio is

    with ThreadPoolExecutor(1, thread_name_prefix="lmdeck-approve") as pool:
        return pool.submit(copy_context().run, awaited, value, None).result()
