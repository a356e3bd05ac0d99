"""A real Redis for the tests, from the system's packages, in a temporary folder on a free port."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 60
MISSING = (
    "NO REDIS TESTS: there is no Redis server on this machine. "
    "On Debian: apt-get install redis-server (`make` and CI do so as root)."
)


def program() -> str | None:
    """Return the path of `redis-server`, None where it is not installed."""
    return shutil.which("redis-server")


@contextmanager
def redis_server(path: str) -> Iterator[str]:
    """Run a server without files, and yield its address."""
    with tempfile.TemporaryDirectory(prefix="lmdeck-redis-") as folder:
        port = free_port()
        options = {"bind": "127.0.0.1", "port": port, "dir": folder, "save": "", "appendonly": "no", "daemonize": "no"}
        command = [path, *(word for name, value in options.items() for word in (f"--{name}", str(value)))]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
        try:
            _wait_until_ready(port, server)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()
            server.wait(PATIENCE)


def _wait_until_ready(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as connection:
                connection.sendall(b"PING\r\n")
                assert connection.recv(64).startswith(b"+PONG")
                return
        except OSError:
            assert time.monotonic() < deadline, "Redis does not answer"
            assert server.poll() is None, "Redis has ended"
            time.sleep(0.02)
