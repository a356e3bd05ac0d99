"""Write the table of clients in `docs/clients/index.md` from a run of `tests/frameworks`.

    python -m pytest tests/frameworks --junitxml clients.xml
    python scripts/client_table.py clients.xml [--write docs/clients/index.md]

A cell has a tick where all its tests pass, a cross where one fails, and a dash where the client has no such call.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree as ET

COLUMNS = {
    "test_a_whole_answer_is_itself": "text",
    "test_a_call_in_the_text_is_a_call": "call in the text",
    "test_broken_arguments_are_mended": "broken arguments",
    "test_half_an_answer_is_an_error": "cut, empty, overflow",
    "test_a_tool_can_be_demanded_by_name": "named tool",
    "test_the_second_round_is_accepted": "second tool round",
    "test_json_can_be_asked_for": "json_object",
    "test_json_in_the_reasoning_is_found_where_json_was_asked_for": "JSON in the reasoning",
    "test_embeddings_are_numbers": "embeddings",
}
NAMES = {
    "OpenAIClient": "openai",
    "AnthropicClient": "anthropic",
    "PydanticAI": "pydantic-ai",
    "LangChain": "langchain",
    "Instructor": "instructor",
    "OpenAIAgents": "openai-agents",
    "LiteLLM": "LiteLLM",
    "DSPy": "DSPy",
    "LLM": "`llm`",
    "AISDK": "AI SDK, `@ai-sdk/openai-compatible`",
    "AISDKResponses": "AI SDK, `@ai-sdk/openai`",
    "AISDKAnthropic": "AI SDK, `@ai-sdk/anthropic`",
    "OpenAINode": "openai (Node)",
    "AnthropicNode": "`@anthropic-ai/sdk` (Node)",
}
MARKED = re.compile(r"(<!-- clients -->\n).*?(\n<!-- /clients -->)", re.DOTALL)


def main() -> None:
    """Read the outcomes and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outcomes", type=Path, help="the file that pytest wrote with --junitxml")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the table between the markers of this page")
    options = parser.parse_args()
    cells = read(options.outcomes)
    lines = [f"| client | {' | '.join(COLUMNS.values())} |", f"|---{'|---' * len(COLUMNS)}|"]
    lines += [
        f"| {name} | {' | '.join(_mark(cells[client].get(column, [])) for column in COLUMNS)} |"
        for client, name in NAMES.items()
    ]
    table = "\n".join(lines)
    print(table)
    if options.write:
        page = options.write.read_text(encoding="utf-8")
        options.write.write_text(MARKED.sub(lambda marks: f"{marks[1]}{table}{marks[2]}", page), encoding="utf-8")


def read(path: Path) -> dict[str, dict[str, list[str]]]:
    """Return the outcomes of each client's tests, by the test's name."""
    cells: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for case in ET.parse(path).iter("testcase"):  # noqa: S314  # pytest wrote it
        name, _, rest = str(case.get("name")).partition("[")
        if name not in COLUMNS:
            continue
        client = next(part for part in rest.rstrip("]").split("-") if part[:1].isupper())
        skipped = case.find("skipped")
        if skipped is not None:
            if "NOT TESTED" in str(skipped.get("message")):
                raise SystemExit(f"{client} was not tested: install the group `frameworks`.")
            continue
        failed = case.find("failure") is not None or case.find("error") is not None
        cells[client][name].append("✗" if failed else "✓")
    return cells


def _mark(outcomes: list[str]) -> str:
    return "–" if not outcomes else min(outcomes, key="✗✓".index)


if __name__ == "__main__":
    main()
