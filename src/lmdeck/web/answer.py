"""An answer for a browser: what the model and the tools do, as server-sent events, and what became of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from msgspec.structs import replace

from lmdeck._client.chat import AsyncChat
from lmdeck._client.tool_runs import Approve
from lmdeck.errors import LMStudioError
from lmdeck.events import AgentEvent, Chunk, RoundFinished, ToolCallInvalid, ToolDone, ToolErrored
from lmdeck.messages import Reply, Round, ToolResult
from lmdeck.web.encodings.base import BEAT, PAGE, Encoding

__all__ = ["Answer"]

_log = logging.getLogger("lmdeck.web")


class Answer:
    """One answer to one request. `reply` is the whole reply in the end, until then what has come of it."""

    def __init__(
        self,
        chat: Callable[[], AsyncChat],
        *,
        max_rounds: int = 8,
        approve: Approve | None = None,
        encoding: Encoding = PAGE,
    ) -> None:
        """`chat` gives the chat to ask, on the event loop on which it is asked."""
        self.was_asked = False
        self._encoder = encoding.encoder()
        self._chat = chat
        self._max_rounds = max_rounds
        self._approve = approve
        self._reply: Reply | None = None
        self._so_far = _SoFar()

    @property
    def reply(self) -> Reply:
        """The reply, or as much of it as there is: then its `finish_reason` is empty."""
        return self._reply or self._so_far.reply()

    async def frames(self, heartbeat: float) -> AsyncGenerator[bytes, None]:
        """Ask, and give the answer as server-sent events; a comment where nothing else came for `heartbeat` seconds."""
        async with aclosing(self._told()) as told, aclosing(_with_heartbeat(told, heartbeat)) as frames:
            async for frame in frames:
                yield frame

    async def _told(self) -> AsyncGenerator[bytes, None]:
        self.was_asked = True
        encode = self._encoder.encode
        try:
            async with self._chat().run_stream(self._max_rounds, approve=self._approve) as run:
                async for event in run:
                    self._so_far.note(event)
                    if frame := encode(event):
                        yield frame
            self._reply = run.reply
            yield encode(self._reply)
        except LMStudioError as error:
            _log.warning("An answer failed: %s", error)
            yield encode(error)
        except Exception:  # noqa: BLE001  # the response has begun: the browser must be told, whatever it was
            _log.exception("An answer failed.")
            yield encode(LMStudioError("The answer failed.", hint="The log of the site says why."))


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
            case ToolDone() | ToolErrored():
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

    def reply(self) -> Reply:
        last = Reply(content="".join(self._content).strip(), reasoning="".join(self._reasoning).strip())
        messages = [message for one in self._rounds for message in one.messages]
        return replace(
            last,
            rounds=[*self._rounds, Round(reply=last)] if last.content or last.reasoning else list(self._rounds),
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
