"""Regular expressions for messages: any of several, words in order, a subject and an event."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property

__all__ = ["AnyPattern", "about", "in_order"]


class AnyPattern:
    """Regular expressions of which one must occur.

    The first search compiles them, because most programs never receive an error.
    """

    def __init__(self, *patterns: str, flags: int = re.IGNORECASE) -> None:
        self._patterns = patterns
        self._flags = flags

    @cached_property
    def search(self) -> Callable[[str], re.Match[str] | None]:
        """Search a text for any of them."""
        return re.compile("|".join(self._patterns), self._flags).search


def in_order(*words: str, within: int = 40) -> str:
    """Return an expression for words in this order in one sentence.

    There are at most `within` characters between two of them.
    """
    gap = rf"(?:[^.:;\n]|[.:](?=\S)){{0,{within}}}?"
    return gap.join(rf"\b(?:{word})" for word in words)


def about(subject: str, event: str, within: int = 40) -> str:
    """Return an expression for a subject and an event, in either order in one sentence."""
    return f"{in_order(subject, event, within=within)}|{in_order(event, subject, within=within)}"
