"""Whether two names are those of one model.

LM Studio answers with a model's key or an instance's id: `key:2` is another instance, `key@q4_k_m` a variant, and a publisher
may stand before the key. llama.cpp answers with the path of the file.
"""

from __future__ import annotations

import re
from functools import lru_cache

_INSTANCE = re.compile(r"(@[\w.-]+)?(:\d+)?$")


@lru_cache(maxsize=256)
def is_same_model(asked: str, answered: str) -> bool:
    """Whether an answer is of the model that was asked; an absent name is not another model."""
    return asked == answered or not asked or not answered or _bare(asked) == _bare(answered)


def _bare(name: str) -> str:
    last = re.split(r"[/\\]", name)[-1].lower()
    return _INSTANCE.sub("", last.removesuffix(".gguf"))
