"""What is said is stored, whatever it holds and however many write at once: SQLite in a file, and a real PostgreSQL."""

from __future__ import annotations

import http.client
import json
import math
import os
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import call_command
from django.db import connections
from far_end import HERE, TESTS, prepare, site

import lmdeck
from lmdeck import Reply
from lmdeck.contrib.django.history.models import Conversation
from lmdeck.messages import Problem, Round, ToolResult
from loopback import PATIENCE
from postgres import MISSING, binaries, postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAMS = binaries()
BAD = "a\x00b \ud83d c"
GOOD = "a\ufffdb \ufffd c"


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, Any]]:
    if PROGRAMS is None:
        pytest.skip(MISSING)
    pytest.importorskip("psycopg", reason="NO POSTGRESQL TESTS: they need psycopg")
    with postgres(PROGRAMS) as settings:
        yield settings


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The alias of a database that threads share, with the tables."""
    if request.param == "postgres":
        settings = request.getfixturevalue("server")
    else:
        path = tmp_path_factory.mktemp("database") / "db.sqlite3"
        settings = {"ENGINE": "django.db.backends.sqlite3", "NAME": path}
    alias = f"real_{request.param}"
    connections.databases[alias] = connections.configure_settings({"default": {}, alias: settings})[alias]
    call_command("migrate", database=alias, verbosity=0)
    yield alias
    connections[alias].close()
    del connections[alias], connections.databases[alias]


def conversation(database: str) -> Conversation:
    return Conversation.objects.using(database).create()


def in_threads(count: int, work: Any, alias: str) -> list[BaseException]:
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:  # the test's own thread looks at it
            errors.append(error)
        finally:
            connections[alias].close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    return errors


def test_four_threads_with_ten_conversations_each_lose_nothing(database: str) -> None:
    def work(number: int) -> None:
        for turn in range(10):
            mine = conversation(database)
            mine.add_user(f"question {turn} of {number}")
            mine.add(Reply(content=f"answer {turn} of {number}", finish_reason="stop"))
            assert [message.content for message in mine.history()] == [
                f"question {turn} of {number}",
                f"answer {turn} of {number}",
            ]

    before = Conversation.objects.using(database).count()
    assert in_threads(4, work, database) == []
    assert Conversation.objects.using(database).count() == before + 40


def test_threads_may_write_into_one_conversation(database: str) -> None:
    one = conversation(database)

    def work(number: int) -> None:
        for turn in range(5):
            Conversation.objects.using(database).get(pk=one.pk).add_user(f"{number} {turn}")

    assert in_threads(4, work, database) == []
    assert [message.position for message in one.messages.order_by("position")] == list(range(20))


WRITING = """
import sys
import django
django.setup()
from lmdeck import Reply
from lmdeck.contrib.django.history.models import Conversation
for turn in range(10):
    one = Conversation.objects.create()
    one.add_user(f"{sys.argv[1]} {turn}")
    one.add(Reply(content="yes", finish_reason="stop"))
"""


def test_processes_lose_nothing_either(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite3"
    prepare(path)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE), str(TESTS)]),
        "DJANGO_SETTINGS_MODULE": "django_settings",
        "TEST_DATABASE": str(path),
    }
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITING, str(number)], env=environment, stderr=subprocess.PIPE)
        for number in range(3)
    ]
    for writer in writers:
        assert writer.communicate(timeout=PATIENCE * 4)[1] == b""
        assert writer.returncode == 0
    counted = subprocess.run(
        [
            sys.executable,
            "-c",
            "import django; django.setup()\nfrom lmdeck.contrib.django.history.models import *\nprint(Message.objects.count())",
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert counted.stdout.strip() == "60"


def hostile() -> Reply:
    """A reply with everything that a database may refuse."""
    arguments = {
        "nul": BAD, BAD: 1, "infinite": math.inf, "less": [-math.inf, math.nan],
        "huge": 10**400, "deep": {}, "long": "x" * 9000,
    }  # fmt: skip
    deep: dict[str, Any] = arguments["deep"]  # type: ignore[assignment]
    for _ in range(3000):
        deep["a"] = deep = {}
    calls = [
        lmdeck.ToolCall(id=BAD + "i" * 5000 + str(at), name=BAD + "n" * 5000, arguments=arguments) for at in (1, 2)
    ]
    said = Reply(
        content=BAD,
        reasoning=BAD,
        tool_calls=calls,
        model=BAD + "/" + "m" * 5000,
        finish_reason="tool_calls" + BAD * 10,
        usage=lmdeck.Usage(prompt_tokens=2**70, completion_tokens=-5),
        stats=lmdeck.Stats(time_to_first_token=math.inf, tokens_per_second=math.nan),
    )
    results = [ToolResult(call=call, content=BAD + "r" * 100_000, seconds=math.inf) for call in calls]
    last = Reply(content="done \x00", finish_reason="stop", model="m")
    return Reply(
        content=last.content, finish_reason="stop", rounds=[Round(reply=said, results=results), Round(reply=last)]
    )


def test_any_answer_is_stored_and_read_back(database: str) -> None:
    mine = conversation(database)
    mine.add_user(BAD)
    mine.add_system(BAD)
    mine.add(hostile())
    again = Conversation.objects.using(database).get(pk=mine.pk)
    user, system, asked, one, two, last = again.history()
    assert (user.content, system.content, asked.content, last.content) == (GOOD, GOOD, GOOD, "done \ufffd")
    first, second = asked.tool_calls
    assert first.arguments["nul"] == GOOD
    assert first.arguments[GOOD] == 1
    assert first.arguments["infinite"] == "inf"
    assert first.arguments["less"] == ["-inf", "nan"]
    assert first.arguments["huge"] == hex(10**400)
    assert (first.id, second.id) == (one.tool_call_id, two.tool_call_id)
    assert first.id != second.id
    assert len(first.name) == 200
    assert one.content == GOOD + "r" * 100_000
    assert json.dumps([message.to_dict() for message in again.history()])
    message = again.messages.get(position=2)
    assert message.usage.prompt_tokens == 2**31 - 1
    assert message.usage.completion_tokens == 0
    assert message.usage.time_to_first_token is None
    assert message.usage.tokens_per_second is None
    assert str(again)


@pytest.mark.parametrize("ended", ["stopped", "cut", "failed"])
def test_an_interrupted_answer_is_stored_as_such(database: str, ended: str) -> None:
    mine = conversation(database)
    mine.add_user("Tell me.")
    mine.add(Reply(content="Once", problems=[Problem(ended, "It ended.")]))
    mine.add(Reply(problems=[Problem(ended, "Nothing came.")]))
    half, nothing = mine.messages.filter(role="assistant").order_by("position")
    assert (half.ending, nothing.ending, half.stored().ended) == (ended, ended, ended)
    sent = list(mine.history())
    assert [message.role for message in sent] == ["user", "assistant"]
    assert sent[1].content != "Once"
    assert sent[1].content.startswith("Once")


def test_turns_added_to_a_removed_conversation_are_dropped(database: str) -> None:
    mine = conversation(database)
    Conversation.objects.using(database).filter(pk=mine.pk).delete()
    assert mine.add(Reply(content="late", finish_reason="stop")) == []
    with pytest.raises(Conversation.DoesNotExist):
        mine.add_user("late")


@pytest.mark.parametrize("kind", ["gunicorn", "uvicorn"])
def test_a_page_on_postgres_keeps_every_answer(server: dict[str, Any], tmp_path: Path, kind: str) -> None:
    """An answer with a NUL in its text or in a tool's arguments is stored, under ASGI and WSGI."""
    environment = {"TEST_POSTGRES": json.dumps(server)}
    session = prepare(tmp_path / "unused", **environment, TEST_USER=f"ann-{kind}")
    with site(kind, tmp_path, **environment) as running:
        running.lm_studio.when(lambda _: True).reply("a\x00b " + "x" * 1000)

        def call(method: str, path: str, body: object = None) -> tuple[int, Any, str]:
            headers = {"Cookie": f"sessionid={session}; csrftoken={'c' * 32}", "X-CSRFToken": "c" * 32}
            data = json.dumps(body).encode() if body is not None else None
            with closing(http.client.HTTPConnection("127.0.0.1", running.port, timeout=PATIENCE)) as connection:
                connection.request(method, path, data, {**headers, "Content-Type": "application/json"})
                answer = connection.getresponse()
                return answer.status, answer.headers, answer.read().decode()

        assert call("POST", "/chat/ask/", {"text": "with \x00"})[0] == 400
        status, headers, events = call("POST", "/chat/ask/", {"text": "with NUL"})
        assert status == 200
        assert '"type":"done"' in events
        assert '"type":"error"' not in events
        shown = json.loads(call("GET", f"/chat/conversations/{headers['X-Conversation']}/")[2])["messages"]
        assert [message["content"] for message in shown] == ["with NUL", "a\ufffdb " + "x" * 1000]
