"""A chat page in Django, with tools and with history in SQLite, in one command.

    python examples/django_chat

It uses the LM Studio server that LMDECK_BASE_URL, or LMDECK_HOST and LMDECK_PORT, name; without them, a small model in
this process. It needs `pip install -e ".[cli,engine,django]"` in the source folder.
"""

from __future__ import annotations

import argparse
import os
from contextlib import ExitStack

try:
    import django
    import uvicorn
except ModuleNotFoundError as error:
    raise SystemExit(f'{error}: pip install -e ".[cli,engine,django]"') from error

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "chat_site.settings")


def main() -> None:
    """Prepare the database and serve until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="django_chat")
    parser.add_argument("--port", type=int, default=8000)
    port = parser.parse_args().port
    with ExitStack() as stack:
        if not {"LMDECK_BASE_URL", "LMDECK_HOST", "LMDECK_PORT"} & os.environ.keys():
            start_engine(stack)
        prepare()
        from chat_site.asgi import application

        print(f"http://127.0.0.1:{port}/ (log in as demo, password demo; Ctrl-C stops)", flush=True)
        uvicorn.run(application, host="127.0.0.1", port=port, log_level="warning", lifespan="off")


def start_engine(stack: ExitStack) -> None:
    """Serve a small real model with LM Studio's API."""
    from lmdeck.cli.engine import pull_with_progress
    from lmdeck.engine import EngineServer

    server = stack.enter_context(EngineServer.start(pull_with_progress()))
    os.environ["LMDECK_BASE_URL"] = server.base_url


def prepare() -> None:
    """Create the tables, and a user who may also use the admin."""
    django.setup()
    from django.contrib.auth import get_user_model
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    if not get_user_model().objects.filter(username="demo").exists():
        get_user_model().objects.create_superuser("demo", password="demo")  # for this machine only


if __name__ == "__main__":
    main()
