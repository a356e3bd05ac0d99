"""What the gateway costs: CPU of its process per request and per streamed chunk, beside nginx and LiteLLM's proxy.

All stand in front of the same stub, which sends prepared bytes. The gateway repairs; nginx only passes bytes. The
contenders are measured in rotation. `--litellm PATH` names the `litellm` command of an environment with `litellm[proxy]`;
without it, that row is left out. A run with it takes about four minutes.

    python benchmarks/gateway.py --quick
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import stub

MODEL = "qwen2.5-7b-instruct"
LISTING = json.dumps(
    {
        "models": [
            {
                "type": "llm",
                "key": MODEL,
                "max_context_length": 32768,
                "loaded_instances": [{"id": MODEL, "config": {"context_length": 32768, "parallel": 100_000}}],
            }
        ]
    }
).encode()
TICKS = os.sysconf("SC_CLK_TCK")
STREAMS, RATE = 64, 100
HELD_CHUNKS, HELD_RATE = 60, 5
SERVING = "--stub"
START_SECONDS = 120
NO_KEY = {"LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true"}


# --- the host ---


async def serve_stub() -> None:
    """Answer as LM Studio does: the model list, whole answers, and streams of `max_tokens` chunks, `seed` of them a second."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
                )
                body = await reader.readexactly(length)
                if not length:
                    writer.write(
                        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                        % len(LISTING)
                    )
                    writer.write(LISTING)
                    continue
                await answer(json.loads(body), writer)
        writer.close()

    async def answer(request: dict[str, object], writer: asyncio.StreamWriter) -> None:
        if not request.get("stream"):
            writer.write(stub.WHOLE_ANSWER)
            return
        writer.write(stub.STREAM_HEAD)
        count, rate, loop = int(str(request["max_tokens"])), float(str(request["seed"])), asyncio.get_running_loop()
        began = loop.time()
        for position in range(count):
            writer.write(stub.FRAMES[position % len(stub.FRAMES)])
            await asyncio.sleep(max(0.0, began + (position + 1) / rate - loop.time()))
        writer.write(stub.END)
        await writer.drain()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=2048)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


# --- the contenders ---


@dataclass
class Contender:
    """A running proxy: its port, and the processes whose CPU counts."""

    name: str
    port: int
    processes: Callable[[], list[int]]

    @property
    def cpu(self) -> float:
        """The CPU seconds of its processes so far."""
        return sum(map(cpu_of, self.processes()))

    @property
    def memory(self) -> float:
        """The resident memory of its processes, in MB."""
        return sum(map(memory_of, self.processes()))


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_of(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def free_port() -> int:
    """Return a free port, below those that the system uses for outgoing connections."""
    while True:
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as one:
            one.bind(("127.0.0.1", port))
            return port


@contextlib.contextmanager
def started(command: list[str], folder: Path, name: str) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env={**os.environ, **NO_KEY})
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def wait_for(port: int, path: str = "/health") -> None:
    limit = time.monotonic() + START_SECONDS
    while time.monotonic() < limit:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as one:
            one.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            if one.recv(100).startswith(b"HTTP/1.1 "):
                return
        time.sleep(0.1)
    raise RuntimeError(f"nothing listens on port {port} after {START_SECONDS} s")


@contextlib.contextmanager
def lmdeck(folder: Path, upstream: int) -> Iterator[Contender]:
    port = free_port()
    config = folder / "gateway.toml"
    config.write_text(
        f'[[hosts]]\nname = "stub"\nurl = "http://127.0.0.1:{upstream}"\n[sticky]\nby = ["header:x-session-id", "prefix"]\n'
    )
    command = [sys.executable, "-m", "lmdeck", "gateway", "serve", "--config", str(config), "--port", str(port)]
    with started(command, folder, "lmdeck") as process:
        wait_for(port)
        yield Contender("lmdeck gateway", port, lambda: [process.pid])


@contextlib.contextmanager
def nginx(folder: Path, upstream: int) -> Iterator[Contender]:
    port = free_port()
    (folder / "nginx.conf").write_text(
        f"""daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.err; worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
upstream host {{ server 127.0.0.1:{upstream}; keepalive 128; }}
server {{ listen 127.0.0.1:{port} backlog=2048; location / {{ proxy_pass http://host; proxy_http_version 1.1;
proxy_set_header Connection ""; proxy_buffering off; proxy_read_timeout 600; }} }} }}"""
    )
    with started(
        [shutil.which("nginx") or "nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")], folder, "nginx"
    ) as process:
        wait_for(port, "/api/v1/models")

        def processes() -> list[int]:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            return [process.pid, *map(int, children)]

        yield Contender("nginx (passes bytes)", port, processes)


@contextlib.contextmanager
def litellm(folder: Path, upstream: int, command: str) -> Iterator[Contender]:
    port = free_port()
    config = folder / "litellm.yaml"
    config.write_text(
        f"model_list:\n- model_name: {MODEL}\n  litellm_params:\n    model: openai/{MODEL}\n"
        f"    api_base: http://127.0.0.1:{upstream}/v1\n    api_key: none\n"
    )
    with started(
        [command, "--config", str(config), "--port", str(port), "--host", "127.0.0.1"], folder, "litellm"
    ) as process:
        wait_for(port, "/health/liveliness")

        def processes() -> list[int]:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            return [process.pid, *map(int, children)]

        yield Contender("LiteLLM proxy", port, processes)


# --- the clients ---


def request_of(stream_of: int | None, rate: float = RATE) -> bytes:
    request: dict[str, object] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
    }
    if stream_of is not None:
        request |= {
            "stream": True,
            "max_tokens": stream_of,
            "seed": int(rate),
            "stream_options": {"include_usage": True},
        }
    body = json.dumps(request).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer none\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def whole(port: int, count: int, at_once: int) -> None:
    """Ask for whole answers over kept connections."""
    question = request_of(None)

    async def ask(times: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(times):
            writer.write(question)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert head.startswith(b"http/1.1 200"), head
            if b"content-length" in head:
                length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
                body = await reader.readexactly(length)
            else:
                body = await reader.readuntil(b"\r\n0\r\n\r\n")
            assert b"three things" in body
        writer.close()

    await asyncio.gather(*(ask(count // at_once) for _ in range(at_once)))


async def streams(port: int, count: int, chunks: int, rate: float = RATE) -> int:
    """Read streams at once; return how many chunks the host sent, some of which the gateway joins."""
    question = request_of(chunks, rate)

    async def read() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(question)
        parts = [await reader.readuntil(b"\r\n\r\n")]
        while b"[DONE]" not in (part := await reader.read(1 << 16)):
            assert part, b"".join(parts)[-500:]
            parts.append(part)
        writer.close()
        assert b'"finish_reason":"stop"' in b"".join([*parts, part]).replace(b" ", b"")
        return chunks

    return sum(await asyncio.gather(*(read() for _ in range(count))))


@dataclass
class Figures:
    """The figures of one contender: microseconds of CPU, and MB."""

    requests: list[float]
    chunks: list[float]
    memory: float = 0.0
    idle_memory: float = 0.0


def measure(contender: Contender, figures: Figures, requests: int, seconds: float) -> None:
    """Measure one round."""
    asyncio.run(whole(contender.port, 64, 8))  # warm up
    before = contender.cpu
    asyncio.run(whole(contender.port, requests, 8))
    figures.requests.append((contender.cpu - before) / requests * 1e6)
    before = contender.cpu
    received = asyncio.run(streams(contender.port, STREAMS, round(seconds * RATE)))
    assert received == STREAMS * round(seconds * RATE), received
    figures.chunks.append((contender.cpu - before) / received * 1e6)


async def hold(contender: Contender, figures: Figures, count: int, idle: int) -> None:
    """Hold idle connections and open streams at once, and record the largest memory."""
    waiting = [await asyncio.open_connection("127.0.0.1", contender.port) for _ in range(idle)]
    reading = asyncio.create_task(streams(contender.port, count, HELD_CHUNKS, HELD_RATE))
    while not reading.done():
        figures.memory = max(figures.memory, contender.memory)
        await asyncio.sleep(0.2)
    assert reading.result() == count * HELD_CHUNKS, reading.result()
    for _, writer in waiting:
        writer.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--litellm", metavar="PATH", help="the command of an installed LiteLLM proxy")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures to a file")
    parser.add_argument(SERVING, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stub:
        asyncio.run(serve_stub())
        return 0
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20_000), hard))
    requests, seconds = (200, 1.0) if options.quick else (2000, 5.0)
    rounds = 1 if options.quick else options.rounds
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = stack.enter_context(
            subprocess.Popen([sys.executable, __file__, SERVING], stdout=subprocess.PIPE, text=True)
        )
        stack.callback(upstream.terminate)
        assert upstream.stdout is not None
        port = int(upstream.stdout.readline())
        contenders = [stack.enter_context(lmdeck(folder, port))]
        if shutil.which("nginx"):
            contenders.append(stack.enter_context(nginx(folder, port)))
        if options.litellm:
            contenders.append(stack.enter_context(litellm(folder, port, options.litellm)))
        results = {each.name: Figures([], [], idle_memory=each.memory) for each in contenders}
        for turn in range(rounds):
            for each in contenders[turn % len(contenders) :] + contenders[: turn % len(contenders)]:
                slow = each.name.startswith("LiteLLM")
                measure(each, results[each.name], requests // 10 if slow else requests, seconds)
        for each in contenders[:2]:
            asyncio.run(hold(each, results[each.name], 100 if options.quick else 1000, 100 if options.quick else 2000))
    print("| | CPU µs a request | CPU µs a chunk, 64 × 100/s | MB at rest | MB, 1,000 streams and 2,000 idle |")
    print("| --- | --- | --- | --- | --- |")
    for name, each in results.items():
        held = f"{each.memory:.0f}" if each.memory else "–"
        print(f"| {name} | {median(each.requests):.0f} | {median(each.chunks):.0f} | {each.idle_memory:.0f} | {held} |")
    if options.json:
        options.json.write_text(json.dumps({name: vars(each) for name, each in results.items()}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
