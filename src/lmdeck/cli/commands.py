"""The commands by name: where each is implemented, and its one-line summary.
Modules are imported when a command is used.
"""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    """A command of the command line.

    `target` is `module:attribute` below `lmdeck.cli`: a function, or a `typer.Typer` with subcommands. A command that
    `asks_server` accepts the options that select the server. If it `starts_program`, what follows its first argument is for
    that program.
    """

    name: str
    target: str
    summary: str
    asks_server: bool = True
    starts_program: bool = False


COMMANDS = (
    Command("ask", "ask:ask", "Ask one question"),
    Command("chat", "chat:chat", "Chat in the terminal"),
    Command("models", "models:commands", "List, load, unload and download models"),
    Command("ps", "models:ps", "List the loaded models"),
    Command("embed", "embed:embed", "Turn texts into vectors"),
    Command("batch", "batch:commands", "Answer many requests from a file"),
    Command("doctor", "doctor.command:doctor", "Find out what does not work, and the fix"),
    Command("run", "relaying:run", "Run a program with repaired answers", starts_program=True),
    Command("proxy", "relaying:proxy", "Serve repaired answers to any client"),
    Command("fake", "testing:fake", "Serve a fake LM Studio for tests", asks_server=False),
    Command("record", "testing:record", "Record an application's traffic", asks_server=False),
    Command("replay", "testing:replay", "Parse a recording again, offline", asks_server=False),
    Command("verdict", "testing:verdict", "Test how a program handles faults", asks_server=False, starts_program=True),
    Command("demo", "demo:demo", "Try lmdeck without LM Studio", asks_server=False),
    Command("gateway", "gateway:commands", "Serve many hosts to many users", asks_server=False),
    Command("top", "top:top", "Watch a gateway, and act on it", asks_server=False),
    Command("usage", "usage:usage", "Show requests and tokens by model and day", asks_server=False),
    Command("errors", "failures:failures", "Show the last failures, and what to do", asks_server=False),
    Command("engine", "engine:commands", "Serve a small real model with this API", asks_server=False),
)
