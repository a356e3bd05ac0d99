"""Secrets in a text that may contain JSON: a body, an event stream, arguments of a call."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct, field
from msgspec.structs import replace

from lmdeck._redaction.mapped_text import Joined, Text, json_string, part_of, unescaped
from lmdeck._redaction.names import Secrecy, header_secrecy, secrecy
from lmdeck._redaction.plain_text import secrets_in
from lmdeck._redaction.values import is_secret

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_DEPTH = 6
"""Texts inside texts, such as JSON in a string of JSON."""

MAX_PATH_CHARS = 400
MIN_CHARS = 5
"""A shorter text contains no secret."""

_BEGIN = re.compile(r"[\[{](?=\s{0,100}[\"\[{])")
_TOKEN = re.compile(
    r"\s*(?:\"(?P<string>[^\"\\]*(?:\\.[^\"\\]*)*)\"?|(?P<mark>[{}\[\],:])|(?P<bare>true|false|null|-?[\d.][\w.+-]*))",
    re.DOTALL,
)
_STREAM = re.compile(r"(?:^|\n)data:")
_DATA_URL = re.compile(r"data:[\w/+.-]{0,100};base64,")
_OPTION = re.compile(r"--?[\w-]{1,60}")
_HEADERS = re.compile(r"headers?$", re.IGNORECASE)
_ENVIRONMENT = re.compile(r"^env(ironment)?$", re.IGNORECASE)
_SERVER = re.compile(r"^(integrations|mcp_?servers)$", re.IGNORECASE)
_OF_TOKENS = re.compile(r"logprob|probs$|probabilit", re.IGNORECASE)
_ADDRESS = re.compile(r"^(server_?)?ur[il]$", re.IGNORECASE)
_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#]*", re.IGNORECASE)
_URL_PART = re.compile(r"[^/?#&=]+")
_PLAIN_URL_PART = re.compile(r"[a-z_-]{0,14}|v\d{1,2}")
_SCHEMAS = frozenset({"properties", "patternProperties", "$defs", "definitions"})
_PLAIN_HEADERS = frozenset({
    "accept", "accept-encoding", "accept-language", "cache-control", "connection", "content-encoding", "content-length",
    "content-type", "date", "host", "origin", "server", "user-agent", "vary",
})  # fmt: skip
_NAME_FIELDS = ("name", "key", "header", "field", "variable")
_VALUE_FIELDS = ("value", "val")
_ORDINALS = ("type", "index", "output_index", "content_index", "item_id")
"""Fields that distinguish the parts of a stream."""


class Secret(Struct, frozen=True):
    """A part of a text that is a secret; `is_bare` for a number in JSON, which has no quotes."""

    text: Text
    begin: int
    end: int
    is_bare: bool = False

    @property
    def value(self) -> str:
        """The secret itself."""
        return self.text.text[self.begin : self.end]


class Found(Struct):
    """The texts that a source contains, and the secrets in them."""

    texts: list[Text] = field(default_factory=list)
    secrets: list[Secret] = field(default_factory=list)


class _Node(Struct):
    """A value of JSON: a string, a bare word, an array, or an object, whose children have keys."""

    mark: str
    begin: int = 0
    end: int = 0
    text: Text | None = None
    keys: list[Text] = field(default_factory=list)
    children: list[_Node] = field(default_factory=list)


class _Place(Struct, frozen=True):
    """The place of a value: its name, and the objects and arrays around it."""

    name: str = ""
    path: str = ""
    is_header: bool = False
    is_variable: bool = False
    is_all_secret: bool = False
    is_of_server: bool = False
    is_of_tokens: bool = False

    @property
    def level(self) -> Secrecy:
        """Whether the value here is a secret by its place."""
        if self.is_all_secret:
            return Secrecy.YES
        if self.is_of_tokens:
            return Secrecy.NO
        level = header_secrecy(self.name) if self.is_header else secrecy(self.name)
        return max(level, Secrecy.IF_OPAQUE) if self.is_variable else level


def scan(text: Text, found: Found, depth: int = 0) -> None:
    """Add the secrets of a text, and of the texts inside it, to `found`."""
    if len(text.text) < MIN_CHARS or depth > MAX_DEPTH or _DATA_URL.match(text.text):
        return
    at, searched = 0, 0
    walk = _Walk(text, found, depth)
    while begin := _BEGIN.search(text.text, searched):
        root, searched = _read(text, begin.start())
        if not root.keys and len(root.children) < 2 and not any(child.keys for child in root.children):
            continue  # `["name"]` in code
        _scan_plain(part_of(text, at, begin.start()), found, depth)
        walk.visit(root)
        at = searched
    _scan_plain(part_of(text, at, len(text.text)), found, depth)
    if _STREAM.search(text.text):
        walk.join()


def _scan_plain(text: Text, found: Found, depth: int) -> None:
    if len(text.text.strip().removeprefix("data:")) < MIN_CHARS:
        return
    found.texts.append(text)
    found.secrets += [Secret(text, begin, end) for begin, end in secrets_in(text.text)]
    for decoded in unescaped(text):
        scan(decoded, found, depth + 1)


def _read(text: Text, begin: int) -> tuple[_Node, int]:
    """Return the array or object that begins somewhere, and where it ends.

    It may be cut off, or end where it stops being JSON.
    """
    root = _Node(text.text[begin])
    open_nodes = [root]
    at = begin + 1
    while open_nodes and (found := _TOKEN.match(text.text, at)):
        top, mark = open_nodes[-1], found["mark"]
        needs_key = top.mark == "{" and len(top.keys) == len(top.children)
        if mark in {"}", "]"}:
            open_nodes.pop()
        elif found["string"] is not None and needs_key:
            top.keys.append(json_string(text, *found.span("string")))
        elif found["string"] is not None:
            top.children.append(_Node('"', text=json_string(text, *found.span("string"))))
        elif needs_key and mark != ",":
            break
        elif found["bare"] is not None:
            top.children.append(_Node("", *found.span("bare")))
        elif mark in {"{", "["}:
            top.children.append(_Node(mark))
            open_nodes.append(top.children[-1])
        at = found.end()
    return root, at


class _Walk:
    """A traversal of the JSON values in one text."""

    def __init__(self, text: Text, found: Found, depth: int) -> None:
        self._text = text
        self._found = found
        self._depth = depth
        self._channels: dict[str, list[Text]] = {}

    def visit(self, root: _Node) -> None:
        """Add the secrets below a node."""
        pending = [(root, _Place())]
        while pending:
            node, place = pending.pop()
            if node.mark == "{":
                pending += self._fields(node, place)
            elif node.mark == "[":
                pending += _elements(node, place)
            elif node.text is not None:
                self._channels.setdefault(place.path, []).append(node.text)
                self._add_string(node.text, place)
            elif is_secret(place.name, self._written(node), place.level):
                self._found.secrets.append(Secret(self._text, node.begin, node.end, is_bare=True))

    def join(self) -> None:
        """Add the secrets that are divided over several events of a stream."""
        for texts in self._channels.values():
            if len({text.text for text in texts}) > 1:
                scan(Joined.of(texts), self._found, self._depth + 1)

    def _fields(self, node: _Node, place: _Place) -> Iterator[tuple[_Node, _Place]]:
        fields = {key.text: child for key, child in zip(node.keys, node.children, strict=False)}
        self._found.texts += node.keys
        around = _Place(
            name=place.name,
            path=place.path + "".join(f" {self._written(fields[each])}" for each in _ORDINALS if each in fields),
            is_all_secret=place.is_all_secret
            or (secrecy(place.name) is Secrecy.YES and place.name.lower().endswith("s")),
            is_of_server=place.is_of_server or "server_url" in fields,
            is_of_tokens=place.is_of_tokens or "logprob" in fields,
        )
        named = next((self._written(fields[each]) for each in _NAME_FIELDS if each in fields), "")
        for key, child in fields.items():
            is_value = key in _VALUE_FIELDS
            yield child, _field_place((named or around.name or key) if is_value else key, around)

    def _add_string(self, text: Text, place: _Place) -> None:
        if is_secret(place.name, text.text, place.level):
            self._found.texts.append(text)
            self._found.secrets.append(Secret(text, 0, len(text.text)))
            return
        if place.is_of_server and _ADDRESS.search(place.name) and (address := _URL.match(text.text)):
            self._found.secrets += [
                Secret(text, *part.span())
                for part in _URL_PART.finditer(text.text, address.end())
                if not _PLAIN_URL_PART.fullmatch(part[0])
            ]
        scan(text, self._found, self._depth + 1)

    def _written(self, node: _Node) -> str:
        return self._text.text[node.begin : node.end] if node.text is None else node.text.text


def _field_place(name: str, around: _Place) -> _Place:
    """Return the place of a field, from that of its object."""
    is_header = _HEADERS.search(around.name) is not None
    return _Place(
        name="" if around.name in _SCHEMAS else name,
        path=f"{around.path}.{name}"[:MAX_PATH_CHARS],
        is_header=is_header,
        is_variable=_ENVIRONMENT.search(around.name) is not None,
        is_all_secret=around.is_all_secret
        or (is_header and around.is_of_server and name.lower() not in _PLAIN_HEADERS),
        is_of_server=around.is_of_server or _SERVER.search(name) is not None,
        is_of_tokens=around.is_of_tokens or _OF_TOKENS.search(name) is not None,
    )


def _elements(node: _Node, place: _Place) -> Iterator[tuple[_Node, _Place]]:
    """Yield the elements of an array, each under the array's name.

    The value of an option or header in the array has the name before it.
    """
    is_pair = len(node.children) == 2 and _HEADERS.search(place.name) is not None
    before = ""
    for number, child in enumerate(node.children):
        path = f"{place.path}[{number}]"[:MAX_PATH_CHARS]
        if before and (is_pair or _OPTION.fullmatch(before)):
            yield child, replace(place, name=before, path=path, is_header=is_pair)
        else:
            yield child, replace(place, path=path)
        before = child.text.text if child.text is not None else ""
