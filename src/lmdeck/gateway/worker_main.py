"""One of several gateway processes, started by `lmdeck gateway serve --workers`."""

from __future__ import annotations

import sys

from lmdeck.gateway.config import Config
from lmdeck.gateway.logs import log_as_json
from lmdeck.gateway.serve import serve_worker


def main(arguments: list[str]) -> int:
    """Serve on a socket of the parent.

    The arguments are its descriptor, and that of the connection to the parent's hub.

    The configuration itself comes on standard input, since it may contain a password.
    """
    descriptor, link = map(int, arguments)
    log_as_json()
    config = Config.parse(sys.stdin.buffer.readline().decode(), "the configuration")
    return serve_worker(config, descriptor, link)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
