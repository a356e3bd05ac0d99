"""lmdeck with the limit of four answers at once that LM Studio has by default: more streams wait in the client's queue."""

from __future__ import annotations

import with_lmdeck
from lmdeck import AsyncLMStudio


class Async(with_lmdeck.Async):
    """`AsyncLMStudio` as it is with a model whose `parallel` is 4."""

    def __init__(self, port: int) -> None:
        self._client = AsyncLMStudio(host="127.0.0.1", port=port, max_concurrency=4)
