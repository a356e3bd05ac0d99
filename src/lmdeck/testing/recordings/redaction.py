"""Removal of secrets from recordings: tokens, passwords and cookies.

A secret is recognised by the name of its header or field, by its form, or because it was removed elsewhere in the same
exchange. In the bytes of an answer each of its characters is overwritten, so that lengths and frames stay correct.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lmdeck.testing.recordings.cassette import RecordedPiece

REMOVED = "(removed)"
LEAST_KNOWN = 8
"""A shorter secret may be an ordinary word; it is removed only next to its name."""

_HEADER = re.compile(
    r"token(?!s)|secret|passw|api[-_]?key|(^|-)(key|pass|pat)$|auth(?!enticate$|or|ority)|authoriz|cookie|session|credential"
    r"|signature|jwt|bearer|^dpop$|^cf-access-",
    re.IGNORECASE,
)
_FIELD = re.compile(
    r"(auth|access|api|bearer|refresh|id|csrf|session|secret|security)[-_]?token$|^token$|secret|passw"
    r"|(api|access|private|subscription|signing|encryption)[-_]?key$|authorization|credential|cookie"
    r"|^(auth|bearer|pwd)$|passphrase|connection[-_]?string",
    re.IGNORECASE,
)
_URL_FIELD = re.compile(r"^server_?ur[il]$", re.IGNORECASE)
_URL = re.compile(r"^([a-z][a-z0-9+.-]*://)(?:[^/?#@]*@)?([^/?#@]*)(.*)$", re.IGNORECASE | re.DOTALL)
_IN_TEXT = (
    (re.compile(r"\b(bearer|basic)(:?\s{1,3})[\w.~+/=-]{8,}", re.IGNORECASE), rf"\1\2{REMOVED}"),
    (
        re.compile(
            r"((?:api[-_]?key|passw(?:or)?d|passphrase|client[-_]secret|access[-_]token|(?-i:_TOKEN|_KEY|_SECRET))[\"']?"
            r"\s?[=:]\s?[\"']?)[^\s\"'&,;(]{8,}",
            re.IGNORECASE,
        ),
        rf"\1{REMOVED}",
    ),
    (re.compile(r"(://)[^/?#@\s\"'<>:]{0,200}:[^/?#@\s\"'<>]{1,200}@"), rf"\1{REMOVED}@"),
    (
        re.compile(
            r"([?&#][\w-]{0,40}(?:token|key|secret|password|signature|sig|auth|code|jwt)=)[^&#\s\"'<>]+", re.IGNORECASE
        ),
        rf"\1{REMOVED}",
    ),
    (re.compile(r"\bsk-lm-\w{4,}:[\w-]{4,}"), REMOVED),  # LM Studio's
    (
        re.compile(
            r"\b(?:(?:sk|pk|lmk|hf|gsk|npm|xox[abpr]|gh[oprsu]|github_pat|glpat)[-_][\w-]{16,}|AIza[\w-]{30,}|AKIA[0-9A-Z]{16}"
            r"|SG\.[\w-]{16,}\.[\w-]{16,})"
        ),
        REMOVED,
    ),
    (re.compile(r"(-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----)[^-]+"), rf"\1{REMOVED}"),
    (re.compile(r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]*"), REMOVED),
)


class Redaction:
    """The redaction of one exchange; secrets of the request are removed from the response, too."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def headers(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return headers by their lower-case names, secrets replaced."""
        return {name.lower(): self._header(name, value) for name, value in given.items()}

    def body(self, value: object, name: str = "") -> Any:  # JSON is anything
        """Return a decoded body with its secrets replaced; `name` is the field that contains it.

        Raises:
            RecursionError: It is nested too deeply.
        """
        if isinstance(value, Mapping):
            is_headers = name.lower().endswith("headers")
            return {
                key: self._remove(str(each)) if is_headers and not isinstance(each, Mapping) else self.body(each, key)
                for key, each in value.items()
            }
        if isinstance(value, list):
            return [self.body(each, name) for each in value]
        return self._field(name, value) if isinstance(value, str) else value

    def text(self, text: str) -> str:
        """Return text without known secrets and without anything in the format of a secret."""
        for pattern, replacement in _IN_TEXT:
            text = pattern.sub(replacement, text)
        for secret in self._longest_first():
            text = text.replace(secret, REMOVED)
        return text

    def pieces(self, pieces: Sequence[RecordedPiece]) -> list[RecordedPiece]:
        """Return the pieces of an answer with secrets overwritten, also across two pieces.
        Each piece keeps its length.
        """
        whole = b"".join(piece.data for piece in pieces)
        for secret in self._longest_first():
            written = secret.encode("utf-8", "replace")
            whole = whole.replace(written, b"x" * len(written))
        shown: list[RecordedPiece] = []
        begin = 0
        for piece in pieces:
            end = begin + len(piece.data)
            shown.append(RecordedPiece.of(whole[begin:end], piece.at))
            begin = end
        return shown

    def _header(self, name: str, value: str) -> str:
        if not _HEADER.search(name) or "ratelimit" in name.lower():
            return self.text(value)
        scheme, _, rest = value.partition(" ")
        if scheme.lower() == "basic" and rest:
            self._remember_basic(rest.strip())
        self._remove(rest.strip() or value)
        return REMOVED

    def _remember_basic(self, encoded: str) -> None:
        try:
            user_and_password = base64.b64decode(encoded, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return
        self._remove(user_and_password.partition(":")[2])

    def _field(self, name: str, value: str) -> str:
        if _FIELD.search(name):
            return self._remove(value)
        if _URL_FIELD.search(name) and (url := _URL.match(value)):
            scheme, host, rest = url.groups()
            return scheme + host + (f"/{self._remove(rest)}" if rest.strip("/") else rest)
        return self.text(value)

    def _remove(self, secret: str) -> str:
        if len(secret) >= LEAST_KNOWN:
            self._known.add(secret)
        return REMOVED

    def _longest_first(self) -> list[str]:
        return sorted(self._known, key=len, reverse=True)
