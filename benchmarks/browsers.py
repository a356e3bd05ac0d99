"""Two hundred browsers at once on one uvicorn worker: the FastAPI example before a paced fake LM Studio.

    python benchmarks/browsers.py [--clients 200] [--json FILE]

The site is a process of its own, whose CPU time is read from the system; the clients and LM Studio share this one. Every stream
has to end well, with all of its text.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lmdeck.testing import FakeLMStudio
from lmdeck.testing.isolation import environment_for

EXAMPLE = Path(__file__).parents[1] / "examples" / "fastapi_chat"
TEXT = " ".join(f"wörd{number}" for number in range(60))


def cpu_of(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def browse(port: int) -> tuple[bool, int]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = b'{"text": "hello"}'
    writer.write(
        b"POST /ask HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    text, events, done = [], 0, False
    while line := await reader.readline():
        if line.startswith(b"data: "):
            event = json.loads(line[6:])
            events += 1
            done = done or event["type"] == "done"
            if event["type"] == "content":
                text.append(event["text"])
    writer.close()
    return done and "".join(text) == TEXT, events


async def browse_all(port: int, clients: int) -> list[tuple[bool, int]]:
    return await asyncio.gather(*(browse(port) for _ in range(clients)))


def measure(clients: int) -> dict[str, float]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder, FakeLMStudio(cuts=False, tokens_per_second=40) as fake:
        fake.add_model("busy", parallel=clients)
        fake.when(lambda _: True).reply(TEXT)
        environment = {
            **os.environ,
            **environment_for(fake.base_url),
            "LMDECK_MODEL": "busy",
            "LMDECK_MAX_CONCURRENCY": str(clients),
        }
        command = [sys.executable, str(EXAMPLE), "--port", str(port), "--history", f"{folder}/history.sqlite3"]
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as site:
            try:
                for _ in range(200):
                    try:
                        socket.create_connection(("127.0.0.1", port), timeout=1).close()
                        break
                    except OSError:
                        time.sleep(0.1)
                asyncio.run(browse_all(port, 2))
                cpu, wall = cpu_of(site.pid), time.perf_counter()
                ended = asyncio.run(browse_all(port, clients))
                cpu, wall = cpu_of(site.pid) - cpu, time.perf_counter() - wall
            finally:
                site.terminate()
    events = sum(count for _, count in ended)
    return {
        "clients": clients,
        "complete": sum(good for good, _ in ended),
        "events": events,
        "wall_seconds": round(wall, 2),
        "site_cpu_seconds": round(cpu, 2),
        "site_cpu_microseconds_an_event": round(cpu / events * 1e6, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures = measure(options.clients)
    for name, figure in figures.items():
        print(f"{name:<34}{figure}")
    if options.json:
        options.json.write_text(json.dumps(figures))
    return 0 if figures["complete"] == figures["clients"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
