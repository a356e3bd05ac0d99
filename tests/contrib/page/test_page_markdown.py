"""The page's Markdown in a real browser: as the reference renderer has it, however it arrives, and never more than text."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from markdown_it import MarkdownIt
from page_sites import site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lmdeck.testing import FakeLMStudio

pytestmark = pytest.mark.no_cover  # the script of the page is tested: the sites have tests of their own
CONSTRUCTS = [
    "plain text",
    "two\nlines",
    "two  \nlines",
    "back\\\nslash",
    "para one\n\npara two",
    "# one\n## two\n### three\n#### four\n##### five\n###### six",
    "Title\n=====\ntext",
    "Title\n-----\ntext",
    "## Title\ntext",
    "**b** __b__ *i* _i_ ***bi***",
    "**bold *it* bold**",
    "5 * 6 * 7 and snake_case_name",
    r"\*x\* \# \[ \\",
    "~~gone~~",
    "`code` ``a ` b`` ` x `",
    "- a\n- b\n- c",
    "Here are:\n- a\n- b",
    "* a\n\n* b\n\n* c",
    "1. a\n2. b\n3. c",
    "3. c\n4. d",
    "1. a\n\n2. b\n\n3. c",
    "1. a\n   ```py\n   x = 1\n   ```\n2. b",
    "- a\n  - b\n    - c\n- d",
    "- a\n  continued\n- b\nlazy",
    "- a\n\n  second paragraph\n- b",
    "1) a\n2) b",
    "- a\n* b\n+ c",
    "> quoted\n> more",
    "> a\nlazy\n\n> b",
    "> - a\n> - b\n>\n> c",
    "> > deep",
    "```\nx < 1\n\n\ny\n```",
    "```python title\nx\n```\nafter",
    "````\n```\ninner\n```\n````",
    "~~~\ntilde\n~~~",
    "    indented\n    code",
    "text\n---\n\n***\n\n___",
    "| a | b | c |\n|:--|:-:|--:|\n| 1 | **2** | `3` |\n| 4 | x \\| y |",
    '[a](https://b.example/c "t") <https://d.example> [r][x]\n\n[x]: https://e.example "R"',
    "[r]\n\nbetween\n\n[r]: https://e.example",
    "&amp; &copy; &#35; &nope; <br> <b>x</b>",
    "- [ ] todo\n- [x] done",
    "a\n- b\n\n\n- c\n\n\nd",
    "```\nunclosed",
    "**unclosed",
    "1. a\n- b",
    "\n".join(f"- item {number} [r]" for number in range(40)) + "\n\n[r]: https://e.example",
    "\n".join(f"{number}. item" for number in range(1, 30)) + "\n\n30. loose\n\nafter",
    "| a | b |\n|---|---|\n"
    + "\n".join(f"| {number} | [r] |" for number in range(40))
    + "\n\nafter\n\n[r]: https://e.example",
]

# Text that would run a script, load something, or break out of its place if it were HTML, or a link with another scheme.
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<svg/onload=alert(1)//",
    "<iframe src=javascript:alert(1)>",
    "<a href=javascript:alert(1)>x</a>",
    "<body onload=alert(1)>",
    "<details open ontoggle=alert(1)>",
    "<math><mtext></table><mglyph><style><img src onerror=alert(1)>",
    "<form action=javascript:alert(1)><button>x",
    "<style>*{display:none}</style>",
    "<link rel=stylesheet href=https://evil.example/x.css>",
    "<meta http-equiv=refresh content=0;url=https://evil.example>",
    "<base href=https://evil.example>",
    "<object data=javascript:alert(1)>",
    "<embed src=javascript:alert(1)>",
    "<noscript><p title='</noscript><img src onerror=alert(1)>'>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](java\tscript:alert(1))",
    "[x](&#106;avascript:alert(1))",
    "[x](vbscript:x)",
    "[x](data:text/html,<script>alert(1)</script>)",
    "[x](data:image/svg+xml,<svg onload=alert(1)>)",
    "[x]: javascript:alert(1)\n\n[x]",
    "<javascript:alert(1)>",
    "![x](https://evil.example/pixel.png?secret)",
    "![x](javascript:alert(1))",
    '![x](x" onerror="alert(1))',
    '[x](https://a.example" onclick="alert(1))',
    "```html\n<script>alert(1)</script>\n```",
    '```"><img src=x onerror=alert(1)>\nx\n```',
    "`<img src=x onerror=alert(1)>`",
    "| <img src=x onerror=alert(1)> |\n|---|\n| <script>alert(1)</script> |",
    "1. <img src=x onerror=alert(1)>",
    "> <script>alert(1)</script>",
    "# <svg onload=alert(1)>",
    "\\<script>alert(1)</script>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "[<img src=x onerror=alert(1)>](https://a.example)",
    "<div id=lmdeck-text><input name=attributes></div>",
    "<!--<img src=x onerror=alert(1)>-->",
]

DRAW = Path(__file__).with_name("draw_markdown.js").read_text(encoding="utf-8")
ELEMENTS = {
    "a", "blockquote", "br", "button", "code", "del", "div", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p",
    "path", "pre", "s", "span", "strong", "svg", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip


@pytest.fixture(scope="module", params=["fastapi"])  # the same files for all
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, fake: FakeLMStudio) -> Iterator[str]:
    with site(request.param, tmp_path_factory.mktemp("site"), fake) as url:
        yield url


def draw(page: Any, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    drawn: list[dict[str, Any]] = page.evaluate(DRAW, inputs)
    return drawn


def cut(text: str, pieces: int, seed: int) -> list[int]:
    """Return the lengths of the given number of pieces."""
    places = sorted(random.Random(seed).sample(range(1, len(text)), min(pieces, len(text) - 1)))
    return [end - begin for begin, end in zip([0, *places], places, strict=False)]


def without_styles(html: str) -> str:
    """Name the alignment of a cell otherwise: the page's policy allows no inline styles, not even in what is only parsed."""
    return html.replace('style="text-align:', 'align="')


@pytest.mark.parametrize("pieces", [0, 1, 5, 40])
def test_it_is_rendered_as_by_the_reference_renderer(page: Any, pieces: int) -> None:
    reference = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    inputs = [
        {
            "text": text,
            "pieces": cut(text, pieces, seed) if pieces else [],
            "reference": without_styles(reference.render(text)),
        }
        for seed, text in enumerate(CONSTRUCTS)
    ]
    for given, got in zip(inputs, draw(page, inputs), strict=True):
        assert (given["text"], got["ours"]) == (given["text"], got["theirs"])


def test_addresses_become_links_and_pictures_of_other_sites_are_not_loaded(page: Any) -> None:
    (bare, picture, own) = draw(
        page,
        [
            {"text": "see https://a.example/b_c. And example.org", "pieces": []},
            {"text": "![a cat](https://a.example/cat.png)", "pieces": []},
            {"text": "![dot](data:image/png;base64,iVBORw0KGgo=)", "pieces": []},
        ],
    )
    assert bare["links"] == ["https://a.example/b_c"]
    assert (picture["links"], picture["names"], picture["text"]) == (
        ["https://a.example/cat.png"], ["p", "a"], "a cat",
    )  # fmt: skip
    assert own["names"] == ["p", "img"]


def test_nothing_that_a_model_writes_is_more_than_text(page: Any) -> None:
    inputs = [{"text": text, "pieces": cut(text, pieces, 1)} for text in HOSTILE for pieces in (0, 3)]
    for given, got in zip(inputs, draw(page, inputs), strict=True):
        assert set(got["names"]) <= ELEMENTS, given["text"]
        assert [link for link in got["links"] if not link.startswith("https://")] == [], given["text"]
        assert [name for name in got["attributes"] if name.startswith("on")] == [], given["text"]
    page.wait_for_timeout(100)


def test_a_whole_conversation_of_hostile_text_is_harmless(page: Any) -> None:
    for text in ("\n\n".join(HOSTILE), HOSTILE[1]):
        page.get_by_label("Your question").fill(f"say {text}")
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Try again").last.wait_for()
    assert page.locator("article img, article script, article iframe, article style").count() == 0
    page.reload()
    page.get_by_role("button", name="Try again").last.wait_for()
    assert page.locator("article img, article script, article iframe, article style").count() == 0
    title = page.get_by_role("navigation").locator("li").first
    assert title.locator("img, script").count() == 0


GROW = """
async ([text, size]) => {
  const { GrowingMarkdown } = await import("/chat/static/markdown.js");
  const place = document.querySelector(".lmdeck-log").appendChild(document.createElement("div"));
  place.className = "lmdeck-text";
  let drawn;
  const markdown = new GrowingMarkdown(place, () => drawn?.());
  const whenDrawn = () => new Promise((resolve) => { drawn = () => { if (markdown.isDrawn) resolve(); }; });
  for (let at = 0; at < text.length; at += size) {
    const now = whenDrawn();
    markdown.add(text.slice(at, at + size));
    await now;
  }
  const end = whenDrawn();
  markdown.end();
  await end;
  const all = (selector) => [...place.querySelectorAll(selector)];
  const places = (row) => [...row.cells].map((cell) => Math.round(cell.getBoundingClientRect().left));
  const rows = all("tr");
  return {
    items: all("li").map((item) => item.textContent), loose: all("li > p").length,
    starts: all("ol").map((list) => [list.start, list.childElementCount]),
    cells: rows.map((row) => row.textContent), tables: all("table").length,
    columns: rows.length ? [places(rows[0]), places(rows.at(-1))] : [],
    chunks: all(".lmdeck-chunk").length, after: all("h2").length,
  };
}
"""


def grow(page: Any, text: str) -> dict[str, Any]:
    """Draw a text in pieces, below a first answer, so that the page shows it."""
    page.get_by_label("Your question").fill("say hello")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Try again").last.wait_for()
    drawn: dict[str, Any] = page.evaluate(GROW, [text, 2_000])
    return drawn


def test_a_long_list_is_numbered_through_its_chunks(page: Any) -> None:
    drawn = grow(page, "".join(f"{number}. item {number}\n" for number in range(3, 453)) + "\n9. loose\n\n## end")
    assert drawn["items"][:-1] == [f"item {number}" for number in range(3, 453)]
    assert drawn["starts"][0][0] == 3
    for (start, count), (following, _) in zip(drawn["starts"], drawn["starts"][1:], strict=False):
        assert following == start + count
    assert drawn["loose"] == len(drawn["items"]) == 451  # the blank line before the last item concerns all
    assert (drawn["chunks"], drawn["after"]) == (len(drawn["starts"]) - 1, 1)
    assert drawn["chunks"] >= 1


def test_a_long_table_keeps_its_columns_through_its_chunks(page: Any) -> None:
    head = "| name | a much longer heading | n |\n|---|---|---:|\n"
    drawn = grow(page, head + "".join(f"| row {number} | x | {number} |\n" for number in range(450)) + "\n## end")
    assert drawn["cells"][1:] == [f"row {number}x{number}" for number in range(450)]
    assert (drawn["tables"], drawn["after"]) == (1, 1)
    assert drawn["chunks"] >= 1
    assert drawn["columns"][0] == drawn["columns"][1]
