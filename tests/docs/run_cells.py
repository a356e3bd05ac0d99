"""Run cells in a notebook's kernel: a JSON list of cells on standard input, what each of them shows on standard output."""

from __future__ import annotations

import json
import sys
from typing import Any

from jupyter_client.manager import KernelManager

SECONDS = 240


def main() -> None:
    manager: Any = KernelManager(kernel_cmd=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"])
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=SECONDS)
        shown = [run(client, cell) for cell in json.load(sys.stdin)]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    print(json.dumps(shown))


def run(client: Any, cell: str) -> dict[str, str]:
    """Return what a cell shows, by kind: standard output, text, Markdown; `status` is `ok` or `error`."""
    outputs: dict[str, str] = {}

    def collect(message: dict[str, Any]) -> None:
        content = message["content"]
        if message["header"]["msg_type"] == "stream":
            outputs[content["name"]] = outputs.get(content["name"], "") + content["text"]
        outputs.update(content.get("data", {}))

    done = client.execute_interactive(cell, output_hook=collect, timeout=SECONDS)
    return {**outputs, "status": done["content"]["status"]}


if __name__ == "__main__":
    main()
