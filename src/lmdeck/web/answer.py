"""The answer to one browser request: a run as server-sent events, and its reply."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from lmdeck._client.approve_callback import AnyApprove
from lmdeck._client.chat import AsyncChat
from lmdeck._client.paused_run import Decisions, PausedRun
from lmdeck._client.run import AsyncChatRun
from lmdeck.errors import LMStudioError, StreamError, TransportError
from lmdeck.events import AgentEvent, Chunk, RoundFinished, ToolCallInvalid, ToolExecutionFailed, ToolFinished
from lmdeck.messages import Problem, Reply, Round, ToolResult
from lmdeck.web.encodings import HEARTBEAT_FRAME, PAGE, Encoding
from lmdeck.web.error_reports import report, sentence_for

STOPPED = Problem("stopped", "The browser disconnected before the answer was complete.")
CUT = Problem("cut", "The connection to the model broke before the answer was complete.")
FAILED = Problem("failed", "The answer ended with an error.")
RUN_FINISHED = b""
ANSWER_FAILED = "The answer failed."
NOT_SAVED = "The answer is complete, but it could not be saved."


OnEnd: TypeAlias = Callable[[Any], object]
"""Is called with the reply, or with the `PausedRun` where `approve` pauses runs."""
OnEndAsync: TypeAlias = Callable[[Any], Awaitable[object]]


class ResumedRun(Struct, frozen=True):
    """A paused run that is resumed, and the decisions on its calls."""

    paused: PausedRun
    decisions: Decisions


class StreamedAnswer:
    """One answer to one request.

    `outcome` is the complete reply, the paused run, or the part received so far.

    The sender checks `is_finished` at each frame and calls `end` or `end_async` once it is true, before it requests the next
    frame. The last frame then reports whether saving the reply succeeded. The frame before it is empty and need not be sent.
    """

    def __init__(
        self,
        chat: Callable[[], AsyncChat],
        *,
        max_rounds: int = 8,
        approve: AnyApprove = None,
        encoding: Encoding = PAGE,
        with_details: bool = False,
        resumed: ResumedRun | None = None,
    ) -> None:
        """Prepare the answer to `chat`, a function that returns the chat to run.

        It is called on the event loop of the run. `resumed` is a paused run to resume.

        `with_details` is for development: errors are sent unchanged. Otherwise a neutral sentence is sent, with the
        number of the log entry.
        """
        self.is_started = False
        self.is_finished = False
        self.with_details = with_details
        self._ending = STOPPED
        self._save_error: LMStudioError | None = None
        self._is_ended = False
        self._end_task: asyncio.Task[None] | None = None
        self._encoder = encoding.encoder()
        self._chat = chat
        self._max_rounds = max_rounds
        self._approve = approve
        self._resumed = resumed
        self._outcome: Reply | PausedRun | None = None
        self._partial = _PartialReply(None if resumed is None else resumed.paused)

    @property
    def outcome(self) -> Reply | PausedRun:
        """The reply: complete, or partial with a problem that says how it ended.

        A partial reply has an empty `finish_reason`.

        If calls wait for a decision, it is the paused run.
        """
        return self._outcome or self._partial.reply(self._ending)

    def end(self, on_end: OnEnd | None) -> None:
        """Call `on_end` with the outcome, once.

        An exception is logged, and reported in the last frame.
        """
        if on_end is None or self._is_ended or not self.is_started:
            return
        self._is_ended = True
        try:
            on_end(self.outcome)
        except Exception as error:  # application code: the visitor must learn of any failure
            self._save_error = report(error, NOT_SAVED, with_details=self.with_details)

    async def end_async(self, on_end: OnEndAsync | None) -> None:
        """Async version of `end`; it completes even if the browser disconnects meanwhile."""
        if on_end is None or not self.is_started:
            return
        if self._end_task is None:
            self._end_task = asyncio.ensure_future(self._call(on_end))
        await asyncio.shield(self._end_task)

    async def _call(self, on_end: OnEndAsync) -> None:
        try:
            await on_end(self.outcome)
        except Exception as error:  # as above
            self._save_error = report(error, NOT_SAVED, with_details=self.with_details)

    async def frames(self, heartbeat: float) -> AsyncGenerator[bytes, None]:
        """Run the chat and yield server-sent events.

        A comment follows each `heartbeat` seconds of silence.
        """
        async with aclosing(self._run()) as events, aclosing(_with_heartbeat(events, heartbeat)) as frames:
            async for frame in frames:
                yield frame

    async def _run(self) -> AsyncGenerator[bytes, None]:
        self.is_started = True
        encode = self._encoder.encode
        end: Reply | LMStudioError
        try:
            async with self._run_stream() as run:
                async for event in run:
                    self._partial.add(event)
                    if frame := encode(event):
                        yield frame
            self._outcome, end = run.outcome, run.reply
        except Exception as error:  # the status line is sent: any failure is reported as an event
            self._ending = CUT if isinstance(error, TransportError | StreamError) else FAILED
            end = report(error, sentence_for(error, ANSWER_FAILED), with_details=self.with_details)
        self.is_finished = True
        yield RUN_FINISHED
        yield encode(end if isinstance(end, LMStudioError) else self._save_error or end)

    def _run_stream(self) -> AsyncChatRun:
        chat, resumed = self._chat(), self._resumed
        if resumed is None:
            return chat.run_stream(self._max_rounds, approve=self._approve)
        return chat.resume_stream(resumed.paused, resumed.decisions, self._max_rounds, approve=self._approve)


class _PartialReply:
    """The reply of an unfinished run: the completed rounds and the text of the current one.

    The current round of a resumed run is that of the calls that waited, until their results are complete.
    """

    def __init__(self, resumed: PausedRun | None) -> None:
        self._rounds: list[Round] = [] if resumed is None else list(resumed.rounds)
        self._waiting = None if resumed is None else resumed.reply
        self._results: dict[str, ToolResult] = {}
        self._content: list[str] = []
        self._reasoning: list[str] = []

    def add(self, event: AgentEvent) -> None:
        match event:
            case Chunk():
                self._content.append(event.content)
                self._reasoning.append(event.reasoning)
            case ToolFinished() | ToolExecutionFailed():
                self._results[event.result.call.id] = event.result
            case ToolCallInvalid():
                refusal = ToolResult(call=event.call, content=event.error.message, error=event.error)
                self._results[event.call.id] = refusal
            case RoundFinished():
                self._close_round(event.reply)

    def _close_round(self, reply: Reply) -> None:
        results = self._results_of(reply)
        if len(results) == len(reply.tool_calls):  # servers reject a history with a call without its result
            self._rounds.append(Round(reply=reply, results=results))
        self._waiting = None
        self._results.clear()
        self._content.clear()
        self._reasoning.clear()

    def _results_of(self, reply: Reply) -> list[ToolResult]:
        return [self._results[call.id] for call in reply.tool_calls if call.id in self._results]

    def reply(self, ending: Problem) -> Reply:
        messages = [message for one in self._rounds for message in one.messages]
        if self._waiting is not None:
            last = replace(self._waiting, finish_reason="", problems=[*self._waiting.problems, ending])
            results = self._results_of(last)
        else:
            content, reasoning = "".join(self._content).strip(), "".join(self._reasoning).strip()
            last, results = Reply(content=content, reasoning=reasoning, problems=[ending]), []
            messages += [last.message] if last.content else []
        return replace(last, rounds=[*self._rounds, Round(reply=last, results=results)], messages=messages)


async def _with_heartbeat(frames: AsyncGenerator[bytes, None], seconds: float) -> AsyncGenerator[bytes, None]:
    async def next_frame() -> bytes | None:
        return await anext(frames, None)

    pending: asyncio.Task[bytes | None] | None = None
    try:
        while True:
            pending = asyncio.create_task(next_frame())
            while not (await asyncio.wait([pending], timeout=seconds))[0]:
                yield HEARTBEAT_FRAME
            frame = pending.result()
            if frame is None:
                return
            yield frame
    finally:
        if pending is not None and not pending.done():
            pending.cancel()
            await asyncio.wait([pending])
