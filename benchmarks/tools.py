"""What a tool costs before and after it runs: arguments decoded, checked and typed, the handler called, the result as text.

    python benchmarks/tools.py [--calls N]

Beside pydantic-ai (its function schema: validate, call) and openai's helper (`pydantic_function_tool` arguments into a model,
then the call), in one interleaved run. They do not do the same work: openai, for example, writes no result text.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from typing import Literal

import openai
import pydantic
from openai.lib._parsing._completions import parse_function_tool_arguments
from pydantic_ai.tools import Tool as PydanticTool

import lmdeck
from lmdeck._agent.tool_calls import PreparedCall, finished, prepare
from lmdeck.messages import ToolCall


class Place(pydantic.BaseModel):
    city: str
    zip: int | None = None


def weather(place: Place, days: int = 1, unit: Literal["c", "f"] = "c") -> dict[str, object]:
    """Get the weather."""
    return {"city": place.city, "days": days, "unit": unit}


class WeatherArguments(pydantic.BaseModel):
    place: Place
    days: int = 1
    unit: Literal["c", "f"] = "c"


RAW = json.dumps({"place": {"city": "Rome", "zip": 12}, "days": 3, "unit": "f"})


def with_lmdeck(calls: int) -> None:
    tools = {"weather": lmdeck.tool(weather)}
    for _ in range(calls):
        ready = prepare(ToolCall(id="1", name="weather", arguments=json.loads(RAW), raw_arguments=RAW), tools)
        assert isinstance(ready, PreparedCall)
        finished(ready, ready.tool.handler(**ready.arguments), 0.0)


def with_pydantic_ai(calls: int) -> None:
    schema = PydanticTool(weather, takes_ctx=False).function_schema

    async def main() -> None:
        for _ in range(calls):
            result = schema.function(**schema.validator.validate_json(RAW))
            json.dumps(result)

    asyncio.run(main())


def with_openai(calls: int) -> None:
    tool = openai.pydantic_function_tool(WeatherArguments, name="weather")
    function = {"name": "weather", "arguments": RAW}
    for _ in range(calls):
        made = parse_function_tool_arguments(input_tools=[tool], function=openai_function(function))
        assert isinstance(made, WeatherArguments)
        weather(**{name: getattr(made, name) for name in WeatherArguments.model_fields})


def openai_function(fields: dict[str, str]):
    from openai.types.chat.chat_completion_message_function_tool_call import Function

    return Function(**fields)


WAYS = {"lmdeck": with_lmdeck, "pydantic-ai": with_pydantic_ai, "openai": with_openai}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--calls", type=int, default=2000)
    options.add_argument("--rounds", type=int, default=7)
    args = options.parse_args()
    figures: dict[str, list[float]] = {name: [] for name in WAYS}
    for run in WAYS.values():
        run(10)
    for _ in range(args.rounds):
        for name, run in WAYS.items():
            begin = time.process_time()
            run(args.calls)
            figures[name].append((time.process_time() - begin) / args.calls * 1e6)
    for name, values in figures.items():
        print(f"{name:14} {statistics.median(values):8.1f} µs a call")


if __name__ == "__main__":
    main()
