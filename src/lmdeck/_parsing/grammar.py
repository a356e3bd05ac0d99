"""The markers, tags and tokens that the parser looks for: those of one dialect, or of all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from functools import cached_property, lru_cache
from itertools import takewhile

from lmdeck._late_patterns import late_pattern
from lmdeck._parsing.code_spans import CodeSpans
from lmdeck._parsing.dialects import REGISTRY, dialect_named, find_dialect
from lmdeck._parsing.dialects.dialect import Dialect, Marker, ReasoningTags
from lmdeck._parsing.source import NON_SPACE, PREFIX_LENGTH, Stops, alternatives
from lmdeck._parsing.unmarked_json import (
    LIST_GUARDS,
    LIST_OPENERS,
    NO_WRAPPER,
    list_after_colon,
    read_unmarked_json,
    wrapped_json,
)

NO_ENDS = Stops(())
JSON_BEGINS = ("{", "[")
MENTIONED = late_pattern(r"[\s.,;:!?)\]\"'`\u2019\u201d\u00bb\\|}]")
"""What follows a tag that prose, program text or a table mentions."""
MENTIONS = late_pattern(r"[ \t\"'`(\[\u2018\u201c\u00ab|]\Z")
"""What precedes a token that prose mentions."""
ENDS_REASONING = late_pattern(r"</|.*(?:think|inner_|channel)", re.IGNORECASE)
"""An end tag that ends nothing but reasoning; `<|end|>` also ends other messages."""
INDENT = r"[^\S\n]*+"
OF_CALLS = re.compile("tool|call|function", re.IGNORECASE)
SPECIAL = re.compile(r"[|｜◁]|^\[[A-Z_/]+\]$|^<reserved_")
SHAPE = late_pattern(r'<[^\s<>=]*|\[[A-Z_]+\]|[{\[(]|"(?:arguments|parameters)"')
SHAPE_CHARS = 400
WORD = re.compile(r"</?\w+>|\[[A-Z]+ [A-Z ]+\]|</co: |[^<\[{◁\]`].*", re.DOTALL)


def is_special(literal: str) -> bool:
    """Whether a literal is a special token, which ordinary text does not contain."""
    return SPECIAL.search(literal) is not None


def is_word(literal: str) -> bool:
    """Whether ordinary text may contain a literal: plain language, or a tag as in HTML and XML."""
    return not is_special(literal) and WORD.fullmatch(literal) is not None


def _unproven_literals(dialect: Dialect) -> Iterator[str]:
    """Yield the literals that have an effect without a complete call as proof of the dialect.

    These are dropped tokens, opening tags in plain language and messages.
    """
    yield from dialect.drops
    yield from (tag.open for tag in dialect.reasoning if not tag.open.startswith("<"))
    yield from (marker.text for marker in dialect.markers if marker.loose)


def _heads(literals: Iterable[str]) -> str:
    """Return an expression of the starts of literals.

    After `<`, it matches a bar or a name that is not an HTML tag.
    """
    starts = {literal[:PREFIX_LENGTH] for literal in literals}
    others = {start for start in starts if start[0] != "<"}
    choices = [alternatives(others, or_end=True)] if others else []
    if others != starts:
        choices.append(rf"<{NO_WRAPPER}(?:[A-Za-z_|]|\Z)")
    return "|".join(choices) or r"(?!)"


def _speakers(dialects: tuple[Dialect, ...]) -> dict[str, set[str]]:
    """Return the literals of some dialects, each with the names of its dialects."""
    found: dict[str, set[str]] = {}
    for dialect in dialects:
        markers = (marker.text for marker in (*dialect.markers, *dialect.only_if_known))
        for literal in (*markers, *(tag.open for tag in dialect.reasoning), *dialect.drops):
            found.setdefault(literal, set()).add(dialect.name)
    return found


def _dialects_by_marker(dialects: tuple[Dialect, ...]) -> dict[str, list[Dialect]]:
    """Return the dialects by the markers of their calls.

    For calls without a marker, the general dialects come first.
    """
    found: dict[str, list[Dialect]] = {}
    for dialect in dialects:
        for marker in (*dialect.markers, *dialect.only_if_known):
            found.setdefault(marker.text, []).append(dialect)
    for dialect in reversed(dialects):
        for char in {*dialect.bare, *("[" if dialect.pythonic else "")}:
            found.setdefault(char, []).append(dialect)
    return found


def _shape(text: str) -> tuple[str, ...]:
    """Return the first tags, brackets and keys of a call, in which dialects differ."""
    return tuple(SHAPE.findall(text, 0, SHAPE_CHARS))


@lru_cache(maxsize=1024)
def _most_similar(shape: tuple[str, ...], examples: tuple[str, ...]) -> int:
    """Return the index of the example that shares the most leading parts with a shape."""
    likeness = [
        sum(1 for _ in takewhile(lambda parts: parts[0] == parts[1], zip(shape, _shape(example), strict=False)))
        for example in examples
    ]
    return likeness.index(max(likeness))


class Grammar:
    """The literals of some dialects, with the `only_if_known` markers of the `spoken` dialect.

    `speakers` maps each literal to the dialects that have it. A literal that ordinary text may contain is a word: it has an
    effect only if one of its dialects is known to be spoken, by name, by architecture or by a special token of that dialect.
    """

    def __init__(self, dialects: tuple[Dialect, ...], spoken: Dialect | None, *, has_calls: bool) -> None:
        self.byte_level = spoken is not None and spoken.byte_level
        self.spoken = frozenset({spoken.name} if spoken else ())
        declared = [marker for dialect in dialects for marker in dialect.markers]
        declared += spoken.only_if_known if spoken else ()
        active = [marker for marker in declared if has_calls or marker.channel]
        self.markers = {marker.text: marker for marker in reversed(active) if not marker.at_start}
        self.starts = {marker.text: marker for marker in reversed(active) if marker.at_start}
        if has_calls and any(dialect.pythonic for dialect in dialects):
            self.markers |= {text: Marker(text, list_after_colon, keeps=True) for text in LIST_OPENERS}
        self.bare = "".join({dialect.bare for dialect in dialects}) if has_calls else ""
        if has_calls and "[" not in self.bare and any(dialect.pythonic for dialect in dialects):
            self.bare += "["
        for char in set(self.bare):
            self.starts[char] = Marker(char, read_unmarked_json, keeps=True, at_start=True)
        for char in "<[" if has_calls else "":
            self.starts.setdefault(char, Marker(char, wrapped_json, keeps=True, at_start=True))
        self.begins = self.bare + "<["
        tags = [tag for dialect in dialects for tag in dialect.reasoning]
        self.openers = {tag.open: tag for tag in reversed(tags)}
        frames = [ReasoningTags(*dialect.thought_frame) for dialect in dialects if dialect.thought_frame]
        closed = {tag.close: tag for tag in (*tags, *frames) if ENDS_REASONING.match(tag.close)}
        self._closed_tags = tuple(closed.values())
        self._ends_of_reasoning = Stops(closed)
        self.anywhere = {tag.open: tag for tag in tags if tag.anywhere or is_special(tag.open)}
        self.closers = frozenset(
            literal for tag in tags for literal in (tag.close, *tag.content) if literal.startswith("<")
        )
        self.drops = frozenset(
            drop for dialect in dialects for drop in dialect.drops if has_calls or not OF_CALLS.search(drop)
        ) - set(self.markers)
        self.reserved = frozenset(drop for drop in self.drops if "reserved" in drop)
        self.speakers = _speakers(dialects)
        self._dialects_by_marker = _dialects_by_marker(dialects)
        self.special = frozenset(filter(is_special, self.speakers))
        self.words = frozenset(word for dialect in dialects for word in _unproven_literals(dialect) if is_word(word))
        self.start_tokens = Stops((*self.starts,))
        heads = _heads(self.starts)
        self._start_heads = late_pattern(heads)
        self._start_chars = frozenset(start[0] for start in self.starts)
        self._line = rf"\n{INDENT}(?={heads})" if self.starts else ""
        self._tokens = frozenset({*self.markers, *self.anywhere, *self.drops, *self.closers})
        self._scans: dict[tuple[Stops, tuple[str, ...]], Stops] = {}
        self._reasoning_scans: dict[Stops, Stops] = {}
        self.opening = Stops((*self.openers, *self.closers))
        self.call_markers = tuple(text for text, marker in self.markers.items() if not marker.channel)
        self.inline = {text: marker for text, marker in self.markers.items() if marker.inline}
        self.has_calls = has_calls

    def dialect_of(self, marker: Marker, text: str, spoken: AbstractSet[str]) -> str:
        """Return the name of a call's dialect, among those with its marker; `""` if there is none.

        It is one that is known to be spoken, else the one whose example is most similar to the text.
        """
        callers = self._dialects_by_marker.get(marker.text, ())
        known = [dialect for dialect in callers if dialect.name in spoken] or callers
        if not known:
            return ""
        shape = _shape(marker.text + text[:SHAPE_CHARS].removeprefix(marker.text))
        return known[_most_similar(shape, tuple(dialect.example for dialect in known))].name

    def scan(self, ends: Stops, closers: tuple[str, ...] = ()) -> Stops:
        """Return the literals to look for in a text that ends with one of `ends`.

        With `ends`, the text is a message, in which no other message begins. The `closers` are the end tags of a block of
        calls that is still open.
        """
        key = (ends, closers)
        if key not in self._scans:
            channels = (text for text, marker in self.markers.items() if marker.channel and not marker.inline)
            tokens = {*(self._tokens.difference(channels) if ends.literals else self._tokens), *ends.literals, *closers}
            self._scans[key] = Stops(tokens, self._line, LIST_GUARDS)
        return self._scans[key]

    def begins_start(self, text: str, at: int = 0) -> bool:
        """Whether a marker that counts only at the start of a line may come next, after white space."""
        found = NON_SPACE.search(text, at)
        if found is None or found.group() not in self._start_chars:  # then the expression need not be compiled
            return False
        return self._start_heads.match(text, found.start()) is not None

    @cached_property
    def outside(self) -> Stops:
        """The literals to look for outside of messages."""
        return self.scan(NO_ENDS)

    def reasoning_scan(self, closing: Stops) -> Stops:
        """Return the literals to look for in reasoning that ends with one of `closing`."""
        if closing not in self._reasoning_scans:
            literals = (*closing.literals, *self.inline, *self.reserved, *self.call_markers)
            self._reasoning_scans[closing] = Stops(literals)
        return self._reasoning_scans[closing]

    def is_plain(self, text: str) -> bool:
        """Whether a text has no token, opening tag or start marker for the scanner."""
        found = NON_SPACE.search(text)
        return (
            found is not None
            and not self.byte_level
            and (found.group() not in self._start_chars or not self.begins_start(text))
            and self.outside.pattern.search(text) is None
            and self._ends_of_reasoning.pattern.search(text) is None
            and self.opening.pattern.match(text, found.start()) is None
        )

    def is_known(self, text: str) -> bool:
        """Whether a text begins with a known token or opening tag."""
        return any(wanted.pattern.match(text) for wanted in (self.outside, self.opening))

    def opened_by_template(self, text: str) -> ReasoningTags | None:
        """Return the reasoning tags that a whole text closes but does not open.

        Tags in code and in quotes do not count.

        The end tag must end a line, or follow text and precede text without a space, as models write it and prose does not.
        Empty reasoning may follow (LM Studio bug tracker #1368, #1495).
        """
        if text.lstrip()[:1] in JSON_BEGINS:
            return None
        for tag in self._closed_tags:
            before, close, after = text.partition(tag.close)
            if (
                close
                and before.strip()
                and tag.open not in before
                and after.count(tag.close) == after.count(tag.open)
                and (_ends_line(after) or (self.is_plain(before) and _is_glued(before, after)))
                and (close.startswith("</") or not MENTIONS.search(before))
                and not _is_in_code(before)
            ):
                return tag
        return None


def _ends_line(after: str) -> bool:
    """Whether a text begins with a line end, or is blank."""
    return not after.strip() or after[0] in "\r\n"


def _is_glued(before: str, after: str) -> bool:
    """Whether a tag between two texts is not a word of either, and is not mentioned by them."""
    return not (before[-1].isspace() or MENTIONED.match(after))


def _is_in_code(before: str) -> bool:
    """Whether the text after `before` is code or quoted."""
    spans = CodeSpans()
    spans.feed(before)
    return spans.inside_code()


@lru_cache(maxsize=256)
def grammar_for(dialect: str, architecture: str = "", *, has_calls: bool) -> Grammar:
    """Return the grammar of one dialect, or of all.

    The model's `architecture` selects the likely dialect. Without `has_calls`, call markers are not looked for.

    Raises:
        ConfigurationError: The dialect is unknown.
    """
    if dialect == "auto":
        return Grammar(tuple(REGISTRY.values()), find_dialect(architecture), has_calls=has_calls)
    spoken = dialect_named(dialect)
    return Grammar((spoken,), spoken, has_calls=has_calls)
