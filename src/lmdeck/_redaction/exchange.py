"""The secrets of one exchange: a secret of one part is removed from all parts."""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import TYPE_CHECKING

import msgspec

from lmdeck._redaction.json_text import Found, Secret, scan
from lmdeck._redaction.mapped_text import Source
from lmdeck._redaction.names import header_secrecy
from lmdeck._redaction.values import REMOVED, decoded_credentials, is_opaque, is_placeholder, is_word

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


MAX_KNOWN = 1000
MAX_SECRET_BYTES = 4096
MIN_KNOWN_CHARS = 8
_BETWEEN = "\0"
_PROTOCOLS = "sec-websocket-protocol"
_WORD = re.compile(r"[^\s,;=\"]+")


class Redaction:
    """The redaction of the parts of one exchange: add all of them first, then read them."""

    def __init__(self) -> None:
        self._parts: list[RedactedPart] = []

    def text(self, text: str) -> RedactedPart:
        """Add a text: a body, a path, a message."""
        part = self.quoting(text)
        self._parts.append(part)
        return part

    def quoting(self, text: str) -> RedactedPart:
        """Return a text that may quote the parts, without adding it."""
        part = RedactedPart(text, self._known)
        scan(part.source, part.found)
        return part

    def json(self, value: object) -> object:
        """Return a decoded value without the secrets in it and those of the parts added before."""
        try:
            written = value if isinstance(value, str) else msgspec.json.encode(value).decode()
            shown = self.text(written).removed()
            return shown if isinstance(value, str) else msgspec.json.decode(shown)
        except (UnicodeEncodeError, msgspec.DecodeError, RecursionError):
            return REMOVED

    def header(self, name: str, value: str) -> RedactedPart:
        """Add the value of a header."""
        part = self.text(value)
        part.found.texts.append(part.source)
        if header_secrecy(name):
            part.found.secrets.append(Secret(part.source, 0, len(value)))
        elif name.lower() == _PROTOCOLS:  # browsers cannot send another header with a WebSocket
            part.found.secrets += [
                Secret(part.source, *word.span())
                for word in _WORD.finditer(value)
                if any(map(is_opaque, word[0].split(".")))
            ]
        return part

    def headers(self, headers: Mapping[str, str]) -> dict[str, RedactedPart]:
        """Add headers; the names become lower case."""
        return {name.lower(): self.header(name, value) for name, value in headers.items()}

    def _known(self) -> list[str]:
        """Return the secrets that are removed wherever they occur, the longest first."""
        known = {value for part in self._parts for secret in part.found.secrets for value in _quotable(secret.value)}
        return sorted(known, key=len, reverse=True)[:MAX_KNOWN]


class RedactedPart:
    """A part of an exchange, which can be read without its secrets."""

    def __init__(self, text: str, known: Callable[[], list[str]]) -> None:
        self.source = Source(text)
        self.found = Found()
        self._known = known

    def removed(self) -> str:
        """Return the text with each secret replaced by a mark."""
        return self._replaced(lambda _, is_bare: f'"{REMOVED}"' if is_bare else REMOVED)

    def overwritten(self) -> str:
        """Return the text with each byte of a secret overwritten, so that lengths stay correct."""
        return self._replaced(lambda secret, is_bare: ("1" if is_bare else "x") * len(_encoded(secret)))

    def _replaced(self, replacement: Callable[[str, bool], str]) -> str:
        text = self.source.text
        parts: list[str] = []
        at = 0
        for begin, end, is_bare in self._spans():
            parts += [text[at:begin], replacement(text[begin:end], is_bare)]
            at = end
        return "".join([*parts, text[at:]])

    def _spans(self) -> Iterator[tuple[int, int, bool]]:
        """Yield the secrets in the source, in order and without overlaps."""
        secrets = [*self.found.secrets, *_quotations(self.found, self._known())]
        spans = sorted(
            (*span, secret.is_bare) for secret in secrets for span in secret.text.sources(secret.begin, secret.end)
        )
        joined: list[tuple[int, int, bool]] = []
        for begin, end, is_bare in spans:
            if joined and begin < joined[-1][1]:
                joined[-1] = (joined[-1][0], max(end, joined[-1][1]), joined[-1][2] and is_bare)
            else:
                joined.append((begin, end, is_bare))
        yield from joined


def redacted(text: str) -> str:
    """Return a text without the secrets in it."""
    return Redaction().text(text).removed()


def redacted_beginning(data: bytes, length: int) -> str:
    """Return the beginning of a body without secrets, also without the beginning of one."""
    return redacted(data[: length + MAX_SECRET_BYTES].decode("utf-8", "replace"))[:length]


def _quotable(secret: str) -> Iterator[str]:
    """Yield a secret and the parts of it that an answer may quote.

    These are tokens after their scheme, passwords in base64, and values of cookies.
    """
    if len(secret) < MIN_KNOWN_CHARS or is_placeholder(secret):
        return
    yield secret
    for word in _WORD.findall(secret):
        for part in (word, decoded_credentials(word).partition(":")[2]):
            if len(part) >= MIN_KNOWN_CHARS and not (is_word(part) or is_placeholder(part)):
                yield part


def _quotations(found: Found, known: list[str]) -> Iterator[Secret]:
    """Yield the places of known secrets in the texts of a source."""
    whole = _BETWEEN.join(text.text for text in found.texts)
    begins = [0]
    for text in found.texts:
        begins.append(begins[-1] + len(text.text) + len(_BETWEEN))
    for secret in known:
        at = whole.find(secret)
        while at >= 0:
            index = bisect_right(begins, at) - 1
            begin = at - begins[index]
            yield Secret(found.texts[index], begin, begin + len(secret))
            at = whole.find(secret, at + len(secret))


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
