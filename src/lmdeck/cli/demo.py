"""`lmdeck demo`: a conversation with a small real model in this process.

It runs through the complete library.
"""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.live import Live
from rich.text import Text

from lmdeck._client.chat import Chat
from lmdeck._client.clients import LMStudio
from lmdeck._client.stream import ChatStream
from lmdeck.cli.demo_faults import show_faults
from lmdeck.cli.engine import pull_with_progress
from lmdeck.cli.plain_output import safe
from lmdeck.cli.terminal import console, stats_line
from lmdeck.cli.waiting import waiting
from lmdeck.engine import EngineServer
from lmdeck.errors import LMStudioError, ToolArgumentsError

QUESTION = "Tell me a short story about a fox and a lighthouse."
TOOL_QUESTION = "What time is it two hours east of Greenwich?"
CLOCK: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "time_at_offset",
        "description": "Get the current time at a UTC offset in hours.",
        "parameters": {
            "type": "object",
            "properties": {"offset_hours": {"type": "integer", "minimum": -12, "maximum": 14}},
            "required": ["offset_hours"],
            "additionalProperties": False,
        },
    },
}


def demo() -> None:
    """Run a conversation with a small real model, without LM Studio.

    A fake server then shows two faults of real servers, and how openai-python and lmdeck handle them.
    """
    path = pull_with_progress()
    with waiting("loading the model"):
        server = EngineServer.start(path)
    with server, LMStudio(base_url=server.base_url, model=server.model) as lm:
        _heading(f"1. A streamed answer from {server.model}, running inside Python")
        _stream(lm.chat().user(QUESTION).with_options(max_tokens=120, temperature=0))
        threading.Thread(target=_process_prompt, args=(lm.base_url,), daemon=True).start()
        _heading("2. Two faults of real servers, sent by a fake one")
        show_faults()
        _heading("3. A tool call by the model, and the tool that it runs")
        _call(lm)
    _heading("4. The same with LM Studio")
    console.print("Start its server (`lms server start`, or the Developer tab) and run:")
    console.print(Text("  lmdeck doctor\n  lmdeck chat", style="bold"))
    console.print("In Python:")
    console.print(Text('  import lmdeck\n  print(lmdeck.chat().user("Hello").send())', style="bold"))


def _process_prompt(base_url: str) -> None:
    """Let the engine process the long prompt of the tools while the user reads.

    The engine caches the prefix that prompts share.
    """
    with suppress(LMStudioError), LMStudio(base_url=base_url) as lm:  # the later call reports the error
        lm.chat().with_tools([CLOCK]).user("Hello").with_options(max_tokens=1, temperature=0).send()


def _heading(text: str) -> None:
    console.print()
    console.print(Text(text, style="bold cyan"))


def _stream(chat: Chat) -> None:
    """Show a streamed answer with its speed; without a terminal, only the answer."""
    console.print(Text(f"> {QUESTION}", style="dim"))
    with ExitStack() as stack:
        with waiting("waiting for the first token"):
            stream = stack.enter_context(chat.stream())
        if console.is_terminal:
            _show_with_speed(stream)
        else:
            console.print(safe("".join(stream.text())), markup=False)
    console.print(stats_line(stream.reply))


def _show_with_speed(stream: ChatStream) -> None:
    shown, pieces, start = Text(), 0, time.monotonic()
    with Live(shown, console=console, refresh_per_second=12, vertical_overflow="visible") as live:
        for text in stream.text():
            pieces += 1
            shown.append(safe(text))
            speed = pieces / max(time.monotonic() - start, 0.001)
            live.update(Text.assemble(shown, (f"\n{speed:.0f} tokens/s", "dim")))
        live.update(shown)


def _call(lm: LMStudio) -> None:
    console.print(Text(f"> {TOOL_QUESTION}", style="dim"))
    chat = lm.chat().user(TOOL_QUESTION).with_tools([CLOCK])
    with waiting("waiting for the tool call"):
        reply = chat.with_tool_choice("required").with_options(max_tokens=60, temperature=0).send()
    call = reply.tool_calls[0]
    console.print(Text.assemble("the model calls    ", (f"{call.name}({safe(call.raw_arguments)})", "bold")))
    console.print(Text.assemble("the tool returns   ", (_time_at_offset(call.arguments), "bold")))
    console.print(stats_line(reply))


def _time_at_offset(arguments: dict[str, Any]) -> str:
    hours = arguments.get("offset_hours")
    if not isinstance(hours, int) or not -12 <= hours <= 14:
        raise ToolArgumentsError(f"offset_hours is {hours!r}, not an integer from -12 to 14.", errors=["offset_hours"])
    return (datetime.now(UTC) + timedelta(hours=hours)).strftime("%H:%M")
