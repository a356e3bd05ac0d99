"""Input from a terminal: history, completion of commands, several lines per message."""

from collections.abc import Iterator, Sequence

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent


def read_lines(commands: Sequence[str]) -> Iterator[str]:
    """Yield the lines that the user types, until Ctrl-D; Ctrl-C discards a line."""
    session: PromptSession[str] = PromptSession(
        key_bindings=_new_line_on_alt_enter(), completer=WordCompleter(list(commands), sentence=True)
    )
    while True:
        try:
            line = session.prompt(FormattedText([("bold", "> ")])).strip()
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        if line:
            yield line


def confirm(question: str) -> bool:
    """Ask a question; return whether the answer is yes, which is the default."""
    session: PromptSession[str] = PromptSession()
    try:
        return session.prompt(FormattedText([("bold", f"{question} [Y/n] ")])).strip().lower() in {"", "y", "yes"}
    except EOFError:
        return False


def _new_line_on_alt_enter() -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return bindings
