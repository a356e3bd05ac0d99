"""Have the model call a function: request the call, run it, and return the result."""

import json
import sys
from datetime import UTC, datetime, timedelta

import lmdeck

CLOCK = {
    "type": "function",
    "function": {
        "name": "time_in",
        "description": "Get the time at a UTC offset.",
        "parameters": {
            "type": "object",
            "properties": {"offset_hours": {"type": "integer", "minimum": -12, "maximum": 14}},
            "required": ["offset_hours"],
        },
    },
}


def time_in(offset_hours: int) -> str:
    return (datetime.now(UTC) + timedelta(hours=offset_hours)).strftime("%H:%M")


chat = lmdeck.chat().user("What time is it two hours east of Greenwich?").with_tools([CLOCK])
first = chat.with_tool_choice("required").with_options(max_tokens=100, temperature=0).send()

if not first.tool_calls:  # a model may answer with text all the same
    sys.exit(f"{first.model} called no function, and answered: {first.content}")
call = first.tool_calls[0]
print("The model calls", call.name, call.arguments)
result = time_in(int(call.arguments["offset_hours"]))

answer = chat.with_messages([first.message]).tool_result(call, json.dumps({"time": result}))
print(
    answer.with_tool_choice("none").with_options(max_tokens=60).send().content
    or f"(no text; the tool returned {result})"
)
