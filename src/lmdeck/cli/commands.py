"""The commands by name: where each is implemented, and its one-line summary.

Modules are imported when a command is used.
"""

from __future__ import annotations

from typing import NamedTuple


class CommandEntry(NamedTuple):
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
    CommandEntry("ask", "ask:ask", "Ask one question"),
    CommandEntry("chat", "chat:chat", "Chat in the terminal"),
    CommandEntry("models", "models:commands", "List, load, unload and download models"),
    CommandEntry("ps", "models:ps", "List the loaded models"),
    CommandEntry("embed", "embed:embed", "Turn texts into vectors"),
    CommandEntry("batch", "batch:commands", "Answer many requests from a file"),
    CommandEntry("doctor", "doctor.command:doctor", "Check settings, server and model, with fixes"),
    CommandEntry("run", "relaying:run", "Run a program with repaired answers", starts_program=True),
    CommandEntry("proxy", "relaying:proxy", "Serve repaired answers to any client"),
    CommandEntry("fake", "testing_commands:fake", "Serve a fake LM Studio for tests", asks_server=False),
    CommandEntry("record", "testing_commands:record", "Record an application's traffic", asks_server=False),
    CommandEntry("replay", "testing_commands:replay", "Parse a recording again, offline", asks_server=False),
    CommandEntry(
        "verdict",
        "testing_commands:verdict",
        "Test how a program handles faults",
        asks_server=False,
        starts_program=True,
    ),
    CommandEntry("demo", "demo:demo", "Try lmdeck without LM Studio", asks_server=False),
    CommandEntry("gateway", "gateway:commands", "Serve many hosts under one address", asks_server=False),
    CommandEntry("top", "top:top", "Watch and control a gateway", asks_server=False),
    CommandEntry("usage", "usage:usage", "Show requests and tokens by model and day", asks_server=False),
    CommandEntry("errors", "failures:failures", "Show recent failures, with fixes", asks_server=False),
    CommandEntry("engine", "engine:commands", "Serve a small real model with this API", asks_server=False),
)
