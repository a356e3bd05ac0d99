"""`lmdeck run` and `lmdeck proxy`: repaired answers for programs in any language."""

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

from lmdeck._incoming.trust import AllowedHosts, is_loopback
from lmdeck.cli.shared_options import AllowedHost, ListenHost, ListenPort
from lmdeck.cli.terminal import BAD, GOOD, NEXT, WARNING, errors, show_line
from lmdeck.cli.testing_commands import require_extra

if TYPE_CHECKING:
    from lmdeck.cli.shared_options import Shared

NO_PROGRAM, NOT_EXECUTABLE = 127, 126  # as in shells (POSIX, 2.8.2)
NO_TOKEN = "lm-studio"  # a placeholder: clients require a key, and the user's real one must not be sent
FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP")


def run(
    context: typer.Context,
    command: Annotated[
        list[str],
        typer.Argument(
            metavar="-- PROGRAM [ARGUMENT]...", help="The program and its arguments: lmdeck run -- python app.py"
        ),
    ],
) -> None:
    """Run a program whose OpenAI or Anthropic client gets repaired answers from LM Studio.

    A proxy listens on a free loopback port, and OPENAI_BASE_URL and ANTHROPIC_BASE_URL point to it. The exit code is the
    program's; 127 if the program does not exist.
    """
    require_extra("server")
    from lmdeck.relay.proxy import RepairProxy
    from lmdeck.server.serve import BackgroundServer
    from lmdeck.server.sockets import listen

    shared: Shared = context.obj
    application = RepairProxy(**shared.settings)
    with BackgroundServer(application, listen(), lifespan=True) as server:
        code = _run(command, _environment(server.base_url))
    raise typer.Exit(code)


def proxy(
    context: typer.Context,
    host: ListenHost = "127.0.0.1",
    port: ListenPort = 4000,
    allowed_host: AllowedHost = None,
) -> None:
    """Serve LM Studio's API with repaired answers to clients in any language, until Ctrl-C.

    `--base-url` selects LM Studio's server: lmdeck proxy --base-url http://gpu-box:1234
    """
    require_extra("server")
    from lmdeck.relay.proxy import RepairProxy
    from lmdeck.server.serve import run as serve
    from lmdeck.server.sockets import listen

    shared: Shared = context.obj
    application = RepairProxy(AllowedHosts.of(allowed_host or (), host), **shared.settings)
    if not is_loopback(host):
        show_line(WARNING, f"{host} is reachable from other machines, and no token is required.", on=errors)

    def show_url(url: str) -> None:
        show_line(GOOD, f"proxy at {url} for {application.upstream_url} (Ctrl-C stops)")
        show_line((" ", ""), Text(f"base URL of OpenAI clients: {url}/v1, of Anthropic clients: {url}", style="dim"))

    with listen(host, port) as listener:
        serve(application, listener, show_url)


def _environment(url: str) -> dict[str, str]:
    """Return the program's environment, with the proxy as base URL.

    Clients that require a key get a placeholder.
    """
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
    """Run the program, forward signals to it, and return its exit code as a shell would."""
    early: list[int] = []
    program: subprocess.Popen[bytes] | None = None

    def forward(number: int, _: FrameType | None) -> None:
        if program is None:
            early.append(number)
        elif not (number == signal.SIGINT and _terminal_signals_group()):
            program.send_signal(number)

    before = {number: signal.signal(number, forward) for number in _forwarded()}
    try:
        program = subprocess.Popen(list(command), env=dict(environment))  # the user's own program
        for number in early:
            program.send_signal(number)
        code = program.wait()
    except FileNotFoundError:
        show_line(BAD, f"The program {command[0]!r} was not found.", on=errors)
        show_line(NEXT, "Check its name, or pass its path.", on=errors)
        return NO_PROGRAM
    except OSError as error:
        show_line(BAD, f"The program {command[0]!r} cannot be run: {error.strerror}.", on=errors)
        return NOT_EXECUTABLE
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 - code if code < 0 else code


def _forwarded() -> list[signal.Signals]:
    return [signal.Signals[name] for name in FORWARDED if name in signal.Signals.__members__]


def _terminal_signals_group() -> bool:
    """Whether Ctrl-C reaches the program directly.

    A terminal sends it to every process of its foreground group.
    """
    with suppress(OSError, AttributeError, ValueError):  # no terminal, or a system without process groups
        return os.tcgetpgrp(0) == os.getpgrp()
    return False
