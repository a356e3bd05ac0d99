"""Two faults of real servers in `lmdeck demo`, and how openai-python and lmdeck handle each."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from rich.table import Table
from rich.text import Text

from lmdeck._client.clients import LMStudio
from lmdeck.cli.plain_output import safe
from lmdeck.cli.terminal import console
from lmdeck.errors import LMStudioError
from lmdeck.testing import FakeLMStudio

MODEL = "qwen2.5-7b-instruct"
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
WRITTEN_CALL = "<tool_call>\n{'name': 'get_weather', 'arguments': {\"city\": \"Paris\",}}"
STORY = "The fox looked up at the lighthouse, and decided to climb it."
NOT_INSTALLED = "(not installed: pip install openai)"


def show_faults() -> None:
    """Show both faults in a table."""
    table = Table(show_lines=True, header_style="bold")
    for column in ("", "openai-python", "lmdeck"):
        table.add_column(column, overflow="fold", ratio=1)
    with FakeLMStudio(cuts=False) as fake, fake.client() as lm:
        for what, theirs, ours in (
            (
                "The model writes a tool call as text: no end tag, wrong quotes, an extra comma.",
                _their_call,
                _our_call,
            ),
            ("The stream ends in the middle of the answer.", _their_stream, _our_stream),
        ):
            shown = theirs(fake) if find_spec("openai") else NOT_INSTALLED
            table.add_row(what, Text(safe(shown), "red"), Text(safe(ours(fake, lm)), "green"))
    console.print(table)


def _our_call(fake: FakeLMStudio, lm: LMStudio) -> str:
    fake.reply(WRITTEN_CALL)
    reply = lm.chat(MODEL).user("The weather in Paris?").with_tools([WEATHER]).send()
    calls = [f"{call.name}({call.raw_arguments})" for call in reply.tool_calls]
    return f"tool_calls: {', '.join(calls)}\nproblems: {', '.join(problem.code for problem in reply.problems)}"


def _their_call(fake: FakeLMStudio) -> str:
    fake.reply(WRITTEN_CALL)
    with _openai(fake) as client:
        messages = [{"role": "user", "content": "The weather in Paris?"}]
        answer = client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER]).choices[0].message
    return f"tool_calls: {answer.tool_calls}\ncontent: {answer.content}"


def _our_stream(fake: FakeLMStudio, lm: LMStudio) -> str:
    fake.fail("early_end", reply=STORY, after_chunks=8)
    try:
        return lm.chat(MODEL).user("Tell me a story.").stream(lambda _: None).content
    except LMStudioError as error:
        received = error.partial.content if error.partial else ""
        return f"{type(error).__name__}: {error.message}\npartial: {received!r}"


def _their_stream(fake: FakeLMStudio) -> str:
    fake.fail("early_end", reply=STORY, after_chunks=8)
    with _openai(fake) as client:
        messages = [{"role": "user", "content": "Tell me a story."}]
        chunks = list(client.chat.completions.create(model=MODEL, messages=messages, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    return f"no error; this looks like the complete answer: {text!r}"


def _openai(fake: FakeLMStudio) -> Any:
    import openai  # imported late: it is optional, and slow to import

    return openai.OpenAI(base_url=f"{fake.base_url}/v1", api_key="lm-studio", max_retries=0)
