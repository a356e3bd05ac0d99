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

import msgspec

from lmdeck._recordings.cassette import RecordedExchange, RecordedPiece

REMOVED = "(removed)"
MIN_KNOWN = 8
"""A shorter secret may be an ordinary word; it is removed only next to its name."""

_HEADER = re.compile(
    r"token(?!s)|secret|passw|passphrase|passcode|api[-_]?key|(^|-)(key|pass|pat|pin|otp)$|2fa|mfa|auth(?!enticate$|or|ority)"
    r"|authoriz|cookie|session|credential|signature|jwt|bearer|bypass|principal|^dpop$|^cf-access-",
    re.IGNORECASE,
)
_FIELD = re.compile(
    r"(auth|access|api|bearer|refresh|id|csrf|session|secret|security)[-_]?token$|^token$|secret|passw"
    r"|(api|access|account|client|license|master|private|service|shared|signing|subscription|encryption)[-_]?key$"
    r"|authorization|credential|cookie|^auth[-_]?header$"
    r"|^(auth|bearer|pwd)$|passphrase|connection[-_]?string|(?-i:_(TOKEN|KEY|PAT|PWD)$)",
    re.IGNORECASE,
)
_HOLDER = re.compile(r"headers$|^env(ironment)?$", re.IGNORECASE)
"""Fields in which every value may be a secret."""

_SCHEMAS = frozenset({"properties", "$defs", "definitions"})
"""Fields whose own fields are names of a JSON schema, with a schema as value."""

_URL_FIELD = re.compile(r"(^|\.)(server_?|mcp_?servers\..{0,200})ur[il]$", re.IGNORECASE)
_URL = re.compile(r"^([a-z][a-z0-9+.-]*://)(?:[^/?#@]*@)?([^/?#@]*)(.*)$", re.IGNORECASE | re.DOTALL)
_OPTION = re.compile(r"--?[\w-]{0,40}(?:token|key|secret|passw(?:or)?d|passphrase|auth|header)", re.IGNORECASE)
_IN_TEXT = (
    (re.compile(r"\b(bearer)(:?\s{1,3})[\w.~+/=-]{8,}", re.IGNORECASE), rf"\1\2{REMOVED}"),
    (
        re.compile(
            r"((?:\b(?:[\w-]{1,40}[-_])?(?:api[-_]?key|passw(?:or)?d|passphrase|client[-_]secret|access[-_]token)(?:\sis)?"
            r"|\b[\w-]{0,40}(?:[-_](?:token|key|secret)|(?-i:[a-z0-9](?:Token|Key|Secret))|(?-i:_TOKEN|_KEY|_SECRET))"
            r"|\b(?:token|key|secret)(?=\\{0,3}[\"']|=))[\\\"']{0,9}\s?[=:]\s?[\\\"']{0,9})[^\s\\\"'&,;(]{8,}",
            re.IGNORECASE,
        ),
        rf"\1{REMOVED}",
    ),
    (re.compile(r"(\blogin\s{1,9}\S{1,80}\s{1,9}password\s{1,9})\S+", re.IGNORECASE), rf"\1{REMOVED}"),  # .netrc
    (re.compile(r"((?:\s-u|--user)[\s=][\"']?[^\s:\"']{1,80}:)[^\s\"']+"), rf"\1{REMOVED}"),  # curl
    (re.compile(r"(\bcookie:\s?)[^\n\\\"']+", re.IGNORECASE), rf"\1{REMOVED}"),
    (re.compile(r"((?:hooks\.slack\.com/services|discord(?:app)?\.com/api/webhooks)/)[^\s\"'<>]+"), rf"\1{REMOVED}"),
    (re.compile(r"(://)[^/?#@\s\"'<>]{1,400}@"), rf"\1{REMOVED}@"),
    (
        re.compile(
            r"([?&#;][\w%-]{0,40}(?:token|key|secret|password|signature|sig|auth|code|jwt)=)[^&#;\s\"'<>]+",
            re.IGNORECASE,
        ),
        rf"\1{REMOVED}",
    ),
    (re.compile(r"\bsk-lm-\w{4,}:[\w-]{4,}"), REMOVED),  # LM Studio's
    (
        re.compile(
            r"\b(?:(?:sk|pk|rk|lmk|hf|gsk|npm|pypi|xox[abeprs]|xapp|gh[oprsu]|github_pat|glpat)[-_][\w-]{16,}"
            r"|(?:nvapi|r8|pplx|xai|tvly(?:-dev|-prod)?|fw|whsec|lin_api|figd|dop_v1|ntn|shpat|secret|vercel)[-_][A-Za-z0-9]{16,}"
            r"|AIza[\w-]{30,}|(?:AKIA|ASIA)[0-9A-Z]{16}|dapi[0-9a-f]{32}|ya29\.[\w-]{16,}|SG\.[\w-]{16,}\.[\w-]{16,})"
        ),
        REMOVED,
    ),
    (re.compile(r"(-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----)[^-]+"), rf"\1{REMOVED}"),
    (re.compile(r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]*"), REMOVED),
)


_BASIC = re.compile(r"\b(basic:?\s{1,3})([A-Za-z0-9+/]{8,}={0,2})", re.IGNORECASE)


def redact(exchange: RecordedExchange, body: bytes) -> None:
    """Remove the secrets from an exchange, and set its request to `body` without them."""
    redaction = Redaction()
    headers = redaction.headers(exchange.request_headers)
    try:
        exchange.request = redaction.body(msgspec.json.decode(body)) if body else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        exchange.request = redaction.text(body.decode("utf-8", "replace"))
    exchange.path = redaction.text(exchange.path)
    exchange.request_headers = redaction.headers(headers)  # the body may name a secret that another header has
    exchange.headers = redaction.headers(exchange.headers)
    exchange.pieces = redaction.pieces(exchange.pieces)
    exchange.ended = redaction.text(exchange.ended)


class Redaction:
    """The redaction of one exchange; secrets of the request are removed from the response, too."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return headers by their lower-case names, secrets replaced."""
        return {name.lower(): self._header(name, value) for name, value in headers.items()}

    def body(self, value: object) -> Any:  # JSON is anything
        """Return a decoded body with its secrets replaced, wherever else in it they stand.

        Raises:
            RecursionError: It is nested too deeply.
        """
        known = len(self._known)
        redacted = self._value(value, "")
        return redacted if len(self._known) == known else self._value(redacted, "")

    def _value(self, value: object, path: str) -> Any:  # as above
        """Return a value of a body; `path` has the names of its fields, joined by dots."""
        name = path.rpartition(".")[2]
        if _FIELD.search(name) or (isinstance(value, Mapping | list) and _HOLDER.search(name)):
            return self._all_removed(value)
        if isinstance(value, Mapping):
            is_schema = name in _SCHEMAS
            return {
                self.text(str(key)): self._value(each, path if is_schema else f"{path}.{key}")
                for key, each in value.items()
            }
        if isinstance(value, list):
            before = ["", *value]
            return [
                self._all_removed(each) if _is_option(option) else self._value(each, path)
                for option, each in zip(before, value, strict=False)
            ]
        return self._in_field(path, value) if isinstance(value, str) else value

    def _all_removed(self, value: object) -> Any:  # as above
        """Return a secret value: every text and number in it is removed."""
        if isinstance(value, Mapping):
            return {key: self._all_removed(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._all_removed(each) for each in value]
        is_secret = isinstance(value, str) or (isinstance(value, int | float) and len(str(value)) >= MIN_KNOWN)
        return self._remove(str(value)) if is_secret else value

    def text(self, text: str) -> str:
        """Return text without known secrets and without anything in the format of a secret."""
        for pattern, replacement in _IN_TEXT:
            text = pattern.sub(replacement, text)
        text = _BASIC.sub(lambda found: found[1] + (REMOVED if _is_basic(found[2]) else found[2]), text)
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
        return self._remove(value) if _HEADER.search(name) and "ratelimit" not in name.lower() else self.text(value)

    def _in_field(self, path: str, value: str) -> str:
        if _URL_FIELD.search(path) and (url := _URL.match(value)):
            scheme, host, rest = url.groups()
            return scheme + host + (f"/{self._remove(rest)}" if rest.strip("/") else rest)
        return self.text(value)

    def _remove(self, secret: str) -> str:
        """Remember a secret and its parts.

        These are credentials after their scheme, the password in them, and the values of cookies.
        """
        _, _, credentials = secret.partition(" ")
        parts = [secret, credentials.strip(), _decoded(credentials.strip()).partition(":")[2]]
        parts += [pair.partition("=")[2] for pair in secret.split("; ")]
        self._known.update(part for part in parts if len(part) >= MIN_KNOWN and part != REMOVED)
        return REMOVED

    def _longest_first(self) -> list[str]:
        return sorted(self._known, key=len, reverse=True)


def _is_option(text: object) -> bool:
    """Whether an argument is an option whose value, the next argument, is a secret."""
    return isinstance(text, str) and _OPTION.fullmatch(text) is not None


def _is_basic(word: str) -> bool:
    """Whether a word after "Basic" is encoded text; in a sentence, any other word may follow."""
    decoded = _decoded(word)
    return bool(decoded) and decoded.isprintable()


def _decoded(credentials: str) -> str:
    """Return the text of base64 credentials (RFC 7617); "" if they are anything else."""
    try:
        return base64.b64decode(credentials, validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return ""
