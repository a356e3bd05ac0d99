"""The chat page of a site that stores no conversations: the page itself remembers the messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI
from test_page_features import PIXEL, ask, expect, finished

from lmdeck.contrib.fastapi import lifespan, router
from lmdeck.server.serve import BackgroundServer
from lmdeck.server.sockets import listen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lmdeck.testing import FakeLMStudio


pytestmark = pytest.mark.no_cover  # the script of the page is tested: the sites have tests of their own


@pytest.fixture(scope="module")
def url(fake: FakeLMStudio) -> Iterator[str]:
    app = FastAPI(lifespan=lifespan(base_url=fake.base_url, model="seer"))
    app.include_router(router(auth=None, title="Our <chat>", examples=["say <b>hello</b>"]))
    with BackgroundServer(app, listen(), lifespan=True) as server:
        yield server.base_url


def sent(fake: FakeLMStudio) -> list[tuple[str, object]]:
    """Return the messages of the last question: each role, and the text or the types of the parts."""
    asked = [request for request in fake.requests if request.path.endswith("/chat/completions")][-1]
    return [
        (each["role"], each["content"] if isinstance(each["content"], str) else [part["type"] for part in each["content"]])
        for each in asked.messages
    ]  # fmt: skip


def test_the_page_sends_the_earlier_messages_also_after_a_retry_and_an_edit(page: Any, fake: FakeLMStudio) -> None:
    expect(page.get_by_role("heading", name="Our <chat>")).to_be_visible()
    page.get_by_label("Image", exact=True).set_input_files({"name": "p.png", "mimeType": "image/png", "buffer": PIXEL})
    expect(page.get_by_role("img", name="Image 1")).to_be_visible()
    ask(page, "say one")
    finished(page)
    ask(page, "cut")
    finished(page)
    page.get_by_role("button", name="Try again").last.click()
    finished(page)
    with_image = ("user", ["text", "image_url"])
    assert sent(fake) == [with_image, ("assistant", "one"), ("user", "cut")]
    ask(page, "say two")
    finished(page)
    assert str(sent(fake)[3][1]).endswith("[This answer was interrupted here.]")
    page.locator("article.lmdeck-user").nth(1).hover()
    page.get_by_role("button", name="Edit", exact=True).nth(1).click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_label("Your question")).to_have_value("")
    page.get_by_role("button", name="Edit", exact=True).nth(1).click()
    ask(page, "say TWO")
    finished(page)
    assert sent(fake) == [with_image, ("assistant", "one"), ("user", "say TWO")]
    expect(page.locator("article")).to_have_text(["say one", "one", "say TWO", "TWO"])


def test_an_example_is_text(page: Any) -> None:
    page.get_by_role("button", name="say <b>hello</b>").click()
    expect(page.locator("article.lmdeck-assistant")).to_have_text("<b>hello</b>")
    finished(page)
