"""The chat page in a real browser, in all frameworks: what a visitor can do with it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from page_sites import KINDS, SLOW

from asking import until
from loopback import PATIENCE

if TYPE_CHECKING:
    from lmdeck.testing import FakeLMStudio

pytestmark = pytest.mark.no_cover  # the script of the page is tested: the sites have tests of their own
expect = pytest.importorskip("playwright.sync_api", reason="NO BROWSER TESTS: they need playwright").expect
PIXEL = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x02\x00\x00\x00\x90wS\xde\x00\x00\x00\x0cIDAT"
    b"\x08\xd7c\xf8\xcf\xc0\x00\x00\x03\x01\x01\x00\x18\xdd\x8d\xb0\x00\x00\x00\x00IEND\xaeB`\x82"
)

ONE_SITE = pytest.mark.parametrize("url", ["fastapi"], indirect=True)
"""For what only the script does, which is one file on all sites."""
EVERY_SERVER = pytest.mark.parametrize("url", KINDS, indirect=True)
"""For what a framework's server decides: when the parts of an answer leave, and when an answer is stopped."""
WATCH = """() => {
  window.seen = [];
  const note = () => window.seen.push(document.querySelector("article.lmdeck-assistant:last-of-type")?.textContent.trim());
  const every = { characterData: true, childList: true, subtree: true };
  new MutationObserver(note).observe(document.querySelector(".lmdeck-log"), every);
}"""


def ask(page: Any, text: str) -> Any:
    page.get_by_label("Your question").fill(text)
    page.keyboard.press("Enter")
    return page.locator("article.lmdeck-assistant").last


def sent(fake: FakeLMStudio) -> list[dict[str, Any]]:
    """The messages of the last question; the page also asks for the state of the server, at any time."""
    return [request for request in fake.requests if request.path.endswith("/chat/completions")][-1].messages


def finished(page: Any) -> None:
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()


@EVERY_SERVER
def test_the_start_names_the_model_and_offers_examples(page: Any) -> None:
    expect(page.locator(".lmdeck-state")).to_have_text("seer is ready.")
    expect(page.locator(".lmdeck-model")).to_have_text("seer")
    example = page.locator(".lmdeck-examples button").first
    text = example.inner_text()
    example.click()
    expect(page.locator("article.lmdeck-assistant")).to_contain_text(f"You said {text}.")
    expect(page.locator(".lmdeck-start")).to_be_hidden()
    finished(page)


def test_an_answer_is_rendered(page: Any) -> None:
    answer = ask(
        page,
        "say 1. one\n\n2. two\n\n   ```python\n   x = 1\n   ```\n3. three\n\n| a | b |\n|---|--:|\n| <br> | `c` |\n\n> quoted",
    )
    finished(page)
    expect(answer.locator("ol")).to_have_count(1)
    expect(answer.locator("ol > li")).to_have_count(3)
    expect(answer.locator("table td").first).to_have_text("<br>")
    expect(answer.locator("blockquote")).to_have_text("quoted")
    expect(answer.locator(".hljs-number")).to_have_text("1")
    expect(page.get_by_role("status")).to_have_text(re.compile(r"seer.* · 70 tokens( · |$)"))


@EVERY_SERVER
def test_tokens_come_one_after_another(page: Any) -> None:
    page.evaluate(WATCH)
    expect(ask(page, "slow")).to_have_text(SLOW)
    written = [text for text in page.evaluate("window.seen") if text]
    assert all(SLOW.startswith(text) for text in written)
    assert written.index(SLOW) > 0
    finished(page)
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator("article")).to_have_count(0)
    page.get_by_role("navigation").get_by_role("button", name="slow").first.click()
    expect(page.locator("article")).to_have_text(["slow", SLOW])


def test_reasoning_is_folded_and_still_there_after_a_reload(page: Any) -> None:
    answer = ask(page, "hello")
    reasoning = answer.locator("details.lmdeck-reasoning")
    expect(reasoning.locator("pre")).to_have_text("It says so.")
    finished(page)
    page.reload()
    expect(reasoning.locator("pre")).to_have_text("It says so.")
    expect(reasoning.locator("pre")).not_to_be_visible()
    reasoning.locator("summary").click()
    expect(reasoning.locator("pre")).to_be_visible()
    expect(answer).to_contain_text("You said hello.")


@ONE_SITE
def test_it_is_usable_by_keyboard_and_labelled(page: Any) -> None:
    page.keyboard.type("hello")
    page.keyboard.press("Enter")
    expect(page.get_by_role("article", name="Answer")).to_contain_text("You said hello.")
    expect(page.get_by_role("log")).to_have_attribute("aria-busy", "false")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_focused()


@ONE_SITE
def test_code_and_answers_can_be_copied(page: Any) -> None:
    answer = ask(page, "say Look:\n\n```python\nif a < b:\n    print(1)\n```")
    finished(page)
    expect(answer.locator("pre code")).to_contain_text("print(1)")
    page.evaluate("window.setTimeout = () => 0")  # what says that it was copied stays, however late the test looks
    answer.get_by_role("button", name="Copy code").click()
    expect(answer.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "if a < b:\n    print(1)"
    page.get_by_role("button", name="Copy answer").click()
    expect(page.get_by_role("button", name="Copied")).to_have_count(2)
    assert page.evaluate("navigator.clipboard.readText()") == "Look:\n\n```python\nif a < b:\n    print(1)\n```"


def test_a_question_is_repeated_or_edited(page: Any, fake: FakeLMStudio) -> None:
    ask(page, "say first")
    finished(page)
    ask(page, "say second")
    finished(page)
    page.get_by_role("button", name="Try again").last.click()
    finished(page)
    expect(page.locator("article.lmdeck-user")).to_have_text(["say first", "say second"])
    assert [message["content"] for message in sent(fake)] == ["say first", "first", "say second"]
    page.locator("article.lmdeck-user").first.hover()
    page.get_by_role("button", name="Edit", exact=True).first.click()
    expect(page.get_by_label("Your question")).to_have_value("say first")
    ask(page, "say other")
    finished(page)
    assert [message["content"] for message in sent(fake)] == ["say other"]
    page.reload()
    expect(page.locator("article")).to_have_text(["say other", "other"])


def test_a_conversation_is_renamed_and_deleted(page: Any) -> None:
    ask(page, "say to be renamed")
    finished(page)
    row = page.get_by_role("navigation").locator("li", has_text="say to be renamed")
    row.hover()
    row.get_by_role("button", name="Rename", exact=True).click()
    page.get_by_role("textbox", name="Rename the conversation").fill("A better name")
    page.keyboard.press("Enter")
    row = page.get_by_role("navigation").locator("li", has_text="A better name")
    expect(row).to_be_visible()
    page.reload()
    row.hover()
    row.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(row).to_be_visible()
    row.hover()
    row.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(row).to_have_count(0)
    expect(page.locator("article")).to_have_count(0)
    page.reload()
    expect(page.get_by_role("navigation").get_by_text("A better name")).to_have_count(0)


def test_an_image_is_attached_sent_and_stored(page: Any, fake: FakeLMStudio) -> None:
    page.get_by_label("Image", exact=True).set_input_files({"name": "p.png", "mimeType": "image/png", "buffer": PIXEL})
    expect(page.get_by_role("img", name="Image 1")).to_be_visible()
    ask(page, "say an image")
    finished(page)
    text, image = sent(fake)[-1]["content"]
    assert text == {"type": "text", "text": "say an image"}
    assert image["image_url"]["url"].startswith("data:image/png;base64,")
    page.reload()
    expect(page.get_by_role("img", name="Attached image")).to_be_visible()


@ONE_SITE
def test_the_end_follows_until_the_visitor_scrolls_up(page: Any) -> None:
    answer = ask(page, "say " + "\n\n".join(f"Paragraph {number}." for number in range(60)))
    finished(page)
    expect(answer.get_by_text("Paragraph 59.")).to_be_in_viewport()
    page.locator(".lmdeck-log").evaluate("(log) => { log.scrollTop = 0; }")
    page.get_by_role("button", name="Scroll to the end").click()
    expect(answer.get_by_text("Paragraph 59.")).to_be_in_viewport()
    expect(page.get_by_role("button", name="Scroll to the end")).to_be_hidden()


@EVERY_SERVER
def test_stopped_and_failed_answers_stay_marked(page: Any, fake: FakeLMStudio) -> None:
    answer = ask(page, "endless")
    expect(answer).to_contain_text("la la")
    until(lambda: fake.in_progress == 1)
    page.keyboard.press("Escape")
    expect(page.get_by_role("status")).to_have_text("Stopped.")
    fake.wait_until_idle(PATIENCE)
    expect(answer.locator(".lmdeck-ended")).to_have_text("Stopped before the answer was complete.")
    answer = ask(page, "cut")
    expect(answer.get_by_role("alert")).to_contain_text("req_")
    finished(page)
    page.reload()
    expect(page.locator(".lmdeck-ended")).to_have_text(
        ["Stopped before the answer was complete.", "Cut off: the connection to the model broke."]
    )
    expect(page.get_by_role("button", name="Try again")).to_have_count(2)


@ONE_SITE
def test_on_a_phone_the_list_opens_over_the_conversation(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 700})
    expect(page.get_by_role("button", name="New conversation")).to_be_hidden()
    page.get_by_role("button", name="Conversations").click()
    expect(page.get_by_role("button", name="New conversation")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Conversations")).to_be_focused()
    ask(page, "say " + "a" * 500 + "\n\n| " + " | ".join(["wide column"] * 12) + " |\n" + "|---" * 12 + "|\n")
    finished(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@EVERY_SERVER
def test_a_tool_call_waits_for_the_visitor_also_after_a_reload(page: Any) -> None:
    answer = ask(page, "pay 5")
    expect(answer.locator(".lmdeck-call summary")).to_have_text("pay")
    expect(page.get_by_role("button", name="Allow")).to_be_visible()
    finished(page)
    page.reload()
    expect(answer.locator(".lmdeck-ended")).to_have_text("Waiting for your decision.")
    page.get_by_role("button", name="Allow").click()
    expect(answer.locator(".lmdeck-result")).to_have_text("paid 5")
    expect(answer).to_contain_text("The tool says: paid 5")
    finished(page)
    page.reload()
    expect(answer).to_contain_text("The tool says: paid 5")
    expect(answer.locator(".lmdeck-ended")).to_have_count(0)


def test_another_conversation_may_be_opened_while_an_answer_is_written(page: Any, fake: FakeLMStudio) -> None:
    answer = ask(page, "endless")
    expect(answer).to_contain_text("la la")
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator(".lmdeck-log")).to_be_empty()
    fake.wait_until_idle(PATIENCE)
    ask(page, "say next")
    finished(page)
    expect(page.locator("article")).to_have_text(["say next", "next"])
