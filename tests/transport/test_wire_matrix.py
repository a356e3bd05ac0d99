"""Every fault on the wire at every operation, sync and async: the right result or a typed error, in time, nothing left behind.

After it the same client gets the right result of the same operation, on whatever connection it has kept. `make test` runs a
sample of it, another one with `LMDECK_WIRE_SEED`; `make wire` runs all and prints a table. `LMDECK_WIRE` is a number of cells,
`all`, or names of faults with semicolons between them.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import inspect
import os
import random
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, TypedDict
from urllib.parse import urlsplit

import pytest

from asking import SETTINGS, nothing_left_behind
from lmdeck import AsyncChatRun, AsyncLMStudio, ChatRun, Health, LMStudio, LMStudioError, Reply, RequestTimeoutError
from lmdeck.testing import FakeLMStudio, SentRequest
from loopback import HANG, PATIENCE, Loopback, Request, Step
from wire_faults import ERROR, FAULTS, GROUPS, RIGHT, TOKEN, TWINS, Fault, Whole

SAMPLE = os.environ.get("LMDECK_WIRE", "100")
SEED = int(os.environ.get("LMDECK_WIRE_SEED", "1"))
CHAT, TEXT, JSON = "/v1/chat/completions", "Hello there, Zoë 🙂.", '{"name": "Zoë 🙂"}'
LIST = "/api/v1/models /api/v0/models /v1/models"  # where one fails, the next is asked
EMBEDDER = "text-embedding-nomic-embed-text-v1.5"
RESPONSE: dict[str, Any] = {"model": "m", "input": "Hi"}
MESSAGE: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 99}
MANAGEMENT = "/api/v1/models"


class Named(TypedDict):
    name: str


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def is_after_tool(request: Request) -> bool:
    return bool(request.json["messages"][-1]["role"] == "tool")


def reply_of(run: ChatRun | AsyncChatRun) -> Any:
    """Read a run to its end; return its reply, or what is to be awaited for it."""
    if isinstance(run, AsyncChatRun):
        return reply_of_async(run)
    for _ in run:
        pass
    return run.reply


async def reply_of_async(run: AsyncChatRun) -> Reply:
    async for _ in run:
        pass
    return run.reply


@dataclass(frozen=True)
class Operation:
    """An operation: the paths that it asks for, which of its requests meet the fault, and the text of its answer."""

    path: str
    begin: Callable[[Any], Any]
    meets_fault: Callable[[Request], bool] = lambda _: True
    text: str = TEXT
    stream: Callable[[Any], Any] | None = None


def streamed(path: str, stream: Callable[[Any], Any]) -> Operation:
    """Return an operation that reads a stream to its end."""
    return Operation(path, lambda lm: stream(lm).until_done(), stream=stream)


OPERATIONS: dict[str, Operation] = {
    "send": Operation(CHAT, lambda lm: lm.chat().user("Hi").send()),
    "stream": streamed(CHAT, lambda lm: lm.chat().user("Hi").stream()),
    "parse": Operation(CHAT, lambda lm: lm.chat().user("JSON").parse(Named), text=JSON),
    "run": Operation(CHAT, lambda lm: lm.chat().user("Hi").with_tools([add]).run()),
    "run, second round": Operation(CHAT, lambda lm: lm.chat().user("Add").with_tools([add]).run(), is_after_tool),
    "run_stream": Operation(CHAT, lambda lm: reply_of(lm.chat().user("Hi").with_tools([add]).run_stream())),
    "conversation.send": Operation("/api/v1/chat", lambda lm: lm.conversation().send("Hi")),
    "conversation.stream": streamed("/api/v1/chat", lambda lm: lm.conversation().stream("Hi")),
    "responses.create": Operation("/v1/responses", lambda lm: lm.responses.create(**RESPONSE)),
    "responses.stream": streamed("/v1/responses", lambda lm: lm.responses.stream(**RESPONSE)),
    "messages.create": Operation("/v1/messages", lambda lm: lm.messages.create(**MESSAGE)),
    "messages.stream": streamed("/v1/messages", lambda lm: lm.messages.stream(**MESSAGE)),
    "complete": Operation("/v1/completions", lambda lm: lm.complete("Hi")),
    "complete, streamed": streamed("/v1/completions", lambda lm: lm.complete("Hi", stream=True)),
    "embed": Operation("/v1/embeddings", lambda lm: lm.embed("Hi", model=EMBEDDER)),
    "models.list": Operation(LIST, lambda lm: lm.models.list()),
    "models.loaded": Operation(LIST, lambda lm: lm.models.loaded()),
    "models.get": Operation(LIST, lambda lm: lm.models.get("m")),
    "models.load": Operation(f"{MANAGEMENT}/load", lambda lm: lm.models.load("m", force=True)),
    "models.unload": Operation(f"{MANAGEMENT}/unload", lambda lm: lm.models.unload("m")),
    "models.download": Operation(f"{MANAGEMENT}/download", lambda lm: lm.models.download("new", wait=False)),
    "models.download_status": Operation(
        f"{MANAGEMENT}/download/status/job_new", lambda lm: lm.models.download_status("job_new")
    ),
    "health": Operation(LIST, lambda lm: lm.health()),
}
CASES = [(fault, name, is_async) for fault in FAULTS for name in OPERATIONS for is_async in (False, True)]


def tried() -> list[tuple[str, str, bool]]:
    """Return the cells that are run."""
    if SAMPLE.isdecimal():
        return random.Random(SEED).sample(CASES, int(SAMPLE))
    return [case for case in CASES if SAMPLE == "all" or case[0] in SAMPLE.split(";")]


class RightAnswers:
    """The answers of a fake, which answers equal requests with the same bytes."""

    def __init__(self, fake: FakeLMStudio) -> None:
        self._host = str(urlsplit(fake.base_url).netloc)
        self._fake = fake
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str, bytes], Whole] = {}

    def to(self, request: Request) -> Whole:
        """Return the answer to a request."""
        key = (request.method, request.path, request.body)
        with self._lock:
            if key not in self._known:
                self._known[key] = self._asked(request)
            return self._known[key]

    def _asked(self, request: Request) -> Whole:
        self._fake.reset()
        self._fake.add_model("m")
        self._fake.plan_download("new")
        self._fake.when(lambda sent: sent.last_user == "Add" and not has_result(sent)).tool_call("add", a=1, b=2)
        self._fake.when(lambda sent: sent.last_user == "JSON").reply(JSON)
        self._fake.when(lambda _: True).reply(TEXT)
        with closing(http.client.HTTPConnection(self._host, timeout=PATIENCE)) as connection:
            connection.request(request.method, request.path, request.body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return Whole(response.status, response.headers["content-type"], response.read())


class FaultyServer:
    """A server that puts a fault in front of one operation, and otherwise answers rightly."""

    def __init__(self, answers: RightAnswers, operation: Operation, fault: Fault) -> None:
        self._answers = answers
        self._operation = operation
        self._fault = fault
        self._unsettled: list[tuple[int, threading.Event]] = []
        self.is_broken = True
        self.count = 0  # of the requests that the fault is meant for
        self.loopback = Loopback(self._answer)

    @property
    def url(self) -> str:
        """Its address, under a name if looking it up is the fault."""
        return self.loopback.url.replace("127.0.0.1", "slow.test" if self._fault.is_slow_look_up else "127.0.0.1")

    def mend(self) -> None:
        """Answer rightly from now on, once everything that belongs to the fault was received."""
        self.is_broken = False
        for number, is_sent in self._unsettled:
            connection = self.loopback.connection(number)
            self.loopback.until(lambda: is_sent.is_set() or connection.has_left.is_set())  # noqa: B023  # called at once
            connection.wait_received()

    def _answer(self, request: Request) -> Iterable[Step]:
        whole = self._answers.to(request)
        right: list[Step] = [whole.head + whole.body]
        if request.path not in self._operation.path.split() or not self._operation.meets_fault(request):
            return right
        self.count += 1
        if not self.is_broken or (self._fault.first is not None and self.count > self._fault.first):
            return right
        return self._noted(request.connection, self._fault.steps(whole))

    def _noted(self, connection: int, steps: list[Step]) -> Iterator[Step]:
        if steps[-1] is not HANG:
            is_sent = threading.Event()
            self._unsettled.append((connection, is_sent))
            yield from steps  # up to one that ends the connection
            is_sent.set()
        else:
            yield from steps


class Matrix:
    """Ask through a server with faults."""

    def __init__(self, answers: RightAnswers) -> None:
        self._answers = answers
        self._right: dict[str, object] = {}

    def ask(self, fault: str, name: str, *, is_async: bool) -> tuple[object, object]:
        """Perform an operation under a fault, and again without it where the fault needs no limits.

        Return both results; each may be an error.
        """
        operation, kind = OPERATIONS[name], FAULTS[fault]
        settings = {**SETTINGS, "api_token": TOKEN, **kind.limits}
        server = FaultyServer(self._answers, operation, kind)
        looking_up = look_ups_hang() if kind.is_slow_look_up else contextlib.nullcontext()
        with nothing_left_behind(), server.loopback, looking_up:
            ask = self._ask_async if is_async else self._ask
            results = ask(operation, server, settings, is_once=bool(kind.limits))
        return results[0], results[-1]

    def right(self, name: str) -> object:
        """Return the right result of an operation."""
        if name not in self._right:
            self._right[name] = essence(self.ask("whole", name, is_async=False)[0])
        return self._right[name]

    @staticmethod
    def _ask(operation: Operation, server: FaultyServer, settings: dict[str, Any], *, is_once: bool) -> list[object]:
        with LMStudio(base_url=server.url, **settings) as client:
            results = [attempt(lambda: operation.begin(client))]
            if not is_once:
                server.mend()
                results.append(attempt(lambda: operation.begin(client)))
        return results

    @staticmethod
    def _ask_async(
        operation: Operation, server: FaultyServer, settings: dict[str, Any], *, is_once: bool
    ) -> list[object]:
        async def ask() -> list[object]:
            async with AsyncLMStudio(base_url=server.url, **settings) as client, asyncio.timeout(PATIENCE):
                results = [await attempt_async(lambda: operation.begin(client))]
                if not is_once:
                    server.mend()
                    results.append(await attempt_async(lambda: operation.begin(client)))
            assert asyncio.all_tasks() == {asyncio.current_task()}, "left behind: tasks"
            return results

        return asyncio.run(ask())


def has_result(sent: SentRequest) -> bool:
    """Whether the result of a tool is in a request."""
    return bool(sent.body["messages"][-1]["role"] == "tool")


def attempt(operation: Callable[[], object]) -> object:
    """Return the result of an operation, or its error."""
    try:
        return operation()
    except LMStudioError as error:
        return error


async def attempt_async(operation: Callable[[], Any]) -> object:
    """Return the result of an operation that may have to be awaited, or its error."""
    try:
        result = operation()
        return await result if inspect.isawaitable(result) else result
    except LMStudioError as error:
        return error


@contextmanager
def look_ups_hang() -> Iterator[None]:
    """Play a name server that does not answer; addresses are found as ever."""
    release, look_up = threading.Event(), socket.getaddrinfo

    def slow(host: Any, *args: Any, **options: Any) -> Any:
        if "slow.test" in str(host):
            release.wait(4 * PATIENCE)
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return look_up(host, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", slow)
        try:
            yield
        finally:
            release.set()


def essence(result: object) -> object:
    """Return what of a result is the same each time."""
    for name in ("content", "text", "vectors", "key", "reachable", "status"):
        if hasattr(result, name):
            return getattr(result, name)
    if isinstance(result, list):
        return [essence(each) for each in result]
    return result if isinstance(result, str | dict) else type(result)


OUTCOMES = ("right result", "typed error", "untyped error", "silently wrong", "leak", "hang")


def kind_of(error: Exception) -> str:
    """Return the kind of outcome of an error that is none of lmdeck's."""
    if isinstance(error, AssertionError) and "left behind" in str(error):
        return "leak"
    return "hang" if isinstance(error, TimeoutError) else "untyped error"


class Verdicts:
    """What is wrong with the outcomes of the cells, and how many there were of each kind."""

    def __init__(self, matrix: Matrix) -> None:
        self._matrix = matrix
        self._ends: dict[tuple[str, str, bool], object] = {}
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.wrong: list[str] = []

    def add(self, fault: str, name: str, *, is_async: bool) -> None:
        """Run a cell and judge it."""
        cell = f"{fault!r} at {name} ({'async' if is_async else 'sync'}), to be {FAULTS[fault].verdict}"
        try:
            result, after = self._matrix.ask(fault, name, is_async=is_async)
            right = self._matrix.right(name)
        except Exception as error:  # an untyped error is what is looked for
            self._count(fault, kind_of(error), f"{cell}: {error!r}")
            return
        if isinstance(result, Health):
            self._count(fault, "right result")
        elif isinstance(result, LMStudioError):
            self._judge_error(fault, name, result, cell)
        else:
            is_wrong = FAULTS[fault].verdict == ERROR or essence(result) != right
            self._count(
                fault, "silently wrong" if is_wrong else "right result", f"{cell}: {essence(result)!r}" * is_wrong
            )
        if not FAULTS[fault].limits and essence(after) != right:
            self.wrong.append(f"{cell}, the next request of the client: {after!r}")
        self._ends[fault, name, is_async] = end_of(result)

    def compare_twins(self) -> None:
        """Compare the ends of the same bytes in one and in two writes."""
        for (fault, name, is_async), end in self._ends.items():
            other = self._ends.get((TWINS.get(fault, ""), name, is_async), end)
            if other != end:
                self.wrong.append(f"{fault!r} at {name}: {end} in one write, {other} in two")

    def table(self) -> str:
        """Return the number of cells by group of faults and kind of outcome."""
        rows = [("faults", "number", *OUTCOMES), ("---",) * (len(OUTCOMES) + 2)]
        for group, faults in GROUPS.items():
            counts = [sum(self.outcomes[fault, outcome] for fault in faults) for outcome in OUTCOMES]
            rows.append((group, str(len(faults)), *map(str, counts)))
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)

    def _count(self, fault: str, outcome: str, wrong: str = "") -> None:
        self.outcomes[fault, outcome] += 1
        if wrong:
            self.wrong.append(wrong)

    def _judge_error(self, fault: str, name: str, error: LMStudioError, cell: str) -> None:
        partial = error.partial.content if error.partial is not None else ""
        is_complete = bool(error.message and error.hint) and OPERATIONS[name].text.startswith(partial)
        is_clean = "\x1b" not in str(error) and TOKEN not in f"{error!s} {error!r} {vars(error)}"
        is_late = isinstance(error, RequestTimeoutError) and not FAULTS[fault].limits
        is_wrong = not (is_complete and is_clean) or FAULTS[fault].verdict == RIGHT
        self._count(
            fault,
            "hang" if is_late else "typed error",
            f"{cell}: {error!r}, partial {partial!r}" * (is_wrong or is_late),
        )


def end_of(result: object) -> object:
    """Return how an operation ended."""
    if not isinstance(result, LMStudioError):
        return essence(result)
    return type(result), result.message, result.partial.content if result.partial is not None else None


@pytest.fixture(scope="module")
def answers() -> Iterator[RightAnswers]:
    with FakeLMStudio(seed=1) as fake:
        yield RightAnswers(fake)


@pytest.fixture(scope="module")
def matrix(answers: RightAnswers) -> Matrix:
    return Matrix(answers)


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_is_right_without_a_fault(matrix: Matrix, name: str) -> None:
    """Else nothing below would mean anything."""
    for is_async in (False, True):
        for result in matrix.ask("whole", name, is_async=is_async):
            assert not isinstance(result, LMStudioError), result
            assert essence(result) == matrix.right(name)
            if isinstance(result, Reply):
                assert result.content == TEXT


@pytest.mark.timeout(7200)
def test_every_fault_ends_in_the_right_result_or_a_typed_error(matrix: Matrix) -> None:
    """The result is the whole content, or an error with message and hint, whose `partial` alone has a part of the content."""
    verdicts, cells = Verdicts(matrix), tried()
    for fault, name, is_async in cells:
        verdicts.add(fault, name, is_async=is_async)
    verdicts.compare_twins()
    print(
        f"\n{len(FAULTS)} faults x {len(OPERATIONS)} operations x 2 = {len(CASES)} cells; {len(cells)} run, seed {SEED}, "
        f"wrong: {len(verdicts.wrong)}\n\n{verdicts.table()}"
    )
    assert not verdicts.wrong, "\n".join(verdicts.wrong)


STUCK: dict[str, Fault] = {
    "no head": Fault(lambda _: [HANG], ERROR),
    "no body": Fault(lambda whole: [whole.head, HANG], ERROR),
    "half a body": Fault(lambda whole: [whole.head + whole.half, HANG], ERROR),
}


@pytest.mark.parametrize("name", STUCK)
def test_every_operation_can_be_cancelled(answers: RightAnswers, name: str) -> None:
    """Its connection ends at once, and the client goes on."""

    async def cancel(operation: Operation, server: FaultyServer) -> object:
        async with AsyncLMStudio(base_url=server.url, **SETTINGS) as client, asyncio.timeout(PATIENCE):
            asking = asyncio.create_task(attempt_async(lambda: operation.begin(client)))
            while not server.count:  # noqa: ASYNC110  # counted by a thread
                await asyncio.sleep(0.002)
            asking.cancel()
            await asyncio.wait([asking])
            assert asking.cancelled()
            server.is_broken = False
            result = await attempt_async(lambda: operation.begin(client))
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return result

    for operation in OPERATIONS.values():
        server = FaultyServer(answers, operation, STUCK[name])
        with nothing_left_behind(), server.loopback:
            assert not isinstance(asyncio.run(cancel(operation, server)), LMStudioError)


@pytest.mark.parametrize("name", STUCK)
@pytest.mark.parametrize("stream_name", [name for name, operation in OPERATIONS.items() if operation.stream])
def test_every_stream_can_be_closed_by_another_thread(answers: RightAnswers, name: str, stream_name: str) -> None:
    """Whoever reads it gets a typed error, whether or not something has come, and the client goes on."""
    operation = OPERATIONS[stream_name]
    assert operation.stream is not None
    server = FaultyServer(answers, operation, STUCK[name])
    with nothing_left_behind(), server.loopback, LMStudio(base_url=server.url, **SETTINGS) as client:
        stream = operation.stream(client)
        closer = threading.Thread(target=lambda: (server.loopback.until(lambda: server.count), stream.close()))
        closer.start()
        error = attempt(stream.until_done)
        closer.join()
        assert isinstance(error, LMStudioError)
        assert not isinstance(error, RequestTimeoutError)
        server.is_broken = False
        assert not isinstance(attempt(lambda: operation.begin(client)), LMStudioError)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_every_operation_is_right_in_parent_and_child(answers: RightAnswers) -> None:
    """A client that was used before a fork is used by both processes at once, and each gets its own answers."""
    with FaultyServer(answers, OPERATIONS["send"], FAULTS["whole"]).loopback as server:
        settings = {"base_url": server.url, **SETTINGS}
        names = list(OPERATIONS) if SAMPLE == "all" else random.Random(SEED).sample(list(OPERATIONS), 5)
        folders = [folder for folder in sys.path if "tests" in folder]
        script = FORKING.format(folders=folders, names=names, settings=settings)
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=4 * PATIENCE)
    assert (done.stderr, done.returncode, done.stdout) == ("", 0, f"{2 * len(names)} operations\n")


FORKING = """
import asyncio, os, sys
sys.path[:0] = {folders}
from test_wire_matrix import OPERATIONS, AsyncLMStudio, LMStudio, attempt, attempt_async, essence

def in_both(ask):
    right = essence(ask())
    child = os.fork()
    is_right = [essence(ask()) == right for _ in range(2)] == [True, True]
    if not child:
        os._exit(not is_right)
    assert os.waitpid(child, 0)[1] == 0, "the child"
    assert is_right, "the parent"
    return 1

def in_turn(operation, client):
    return lambda: asyncio.run(attempt_async(lambda: operation.begin(client)))

count = 0
for operation in map(OPERATIONS.get, {names}):
    client = LMStudio(**{settings})
    count += in_both(lambda: attempt(lambda: operation.begin(client)))
    count += in_both(in_turn(operation, AsyncLMStudio(**{settings})))
print(count, "operations")
"""
