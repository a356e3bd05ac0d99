"""The gateway's dashboard in a real browser: a host that fails, a flood by one key, a model that is loaded."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from asking import until
from bodies import chunk
from gateways import MODEL, PATIENCE, GatewayProcess, config_of, gateway
from lmdeck.testing import FakeLMStudio

playwright = pytest.importorskip("playwright.sync_api", reason="NO BROWSER TESTS: they need playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="NO BROWSER TESTS: they need Chromium, apt-get install chromium"
)
PICTURES = os.environ.get("LMDECK_TEST_PICTURES", "")


@pytest.fixture
def fake() -> Iterator[FakeLMStudio]:
    with FakeLMStudio(seed=0) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=4 * PATIENCE * 1000)
        yield browser
        browser.close()


def open_page(browser: Any, url: str, **options: Any) -> Any:
    context = browser.new_context(base_url=url, reduced_motion="reduce", **options)
    page = context.new_page()
    page.set_default_timeout(PATIENCE * 1000)
    playwright.expect.set_options(timeout=PATIENCE * 1000)
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.goto("/dashboard")
    return page


def section(page: Any, title: str) -> Any:
    return page.locator("section").filter(has=page.get_by_role("heading", name=title))


def picture(page: Any, name: str) -> None:
    """Keep a picture where somebody wants to look at it."""
    if PICTURES:
        page.screenshot(path=Path(PICTURES) / f"{name}.png", full_page=True)


def keys(folder: Path, *names: str) -> dict[str, str]:
    command = [sys.executable, "-m", "lmdeck", "gateway", "keys", "create", "--config", str(folder / "gateway.toml")]
    found = {}
    for name in names:
        done = subprocess.run([*command, name], capture_output=True, text=True, check=True, cwd=folder)
        found[name] = next(word for word in done.stdout.split() if word.startswith("lmk_"))
    return found


@needs_browser
def test_the_dashboard_shows_and_controls_a_gateway(fake: FakeLMStudio, browser: Any, tmp_path: Path) -> None:
    """The page follows without a reload, and its buttons act."""
    fake.at("/v1/chat/completions").frames(chunk("one"), chunk("two"), 120.0)
    with FakeLMStudio(seed=0) as other:
        more = "[routing]\npoll = 0.2\nprobe = 0.2\n[auth]\nrequired = true\n"
        text = config_of([fake, other], more).replace('name = "a"', 'name = "a"\nparallel = 2')
        (tmp_path / "gateway.toml").write_text(text)
        held = keys(tmp_path, "flood")
        with gateway(tmp_path, text, is_measured=True) as running:
            page = open_page(browser, running.url)
            hosts = section(page, "Hosts")
            playwright.expect(hosts.get_by_text("✓ up")).to_have_count(2)
            other.close()
            playwright.expect(hosts.get_by_text("✗ down")).to_be_visible()
            playwright.expect(page.get_by_text("1 of 2")).to_be_visible()
            picture(page, "host-down")

            headers = {"Authorization": f"Bearer {held['flood']}"}
            threads = [
                threading.Thread(target=running.chat, kwargs={"stream": True, "headers": headers}, daemon=True)
                for _ in range(6)
            ]
            for thread in threads:
                thread.start()
            live = section(page, "Open requests")
            playwright.expect(live.get_by_text("answering")).to_have_count(2)
            playwright.expect(live.get_by_text("queued")).to_have_count(4)
            playwright.expect(section(page, "Models").get_by_text("flood")).to_be_visible()
            picture(page, "flood")
            stop = live.get_by_role("button", name="Stop")
            while any(thread.is_alive() for thread in threads):
                if stop.count():
                    with contextlib.suppress(playwright.Error):  # the request has just ended, and its button is gone
                        stop.first.click(timeout=1000)
                page.wait_for_timeout(100)
            failures = section(page, "Recent failures")
            playwright.expect(failures.get_by_text("An operator stopped the request.").first).to_be_visible()
            playwright.expect(section(page, "Usage in the last 30 days").get_by_text("flood")).to_have_count(0)
            until(lambda: "flood" in running.get("/dashboard/usage.csv").body.decode())
            page.reload()
            playwright.expect(section(page, "Usage in the last 30 days").get_by_text("flood")).to_be_visible()
            assert page.locator("figure svg rect.bar").count() >= 1
            assert page.locator("figure svg rect.bar.part").count() >= 1
            page.get_by_role("link", name="month").click()
            playwright.expect(page.locator("[aria-current=page]")).to_have_text("month")

            hosts.get_by_role("button", name="Drain").first.click()
            playwright.expect(hosts.get_by_text("‖ draining")).to_be_visible()
            hosts.get_by_role("button", name="Resume").click()
            playwright.expect(hosts.get_by_text("✓ up")).to_be_visible()
            picture(page, "after")
            assert page.problems == []
            csv = running.get("/dashboard/usage.csv").body.decode()
            assert csv.splitlines()[0].startswith("day,key,model,requests")
            assert "flood" in csv
            page.context.close()
        with gateway(tmp_path, text) as running:  # the charts go on after a restart
            assert 'class="bar part"' in running.get("/dashboard").body.decode()


def ask_in_vain(running: GatewayProcess) -> None:
    """Ask for a model that takes long to load, until the gateway ends."""
    with contextlib.suppress(urllib3.exceptions.HTTPError):
        running.chat(model="late", stream=True)


@needs_browser
def test_it_fits_a_phone_in_light_and_dark(fake: FakeLMStudio, browser: Any, tmp_path: Path) -> None:
    """Nothing is wider than the screen; a model that is being loaded is shown."""
    fake.at("/v1/chat/completions").reply("Hello.")
    fake.add_model("late", loaded=False, load_seconds=120.0)
    with gateway(tmp_path, config_of([fake], "[profiles.late]\ncontext_length = 4096")) as running:
        running.chat()
        waiting = threading.Thread(target=ask_in_vain, args=(running,))
        waiting.start()
        page = open_page(browser, running.url, viewport={"width": 390, "height": 844}, device_scale_factor=2)
        grounds = set()
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            playwright.expect(section(page, "Hosts").get_by_text("◔ loading late")).to_be_visible()
            playwright.expect(section(page, "Hosts").get_by_text(MODEL)).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
            picture(page, f"phone-{scheme}")
        assert len(grounds) == 2
        assert page.problems == []
        page.context.close()
    waiting.join(PATIENCE)


@needs_browser
def test_a_browser_elsewhere_is_asked_for_the_operators_token(fake: FakeLMStudio, browser: Any, tmp_path: Path) -> None:
    """The token is the password, and without it nothing is shown."""
    text = config_of([fake], '[admin]\ntoken_env = "OPERATORS"')
    with gateway(tmp_path, text, env={"OPERATORS": "s3cret"}) as running:
        elsewhere = {"X-Forwarded-For": "8.8.8.8"}
        for path in ("/dashboard", "/dashboard/events", "/dashboard/usage.csv", "/dashboard/live.js", "/metrics"):
            refused = running.get(path, **elsewhere)
            assert (refused.status, refused.headers["www-authenticate"].partition(" ")[0]) == (401, "Basic")
        credentials = {"username": "any", "password": "s3cret"}
        page = open_page(browser, running.url, http_credentials=credentials, extra_http_headers=elsewhere)
        playwright.expect(section(page, "Hosts").get_by_text("✓ up")).to_be_visible()
        playwright.expect(page.locator("#connection")).to_have_text("live")
        page.context.close()


def test_names_from_clients_are_shown_as_text(fake: FakeLMStudio, tmp_path: Path) -> None:
    """A model's name with markup is shown as it is written."""
    with gateway(tmp_path, config_of([fake])) as running:
        assert running.chat(model="<script>alert(1)</script>").status == 404
        page = running.get("/dashboard")
        assert b"<script>alert" not in page.body
        assert b"&lt;script&gt;alert" in page.body
        assert "default-src 'none'" in page.headers["content-security-policy"]
        updates = running.pool.request("GET", f"{running.url}/dashboard/events", preload_content=False)
        assert updates.read(5)
        assert running.end() in {0, -signal.SIGTERM}  # an open page does not hold up the end
        updates.release_conn()
