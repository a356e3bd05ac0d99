"""Regular expressions that are compiled on first use.

Compiling them would take a large part of the parser's import time, and most programs never read text that needs them.
"""

from __future__ import annotations

import re
from typing import Any, AnyStr, Generic, cast


class _LatePattern(Generic[AnyStr]):
    """An expression that is compiled when one of its methods is first used."""

    def __init__(self, source: AnyStr, flags: int) -> None:
        self.pattern: AnyStr = source
        self._flags = flags

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(re.compile(self.pattern, self._flags), name)
        setattr(self, name, attribute)
        return attribute


def late_pattern(source: AnyStr, flags: int = 0) -> re.Pattern[AnyStr]:
    """Return an expression that is compiled on first use.

    Use its methods: the functions of `re` do not accept it.
    """
    return cast("re.Pattern[AnyStr]", _LatePattern(source, flags))
