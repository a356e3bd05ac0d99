"""`lmdeck batch` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from batch_tools import BatchProcess, answering_fake, chat_row, read_lines, write_lines

import lmdeck.cli


@pytest.fixture(autouse=True)
def _a_wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("LMDECK_HOST", "LMDECK_PORT", "LMDECK_BASE_URL", "LMDECK_MODEL"):
        monkeypatch.delenv(name, raising=False)


def batch(*arguments: str | Path) -> int:
    return lmdeck.cli.run(["batch", *map(str, arguments)])


def test_a_batch_with_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One object a second, at last the summary; the exit code is 3 if there are error rows."""
    source = write_lines(tmp_path / "in.jsonl", [chat_row(0, "a"), "faulty", chat_row(2, "b")])
    with answering_fake() as fake:
        assert batch("run", source, "--out", tmp_path / "out.jsonl", "--host", fake.base_url, "--json") == 3
    *progress, summary = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {each["state"] for each in progress} <= {"running", "writing"}
    assert progress[-1]["answered"] == 2
    assert progress[-1]["error_share"] == 0.3333
    assert (summary["state"], summary["rows"], summary["answered"], summary["failed"]) == ("finished", 3, 2, 1)
    assert summary["failures"][0]["error"]["line"] == 2
    assert len(summary["slowest"]) == 2


def test_the_progress_of_a_batch_in_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A summary with the tokens, the slowest rows and the failed ones; a later run asks nothing again."""
    source = write_lines(tmp_path / "in.jsonl", [chat_row(0, "a"), "faulty"])
    with answering_fake() as fake:
        command = ("run", source, "--out", tmp_path / "out.jsonl", "--base-url", fake.base_url)
        assert batch(*command) == 3
        seen = capsys.readouterr()
        assert batch(*command) == 3
        assert sum(request.wants_answer for request in fake.requests) == 1
    assert "! 1 of 2 rows answered in" in seen.out
    assert "slowest: row 0 " in seen.out
    assert "✗ row-2 (line 2): The line is not JSON" in seen.out
    assert "of 2 rows" in seen.err


def test_the_options_of_a_batch(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("word,number\nsea,2\n")
    (tmp_path / "schema.json").write_text('{"type": "object"}')
    with answering_fake() as fake:
        fake.reset()
        fake.when(lambda _: True).reply("{}")
        options = ("--template", "{number} {word}", "--system", "Rhyme.", "--max-tokens", "7", "--temperature", "0.5")
        more = ("--model", "m", "--schema", tmp_path / "schema.json", "--no-dedupe", "--attempts", "1")
        out = tmp_path / "out.parquet"
        fake.add_model("m")
        assert batch("run", tmp_path / "in.csv", "--out", out, "--host", fake.base_url, *options, *more) == 0
        body = next(request.body for request in fake.requests if request.wants_answer)
    assert body["messages"] == [{"role": "system", "content": "Rhyme."}, {"role": "user", "content": "2 sea"}]
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("m", 7, 0.5)
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert out.read_bytes()[:4] == b"PAR1"


def test_status_and_cancel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both commands find a batch by its output or its ledger."""
    source = write_lines(tmp_path / "in.jsonl", [chat_row(number, f"{number}") for number in range(3)])
    out, ledger = tmp_path / "out.jsonl", tmp_path / "out.jsonl.ledger"
    with answering_fake() as fake:
        assert batch("run", source, "--out", out, "--host", fake.base_url) == 0
        capsys.readouterr()
        for named in ((out,), ("--out", out), (ledger,), ("--ledger", ledger)):
            assert batch("status", *named, "--json") == 0
            progress = json.loads(capsys.readouterr().out)
            assert (progress["state"], progress["rows"], progress["answered"]) == ("finished", 3, 3)
        assert batch("status", out) == 0
        shown = capsys.readouterr().out
        assert "3 of 3 rows" in shown
        assert fake.base_url in shown
        assert batch("cancel", out) == 0
        assert "3 of 3 rows had ended" in capsys.readouterr().out
    assert len(read_lines(out)) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("status",), "No batch was named"),
        (("status", "missing"), "There is no ledger"),
        (("run", "missing.jsonl", "--out", "out.jsonl"), "missing.jsonl cannot be read"),
        (("run", "in.jsonl", "--out", "out.txt"), "known ending"),
        (("run", "in.jsonl", "--out", "out.jsonl", "--schema", "missing"), "missing cannot be read"),
        (("run", "in.jsonl", "--out", "out.jsonl", "--schema", "in.jsonl"), "is not JSON"),
    ],
)
def test_wrong_input_is_one_line_and_a_hint(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text("x\n")
    assert batch(*arguments) == 2
    assert words in capsys.readouterr().err


def test_no_server_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [chat_row(0, "a")])
    done = BatchProcess("run", source, "--out", tmp_path / "out.jsonl", "--host", "127.0.0.1:1").finish()
    assert done.returncode == 1
    assert "lms server start" in done.stderr
