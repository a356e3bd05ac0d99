"""The connection to an MCP server, which is reopened if the server died.

The official `mcp` package implements the protocol. A connection must be closed by the task that opened it, so each one has a
separate task, and a call waits for the result that this task reports.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Self, TypeVar

from lmdeck._client.mcp_address import ServerAddress
from lmdeck._client.mcp_results import read_tool_result
from lmdeck.errors import ToolError, printable
from lmdeck.events import ToolServerLost
from lmdeck.tools.reporting import Report
from lmdeck.tools.tool import ToolFailed

if TYPE_CHECKING:
    import httpx2
    from mcp import Client, MCPError
    from mcp.client._transport import ReadStream
    from mcp.shared.message import SessionMessage
    from mcp.types import Tool as ServerTool

MAX_TOOL_PAGES = 50
MAX_SSE_EVENT_BYTES = 64 << 20  # an image in base64 is often larger than mcp's own limit, 1 MiB
BACKOFF, MAX_BACKOFF = 0.1, 5.0  # seconds before reconnecting, doubled with each failure
CLOSING_SECONDS = 10.0
LOOP_CYCLES = 10  # enough for the end of a process's output to pass through the tasks that read it
_LOST_SESSION = re.compile(
    rb"\b(no|not|invalid|unknown|expired|missing)\b[^.]{0,40}\bsession|"
    rb"\bsession\b[^.]{0,40}\b(not|invalid|unknown|expired|missing|required|terminated)\b",
    re.IGNORECASE,
)
T = TypeVar("T")
_log = logging.getLogger("lmdeck.mcp")
logging.getLogger("mcp").addHandler(logging.NullHandler())  # mcp logs a traceback for each line that is not a message


class MCPServer:
    """A server and its current connection, used on one event loop."""

    def __init__(self, address: ServerAddress) -> None:
        self._address = address
        self._connection = _Connection(address)
        self._reconnecting = asyncio.Lock()
        self._failures = 0
        self._retired: list[_Connection] = []
        self._loop = asyncio.get_running_loop()
        self._process = os.getpid()
        self._is_closed = False

    @property
    def is_of_this_process(self) -> bool:
        """Whether this process connected the server; its parent did if it was forked since."""
        return self._process == os.getpid()

    def check_usable(self, tool: ServerTool) -> None:
        """Check that a tool can be called here.

        Raises:
            ToolFailed: The block of its `MCPTools` has ended, or was entered before this process was forked.
        """
        reason = "its block has ended" if self._is_closed else "it is connected to the process that forked this one"
        if self._is_closed or not self.is_of_this_process:
            raise ToolFailed(
                f"The tool {tool.name!r} of the MCP server {self._address.name!r} cannot be used here: {reason}. "
                f"Answer without it."
            )

    async def on_its_loop(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop of the connection, also from another loop."""
        if asyncio.get_running_loop() is self._loop:
            return await coroutine
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))

    async def connect(self) -> list[ServerTool]:
        """Connect, within the limit, and return the server's tools.

        Raises:
            ToolError: The server cannot be started or reached, or not in time.
        """
        try:
            return await self._connection.open()
        except _Unreachable as error:
            raise ToolError(
                f"The MCP server {self._address.name!r} cannot be used: {str(error).rstrip('.')}.",
                hint="Start it by hand to see its output; check the command, its arguments and the URL.",
            ) from error

    async def close(self) -> None:
        """Close the connection; errors of the server or the network are logged."""
        self._is_closed = True
        for connection in (self._connection, *self._retired):
            await connection.close()

    async def call(self, tool: ServerTool, arguments: dict[str, Any], report: Report) -> object:
        """Call a tool, and return its text and images.

        If the server is gone, reconnect once. A call that may have started is repeated only if the tool is declared safe to
        repeat (MCP specification, `ToolAnnotations`: `readOnlyHint`, `idempotentHint`).

        Raises:
            ToolFailed: The tool failed, with the server's message; or the server is gone or too slow.
        """
        for _ in range(LOOP_CYCLES):  # lets the loop read what has arrived, above all the end of the connection
            await asyncio.sleep(0)
        connection = self._connection
        was_gone = connection.is_gone
        if was_gone:
            connection = await self._reconnect(connection, tool, report)
        try:
            return await connection.call(tool.name, arguments)
        except _ConnectionLost as lost:
            if was_gone or (lost.may_have_started and not _may_be_repeated(tool)):
                self._note_lost(connection, lost, report)
                raise ToolFailed(self._lost_message(tool, lost)) from lost
        connection = await self._reconnect(connection, tool, report)
        try:
            return await connection.call(tool.name, arguments)
        except _ConnectionLost as lost:
            self._note_lost(connection, lost, report)
            raise ToolFailed(self._lost_message(tool, lost)) from lost

    async def _reconnect(self, old: _Connection, tool: ServerTool, report: Report) -> _Connection:
        """Return a new connection; if several calls need one, the first opens it.

        Raises:
            ToolFailed: The server cannot be reached, or the block has ended meanwhile.
        """
        async with self._reconnecting:
            if self._connection is not old:
                return self._connection
            self._retired = [connection for connection in (*self._retired, old) if connection.is_answering]
            if old not in self._retired:
                await old.close()
            await asyncio.sleep(min(BACKOFF * 2**self._failures, MAX_BACKOFF))
            self.check_usable(tool)
            self._connection = new_connection = _Connection(self._address)
            try:
                await new_connection.open()
            except _Unreachable as error:
                self._failures += 1
                report(ToolServerLost(server=self._address.name, reason=str(error), reconnected=False))
                raise ToolFailed(
                    f"The tool {tool.name!r} cannot be used: its MCP server {self._address.name!r} is gone and could not be "
                    f"reconnected. Answer without it."
                ) from error
            self._failures = 0
            report(ToolServerLost(server=self._address.name, reason=old.reason, reconnected=True))
            return new_connection

    def _note_lost(self, connection: _Connection, lost: _ConnectionLost, report: Report) -> None:
        report(ToolServerLost(server=self._address.name, reason=connection.reason or str(lost), reconnected=False))

    def _lost_message(self, tool: ServerTool, lost: _ConnectionLost) -> str:
        message = f"The MCP server {self._address.name!r} disconnected while its tool {tool.name!r} was called"
        if lost.may_have_started:
            return f"{message}: the call may have taken effect. Check that before you call it again."
        return f"{message}; the call was not started."


class _Unreachable(Exception):  # internal: translated into a ToolError
    """A connection could not be opened."""


class _ConnectionLost(Exception):  # internal: translated into a ToolFailed
    """A connection broke during a call."""

    def __init__(self, reason: str, *, may_have_started: bool) -> None:
        super().__init__(reason)
        self.may_have_started = may_have_started


class _Connection:
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
        return "the server closed the connection" if self._error is None else _describe(self._error)

    async def open(self) -> list[ServerTool]:
        """Connect, and return the server's tools.

        Raises:
            _Unreachable: The connection failed or took longer than the limit.
        """
        opened: asyncio.Future[list[ServerTool]] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(opened), name="lmdeck-mcp")
        try:
            return await asyncio.wait_for(opened, self._address.timeout)
        except TimeoutError as error:
            self._abort()
            raise _Unreachable(f"it did not answer within {self._address.timeout:g} s") from error
        except asyncio.CancelledError:
            self._abort()
            raise
        except Exception as error:
            raise _Unreachable(_describe(error) + self._status_note()) from error

    async def call(self, name: str, arguments: dict[str, Any]) -> object:
        """Call a tool.

        Raises:
            ToolFailed: The tool failed, or took too long.
            _ConnectionLost: The connection broke.
        """
        from mcp import MCPError
        from mcp.types import PARSE_ERROR

        if self._client is None or self.is_gone:
            raise _ConnectionLost(self.reason, may_have_started=False)
        limit, answered = self._address.timeout, self._answered
        self._calls += 1
        try:
            result = await self._client.call_tool(name, arguments, read_timeout_seconds=limit)
        except MCPError as error:
            if _is_timeout(error):
                raise ToolFailed(
                    f"The tool {name!r} of the MCP server {self._address.name!r} timed out after {limit:g} s."
                ) from error
            if _is_closed(error):
                raise await self._lost(answered) from error
            if self._session_is_lost:
                raise _ConnectionLost(self.reason, may_have_started=False) from error
            if error.code == PARSE_ERROR:
                raise self._unreadable_result() from error
            raise ToolFailed(
                f"The MCP server {self._address.name!r} refused the call: {printable(error.message)}{self._status_note()}"
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
        """Close the connection, and wait until the server's process has ended."""
        if self._is_open:
            self._closing.set()
        else:
            self._abort()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=CLOSING_SECONDS)

    def _abort(self) -> None:
        """Give up, without waiting until the server's process has ended."""
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

    async def _lost(self, answered: int) -> _ConnectionLost:
        """Wait until the reason for the break is known, and return the error.

        `answered` is the count before the call. A call cannot have started if no connection could be made and nothing was
        answered since.
        """
        self._closing.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=CLOSING_SECONDS)
        was_refused = self._answered == answered and self._error is not None and _is_refused(self._error)
        return _ConnectionLost(self.reason, may_have_started=not was_refused)

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
            _log.info("The connection to the MCP server %r ended: %s", self._address.name, _describe(error))
        finally:
            self._closing.set()
            if not opened.done():
                opened.set_exception(_Unreachable("its block was left meanwhile"))

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
                reading, writing = await stack.enter_async_context(stdio_client(process))
                yield _StreamWithEndEvent(reading, self._closing), writing
                return
            import httpx2  # mcp's own HTTP library

            limits = httpx2.Timeout(address.timeout, read=None)  # the call has its own time limit
            client = httpx2.AsyncClient(
                headers=dict(address.headers), timeout=limits, event_hooks={"response": [self._note_answer]}
            )
            http = await stack.enter_async_context(client)
            messages = streamable_http_client(
                str(address.url), http_client=http, max_sse_event_size=MAX_SSE_EVENT_BYTES
            )
            yield await stack.enter_async_context(messages)


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
        _Unreachable: The list is longer than the limit, or repeats itself.
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
    raise _Unreachable(f"its list of tools does not end after {len(seen)} pages")


def _may_be_repeated(tool: ServerTool) -> bool:
    hints = tool.annotations
    return hints is not None and bool(hints.read_only_hint or hints.idempotent_hint)


def _is_refused(error: BaseException) -> bool:
    """Whether an error, or every error of a group, means that no connection was made."""
    import httpx2

    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_refused, error.exceptions))
    return isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout))


def _is_timeout(error: MCPError) -> bool:
    """Whether mcp stopped waiting.

    A server may use the same code for a session that it does not know.
    """
    from mcp.types import REQUEST_TIMEOUT

    return error.code == REQUEST_TIMEOUT and error.message.endswith("timed out")


def _is_closed(error: MCPError) -> bool:
    """Whether mcp lost the connection.

    A server may use the same code for any error of its own.
    """
    from mcp.types import CONNECTION_CLOSED

    return error.code == CONNECTION_CLOSED and error.message.startswith(("Connection closed", "SSE stream "))


def _describe(error: BaseException) -> str:
    """Return a description of an error, or of the first one in a group."""
    from anyio import BrokenResourceError, ClosedResourceError, EndOfStream
    from mcp import MCPError
    from mcp.types import PARSE_ERROR

    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, _Unreachable):
        return str(error)
    if isinstance(error, (BrokenResourceError, ClosedResourceError, EndOfStream)) or (
        isinstance(error, MCPError) and _is_closed(error)
    ):
        return "it closed the connection"
    if isinstance(error, ValueError) or (
        isinstance(error, MCPError) and error.code == PARSE_ERROR
    ):  # pydantic's, mcp's
        return "its answer does not follow the protocol"
    if isinstance(error, MCPError):
        return f"it answered with an error: {printable(error.message)}"
    return f"{type(error).__name__}: {printable(str(error))}"
