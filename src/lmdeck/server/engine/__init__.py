"""The embedded engine: a small real model in this process, behind LM Studio's API. Needs the extra `engine`."""

from lmdeck.server.engine.errors import EngineError
from lmdeck.server.engine.serving import EngineServer, serve
from lmdeck.server.engine.weights import PullProgress, cache_directory, pull, weights_path

__all__ = ["EngineError", "EngineServer", "PullProgress", "cache_directory", "pull", "serve", "weights_path"]
