"""`lmdeck` without a command: the server's status and the next steps."""

from __future__ import annotations

from rich.text import Text

from lmdeck._client.clients import LMStudio
from lmdeck._version import __version__
from lmdeck.cli.plain_output import safe
from lmdeck.cli.terminal import BAD, GOOD, NEXT, console, show_line
from lmdeck.model_info import Health


def show(lm: LMStudio) -> None:
    """Print whether the server answers, what is loaded, and useful commands."""
    with lm:
        health = lm.health()
    console.print(Text.assemble(("lmdeck ", "bold"), __version__))
    if not health.reachable:
        _unreachable(lm, health)
        return
    version = f" {health.version}" if health.version else ""
    name = safe(f"{health.product or 'a server'}{version}")
    show_line(GOOD, f"{name} answers at {lm.base_url} ({(health.latency or 0) * 1000:.0f} ms)")
    if health.error is not None:
        show_line(BAD, health.error.message)
        show_line(NEXT, health.error.hint)
        return
    loaded = ", ".join(health.models_loaded) or "none; the first request loads one"
    show_line((" ", ""), loaded, label="loaded  ")
    _next('lmdeck ask "Hello"', "one question", "lmdeck chat", "a conversation", "lmdeck models", "the server's models")


def _unreachable(lm: LMStudio, health: Health) -> None:
    show_line(BAD, f"nothing answers at {lm.base_url}")
    if health.error is not None:
        show_line(NEXT, health.error.hint)
    _next("lmdeck demo", "try everything without LM Studio", "lmdeck doctor", "find out what is wrong", "", "")


def _next(*pairs: str) -> None:
    console.print()
    for command, what in zip(pairs[::2], pairs[1::2], strict=True):
        if command:
            console.print(Text.assemble("  ", (f"{command:<22}", "bold"), (what, "dim")))
