"""Read values as models write them and emit them as valid JSON while they arrive.

JSON is copied unchanged. Text that is almost JSON is repaired, and each repair is passed to `note`: single quotes, Python's
`True` and `None`, unquoted keys, raw newlines and quotes inside strings, extra or missing commas, missing closing brackets. If
the dialect is Python, its literals are not repairs. Open containers are a list, so there is no recursion.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from json.encoder import encode_basestring  # leaves non-ASCII text and lone surrogates unchanged

from lmdeck._late_patterns import late_pattern
from lmdeck._parsing.source import NON_SPACE, MalformedCall, Reader, Source, Stops, TruncatedCall, stops

FOREIGN_SPACE = late_pattern(r"[^ \t\r\n]")
"""White space that JSON does not allow between tokens."""
SPACES = late_pattern(r"\s*")
WORD = late_pattern(r"[^\s,:{}\[\]()\"'<=]*")
NUMBER = late_pattern(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?\Z")
LOOSE_NUMBER = late_pattern(r"[+-]?(?:\d+(?:_\d+)*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\Z")
BASED_NUMBER = late_pattern(r"[+-]?0(?:x[0-9a-f]+|o[0-7]+|b[01]+)\Z", re.IGNORECASE)
MAX_NUMBER = 1000
PLAIN = {'"': late_pattern(r"[\"\\\x00-\x1f]"), "'": late_pattern(r"['\"\\\x00-\x1f]")}
NO_KEY = late_pattern(r"[(){}\[\]<>]")
HEX = late_pattern(r"[0-9a-fA-F]*")
WORDS = {"true": "true", "false": "false", "null": "null"}
OTHER_WORDS = {
    "True": "true", "False": "false", "None": "null", "TRUE": "true", "FALSE": "false", "NULL": "null",
    "NaN": "null", "nan": "null", "Infinity": "null", "-Infinity": "null", "inf": "null", "undefined": "null",
}  # fmt: skip
PYTHON_WORDS = {"True": "true", "False": "false", "None": "null"}
PYTHON_ESCAPES = {"'": "'", "a": "\\u0007", "v": "\\u000b", "0": "\\u0000"}
LOOKAHEAD = 256
END_LOOKBACK = 120
"""How many characters before a quote inside a string are searched for the end of the call."""
NEXT_KEY = late_pattern(r"\"[^\"\n\\]{1,64}\"\s*:")
CLOSERS = late_pattern(r"[\s}\])]*")
AFTER_COMMA = {
    "}": late_pattern(
        r"""\s*(?:"(?:[^"\\\n]|\\.){0,200}"\s*[:=]|'(?:[^'\\\n]|\\.){0,200}'\s*[:=]|[\w.\-$]+\s*[:=]|[}\],])"""
    ),
    "]": late_pattern(r"""\s*(?:["'{\[(\d\-+.\],]|true|false|null|True|False|None|NaN|[rbfu]["'])"""),
    ")": late_pattern(r"""\s*(?:[A-Za-z_]\w*\s*=(?=[^=])|"[\w.\- ]+"\s*[:=]|'[\w.\- ]+'\s*[:=]|\*\*|[),])"""),
    "value": late_pattern(r"""\s*(?:[A-Za-z_]\w*\s*=(?=[^=])|\*\*|["'{\[\d\-),]|true|false|null|True|False|None)"""),
    "": late_pattern(r"""\s*(?:["'{\[\])},;]|[A-Za-z_][\w.\-]*\s*(?:[:=]|\(\s*(?:\)|\{|["']?\w+["']?\s*[=:])))"""),
}
"""What may follow a comma: in an object, an array, the arguments of a call, after a whole value, and outside of the value."""
AFTER_VALUE = {"]": "", ")": "value"}
"""The case of a comma after a whole value, by the bracket that closes the text around it."""
PARTIAL_MEMBER = late_pattern(r"""\s*(?:"[^"]*"?|'[^']*'?|[\w.\-$]*)\s*=?\Z""")
FIRST_OF_SET = late_pattern(r"""\s*(?:'[^'\\]*'|"[^"\\]*"|-?\d[\d.]*)(\s*)([,:}])""")
PARTIAL_FIRST_OF_SET = late_pattern(r"""\s*(?:'[^'\\]*'?\s*|"[^"\\]*"?\s*|-?[\d.]*\s*)""")


def escaped(text: str) -> str:
    """Return text as the inside of a JSON string."""
    return encode_basestring(text)[1:-1]


def without_entities(text: str) -> str:
    """Return text with its HTML entities decoded."""
    import html  # imported late: its table of 2,200 names is needed for few calls

    return html.unescape(text)


class LiteralReader:
    """A reader of values; it writes each one as JSON text."""

    def __init__(
        self, source: Source, put: Callable[[str], object], note: Callable[[str], object], *, python: bool = False,
        ends: Stops | None = None, closes_at_end: bool = False, enclosing: str = "",
    ) -> None:  # fmt: skip
        """Read from `source` and write to `put`.

        `enclosing` contains the closing brackets of the text around the value.
        """
        self._source = source
        self._put = put
        self._note = note
        self._python = python
        self._ends = ends or stops()
        self._closes_at_end = closes_at_end
        self._enclosing = enclosing
        self._closers: list[str] = []
        self._key_text: list[str] = []
        self._comma = ""

    def read(self) -> Reader[None]:
        """Read one value.

        Raises:
            MalformedCall: The text is not a value and cannot be repaired.
            TruncatedCall: The text ended inside the value.
        """
        closers = self._closers = []
        while True:
            depth = len(closers)
            yield from self._begin_value(closers)
            if len(closers) > depth and not (yield from self._is_closed_at_once(closers)):
                continue
            while closers and not (yield from self._continues(closers)):
                continue
            if not closers:
                return

    def _begin_value(self, closers: list[str]) -> Reader[None]:
        """Read a scalar, or the opening of a container."""
        char = yield from self._space()
        source = self._source
        if char in ('"', "'"):
            self._flush()
            yield from self.string()
        elif char == "{" or char == "[" or (char == "(" and self._python):
            self._flush()
            source.at += 1
            if char == "{" and self._python:
                char = yield from self._brace_kind()
            closers.append("}" if char == "{" else "]")
            self._put("{" if char == "{" else "[")
        elif char == "":
            raise TruncatedCall
        else:
            yield from self._word()

    def _brace_kind(self) -> Reader[str]:
        """Return `[` for a set, which becomes an array, and `{` for a dict: the first item decides."""
        source = self._source
        while True:
            rest = source.text[source.at : source.at + LOOKAHEAD]
            found = FIRST_OF_SET.match(rest)
            if found:
                return "[" if found.group(2) in (",", "}") else "{"
            if source.closed or len(rest) >= LOOKAHEAD or not PARTIAL_FIRST_OF_SET.fullmatch(rest):
                return "{"
            yield

    def _is_closed_at_once(self, closers: list[str]) -> Reader[bool]:
        """Read the end of an empty container and return True, or the first key of an object."""
        char = yield from self._space()
        if char == closers[-1] or (char in ")}" and char and self._python):
            self._source.at += 1
            self._put(closers.pop())
            return True
        if closers[-1] == "}":
            yield from self._key()
        return False

    def _continues(self, closers: list[str]) -> Reader[bool]:
        """Read the text between two values; return whether another value follows in this container."""
        source = self._source
        char = yield from self._space()
        if char == ",":
            source.at += 1
            self._comma += ","
            char = yield from self._space()
            while char == ",":
                self._note("a superfluous comma")
                source.at += 1
                char = yield from self._space()
        closes = char == closers[-1] or (char != "" and char in ")}" and closers[-1] == "]" and self._python)
        if closes:
            source.at += 1
            self._drop_comma()
            self._put(closers.pop())
            return False
        if char == "" and not self._closes_at_end:
            raise TruncatedCall
        if char in "}]" or (yield from source.ahead(self._ends)):
            self._drop_comma()
            self._note("a missing closing bracket")
            self._put(closers.pop())
            return False
        if not self._comma:
            if char not in "\"'{[" and not char.isalnum():
                raise MalformedCall(f"expected a comma, found {char!r}")
            self._note("a missing comma")
            self._put(",")
        if closers[-1] == "}":
            yield from self._key()
        return True

    def _key(self) -> Reader[None]:
        char = yield from self._space()
        self._flush()
        source = self._source
        if char in ('"', "'"):
            yield from self.string(is_key=True)
            if (yield from self._space()) == char:
                self._note("an equals sign instead of a colon")
                self._put(":")
                return
        else:
            word = yield from source.collect_while(WORD)
            if not word and not char:
                raise TruncatedCall
            if not word:
                raise MalformedCall(f"expected a key, found {char!r}")
            if not self._python:
                self._note("an unquoted key")
            self._put(encode_basestring(word))
        char = yield from self._space()
        if char == "":
            raise TruncatedCall
        if char == "=":
            self._note("an equals sign instead of a colon")
        elif char != ":":
            raise MalformedCall(f"expected a colon, found {char!r}")
        source.at += 1
        self._put(":")

    def string(self, *, is_key: bool = False) -> Reader[None]:
        """Read a string.

        In Python, adjacent strings are one. In `"key="value"`, the key ends before the second quote.
        """
        source = self._source
        quote = source.text[source.at]
        if quote == "'" and not self._python:
            self._note("single quotes")
        self._put('"')
        if is_key:
            yield from self._one_key(quote)
            return
        yield from self._one_string(quote)
        while self._python and (yield from source.skip_space()) in ('"', "'"):
            yield from self._one_string(source.text[source.at])
        self._put('"')

    def _one_key(self, quote: str) -> Reader[None]:
        put, parts, begin = self._put, self._key_text, self._source.place
        parts.clear()
        self._put = parts.append
        try:
            yield from self._one_string(quote, is_key=True)
        except (MalformedCall, TruncatedCall) as refusal:
            key = "".join(parts)
            is_key = isinstance(refusal, TruncatedCall) and NO_KEY.search(key) is None
            has_escapes = "\\" in key or len(quote + key) != self._source.place - begin
            if is_key or has_escapes:
                raise
            self._source.unread(quote + key)  # it may contain the calls that follow
            raise MalformedCall("a key has no end") from None
        self._put = put
        key = "".join(parts)
        is_glued = key.endswith("=") and (yield from self._source.peek()) == quote
        put(f'{key.removesuffix("=") if is_glued else key}"')

    def _one_string(self, quote: str, *, is_key: bool = False) -> Reader[None]:  # noqa: C901 - one grammar, read top down
        source, begin = self._source, self._source.place + 1
        source.at += 1
        triple = self._python and not is_key and bool((yield from source.take(stops(quote * 2))))
        plain = PLAIN[quote]
        while True:
            text, at = source.text, source.at
            found = plain.search(text, at)
            end = found.start() if found else len(text)
            if end > at:
                self._put(text[at:end])
                source.at = end
            if not found:
                if source.closed:
                    raise TruncatedCall("inside a string")
                source.wait_for(plain.search, self._put)
                yield
                source.end_wait()
                continue
            char = found.group()
            if char == "\\":
                yield from self._escape()
            elif is_key and char < " ":
                raise MalformedCall("a key contains a line break")
            elif char != quote:
                self._odd_character(char, triple=triple)
            elif triple:
                if (yield from source.take(stops(quote * 3))):
                    return
                source.at += 1
                self._put('\\"' if quote == '"' else "'")
            elif (yield from self._ends_string(is_key=is_key)):
                source.at += 1
                return
            elif is_key and "".join(self._key_text[-1:]).endswith("="):
                return
            elif is_key:
                raise MalformedCall("a key contains a quote")
            elif self._ends.pattern.search(source.last_read(min(END_LOOKBACK, source.place - begin))):
                raise MalformedCall("a string has no end")
            else:
                source.at += 1
                self._note("a quote inside a string")
                self._put('\\"' if quote == '"' else "'")

    def _odd_character(self, char: str, *, triple: bool) -> None:
        self._source.at += 1
        if char == '"':
            self._put('\\"')
            return
        if not triple:
            self._note("a control character inside a string")
        self._put(escaped(char))

    def _ends_string(self, *, is_key: bool) -> Reader[bool]:
        """Whether a quote ends its string: it does if the grammar allows the text after it."""
        source = self._source
        while True:
            found = NON_SPACE.search(source.text, source.at + 1, source.at + LOOKAHEAD)
            if found is None and not source.closed and len(source.text) - source.at < LOOKAHEAD:
                yield
                continue
            if found is None:
                return True
            char, place = found.group(), found.start() - source.at
            if is_key and char in ":=":
                return True
            if is_key:
                return (yield from self._ends_before(place))
            return (yield from self._is_structure(char, place))

    def _is_structure(self, char: str, place: int) -> Reader[bool]:
        """Whether a character after a quote belongs to the text around the string."""
        if char == ",":
            return (
                yield from self._continues_after_comma(
                    place + 1, self._closers[-1] if self._closers else self._enclosing[:1]
                )
            )
        if char in "}])":
            return (yield from self._is_closed_from(place))
        if char == ":":
            return not self._closers and not self._enclosing
        if char in "\"'" and self._python:
            return place > 1
        if char == '"':
            return (yield from self._begins_key(place))
        return (yield from self._ends_before(place))

    def _continues_after_comma(self, place: int, closer: str) -> Reader[bool]:
        """Whether another member of the container that `closer` ends begins ahead, after a comma."""
        source, wanted = self._source, AFTER_COMMA[closer]
        while True:
            if wanted.match(source.text, source.at + place, source.at + place + LOOKAHEAD):
                return True
            if source.closed:
                rest = source.text[source.at + place : source.at + place + LOOKAHEAD]
                is_cut = PARTIAL_MEMBER.match(rest) is not None
                return is_cut or (yield from self._ends_before(place + len(rest) - len(rest.lstrip())))
            if len(source.text) - source.at - place >= LOOKAHEAD:
                return False
            yield

    def _is_closed_from(self, place: int) -> Reader[bool]:
        """Whether the brackets ahead close open containers, and the text after them fits."""
        source = self._source
        while True:
            limit = source.at + place + LOOKAHEAD
            run = CLOSERS.match(source.text, source.at + place, limit)
            end = run.end() if run else source.at + place
            if end < len(source.text) or source.closed:
                break
            yield
        char = source.text[end : end + 1] if end < limit else ""
        run_text = source.text[source.at + place : end]
        count = sum(not closer.isspace() for closer in run_text)
        open_ = len(self._closers)
        around = "".join(reversed(self._closers)) + self._enclosing
        place = end - source.at
        if char == ",":
            closer = around[count : count + 1]
            if count >= open_:
                closer = AFTER_VALUE.get(closer, closer)
            return (yield from self._continues_after_comma(place + 1, closer))
        if char == '"' and around[count : count + 1] in ("}", "") and (yield from self._begins_key(place)):
            return True
        if char == "" or count > len(around):
            return True
        if count == len(around) and char not in "\"'":
            is_last = around.endswith("]") or not self._python or "\n" in run_text
            return is_last or (yield from self._ends_before(place))
        return (yield from self._ends_before(place))

    def _begins_key(self, place: int) -> Reader[bool]:
        """Whether a key begins at a position ahead, so that only a comma is missing."""
        source = self._source
        while len(source.text) - source.at - place < LOOKAHEAD and not source.closed:
            if NEXT_KEY.match(source.text, source.at + place):
                return True
            yield
        return NEXT_KEY.match(source.text, source.at + place, source.at + place + LOOKAHEAD) is not None

    def _ends_before(self, place: int) -> Reader[bool]:
        """Whether an end marker of the dialect begins at a position ahead."""
        source, ends = self._source, self._ends
        while True:
            text, at = source.text, source.at + place
            if ends.pattern.match(text, at):
                return True
            if source.closed or len(text) - at >= ends.longest or text[at:] not in ends.prefixes:
                return False
            yield

    def _escape(self) -> Reader[None]:
        source = self._source
        while len(source.text) - source.at < 2:
            if source.closed:
                raise TruncatedCall
            yield
        char = source.text[source.at + 1]
        if char in '"\\/bfnrt':
            self._put("\\" + char)
        elif (
            (char == "u" and (yield from self._hex(4)))
            or (char == "U" and self._python and (yield from self._hex(8)))
            or (char == "x" and (yield from self._hex(2)))
        ):
            return
        elif char in PYTHON_ESCAPES and (self._python or char == "'"):
            if not self._python:
                self._note("an escape that JSON does not have")
            self._put(PYTHON_ESCAPES[char])
        elif char == "\n" and self._python:
            pass
        else:
            if not self._python:
                self._note("an escape that JSON does not have")
            self._put("\\\\")
            source.at += 1
            return
        source.at += 2

    def _hex(self, digits: int) -> Reader[bool]:
        """Read a numeric escape; return whether it is valid."""
        source = self._source
        while len(source.text) - source.at < 2 + digits and not source.closed:
            yield
        code = source.text[source.at + 2 : source.at + 2 + digits]
        found = HEX.fullmatch(code)
        if not found or len(code) < digits or int(code, 16) > 0x10FFFF:
            return False
        if digits == 4:
            self._put("\\u" + code)
        else:
            self._put(escaped(chr(int(code, 16))))
        source.at += 2 + digits
        return True

    def _word(self) -> Reader[None]:
        """Read a number or a name such as `true`."""
        source = self._source
        word = yield from source.collect_while(WORD)
        following = source.text[source.at : source.at + 1]
        if self._python and word in ("r", "b", "f", "u", "rb", "br") and following in ('"', "'") and following:
            self._flush()
            yield from self.string()
            return
        written = self._known(word)
        if written is None:
            if not following:
                raise TruncatedCall
            raise MalformedCall(f"{(word or following)[:40]!r} is not a value")
        self._flush()
        self._put(written)

    def _known(self, word: str) -> str | None:
        if NUMBER.match(word) or word in WORDS:
            return word
        if word in OTHER_WORDS:
            if not (self._python and word in PYTHON_WORDS):
                self._note(f"{word} instead of a JSON value")
            return OTHER_WORDS[word]
        if len(word) > MAX_NUMBER:
            return None
        if BASED_NUMBER.match(word):
            return str(int(word, 0))
        if LOOSE_NUMBER.match(word):
            if not self._python:
                self._note("a number in another notation")
            number = float(word.replace("_", ""))
            return (
                str(int(number)) if number.is_integer() and "." not in word and "e" not in word.lower() else str(number)
            )
        return None

    def _space(self) -> Reader[str]:
        """Copy white space and return the next character.

        After a comma that may be superfluous, white space is held back with it.
        """
        source = self._source
        while True:
            found = SPACES.match(source.text, source.at)
            end = found.end() if found else source.at
            if end > source.at:
                space = FOREIGN_SPACE.sub(" ", source.text[source.at : end])
                source.at = end
                if self._comma:
                    self._comma += space
                else:
                    self._put(space)
            if end < len(source.text):
                return source.text[end]
            if source.closed:
                return ""
            yield

    def _flush(self) -> None:
        if self._comma:
            self._put(self._comma)
            self._comma = ""

    def _drop_comma(self) -> None:
        if self._comma:
            if not self._python:
                self._note("a superfluous comma")
            self._comma = ""
