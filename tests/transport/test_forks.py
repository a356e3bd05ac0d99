"""A client that was used before a fork: parent and child each have their own connections, and both get their own answers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from asking import SETTINGS
from loopback import (
    HANG,
    PATIENCE,
    SSE_HEAD,
    Loopback,
    Request,
    Step,
    chunk,
    completion,
    events,
    http_chunks,
    json_answer,
    text_answer,
)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

HEAD = """
import asyncio, os, sys, threading
from lmdeck import AsyncLMStudio, LMStudio

SETTINGS = {settings}

def waited(*children):
    for child in children:
        assert os.waitpid(child, 0)[1] == 0

def in_child(work):
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        import traceback
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)
"""


def echo(request: Request) -> list[Step]:
    """Answer with the question; there is no list of models."""
    if not request.body:
        return text_answer("no such path", status=404)
    said = request.json["messages"][-1]["content"]
    if request.json.get("stream"):
        return events(said[:3], said[3:])
    return json_answer(completion(said))


def run(script: str, server: Loopback) -> None:
    """Run a script that forks in an interpreter of its own; it must end well and say nothing."""
    head = HEAD.replace("{settings}", repr({"base_url": server.url, **SETTINGS}))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", head + script], capture_output=True, text=True, timeout=4 * PATIENCE
    )
    assert (done.stderr, done.returncode) == ("", 0)


SYNC = """
lm = LMStudio(**SETTINGS)

def ask(who):
    for number in range(4):
        chat = lm.chat().user(f"{who} {number}")
        reply = chat.send() if number % 2 else chat.stream().until_done()
        assert reply.content == f"{who} {number}", (reply.content, who, number)

ask("before")
children = [in_child(lambda: ask(f"child{child}")) for child in range(8)]
ask("parent")
waited(*children)
ask("after")
"""
SEVERAL_THREADS = """
lm = LMStudio(**SETTINGS)

def ask(who):
    for number in range(20):
        assert lm.chat().user(f"{who} {number}").send().content == f"{who} {number}"

ask("before")  # a module that is being imported while its process forks stays locked in the child: that is Python's
threads = [threading.Thread(target=ask, args=(f"thread{at}",)) for at in range(8)]
for thread in threads:
    thread.start()
children = [in_child(lambda: ask(f"child{child}")) for child in range(6)]
for thread in threads:
    thread.join()
waited(*children)
"""
POOL = """
import multiprocessing

lm = LMStudio(**SETTINGS)

def ask(number):
    return lm.chat().user(f"job {number}").send().content

assert ask(0) == "job 0"
with multiprocessing.get_context("fork").Pool(4) as pool:
    result = pool.map_async(ask, range(24))
    assert [ask(number) for number in range(100, 108)] == [f"job {number}" for number in range(100, 108)]
    assert result.get() == [f"job {number}" for number in range(24)]
    pool.close()
    pool.join()
"""
ASYNC = """
lm = AsyncLMStudio(**SETTINGS)

async def ask(who):
    async def one(number):
        chat = lm.chat().user(f"{who} {number}")
        reply = await (chat.send() if number % 2 else chat.stream().until_done())
        assert reply.content == f"{who} {number}", (reply.content, who, number)

    await asyncio.gather(*(one(number) for number in range(4)))

async def main():
    await ask("before")
    children = [in_child(lambda: asyncio.run(ask(f"child{child}"))) for child in range(6)]
    await ask("parent")
    for child in children:
        await asyncio.to_thread(waited, child)
    await ask("after")
    await lm.aclose()

asyncio.run(main())
"""
ASYNC_BETWEEN_RUNS = """
lm = AsyncLMStudio(**SETTINGS)
runner = asyncio.Runner()

async def ask(who):
    for number in range(3):
        assert (await lm.chat().user(f"{who} {number}").send()).content == f"{who} {number}"

runner.run(ask("before"))
children = [in_child(lambda: asyncio.run(ask(f"child{child}"))) for child in range(6)]
runner.run(ask("parent"))
waited(*children)
runner.run(ask("after"))
runner.run(lm.aclose())
runner.close()
"""
WITHOUT_HOOKS = """
import ctypes
from concurrent.futures import ThreadPoolExecutor

os.fork = ctypes.PyDLL(None).fork  # as a server written in C does, such as uWSGI
lm, alm = LMStudio(**SETTINGS), AsyncLMStudio(**SETTINGS)

def ask(question):
    assert lm.chat().user(question).send().content == question

async def aask(question):
    assert (await alm.chat().user(question).send()).content == question

def work(who):
    with ThreadPoolExecutor(4) as threads:  # whoever notices the fork first, the others wait for it
        list(threads.map(ask, [f"{who} {number}" for number in range(8)]))
    asyncio.run(aask(who))

work("before")
children = [in_child(lambda: work(f"child{child}")) for child in range(3)]
work("parent")
waited(*children)
work("after")
"""


@pytest.mark.parametrize(
    "script",
    [SYNC, SEVERAL_THREADS, POOL, ASYNC, ASYNC_BETWEEN_RUNS, WITHOUT_HOOKS],
    ids=["sync", "threads", "multiprocessing", "async", "async-between-runs", "without-hooks"],
)
def test_every_process_gets_its_own_answers(script: str) -> None:
    """Whoever forks, and whatever the others are doing."""
    with Loopback(echo) as server:
        run(script, server)


def test_an_answer_that_is_being_read_stays_the_parent_s() -> None:
    """The child cannot read on, and its leaving ends nothing."""
    script = """
from lmdeck import ConnectionLostError

lm = LMStudio(**SETTINGS)
stream = lm.chat().user("Hi").stream()
assert next(stream).content == "Hel"

def child():
    try:
        next(stream)
    except ConnectionLostError as error:
        assert "forked" in error.message, error.message
    else:
        raise AssertionError("the child read on")
    stream.close()
    lm.close()
    assert lm.chat().user("Hi").send().content == "Hello."

waited(in_child(child))
assert stream.until_done().content == "Hello."
"""

    def slow(request: Request) -> Iterator[Step]:
        if not request.json.get("stream"):
            yield from json_answer(completion("Hello."))
            return
        yield SSE_HEAD
        yield http_chunks(chunk("Hel"), last=False)
        server.until(lambda: len(server.requests) == 2)
        yield http_chunks(chunk("lo."), chunk(finish="stop"))

    with Loopback(slow) as server:
        run(script, server)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_the_server_sees_the_parent_leave_while_a_child_lives(is_async: bool) -> None:
    """The child holds no copy of the connection, which would keep the model writing."""
    script = """
import time

def child():
    sys.stdin.readline()

async def main():
    async with AsyncLMStudio(**SETTINGS) as lm:
        async with lm.chat().user("Hi").stream() as stream:
            await anext(stream)
            return in_child(child)

def sync():
    with LMStudio(**SETTINGS) as lm, lm.chat().user("Hi").stream() as stream:
        next(stream)
        return in_child(child)

pid = ASK
print("left", flush=True)
waited(pid)
""".replace("ASK", "asyncio.run(main())" if is_async else "sync()")
    with Loopback([SSE_HEAD, http_chunks(chunk("Hel"), last=False), HANG]) as server:
        head = HEAD.replace("{settings}", repr({"base_url": server.url, **SETTINGS}))
        with subprocess.Popen(
            [sys.executable, "-W", "error", "-c", head + script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "left\n"
            server.connection().wait_left()
            assert process.poll() is None
            process.communicate("\n", timeout=PATIENCE)
    assert process.returncode == 0


def test_a_child_does_not_queue_behind_its_parent() -> None:
    """What the parent has running fills no place in the child."""
    script = """
lm = LMStudio(**SETTINGS, max_concurrency=1)
streams = [lm.chat().user("stream").stream()]
next(streams[0])
waiting = threading.Thread(target=lambda: lm.chat().user("waiting").send(), daemon=True)
waiting.start()

def child():
    answers = []
    thread = threading.Thread(target=lambda: answers.append(lm.chat().user("child").send().content))
    thread.start()
    thread.join()
    assert answers == ["child"]

waited(in_child(child))
streams[0].close()
waiting.join()
"""

    def answer(request: Request) -> list[Step]:
        if request.json.get("stream"):
            return [SSE_HEAD, http_chunks(chunk("Hel"), last=False), HANG]
        return echo(request)

    with Loopback(answer) as server:
        run(script, server)


APPLICATION = """
import os
from urllib.parse import parse_qs
from lmdeck import LMStudio

lm = LMStudio(**{settings})
assert lm.chat().user("preloaded").send().content == "preloaded"

def application(environ, start_response):
    said = parse_qs(environ["QUERY_STRING"])["q"][0]
    body = f"{{os.getpid()}} {{lm.chat().user(said).send().content}}".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def test_gunicorn_may_preload(tmp_path: Path) -> None:
    """Workers that are forked after the application asked."""
    pytest.importorskip("gunicorn")
    with Loopback(echo) as server:
        (tmp_path / "application.py").write_text(APPLICATION.format(settings={"base_url": server.url, **SETTINGS}))
        arguments = ["application", "--preload", "--workers", "3", "--bind", "127.0.0.1:0", "--chdir", str(tmp_path)]
        with subprocess.Popen(
            [sys.executable, "-m", "gunicorn", *arguments], stderr=subprocess.PIPE, text=True, cwd=tmp_path
        ) as process:
            try:
                assert process.stderr is not None
                line = next(line for line in process.stderr if "Listening at:" in line)
                url = line.split("Listening at: ")[1].split()[0]
                told = [_get(f"{url}/?q=question{number}") for number in range(24)]
            finally:
                process.send_signal(signal.SIGTERM)
                process.communicate(timeout=PATIENCE)
    assert [words.split()[1] for words in told] == [f"question{number}" for number in range(24)]


def _get(url: str) -> str:
    with urlopen(url, timeout=PATIENCE) as response:
        return str(response.read().decode())


TASKS = """
from celery import Celery
from lmdeck import LMStudio

app = Celery("tasks", broker="filesystem://", backend="file://{folder}/results")
app.conf.broker_transport_options = {{
    "data_folder_in": "{folder}/queue", "data_folder_out": "{folder}/queue", "processed_folder": "{folder}/done",
    "control_folder": "{folder}/control",
}}
lm = LMStudio(**{settings})
assert lm.chat().user("loaded").send().content == "loaded"

@app.task
def ask(said):
    return lm.chat().user(said).send().content
"""


def _plain_environment() -> dict[str, str]:
    """Return the environment without the settings of Django's tests, for which Celery would set Django up."""
    return {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}


@contextmanager
def celery_worker(folder: Path) -> Iterator[Any]:
    """Run a worker of three processes in its own session, and import its tasks here."""
    log = (folder / "log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "fork_tasks", "worker", "--pool", "prefork", "-c", "3", "-l", "warning",
         "--without-gossip", "--without-mingle", "--without-heartbeat"],
        cwd=folder, stdout=log, stderr=log, env={**_plain_environment(), "PYTHONPATH": str(folder), "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()


def test_celery_may_use_the_client_of_its_module(tmp_path: Path) -> None:
    """Workers that are forked after the module asked."""
    pytest.importorskip("celery")
    for name in ("queue", "done", "results", "control"):
        (tmp_path / name).mkdir()
    with Loopback(echo) as server:
        (tmp_path / "fork_tasks.py").write_text(
            TASKS.format(folder=tmp_path, settings={"base_url": server.url, **SETTINGS})
        )
        ask = """
import sys
from fork_tasks import ask
results = [ask.delay(f"job {number}") for number in range(24)]
assert [result.get(timeout=TIME) for result in results] == [f"job {number}" for number in range(24)]
""".replace("TIME", str(2 * PATIENCE))
        with celery_worker(tmp_path):
            done = subprocess.run(
                [sys.executable, "-c", ask], cwd=tmp_path, env={**_plain_environment(), "PYTHONPATH": str(tmp_path)},
                capture_output=True, text=True, timeout=3 * PATIENCE,
            )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:] + (tmp_path / "log").read_text()[-2000:]
