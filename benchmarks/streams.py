"""A thousand streams at once: one fake LM Studio and one async client in one process, every reply checked.

    python benchmarks/streams.py [--streams 1000] [--tokens 50] [--json FILE]

Both ends share one process here, so CPU and memory are those of server and client together.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import time
from pathlib import Path

from lmdeck.testing import FakeLMStudio


def text(number: int, tokens: int) -> str:
    return f"{number}: " + " ".join(f"wörd{at}" for at in range(tokens // 2))


async def measure(streams: int, tokens: int) -> dict[str, float]:
    with FakeLMStudio(seed=1) as fake:
        fake.add_model("busy", parallel=streams)
        fake.when(lambda _: True).respond(lambda request: text(int(request.last_user), tokens))
        async with fake.async_client(model="busy", max_concurrency=streams, first_token_timeout=120.0) as alm:
            await alm.chat().user("0").send()
            together = asyncio.Barrier(streams)
            chunks = 0

            async def one(number: int) -> bool:
                nonlocal chunks
                async with alm.chat().user(str(number)).stream() as stream:
                    first = True
                    async for _ in stream:
                        chunks += 1
                        if first:
                            first = False
                            await together.wait()  # all of them are open before any goes on
                return stream.reply.content == text(number, tokens)

            wall, cpu = time.perf_counter(), time.process_time()
            right = await asyncio.gather(*(one(number) for number in range(streams)))
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "streams": streams,
        "right": sum(right),
        "chunks": chunks,
        "wall_seconds": round(wall, 2),
        "cpu_seconds": round(cpu, 2),
        "cpu_microseconds_a_chunk": round(cpu / chunks * 1e6, 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=50)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, options.streams * 4)), hard))
    figures = asyncio.run(measure(options.streams, options.tokens))
    for name, figure in figures.items():
        print(f"{name:<26}{figure}")
    if options.json:
        options.json.write_text(json.dumps(figures))
    return 0 if figures["right"] == figures["streams"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
