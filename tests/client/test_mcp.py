"""Tools of MCP servers: real servers, over standard streams and HTTP, under both clients."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from asking import alm, lm
from lmdeck import ConfigurationError, MCPTools, Reply, ToolError
from lmdeck.testing import FakeLMStudio
from loopback import PATIENCE
from ports import free_port, wait_until_open

pytestmark = pytest.mark.skipif(find_spec("mcp") is None, reason="NO MCP TESTS: they need mcp")
SERVER = str(Path(__file__).with_name("mcp_server.py"))


def here(**more: Any) -> MCPTools:
    return MCPTools(command=sys.executable, args=[SERVER], **more)


def script(fake: FakeLMStudio) -> None:
    calls = [("add", {"a": 2, "b": "3"}), ("get_place", {"name": "Rome"}), ("fail", {}), ("refuse", {})]
    fake.tool_calls([*calls, ("search", {"query": "Rome"})]).reply("Done.")


def check(reply: Reply) -> None:
    assert reply.content == "Done."
    added, place, failed, refused, searched = [result for one in reply.rounds for result in one.results]
    assert added.content == "5"
    assert json.loads(place.content) == {"name": "Rome", "country": "Italy"}
    assert searched.content == 'Found 1 place for Rome.\n{"places":[{"name":"Rome"}]}'
    assert "no such thing" in failed.content
    assert '"retry_after":30' in refused.content
    assert failed.error is not None
    assert refused.error is not None
    assert [problem.code for problem in reply.problems] == ["coerced"]


def test_a_started_server_serves_the_sync_client(fake: FakeLMStudio) -> None:
    script(fake)
    with here() as tools, lm(fake.base_url) as client:
        assert [tool.name for tool in tools] == ["add", "get_place", "fail", "refuse", "search"]
        check(client.chat().user("Hi").with_tools(tools).run())
        sent = fake.requests[0].body["tools"][0]["function"]
    assert sent["description"] == "Add two numbers."
    assert sent["parameters"]["required"] == ["a", "b"]
    assert len(tools) == 0


def test_a_started_server_serves_the_async_client(fake: FakeLMStudio) -> None:
    async def main() -> None:
        async with here() as tools:
            script(fake)
            async with alm(fake.base_url) as client:
                check(await client.chat().user("Hi").with_tools(tools).run())

    asyncio.run(main())


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    port = free_port()
    running = subprocess.Popen(
        [sys.executable, SERVER, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until_open(port, running)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        running.terminate()
        running.wait(PATIENCE)


@pytest.mark.parametrize("headers", [None, {"X-Key": "1"}])
def test_a_server_over_http(fake: FakeLMStudio, url: str, headers: dict[str, str] | None) -> None:
    script(fake)
    with MCPTools(url, headers=headers) as tools, lm(fake.base_url) as client:
        check(client.chat().user("Hi").with_tools(tools).run())


def test_only_some_of_its_tools() -> None:
    with here(allowed=["getPlace"]) as tools:
        assert [tool.name for tool in tools] == ["get_place"]
    with pytest.raises(ConfigurationError, match="'nothing'"), here(allowed=["nothing"]):
        pass


@pytest.mark.parametrize(
    "broken",
    [
        lambda: MCPTools(command="/no/such/program"),
        lambda: MCPTools(command=sys.executable, args=["-c", "raise SystemExit(1)"], timeout=5),
        lambda: MCPTools("http://127.0.0.1:9/mcp", timeout=5),
    ],
)
def test_a_server_that_is_not_there_says_so(broken: Any) -> None:
    with pytest.raises(ToolError, match="cannot be used") as caught, broken():
        pass
    assert caught.value.hint


def test_one_of_url_and_command() -> None:
    for arguments in ({}, {"url": "http://x", "command": "y"}):
        with pytest.raises(ConfigurationError):
            MCPTools(**arguments)  # type: ignore[arg-type]
