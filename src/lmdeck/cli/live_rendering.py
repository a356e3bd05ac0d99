"""Live rendering of an answer: dimmed reasoning, then Markdown.

Only the last block of the Markdown is redrawn; a finished block is printed once, so that the cost per token does not grow with
the length of the answer.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from markdown_it import MarkdownIt
from rich.live import Live
from rich.markdown import Markdown
from rich.text import Text

from lmdeck._chunks import Chunk
from lmdeck.cli.plain_output import safe, write
from lmdeck.cli.terminal import Mark, console, show_line

if TYPE_CHECKING:
    from markdown_it.token import Token

REFRESHES = 12
NOTE_CHARS = 300
PARSER = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])


@contextmanager
def quiet_keyboard() -> Iterator[None]:
    """Disable the echo of typed keys, and of the `^C` that stops an answer, while it is drawn."""
    if sys.platform == "win32" or not (sys.stdin.isatty() and console.is_terminal):
        yield
        return
    import termios  # imported late: not available on Windows

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    quiet = termios.tcgetattr(descriptor)
    quiet[3] &= ~termios.ECHO
    termios.tcsetattr(descriptor, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSANOW, before)


class SafeMarkdown(Markdown):
    """Markdown of a model, made safe.

    HTML is text, control characters are removed, also in entities, and links lead to web pages only.
    """

    def __init__(self, markup: str) -> None:
        super().__init__("")
        self.markup = safe(markup)
        self.parsed = PARSER.parse(self.markup)
        for token in _flattened(self.parsed):
            token.content = safe(token.content)
            for name in ("href", "src"):
                if not str(token.attrs.get(name, "")).lower().startswith(("http://", "https://")):
                    token.attrs.pop(name, None)


def _flattened(tokens: Iterable[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from _flattened(token.children or ())


class Screen:
    """A live view of an answer; plain text if standard output is not a terminal.

    `content` is the text shown so far.
    """

    def __init__(self) -> None:
        self.content = ""
        self._live: Live | None = None
        self._reasoning: list[str] = []
        self._block = ""
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(quiet_keyboard())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.settle()
        if not console.is_terminal:
            write("\n")
        self._stack.close()

    def show(self, chunk: Chunk) -> None:
        """Draw a chunk."""
        self.content += chunk.content
        if not console.is_terminal:
            write(safe(chunk.content))
            return
        if chunk.reasoning:
            self._reasoning.append(safe(chunk.reasoning))
            self._draw(Text("".join(self._reasoning), style="dim italic"))
        if chunk.content:
            if self._reasoning:
                self._print(Text("".join(self._reasoning).strip() + "\n", style="dim italic"))
                self._reasoning.clear()
            finished, self._block = split_finished(self._block + safe(chunk.content))
            if finished:
                self._print(SafeMarkdown(finished))
            self._draw(SafeMarkdown(self._block))

    def note(self, mark: Mark, text: str) -> None:
        """Print a line between parts of the answer, such as a tool call; a new part begins."""
        self.settle()
        self.content = ""
        line = " ".join(text.split())
        show_line(mark, Text(safe(line if len(line) <= NOTE_CHARS else f"{line[:NOTE_CHARS]}…"), style="dim"))

    def settle(self) -> None:
        """Leave what was drawn on the screen, so that something else can be printed."""
        if self._live is not None:
            self._live.stop()
        self._live, self._block = None, ""
        self._reasoning.clear()

    def _draw(self, growing: Markdown | Text) -> None:
        if self._live is None:
            self._live = Live(console=console, refresh_per_second=REFRESHES, vertical_overflow="visible")
            self._live.start()
        self._live.update(growing)

    def _print(self, block: Markdown | Text) -> None:
        """Print a finished block above the live part."""
        self._draw(Text(""))
        console.print(block)


def split_finished(text: str) -> tuple[str, str]:
    """Split Markdown into its finished and its growing part.

    It is split at the last blank line outside a fence.
    """
    position, in_fence, cut = 0, False, 0
    for line in text.splitlines(keepends=True):
        position += len(line)
        stripped = line.strip()
        if stripped.startswith(("```", "~~~")):
            in_fence = not in_fence
        elif not stripped and not in_fence and line.endswith("\n"):
            cut = position
    return text[:cut], text[cut:]
