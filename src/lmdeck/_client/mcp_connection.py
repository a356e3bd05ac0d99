"""One connection to an MCP server.

The official `mcp` package implements the protocol. A connection must be closed by the task that opened it, so each one has a
separate task, and a call waits for the result that this task reports.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Self

from lmdeck._client.mcp_address import ServerAddress
from lmdeck._client.mcp_failures import (
    ConnectionLost,
    Unreachable,
    describe_failure,
    is_closed,
    is_refused,
    is_timeout,
    server_words,
)
from lmdeck._client.mcp_results import read_tool_result
from lmdeck.tools.tool import ToolFailed

if TYPE_CHECKING:
    import httpx2
    from mcp import Client
    from mcp.client._transport import ReadStream
    from mcp.shared.message import SessionMessage
    from mcp.types import Tool as ServerTool

MAX_TOOL_PAGES = 50
MAX_SSE_EVENT_BYTES = 64 << 20  # an image in base64 is often larger than mcp's own limit, 1 MiB
CLOSING_SECONDS = 10.0
ABORT_SECONDS = 0.5  # for a process to end by itself after an interruption, and again after it was killed
FAREWELL_SECONDS = 1.0  # for the answer to DELETE, which ends a session: MCP specification, "Session Management"
_LOST_SESSION = re.compile(
    rb"\b(no|not|invalid|unknown|expired|missing)\b[^.]{0,40}\bsession|"
    rb"\bsession\b[^.]{0,40}\b(not|invalid|unknown|expired|missing|required|terminated)\b",
    re.IGNORECASE,
)
_log = logging.getLogger("lmdeck.mcp")
logging.getLogger("mcp").addHandler(logging.NullHandler())  # mcp logs a traceback for each line that is not a message


class Connection:
    """One connection, kept open by a task."""

    def __init__(self, address: ServerAddress) -> None:
        self._address = address
        self._closing = asyncio.Event()
        self._aborting = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._client: Client | None = None
        self._error: BaseException | None = None
        self._status = 0  # of the last HTTP response
        self._answered = 0  # HTTP requests for which at least the response head arrived
        self._session_is_lost = False
        self._calls = 0
        self._is_open = False
        self.is_reported = False  # whether a `ToolServerLost` event was published for it
        self._process: Any = None  # anyio's, of a server that is a command

    @property
    def is_gone(self) -> bool:
        """Whether the server has closed the connection or exited, or has forgotten its session."""
        return self._session_is_lost or self._closing.is_set() or self._task is None or self._task.done()

    @property
    def is_answering(self) -> bool:
        """Whether calls are waiting for the server, which refuses them if it has lost the session."""
        return self._calls > 0 and not self._closing.is_set()

    @property
    def reason(self) -> str:
        """Why the connection is gone."""
        if self._session_is_lost:
            return "the server does not know the session"
        return "the server closed the connection" if self._error is None else describe_failure(self._error)

    async def open(self) -> list[ServerTool]:
        """Connect, and return the server's tools.

        Raises:
            Unreachable: The connection failed or took longer than the limit.
        """
        opened: asyncio.Future[list[ServerTool]] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(opened), name="lmdeck-mcp")
        try:
            return await asyncio.wait_for(opened, self._address.timeout)
        except TimeoutError as error:
            self._abort()
            raise Unreachable(f"it did not answer within {self._address.timeout:g} s") from error
        except asyncio.CancelledError:
            self._abort()
            raise
        except Exception as error:
            raise Unreachable(describe_failure(error) + self._status_note()) from error

    async def call(self, name: str, arguments: dict[str, Any]) -> object:
        """Call a tool.

        Raises:
            ToolFailed: The tool failed, or took too long.
            ConnectionLost: The connection broke.
        """
        from mcp import MCPError
        from mcp.types import PARSE_ERROR

        if self._client is None or self.is_gone:
            raise ConnectionLost(self.reason, may_have_started=False)
        limit, answered = self._address.timeout, self._answered
        self._calls += 1
        try:
            result = await self._client.call_tool(name, arguments, read_timeout_seconds=limit)
        except MCPError as error:
            if is_timeout(error):
                raise ToolFailed(
                    f"The tool {name!r} of the MCP server {self._address.name!r} timed out after {limit:g} s."
                ) from error
            if is_closed(error):
                raise await self._lost(answered) from error
            if self._session_is_lost:
                raise ConnectionLost(self.reason, may_have_started=False) from error
            if error.code == PARSE_ERROR:
                raise self._unreadable_result() from error
            raise ToolFailed(
                f"The MCP server {self._address.name!r} refused the call: {server_words(error)}{self._status_note()}"
            ) from error
        except (OSError, RuntimeError) as error:
            raise await self._lost(answered) from error
        except ValueError as error:  # pydantic's
            raise self._unreadable_result() from error
        finally:
            self._calls -= 1
            if self._session_is_lost and not self._calls:
                self._closing.set()
        return read_tool_result(result, name)

    async def close(self) -> None:
        """Close the connection, and wait until the server's process has ended.

        A cancellation kills it.
        """
        if self._is_open:
            self._closing.set()
        else:
            self._abort()
        try:
            await self._wait_for_end(CLOSING_SECONDS)
        except asyncio.CancelledError:
            await self.interrupt()
            raise

    async def interrupt(self) -> None:
        """Close the connection at once; a process that does not end by itself is killed."""
        self._abort()
        try:
            await self._wait_for_end(ABORT_SECONDS)
        finally:
            self._kill()
        await self._wait_for_end(ABORT_SECONDS)

    async def _wait_for_end(self, seconds: float) -> None:
        if self._task is not None:
            await asyncio.wait([self._task], timeout=seconds)

    def _kill(self) -> None:
        """Kill the server's process, and those that it has started."""
        if self._process is None or self._process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            if hasattr(os, "killpg") and os.getpgid(self._process.pid) == self._process.pid:
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()

    def _abort(self) -> None:
        """End the connection, without waiting until the server's process has ended."""
        self._closing.set()
        self._aborting.set()

    def _unreadable_result(self) -> ToolFailed:
        return ToolFailed(
            f"The MCP server {self._address.name!r} sent a result that does not follow the protocol: the call may have taken "
            f"effect. Check that before you call it again."
        )

    def _status_note(self) -> str:
        """Return the status of the last response for a message, if it is an error; else `""`."""
        return f" (HTTP status {self._status})" if self._status >= 400 else ""

    async def _lost(self, answered: int) -> ConnectionLost:
        """Wait until the reason for the break is known, and return the error.

        `answered` is the count before the call. A call cannot have started if no connection could be made and nothing was
        answered since.
        """
        self._closing.set()
        await self._wait_for_end(CLOSING_SECONDS)
        was_refused = self._answered == answered and self._error is not None and is_refused(self._error)
        return ConnectionLost(self.reason, may_have_started=not was_refused)

    async def _note_answer(self, response: httpx2.Response) -> None:
        """Count a response, and note that the server does not know the session any more.

        A restarted server rejects a message of the session with 404, as specified, or with 400 and a sentence about it.
        """
        self._answered += 1
        self._status = response.status_code
        request = response.request
        if request.method == "POST" and "mcp-session-id" in request.headers:
            self._session_is_lost |= self._status == 404 or (
                self._status == 400 and _LOST_SESSION.search(await response.aread()) is not None
            )

    async def _run(self, opened: asyncio.Future[list[ServerTool]]) -> None:
        import anyio
        from mcp import Client

        async def cancel_on_abort(scope: anyio.CancelScope) -> None:
            await self._aborting.wait()
            scope.cancel()  # through anyio: a task cancelled by asyncio leaves the server's process running

        try:
            async with anyio.create_task_group() as watch:
                watch.start_soon(cancel_on_abort, watch.cancel_scope)
                async with Client(self._transport()) as self._client:
                    tools = await _list_tools(self._client)
                    self._is_open = True
                    if not opened.done():
                        opened.set_result(tools)
                    await self._closing.wait()
                watch.cancel_scope.cancel()
        except Exception as error:  # from any library; the next call reports it
            self._error = error
            if not opened.done():
                opened.set_exception(error)
            _log.info("The connection to the MCP server %r ended: %s", self._address.name, describe_failure(error))
        finally:
            self._closing.set()
            if not opened.done():
                opened.set_exception(Unreachable("its block ended meanwhile"))

    @asynccontextmanager
    async def _transport(self) -> AsyncIterator[tuple[Any, Any]]:
        """Open the streams to the server, and detect the end of a process's output."""
        from mcp import StdioServerParameters
        from mcp.client.stdio import stdio_client
        from mcp.client.streamable_http import streamable_http_client

        address = self._address
        async with AsyncExitStack() as stack:
            if address.command is not None:
                env = None if address.env is None else dict(address.env)
                process = StdioServerParameters(
                    command=address.command, args=list(address.args), env=env, encoding_error_handler="replace"
                )
                connecting = stdio_client(process)
                reading, writing = await stack.enter_async_context(connecting)
                self._process = _started_process(connecting)
                yield _StreamWithEndEvent(reading, self._closing), writing
                return
            import httpx2  # mcp's own HTTP library

            limits = httpx2.Timeout(address.timeout, read=None)  # the call has its own time limit
            client = httpx2.AsyncClient(
                headers=dict(address.headers), timeout=limits,
                event_hooks={"request": [_limit_farewell], "response": [self._note_answer]},
            )  # fmt: skip
            http = await stack.enter_async_context(client)
            messages = streamable_http_client(
                str(address.url), http_client=http, max_sse_event_size=MAX_SSE_EVENT_BYTES
            )
            yield await stack.enter_async_context(messages)


def _started_process(connecting: Any) -> Any:  # the context manager of a generator; anyio's process or None
    """Return the process that mcp has started, from the frame of its generator.

    mcp does not expose it.
    """
    frame = getattr(getattr(connecting, "gen", None), "ag_frame", None)
    return None if frame is None else frame.f_locals.get("process")


async def _limit_farewell(request: httpx2.Request) -> None:
    """Limit the wait for the answer to DELETE, which changes nothing for the client."""
    if request.method == "DELETE":
        request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), FAREWELL_SECONDS)


class _StreamWithEndEvent:
    """A stream of messages that sets an event at its end, the only sign that a process has died."""

    def __init__(self, stream: ReadStream[SessionMessage | Exception], ended: asyncio.Event) -> None:
        self._stream = stream
        self._ended = ended

    async def receive(self) -> SessionMessage | Exception:
        return await self._stream.receive()

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stream.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await anext(self._stream)
        except StopAsyncIteration:
            self._ended.set()
            raise


async def _list_tools(client: Client) -> list[ServerTool]:
    """Return all tools of a server.

    Raises:
        Unreachable: The list is longer than the limit, or repeats itself.
    """
    found: list[ServerTool] = []
    seen: set[str | None] = set()
    cursor = None
    while cursor not in seen and len(seen) < MAX_TOOL_PAGES:
        seen.add(cursor)
        page = await client.list_tools(cursor=cursor)
        found += page.tools
        cursor = page.next_cursor
        if cursor is None:
            return found
    raise Unreachable(f"its list of tools does not end after {len(seen)} pages")
