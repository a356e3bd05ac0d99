"""The process that serves, which replaces that of `lmdeck gateway serve`."""

from __future__ import annotations

import socket
import sys

import msgspec

from lmdeck.gateway.config import Config
from lmdeck.gateway.logs import log_as_json
from lmdeck.server.sockets import base_url


def main(arguments: list[str]) -> int:
    """Serve, in as many processes as configured, and return the exit code.

    The arguments are the configuration's path with the settings that override its table `[server]`, and the descriptor of the
    socket.
    """
    path, server = msgspec.json.decode(arguments[0])
    listener = socket.socket(fileno=int(arguments[1]))
    log_as_json()
    config = Config.load(path, server)

    def on_ready() -> None:
        _print_address(base_url(listener))

    if config.server.workers > 1:
        from lmdeck.gateway.supervisor import Supervisor

        return Supervisor(config, path, listener, config.server.workers, on_ready).run()
    from lmdeck.gateway.serve import serve

    return serve(config, path, listener, on_ready)


def _print_address(url: str) -> None:
    """Print the gateway's address; characters that the terminal lacks become `?`."""
    lines = (
        f"✓ gateway at {url} (Ctrl-C stops)",
        f"  base URL of OpenAI clients: {url}/v1, of Anthropic clients: {url}",
    )
    encoding = sys.stdout.encoding
    print(*(line.encode(encoding, "replace").decode(encoding) for line in lines), sep="\n", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
