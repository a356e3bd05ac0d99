"""Rows: every format and endpoint in, a line for each out; what is faulty or fails is an error row."""

from __future__ import annotations

import csv
import json
import threading
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from batch_tools import answering_fake, asked, chat_row, read_lines, write_lines
from pyarrow import parquet

from lmdeck import (
    AsyncLMStudio,
    AuthenticationError,
    Completion,
    ConfigurationError,
    Embeddings,
    LMStudio,
    RateLimitError,
    Reply,
    ServerUnreachableError,
)
from lmdeck.batch import BatchProgress
from lmdeck.testing import FakeLMStudio
from lmdeck.testing.fake_models import DEFAULT_EMBEDDING_MODEL, DEFAULT_MODEL

PROMPTS = ["one", "two, with a comma", 'three "quoted"\nand a second line', "vier 🙂 \u2028 fünf"]
MESSAGES = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]


def contents(out: Path) -> list[str]:
    return [line["response"]["body"]["choices"][0]["message"]["content"] for line in read_lines(out)]


def errors_of(out: Path) -> list[str | None]:
    return [line["error"] and line["error"]["code"] for line in read_lines(out)]


def write_jsonl(path: Path, column: str) -> None:
    values = PROMPTS if column == "prompt" else MESSAGES
    write_lines(path, [{column: value, "custom_id": f"{number}"} for number, value in enumerate(values)])


def write_csv(path: Path, column: str) -> None:
    values = PROMPTS if column == "prompt" else [json.dumps(messages) for messages in MESSAGES]
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writerows([("custom_id", column), *((f"{number}", value) for number, value in enumerate(values))])


def write_parquet(path: Path, column: str) -> None:
    values: list[Any] = PROMPTS if column == "prompt" else MESSAGES
    table = pa.table({column: values, "custom_id": [f"{number}" for number in range(len(values))]})
    parquet.write_table(table, path)


@pytest.mark.parametrize("column", ["prompt", "messages"])
@pytest.mark.parametrize(
    ("suffix", "write"),
    [(".jsonl", write_jsonl), (".csv", write_csv), (".tsv", write_csv), (".parquet", write_parquet)],
)
def test_every_format_of_the_input(tmp_path: Path, suffix: str, write: Any, column: str) -> None:
    write(tmp_path / f"in{suffix}", column)
    with answering_fake() as fake:
        job = fake.client().batch(tmp_path / f"in{suffix}", out=tmp_path / "out.jsonl", model=DEFAULT_MODEL)
        assert job.run().is_complete
    assert contents(tmp_path / "out.jsonl") == [f"answer to {prompt}" for prompt in PROMPTS]
    assert [line["custom_id"] for line in read_lines(tmp_path / "out.jsonl")] == ["0", "1", "2", "3"]


def test_parquet_gives_the_same_as_columns(tmp_path: Path) -> None:
    rows = [chat_row(0, "one"), "no JSON", chat_row(2, "two", messages="none")]
    source = write_lines(tmp_path / "in.jsonl", rows)
    with answering_fake() as fake:
        for suffix in (".jsonl", ".parquet"):
            fake.client().batch(source, out=tmp_path / f"out{suffix}").run()
    lines, columns = read_lines(tmp_path / "out.jsonl"), parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["content"] for row in columns] == ["answer to one", None, None]
    for line, row in zip(lines, columns, strict=True):
        assert row["custom_id"] == line["custom_id"]
        assert row["error"] == line["error"]
        if line["response"] is not None:
            assert row["response"]["status_code"] == line["response"]["status_code"]
            assert json.loads(row["response"]["body"]).keys() == line["response"]["body"].keys()


def test_every_endpoint(tmp_path: Path) -> None:
    """Each answer has its own wire format in the output, and is a value of the client in the results."""
    rows = [
        {"url": "/v1/chat/completions", "body": {"messages": [{"role": "user", "content": "a"}]}},
        {"url": "/v1/responses", "body": {"input": "b"}},
        {"url": "/v1/messages", "body": {"max_tokens": 9, "messages": [{"role": "user", "content": "c"}]}},
        {"url": "/v1/completions", "body": {"prompt": "d"}},
        {"url": "/v1/embeddings", "body": {"model": DEFAULT_EMBEDDING_MODEL, "input": ["e", "f"]}},
    ]
    source = write_lines(tmp_path / "in.jsonl", [{"custom_id": row["url"], "method": "POST", **row} for row in rows])
    with FakeLMStudio() as fake:
        fake.when(lambda _: True).respond(lambda request: f"via {request.path}")
        job = fake.client().batch(source, out=tmp_path / "out.jsonl", model=DEFAULT_MODEL)
        summary = job.run()
        direct = fake.client().embed(["e", "f"], model=DEFAULT_EMBEDDING_MODEL)
    assert summary.is_complete, summary
    bodies = [line["response"]["body"] for line in read_lines(tmp_path / "out.jsonl")]
    kinds = [body.get("object") or body.get("type") for body in bodies]
    assert kinds == ["chat.completion", "response", "message", "text_completion", "list"]
    chat, response, message, completion, embeddings = [row.reply for row in job.results()]
    assert isinstance(chat, Reply)
    assert isinstance(response, Reply)
    assert isinstance(message, Reply)
    assert isinstance(completion, Completion)
    assert isinstance(embeddings, Embeddings)
    assert [reply.content for reply in (chat, response, message)] == [f"via {row['url']}" for row in rows[:3]]
    assert completion.text == "via /v1/completions"
    assert embeddings.vectors == direct.vectors


def test_prompts_go_to_every_endpoint(tmp_path: Path) -> None:
    """A template, a system message and options take each endpoint's own form."""
    source = write_lines(tmp_path / "in.jsonl", [{"word": "sea", "n": 2}])
    with FakeLMStudio() as fake:
        fake.when(lambda _: True).reply("ok")
        for name in ("chat/completions", "responses", "messages", "completions", "embeddings"):
            embeds = name == "embeddings"
            fake.client().batch(
                source,
                out=tmp_path / f"{name.replace('/', '-')}.jsonl",
                endpoint=name,
                model=DEFAULT_EMBEDDING_MODEL if embeds else DEFAULT_MODEL,
                template="{n} lines {{on}} the {word}",
                system=None if embeds else "Rhyme.",
                options={} if embeds else {"max_tokens": 5, "temperature": 0},
            ).run()
        bodies = {request.path: request.body for request in fake.requests if request.path != "/api/v1/models"}
    prompt = "2 lines {on} the sea"
    assert bodies["/v1/chat/completions"]["messages"] == [
        {"role": "system", "content": "Rhyme."},
        {"role": "user", "content": prompt},
    ]
    assert (bodies["/v1/responses"]["input"], bodies["/v1/responses"]["instructions"]) == (prompt, "Rhyme.")
    assert bodies["/v1/responses"]["max_output_tokens"] == 5
    assert (bodies["/v1/messages"]["system"], bodies["/v1/messages"]["max_tokens"]) == ("Rhyme.", 5)
    assert bodies["/v1/completions"]["prompt"] == prompt
    assert bodies["/v1/embeddings"]["input"] == prompt


FAULTY = [
    ("not json", "not JSON"),
    ("[1]", "not a JSON object"),
    ('{"a": 1}', "no `body`, `messages`, `prompt` or `input`"),
    ('{"body": 3}', "`body` is not a JSON object"),
    ('{"method": "GET", "body": {}}', "`method` is 'GET'"),
    ('{"url": "/v1/models", "body": {}}', "not an endpoint for batches"),
    ('{"url": 3, "body": {}}', "`url` is not a string"),
    ('{"messages": []}', "not a list of message objects"),
    ('{"prompt": 3}', "`prompt` is not a string"),
    ('{"prompt": "x", "model": 3}', "`model` is not a string"),
    ("\udcff", "not JSON"),
    ("[" * 100_000, "not JSON"),
]


def test_faulty_lines_are_error_rows(tmp_path: Path) -> None:
    """Each faulty line is an error row with its number; the others are answered, and blank lines are no rows."""
    lines = ["", *(line for line, _ in FAULTY), json.dumps(chat_row(1, "good"))]
    (tmp_path / "in.jsonl").write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    with answering_fake() as fake:
        summary = fake.client().batch(tmp_path / "in.jsonl", out=tmp_path / "out.jsonl").run()
    assert (summary.rows, summary.answered, summary.failed) == (len(FAULTY) + 1, 1, len(FAULTY))
    *failed, good = read_lines(tmp_path / "out.jsonl")
    assert good["error"] is None
    for number, (line, (_, words)) in enumerate(zip(failed, FAULTY, strict=True), 2):
        assert line["error"]["code"] == "invalid_row"
        assert line["error"]["line"] == number
        assert words in line["error"]["message"]
        assert line["response"] is None


def test_a_faulty_csv_row_affects_no_other(tmp_path: Path) -> None:
    data = 'prompt,style\ngood,a\ntoo,many,values\n"bad \udcff bytes",a\n,empty\nlast,b\n'
    (tmp_path / "in.csv").write_bytes(data.encode("utf-8", "surrogateescape"))
    with answering_fake() as fake:
        fake.client().batch(
            tmp_path / "in.csv", out=tmp_path / "out.jsonl", template="{prompt} {style}", model=DEFAULT_MODEL
        ).run()
    assert errors_of(tmp_path / "out.jsonl") == [None, "invalid_row", "invalid_row", "invalid_row", None]


def test_parquet_values_without_a_form_in_json(tmp_path: Path) -> None:
    """Dates and decimals are text in a prompt; bytes, text that is not UTF-8 and nothing cost only their own row."""
    day, broken = datetime(2026, 11, 25, 8, 30, tzinfo=UTC), pa.array([b"fine", b"\xff"]).buffers()
    columns: list[tuple[str, Any, list[str | None]]] = [
        ("date", [day, None], [f"answer to Say {day}", None]),
        ("decimal", [Decimal("1.50"), Decimal(2)], ["answer to Say 1.50", "answer to Say 2.00"]),
        ("bytes", [b"abc", b"\xff"], ["answer to Say abc", None]),
        ("list", [[day], []], [f'answer to Say ["{day}"]', "answer to Say []"]),
        ("text", pa.Array.from_buffers(pa.string(), 2, broken), ["answer to Say fine", None]),
    ]
    with answering_fake() as fake:
        for name, values, expected in columns:
            source = tmp_path / f"{name}.parquet"
            parquet.write_table(pa.table({"x": values, "id": [b"a", b"b"]}), source)
            out = tmp_path / f"{name}.jsonl"
            job = fake.client().batch(source, out=out, template="Say {x}", model=DEFAULT_MODEL)
            job.run()
            assert errors_of(out) == [None if text else "invalid_row" for text in expected], name
            found = list(job.results())
            assert found[0].custom_id == "a"
            assert [row.reply.content if isinstance(row.reply, Reply) else None for row in found] == expected


def test_utf_16_is_reported(tmp_path: Path) -> None:
    """Some editors and shells of Windows write it."""
    for name in ("in.jsonl", "in.csv"):
        (tmp_path / name).write_text('{"prompt": "a"}\n', encoding="utf-16")
        with answering_fake() as fake, pytest.raises(ConfigurationError, match=r"is UTF-16\. Save it as UTF-8"):
            fake.client().batch(tmp_path / name, out=tmp_path / "out.jsonl", model=DEFAULT_MODEL).run()


@pytest.mark.parametrize("temperature", [None, 0, 0.8])
def test_equal_requests_are_sent_once(tmp_path: Path, temperature: float | None) -> None:
    """The order of keys does not matter; requests with a temperature or `dedupe=False` are each sent."""
    options = {} if temperature is None else {"temperature": temperature}
    rows = [chat_row(0, "a", **options), chat_row(1, "b", **options)]
    turned = {
        **chat_row(2, "a"),
        "body": dict(reversed({**chat_row(2, "a", **options)["body"], "stream": True}.items())),
    }
    source = write_lines(tmp_path / "in.jsonl", [*rows, turned])
    with answering_fake() as fake:
        fake.client().batch(source, out=tmp_path / "shared.jsonl").run()
        assert asked(fake) == {"a": 2 if temperature else 1, "b": 1}
        fake.requests.clear()
        fake.client().batch(source, out=tmp_path / "each.jsonl", dedupe=False).run()
        assert asked(fake) == {"a": 2, "b": 1}
    assert contents(tmp_path / "shared.jsonl") == contents(tmp_path / "each.jsonl")


def test_failures_are_retried_or_final(tmp_path: Path) -> None:
    """What may pass is asked again, what cannot is not; `retry_failed` asks the failed rows of an ended batch."""
    source = write_lines(tmp_path / "in.jsonl", [chat_row(number, text) for number, text in enumerate("abc")])
    with FakeLMStudio(cuts=False) as fake:
        fake.when(lambda r: r.last_user == "a").fail("server_error").fail("server_error").reply("at last")
        fake.when(lambda r: r.last_user == "b").error(400, "Invalid request: no such thing").reply("second run")
        fake.when(lambda r: r.last_user == "c").fail("empty_reply").fail("empty_reply").reply("second run")
        lm = fake.client(retry_attempts=1)
        job = lm.batch(source, out=tmp_path / "out.jsonl")
        summary = job.run()
        assert (summary.answered, summary.failed) == (1, 2)
        assert asked(fake) == {"a": 3, "b": 1, "c": 2}
        _, refused, empty = read_lines(tmp_path / "out.jsonl")
        assert refused["response"]["status_code"] == 400
        assert "no such thing" in refused["error"]["message"]
        assert empty["error"]["code"] == "empty_reply"
        assert [row.error is None for row in job.results()] == [True, False, False]
        assert job.run().failed == 2
        assert job.run(retry_failed=True).is_complete
    assert contents(tmp_path / "out.jsonl") == ["at last", "second run", "second run"]


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (401, {"error": "Malformed LM Studio API token"}, AuthenticationError),
        (429, {"error": {"message": "The budget is used.", "code": "insufficient_quota"}}, RateLimitError),
    ],
)
def test_errors_that_stop_a_batch(tmp_path: Path, status: int, body: Any, error: type[Exception]) -> None:
    """The batch stops with the error, no row is lost, and it goes on later."""
    source = write_lines(tmp_path / "in.jsonl", [chat_row(number, f"{number}") for number in range(20)])
    with FakeLMStudio(cuts=False) as fake:
        fake.when(lambda _: True).error(status, "refused", body=body)
        with pytest.raises(error):
            fake.client(retry_attempts=1).batch(source, out=tmp_path / "out.jsonl").run()
        assert not (tmp_path / "out.jsonl").exists()
        fake.reset()
        fake.when(lambda _: True).reply("fine")
        assert fake.client().batch(source, out=tmp_path / "out.jsonl").run().is_complete


@pytest.mark.parametrize("status", [429, 503])
def test_an_overloaded_server_uses_no_attempt(tmp_path: Path, status: int) -> None:
    """It says when to come again, and the row waits that long."""
    source = write_lines(tmp_path / "in.jsonl", [chat_row(number, f"{number}") for number in range(6)])
    busy = {"error": {"message": "busy", "code": "queue_full"}}
    with FakeLMStudio(cuts=False) as fake:
        rule = fake.when(lambda _: True)
        for _ in range(8):
            rule.body(busy, status=status, headers={"retry-after": "0.01"})
        rule.reply("at last")
        job = fake.client(retry_attempts=1).batch(source, out=tmp_path / "out.jsonl", attempts=1)
        assert job.run().is_complete


def test_no_host_answers(tmp_path: Path) -> None:
    """An unreachable host at the start is an error at once."""
    source = write_lines(tmp_path / "in.jsonl", [chat_row(0, "a")])
    with pytest.raises(ServerUnreachableError):
        LMStudio(base_url="http://127.0.0.1:1", retry_attempts=1).batch(source, out=tmp_path / "out.jsonl").run()


def test_the_schema_is_sent_and_checked(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    source = write_lines(tmp_path / "in.jsonl", [{"prompt": "good"}, {"prompt": "bad"}])
    with FakeLMStudio(cuts=False) as fake:
        fake.when(lambda r: r.last_user == "good").reply('Here: ```json\n{"n": 1}\n```')
        fake.when(lambda r: r.last_user == "bad").reply('{"n": "x"}')
        job = fake.client().batch(source, out=tmp_path / "out.jsonl", schema=schema, model=DEFAULT_MODEL)
        job.run()
        sent = [request.body for request in fake.requests if request.wants_answer]
    assert all(body["response_format"]["json_schema"]["schema"] == schema for body in sent)
    good, bad = job.results()
    assert isinstance(good.reply, Reply)
    assert json.loads(good.reply.content) == {"n": 1}
    assert bad.error is not None
    assert bad.error.code == "structured_output"


def test_rows_of_one_model_are_sent_together(tmp_path: Path) -> None:
    """A host does not swap models, whatever the order in the file; two hosts take different ones."""
    rows = [chat_row(number, f"{number}", model=f"model-{number % 3}") for number in range(30)]
    source = write_lines(tmp_path / "in.jsonl", rows)
    with answering_fake() as fake:
        for number in range(3):
            fake.add_model(f"model-{number}", loaded=True)
        fake.client().batch(source, out=tmp_path / "out.jsonl", max_concurrency=2).run()
        models = [request.body["model"] for request in fake.requests if request.wants_answer]
    assert models == sorted(models)
    assert len(models) == 30


def test_a_row_is_sent_to_a_host_of_its_model(tmp_path: Path) -> None:
    rows = [chat_row(number, f"{number}", model=f"model-{number % 2}") for number in range(20)]
    source = write_lines(tmp_path / "in.jsonl", rows)
    with answering_fake() as one, answering_fake() as other:
        one.add_model("model-0", loaded=True)
        other.add_model("model-1", loaded=True)
        hosts = [one.base_url, other.base_url]
        assert one.client().batch(source, out=tmp_path / "out.jsonl", hosts=hosts).run().is_complete
        for fake, model in ((one, "model-0"), (other, "model-1")):
            assert {request.body["model"] for request in fake.requests if request.wants_answer} == {model}


def test_rows_that_name_no_model_get_a_loaded_one(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [{"prompt": "a"}, {"url": "/v1/embeddings", "body": {"input": "b"}}])
    with answering_fake() as fake:
        assert fake.client().batch(source, out=tmp_path / "out.jsonl").run().is_complete
        models = {request.path: request.body["model"] for request in fake.requests if request.method == "POST"}
    assert models == {"/v1/chat/completions": DEFAULT_MODEL, "/v1/embeddings": DEFAULT_EMBEDDING_MODEL}


def test_a_changed_input_or_other_options_are_noticed(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [{"prompt": "a"}])
    with answering_fake() as fake:
        lm = fake.client()
        lm.batch(source, out=tmp_path / "out.jsonl").run()
        with pytest.raises(ConfigurationError, match="other options"):
            lm.batch(source, out=tmp_path / "out.jsonl", system="Rhyme.").run()
        write_lines(source, [{"prompt": "b"}])
        with pytest.raises(ConfigurationError, match="another input"):
            lm.batch(source, out=tmp_path / "out.jsonl").run()
        source.unlink()
        assert lm.batch(source, out=tmp_path / "out.jsonl").run().is_complete  # the ledger has it all


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"out": "out.txt"}, "known ending"),
        ({"endpoint": "/v1/models"}, "not an endpoint"),
        ({"schema": {"type": 3}}, "not a JSON Schema"),
        ({"schema": {}, "endpoint": "/v1/embeddings"}, "does not support structured output"),
        ({"attempts": 0}, "must be at least 1"),
    ],
)
def test_wrong_arguments_are_errors_at_once(tmp_path: Path, arguments: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        LMStudio().batch(tmp_path / "in.jsonl", **{"out": tmp_path / "out.jsonl", **arguments})


@pytest.mark.parametrize("name", ["missing.jsonl", "in.txt", "in.parquet"])
def test_an_input_that_cannot_be_read_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "in.txt").write_text("x")
    (tmp_path / "in.parquet").write_text("x")
    with pytest.raises(ConfigurationError):
        LMStudio().batch(tmp_path / name, out=tmp_path / "out.jsonl").run()


def test_a_file_that_is_no_ledger_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "ledger").write_text("some other file, and long enough to be looked at as a database" * 99)
    source = write_lines(tmp_path / "in.jsonl", [{"prompt": "a"}])
    with pytest.raises(ConfigurationError, match="not the ledger"):
        LMStudio().batch(source, out=tmp_path / "out.jsonl", ledger=tmp_path / "ledger").run()
    with pytest.raises(ConfigurationError, match="There is no ledger"):
        next(LMStudio().batch(source, out=tmp_path / "out.jsonl").results())


def test_progress_is_reported(tmp_path: Path) -> None:
    """Progress is reported from the first to the last row, per host, and as one line of text."""
    source = write_lines(tmp_path / "in.jsonl", [chat_row(number, f"{number}") for number in range(12)])
    seen: list[BatchProgress] = []
    with answering_fake() as fake:
        summary = fake.client().batch(source, out=tmp_path / "out.jsonl").run(seen.append)
        host = fake.base_url
    assert seen[-1].state == "writing"
    assert (seen[-1].rows, seen[-1].answered, seen[-1].failed, seen[-1].error_share) == (12, 12, 0, 0.0)
    assert [(each.name, each.answered) for each in seen[-1].hosts] == [(host, 12)]
    assert "12 of 12 rows" in str(seen[-1])
    assert summary.completion_tokens == sum(each.completion_tokens for each in seen[-1].hosts) > 0
    assert len(summary.slowest) == 5


async def test_the_async_client_runs_batches_too(tmp_path: Path) -> None:
    """It runs them in its own event loop; a sync batch may run inside of one, too."""
    source = write_lines(tmp_path / "in.jsonl", [chat_row(number, f"{number}") for number in range(5)])
    with answering_fake() as fake:
        async with AsyncLMStudio(base_url=fake.base_url) as lm:
            job = lm.batch(source, out=tmp_path / "out.jsonl")
            assert (await job.run()).is_complete
            assert [row.custom_id for row in job.results()] == [f"row {number}" for number in range(5)]
        assert fake.client().batch(source, out=tmp_path / "sync.jsonl").run().is_complete
    assert contents(tmp_path / "out.jsonl") == contents(tmp_path / "sync.jsonl")


def test_a_cancelled_batch_ends_and_can_be_resumed(tmp_path: Path) -> None:
    """What ran is answered, the rest are error rows; `run` takes it up again."""
    source = write_lines(tmp_path / "in.jsonl", [chat_row(number, f"{number}") for number in range(40)])
    with answering_fake() as fake:
        held, go_on = threading.Event(), threading.Event()

        def hold(request: Any) -> None:
            if request.wants_answer and len(fake.requests) > 10:
                held.set()
                go_on.wait(30)

        fake.on_request(hold)
        job = fake.client().batch(source, out=tmp_path / "out.jsonl", max_concurrency=2)
        ended: list[Any] = []
        running = threading.Thread(target=lambda: ended.append(job.run()))
        running.start()
        held.wait(60)
        job.cancel()
        go_on.set()
        running.join(120)
        codes = errors_of(tmp_path / "out.jsonl")
        assert ended[0].answered == codes.count(None) < 40
        assert set(codes) == {None, "batch_cancelled"}
        assert job.progress().state == "finished"
        assert job.run().is_complete
        assert max(asked(fake).values()) == 1
