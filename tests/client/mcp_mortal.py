"""An MCP server that tests kill: over its standard streams, or over HTTP at a port that is given."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from mcp.server.mcpserver import MCPServer
from mcp.types import ToolAnnotations

server = MCPServer("mortal")


@server.tool()
def pid() -> int:
    """Return the process's number."""
    return os.getpid()


@server.tool()
def note(path: str, seconds: float) -> str:
    """Write a line, which is an effect, and take a while at the first call."""
    return _write(path, seconds)


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def peek(path: str, seconds: float) -> str:
    """Do the same, and say that it does no harm to do it twice."""
    return _write(path, seconds)


def _write(path: str, seconds: float) -> str:
    with Path(path).open("a") as file:
        file.write("called\n")
    calls = len(Path(path).read_text().splitlines())
    if calls <= 1:
        time.sleep(seconds)
    return f"called {calls} times"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run()
