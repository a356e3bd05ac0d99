"""The README and the pages are true: every Python block in them runs, and every setting the README lists exists."""

from __future__ import annotations

import builtins
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from flask import Flask

import lmdeck
from lmdeck._encoders.backend_events import Finished
from lmdeck.contrib.flask import LMDeck
from lmdeck.server.app import create_app
from lmdeck.server.jobs import Decided, Embedded, EmbeddingJob, EngineRuntime, Instance, ModelDescription
from lmdeck.server.serve import BackgroundServer
from lmdeck.server.sockets import listen
from lmdeck.server.text_model import TextOnly
from lmdeck.server.tool_use import DefaultToolUse
from lmdeck.web.background_loop import iterate

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

    from lmdeck.server.text_model import Generation, LetterChoice, Piece

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_RUN = {
    "adding-a-dialect.md",  # it shows pieces of a file, which `tests/dialects` has whole
    "django.md",  # `tests/contrib/django` runs it, in a project
    "ray.md",  # `tests/on_ray` runs it on a cluster, and `tests/batch/test_ask.py` without one
    "jupyter.md", "debugging.md", "engine.md",  # `test_journeys` runs them: cells of a notebook, and programs
}  # fmt: skip
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
SNIPPETS = [
    (page.name, number, text)
    for page in PAGES if page.name not in NOT_RUN
    for number, text in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")))
    if "localhost:4000" not in text  # the gateway's address: `tests/gateway` has its clients
]  # fmt: skip
CALL = '[TOOL_REQUEST]{"name": "get_weather", "arguments": {"city": "Paris"}}[END_TOOL_REQUEST]'


class Model(TextOnly):
    """A model that says hello, and calls a tool where it must."""

    runtime = EngineRuntime(name="test", version="1")

    def models(self) -> tuple[ModelDescription, ...]:
        return (
            ModelDescription(
                key="qwen2.5-7b-instruct",
                display_name="Qwen",
                decides=True,
                instances=(Instance(id="qwen2.5-7b-instruct", context_length=4096),),
            ),
            ModelDescription(key="text-embedding", display_name="Embedder", type="embeddings"),
        )

    async def embed(self, job: EmbeddingJob) -> Embedded:
        vectors = tuple((float(len(text)), 1.0) for text in job.texts)
        return Embedded(vectors=vectors, prompt_tokens=len(vectors))

    async def decide(self, model: str, choices: Sequence[LetterChoice]) -> Decided:
        even = tuple(tuple(1 / len(each.letters) for _ in each.letters) for each in choices)
        return Decided(distributions=even, prompt_tokens=5)

    async def generate(self, job: Generation) -> AsyncGenerator[Piece, None]:
        yield CALL if job.constraint else "Hello"
        yield Finished(stop_reason="eosFound", prompt_tokens=5, completion_tokens=3)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with BackgroundServer(create_app(DefaultToolUse(Model())), listen()) as running:
        monkeypatch.setenv("LMDECK_BASE_URL", running.base_url)
        yield running.base_url


def test_the_readme_has_snippets() -> None:
    """The pattern that finds them still does."""
    assert len(SNIPPETS) >= 8


@pytest.mark.parametrize(
    ("page", "number", "snippet"), SNIPPETS, ids=[f"{page}-{number}" for page, number, _ in SNIPPETS]
)
def test_snippet_runs(
    page: str,
    number: int,
    snippet: str,
    server: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A reader who copies a block gets an answer, or at least no error where it prints nothing."""
    name = f"snippet_{page.partition('.')[0].replace('-', '_')}_{number}"
    module = ModuleType(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "Say hello."}\n')
    (tmp_path / "gateway.toml").write_text(f'[[hosts]]\nname = "one"\nurl = "{server}"\n')
    if "import pandas" in snippet:
        pytest.importorskip("pandas")
    monkeypatch.setitem(sys.modules, name, module)  # where dataclasses look their annotations up
    exec(compile(snippet, page, "exec"), module.__dict__)
    said = capsys.readouterr().out
    call_routes(getattr(module, "app", None))
    assert bool(said) == bool(re.search(r"\bprint\(", snippet))
    if page == "README.md":
        assert re.search(r"Hello|get_weather|Greeting", said)


def call_routes(app: object) -> None:
    """Get every page of an application that has no parameter in its path: none may fail."""
    query = {"q": "Hello", "text": "Hello"}
    if isinstance(app, Flask):
        paths = [rule.rule for rule in app.url_map.iter_rules() if "GET" in (rule.methods or ()) and not rule.arguments]
        answers = [(path, app.test_client().get(path, query_string=query)) for path in paths]
        for _, answer in answers:
            answer.get_data()
        list(iterate(_closed(app.extensions["lmdeck"])))
    elif isinstance(app, FastAPI):
        with TestClient(app, base_url="http://localhost") as client:
            paths = [
                str(route.path)
                for route in app.routes
                if "GET" in getattr(route, "methods", ()) and "{" not in route.path
            ]
            answers = [(path, client.get(path, params=query)) for path in paths]
    else:
        return
    assert answers
    assert [(path, answer.status_code) for path, answer in answers if answer.status_code >= 500] == []


async def _closed(extension: LMDeck) -> AsyncGenerator[bytes, None]:
    """Close an application's clients on the loop that they used."""
    extension.client.close()
    await extension.streaming_client.aclose()
    yield b""


def test_every_setting_is_listed() -> None:
    """The table of settings has every keyword of the client, and the README names no other."""
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert not [name for name in lmdeck.Settings.__struct_fields__ if f"`{name}`" not in page]
    section = README.partition("## Settings")[2].partition("\n## ")[0]
    keywords = set(re.findall(r"`([a-z_]+)`", section)) - {"localhost"}
    assert keywords >= {"host", "base_url", "model", "api_token"}
    assert keywords <= set(lmdeck.Settings.__struct_fields__)


def test_errors_of_the_readme_exist() -> None:
    """The page of errors lists every one; the README shows some."""
    named = set(re.findall(r"\w+Error\b", README)) - set(dir(builtins))
    assert {"LMStudioError", "ServerUnreachableError", "ContextLengthError"} <= named <= set(dir(lmdeck))


def test_every_rule_is_explained() -> None:
    """`docs/rules.md` has a row for each."""
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "rules.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == list(lmdeck.rules())
