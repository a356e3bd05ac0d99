"""Compare the names of models.

LM Studio answers with a model's key or an instance's id: `key:2` is another instance, `key@q4_k_m` a variant, and the key may
have a publisher as its prefix. llama.cpp answers with the path of the file.
"""

from __future__ import annotations

import re
from functools import lru_cache

from lmdeck._late_patterns import late_pattern

_INSTANCE = late_pattern(r"(@[\w.-]+)?(:\d+)?$")


@lru_cache(maxsize=256)
def is_same_model(requested: str, answered: str) -> bool:
    """Whether an answer is from the requested model; a missing name is not another model."""
    return requested == answered or not requested or not answered or _base_name(requested) == _base_name(answered)


def _base_name(name: str) -> str:
    last = re.split(r"[/\\]", name)[-1].lower()
    return _INSTANCE.sub("", last.removesuffix(".gguf"))
