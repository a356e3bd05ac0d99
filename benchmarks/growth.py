"""Which costs grow with which size. None may grow faster than its size: the exponent fits the larger half of the sizes.

The length of the answer, the number of tools, of messages and of handlers: CPU of one request over a handler that answers
from memory, so that only lmdeck's own work is measured. The chunks of a stream and the streams at once are read from the stub,
beside bare sockets. The sizes take turns in each round, and the least of the rounds counts.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable
from typing import Any

import stub
from lmdeck import Chat, LMStudio
from lmdeck.handlers import Call, Handler, Plan, R, ResponseStream
from measure import Running
from results import Growth

SIZES = {
    "answer": (2_000, 8_000, 32_000, 128_000),
    "tools": (4, 16, 64, 256),
    "messages": (16, 64, 256, 1024),
    "handlers": (1, 4, 16, 64),
    "chunks": (1_000, 4_000, 16_000, 64_000),
    "streams": (1, 4, 16, 64, 250, 1_000, 2_000),
}
TITLES = {
    "answer": "Characters of a whole answer",
    "tools": "Tools offered in a request",
    "messages": "Messages of a conversation",
    "handlers": "Handlers of a client",
    "chunks": "Chunks of a stream",
    "streams": "Streams at once, 100 chunks a second each",
}
BESIDE = {"lmdeck, async": "lmdeck", "sockets + msgspec, async": "sockets + msgspec"}
SHORTEST = 0.02  # the least seconds of CPU of a round of a small size


class Replayed:
    """A handler that answers every request with the same text."""

    def __init__(self, inner: Handler, text: str) -> None:
        self._body = json.dumps(
            {"choices": [{"index": 0, "finish_reason": "stop", "message": {"content": text}}], "model": "m"}
        ).encode()

    def __call__(self, call: Call[R]) -> Plan[ResponseStream[R]]:
        """Answer without a server."""
        yield from ()
        return ResponseStream.replay(call, 200, {"content-type": "application/json"}, self._body)


class Passing:
    """A handler that does nothing."""

    def __init__(self, inner: Handler) -> None:
        self._inner = inner

    def __call__(self, call: Call[R]) -> Plan[ResponseStream[R]]:
        """Run the next handler."""
        return (yield from self._inner(call))


def tool(number: int) -> dict[str, Any]:
    """Return a tool with a nested schema."""
    days = {"type": "array", "items": {"type": "object", "properties": {"day": {"type": "integer"}}}}
    properties = {"city": {"type": "string", "description": "Where"}, "days": days}
    parameters = {"type": "object", "properties": properties, "required": ["city"]}
    return {"type": "function", "function": {"name": f"look_{number}", "parameters": parameters}}


def chat(text: str = "Well.", tools: int = 0, messages: int = 1, handlers: int = 0) -> Chat:
    """Return a chat of a client that answers from memory."""
    client = LMStudio(
        base_url="http://127.0.0.1:9", handlers=[*[Passing] * handlers, lambda inner: Replayed(inner, text)]
    )
    history = [{"role": "user" if at % 2 == 0 else "assistant", "content": stub.TEXT} for at in range(messages)]
    return client.chat("m").with_messages(history).with_tools(tool(each) for each in range(tools))


REQUESTS: dict[str, Callable[[int], Chat]] = {
    "answer": lambda size: chat(text=(stub.TEXT * (size // len(stub.TEXT) + 1))[:size]),
    "tools": lambda size: chat(tools=size),
    "messages": lambda size: chat(messages=size),
    "handlers": lambda size: chat(handlers=size),
}


def cpu_of(act: Callable[[], object], times: int = 1) -> float:
    """Return the microseconds of CPU of a call."""
    gc.collect()
    started = time.process_time_ns()
    for _ in range(times):
        act()
    return (time.process_time_ns() - started) / times / 1000


def repetitions(act: Callable[[], object]) -> int:
    """Return how often a call must be repeated to be measured; the first call warms up."""
    act()
    times = 1
    while cpu_of(act, times) * times < SHORTEST * 1e6:
        times *= 4
    return times


def of_requests(kind: str, rounds: int, *, quick: bool) -> Growth:
    """Return the cost of a request by a size of its own."""
    growth = Growth(kind, TITLES[kind], "µs of CPU per request")
    acts = {size: REQUESTS[kind](size).send for size in SIZES[kind][: 2 if quick else None]}
    times = {size: repetitions(act) for size, act in acts.items()}
    curve = growth.curves["lmdeck"] = {size: [] for size in acts}
    for _ in range(rounds):
        for size, act in acts.items():
            curve[size].append(cpu_of(act, times[size]))
    return growth


def of_streams(kind: str, running: list[Running], rounds: int, *, chunks: int, quick: bool) -> Growth:
    """Return the cost of streams by their length, or by their number with so many chunks in each."""
    growth = Growth(kind, TITLES[kind], "µs of CPU of all together")
    beside = {BESIDE[one.contender.key]: one for one in running if one.contender.key in BESIDE}

    def act(one: Running, size: int) -> None:
        if kind == "chunks":
            one.stream(size)
        else:
            one.stream_many(chunks, size)

    for one in beside.values():
        act(one, 1)
    for _ in range(rounds):
        for size in SIZES[kind][: 2 if quick else None]:
            for name, one in beside.items():
                cost = cpu_of(lambda one=one, size=size: act(one, size))
                growth.curves.setdefault(name, {}).setdefault(size, []).append(cost)
    return growth
