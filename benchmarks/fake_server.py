"""A fake LM Studio, or a plain Starlette application with the same answers, in a process of its own.

    python benchmarks/fake_server.py fake|plain WORDS

It prints its address and the CPU that it used until it was ready; then, for each line of its input, the CPU that it has used.
An answer has five times WORDS words.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import AsyncIterator

WORDS = "one two three four five "


def run_fake(words: int) -> None:
    """Run the fake."""
    from lmdeck.testing import FakeLMStudio

    with FakeLMStudio(seed=0) as fake:
        fake.add_model("m")
        fake.when(lambda _: True).reply(WORDS * words)
        report(fake.base_url)


def run_plain(words: int) -> None:
    """Run an application as one would write it without the fake."""
    import asyncio
    import socket
    import threading

    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response, StreamingResponse
    from starlette.routing import Route

    def chunk(delta: dict[str, str], finish_reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return (
            f"data: {json.dumps({'id': '1', 'object': 'chat.completion.chunk', 'model': 'm', 'choices': [choice]})}\n\n"
        )

    async def complete(request: Request) -> Response:
        body = await request.json()
        if not body.get("stream"):
            message = {"role": "assistant", "content": WORDS * words}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return JSONResponse({"id": "1", "object": "chat.completion", "model": "m", "choices": [choice]})

        async def chunks() -> AsyncIterator[str]:
            for _ in range(words):
                for word in WORDS.split():
                    yield chunk({"content": f"{word} "})
            yield chunk({}, "stop")
            yield "data: [DONE]\n\n"

        return StreamingResponse(chunks(), media_type="text/event-stream")

    app = Starlette(routes=[Route("/v1/chat/completions", complete, methods=["POST"])])
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    while not server.started:
        time.sleep(0.001)
    report(f"http://127.0.0.1:{listener.getsockname()[1]}")
    server.should_exit = True
    thread.join()


def report(url: str) -> None:
    """Print the address and the CPU so far; then, for each line of the input, the CPU so far."""
    print(url, time.process_time(), flush=True)
    for _ in sys.stdin:
        print(time.process_time(), flush=True)


if __name__ == "__main__":
    which, count = sys.argv[1:]
    {"fake": run_fake, "plain": run_plain}[which](int(count))
