"""The pages on Django, FastAPI and Flask, followed to the letter in fresh folders, up to an answer in a browser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import urllib3
from werkzeug.serving import make_server

from lmdeck.server.serve import BackgroundServer
from lmdeck.server.sockets import listen
from lmdeck.testing import FakeLMStudio
from lmdeck.testing.isolation import environment_for
from lmdeck.web.background_loop import wait
from loopback import PATIENCE
from ports import free_port, wait_until_open

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.no_cover  # what a newcomer calls, other tests measure
DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WORDS = {"q": "Hello", "text": "Hello", "question": "Hello"}
LOGIN = {"Authorization": urllib3.make_headers(basic_auth="ada:change me")["authorization"]}


def snippets(page: str, containing: str) -> list[str]:
    found = [text for text in BLOCK.findall((DOCS / page).read_text(encoding="utf-8")) if containing in text]
    assert found
    return found


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeLMStudio]:
    with FakeLMStudio(strict=False, cuts=False) as fake:
        yield fake


@pytest.fixture
def environment(fake: FakeLMStudio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a new user, whose LM Studio is the fake, in a fresh folder."""
    given = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO_", "FLASK_", "LMDECK_"))}
    environment = {**given, **environment_for(fake.base_url)}
    for name in set(os.environ) - set(environment):
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return environment


def executed(text: str) -> dict[str, Any]:
    module = sys.modules["documented_site"] = ModuleType("documented_site")
    exec(compile(text, "documentation", "exec"), module.__dict__)
    return module.__dict__


def assert_every_route_answers(url: str, routes: list[tuple[str, str]]) -> None:
    with urllib3.PoolManager(timeout=PATIENCE, retries=False) as pool:
        for method, path in routes:
            body = {"json": {"text": "Hello"}} if method == "POST" else {"fields": WORDS}
            answer = pool.request(method, f"{url}{path}", **body)  # type: ignore[arg-type]
            if answer.status == 401:
                answer = pool.request(method, f"{url}{path}", headers=LOGIN, **body)  # type: ignore[arg-type]
            assert (path, answer.status) == (path, 200), answer.data


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("number", range(4))
def test_every_route_of_fastapi_s_page_answers(number: int) -> None:
    texts = snippets("fastapi.md", "FastAPI(")
    assert len(texts) == 4
    app = executed(texts[number])["app"]
    paths = app.openapi()["paths"]
    routes = [(method.upper(), path) for path, methods in paths.items() for method in methods if "{" not in path]
    assert routes
    with BackgroundServer(app, listen(), lifespan=True) as server:
        assert_every_route_answers(server.base_url, routes)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("number", range(3))
def test_every_route_of_flask_s_page_answers(number: int) -> None:
    texts = snippets("flask.md", "Flask(__name__)")
    texts = [text for text in texts if "session" not in text]  # that one is opened with a browser, below
    assert len(texts) == 3
    app = executed(texts[number])["app"]
    routes = [
        ("POST" if "POST" in rule.methods else "GET", rule.rule)
        for rule in app.url_map.iter_rules()
        if not rule.arguments
    ]
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        assert_every_route_answers(f"http://127.0.0.1:{server.server_port}", routes)
    finally:
        server.shutdown()
        thread.join(PATIENCE)
        server.server_close()
        wait(app.extensions["lmdeck"].streaming_client.aclose())


@contextmanager
def running(command: list[str], port: int, environment: dict[str, str]) -> Iterator[None]:
    with Path("log").open("wb") as log, subprocess.Popen(
        [sys.executable, "-m", *command], env=environment, stdout=log, stderr=subprocess.STDOUT
    ) as process:  # fmt: skip
        try:
            wait_until_open(port, process, Path("log"))
            yield
        finally:
            process.terminate()
            process.wait(PATIENCE)


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="NO BROWSER TESTS: they need playwright")
    if CHROMIUM is None:
        pytest.skip("NO BROWSER TESTS: they need Chromium, apt-get install chromium")
    playwright.expect.set_options(timeout=PATIENCE * 1000)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=4 * PATIENCE * 1000)
        yield browser
        browser.close()


def opened(browser: Any, **options: Any) -> Any:
    """Open a page of a new visitor."""
    context = browser.new_context(**options)
    context.set_default_timeout(PATIENCE * 1000)
    return context.new_page()


def assert_it_answers(page: Any) -> None:
    page.get_by_label("Your question").wait_for()
    page.wait_for_load_state()  # the page's script runs
    page.get_by_label("Your question").fill("Hello")
    page.keyboard.press("Enter")
    page.get_by_role("article", name="Answer").get_by_text("You said: Hello").wait_for()


def test_fastapi_s_first_page_opens_without_a_login(browser: Any, environment: dict[str, str], port: int) -> None:
    (text,) = [text for text in snippets("fastapi.md", "router(") if "auth=None" in text]
    Path("main.py").write_text(text, encoding="utf-8")
    with running(["uvicorn", "main:app", "--port", str(port)], port, environment):
        page = opened(browser)
        page.goto(f"http://127.0.0.1:{port}/chat/")
        assert_it_answers(page)
        page.context.close()


def test_fastapi_s_page_for_several_users_asks_for_a_password(
    browser: Any, environment: dict[str, str], port: int
) -> None:
    (text,) = [text for text in snippets("fastapi.md", "router(") if "auth=user" in text]
    Path("main.py").write_text(text, encoding="utf-8")
    with running(["uvicorn", "main:app", "--port", str(port)], port, environment):
        page = opened(browser, http_credentials={"username": "ada", "password": "change me"})
        page.goto(f"http://127.0.0.1:{port}/chat/")
        assert_it_answers(page)
        page.context.close()


def test_flask_s_first_page_opens_without_a_login(browser: Any, environment: dict[str, str], port: int) -> None:
    (text,) = [text for text in snippets("flask.md", "blueprint(") if "auth=None" in text]
    Path("app.py").write_text(text, encoding="utf-8")
    with running(["flask", "run", "--port", str(port)], port, environment):
        page = opened(browser)
        page.goto(f"http://127.0.0.1:{port}/chat/")
        assert_it_answers(page)
        page.context.close()


def test_flask_s_page_for_several_users_leads_to_its_login(
    browser: Any, environment: dict[str, str], port: int
) -> None:
    (text,) = [text for text in snippets("flask.md", "blueprint(") if "login_url" in text]
    Path("app.py").write_text(text, encoding="utf-8")
    with running(["flask", "run", "--port", str(port)], port, environment):
        page = opened(browser)
        page.goto(f"http://127.0.0.1:{port}/chat/")
        page.get_by_placeholder("Name").fill("ada")
        page.get_by_placeholder("Password").fill("change me")
        page.get_by_role("button", name="Log in").click()
        assert_it_answers(page)
        page.context.close()


def test_django_from_startproject_to_the_first_answer(browser: Any, environment: dict[str, str], port: int) -> None:
    """The indented blocks of "Five minutes" are appended to the files, and the commands are run as they stand."""
    text = (DOCS / "django.md").read_text(encoding="utf-8").partition("## Five minutes")[2].partition("\n## ")[0]
    for_settings, for_urls, commands = [
        "\n".join(line.removeprefix("    ") for line in block.splitlines())
        for block in re.findall(r"(?:^    .*\n|^\n(?=    ))+", text, re.MULTILINE)
    ]
    environment = {
        **environment,
        "PYTHONPATH": os.getcwd(),  # noqa: PTH109  # the fresh folder
        "DJANGO_SUPERUSER_USERNAME": "ann",
        "DJANGO_SUPERUSER_EMAIL": "ann@example.org",
        "DJANGO_SUPERUSER_PASSWORD": "secret",
    }

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "django-admin startproject mysite ." in text
    run("-m", "django", "startproject", "mysite", ".")
    for name, block in (("settings", for_settings), ("urls", for_urls)):
        with Path(f"mysite/{name}.py").open("a", encoding="utf-8") as file:
            file.write(f"\n{block}\n")
    said = ""
    for line in commands.strip().splitlines():
        command = line.partition("#")[0].split()[1:]
        if command[-1] == "runserver":
            continue
        said += run(*command, *(["--noinput"] if command[-1] == "createsuperuser" else []))
    assert Path("mysite/lmdeck_tools.py").exists()
    assert "urls.py" not in said.partition("Next:")[2].partition("shell")[0]  # nothing is left to do
    assert "no issues" in run("manage.py", "check")
    environment["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
    with running(["django", "runserver", "--noreload", f"127.0.0.1:{port}"], port, environment):
        page = opened(browser, base_url=f"http://127.0.0.1:{port}")
        page.goto("/chat/")
        page.get_by_label("Username").fill("ann")
        page.get_by_label("Password").fill("secret")
        page.keyboard.press("Enter")
        assert_it_answers(page)
        page.goto("/admin/")
        page.get_by_role("link", name="Conversations", exact=True).wait_for()
        page.context.close()
    run_with_hashed_names(run)


def run_with_hashed_names(run: Any) -> None:
    """Collect the page's files for a site whose static files have hashes in their names."""
    with Path("mysite/settings.py").open("a", encoding="utf-8") as file:
        backend = "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"
        file.write(f'\nSTATIC_ROOT = "collected"\nSTORAGES = {{"staticfiles": {{"BACKEND": "{backend}"}}}}\n')
    run("manage.py", "collectstatic", "--noinput")
    assert list(Path("collected/lmdeck").glob("chat.*.js"))
