"""The chat page in a real browser, before uvicorn and gunicorn: tokens, a tool's card, stop, reload."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from far_end import HALF, SLOW, Site, prepare, site

from loopback import PATIENCE

playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="the browser tests need Chromium: apt-get install chromium")


WATCH = """() => {
  window.seen = [];
  const note = () => window.seen.push(document.querySelector("article.lmdeck-assistant:last-of-type")?.textContent.trim());
  const every = { characterData: true, childList: true, subtree: true };
  new MutationObserver(note).observe(document.querySelector(".lmdeck-log"), every);
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module", params=["uvicorn", "gunicorn"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, str]]:
    folder = tmp_path_factory.mktemp("site")
    session = prepare(folder / "db.sqlite3")
    with site(request.param, folder, TEST_DATABASE=str(folder / "db.sqlite3"), TEST_DEBUG="1") as running:
        yield running, session


@pytest.fixture
def page(browser: Any, running: tuple[Site, str]) -> Iterator[Any]:
    here, session = running
    context = browser.new_context(base_url=f"http://127.0.0.1:{here.port}", reduced_motion="reduce")
    context.add_cookies([{"name": "sessionid", "value": session, "domain": "127.0.0.1", "path": "/"}])
    page = context.new_page()
    page.set_default_timeout(PATIENCE * 1000)
    playwright.expect.set_options(timeout=PATIENCE * 1000)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.goto("/chat/")
    yield page
    context.close()
    assert not problems


def ask(page: Any, text: str) -> Any:
    page.get_by_label("Your question").fill(text)
    page.keyboard.press("Enter")
    return page.locator("article.lmdeck-assistant").last


def test_tokens_a_card_and_the_conversation_after_a_reload(page: Any) -> None:
    page.evaluate(WATCH)
    playwright.expect(ask(page, "slow")).to_have_text(SLOW)
    seen = page.evaluate("window.seen")
    written = [text for text in seen if text]
    assert all(SLOW.startswith(text) for text in written)
    assert written.index(SLOW) > 0
    answer = ask(page, "tool")
    card = answer.locator("details.lmdeck-call")
    playwright.expect(card.locator("summary")).to_have_text("get_weather")
    playwright.expect(card.locator(".lmdeck-arguments")).to_contain_text("Paris")
    playwright.expect(card.locator(".lmdeck-result")).to_contain_text("21")
    playwright.expect(answer).to_contain_text("It says")
    playwright.expect(page.get_by_role("button", name="Send")).to_be_visible()
    page.reload()
    playwright.expect(page.locator("article.lmdeck-user")).to_have_text(["slow", "tool"])
    playwright.expect(page.locator("article.lmdeck-assistant").first).to_have_text(SLOW)
    playwright.expect(page.locator(".lmdeck-result")).to_contain_text("21")
    page.get_by_role("button", name="New conversation").click()
    playwright.expect(page.locator("article")).to_have_count(0)
    page.get_by_role("navigation").get_by_role("button", name="slow").first.click()
    playwright.expect(page.locator("article.lmdeck-user")).to_have_text(["slow", "tool"])


def test_reasoning_is_folded_and_still_there_after_a_reload(page: Any) -> None:
    reasoning = ask(page, "think").locator("details.lmdeck-reasoning")
    playwright.expect(reasoning.locator("pre")).to_have_text("Light is scattered.")
    playwright.expect(page.get_by_role("button", name="Send")).to_be_visible()
    page.reload()
    playwright.expect(reasoning.locator("pre")).to_have_text("Light is scattered.")
    playwright.expect(reasoning.locator("pre")).not_to_be_visible()
    playwright.expect(page.locator("article.lmdeck-assistant")).to_contain_text("It is blue.")


def test_stop_stops_the_model_and_keeps_what_came(page: Any, running: tuple[Site, str]) -> None:
    lm_studio = running[0].lm_studio
    answer = ask(page, "endless")
    playwright.expect(answer).to_contain_text("la la")
    assert lm_studio.in_progress == 1
    page.get_by_role("button", name="Stop").click()
    lm_studio.wait_until_idle(PATIENCE)
    playwright.expect(page.get_by_role("status")).to_have_text("Stopped.")
    page.wait_for_timeout(200)
    page.reload()
    playwright.expect(page.locator("article.lmdeck-assistant")).to_contain_text("la la")


def test_what_a_model_writes_stays_text(page: Any) -> None:
    answer = ask(page, "markup")
    playwright.expect(answer.locator("strong")).to_have_text("bold")
    playwright.expect(answer.locator("pre code")).to_have_text("x < 1")
    playwright.expect(answer).to_contain_text("<img src=x onerror=alert(1)>")
    playwright.expect(answer.locator("a")).to_have_count(1)
    assert answer.locator("img").count() == 0


def test_an_error_says_what_to_do(page: Any) -> None:
    answer = ask(page, "cut")
    playwright.expect(answer.get_by_role("alert")).to_contain_text("ask again")
    playwright.expect(answer).to_contain_text(HALF[0])  # how much arrives before the cut is random
