"""Every fault on the wire at every operation, sync and async: the right result or a typed error, in time, nothing left behind.

`make test` runs a sample of it, another one with `LMDECK_WIRE_SEED`; `make wire` runs all.
"""

from __future__ import annotations

import asyncio
import http.client
import inspect
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import pytest

from asking import SETTINGS, nothing_left_behind
from lmdeck import AsyncLMStudio, Health, LMStudio, LMStudioError, Reply
from lmdeck.testing import FakeLMStudio
from loopback import PATIENCE, Loopback, Request, Step
from wire_faults import ERROR, FAULTS, RIGHT, Whole

SAMPLE = os.environ.get("LMDECK_WIRE", "100")
SEED = int(os.environ.get("LMDECK_WIRE_SEED", "1"))
CHAT, TEXT = "/v1/chat/completions", "Hello there, Zoë 🙂."
LIST = "/api/v1/models /api/v0/models /v1/models"  # where one fails, the next is asked
EMBEDDER = "text-embedding-nomic-embed-text-v1.5"


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def run_of(client: Any) -> Any:
    return client.chat().user("Hi").with_tools([add]).run()


OPERATIONS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "send": (CHAT, lambda lm: lm.chat().user("Hi").send()),
    "stream": (CHAT, lambda lm: lm.chat().user("Hi").stream().until_done()),
    "run": (CHAT, run_of),
    "conversation.send": ("/api/v1/chat", lambda lm: lm.conversation().send("Hi")),
    "conversation.stream": ("/api/v1/chat", lambda lm: lm.conversation().stream("Hi").until_done()),
    "responses.create": ("/v1/responses", lambda lm: lm.responses.create(model="m", input="Hi")),
    "responses.stream": ("/v1/responses", lambda lm: lm.responses.stream(model="m", input="Hi").until_done()),
    "messages.create": (
        "/v1/messages",
        lambda lm: lm.messages.create(model="m", messages=[{"role": "user", "content": "Hi"}], max_tokens=99),
    ),
    "messages.stream": (
        "/v1/messages",
        lambda lm: lm.messages.stream(
            model="m", messages=[{"role": "user", "content": "Hi"}], max_tokens=99
        ).until_done(),
    ),
    "complete": ("/v1/completions", lambda lm: lm.complete("Hi")),
    "embed": ("/v1/embeddings", lambda lm: lm.embed("Hi", model=EMBEDDER)),
    "models.list": (LIST, lambda lm: lm.models.list()),
    "models.loaded": (LIST, lambda lm: lm.models.loaded()),
    "models.get": (LIST, lambda lm: lm.models.get("m")),
    "models.load": ("/api/v1/models/load", lambda lm: lm.models.load("m", force=True)),
    "models.unload": ("/api/v1/models/unload", lambda lm: lm.models.unload("m")),
    "health": (LIST, lambda lm: lm.health()),
}
CASES = [(fault, name, is_async) for fault in FAULTS for name in OPERATIONS for is_async in (False, True)]
TRIED = CASES if SAMPLE == "all" else random.Random(SEED).sample(CASES, int(SAMPLE))


class Matrix:
    """A fake that answers rightly, and in front of it what puts a fault on one path."""

    def __init__(self, fake: FakeLMStudio) -> None:
        self._fake = fake
        self._host = str(urlsplit(fake.base_url).netloc)
        self._right: dict[str, object] = {}

    def ask(self, fault: str, name: str, *, is_async: bool) -> object:
        """Perform an operation under a fault; return what it returns or the error that it raises."""
        path, operation = OPERATIONS[name]

        def answer(request: Request) -> list[Step]:
            whole = self._whole(request)
            return FAULTS[fault].steps(whole) if request.path in path.split() else [whole.head + whole.body]

        settings = {**SETTINGS, **FAULTS[fault].limits}
        with Loopback(answer) as server, nothing_left_behind():
            try:
                if is_async:
                    return asyncio.run(self._ask_async(operation, server.url, settings))
                with LMStudio(base_url=server.url, **settings) as client:
                    return operation(client)
            except LMStudioError as error:
                return error

    def right(self, name: str) -> object:
        """Return the right result of an operation."""
        if name not in self._right:
            self._right[name] = essence(self.ask("whole", name, is_async=False))
        return self._right[name]

    @staticmethod
    async def _ask_async(operation: Callable[[Any], Any], url: str, settings: dict[str, Any]) -> object:
        async with AsyncLMStudio(base_url=url, **settings) as client, asyncio.timeout(PATIENCE):
            result = operation(client)
            result = await result if inspect.isawaitable(result) else result
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return result

    def _whole(self, request: Request) -> Whole:
        self._fake.reset()
        self._fake.add_model("m")
        self._fake.when(lambda _: True).reply(TEXT)
        with closing(http.client.HTTPConnection(self._host, timeout=PATIENCE)) as connection:
            connection.request(request.method, request.path, request.body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return Whole(response.status, response.headers["content-type"], response.read())


def essence(result: object) -> object:
    """Return what of a result is the same each time."""
    for name in ("content", "text", "vectors", "key", "reachable"):
        if hasattr(result, name):
            return getattr(result, name)
    if isinstance(result, list):
        return [essence(each) for each in result]
    return result if isinstance(result, str) else type(result)


@pytest.fixture(scope="module")
def matrix() -> Iterator[Matrix]:
    with FakeLMStudio(seed=1) as fake:
        yield Matrix(fake)


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_is_right_without_a_fault(matrix: Matrix, name: str) -> None:
    """Else nothing below would mean anything."""
    for is_async in (False, True):
        result = matrix.ask("whole", name, is_async=is_async)
        assert not isinstance(result, LMStudioError), result
        assert essence(result) == matrix.right(name)
        if isinstance(result, Reply):
            assert result.content == TEXT


@pytest.mark.timeout(7200)
def test_every_fault_ends_in_the_right_result_or_a_typed_error(matrix: Matrix) -> None:
    """Whole content or an error with message and hint; a part of the content is in the error's `partial` alone."""
    outcomes: Counter[str] = Counter()
    wrong: list[str] = []
    for fault, name, is_async in TRIED:
        verdict = FAULTS[fault].verdict
        told = f"{fault!r} at {name} ({'async' if is_async else 'sync'}), to be {verdict}: "
        try:
            result = matrix.ask(fault, name, is_async=is_async)
        except Exception as error:  # an untyped error is what is looked for
            wrong.append(f"{told}{error!r}")
            continue
        if isinstance(result, Health):
            outcomes["health"] += 1
        elif isinstance(result, LMStudioError):
            outcomes[type(result).__name__] += 1
            partial = result.partial.content if result.partial is not None else ""
            if not (result.message and result.hint) or not TEXT.startswith(partial) or "\x1b" in str(result):
                wrong.append(f"{told}{result!r}, partial {partial!r}")
            if verdict == RIGHT:
                wrong.append(f"{told}{result!r}")
        else:
            outcomes["right"] += 1
            if verdict == ERROR or essence(result) != matrix.right(name):
                wrong.append(f"{told}{essence(result)!r}")
    print(
        f"\n{len(TRIED)} of {len(CASES)} runs, {len(FAULTS)} faults, seed {SEED}: {dict(outcomes)}, wrong: {len(wrong)}"
    )
    assert not wrong, "\n".join(wrong)
