"""An MCP server for the tests: over its standard streams, or over HTTP at a port that is given."""

from __future__ import annotations

import sys

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, TextContent

server = MCPServer("test")


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool(name="getPlace")
def get_place(name: str) -> dict[str, str]:
    """Look a place up."""
    return {"name": name, "country": "Italy"}


@server.tool()
def fail() -> str:
    """Fail."""
    raise ToolError("no such thing")


@server.tool()
def refuse() -> CallToolResult:
    """Fail with facts and no text (langchain-mcp-adapters #619)."""
    return CallToolResult(content=[], structured_content={"retry_after": 30}, is_error=True)


@server.tool()
def search(query: str) -> CallToolResult:
    """Return a summary as text, and the facts only as structured content."""
    text = TextContent(type="text", text=f"Found 1 place for {query}.")
    return CallToolResult(content=[text], structured_content={"places": [{"name": "Rome"}]})


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run()
