"""A chat page in Flask, with tools and with history in SQLite, in one command.

    python examples/flask_chat

It uses the LM Studio server that LMDECK_BASE_URL, or LMDECK_HOST and LMDECK_PORT, name; without them, a small model in
this process. It needs `pip install -e ".[cli,engine,flask]"` in the source folder.
"""

from __future__ import annotations

import argparse
import os
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from pathlib import Path

try:
    from flask import Flask

    from lmdeck import Chat, LMStudio
    from lmdeck.contrib.flask import LMDeck, blueprint
except ModuleNotFoundError as error:
    raise SystemExit(f'{error}: pip install -e ".[cli,engine,flask]"') from error


def current_time(utc_offset: int = 0) -> str:
    """Get the date and time at an offset in hours from UTC."""
    return datetime.now(timezone(timedelta(hours=utc_offset))).isoformat(sep=" ", timespec="minutes")


def make_chat(lm: LMStudio) -> Chat:
    """Start every conversation with a system message and the tools; small models may write too much without a limit."""
    return lm.chat().with_system("Answer briefly.").with_tools([current_time]).with_options(max_tokens=256)


def make_app(history: str | Path = "flask_chat.sqlite3") -> Flask:
    """Create the application; its page needs no login, because only this machine can reach it."""
    app = Flask(__name__)
    LMDeck(app)
    app.register_blueprint(blueprint(auth=None, make_chat=make_chat, conversations=history))
    return app


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="flask_chat")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--history", default="flask_chat.sqlite3")
    options = parser.parse_args()
    with ExitStack() as stack:
        if not {"LMDECK_BASE_URL", "LMDECK_HOST", "LMDECK_PORT"} & os.environ.keys():
            start_engine(stack)
        print(f"http://127.0.0.1:{options.port}/ (Ctrl-C stops)", flush=True)
        make_app(options.history).run(host="127.0.0.1", port=options.port, threaded=True)


def start_engine(stack: ExitStack) -> None:
    """Serve a small real model with LM Studio's API."""
    from lmdeck.cli.engine import pull_with_progress
    from lmdeck.engine import EngineServer

    server = stack.enter_context(EngineServer.start(pull_with_progress()))
    os.environ["LMDECK_BASE_URL"] = server.base_url


if __name__ == "__main__":
    main()
