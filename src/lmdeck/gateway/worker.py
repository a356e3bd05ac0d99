"""One of several gateway processes, started by `lmdeck gateway serve --workers`."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from lmdeck.gateway.config import Config
from lmdeck.gateway.logs import log_as_json
from lmdeck.gateway.serve import serve_worker


def main(arguments: list[str]) -> int:
    """Serve on the parent's socket.
    The arguments are its descriptor, a folder for locks, and the path of the configuration file.

    The configuration itself comes on standard input, since it may contain a password. When that ends, the parent has
    died.
    """
    descriptor, locks, path = arguments
    log_as_json()
    config = Config.parse(sys.stdin.buffer.readline().decode(), "the configuration")
    threading.Thread(target=_end_with_parent, name="lmdeck-parent", daemon=True).start()
    return serve_worker(config, path or None, int(descriptor), Path(locks))


def _end_with_parent() -> None:
    """Shut down when the parent has died: no other process would restart or stop this one."""
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
