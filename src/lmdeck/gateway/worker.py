"""One of several gateway processes, started by `lmdeck gateway serve --workers`."""

from __future__ import annotations

import sys

from lmdeck.gateway.config import Config
from lmdeck.gateway.logs import log_as_json
from lmdeck.gateway.serve import serve_worker


def main(arguments: list[str]) -> int:
    """Serve on the socket of the parent: its descriptor, the path of the configuration file, and the configuration."""
    descriptor, path, settings = arguments
    log_as_json()
    return serve_worker(Config.parse(settings, "the configuration"), path or None, int(descriptor))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
