"""Listening sockets and their addresses."""

from __future__ import annotations

import os
import socket

from lmdeck.errors import ConfigurationError

__all__ = ["base_url", "listen"]

BACKLOG = 1024


def listen(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """Return a listening socket; port 0 chooses a free one.

    Raises:
        ConfigurationError: The address does not belong to this machine, or the port is in use.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio disables Nagle's algorithm only if the protocol is given; otherwise every second small write waits 40 ms
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # on Windows it would share a port that is in use
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        raise ConfigurationError(
            f"Cannot listen on {host}, port {port}: {error}.",
            hint="Choose another port, or end the program that uses this one (LM Studio's own server uses 1234).",
        ) from error
    return listener


def base_url(listener: socket.socket) -> str:
    """Return the URL by which clients reach a socket."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
