"""`lmdeck chat`: a conversation in the terminal."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import msgspec
import typer
from prompt_toolkit import PromptSession
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from rich.text import Text

from lmdeck._client.chat import Chat
from lmdeck._client.clients import LMStudio
from lmdeck._files import replace_file
from lmdeck.cli.rendering import Screen
from lmdeck.cli.shared_options import Model, System
from lmdeck.cli.terminal import console, safe, show_error, stats_line
from lmdeck.cli.waiting import waiting
from lmdeck.errors import FileWriteError, LMStudioError
from lmdeck.messages import Reply

HELP = """\
/model [NAME]    show or change the model
/system [TEXT]   show or change the system message
/clear           start a new conversation
/save FILE       save the conversation as JSON
/quit            leave (also Ctrl-D)
Ctrl-C stops an answer and keeps the part received so far; Alt-Enter starts a new line."""


def chat(
    context: typer.Context,
    model: Model = None,
    system: System = None,
) -> None:
    """Start a conversation in the terminal."""
    with context.obj.client() as lm:
        TerminalChat(lm, model, system).run()


class TerminalChat:
    """The state of a conversation, and its commands."""

    def __init__(self, lm: LMStudio, model: str | None, system: str | None) -> None:
        self._lm = lm
        self._chat = lm.chat(model)
        self._system = system or ""
        if system:
            self._chat = self._chat.with_system(system)
        self._commands: dict[str, Callable[[str], bool]] = {
            "/help": self._help,
            "/model": self._set_model,
            "/system": self._set_system,
            "/clear": self._clear,
            "/save": self._save,
            "/quit": lambda _: False,
            "/exit": lambda _: False,
        }

    def run(self) -> None:
        """Read and answer lines until the user leaves."""
        session: PromptSession[str] = PromptSession(key_bindings=_new_line_on_alt_enter(), multiline=False)
        console.print(Text(f"{self._lm.base_url} · /help for commands, Ctrl-D to leave", style="dim"))
        is_open = True
        while is_open:
            try:
                line = session.prompt(FormattedText([("bold", "> ")])).strip()
            except KeyboardInterrupt:
                continue
            except EOFError:
                return
            if line.startswith("/"):
                is_open = self._command(line)
            elif line:
                self._send(line)

    def _command(self, line: str) -> bool:
        name, _, rest = line.partition(" ")
        command = self._commands.get(name)
        if command is None:
            console.print(f"Unknown command {safe(name)}; /help lists the commands.", markup=False)
            return True
        return command(rest.strip())

    def _send(self, line: str) -> None:
        """Send a line and show the answer; after an error, the conversation is unchanged."""
        asked = self._chat.user(line)
        try:
            reply = self._answer(asked)
        except LMStudioError as error:
            show_error(error)
            return
        if reply is not None:
            self._chat = asked.assistant(reply.content)
            console.print(stats_line(reply))

    def _answer(self, asked: Chat) -> Reply | None:
        """Show an answer while it streams; after Ctrl-C, return the part received so far."""
        stream = asked.stream()
        with ExitStack() as stack:
            try:
                with waiting("waiting for the first token"):
                    stack.enter_context(stream)
                with Screen() as screen:
                    for chunk in stream:
                        screen.show(chunk)
            except KeyboardInterrupt:
                console.print(Text("(stopped)", style="dim"))
                return stream.partial if stream.partial.content else None
        return stream.reply

    def _help(self, _: str) -> bool:
        console.print(HELP, markup=False)
        return True

    def _set_model(self, name: str) -> bool:
        if name:
            self._chat = self._chat.with_model(name)
        console.print(f"model: {safe(self._chat.model or 'the loaded one')}", markup=False)
        return True

    def _set_system(self, text: str) -> bool:
        if text:
            self._system, self._chat = text, self._chat.with_system(text)
        console.print(f"system: {safe(self._system or 'none')}", markup=False)
        return True

    def _clear(self, _: str) -> bool:
        fresh = self._lm.chat(self._chat.model)
        self._chat = fresh.with_system(self._system) if self._system else fresh
        console.print("Started a new conversation.")
        return True

    def _save(self, name: str) -> bool:
        if not name:
            console.print("Pass a file name: /save conversation.json")
            return True
        path = Path(name).expanduser()
        try:
            replace_file(path, msgspec.json.format(msgspec.json.encode(self._chat.messages)) + b"\n")
        except FileWriteError as error:
            show_error(error)
        else:
            console.print(f"Saved {len(self._chat.messages)} messages to {safe(str(path))}", markup=False)
        return True


def _new_line_on_alt_enter() -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return bindings
