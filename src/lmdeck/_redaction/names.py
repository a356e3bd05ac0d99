"""Whether the name of a header, field, variable or option means that its value is a secret."""

from __future__ import annotations

import re
from enum import IntEnum
from functools import lru_cache
from urllib.parse import unquote

MAX_NAME_CHARS = 100


class Secrecy(IntEnum):
    """Whether the value of a name is a secret."""

    NO = 0
    IF_OPAQUE = 1
    """Only if it looks like one: `session`, `auth`, `SOME_KEY`."""
    YES = 2


_WORD = re.compile(r"[A-Z]{2,}(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")
_SECRET = frozenset({
    "authorization", "bearer", "contrasena", "cookie", "cookies", "credential", "credentials", "jwt", "kennwort", "mnemonic",
    "pass", "passcode", "passphrase", "passwd", "password", "passwords", "passwort", "pat", "pwd", "secret", "secrets",
    "senha",
})  # fmt: skip
_SECRET_ENDINGS = ("apikey", "cookie", "passwd", "password", "passphrase", "passwort", "secret", "token")
"""Endings of names that are written without separators: `authtoken`, `PGPASSWORD`."""

_CODES = frozenset({"cvc", "cvv", "otp", "pin", "totp"})
_OPAQUE = frozenset({"auth", "bypass", "dpop", "dsn", "hmac", "principal", "session", "sessionid", "sid"})
_KEY_OF = frozenset({
    "access", "account", "admin", "aes", "anon", "api", "app", "application", "auth", "client", "consumer", "crypto",
    "customer", "deploy", "developer", "encryption", "functions", "hmac", "host", "licence", "license", "master", "private",
    "recovery", "role", "rsa", "secret", "server", "service", "shared", "sign", "signing", "ssh", "storage", "subscription",
    "symmetric", "user", "webhook", "write",
})  # fmt: skip
_NO_KEY_OF = frozenset({
    "answer", "arrow", "cache", "child", "column", "composite", "config", "country", "current", "data", "dict", "entity",
    "enum", "event", "field", "file", "first", "foreign", "group", "hash", "hot", "i18n", "idempotency", "index", "issue",
    "item", "json", "language", "last", "locale", "lookup", "map", "metric", "model", "natural", "next", "object", "option",
    "order", "parent", "partition", "path", "primary", "project", "public", "publishable", "range", "record", "registry",
    "row", "s3", "setting", "shard", "shortcut", "sort", "sorting", "state", "surrogate", "theme", "translation", "unique",
})  # fmt: skip
_NO_TOKEN_OF = frozenset({
    "added", "audio", "begin", "bos", "cached", "class", "cls", "completion", "continuation", "cursor", "decoder", "draft",
    "end", "eod", "eom", "eos", "eot", "expected", "fim", "first", "forced", "illegal", "image", "input", "last", "mask",
    "max", "message", "min", "next", "no", "num", "one", "output", "pad", "page", "per", "prompt", "reasoning", "sep",
    "special", "start", "stop", "thinking", "time", "tool", "total", "unexpected", "unk", "video", "word",
})  # fmt: skip
"""Tokens of language models (`eos_token`) and of listings (`next_page_token`)."""

_IN_HEADERS = frozenset({"2fa", "auth", "bypass", "mfa", "principal", "session", "signature"})
_CODE_OF = frozenset({
    "access", "auth", "authorization", "backup", "device", "one", "recovery", "security", "time", "verification",
})  # fmt: skip
_PHRASE_OF = frozenset({"recovery", "secret", "seed"})
_SAME_AFTER = frozenset({
    "again", "b64", "base", "base64", "bot", "confirm", "confirmation", "current", "default", "dev", "header", "key", "live",
    "new", "old", "plain", "plaintext", "prod", "production", "raw", "repeat", "secret", "staging", "string", "test", "text",
    "token", "val", "value",
})  # fmt: skip
_OTHER_AFTER = frozenset({
    "algorithm", "alias", "at", "attempt", "attempts", "bias", "budget", "change", "class", "consent", "cost", "count",
    "created", "description", "duration", "embedding", "enabled", "endpoint", "env", "error", "expiration", "expired",
    "expires", "expiry", "field", "file", "form", "format", "hint", "id", "ids", "in", "index", "input", "invalid", "label",
    "len", "length", "limit", "limits", "location", "manager", "max", "message", "min", "mode", "model", "name", "names",
    "on", "optional", "page", "path", "pattern", "piece", "placeholder", "policy", "position", "prefix", "price", "probs",
    "provider", "quota", "rate", "ref", "remaining", "required", "reset", "role", "rotation", "rule", "rules", "scope",
    "source", "spend", "state", "status", "store", "strength", "suffix", "title", "ttl", "type", "uri", "url", "usage",
    "used", "valid", "variable", "version",
})  # fmt: skip


@lru_cache(maxsize=4096)
def secrecy(name: str) -> Secrecy:
    """Return whether the value of a name is a secret, in any case and with any separators."""
    if len(name) > MAX_NAME_CHARS:
        return Secrecy.NO
    words = _words(unquote(name))
    for at in range(len(words) - 1, -1, -1):
        found = _of_word(words[at], frozenset(words[max(0, at - 2) : at]))
        if found:
            return _limited(found, [word for word in words[at + 1 :] if not word.isdigit()])
    return Secrecy.NO


@lru_cache(maxsize=1024)
def header_secrecy(name: str) -> Secrecy:
    """Return whether the value of a header is a secret, or identifies its sender."""
    words = _words(name)
    if secrecy(name) or not _IN_HEADERS.isdisjoint(words) or name.lower().startswith("cf-access-"):
        return Secrecy.YES
    return Secrecy.YES if words[-1:] == ["key"] and _NO_KEY_OF.isdisjoint(words) else Secrecy.NO


def is_memorable(name: str) -> bool:
    """Whether people may have chosen the secret of a name, so that it may be a word or a PIN."""
    return not name.lower().endswith(("token", "key"))


def _words(name: str) -> list[str]:
    """Return the words of a name, in lower case: `X-ApiKey` has three, `DPoP` is one."""
    return [name.lower()] if name.lower() in _OPAQUE else [word.lower() for word in _WORD.findall(name)]


def _of_word(word: str, before: frozenset[str]) -> Secrecy:
    """Return the secrecy that one word of a name implies, with the two words before it."""
    kind = word.removesuffix("s") if word.endswith(("tokens", "keys", "codes", "phrases")) else word
    if kind == "token":
        if not before.isdisjoint(_NO_TOKEN_OF) or (word == "tokens" and before.isdisjoint(_KEY_OF)):
            return Secrecy.NO
        return Secrecy.YES
    if kind.endswith("key"):
        return _of_key(kind, before)
    if kind in {"code", "phrase"}:
        return Secrecy.YES if before & (_CODE_OF if kind == "code" else _PHRASE_OF) else Secrecy.NO
    if word in _SECRET or word in _CODES or word.endswith(_SECRET_ENDINGS):
        return Secrecy.YES
    return Secrecy.IF_OPAQUE if word in _OPAQUE or (word == "string" and "connection" in before) else Secrecy.NO


def _of_key(word: str, before: frozenset[str]) -> Secrecy:
    """Return the secrecy that a word ending with "key" implies, with the words before it."""
    owners = before | {word.removesuffix("key")} - {""}
    if owners & _NO_KEY_OF or not owners or word in {"monkey", "donkey", "turkey", "hockey", "whiskey", "hotkey"}:
        return Secrecy.NO
    if owners & _KEY_OF:
        return Secrecy.YES
    return Secrecy.IF_OPAQUE if word == "key" else Secrecy.NO


def _limited(found: Secrecy, after: list[str]) -> Secrecy:
    """Return the secrecy of a name with further words: a `token_type` is not a secret."""
    if not _OTHER_AFTER.isdisjoint(after):
        return Secrecy.NO
    return found if _SAME_AFTER.issuperset(after) else Secrecy.IF_OPAQUE
