"""What a start costs: the CPU of whole processes, from the interpreter's start to the end.

The first token is asked of the stub, in a process that has imported nothing before. The programs run in rotation, in an empty
folder: a project's settings file would be read, too.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from results import Figures

ASK = 'chat.completions.create(model="chunks-20", messages=[{"role": "user", "content": "Hi"}], stream=True)'
ANCHORS = ("Python", "openai-python first token")


def programs(port: int) -> Iterator[tuple[str, list[str], str]]:
    """Yield what is started: its name, its command, and the package it needs."""
    url = f"http://127.0.0.1:{port}"
    python = [sys.executable, "-c"]
    first = f'next(iter(lmdeck.LMStudio(base_url="{url}").chat("chunks-20").user("Hi").stream()))'
    first_async = (
        "import asyncio\nasync def main():\n"
        f'  async with lmdeck.AsyncLMStudio(base_url="{url}") as lm, lm.chat("chunks-20").user("Hi").stream() as stream:\n'
        "    async for _ in stream: break\n"
        "asyncio.run(main())"
    )
    body = 'msgspec.json.encode({"model": "chunks-20", "messages": [], "stream": True})'
    urllib3_first = (
        f"import msgspec, urllib3\npool = urllib3.PoolManager()\nbody = {body}\n"
        f'pool.request("POST", "{url}/v1/chat/completions", body=body, preload_content=False).read1()'
    )
    aiohttp_first = (
        "import asyncio, aiohttp, msgspec\nasync def main():\n  async with aiohttp.ClientSession() as session:\n"
        f'    async with session.post("{url}/v1/chat/completions", data={body}) as answer: await answer.content.readany()\n'
        "asyncio.run(main())"
    )
    openai, openai_async = (
        f'openai.{name}(base_url="{url}/v1", api_key="x").{ASK}' for name in ("OpenAI", "AsyncOpenAI")
    )
    openai_first = (
        "import asyncio, openai\nasync def main():\n"
        f"  async with await {openai_async} as stream: await anext(stream)\n"
        "asyncio.run(main())"
    )
    yield "Python", [*python, "pass"], "lmdeck"
    for package in ("msgspec", "urllib3", "asyncio", "aiohttp", "lmdeck"):
        yield f"import {package}", [*python, f"import {package}"], package
    yield "LMStudio()", [*python, f'import lmdeck; lmdeck.LMStudio(base_url="{url}")'], "lmdeck"
    yield "lmdeck first token, sync", [*python, f"import lmdeck; {first}"], "lmdeck"
    yield "lmdeck first token, async", [*python, f"import lmdeck; {first_async}"], "lmdeck"
    yield "urllib3 + msgspec first bytes", [*python, urllib3_first], "urllib3"
    yield "aiohttp + msgspec first bytes", [*python, aiohttp_first], "aiohttp"
    yield "openai-python first token, sync", [*python, f"import openai; next(iter({openai}))"], "openai"
    yield "openai-python first token, async", [*python, openai_first], "openai"
    command = [*python, "from lmdeck.cli import main; main()"]
    yield "lmdeck --version", [*command, "--version"], "typer"
    yield "lmdeck --help", [*command, "--help"], "typer"
    yield "lmdeck ask", [*command, "ask", "Hi", "--model", "chunks-20", "--base-url", url], "typer"


def process_seconds(command: list[str], folder: str) -> float:
    """Return the CPU of a process, user and system."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=folder) as process:
        error = process.stderr.read() if process.stderr else b""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command} failed: {error.decode()[-500:]}")
    return usage.ru_utime + usage.ru_stime


def measured(port: int, rounds: int) -> Figures:
    """Return the CPU of each program, in milliseconds."""
    figures = Figures("start", "Starts", "ms of CPU of a whole process", ANCHORS)
    if sys.platform == "win32":
        return figures  # Windows does not report the CPU time of an ended process
    chosen = [(name, command) for name, command, needs in programs(port) if importlib.util.find_spec(needs)]
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            for name, command in chosen:
                figures.rounds.setdefault(name, []).append(process_seconds(command, folder) * 1000)
    return without_first(figures)


def without_first(figures: Figures) -> Figures:
    """Drop the first of several rounds, in which modules are compiled."""
    figures.rounds = {name: rounds[1:] or rounds for name, rounds in figures.rounds.items()}
    return figures
