"""Take the pictures of the README: three chat pages, the admin's transcript, `lmdeck doctor` and `lmdeck chat`.

    make pictures

The programs are the real ones, run as a user runs them; LM Studio is the scripted fake, so that every run shows the same.
Chromium renders the pages, and a terminal emulator (pyte) the terminals.
"""

from __future__ import annotations

import html
import os
import pty
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyte
from playwright.sync_api import Browser, Page, sync_playwright

from lmdeck.testing import Answer, FakeLMStudio, SentRequest
from lmdeck.testing.isolation import environment_for
from lmdeck.testing.scripted_answers import PlannedCall

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
COLUMNS, LINES = 100, 34
QUESTION = "What time is it in Paris?"
ANSWER = (
    "It is **{time}** in Paris. Two things to know:\n\n"
    "* Paris is one hour ahead of `UTC` in winter\n"
    "* and two hours ahead in summer\n\n"
    '```python\ndatetime.now(ZoneInfo("Europe/Paris"))\n```'
)
CLOCK = '''
import lmdeck


@lmdeck.tool
def current_time(utc_offset: int) -> str:
    """Get the current time at a UTC offset in hours."""
    return "2026-11-23 17:20+01:00"
'''
COLORS = {
    "default": "#e6e6e6", "black": "#000", "red": "#ff7b72", "green": "#7ee787", "brown": "#e3b341", "blue": "#79c0ff",
    "magenta": "#d2a8ff", "cyan": "#56d4dd", "white": "#e6e6e6",
}  # fmt: skip


def answer(request: SentRequest) -> Answer:
    """Answer the requests of the chat pages, `lmdeck chat` and `lmdeck doctor`."""
    if request.schema is not None or (request.body.get("tool_choice") == "required"):
        return Answer(from_schema=True)
    if "time" in request.last_user and request.tools and not request.tool_uses:
        thought = "The user wants the time. There is a tool for that."
        return Answer(reasoning=thought, calls=(PlannedCall(name="current_time", arguments={"utc_offset": 1}),))
    result = str(request.messages[-1]["content"]) if request.tool_uses else "2026-11-23 17:20+01:00"
    return Answer(content=ANSWER.format(time=result[11:16]))


@contextmanager
def running(fake: FakeLMStudio, folder: Path, name: str, *options: str) -> Iterator[str]:
    """Run an example, and yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {**os.environ, **environment_for(fake.base_url), "CHAT_DATABASE": str(folder / "chat.sqlite3")}
    command = [sys.executable, str(ROOT / "examples" / name), "--port", str(port), *options]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, cwd=folder) as process:
        try:
            deadline = time.monotonic() + 30
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    if time.monotonic() > deadline or process.poll() is not None:
                        raise
                    time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def open_page(browser: Browser, *, dark: bool = False) -> Page:
    """Open a browser window."""
    scheme: Any = "dark" if dark else "light"
    return browser.new_page(viewport={"width": 1000, "height": 640}, color_scheme=scheme, reduced_motion="reduce")


def ask(page: Page) -> None:
    """Ask a question, and wait for the end of the answer."""
    page.get_by_label("Your question").fill(QUESTION)
    page.keyboard.press("Enter")
    page.get_by_text("two hours ahead").wait_for()
    page.get_by_role("button", name="Send").wait_for()
    page.wait_for_timeout(300)


def take_pages(browser: Browser, fake: FakeLMStudio, folder: Path) -> None:
    """Take the three chat pages and the admin."""
    for name in ("fastapi", "flask"):
        with running(fake, folder, f"{name}_chat", "--history", str(folder / f"{name}.sqlite3")) as url:
            page = open_page(browser, dark=name == "flask")
            page.goto(url)
            ask(page)
            page.screenshot(path=PICTURES / f"{name}.png")
    with running(fake, folder, "django_chat") as url:
        page = open_page(browser)
        page.goto(url)
        page.get_by_label("Username").fill("demo")
        page.get_by_label("Password").fill("demo")
        page.keyboard.press("Enter")
        page.get_by_label("Your question").wait_for()
        ask(page)
        page.screenshot(path=PICTURES / "django.png")
        page.goto(f"{url}/admin/lmdeck_history/conversation/")
        page.locator("#result_list tbody th a").first.click()
        page.wait_for_load_state()
        page.wait_for_timeout(300)
        page.screenshot(path=PICTURES / "admin.png", full_page=True)


def take_terminal(browser: Browser, name: str, fake: FakeLMStudio, command: list[str], typed: list[str]) -> None:
    """Run a command in a terminal of its own, type, and save a picture of its screen."""
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    environment = {
        **os.environ,
        **environment_for(fake.base_url),
        "TERM": "xterm-256color",
        "COLUMNS": str(COLUMNS),
        "LINES": str(LINES),
    }
    process, terminal = pty.fork()
    if process == 0:
        os.execvpe(sys.executable, [sys.executable, "-m", "lmdeck", *command], environment)  # noqa: S606
    for text in [*typed, ""]:
        _read(terminal, screen, stream)
        if text:
            os.write(terminal, text.encode())
    _read(terminal, screen, stream)
    os.close(terminal)
    os.waitpid(process, 0)
    page = browser.new_page(viewport={"width": 1120, "height": 80})
    page.set_content(_as_html([f"$ lmdeck {' '.join(Path(part).name for part in command)}", *_rows(screen)]))
    page.locator("pre").screenshot(path=PICTURES / f"{name}.png")


def _read(terminal: int, screen: pyte.Screen, stream: pyte.ByteStream) -> None:
    """Read until no more output comes, and answer queries for the position of the cursor."""
    quiet = time.monotonic() + 2.5
    while time.monotonic() < quiet:
        if not select.select([terminal], [], [], 0.1)[0]:
            continue
        try:
            data = os.read(terminal, 1 << 16)
        except OSError:
            return
        if not data:
            return
        stream.feed(data)
        if b"\x1b[6n" in data:
            os.write(terminal, f"\x1b[{screen.cursor.y + 1};{screen.cursor.x + 1}R".encode())
        quiet = time.monotonic() + 1.5


def _rows(screen: pyte.Screen) -> list[str]:
    rows = []
    for number in range(screen.lines):
        row = ""
        for column in range(screen.columns):
            cell = screen.buffer[number][column]
            color, ground = _color(cell.fg, COLORS["default"]), _color(cell.bg, "transparent")
            weight = "bold" if cell.bold else "normal"
            style = f"color:{color};background:{ground};font-weight:{weight}"
            row += f'<span style="{style}">{html.escape(cell.data)}</span>'
        rows.append(row if any(screen.buffer[number][column].data.strip() for column in range(screen.columns)) else "")
    while rows and not rows[-1]:
        rows.pop()
    return rows


def _color(name: str, default: str) -> str:
    return default if name == "default" else COLORS.get(name, f"#{name}" if len(name) == 6 else default)


def _as_html(rows: list[str]) -> str:
    font = "14px/1.45 'DejaVu Sans Mono',monospace"
    style = f"background:#0d1117;color:#e6e6e6;font:{font};margin:0;padding:16px;width:fit-content"
    return f'<pre style="{style}">' + "\n".join(rows) + "</pre>"


def main() -> int:
    """Take all pictures."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        print("The pictures need Chromium: apt-get install chromium", file=sys.stderr)
        return 1
    PICTURES.mkdir(exist_ok=True)
    with (
        sync_playwright() as driver,
        tempfile.TemporaryDirectory() as folder,
        FakeLMStudio(tokens_per_second=400) as fake,
    ):
        fake.when(lambda _: True).respond(answer)
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        take_terminal(browser, "doctor", fake, ["doctor"], [])
        tools = Path(folder) / "clock.py"
        tools.write_text(CLOCK, encoding="utf-8")
        take_terminal(browser, "chat", fake, ["chat", "--no-save", "--tools", str(tools)], [f"{QUESTION}\r", "\x04"])
        take_pages(browser, fake, Path(folder))
        browser.close()
    for picture in sorted(PICTURES.glob("*.png")):
        print(picture.relative_to(ROOT), f"{picture.stat().st_size // 1024} kB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
