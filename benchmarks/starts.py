"""What a start costs, in CPU of whole processes, and what a fake LM Studio costs.

    python benchmarks/starts.py [--rounds N] [--json FILE]

Each figure is the least of the rounds, which run in rotation; “to Python” is the multiple of a bare interpreter's start. The
first token is asked of the stub, in a process that has imported nothing before.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lmdeck import LMStudio
from stub import stub_server

ASK = 'chat.completions.create(model="chunks-20", messages=[{"role": "user", "content": "Hi"}], stream=True)'
FAKE = """
import resource, sys, time
from lmdeck.testing import FakeLMStudio
fake = FakeLMStudio(seed=0).start()
fake.when(lambda _: True).reply("one two three four five " * {words})
sys.stdout.write(str(fake.base_url) + "\\n"); sys.stdout.flush()
for _ in sys.stdin:
    used = resource.getrusage(resource.RUSAGE_SELF)
    sys.stdout.write(f"{{used.ru_utime + used.ru_stime}}\\n"); sys.stdout.flush()
"""
"""A fake in its own process, which prints the CPU that it has used for each line that it gets."""
REQUESTS, STREAMS, WORDS = 200, 5, 200


def programs(port: int) -> Iterator[tuple[str, list[str], str]]:
    """Yield what is started: its name, its command, and the package it needs."""
    url = f"http://127.0.0.1:{port}"
    python = [sys.executable, "-c"]
    first = f'next(iter(lmdeck.LMStudio(base_url="{url}").chat("chunks-20").user("Hi").stream()))'
    first_async = (
        "import asyncio\nasync def main():\n"
        f'  async for _ in lmdeck.AsyncLMStudio(base_url="{url}").chat("chunks-20").user("Hi").stream(): break\n'
        "asyncio.run(main())"
    )
    client = f'openai.OpenAI(base_url="{url}/v1", api_key="x")'
    yield "Python", [*python, "pass"], "lmdeck"
    yield "import lmdeck", [*python, "import lmdeck"], "lmdeck"
    yield "LMStudio()", [*python, f'import lmdeck; lmdeck.LMStudio(base_url="{url}")'], "lmdeck"
    yield "first token, sync", [*python, f"import lmdeck; {first}"], "lmdeck"
    yield "first token, async", [*python, f"import lmdeck; {first_async}"], "lmdeck"
    yield "openai-python, first token", [*python, f"import openai; next(iter({client}.{ASK}))"], "openai"
    command = [*python, "from lmdeck.cli import main; main()"]
    yield "lmdeck --version", [*command, "--version"], "typer"
    yield "lmdeck --help", [*command, "--help"], "typer"
    yield "lmdeck ask", [*command, "ask", "Hi", "--model", "chunks-20", "--base-url", url], "typer"
    yield (
        "a fake, started and stopped",
        [*python, "from lmdeck.testing import FakeLMStudio as F; F().start().close()"],
        "uvicorn",
    )


def process_seconds(command: list[str], byte_code: str) -> float:
    """Return the CPU of a process, user and system; modules are compiled once, into a folder."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": byte_code}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        error = process.stderr.read() if process.stderr else b""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command} failed: {error.decode()[-500:]}")
    return usage.ru_utime + usage.ru_stime


def fake_cost(words: int, requests: int, *, streams: bool) -> float:
    """Return the CPU of a fake for some answers of five times `words` words, in microseconds."""
    command = [sys.executable, "-c", FAKE.format(words=words)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the fake has no pipes")

        def used() -> float:
            print(file=process.stdin, flush=True)
            return float(process.stdout.readline()) if process.stdout else 0.0

        with LMStudio(base_url=process.stdout.readline().strip()) as client:
            chat = client.chat().user("Hi")
            for turn in range(requests + 3):  # the first ones warm up
                if turn == 3:
                    before = used()
                if streams:
                    with chat.stream() as stream:
                        for _ in stream:
                            pass
                else:
                    chat.send()
            spent = used() - before
        process.stdin.close()
    return spent * 1e6


def measured(port: int, rounds: int) -> dict[str, float]:
    """Return the least CPU of each program, in milliseconds."""
    found: dict[str, float] = {}
    chosen = [(name, command) for name, command, needs in programs(port) if importlib.util.find_spec(needs)]
    with tempfile.TemporaryDirectory() as byte_code:
        for _ in range(rounds + 1):  # the first one compiles
            for name, command in chosen:
                found[name] = min(found.get(name, float("inf")), process_seconds(command, byte_code) * 1000)
    return found


def table(starts: dict[str, float]) -> str:
    """Return the starts as a table."""
    rows = [f"| {name} | {cost:.0f} | {cost / starts['Python']:.1f} |" for name, cost in starts.items()]
    return "\n".join(
        ["**Starts** (CPU of a whole process)", "", "| process | ms | to Python |", "|---|---:|---:|", *rows]
    )


def main() -> int:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")
    given = parser.parse_args()
    with stub_server() as port:
        starts = measured(port, given.rounds)
    sys.stdout.write(f"{table(starts)}\n")
    short = min(fake_cost(1, REQUESTS, streams=False) / REQUESTS for _ in range(given.rounds))
    long = min(fake_cost(WORDS, STREAMS, streams=True) / STREAMS for _ in range(given.rounds))
    fake = {"request": short, "chunk": (long - short) / (WORDS * 5)}
    sys.stdout.write(
        f"\nThe fake's CPU: {fake['request']:.0f} µs a request, {fake['chunk']:.1f} µs a chunk of a burst.\n"
    )
    if given.json:
        given.json.write_text(json.dumps({"starts": starts, "fake": fake}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
