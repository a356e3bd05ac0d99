"""What the parser looks for: the markers, tags and tokens of one dialect, or of all at once, for the offered tools."""

from __future__ import annotations

import re
from functools import lru_cache

from lmdeck._parsing.dialects import REGISTRY, dialect_named, find_dialect
from lmdeck._parsing.dialects.dialect import Dialect, Marker, ReasoningTags
from lmdeck._parsing.dialects.pythonic import bare_list
from lmdeck._parsing.source import Stops
from lmdeck._parsing.unmarked_json import bare_json

__all__ = ["Grammar", "grammar_for"]

INDENT = r"[^\S\n]*+"


class Grammar:
    """What to look for in a text: the markers of some dialects, for some tools; of one of them maybe its own ones too."""

    def __init__(self, dialects: tuple[Dialect, ...], names: tuple[str, ...], spoken: Dialect | None) -> None:
        self.byte_level = spoken is not None and spoken.byte_level
        given = [marker for dialect in dialects for marker in dialect.markers] + list(spoken.own if spoken else ())
        every = [marker for marker in given if names or marker.channel]
        self.markers = {marker.text: marker for marker in reversed(every) if not marker.at_start}
        self.starts = {marker.text: marker for marker in reversed(every) if marker.at_start}
        if any(dialect.pythonic for dialect in dialects):
            self.markers |= {f"[{name}(": Marker(f"[{name}(", bare_list, keeps=True) for name in names}
        self.bare = "".join({dialect.bare for dialect in dialects}) if names else ""
        for char in set(self.bare):
            self.starts[char] = Marker(char, bare_json, keeps=True, at_start=True)
        tags = [tag for dialect in dialects for tag in dialect.reasoning]
        self.openers = {tag.open: tag for tag in reversed(tags)}
        self.anywhere = {tag.open: tag for tag in tags if tag.anywhere}
        self.closers = frozenset(tag.close for tag in tags if tag.close.startswith("<"))
        self.drops = frozenset(drop for dialect in dialects for drop in dialect.drops) - set(self.markers)
        self.reserved = frozenset(drop for drop in self.drops if "reserved" in drop)
        tokens = {*self.markers, *self.anywhere, *self.drops, *self.closers}
        self.start_tokens = Stops((*self.starts,))
        heads = "".join(sorted({re.escape(text[0]) for text in self.starts}))
        self.begins_start = re.compile(rf"\s*+[{heads}]" if heads else r"(?!)").match
        self.tokens = Stops(tokens, rf"\n{INDENT}(?=[{heads}])" if heads else "")
        on_new_line = rf"(?:\A|\n){INDENT}(?=[{heads}])" if heads else ""
        self.tokens_on_new_line = Stops(tokens, on_new_line) if heads else self.tokens
        self.opening = Stops((*self.openers, *self.closers))
        self.call_markers = tuple(text for text, marker in self.markers.items() if not marker.channel)
        self.inline = {text: marker for text, marker in self.markers.items() if marker.inline}
        self.has_calls = bool(names)

    def opened_by_template(self, text: str) -> ReasoningTags | None:
        """Give the tags of reasoning whose end a whole text has on a line's end, once and outside of code, but no beginning."""
        if "</" not in text:
            return None
        for tag in self.openers.values():
            if tag.open in text or text.count(tag.close) != 1 or not tag.close.startswith("</"):
                continue
            before, _, after = text.partition(tag.close)
            if before.count("`") % 2 == 0 and before.strip() and (not after.strip() or after[:1] in "\r\n"):
                return tag
        return None


@lru_cache(maxsize=64)
def grammar_for(dialect: str, names: tuple[str, ...], architecture: str = "") -> Grammar:
    """Give the grammar of one dialect, or of all; an architecture says which of all is likely spoken.

    Raises:
        ConfigurationError: There is no dialect of that name.
    """
    if dialect == "auto":
        return Grammar(tuple(REGISTRY.values()), names, find_dialect(architecture))
    spoken = dialect_named(dialect)
    return Grammar((spoken,), names, spoken)
