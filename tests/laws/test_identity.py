# ruff: noqa: E501 - a table of pieces
"""Text that is neither a call nor reasoning comes back unchanged."""

from __future__ import annotations

import random

import pytest

from laws.documents import OWN, installed
from laws.material import PLAIN_LITERALS, TOOLS, cut
from lmdeck import StreamParser, parse
from lmdeck.testing import FakeLMStudio

pytestmark = pytest.mark.no_cover  # the same lines on thousands of texts: measured, they would take three times as long

DOCUMENTS = 250
WORDS = (
    "the", "answer", "is", "42", "and", "<p>", "</p>", "<li>one</li>", "a < b", "x > y", "`code`", "*", "\n", "\n\n", "  ", "{", "}",
    '{"a": 1}', "[1]", "[x](y)", "save", "look(place='x')", '"quoted"', "don't", "|", "\n| a | b |\n", "\n- item\n", "\n> quote\n", "é",
    "\n    code\n", "&lt;", "<br/>", "<!-- -->", "\n# Title\n", "(", ")", ":", ";", "0.5", "https://example.org/?a=1&b=<c>", "\t", "]",
)  # fmt: skip
OPENERS = ("<think", "</think", "Here are my", "Here is my thought", "Here's my thought")


def assert_identity(text: str, seed: int, *, with_tools: bool = True) -> None:
    """With and without tools, whole and in pieces."""
    for tools in (None, TOOLS) if with_tools else (None,):
        parser = StreamParser(tools)
        chunks = [chunk for part in cut(text, random.Random(seed)) for chunk in parser.feed(part)] + parser.finish()
        for parsed in (parse(text, tools), parser.result):
            assert parsed.content == text.strip()
            codes = {problem.code for problem in parsed.problems} - {
                "reasoning_unopened"
            }  # says so, and changes nothing
            assert (parsed.reasoning, parsed.tool_calls, codes) == ("", [], set())
        assert "".join(chunk.content for chunk in chunks).strip() == text.strip()


@pytest.mark.parametrize("name", OWN)
def test_documents_that_look_like_markup_come_back(name: str) -> None:
    assert_identity(OWN[name], 1)


def test_documents_of_installed_packages_come_back() -> None:
    """README, HTML, JSON, LaTeX, code and whatever else is there."""
    seen = 0
    for name, text in installed(DOCUMENTS, step=37):
        seen += 1
        for tools in (None, TOOLS):
            parsed = parse(text, tools)
            assert parsed.content == text.strip(), name
            assert (parsed.reasoning, parsed.tool_calls, parsed.problems) == ("", [], []), name
    assert seen >= 50


def test_generated_text_with_literals_of_dialects_comes_back() -> None:
    """No tools are offered; what could be a tag of some dialect is a word like any other."""
    rng = random.Random(5)
    for number in range(1500):
        words = [
            rng.choice(PLAIN_LITERALS) if rng.random() < 0.3 else rng.choice(WORDS) for _ in range(rng.randrange(2, 30))
        ]
        text = rng.choice(("", " ")).join(words)
        if not text.lstrip().startswith(OPENERS):
            assert_identity(text, number, with_tools=False)


@pytest.mark.parametrize(
    "text",
    [
        "The parser looks for <|START_THINKING|> and stops at <|END_THINKING|> in the text.",
        "Kimi-VL writes (◁think▷ … ◁/think▷) around it.",
        "Apertus has <|inner_prefix|> and <|inner_suffix|> for that.",
        "// thinking when we see <|channel>. The model ends it with <channel|> later",
        'let input = r"<|START_THINKING|>\\nLet me<|END_THINKING|>";',
        "It uses <ifm|think>, then </ifm|think> and <|end|> last.",
    ],
)
def test_prose_about_the_tags_of_reasoning_is_content_without_tools(text: str) -> None:
    assert_identity(text, 3, with_tools=False)


@pytest.mark.parametrize("name", OWN)
def test_a_client_hands_on_what_the_server_sent(name: str) -> None:
    """`send()` and `stream()`, without tools, give what `parse()` gives."""
    with FakeLMStudio() as fake:
        fake.reply(OWN[name]).reply(OWN[name])
        chat = fake.client().chat().user("a")
        assert chat.send().content == OWN[name].strip()
        with chat.stream() as stream:
            assert "".join(chunk.content for chunk in stream).strip() == OWN[name].strip()
