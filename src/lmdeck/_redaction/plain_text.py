"""Secrets in prose, logs, `.env` and YAML files, code, command lines, URLs and XML."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lmdeck._redaction.formats import tokens
from lmdeck._redaction.names import MAX_NAME_CHARS, Secrecy, is_memorable, secrecy
from lmdeck._redaction.values import (
    is_credentials,
    is_opaque,
    is_placeholder,
    is_secret,
    is_uuid,
    is_word,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lmdeck._redaction.mapped_text import Span

_STEM = re.compile(
    r"token|secret|pass|pwd|key|auth|cred|cookie|jwt|bearer|session|sid|otp|pin|cv[cv]|dsn|mnemonic|phrase|code|sig(?:nature)?(?==)"
    r"|\bpat\b|_pat\b|kennwort|contrasena|senha",
    re.IGNORECASE,
)
"""What a name of a secret contains; the whole name is read around it."""

_BEFORE_STEM = re.compile(r"[\w.$%-]*", re.ASCII)
_FIRST_WORD = re.compile(r" [A-Za-z]{2,12}(?![\w.-])")
_SECOND_WORDS = {"key", "code", "phrase", "token"}
"""What follows another word in a sentence: "my API key is …", "unexpected token: …"."""

_ASSIGNED = re.compile(
    r"(?P<tail>[\w.-]{0,40})[\])}]{0,2}\\{0,4}[\"'`]?"
    r"(?P<mark>\s{0,3}(?::=|=>|=|:|\|)\s{0,3}|,[ ]?|[ ](?:is|was|ist|lautet|est)[ ]?:?[ ]|[ \t]{1,3})"
    r"(?:\\{0,4}[\"'`](?P<quoted>[^\"'`\n\\]{1,4096})|(?P<bare>[^\s\"'`&,;<>()\[\]{}|\\#]{1,4096})(?P<call>[(\[]?))",
    re.ASCII,
)
_UNTIL_SPACE = re.compile(r"[^\s\"'\\]*")
_SCHEME = re.compile(
    r"\b(?:bearer|basic|negotiate|ntlm|token|apikey|hawk)(?::?\s{1,3}|:)[\"']?(?P<value>[\w.~+/=|:-]{6,4096})",
    re.IGNORECASE | re.ASCII,
)
_AUTHORIZATION = re.compile(
    r"\bauthorization\\{0,2}[\"']?\s?[:=]\s?\\{0,2}[\"']?(?:[\w-]{1,30}\s)?(?P<value>[^\s\"'\\,]{6,4096})",
    re.IGNORECASE,
)
_DIGEST = re.compile(r"\bresponse=\\{0,2}\"([0-9a-f]{32,128})\\{0,2}\"")
_COOKIES = re.compile(
    r"\b(?:set-)?cookie[\"']?:\s?[\"']?([\w.-]{1,100}=[^\s;\"']*(?:;\s?[\w.-]{1,100}=[^\s;\"']*)*)", re.IGNORECASE
)
_LOGIN = re.compile(r"\blogin\s{1,9}\S{1,80}\s{1,9}password\s{1,9}(\S+)", re.IGNORECASE)  # .netrc
_USER_OPTION = re.compile(
    r"(?:\s-u\s?|--user[\s=])[\"']?[^\s:\"'=]{1,80}:([^\s\"']+)|\bsshpass\s{1,3}-p\s?[\"']?([^\s\"']+)"
)
_PASSWORD_OPTION = re.compile(
    r"\b(?:(?:login|ldap\w{1,10}|redis-cli)\b[^\n|;&]{0,200}?\s-[paw]\s?|mysql\w{0,10}\b[^\n|;&]{0,200}?\s-p)[\"']?([^\s\"']+)"
)
_IN_SENTENCE = re.compile(
    r"\b(?:password|passwort|passphrase|passcode|contraseña|mot de passe|senha)\s(?:(?:es|est|é)\s)?"
    r"(?=[^\s\"'=:(){}<>,;]{0,60}\d)([^\s\"'=:(){}<>,;]{6,60}\b)",
    re.IGNORECASE,
)
_AUTH_PAIR = re.compile(
    r"\b(?:auth\s?=\s?|\w{0,20}auth)\(\s{0,3}[\"'][^\"'\n]{0,200}[\"'],\s{0,3}[\"']([^\"'\n]{1,200})[\"']",
    re.IGNORECASE,
)  # of HTTP clients in Python
_COOKIE_JAR = re.compile(r"\t(?:TRUE|FALSE)\t\d{1,12}\t[^\t\n]{1,200}\t([^\t\n]+)")
_DATA_SOURCE = re.compile(r"\b[\w.-]{1,60}:([^\s:@/\"']{1,200})@(?:tcp|unix)\(")  # of drivers of Go
_IDENTIFIED = re.compile(r"\bidentified by\s{1,3}[\"']([^\"'\n]{1,200})", re.IGNORECASE)  # SQL
_PHRASE = re.compile(
    r"\b(?:seed|mnemonic|recovery)\b[^\n:=]{0,40}[:=]\s{0,3}[\"']?((?:[a-z]{3,8}\s{1,3}){11,23}[a-z]{3,8})",
    re.IGNORECASE,
)
_USER_INFO = re.compile(
    r"://(?P<info>[^/?#@\s\"'<>]{1,400})@|://[^/?#@\s\"'<>:]{0,200}:(?P<password>[^@\s\"'<>]{1,200})@(?=[\w.\[-])"
)
_HOOK = re.compile(
    r"(?:hooks\.[\w.-]{1,80}|discord(?:app)?\.com/api/webhooks|/webhookb?2?|/(?:web)?hooks?|/with/key)/([^\s\"'<>?#]{8,})",
    re.IGNORECASE,
)
_SEGMENT = re.compile(r"[^/@]+")
_ELEMENTS = (
    re.compile(r"<[^<>]{0,60}?(?P<name>[\w.-]{2,60})[\"']?>\s{0,3}(?P<value>[^<>]{1,4096}?)\s{0,3}</"),
    re.compile(r"=[\"'](?P<name>[\w.-]{2,60})[\"']\s{1,3}(?:value|content)=[\"'](?P<value>[^\"'<>]{1,4096})"),
    re.compile(
        r"\bname:\s?[\"']?(?P<name>[\w.-]{2,60})[\"']?(?:\s{0,3},\s{0,3}|\s{1,60})value:\s?[\"']?(?P<value>[^\s\"'{}]{1,4096})"
    ),  # YAML
    re.compile(r"<arg_key>(?P<name>[^<]{1,100})</arg_key>\s{0,3}<arg_value>(?P<value>[^<]{1,4096})"),
    re.compile(r"form-data; name=\"(?P<name>[^\"\r\n]{1,100})\"\s{1,4}(?P<value>[^\r\n]{1,4096})"),
)
_MARKED = (
    _AUTH_PAIR, _COOKIES, _COOKIE_JAR, _LOGIN, _USER_OPTION, _PASSWORD_OPTION, _IN_SENTENCE, _IDENTIFIED, _PHRASE, _DIGEST,
    _DATA_SOURCE, _USER_INFO,
)  # fmt: skip
"""Patterns whose group is always a secret."""

_URL_SECRETS = {"sig": Secrecy.YES, "signature": Secrecy.YES, "code": Secrecy.IF_OPAQUE, "key": Secrecy.IF_OPAQUE}
MIN_IN_SENTENCE = 5


def secrets_in(text: str) -> Iterator[Span]:
    """Yield the places of a text that are secrets."""
    yield from tokens(text)
    at = 0
    while stem := _STEM.search(text, at):
        at = stem.end()
        for begin, end in _assigned(text, stem):
            yield begin, end
            at = end
    for pattern in _MARKED:
        for found in pattern.finditer(text):
            yield found.span(found.lastindex or 0)
    yield from _credentials(text)
    yield from _hooks(text)
    yield from _elements(text)


def _credentials(text: str) -> Iterator[Span]:
    for pattern in (_SCHEME, _AUTHORIZATION):
        for found in pattern.finditer(text):
            value = found["value"]
            if value.endswith("=") and text.startswith('"', found.end()):
                continue  # `Bearer realm="…"`
            if is_credentials(value) or not (is_word(value) or is_placeholder(value)):
                yield found.span("value")


def _hooks(text: str) -> Iterator[Span]:
    for found in _HOOK.finditer(text):
        for segment in _SEGMENT.finditer(text, *found.span(1)):
            if is_opaque(segment[0]) or is_uuid(segment[0]):
                yield segment.span()


def _elements(text: str) -> Iterator[Span]:
    for pattern in _ELEMENTS:
        for found in pattern.finditer(text):
            if is_secret(found["name"], found["value"]):
                yield found.span("value")


def _assigned(text: str, stem: re.Match[str]) -> Iterator[Span]:
    """Yield the secret that follows a name: `name=value`, `name: value`, `--name value`."""
    found = _ASSIGNED.match(text, stem.end())
    if found is None:
        return
    begin = _begin_of_name(text, stem)
    name, mark = text[begin : found.end("tail")], found["mark"]
    has_mark = mark.strip() not in {"", ","} or name.startswith("-")
    if text.startswith("://", begin - 3) or not (has_mark or (found["quoted"] and not is_word(found["quoted"]))):
        return
    level = secrecy(name)
    if mark == "=" and text[begin - 1 : begin] in {"?", "&", "#", ";"}:
        level = max(level, _URL_SECRETS.get(re.split("[-_.]", name.lower())[-1], Secrecy.NO))
    if level is Secrecy.NO:
        return
    if found["quoted"] is not None:
        if is_secret(name, found["quoted"], level) and not _is_prose(found["quoted"]):
            yield found.span("quoted")
        return
    begin_value, end = found.span("bare")
    is_variable = mark == "=" and name.isupper()
    if is_variable and (line := _UNTIL_SPACE.match(text, begin_value)):
        end = line.end()
    value = text[begin_value:end].rstrip(".,:;!?")
    if is_secret(name, value, level) and not found["call"] and _is_alone(text, begin, end, mark, value):
        yield begin_value, begin_value + len(value)


def _begin_of_name(text: str, stem: re.Match[str]) -> int:
    """Return where the name around a stem begins; `key` belongs to the word before it."""
    before = _BEFORE_STEM.match(text[max(0, stem.start() - MAX_NAME_CHARS) : stem.start()][::-1])
    begin = stem.start() - (before.end() if before else 0)
    is_second = begin == stem.start() and stem[0].lower() in _SECOND_WORDS
    first = _FIRST_WORD.match(text[max(0, begin - MAX_NAME_CHARS) : begin][::-1]) if is_second else None
    return begin - first.end() if first else begin


def _is_prose(quoted: str) -> bool:
    return " " in quoted and all(map(is_word, quoted.split()))


def _is_alone(text: str, begin: int, end: int, mark: str, value: str) -> bool:
    """Whether an assigned value is not a word of a sentence, or the name of another variable.

    A word counts directly after `=`, and for a password as the only one in its line (YAML).
    """
    if not is_word(value):
        return len(value) >= MIN_IN_SENTENCE or value.isdigit() or mark == "="
    if mark == "=":
        return value.isalpha()
    line = text[max(0, begin - 80) : begin].rpartition("\n")[2] + text[end : end + 80].partition("\n")[0]
    is_line = not line.strip(" \t\r-")
    return is_line and mark.strip() == ":" and value.islower() and is_memorable(text[begin : text.index(":", begin)])
