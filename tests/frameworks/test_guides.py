"""The guides in `docs/clients/` are true: their code runs, with the real packages, against a fake."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from lmdeck.contrib.asgi import RepairProxy
from lmdeck.server.serve import BackgroundServer
from lmdeck.server.sockets import listen
from lmdeck.testing import Answer, FakeLMStudio
from lmdeck.testing.scripted_answers import PlannedCall

FOLDER = Path(__file__).parents[2] / "docs" / "clients"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
GUIDES = [
    (page.stem, number, text)
    for page in sorted(FOLDER.glob("*.md"))
    for number, text in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")))
]
SAID = re.compile(r"Paris|21|^\d+$", re.MULTILINE)
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(120)]


def answer(request: Any) -> Any:
    """Call the tool that is offered, then answer; JSON where it is asked for, as DSPy does in words."""
    tools = request.body.get("tools")
    if tools and not any(message.get("role") == "tool" for message in request.body["messages"]):
        call = PlannedCall(name=tools[0]["function"]["name"], arguments={"city": "Paris"})
        return Answer(calls=(call,), dialect="qwen3-coder-xml")
    if "[[ ## " in str(request.body):
        return "[[ ## city ## ]]\nParis\n\n[[ ## completed ## ]]"
    return "It is 21 °C in Paris."


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLMStudio]:
    with FakeLMStudio(seed=0, strict=False) as server:
        monkeypatch.setenv("LMDECK_BASE_URL", server.base_url)
        for _ in range(4):
            server.respond(answer)
        yield server
        server.forget_answers()


def test_there_is_a_guide_for_each_client() -> None:
    names = "anthropic dspy index instructor langchain litellm llm openai openai-agents pydantic-ai"
    assert sorted({name for name, _, _ in GUIDES}) == names.split()


@pytest.mark.parametrize(("name", "number", "code"), GUIDES, ids=[f"{name}-{number}" for name, number, _ in GUIDES])
def test_a_guide_runs(
    name: str,
    number: int,
    code: str,
    fake: FakeLMStudio,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    needed = re.findall(r"^(?:from|import) (\w+)", code, re.MULTILINE)
    missing = [package for package in needed if find_spec(package) is None]
    if missing:
        pytest.skip(f"NOT TESTED: {missing[0]} is not installed (pip install --group frameworks)")
    with BackgroundServer(RepairProxy(base_url=fake.base_url), listen(), lifespan=True) as proxy:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{proxy.base_url}/v1")
        exec(compile(code.replace("http://localhost:1234", fake.base_url), f"{name}.md", "exec"), {"__name__": "guide"})
    assert SAID.search(capsys.readouterr().out)
