"""Tools of MCP servers for chats.

For example `with MCPTools(command="…") as tools: chat.with_tools(tools).run()`. The official `mcp` package implements the
protocol (extra `mcp`, imported when a server is connected). It is entirely async; for the sync client, it runs on an event loop
in a separate thread, which ends with the block.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from lmdeck._client.mcp_address import ServerAddress
from lmdeck.errors import ConfigurationError, ToolError
from lmdeck.tools.reporting import current_report
from lmdeck.tools.tool import Tool, snake_case

if TYPE_CHECKING:
    from mcp.types import Tool as ServerTool

    from lmdeck._client.mcp_loop import LoopThread
    from lmdeck._client.mcp_server import MCPServer


class MCPTools:
    """The tools of one MCP server, while it is connected.

    A context manager, sync or async, and a collection of `Tool`.

    A server is a command to start (`command`, `args`, `env`), which communicates over its standard streams, or the `url` of a
    server with streamable HTTP (and `headers`). `allowed` selects some of its tools, by the server's names. Names that
    LM Studio would rewrite are converted to snake_case; calls to the server use the original names. `timeout` (seconds) is the
    limit for connecting and for each call.

    If the server has died, the next call reconnects; `ToolServerLost` events report it.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        command: str | None = None,
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        allowed: Collection[str] | None = None,
        timeout: float = 30.0,
    ) -> None:
        if (url is None) == (command is None):
            raise ConfigurationError(
                "An MCP server is either a url or a command.",
                hint='Use MCPTools("http://…/mcp") or MCPTools(command="…").',
            )
        if not timeout > 0:
            raise ConfigurationError(
                f"timeout must be more than 0 seconds, not {timeout!r}.", hint="Pass 30, for example."
            )
        self._address = ServerAddress(
            url=url, command=command, args=tuple(args), env=env, headers=dict(headers or {}), timeout=timeout
        )
        self._allowed = allowed
        self._tools: list[Tool[..., Any]] = []
        self._exit = ExitStack()
        self._server: MCPServer | None = None

    def __iter__(self) -> Iterator[Tool[..., Any]]:
        return iter(self._tools)

    def __len__(self) -> int:
        return len(self._tools)

    def __enter__(self) -> Self:
        """Connect, in a separate thread.

        Raises:
            ConfigurationError: The `mcp` package is missing, two tools have the same name, or this block is entered twice.
            ToolError: The server cannot be started or reached, or not in time.
        """
        self._check_ready()
        from lmdeck._client.mcp_loop import LoopThread

        with ExitStack() as stack:
            thread = stack.enter_context(LoopThread())
            server = thread.run(self._make_server())
            stack.push(lambda kind, *_: thread.run(_end(server, kind)))
            try:
                found = thread.run(server.connect())
            except ToolError:
                _close_later(stack.pop_all())
                raise
            self._tools = self._made(found, lambda tool: _sync_handler(thread, server, tool))
            self._exit, self._server = stack.pop_all(), server
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        server, stack = self._forget_server(), self._exit
        if server is not None and server.is_of_this_process:
            stack.__exit__(kind, error, traceback)

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            ConfigurationError: The `mcp` package is missing, two tools have the same name, or this block is entered twice.
            ToolError: The server cannot be started or reached, or not in time.
        """
        self._check_ready()
        server = await self._make_server()
        try:
            found = await server.connect()
            self._tools = self._made(found, lambda tool: _async_handler(server, tool))
        except BaseException as error:
            await _end(server, type(error))  # otherwise the server's process would outlive the loop
            raise
        self._server = server
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        server = self._forget_server()
        if server is not None and server.is_of_this_process:
            await _end(server, kind)

    def _forget_server(self) -> MCPServer | None:
        """Return the server of the block that ends, which a forked process leaves to its parent."""
        self._tools = []
        server, self._server = self._server, None
        return server

    def _check_ready(self) -> None:
        try:
            import mcp  # noqa: F401 - only to check that it is installed
        except ImportError as error:
            raise ConfigurationError(
                "Tools of MCP servers need the mcp package.", hint="Install it: pip install 'lmdeck[mcp]'."
            ) from error
        if self._server is not None:
            raise ConfigurationError(
                f"The MCP server {self._address.name!r} is already connected.",
                hint="Use another `MCPTools` for a block inside this one.",
            )

    async def _make_server(self) -> MCPServer:
        """Create the server object on the event loop that will use it."""
        from lmdeck._client.mcp_server import MCPServer  # imported lazily: it needs asyncio

        return MCPServer(self._address)

    def _made(
        self, found: list[ServerTool], handler: Callable[[ServerTool], Callable[..., Any]]
    ) -> list[Tool[..., Any]]:
        tools: dict[str, Tool[..., Any]] = {}
        for one in found:
            if self._allowed is not None and one.name not in self._allowed:
                continue
            name = snake_case(one.name)
            if name in tools:
                raise ConfigurationError(
                    f"Two tools of the MCP server are named {name!r} in snake_case.",
                    hint="Exclude one of them with `allowed`.",
                )
            tools[name] = Tool(
                name=name, handler=handler(one), description=one.description or one.title or "",
                parameters={"properties": {}, **one.input_schema, "type": "object"},
            )  # fmt: skip
        missing = set(self._allowed or ()) - {one.name for one in found}
        if missing:
            raise ConfigurationError(
                f"The MCP server has no tool {min(missing)!r}.",
                hint=f"It has: {', '.join(one.name for one in found) or 'none'}.",
            )
        return list(tools.values())


def _sync_handler(thread: LoopThread, server: MCPServer, tool: ServerTool) -> Callable[..., object]:
    def handler(**arguments: Any) -> object:
        server.check_usable(tool)
        return thread.run(server.call(tool, arguments, current_report()))

    return handler


def _async_handler(server: MCPServer, tool: ServerTool) -> Callable[..., object]:
    async def handler(**arguments: Any) -> object:
        server.check_usable(tool)
        return await server.on_its_loop(server.call(tool, arguments, current_report()))

    return handler


async def _end(server: MCPServer, kind: type[BaseException] | None) -> None:
    """Close a server whose block ends; at once after Ctrl-C or a cancellation."""
    if kind is None or issubclass(kind, Exception):
        await server.close()
    else:
        await server.interrupt()


def _close_later(stack: ExitStack) -> None:
    """Close a server that did not answer in time.

    This is done in a thread, because ending its process may take seconds.
    """
    threading.Thread(target=stack.close, name="lmdeck-mcp-closing").start()
