"""An answer for a browser: what the model and the tools do, as server-sent events, and what became of it."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from msgspec.structs import replace

from lmdeck._client.chat import AsyncChat
from lmdeck._client.tool_runs import Approve
from lmdeck.errors import LMStudioError, StreamError, TransportError
from lmdeck.events import AgentEvent, Chunk, RoundFinished, ToolCallInvalid, ToolExecutionFailed, ToolFinished
from lmdeck.messages import Problem, Reply, Round, ToolResult
from lmdeck.web.encodings import BEAT, PAGE, Encoding

__all__ = ["Answer"]

_log = logging.getLogger("lmdeck.web")

STOPPED = Problem("stopped", "The browser left before the answer was whole.")
CUT = Problem("cut", "The way to the model broke before the answer was whole.")
FAILED = Problem("failed", "The answer ended with an error.")
OVER = b""
IN_LOG = "The log of the site has the traceback."


class Answer:
    """One answer to one request. `reply` is the whole reply in the end, until then what has come of it.

    Who sends the frames looks at `is_over` at each, and calls `end` or `end_async` once it is true, before asking for more: so
    the last frame tells whether what is done with the reply went well. The frame before it is empty, and need not be sent.
    """

    def __init__(
        self,
        chat: Callable[[], AsyncChat],
        *,
        max_rounds: int = 8,
        approve: Approve | None = None,
        encoding: Encoding = PAGE,
        with_details: bool = False,
    ) -> None:
        """`chat` gives the chat to ask, on the event loop on which it is asked.

        With `with_details`, which are for developers, an error is sent as it is; else as a neutral sentence with the number
        under which the log has it.
        """
        self.was_asked = False
        self.is_over = False
        self.with_details = with_details
        self._ending = STOPPED
        self._unsaved: LMStudioError | None = None
        self._was_ended = False
        self._ending_task: asyncio.Task[None] | None = None
        self._encoder = encoding.encoder()
        self._chat = chat
        self._max_rounds = max_rounds
        self._approve = approve
        self._reply: Reply | None = None
        self._so_far = _SoFar()

    @property
    def reply(self) -> Reply:
        """The reply, or as much of it as there is: then its `finish_reason` is empty, and a problem says how it ended."""
        return self._reply or self._so_far.reply(self._ending)

    def end(self, on_end: Callable[[Reply], object] | None) -> None:
        """Hand the reply over, once; a failure is logged, and told in place of the last frame."""
        if on_end is None or self._was_ended or not self.was_asked:
            return
        self._was_ended = True
        try:
            on_end(self.reply)
        except Exception as error:  # noqa: BLE001  # the application's own code; the visitor has to be told
            self._unsaved = self._told_as(error, "The answer is complete, but it could not be saved.")

    async def end_async(self, on_end: Callable[[Reply], Awaitable[object]] | None) -> None:
        """Do as `end`, awaited; where the browser leaves meanwhile, it is still done."""
        if on_end is None or not self.was_asked:
            return
        if self._ending_task is None:
            self._ending_task = asyncio.ensure_future(self._hand_over(on_end))
        await asyncio.shield(self._ending_task)

    async def _hand_over(self, on_end: Callable[[Reply], Awaitable[object]]) -> None:
        try:
            await on_end(self.reply)
        except Exception as error:  # noqa: BLE001  # as above
            self._unsaved = self._told_as(error, "The answer is complete, but it could not be saved.")

    async def frames(self, heartbeat: float) -> AsyncGenerator[bytes, None]:
        """Ask, and give the answer as server-sent events; a comment where nothing else came for `heartbeat` seconds."""
        async with aclosing(self._told()) as told, aclosing(_with_heartbeat(told, heartbeat)) as frames:
            async for frame in frames:
                yield frame

    async def _told(self) -> AsyncGenerator[bytes, None]:
        self.was_asked = True
        encode = self._encoder.encode
        end: Reply | LMStudioError
        try:
            async with self._chat().run_stream(self._max_rounds, approve=self._approve) as run:
                async for event in run:
                    self._so_far.note(event)
                    if frame := encode(event):
                        yield frame
            self._reply = end = run.reply
        except Exception as error:  # noqa: BLE001  # the response has begun: the browser must be told, whatever it was
            self._ending = CUT if isinstance(error, TransportError | StreamError) else FAILED
            end = self._told_as(error, "The answer failed.")
        self.is_over = True
        yield OVER
        yield encode(end if isinstance(end, LMStudioError) else self._unsaved or end)

    def _told_as(self, error: Exception, what: str) -> LMStudioError:
        """Log an error, and return what is told of it."""
        number = getattr(error, "request_id", None) or f"req_{secrets.token_hex(8)}"
        _log.warning("%s (%s) %s", what, number, error, exc_info=None if isinstance(error, LMStudioError) else error)
        if self.with_details and isinstance(error, LMStudioError):
            return error
        if self.with_details:
            told = LMStudioError(f"{what} {type(error).__name__}: {error}", hint=IN_LOG)
        else:
            told = LMStudioError(
                what, hint=f"Ask again; if it goes on, tell the owner of this site the number {number}."
            )
        told.request_id = number
        return told


class _SoFar:
    """What has come of a run: its whole rounds, and the one that is being written."""

    def __init__(self) -> None:
        self._rounds: list[Round] = []
        self._results: dict[str, ToolResult] = {}
        self._content: list[str] = []
        self._reasoning: list[str] = []

    def note(self, event: AgentEvent) -> None:
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
        if len(results) == len(reply.tool_calls):  # a call without its result would spoil the history
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
    async def following() -> bytes | None:
        return await anext(frames, None)

    coming: asyncio.Task[bytes | None] | None = None
    try:
        while True:
            coming = asyncio.create_task(following())
            while not (await asyncio.wait([coming], timeout=seconds))[0]:
                yield BEAT
            frame = coming.result()
            if frame is None:
                return
            yield frame
    finally:
        if coming is not None and not coming.done():
            coming.cancel()
            await asyncio.wait([coming])
