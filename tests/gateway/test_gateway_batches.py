"""OpenAI's files and batches on the gateway, with OpenAI's own client."""

from __future__ import annotations

import json
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from gateways import MODEL, PATIENCE, GatewayProcess, config_of, gateway
from lmdeck._usage_store import KeyLimits, day_of, open_store
from lmdeck.gateway.fair_queue import FairQueue
from lmdeck.gateway.keys import new_key
from lmdeck.gateway.scheduler import Ticket
from lmdeck.testing import FakeLMStudio


@contextmanager
def client_of(running: GatewayProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def row(number: int, text: str, **body: Any) -> dict[str, Any]:
    asked = {"model": MODEL, "messages": [{"role": "user", "content": text}], **body}
    return {"custom_id": f"row {number}", "method": "POST", "url": "/v1/chat/completions", "body": asked}


def upload(client: openai.OpenAI, rows: list[Any]) -> str:
    data = "".join(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in rows).encode()
    return client.files.create(file=("rows.jsonl", data), purpose="batch").id


def create(client: openai.OpenAI, rows: list[Any], **more: Any) -> Any:
    given = {"endpoint": "/v1/chat/completions", "completion_window": "24h", **more}
    return client.batches.create(input_file_id=upload(client, rows), **given)


def followed(client: openai.OpenAI, batch_id: str, until: Callable[[Any], bool] | None = None) -> tuple[Any, list[str]]:
    """Return a batch that is over, or for which a condition holds, and the states that were seen."""
    states: list[str] = []
    limit = time.monotonic() + PATIENCE
    while True:
        batch = client.batches.retrieve(batch_id)
        if batch.status not in states[-1:]:
            states.append(batch.status)
        if batch.status in {"failed", "completed", "expired", "cancelled"} or (until is not None and until(batch)):
            return batch, states
        assert time.monotonic() < limit, batch
        time.sleep(0.01)


def lines(client: openai.OpenAI, file_id: str) -> list[Any]:
    return [json.loads(line) for line in client.files.content(file_id).content.split(b"\n") if line]


@contextmanager
def answering(folder: Path, more: str = "", **options: Any) -> Iterator[tuple[FakeLMStudio, GatewayProcess]]:
    with FakeLMStudio(cuts=False, **options) as fake:
        fake.when(lambda r: r.last_user == "refused").error(400, "Invalid request: no such thing")
        fake.when(lambda _: True).respond(lambda request: f"answer to {request.last_user}")
        with gateway(folder, config_of([fake], more), is_measured=True) as running:
            yield fake, running


def test_a_batch_from_its_file_to_its_answers(tmp_path: Path) -> None:
    """Its states, counts and times; the answers are those of direct requests, and what failed is in the error file."""
    texts = ["a", "b", "refused", "a", "d"]
    with answering(tmp_path) as (fake, running), client_of(running) as client:
        created = create(client, [row(number, text) for number, text in enumerate(texts)], metadata={"name": "test"})
        assert (created.object, created.status, created.metadata) == ("batch", "validating", {"name": "test"})
        assert created.expires_at == created.created_at + 86400
        batch, states = followed(client, created.id)
        order = ["validating", "in_progress", "finalizing", "completed"]
        assert states == [state for state in order if state in states]
        assert batch.status == "completed"
        assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at
        assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (5, 4, 1)
        assert batch.usage.output_tokens > 0
        answered, failed = lines(client, batch.output_file_id), lines(client, batch.error_file_id)
        assert [line["custom_id"] for line in answered] == ["row 0", "row 1", "row 3", "row 4"]
        for line, text in zip(answered, ["a", "b", "a", "d"], strict=True):
            assert (line["response"]["status_code"], line["error"]) == (200, None)
            body = line["response"]["body"]
            direct = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": text}])
            assert body["choices"][0] == direct.to_dict()["choices"][0] | {"logprobs": None}
            assert body["usage"].keys() <= direct.usage.to_dict().keys()
        assert [line["custom_id"] for line in failed] == ["row 2"]
        assert failed[0]["response"]["status_code"] == 400
        assert "no such thing" in failed[0]["error"]["message"]
        assert (
            sum(request.last_user == "a" for request in fake.requests if request.wants_answer) == 3
        )  # one for the batch


FAULTY: list[tuple[list[Any], list[str]]] = [
    (["no json", row(1, "a")], ["not JSON"]),
    ([row(0, "a"), row(0, "b")], ["'row 0' is used by another request"]),
    ([{**row(0, "a"), "url": "/v1/embeddings"}], ["not the batch's endpoint"]),
    ([{**row(0, "a"), "method": "GET"}], ["`method` is not 'POST'"]),
    ([{**row(0, "a"), "body": 3}], ["`body` is not a JSON object"]),
    ([{"prompt": "a"}, "{}"], ["`custom_id` is missing", "`custom_id` is missing"]),
    ([], ["no requests"]),
    (["[" * 100_000, '{"a": NaN}', '{"a": 1e999}'], ["not JSON"] * 3),
]


def test_a_faulty_file_fails_as_a_whole(tmp_path: Path) -> None:
    """The batch has its errors with their lines, and no request is sent."""
    with answering(tmp_path) as (fake, running), client_of(running) as client:
        for rows, messages in FAULTY:
            batch, _ = followed(client, create(client, rows).id)
            assert batch.status == "failed", messages
            assert batch.failed_at >= batch.created_at
            assert len(batch.errors.data) == len(messages)
            for error, words in zip(batch.errors.data, messages, strict=True):
                assert words in error.message
            assert batch.errors.data[0].line in (1, 2, None)
        assert not any(request.wants_answer for request in fake.requests)


def test_a_file_with_windows_line_ends_is_read(tmp_path: Path) -> None:
    r"""A byte order mark, `\r\n`, empty lines and a missing last line end are accepted."""
    rows = [json.dumps(row(number, f"{number}")) for number in range(3)]
    data = b"\xef\xbb\xbf" + "\r\n\r\n".join(rows).encode()
    with answering(tmp_path) as (_, running), client_of(running) as client:
        file = client.files.create(file=("rows.jsonl", data), purpose="batch")
        made = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        batch, _ = followed(client, made.id)
        assert (batch.status, batch.request_counts.completed) == ("completed", 3)
        assert client.files.content(file.id).content == data


def test_a_batch_is_cancelled(tmp_path: Path) -> None:
    """What ran is answered; a second time is refused."""
    one_at_once = answering(tmp_path, "[batches]\nmax_concurrency = 1", time_to_first_token=0.2)
    with one_at_once as (_, running), client_of(running) as client:
        created = create(client, [row(number, f"{number}") for number in range(200)])
        followed(client, created.id, lambda batch: batch.request_counts.completed > 0)
        assert client.batches.cancel(created.id).status in {"cancelling", "cancelled"}
        batch, states = followed(client, created.id)
        assert states[-1] == "cancelled"
        assert batch.cancelling_at <= batch.cancelled_at
        counts = batch.request_counts
        assert 0 < counts.completed < 200 == counts.completed + counts.failed
        assert len(lines(client, batch.output_file_id)) == counts.completed
        codes = {line["error"]["code"] for line in lines(client, batch.error_file_id)}
        assert codes == {"batch_cancelled"}
        with pytest.raises(openai.ConflictError):
            client.batches.cancel(created.id)


def test_a_batch_expires(tmp_path: Path) -> None:
    """It ends with its window, and what was answered by then is kept."""
    one_at_once = answering(tmp_path, "[batches]\nmax_concurrency = 1", time_to_first_token=0.2)
    with one_at_once as (_, running), client_of(running) as client:
        created = create(client, [row(number, f"{number}") for number in range(500)], completion_window="3s")
        batch, states = followed(client, created.id)
        assert states[-1] == "expired"
        assert batch.expired_at >= batch.expires_at
        assert batch.request_counts.completed + batch.request_counts.failed == 500
        assert {line["error"]["code"] for line in lines(client, batch.error_file_id)} == {"batch_expired"}


def test_every_endpoint_has_batches(tmp_path: Path) -> None:
    bodies = {
        "/v1/responses": {"model": MODEL, "input": "a"},
        "/v1/completions": {"model": MODEL, "prompt": "a"},
        "/v1/messages": {"model": MODEL, "max_tokens": 9, "messages": [{"role": "user", "content": "a"}]},
        "/v1/embeddings": {"model": "text-embedding-nomic-embed-text-v1.5", "input": "a"},
    }
    with answering(tmp_path) as (_, running), client_of(running) as client:
        made = {
            url: create(client, [{"custom_id": url, "method": "POST", "url": url, "body": body}], endpoint=url)
            for url, body in bodies.items()
        }
        kinds = []
        for batch in made.values():
            done, _ = followed(client, batch.id)
            assert done.status == "completed", done
            body = lines(client, done.output_file_id)[0]["response"]["body"]
            kinds.append(body.get("object") or body.get("type"))
        assert kinds == ["response", "text_completion", "message", "list"]


def test_files_are_uploaded_listed_read_and_deleted(tmp_path: Path) -> None:
    with answering(tmp_path) as (_, running), client_of(running) as client:
        assert client.files.list().data == []
        content = b"\x00\r\n--bytes--\r\n" * 20_000
        one = client.files.create(file=("../one.jsonl", content), purpose="batch")
        other = client.files.create(file=b"x", purpose="user_data")
        assert (one.filename, one.bytes, one.purpose, one.status) == ("one.jsonl", len(content), "batch", "processed")
        assert one.expires_at is not None
        assert [file.id for file in client.files.list()] == [other.id, one.id]
        assert [file.id for file in client.files.list(purpose="batch")] == [one.id]
        assert [file.id for file in client.files.list(limit=1, order="asc")] == [one.id, other.id]
        assert client.files.retrieve(one.id) == one
        assert client.files.content(one.id).content == content
        assert client.files.delete(one.id).deleted
        for ask in (client.files.retrieve, client.files.content, client.files.delete, client.batches.retrieve):
            with pytest.raises(openai.NotFoundError):
                ask(one.id)
        assert not list((tmp_path / "gateway-batches" / "files").glob(".*"))


def test_what_is_wrong_is_refused(tmp_path: Path) -> None:
    with answering(tmp_path, "[batches]\nfile_bytes = 1000\nkey_bytes = 1500") as (_, running):
        with client_of(running) as client:
            with pytest.raises(openai.APIStatusError) as large:
                client.files.create(file=b"x" * 100_000, purpose="batch")
            assert large.value.status_code == 413
            good = client.files.create(file=b"x" * 900, purpose="batch")
            with pytest.raises(openai.APIStatusError, match="413"):
                client.files.create(file=b"x" * 900, purpose="batch")
            other = client.files.create(file=b"x", purpose="evals")
            for more in (
                {"input_file_id": "file-none"},
                {"input_file_id": other.id},
                {"endpoint": "/v1/models"},
                {"completion_window": "soon"},
                {"metadata": {"a": 1}},
            ):
                given: Any = {
                    "input_file_id": good.id, "endpoint": "/v1/chat/completions", "completion_window": "24h", **more,
                }  # fmt: skip
                with pytest.raises(openai.BadRequestError):
                    client.batches.create(**given)
        form = {"Content-Type": "multipart/form-data; boundary=B"}
        for body in (
            b"",
            b"--B\r\n",
            b"--B\r\nContent-Disposition: form-data; name=file\r\n\r\nx",
            b"no form",
            b"--B--\r\n",
        ):
            assert running.request("POST", "/v1/files", body, **form).status == 400, body
        assert running.request("POST", "/v1/files", b"{}").status == 400
        assert [path for path in (tmp_path / "gateway-batches" / "files").iterdir() if path.name.startswith(".")] == []


def test_a_killed_gateway_resumes_its_batches(tmp_path: Path) -> None:
    """Only the requests that were running are sent again."""
    limits = "[batches]\nmax_concurrency = 2"
    with answering(tmp_path, limits, time_to_first_token=0.02) as (fake, running):
        with client_of(running) as client:
            created = create(client, [row(number, f"{number}") for number in range(120)])
            followed(client, created.id, lambda batch: batch.request_counts.completed > 10)
        running.process.send_signal(signal.SIGKILL)
        running.process.wait()
        with gateway(tmp_path, config_of([fake], limits)) as again, client_of(again) as client:
            batch, _ = followed(client, created.id)
            assert batch.status == "completed"
            answered = lines(client, batch.output_file_id)
            assert [line["custom_id"] for line in answered] == [f"row {number}" for number in range(120)]
            assert [batch.id for batch in client.batches.list()] == [created.id]
        assert sum(request.wants_answer for request in fake.requests) <= 120 + 2


def test_a_batch_belongs_to_its_key(tmp_path: Path) -> None:
    """Others do not see it; its rows are within the key's limits and models, and are recorded for it; it ends with the key."""
    url = f"sqlite:///{tmp_path / 'gateway.db'}"
    secrets = {}
    with open_store(url) as store:
        for name, limits in (("alice", KeyLimits(parallel=2)), ("bob", KeyLimits())):
            secrets[name], key = new_key(name, models=("qwen*",), limits=limits)
            store.add_key(key)
    with (
        answering(tmp_path, f'[auth]\nrequired = true\n[store]\nurl = "{url}"', time_to_first_token=0.05) as (
            _,
            running,
        ),
        openai.OpenAI(base_url=f"{running.url}/v1", api_key=secrets["alice"], max_retries=0) as alice,
        openai.OpenAI(base_url=f"{running.url}/v1", api_key=secrets["bob"], max_retries=0) as bob,
    ):
        done, _ = followed(alice, create(alice, [row(0, "a"), row(1, "b", model="llama")]).id)
        assert (done.request_counts.completed, done.request_counts.failed) == (1, 1)
        assert "llama" in lines(alice, done.error_file_id)[0]["error"]["message"]
        assert [batch.id for batch in alice.batches.list()] == [done.id]
        assert list(bob.batches.list()) == list(bob.files.list()) == []
        for ask in (bob.batches.retrieve, bob.batches.cancel):
            with pytest.raises(openai.NotFoundError):
                ask(done.id)
        with pytest.raises(openai.NotFoundError):
            bob.files.content(done.output_file_id)
        with pytest.raises(openai.BadRequestError):
            bob.batches.create(
                input_file_id=done.input_file_id, endpoint="/v1/chat/completions", completion_window="24h"
            )
        endless = create(bob, [row(number, f"{number}") for number in range(5000)])
        followed(bob, endless.id, lambda batch: batch.request_counts.completed > 0)
        with open_store(url) as store:
            store.revoke_key("bob")
        limit = time.monotonic() + PATIENCE
        while _stored(tmp_path, endless.id)["status"] != "failed":
            assert time.monotonic() < limit
            time.sleep(0.05)
        with open_store(url) as store:
            assert store.tokens_of_day(day_of(time.time())).keys() == {"alice", "bob"}


def _stored(folder: Path, batch_id: str) -> Any:
    with sqlite3.connect(folder / "gateway-batches" / "index.db") as index:
        found = index.execute("SELECT record FROM batches WHERE id = ?", (batch_id,)).fetchone()
    return json.loads(found[0])


def test_other_requests_go_before_those_of_batches(tmp_path: Path) -> None:
    """A person who asks while a batch runs does not wait for its end."""
    with answering(tmp_path, time_to_first_token=0.05) as (fake, running), client_of(running) as client:
        created = create(client, [row(number, f"{number}") for number in range(5000)])
        followed(client, created.id, lambda batch: batch.request_counts.completed > 0)
        threads = [threading.Thread(target=running.chat, args=(f"person {number}",)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.batches.retrieve(created.id).status == "in_progress"
        people = [request.last_user.startswith("person") for request in fake.requests if request.wants_answer]
        assert sum(people) == 8
        assert client.batches.cancel(created.id).status == "cancelling"


def test_the_queue_serves_the_background_last() -> None:
    """Its cost and key do not matter, and both kinds are fair among themselves."""
    queue: FairQueue[Ticket] = FairQueue()
    tickets = [
        Ticket("b1", "alice", 1, None, is_background=True),
        Ticket("b2", "bob", 1, None, is_background=True),
        Ticket("b3", "alice", 1, None, is_background=True),
        Ticket("p1", "alice", 50_000, None),
        Ticket("p2", "carol", 9_000, None),
    ]
    for ticket in tickets:
        queue.push(ticket)
    positions = [queue.position(ticket) for ticket in tickets]
    assert min(positions[:3]) > max(positions[3:])
    served = []
    while len(queue):
        head = queue.heads()[0]
        queue.take(head)
        served.append(head.request_id)
    assert set(served[:2]) == {"p1", "p2"}
    assert served[2:] in (["b1", "b2", "b3"], ["b1", "b3", "b2"])
