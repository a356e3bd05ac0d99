"""MCP servers that die, hang and return images: real ones of ours, of PyPI and of npm, killed and started again."""

from __future__ import annotations

import asyncio
import base64
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import pytest
from mcp_noisy import answer as mcp_answer

from asking import alm, lm, until
from lmdeck import (
    ConfigurationError,
    MCPTools,
    Reply,
    Tool,
    ToolError,
    ToolExecutionFailed,
    ToolFailed,
    ToolFinished,
    ToolServerLost,
)
from lmdeck.testing import FakeLMStudio
from loopback import HANG, PATIENCE, Loopback, Request, Step, json_answer, text_answer
from ports import free_port

pytestmark = pytest.mark.skipif(find_spec("mcp") is None, reason="NO MCP TESTS: they need mcp")
MORTAL = str(Path(__file__).with_name("mcp_mortal.py"))
SLEEPER = f"97531.{os.getpid()}"  # seconds, of this process alone: tests run side by side
NOISY = str(Path(__file__).with_name("mcp_noisy.py"))
EVERYTHING = "@modelcontextprotocol/server-everything"
EVERYTHING_VERSION = "2026.8.31"
BOTH = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
KINDS = pytest.mark.parametrize("kind", ["stdio", "http"])


class HTTPServer:
    """A server process at a port of its own, which can be killed and started again."""

    def __init__(self, command: list[str], **env: str) -> None:
        self.port = free_port()
        self._command = [word.replace("PORT", str(self.port)) for word in command]
        self._env = {**os.environ, **{name: value.replace("PORT", str(self.port)) for name, value in env.items()}}
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def start(self) -> None:
        null = subprocess.DEVNULL
        self._process = subprocess.Popen(self._command, env=self._env, stdout=null, stderr=null)
        until(self._answers, 2 * PATIENCE)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        """Whether it answers as HTTP, whatever it says; that a port accepts connections does not show whose port it is."""
        assert self._process.poll() is None, "the server has ended; another program may have taken its port"
        try:
            with urllib.request.urlopen(self.url, timeout=PATIENCE):
                return True
        except urllib.error.HTTPError:
            return True
        except (OSError, http.client.HTTPException):
            return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class Mortal:
    """Our mortal server in one of the two kinds: how to reach it, kill it, and have it back."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.http = HTTPServer([sys.executable, MORTAL, "PORT"]) if kind == "http" else None

    def tools(self, **more: Any) -> MCPTools:
        if self.http is not None:
            return MCPTools(self.http.url, **more)
        return MCPTools(command=sys.executable, args=[MORTAL], **more)

    def kill(self, pid: object) -> None:
        """End the server, and, over HTTP, start it again at its old address: a command is started by `MCPTools`."""
        if self.http is not None:
            self.http.kill()
            self.http.start()
        else:
            os.kill(int(str(pid)), signal.SIGKILL)
            until(lambda: not _is_running(int(str(pid))))
            threading.Event().wait(1)  # the end of its output has to arrive

    def close(self) -> None:
        if self.http is not None:
            self.http.kill()


def _is_running(pid: int) -> bool:
    """Whether a process runs; one that is dead may wait for its parent to notice."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.fixture(params=["stdio", "http"])
def mortal(request: pytest.FixtureRequest) -> Iterator[Mortal]:
    made = Mortal(request.param)
    yield made
    made.close()


class Run:
    """Tools of a server, called by hand under either client's way, and the events of it."""

    def __init__(self, tools: MCPTools, loop: asyncio.AbstractEventLoop | None) -> None:
        self._tools = tools
        self._loop = loop

    def tool(self, name: str) -> Tool[..., Any]:
        return next(tool for tool in self._tools if tool.name == name)

    def call(self, name: str, **arguments: Any) -> Any:
        value = self.tool(name).handler(**arguments)
        return self._loop.run_until_complete(value) if self._loop is not None else value


def by_hand(tools: MCPTools, work: Callable[[Run], None], *, is_async: bool) -> None:
    """Connect, do some work, and leave."""
    if not is_async:
        with tools:
            work(Run(tools, None))
        return
    with asyncio.Runner() as runner:
        runner.run(tools.__aenter__())
        try:
            work(Run(tools, runner.get_loop()))
        finally:
            runner.run(tools.__aexit__(None, None, None))


def run(
    fake: FakeLMStudio, tools: MCPTools, then: Callable[[object], None], *, is_async: bool
) -> tuple[Reply, list[ToolServerLost]]:
    """Have a model use the tools; `then` sees every event. Return the reply, and the losses that listeners heard of."""
    heard: list[ToolServerLost] = []
    seen: list[object] = []

    async def main() -> Reply:
        async with tools, alm(fake.base_url) as client:
            client.on(ToolServerLost, heard.append)
            async with client.chat().user("Hi").with_tools(tools).run_stream() as stream:
                async for event in stream:
                    seen.append(event)
                    await asyncio.to_thread(then, event)
            return stream.reply

    if is_async:
        reply = asyncio.run(main())
    else:
        with tools, lm(fake.base_url) as client:
            client.on(ToolServerLost, heard.append)
            with client.chat().user("Hi").with_tools(tools).run_stream() as stream:
                for event in stream:
                    seen.append(event)
                    then(event)
            reply = stream.reply
    assert [event for event in seen if isinstance(event, ToolServerLost)] == heard
    return reply, heard


@BOTH
def test_other_output_between_messages_is_skipped_and_a_refusal_is_escaped(is_async: bool) -> None:
    """Log lines, half messages, and bytes that are not UTF-8."""

    def work(run: Run) -> None:
        assert run.call("work") == "done"
        with pytest.raises(ToolFailed, match="refused the call") as caught:
            run.call("refuse")
        assert r"no \x1b[31mway\u202e" in str(caught.value)

    by_hand(MCPTools(command=sys.executable, args=[NOISY]), work, is_async=is_async)


def http_answer(request: Request, session: str = "one") -> list[Step]:
    """Answer as a server over HTTP, which has no stream of its own, and says so with 404 instead of 405."""
    if request.method != "POST" or "id" not in request.json:
        return text_answer("", 404 if request.method != "POST" else 202)
    body = {"jsonrpc": "2.0", "id": request.json["id"], **mcp_answer(request.json)}
    return json_answer(body, mcp_session_id=session)


def _error(code: int, message: str, status: int = 400, **more: object) -> list[Step]:
    return json_answer({"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": message, **more}}, status)


@BOTH
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (text_answer(b"{half", content_type="application/json"), "the call may have taken effect"),
        (text_answer("no", 500), r"refused the call.*HTTP status 500"),
        (_error(-32000, "card declined"), r"refused the call: card declined \(HTTP status 400\)"),
        (_error(-32602, "session_id must be a number"), "refused the call: session_id must be a number"),
        (_error(-32001, "no such account"), "refused the call: no such account"),
        (_error(-32602, "Wrong", data={"n": "below 5"}), r'refused the call: Wrong \(\{"n": "below 5"\}\)'),
        (text_answer("", 202), "refused the call.*202 Accepted"),
    ],
)
def test_a_result_over_http_that_cannot_be_read(answer: list[Step], words: str, is_async: bool) -> None:
    """It may have taken effect all the same; a refusal names its status, and its code means nothing."""

    def respond(request: Request) -> list[Step]:
        return answer if b"tools/call" in request.body else http_answer(request)

    def work(run: Run) -> None:
        with pytest.raises(ToolFailed, match=words):
            run.call("work")

    with Loopback(respond) as server:
        by_hand(MCPTools(server.url), work, is_async=is_async)
        assert sum(b"tools/call" in request.body for request in server.requests) == 1


@BOTH
@pytest.mark.parametrize(
    "forgotten",
    [
        _error(-32001, "Session not found", 404),
        _error(-32000, "Bad Request: No valid session ID provided"),
        text_answer("gone", 404),
    ],
    ids=["404", "400", "text"],
)
def test_a_session_that_the_server_has_forgotten(fake: FakeLMStudio, forgotten: list[Step], is_async: bool) -> None:
    """Calls, also two at once, are made in a new session, once each, and one event says so."""
    sessions: list[str] = []
    called: list[str] = []

    def respond(request: Request) -> list[Step]:
        session = request.headers.get("mcp-session-id", "")
        if b'"initialize"' in request.body:
            sessions.append(f"session {len(sessions)}")
        if b"tools/call" not in request.body:
            return http_answer(request, sessions[-1] if sessions else "")
        if called and session == "session 0":
            return forgotten
        called.append(session)
        return http_answer(request)

    fake.tool_call("work").tool_calls([("work", {"part": 1}), ("work", {"part": 2})]).reply("Done.")
    with Loopback(respond) as server:
        reply, heard = run(fake, MCPTools(server.url), lambda event: None, is_async=is_async)
    assert [result.content for one in reply.rounds for result in one.results] == ["done", "done", "done"]
    assert called == ["session 0", "session 1", "session 1"]
    assert [event.reconnected for event in heard] == [True]


@BOTH
def test_a_list_of_tools_without_an_end(is_async: bool) -> None:
    """It is an error: an incomplete list would hide tools."""

    def respond(request: Request) -> list[Step]:
        if b"tools/list" not in request.body:
            return http_answer(request)
        page = {"tools": [], "nextCursor": "again"}
        return json_answer({"jsonrpc": "2.0", "id": request.json["id"], "result": page})

    with Loopback(respond) as server, pytest.raises(ToolError, match="does not end"):
        by_hand(MCPTools(server.url), lambda run: None, is_async=is_async)


# --- a server that dies -----------------------------------------------------------------------------------------------------


@BOTH
def test_a_server_that_died_between_two_rounds_is_connected_again(
    fake: FakeLMStudio, mortal: Mortal, is_async: bool
) -> None:
    """The call is made on the new connection, and an event names the server.

    Over HTTP, a server of the protocol's version of 2026 has no session to lose: nothing is noticed.
    """
    killed: list[object] = []

    def then(event: object) -> None:
        if isinstance(event, ToolFinished) and not killed:
            killed.append(event.result.content)
            mortal.kill(event.result.content)

    fake.tool_call("pid").tool_call("pid").reply("Done.")
    reply, heard = run(fake, mortal.tools(), then, is_async=is_async)
    first, second = [result for one in reply.rounds for result in one.results]
    assert first.error is None
    assert second.error is None, second.content
    assert first.content != second.content
    lost = [] if mortal.kind == "http" else [(f"{sys.executable} {MORTAL}", True)]
    assert [(each.server, each.reconnected) for each in heard] == lost


@BOTH
def test_a_call_that_may_have_started_is_not_repeated(mortal: Mortal, tmp_path: Path, is_async: bool) -> None:
    """The model hears that nobody knows; the next call finds the server again."""
    path = tmp_path / "calls"

    def work(by: Run) -> None:
        pid = by.call("pid")
        killing = threading.Thread(target=lambda: (until(lambda: path.exists() and path.read_text()), mortal.kill(pid)))
        killing.start()
        with pytest.raises(ToolFailed, match="the call may have taken effect"):
            by.call("note", path=str(path), seconds=30)
        killing.join()
        assert path.read_text() == "called\n"
        assert by.call("note", path=str(path), seconds=0) == "called 2 times"

    by_hand(mortal.tools(), work, is_async=is_async)


@BOTH
def test_a_call_that_does_no_harm_is_repeated(tmp_path: Path, is_async: bool) -> None:
    """The server says so of the tool: `readOnlyHint`."""
    path = tmp_path / "calls"
    mortal = Mortal("stdio")

    def work(by: Run) -> None:
        pid = by.call("pid")
        killing = threading.Thread(target=lambda: (until(lambda: path.exists() and path.read_text()), mortal.kill(pid)))
        killing.start()
        assert by.call("peek", path=str(path), seconds=30) == "called 2 times"
        killing.join()

    by_hand(mortal.tools(), work, is_async=is_async)


@BOTH
def test_a_server_that_stays_away_is_reported_to_the_model_and_to_the_program(
    fake: FakeLMStudio, is_async: bool
) -> None:
    """Each call tries once, the run goes on, and leaving the block raises nothing."""
    with HTTPServer([sys.executable, MORTAL, "PORT"]) as server:

        def then(event: object) -> None:
            if isinstance(event, ToolFinished):
                server.kill()

        fake.tool_call("pid").tool_call("pid").tool_call("note", path="/x", seconds=0).reply("I cannot.")
        reply, heard = run(fake, MCPTools(server.url, timeout=30), then, is_async=is_async)
    assert reply.content == "I cannot."
    _, *gone = [result for one in reply.rounds for result in one.results]
    for result in gone:
        assert f"its MCP server '{server.url}' is gone and could not be reconnected" in result.content
        assert server.url in str(result.error)
    assert [(lost.server, lost.reconnected) for lost in heard] == [(server.url, False)] * 2


@BOTH
def test_a_command_that_no_longer_starts(tmp_path: Path, is_async: bool) -> None:
    """It is gone after it died once."""
    program = tmp_path / "server.py"
    program.write_text(Path(MORTAL).read_text())

    def work(by: Run) -> None:
        pid = by.call("pid")
        program.write_text("raise SystemExit(1)")
        os.kill(pid_of(pid), signal.SIGKILL)
        until(lambda: not _is_running(pid_of(pid)))
        threading.Event().wait(1)  # the end of its output has to arrive
        for _ in range(2):
            with pytest.raises(ToolFailed, match="is gone and could not be reconnected"):
                by.call("pid")
        program.write_text(Path(MORTAL).read_text())
        assert pid_of(by.call("pid")) != pid_of(pid)

    by_hand(MCPTools(command=sys.executable, args=[str(program)], timeout=30), work, is_async=is_async)


def pid_of(text: object) -> int:
    return int(str(text))


@BOTH
def test_leaving_after_the_server_died_raises_nothing(mortal: Mortal, is_async: bool) -> None:
    """Whether it was noticed or not; and an error of the program's own comes through."""

    def work(by: Run) -> None:
        pid = by.call("pid")
        if mortal.http is not None:
            mortal.http.kill()
        else:
            mortal.kill(pid)

    by_hand(mortal.tools(timeout=30), work, is_async=is_async)
    if mortal.http is not None:
        mortal.http.start()

    def broken(by: Run) -> None:
        work(by)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        by_hand(mortal.tools(timeout=30), broken, is_async=is_async)


@BOTH
def test_several_calls_at_once_connect_again_once(fake: FakeLMStudio, mortal: Mortal, is_async: bool) -> None:
    """The first of them makes the connection that all of them use."""
    killed: list[object] = []

    def then(event: object) -> None:
        if isinstance(event, ToolFinished) and not killed:
            killed.append(event)
            mortal.kill(event.result.content)

    path = "/dev/null"
    many = [("note", {"path": path, "seconds": 0.01 * number}) for number in range(4)]
    fake.tool_call("pid").tool_calls(many).reply("Done.")
    reply, heard = run(fake, mortal.tools(), then, is_async=is_async)
    assert [result.error for result in reply.rounds[1].results] == [None] * 4
    assert [lost.reconnected for lost in heard] == ([] if mortal.kind == "http" else [True])


@BOTH
def test_a_loss_with_several_open_calls_is_published_once(fake: FakeLMStudio, is_async: bool) -> None:
    """Each call has its own result."""
    fake.tool_calls([("die", {"of": 3, "part": part}) for part in range(3)]).reply("Done.")
    reply, heard = run(fake, MCPTools(command=sys.executable, args=[NOISY]), lambda _: None, is_async=is_async)
    assert all("the call may have taken effect" in result.content for result in reply.rounds[0].results)
    assert [lost.reconnected for lost in heard] == [False]


# --- a server that is slow, or does not answer --------------------------------------------------------------------------------


@BOTH
def test_a_call_that_takes_too_long_says_so(fake: FakeLMStudio, is_async: bool) -> None:
    """The result names the limit, and the server remains usable."""
    fake.tool_call("note", path=os.devnull, seconds=9).tool_call("pid").reply("Done.")
    with HTTPServer([sys.executable, MORTAL, "PORT"]) as server:
        reply, heard = run(fake, MCPTools(server.url, timeout=5), lambda _: None, is_async=is_async)
    late, after = [result for one in reply.rounds for result in one.results]
    assert late.content == f"The tool 'note' of the MCP server '{server.url}' timed out after 5 s."
    assert heard == []
    assert after.error is None


@BOTH
def test_the_start_takes_no_longer_than_the_limit(is_async: bool) -> None:
    """A command that says nothing, and an address that does not answer; and the process is ended."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/mcp"
        for tools in (MCPTools(url, timeout=1), MCPTools(command="sleep", args=[SLEEPER], timeout=1)):
            with pytest.raises(ToolError, match="did not answer within 1 s") as caught:
                by_hand(tools, lambda _: None, is_async=is_async)
            assert caught.value.hint
        if not is_async:  # the error did not wait for the process, which has two seconds to end by itself
            assert _closing()
    until(lambda: not (_sleepers() or _closing()))


def _closing() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "mcp-closing" in thread.name]


def _sleepers() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if SLEEPER.encode() in words and words.startswith(b"sleep"):
            found.append(str(path))
    return found


@pytest.mark.parametrize("timeout", [0, -1])
def test_a_limit_is_more_than_nothing(timeout: float) -> None:
    with pytest.raises(ConfigurationError, match="timeout"):
        MCPTools("http://localhost/mcp", timeout=timeout)


def test_a_secret_in_an_address_is_in_no_message() -> None:
    with pytest.raises(ToolError) as caught, MCPTools("http://me:sesame@127.0.0.1:9/mcp?key=open", timeout=5):
        pass
    assert "sesame" not in str(caught.value)


# --- others' servers ----------------------------------------------------------------------------------------------------------


@BOTH
def test_the_time_server_of_pypi(fake: FakeLMStudio, is_async: bool) -> None:
    """It survives a kill between two rounds, like our own server."""
    pytest.importorskip("mcp_server_time")
    before = _children()
    killed: list[int] = []

    def then(event: object) -> None:
        if isinstance(event, ToolFinished) and not killed:
            killed.extend(_children() - before)
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    fake.tool_call("get_current_time", timezone="Europe/Rome").tool_call("get_current_time", timezone="Asia/Tokyo")
    fake.tool_call("get_current_time", timezone="Nowhere").reply("Done.")
    reply, heard = run(fake, MCPTools(command=sys.executable, args=["-m", "mcp_server_time"]), then, is_async=is_async)
    rome, tokyo, nowhere = [result for one in reply.rounds for result in one.results]
    assert "Europe/Rome" in rome.content
    assert "Asia/Tokyo" in tokyo.content
    assert "Nowhere" in nowhere.content
    assert nowhere.error is not None
    assert [lost.reconnected for lost in heard] == [True]


def _children() -> set[int]:
    """Return the processes that this one has started."""
    task = Path(f"/proc/{os.getpid()}/task")
    return {int(pid) for path in task.glob("*/children") for pid in path.read_text().split()}


@pytest.fixture(scope="module")
def everything() -> str:
    """Install the server that shows everything, once, into a cache, and return its program."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("NO TESTS WITH AN MCP SERVER OF NPM: they need npm, apt-get install npm")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lmdeck-tests"
    home = cache / f"server-everything-{EVERYTHING_VERSION}"
    program = home / "node_modules" / ".bin" / "mcp-server-everything"
    if not program.exists():
        fresh = home.with_name(f"{home.name}.{os.getpid()}")
        fresh.mkdir(parents=True)
        package = f"{EVERYTHING}@{EVERYTHING_VERSION}"
        command = [npm, "install", "--prefix", str(fresh), "--no-audit", "--no-fund", "--silent", package]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
        if done.returncode:
            shutil.rmtree(fresh)
            pytest.skip(f"NO TESTS WITH AN MCP SERVER OF NPM: it could not be installed: {done.stderr[-300:]}")
        try:
            fresh.rename(home)
        except OSError:  # another process of the tests was faster
            shutil.rmtree(fresh)
    return str(program)


@BOTH
@KINDS
def test_the_server_of_npm_that_shows_everything(
    fake: FakeLMStudio, everything: str, kind: str, is_async: bool
) -> None:
    """Images reach the model, links keep their name and address, and a server that was restarted is found again."""
    fake.tool_call("get_tiny_image").tool_call("get_resource_links", count=2).tool_call("echo", message="hi").reply(
        "Done."
    )
    before = _children()

    def check(tools: MCPTools, restart: Callable[[], None]) -> None:
        killed: list[str] = []

        def then(event: object) -> None:
            if isinstance(event, ToolFinished) and event.result.call.name == "get_resource_links" and not killed:
                killed.append("now")
                restart()

        reply, heard = run(fake, tools, then, is_async=is_async)
        image, links, echo = [result for one in reply.rounds for result in one.results]
        assert "[image 1]" in image.content
        assert base64.b64decode(image.images[0].partition(",")[2]).startswith(b"\x89PNG")
        shown = [
            part
            for message in fake.requests[1].body["messages"]
            if message["role"] == "user"
            for part in message["content"]
        ]
        assert {"type": "image_url", "image_url": {"url": image.images[0]}} in shown
        assert "resource link: 'Text Resource 2', demo://resource/dynamic/text/2" in links.content
        assert echo.content == "Echo: hi"
        assert [lost.reconnected for lost in heard] == [True]

    if kind == "stdio":
        check(
            MCPTools(command=everything, args=["stdio"]),
            lambda: [os.kill(pid, signal.SIGKILL) for pid in _children() - before] and None,
        )
        return
    with HTTPServer([everything, "streamableHttp"], PORT="PORT") as server:

        def restart() -> None:
            server.kill()
            server.start()

        check(MCPTools(server.url), restart)


def test_a_failed_tool_is_an_event_of_the_run(fake: FakeLMStudio, everything: str) -> None:
    """What the server refuses is told in its words."""
    fake.tool_call("get_resource_reference", resourceType="Nothing", resourceId=1).reply("Done.")
    errors: list[ToolExecutionFailed] = []
    tools = MCPTools(command=everything, args=["stdio"])
    run(
        fake,
        tools,
        lambda event: errors.append(event) if isinstance(event, ToolExecutionFailed) else None,
        is_async=False,
    )
    assert len(fake.requests) == 2


# --- blocks, loops and processes ---------------------------------------------------------------------------------------------


@BOTH
def test_a_block_that_is_left_while_its_server_starts_again(tmp_path: Path, is_async: bool) -> None:
    """The call ends, and no process is left, although the new one answers nothing."""
    starts = tmp_path / "starts"

    def pids() -> list[int]:
        return [int(line) for line in starts.read_text().splitlines()]

    async def aleave() -> None:
        async with MCPTools(command=sys.executable, args=[NOISY, str(starts)]) as tools:
            die = next(tool.handler for tool in tools if tool.name == "die")
            with pytest.raises(ToolFailed):
                await die()
            calling = asyncio.ensure_future(die())
            await asyncio.to_thread(until, lambda: len(pids()) == 2)
        with pytest.raises(ToolFailed):
            await calling

    def leave() -> None:
        with MCPTools(command=sys.executable, args=[NOISY, str(starts)]) as tools, ThreadPoolExecutor(1) as threads:
            die = next(tool.handler for tool in tools if tool.name == "die")
            with pytest.raises(ToolFailed):
                die()
            calling = threads.submit(die)
            until(lambda: len(pids()) == 2)
            tools.__exit__(None, None, None)
            with pytest.raises(ToolFailed):
                calling.result(PATIENCE)

    if is_async:
        asyncio.run(aleave())
    else:
        leave()
    assert len(pids()) == 2
    until(lambda: not any(map(_is_running, pids())))


@BOTH
def test_a_server_that_does_not_answer_the_end_of_its_session(monkeypatch: pytest.MonkeyPatch, is_async: bool) -> None:
    """The block does not wait for it until the limit of closing, and nothing is raised."""
    monkeypatch.setattr("lmdeck._client.mcp_connection.CLOSING_SECONDS", 100 * PATIENCE)
    monkeypatch.setattr("lmdeck._client.mcp_connection.FAREWELL_SECONDS", 0.1)
    with Loopback(lambda request: [HANG] if request.method == "DELETE" else http_answer(request)) as server:
        by_hand(MCPTools(server.url), lambda _: None, is_async=is_async)
        assert [request.method for request in server.requests].count("DELETE") == 1


STUBBORN = """
import json, os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(os.getpid(), file=open(sys.argv[1], "w"), flush=True)
for line in sys.stdin:
    message = json.loads(line)
    result = {"tools": []}
    if message["method"] == "initialize":
        about = {"name": "stubborn", "version": "1"}
        result = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": about}
    if "id" in message:
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
while True:
    time.sleep(1)
"""
LEAVE = """
import asyncio, os, signal, sys, threading
from lmdeck import MCPTools
how, *args = sys.argv[1:]
tools = MCPTools(command=sys.executable, args=["-c", *args])

def press() -> None:
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()

async def main() -> None:
    async with tools:
        press()

def sync() -> None:
    with tools:
        press()

try:
    asyncio.run(main()) if how == "async" else sync()
except KeyboardInterrupt:
    print("interrupted")
"""


@BOTH
def test_ctrl_c_while_a_block_is_left_ends_its_server(tmp_path: Path, is_async: bool) -> None:
    """A server that neither the end of its input nor SIGTERM ends is killed, and the program ends by the signal."""
    number = tmp_path / "pid"
    how = "async" if is_async else "sync"
    command = [sys.executable, "-c", LEAVE, how, STUBBORN, str(number)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=4 * PATIENCE, check=False)
    assert (done.stderr, done.stdout) == ("", "interrupted\n")
    until(lambda: not _is_running(int(number.read_text())))


async def test_a_cancelled_block_ends_its_server(tmp_path: Path) -> None:
    """Also if it is cancelled while it connects or is left."""
    number = tmp_path / "pid"
    tools = MCPTools(command=sys.executable, args=["-c", STUBBORN, str(number)])
    async with tools:
        leaving = asyncio.create_task(tools.__aexit__(None, None, None))
        await asyncio.sleep(0.1)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        await asyncio.to_thread(until, lambda: not _is_running(int(number.read_text())))
    number.unlink()
    connecting = asyncio.create_task(
        MCPTools(command="sh", args=["-c", f"trap '' TERM; echo $$ > {number}; sleep 97532"]).__aenter__()
    )
    await asyncio.to_thread(until, lambda: number.exists() and number.read_text().strip() != "")
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    await asyncio.to_thread(until, lambda: not _is_running(int(number.read_text())))


@BOTH
def test_tools_outside_their_block(tmp_path: Path, is_async: bool) -> None:
    """Their calls fail and start nothing; a second block inside the first is refused."""
    starts = tmp_path / "starts"
    tools = MCPTools(command=sys.executable, args=[NOISY, str(starts)])
    kept: list[Tool[..., Any]] = []

    def work(run: Run) -> None:
        kept.append(run.tool("work"))
        with pytest.raises(ConfigurationError, match="already connected"):
            by_hand(tools, lambda _: None, is_async=False)

    by_hand(tools, work, is_async=is_async)
    with pytest.raises(ToolFailed, match="its block has ended"):
        asyncio.run(kept[0].handler()) if is_async else kept[0].handler()
    assert len(starts.read_text().splitlines()) == 1


def test_tools_on_another_loop_than_their_own(fake: FakeLMStudio) -> None:
    """A sync client in a thread calls them where they are connected."""

    async def main() -> None:
        async with MCPTools(command=sys.executable, args=[NOISY]) as tools:

            def ask() -> Reply:
                with lm(fake.base_url) as client:
                    return client.chat().user("Hi").with_tools(tools).run()

            reply = await asyncio.to_thread(ask)
        assert [result.content for one in reply.rounds for result in one.results] == ["done"]

    fake.tool_call("work").reply("Done.")
    asyncio.run(main())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_inside_a_block_that_is_never_left() -> None:
    """The child cannot use its parent's server, and leaves the block at once; the parent's program ends."""
    script = f"""
import os, sys
from lmdeck import MCPTools, ToolFailed

tools = MCPTools(command=sys.executable, args=[{NOISY!r}])
tools.__enter__()
work = next(tool.handler for tool in tools if tool.name == "work")
child = os.fork()
if not child:
    try:
        work()
    except ToolFailed as error:
        tools.__exit__(None, None, None)
        sys.exit(0 if "forked" in str(error) else 1)
assert os.waitpid(child, 0)[1] == 0
assert work() == "done"
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script],  # Python 3.12 warns of forks beside threads
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
        check=False,
    )
    assert (done.stderr, done.returncode) == ("", 0)
