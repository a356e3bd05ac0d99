"""A chat page in FastAPI, with tools and with history in SQLite, in one command.

    python examples/fastapi_chat

It uses the LM Studio server that LMDECK_BASE_URL, or LMDECK_HOST and LMDECK_PORT, name; without them, a small model in
this process. It needs `pip install -e ".[cli,engine,fastapi]"` in the source folder.
"""

from __future__ import annotations

import argparse
import os
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from pathlib import Path

try:
    import uvicorn
    from fastapi import FastAPI

    from lmdeck import AsyncChat, AsyncLMStudio
    from lmdeck.contrib.fastapi import LM, lifespan, router, stream_response
except ModuleNotFoundError as error:
    raise SystemExit(f'{error}: pip install -e ".[cli,engine,fastapi]"') from error


def current_time(utc_offset: int = 0) -> str:
    """Get the date and time at an offset in hours from UTC."""
    return datetime.now(timezone(timedelta(hours=utc_offset))).isoformat(sep=" ", timespec="minutes")


def make_chat(lm: AsyncLMStudio) -> AsyncChat:
    """Start every conversation with a system message and the tools; small models may write too much without a limit."""
    return lm.chat().with_system("Answer briefly.").with_tools([current_time]).with_options(max_tokens=256)


def make_app(history: str | Path = "fastapi_chat.sqlite3") -> FastAPI:
    """Create the application; its page needs no login, because only this machine can reach it."""
    app = FastAPI(title="Chat", lifespan=lifespan())
    app.include_router(router(auth=None, make_chat=make_chat, conversations=history))

    @app.get("/say")
    async def say(q: str, lm: LM) -> object:
        """Stream one answer, for `curl --no-buffer`."""
        return stream_response(lm.chat().user(q))

    return app


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="fastapi_chat")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--history", default="fastapi_chat.sqlite3")
    options = parser.parse_args()
    with ExitStack() as stack:
        if not {"LMDECK_BASE_URL", "LMDECK_HOST", "LMDECK_PORT"} & os.environ.keys():
            start_engine(stack)
        print(f"http://127.0.0.1:{options.port}/ (Ctrl-C stops)", flush=True)
        uvicorn.run(make_app(options.history), host="127.0.0.1", port=options.port, log_level="warning")


def start_engine(stack: ExitStack) -> None:
    """Serve a small real model with LM Studio's API."""
    from lmdeck.cli.engine import pull_with_progress
    from lmdeck.engine import EngineServer

    server = stack.enter_context(EngineServer.start(pull_with_progress()))
    os.environ["LMDECK_BASE_URL"] = server.base_url


if __name__ == "__main__":
    main()
