"""The answer to one browser request: a run as server-sent events, and its reply."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from msgspec.structs import replace

from lmdeck._client.approvals import AnyApprove
from lmdeck._client.chat import AsyncChat
from lmdeck.errors import LMStudioError, StreamError, TransportError
from lmdeck.events import AgentEvent, Chunk, RoundFinished, ToolCallInvalid, ToolExecutionFailed, ToolFinished
from lmdeck.messages import Problem, Reply, Round, ToolResult
from lmdeck.web.encodings import HEARTBEAT_FRAME, PAGE, Encoding

_log = logging.getLogger("lmdeck.web")

STOPPED = Problem("stopped", "The browser disconnected before the answer was complete.")
CUT = Problem("cut", "The connection to the model broke before the answer was complete.")
FAILED = Problem("failed", "The answer ended with an error.")
RUN_FINISHED = b""
SEE_LOG = "The traceback is in the site's log."
NOT_SAVED = "The answer is complete, but it could not be saved."


class StreamedAnswer:
    """One answer to one request; `reply` is the complete reply, or the part received so far.

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
    ) -> None:
        """`chat` returns the chat to run; it is called on the event loop of the run.

        `with_details` is for developers: errors are sent unchanged. Otherwise a neutral sentence is sent, with the number under
        which the error was logged.
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
        self._reply: Reply | None = None
        self._partial = _PartialReply()

    @property
    def reply(self) -> Reply:
        """The complete reply, or a partial one with an empty `finish_reason` and a problem that says how it ended."""
        return self._reply or self._partial.reply(self._ending)

    def end(self, on_end: Callable[[Reply], object] | None) -> None:
        """Call `on_end` with the reply, once; an exception is logged and reported in the last frame."""
        if on_end is None or self._is_ended or not self.is_started:
            return
        self._is_ended = True
        try:
            on_end(self.reply)
        except Exception as error:  # application code: the visitor must learn of any failure
            self._save_error = self._reported(error, NOT_SAVED)

    async def end_async(self, on_end: Callable[[Reply], Awaitable[object]] | None) -> None:
        """Async version of `end`; it completes even if the browser disconnects meanwhile."""
        if on_end is None or not self.is_started:
            return
        if self._end_task is None:
            self._end_task = asyncio.ensure_future(self._call(on_end))
        await asyncio.shield(self._end_task)

    async def _call(self, on_end: Callable[[Reply], Awaitable[object]]) -> None:
        try:
            await on_end(self.reply)
        except Exception as error:  # as above
            self._save_error = self._reported(error, NOT_SAVED)

    async def frames(self, heartbeat: float) -> AsyncGenerator[bytes, None]:
        """Run the chat and yield server-sent events; a comment after each `heartbeat` seconds of silence."""
        async with aclosing(self._run()) as events, aclosing(_with_heartbeat(events, heartbeat)) as frames:
            async for frame in frames:
                yield frame

    async def _run(self) -> AsyncGenerator[bytes, None]:
        self.is_started = True
        encode = self._encoder.encode
        end: Reply | LMStudioError
        try:
            async with self._chat().run_stream(self._max_rounds, approve=self._approve) as run:
                async for event in run:
                    self._partial.add(event)
                    if frame := encode(event):
                        yield frame
            self._reply = end = run.reply
        except Exception as error:  # the status line is sent: any failure is reported as an event
            self._ending = CUT if isinstance(error, TransportError | StreamError) else FAILED
            end = self._reported(error, "The answer failed.")
        self.is_finished = True
        yield RUN_FINISHED
        yield encode(end if isinstance(end, LMStudioError) else self._save_error or end)

    def _reported(self, error: Exception, what: str) -> LMStudioError:
        """Log an error and return the one to send: with its details, or neutral with the number of the log entry."""
        number = getattr(error, "request_id", None) or f"req_{secrets.token_hex(8)}"
        _log.warning("%s (%s) %s", what, number, error, exc_info=None if isinstance(error, LMStudioError) else error)
        if self.with_details and isinstance(error, LMStudioError):
            return error
        if self.with_details:
            reported = LMStudioError(f"{what} {type(error).__name__}: {error}", hint=SEE_LOG)
        else:
            hint = f"Try again. If it fails again, report the number {number} to the owner of this site."
            reported = LMStudioError(what, hint=hint)
        reported.request_id = number
        return reported


class _PartialReply:
    """The reply of an unfinished run: the completed rounds and the text of the current one."""

    def __init__(self) -> None:
        self._rounds: list[Round] = []
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
        results = [self._results[call.id] for call in reply.tool_calls if call.id in self._results]
        if len(results) == len(reply.tool_calls):  # servers reject a history with a call without its result
            self._rounds.append(Round(reply=reply, results=results))
        self._results.clear()
        self._content.clear()
        self._reasoning.clear()

    def reply(self, ending: Problem) -> Reply:
        last = Reply(
            content="".join(self._content).strip(), reasoning="".join(self._reasoning).strip(), problems=[ending]
        )
        messages = [message for one in self._rounds for message in one.messages]
        return replace(
            last,
            rounds=[*self._rounds, Round(reply=last)],
            messages=[*messages, last.message] if last.content else messages,
        )


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
