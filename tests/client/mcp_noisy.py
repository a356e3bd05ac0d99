"""An MCP server by hand that writes other things than messages to its standard output, and refuses with escape sequences."""

from __future__ import annotations

import json
import sys
from typing import Any

NOISE = b"log line\n{half\n\xff\xfe\n"
SCHEMA = {"type": "object"}
ANSWERS: dict[str, dict[str, Any]] = {
    "initialize": {
        "protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "noisy", "version": "1"},
    },
    "tools/list": {"tools": [{"name": name, "inputSchema": SCHEMA} for name in ("work", "refuse")]},
    "work": {"content": [{"type": "text", "text": "done"}]},
}  # fmt: skip


def answer(message: dict[str, Any]) -> dict[str, Any]:
    """Return the result of a request, or an error."""
    name = message["method"]
    name = message["params"]["name"] if name == "tools/call" else name
    if name in ANSWERS:
        return {"result": ANSWERS[name]}
    return {"error": {"code": -32601, "message": "no \x1b[31mway\u202e"}}


if __name__ == "__main__":
    for line in sys.stdin:
        request = json.loads(line)
        if "id" in request:
            reply = {"jsonrpc": "2.0", "id": request["id"], **answer(request)}
            sys.stdout.buffer.write(NOISE + json.dumps(reply).encode() + b"\n")
            sys.stdout.buffer.flush()
