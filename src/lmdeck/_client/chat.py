"""The chats, sync and async: sending, streaming, structured output and runs of tools.

Modules that a chat without tools does not need are imported by the methods that use them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeVar, Unpack, overload

from msgspec.structs import replace

from lmdeck._arguments import wrong_type
from lmdeck._chunks import Chunk
from lmdeck._client.builder import Builder
from lmdeck._client.stream import AsyncChatStream, ChatStream
from lmdeck._pipeline.run_plan import drive, drive_async, run_plan, run_plan_async
from lmdeck._plans.chat import begin_chat, final_reply
from lmdeck._plans.generation import read_whole
from lmdeck._requests.chat import ChatSpec
from lmdeck._transport import AsyncTransport, Transport
from lmdeck._transport.interruption import Interruption
from lmdeck.messages import Reply

if TYPE_CHECKING:
    from lmdeck._agent.approvals import Approve, PausingApprove
    from lmdeck._agent.limits import AgentLimits, RunLimits
    from lmdeck._agent.loop import AskModel, PendingRound
    from lmdeck._client.approve_callback import AnyApprove
    from lmdeck._client.parse_stream import AsyncParseStream, ParseStream
    from lmdeck._client.paused_run import Decisions, PausedRun
    from lmdeck._client.run import AsyncChatRun, ChatRun
    from lmdeck.events import AgentEvent

T = TypeVar("T")


def spec_of(chat: Chat | AsyncChat) -> ChatSpec:
    """Return the content of a chat's request.

    Raises:
        ConfigurationError: It is not a chat.
    """
    if not isinstance(chat, Builder):
        raise wrong_type("chat", "a Chat or an AsyncChat", chat, "Pass `lm.chat().user('Hello')`.")
    return chat.spec


def limits_of(max_rounds: int, limits: RunLimits) -> AgentLimits:
    """Return the limits of a run.

    Raises:
        ConfigurationError: One of them is out of range.
    """
    from lmdeck._agent.limits import AgentLimits

    return AgentLimits(max_rounds=max_rounds, **limits)


class Chat(Builder[Transport]):
    """A chat of the sync client."""

    __slots__ = ()

    def parse(self, kind: type[T], *, attempts: int = 1) -> T:
        """Request an object of a type.

        The type is, for example, a dataclass, a TypedDict, a msgspec Struct or a pydantic model. The server makes the model
        follow its schema if it supports that. JSON in the reasoning, in a fence or in prose is found and repaired. An answer
        that still does not match is requested again, up to `attempts` times, with its errors.

        Raises:
            StructuredOutputError: No answer matches the type; `raw` is the text of the last one.
            ConfigurationError: The type cannot be described as JSON Schema.
            LMStudioError: An answer failed.
        """
        from lmdeck._plans.structured import OutputType, plan_attempts

        output_type = OutputType(kind)
        return run_plan(
            plan_attempts(output_type, attempts), lambda request: self._for_output(output_type, request).send()
        )[0]

    def parse_stream(self, kind: type[T]) -> ParseStream[T]:
        """Request an object of a type, and return a stream of its partial values as plain data."""
        from lmdeck._client.parse_stream import ParseStream
        from lmdeck._plans.structured import OutputRequest, OutputType

        output_type = OutputType(kind)
        return ParseStream(self._for_output(output_type, OutputRequest()).stream(), output_type)

    @overload
    def run(self, max_rounds: int = 8, *, approve: Approve | None = None, **limits: Unpack[RunLimits]) -> Reply: ...
    @overload
    def run(
        self, max_rounds: int = 8, *, approve: PausingApprove | Literal["pause"], **limits: Unpack[RunLimits]
    ) -> Reply | PausedRun: ...
    def run(self, max_rounds: int = 8, *, approve: AnyApprove = None, **limits: Unpack[RunLimits]) -> Reply | PausedRun:
        """Send the chat and run the tools that the model calls, until it answers.

        The calls of one answer run at once, in threads; their results are sent to the model in order. Errors are results for
        the model, too. `approve` is asked about each call first: it returns True, False or the reason for a refusal, and may be
        async. If it returns `lmdeck.PAUSE`, or is `"pause"`, the run ends with a `PausedRun` before any call of that answer is
        run; `resume` continues it. The reply has `rounds`, `messages` (what the run adds to the history) and the summed
        `usage`. A call of a tool without a handler ends the run.

        Raises:
            MaxRoundsError: The model has not answered after `max_rounds`, or only repeats itself.
            ToolError: `max_failures` consecutive calls failed; this is the last failure.
            ToolCallMissingError: `tool_choice` demanded a call, and there is none.
            LMStudioError: An answer of the model failed.
        """
        return _outcome(self._run(self._spec, limits_of(max_rounds, limits), approve, streamed=False))

    def run_stream(self, max_rounds: int = 8, *, approve: AnyApprove = None, **limits: Unpack[RunLimits]) -> ChatRun:
        """Run like `run`, and yield every chunk and tool event of all rounds as it happens."""
        return self._run(self._spec, limits_of(max_rounds, limits), approve, streamed=True)

    def resume(
        self,
        paused: PausedRun,
        decisions: Decisions,
        max_rounds: int = 8,
        *,
        approve: AnyApprove = "pause",
        **limits: Unpack[RunLimits],
    ) -> Reply | PausedRun:
        """Resume a paused run: run the allowed calls, report the others to the model, and continue.

        `decisions` has, by call id, True, False or the reason for a refusal; True or False alone applies to all calls. Model
        and messages are those of the paused run, tools and options those of this chat. `max_rounds` includes the rounds before
        the pause. `approve` decides on later calls, which pause the run again by default. A run can be resumed only once: see
        `PausedRun`.

        Raises:
            ConfigurationError: A call has no decision, this chat has no handler for it, or the run was resumed before.
            LMStudioError: As in `run`.
        """
        spec, pending = self._resumed(paused, decisions)
        return _outcome(self._run(spec, limits_of(max_rounds, limits), approve, pending, streamed=False))

    def resume_stream(
        self,
        paused: PausedRun,
        decisions: Decisions,
        max_rounds: int = 8,
        *,
        approve: AnyApprove = "pause",
        **limits: Unpack[RunLimits],
    ) -> ChatRun:
        """Resume like `resume`, and yield every chunk and tool event from there on as it happens."""
        spec, pending = self._resumed(paused, decisions)
        return self._run(spec, limits_of(max_rounds, limits), approve, pending, streamed=True)

    def _run(
        self,
        spec: ChatSpec,
        limits: AgentLimits,
        approve: AnyApprove,
        resumed: PendingRound | None = None,
        *,
        streamed: bool,
    ) -> ChatRun:
        from lmdeck._client.approve_callback import approver
        from lmdeck._client.run import ChatRun

        return ChatRun(partial(self._steps, spec, limits, approver(approve), resumed, streamed=streamed))

    def _steps(
        self,
        spec: ChatSpec,
        limits: AgentLimits,
        approve: PausingApprove,
        resumed: PendingRound | None,
        interruption: Interruption,
        *,
        streamed: bool,
    ) -> Generator[AgentEvent, None, Reply | PausedRun]:
        from lmdeck._client.run_agent import run_agent
        from lmdeck._client.run_events import publish_events

        def ask(effect: AskModel) -> ChatStream:
            return self._open(_spec_for_round(spec, effect), stream=streamed)

        steps = run_agent(self._run_plan(limits, resumed), ask, limits, approve, interruption, streamed=streamed)
        model = spec.model or self.settings.model
        return _paused((yield from publish_events(steps, self._session.bus, model)), spec)

    def _open(self, spec: ChatSpec, *, stream: bool) -> ChatStream:
        return ChatStream(self._transport(), partial(begin_chat, self._session, spec, stream=stream))

    def send(self) -> Reply:
        """Send the chat, and return the complete reply.

        Raises:
            LMStudioError: The answer is not complete; the class shows the reason, `hint` what to do.
        """
        begin = begin_chat(self._session, self._spec, stream=False)
        return final_reply(drive(read_whole(begin), self._transport()))

    @overload
    def stream(self) -> ChatStream: ...
    @overload
    def stream(self, callback: Callable[[Chunk], object]) -> Reply: ...
    def stream(self, callback: Callable[[Chunk], object] | None = None) -> ChatStream | Reply:
        """Send the chat, and return a stream of the answer's chunks.

        With a callback, call it for each chunk and return the reply.

        Raises:
            LMStudioError: With a callback: the answer is not complete. Without: the stream raises it when it is read.
        """
        stream = self._open(self._spec, stream=True)
        if callback is None:
            return stream
        with stream:
            for chunk in stream:
                callback(chunk)
        return stream.reply


class AsyncChat(Builder[AsyncTransport]):
    """A chat of the async client."""

    __slots__ = ()

    async def parse(self, kind: type[T], *, attempts: int = 1) -> T:
        """Async version of `Chat.parse`."""
        from lmdeck._plans.structured import OutputType, plan_attempts

        output_type = OutputType(kind)
        return (
            await run_plan_async(
                plan_attempts(output_type, attempts), lambda request: self._for_output(output_type, request).send()
            )
        )[0]

    def parse_stream(self, kind: type[T]) -> AsyncParseStream[T]:
        """Async version of `Chat.parse_stream`."""
        from lmdeck._client.parse_stream import AsyncParseStream
        from lmdeck._plans.structured import OutputRequest, OutputType

        output_type = OutputType(kind)
        return AsyncParseStream(self._for_output(output_type, OutputRequest()).stream(), output_type)

    @overload
    async def run(
        self, max_rounds: int = 8, *, approve: Approve | None = None, **limits: Unpack[RunLimits]
    ) -> Reply: ...
    @overload
    async def run(
        self, max_rounds: int = 8, *, approve: PausingApprove | Literal["pause"], **limits: Unpack[RunLimits]
    ) -> Reply | PausedRun: ...
    async def run(
        self, max_rounds: int = 8, *, approve: AnyApprove = None, **limits: Unpack[RunLimits]
    ) -> Reply | PausedRun:
        """Async version of `Chat.run`, with async tools and `approve`; sync tools run in threads."""
        return await _outcome_async(self._run(self._spec, limits_of(max_rounds, limits), approve, streamed=False))

    def run_stream(
        self, max_rounds: int = 8, *, approve: AnyApprove = None, **limits: Unpack[RunLimits]
    ) -> AsyncChatRun:
        """Async version of `Chat.run_stream`."""
        return self._run(self._spec, limits_of(max_rounds, limits), approve, streamed=True)

    async def resume(
        self,
        paused: PausedRun,
        decisions: Decisions,
        max_rounds: int = 8,
        *,
        approve: AnyApprove = "pause",
        **limits: Unpack[RunLimits],
    ) -> Reply | PausedRun:
        """Async version of `Chat.resume`."""
        spec, pending = self._resumed(paused, decisions)
        return await _outcome_async(self._run(spec, limits_of(max_rounds, limits), approve, pending, streamed=False))

    def resume_stream(
        self,
        paused: PausedRun,
        decisions: Decisions,
        max_rounds: int = 8,
        *,
        approve: AnyApprove = "pause",
        **limits: Unpack[RunLimits],
    ) -> AsyncChatRun:
        """Async version of `Chat.resume_stream`."""
        spec, pending = self._resumed(paused, decisions)
        return self._run(spec, limits_of(max_rounds, limits), approve, pending, streamed=True)

    def _run(
        self,
        spec: ChatSpec,
        limits: AgentLimits,
        approve: AnyApprove,
        resumed: PendingRound | None = None,
        *,
        streamed: bool,
    ) -> AsyncChatRun:
        from lmdeck._client.approve_callback import approver
        from lmdeck._client.run import AsyncChatRun

        return AsyncChatRun(self._steps(spec, limits, approver(approve), resumed, streamed=streamed))

    async def _steps(
        self,
        spec: ChatSpec,
        limits: AgentLimits,
        approve: PausingApprove,
        resumed: PendingRound | None,
        *,
        streamed: bool,
    ) -> AsyncGenerator[AgentEvent | Reply | PausedRun, None]:
        from lmdeck._agent.loop import PendingRound
        from lmdeck._client.run_agent import run_agent_async
        from lmdeck._client.run_events import publish_events_async

        def ask(effect: AskModel) -> AsyncChatStream:
            return self._open(_spec_for_round(spec, effect), stream=streamed)

        agent = run_agent_async(self._run_plan(limits, resumed), ask, limits, approve, streamed=streamed)
        model = spec.model or self.settings.model
        async with aclosing(publish_events_async(agent, self._session.bus, model)) as steps:
            async for step in steps:
                yield _paused(step, spec) if isinstance(step, PendingRound) else step

    def _open(self, spec: ChatSpec, *, stream: bool) -> AsyncChatStream:
        return AsyncChatStream(self._transport(), partial(begin_chat, self._session, spec, stream=stream))

    async def send(self) -> Reply:
        """Async version of `Chat.send`."""
        begin = begin_chat(self._session, self._spec, stream=False)
        return final_reply(await drive_async(read_whole(begin), self._transport()))

    @overload
    def stream(self) -> AsyncChatStream: ...
    @overload
    def stream(self, callback: Callable[[Chunk], object]) -> Awaitable[Reply]: ...
    def stream(self, callback: Callable[[Chunk], object] | None = None) -> AsyncChatStream | Awaitable[Reply]:
        """Async version of `Chat.stream`: the callback may be async, and the reply is awaited."""
        stream = self._open(self._spec, stream=True)
        return stream if callback is None else _call_back(stream, callback)


def _spec_for_round(spec: ChatSpec, effect: AskModel) -> ChatSpec:
    """Return the request of a round.

    Only the first may demand a call, or the run would never end.
    """
    choice = spec.tool_choice
    if effect.round > 1 and choice not in (None, "none"):
        choice = "auto"
    return replace(spec, messages=(*spec.messages, *effect.added), tool_choice=choice)


def _paused(outcome: Reply | PendingRound, spec: ChatSpec) -> Reply | PausedRun:
    if isinstance(outcome, Reply):
        return outcome
    from lmdeck._client.paused_run import PausedRun

    return PausedRun.of(outcome, spec)


def _outcome(run: ChatRun) -> Reply | PausedRun:
    for _ in run:
        continue
    return run.outcome


async def _outcome_async(run: AsyncChatRun) -> Reply | PausedRun:
    async for _ in run:
        continue
    return run.outcome


async def _call_back(stream: AsyncChatStream, callback: Callable[[Chunk], object]) -> Reply:
    async with stream:
        async for chunk in stream:
            result = callback(chunk)
            if isinstance(result, Awaitable):
                await result
    return stream.reply
