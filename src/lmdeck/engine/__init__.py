"""The embedded engine: a small real model in this process, with LM Studio's API.

It needs the extra `engine`.
"""

from lmdeck.engine.errors import EngineError
from lmdeck.engine.serving import EngineServer, serve
from lmdeck.engine.weights import PullProgress, cache_directory, pull, weights_path

__all__ = ["EngineError", "EngineServer", "PullProgress", "cache_directory", "pull", "serve", "weights_path"]
