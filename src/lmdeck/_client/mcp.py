"""Tools of MCP servers, as tools of ours: `with MCPTools(command="…") as tools: chat.with_tools(tools).run()`.

The official `mcp` package speaks the protocol (extra `mcp`, imported when a server is connected). It is async throughout; for
the sync client it runs on a loop in a thread of its own, which ends with the block.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from lmdeck.errors import ConfigurationError, ToolError
from lmdeck.tools.tool import Tool, ToolFailed, snake_case

if TYPE_CHECKING:
    from mcp import Client
    from mcp.types import CallToolResult
    from mcp.types import Tool as ServerTool

__all__ = ["MCPTools"]

PAGES = 50


class MCPTools:
    """The tools of one MCP server, while it is connected: a context manager, sync or async, and a collection of `Tool`.

    A server is a command to start (`command`, `args`, `env`) that speaks over its standard streams, or the `url` of one that
    speaks streamable HTTP (with `headers`). `allowed` restricts it to some of its tools, by the server's names. Names that
    LM Studio would rewrite are brought into snake_case; the server is called by its own.
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
        self._url = url
        self._command = command
        self._args = list(args)
        self._env = dict(env) if env is not None else None
        self._headers = dict(headers or {})
        self._allowed = allowed
        self._timeout = timeout
        self._tools: list[Tool[..., Any]] = []
        self._exit = ExitStack()
        self._async_exit = AsyncExitStack()

    def __iter__(self) -> Iterator[Tool[..., Any]]:
        return iter(self._tools)

    def __len__(self) -> int:
        return len(self._tools)

    def __enter__(self) -> Self:
        """Connect, in a thread of its own.

        Raises:
            ConfigurationError: The `mcp` package is missing, or two tools have one name.
            ToolError: The server cannot be started or reached.
        """
        _require_mcp()
        from anyio.from_thread import start_blocking_portal

        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal())
            client = stack.enter_context(portal.wrap_async_context_manager(self._connected()))

            def call(name: str) -> Callable[..., str]:
                return lambda **arguments: portal.call(_called, client, name, arguments)

            found = portal.call(_listed, client)
            self._exit = stack.pop_all()
        try:
            self._tools = self._made(found, call)
        except ConfigurationError:
            self._exit.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._tools = []
        self._exit.close()

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            ConfigurationError: The `mcp` package is missing, or two tools have one name.
            ToolError: The server cannot be started or reached.
        """
        _require_mcp()
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(self._connected())

            def call(name: str) -> Callable[..., Any]:
                async def handler(**arguments: Any) -> str:  # noqa: ANN401 - the server's own schema types them
                    return await _called(client, name, arguments)

                return handler

            found = await _listed(client)
            self._async_exit = stack.pop_all()
        try:
            self._tools = self._made(found, call)
        except ConfigurationError:
            await self._async_exit.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._tools = []
        await self._async_exit.aclose()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Client]:
        from mcp import Client, StdioServerParameters

        where = self._url or self._command
        async with AsyncExitStack() as stack:
            server: Any = self._url
            if self._command is not None:
                server = StdioServerParameters(command=self._command, args=self._args, env=self._env)
            elif self._headers:
                import httpx2  # mcp's own HTTP library
                from mcp.client.streamable_http import streamable_http_client

                http = await stack.enter_async_context(httpx2.AsyncClient(headers=self._headers, timeout=self._timeout))
                server = streamable_http_client(str(self._url), http_client=http)
            try:
                client = await stack.enter_async_context(Client(server, read_timeout_seconds=self._timeout))
            except Exception as error:
                raise ToolError(
                    f"The MCP server {where!r} cannot be used: {_innermost(error)}",
                    hint="Start it by hand to see what it says; check the command, its arguments and the url.",
                ) from error
            yield client

    def _made(self, found: list[ServerTool], call: Callable[[str], Callable[..., Any]]) -> list[Tool[..., Any]]:
        tools: dict[str, Tool[..., Any]] = {}
        for one in found:
            if self._allowed is not None and one.name not in self._allowed:
                continue
            name = snake_case(one.name)
            if name in tools:
                raise ConfigurationError(
                    f"Two tools of the MCP server are named {name!r} in snake_case.",
                    hint="Leave one out with `allowed`.",
                )
            tools[name] = Tool(
                name=name, handler=call(one.name), description=one.description or one.title or "",
                parameters={"properties": {}, **one.input_schema, "type": "object"},
            )  # fmt: skip
        missing = set(self._allowed or ()) - {one.name for one in found}
        if missing:
            raise ConfigurationError(
                f"The MCP server has no tool {min(missing)!r}.",
                hint=f"It has: {', '.join(one.name for one in found) or 'none'}.",
            )
        return list(tools.values())


def _require_mcp() -> None:
    try:
        import mcp  # noqa: F401 - the first import of it is what is asked
    except ImportError as error:
        raise ConfigurationError(
            "Tools of MCP servers need the mcp package.", hint="Install it: pip install 'lmdeck[mcp]'."
        ) from error


async def _listed(client: Client) -> list[ServerTool]:
    found: list[ServerTool] = []
    cursor = None
    for _ in range(PAGES):
        page = await client.list_tools(cursor=cursor)
        found += page.tools
        cursor = page.next_cursor
        if cursor is None:
            break
    return found


async def _called(client: Client, name: str, arguments: dict[str, Any]) -> str:
    """Call a server's tool.

    Raises:
        ToolFailed: The server says that it failed, in its words.
    """
    result = await client.call_tool(name, arguments)
    text = _text(result)
    if result.is_error:
        raise ToolFailed(text or f"The tool {name!r} failed.")
    return text


def _text(result: CallToolResult) -> str:
    import msgspec

    parts = []
    for part in result.content:
        text = getattr(part, "text", None)
        resource = getattr(getattr(part, "resource", None), "text", None)
        parts.append(text or resource or f"[{part.type}]")
    if not any(parts) and result.structured_content is not None:
        return msgspec.json.encode(result.structured_content).decode()
    return "\n".join(parts)


def _innermost(error: BaseException) -> str:
    """Say what a group of errors comes down to."""
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
