"""An MCP server, which is connected again if it died."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from lmdeck._client.mcp_address import ServerAddress
from lmdeck._client.mcp_connection import Connection
from lmdeck._client.mcp_failures import ConnectionLost, Unreachable
from lmdeck.errors import ToolError
from lmdeck.events import ToolServerLost
from lmdeck.tools.reporting import Report
from lmdeck.tools.tool import ToolFailed

if TYPE_CHECKING:
    from mcp.types import Tool as ServerTool

BACKOFF, MAX_BACKOFF = 0.1, 5.0  # seconds before reconnecting, doubled with each failure
LOOP_CYCLES = 10  # enough for the end of a process's output to pass through the tasks that read it
T = TypeVar("T")


class MCPServer:
    """A server and its current connection, used on one event loop."""

    def __init__(self, address: ServerAddress) -> None:
        self._address = address
        self._connection = Connection(address)
        self._reconnecting = asyncio.Lock()
        self._failures = 0
        self._retired: list[Connection] = []
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
        except Unreachable as error:
            raise ToolError(
                f"The MCP server {self._address.name!r} cannot be used: {str(error).rstrip('.')}.",
                hint="Start it by hand to see its output; check the command, its arguments and the URL.",
            ) from error

    async def close(self) -> None:
        """Close the connection; errors of the server or the network are logged."""
        self._is_closed = True
        for connection in (self._connection, *self._retired):
            await connection.close()

    async def interrupt(self) -> None:
        """Close the connection at once, also if the server does not take part."""
        self._is_closed = True
        await asyncio.gather(*(connection.interrupt() for connection in (self._connection, *self._retired)))

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
        except ConnectionLost as lost:
            if was_gone or (lost.may_have_started and not _may_be_repeated(tool)):
                self._note_lost(connection, str(lost), report)
                raise ToolFailed(self._lost_message(tool, lost)) from lost
        connection = await self._reconnect(connection, tool, report)
        try:
            return await connection.call(tool.name, arguments)
        except ConnectionLost as lost:
            self._note_lost(connection, str(lost), report)
            raise ToolFailed(self._lost_message(tool, lost)) from lost

    async def _reconnect(self, old: Connection, tool: ServerTool, report: Report) -> Connection:
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
            self._connection = new_connection = Connection(self._address)
            try:
                await new_connection.open()
            except Unreachable as error:
                self._failures += 1
                self._note_lost(new_connection, str(error), report)
                raise ToolFailed(
                    f"The tool {tool.name!r} cannot be used: its MCP server {self._address.name!r} is gone and could not be "
                    f"reconnected. Answer without it."
                ) from error
            self._failures = 0
            old.is_reported = True
            report(ToolServerLost(server=self._address.name, reason=old.reason, reconnected=True))
            return new_connection

    def _note_lost(self, connection: Connection, reason: str, report: Report) -> None:
        """Publish the loss of a connection once, however many calls it had."""
        if not connection.is_reported:
            connection.is_reported = True
            report(ToolServerLost(server=self._address.name, reason=reason, reconnected=False))

    def _lost_message(self, tool: ServerTool, lost: ConnectionLost) -> str:
        message = f"The MCP server {self._address.name!r} disconnected while its tool {tool.name!r} was called"
        if lost.may_have_started:
            return f"{message}: the call may have taken effect. Check that before you call it again."
        return f"{message}; the call was not started."


def _may_be_repeated(tool: ServerTool) -> bool:
    hints = tool.annotations
    return hints is not None and bool(hints.read_only_hint or hints.idempotent_hint)
