from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
from page_sites import STORES, far_end, log_in, site

from loopback import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lmdeck.testing import FakeLMStudio

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


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


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeLMStudio]:
    with far_end() as fake:
        yield fake


@pytest.fixture(scope="module", params=STORES)
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, fake: FakeLMStudio) -> Iterator[str]:
    with site(request.param, tmp_path_factory.mktemp("site"), fake) as url:
        yield url


@pytest.fixture(scope="module")
def context(browser: Any, url: str) -> Iterator[Any]:
    """A browser that has logged in."""
    context = browser.new_context(
        viewport={"width": 1000, "height": 700},
        reduced_motion="reduce",
        permissions=["clipboard-read", "clipboard-write"],
    )
    context.set_default_timeout(PATIENCE * 1000)
    page = context.new_page()
    page.goto(url)
    log_in(page)
    page.close()
    yield context
    context.close()


@pytest.fixture
def page(context: Any, url: str) -> Iterator[Any]:
    """The page, in which no script may fail and no rule of its policy may be broken."""
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("dialog", lambda dialog: problems.append(dialog.message))
    page.goto(url)
    yield page
    page.close()
    assert problems == []
