"""Whether a value looks like a secret, or like a placeholder for one."""

from __future__ import annotations

import base64
import binascii
import re

from lmdeck._redaction.names import Secrecy, is_memorable, secrecy

REMOVED = "(removed)"
MIN_OPAQUE_CHARS = 16
MIN_NUMBER_CHARS = 8
MIN_CODE_CHARS = 4
MAX_PLACEHOLDER_CHARS = 100
_PLACEHOLDER = re.compile(
    r"\s*|(?-i:\$[A-Z_][A-Z0-9_]*|[$:][a-z_]+|[A-Z]{2,}(?:_[A-Z]+)+)|\$?\{.*\}|\$\(.*|%\w+%|<.*>|\[.*\]|\*+|x{3,}|\.{3}|…|\(removed\)"
    r"|[\w-]{0,12}(?:\.{3}|…|\*{3,}|x{4,})\w{0,6}"  # masked
    r"|(?:sk-)?(?:(?:any|dummy|empty|fake|local|none|not|ollama|placeholder|test|lm-?studio|no)(?:-(?:a|api|real|needed|required|used|key|token))*"
    r"|anything)"  # what clients send to servers without authentication
    r"|your[-_ ].*|(?:os\.environ|os\.getenv|process\.env|env\.|getenv|settings\.|config\.|self\.|this\.|secrets\.).*"
    r"|(?:any|basic|bearer|bool|boolean|bytes|digest|false|function|hidden|int|integer|nil|no|none|null|number|object|optional"
    r"|required|str|string|true|undefined|unset|yes)",
    re.IGNORECASE | re.DOTALL,
)
_OPAQUE = re.compile(r"[\w.~+/=:%-]+", re.ASCII)
_NUMBER = re.compile(r"[\d.,]+%?")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_PATH = re.compile(r"[a-z][a-z0-9+.-]*://|\.{0,2}/[a-z]", re.IGNORECASE)
_FILE = re.compile(r"(?:~|\.{1,2}|[A-Z]:)?(?:[/\\][A-Z]?[a-z0-9_.@-]*)+")
_ALPHANUMERIC = re.compile(r"[^\W_]")
_PROSE = re.compile(r"[A-Za-z]?[a-z'-]*[.,:;!?]*|[A-Z][a-z]+(?:[A-Z][a-z]+)+|[a-z]+(?:_[a-z]+)+")
_CODE = re.compile(r"[A-Za-z_]+(?:\.[A-Za-z_]+)+")


def is_placeholder(value: str) -> bool:
    """Whether a value is a placeholder: `$TOKEN`, `<your key>`, `***`, `None`, a type."""
    return len(value) <= MAX_PLACEHOLDER_CHARS and _PLACEHOLDER.fullmatch(value) is not None


def is_secret(name: str, value: str, level: Secrecy | None = None) -> bool:
    """Whether the value of a name is a secret; `level` is that of the name."""
    level = secrecy(name) if level is None else level
    if level is Secrecy.NO or is_placeholder(value) or _FILE.fullmatch(value) or not _ALPHANUMERIC.search(value):
        return False
    if _NUMBER.fullmatch(value) and len(value) < MIN_NUMBER_CHARS:
        return level is Secrecy.YES and is_memorable(name) and len(value) >= MIN_CODE_CHARS
    return level is Secrecy.YES or is_opaque(value)


def is_opaque(value: str) -> bool:
    """Whether a value looks as if a program made it: one long word with letters and digits.

    UUIDs and paths do not.
    """
    if len(value) < MIN_OPAQUE_CHARS:
        return is_credentials(value)
    return (
        _OPAQUE.fullmatch(value) is not None
        and any(map(str.isdigit, value))
        and any(map(str.isalpha, value))
        and not is_uuid(value)
        and _PATH.match(value) is None
    )


def is_uuid(value: str) -> bool:
    """Whether a value is a UUID."""
    return _UUID.fullmatch(value) is not None


def is_word(value: str) -> bool:
    """Whether a value may be an ordinary word of a sentence, or a name in a program."""
    return _PROSE.fullmatch(value) is not None or _CODE.fullmatch(value) is not None


def is_credentials(value: str) -> bool:
    """Whether a value is `user:password` in base64 (RFC 7617)."""
    decoded = decoded_credentials(value)
    return ":" in decoded and decoded.isprintable()


def decoded_credentials(value: str) -> str:
    """Return the text of base64 credentials; "" if they are anything else."""
    try:
        return base64.b64decode(value, validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return ""
