"""Regular expressions that are compiled on first use.

Compiling them is a good part of what the import of a parser costs, and most programs never read text that needs them.
"""

from __future__ import annotations

import re
from typing import Any, cast


class _LatePattern:
    """Stands for a compiled expression: its methods are looked up, and it is compiled, when they are first called for."""

    def __init__(self, source: str, flags: int) -> None:
        self.pattern = source
        self._flags = flags

    def __getattr__(self, name: str) -> Any:
        found = getattr(re.compile(self.pattern, self._flags), name)
        setattr(self, name, found)
        return found


def late_pattern(source: str, flags: int = 0) -> re.Pattern[str]:
    """Return an expression that is compiled on first use; use its methods, as functions of `re` do not accept it."""
    return cast("re.Pattern[str]", _LatePattern(source, flags))
