"""`lmdeck chat`: a conversation in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.text import Text

from lmdeck._client.chat import Chat
from lmdeck._client.clients import LMStudio
from lmdeck._files import replace_file
from lmdeck._plans.history import History
from lmdeck._responses.model_lists import choose_model
from lmdeck._version import __version__
from lmdeck.cli.chat_sessions import ChatSession, latest_session, load_session, new_session, recent_sessions
from lmdeck.cli.chat_tools import load_tools
from lmdeck.cli.clipboard import copy_to_clipboard
from lmdeck.cli.live_rendering import SafeMarkdown, Screen
from lmdeck.cli.plain_output import safe
from lmdeck.cli.shared_options import Model, System
from lmdeck.cli.terminal import BAD, NEXT, WARNING, console, show_error, show_line, stats_line
from lmdeck.cli.waiting import waiting
from lmdeck.errors import LMStudioError
from lmdeck.events import AgentEvent, Chunk, ToolCallInvalid, ToolExecutionFailed, ToolFinished, ToolStarted
from lmdeck.messages import Message, Reply, ToolCall
from lmdeck.tools.tool import Tool

HELP = {
    "/model [NAME]": "show or change the model",
    "/system [TEXT]": "show or change the system message",
    "/tools [FILE]": "list the tools, or add those of a Python file",
    "/retry": "ask the last question again",
    "/copy": "copy the last answer",
    "/clear": "start a new conversation",
    "/resume [NAME]": "list the saved conversations, or continue one",
    "/save FILE": "save the messages as JSON",
    "/quit": "leave (also Ctrl-D)",
}
SHOWN_SESSIONS = 10


def chat(
    context: typer.Context,
    model: Model = None,
    system: System = None,
    tools: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE", help="A Python file whose `@lmdeck.tool` functions the model may call; repeatable."
        ),
    ] = None,
    confirm: Annotated[bool, typer.Option("--confirm", help="Ask before each tool call.")] = False,
    last: Annotated[bool, typer.Option("--continue", "-c", help="Continue the last conversation.")] = False,
    resume: Annotated[str | None, typer.Option(metavar="NAME", help="Continue this conversation.")] = None,
    save: Annotated[bool, typer.Option(help="Save the conversation, so that it can be continued.")] = True,
) -> None:
    """Chat in the terminal. `/help` lists the commands of a conversation.

    Conversations at a terminal are saved in the user's state folder, or in LMDECK_CHATS_DIR, readable by the owner only.
    """
    offered = [tool for name in tools or () for tool in load_tools(name)]
    session = load_session(resume) if resume else latest_session() if last else new_session()
    with context.obj.client() as lm:
        conversation = TerminalChat(
            lm, session, offered, model=model, confirm=confirm, save=save and sys.stdin.isatty()
        )
        if system:
            conversation.set_system(system)
        is_good = conversation.run()
    raise typer.Exit(0 if is_good else 1)


class TerminalChat:
    """The state of a conversation, and its commands."""

    def __init__(
        self,
        lm: LMStudio,
        session: ChatSession,
        tools: list[Tool[..., Any]],
        *,
        model: str | None,
        confirm: bool,
        save: bool,
    ) -> None:
        self._lm = lm
        self._session = session
        self._history, self._question = session.history, ""
        self._before = self._history
        self._model = model or session.model
        self._tools = {tool.name: tool for tool in tools}
        self._confirm = confirm
        self._save = save
        self._commands: dict[str, Callable[[str], object]] = {
            "/help": self._show_help,
            "/model": self._set_model,
            "/system": self._show_system,
            "/tools": self._show_tools,
            "/retry": self._retry,
            "/copy": self._copy,
            "/clear": self._clear,
            "/resume": self._resume,
            "/save": self._save_file,
        }

    def run(self) -> bool:
        """Read and answer lines until the user leaves.

        Return whether the last question was answered.
        """
        is_good = True
        if sys.stdin.isatty():
            self._greet()
        for line in self._lines():
            name, _, rest = line.partition(" ")
            if name in {"/quit", "/exit"}:
                break
            if not name.startswith("/"):
                is_good = self._ask(line)
            elif command := self._commands.get(name):
                command(rest.strip())
            else:
                show_line(WARNING, f"Unknown command {name}; /help lists the commands.")
        if self._save and self._history.messages:
            console.print(Text(f"Continue with: lmdeck chat --resume {self._session.name}", style="dim"))
        return is_good

    def _lines(self) -> Iterator[str]:
        """Yield the lines that the user types, or those of a pipe, without empty ones."""
        if not sys.stdin.isatty():
            yield from (line.strip() for line in sys.stdin if line.strip())
            return
        from lmdeck.cli.line_editor import read_lines

        yield from read_lines([*(usage.partition(" ")[0] for usage in HELP), "/help"])

    def _greet(self) -> None:
        """Print the server and the model that will answer, or the reason why none can."""
        problem: LMStudioError | None = None
        with waiting("looking for the server"):
            health = self._lm.health()
            try:
                model = self._model or self._lm.settings.model or choose_model(self._lm.models.list())
            except LMStudioError as error:
                model, problem = "", health.error or error
        version = f" {health.version}" if health.version else ""
        product = safe(f"{health.product}{version}") if health.product else "no server"
        console.print(Text.assemble((f"lmdeck {__version__}", "bold"), f" · {product} at {self._lm.base_url}"))
        if problem is not None:
            show_error(problem)
        else:
            later = "" if model in health.models_loaded else " (the first question loads it)"
            console.print(Text(safe(f"model {model}{later}")))
        console.print(Text("/help for commands, Ctrl-D to leave", style="dim"))
        if self._history.messages:
            self._show_last_exchange()

    def _show_last_exchange(self) -> None:
        """Show where a resumed conversation stopped."""
        count = len(self._history.messages)
        console.print(Text(f"continuing {self._session.name} after {count} messages", style="dim"))
        for message in self._history.messages[_last_question(self._history) :]:
            text = _text(message)
            if message.role == "user":
                console.print(Text(f"> {safe(text)}", style="bold"))
            elif message.role == "assistant" and text:
                console.print(SafeMarkdown(text) if console.is_terminal else safe(text))

    # --- questions ---

    def _ask(self, question: str) -> bool:
        """Send a question and show the answer; after an error, the conversation is unchanged."""
        self._question, self._before = question, self._history
        history = self._history.user(question)
        chat = self._lm.chat(self._model).with_messages(history).with_tools(self._tools.values())
        try:
            reply = self._answer(chat)
        except LMStudioError as error:
            show_error(error)
            if error.partial is not None and error.partial.content:
                show_line(NEXT, "The part received so far is not part of the conversation; /retry asks again.")
            return False
        if reply is not None:
            self._history = history.add(reply)
            if console.is_terminal:
                console.print(stats_line(reply))
            self._save_session()
        return True

    def _answer(self, chat: Chat) -> Reply | None:
        """Show an answer while it streams; after Ctrl-C, return the part received so far."""
        with ExitStack() as stack:
            screen = Screen()
            try:
                run = chat.run_stream(approve=self._approve(screen) if self._confirm else None)
                stack.callback(run.close)
                with waiting("waiting for the first token"):
                    first = next(run)
                with screen:
                    for event in chain([first], run):
                        _show(screen, event)
            except KeyboardInterrupt:
                console.print(Text("(stopped)", style="dim"))
                return (
                    Reply(content=screen.content.strip(), finish_reason="stopped") if screen.content.strip() else None
                )
        return run.reply

    def _approve(self, screen: Screen) -> Callable[[ToolCall], bool | str]:
        """Return a function that asks the user whether a tool may run."""

        def approve(call: ToolCall) -> bool | str:
            if not sys.stdin.isatty():
                return "The user could not be asked for permission."
            from lmdeck.cli.line_editor import confirm

            screen.settle()
            return confirm(f"Run {safe(_call(call))}?") or "The user did not allow this call."

        return approve

    def _retry(self, _: str) -> None:
        if not self._question and (at := _last_question(self._history)) < len(self._history.messages):
            self._question = _text(self._history.messages[at])
            self._before = History(self._history.messages[:at])
        if not self._question:
            console.print("There is no question to ask again.")
            return
        self._history = self._before
        self._ask(self._question)

    # --- commands ---

    def set_system(self, text: str) -> None:
        """Set the system message."""
        self._history = self._history.system(text)

    def _show_help(self, _: str) -> None:
        width = max(map(len, HELP)) + 2
        for usage, what in HELP.items():
            show_line(("", ""), what, label=f"{usage:<{width}}")
        console.print("Ctrl-C stops an answer and keeps the part received so far; Alt-Enter starts a new line.")

    def _set_model(self, name: str) -> None:
        self._model = name or self._model
        console.print(f"model: {safe(self._model or 'the loaded one')}", markup=False)

    def _show_system(self, text: str) -> None:
        if text:
            self.set_system(text)
        first = self._history.messages[:1]
        shown = _text(first[0]) if first and first[0].role == "system" else "none"
        console.print(f"system: {safe(shown)}", markup=False)

    def _show_tools(self, name: str) -> None:
        try:
            self._tools |= {tool.name: tool for tool in load_tools(name)} if name else {}
        except LMStudioError as error:
            show_error(error)
        if not self._tools:
            console.print("No tools; /tools FILE adds the `@lmdeck.tool` functions of a Python file.", markup=False)
        for tool in self._tools.values():
            show_line(("•", "cyan"), tool.description.partition("\n")[0], label=f"{tool.name}  ")

    def _copy(self, _: str) -> None:
        answers = [message for message in self._history.messages if message.role == "assistant" and _text(message)]
        if not answers:
            console.print("There is no answer to copy.")
            return
        text = _text(answers[-1])
        how = copy_to_clipboard(text)
        console.print(Text(f"Copied {len(text)} characters {how}.", style="dim"))

    def _clear(self, _: str) -> None:
        system = [message for message in self._history.messages[:1] if message.role == "system"]
        self._session, self._question = new_session(), ""
        self._history = self._before = History(tuple(system))
        console.print("Started a new conversation.")

    def _resume(self, name: str) -> None:
        if not name:
            found = recent_sessions(SHOWN_SESSIONS)
            for session in found:
                show_line(("•", "cyan"), session.title, label=f"{session.name}  ")
            if not found:
                console.print("No conversations are saved.")
            return
        try:
            self._session = load_session(name)
        except LMStudioError as error:
            show_error(error)
            return
        self._history = self._before = self._session.history
        self._model, self._question = self._session.model or self._model, ""
        self._show_last_exchange()

    def _save_file(self, name: str) -> None:
        if not name:
            console.print("Pass a file name: /save conversation.json")
            return
        path = Path(name).expanduser()
        messages = [message.to_dict() for message in self._history.messages]
        try:
            replace_file(path, msgspec.json.format(msgspec.json.encode(messages)) + b"\n")
        except LMStudioError as error:
            show_error(error)
        else:
            console.print(f"Saved {len(messages)} messages to {safe(str(path))}", markup=False)

    def _save_session(self) -> None:
        if not self._save:
            return
        self._session = ChatSession(self._session.name, self._history, self._model)
        try:
            self._session.save()
        except LMStudioError as error:
            show_error(error)
            self._save = False


def _show(screen: Screen, event: AgentEvent) -> None:
    """Show a chunk or a tool event of a run."""
    if isinstance(event, ToolStarted):
        screen.note(NEXT, _call(event.call))
    elif isinstance(event, ToolFinished):
        screen.note(("  =", "cyan"), event.result.content)
    elif isinstance(event, ToolExecutionFailed):
        screen.note(BAD, event.result.content)
    elif isinstance(event, ToolCallInvalid):
        screen.note(WARNING, event.error.message)
    elif isinstance(event, Chunk):
        screen.show(event)


def _call(call: ToolCall) -> str:
    return f"{call.name}({', '.join(f'{name}={value!r}' for name, value in call.arguments.items())})"


def _text(message: Message) -> str:
    return message.content if isinstance(message.content, str) else ""


def _last_question(history: History) -> int:
    """Return the index of the last user message, or the number of messages."""
    found = [at for at, message in enumerate(history.messages) if message.role == "user"]
    return found[-1] if found else len(history.messages)
