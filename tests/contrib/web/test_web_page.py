"""The page of FastAPI and Flask in a real browser: tokens one after another, a tool's card, stop, reload."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
from web_sites import SLOW

from loopback import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lmdeck.testing import FakeLMStudio

playwright = pytest.importorskip("playwright.sync_api", reason="NO BROWSER TESTS: they need playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="NO BROWSER TESTS: they need Chromium, apt-get install chromium"
)

SEEN = """
window.seen = [];
new MutationObserver(() => {
  const last = [...document.querySelectorAll("article.lmdeck-assistant")].at(-1);
  if (last) window.seen.push(last.textContent);
}).observe(document, { childList: true, subtree: true, characterData: true });
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, url: str) -> Iterator[Any]:
    context = browser.new_context(base_url=url, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(PATIENCE * 1000)
    playwright.expect.set_options(timeout=PATIENCE * 1000)
    page.add_init_script(SEEN)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.goto("/")
    yield page
    context.close()
    assert not problems


def ask(page: Any, text: str) -> Any:
    page.get_by_label("Your question").fill(text)
    page.keyboard.press("Enter")
    return page.locator("article.lmdeck-assistant").last


def test_tokens_one_after_another_a_card_and_the_conversation_after_a_reload(page: Any) -> None:
    answer = ask(page, "slow")
    playwright.expect(answer).to_have_text(SLOW)
    seen = [text for text in page.evaluate("window.seen") if text]
    assert len(set(seen)) >= 4
    assert all(SLOW.startswith(text) for text in seen)
    answer = ask(page, "use the tool")
    card = answer.locator("details.lmdeck-call")
    playwright.expect(card.locator("summary")).to_have_text("current_time")
    playwright.expect(card.locator(".lmdeck-arguments")).to_contain_text("utc_offset")
    playwright.expect(card.locator(".lmdeck-result")).to_contain_text("+01:00")
    playwright.expect(answer).to_contain_text("You said tool.")
    playwright.expect(page.get_by_role("button", name="Send")).to_be_visible()
    page.reload()
    playwright.expect(page.locator("article.lmdeck-user")).to_have_text(["slow", "use the tool"])
    playwright.expect(page.locator("article.lmdeck-assistant").first).to_have_text(SLOW)
    playwright.expect(page.locator(".lmdeck-result")).to_contain_text("+01:00")


def test_reasoning_is_folded_and_still_there_after_a_reload(page: Any) -> None:
    reasoning = ask(page, "hello").locator("details.lmdeck-reasoning")
    playwright.expect(reasoning.locator("pre")).to_have_text("It says so.")
    playwright.expect(page.get_by_role("button", name="Send")).to_be_visible()
    page.reload()
    playwright.expect(reasoning.locator("pre")).to_have_text("It says so.")
    playwright.expect(reasoning.locator("pre")).not_to_be_visible()
    reasoning.locator("summary").click()
    playwright.expect(reasoning.locator("pre")).to_be_visible()


def test_stop_stops_the_model_and_keeps_what_came(page: Any, fake: FakeLMStudio) -> None:
    answer = ask(page, "endless")
    playwright.expect(answer).to_contain_text("la la")
    assert fake.in_progress == 1
    page.get_by_role("button", name="Stop").click()
    fake.wait_until_idle(PATIENCE)
    playwright.expect(page.get_by_role("status")).to_have_text("Stopped.")
    page.wait_for_timeout(300)
    page.reload()
    playwright.expect(page.locator("article.lmdeck-assistant")).to_contain_text("la la")
    playwright.expect(page.locator(".lmdeck-ended")).to_have_text("Stopped before the answer was complete.")


def test_an_answer_that_was_cut_is_shown_as_such_after_a_reload(page: Any) -> None:
    answer = ask(page, "cut")
    playwright.expect(answer.get_by_role("alert")).to_contain_text("The answer failed.")
    page.reload()
    playwright.expect(page.locator(".lmdeck-ended")).to_have_text("Cut off: the connection to the model broke.")


def test_what_a_model_writes_stays_text(page: Any) -> None:
    answer = ask(page, "markup")
    playwright.expect(answer.locator("strong")).to_have_text("bold")
    playwright.expect(answer.locator("pre code")).to_have_text("x < 1")
    playwright.expect(answer).to_contain_text("<img src=x onerror=alert(1)>")
    assert answer.locator("img").count() == 0
    assert answer.locator("a").count() == 1


def test_it_is_usable_by_keyboard_and_labelled(page: Any) -> None:
    page.keyboard.type("hello")
    page.keyboard.press("Enter")
    playwright.expect(page.get_by_role("article", name="Answer")).to_contain_text("You said hello.")
    playwright.expect(page.get_by_role("log")).to_have_attribute("aria-busy", "false")
    page.keyboard.press("Tab")
    playwright.expect(page.get_by_role("button", name="Send")).to_be_focused()
