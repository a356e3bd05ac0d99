"""Two tools and a run: the model calls one, then answers. Prints what happens, then the answer."""

from typing import Literal

import lmdeck
from lmdeck import Chunk, RoundFinished, ToolCallInvalid, ToolExecutionFailed, ToolFinished, ToolStarted


@lmdeck.tool
def get_weather(city: str, unit: Literal["celsius", "fahrenheit"] = "celsius") -> dict[str, object]:
    """Get the current weather in a city."""
    return {"city": city, "temperature": 21 if unit == "celsius" else 70, "sky": "clear"}


@lmdeck.tool
def get_time(city: str) -> str:
    """Get the local time of a city."""
    return f"It is half past nine in {city}."


chat = (
    lmdeck.chat()
    .user("What is the weather and the time in Paris?")
    .with_tools([get_weather, get_time])
    .with_tool_choice("required")
    .with_options(temperature=0, max_tokens=120)
)
with chat.run_stream(max_rounds=4) as run:
    for event in run:
        match event:
            case ToolStarted(call=call):
                print(f"running   {call.name} {call.arguments}")
            case ToolFinished(result=result) | ToolExecutionFailed(result=result):
                print(f"result    {result.content}")
            case ToolCallInvalid(call=call, error=error):
                print(f"invalid   {call.name}: {error.message}")
            case RoundFinished(round=number, reply=reply):
                print(
                    f"round {number}   {reply.finish_reason}, {reply.usage.total_tokens if reply.usage else '?'} tokens"
                )
            case Chunk():
                pass
print(run.reply.content)
