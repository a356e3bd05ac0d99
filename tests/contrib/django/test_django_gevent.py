"""Django under gunicorn's gevent worker, where threads are greenlets: tools use the ORM, and every answer is stored."""

from __future__ import annotations

import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from far_end import prepare, site

from loopback import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("gevent", reason="NO GEVENT TESTS: they need gevent")


def test_tools_use_the_orm_and_many_answers_stream_at_once(tmp_path: Path) -> None:
    database = str(tmp_path / "db.sqlite3")
    session = prepare(tmp_path / "db.sqlite3")
    with site("gevent", tmp_path, TEST_DATABASE=database) as running:

        def call(method: str, path: str, body: object = None) -> tuple[int, str]:
            headers = {"Cookie": f"sessionid={session}; csrftoken={'c' * 32}", "X-CSRFToken": "c" * 32}
            with closing(http.client.HTTPConnection("127.0.0.1", running.port, timeout=PATIENCE * 4)) as connection:
                data = None if body is None else json.dumps(body)
                connection.request(method, path, data, {**headers, "Content-Type": "application/json"})
                answer = connection.getresponse()
                return answer.status, answer.read().decode()

        def ask(question: str) -> str:
            status, events = call("POST", "/chat/ask/", {"text": question})
            assert status == 200, running.log.read_text(encoding="utf-8")
            assert '"type":"done"' in events, events
            return events

        for question in ("users", "users later"):
            assert '"content":"1","failed":false' in ask(question)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(ask, ["users", "slow", "users later", "Hi"] * 4))
        assert [answer.count('"failed":false') for answer in answers] == [1, 0, 1, 0] * 4
        status, listed = call("GET", "/chat/conversations/")
        assert status == 200
        conversations = json.loads(listed)["conversations"]
        assert len(conversations) == 18
        for conversation in conversations:
            shown = json.loads(call("GET", f"/chat/conversations/{conversation['id']}/")[1])["messages"]
            assert shown[-1]["role"] == "assistant"
