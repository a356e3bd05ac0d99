"""`lmdeck top`: the state of a gateway in the terminal.

It is updated once a second, and keys act on the gateway.
"""

from __future__ import annotations

import os
import re
import select
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from typing import Annotated, Any, TypedDict
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import ProxyHandler, Request, build_opener

import msgspec
import typer
from msgspec import Struct
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lmdeck.cli.plain_output import echo_json, safe
from lmdeck.cli.terminal import console
from lmdeck.errors import ConfigurationError, ServerUnreachableError
from lmdeck.gateway.dashboard.view import host_state

ORDERS = ("seconds", "chunks_per_second", "key", "model")
STYLES = {"✓": "green", "✗": "bold red", "!": "yellow", "‖": "yellow", "◔": "cyan"}
MAX_HOSTS, MAX_MODELS, MAX_ERRORS = 4, 3, 3
SECONDS = 5.0
NAME_GATEWAY = "Name the gateway with --url, and the operators' token with --token-env."
WIDE = {"models", "model", "message"}
WIDTHS = {"": 1, "state": 10, "phase": 9, "time": 7, "chunks/s": 8, "error": 16}
HELP = "↑↓ select  s sort  c stop request  h host  d drain  q quit"


class _Model(TypedDict):
    loaded: bool


class _Host(TypedDict):
    name: str
    up: bool
    draining: bool
    breaker: str
    loading: str | None
    running: int
    error: str | None
    models: dict[str, _Model]


class _Queue(TypedDict):
    running: int
    waiting: int
    oldest_wait: float | None


class _OpenRequest(TypedDict):
    request_id: str
    key: str
    model: str
    host: str
    phase: str
    seconds: float
    chunks_per_second: float | None


class _Failure(TypedDict):
    at: float
    error: str
    host: str
    message: str


class _Totals(TypedDict):
    requests: int
    errors: int
    problems: int
    hits: int


class _Status(TypedDict):
    """What the screen needs of `/gateway/status`."""

    requests: int
    totals: _Totals
    hosts: list[_Host]
    queues: dict[str, _Queue]
    live: list[_OpenRequest]
    errors: list[_Failure]


Url = Annotated[str, typer.Option("--url", metavar="URL", help="The gateway's address.")]
TokenEnv = Annotated[
    str,
    typer.Option(
        "--token-env", metavar="NAME", help="The environment variable with the operators' token (for another machine)."
    ),
]
Interval = Annotated[float, typer.Option("--interval", metavar="SECONDS", min=0.1, help="Time between two updates.")]
Json = Annotated[bool, typer.Option("--json", help="Print the state once, as JSON.")]


def top(
    url: Url = "http://localhost:4000", token_env: TokenEnv = "", interval: Interval = 1.0, json: Json = False
) -> None:
    """Show a gateway's hosts, queues and requests."""
    gateway = _Gateway(url.rstrip("/"), token_env)
    if json:
        echo_json(gateway.status())
        return
    view = _View(gateway.status())
    if not console.is_terminal:
        console.print(view.render(console.height))
        return
    with _keys() as read_key, Live(console=console, screen=True, auto_refresh=False) as live:
        _watch(view, gateway, interval, read_key, lambda: live.update(view.render(console.height), refresh=True))


def _watch(
    view: _View, gateway: _Gateway, interval: float, read_key: Callable[[float], str], draw: Callable[[], object]
) -> None:
    """Show the state repeatedly, and act on keys, until `q`."""
    while True:
        draw()
        until = time.monotonic() + interval
        while (remaining := until - time.monotonic()) > 0:
            key = read_key(remaining)
            if key == "q":
                return
            if key:
                view.press(key, gateway)
                draw()
        view.refresh(gateway)


class _Gateway:
    """The gateway's endpoints for operators."""

    def __init__(self, url: str, token_env: str) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigurationError(f"{url!r} is not the address of a gateway.", hint="Write http://host:port.")
        self.url = url
        self._headers = {"Content-Type": "application/json"}
        if token_env:
            if not os.environ.get(token_env):
                raise ConfigurationError(
                    f"The environment variable {token_env} is not set.", hint="Set it to the operators' token."
                )
            self._headers["Authorization"] = f"Bearer {os.environ[token_env]}"
        self._open = build_opener(ProxyHandler({})).open  # the proxy of the environment is for other machines

    def status(self) -> dict[str, Any]:
        """Return `/gateway/status`.

        Raises:
            ServerUnreachableError: Nothing answers.
            ConfigurationError: It is not a gateway, or refuses.
        """
        status: dict[str, Any] = self._ask("GET", "/gateway/status")
        try:
            msgspec.convert(status, _Status)
        except msgspec.ValidationError as error:
            raise ConfigurationError(
                f"{self.url} is not an lmdeck gateway of this version: {error}.", hint=NAME_GATEWAY
            ) from None
        return status

    def post(self, path: str, body: Mapping[str, Any]) -> None:
        """Act on the gateway."""
        self._ask("POST", path, msgspec.json.encode(body))

    def _ask(self, method: str, path: str, body: bytes | None = None) -> Any:
        request = Request(f"{self.url}{path}", data=body, headers=self._headers, method=method)  # noqa: S310  # checked above
        try:
            with self._open(request, timeout=SECONDS) as answer:
                data = answer.read()
        except HTTPError as refused:
            with refused:
                data = refused.read()
            raise ConfigurationError(f"{self.url}: {_message(data, refused.code)}", hint=NAME_GATEWAY) from None
        except (OSError, HTTPException) as error:
            raise ServerUnreachableError(
                f"No gateway answers at {self.url}.",
                hint="Start it with `lmdeck gateway serve`, or name it with --url.",
            ) from error
        decoded = _decoded(data)
        if not isinstance(decoded, dict):
            raise ConfigurationError(f"{self.url} is not an lmdeck gateway.", hint=NAME_GATEWAY)
        return decoded


def _decoded(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _message(data: bytes, status: int) -> str:
    """Return the message of an error response."""
    decoded = _decoded(data)
    error = decoded.get("error") if isinstance(decoded, dict) else None
    return str(error.get("message")) if isinstance(error, dict) else f"it answered with status {status}"


class _Notice(Struct):
    """The last message to the operator."""

    text: str = ""
    style: str = "dim"


class _View:
    """The state of the screen: the gateway's status, and the selected row and host."""

    def __init__(self, status: dict[str, Any]) -> None:
        self.status = status
        self._order = 0
        self._selected = ""
        self._host = 0
        self._notice = _Notice()

    def refresh(self, gateway: _Gateway) -> None:
        """Fetch the status again; the last one stays while the gateway does not answer."""
        try:
            self.status = gateway.status()
        except (ServerUnreachableError, ConfigurationError) as error:
            self._notice = _Notice(error.message, "bold red")
        else:
            if self._notice.style == "bold red":
                self._notice = _Notice()

    def press(self, key: str, gateway: _Gateway) -> None:
        """Perform the action of a key."""
        match key:
            case "s":
                self._order = (self._order + 1) % len(ORDERS)
            case "h":
                self._host = (self._host + 1) % max(1, len(self.status["hosts"]))
            case "up":
                self._move(-1)
            case "down":
                self._move(1)
            case "c":
                self._cancel(gateway)
            case "d":
                self._drain(gateway)

    def render(self, height: int) -> Group:
        """Return the screen."""
        status = self.status
        hosts, models, errors = self._hosts(), self._models(), self._errors()
        used = 4 + hosts.row_count + models.row_count + errors.row_count + 6
        return Group(
            self._headline(),
            hosts,
            models,
            self._live(max(1, height - used)),
            errors,
            self._footer(len(status["live"])),
        )

    def _headline(self) -> Text:
        totals, status = self.status["totals"], self.status
        waiting = sum(queue["waiting"] for queue in status["queues"].values())
        return Text.assemble(
            ("lmdeck top  ", "bold"),
            f"{status['requests']} open, {waiting} waiting, {totals['requests']} done, ",
            (f"{totals['errors']} failed", "bold red" if totals["errors"] else ""),
            f", {totals['problems']} repairs, {totals['hits']} cached",
        )

    def _hosts(self) -> Table:
        table = _table("", "host", "state", "running", "models")
        hosts = self.status["hosts"]
        first = max(0, min(self._host - MAX_HOSTS + 1, len(hosts) - MAX_HOSTS))
        for number, host in enumerate(hosts[first : first + MAX_HOSTS], first):
            mark, word = host_state(host)
            loaded = ", ".join(name for name, model in host["models"].items() if model["loaded"])
            table.add_row(
                "▸" if number == self._host % len(hosts) else "",
                _cell(host["name"]),
                Text(f"{mark} {safe(word)}", style=STYLES[mark]),
                str(host["running"]),
                _cell(loaded or host["error"] or ""),
            )
        return table

    def _models(self) -> Table:
        table = _table("", "model", "running", "waiting", "longest")
        queues = sorted(self.status["queues"].items(), key=lambda item: -item[1]["waiting"])
        for model, queue in queues[:MAX_MODELS]:
            table.add_row(
                "", _cell(model), str(queue["running"]), str(queue["waiting"]), _seconds(queue["oldest_wait"])
            )
        return table

    def _live(self, rows: int) -> Table:
        order = ORDERS[self._order]
        table = _table("", "request", "key", "model", "host", "phase", "time", "chunks/s")
        live = self._sorted()
        at = next((at for at, one in enumerate(live) if one["request_id"] == self._selected), 0)
        first = max(0, at - rows + 1)
        for number, one in enumerate(live[first : first + rows], first):
            speed = one["chunks_per_second"]
            table.add_row(
                "▸" if number == at else "",
                _cell(one["request_id"][-6:]),
                _cell(one["key"]),
                _cell(one["model"]),
                _cell(one["host"]),
                one["phase"],
                _seconds(one["seconds"]),
                "" if speed is None else f"{speed:.0f}",
                style="reverse" if number == at else "",
            )
        table.caption = f"open requests by {order.replace('_', ' ')}" if live else "no open requests"
        table.caption_justify = "left"
        return table

    def _errors(self) -> Table:
        table = _table("", "failed", "error", "host", "message")
        for one in self.status["errors"][:MAX_ERRORS]:
            at = time.strftime("%H:%M:%S", time.localtime(one["at"]))
            table.add_row("", at, _cell(one["error"]), _cell(one["host"]), _cell(one["message"]))
        return table

    def _footer(self, _: int) -> Text:
        return Text.assemble((HELP, "dim"), "  ", (safe(self._notice.text), self._notice.style))

    def _sorted(self) -> list[dict[str, Any]]:
        order = ORDERS[self._order]
        live: list[dict[str, Any]] = self.status["live"]
        if order in {"key", "model"}:
            return sorted(live, key=lambda one: str(one[order]))
        return sorted(live, key=lambda one: -(one[order] or 0.0))

    def _move(self, by: int) -> None:
        live = self._sorted()
        if live:
            at = next((at for at, one in enumerate(live) if one["request_id"] == self._selected), 0)
            self._selected = live[max(0, min(len(live) - 1, at + by))]["request_id"]

    def _cancel(self, gateway: _Gateway) -> None:
        """Stop the selected request: if it has ended, no other one."""
        ids = [one["request_id"] for one in self._sorted()]
        chosen, self._selected = self._selected or next(iter(ids), ""), ""
        if chosen in ids:
            self._act(gateway, f"/gateway/requests/{quote(chosen, safe='')}/cancel", {}, f"stopped {chosen[-6:]}")
        elif chosen:
            self._notice = _Notice(f"{chosen[-6:]} has ended")

    def _drain(self, gateway: _Gateway) -> None:
        hosts = self.status["hosts"]
        if not hosts:
            return
        host = hosts[self._host % len(hosts)]
        wanted = not host["draining"]
        done = f"{host['name']} is draining" if wanted else f"{host['name']} is active again"
        self._act(gateway, f"/gateway/hosts/{quote(host['name'], safe='')}/drain", {"drain": wanted}, done)

    def _act(self, gateway: _Gateway, path: str, body: Mapping[str, Any], done: str) -> None:
        try:
            gateway.post(path, body)
        except (ServerUnreachableError, ConfigurationError) as error:
            self._notice = _Notice(error.message, "bold red")
        else:
            self._notice = _Notice(done)
            self.refresh(gateway)


def _table(*columns: str) -> Table:
    """Return an empty table, in which only long texts may be cut, not figures and states."""
    table = Table(box=None, expand=True, pad_edge=False, header_style="bold dim")
    for name in columns:
        wide = name in WIDE
        table.add_column(name, no_wrap=True, overflow="ellipsis", ratio=1 if wide else None, min_width=WIDTHS.get(name))
    return table


def _cell(text: str) -> Text:
    return Text(safe(text).replace("\n", " "))


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}s"


_KEY = re.compile(r"\x1b[\[O][A-D]|.", re.DOTALL)
ARROWS = {"\x1b[A": "up", "\x1b[B": "down", "\x1bOA": "up", "\x1bOB": "down", "k": "up", "j": "down", "\x03": "q"}


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """Read keys without waiting for Enter; yield a function that waits for one for some seconds."""
    if sys.platform == "win32" or not sys.stdin.isatty():
        yield _no_key
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    typed: deque[str] = deque()  # keys may come several at a time

    def read(seconds: float) -> str:
        if not typed and select.select([descriptor], [], [], seconds)[0]:
            typed.extend(_KEY.findall(os.read(descriptor, 256).decode("ascii", "replace")))
        key = typed.popleft() if typed else ""
        return ARROWS.get(key, key)

    try:
        tty.setcbreak(descriptor)
        yield read
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _no_key(seconds: float) -> str:
    time.sleep(seconds)
    return ""
