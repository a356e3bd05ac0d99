"""An MCP server by hand that writes other things than messages to its standard output, and refuses with escape sequences.

With the name of a file, it appends a line to it at each start, and answers nothing from its second start on.

It dies of the tool `die`, after as many open calls of it as the argument `of` says.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

NOISE = b"log line\n{half\n\xff\xfe\n"
SCHEMA = {"type": "object"}
ANSWERS: dict[str, dict[str, Any]] = {
    "initialize": {
        "protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "noisy", "version": "1"},
    },
    "tools/list": {"tools": [{"name": name, "inputSchema": SCHEMA} for name in ("work", "refuse", "die")]},
    "work": {"content": [{"type": "text", "text": "done"}]},
}  # fmt: skip


def answer(message: dict[str, Any]) -> dict[str, Any]:
    """Return the result of a request, or an error."""
    name = message["method"]
    name = message["params"]["name"] if name == "tools/call" else name
    if name in ANSWERS:
        return {"result": ANSWERS[name]}
    return {"error": {"code": -32000, "message": "no \x1b[31mway\u202e"}}


if __name__ == "__main__":
    starts = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    if starts is not None:
        with starts.open("a") as file:
            file.write(f"{os.getpid()}\n")
    is_silent = starts is not None and len(starts.read_text().splitlines()) > 1
    dying = 0
    for line in sys.stdin:
        request = json.loads(line)
        called = request.get("params", {})
        if called.get("name") == "die":
            dying += 1
            if dying >= (called.get("arguments") or {}).get("of", 1):
                os._exit(1)
            continue
        if "id" in request and not is_silent:
            reply = {"jsonrpc": "2.0", "id": request["id"], **answer(request)}
            sys.stdout.buffer.write(NOISE + json.dumps(reply).encode() + b"\n")
            sys.stdout.buffer.flush()
