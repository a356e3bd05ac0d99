"""Track code fences, backticks and quotes, inside which markers are plain text."""

from __future__ import annotations

from lmdeck._late_patterns import late_pattern
from lmdeck._parsing.json_strings import JSONStrings
from lmdeck._parsing.text_buffer import JOINED_AT

PIECES = late_pattern(r"`+|\n|~+|[^`\n~]+")
QUOTE_OR_TABLE = late_pattern(r"\s{0,3}[>|]")
INDENTED = late_pattern(r" {0,3}\t| {4}")
SPECIAL = late_pattern(r"[|｜]")
HEAD_CHARS = 16
OPENING_QUOTE = late_pattern(r"(?:^|[\s(\[{:=,])[\"'“‘«„]\Z")
WORD_END = late_pattern(r"[^\W_][.!?:;…。\uff01\uff1f]*\Z")
PENDING_CHARS = 4096


class CodeSpans:
    """A tracker of the fences, code spans, quotes and line starts of the emitted text.

    Text is collected and examined only on demand, so that text without markers costs almost nothing.
    """

    __slots__ = (
        "_fence", "_has_text", "_head", "_is_code", "_is_line_start", "_is_quoted", "_is_tilde", "_json", "_last",
        "_pending", "_run", "_run_begins_line", "_run_is_tilde", "_span", "_was_blank",
    )  # fmt: skip

    def __init__(self) -> None:
        self._fence = 0
        self._is_quoted = False  # up to the end of the line
        self._span = 0
        self._run = 0
        self._run_begins_line = False
        self._last = "\n"
        self._is_line_start = True
        self._pending: list[str] = []
        self._json = JSONStrings()
        self._head = ""  # the beginning of the line
        self._has_text = False
        self._was_blank = False  # whether the previous line was blank
        self._is_code = False  # whether the previous lines are indented code
        self._is_tilde = False
        self._run_is_tilde = False

    def feed(self, text: str) -> None:
        """Add emitted text."""
        unseen = self._pending
        unseen.append(text)
        if len(unseen) == JOINED_AT:
            unseen[:] = ["".join(unseen)]
            if len(unseen[0]) > PENDING_CHARS:
                self._examine()

    @property
    def is_line_start(self) -> bool:
        """Whether the line has only white space so far."""
        self._examine()
        return self._is_line_start

    @property
    def follows_quote(self) -> bool:
        """Whether the text ends with a quotation mark."""
        self._examine()
        return self._last[-1:] in ('"', "'")

    @property
    def follows_word(self) -> bool:
        """Whether the text ends with a word or the end of a sentence."""
        self._examine()
        return WORD_END.search(self._last) is not None

    @property
    def follows_space(self) -> bool:
        """Whether the text ends with white space."""
        self._examine()
        return self._last[-1:].isspace()

    def inside_code(self, token: str = "") -> bool:
        """Whether the next text is inside code or a quote.

        Indentation does not make a special `token` code.
        """
        self._examine()
        self._end_run()
        self._is_quoted = self._is_quoted or OPENING_QUOTE.search(self._last) is not None
        return bool(
            self._fence or self._span or self._is_quoted or self._json.is_inside or QUOTE_OR_TABLE.match(self._head)
        ) or (SPECIAL.search(token) is None and self._is_indented())

    def _is_indented(self) -> bool:
        """Whether the line is indented code, which follows a blank line."""
        return (self._was_blank or self._is_code) and INDENTED.match(self._head) is not None

    def inside_backticks(self) -> bool:
        """Whether the next text is inside backticks."""
        self._examine()
        self._end_run()
        return bool(self._span)

    def _examine(self) -> None:
        """Examine the text collected so far."""
        if not self._pending:
            return
        text = "".join(self._pending)
        self._pending.clear()
        self._json.feed(text)
        self._last = (self._last + text)[-3:]
        for piece in PIECES.findall(text):
            is_tilde = piece[0] == "~"
            continues = bool(self._run) and self._run_is_tilde == is_tilde
            if piece[0] == "`" or (is_tilde and (self._is_line_start or continues)):
                if not continues:
                    begins_line = self._is_line_start
                    self._end_run()
                    self._run_begins_line = begins_line
                    self._run_is_tilde = is_tilde
                self._run += len(piece)
                self._is_line_start = False
                continue
            self._end_run()
            if piece == "\n":
                self._end_line()
                continue
            if len(self._head) < HEAD_CHARS:
                self._head = (self._head + piece)[:HEAD_CHARS]
            if self._is_line_start:
                self._is_line_start = piece.isspace()

    def _end_line(self) -> None:
        is_blank = self._is_line_start
        if not is_blank:
            self._is_code = self._is_indented()
        self._was_blank = is_blank and self._has_text
        self._has_text = self._has_text or not is_blank
        self._span = 0
        self._is_quoted = False
        self._is_line_start = True
        self._head = ""

    def _end_run(self) -> None:
        """Open or close a fence or a code span, now that a run of backticks or tildes is complete."""
        run, self._run = self._run, 0
        if not run:
            return
        if self._fence:
            if self._run_begins_line and run >= self._fence and self._run_is_tilde == self._is_tilde:
                self._fence = 0
        elif run >= 3 and self._run_begins_line:
            self._fence = run
            self._is_tilde = self._run_is_tilde
        elif self._run_is_tilde:
            return
        elif self._span == run:
            self._span = 0
        elif not self._span:
            self._span = run
