"""Ports for the servers that tests start: one that is free, and the wait until a process listens on it."""

from __future__ import annotations

import random
import socket
import subprocess
import time
from pathlib import Path

__all__ = ["free_port", "wait_until_open"]

OURS = range(20_000, 32_000)
"""Below the ports that Linux, macOS and Windows take for connections: no connection of another test comes to stand here."""
_random = random.SystemRandom()  # not the common generator, whose seed the tests of two processes may share


def free_port() -> int:
    """Return a port of this machine on which nothing listens."""
    while True:
        port = _random.choice(OURS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:  # it is taken
                continue
            return port


def wait_until_open(
    port: int, process: subprocess.Popen[str] | subprocess.Popen[bytes], log: Path | None = None, seconds: float = 120.0
) -> None:
    """Wait until a process listens on a port; where it ends or takes too long, fail with its log."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            told = log.read_text(encoding="utf-8") if log is not None else "see its output"
            assert process.poll() is None, f"the server ended with {process.returncode}: {told}"
            assert time.monotonic() < deadline, f"the server did not start: {told}"
            time.sleep(0.02)
