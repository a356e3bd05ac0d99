"""`lmdeck run` and `lmdeck proxy`: the repaired answer for programs in any language."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from lmdeck.cli.terminal import console, errors, safe
from lmdeck.cli.testing import AllowedHost, needs_extra
from lmdeck.web.trust import AllowedHosts, is_loopback

if TYPE_CHECKING:
    from lmdeck.cli.shared_options import Shared

__all__ = ["PROGRAM_FOLLOWS", "proxy", "run"]

PROGRAM_FOLLOWS = {"allow_interspersed_args": False, "ignore_unknown_options": True}
NO_PROGRAM, NOT_EXECUTABLE = 127, 126  # as shells have it (POSIX, 2.8.2)
NO_TOKEN = "lm-studio"  # noqa: S105  # clients want a key, and their true one is nobody's business here
FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP")


def run(
    context: typer.Context,
    command: Annotated[list[str], typer.Argument(help="The program and its arguments: lmdeck run -- python app.py")],
) -> None:
    """Run a program whose OpenAI or Anthropic client gets repaired answers from LM Studio.

    A proxy runs beside it on a free loopback port, and OPENAI_BASE_URL and ANTHROPIC_BASE_URL lead there. The exit code is
    the program's; 127 where there is no such program.
    """
    needs_extra("server")
    from lmdeck.contrib.asgi import RepairProxy
    from lmdeck.server.serve import BackgroundServer, listen

    shared: Shared = context.obj
    application = RepairProxy(**shared.settings)
    with BackgroundServer(application, listen(), lifespan=True) as server:
        code = _run(command, _environment(server.base_url))
    raise typer.Exit(code)


def proxy(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 takes a free one.")] = 4000,
    allowed_host: AllowedHost = None,
) -> None:
    """Serve LM Studio's API with repaired answers, until Ctrl-C: for clients in any language.

    Where LM Studio itself is, the options before the command say: lmdeck --base-url http://gpu-box:1234 proxy
    """
    needs_extra("server")
    from lmdeck.contrib.asgi import RepairProxy
    from lmdeck.server.serve import listen
    from lmdeck.server.serve import run as serve

    shared: Shared = context.obj
    application = RepairProxy(AllowedHosts.of(allowed_host or (), host), **shared.settings)
    if not is_loopback(host):
        errors.print(
            Text.assemble(("! ", "yellow"), f"{host} can be reached by other machines, and nothing asks for a token.")
        )

    def tell(url: str) -> None:
        upstream = safe(application.upstream_url)
        console.print(Text.assemble(("✓ ", "green"), f"repairing at {url} what {upstream} answers (Ctrl-C stops)"))
        console.print(Text(f"  OpenAI's clients take {url}/v1, Anthropic's {url}", style="dim"), soft_wrap=True)

    with listen(host, port) as listener:
        serve(application, listener, tell)


def _environment(url: str) -> dict[str, str]:
    """Return the program's environment: its clients find the proxy, with a key for those that insist on one."""
    return {
        **{name: value for name, value in os.environ.items() if name != "ANTHROPIC_AUTH_TOKEN"},
        "OPENAI_BASE_URL": f"{url}/v1",
        "OPENAI_API_BASE": f"{url}/v1",
        "OPENAI_API_KEY": NO_TOKEN,
        "LM_STUDIO_API_BASE": f"{url}/v1",
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": NO_TOKEN,
    }


def _run(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run the program to its end, pass signals on to it, and return its exit code as a shell would."""
    waiting: list[int] = []
    program: subprocess.Popen[bytes] | None = None

    def forward(number: int, _: FrameType | None) -> None:
        if program is None:
            waiting.append(number)
        elif not (number == signal.SIGINT and _terminal_tells_both()):
            program.send_signal(number)

    before = {number: signal.signal(number, forward) for number in _forwarded()}
    try:
        program = subprocess.Popen(list(command), env=dict(environment))  # noqa: S603  # the user's own program
        for number in waiting:
            program.send_signal(number)
        code = program.wait()
    except FileNotFoundError:
        errors.print(Text.assemble(("✗ ", "bold red"), safe(f"There is no program {command[0]!r}.")), soft_wrap=True)
        return NO_PROGRAM
    except OSError as error:
        said = safe(f"The program {command[0]!r} cannot be run: {error.strerror}.")
        errors.print(Text.assemble(("✗ ", "bold red"), said), soft_wrap=True)
        return NOT_EXECUTABLE
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 - code if code < 0 else code


def _forwarded() -> list[signal.Signals]:
    return [signal.Signals[name] for name in FORWARDED if name in signal.Signals.__members__]


def _terminal_tells_both() -> bool:
    """Whether Ctrl-C reaches the program by itself: a terminal sends it to every process of its foreground group."""
    with suppress(OSError, AttributeError, ValueError):  # no terminal, or a system that knows no groups
        return os.tcgetpgrp(0) == os.getpgrp()
    return False
