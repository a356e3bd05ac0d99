"""The chat page in four sites, each on its usual server, before an LM Studio that answers what it is told to."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmdeck.testing import Answer, FakeLMStudio
from lmdeck.testing.isolation import environment_for
from lmdeck.testing.scripted_answers import PlannedCall
from loopback import PATIENCE
from ports import free_port, wait_until_open

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lmdeck.testing import SentRequest

SLOW = "one two three four five six seven eight nine ten"
KINDS = ("fastapi", "django-asgi", "flask", "django-wsgi")
STORES = KINDS[:2]
"""A site for each way to keep conversations."""

FASTAPI = """
from fastapi import FastAPI
from lmdeck.contrib.fastapi import lifespan, router

app = FastAPI(lifespan=lifespan())


def pay(amount: int) -> str:
    '''Pay an amount.'''
    return f"paid {amount}"


app.include_router(
    router(
        auth=None, conversations="chats.sqlite3", approve="pause", make_chat=lambda lm: lm.chat().with_tools([pay])
    ),
    prefix="/chat",
)
"""
FLASK = """
from flask import Flask
from lmdeck.contrib.flask import LMDeck, blueprint

app = Flask(__name__)
LMDeck(app)


def pay(amount: int) -> str:
    '''Pay an amount.'''
    return f"paid {amount}"


app.register_blueprint(
    blueprint(
        auth=None, conversations="chats.sqlite3", approve="pause", make_chat=lambda lm: lm.chat().with_tools([pay])
    ),
    url_prefix="/chat",
)
"""
DJANGO_SETTINGS = """
from site_project.base_settings import *

INSTALLED_APPS += ["lmdeck.contrib.django", "lmdeck.contrib.django.history"]
LOGIN_URL = "admin:login"
LMDECK = {}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
STATIC_URL = "static/"
"""
DJANGO_TOOLS = """
import lmdeck


@lmdeck.tool
def pay(amount: int) -> str:
    '''Pay an amount.'''
    return f"paid {amount}"
"""
DJANGO_URLS = """
from lmdeck.contrib.django.views import AskView
from django.contrib import admin
from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.urls import include, path

urlpatterns = [
    *staticfiles_urlpatterns(),
    path("admin/", admin.site.urls),
    path("chat/ask/", AskView.as_view(approve="pause")),
    path("chat/", include("lmdeck.contrib.django.urls")),
]
"""
DJANGO_USER = (
    "from django.contrib.auth import get_user_model; get_user_model().objects.create_superuser('ann', '', 'secret')"
)
COMMANDS = {
    "fastapi": ["uvicorn", "site_app:app", "--log-level", "warning", "--port"],
    "flask": ["gunicorn", "site_app:app", "--threads", "8", "--log-level", "warning", "--bind"],
    "django-asgi": ["uvicorn", "site_project.asgi:application", "--lifespan", "off", "--log-level", "warning", "--port"],
    "django-wsgi": ["gunicorn", "site_project.wsgi", "--threads", "8", "--log-level", "warning", "--bind"],
}  # fmt: skip


def answer(request: SentRequest) -> Answer:
    """Answer by the first word of the question: `say` repeats the rest, byte for byte."""
    word, _, rest = request.last_user.partition(" ")
    match word:
        case "say":
            return Answer(content=rest, prompt_tokens=900, completion_tokens=70)
        case "slow":
            return Answer(content=SLOW, tokens_per_second=8)
        case "endless":
            return Answer(content="la " * 20_000, tokens_per_second=60)
        case "cut":
            return Answer(content="half an answer, and no more", fault="cut", fault_options={"after_chunks": 4})
        case "pay" if not request.tool_uses:
            return Answer(calls=(PlannedCall(name="pay", arguments={"amount": 5}),))
        case "pay":
            return Answer(content=f"The tool says: {request.tool_uses[-1].result}")
    return Answer(content=f"You said {request.last_user}.", reasoning="It says so.")


@contextmanager
def far_end() -> Iterator[FakeLMStudio]:
    """A fake LM Studio whose model sees images."""
    with FakeLMStudio(seed=1, cuts=False) as fake:
        fake.add_model("seer", type="vlm")
        fake.when(lambda _: True).respond(answer)
        yield fake


@contextmanager
def site(kind: str, folder: Path, fake: FakeLMStudio) -> Iterator[str]:
    """Serve a site from a fresh folder; the address is that of its chat."""
    environment = {
        **os.environ,
        **environment_for(fake.base_url),
        "DJANGO_SETTINGS_MODULE": "site_project.settings",
        "LMDECK_MODEL": "seer",
        "PYTHONPATH": str(folder),
    }
    if kind.startswith("django"):
        _make_django_project(folder, environment)
    else:
        (folder / "site_app.py").write_text(FASTAPI if kind == "fastapi" else FLASK, encoding="utf-8")
    port = free_port()
    command = COMMANDS[kind]
    place = f"127.0.0.1:{port}" if command[-1] == "--bind" else str(port)
    with (folder / "log").open("wb") as log, subprocess.Popen(
        [sys.executable, "-m", *command, place], cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT
    ) as process:  # fmt: skip
        try:
            wait_until_open(port, process, folder / "log")
            yield f"http://127.0.0.1:{port}/chat/"
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


def _make_django_project(folder: Path, environment: dict[str, str]) -> None:
    def run(*command: str) -> None:
        done = subprocess.run(
            [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    run("-m", "django", "startproject", "site_project", ".")
    project = folder / "site_project"
    (project / "settings.py").rename(project / "base_settings.py")
    (project / "settings.py").write_text(DJANGO_SETTINGS, encoding="utf-8")
    (project / "lmdeck_tools.py").write_text(DJANGO_TOOLS, encoding="utf-8")
    (project / "urls.py").write_text(DJANGO_URLS, encoding="utf-8")
    run("manage.py", "migrate", "--verbosity", "0")
    run("manage.py", "shell", "-c", DJANGO_USER)


def log_in(page: Any) -> None:
    """Log in where the site asks for it."""
    if page.get_by_label("Username").count():
        page.get_by_label("Username").fill("ann")
        page.get_by_label("Password").fill("secret")
        page.keyboard.press("Enter")
    page.get_by_label("Your question").wait_for()
